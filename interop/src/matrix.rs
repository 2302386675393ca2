//! Records what the tests prove, for the interop matrix: which foreign peer, in which role, over which protocol,
//! through which hop, and which cases.
//!
//! Holds the names of the peers and protocols, and writes each row as a line of JSON to the file that
//! `KUBESTREAM_MATRIX` names. `src/bin/matrix.rs` merges and shows the rows.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{Protocol, Version};
use serde_json::json;

/// The program `node`, which a test starts by [`Peer::node`](crate::Peer::node), behind the hop of
/// `KUBESTREAM_THROUGH`.
pub const NODE: &str = "`node`";
/// The matrix's sign for "nothing between".
pub const NOTHING: &str = "–";
/// The hops of `KUBESTREAM_THROUGH`, and their names in the matrix.
pub const THROUGH: [(&str, &str); 4] = [
    ("proxy", "`proxy`"),
    ("spdy", "`proxy --translate spdy`"),
    ("websocket", "`proxy --translate websocket`"),
    ("apiserver", "apiserver's handlers"),
];

macro_rules! names {
    ($(#[$about:meta])* $name:ident { $($(#[$each:meta])* $variant:ident: $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$each])* $variant,)*
        }

        impl $name {
            /// All values, in the order of the matrix.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the matrix and on the command line.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// Returns the value with this name.
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.text() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}

names! {
    /// A foreign peer. `interop/run NAME` runs the suites whose sources contain `Foreign::` and its name.
    Foreign {
        /// The command kubectl.
        Kubectl: "kubectl",
        /// Go's client library: executors and port-forward.
        ClientGo: "client-go",
        /// Node's client library.
        ClientNode: "client-node",
        /// Python's client library.
        Python: "python-kubernetes",
        /// Java's client library.
        ClientJava: "client-java",
        /// The kubelet's client of a container runtime.
        CriClient: "cri-client",
        /// The command for container runtimes.
        Crictl: "crictl",
        /// The tests for container runtimes.
        Critest: "critest",
        /// The streaming server of the container runtimes.
        CriStreaming: "cri-streaming",
        /// The API server's StreamTranslator, TunnelingHandler and UpgradeAwareHandler.
        Apiserver: "apiserver",
        /// A gateway that ends both sides of an upgraded connection when its server ends its own.
        Nginx: "nginx",
        /// Another gateway of that kind.
        Haproxy: "haproxy",
        /// The SPDY/3.1 library of Kubernetes.
        Spdystream: "spdystream",
        /// SPDY/3.1 for Node.js, with windows.
        SpdyTransport: "spdy-transport",
        /// SPDY/3.1 for Java, with windows and a limit of streams.
        Netty: "netty",
        /// The dissector that reads what is on the wire.
        Wireshark: "wireshark",
        /// The tar of this machine.
        GnuTar: "gnu-tar",
        /// busybox's tar and other commands, on this machine.
        BusyboxTar: "busybox",
        /// The player of recordings.
        Asciinema: "asciinema",
        /// No peer: bytes that a test makes itself, because no peer would send them.
        Bytes: "bytes",
    }
}

names! {
    /// A protocol between a peer and this library. Names with the same first words stand together in the matrix.
    Over {
        /// `channel.k8s.io` over SPDY.
        SpdyV1: "SPDY v1",
        /// `v2.channel.k8s.io` over SPDY.
        SpdyV2: "SPDY v2",
        /// `v3.channel.k8s.io` over SPDY.
        SpdyV3: "SPDY v3",
        /// `v4.channel.k8s.io` over SPDY.
        SpdyV4: "SPDY v4",
        /// WebSocket without a subprotocol.
        WebSocket: "WebSocket \"\"",
        /// `channel.k8s.io`
        WebSocketV1: "WebSocket v1",
        /// `base64.channel.k8s.io`
        WebSocketBase64: "WebSocket base64",
        /// `v4.channel.k8s.io`
        WebSocketV4: "WebSocket v4",
        /// `v4.base64.channel.k8s.io`
        WebSocketV4Base64: "WebSocket v4.base64",
        /// `v5.channel.k8s.io`
        WebSocketV5: "WebSocket v5",
        /// WebSocket, or SPDY if that is refused.
        Fallback: "WebSocket-else-SPDY",
        /// Port-forward over SPDY.
        Forward: "port-forward SPDY",
        /// Port-forward over SPDY inside WebSocket.
        Tunnel: "port-forward tunnel",
        /// The tunnel, or SPDY if that is refused.
        ForwardFallback: "port-forward tunnel-else-SPDY",
        /// Legacy port-forward without a subprotocol.
        Channels: "port-forward channels \"\"",
        /// Legacy port-forward, `v4.channel.k8s.io`.
        ChannelsV4: "port-forward channels v4",
        /// Legacy port-forward, `v4.base64.channel.k8s.io`.
        ChannelsV4Base64: "port-forward channels v4.base64",
        /// SPDY streams on a bare connection.
        RawSpdy: "raw SPDY/3.1",
        /// The Container Runtime Interface.
        Cri: "CRI v1",
        /// A request that is refused before it uses any of these.
        Http: "HTTP/1.1",
        /// A file.
        Asciicast: "asciicast v2",
    }
}

impl From<Protocol> for Over {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::SpdyExec(Version::V1) => Self::SpdyV1,
            Protocol::SpdyExec(Version::V2) => Self::SpdyV2,
            Protocol::SpdyExec(Version::V3) => Self::SpdyV3,
            Protocol::SpdyExec(Version::V4) => Self::SpdyV4,
            Protocol::WebSocketExec(Subprotocol::Unnamed) => Self::WebSocket,
            Protocol::WebSocketExec(Subprotocol::V1) => Self::WebSocketV1,
            Protocol::WebSocketExec(Subprotocol::V1Base64) => Self::WebSocketBase64,
            Protocol::WebSocketExec(Subprotocol::V4) => Self::WebSocketV4,
            Protocol::WebSocketExec(Subprotocol::V4Base64) => Self::WebSocketV4Base64,
            Protocol::WebSocketExec(Subprotocol::V5) => Self::WebSocketV5,
            Protocol::SpdyPortForward => Self::Forward,
            Protocol::TunneledPortForward => Self::Tunnel,
            Protocol::LegacyPortForward(Subprotocol::Unnamed) => Self::Channels,
            Protocol::LegacyPortForward(Subprotocol::V4) => Self::ChannelsV4,
            Protocol::LegacyPortForward(Subprotocol::V4Base64) => Self::ChannelsV4Base64,
            other => panic!("the matrix has no name for {other:?}"),
        }
    }
}

