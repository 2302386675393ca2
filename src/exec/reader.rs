//! What one end of a session reads: an output of the process at the client, and its stdin at the server.
//!
//! Decides what is the end of these bytes, and what is an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::mux::RecvHalf;
use crate::session::{ConnectionError, Role, StreamError};
use crate::wire::spdy::RstStatus;

/// What one end of a session reads: at a client an output of the remote process, and at a server what the client sends
/// to the process's stdin. Read it as an [`AsyncRead`], or without a copy by [`data`](Self::data).
///
/// After it is dropped, bytes that still arrive are discarded, so that the peer is not blocked.
#[derive(Debug)]
pub struct Reader {
    recv: RecvHalf,
    /// The role of this end.
    role: Role,
}

impl Reader {
    pub(super) fn new(recv: RecvHalf, role: Role) -> Self {
        Self { recv, role }
    }

    /// Returns the next bytes, without a copy. `None` is the end: a FIN, an RST_STREAM with CANCEL, or an orderly end
    /// of the connection. CANCEL counts because Go's servers end an output with FIN or CANCEL, and Go's clients end
    /// every stream with CANCEL when they are done.
    ///
    /// If the connection ends before the stream, this depends on the role. At a client, the output ends with every
    /// orderly end of the connection ([`ConnectionError::Closed`]), whichever side began it. Only the status says
    /// whether the command has ended.
    ///
    /// At a server, stdin ends only if the client said goodbye: by GOAWAY with status OK, or by a WebSocket Close with
    /// 1000, with 1001 or without a code. Otherwise this returns an error.
    ///
    /// # Errors
    /// [`StreamError::Reset`] if the peer reset the stream with another status than CANCEL, or the error that the
    /// stream or the connection failed with. All bytes that had arrived are returned first. After an error the output
    /// or stdin may not be whole.
    ///
    /// # Cancel safety
    /// If dropped before completion, no bytes are lost.
    pub async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        match self.recv.data().await {
            Some(Err(error)) if self.is_end(&error) => None,
            data => data,
        }
    }

    fn is_end(&self, error: &StreamError) -> bool {
        match (error, self.role) {
            (StreamError::Reset(status), _) => *status == RstStatus::CANCEL,
            (StreamError::Connection(error), Role::Client) => matches!(error, ConnectionError::Closed),
            // A client that says goodbye has sent all of its stdin. Over WebSocket before v5 a goodbye is the only way
            // to end stdin.
            (StreamError::Connection(_), Role::Server) => self.recv.peer_said_goodbye(),
            _ => false,
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.recv.poll_copy(cx, buf)) {
            Err(error) if self.is_end(&error) => Poll::Ready(Ok(())),
            result => Poll::Ready(result.map_err(Into::into)),
        }
    }
}
