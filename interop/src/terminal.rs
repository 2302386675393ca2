//! A client on a terminal, as a user would run it.
//!
//! Holds the terminal and what it has shown. Dropping it kills the client.

use pty_process::{Command, Pty, Size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::within;

/// A client on a terminal of 24 lines and 80 columns, and what the terminal has shown.
pub struct Terminal {
    /// The client.
    pub client: Child,
    pty: Pty,
    shown: String,
}

impl Terminal {
    /// Starts a client.
    ///
    /// # Panics
    /// Panics if there is no terminal or no client.
    #[must_use]
    pub fn start(command: Command) -> Self {
        let (pty, pts) = pty_process::open().expect("a terminal");
        pty.resize(Size::new(24, 80)).expect("a size");
        let client = command.kill_on_drop(true).spawn(pts).expect("a client");
        Self { client, pty, shown: String::new() }
    }

    /// Waits until a text has been shown.
    ///
    /// # Panics
    /// Panics if it is not shown in time.
    pub async fn shows(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        while !self.shown.contains(text) {
            let read = within(&format!("{text:?} on the terminal"), self.pty.read(&mut buffer)).await;
            let count = read.unwrap_or_else(|error| panic!("no {text:?} in {:?}: {error}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    /// Types keys.
    ///
    /// # Panics
    /// Panics if the terminal is gone.
    pub async fn types(&mut self, keys: &[u8]) {
        self.pty.write_all(keys).await.expect("the terminal takes keys");
    }

    /// Changes the size of the terminal.
    ///
    /// # Panics
    /// Panics if the terminal is gone.
    pub fn resize(&self, lines: u16, columns: u16) {
        self.pty.resize(Size::new(lines, columns)).expect("a size");
    }

    /// Waits for the client's end. Meanwhile its output is read, because a terminal's buffer is small.
    ///
    /// # Panics
    /// Panics if it does not end in time.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut buffer = [0; 1024];
        let ended = async {
            loop {
                tokio::select! {
                    status = self.client.wait() => return status.expect("the client's status").code(),
                    Ok(count @ 1..) = self.pty.read(&mut buffer) => {
                        self.shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    }
                }
            }
        };
        within("the client's end", ended).await
    }
}
