//! The arguments of a copy: `PATH`, `POD:PATH` or `NAMESPACE/POD:PATH`, as in kubectl.
//!
//! Parses them, and handles paths in a pod. It uses no file system.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One argument of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spec {
    Local(PathBuf),
    Remote(Remote),
}

/// A path in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) namespace: Option<String>,
    pub(crate) pod: String,
    pub(crate) path: RemotePath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("a path must have the form [[NAMESPACE/]POD:]PATH")]
    Format,
    #[error("the path must not be empty")]
    Empty,
    #[error("the name of a pod and the path in it must be UTF-8")]
    NotUtf8,
    #[error("one of the two paths must be in a pod: POD:PATH")]
    BothLocal,
    #[error("one of the two paths must be local: cp does not copy between pods")]
    BothRemote,
}

impl Spec {
    pub(crate) fn parse(argument: &OsStr) -> Result<Self, SpecError> {
        let bytes = argument.as_bytes();
        // No pod name begins like this. kubectl takes `./a:b` for the pod a in the namespace ".".
        let is_path = bytes.starts_with(b"/") || bytes.starts_with(b".");
        let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !is_path);
        let Some(colon) = colon else {
            return if bytes.is_empty() { Err(SpecError::Empty) } else { Ok(Self::Local(argument.into())) };
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| SpecError::NotUtf8);
        let (whose, path) = (text(&bytes[..colon])?, text(&bytes[colon + 1..])?);
        let (namespace, pod) = match whose.split_once('/') {
            Some((namespace, pod)) => (Some(namespace.to_owned()), pod.to_owned()),
            None => (None, whose),
        };
        if pod.is_empty() || pod.contains('/') || namespace.as_ref().is_some_and(String::is_empty) {
            return Err(SpecError::Format);
        }
        if path.is_empty() {
            return Err(SpecError::Empty);
        }
        Ok(Self::Remote(Remote { namespace, pod, path: RemotePath(path) }))
    }
}

/// A path in a pod. It is never empty, and only slashes separate its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemotePath(String);

impl RemotePath {
    /// Returns the path as an argument that no command takes for an option.
    pub(crate) fn argument(&self) -> String {
        if self.0.starts_with('-') { format!("./{}", self.0) } else { self.0.clone() }
    }

    /// True if the path names a folder, whether or not it exists.
    pub(crate) fn means_folder(&self) -> bool {
        self.0.ends_with('/')
    }

    pub(crate) fn without_slash(&self) -> Self {
        let path = self.0.trim_end_matches('/');
        Self(if path.is_empty() { "/" } else { path }.to_owned())
    }

    pub(crate) fn join(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0.trim_end_matches('/')))
    }

    /// Splits the path into its folder and its name there. Returns `None` for a path whose last part is no name, such
    /// as `/` and `..`.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        let path = self.0.trim_end_matches('/');
        let (folder, name) = match path.rsplit_once('/') {
            None => (".", path),
            Some(("", name)) => ("/", name),
            Some((folder, name)) => (folder, name),
        };
        (!["", ".", ".."].contains(&name)).then(|| (Self(folder.to_owned()), name))
    }

    /// Returns the parts of the name that tar uses in an archive: without a leading `/` and without `..`.
    pub(crate) fn member(&self) -> Vec<OsString> {
        let mut parts = Vec::new();
        for part in self.0.split('/') {
            match part {
                "" | "." => {}
                ".." => parts.clear(),
                part => parts.push(OsString::from_vec(part.into())),
            }
        }
        parts
    }
}

impl std::fmt::Display for RemotePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(namespace: Option<&str>, pod: &str, path: &str) -> Result<Spec, SpecError> {
        let namespace = namespace.map(str::to_owned);
        Ok(Spec::Remote(Remote { namespace, pod: pod.to_owned(), path: RemotePath(path.to_owned()) }))
    }

    #[test]
    fn specs_are_kubectls() {
        let local = |path: &str| Ok(Spec::Local(path.into()));
        for (argument, expected) in [
            ("file", local("file")),
            ("./a:b", local("./a:b")),
            ("/a/b:c", local("/a/b:c")),
            ("demo:/tmp/x", remote(None, "demo", "/tmp/x")),
            ("space/demo:x:y", remote(Some("space"), "demo", "x:y")),
            (":x", Err(SpecError::Format)),
            ("a/b/c:x", Err(SpecError::Format)),
            ("/demo", local("/demo")),
            ("space/:x", Err(SpecError::Format)),
            ("demo:", Err(SpecError::Empty)),
            ("", Err(SpecError::Empty)),
        ] {
            assert_eq!(Spec::parse(OsStr::new(argument)), expected, "{argument}");
        }
        assert_eq!(Spec::parse(OsStr::from_bytes(b"demo:\xff")), Err(SpecError::NotUtf8));
        assert_eq!(Spec::parse(OsStr::from_bytes(b"\xff")), Ok(Spec::Local(OsStr::from_bytes(b"\xff").into())));
    }

    #[test]
    fn members_are_named_as_tar_does() {
        for (path, expected) in [
            ("/a/b/", &["a", "b"][..]),
            ("./a//b", &["a", "b"]),
            ("a/../b", &["b"]),
            ("../../b", &["b"]),
            ("-x", &["-x"]),
            ("/", &[]),
            (".", &[]),
        ] {
            assert_eq!(RemotePath(path.to_owned()).member(), expected, "{path}");
        }
    }

    #[test]
    fn a_path_is_its_folder_and_its_name() {
        for (path, expected) in [
            ("/tmp/x/", Some(("/tmp", "x"))),
            ("/x", Some(("/", "x"))),
            ("x", Some((".", "x"))),
            ("/", None),
            (".", None),
            ("a/..", None),
        ] {
            let path = RemotePath(path.to_owned());
            let split = path.split().map(|(folder, name)| (folder.0, name.to_owned()));
            assert_eq!(split, expected.map(|(folder, name)| (folder.to_owned(), name.to_owned())), "{path}");
        }
    }
}
