//! A WebSocket connection on which a test sends single frames and nothing is automatic, for endings that no library's
//! client performs.
//!
//! Holds the frames. The tests decide what to send, and judge what comes back.

use http::Request;
use kubestream::protocol::Subprotocol;
use kubestream::upgrade::{self, Config, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One end of a connection after its upgrade.
#[derive(Debug)]
pub struct Spoken {
    tcp: TcpStream,
    /// A client masks its frames, here with zeros.
    client: bool,
}

impl Spoken {
    /// Connects as the client of a server with this subprotocol.
    ///
    /// # Panics
    /// Panics if the upgrade fails.
    pub async fn client(url: &str, protocol: Subprotocol) -> Self {
        let request = Request::get(url).body(()).expect("a request");
        let tcp = TcpStream::connect(request.uri().authority().expect("an address").as_str()).await.expect("a server");
        let upgraded = upgrade::connect(tcp, request, &[Protocol::WebSocketExec(protocol)], &Config::default()).await;
        // A server's first bytes are its greeting of empty messages.
        let (tcp, _, _) = upgraded.expect("an upgrade").into_parts();
        Self { tcp, client: true }
    }

    /// Accepts the next client, as its server.
    ///
    /// # Panics
    /// Panics if the upgrade fails.
    pub async fn server(listener: &TcpListener) -> Self {
        let (tcp, _) = listener.accept().await.expect("a client");
        let pending = upgrade::accept(tcp, &Config::default()).await.expect("a request");
        let (tcp, early, _) = pending.accept(Protocol::WEBSOCKET_EXEC).await.expect("an upgrade").into_parts();
        assert!(early.is_empty(), "{early:?}");
        Self { tcp, client: false }
    }

    /// Sends a binary message.
    pub async fn says(&mut self, channel: u8, data: &[u8]) {
        self.frame(0x82, &[&[channel], data].concat()).await;
    }

    /// Sends a Close with code 1000.
    pub async fn closes(&mut self) {
        self.frame(0x88, &1000_u16.to_be_bytes()).await;
    }

    async fn frame(&mut self, head: u8, payload: &[u8]) {
        let mut frame = vec![head];
        let mask = if self.client { 0x80 } else { 0 };
        match u16::try_from(payload.len()).expect("the frame is short") {
            length @ 0..=125 => frame.push(mask | length as u8),
            length => {
                frame.push(mask | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(if self.client { &[0; 4][..] } else { &[] });
        frame.extend(payload);
        self.tcp.write_all(&frame).await.expect("the frame is sent");
    }

    /// Waits for a frame that begins with this byte, and drops all earlier ones. The peers here send only short frames.
    pub async fn hears(&mut self, head: u8) {
        loop {
            let (first, second) = (self.byte().await, self.byte().await);
            let length = match second & 0x7f {
                126 => u64::from(self.tcp.read_u16().await.expect("a frame")),
                127 => self.tcp.read_u64().await.expect("a frame"),
                length => length.into(),
            };
            let mask = if second & 0x80 == 0 { 0 } else { 4 };
            let mut rest = vec![0; usize::try_from(length + mask).expect("a frame that fits")];
            self.tcp.read_exact(&mut rest).await.expect("the whole frame");
            if first == head {
                return;
            }
        }
    }

    async fn byte(&mut self) -> u8 {
        self.tcp.read_u8().await.expect("a frame")
    }

    /// Reads until the peer has ended in any way.
    pub async fn to_the_end(mut self) {
        let mut rest = Vec::new();
        let _ = self.tcp.read_to_end(&mut rest).await;
    }

    /// Breaks the connection off, and loses what was not delivered.
    pub fn breaks_off(self) {
        self.tcp.set_zero_linger().expect("a socket");
    }
}
