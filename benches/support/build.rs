//! Notes which compiler built the benchmarks, for the heads of their tables.
//!
//! Runs `rustc --version` and nothing else.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said =
        Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let version = said.as_deref().and_then(|line| line.split_whitespace().nth(1)).unwrap_or("unknown");
    println!("cargo::rustc-env=BENCH_RUST_VERSION={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
