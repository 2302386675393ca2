//! kubectl cp against the built-in node over both transports. tar is a local process there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kubestream_interop::matrix::{Foreign, NODE, Over, Proof, client_of, proves};
use kubestream_interop::{Input, Peer, Scratch, digest, kubectl, pattern, run};
use tokio::process::Command;

const FILES: usize = 1000;

/// The size of the one large file in MB: `KUBESTREAM_CP_MB`, or 50.
fn megabytes() -> usize {
    std::env::var("KUBESTREAM_CP_MB").map_or(50, |number| number.parse().expect("KUBESTREAM_CP_MB is a number"))
}

fn proof(websockets: bool, case: &str) -> Proof {
    let over = if websockets { Over::WebSocketV5 } else { Over::SpdyV4 };
    proves(case).with(Foreign::Kubectl, client_of(NODE), [over])
}

async fn cp(node: &Peer, scratch: &Scratch, websockets: bool, from: &str, to: &str) {
    let mut command = Command::new(kubectl());
    command.arg(format!("--server={}", node.address())).args(["cp", from, to]).current_dir(scratch.path());
    command.env_clear().env("HOME", scratch.path()).env("PATH", std::env::var("PATH").unwrap_or_default());
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string());
    let ended = run(command, Input::Null).await;
    assert_eq!(ended.code, Some(0), "{from} to {to}: {}", ended.stderr);
}

/// The checksum of every file below a folder, by its relative path.
fn sums(root: &Path) -> BTreeMap<String, String> {
    let mut sums = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below it").display().to_string();
                sums.insert(name, digest(&fs::read(path).expect("a file")));
            }
        }
    }
    sums
}

async fn a_tree_there_and_back(websockets: bool) {
    let _proof = proof(websockets, &format!("cp of {FILES} files there and back"));
    let (node, scratch) = (Peer::node(), Scratch::new());
    let tree = scratch.file("tree");
    for number in 0..FILES {
        let folder = tree.join(format!("folder {}", number % 10));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("file-{number}")), pattern(number * 37 % 20_000)).expect("a file");
    }
    let expected = sums(&tree);
    assert_eq!(expected.len(), FILES);
    // The "pod" has this machine's files.
    let there = scratch.file("there");
    cp(&node, &scratch, websockets, "tree", &format!("demo:{}", there.display())).await;
    assert_eq!(sums(&there), expected);
    cp(&node, &scratch, websockets, &format!("demo:{}", there.display()), "back").await;
    assert_eq!(sums(&scratch.file("back")), expected);
}

async fn a_large_file_there_and_back(websockets: bool) {
    let _proof = proof(websockets, &format!("cp of {} MB there and back", megabytes()));
    let (node, scratch) = (Peer::node(), Scratch::new());
    let content = pattern(megabytes() * 1_000_000);
    let expected = digest(&content);
    fs::write(scratch.file("large"), content).expect("a file");
    let there = scratch.file("there");
    cp(&node, &scratch, websockets, "large", &format!("demo:{}", there.display())).await;
    assert_eq!(digest(&fs::read(&there).expect("a file")), expected);
    cp(&node, &scratch, websockets, &format!("demo:{}", there.display()), "back").await;
    assert_eq!(digest(&fs::read(scratch.file("back")).expect("a file")), expected);
}

#[tokio::test]
async fn over_websocket_a_tree_there_and_back() {
    a_tree_there_and_back(true).await;
}

#[tokio::test]
async fn over_spdy_a_tree_there_and_back() {
    a_tree_there_and_back(false).await;
}

#[tokio::test]
async fn over_websocket_a_large_file_there_and_back() {
    a_large_file_there_and_back(true).await;
}

#[tokio::test]
async fn over_spdy_a_large_file_there_and_back() {
    a_large_file_there_and_back(false).await;
}
