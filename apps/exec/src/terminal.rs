//! This side's terminal: raw while a remote one is shown, and its size.

use std::io;

use kubestream::exec::Resizer;
use kubestream::status::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// The terminal passes every key on, unseen and unechoed, until this is dropped.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin, OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Tells the remote terminal this one's size, now and whenever it changes.
pub(crate) async fn follow_size(mut resizer: Resizer) -> io::Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    loop {
        let size = tcgetwinsize(rustix::stdio::stdout()).or_else(|_| tcgetwinsize(rustix::stdio::stdin()))?;
        let size = TerminalSize { width: size.ws_col, height: size.ws_row };
        if resizer.resize(size).await.is_err() || changes.recv().await.is_none() {
            return Ok(());
        }
    }
}
