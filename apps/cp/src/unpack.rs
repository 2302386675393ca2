//! Unpacks an archive from a pod, which may be hostile, to local files.
//!
//! Checks names, sizes and the end of the archive: a name must lie in the requested source, a size must match its
//! bytes, and the end must be explicit. It writes no file itself.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use indicatif::ProgressBar;
use tar::{Archive, Entry, EntryType};

use crate::place::{Attributes, Destination, Tree, Whole};
use crate::progress::{set_total, warn};

/// The limit of what lies between the contents of two files: headers, long names and padding.
const HEADERS: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("the archive contains an entry that was not requested: {0:?}")]
    Foreign(PathBuf),
    #[error("the archive was cut off")]
    Truncated,
    #[error("the archive is empty")]
    Empty,
    #[error("{0:?} is a symbolic link, which cp does not follow: copy its target")]
    Link(PathBuf),
    #[error("{0:?} is neither a file nor a folder")]
    Special(PathBuf),
    #[error("{0:?} is sparse, in a format that is not supported")]
    Sparse(PathBuf),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Unpacks what the archive has of `member`. A single file is returned without its final name, because the caller still
/// has to check tar's status.
pub(crate) fn unpack(
    from: impl Read,
    member: &[OsString],
    destination: &Destination,
    bar: &ProgressBar,
) -> Result<Option<Whole>, UnpackError> {
    let (allowed, ended) = (Cell::new(HEADERS), Cell::new(false));
    let mut archive = Archive::new(Metered { from, allowed: &allowed, ended: &ended });
    let mut unpacking = Unpacking { member, destination, bar, tree: None, single: None };
    let unpacked = unpacking.entries(&mut archive, &allowed);
    // Folders get their modes even after an error.
    let finished = unpacking.tree.as_mut().map_or(Ok(()), Tree::finish);
    unpacked?;
    finished?;
    if ended.get() {
        return Err(UnpackError::Truncated);
    }
    // After the end of the archive there is padding. tar must be able to write it, or it would report a failure.
    allowed.set(u64::MAX);
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    if unpacking.tree.is_none() && unpacking.single.is_none() {
        return Err(UnpackError::Empty);
    }
    Ok(unpacking.single)
}

struct Unpacking<'a> {
    member: &'a [OsString],
    destination: &'a Destination,
    bar: &'a ProgressBar,
    tree: Option<Tree<'a>>,
    single: Option<Whole>,
}

