//! Where the entries of an archive land, and how.
//!
//! Owns that nothing is written outside of the destination or through a link, and that a file has its name only once it is whole: until then it
//! has a temporary one beside it, which goes away with [`NamedTempFile`].

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::NamedTempFile;

/// Of a mode, what is kept: no set-user-id for whoever unpacks.
const PERMISSIONS: u32 = 0o777;

/// The local end of a download.
pub(crate) struct Destination {
    /// As it was named.
    pub(crate) path: PathBuf,
    /// What the source is called in its folder, if it has a name there.
    pub(crate) name: Option<OsString>,
    /// Modes and times are those of the archive.
    pub(crate) preserve: bool,
}

/// A file that is all there, under a temporary name.
pub(crate) struct Whole {
    file: NamedTempFile,
    path: PathBuf,
}

impl Whole {
    /// Gives it its name, in place of what had it.
    pub(crate) fn persist(self) -> io::Result<()> {
        self.file.persist(&self.path).map(drop).map_err(|error| at(&self.path, error.error))
    }
}

/// What an archive says of an entry, beside its name.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) modified: Option<SystemTime>,
}

impl Attributes {
    pub(crate) fn new(mode: u32, seconds: u64) -> Self {
        Self { mode: mode & PERMISSIONS, modified: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) }
    }
}

impl Destination {
    /// Where a source that is a file goes: into a folder under its own name, and elsewhere to what was named.
    pub(crate) fn for_file(&self) -> io::Result<PathBuf> {
        let means_folder = self.path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path = match &self.name {
            Some(name) if means_folder || self.path.is_dir() => self.path.join(name),
            _ => self.path.clone(),
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
        }
        Ok(path)
    }

    /// Where what is in a source that is a folder goes.
    pub(crate) fn for_folder(&self) -> io::Result<Tree<'_>> {
        fs::create_dir_all(&self.path).map_err(|error| at(&self.path, error))?;
        Ok(Tree { destination: self, made: Vec::new() })
    }

    /// Reads exactly that many bytes into a file.
    pub(crate) fn write(&self, path: PathBuf, what: Attributes, size: u64, from: impl Read) -> io::Result<Whole> {
        let written = self.write_temporary(&path, what, size, from).map_err(|error| at(&path, error))?;
        Ok(Whole { file: written, path })
    }

    fn write_temporary(
        &self,
        path: &Path,
        what: Attributes,
        size: u64,
        mut from: impl Read,
    ) -> io::Result<NamedTempFile> {
        const BUFFER: usize = 256 * 1024;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mode = if self.preserve { what.mode } else { 0o666 };
        // Less the umask.
        let mut file = tempfile::Builder::new()
            .prefix(".kubestream-cp-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        let mut buffered = BufWriter::with_capacity(BUFFER, file.as_file_mut());
        let count = io::copy(&mut from, &mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        if count != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ended before the file did"));
        }
        if let Some(modified) = what.modified.filter(|_| self.preserve) {
            // A time that the file system cannot hold is no reason to lose the file.
            let _ = file.as_file().set_modified(modified);
        }
        Ok(file)
    }
}

/// A folder that is filled.
pub(crate) struct Tree<'a> {
    destination: &'a Destination,
    /// The folders we made and are in, each inside the one before it: with what they are to be once they are full.
    made: Vec<(PathBuf, u32, Option<SystemTime>)>,
}

impl Tree<'_> {
    /// A folder, new or there already. One that is new gets its mode and time once it is left.
    pub(crate) fn folder(&mut self, below: &Path, what: Attributes) -> io::Result<()> {
        let path = self.path(below)?;
        if !is_new(&path)? {
            return Ok(());
        }
        let mode = if self.destination.preserve { what.mode } else { PERMISSIONS };
        DirBuilder::new().mode(mode).create(&path).map_err(|error| at(&path, error))?;
        // Less the umask, as the system made it; until it is full we have to be able to fill it.
        let mode = fs::symlink_metadata(&path)?.permissions().mode() & PERMISSIONS;
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o700))?;
        self.made.push((path, mode, what.modified.filter(|_| self.destination.preserve)));
        Ok(())
    }

    /// A file, under its name once this is done.
    pub(crate) fn file(&mut self, below: &Path, what: Attributes, size: u64, from: impl Read) -> io::Result<()> {
        let path = self.path(below)?;
        self.destination.write(path, what, size, from)?.persist()
    }

    /// Another name of a file that came before: a file of its own here.
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
            return Err(at(&original, io::Error::other("a hard link to what is no file")));
        }
        let from = File::open(&original).map_err(|error| at(&original, error))?;
        self.file(below, what, metadata.len(), from)
    }

    /// Leaves all folders.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.leave(0)
    }

    /// Makes sure of the folders on the way, and that none of them is a link; leaves those that are not.
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

/// Whether there is nothing of that name; a folder is fine, and anything else in its place is an error.
fn is_new(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(false),
        Ok(metadata) if metadata.is_symlink() => {
            Err(at(path, io::Error::other("a link is in the way: it is not followed")))
        }
        Ok(_) => Err(at(path, io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(at(path, error)),
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
