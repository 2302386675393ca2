//! The program `cp` against a hostile pod: a script in place of tar prints archives that no tar makes, built here byte
//! by byte. In every case nothing is written outside of the destination or through a link, and no incomplete file gets
//! its name.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use kubestream_interop::matrix::{self, Foreign, Over, Proof, in_the_container_of};
use kubestream_interop::{Ended, Input, Peer, Scratch, app, run};
use tokio::process::Command;

const FILE: u8 = b'0';
const HARD_LINK: u8 = b'1';
const LINK: u8 = b'2';
const DEVICE: u8 = b'3';
const FOLDER: u8 = b'5';
const LONG_NAME: u8 = b'L';
const SPARSE: u8 = b'S';
const EXTENDED: u8 = b'x';

/// Proves a case of no peer, because no tar makes such archives.
fn proves(case: &str) -> Proof {
    matrix::proves(case).with(Foreign::Bytes, in_the_container_of("`cp`"), [Over::WebSocketV5])
}

/// The end of an archive.
const END: [u8; 1024] = [0; 1024];

/// A header and its content, padded.
fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0004755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    if kind == SPARSE {
        // GNU's own header, whose size includes the holes.
        put(257, b"ustar  \0");
        put(483, b"00000000000\0");
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut all = header.to_vec();
    all.extend_from_slice(content);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

fn folder(name: &str) -> Vec<u8> {
    entry(name, FOLDER, "", b"")
}

fn file(name: &str) -> Vec<u8> {
    entry(name, FILE, "", b"evil")
}

/// A "container" whose tar prints an archive, complains and exits with a code. A folder `outside` lies beside the
/// destination `here`.
struct Pod {
    node: Peer,
    scratch: Scratch,
}

impl Pod {
    fn new(archive: &[u8], code: i32) -> Self {
        let scratch = Scratch::new();
        let (bin, printed) = (scratch.file("bin"), scratch.file("bin/archive"));
        fs::create_dir(&bin).expect("a folder");
        fs::create_dir(scratch.file("outside")).expect("a folder");
        fs::write(&printed, archive).expect("an archive");
        let script = format!("#!/bin/sh\ncat '{}'\necho complaint >&2\nexit {code}\n", printed.display());
        fs::write(bin.join("tar"), script).expect("a script");
        fs::set_permissions(bin.join("tar"), Permissions::from_mode(0o755)).expect("a mode");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        Self { node: Peer::node_with_path(path), scratch }
    }

    async fn cp(&self) -> Ended {
        let mut command = Command::new(app("cp"));
        command.args(["--server", self.node.address(), "demo:/src", "here"]).current_dir(self.scratch.path());
        run(command, Input::Null).await
    }

    /// Checks that the copy fails with these words, and that only these files are in the destination.
    async fn refuses(&self, words: &str, left: &[&str]) {
        let ended = self.cp().await;
        assert_ne!(ended.code, Some(0), "{words}");
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        self.has(left);
    }

    /// Checks that nothing is in `outside`, and only these files in the destination.
    fn has(&self, expected: &[&str]) {
        assert_eq!(fs::read_dir(self.scratch.file("outside")).expect("a folder").count(), 0, "something is outside");
        let mut beside = names(self.scratch.path().to_owned());
        beside.retain(|name| name != "here");
        assert_eq!(beside, ["bin", "outside"]);
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for name in names(self.scratch.file("here").join(&folder)) {
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if fs::symlink_metadata(self.scratch.file("here").join(&path)).expect("metadata").is_dir() {
                    folders.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        assert_eq!(found, expected);
    }
}

/// The names in a folder, or nothing if it is not a folder.
fn names(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let _proof = proves("names that lead elsewhere");
    for name in [
        "../outside/evil",
        "src/../../outside/evil",
        "/tmp/evil",
        "/src/evil",
        "evil",
        "srcs/evil",
        "src/a/../../../outside/evil",
    ] {
        let archive = [folder("src"), entry("src/good", FILE, "", b"good"), file(name), END.to_vec()].concat();
        Pod::new(&archive, 0).refuses("the archive contains an entry that was not requested", &["good"]).await;
    }
    let pod = Pod::new(b"", 0);
    let absolute = pod.scratch.file("outside/evil");
    let archive = [folder("src"), file(absolute.to_str().expect("text")), END.to_vec()].concat();
    fs::write(pod.scratch.file("bin/archive"), archive).expect("an archive");
    pod.refuses("the archive contains an entry that was not requested", &[]).await;
}

#[tokio::test]
async fn nothing_goes_through_a_link_of_the_archive() {
    let _proof = proves("links of the archive");
    let pod = Pod::new(b"", 0);
    let outside = pod.scratch.file("outside");
    let (outside, evil) = (outside.to_str().expect("text"), outside.join("evil"));
    let archive = [
        folder("src"),
        entry("src/link", LINK, outside, b""),
        file("src/link/evil"),
        entry("src/name", LINK, evil.to_str().expect("text"), b""),
        file("src/name"),
        END.to_vec(),
    ];
    fs::write(pod.scratch.file("bin/archive"), archive.concat()).expect("an archive");
    let ended = pod.cp().await;
    // The links are skipped with a warning, and what should go through them is in the destination.
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("skipping symlink").count(), 2, "{}", ended.stderr);
    pod.has(&["link", "link/evil", "name"]);
}

#[tokio::test]
async fn nothing_goes_through_a_link_that_was_there() {
    let _proof = proves("links that were there");
    for name in ["src/link/evil", "src/link/", "src/link/a/b"] {
        let archive =
            [folder("src"), entry(name, if name.ends_with('/') { FOLDER } else { FILE }, "", b""), END.to_vec()];
        let pod = Pod::new(&archive.concat(), 0);
        fs::create_dir(pod.scratch.file("here")).expect("a folder");
        symlink("../outside", pod.scratch.file("here/link")).expect("a link");
        pod.refuses("a link is in the way", &["link"]).await;
    }
    // A file replaces the link instead of following it.
    let pod = Pod::new(&[folder("src"), file("src/link"), END.to_vec()].concat(), 0);
    fs::create_dir(pod.scratch.file("here")).expect("a folder");
    symlink("../outside/evil", pod.scratch.file("here/link")).expect("a link");
    assert_eq!(pod.cp().await.code, Some(0));
    pod.has(&["link"]);
    assert_eq!(fs::read(pod.scratch.file("here/link")).expect("a file"), b"evil");
}

#[tokio::test]
async fn hard_links_stay_within() {
    let _proof = proves("hard links that lead elsewhere");
    for (to, words) in [
        ("/etc/hostname", "not requested"),
        ("../bin/tar", "not requested"),
        ("src/../../bin/tar", "not requested"),
        ("src/none", "No such file"),
        ("src", "the target of a hard link is not a file"),
    ] {
        let archive = [folder("src"), entry("src/stolen", HARD_LINK, to, b""), END.to_vec()].concat();
        Pod::new(&archive, 0).refuses(words, &[]).await;
    }
    let pod = Pod::new(&[folder("src"), entry("src/stolen", HARD_LINK, "src/link", b""), END.to_vec()].concat(), 0);
    fs::create_dir(pod.scratch.file("here")).expect("a folder");
    symlink("../bin/tar", pod.scratch.file("here/link")).expect("a link");
    pod.refuses("the target of a hard link is not a file", &["link"]).await;
}

#[tokio::test]
async fn an_archive_that_is_cut_is_refused_whatever_tar_says() {
    let _proof = proves("archives that are cut");
    let content = vec![7; 100_000];
    let whole = [entry("src", FILE, "", &content), END.to_vec()].concat();
    // Cut in the header, in the content, in its padding, and between the file and the end.
    for length in [0, 100, 512, 50_000, 100_512 + 1, whole.len() - END.len()] {
        let pod = Pod::new(&whole[..length], 0);
        pod.refuses("", &[]).await;
        assert!(!pod.scratch.file("here").exists(), "{length} bytes");
    }
    let tree = [folder("src"), entry("src/one", FILE, "", b"one"), entry("src/two", FILE, "", &content)].concat();
    // Complete files are there, and the cut one is not.
    Pod::new(&tree[..tree.len() - 1000], 0).refuses("the archive ended before the file did", &["one"]).await;
    Pod::new(&tree, 0).refuses("the archive was cut off", &["one", "two"]).await;
}

#[tokio::test]
async fn a_file_has_its_name_only_when_tar_is_content() {
    let _proof = proves("a tar that fails after the file");
    let pod = Pod::new(&[file("src"), END.to_vec()].concat(), 3);
    let ended = pod.cp().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("exit code 3: complaint"), "{}", ended.stderr);
    assert!(!pod.scratch.file("here").exists());
    pod.has(&[]);
    // The same archive from a successful tar. The set-user-id bit of the archive is dropped.
    let pod = Pod::new(&[file("src"), END.to_vec()].concat(), 0);
    assert_eq!(pod.cp().await.code, Some(0));
    let mode = fs::metadata(pod.scratch.file("here")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[tokio::test]
async fn a_tar_that_fails_is_heard_out() {
    let _proof = proves("a tar that fails is heard out");
    // An empty archive, as tar makes it of a missing source, with more bytes after its end than are ever in flight.
    Pod::new(&vec![0; 20_000_000], 2).refuses("exit code 2: complaint", &[]).await;
}

#[tokio::test]
async fn what_is_not_as_it_should_be_is_refused() {
    let _proof = proves("archives that no tar makes");
    let long = "n".repeat(3_000_000);
    let sparse = entry("src", SPARSE, "", b"");
    let pax = entry("x", EXTENDED, "", b"22 GNU.sparse.major=1\n");
    for (archive, words) in [
        (END.to_vec(), "the archive is empty"),
        (b"no archive at all".repeat(100), "not a number"),
        (entry("\x1b[31msrc", FILE, "", b"evil"), "\\u{1b}[31msrc"),
        ([entry("long", LONG_NAME, "", long.as_bytes()), file("src")].concat(), "too long a header"),
        ([file("src"), file("src")].concat(), "not requested"),
        ([file("src"), file("src/more")].concat(), "not requested"),
        ([file("src"), folder("src")].concat(), "not requested"),
        ([folder("src"), file("src")].concat(), "not requested"),
        (entry("src", LINK, "/etc/hostname", b""), "is a symbolic link"),
        (entry("src", DEVICE, "", b""), "neither a file nor a folder"),
        ([pax, file("src")].concat(), "sparse"),
        (sparse, "sparse"),
    ] {
        let pod = Pod::new(&[&archive[..], &END].concat(), 0);
        pod.refuses(words, &[]).await;
        assert!(!pod.scratch.file("here").is_file(), "{words}");
    }
}

#[tokio::test]
async fn an_upload_that_tar_does_not_read_is_an_error() {
    let _proof = proves("an upload that is not read");
    for (code, expected) in [(0, 1), (5, 5)] {
        let pod = Pod::new(b"", code);
        fs::write(pod.scratch.file("bin/up"), vec![0; 50_000_000]).expect("a file");
        let mut command = Command::new(app("cp"));
        let to = format!("demo:{}", pod.scratch.file("here").display());
        command.args(["--server", pod.node.address(), "up", &to]).current_dir(pod.scratch.file("bin"));
        let ended = run(command, Input::Null).await;
        assert_eq!(ended.code, Some(expected), "{}", ended.stderr);
        let words = if code == 0 {
            "tar ended before it had read the whole archive (after up)"
        } else {
            "exit code 5: complaint"
        };
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(!pod.scratch.file("here").exists());
    }
}
