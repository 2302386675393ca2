//! The kubelet's client of a container runtime, and client-go's executors and port-forward, at the example `cri`.
//!
//! crictl and critest are not to be had as Go modules: their parts are, and what critest asks of streams is asked here.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use kubestream_interop::{Ended, Input, Peer, Scratch, binary, digest, execute, gone, pattern, run, within};
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const TRANSPORTS: [&[&str]; 4] = [
    &["-transport", "spdy"],
    &["-transport", "websocket"],
    &["-transport", "fallback"],
    &["-transport", "websocket", "-protocols", "v4.channel.k8s.io"],
];

/// A runtime with one pod.
struct Runtime {
    peer: Peer,
    scratch: Scratch,
    pod: String,
}

impl Runtime {
    async fn new() -> Self {
        let scratch = Scratch::new();
        let mut runtime = Self { peer: Peer::runtime(&scratch.file("cri.sock")), scratch, pod: String::new() };
        runtime.pod = runtime.run_pod("web", &[("app", "web")]).await;
        runtime
    }

    async fn run_pod(&self, name: &str, labels: &[(&str, &str)]) -> String {
        let metadata = json!({"name": name, "uid": "0", "namespace": "default"});
        let labels: Value = labels.iter().map(|(name, value)| (*name, *value)).collect();
        let config = json!({"metadata": metadata, "labels": labels, "logDirectory": self.scratch.path().join("logs")});
        id(&self.call("RunPodSandbox", json!({"config": config})).await)
    }

    async fn try_call(&self, name: &str, request: Value) -> (Option<i32>, Value) {
        let mut command = Command::new(binary("cri-client"));
        command.args(["-endpoint", self.peer.address(), "-call", name, "-request", &request.to_string()]);
        let ended = run(command, Input::Null).await;
        let answer = serde_json::from_slice(&ended.stdout);
        (ended.code, answer.unwrap_or_else(|error| panic!("{name}: {error}: {}", ended.stderr)))
    }

    async fn call(&self, name: &str, request: Value) -> Value {
        let (code, answer) = self.try_call(name, request).await;
        assert_eq!(code, Some(0), "{name}: {answer}");
        answer
    }

