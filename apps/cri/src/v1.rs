//! The messages and services of CRI v1, which `build.rs` generates from `proto/api.proto`.
//!
//! All code here is generated.

#![allow(clippy::all, dead_code, unreachable_pub, unused_qualifications, elided_lifetimes_in_paths)]

tonic::include_proto!("runtime.v1");
