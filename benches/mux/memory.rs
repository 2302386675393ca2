//! The memory of idle connections and streams: two child processes, one for each end, that open them and then wait.
//!
//! Starts and ends the children. A child is this program again. It answers a line on its stdin with a line of figures:
//! resident bytes, as the kernel counts them, and live bytes, as the allocator does.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use kubestream::exec::Exec;
use kubestream::mux::{Multiplexer, Stream};
use tokio::io::{AsyncBufReadExt, BufReader as AsyncBufReader, stdin};
use tokio::net::{TcpListener, TcpStream};

use crate::ours;
use bench_support::table::{Measured, Sample, Table, rounds, tables};
use bench_support::{Flavor, Outcome, load, websocket};

const SPDY: &str = "spdy";
const WEBSOCKET: &str = "websocket";
const CHILD: &str = "KUBESTREAM_BENCH_CHILD";
/// Longer than the second after which a silent connection frees its buffers.
const TRIMMED: Duration = Duration::from_millis(1_600);

pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Bytes more than before at each end, all cases in each round.
pub(crate) fn measure() -> Outcome<Vec<Table>> {
    let cases = [
        ("a connection, 4 streams (of 200)", SPDY, 200, 4),
        ("a connection, 4 streams (of 1)", SPDY, 1, 4),
        ("a connection, 4 streams (of 1,000)", SPDY, 1_000, 4),
        ("a connection, 4 streams (of 5,000)", SPDY, 5_000, 4),
        ("a stream (of 100)", SPDY, 1, 100),
        ("a stream (of 10,000)", SPDY, 1, 10_000),
        ("an exec over WebSocket (of 200)", WEBSOCKET, 200, 4),
        ("an exec over WebSocket (of 1)", WEBSOCKET, 1, 4),
    ];
    let row = |(name, _, connections, streams): (&str, _, usize, usize)| {
        let point = match (connections, streams) {
            (_, 4) if name.contains("exec") => None,
            (_, 4) => Some(("memory of a connection".to_owned(), connections as f64)),
            _ => Some(("memory of a stream".to_owned(), streams as f64)),
        };
        Measured { name: name.to_owned(), base: None, point, samples: Vec::new() }
    };
    let mut states = [("at once", cases.map(row)), ("after 1.6 s", cases.map(row))];
    let before = load::average();
    for _ in 0..rounds() {
        for (at, (_, transport, connections, streams)) in cases.into_iter().enumerate() {
            let (gained, others) = load::beside(|| round(transport, connections, streams))?;
            let of = if streams > 4 { streams } else { connections } as f64;
            for ((_, rows), [client, server, client_live, server_live]) in states.iter_mut().zip(gained) {
                let sample = Sample::new()
                    .with("client RSS", client / of)
                    .with("server RSS", server / of)
                    .with("client live", client_live / of)
                    .with("server live", server_live / of);
                rows[at].samples.push(sample.beside(others));
            }
        }
    }
    let part = |(state, rows): (&str, [Measured; 8])| (format!("memory: bytes more than before, {state}"), rows.into());
    Ok(tables(before, states.map(part).into()))
}

/// How much memory each end has gained, at once and after buffers were freed: resident at client and server, live at
/// client and server.
fn round(transport: &str, connections: usize, streams: usize) -> Outcome<[[f64; 4]; 2]> {
    let mut server = Peer::start(&["server", transport])?;
    let address = server.line()?;
    let mut client =
        Peer::start(&["client", transport, address.trim(), &connections.to_string(), &streams.to_string()])?;
    client.line()?;
    thread::sleep(TRIMMED);
    let before = figures(&mut client, &mut server)?;
    client.ask("open")?;
    let at_once = figures(&mut client, &mut server)?;
    thread::sleep(TRIMMED);
    let trimmed = figures(&mut client, &mut server)?;
    let more = |now: [f64; 4]| std::array::from_fn(|at| now[at] - before[at]);
    Ok([more(at_once), more(trimmed)])
}

fn figures(client: &mut Peer, server: &mut Peer) -> Outcome<[f64; 4]> {
    let mut both = Vec::new();
    for peer in [client, server] {
        let line = peer.ask("figures")?;
        both.extend(line.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?);
    }
    match both[..] {
        [client, client_live, server, server_live] => Ok([client, server, client_live, server_live]),
        _ => Err("a child has died".into()),
    }
}

struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(args: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(args).env(CHILD, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let input = process.stdin.take().ok_or("no stdin")?;
        let output = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        Ok(Self { process, input, output })
    }

    fn ask(&mut self, question: &str) -> Outcome<String> {
        writeln!(self.input, "{question}")?;
        self.line()
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn child(args: &[String]) -> Outcome<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    Flavor::CurrentThread.runtime()?.block_on(async {
        match words[..] {
            ["server", transport] => serve(transport == WEBSOCKET).await,
            ["client", transport, address, connections, streams] => {
                hold(transport == WEBSOCKET, address.parse()?, connections.parse()?, streams.parse()?).await
            }
            _ => Err("an unknown kind of child".into()),
        }
    })
}

async fn serve(websocket: bool) -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            // Each stream is opened after the one before.
            if io.set_nodelay(true).is_err() {
                continue;
            }
            if websocket {
                tokio::spawn(websocket::serve(io));
            } else {
                tokio::spawn(ours::keep(io));
            }
        }
    });
    let mut lines = AsyncBufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        say_figures()?;
    }
    Ok(())
}

/// What a client keeps open.
#[derive(Default)]
struct Held {
    connections: Vec<Multiplexer>,
    streams: Vec<Stream>,
    sessions: Vec<Exec>,
}

impl Held {
    async fn open(&mut self, websocket: bool, address: SocketAddr, streams: usize) -> Outcome<()> {
        let io = TcpStream::connect(address).await?;
        io.set_nodelay(true)?;
        if websocket {
            self.sessions.push(websocket::connect(io, vec!["hold".to_owned()]).await?);
            return Ok(());
        }
        let mux = ours::client(io);
        for number in 0..streams {
            self.streams.push(ours::open(&mux, "open", number).await?);
        }
        self.connections.push(mux);
        Ok(())
    }
}

async fn hold(websocket: bool, address: SocketAddr, connections: usize, streams: usize) -> Outcome<()> {
    let mut held = Held::default();
    // This connection pays the costs that occur only once.
    held.open(websocket, address, 1).await?;
    println!("ready");
    let mut lines = AsyncBufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "open" {
            for _ in 0..connections {
                held.open(websocket, address, streams).await?;
            }
            println!("{} connections", held.connections.len() + held.sessions.len());
        } else {
            say_figures()?;
        }
    }
    Ok(())
}

fn say_figures() -> Outcome<()> {
    let stats = crate::ALLOCATOR.stats();
    let live = stats.bytes_allocated.saturating_sub(stats.bytes_deallocated);
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: usize = resident.trim().trim_end_matches("kB").trim().parse()?;
    println!("{} {live}", kib * 1024);
    Ok(())
}
