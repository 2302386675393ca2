//! Writes the entries of an archive to their places.
//!
//! Guarantees that nothing is written outside of the destination or through a link, and that a file gets its name only
//! when it is complete. Until then it has a temporary name in the same folder, which [`NamedTempFile`] removes.
//!
//! If the user's path of a single file leads through links, they stay. If it leads to what is no file, such as a device
//! or a pipe, the bytes go there at once, and nothing is replaced.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kubestream_apps::stdio::Writer;
use tempfile::NamedTempFile;
use tokio::sync::watch;

/// The bits of a mode that are kept. The set-user-id bits are dropped, for safety of the user who unpacks.
const PERMISSIONS: u32 = 0o777;

/// How many bytes are written at once.
const BUFFER: usize = 256 * 1024;

/// The local end of a download.
pub(crate) struct Destination {
    /// The path as the user gave it.
    pub(crate) path: PathBuf,
    /// The name of the source in its own folder, if it has one.
    pub(crate) name: Option<OsString>,
    /// Take modes and times from the archive.
    pub(crate) preserve: bool,
    /// Becomes true before bytes go to a device or pipe, which can block for ever.
    pub(crate) blocks: watch::Sender<bool>,
}

/// A complete file.
pub(crate) enum Whole {
    /// It has a temporary name.
    Named { file: NamedTempFile, path: PathBuf },
    /// It went to a device or pipe.
    Gone,
}

impl Whole {
    /// Gives the file its final name, and replaces what had that name.
    pub(crate) fn persist(self) -> io::Result<()> {
        match self {
            Self::Named { file, path } => file.persist(&path).map(drop).map_err(|error| at(&path, error.error)),
            Self::Gone => Ok(()),
        }
    }
}

/// Where a path leads.
enum End {
    /// To this name, which is no link. It is free, or that of a file or folder.
    Name(PathBuf),
    /// To something else that is open or can be opened. This is its metadata.
    Open(Metadata),
}

/// The attributes of an archive's entry.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) modified: Option<SystemTime>,
}

impl Attributes {
    /// The time is in seconds since 1970.
    pub(crate) fn new(mode: u32, seconds: i64, nanoseconds: u32) -> Self {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        let fraction = Duration::from_nanos(nanoseconds.into());
        Self { mode: mode & PERMISSIONS, modified: second.and_then(|second| second.checked_add(fraction)) }
    }
}

impl Destination {
    /// Writes a single file of exactly `size` bytes to its place.
    pub(crate) fn single(&self, what: Attributes, size: u64, from: impl Read) -> io::Result<Whole> {
        let path = self.for_file()?;
        match end(&path).map_err(|error| at(&path, error))? {
            End::Name(path) => self.write(path, what, size, from),
            End::Open(metadata) => {
                self.blocks.send_replace(true);
                write_through(&path, &metadata, size, from).map_err(|error| at(&path, error))?;
                Ok(Whole::Gone)
            }
        }
    }

    /// Returns the path of a single file: in the destination if that is a folder, otherwise the destination itself.
    fn for_file(&self) -> io::Result<PathBuf> {
        let means_folder = self.path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path = match &self.name {
            Some(name) if means_folder || self.path.is_dir() => self.path.join(name),
            _ => self.path.clone(),
        };
        let folder = folder(&path);
        fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
        Ok(path)
    }

    /// Returns the folder into which the content of a source folder goes.
    pub(crate) fn for_folder(&self) -> io::Result<Tree<'_>> {
        fs::create_dir_all(&self.path).map_err(|error| at(&self.path, error))?;
        Ok(Tree { destination: self, made: Vec::new() })
    }

    /// Writes exactly `size` bytes to a file.
    fn write(&self, path: PathBuf, what: Attributes, size: u64, from: impl Read) -> io::Result<Whole> {
        let written = self.write_temporary(&path, what, size, from).map_err(|error| at(&path, error))?;
        Ok(Whole::Named { file: written, path })
    }

    fn write_temporary(
        &self,
        path: &Path,
        what: Attributes,
        size: u64,
        mut from: impl Read,
    ) -> io::Result<NamedTempFile> {
        let mode = if self.preserve { what.mode } else { 0o666 };
        // The umask applies to this.
        let mut file = tempfile::Builder::new()
            .prefix(".kubestream-cp-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder(path))?;
        let mut buffered = BufWriter::with_capacity(BUFFER, file.as_file_mut());
        let count = io::copy(&mut from, &mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        is_whole(count, size)?;
        if let Some(modified) = what.modified.filter(|_| self.preserve) {
            // If the file system cannot store this time, the file is kept without it.
            let _ = file.as_file().set_modified(modified);
        }
        Ok(file)
    }
}

/// A folder that is being filled.
pub(crate) struct Tree<'a> {
    destination: &'a Destination,
    /// The folders that were created and are still being filled, from the outermost to the innermost, with their final
    /// mode and time.
    made: Vec<(PathBuf, u32, Option<SystemTime>)>,
}

