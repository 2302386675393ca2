//! Two SPDY connections under random configurations and operations, with bytes cut at random and time passing.
//!
//! Chooses what is tried. The model in `support/src/model.rs` says what must hold.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::time::Duration;

use kubestream::mux::{Config, FlowControl};
use quickcheck::{Arbitrary, Gen};
use support::connection::config;
use support::model::{Operation, Setup};

/// An operation that quickcheck chooses.
#[derive(Clone, Debug)]
struct Chosen(Operation);

impl Arbitrary for Chosen {
    fn arbitrary(g: &mut Gen) -> Self {
        let (server, stream) = (bool::arbitrary(g), u8::arbitrary(g));
        let mut len = || u32::arbitrary(g) >> (12 + u8::arbitrary(g) % 20);
        let len = len();
        Self(match u8::arbitrary(g) % 64 {
            0..5 => Operation::Open { server },
            5..9 => Operation::Accept { server },
            9 => Operation::Refuse { server },
            10..20 => Operation::Write { server, stream, len },
            20..24 => Operation::WriteSlice { server, stream, len },
            24..34 => Operation::Read { server, stream, pieces: u8::arbitrary(g) % 8 },
            34..37 => Operation::Finish { server, stream },
            37 => Operation::Reset { server, stream },
            38 => Operation::Discard { server, stream },
            39 => Operation::Release { server, stream },
            40 => Operation::Prioritise { server, stream, priority: u8::arbitrary(g) },
            41 => Operation::Ping { server },
            42 => Operation::AllowStreams { server, max: u8::arbitrary(g) % 10 + 1 },
            // Only sometimes, because what comes after it is another kind of run.
            43 if u8::arbitrary(g) % 16 == 0 => Operation::GoAway { server },
            43..52 => Operation::Send { server, frames: u8::arbitrary(g) },
            52..61 => Operation::Deliver { server, bytes: u16::arbitrary(g) >> (u8::arbitrary(g) % 16) },
            61..63 => Operation::Pass { milliseconds: u16::arbitrary(g) / 4 },
            _ => Operation::Trim { server },
        })
    }
}

/// All events of two connections, chosen by quickcheck.
#[derive(Clone, Debug)]
struct Run(Setup);

impl Arbitrary for Run {
    fn arbitrary(g: &mut Gen) -> Self {
        let modes = [FlowControl::Auto, FlowControl::Auto, FlowControl::Strict, FlowControl::Off];
        let (mut client, mut server) = (any_config(g), any_config(g));
        client.spdy.flow_control = *g.choose(&modes).unwrap();
        server.spdy.flow_control = *g.choose(&modes).unwrap();
        let operations = Vec::arbitrary(g).into_iter().map(|Chosen(operation)| operation).collect();
        Self(Setup::new(client, server, operations))
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let Setup { client, server, operations } = self.0.clone();
        let operations: Vec<Chosen> = operations.into_iter().map(Chosen).collect();
        Box::new(operations.shrink().map(move |operations| {
            let operations = operations.into_iter().map(|Chosen(operation)| operation).collect();
            Self(Setup { client: client.clone(), server: server.clone(), operations })
        }))
    }
}

fn any_config(g: &mut Gen) -> Config {
    config(|config| {
        config.spdy.compress_headers = *g.choose(&[true, false]).unwrap();
        config.max_data_frame = *g.choose(&[0, 1, 7, 1000, 32 * 1024]).unwrap();
        config.send_buffer = *g.choose(&[1, 500, 10_000, 256 * 1024]).unwrap();
        config.stream_receive_budget = *g.choose(&[0, 1, 300, 10_000, 64 * 1024, 100_000]).unwrap();
        config.spdy.max_window_growth = *g.choose(&[0, 5000, 1024 * 1024, 32 * 1024 * 1024]).unwrap();
        config.spdy.max_stream_window = *g.choose(&[0, 100_000, 28 * 1024 * 1024]).unwrap();
        config.receive_budget = *g.choose(&[0, 1000, 100_000, 1024 * 1024]).unwrap();
        config.spdy.max_streams = *g.choose(&[1, 3, 16, 1024]).unwrap();
        config.spdy.max_settings_frames = u32::MAX;
        config.keepalive_interval = *g.choose(&[None, Some(Duration::from_secs(30))]).unwrap();
        config.idle_timeout = None;
    })
}

#[test]
fn bytes_come_in_order_and_all_and_nothing_is_left_behind() {
    fn property(Run(setup): Run) {
        setup.run();
    }
    quickcheck::quickcheck(property as fn(Run));
}
