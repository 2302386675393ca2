//! The program `cp` against the tar of this machine, behind the built-in node: whole copies over both transports, and
//! interrupted ones. `cp_hostile.rs` tests hostile pods.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use kubestream_interop::matrix::{self, Foreign, Over, Proof, hop_before, in_the_container_of, model_of, server_for};
use kubestream_interop::{
    Ended, Input, Peer, Scratch, app, digest, kubectl, over_both_transports, pattern, run, within,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const FILES: usize = 1000;
const TEMPORARY: &str = ".kubestream-cp-";

fn over(transport: &str) -> [Over; 1] {
    [if transport == "spdy" { Over::SpdyV4 } else { Over::WebSocketV5 }]
}

/// Proves cases of the tar at the other end.
fn proves(tar: Foreign, transport: &str, cases: &str) -> Proof {
    matrix::proves(cases).with(tar, in_the_container_of("`cp`"), over(transport))
}

/// The size of the one large file in MB: `KUBESTREAM_CP_MB`, or 50.
fn megabytes() -> usize {
    std::env::var("KUBESTREAM_CP_MB").map_or(50, |number| number.parse().expect("KUBESTREAM_CP_MB is a number"))
}

fn command(node: &Peer, scratch: &Scratch, transport: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(app("cp"));
    command.args(["--server", node.address(), "--transport", transport]).args(arguments).current_dir(scratch.path());
    command
}

async fn cp(node: &Peer, scratch: &Scratch, transport: &str, arguments: &[&str]) -> Ended {
    run(command(node, scratch, transport, arguments), Input::Null).await
}

async fn copies(node: &Peer, scratch: &Scratch, transport: &str, arguments: &[&str]) {
    let ended = cp(node, scratch, transport, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
}

/// The path of a file in the "pod", which has this machine's files.
fn in_pod(path: &Path) -> String {
    format!("demo:{}", path.display())
}

/// Everything below a folder: modes, and checksums of files.
fn everything(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let mode = metadata.permissions().mode() & 0o777;
            let what = match &metadata {
                link if link.is_symlink() => format!("-> {}", fs::read_link(&path).expect("a link").display()),
                folder if folder.is_dir() => format!("{mode:o}"),
                _ => format!("{mode:o} {}", digest(&fs::read(&path).expect("a file"))),
            };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            all.insert(path.strip_prefix(root).expect("below it").to_owned(), what);
        }
    }
    all
}

fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.display().to_string().contains(TEMPORARY);
    everything(folder).into_keys().filter(is_one).map(|path| folder.join(path)).collect()
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, content).expect("a file");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

async fn a_tree_there_and_back(transport: &str) {
    let _proof = proves(
        Foreign::GnuTar,
        transport,
        &format!("{FILES} files there and back, same sums and modes; a copy onto one that is there"),
    );
    let (node, scratch) = (Peer::node(), Scratch::new());
    let tree = scratch.file("tree");
    for number in 0..FILES {
        let path =
            tree.join(format!("folder {}/{}", number % 10, "x".repeat(number % 200))).join(format!("file-{number}"));
        write(&path, &pattern(number * 37 % 20_000), [0o644, 0o600, 0o755, 0o400][number % 4]);
    }
    fs::create_dir(tree.join("empty")).expect("a folder");
    for (folder, mode) in [("folder 1", 0o700), ("folder 2", 0o555), ("empty", 0o750)] {
        fs::set_permissions(tree.join(folder), Permissions::from_mode(mode)).expect("a mode");
    }
    let expected = everything(&tree);
    let there = scratch.file("there");
    copies(&node, &scratch, transport, &["tree", &in_pod(&there)]).await;
    assert_eq!(everything(&there), expected);

    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = Path::new("folder 0").join("file-0");
    fs::File::open(there.join(&file)).expect("a file").set_modified(old).expect("a time");
    for _ in 0..2 {
        // The second copy goes onto the first.
        copies(&node, &scratch, transport, &[&in_pod(&there), "back"]).await;
        assert_eq!(everything(&scratch.file("back")), expected);
    }
    let modified = fs::metadata(scratch.file("back").join(&file)).and_then(|file| file.modified()).expect("a time");
    assert_eq!(modified, old);
}

async fn a_large_file_there_and_back(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, &format!("{} MB there and back", megabytes()));
    let (node, scratch) = (Peer::node(), Scratch::new());
    let content = pattern(megabytes() * 1_000_000);
    let expected = digest(&content);
    fs::write(scratch.file("large"), content).expect("a file");
    let there = scratch.file("there");
    copies(&node, &scratch, transport, &["large", &in_pod(&there)]).await;
    assert_eq!(digest(&fs::read(&there).expect("a file")), expected);
    copies(&node, &scratch, transport, &[&in_pod(&there), "back"]).await;
    assert_eq!(digest(&fs::read(scratch.file("back")).expect("a file")), expected);
    assert_eq!(temporaries(scratch.path()), Vec::<PathBuf>::new());
}