impl Tree<'_> {
    /// Enters a folder, and creates it if needed. A new folder gets its mode and time when it is left.
    pub(crate) fn folder(&mut self, below: &Path, what: Attributes) -> io::Result<()> {
        let path = self.path(below)?;
        if !is_new(&path)? {
            return Ok(());
        }
        let mode = if self.destination.preserve { what.mode } else { PERMISSIONS };
        DirBuilder::new().mode(mode).create(&path).map_err(|error| at(&path, error))?;
        // The file system has applied the umask. While the folder is filled, its owner needs write access.
        let mode = fs::symlink_metadata(&path)?.permissions().mode() & PERMISSIONS;
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o700))?;
        self.made.push((path, mode, what.modified.filter(|_| self.destination.preserve)));
        Ok(())
    }

    /// Writes a file. It has its name when this returns.
    pub(crate) fn file(&mut self, below: &Path, what: Attributes, size: u64, from: impl Read) -> io::Result<()> {
        let path = self.path(below)?;
        self.destination.write(path, what, size, from)?.persist()
    }

    /// Copies an earlier file, for an entry that is a hard link to it.
    pub(crate) fn copy(&mut self, below: &Path, of: &Path, what: Attributes) -> io::Result<()> {
        let mut original = self.destination.path.clone();
        for part in of.parent().into_iter().flatten() {
            original.push(part);
            if is_new(&original)? {
                return Err(at(&original, io::ErrorKind::NotFound.into()));
            }
        }
        original.extend(of.file_name());
        let metadata = fs::symlink_metadata(&original).map_err(|error| at(&original, error))?;
        if !metadata.is_file() {
            return Err(at(&original, io::Error::other("the target of a hard link is not a file")));
        }
        let from = File::open(&original).map_err(|error| at(&original, error))?;
        self.file(below, what, metadata.len(), from)
    }

    /// Leaves all folders.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.leave(0)
    }

    /// Creates the folders on the way, checks that none of them is a link, and leaves the folders that are not on it.
    fn path(&mut self, below: &Path) -> io::Result<PathBuf> {
        let mut path = self.destination.path.clone();
        for part in below.parent().into_iter().flatten() {
            path.push(part);
            if is_new(&path)? {
                fs::create_dir(&path).map_err(|error| at(&path, error))?;
            }
        }
        let inside = self.made.iter().take_while(|(made, ..)| path.starts_with(made)).count();
        self.leave(inside)?;
        path.extend(below.file_name());
        Ok(path)
    }

    fn leave(&mut self, keep: usize) -> io::Result<()> {
        for (path, mode, modified) in self.made.drain(keep..).rev() {
            if let Some(modified) = modified {
                let _ = File::open(&path).and_then(|folder| folder.set_modified(modified));
            }
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(|error| at(&path, error))?;
        }
        Ok(())
    }
}

fn is_whole(count: u64, size: u64) -> io::Result<()> {
    if count == size {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ended before the file did"))
}

/// Follows the links of a path, to the place that a write through them would reach.
fn end(path: &Path) -> io::Result<End> {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let found = fs::metadata(&path);
        if let Ok(metadata) = &found
            && !metadata.is_file()
            && !metadata.is_dir()
        {
            return Ok(End::Open(metadata.clone()));
        }
        let Ok(link) = fs::read_link(&path) else { return Ok(End::Name(path)) };
        let folder = folder(&path);
        // What a process has open, as with /dev/stdout. A file with the same name would be another one.
        if fs::canonicalize(folder)?.starts_with("/proc") {
            return found.map(End::Open);
        }
        path = folder.join(link);
    }
    Err(io::Error::other("too many links"))
}

/// Writes to what is there. If that is stdout or stderr, it is not opened again, as that would not work for a socket,
/// and for a file would write from its beginning.
fn write_through(path: &Path, metadata: &Metadata, size: u64, mut from: impl Read) -> io::Result<()> {
    let own = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
    let is_there =
        |file: &File| file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()));
    let to = match own.into_iter().flatten().map(File::from).find(is_there) {
        Some(own) => own,
        None => File::options().write(true).truncate(true).open(path)?,
    };
    let mut buffered = BufWriter::with_capacity(BUFFER, Writer(to));
    let count = io::copy(&mut from, &mut buffered)?;
    buffered.flush()?;
    is_whole(count, size)
}

/// The folder that a path is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Returns true if the name is free, and false if it is a folder. Anything else is an error.
fn is_new(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(false),
        Ok(metadata) if metadata.is_symlink() => {
            Err(at(path, io::Error::other("a link is in the way, and is not followed")))
        }
        Ok(_) => Err(at(path, io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(at(path, error)),
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
