//! Packs local files into an archive while it is sent.
//!
//! Decides what goes into the archive and under which name: files, folders with their modes, and links as links.
//! Anything else is left out with a warning, and folders that are to stay as they are without one.

use std::collections::HashSet;
use std::fs::{self, File, Metadata, ReadDir};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use tar::{Builder, EntryType, Header};

use crate::progress::warn;

/// The path at which packing stopped, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub(crate) struct PackError {
    pub(crate) path: PathBuf,
    error: io::Error,
}

/// What goes into an archive.
#[derive(Clone, Default)]
pub(crate) struct Selection {
    /// The name of the source in the archive. It is empty if the content goes into an existing folder.
    pub(crate) name: PathBuf,
    /// The names of folders that have no entry of their own, because tar would change the folder that is there.
    pub(crate) there: HashSet<PathBuf>,
    /// Nothing but folders.
    pub(crate) folders_alone: bool,
}

/// Writes a whole archive of a file or folder.
///
/// If the source itself is a link, it is followed. Links below it are not.
pub(crate) fn pack<W: Write>(source: &Path, what: &Selection, to: W, bar: &ProgressBar) -> Result<(), PackError> {
    let mut archive = Builder::new(to);
    let name = &what.name;
    let mut folders: Vec<(ReadDir, PathBuf)> = Vec::new();
    let at = |path: &Path, error| PackError { path: path.to_owned(), error };
    let metadata = fs::metadata(source).map_err(|error| at(source, error))?;
    let inside = append(&mut archive, source, name, &metadata, what, bar).map_err(|error| at(source, error))?;
    folders.extend(inside.map(|inside| (inside, name.to_owned())));
    while let Some((entries, name)) = folders.last_mut() {
        let Some(entry) = entries.next() else {
            folders.pop();
            continue;
        };
        let entry = entry.map_err(|error| at(source, error))?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let metadata = entry.metadata().map_err(|error| at(&path, error))?;
        let inside = append(&mut archive, &path, &name, &metadata, what, bar).map_err(|error| at(&path, error))?;
        folders.extend(inside.map(|inside| (inside, name)));
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(|error| at(source, error))
}

/// Returns the folders directly in a folder, each with `name` before its name. A folder that cannot be read is reported
/// when it is packed.
pub(crate) fn folders(source: &Path, name: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(source.join(name)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| name.join(entry.file_name()))
        .collect()
}

/// Returns the size of all files that would be sent. Files that cannot be read are reported when they are packed.
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

/// Packs one path, and what is in it if it is a folder.
fn append<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    name: &Path,
    metadata: &Metadata,
    what: &Selection,
    bar: &ProgressBar,
) -> io::Result<Option<ReadDir>> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        let inside = fs::read_dir(path)?;
        if !name.as_os_str().is_empty() && !what.there.contains(name) {
            archive.append_data(&mut header(metadata), name, io::empty())?;
        }
        return Ok(Some(inside));
    }
    if what.folders_alone {
        return Ok(None);
    }
    if kind.is_symlink() {
        archive.append_link(&mut header(metadata), name, fs::read_link(path)?)?;
        return Ok(None);
    }
    if !kind.is_file() {
        warn(bar, &format!("{} is neither a file nor a folder: skipped", path.display()));
        return Ok(None);
    }
    let mut file = File::open(path)?;
    // The header gives the size before the bytes. It is taken from the open file.
    let metadata = file.metadata()?;
    let mut header = header(&metadata);
    header.set_entry_type(EntryType::Regular);
    const BUFFER: usize = 256 * 1024;
    let mut left = BufReader::with_capacity(BUFFER, (&mut file).take(metadata.len()));
    archive.append_data(&mut header, name, bar.wrap_read(Exact { from: &mut left, left: metadata.len() }))?;
    if file.read(&mut [0])? > 0 {
        warn(bar, &format!("{} grew while it was read: only its first part was copied", path.display()));
    }
    Ok(None)
}

/// tar takes no time from it, because of its option `-m`. But some tars stop at a time before 1970, which has no plain
/// form.
fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

/// A reader that must deliver exactly the size in the header.
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
