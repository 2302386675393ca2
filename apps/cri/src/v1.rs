//! The messages and services of CRI v1, as `build.rs` makes them from `proto/api.proto`.
//!
//! Owns no code: what is here is generated.

#![allow(clippy::all, dead_code, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]

tonic::include_proto!("runtime.v1");
