//! Signals that end a program, and those that its commands inherit.
//!
//! A signal that was ignored when the program started, as nohup does with SIGHUP, stays ignored. Only Linux tells which
//! these are.

use std::future::poll_fn;
use std::io;
use std::sync::Once;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to end. From the moment at which this exists, they do not end it by themselves.
#[derive(Debug)]
pub struct Ending(Vec<(SignalKind, Signal)>);

impl Ending {
    /// Must be called in a runtime.
    pub fn new() -> io::Result<Self> {
        let ignored = ignored();
        // A shell without job control starts background processes with SIGINT ignored, which nobody means.
        let others = [SignalKind::hangup(), SignalKind::quit(), SignalKind::terminate()];
        let kinds = others.into_iter().filter(|kind| !is_in(ignored, *kind));
        let all = [SignalKind::interrupt()].into_iter().chain(kinds).map(|kind| Ok((kind, signal(kind)?)));
        all.collect::<io::Result<_>>().map(Self)
    }

    /// Waits for a signal, and returns the exit code that a shell has for it.
    pub async fn next(&mut self) -> u8 {
        poll_fn(|context| {
            match self.0.iter_mut().find_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(kind)) {
                Some(kind) => Poll::Ready(u8::try_from(kind.as_raw_value()).map_or(1, |number| number | 128)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// Lets the commands that are started from now on have the default for each signal, as in a container. A program
/// can only pass on that it ignores a signal, and not that it has a handler. So what is ignored gets one, which does
/// nothing.
/// Must be called in a runtime.
pub fn default_for_commands() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ignored = ignored();
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::alarm(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        for kind in kinds.into_iter().filter(|kind| is_in(ignored, *kind)) {
            // Without a handler, the commands ignore the signal, as this program does.
            let _ = signal(kind);
        }
    });
}

/// The signals that this process ignores: bit 0 is signal 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn is_in(mask: u64, kind: SignalKind) -> bool {
    let bit = u32::try_from(kind.as_raw_value()).ok().and_then(|number| number.checked_sub(1));
    bit.and_then(|bit| mask.checked_shr(bit)).is_some_and(|rest| rest & 1 == 1)
}
