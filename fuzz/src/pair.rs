//! Tests two connections against each other, in the model that `tests/spdy_model.rs` uses too.
//!
//! Reads operations from an input. The model says what must hold.

use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use kubestream::mux::{Config, FlowControl};

use support::model::{Operation, Setup};

/// Two connections, whatever their users do and however bytes and time pass: what one writes, the other reads, in order
/// and whole up to a reset. Neither finds that the other broke the protocol, no timer stays due, and at the end nothing
/// is left.
pub fn pair(input: &[u8]) {
    if let Ok(setup) = setup(&mut Unstructured::new(input)) {
        setup.run();
    }
}

fn setup(input: &mut Unstructured<'_>) -> Result<Setup> {
    let (client, server) = (config(input)?, config(input)?);
    let mut operations = Vec::new();
    while !input.is_empty() {
        operations.push(operation(input)?);
    }
    Ok(Setup::new(client, server, operations))
}

fn config(input: &mut Unstructured<'_>) -> Result<Config> {
    let mut config = Config::default();
    config.spdy.flow_control = *input.choose(&[FlowControl::Auto, FlowControl::Strict, FlowControl::Off])?;
    config.spdy.compress_headers = *input.choose(&[false, true])?;
    config.max_data_frame = *input.choose(&[32 * 1024, 0, 1, 7, 1000])?;
    config.send_buffer = *input.choose(&[256 * 1024, 1, 500, 10_000])?;
    config.stream_receive_budget = *input.choose(&[64 * 1024, 0, 1, 300, 10_000, 100_000])?;
    config.spdy.max_window_growth = *input.choose(&[32 * 1024 * 1024, 0, 5000, 1024 * 1024])?;
    config.spdy.max_stream_window = *input.choose(&[28 * 1024 * 1024, 0, 100_000])?;
    config.receive_budget = *input.choose(&[1024 * 1024, 0, 1000, 100_000])?;
    config.spdy.max_streams = *input.choose(&[1024, 1, 3, 16])?;
    // The model sends them as often as it likes.
    config.spdy.max_settings_frames = u32::MAX;
    config.keepalive_interval = *input.choose(&[None, Some(Duration::from_secs(30))])?;
    config.idle_timeout = None;
    Ok(config)
}

/// One byte for the operation and its side. Frequent operations have several values, so that a mutation changes only
/// one thing.
fn operation(input: &mut Unstructured<'_>) -> Result<Operation> {
    let kind = u8::arbitrary(input)?;
    let server = kind & 0x80 != 0;
    Ok(match kind % 32 {
        0..=2 => Operation::Open { server },
        3 | 4 => Operation::Accept { server },
        5 => Operation::Refuse { server },
        6..=9 => Operation::Write { server, stream: input.arbitrary()?, len: u16::arbitrary(input)?.into() },
        10 => Operation::WriteSlice { server, stream: input.arbitrary()?, len: u16::arbitrary(input)?.into() },
        11..=13 => Operation::Read { server, stream: input.arbitrary()?, pieces: input.arbitrary()? },
        14 | 15 => Operation::Finish { server, stream: input.arbitrary()? },
        16 => Operation::Reset { server, stream: input.arbitrary()? },
        17 => Operation::Discard { server, stream: input.arbitrary()? },
        18 => Operation::Release { server, stream: input.arbitrary()? },
        19 => Operation::Prioritise { server, stream: input.arbitrary()?, priority: input.arbitrary()? },
        20 => Operation::Ping { server },
        21 => Operation::AllowStreams { server, max: u8::arbitrary(input)? % 10 + 1 },
        22 => Operation::GoAway { server },
        23..=25 => Operation::Send { server, frames: input.arbitrary()? },
        26..=28 => Operation::Deliver { server, bytes: input.arbitrary()? },
        29 | 30 => Operation::Pass { milliseconds: u16::arbitrary(input)? },
        _ => Operation::Trim { server },
    })
}