    /// The code of a call that fails.
    async fn refused(&self, name: &str, request: Value) -> String {
        let (code, answer) = self.try_call(name, request).await;
        assert_eq!(code, Some(1), "{name}: {answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }

    async fn create(&self, command: &[&str], more: Value) -> String {
        let mut config = json!({
            "metadata": {"name": "main"},
            "image": {"image": "local/none"},
            "command": command,
            "logPath": "main.log",
        });
        let fields = config.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        id(&self.call("CreateContainer", json!({"podSandboxId": self.pod, "config": config})).await)
    }

    async fn start(&self, command: &[&str], more: Value) -> String {
        let container = self.create(command, more).await;
        self.call("StartContainer", json!({"containerId": container})).await;
        container
    }

    async fn status(&self, container: &str) -> Value {
        self.call("ContainerStatus", json!({"containerId": container})).await["status"].take()
    }

    async fn exited(&self, container: &str) -> Value {
        let exited = async {
            loop {
                let status = self.status(container).await;
                if status["state"] == "CONTAINER_EXITED" {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("the container's end", exited).await
    }

    async fn url(&self, call: &str, request: Value) -> String {
        self.call(call, request).await["url"].as_str().expect("a URL").to_owned()
    }

    /// Runs a command in a container.
    async fn exec(&self, container: &str, command: &[&str], transport: &[&str], input: Input) -> (Ended, Value) {
        let stdin = !matches!(input, Input::Null);
        let request = json!({"containerId": container, "cmd": command, "stdin": stdin, "stdout": true, "stderr": true});
        let url = self.url("Exec", request).await;
        let streams = if stdin { "stdin=1&stdout=1&stderr=1" } else { "stdout=1&stderr=1" };
        execute(&url, transport, streams, input).await
    }

    async fn attach(&self, container: &str, transport: &[&str], input: Input) -> (Ended, Value) {
        let request = json!({"containerId": container, "stdin": true, "stdout": true, "stderr": true});
        let url = self.url("Attach", request).await;
        execute(&url, transport, "stdin=1&stdout=1&stderr=1", input).await
    }

    /// The container's log: the stream, the tag and the text of each record.
    fn log(&self) -> Vec<(String, String, String)> {
        let log = fs::read_to_string(self.scratch.file("logs/main.log")).expect("a log");
        let record = |line: &str| {
            let mut parts = line.splitn(4, ' ').map(str::to_owned);
            let time = parts.next().expect("a time");
            assert!(time.len() == "2026-01-01T00:00:00.000000000Z".len() && time.ends_with('Z'), "{time}");
            let mut next = || parts.next().unwrap_or_else(|| panic!("{line:?} is no record"));
            (next(), next(), next())
        };
        log.lines().map(record).collect()
    }
}

fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}

fn record(stream: &str, text: &str) -> (String, String, String) {
    (stream.to_owned(), "F".to_owned(), text.to_owned())
}

#[tokio::test]
async fn it_is_a_runtime_that_is_ready() {
    let runtime = Runtime::new().await;
    assert_eq!(runtime.call("Version", json!({})).await["runtimeApiVersion"], "v1");
    let status = runtime.call("Status", json!({})).await;
    let conditions = status["status"]["conditions"].as_array().expect("conditions");
    let ready: Vec<_> = conditions.iter().map(|condition| (&condition["type"], &condition["status"])).collect();
    assert_eq!(ready, [(&json!("RuntimeReady"), &json!(true)), (&json!("NetworkReady"), &json!(true))]);
    assert_eq!(runtime.call("RuntimeConfig", json!({})).await["linux"]["cgroupDriver"], "CGROUPFS");
    assert_eq!(runtime.refused("GetContainerEvents", json!({})).await, "Unimplemented");
    let pods = runtime.call("ListPodSandboxStats", json!({})).await;
    assert_eq!(pods[0]["attributes"]["id"], runtime.pod);
}

#[tokio::test]
async fn every_image_is_there_and_those_that_were_pulled_are_listed() {
    let runtime = Runtime::new().await;
    let image = json!({"image": {"image": "docker.io/library/busybox"}});
    let name = "docker.io/library/busybox:latest";
    let there = runtime.call("ImageStatus", image.clone()).await;
    assert_eq!((&there["image"]["id"], &there["image"]["size"]), (&json!(name), &json!("1")));
    assert_eq!(runtime.call("ListImages", json!({})).await, json!([]));
    assert_eq!(id(&runtime.call("PullImage", image.clone()).await), name);
    assert_eq!(runtime.call("ListImages", json!({})).await[0]["id"], name);
    runtime.call("RemoveImage", image).await;
    assert_eq!(runtime.call("ListImages", json!({})).await, json!([]));
    let disk = runtime.call("ImageFsInfo", json!({})).await;
    assert_eq!(disk["imageFilesystems"][0]["fsId"]["mountpoint"], "/");
}

#[tokio::test]
async fn a_container_runs_from_its_creation_to_its_exit_code() {
    let runtime = Runtime::new().await;
    let script = "echo \"$GREETING from $(pwd)\"; echo oh >&2; printf tail; exit 3";
    let more = json!({"envs": [{"key": "GREETING", "value": "aGVsbG8="}], "workingDir": "/usr"});
    let container = runtime.create(&["sh", "-c", script], more).await;
    assert_eq!(runtime.status(&container).await["state"], "CONTAINER_CREATED");
    runtime.call("StartContainer", json!({"containerId": container})).await;
    let status = runtime.exited(&container).await;
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(3), &json!("Error")));
    let time = |name: &str| status[name].as_str().expect("a time").parse::<i64>().expect("a number");
    assert!(time("createdAt") <= time("startedAt") && time("startedAt") <= time("finishedAt"), "{status}");
    let mut log = runtime.log();
    log.sort();
    assert_eq!(log, [record("stderr", "oh"), record("stdout", "hello from /usr"), record("stdout", "tail")]);
    assert_eq!(runtime.refused("StartContainer", json!({"containerId": container})).await, "FailedPrecondition");
    let (_, answer) =
        runtime.try_call("Exec", json!({"containerId": container, "cmd": ["true"], "stdout": true})).await;
    assert_eq!(answer["code"], "FailedPrecondition");
    runtime.call("RemoveContainer", json!({"containerId": container})).await;
    assert_eq!(runtime.refused("ContainerStatus", json!({"containerId": container})).await, "NotFound");
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_a_container_that_has_exited() {
    let runtime = Runtime::new().await;
    let container = runtime.create(&["/no/such/command"], json!({})).await;
    assert_eq!(runtime.refused("StartContainer", json!({"containerId": container})).await, "FailedPrecondition");
    let status = runtime.status(&container).await;
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(128), &json!("StartError")));
    assert!(status["message"].as_str().is_some_and(|message| message.contains("/no/such/command")), "{status}");
}

#[tokio::test]
async fn a_container_is_asked_to_end_and_then_ended() {
    let runtime = Runtime::new().await;
    let ready = |script: &str| {
        format!("{script}; echo $$ > {}; while :; do sleep 0.1; done", runtime.scratch.file("pid").display())
    };
    for (script, timeout, code) in [("trap 'exit 9' TERM", 30, 9), ("trap '' TERM", 1, 137)] {
        let container = runtime.start(&["sh", "-c", &ready(script)], json!({})).await;
        let process = runtime.scratch.pid("pid").await;
        runtime.call("StopContainer", json!({"containerId": container, "timeout": timeout})).await;
        assert_eq!(runtime.status(&container).await["exitCode"], code, "{script}");
        gone(process).await;
        fs::remove_file(runtime.scratch.file("pid")).expect("a file is removed");
    }
}

#[tokio::test]
async fn pods_and_containers_are_found_by_what_they_are() {
    let runtime = Runtime::new().await;
    let other = runtime.run_pod("other", &[("app", "other")]).await;
    let pods = async |filter: Value| {
        let pods = runtime.call("ListPodSandbox", json!({"filter": filter})).await;
        let mut ids: Vec<_> = pods.as_array().expect("a list").iter().map(id).collect();
        ids.sort();
        ids
    };
    let mut both = [runtime.pod.clone(), other.clone()];
    both.sort();
    assert_eq!(pods(json!({})).await, both);
    assert_eq!(pods(json!({"labelSelector": {"app": "web"}})).await, [runtime.pod.as_str()]);
    assert_eq!(pods(json!({"id": &other[..12]})).await, [other.as_str()]);
    let sleeps = runtime.start(&[], json!({"labels": {"does": "nothing"}})).await;
    let ends = runtime.start(&["true"], json!({})).await;
    runtime.exited(&ends).await;
    let containers = async |filter: Value| {
        let found = runtime.call("ListContainers", json!({"filter": filter})).await;
        found.as_array().expect("a list").iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(containers(json!({"state": {"state": "CONTAINER_RUNNING"}})).await, [sleeps.as_str()]);
    assert_eq!(containers(json!({"state": {"state": "CONTAINER_EXITED"}, "podSandboxId": runtime.pod})).await, [ends]);
    assert_eq!(containers(json!({"labelSelector": {"does": "nothing"}})).await, [sleeps.as_str()]);
    assert!(containers(json!({"podSandboxId": other})).await.is_empty());

    runtime.call("StopPodSandbox", json!({"podSandboxId": runtime.pod})).await;
    assert_eq!(pods(json!({"state": {"state": "SANDBOX_READY"}})).await, [other]);
    assert_eq!(runtime.status(&sleeps).await["exitCode"], 137);
    let more = json!({"podSandboxId": runtime.pod, "config": {"metadata": {"name": "late"}, "command": ["true"]}});
    assert_eq!(runtime.refused("CreateContainer", more).await, "FailedPrecondition");
    runtime.call("RemovePodSandbox", json!({"podSandboxId": runtime.pod})).await;
    assert_eq!(runtime.refused("PodSandboxStatus", json!({"podSandboxId": runtime.pod})).await, "NotFound");
    // Both are asked for more than once.
    runtime.call("StopPodSandbox", json!({"podSandboxId": runtime.pod})).await;
    runtime.call("RemovePodSandbox", json!({"podSandboxId": runtime.pod})).await;
}

#[tokio::test]
async fn exec_sync_answers_with_the_outputs_or_says_why_not() {
    let runtime = Runtime::new().await;
    let container = runtime.start(&[], json!({})).await;
    let sync =
        |script: &str, timeout: u32| json!({"containerId": container, "cmd": ["sh", "-c", script], "timeout": timeout});
    let answer = runtime.call("ExecSync", sync("echo out; echo err >&2; exit 4", 10)).await;
    assert_eq!(answer, json!({"stdout": "out\n", "stderr": "err\n", "exitCode": 4}));
    let pid = runtime.scratch.file("pid");
    let hangs = format!("echo $$ > {}; sleep 100", pid.display());
    assert_eq!(runtime.refused("ExecSync", sync(&hangs, 1)).await, "DeadlineExceeded");
    gone(runtime.scratch.pid("pid").await).await;
    assert_eq!(runtime.refused("ExecSync", sync("yes", 30)).await, "ResourceExhausted");
    let nothing = json!({"containerId": container, "cmd": []});
    assert_eq!(runtime.refused("ExecSync", nothing).await, "InvalidArgument");
}

/// As critest's "exec with tty=false and stdin=false", and more.
#[tokio::test]
async fn exec_has_its_outputs_its_stdin_and_its_exit_code() {
    let runtime = Runtime::new().await;
    let container = runtime.start(&[], json!({})).await;
    let sent = pattern(3_000_000);
    for transport in TRANSPORTS {
        let (ended, outcome) = runtime.exec(&container, &["echo", "hello"], transport, Input::Null).await;
        let seen = (&ended.stdout[..], &ended.stderr[..], &outcome["exitCode"]);
        assert_eq!(seen, (&b"hello\n"[..], "", &json!(0)), "{transport:?}");
        let (_, outcome) = runtime.exec(&container, &["sh", "-c", "exit 7"], transport, Input::Null).await;
        assert_eq!(outcome["exitCode"], 7, "{transport:?}");
        let (ended, _) =
            runtime.exec(&container, &["head", "-c", "3000000"], transport, Input::Bytes(sent.clone())).await;
        assert_eq!(digest(&ended.stdout), digest(&sent), "{transport:?}");
        let (_, outcome) = runtime.exec(&container, &["/no/such/command"], transport, Input::Null).await;
        assert!(outcome["error"].as_str().is_some_and(|error| error.contains("/no/such/command")), "{outcome}");
    }
    let both = json!({"containerId": container, "cmd": ["true"], "tty": true, "stdout": true, "stderr": true});
    assert_eq!(runtime.refused("Exec", both).await, "InvalidArgument");
}

/// As critest's "exec with tty=true and stdin=true".
#[tokio::test]
async fn exec_on_a_terminal_has_its_lines_ends_and_its_size() {
    let runtime = Runtime::new().await;
    let container = runtime.start(&[], json!({})).await;
    for transport in TRANSPORTS {
        let until = "until [ \"$(stty size)\" = '24 80' ]; do sleep 0.01; done; echo hello";
        let command = ["sh", "-c", until];
        let request = json!({"containerId": container, "cmd": command, "tty": true, "stdin": true, "stdout": true});
        let url = runtime.url("Exec", request).await;
        let arguments: Vec<_> = transport.iter().copied().chain(["-tty", "-resize", "80x24"]).collect();
        let (ended, outcome) = execute(&url, &arguments, "stdin=1&stdout=1&tty=1", Input::Bytes(Vec::new())).await;
        let shown = String::from_utf8_lossy(&ended.stdout).replace("^D\u{8}\u{8}", "");
        assert_eq!((&shown[..], &outcome["exitCode"]), ("hello\r\n", &json!(0)), "{transport:?}: {outcome}");
    }
}

/// As critest's "attach".
#[tokio::test]
async fn a_shell_whose_stdin_is_for_one_client_ends_with_it() {
    let runtime = Runtime::new().await;
    // v4 over WebSocket has no end of stdin.
    for transport in &TRANSPORTS[..3] {
        let shell = runtime.start(&["sh"], json!({"stdin": true, "stdinOnce": true})).await;
        let (ended, outcome) = runtime.attach(&shell, transport, Input::Bytes(b"echo hello\n".to_vec())).await;
        let seen = (&ended.stdout[..], &ended.stderr[..], &outcome["error"]);
        assert_eq!(seen, (&b"hello\n"[..], "", &json!("")), "{transport:?}");
        assert_eq!(runtime.exited(&shell).await["exitCode"], 0, "{transport:?}");
    }
}

#[tokio::test]
async fn whoever_is_attached_sees_what_the_process_says_and_it_goes_on() {
    let runtime = Runtime::new().await;
    let script = r#"while read line; do echo "out:$line"; echo "err:$line" >&2; done"#;
    let container = runtime.start(&["sh", "-c", script], json!({"stdin": true})).await;
    let url = runtime.url("Attach", json!({"containerId": container, "stdout": true})).await;
    let mut watcher = Command::new(binary("exec-client"));
    watcher.args(["-url", &format!("{url}?stdout=1")]).stdout(Stdio::piped()).kill_on_drop(true);
    let mut watcher = watcher.spawn().expect("a client");
    let mut seen = BufReader::new(watcher.stdout.take().expect("a pipe")).lines();
    // Until it is attached it sees nothing.
    const GLANCE: Duration = Duration::from_millis(200);
    let attached = async {
        while tokio::time::timeout(GLANCE, seen.next_line()).await.is_err() {
            runtime.attach(&container, TRANSPORTS[0], Input::Bytes(b"ping\n".to_vec())).await;
        }
    };
    within("the watcher", attached).await;
    for (transport, line) in TRANSPORTS.iter().zip(["one", "two", "three"]) {
        let (ended, outcome) = runtime.attach(&container, transport, Input::Bytes(format!("{line}\n").into())).await;
        let (out, err) = (format!("out:{line}\n"), format!("err:{line}\n"));
        let talked = (String::from_utf8_lossy(&ended.stdout), &ended.stderr[..], &outcome["error"]);
        assert_eq!(talked, (out.as_str().into(), &err[..], &json!("")), "{transport:?}");
        assert_eq!(runtime.status(&container).await["state"], "CONTAINER_RUNNING", "{transport:?}");
        let told = async {
            loop {
                let line = seen.next_line().await.expect("text").expect("a line");
                if line != "out:ping" {
                    return line;
                }
            }
        };
        assert_eq!(within("the watcher's line", told).await, out.trim_end(), "{transport:?}");
    }
    runtime.call("StopContainer", json!({"containerId": container, "timeout": 5})).await;
    let ended = within("the watcher's end", watcher.wait()).await.expect("a status");
    assert_eq!((ended.code(), seen.next_line().await.expect("text")), (Some(0), None), "its end is who watches it's");

    let mut log = runtime.log();
    log.retain(|(_, _, text)| !text.ends_with(":ping"));
    log.sort();
    let lines = |stream, start: &str| ["one", "three", "two"].map(|line| record(stream, &format!("{start}:{line}")));
    assert_eq!(log, [lines("stderr", "err"), lines("stdout", "out")].concat());
    assert_eq!(
        runtime.refused("Attach", json!({"containerId": container, "stdout": true})).await,
        "FailedPrecondition"
    );
}

/// As critest's "portforward", to an echo instead of nginx: there are no images.
#[tokio::test]
async fn port_forward_reaches_a_port_and_one_that_is_gone_takes_no_connection_with_it() {
    let runtime = Runtime::new().await;
    let sent = pattern(1_000_000);
    for transport in ["spdy", "websocket"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port().to_string();
        let mut listening = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = near.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                    writes.shutdown().await
                });
            }
        });
        let url = runtime.url("PortForward", json!({"podSandboxId": runtime.pod})).await;
        let forward = Peer::go("forward-client", &["-url", &url, "-transport", transport, "-port", &port]);
        for _ in 0..3 {
            let mut local = TcpStream::connect(forward.address()).await.expect("a connection");
            let (mut reads, mut writes) = local.split();
            let mut back = Vec::new();
            let send = async {
                writes.write_all(&sent).await.expect("it is sent");
                writes.shutdown().await.expect("and ended");
            };
            within("the echo", async { tokio::join!(send, reads.read_to_end(&mut back)) }).await.1.expect("an echo");
            assert_eq!(digest(&back), digest(&sent), "{transport}");
        }
        let mut stays = TcpStream::connect(forward.address()).await.expect("a connection");
        for gone in [false, true] {
            if gone {
                listening.abort();
                let _ = (&mut listening).await;
                let mut refused = TcpStream::connect(forward.address()).await.expect("a connection");
                let read = within("the end of what is refused", refused.read(&mut [0])).await;
                assert!(matches!(read, Ok(0)), "{transport}: {read:?}");
            }
            stays.write_all(b"ping").await.expect("it is sent");
            let mut pong = [0; 4];
            within("the answer", stays.read_exact(&mut pong)).await.expect("an answer");
            assert_eq!(&pong, b"ping", "{transport}");
        }
    }
    runtime.call("StopPodSandbox", json!({"podSandboxId": runtime.pod})).await;
    assert_eq!(runtime.refused("PortForward", json!({"podSandboxId": runtime.pod})).await, "FailedPrecondition");
}