impl<'a> Unpacking<'a> {
    fn entries(&mut self, archive: &mut Archive<impl Read>, allowed: &Cell<u64>) -> Result<(), UnpackError> {
        for entry in archive.entries()? {
            allowed.set(u64::MAX);
            let mut entry = entry?;
            self.entry(&mut entry)?;
            // Skipped content does not count as headers.
            io::copy(&mut entry, &mut io::sink())?;
            allowed.set(HEADERS);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = entry.path_bytes().into_owned();
        let below = self.below(&name)?;
        let extended = extended(entry)?;
        // A time before 1970 is a negative number in base 256, of which `tar` returns the lower 64 bits.
        let (seconds, nanoseconds) = extended.modified.unwrap_or((entry.header().mtime()?.cast_signed(), 0));
        let what = Attributes::new(entry.header().mode()?, seconds, nanoseconds);
        if kind == EntryType::GNUSparse || extended.is_sparse {
            return Err(UnpackError::Sparse(shown(&name)));
        }
        let is_source = below.as_os_str().is_empty();
        // In archives from before entry types, a trailing slash marks a folder.
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        if kind == EntryType::Directory || is_file && name.ends_with(b"/") {
            let tree = self.tree(&name)?;
            return if is_source { Ok(()) } else { Ok(tree.folder(&below, what)?) };
        }
        let size = entry.size();
        match kind {
            _ if is_source && self.tree.is_some() => Err(UnpackError::Foreign(shown(&name))),
            EntryType::Symlink if is_source => Err(UnpackError::Link(shown(&name))),
            EntryType::Symlink => {
                let to = entry.link_name_bytes().unwrap_or_default();
                warn(self.bar, &format!("skipping symlink: {:?} -> {:?}", shown(&name), shown(&to)));
                Ok(())
            }
            EntryType::Link if !is_source => {
                let to = entry.link_name_bytes().unwrap_or_default().into_owned();
                let of = self.below(&to)?;
                Ok(self.tree(&name)?.copy(&below, &of, what)?)
            }
            _ if is_file && is_source => {
                if self.single.is_some() {
                    return Err(UnpackError::Foreign(shown(&name)));
                }
                set_total(self.bar, size);
                let data = self.bar.wrap_read(entry);
                self.single = Some(self.destination.single(what, size, data)?);
                Ok(())
            }
            _ if is_file => {
                let data = self.bar.wrap_read(entry);
                Ok(self.tree(&name)?.file(&below, what, size, data)?)
            }
            _ if is_source => Err(UnpackError::Special(shown(&name))),
            _ => {
                warn(self.bar, &format!("skipping {:?}: it is neither a file nor a folder", shown(&name)));
                Ok(())
            }
        }
    }

    /// Returns an entry's path relative to the source. tar never writes a name that leads elsewhere.
    fn below(&self, name: &[u8]) -> Result<PathBuf, UnpackError> {
        let foreign = || UnpackError::Foreign(shown(name));
        if name.starts_with(b"/") || name.contains(&0) {
            return Err(foreign());
        }
        let mut member = self.member.iter();
        let mut below = PathBuf::new();
        for part in name.split(|byte| *byte == b'/').filter(|part| ![&b""[..], b"."].contains(part)) {
            let expected = member.next();
            if part == b".." || expected.is_some_and(|expected| expected.as_bytes() != part) {
                return Err(foreign());
            }
            if expected.is_none() {
                below.push(OsStr::from_bytes(part));
            }
        }
        if member.next().is_some() { Err(foreign()) } else { Ok(below) }
    }

    /// Returns the folder to fill, because the source has turned out to be one.
    fn tree(&mut self, name: &[u8]) -> Result<&mut Tree<'a>, UnpackError> {
        if self.single.is_some() {
            return Err(UnpackError::Foreign(shown(name)));
        }
        if self.tree.is_none() {
            self.tree = Some(self.destination.for_folder()?);
        }
        self.tree.as_mut().ok_or(UnpackError::Empty)
    }
}

/// What the PAX header of an entry says.
#[derive(Default)]
struct Extended {
    /// PAX has sparse formats of its own, in which the content begins with a map.
    is_sparse: bool,
    /// Seconds since 1970, and nanoseconds.
    modified: Option<(i64, u32)>,
}

fn extended(entry: &mut Entry<'_, impl Read>) -> io::Result<Extended> {
    let mut all = Extended::default();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        all.is_sparse |= extension.key_bytes().starts_with(b"GNU.sparse.");
        if extension.key_bytes() == b"mtime" {
            all.modified = extension.value().ok().and_then(time).or(all.modified);
        }
    }
    Ok(all)
}

/// Parses a time of PAX: a decimal number, with or without a fraction. The fraction of a negative number goes down.
fn time(text: &str) -> Option<(i64, u32)> {
    const DIGITS: usize = 9;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.chars().chain("0".repeat(DIGITS).chars()).take(DIGITS).collect::<String>();
    let (seconds, nanoseconds) = (seconds.parse::<i64>().ok()?, digits.parse::<u32>().ok()?);
    match text.starts_with('-') && nanoseconds > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000_u32.checked_sub(nanoseconds)?)),
        false => Some((seconds, nanoseconds)),
    }
}

/// Shortens a name to a length that can be shown.
fn shown(name: &[u8]) -> PathBuf {
    const LONGEST: usize = 4096;
    OsStr::from_bytes(&name[..name.len().min(LONGEST)]).into()
}

/// A reader that notes the end, and limits the size of headers.
struct Metered<'a, R> {
    from: R,
    allowed: &'a Cell<u64>,
    ended: &'a Cell<bool>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        self.ended.set(self.ended.get() || count == 0 && !buf.is_empty());
        let left = self.allowed.get().checked_sub(count as u64);
        self.allowed.set(left.ok_or_else(|| io::Error::other("the archive has too long a header"))?);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_pax_may_be_before_1970() {
        for (text, expected) in [
            ("1700000000", Some((1_700_000_000, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1", Some((-1, 0))),
            ("-0.25", Some((-1, 750_000_000))),
            ("-1.000000001999", Some((-2, 999_999_999))),
            ("-9223372036854775808.5", None),
            ("", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }
}
