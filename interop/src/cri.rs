//! The program `cri`, a container runtime, and the kubelet's client for it.
//!
//! Starts and calls them. The tests judge the answers.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::{Ended, Input, Peer, Scratch, binary, execute, run, within};

/// A runtime with one pod.
#[derive(Debug)]
pub struct Runtime {
    /// Dropping this ends the runtime.
    pub peer: Peer,
    /// The files of the test, with the socket and the logs.
    pub scratch: Scratch,
    /// The id of the pod.
    pub pod: String,
}

impl Runtime {
    pub async fn new() -> Self {
        let scratch = Scratch::new();
        let mut runtime = Self { peer: Peer::runtime(&scratch.file("cri.sock")), scratch, pod: String::new() };
        runtime.pod = runtime.run_pod("web", &[("app", "web")]).await;
        runtime
    }

    pub async fn run_pod(&self, name: &str, labels: &[(&str, &str)]) -> String {
        let metadata = json!({"name": name, "uid": "0", "namespace": "default"});
        let labels: Value = labels.iter().map(|(name, value)| (*name, *value)).collect();
        let config = json!({"metadata": metadata, "labels": labels, "logDirectory": self.scratch.path().join("logs")});
        id(&self.call("RunPodSandbox", json!({"config": config})).await)
    }

    pub async fn try_call(&self, name: &str, request: Value) -> (Option<i32>, Value) {
        let mut command = Command::new(binary("cri-client"));
        command.args(["-endpoint", self.peer.address(), "-call", name, "-request", &request.to_string()]);
        let ended = run(command, Input::Null).await;
        let answer = serde_json::from_slice(&ended.stdout);
        (ended.code, answer.unwrap_or_else(|error| panic!("{name}: {error}: {}", ended.stderr)))
    }

    pub async fn call(&self, name: &str, request: Value) -> Value {
        let (code, answer) = self.try_call(name, request).await;
        assert_eq!(code, Some(0), "{name}: {answer}");
        answer
    }

    /// Makes a call that must fail, and returns its code.
    pub async fn refused(&self, name: &str, request: Value) -> String {
        let (code, answer) = self.try_call(name, request).await;
        assert_eq!(code, Some(1), "{name}: {answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }

    pub async fn create(&self, command: &[&str], more: Value) -> String {
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

    pub async fn start(&self, command: &[&str], more: Value) -> String {
        let container = self.create(command, more).await;
        self.call("StartContainer", json!({"containerId": container})).await;
        container
    }

    pub async fn status(&self, container: &str) -> Value {
        self.call("ContainerStatus", json!({"containerId": container})).await["status"].take()
    }

    pub async fn exited(&self, container: &str) -> Value {
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

    pub async fn url(&self, call: &str, request: Value) -> String {
        self.call(call, request).await["url"].as_str().expect("a URL").to_owned()
    }

    /// Runs a command in a container.
    pub async fn exec(&self, container: &str, command: &[&str], transport: &[&str], input: Input) -> (Ended, Value) {
        let stdin = !matches!(input, Input::Null);
        let request = json!({"containerId": container, "cmd": command, "stdin": stdin, "stdout": true, "stderr": true});
        let url = self.url("Exec", request).await;
        let streams = if stdin { "stdin=1&stdout=1&stderr=1" } else { "stdout=1&stderr=1" };
        execute(&url, transport, streams, input).await
    }

    pub async fn attach(&self, container: &str, transport: &[&str], input: Input) -> (Ended, Value) {
        let request = json!({"containerId": container, "stdin": true, "stdout": true, "stderr": true});
        let url = self.url("Attach", request).await;
        execute(&url, transport, "stdin=1&stdout=1&stderr=1", input).await
    }

    /// The container's log: the stream, the tag and the text of each record.
    pub fn log(&self) -> Vec<(String, String, String)> {
        let log = fs::read_to_string(self.scratch.file("logs/main.log")).expect("a log");
        let record = |line: &str| {
            let mut parts = line.splitn(4, ' ').map(str::to_owned);
            let time = parts.next().expect("a time");
            assert!(time.len() == "2026-01-01T00:00:00.000000000Z".len() && time.ends_with('Z'), "{time}");
            let mut next = || parts.next().unwrap_or_else(|| panic!("{line:?} is not a record"));
            (next(), next(), next())
        };
        log.lines().map(record).collect()
    }
}

/// The id in an answer.
///
/// # Panics
/// Panics if there is none.
#[must_use]
pub fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}
