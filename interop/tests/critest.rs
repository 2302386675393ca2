//! critest's streaming cases, and its cases of pods and containers, at the program `cri`.
//!
//! The containers run this machine's busybox, which is also the web server that critest asks for its page. critest
//! chooses the ports. Port 80 is among them, which only root may use unless `net.ipv4.ip_unprivileged_port_start`
//! allows it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use kubestream_interop::matrix::{Foreign, Over, client_of, proves};
use kubestream_interop::{Input, Peer, Scratch, binary, run};
use serde_json::Value;
use tokio::process::Command;

/// Where critest expects web servers.
const SERVERS: [u16; 2] = [80, 12003];
/// Where critest itself listens.
const FORWARDED: [u16; 2] = [12001, 12002];

/// critest's image of a web server in the host's network; the architecture is appended. The other images can be named
/// here.
const HOST_SERVER: &str = "gcr.io/k8s-staging-cri-tools/hostnet-nginx-";
const IMAGES: &str = "{defaultTestContainerImage: local/busybox:1, webServerTestImage: local/web:1}";

/// A runtime for critest.
struct Subject {
    runtime: Peer,
    scratch: Scratch,
}

impl Subject {
    async fn new() -> Self {
        let (busybox, scratch) = (which("busybox").await, Scratch::new());
        for folder in ["bin", "pages"] {
            fs::create_dir(scratch.file(folder)).expect("a folder");
        }
        for name in ["sh", "echo", "sleep", "top", "httpd"] {
            symlink(&busybox, scratch.file("bin").join(name)).expect("a link");
        }
        fs::write(scratch.file("pages/index.html"), "<p>here</p>\n").expect("a page");
        fs::write(scratch.file("images"), IMAGES).expect("names of images");
        let server = |port: u16| {
            let (pages, asked) = (scratch.file("pages"), scratch.file(&port.to_string()));
            format!("exec httpd -f -vv -p 127.0.0.1:{port} -h {} 2>{}", pages.display(), asked.display())
        };
        let mut images = vec!["--image".to_owned(), format!("local/web:1={}", server(SERVERS[0]))];
        for architecture in ["amd64", "arm64"] {
            images.extend(["--image".to_owned(), format!("{HOST_SERVER}{architecture}={}", server(SERVERS[1]))]);
        }
        Self { runtime: Peer::runtime_with(&scratch.file("cri.sock"), scratch.file("bin"), &images), scratch }
    }

    /// Runs cases, which all must pass, and returns their names.
    async fn passes(&self, cases: &str, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new(binary("critest"));
        command.args(["--runtime-endpoint", self.runtime.address(), "--image-endpoint", self.runtime.address()]);
        command.arg("--test-images-file").arg(self.scratch.file("images")).args(arguments);
        // This limit is shorter than the test's own, so that critest itself reports what did not come.
        command.args([
            "--ginkgo.timeout=45s",
            "--ginkgo.grace-period=5s",
            "--ginkgo.no-color",
            "--ginkgo.focus",
            cases,
        ]);
        command.arg("--ginkgo.json-report").arg(self.scratch.file("report")).current_dir(self.scratch.path());
        let ended = run(command, Input::Null).await;
        let said = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {said}{}", ended.stderr);
        let report = fs::read(self.scratch.file("report")).expect("a report");
        let report: Value = serde_json::from_slice(&report).expect("a report in JSON");
        let ran = report[0]["SpecReports"].as_array().expect("a report of each case").iter();
        let ran = ran.filter(|case| case["LeafNodeType"] == "It" && case["State"] != "skipped");
        let name = |case: &Value| {
            assert_eq!(case["State"], "passed", "{case}");
            case["LeafNodeText"].as_str().expect("a name").to_owned()
        };
        let mut names: Vec<_> = ran.map(name).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn its_cases_of_streaming_pass() {
    let _proof = proves(
        "all 5 cases of streaming: exec, exec on a terminal, attach, port-forward, and that in the host's network",
    )
    .with(
        Foreign::Critest,
        client_of("`cri`"),
        [Over::Cri, Over::SpdyV4, Over::WebSocketV5, Over::Forward, Over::Tunnel],
    );
    const CASES: [&str; 5] = [
        "runtime should support attach [Conformance]",
        "runtime should support exec with tty=false and stdin=false [Conformance]",
        "runtime should support exec with tty=true and stdin=true [Conformance]",
        "runtime should support portforward [Conformance]",
        "runtime should support portforward in host network",
    ];
    for port in [SERVERS, FORWARDED].concat() {
        TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| {
            panic!("critest needs port {port} of this machine: {error}. Port 80 takes root, or a sysctl: see README.md")
        });
    }
    for transport in [&[][..], &["--websocket-exec", "--websocket-attach", "--websocket-portforward"]] {
        let subject = Subject::new().await;
        assert_eq!(subject.passes("support streaming interfaces", transport).await, CASES, "{transport:?}");
        for port in SERVERS {
            // The server was asked directly and through the forward, so no other server can have answered.
            let asked = fs::read_to_string(subject.scratch.file(&port.to_string())).expect("what it was asked for");
            assert_eq!(asked.matches(" url:/\n").count(), 2, "{transport:?}, {port}: {asked}");
            assert_eq!(asked.matches(" response:200\n").count(), 2, "{transport:?}, {port}: {asked}");
        }
    }
}

#[tokio::test]
async fn its_cases_of_pods_and_containers_as_such_pass() {
    let _proof = proves("27 cases of pods, containers, logs, idempotence and what the runtime says of itself").with(
        Foreign::Critest,
        client_of("`cri`"),
        [Over::Cri],
    );
    let cases = "basic operations on|runtime should support log|Idempotence|Runtime info";
    // Statistics are skipped because there are none. The time limit's case is skipped because it searches all processes
    // of this machine for one by name.
    let beyond = ["--ginkgo.skip", "listing container stats|execSync with timeout"];
    let passed = Subject::new().await.passes(cases, &beyond).await;
    assert_eq!(passed.len(), 27, "{passed:?}");
}

async fn which(name: &str) -> PathBuf {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", name]);
    let found = run(command, Input::Null).await;
    PathBuf::from(String::from_utf8(found.stdout).expect("a path").trim())
}
