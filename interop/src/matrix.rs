//! What the tests prove, as the interop matrix has it: which foreign peer, in which role, over which protocol, through what, and which cases.
//!
//! Owns the names of the peers and of the protocols, and the record: a line of JSON a row, in the file that `KUBESTREAM_MATRIX` names. It must not know
//! how the rows are merged and shown, which is `src/bin/matrix.rs`'s.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use kubestream::channel::Subprotocol;
use kubestream::upgrade::{Protocol, Version};
use serde_json::json;

/// The program `node`: what a test starts by [`Peer::node`](crate::Peer::node), behind what `KUBESTREAM_THROUGH` says.
pub const NODE: &str = "`node`";
/// Where nothing stands between.
pub const NOTHING: &str = "–";
/// What stands between by `KUBESTREAM_THROUGH`, and how the matrix says it.
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
            /// All of them, in the order of the matrix.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What the matrix and the command line call it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The one that is called so.
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
    /// A peer that is not ours. `interop/run NAME` runs the suites whose sources say `Foreign::` and one of these.
    Foreign {
        /// The command.
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
        /// The command at a container runtime.
        Crictl: "crictl",
        /// The tests of container runtimes.
        Critest: "critest",
        /// The streaming server of the container runtimes.
        CriStreaming: "cri-streaming",
        /// The API server's StreamTranslator, TunnelingHandler and UpgradeAwareHandler.
        Apiserver: "apiserver",
        /// A gateway that ends both sides of an upgraded connection when its server ends its own.
        Nginx: "nginx",
        /// Another.
        Haproxy: "haproxy",
        /// SPDY/3.1 of the Kubernetes world.
        Spdystream: "spdystream",
        /// SPDY/3.1 of Node's, with windows.
        SpdyTransport: "spdy-transport",
        /// SPDY/3.1 of Java's, with windows and a limit of streams.
        Netty: "netty",
        /// The judge of what is on the wire.
        Wireshark: "wireshark",
        /// The tar of this machine.
        GnuTar: "gnu-tar",
        /// busybox's tar and its fellows, of this machine.
        BusyboxTar: "busybox",
        /// The reader of recordings.
        Asciinema: "asciinema",
        /// No peer: bytes that a test has made itself, where no peer would make them.
        Bytes: "bytes",
    }
}

names! {
    /// A protocol between a peer and us. Those with the same first words stand together in the matrix.
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
        /// WebSocket, and SPDY where that is refused.
        Fallback: "WebSocket-else-SPDY",
        /// Port-forward over SPDY.
        Forward: "port-forward SPDY",
        /// Port-forward over SPDY in a WebSocket.
        Tunnel: "port-forward tunnel",
        /// The tunnel, and SPDY where that is refused.
        ForwardFallback: "port-forward tunnel-else-SPDY",
        /// The old form of port-forward without a subprotocol.
        Channels: "port-forward channels \"\"",
        /// The old form, `v4.channel.k8s.io`.
        ChannelsV4: "port-forward channels v4",
        /// The old form, `v4.base64.channel.k8s.io`.
        ChannelsV4Base64: "port-forward channels v4.base64",
        /// Streams of SPDY on a bare connection.
        RawSpdy: "raw SPDY/3.1",
        /// The interface of container runtimes.
        Cri: "CRI v1",
        /// A request that is refused before it is any of these.
        Http: "HTTP/1.1",
        /// A file.
        Asciicast: "asciicast v2",
    }
}

impl From<Protocol> for Over {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Exec(Version::V1) => Self::SpdyV1,
            Protocol::Exec(Version::V2) => Self::SpdyV2,
            Protocol::Exec(Version::V3) => Self::SpdyV3,
            Protocol::Exec(Version::V4) => Self::SpdyV4,
            Protocol::Channel(Subprotocol::Unnamed) => Self::WebSocket,
            Protocol::Channel(Subprotocol::V1) => Self::WebSocketV1,
            Protocol::Channel(Subprotocol::V1Base64) => Self::WebSocketBase64,
            Protocol::Channel(Subprotocol::V4) => Self::WebSocketV4,
            Protocol::Channel(Subprotocol::V4Base64) => Self::WebSocketV4Base64,
            Protocol::Channel(Subprotocol::V5) => Self::WebSocketV5,
            Protocol::PortForward => Self::Forward,
            Protocol::Tunnel => Self::Tunnel,
            Protocol::PortChannels(Subprotocol::Unnamed) => Self::Channels,
            Protocol::PortChannels(Subprotocol::V4) => Self::ChannelsV4,
            Protocol::PortChannels(Subprotocol::V4Base64) => Self::ChannelsV4Base64,
            other => panic!("the matrix has no name for {other:?}"),
        }
    }
}

