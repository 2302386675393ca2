//! Gateways between a client and a server, configured as their users do, and links with small buffers.
//!
//! Configures and starts them, and ends them with their test. The tests decide what passes through them.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::{Peer, Scratch};

/// The buffer size asked of the kernel for a slow reader. Linux doubles it.
pub const NARROW: u32 = 8 * 1024;

/// The configuration of nginx's page on WebSocket, used for every upgrade:
/// <https://nginx.org/en/docs/http/websocket.html>.
const NGINX: &str = "
daemon off;
worker_processes 2;
pid DIRECTORY/pid;
error_log DIRECTORY/error.log;
events { worker_connections 768; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    map $http_upgrade $connection_upgrade {
        default upgrade;
        ''      close;
    }
    server {
        listen LISTEN;
        location / {
            proxy_pass http://SERVER;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }
    }
}
";

/// Debian's own haproxy.cfg, with the tunnel timeout of one hour that users set. An upgrade needs nothing else.
const HAPROXY: &str = "
global
    maxconn 1000
defaults
    mode http
    timeout connect 5000
    timeout client 50000
    timeout server 50000
    timeout tunnel 1h
frontend clients
    bind fd@3
    default_backend servers
backend servers
    server node SERVER
";

/// The gateway gets its listening socket, with connections that already wait, as descriptor 3. So no port has to be
/// chosen twice.
const NGINX_GUARD: &str = r#"command -v nginx >/dev/null || exit 1
    NGINX='3;' nginx -e "$1/error.log" -p "$1" -c "$1/nginx.conf" 3>&2 2>"$1/log" </dev/null & echo "$0"; cat >/dev/null; kill $!; wait"#;
const HAPROXY_GUARD: &str = r#"command -v haproxy >/dev/null || exit 1
    haproxy -db -f "$1/haproxy.cfg" 3>&2 2>"$1/log" </dev/null & echo "$0"; cat >/dev/null; kill $!; wait"#;

/// A gateway without half-close: when one of its sides ends, it ends both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// The smallest such gateway: it passes on what it has read, and closes both sockets even if they have unread
    /// bytes.
    Relay,
}

/// A server with a gateway in front of it.
#[derive(Debug)]
pub struct Hop {
    address: String,
    _gateway: Running,
    _server: Peer,
}

#[derive(Debug)]
enum Running {
    Process { _peer: Peer, _scratch: Scratch },
    Tasks { _all: JoinSet<()> },
}

impl Hop {
    /// Starts the gateway.
    ///
    /// # Panics
    /// Panics if the gateway cannot be started, or outside of a runtime.
    #[must_use]
    pub fn before(server: Peer, gateway: Gateway) -> Self {
        let to = server.address().trim_start_matches("http://").to_owned();
        let listener = StdListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener of the gateway's kind");
        let at = listener.local_addr().expect("an address").to_string();
        let gateway = match gateway {
            Gateway::Nginx => process(listener, &at, &to, NGINX_GUARD, "nginx.conf", NGINX),
            Gateway::Haproxy => process(listener, &at, &to, HAPROXY_GUARD, "haproxy.cfg", HAPROXY),
            Gateway::Relay => serve(listener, to, relay),
        };
        Self { address: format!("http://{at}"), _gateway: gateway, _server: server }
    }

    /// The URL of the gateway.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// A link that takes few bytes at a time from the server, whatever the client's kernel would take. It passes
/// half-closes on, and a reset on one side as a reset on the other.
#[derive(Debug)]
pub struct Link {
    address: String,
    _tasks: Running,
}

impl Link {
    /// Opens a link to that URL, on a port of its own.
    ///
    /// # Panics
    /// Panics outside of a runtime.
    #[must_use]
    pub fn to(url: &str) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener for the runtime");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        Self { address, _tasks: serve(listener, url.trim_start_matches("http://").to_owned(), link) }
    }

    /// The URL of the link.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

fn process(listener: StdListener, at: &str, to: &str, guard: &str, name: &str, configuration: &str) -> Running {
    let scratch = Scratch::new();
    let directory = scratch.path().display().to_string();
    let configuration = configuration.replace("DIRECTORY", &directory).replace("LISTEN", at).replace("SERVER", to);
    std::fs::write(scratch.file(name), configuration).expect("a configuration");
    let mut command = Command::new("sh");
    // Debian installs both in a directory that only root searches.
    command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    command.args(["-c", guard, at, &directory]).stderr(Stdio::from(OwnedFd::from(listener)));
    Running::Process { _peer: Peer::start(command, |line| Some(line.to_owned())), _scratch: scratch }
}

fn serve<F: Future<Output = io::Result<()>> + Send + 'static>(
    listener: StdListener,
    to: String,
    each: fn(TcpStream, String) -> F,
) -> Running {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut all = JoinSet::new();
    all.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            // The two ends report how a connection ends.
            connections.spawn(each(near, to.clone()));
        }
    });
    Running::Tasks { _all: all }
}

async fn relay(mut near: TcpStream, to: String) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
    tokio::select! {
        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
        _ = tokio::io::copy(&mut from_far, &mut to_near) => {}
    }
    Ok(())
}

async fn link(mut near: TcpStream, to: String) -> io::Result<()> {
    let mut far = narrow(&to).await?;
    if carry(&mut near, &mut far).await.is_err() {
        near.set_zero_linger()?;
        far.set_zero_linger()?;
    }
    Ok(())
}

enum Broken {
    Reading,
    Writing,
}

/// Carries bytes both ways until both directions have ended.
async fn carry(near: &mut TcpStream, far: &mut TcpStream) -> Result<(), Broken> {
    let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
    let (there, back) = (pass(from_near, to_far), pass(from_far, to_near));
    tokio::pin!(there, back);
    tokio::select! {
        ended = &mut there => match ended {
            // Bytes that were on their way before the reset still come. After the writer has been told of the reset,
            // the reader may see a plain end.
            Err(Broken::Writing) => back.await.and(Err(Broken::Writing)),
            Err(Broken::Reading) => Err(Broken::Reading),
            Ok(()) => back.await,
        },
        ended = &mut back => match ended {
            Ok(()) => there.await,
            broken => broken,
        },
    }
}

async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Broken> {
    let mut buffer = vec![0; NARROW as usize];
    loop {
        let length = from.read(&mut buffer).await.map_err(|_| Broken::Reading)?;
        let written = match length {
            0 => return to.shutdown().await.map_err(|_| Broken::Writing),
            length => to.write_all(&buffer[..length]).await,
        };
        written.map_err(|_| Broken::Writing)?;
    }
}

/// Connects with a receive buffer of [`NARROW`] bytes, which Linux doubles.
///
/// # Errors
/// Fails as connecting does.
pub async fn narrow(address: &str) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(NARROW)?;
    socket.connect(address.parse().map_err(io::Error::other)?).await
}