/// Go's servers in place of the node: cri-streaming, which is part of the runtimes, and the apiserver's translator in
/// front of it.
async fn gos_servers_carry_it_as_well(transport: &str) {
    let proof = proves(Foreign::GnuTar, transport, "100 files there and back, one of 20 MB");
    let (server, _proof) = if transport == "spdy" {
        let proof = proof.with(Foreign::CriStreaming, server_for("`cp`"), over(transport));
        (Peer::go("cri-server", &[]), proof)
    } else {
        let behind = server_for("`cp`").through("StreamTranslator");
        let proof = proof.with(Foreign::CriStreaming, behind, over(transport));
        (Peer::go("translator", &[]), proof.with(Foreign::Apiserver, hop_before("cri-streaming"), over(transport)))
    };
    let scratch = Scratch::new();
    for number in 0..100 {
        let path = scratch.file("tree").join(format!("folder {}/file-{number}", number % 10));
        write(&path, &pattern(number * 4_000), [0o644, 0o600, 0o755, 0o400][number % 4]);
    }
    write(&scratch.file("tree/large"), &pattern(20_000_000), 0o644);
    let (expected, there) = (everything(&scratch.file("tree")), scratch.file("there"));
    copies(&server, &scratch, transport, &["tree", &in_pod(&there)]).await;
    assert_eq!(everything(&there), expected);
    copies(&server, &scratch, transport, &[&in_pod(&there), "back"]).await;
    assert_eq!(everything(&scratch.file("back")), expected);
    let ended = cp(&server, &scratch, transport, &[&in_pod(&scratch.file("missing")), "down"]).await;
    assert_eq!((ended.code, scratch.file("down").exists()), (Some(2), false), "{}", ended.stderr);
    assert!(ended.stderr.contains("missing: Cannot stat"), "{}", ended.stderr);
}

async fn pods_and_containers_are_named_as_kubectl_does(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "pods and containers by their names");
    let (node, scratch) = (Peer::node(), Scratch::new());
    fs::write(scratch.file("up"), b"up").expect("a file");
    let there = scratch.file("there");
    let to = format!("space/demo:{}", there.display());
    copies(&node, &scratch, transport, &["-c", "main", "up", &to]).await;
    assert_eq!(fs::read(&there).expect("a file"), b"up");
    for (arguments, words) in [
        (["-c", "nope", "up", &*to], "container nope is not valid for pod demo"),
        (["-n", "space", "up", "there"], "one of the two paths must be in a pod"),
        (["-n", "space", "demo:up", "demo:there"], "one of the two paths must be local"),
        (["-n", "space", "none", "demo:there"], "none: No such file"),
    ] {
        let ended = cp(&node, &scratch, transport, &arguments).await;
        assert_eq!(ended.code, Some(1), "{arguments:?}");
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
    }
}

/// A second upload replaces files, leaves unknown files alone, and keeps links as links.
async fn a_folder_that_is_there_is_filled(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "a folder that is there is filled; links stay links");
    let (node, scratch) = (Peer::node(), Scratch::new());
    write(&scratch.file("conf/sub/new"), b"new", 0o640);
    write(&scratch.file("conf/replaced"), b"replaced", 0o600);
    symlink("replaced", scratch.file("conf/link")).expect("a link");
    write(&scratch.file("pod/conf/replaced"), b"a longer one that was there", 0o644);
    write(&scratch.file("pod/conf/sub/other"), b"other", 0o644);
    for arguments in [&[][..], &["--in-place"]] {
        let to = in_pod(&scratch.file("pod"));
        copies(&node, &scratch, transport, &[arguments, &["conf", &to]].concat()).await;
        let there = everything(&scratch.file("pod/conf"));
        assert_eq!(there[Path::new("replaced")], format!("600 {}", digest(b"replaced")));
        assert_eq!(there[Path::new("sub/new")], format!("640 {}", digest(b"new")));
        assert_eq!(there[Path::new("link")], "-> replaced");
        assert_eq!(there.len(), 5, "{there:?}");
    }
}

/// Upload and download deliver the content of a hard link. kubectl leaves an empty file.
async fn a_hard_link_comes_with_its_content(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "a hard link comes with its content");
    let (node, scratch) = (Peer::node(), Scratch::new());
    write(&scratch.file("there/one"), b"content", 0o644);
    fs::hard_link(scratch.file("there/one"), scratch.file("there/two")).expect("a link");
    copies(&node, &scratch, transport, &[&in_pod(&scratch.file("there")), "back"]).await;
    for name in ["back/one", "back/two"] {
        assert_eq!(fs::read(scratch.file(name)).expect("a file"), b"content");
    }
}

