//! The carriers of a connection's messages: plain SPDY, SPDY inside WebSocket (the tunnel), and WebSocket channels.
//!
//! This module owns a reader and a writer for each carrier, which convert bytes to
//! [`Message`](crate::session::Message)s and back. It must not do IO, or decide which messages are sent, which is
//! [`session`](crate::session)'s job.

mod batch;
mod channels;
mod choice;
mod exec;
mod legacy_ports;
mod messages;
mod place;
mod tunnel;
mod wire;

pub(crate) use batch::WriteBatch;
pub(crate) use channels::check_text;
pub(crate) use choice::Carrier;
pub(crate) use exec::{CHANNELS as EXEC_CHANNELS, Reader as ExecReader};
pub(crate) use legacy_ports::{Reader as LegacyPortsReader, headers as legacy_ports_headers};
pub(crate) use place::id_at;
