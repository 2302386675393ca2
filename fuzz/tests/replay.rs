//! Replays every seed of every target, and twenty thousand inputs made from them, on stable Rust. CI runs this.
//!
//! Makes the inputs, always the same ones. This finds regressions; libFuzzer finds new faults.

use std::path::PathBuf;

use support::mutation::{Numbers, mutate};

const INPUTS: usize = 20_000;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn replay(name: &str, target: fn(&[u8])) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty());
    let run = |what: &str, input: &[u8]| {
        let outcome = std::panic::catch_unwind(|| target(input));
        assert!(outcome.is_ok(), "{name}, {what}: {}", input.escape_ascii());
    };
    for (path, seed) in &seeds {
        run(&path.display().to_string(), seed);
    }
    let mut numbers = Numbers(0x5bd1_e995_9e37_79b9);
    for turn in 0..INPUTS {
        let mut input = if turn % 8 == 0 {
            (0..numbers.below(300)).map(|_| numbers.byte()).collect()
        } else {
            seeds[numbers.below(seeds.len())].1.clone()
        };
        let other = &seeds[numbers.below(seeds.len())].1;
        mutate(&mut input, other, &mut numbers);
        run(&format!("input {turn}"), &input);
    }
}

#[test]
fn frame() {
    replay("frame", kubestream_fuzz::frame);
}

#[test]
fn header_block() {
    replay("header_block", kubestream_fuzz::header_block);
}

#[test]
fn connection() {
    replay("connection", kubestream_fuzz::connection);
}

#[test]
fn upgrade_head() {
    replay("upgrade_head", kubestream_fuzz::upgrade_head);
}

#[test]
fn websocket_frame() {
    replay("websocket_frame", kubestream_fuzz::websocket_frame);
}

#[test]
fn channel() {
    replay("channel", kubestream_fuzz::channel);
}

#[test]
fn base64() {
    replay("base64", kubestream_fuzz::base64);
}

#[test]
fn websocket_session() {
    replay("websocket_session", kubestream_fuzz::websocket_session);
}

#[test]
fn websocket_handshake() {
    replay("websocket_handshake", kubestream_fuzz::websocket_handshake);
}

#[test]
fn pairing() {
    replay("pairing", kubestream_fuzz::pairing);
}

#[test]
fn port_channels() {
    replay("port_channels", kubestream_fuzz::port_channels);
}

#[test]
fn tap() {
    replay("tap", kubestream_fuzz::tap);
}

#[test]
fn status() {
    replay("status", kubestream_fuzz::status);
}

#[test]
fn pair() {
    replay("pair", kubestream_fuzz::pair);
}

#[test]
fn translate() {
    replay("translate", kubestream_fuzz::translate);
}
