//! crictl at the program `cri`, with streams over SPDY, which is its default, and over WebSocket.
//!
//! crictl has no fallback, so what one transport cannot do fails.

use std::fs;
use std::process::Stdio;

use kubestream_interop::matrix::{self, Foreign, Over, Proof, client_of};
use kubestream_interop::{
    Ended, Input, Runtime, Terminal, binary, closed_port, digest, echo, gone, over_both_transports, pattern, run, runs,
    within,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

fn proves(cases: &str, over: Over) -> Proof {
    matrix::proves(cases).with(Foreign::Crictl, client_of("`cri`"), [over])
}

/// A runtime with one pod, and the configuration of crictl for it.
struct Tool {
    runtime: Runtime,
    transport: &'static str,
}

impl Tool {
    async fn new(transport: &'static str) -> Self {
        let runtime = Runtime::new().await;
        let endpoint = runtime.peer.address();
        let config = format!("runtime-endpoint: {endpoint}\nimage-endpoint: {endpoint}\ntimeout: 30\n");
        fs::write(runtime.scratch.file("crictl.yaml"), config).expect("a config");
        Self { runtime, transport }
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let config = self.runtime.scratch.file("crictl.yaml").display().to_string();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        ["--config".to_owned(), config].into_iter().chain(arguments).collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("crictl"));
        command.args(self.arguments(arguments)).env_clear().env("HOME", self.runtime.scratch.path());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        run(self.command(arguments), Input::Null).await
    }

    /// Runs crictl, which must succeed, and returns its output.
    async fn says(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments).await;
        assert_eq!((ended.code, &ended.stderr[..]), (Some(0), ""), "{arguments:?}");
        String::from_utf8(ended.stdout).expect("text").trim_end().to_owned()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.says(arguments).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }

    /// `crictl exec CONTAINER sh -c …`
    async fn sh(&self, container: &str, script: &str) -> Ended {
        self.run(&["exec", "--transport", self.transport, container, "sh", "-c", script]).await
    }

    async fn feed(&self, verb: &[&str], input: &[u8]) -> Ended {
        let (name, rest) = verb.split_first().expect("a verb");
        let arguments = [&[*name, "-i", "--transport", self.transport][..], rest].concat();
        run(self.command(&arguments), Input::Bytes(input.to_vec())).await
    }

    fn terminal(&self, verb: &[&str]) -> Terminal {
        let (name, rest) = verb.split_first().expect("a verb");
        let arguments = [&[*name, "-it", "--transport", self.transport][..], rest].concat();
        let command = pty_process::Command::new(binary("crictl")).args(self.arguments(&arguments));
        Terminal::start(command.env_clear().env("HOME", self.runtime.scratch.path()).env("TERM", "xterm"))
    }

    fn write(&self, name: &str, content: &Value) -> String {
        let path = self.runtime.scratch.file(name);
        fs::write(&path, content.to_string()).expect("a file");
        path.display().to_string()
    }
}

async fn outputs_stay_apart_and_an_exit_code_is_an_error_that_says_it(tool: Tool) {
    let container = tool.runtime.start(&[], json!({})).await;
    let ended = tool.sh(&container, "echo out; echo err >&2").await;
    assert_eq!((ended.code, &ended.stdout[..], &ended.stderr[..]), (Some(0), &b"out\n"[..], "err\n"));
    for code in [1, 7, 255] {
        // crictl's own code is 1, whatever the command's is.
        let ended = tool.sh(&container, &format!("echo out; echo err >&2; exit {code}")).await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(1), &b"out\n"[..]));
        let said = format!("{container}: command terminated with exit code {code}\"\n");
        assert!(ended.stderr.starts_with("err\n") && ended.stderr.ends_with(&said), "{}", ended.stderr);
    }
    let ended = tool.run(&["exec", "-r", tool.transport, &container, "/no/such/command"]).await;
    assert_eq!((ended.code, &ended.stdout[..]), (Some(1), &b""[..]));
    assert!(ended.stderr.contains("error executing command in container: exec:"), "{}", ended.stderr);
    assert!(ended.stderr.contains("/no/such/command"), "{}", ended.stderr);
}

async fn ten_megabytes_of_stdin_come_back_to_their_end(tool: Tool) {
    let container = tool.runtime.start(&[], json!({})).await;
    let sent = pattern(10_000_000);
    let ended = tool.feed(&["exec", &container, "cat"], &sent).await;
    assert_eq!((ended.code, &ended.stderr[..]), (Some(0), ""));
    assert_eq!(digest(&ended.stdout), digest(&sent));
}

