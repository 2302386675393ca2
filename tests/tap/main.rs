//! What a tap reports of a connection: recorded sessions at any cut, sessions of this library through a pipe, and bytes
//! that it cannot follow.
//!
//! Holds helpers that read the events. Time is virtual and passes only while no task can run.

#![allow(clippy::unwrap_used)]

mod captures;
mod faults;
mod sessions;

use std::ops::ControlFlow;

use bytes::Bytes;
use kubestream::mux::Config;
use kubestream::status::{ExitStatus, TerminalSize};
use kubestream::tap::{Side, StreamName as Name, Tap, TapEvent as Event};
use kubestream::upgrade::Protocol;
use kubestream_proxy::Observer;

/// All events of a tap, with adjacent DATA of one stream joined.
#[derive(Debug, Default)]
struct Told(Vec<Event>);

impl Told {
    fn take(&mut self, tap: &mut Tap) {
        while let Some(event) = tap.poll_event() {
            // A size or a status is reported with its last byte, before any further bytes of the stream.
            let read = |event: &&mut Event| matches!(event, Event::Resize(_) | Event::Status(_));
            match (self.0.iter_mut().rev().find(|event| !read(event)), event) {
                (Some(Event::Data { side, stream, data }), Event::Data { side: same, stream: one, data: more })
                    if *side == same && *stream == one =>
                {
                    *data = [&data[..], &more[..]].concat().into();
                }
                (_, event) => self.0.push(event),
            }
        }
    }

    fn data(&self, side: Side, name: &Name) -> Vec<u8> {
        let of = |event: &Event| match event {
            Event::Data { side: said, stream, data } if *said == side && stream.name == *name => data.to_vec(),
            _ => Vec::new(),
        };
        self.0.iter().flat_map(of).collect()
    }

    fn ends(&self, side: Side, name: &Name) -> usize {
        let of = |event: &&Event| matches!(event, Event::End { side: said, stream, .. } if *said == side && stream.name == *name);
        self.0.iter().filter(of).count()
    }

    fn sizes(&self) -> Vec<TerminalSize> {
        self.0
            .iter()
            .filter_map(|event| if let Event::Resize(size) = event { Some(*size.as_ref().unwrap()) } else { None })
            .collect()
    }

    fn statuses(&self) -> Vec<ExitStatus> {
        let of = |event: &Event| if let Event::Status(status) = event { Some(status.clone().unwrap()) } else { None };
        self.0.iter().filter_map(of).collect()
    }

    fn faults(&self) -> Vec<(Side, String)> {
        let of = |event: &Event| match event {
            Event::Fault { side, error } => Some((*side, error.to_string())),
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    /// The events as text, because IO errors cannot be compared; none occur here.
    fn text(&self) -> Vec<String> {
        self.0.iter().map(|event| format!("{event:?}")).collect()
    }
}

/// The events of these bytes, each fed in pieces of these sizes in turn. Both sides end.
fn told(protocol: Protocol, ports: &[u16], said: &[(Side, Bytes)], cuts: &[usize]) -> Told {
    let (mut tap, mut told) = (Tap::new(protocol, ports, &Config::default()), Told::default());
    let mut sizes = cuts.iter().map(|size| size % 600 + 1).cycle();
    for (side, bytes) in said {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(sizes.next().unwrap_or(usize::MAX).min(rest.len()));
            tap.feed(*side, piece);
            told.take(&mut tap);
        }
    }
    for side in [Side::Client, Side::Server] {
        tap.end(side);
        told.take(&mut tap);
    }
    told
}

/// Feeds a tap with what passes through a pipe.
struct Watcher {
    tap: Tap,
    told: Told,
}

impl Watcher {
    fn new(protocol: Protocol, ports: &[u16]) -> Self {
        Self { tap: Tap::new(protocol, ports, &Config::default()), told: Told::default() }
    }
}

impl Observer for Watcher {
    fn observe(&mut self, side: Side, bytes: &Bytes) -> ControlFlow<()> {
        self.tap.feed(side, bytes.clone());
        self.told.take(&mut self.tap);
        ControlFlow::Continue(())
    }

    fn end(&mut self, side: Side) {
        self.tap.end(side);
        self.told.take(&mut self.tap);
    }
}
