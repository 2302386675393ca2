//! All cases, in the order of the table.
//!
//! Owns their names, by which `--only` knows them.

mod attach;
mod ending;
mod flow;
mod forward;
mod grants;
mod handshake;
mod input;
mod negotiation;
mod output;
mod requests;
mod status;
mod terminal;

use futures_util::future::BoxFuture;

use crate::bench::Bench;
use crate::column::Group;
use crate::verdict::Outcome;

/// Something that must hold of a server.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub group: Group,
    /// It waits more than it does: all columns may be tried at once.
    pub waits: bool,
    pub run: fn(Bench) -> BoxFuture<'static, Outcome>,
}

macro_rules! cases {
    ($($group:ident $name:literal $about:literal $run:path $(, $waits:literal)?;)*) => {
        &[$(Case { name: $name, about: $about, group: Group::$group, waits: false $(|| $waits)?, run: |bench| Box::pin($run(bench)) }),*]
    };
}

/// Every case there is.
pub static ALL: &[Case] = cases! {
    Handshake "negotiation/preference" "the first that the client names, and the server has, is settled on" negotiation::preference;
    Handshake "negotiation/unknown-first" "a name that the server has not is passed over" negotiation::unknown_first;
    Handshake "negotiation/unknown" "names that the server has not are refused, over SPDY with those that it has" negotiation::unknown;
    Handshake "negotiation/none" "without a protocol there is no session over SPDY, and an unnamed one or none over WebSocket" negotiation::none;
    Handshake "handshake/byte-by-byte" "a request that comes a byte at a time is a request" handshake::byte_by_byte;
    Handshake "handshake/early-bytes" "what comes with the request, before its answer, is part of the session" handshake::early_bytes;
    Handshake "handshake/endless-head" "a head of 4 MB is not read for ever" handshake::endless_head;
    Handshake "requests/no-command" "exec without a command is refused" requests::no_command;
    Handshake "requests/no-streams" "a session without a stream is refused" requests::no_streams;
    Handshake "requests/tty-with-stderr" "a terminal and stderr are refused, or the terminal has both outputs" requests::tty_with_stderr;
    Handshake "requests/unknown-container" "a container that is not there is refused" requests::unknown_container;
    Handshake "requests/wrong-method" "PUT is refused" requests::wrong_method;
    Handshake "requests/no-upgrade" "a request that asks for no upgrade is refused" requests::no_upgrade;
    Exec "negotiation/alone" "the version, offered alone, is settled on" negotiation::alone;
    Exec "output/apart" "stdout and stderr each have what was written to them" output::apart;
    Exec "output/streams" "just the streams that were asked for are there" output::streams;
    Exec "output/fast-exit" "a command that ends at once loses nothing: 1,000 times" output::fast_exits;
    Exec "output/large" "100 MB come whole" output::large;
    Exec "input/large" "100 MB arrive whole" input::large;
    Exec "input/both-ways" "what goes in comes back while more goes in" input::both_ways;
    Exec "input/end" "the end of stdin reaches the command" input::end;
    Exec "input/unread" "a command that ends with megabytes of stdin unread still has its output and its status" input::unread;
    Exec "status/codes" "exit codes 0 to 255" status::codes;
    Exec "status/signals" "a command that a signal ends has 128 and the signal for its code" status::signals;
    Exec "status/not-found" "a command that does not exist fails, and says so" status::not_found;
    Exec "terminal/is-one" "all three descriptors are a terminal, and its output is stdout" terminal::is_one;
    Exec "terminal/keys" "keys arrive as they are typed, ctrl-C and ctrl-D too" terminal::keys;
    Exec "terminal/resize" "its size is what the client says, at the start and later" terminal::resize;
    Exec "flow/concurrent" "50 sessions at a time, each its own" flow::concurrent;
    Exec "flow/unread-stream" "an output that is not read loses nothing, nor holds up the other where there is flow control" flow::unread_stream;
    Exec "flow/idle" "a session that is silent for longer than a keepalive lives on" flow::idle, true;
    Exec "ending/client-pings" "PINGs while the command finishes cost nothing" ending::client_pings;
    Exec "ending/client-grants" "WINDOW_UPDATEs while the command finishes cost nothing" ending::client_grants;
    Exec "ending/client-types" "stdin while the command finishes costs nothing" ending::client_types;
    Exec "ending/client-leaves" "a command whose client breaks off has the end of its stdin, and ends" ending::client_leaves;
    Exec "ending/orphan" "a command that reads nothing ends with its client" ending::orphan;
    Exec "attach/lines" "a line that is typed is said on both outputs" attach::lines;
    Exec "attach/again" "who leaves, leaves the process to the next" attach::again;
    Forward "forward/echo" "a connection carries both ways" forward::echo;
    Forward "forward/half-close" "the end of one direction leaves the other" forward::half_close;
    Forward "forward/refused" "a port that nobody listens on says why, and the others live on" forward::refused;
    Forward "forward/many" "100 connections at a time" forward::many;
    Forward "forward/one-by-one" "100 connections one after another" forward::one_by_one;
    Forward "forward/large" "100 MB there and back" forward::large;
    Forward "forward/broken-off" "a connection that its client breaks off is the only one to end" forward::broken_off;
    Forward "forward/idle" "a connection that is silent for longer than a keepalive lives on" forward::idle, true;
};