#[tokio::test]
async fn with_a_runtime_ends_all_that_it_has_started() {
    let runtime = Runtime::new().await;
    let write = |name: &str| format!("echo $$ > {}", runtime.scratch.file(name).display());
    let container = runtime.start(&["sh", "-c", &format!("{}; sleep 1000 & wait", write("main"))], json!({})).await;
    // What an exec leaves behind is the container's, whatever group and session it is in.
    let daemon = format!("setsid sh -c '{}; exec sleep 1000' >/dev/null 2>&1 &", write("daemon"));
    let (_, outcome) = runtime.exec(&container, &["sh", "-c", &daemon], TRANSPORTS[0], Input::Null).await;
    assert_eq!(outcome["exitCode"], 0);
    let terminal = format!("{}; exec sleep 1000", write("terminal"));
    runtime.start(&["sh", "-c", &terminal], json!({"tty": true, "stdin": true})).await;
    let mut processes: Vec<Pid> = Vec::new();
    for name in ["main", "daemon", "terminal"] {
        processes.push(runtime.scratch.pid(name).await);
    }
    assert!(processes.iter().all(|process| test_kill_process(*process).is_ok()));
    let Runtime { peer, scratch, .. } = runtime;
    drop(peer);
    for process in processes {
        gone(process).await;
    }
    assert!(!scratch.file("cri.sock").exists(), "and so is its socket");
}