async fn what_is_not_there_is_an_error_and_no_file(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "what is not there is an error and no file");
    let (node, scratch) = (Peer::node(), Scratch::new());
    let missing = scratch.file("missing");
    let ended = cp(&node, &scratch, transport, &[&in_pod(&missing), "down"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("missing: Cannot stat"), "{}", ended.stderr);
    fs::write(scratch.file("up"), b"up").expect("a file");
    let ended = cp(&node, &scratch, transport, &["up", &in_pod(&missing.join("up"))]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("missing: Cannot open"), "{}", ended.stderr);
    symlink("up", scratch.file("link")).expect("a link");
    let ended = cp(&node, &scratch, transport, &[&in_pod(&scratch.file("link")), "down"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("is a symbolic link"), "{}", ended.stderr);
    let left: Vec<_> = everything(scratch.path()).into_keys().collect();
    assert_eq!(left, [Path::new("link"), Path::new("up")]);
}

/// Compares where copies of kubectl and ours land. The one difference: kubectl cannot download a file into a folder.
async fn copies_land_where_kubectls_do(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "copies land where kubectl's do").with(
        Foreign::Kubectl,
        model_of("`cp`"),
        over(transport),
    );
    let (node, scratch) = (Peer::node(), Scratch::new());
    write(&scratch.file("source/sub/file"), b"content", 0o644);
    write(&scratch.file("file"), b"content", 0o644);
    for who in ["ours", "kubectls"] {
        fs::create_dir_all(scratch.file(who).join("folder")).expect("a folder");
        let place = scratch.file(who);
        let (source, file) = (in_pod(&scratch.file("source")), in_pod(&scratch.file("file")));
        for (from, to) in [
            ("source", in_pod(&place.join("folder"))),
            ("source/", in_pod(&place.join("new"))),
            ("source", in_pod(&place.join("slash/"))),
            (".", in_pod(&place.join("dot"))),
            ("file", in_pod(&place.join("folder"))),
            ("file", in_pod(&place.join("file"))),
            (&*source, format!("{who}/folder")),
            (&*source, format!("{who}/down/new")),
            (&*file, format!("{who}/a/b/file")),
        ] {
            if who == "ours" {
                copies(&node, &scratch, transport, &[from, &to]).await;
                continue;
            }
            let mut command = Command::new(kubectl());
            command.arg(format!("--server={}", node.address())).args(["cp", from, &to]).current_dir(scratch.path());
            command.env("HOME", scratch.path()).env("KUBECONFIG", "/dev/null");
            let ended = run(command, Input::Null).await;
            assert_eq!(ended.code, Some(0), "{from} to {to}: {}", ended.stderr);
        }
        // kubectl has copied everything here, including our copies and its own cache.
        for copied in ["ours", "kubectls", ".kube"] {
            let _ = fs::remove_dir_all(place.join("dot").join(copied));
        }
    }
    let names = |who| everything(&scratch.file(who)).into_keys().collect::<Vec<_>>();
    assert_eq!(names("ours"), names("kubectls"));
}

/// Waits until part of the copy exists.
async fn part(scratch: &Scratch) {
    const SOME: u64 = 1_000_000;
    let started = async {
        loop {
            let written = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > SOME);
            // A listed file may be gone before it is examined.
            let names = fs::read_dir(scratch.path()).expect("a folder").flatten().map(|entry| entry.path());
            if names.filter(|path| path.display().to_string().contains(TEMPORARY)).any(|path| written(&path)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("a part of the file", started).await;
}

/// Starts a long copy, which a test interrupts.
fn endless(node: &Peer, scratch: &Scratch, transport: &str, upload: bool) -> Child {
    fs::File::create(scratch.file("endless")).and_then(|file| file.set_len(100_000_000_000)).expect("a sparse file");
    let (there, here) = (in_pod(&scratch.file("endless")), in_pod(&scratch.file("copy")));
    let arguments = if upload { ["endless", &here] } else { [&*there, "copy"] };
    let mut command = command(node, scratch, transport, &arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("cp")
}

async fn a_cut_download_leaves_nothing(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "a cut download leaves nothing");
    let (node, scratch) = (Peer::node(), Scratch::new());
    let cp = endless(&node, &scratch, transport, false);
    part(&scratch).await;
    drop(node);
    let ended = within("the end of cp", cp.wait_with_output()).await.expect("cp");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the copy was cut off: "), "{stderr}");
    assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 1, "more than the source is there");
}

async fn a_cut_upload_has_no_name(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "a cut upload has no name");
    let (node, scratch) = (Peer::node(), Scratch::new());
    let cp = endless(&node, &scratch, transport, true);
    part(&scratch).await;
    drop(node);
    let ended = within("the end of cp", cp.wait_with_output()).await.expect("cp");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the copy was cut off: ") && stderr.contains("endless"), "{stderr}");
    // Nothing can remove the temporary name any more, so cp reports it.
    assert!(stderr.contains("may be left in the pod as ") && stderr.contains(TEMPORARY), "{stderr}");
    assert!(!scratch.file("copy").exists());
}