/// A peer's role towards this project, and the hop between.
#[derive(Clone, Debug)]
pub struct Role {
    text: String,
    through: String,
}

impl Role {
    fn new(what: &str, of: &str) -> Self {
        // Only the node is behind the hop of a pass. The servers of single tests are not.
        let named = std::env::var("KUBESTREAM_THROUGH").ok().filter(|_| of == NODE);
        let through = named.map_or(NOTHING, |named| {
            let said = THROUGH.iter().find(|(value, _)| *value == named);
            said.unwrap_or_else(|| panic!("KUBESTREAM_THROUGH is {named:?}")).1
        });
        Self { text: format!("{what} {of}"), through: through.to_owned() }
    }

    /// Names a hop that the test itself has put between.
    #[must_use]
    pub fn through(mut self, what: &str) -> Self {
        what.clone_into(&mut self.through);
        self
    }
}

/// A client of our server: [`NODE`], or the text for the matrix.
#[must_use]
pub fn client_of(ours: &str) -> Role {
    Role::new("client of", ours)
}

/// A server for our client.
#[must_use]
pub fn server_for(ours: &str) -> Role {
    Role::new("server for", ours)
}

/// A hop in front of our server, or behind our client.
#[must_use]
pub fn hop_before(what: &str) -> Role {
    Role { through: NOTHING.to_owned(), ..Role::new("hop before", what) }
}

/// A reader of what we write.
#[must_use]
pub fn reader_of(what: &str) -> Role {
    Role::new("reader of", what)
}

/// A writer of what we read.
#[must_use]
pub fn writer_of(what: &str) -> Role {
    Role::new("writer of", what)
}

/// A command that our program runs in a container.
#[must_use]
pub fn in_the_container_of(ours: &str) -> Role {
    Role::new("in the container of", ours)
}

/// A model, whose behaviour our program copies.
#[must_use]
pub fn model_of(ours: &str) -> Role {
    Role::new("model of", ours)
}

/// What a test proves. It is recorded when this is dropped without a panic.
#[derive(Debug)]
#[must_use = "the proof ends when it is dropped: let _proof = …"]
pub struct Proof {
    suite: String,
    test: String,
    cases: String,
    rows: Vec<(Foreign, Role, Vec<Over>)>,
}

/// Begins the proof of one case, or of several separated by semicolons. It proves nothing until it has a peer.
///
/// # Panics
/// Panics outside of the test's own thread, whose name is the name of the test.
pub fn proves(cases: &str) -> Proof {
    assert!(!cases.is_empty() && !cases.contains(['|', '\n']), "{cases:?} is not a cell of a table");
    let program = std::env::current_exe().expect("this program's path");
    let name = program.file_stem().and_then(|name| name.to_str()).expect("a name");
    let thread = std::thread::current();
    let test = thread.name().filter(|name| !["main", "tokio-runtime-worker"].contains(name));
    Proof {
        // cargo appends a hash to the name.
        suite: name.rsplit_once('-').map_or(name, |(suite, _)| suite).to_owned(),
        test: test.expect("a proof must begin on the test's thread").to_owned(),
        cases: cases.to_owned(),
        rows: Vec::new(),
    }
}

impl Proof {
    /// Names the peer, its role, and each protocol. Without a protocol the peer is not recorded.
    pub fn with(mut self, peer: Foreign, role: Role, over: impl IntoIterator<Item: Into<Over>>) -> Self {
        let over: Vec<Over> = over.into_iter().map(Into::into).collect();
        if over.is_empty() {
            return self;
        }
        if role.through == THROUGH[3].1 {
            self.rows.push((Foreign::Apiserver, hop_before(NODE), over.clone()));
        }
        self.rows.push((peer, role, over));
        self
    }

    fn record(&self, to: &Path, passed: bool) -> std::io::Result<()> {
        let pass = std::env::var("KUBESTREAM_THROUGH").unwrap_or_default();
        let mut lines = String::new();
        for (peer, role, over) in &self.rows {
            let over: Vec<_> = over.iter().map(|over| over.text()).collect();
            let line = json!({
                "pass": pass, "suite": self.suite, "test": self.test, "passed": passed, "peer": peer.text(),
                "role": role.text, "through": role.through, "over": over, "cases": self.cases,
            });
            lines += &format!("{line}\n");
        }
        // One write for all lines, because other tests write to the file too.
        OpenOptions::new().create(true).append(true).open(to)?.write_all(lines.as_bytes())
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let Some(to) = std::env::var_os("KUBESTREAM_MATRIX") else { return };
        let failed = std::thread::panicking();
        let recorded = self.record(to.as_ref(), !failed);
        // A second panic would end all other tests.
        if !failed {
            recorded.expect("the record of the matrix is written");
        }
    }
}
