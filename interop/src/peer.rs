//! Starts foreign servers and the built-in node, reads their address, and ends them.
//!
//! Knows where the binaries are. Every server ends when its stdin closes, so even a killed test leaves no server
//! behind.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A server on loopback.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: String,
    /// The server behind this one, if any.
    _backend: Option<Box<Self>>,
}

impl Peer {
    /// Starts one of the Go peers. Its first line is its address.
    #[must_use]
    pub fn go(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary(name));
        command.arg("-stdin-guard").args(arguments);
        Self::start(command, from_json)
    }

    /// Starts client-go's port-forward, which ends when stdin closes. [`ports`](Self::ports) returns its local ports.
    ///
    /// # Panics
    /// Panics if it does not start.
    #[must_use]
    pub fn forward_client(url: &str, transport: &str, ports: &[u16]) -> Self {
        let ports: Vec<_> = ports.iter().map(|remote| format!("0:{remote}")).collect();
        let mut command = Command::new(binary("forward-client"));
        command.args(["-url", url, "-transport", transport, "-ports", &ports.join(",")]);
        Self::start(command, from_json)
    }

    /// Starts Node's spdy-transport as a server.
    #[must_use]
    pub fn spdy_transport(arguments: &[&str]) -> Self {
        let mut command = Command::new("node");
        command.arg(suite("node/peer.js")).args(["listen", "--stdin-guard"]).args(arguments);
        Self::start(command, from_json)
    }

    /// Starts netty as a SPDY server.
    #[must_use]
    pub fn netty(arguments: &[&str]) -> Self {
        let mut command = java("Netty");
        command.arg("--stdin-guard").args(arguments).arg("listen");
        Self::start(command.into_std(), from_json)
    }

    /// Starts the built-in node. A shell around it ends it when stdin closes.
    #[must_use]
    pub fn node() -> Self {
        Self::node_with_path(std::env::var_os("PATH").unwrap_or_default())
    }

    /// The same, with another PATH for the commands in its "containers".
    #[must_use]
    pub fn node_with_path(path: impl AsRef<OsStr>) -> Self {
        const GUARD: &str = r#"PATH="$1" "$0" --listen 127.0.0.1:0 </dev/null & cat >/dev/null; kill $!; wait"#;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD]).arg(app("node")).arg(path.as_ref());
        let node = Self::start(command, |line| line.strip_prefix("listening on ").map(str::to_owned));
        match std::env::var("KUBESTREAM_THROUGH").as_deref() {
            Err(_) => node,
            Ok("proxy") => node.behind_proxy("--backend", &[]),
            Ok("spdy") => node.behind_proxy("--backend", &["--translate", "spdy"]),
            Ok("apiserver") => {
                let mut apiserver = Self::go("translator", &["-backend", node.address()]);
                apiserver._backend = Some(Box::new(node));
                apiserver
            }
            Ok("websocket") => node.behind_proxy("--backend", &["--translate", "websocket"]),
            Ok(other) => panic!("KUBESTREAM_THROUGH is {other:?}, not proxy, spdy, websocket or apiserver"),
        }
    }

    /// Starts the program proxy in front of this server, as its `--backend` or `--kubelet`.
    #[must_use]
    pub fn behind_proxy(self, as_what: &str, arguments: &[&str]) -> Self {
        let mut proxy = Self::proxy(as_what, self.address(), arguments);
        proxy._backend = Some(Box::new(self));
        proxy
    }

    /// The same in front of a test's own server at that URL.
    #[must_use]
    pub fn proxy(as_what: &str, url: &str, arguments: &[&str]) -> Self {
        const GUARD: &str =
            r#"proxy=$1; shift; "$proxy" --listen 127.0.0.1:0 "$@" </dev/null & cat >/dev/null; kill $!; wait"#;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).arg(app("proxy")).args([as_what, url]).args(arguments);
        Self::start(command, |line| line.strip_prefix("listening on ").map(str::to_owned))
    }

    /// Starts the program `cri`, a container runtime, with its socket at a path. A shell around it ends it when stdin
    /// closes, and then it ends what it has started.
    #[must_use]
    pub fn runtime(socket: &Path) -> Self {
        Self::runtime_with(socket, std::env::var_os("PATH").unwrap_or_default(), &[])
    }

    /// The same, with another PATH for its containers, and with more arguments.
    #[must_use]
    pub fn runtime_with(socket: &Path, path: impl AsRef<OsStr>, arguments: &[String]) -> Self {
        const GUARD: &str = r#"socket=$1 path=$2; shift 2
            PATH="$path" "$0" --listen "unix://$socket" "$@" </dev/null & cat >/dev/null; kill $!; wait"#;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD]).arg(app("cri")).arg(socket).arg(path.as_ref()).args(arguments);
        Self::start(command, |line| line.strip_prefix("listening on ").map(str::to_owned))
    }

    /// Starts dumpcap, which records on loopback what a filter selects. A shell around it ends it when stdin closes.
    #[must_use]
    pub fn dumpcap(filter: &str, file: &Path) -> Self {
        // The buffer of the socket is large enough for the bursts that a slow machine cannot write at once.
        const GUARD: &str = r#"echo recording; dumpcap -q -i lo -B 64 -f "$0" -w "$1" </dev/null >"$1.log" 2>&1 &
            cat >/dev/null; kill $!; wait"#;
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, filter]).arg(file);
        Self::start(command, |line| (line == "recording").then(|| line.to_owned()))
    }

    pub(crate) fn start(mut command: Command, address: fn(&str) -> Option<String>) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut peer = Self { child, stdin, stdout, address: String::new(), _backend: None };
        let line = peer.line();
        peer.address = address(&line).unwrap_or_else(|| panic!("{command:?} printed {line:?} instead of its address"));
        peer
    }

    /// The URL or address of the peer, as the peer printed it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same server under another name of loopback.
    #[must_use]
    pub fn by_name(mut self, name: &str) -> Self {
        self.address = self.address.replace("127.0.0.1", name);
        self
    }

    /// The local ports of a peer that forwards.
    ///
    /// # Panics
    /// Panics if it has none.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        serde_json::from_str(&self.address)
            .unwrap_or_else(|error| panic!("{:?} is not a list of ports: {error}", self.address))
    }

    /// Waits for the next line, and parses it as JSON. The peer's own watchdog limits the wait.
    pub fn report(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the peer printed {line:?}: {error}"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the peer's stdout is text");
        line.trim_end().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        const GUARD_TAKES: Duration = Duration::from_secs(10);
        drop(self.stdin.take());
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > GUARD_TAKES {
                // The process may have ended already.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The path of a Go peer's binary.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    built(suite("bin").join(name))
}

