//! How a remote command ended, and how large its terminal is: what the error and the resize stream carry.
//!
//! Owns [`Status`], [`ExitStatus`] and [`TerminalSize`] and the form each version of the protocol gives them. It must not do
//! IO, nor know what carries the bytes.
//!
//! ```
//! use kubestream::status::ExitStatus;
//! use kubestream::upgrade::Version;
//!
//! let text = b"command terminated with non-zero exit code: error executing command [sh], exit code 7";
//! assert_eq!(ExitStatus::decode(Version::V3, text)?, Some(ExitStatus::Code(7)));
//! assert_eq!(ExitStatus::decode(Version::V4, b"")?, None, "v4 always says how it ended");
//! # Ok::<(), kubestream::status::StatusError>(())
//! ```

mod error;
mod exit;
mod metav1;
mod object;
mod reader;
mod resize;

pub use error::{MAX_STATUS_LEN, StatusError};
pub use exit::ExitStatus;
pub use metav1::{Cause, Details, MAX_CAUSES, Status};
pub use reader::StatusReader;
pub use resize::{MAX_RESIZE_LEN, ResizeDecoder, ResizeError, TerminalSize};
