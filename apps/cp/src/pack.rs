//! Local files as an archive, made as it is sent.
//!
//! Owns what goes into it and under which name: files, folders with their modes, and links as links. What is none of these is left out
//! with a warning.

use std::fs::{self, File, Metadata, ReadDir};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use tar::{Builder, EntryType, Header};

use crate::progress::warn;

/// Where it stopped, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub(crate) struct PackError {
    pub(crate) path: PathBuf,
    error: io::Error,
}

/// Writes all of an archive: a file or a folder, under this name, which is empty for a folder that is there already.
///
/// The source itself may be a link, and is followed; links below it are not.
pub(crate) fn pack<W: Write>(source: &Path, name: &Path, to: W, bar: &ProgressBar) -> Result<(), PackError> {
    let mut archive = Builder::new(to);
    let mut folders: Vec<(ReadDir, PathBuf)> = Vec::new();
    let at = |path: &Path, error| PackError { path: path.to_owned(), error };
    let metadata = fs::metadata(source).map_err(|error| at(source, error))?;
    let inside = append(&mut archive, source, name, &metadata, bar).map_err(|error| at(source, error))?;
    folders.extend(inside.map(|inside| (inside, name.to_owned())));
    while let Some((entries, name)) = folders.last_mut() {
        let Some(entry) = entries.next() else {
            folders.pop();
            continue;
        };
        let entry = entry.map_err(|error| at(source, error))?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let metadata = entry.metadata().map_err(|error| at(&path, error))?;
        let inside = append(&mut archive, &path, &name, &metadata, bar).map_err(|error| at(&path, error))?;
        folders.extend(inside.map(|inside| (inside, name)));
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(|error| at(source, error))
}

/// Bytes of all files that would be sent; those that cannot be asked come to light later.
pub(crate) fn total(source: &Path) -> u64 {
    let Ok(metadata) = fs::metadata(source) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let (mut total, mut folders) = (0, vec![fs::read_dir(source)]);
    while let Some(folder) = folders.pop() {
        for entry in folder.into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(fs::read_dir(entry.path())),
                Ok(metadata) if metadata.is_file() => total += metadata.len(),
                _ => {}
            }
        }
    }
    total
}

/// One entry; what is in it, where that is a folder.
fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    bar: &ProgressBar,
) -> io::Result<Option<ReadDir>> {
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    if kind.is_dir() {
        let inside = fs::read_dir(path)?;
        if !name.as_os_str().is_empty() {
            header.set_metadata(metadata);
            archive.append_data(&mut header, name, io::empty())?;
        }
        return Ok(Some(inside));
    }
    if kind.is_symlink() {
        header.set_metadata(metadata);
        archive.append_link(&mut header, name, fs::read_link(path)?)?;
        return Ok(None);
    }
    if !kind.is_file() {
        warn(bar, &format!("{} is neither a file nor a folder: it is left out", path.display()));
        return Ok(None);
    }
    let mut file = File::open(path)?;
    // Its size is said before its bytes: as it is now, opened.
    let metadata = file.metadata()?;
    header.set_metadata(&metadata);
    header.set_entry_type(EntryType::Regular);
    const BUFFER: usize = 256 * 1024;
    let mut left = BufReader::with_capacity(BUFFER, (&mut file).take(metadata.len()));
    archive.append_data(&mut header, name, bar.wrap_read(Exact { from: &mut left, left: metadata.len() }))?;
    if file.read(&mut [0])? > 0 {
        warn(bar, &format!("{} grew while it was read: what it was at first is copied", path.display()));
    }
    Ok(None)
}

/// A reader that has to have as much as was said.
struct Exact<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        self.left -= count as u64;
        if count == 0 && self.left > 0 && !buf.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was read"));
        }
        Ok(count)
    }
}
