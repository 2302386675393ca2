//! Recorded sessions of Kubernetes' own programs: `tests/data` has the bytes of each side, from the beginning of its
//! head.
//!
//! Knows where the recordings are and where their heads end, but not what they carry.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A file or a folder of the recordings.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}

/// The bytes of one side, `c2s` or `s2c`: its head with the empty line, and what follows.
pub fn said(session: &str, side: &str) -> (String, Bytes) {
    let path = path(session).join(side).with_extension("bin");
    let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let behind = bytes.split_off(end);
    (String::from_utf8(bytes).unwrap(), behind.into())
}
