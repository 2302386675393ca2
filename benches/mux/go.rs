//! The Go peers, moby/spdystream and client-go: the programs of interop/benches/go, if they are built.
//!
//! Starts and ends their processes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use kubestream::exec::{ExecRequest, Streams};

use crate::ours;
use bench_support::table::Sample;
use bench_support::{Flavor, Meter, Outcome, Plan, dial, serve_one, websocket};

pub(crate) const SPDYSTREAM: &str = "spdystream";
pub(crate) const CLIENT_GO: &str = "client-go";

pub(crate) fn path(program: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("interop/benches/go/bin").join(program)
}

pub(crate) fn is_built(program: &str) -> bool {
    path(program).is_file()
}

pub(crate) fn bulk(plan: Plan) -> Outcome<Sample> {
    let listener = Listener::start()?;
    Ok(transferred(plan, seconds_of(&listener.address, "write", plan)?))
}

pub(crate) fn read_by_go(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let listener = Listener::start()?;
    dial(flavor, listener.address.parse()?, move |io| ours::write(io, plan)).map(|sample| sample.only(&NAMES))
}

pub(crate) fn written_by_go(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let (address, server) = serve_one(flavor, |io| ours::serve(io, Arc::default()))?;
    let meter = Meter::start();
    let seconds = seconds_of(&address.to_string(), "write", plan)?;
    let used = meter.read();
    server.join().map_err(|_| "the server panicked")??;
    // How much of the time the reader had nothing to do.
    Ok(transferred(plan, seconds).with("our cores", used.cpu / used.seconds))
}

pub(crate) fn echo() -> Outcome<Sample> {
    let listener = Listener::start()?;
    echoed(&output_of(&listener.address, &["-do", "echo"])?)
}

fn echoed(line: &str) -> Outcome<Sample> {
    match numbers(line)?[..] {
        [p50, p99, ops] => Ok(Sample::new().with("p50 µs", p50).with("p99 µs", p99).with("ops/s", ops)),
        _ => Err(format!("the Go peer said {line:?}").into()),
    }
}

/// client-go's WebSocket executor as the client of this crate's server.
pub(crate) fn exec_to_server(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let line = exec(flavor, "to-server", websocket::to_server_command(plan), Some(plan))?;
    Ok(transferred(plan, seconds(&line)?))
}

pub(crate) fn exec_to_client(flavor: Flavor, plan: Plan) -> Outcome<Sample> {
    let line = exec(flavor, "to-client", websocket::to_client_command(plan), Some(plan))?;
    Ok(transferred(plan, seconds(&line)?))
}

pub(crate) fn exec_echo(flavor: Flavor) -> Outcome<Sample> {
    echoed(&exec(flavor, "echo", websocket::echo_command(), None)?)
}

fn exec(flavor: Flavor, action: &str, command: Vec<String>, plan: Option<Plan>) -> Outcome<String> {
    let (address, server) = serve_one(flavor, websocket::serve)?;
    let query = ExecRequest::new(command, Streams::PIPES).to_query();
    let url = format!("http://{address}{}?{query}", websocket::PATH);
    let mut process = Command::new(path(CLIENT_GO));
    process.args(["-url", &url, "-do", action]).stderr(Stdio::inherit());
    if let Some(plan) = plan {
        process.args(["-bytes", &plan.bytes.to_string(), "-warm-up", &plan.warm_up().bytes.to_string()]);
    }
    let output = process.output()?;
    server.join().map_err(|_| "the server panicked")??;
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn opens(at_once: usize) -> Outcome<Sample> {
    let listener = Listener::start()?;
    let line = output_of(&listener.address, &["-do", "open", "-at-once", &at_once.to_string()])?;
    match numbers(&line)?[..] {
        [ops] => Ok(Sample::new().with("ops/s", ops)),
        _ => Err(format!("the Go peer said {line:?}").into()),
    }
}

const NAMES: [&str; 2] = ["GB/s", "writes/s"];

fn transferred(plan: Plan, seconds: f64) -> Sample {
    Sample::new().with("GB/s", plan.bytes as f64 / seconds / 1e9).with("writes/s", plan.writes() as f64 / seconds)
}

fn seconds_of(address: &str, action: &str, plan: Plan) -> Outcome<f64> {
    let (size, bytes) = (plan.size.to_string(), plan.bytes.to_string());
    let warm_up = plan.warm_up().bytes.to_string();
    let line = output_of(address, &["-do", action, "-size", &size, "-bytes", &bytes, "-warm-up", &warm_up])?;
    seconds(&line)
}

fn seconds(line: &str) -> Outcome<f64> {
    numbers(line)?.first().copied().ok_or_else(|| "the Go peer said nothing".into())
}

fn output_of(address: &str, args: &[&str]) -> Outcome<String> {
    let output =
        Command::new(path(SPDYSTREAM)).args(["-dial", address]).args(args).stderr(Stdio::inherit()).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn numbers(line: &str) -> Outcome<Vec<f64>> {
    Ok(line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

struct Listener {
    process: Child,
    address: String,
}

impl Listener {
    fn start() -> Outcome<Self> {
        let mut process = Command::new(path(SPDYSTREAM)).arg("-listen").stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut address)?;
        }
        Ok(Self { process, address: address.trim().to_owned() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
