//! What the error stream and the resize stream carry: how a remote command ended, and how large its terminal is.
//!
//! This module reads and writes [`ExitStatus`] in the form of each version of the protocol, [`Status`] as JSON, and
//! [`TerminalSize`] as JSON. It does no IO, and knows nothing of SPDY or WebSocket.
//!
//! ```
//! use kubestream::status::ExitStatus;
//! use kubestream::upgrade::Version;
//!
//! let text = b"command terminated with non-zero exit code: error executing command [sh], exit code 7";
//! assert_eq!(ExitStatus::decode(Version::V3, text)?, Some(ExitStatus::Code(7)));
//! assert_eq!(ExitStatus::decode(Version::V4, b"")?, None, "in v4 an empty error stream says nothing");
//! # Ok::<(), kubestream::status::StatusError>(())
//! ```

mod error;
mod exit;
mod metav1;
mod object;
pub(crate) mod reader;
pub(crate) mod resize;

pub use error::{MAX_STATUS_LEN, StatusError};
pub use exit::ExitStatus;
pub use metav1::{Cause, Details, MAX_CAUSES, Status};
pub(crate) use reader::StatusReader;
pub(crate) use resize::ResizeDecoder;
pub use resize::{MAX_RESIZE_LEN, TerminalSize};
