//! The program proxy's recordings: a stock kubectl in front of it and the built-in node behind it, over WebSocket and
//! SPDY, and asciinema, which plays the recordings.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kubestream_interop::matrix::{Foreign, NODE, Over, Proof, client_of, proves, reader_of};
use kubestream_interop::{
    Ended, Input, Peer, Scratch, asciinema, digest, kubectl, over_both_transports, pattern, run, within,
};
use pty_process::{Pty, Size};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Proves cases of kubectl, and of the reader of the recording.
fn proof(websockets: bool, cases: &str) -> Proof {
    let over = if websockets { Over::WebSocketV5 } else { Over::SpdyV4 };
    let recorded = client_of(NODE).through("`proxy --record`");
    let proof = proves(cases).with(Foreign::Kubectl, recorded, [over]);
    proof.with(Foreign::Asciinema, reader_of("`proxy --record`"), [Over::Asciicast])
}

struct Cluster {
    proxy: Peer,
    scratch: Scratch,
    websockets: bool,
}

/// A recording, parsed by the test.
struct Cast {
    path: PathBuf,
    header: Value,
    events: Vec<(String, String)>,
}

impl Cluster {
    fn new(websockets: bool, more: &[&str]) -> Self {
        let scratch = Scratch::new();
        let directory = scratch.file("casts");
        std::fs::create_dir(&directory).expect("a directory");
        let arguments = [&["--record", directory.to_str().expect("text")], more].concat();
        Self { proxy: Peer::node().behind_proxy("--backend", &arguments), scratch, websockets }
    }