async fn an_interrupted_copy_leaves_nothing(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "an interrupted copy leaves nothing");
    for upload in [false, true] {
        let (node, scratch) = (Peer::node(), Scratch::new());
        let cp = endless(&node, &scratch, transport, upload);
        part(&scratch).await;
        let id = cp.id().and_then(|id| Pid::from_raw(id.try_into().expect("an id"))).expect("cp runs");
        kill_process(id, Signal::INT).expect("cp runs");
        let ended = within("the end of cp", cp.wait_with_output()).await.expect("cp");
        assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 1, "upload: {upload}");
    }
}

async fn which(name: &str) -> String {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().await.expect("sh");
    assert!(found.status.success(), "there is no {name} on the PATH");
    String::from_utf8(found.stdout).expect("a path").trim().to_owned()
}

/// A "container" that has only busybox.
async fn busybox_copies_there_and_back(transport: &str) {
    let _proof = proves(
        Foreign::BusyboxTar,
        transport,
        "20 files there and back, same sums and modes; what is not there is an error and no file",
    );
    let (busybox, scratch) = (which("busybox").await, Scratch::new());
    fs::create_dir(scratch.file("bin")).expect("a folder");
    for name in ["tar", "test", "mv", "cp", "rm"] {
        symlink(&busybox, scratch.file("bin").join(name)).expect("a link");
    }
    let node = Peer::node_with_path(scratch.file("bin"));
    for number in 0..20 {
        let path = scratch.file("tree").join("y".repeat(number * 10 + 1)).join(format!("file-{number}"));
        write(&path, &pattern(number * 100_000), [0o644, 0o600, 0o755, 0o400][number % 4]);
    }
    let expected = everything(&scratch.file("tree"));
    fs::create_dir(scratch.file("pod")).expect("a folder");
    for _ in 0..2 {
        copies(&node, &scratch, transport, &["tree", &in_pod(&scratch.file("pod"))]).await;
        assert_eq!(everything(&scratch.file("pod/tree")), expected);
    }
    copies(&node, &scratch, transport, &[&in_pod(&scratch.file("pod/tree")), "back"]).await;
    assert_eq!(everything(&scratch.file("back")), expected);
    copies(&node, &scratch, transport, &["--no-preserve", "tree", &in_pod(&scratch.file("plain"))]).await;
    let ended = cp(&node, &scratch, transport, &[&in_pod(&scratch.file("missing")), "down"]).await;
    assert_eq!((ended.code, scratch.file("down").exists()), (Some(1), false), "{}", ended.stderr);
}

/// A "container" that has only tar. What needs more fails with a message, and `--in-place` works.
async fn a_container_with_tar_alone(transport: &str) {
    let _proof = proves(Foreign::GnuTar, transport, "a container with tar alone");
    let scratch = Scratch::new();
    fs::create_dir(scratch.file("bin")).expect("a folder");
    symlink(which("tar").await, scratch.file("bin/tar")).expect("a link");
    let node = Peer::node_with_path(scratch.file("bin"));
    fs::write(scratch.file("up"), b"up").expect("a file");
    let there = scratch.file("there");
    let ended = cp(&node, &scratch, transport, &["up", &in_pod(&there)]).await;
    assert_eq!((ended.code, there.exists()), (Some(1), false), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("test in the container: ") && ended.stderr.contains("--in-place"),
        "{}",
        ended.stderr
    );
    copies(&node, &scratch, transport, &["--in-place", "up", &in_pod(&there)]).await;
    assert_eq!(fs::read(&there).expect("a file"), b"up");
}

over_both_transports! {
    over_websocket: "websocket", over_spdy: "spdy";
    a_tree_there_and_back,
    a_large_file_there_and_back,
    gos_servers_carry_it_as_well,
    pods_and_containers_are_named_as_kubectl_does,
    a_folder_that_is_there_is_filled,
    a_hard_link_comes_with_its_content,
    what_is_not_there_is_an_error_and_no_file,
    copies_land_where_kubectls_do,
    a_cut_download_leaves_nothing,
    a_cut_upload_has_no_name,
    an_interrupted_copy_leaves_nothing,
    busybox_copies_there_and_back,
    a_container_with_tar_alone,
}
