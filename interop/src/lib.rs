//! The harness of the interop suite: starts and ends foreign peers, and generates the content of transfers.
//!
//! Ends every process that a test starts, at the latest with the test. It knows nothing of what a test expects.
//!
//! `interop/run` builds the peers and runs the suite. A missing peer fails its tests.

mod capture;
mod cri;
mod execute;
pub mod framers;
mod hop;
pub mod inputs;
pub mod matrix;
mod peer;
mod ports;
mod run;
mod scenario;
mod spoken;
mod terminal;
mod transfer;
mod transports;
mod windows;
mod wire;

pub use capture::{Capture, at_once, replay};
pub use cri::{Runtime, id};
pub use execute::execute;
pub use hop::{Gateway, Hop, Link, NARROW, narrow};
pub use peer::{Peer, app, asciinema, binary, java, java_client, kubectl, node_client, python_client};
pub use ports::{closed_port, echo};
pub use run::{Ended, Input, Scratch, gone, run, within, written};
pub use scenario::serve;
pub use spoken::Spoken;
pub use terminal::Terminal;
pub use transfer::{digest, pattern, read_all, read_pattern, send_pattern};
pub use windows::{Watched, Windows};
pub use wire::{Said, Side, Wire};

/// How many times a race is run: `KUBESTREAM_RUNS`, or `usual`.
#[must_use]
pub fn runs(usual: usize) -> usize {
    match std::env::var("KUBESTREAM_RUNS") {
        Ok(number) => number.parse().expect("KUBESTREAM_RUNS is a number"),
        Err(_) => usual,
    }
}