    fn arguments<'a>(&self, arguments: &[&'a str]) -> Vec<String> {
        let server = format!("--server={}", self.proxy.address());
        [server].into_iter().chain(arguments.iter().map(|argument: &&'a str| (*argument).to_owned())).collect()
    }

    fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("HOME", self.scratch.path().display().to_string()),
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("TERM", "xterm".to_owned()),
            ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", self.websockets.to_string()),
        ]
    }

    async fn kubectl(&self, arguments: &[&str], input: Input) -> Ended {
        let mut command = Command::new(kubectl());
        command.args(self.arguments(arguments)).env_clear().envs(self.settings());
        run(command, input).await
    }

    /// The same with both outputs in one, as a terminal shows them.
    async fn kubectl_in_one(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 2>&1"#, "sh"]).arg(kubectl()).args(self.arguments(arguments));
        command.env_clear().envs(self.settings());
        run(command, Input::Null).await
    }

    /// `kubectl … -it` on a terminal of 24 lines by 80.
    fn terminal(&self, arguments: &[&str]) -> Terminal {
        let (pty, pts) = pty_process::open().expect("a terminal");
        pty.resize(Size::new(24, 80)).expect("a size");
        let command = pty_process::Command::new(kubectl())
            .args(self.arguments(arguments))
            .env_clear()
            .envs(self.settings())
            .kill_on_drop(true);
        Terminal { kubectl: command.spawn(pts).expect("kubectl"), pty, shown: Vec::new() }
    }

    /// The recording of the only session, after its last line has been written.
    async fn cast(&self) -> Cast {
        let began = Instant::now();
        loop {
            let entries = std::fs::read_dir(self.scratch.file("casts")).expect("the directory");
            let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
            assert!(paths.len() < 2, "{paths:?}");
            if let [path] = &paths[..] {
                let text = std::fs::read_to_string(path).expect("UTF-8");
                let lines: Vec<Value> =
                    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
                if let [header, events @ .., last] = &lines[..]
                    && last[1] == "m"
                    && last[2].as_str().is_some_and(|text| text.starts_with("ended: "))
                {
                    let text = |value: &Value| value.as_str().expect("text").to_owned();
                    let events = events.iter().chain([last]).map(|event| (text(&event[1]), text(&event[2])));
                    return Cast { path: path.clone(), header: header.clone(), events: events.collect() };
                }
            }
            assert!(began.elapsed() < Duration::from_secs(30), "no recording that has ended: {paths:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Cast {
    fn joined(&self, kind: &str) -> String {
        self.events.iter().filter(|(of, _)| of == kind).map(|(_, text)| &text[..]).collect()
    }

    fn all(&self, kind: &str) -> Vec<&str> {
        self.events.iter().filter(|(of, _)| of == kind).map(|(_, text)| &text[..]).collect()
    }

    /// asciinema prints what the test has parsed, and both equal what was shown.
    async fn is_what_was_shown(&self, shown: &[u8]) {
        assert_eq!(digest(self.joined("o").as_bytes()), digest(shown), "{:?}", String::from_utf8_lossy(shown));
        let mut command = asciinema();
        command.arg("cat").arg(&self.path);
        let printed = run(command, Input::Null).await;
        assert_eq!((printed.code, &printed.stderr[..]), (Some(0), ""));
        assert_eq!(digest(&printed.stdout), digest(shown), "what asciinema prints");
        let (version, width, height) = (&self.header["version"], &self.header["width"], &self.header["height"]);
        assert_eq!((version.as_u64(), width.as_u64(), height.as_u64()), (Some(2), Some(80), Some(24)));
        assert!(self.header["timestamp"].as_u64() > Some(1_700_000_000));
    }
}

/// A kubectl on a terminal, and what the terminal has shown.
struct Terminal {
    kubectl: Child,
    pty: Pty,
    shown: Vec<u8>,
}

impl Terminal {
    async fn shows(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        while !String::from_utf8_lossy(&self.shown).contains(text) {
            let count =
                within(&format!("{text:?} on the terminal"), self.pty.read(&mut buffer)).await.expect("more of it");
            self.shown.extend_from_slice(&buffer[..count]);
        }
    }

    async fn ended(&mut self) -> Option<i32> {
        let mut buffer = [0; 1024];
        let ended = async {
            loop {
                tokio::select! {
                    biased;
                    Ok(count @ 1..) = self.pty.read(&mut buffer) => self.shown.extend_from_slice(&buffer[..count]),
                    status = self.kubectl.wait() => return status.expect("kubectl's status").code(),
                }
            }
        };
        within("kubectl's end", ended).await
    }
}

async fn both_outputs_are_there_in_their_order(websockets: bool) {
    let cluster = Cluster::new(websockets, &[]);
    let script = "for i in 1 2 3; do printf 'out %d \u{20ac}\\n' $i; sleep 0.2; printf 'err %d \u{1f600}\\n' $i >&2; sleep 0.2; done";
    let ended = cluster.kubectl_in_one(&["exec", "demo", "-c", "main", "--", "sh", "-c", script]).await;
    assert_eq!(ended.code, Some(0));
    assert!(String::from_utf8_lossy(&ended.stdout).ends_with("err 3 \u{1f600}\n"));
    let cast = cluster.cast().await;
    cast.is_what_was_shown(&ended.stdout).await;
    assert_eq!(cast.all("m"), ["ended: command succeeded"]);
    assert_eq!(cast.header["title"], "exec default/demo/main");
    assert_eq!(cast.header["command"], format!("sh -c {script}"));
    let name = cast.path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    assert!(name.contains("_default_demo_main_") && name.ends_with(".cast"), "{name}");
}

/// Frames may cut characters anywhere. The recording also says how the command ended.
async fn megabytes_of_text_are_all_there(websockets: bool) {
    let cluster = Cluster::new(websockets, &[]);
    let text: String =
        pattern(300_000).iter().map(|byte| char::from_u32(0x400 + u32::from(*byte)).expect("a letter")).collect();
    let file = cluster.scratch.file("text");
    std::fs::write(&file, text.repeat(5)).expect("a file");
    let script = format!("cat {}; exit 7", file.display());
    let ended = cluster.kubectl(&["exec", "demo", "--", "sh", "-c", &script], Input::Null).await;
    assert_eq!((ended.code, ended.stdout.len()), (Some(7), 3_000_000), "{}", ended.stderr);
    let cast = cluster.cast().await;
    cast.is_what_was_shown(&ended.stdout).await;
    assert_eq!(cast.all("m"), ["ended: command terminated with exit code 7"]);
    assert!(!cast.joined("o").contains('\u{fffd}'));
}

async fn a_terminal_is_there_with_its_sizes(websockets: bool) {
    let cluster = Cluster::new(websockets, &[]);
    let script = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; echo first; read line; echo \"read $line\"; \
        until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; printf '\\033[1mthen\\033[0m\\n'";
    let mut terminal = cluster.terminal(&["exec", "-it", "demo", "--", "sh", "-c", script]);
    terminal.shows("first").await;
    terminal.pty.write_all(b"typed\r").await.expect("the terminal takes keys");
    terminal.shows("read typed").await;
    terminal.pty.resize(Size::new(50, 132)).expect("a size");
    terminal.shows("then").await;
    assert_eq!(terminal.ended().await, Some(0));
    let cast = cluster.cast().await;
    cast.is_what_was_shown(&terminal.shown).await;
    let sizes = cast.all("r");
    assert!(sizes.contains(&"80x24") && sizes.last() == Some(&"132x50"), "{sizes:?}");
    assert_eq!(cast.all("i"), Vec::<&str>::new(), "what is typed is nobody's business unless it is asked for");
}

async fn what_is_typed_is_there_where_it_is_asked_for(websockets: bool) {
    let cluster = Cluster::new(websockets, &["--record-input"]);
    let ended = cluster.kubectl(&["attach", "-i", "demo"], Input::Bytes("secr\u{e9}t\n".into())).await;
    assert_eq!((ended.code, &ended.stdout[..]), (Some(0), "out:secr\u{e9}t\n".as_bytes()), "{}", ended.stderr);
    let cast = cluster.cast().await;
    assert_eq!(cast.joined("i"), "secr\u{e9}t\n");
    let shown = cast.joined("o");
    assert!(shown.contains("out:secr\u{e9}t\n") && shown.contains("err:secr\u{e9}t\n"), "{shown}");
    cast.is_what_was_shown(shown.as_bytes()).await;
    assert_eq!(cast.header["title"], "attach default/demo/main");
}

async fn begin(websockets: bool, cases: &str) -> (Proof, bool) {
    (proof(websockets, cases), websockets)
}

over_both_transports! {
    websocket: true, spdy: false;
    both_outputs_are_there_in_their_order: "both outputs in their order",
    megabytes_of_text_are_all_there: "3 MB of two-byte characters and exit 7",
    a_terminal_is_there_with_its_sizes: "exec -it with a resize",
    what_is_typed_is_there_where_it_is_asked_for: "attach -i with what is typed",
}

/// What could be a session in another spelling is refused, and no name leads out of the directory.
#[tokio::test]
async fn what_is_not_known_is_not_passed_on() {
    let _proof =
        proves("what is not known is not passed on").with(Foreign::Bytes, client_of("`proxy --record`"), [Over::Http]);
    let cluster = Cluster::new(true, &[]);
    let address = cluster.proxy.address().trim_start_matches("http://").to_owned();
    for (path, status) in [
        ("/api/v1/namespaces/default/pods/demo/ex%65c?command=true&stdout=true", "403"),
        ("/api/v1//namespaces/default/pods/demo/exec?command=true&stdout=true", "403"),
        // A name that no pod and no container can have.
        ("/api/v1/namespaces/default/pods/..%2F..%2Fdemo/exec?command=true&stdout=true", "400"),
        ("/api/v1/namespaces/default/pods/demo/exec?command=true&stdout=true&container=../../x", "400"),
        ("/api/v1/namespaces/default/pods/demo/proxy", "403"),
    ] {
        let mut tcp = tokio::net::TcpStream::connect(&address).await.expect("the proxy");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        );
        tcp.write_all(head.as_bytes()).await.expect("a request");
        let mut answer = [0; 12];
        within("an answer", tcp.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer[9..], status.as_bytes(), "{path}");
    }
    let mut left = std::fs::read_dir(cluster.scratch.file("casts")).expect("the directory");
    assert!(left.next().is_none(), "a recording of what was not passed on");
}

/// A killed proxy leaves a recording that can be read up to the cut and has no last line.
#[tokio::test]
async fn a_recording_that_is_cut_off_is_readable() {
    let _proof = proof(true, "a recording that is cut off");
    let cluster = Cluster::new(true, &[]);
    let mut command = Command::new(kubectl());
    command.args(cluster.arguments(&["exec", "demo", "--", "sh", "-c", "echo so far; sleep 100"]));
    command.env_clear().envs(cluster.settings());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut kubectl = command.spawn().expect("kubectl");
    let mut line = [0; 7];
    let mut stdout = kubectl.stdout.take().expect("stdout is a pipe");
    within("output", stdout.read_exact(&mut line)).await.expect("output");
    let Cluster { proxy, scratch, .. } = cluster;
    drop(proxy);
    let path =
        std::fs::read_dir(scratch.file("casts")).expect("the directory").next().expect("one").expect("it").path();
    let text = std::fs::read_to_string(&path).expect("UTF-8");
    assert!(text.lines().count() == 2 && text.ends_with("\"so far\\n\"]\n"), "{text}");
    let mut command = asciinema();
    command.arg("cat").arg(&path);
    let printed = run(command, Input::Null).await;
    assert_eq!((printed.code, &printed.stdout[..]), (Some(0), &b"so far\n"[..]));
}
