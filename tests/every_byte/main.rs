//! Small sessions over a connection that fails at every byte in turn, with every kind of fault and over every
//! transport. Each end gets either everything that was sent to it or a typed error, soon. Nothing panics, and nothing
//! is left.
//!
//! Decides where the connection fails, and what is right then. Time is virtual and passes only while no task can run.
//! By default the rarer faults are tried at some places only; `KUBESTREAM_EVERY=1` tries all.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod sweep;

use kubestream::exec::Streams;
use kubestream::protocol::Subprotocol;
use kubestream::status::ExitStatus;
use kubestream::upgrade::{Protocol, Version};
use support::memory::{ALLOCATOR, Counting};
use support::sessions::{Through, What};
use sweep::{Case, sweep};

#[global_allocator]
static GLOBAL: &Counting = ALLOCATOR;

const SPDY: [Protocol; 4] = [
    Protocol::SpdyExec(Version::V1),
    Protocol::SpdyExec(Version::V2),
    Protocol::SpdyExec(Version::V3),
    Protocol::SpdyExec(Version::V4),
];
const WEBSOCKET: [Protocol; 6] = [
    Protocol::WebSocketExec(Subprotocol::Unnamed),
    Protocol::WebSocketExec(Subprotocol::V1),
    Protocol::WebSocketExec(Subprotocol::V1Base64),
    Protocol::WebSocketExec(Subprotocol::V4),
    Protocol::WebSocketExec(Subprotocol::V4Base64),
    Protocol::WebSocketExec(Subprotocol::V5),
];
const PORT_FORWARD: [Protocol; 5] = [
    Protocol::SpdyPortForward,
    Protocol::TunneledPortForward,
    Protocol::LegacyPortForward(Subprotocol::V4),
    Protocol::LegacyPortForward(Subprotocol::V4Base64),
    Protocol::LegacyPortForward(Subprotocol::Unnamed),
];

fn all(what: &What, protocols: &[Protocol], through: Through) {
    for (place, protocol) in protocols.iter().enumerate() {
        sweep(&Case { what: what.clone(), protocol: *protocol, through, place });
    }
}

#[test]
fn a_command_over_spdy() {
    all(&What::Exec(Streams::PIPES, ExitStatus::Code(127)), &SPDY, Through::Nothing);
}

#[test]
fn a_command_over_websocket() {
    all(&What::Exec(Streams::PIPES, ExitStatus::Code(127)), &WEBSOCKET, Through::Nothing);
}

#[test]
fn a_terminal() {
    let terminal = What::Exec(Streams::TTY, ExitStatus::Success);
    all(&terminal, &[SPDY[2], SPDY[3], WEBSOCKET[3], WEBSOCKET[5]], Through::Nothing);
}

/// Before v4 only silence tells success.
#[test]
fn outputs_that_end_in_success() {
    let outputs = What::Exec(Streams::OUTPUT, ExitStatus::Success);
    all(&outputs, &SPDY, Through::Nothing);
    all(&outputs, &[WEBSOCKET[1], WEBSOCKET[5]], Through::Nothing);
}

#[test]
fn port_forward() {
    all(&What::Forward, &PORT_FORWARD, Through::Nothing);
}

#[test]
fn attach_from_its_request_on() {
    let attached = What::Exec(Streams::PIPES, ExitStatus::Code(127));
    all(&attached, &[SPDY[3], WEBSOCKET[5]], Through::Streaming);
}

#[test]
fn port_forward_from_its_request_on() {
    all(&What::Forward, &PORT_FORWARD[..1], Through::Handshake);
    all(&What::Forward, &PORT_FORWARD[..3], Through::Streaming);
}

#[test]
fn port_forward_through_a_pipe() {
    all(&What::Forward, &PORT_FORWARD[..2], Through::Pipe);
}

#[test]
fn a_command_through_a_pipe() {
    all(&What::Exec(Streams::PIPES, ExitStatus::Code(127)), &[SPDY[3], WEBSOCKET[5]], Through::Pipe);
}

#[test]
fn a_command_that_is_translated() {
    let command = What::Exec(Streams::PIPES, ExitStatus::Code(127));
    for (from, to) in
        [(WEBSOCKET[5], SPDY[3]), (SPDY[3], WEBSOCKET[5]), (WEBSOCKET[3], SPDY[3]), (WEBSOCKET[5], SPDY[0])]
    {
        all(&command, &[from], Through::Translator(to));
    }
}

#[test]
fn port_forward_that_is_translated() {
    for (from, to) in [
        (Protocol::TunneledPortForward, Protocol::SpdyPortForward),
        (Protocol::SpdyPortForward, Protocol::TunneledPortForward),
    ] {
        all(&What::Forward, &[from], Through::Translator(to));
    }
}
