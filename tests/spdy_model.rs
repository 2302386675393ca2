//! Two SPDY connections under random configurations, operations, splits of the bytes and passing of time.
//!
//! Owns what is tried. What must hold is the model's, in `spdy_model/world.rs`.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;
#[path = "spdy_model/world.rs"]
mod world;

use std::time::Duration;

use common::config;
use kubestream::spdy::{Config, FlowControl, HeaderCompression};
use quickcheck::{Arbitrary, Gen};
use world::{Operation, Setup};

impl Arbitrary for Operation {
    fn arbitrary(g: &mut Gen) -> Self {
        let (server, stream) = (bool::arbitrary(g), u8::arbitrary(g));
        let mut len = || u32::arbitrary(g) >> (12 + u8::arbitrary(g) % 20);
        let len = len();
        match u8::arbitrary(g) % 64 {
            0..5 => Self::Open { server },
            5..9 => Self::Accept { server },
            9 => Self::Refuse { server },
            10..20 => Self::Write { server, stream, len },
            20..24 => Self::WriteSlice { server, stream, len },
            24..34 => Self::Read { server, stream, pieces: u8::arbitrary(g) % 8 },
            34..37 => Self::Finish { server, stream },
            37 => Self::Reset { server, stream },
            38 => Self::Discard { server, stream },
            39 => Self::Release { server, stream },
            40 => Self::Prioritise { server, stream, priority: u8::arbitrary(g) },
            41 => Self::Ping { server },
            42 => Self::AllowStreams { server, max: u8::arbitrary(g) % 10 + 1 },
            // Now and then: what comes after it is another kind of run.
            43 if u8::arbitrary(g) % 16 == 0 => Self::GoAway { server },
            43..52 => Self::Send { server, frames: u8::arbitrary(g) },
            52..61 => Self::Deliver { server, bytes: u16::arbitrary(g) >> (u8::arbitrary(g) % 16) },
            61..63 => Self::Pass { milliseconds: u16::arbitrary(g) / 4 },
            _ => Self::Trim { server },
        }
    }
}

impl Arbitrary for Setup {
    fn arbitrary(g: &mut Gen) -> Self {
        let modes = [FlowControl::Auto, FlowControl::Auto, FlowControl::Strict, FlowControl::Off];
        let (mut client, mut server) = (any_config(g), any_config(g));
        client.flow_control = *g.choose(&modes).unwrap();
        server.flow_control = *g.choose(&modes).unwrap();
        Self::new(client, server, Vec::arbitrary(g))
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let (client, server) = (self.client.clone(), self.server.clone());
        Box::new(self.operations.shrink().map(move |operations| Self {
            client: client.clone(),
            server: server.clone(),
            operations,
        }))
    }
}

fn any_config(g: &mut Gen) -> Config {
    config(|config| {
        config.header_compression = *g.choose(&[HeaderCompression::Deflate, HeaderCompression::Stored]).unwrap();
        config.max_data_frame = *g.choose(&[0, 1, 7, 1000, 32 * 1024]).unwrap();
        config.send_buffer = *g.choose(&[1, 500, 10_000, 256 * 1024]).unwrap();
        config.stream_receive_budget = *g.choose(&[0, 1, 300, 10_000, 64 * 1024, 100_000]).unwrap();
        config.receive_budget = *g.choose(&[0, 1000, 100_000, 1024 * 1024]).unwrap();
        config.limits.max_streams = *g.choose(&[1, 3, 16, 1024]).unwrap();
        config.limits.max_settings_frames = u32::MAX;
        config.keepalive_interval = *g.choose(&[None, Some(Duration::from_secs(30))]).unwrap();
        config.idle_timeout = None;
    })
}

#[test]
fn bytes_come_in_order_and_all_and_nothing_is_left_behind() {
    fn property(setup: Setup) {
        setup.run();
    }
    quickcheck::quickcheck(property as fn(Setup));
}
