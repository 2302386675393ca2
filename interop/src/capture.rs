//! Records the traffic on a loopback port with dumpcap, and reads it with tshark and the dissector of `tools/`.
//!
//! Guarantees that a recording is complete: it has begun before the first byte, and ends after the last one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::Command;

use crate::wire::Wire;
use crate::{Input, Peer, Scratch, run, within};

/// A recording.
#[derive(Debug)]
pub struct Capture {
    dumpcap: Peer,
    port: u16,
    scratch: Scratch,
    from: UdpSocket,
    _to: UdpSocket,
    searched: u64,
}

impl Capture {
    /// Begins to record the traffic on a TCP port.
    ///
    /// # Panics
    /// Panics if recording fails: dumpcap must be allowed to capture.
    pub async fn of(port: u16) -> Self {
        let scratch = Scratch::new();
        let (from, to) = (bound().await, bound().await);
        let marked = to.local_addr().expect("an address");
        from.connect(marked).await.expect("a way on loopback");
        let filter = format!("tcp port {port} or udp port {}", marked.port());
        let dumpcap = Peer::dumpcap(&filter, &scratch.file(FILE));
        let mut capture = Self { dumpcap, port, scratch, from, _to: to, searched: 0 };
        capture.mark(b"kubestream: it has begun").await;
        capture
    }

    /// The same for a server at a URL.
    ///
    /// # Panics
    /// Panics as above, and if the URL has no port.
    pub async fn of_server(url: &str) -> Self {
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Self::of(port.unwrap_or_else(|| panic!("{url} has no port"))).await
    }

    /// Ends the recording and reads the upgraded connection.
    ///
    /// # Panics
    /// Panics if there is not exactly one such connection, if part of it was not recorded, or if tshark fails.
    pub async fn end(mut self) -> Wire {
        self.mark(b"kubestream: it is over").await;
        let file = self.scratch.file(FILE);
        drop(self.dumpcap);
        let mut tshark = Command::new("tshark");
        // An empty configuration directory keeps the user's settings out. tshark makes a single pass, because in a
        // second one Wireshark's SPDY dissector inflates again.
        tshark.env("WIRESHARK_CONFIG_DIR", self.scratch.path()).args(["-n", "-l", "-T", "pdml"]).args(["-J", LAYERS]);
        // An ephemeral port may be one that Wireshark knows as another protocol's, such as 44321.
        tshark.args(["-d", &format!("tcp.port=={},http", self.port)]);
        // Loopback may reorder segments.
        tshark.args(["-o", "tcp.reassemble_out_of_order:TRUE"]);
        tshark.args(["-Y", &format!("tcp.port == {}", self.port)]).arg("-X").arg(lua()).arg("-r").arg(file);
        let ended = run(tshark, Input::Null).await;
        assert!(ended.code == Some(0) && !ended.stderr.contains("Lua"), "tshark: {}", ended.stderr);
        Wire::read(&String::from_utf8(ended.stdout).expect("XML in UTF-8"), self.port)
    }

    /// Sends a datagram until it appears in the recording, which then also has everything before it.
    async fn mark(&mut self, mark: &[u8]) {
        let recorded = async {
            loop {
                self.from.send(mark).await.expect("a datagram on loopback");
                tokio::time::sleep(Duration::from_millis(20)).await;
                if self.has(mark) {
                    return;
                }
            }
        };
        within("a recording of loopback: may dumpcap capture?", recorded).await;
    }

    fn has(&mut self, mark: &[u8]) -> bool {
        let Ok(mut file) = File::open(self.scratch.file(FILE)) else { return false };
        // The last search may have ended in the middle of the mark.
        let from = self.searched.saturating_sub(mark.len() as u64);
        let mut new = Vec::new();
        file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut new)).expect("the recording is read");
        self.searched = from + new.len() as u64;
        new.windows(mark.len()).any(|window| window == mark)
    }
}

/// Runs independent cases at once. Most of their time is spent waiting for dumpcap, which writes twice per second.
pub async fn at_once<T>(cases: impl IntoIterator<Item = T>, test: impl AsyncFn(T)) {
    stream::iter(cases).for_each_concurrent(4, |case| test(case)).await;
}

/// Replays recorded bytes of a client and a server, each beginning with its head, and reads them like a session.
///
/// # Panics
/// Panics if the bytes do not begin with a head, and as a [`Capture`] does.
pub async fn replay(client: &[u8], server: &[u8]) -> Wire {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let capture = Capture::of(address.port()).await;
    let mut near = TcpStream::connect(address).await.expect("a connection");
    let mut far = listener.accept().await.expect("a connection").0;
    let (client, server) = (client.split_at(head(client)), server.split_at(head(server)));
    pass(&mut near, &mut far, client.0).await;
    pass(&mut far, &mut near, server.0).await;
    pass(&mut near, &mut far, client.1).await;
    pass(&mut far, &mut near, server.1).await;
    drop((near, far));
    capture.end().await
}

async fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    // Wireshark dissects at most 500 layers in a packet, and a small message has two.
    for (bytes, heard) in bytes.chunks(512).zip(heard.chunks_mut(512)) {
        let passed = async { tokio::try_join!(from.write_all(bytes), to.read_exact(heard)) };
        within("bytes on loopback", passed).await.expect("they pass");
    }
}

/// The length of the head, including its empty line.
fn head(bytes: &[u8]) -> usize {
    const END: &[u8] = b"\r\n\r\n";
    bytes.windows(END.len()).position(|end| end == END).expect("a head") + END.len()
}

async fn bound() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a port")
}

fn lua() -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tools/k8s_channels.lua");
    format!("lua_script:{}", script.display())
}

const FILE: &str = "wire.pcapng";
/// The layers that tshark writes in full; the others take a line each. A failure of the dissector itself appears as
/// text.
const LAYERS: &str = "tcp http websocket k8s_channel k8s_tunnel spdy _ws.malformed text";