/// One of Node's clients, `exec` or `forward`, without arguments.
#[must_use]
pub fn node_client(what: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("node");
    command.arg(suite("node").join(what).with_extension("mjs"));
    command
}

/// One of Python's clients, without arguments.
#[must_use]
pub fn python_client(what: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(built(suite("python/.venv/bin/python")));
    command.arg(suite("python").join(what).with_extension("py"));
    command
}

/// One of the programs with Java's official client, without arguments.
#[must_use]
pub fn java_client(what: &str) -> tokio::process::Command {
    java(if what == "exec" { "OfficialExec" } else { "OfficialForward" })
}

/// One of the Java peers, without arguments. The JVM is told to start fast, because no peer lives long.
#[must_use]
pub fn java(class: &str) -> tokio::process::Command {
    let mut path = built(suite("java/target/classes")).into_os_string();
    path.push(":");
    path.push(suite("java/target/lib/*"));
    let mut command = tokio::process::Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(path).arg(class);
    command
}

/// asciinema, without arguments.
#[must_use]
pub fn asciinema() -> tokio::process::Command {
    tokio::process::Command::new(built(suite("python/.venv/bin/asciinema")))
}

/// The path of one of our programs.
#[must_use]
pub fn app(name: &str) -> PathBuf {
    let apps = std::env::var_os("KUBESTREAM_APPS");
    built(apps.map_or_else(|| suite("../target/debug"), PathBuf::from).join(name))
}

/// kubectl: `KUBESTREAM_KUBECTL`, or the one that is built here. The kubectl on the PATH may have any version.
#[must_use]
pub fn kubectl() -> PathBuf {
    std::env::var_os("KUBESTREAM_KUBECTL").map_or_else(|| binary("kubectl"), |path| built(path.into()))
}

fn built(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: interop/run builds it", path.display());
    path
}

fn suite(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn from_json(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    match &line["listening"] {
        Value::String(address) => Some(address.clone()),
        ports @ Value::Array(_) => Some(ports.to_string()),
        _ => None,
    }
}
