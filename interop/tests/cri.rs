//! The program `cri` under the kubelet's client for container runtimes: pods, containers and images.

use std::fs;

use kubestream_interop::matrix::{self, Foreign, Over, Proof, client_of};
use kubestream_interop::{Input, Runtime, gone, id};
use serde_json::{Value, json};

fn proves(cases: &str) -> Proof {
    matrix::proves(cases).with(Foreign::CriClient, client_of("`cri`"), [Over::Cri])
}

/// A record of a log.
fn record(stream: &str, text: &str) -> (String, String, String) {
    (stream.to_owned(), "F".to_owned(), text.to_owned())
}

const SPDY: &[&str] = &["-transport", "spdy"];

#[tokio::test]
async fn it_is_a_runtime_that_is_ready() {
    let _proof = proves("version, status and configuration");
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
    let _proof = proves("images");
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
    let _proof = proves("a container from its creation to its exit code; logs");
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
    let _proof = proves("a command that does not exist");
    let runtime = Runtime::new().await;
    let container = runtime.create(&["/no/such/command"], json!({})).await;
    assert_eq!(runtime.refused("StartContainer", json!({"containerId": container})).await, "FailedPrecondition");
    let status = runtime.status(&container).await;
    assert_eq!((&status["exitCode"], &status["reason"]), (&json!(128), &json!("StartError")));
    assert!(status["message"].as_str().is_some_and(|message| message.contains("/no/such/command")), "{status}");
}

#[tokio::test]
async fn a_container_is_asked_to_end_and_then_ended() {
    let _proof = proves("a container is stopped, and killed where that does not do");
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
    let _proof = proves("pods and containers are listed, filtered, stopped and removed");
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
    let never = runtime.create(&["true"], json!({})).await;
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
    let late = runtime.refused("StartContainer", json!({"containerId": never})).await;
    assert_eq!(late, "FailedPrecondition");
    assert_eq!(runtime.status(&never).await["state"], "CONTAINER_EXITED");
    let more = json!({"podSandboxId": runtime.pod, "config": {"metadata": {"name": "late"}, "command": ["true"]}});
    assert_eq!(runtime.refused("CreateContainer", more).await, "FailedPrecondition");
    runtime.call("RemovePodSandbox", json!({"podSandboxId": runtime.pod})).await;
    assert_eq!(runtime.refused("PodSandboxStatus", json!({"podSandboxId": runtime.pod})).await, "NotFound");
    // Each is requested twice.
    runtime.call("StopPodSandbox", json!({"podSandboxId": runtime.pod})).await;
    runtime.call("RemovePodSandbox", json!({"podSandboxId": runtime.pod})).await;
}

#[tokio::test]
async fn exec_sync_answers_with_the_outputs_or_says_why_not() {
    let _proof = proves("ExecSync with outputs, exit code and time limit");
    let runtime = Runtime::new().await;
    let container = runtime.start(&[], json!({})).await;
    let sync =
        |script: &str, timeout: u32| json!({"containerId": container, "cmd": ["sh", "-c", script], "timeout": timeout});
    let answer = runtime.call("ExecSync", sync("echo out; echo err >&2; exit 4", 10)).await;
    assert_eq!(answer, json!({"stdout": "out\n", "stderr": "err\n", "exitCode": 4}));
    // The output of a process that the command leaves running is read to its end.
    let answer = runtime.call("ExecSync", sync("(sleep 1; echo late) & echo early", 30)).await;
    assert_eq!(answer["stdout"], "early\nlate\n");
    let pid = runtime.scratch.file("pid");
    let hangs = format!("echo $$ > {}; sleep 100", pid.display());
    assert_eq!(runtime.refused("ExecSync", sync(&hangs, 1)).await, "DeadlineExceeded");
    gone(runtime.scratch.pid("pid").await).await;
    let long = runtime.call("ExecSync", sync("head -c 7000000 /dev/zero | tr '\\0' x", 30)).await;
    assert_eq!(long["stdout"].as_str().map(str::len), Some(7_000_000));
    assert_eq!(runtime.refused("ExecSync", sync("yes", 30)).await, "ResourceExhausted");
    let nothing = json!({"containerId": container, "cmd": []});
    assert_eq!(runtime.refused("ExecSync", nothing).await, "InvalidArgument");
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_begun_anew() {
    let _proof = proves("a log that was moved away; attach");
    let runtime = Runtime::new().await;
    let container = runtime.start(&["cat"], json!({"stdin": true})).await;
    for line in ["one", "two"] {
        let (ended, _) = runtime.attach(&container, SPDY, Input::Bytes(format!("{line}\n").into())).await;
        assert_eq!(String::from_utf8_lossy(&ended.stdout), format!("{line}\n"));
        assert_eq!(runtime.log(), [record("stdout", line)]);
        fs::rename(runtime.scratch.file("logs/main.log"), runtime.scratch.file(line)).expect("it is moved");
        runtime.call("ReopenContainerLog", json!({"containerId": container})).await;
    }
    assert!(runtime.log().is_empty());
}
