//! The interface through which a pipe moves bytes.
//!
//! This module owns the interface between [`Run`](crate::run::Run), which decides when a direction ends, and the ways
//! of moving bytes: [`Copying`](crate::copy::Copying), [`Watched`](crate::observe::Watched) and splicing. It must not
//! know any of them.

use std::io;
use std::task::{Context, Poll};

/// One way of moving bytes in one direction, from a source to a sink.
pub(crate) trait Hop<From, To> {
    /// Moves some bytes and returns how many. 0 means that the source has ended and everything it sent has been moved.
    fn poll_move(&mut self, from: &mut From, to: &mut To, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>>;

    /// Reads some bytes, drops them, and returns how many. 0 means that the source has ended.
    fn poll_discard(&mut self, from: &mut From, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Ends the sink's write side.
    fn poll_end(&mut self, to: &mut To, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Frees buffers. They are allocated again when they are needed.
    fn trim(&mut self);
}

/// Why moving bytes in a direction failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading the source failed.
    Source(io::Error),
    /// Writing the sink failed.
    Sink(io::Error),
    /// Neither failed: an observer stopped the pipe.
    Stop,
}
