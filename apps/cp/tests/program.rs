//! Runs `cp` as its users do, with the built-in node.
//!
//! Looks at the program from outside: its output, its exit code and its sockets. The tar of the pod is the test's,
//! or that of this machine.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use kubestream_apps_testing::listening;

use tempfile::TempDir;

/// A folder with this script as tar, and `cp` with it in its PATH.
fn with_tar(script: &str) -> (TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("tar");
    std::fs::write(&tar, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&tar, PermissionsExt::from_mode(0o755)).unwrap();
    let mut cp = Command::new(env!("CARGO_BIN_EXE_cp"));
    cp.current_dir(folder.path()).stdin(Stdio::null());
    cp.env("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap()));
    (folder, cp)
}

/// `cp` with the tar of this machine.
fn cp(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut cp = Command::new(env!("CARGO_BIN_EXE_cp"));
    cp.current_dir(folder.path()).stdin(Stdio::null()).args(arguments);
    cp
}

fn copies(folder: &TempDir, arguments: &[&str]) {
    let output = cp(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The path of a file in the "pod", which has this machine's files.
fn in_pod(path: &Path) -> String {
    format!("demo:{}", path.display())
}

fn wait_for(file: &Path) {
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// GNU tar's exit code for this is 1, and also for a file that it fills up with zeros.
#[test]
fn a_file_that_grows_while_it_is_read_is_there() {
    let leading = "tar: Removing leading `/' from member names\n";
    let changed = "tar: log: file changed as we read it\n";
    let shrank = "tar: log: File shrank by 5 bytes; padding with zeros\n";
    for (said, code, kept) in [
        (changed.to_owned(), 1, true),
        (format!("{leading}{changed}{changed}"), 1, true),
        (changed.to_owned(), 2, false),
        (format!("{shrank}{changed}"), 1, false),
        (leading.to_owned(), 1, false),
        (String::new(), 1, false),
    ] {
        let archive = "printf 'start' > log; PATH=/usr/bin:/bin command tar cf - log";
        let (folder, mut cp) = with_tar(&format!("{archive}; cat said >&2; exit {code}"));
        std::fs::write(folder.path().join("said"), &said).unwrap();
        let output = cp.args(["demo:log", "copy"]).output().unwrap();
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(if kept { 0 } else { code }), "{shown}");
        assert!(shown.ends_with(&said) || said.is_empty(), "{shown}");
        let copied = std::fs::read(folder.path().join("copy")).ok();
        assert_eq!(copied.as_deref(), kept.then_some(&b"start"[..]), "{shown}");
    }
}

/// Somebody else may use a folder that is there, such as /tmp.
#[test]
fn a_folder_that_is_filled_keeps_its_mode() {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let make = |path: &Path, mode: u32| {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    for options in [&[][..], &["--in-place"], &["--no-preserve"], &["--in-place", "--no-preserve"]] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, mode) in [("inner", 0o700), ("inner/deep", 0o777), ("new", 0o777), ("new/deep", 0o750)] {
            make(&path("source").join(name), mode);
            std::fs::write(path("source").join(name).join("file"), name).unwrap();
        }
        for name in ["pod/source", "pod/source/inner"] {
            make(&path(name), 0o1777);
        }
        for to in ["pod", "plain"] {
            copies(&folder, &[options, &["source", &in_pod(&path(to))]].concat());
        }
        for name in ["", "inner"] {
            assert_eq!(mode(&path("pod/source").join(name)), 0o1777, "{options:?}: {name}");
        }
        // Folders that are new are as in a copy to a new name.
        for name in ["inner/deep", "new", "new/deep"] {
            let (there, plain) = (path("pod/source").join(name), path("plain").join(name));
            assert_eq!(mode(&there), mode(&plain), "{options:?}: {name}");
            assert_eq!(std::fs::read(there.join("file")).unwrap(), name.as_bytes());
        }
        assert_eq!(std::fs::read_dir(path("pod/source")).unwrap().count(), 2, "{options:?}");
    }
}

/// As root, this would replace /dev/null.
#[test]
#[cfg(target_os = "linux")]
fn a_download_goes_through_what_is_no_file() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let kind = |name: &str| std::fs::symlink_metadata(path(name)).unwrap().file_type();
    std::fs::write(path("file"), "content").unwrap();
    std::fs::write(path("old"), "what was there").unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    let file = in_pod(&path("file"));

    for (link, to) in [("replaces", "folder/../again"), ("again", "old"), ("folder/creates", "../new")] {
        symlink(to, path(link)).unwrap();
    }
    for (link, reaches) in [("replaces", "old"), ("folder/creates", "new")] {
        copies(&folder, &[&file, link]);
        assert!(kind(link).is_symlink() && kind("again").is_symlink() && kind(reaches).is_file());
        assert_eq!(std::fs::read(path(reaches)).unwrap(), b"content");
    }
    symlink("/dev/null", path("null")).unwrap();
    copies(&folder, &[&file, "null"]);
    assert!(kind("null").is_symlink() && std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());

    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let reads = std::thread::spawn({
        let pipe = path("pipe");
        move || std::fs::read(pipe).unwrap()
    });
    copies(&folder, &[&file, "pipe"]);
    assert!(kind("pipe").is_fifo());
    assert_eq!(reads.join().unwrap(), b"content");

    symlink("/proc/self/fd/1", path("stdout")).unwrap();
    for name in ["stdout", "/dev/stdout", "/dev/fd/1"] {
        assert_eq!(cp(&folder, &[&file, name]).output().unwrap().stdout, b"content", "{name}");
    }
    // What the file has already is kept.
    let mut out = std::fs::File::create(path("out")).unwrap();
    std::io::Write::write_all(&mut out, b"first ").unwrap();
    assert!(cp(&folder, &[&file, "stdout"]).stdout(out).status().unwrap().success());
    assert_eq!(std::fs::read(path("out")).unwrap(), b"first content");
    assert!(kind("stdout").is_symlink());
    symlink("loop", path("loop")).unwrap();
    assert_eq!(cp(&folder, &[&file, "loop"]).status().unwrap().code(), Some(1));
}

#[test]
fn a_download_into_a_pipe_without_a_reader_can_be_interrupted() {
    let archive = "printf 'content' > file; PATH=/usr/bin:/bin command tar cf - file";
    let (folder, mut cp) = with_tar(&format!("{archive}; touch runs; sleep 1000 >&- 2>&-"));
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let mut process = cp.args(["demo:file", "pipe"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&folder.path().join("runs"));
    assert!(Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(130));
}

#[test]
fn a_file_from_before_1970_is_copied_like_any_other() {
    for format in ["gnu", "pax"] {
        let folder = tempfile::tempdir().unwrap();
        let old = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("old"), "content").unwrap();
        for path in [source.join("old"), source.clone()] {
            std::fs::File::open(path).unwrap().set_modified(old).unwrap();
        }
        copies(&folder, &["source", &in_pod(&folder.path().join("there"))]);
        assert_eq!(std::fs::read(folder.path().join("there/old")).unwrap(), b"content");

        let mut cp = cp(&folder, &[&in_pod(&source), "here"]);
        assert_eq!(cp.env("TAR_OPTIONS", format!("--format={format}")).status().unwrap().code(), Some(0));
        let modified = std::fs::metadata(folder.path().join("here/old")).unwrap().modified().unwrap();
        assert_eq!(modified, old, "{format}");
    }
}

/// Anybody on the machine could run commands through such a socket.
#[test]
#[cfg(target_os = "linux")]
fn the_built_in_node_listens_on_no_socket() {
    let (folder, mut cp) = with_tar("touch runs; while [ ! -e seen ]; do sleep 0.01; done; exit 3");
    let mut process = cp.args(["demo:/no/such", "copy"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&folder.path().join("runs"));
    let listening = listening(process.id());
    std::fs::write(folder.path().join("seen"), "").unwrap();
    assert_eq!((process.wait().unwrap().code(), listening), (Some(3), 0));
}

/// The name would be part of the path of the request.
#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    for (source, name) in [
        ("demo?x:/etc", "pod name \"demo?x\""),
        ("a?b/demo:/etc", "namespace name \"a?b\""),
        ("a/..:/etc", "pod name \"..\""),
    ] {
        let (_folder, mut cp) = with_tar("exit 3");
        let output = cp.args([source, "copy"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{source}: {said}");
        assert!(said.starts_with(&format!("error: invalid {name}: ")), "{source}: {said}");
    }
}

#[test]
fn what_a_pod_says_does_not_reach_the_terminal_raw() {
    for code in [0, 2] {
        // An archive with one empty file, or none, and then a complaint of two lines.
        let said = r"printf 'tar: \033[31mred\342\200\256\ttab\ntar: second\302\2332J\n' >&2";
        let archive = "printf 'x' > x; PATH=/usr/bin:/bin command tar cf - x";
        let (_folder, mut cp) = with_tar(&format!("{said}; {archive}; exit {code}"));
        let output = cp.args(["demo:x", "copy"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("tar: \\u{1b}[31mred\\u{202e}\ttab\ntar: second\\u{9b}2J\n"), "{said:?}");
    }
}

#[test]
fn the_name_of_a_file_does_not_reach_the_terminal_raw() {
    let (_folder, mut cp) = with_tar("exit 3");
    let output = cp.args(["./no\nerror: such\u{202e}\u{1b}[2J", "demo:x"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ./no\\nerror: such\\u{202e}\\u{1b}[2J: "), "{said:?}");
    assert_eq!(said.lines().count(), 1, "{said:?}");
}