/// What a peer is to us, and what stands between.
#[derive(Clone, Debug)]
pub struct Role {
    text: String,
    through: String,
}

impl Role {
    fn new(what: &str, of: &str) -> Self {
        // A test's own servers are behind nothing, whatever pass it is in.
        let named = std::env::var("KUBESTREAM_THROUGH").ok().filter(|_| of == NODE);
        let through = named.map_or(NOTHING, |named| {
            let said = THROUGH.iter().find(|(value, _)| *value == named);
            said.unwrap_or_else(|| panic!("KUBESTREAM_THROUGH is {named:?}")).1
        });
        Self { text: format!("{what} {of}"), through: through.to_owned() }
    }

    /// What the test itself has put between.
    #[must_use]
    pub fn through(mut self, what: &str) -> Self {
        what.clone_into(&mut self.through);
        self
    }
}

/// A client of what is ours: [`NODE`], or what the matrix is to say.
#[must_use]
pub fn client_of(ours: &str) -> Role {
    Role::new("client of", ours)
}

/// A server for what is ours.
#[must_use]
pub fn server_for(ours: &str) -> Role {
    Role::new("server for", ours)
}

/// A hop on the way from what is ours, or to it.
#[must_use]
pub fn hop_before(what: &str) -> Role {
    Role { through: NOTHING.to_owned(), ..Role::new("hop before", what) }
}

/// A reader of what we write.
#[must_use]
pub fn reader_of(what: &str) -> Role {
    Role::new("reader of", what)
}

/// Who writes what we read.
#[must_use]
pub fn writer_of(what: &str) -> Role {
    Role::new("writer of", what)
}

/// A command that what is ours runs in a container.
#[must_use]
pub fn in_the_container_of(ours: &str) -> Role {
    Role::new("in the container of", ours)
}

/// What ours is to do as it does.
#[must_use]
pub fn model_of(ours: &str) -> Role {
    Role::new("model of", ours)
}

/// What a test proves, from its first line to its last: dropped without a panic, it has.
#[derive(Debug)]
#[must_use = "it is over when it is dropped: let _proof = …"]
pub struct Proof {
    suite: String,
    test: String,
    cases: String,
    rows: Vec<(Foreign, Role, Vec<Over>)>,
}

/// Begins a proof of a case, or of several with semicolons between. It is nothing yet without a peer.
///
/// # Panics
/// Where that is not on the test's own thread, whose name is the test's.
pub fn proves(cases: &str) -> Proof {
    assert!(!cases.is_empty() && !cases.contains(['|', '\n']), "{cases:?} is no cell of a table");
    let program = std::env::current_exe().expect("this program's path");
    let name = program.file_stem().and_then(|name| name.to_str()).expect("a name");
    let thread = std::thread::current();
    let test = thread.name().filter(|name| !["main", "tokio-runtime-worker"].contains(name));
    Proof {
        // cargo puts a hash behind it.
        suite: name.rsplit_once('-').map_or(name, |(suite, _)| suite).to_owned(),
        test: test.expect("a proof begins on the test's thread").to_owned(),
        cases: cases.to_owned(),
        rows: Vec::new(),
    }
}

impl Proof {
    /// Of this peer, in this role, over each of these protocols: over none of them it is not of this peer.
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
        // At once: other tests write there as well.
        OpenOptions::new().create(true).append(true).open(to)?.write_all(lines.as_bytes())
    }
}

impl Drop for Proof {
    fn drop(&mut self) {
        let Some(to) = std::env::var_os("KUBESTREAM_MATRIX") else { return };
        let failed = std::thread::panicking();
        let recorded = self.record(to.as_ref(), !failed);
        // A second panic would take all the other tests along.
        if !failed {
            recorded.expect("the record of the matrix is written");
        }
    }
}
