//! All cases, in the order of the table.
//!
//! Holds the names of the cases, which `--only` takes.

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

/// Something that every server must do.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub group: Group,
    /// The case mostly waits, so all columns run it at once.
    pub waits: bool,
    pub run: fn(Bench) -> BoxFuture<'static, Outcome>,
}

macro_rules! cases {
    ($($group:ident $name:literal $about:literal $run:path $(, $waits:literal)?;)*) => {
        &[$(Case { name: $name, about: $about, group: Group::$group, waits: false $(|| $waits)?, run: |bench| Box::pin($run(bench)) }),*]
    };
}

/// All cases.
pub static ALL: &[Case] = cases! {
    Handshake "negotiation/preference" "of the protocols that a client offers, the server chooses the first that it has" negotiation::preference;
    Handshake "negotiation/unknown-first" "a name that the server does not know is skipped" negotiation::unknown_first;
    Handshake "negotiation/unknown" "names that the server does not know are refused, over SPDY with a list of those that it has" negotiation::unknown;
    Handshake "negotiation/none" "over SPDY an upgrade without a protocol is refused; over WebSocket it is refused or has no protocol" negotiation::none;
    Handshake "handshake/byte-by-byte" "a request that arrives one byte at a time is answered" handshake::byte_by_byte;
    Handshake "handshake/early-bytes" "bytes that arrive with the request, before its answer, belong to the session" handshake::early_bytes;
    Handshake "handshake/endless-head" "the server does not read on for ever in a head of 4 MB" handshake::endless_head;
    Handshake "requests/no-command" "exec without a command is refused" requests::no_command;
    Handshake "requests/no-streams" "a session without any stream is refused" requests::no_streams;
    Handshake "requests/tty-with-stderr" "a terminal together with stderr is refused, or the terminal shows both outputs" requests::tty_with_stderr;
    Handshake "requests/unknown-container" "a container that does not exist is refused" requests::unknown_container;
    Handshake "requests/wrong-method" "PUT is refused" requests::wrong_method;
    Handshake "requests/no-upgrade" "a request that does not ask for an upgrade is refused" requests::no_upgrade;
    Exec "negotiation/alone" "the version is chosen when it is the only one offered" negotiation::alone;
    Exec "output/apart" "stdout and stderr each carry what was written to them" output::apart;
    Exec "output/streams" "exactly the streams that were asked for exist" output::streams;
    Exec "output/fast-exit" "of a command that ends at once nothing is lost: 1,000 times" output::fast_exits;
    Exec "output/large" "100 MB of output arrive whole" output::large;
    Exec "input/large" "100 MB of input arrive whole" input::large;
    Exec "input/both-ways" "output returns while more input is sent" input::both_ways;
    Exec "input/end" "the end of stdin reaches the command" input::end;
    Exec "input/unread" "a command that ends with megabytes of stdin unread still delivers its output and its status" input::unread;
    Exec "status/codes" "exit codes 0 to 255" status::codes;
    Exec "status/signals" "a command that a signal ends has an exit code of 128 plus the signal" status::signals;
    Exec "status/not-found" "a command that does not exist fails with a reason" status::not_found;
    Exec "terminal/is-one" "all three descriptors are a terminal, and its output comes on stdout" terminal::is_one;
    Exec "terminal/keys" "keys arrive as they are typed, including ctrl-C and ctrl-D" terminal::keys;
    Exec "terminal/resize" "the terminal has the size that the client sets, at the start and later" terminal::resize;
    Exec "flow/concurrent" "50 concurrent sessions do not mix" flow::concurrent;
    Exec "flow/unread-stream" "an unread output loses nothing, and with flow control does not block the other" flow::unread_stream;
    Exec "flow/idle" "a session that is silent for longer than a keepalive interval survives" flow::idle, true;
    Exec "ending/client-pings" "PINGs while the command finishes lose nothing" ending::client_pings;
    Exec "ending/client-grants" "WINDOW_UPDATEs while the command finishes lose nothing" ending::client_grants;
    Exec "ending/client-types" "stdin while the command finishes loses nothing" ending::client_types;
    Exec "ending/client-leaves" "if the client breaks off, the command reads the end of stdin and ends" ending::client_leaves;
    Exec "ending/orphan" "if the client breaks off, a command that reads nothing ends as well" ending::orphan;
    Exec "attach/lines" "a line that is typed comes back on both outputs" attach::lines;
    Exec "attach/again" "a client that leaves does not end the process for the next one" attach::again;
    Forward "forward/echo" "a connection carries bytes both ways" forward::echo;
    Forward "forward/half-close" "the end of one direction does not end the other" forward::half_close;
    Forward "forward/refused" "a port on which nothing listens gives a reason, and other connections survive" forward::refused;
    Forward "forward/many" "100 concurrent connections" forward::many;
    Forward "forward/one-by-one" "100 connections one after another" forward::one_by_one;
    Forward "forward/large" "100 MB there and back" forward::large;
    Forward "forward/broken-off" "a connection that its client breaks off ends alone" forward::broken_off;
    Forward "forward/idle" "a connection that is silent for longer than a keepalive interval survives" forward::idle, true;
};
