//! Proxies for `kubectl exec`, `attach` and `port-forward`: the middle of the chain, between a client and a backend.
//!
//! - [`forward`] passes a client's upgrade on to a backend and returns a [`Pipe`], which moves the bytes both ways,
//!   untouched.
//! - An [`Observer`] of a pipe gets its bytes. It can feed a [`Tap`](kubestream::tap::Tap), which reports what they
//!   mean: streams, terminal sizes and how the command ended. The tap is part of `kubestream`, and [`tap`] is only
//!   another path to it.
//! - [`translate_exec`] and [`translate_port_forward`] connect a client and a backend that speak different protocols,
//!   such as WebSocket on one side and SPDY on the other. [`translate_exec_until`] can end a session, and tells the
//!   client why.
//! - [`PodRequest`] turns a request in the form of the kube-apiserver's API into the kubelet's.
//!
//! This crate does not dial, authenticate, authorise or rewrite a request. The caller chooses and dials the backend,
//! decides whether the client may make the request, and changes the request.
//!
//! ```no_run
//! use kubestream::upgrade;
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:8001").await?;
//! let (client, _) = listener.accept().await?;
//! let pending = upgrade::accept(client, &upgrade::Config::default()).await?;
//! // Here the caller authenticates the client and authorises the request: with the verb `create`, whatever the method is.
//! let mut request = pending.to_pass_on();
//! request.headers_mut().insert("authorization", "Bearer t0ken".parse()?);
//! let backend = TcpStream::connect("127.0.0.1:10250").await?;
//! let pipe = kubestream_proxy::forward(pending, backend, request).await?;
//! let outcome = pipe.run().await;
//! println!("{} bytes to the client", outcome.to_client);
//! # Ok(())
//! # }
//! ```
//!
//! To know what passes through a pipe, feed its bytes to a [`Tap`](kubestream::tap::Tap):
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use bytes::Bytes;
//! use kubestream::mux::Config;
//! use kubestream::tap::{Side, Tap, TapEvent};
//! use kubestream_proxy::{Operation, Pipe};
//! use tokio::net::TcpStream;
//!
//! # async fn watched(pipe: Pipe<TcpStream, TcpStream>) -> Result<(), Box<dyn std::error::Error>> {
//! // `PodRequest` has the operation that the client asked for.
//! let protocol = pipe.settled(Operation::Exec).ok_or("not a protocol that a tap reads")?;
//! let mut tap = Tap::new(protocol, &[], &Config::default());
//! let mut audit = |side: Side, bytes: &Bytes| {
//!     tap.feed(side, bytes.clone());
//!     while let Some(event) = tap.poll_event() {
//!         match event {
//!             TapEvent::Status(status) => println!("the command has ended: {status:?}"),
//!             // From here on the tap reports nothing more of this side.
//!             TapEvent::Fault { .. } => return ControlFlow::Break(()),
//!             _ => {}
//!         }
//!     }
//!     ControlFlow::Continue(())
//! };
//! let outcome = pipe.run_with(&mut audit).await;
//! println!("{} bytes to the client", outcome.to_client);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
// Nearly all of this code touches bytes that a peer has sent.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(not(test), deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented))]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod copy;
mod hop;
mod observe;
mod pipe;
mod pod_request;
mod run;
#[cfg(all(target_os = "linux", feature = "net"))]
mod splice;
mod translate;
mod unconfirmed;

#[doc(no_inline)]
pub use kubestream::tap::{self, Side};
pub use observe::Observer;
pub use pipe::{IDLE_TIMEOUT, LINGER, Pipe, TAIL_TIMEOUT, forward};
pub use pod_request::{Operation, PodRequest, PodRequestError};
pub use run::PipeOutcome;
pub use translate::{TranslateError, translate_exec, translate_exec_until, translate_port_forward};

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