async fn the_tail_of_a_fast_exit_is_never_lost(tool: Tool) {
    let container = tool.runtime.start(&[], json!({})).await;
    for _ in 0..runs(5) {
        let ended = tool.sh(&container, "head -c 3000000 /dev/zero; exit 7").await;
        assert_eq!((ended.code, ended.stdout.len()), (Some(1), 3_000_000), "{}", ended.stderr);
        assert!(ended.stderr.contains("exit code 7"), "{}", ended.stderr);
    }
}

async fn a_terminal_has_its_size_its_keys_and_its_end(tool: Tool) {
    let container = tool.runtime.start(&[], json!({})).await;
    let script = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; echo first $(stty size);
         until [ \"$(stty size)\" = '50 132' ]; do sleep 0.01; done; echo then $(stty size); cat; echo over; exit 5";
    let mut terminal = tool.terminal(&["exec", &container, "sh", "-c", script]);
    terminal.shows("first 24 80\r\n").await;
    terminal.resize(50, 132);
    terminal.shows("then 50 132\r\n").await;
    terminal.types(b"typed\r").await;
    terminal.shows("typed\r\ntyped\r\n").await;
    terminal.types(b"\x04").await;
    terminal.shows("over\r\n").await;
    terminal.shows("command terminated with exit code 5").await;
    assert_eq!(terminal.ended().await, Some(1));
}

async fn a_terminal_that_goes_away_takes_the_command_with_it(tool: Tool) {
    let container = tool.runtime.start(&[], json!({})).await;
    let script = format!("echo $$ > {}; exec sleep 1000", tool.runtime.scratch.file("pid").display());
    let mut terminal = tool.terminal(&["exec", &container, "sh", "-c", &script]);
    let process = tool.runtime.scratch.pid("pid").await;
    terminal.client.kill().await.expect("crictl is killed");
    gone(process).await;
}

async fn attached_each_line_comes_back_on_both_outputs(tool: Tool) {
    let script = r#"while read line; do echo "out:$line"; echo "err:$line" >&2; done"#;
    let container = tool.runtime.start(&["sh", "-c", script], json!({"stdin": true})).await;
    for line in ["one", "two"] {
        let ended = tool.feed(&["attach", &container], format!("{line}\n").as_bytes()).await;
        let (out, err) = (format!("out:{line}\n"), format!("err:{line}\n"));
        assert_eq!((ended.code, &ended.stdout[..], &ended.stderr), (Some(0), out.as_bytes(), &err));
    }
    assert_eq!(tool.json(&["inspect", &container]).await["status"]["state"], "CONTAINER_RUNNING");
}

async fn attached_to_a_terminal_it_has_its_size_and_ends_with_the_container(tool: Tool) {
    let script =
        "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; read line; echo got $line $(stty size); exit 3";
    let container = tool.runtime.start(&["sh", "-c", script], json!({"stdin": true, "tty": true})).await;
    let mut terminal = tool.terminal(&["attach", &container]);
    terminal.types(b"hello\r").await;
    terminal.shows("got hello 24 80\r\n").await;
    // The container's exit code is not that of the attach.
    assert_eq!(terminal.ended().await, Some(0));
    assert_eq!(tool.runtime.exited(&container).await["exitCode"], 3);
}

/// A crictl that forwards, with the local port of each remote one.
struct Forward {
    crictl: Child,
    locals: Vec<u16>,
}

impl Forward {
    async fn start(tool: &Tool, remotes: &[u16]) -> Self {
        let ports: Vec<_> = remotes.iter().map(|remote| format!(":{remote}")).collect();
        let verb = ["port-forward", "--transport", tool.transport, &tool.runtime.pod];
        let mut command = tool.command(&[&verb[..], &ports.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut crictl = command.spawn().expect("crictl");
        let mut lines = BufReader::new(crictl.stdout.take().expect("stdout is a pipe")).lines();
        let mut locals = Vec::new();
        while locals.len() < remotes.len() {
            let line = within("where crictl listens", lines.next_line()).await.expect("text").expect("a line");
            // crictl also prints its IPv6 address.
            if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") {
                let (local, to) = rest.split_once(" -> ").unwrap_or_else(|| panic!("crictl says {line:?}"));
                assert_eq!(to, remotes[locals.len()].to_string());
                locals.push(local.parse().expect("a port"));
            }
        }
        // crictl prints a line for each connection, and would block if nothing read it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { crictl, locals }
    }
}

/// Sends bytes to a local port, and returns the checksum of what comes back.
async fn ask(local: u16, sent: Vec<u8>) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", local)).await.expect("crictl listens");
    let (mut reads, mut writes) = tcp.split();
    let send = async {
        writes.write_all(&sent).await.expect("it is sent");
        writes.shutdown().await.expect("and ended");
    };
    let mut back = Vec::new();
    within("the echo", async { tokio::join!(send, reads.read_to_end(&mut back)) }).await.1.expect("an echo");
    digest(&back)
}

async fn a_forward_carries_many_and_outlives_a_port_that_is_refused(tool: Tool) {
    let closed = closed_port().await;
    let mut forward = Forward::start(&tool, &[echo().await, closed]).await;
    let sent = pattern(10_000_000);
    assert_eq!(ask(forward.locals[0], sent.clone()).await, digest(&sent));
    let mut transfers = JoinSet::new();
    for number in 0..50 {
        let (local, sent) = (forward.locals[0], sent[number..500_000 + 1000 * number].to_vec());
        transfers.spawn(async move { (digest(&sent), ask(local, sent).await) });
    }
    while let Some(transfer) = transfers.join_next().await {
        let (there, back) = transfer.expect("a transfer");
        assert_eq!(there, back);
    }
    let mut stays = TcpStream::connect(("127.0.0.1", forward.locals[0])).await.expect("a connection");
    for _ in 0..3 {
        let mut refused = TcpStream::connect(("127.0.0.1", forward.locals[1])).await.expect("a connection");
        let mut nothing = Vec::new();
        // It may end in any way, but it must end.
        let _ = within("the end of what is refused", refused.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
        stays.write_all(b"ping").await.expect("it is sent");
        let mut pong = [0; 4];
        within("the answer", stays.read_exact(&mut pong)).await.expect("an answer");
        assert_eq!(&pong, b"ping");
        assert_eq!(ask(forward.locals[0], b"more".to_vec()).await, digest(b"more"));
    }
    assert!(matches!(forward.crictl.try_wait(), Ok(None)), "crictl has given up");
    let id = Pid::from_raw(forward.crictl.id().expect("it runs") as i32).expect("a process id");
    kill_process(id, Signal::INT).expect("crictl is interrupted");
    let ended = within("crictl's end", forward.crictl.wait()).await.expect("crictl's status");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn exec_sync_has_its_outputs_or_says_why_not() {
    let _proof = proves("exec -s with outputs, exit code and time limit", Over::Cri);
    let tool = Tool::new("spdy").await;
    let container = tool.runtime.start(&[], json!({})).await;
    let sync = async |more: &[&str], script: &str| {
        tool.run(&[&["exec", "--sync"], more, &[&container, "sh", "-c", script]].concat()).await
    };
    // Each output is followed by a newline, and both come on stdout.
    let ended = sync(&[], "printf out; printf err >&2").await;
    assert_eq!((ended.code, &ended.stdout[..], &ended.stderr[..]), (Some(0), &b"out\nerr\n"[..], ""));
    let ended = sync(&[], "printf out; printf err >&2; exit 4").await;
    assert_eq!((ended.code, &ended.stdout[..]), (Some(1), &b""[..]));
    assert!(ended.stderr.contains(" exited with 4: err\""), "{}", ended.stderr);
    let pid = tool.runtime.scratch.file("pid");
    let ended = sync(&["--timeout", "1"], &format!("echo $$ > {}; exec sleep 1000", pid.display())).await;
    assert_eq!((ended.code, &ended.stdout[..]), (Some(1), &b""[..]));
    assert!(ended.stderr.contains("timed out after 1 s"), "{}", ended.stderr);
    gone(tool.runtime.scratch.pid("pid").await).await;
}

#[tokio::test]
async fn a_pod_and_its_container_from_their_beginning_to_their_end() {
    let _proof = proves(
        "version, info, runp, create, start, ps, inspect, logs, stop, rm, stopp, inspectp, rmp, pods",
        Over::Cri,
    );
    let tool = Tool::new("spdy").await;
    assert!(tool.says(&["version"]).await.ends_with("RuntimeApiVersion:  v1"));
    let info = tool.json(&["info"]).await;
    let ready = |number: usize| &info["status"]["conditions"][number]["status"];
    assert_eq!((ready(0), ready(1)), (&json!(true), &json!(true)));

    let logs = tool.runtime.scratch.file("logs");
    let metadata = json!({"name": "other", "uid": "1", "namespace": "default"});
    let pod = tool.write("pod.json", &json!({"metadata": metadata, "log_directory": logs}));
    let script = "trap 'exit 9' TERM; echo out; echo err >&2; while :; do sleep 0.1; done";
    let container = json!({
        "metadata": {"name": "main"},
        "image": {"image": "local/none"},
        "command": ["sh", "-c", script],
        "log_path": "other.log",
    });
    let container = tool.write("container.json", &container);
    let sandbox = tool.says(&["runp", &pod]).await;
    let id = tool.says(&["create", &sandbox, &container, &pod]).await;
    let status = async || tool.json(&["inspect", &id]).await["status"].take();
    assert_eq!(status().await["state"], "CONTAINER_CREATED");
    assert_eq!(tool.says(&["start", &id]).await, id);
    assert_eq!(tool.says(&["ps", "--quiet", "--pod", &sandbox]).await, id);
    let shown = tool.says(&["ps"]).await;
    assert!(shown.contains(&id[..13]) && shown.contains("Running") && shown.contains("local/none"), "{shown}");
    assert_eq!(status().await["logPath"], logs.join("other.log").display().to_string());
    let both = async {
        loop {
            let ended = tool.run(&["logs", &id]).await;
            if (&ended.stdout[..], &ended.stderr[..]) == (b"out\n", "err\n") {
                return ended.code;
            }
        }
    };
    assert_eq!(within("the log", both).await, Some(0));

    tool.says(&["stop", "--timeout", "30", &id[..13]]).await;
    let stopped = status().await;
    assert_eq!((&stopped["state"], &stopped["exitCode"]), (&json!("CONTAINER_EXITED"), &json!(9)));
    assert_eq!(tool.says(&["ps", "--quiet"]).await, "");
    assert_eq!(tool.says(&["ps", "--quiet", "--all"]).await, id);
    tool.says(&["rm", &id]).await;
    let ended = tool.run(&["inspect", &id]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("code = NotFound"), "{}", ended.stderr);
    tool.says(&["stopp", &sandbox]).await;
    assert_eq!(tool.json(&["inspectp", &sandbox]).await["status"]["state"], "SANDBOX_NOTREADY");
    tool.says(&["rmp", &sandbox]).await;
    assert_eq!(tool.says(&["pods", "--quiet"]).await, tool.runtime.pod);
}

#[tokio::test]
async fn logs_are_followed_to_the_containers_end() {
    let _proof = proves("logs -f to the container's end; logs --tail", Over::Cri);
    let tool = Tool::new("spdy").await;
    let script = "for line in 1 2 3; do echo $line; sleep 0.3; done";
    let container = tool.runtime.start(&["sh", "-c", script], json!({})).await;
    assert_eq!(tool.says(&["logs", "--follow", &container]).await, "1\n2\n3");
    assert_eq!(tool.says(&["logs", "--tail", "1", &container]).await, "3");
}

async fn begin((transport, over): (&'static str, Over), cases: &str) -> (Proof, Tool) {
    (proves(cases, over), Tool::new(transport).await)
}

over_both_transports! {
    over_spdy: ("spdy", Over::SpdyV4), over_websocket: ("websocket", Over::WebSocketV5);
    outputs_stay_apart_and_an_exit_code_is_an_error_that_says_it: "outputs apart; exit codes 0, 1, 7, 255, as words; a command that does not exist",
    ten_megabytes_of_stdin_come_back_to_their_end: "10 MB there and back; the end of stdin",
    the_tail_of_a_fast_exit_is_never_lost: "3 MB and exit 7",
    a_terminal_has_its_size_its_keys_and_its_end: "exec -it with its sizes, keys and ctrl-D",
    a_terminal_that_goes_away_takes_the_command_with_it: "a terminal that goes away",
    attached_each_line_comes_back_on_both_outputs: "attach -i",
    attached_to_a_terminal_it_has_its_size_and_ends_with_the_container: "attach -it",
}

over_both_transports! {
    forwarded_over_spdy: ("spdy", Over::Forward), forwarded_through_the_tunnel: ("websocket", Over::Tunnel);
    a_forward_carries_many_and_outlives_a_port_that_is_refused:
        "10 MB there and back; 50 connections at a time; a refused port does not end the forward; ctrl-C",
}
