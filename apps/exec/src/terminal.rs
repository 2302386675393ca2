//! The local terminal: raw mode, and its size.

use std::io;

use kubestream::exec::Resizer;
use kubestream::status::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// Until this is dropped, the terminal passes every key on and echoes none.
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
        // If the terminal has gone, there is nothing to restore.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Sends the size of the local terminal to the remote one, now and after each change.
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
