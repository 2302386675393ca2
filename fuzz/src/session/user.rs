//! The user of a session: the handles that it holds, and what it does with them.
//!
//! Records what the user has read and written. `check.rs` judges that record when the session is over.

use std::pin::Pin;

use bytes::Bytes;
use kubestream::StreamError;
use kubestream::exec::{Exec, ExecServer};
use kubestream::status::{ExitStatus, Status};
use kubestream::unstable::session::Role;
use tokio::io::AsyncWrite;

use super::{Judged, Run};
use crate::io::{Task, once};

pub(super) enum Made {
    Client(Box<Exec>),
    Server(Box<ExecServer>),
}

impl Run {
    /// Checks a status that counts: all wanted outputs have ended.
    pub(super) fn judge(&mut self, status: ExitStatus) {
        let mut wanted = [false; 5];
        for at in [1, 2] {
            wanted[at] = self.readers[at].is_some();
            self.read(u8::try_from(at).unwrap(), usize::MAX);
            assert!(!wanted[at] || self.finished[at], "channel {at}: a status came before the end of the output");
        }
        if self.collects {
            wanted = [false, self.want.stdout, self.want.stderr && !self.want.tty, false, false];
        }
        self.status = Some(Judged { status, read: self.io.0.borrow().read, wanted });
    }

    pub(super) fn pick(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.raw.len())
    }

    pub(super) fn start(&mut self) {
        let (Some(mux), true) = (self.mux.clone(), self.sessions) else { return };
        if self.making.is_some()
            || self.made.is_some()
            || self.exiting.is_some()
            || self.waiting.is_some()
            || self.exited
        {
            return;
        }
        let (role, want) = (self.role, self.want);
        self.making = Some(Task::new(async move {
            Ok(match role {
                Role::Client => Made::Client(Box::new(mux.exec(want).await?)),
                Role::Server => Made::Server(Box::new(mux.accept_exec(want).await?)),
            })
        }));
    }

    pub(super) fn take(&mut self, mut made: Made) {
        match &mut made {
            Made::Client(exec) => {
                assert_eq!(exec.stdin.is_some(), self.want.stdin);
                assert_eq!(exec.stdout.is_some(), self.want.stdout);
                assert_eq!(exec.stderr.is_some(), self.want.stderr && !self.want.tty);
                assert_eq!(exec.resize.is_some(), self.want.tty);
                self.resizer = exec.resize.take();
                self.writers[0] = exec.stdin.take();
                if !self.leave {
                    self.readers[1] = exec.stdout.take();
                    self.readers[2] = exec.stderr.take();
                }
            }
            Made::Server(process) => {
                self.resizes = process.resize.take();
                self.readers[0] = process.stdin.take();
                if !self.leave {
                    self.writers[1] = process.stdout.take();
                    self.writers[2] = process.stderr.take();
                }
            }
        }
        self.made = Some(made);
    }

    pub(super) fn exit(&mut self, code: u8) {
        match self.made.take() {
            Some(Made::Server(process)) => {
                let status = match code {
                    0 => ExitStatus::Success,
                    1 => ExitStatus::Failed(Box::new(Status::internal_error("no"))),
                    code => ExitStatus::Code(code.into()),
                };
                self.succeeded = status.success();
                self.sent[3].extend_from_slice(&status.encode(self.subprotocol.version()));
                self.exiting = Some(Task::new(process.exit(status)));
            }
            made => self.made = made,
        }
    }

    pub(super) fn read(&mut self, channel: u8, pieces: usize) {
        if let Some(at) = self.pick(channel) {
            let (channel, stream) = &mut self.raw[at];
            let at = usize::from(channel.number());
            for _ in 0..pieces {
                match once(stream.data()) {
                    Some(Some(Ok(data))) => self.got[at].extend_from_slice(&data),
                    Some(None) => {
                        self.finished[at] = true;
                        break;
                    }
                    _ => break,
                }
            }
            return;
        }
        let at = usize::from(channel % 3);
        let Some(reader) = &mut self.readers[at] else { return };
        for _ in 0..pieces {
            match once(reader.data()) {
                Some(Some(Ok(data))) => {
                    assert!(!data.is_empty());
                    self.got[at].extend_from_slice(&data);
                }
                Some(None) => {
                    self.finished[at] = true;
                    break;
                }
                Some(Some(Err(error))) => {
                    assert!(matches!(error, StreamError::Connection(_)), "{error:?}");
                    break;
                }
                None => break,
            }
        }
    }

    pub(super) fn write(&mut self, channel: u8, data: &[u8]) {
        let bytes = Bytes::copy_from_slice(data);
        if let Some(at) = self.pick(channel) {
            let (channel, stream) = &mut self.raw[at];
            if let Some(Ok(())) = once(stream.send(bytes))
                && channel.is_clients() == (self.role == Role::Client)
                && stream.id() % 2 == 1
            {
                self.sent[usize::from(channel.number())].extend_from_slice(data);
            }
            return;
        }
        let at = usize::from(channel % 3);
        if let Some(writer) = &mut self.writers[at]
            && let Some(Ok(())) = once(writer.send(bytes))
        {
            self.sent[at].extend_from_slice(data);
        }
    }

    pub(super) fn write_slice(&mut self, at: usize, data: &[u8]) {
        if let Some(writer) = &mut self.writers[at]
            && let Some(Ok(taken)) = once(std::future::poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, data)))
        {
            assert!(taken > 0 || data.is_empty());
            self.sent[at].extend_from_slice(&data[..taken]);
        }
    }

    pub(super) fn finish(&mut self, at: usize) {
        let Some(writer) = &mut self.writers[at] else { return };
        match self.role {
            Role::Client => writer.finish(),
            Role::Server => {
                let shut = std::future::poll_fn(|cx| Pin::new(&mut *writer).poll_shutdown(cx));
                assert!(once(shut).is_some());
            }
        }
    }

    pub(super) fn drop_session(&mut self) {
        self.ended = true;
        self.making = None;
        self.made = None;
        self.readers = Default::default();
        self.writers = Default::default();
        self.resizes = None;
        self.resizer = None;
        self.raw = Vec::new();
        self.exiting = None;
        self.waiting = None;
        self.pings = Vec::new();
    }
}
