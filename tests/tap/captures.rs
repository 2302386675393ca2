//! Recorded sessions of kubectl and of raw clients with a kube-apiserver and a kubelet, whole and cut at any place.

use bytes::Bytes;
use kubestream::ConnectionError;
use kubestream::mux::{GoAwayStatus, RstStatus};
use kubestream::protocol::Subprotocol;
use kubestream::status::TerminalSize;
use kubestream::tap::{Side, StreamName as Name, TapEvent as Event};
use kubestream::upgrade::{Protocol, Transport, Version};
use quickcheck::quickcheck;

use crate::{Told, told};
use support::recording;

struct Capture {
    protocol: Protocol,
    ports: Vec<u16>,
    said: [(Side, Bytes); 2],
}

/// A recording, without its heads.
fn capture(directory: &str, name: &str) -> Capture {
    let read = |side: &str| recording::said(&format!("{directory}/{name}"), side);
    let ((asked, client), (answer, server)) = (read("c2s"), read("s2c"));
    let line =
        |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let protocol = if directory == "captures" {
        Protocol::from_name(Transport::Spdy, &line("X-Stream-Protocol-Version:")).unwrap()
    } else {
        let subprotocol = Subprotocol::from_name(&line("Sec-WebSocket-Protocol:")).unwrap();
        if name.ends_with("portforward") {
            Protocol::LegacyPortForward(subprotocol)
        } else {
            Protocol::WebSocketExec(subprotocol)
        }
    };
    let ports = asked.split_once("ports=").map(|(_, port)| port[..4].parse().unwrap());
    Capture { protocol, ports: ports.into_iter().collect(), said: [(Side::Client, client), (Side::Server, server)] }
}

fn names(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(recording::path(directory)).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn all() -> impl Iterator<Item = (String, Capture)> {
    let of = |directory| names(directory).into_iter().map(move |name| (name.clone(), capture(directory, &name)));
    of("captures").chain(of("websocket"))
}

fn seen(directory: &str, name: &str) -> Told {
    let capture = capture(directory, name);
    told(capture.protocol, &capture.ports, &capture.said, &[])
}

#[test]
fn each_recording_says_what_was_seen_when_it_was_made() {
    // stdin, stdout and status; stderr; exit code.
    let cases = [
        ("captures", "spdy-exec-echo", "", "hello\n", "", Some(0)),
        ("captures", "spdy-exec-exit-7", "", "bye\n", "", Some(7)),
        ("captures", "spdy-exec-stdout-stderr", "", "out\nout2\n", "err\n", Some(0)),
        ("captures", "spdy-exec-idle-12s", "", "", "", Some(0)),
        ("captures", "spdy-attach", "one\ntwo\n", "out:one\nout:two\n", "err:one\nerr:two\n", Some(0)),
        ("captures", "spdy-v1-exec-exit7", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("captures", "spdy-v2-exec-exit7", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("captures", "spdy-v3-exec-exit7", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("captures", "spdy-v4-exec-exit7", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("captures", "spdy-exec-tty-resize", "stty size\nstty size\nexit 3\n", "exit 3\r\n", "", Some(3)),
        ("captures", "spdy-exec-out-1m", "", "", "", None),
        ("websocket", "ws-exec-echo", "", "hello\n", "", Some(0)),
        ("websocket", "ws-exec-exit-7", "", "bye\n", "", Some(7)),
        ("websocket", "ws-attach", "one\ntwo\n", "out:one\nout:two\n", "err:one\nerr:two\n", Some(0)),
        ("websocket", "ws-noproto-exec", "echo hi; exit 7\n", "hi\n", "", Some(7)),
        ("websocket", "ws-v1-exec", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("websocket", "ws-v4-exec", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("websocket", "ws-v4-base64-exec", "echo hi; echo er >&2; exit 7\n", "hi\n", "er\n", Some(7)),
        ("websocket", "ws-v5-raw-exec", "abc", "abc", "", Some(0)),
        ("websocket", "ws-exec-tty-resize", "", "exit 3\r\n", "", Some(3)),
    ];
    for (directory, name, stdin, stdout, stderr, code) in cases {
        let told = seen(directory, name);
        let text = |side, of| String::from_utf8_lossy(&told.data(side, &of)).into_owned();
        assert!(text(Side::Client, Name::Stdin).ends_with(stdin), "{name}: {:?}", text(Side::Client, Name::Stdin));
        assert!(text(Side::Server, Name::Stdout).ends_with(stdout), "{name}: {:?}", text(Side::Server, Name::Stdout));
        assert_eq!(text(Side::Server, Name::Stderr), stderr, "{name}");
        let codes: Vec<_> = told.statuses().iter().map(|status| status.code().unwrap()).collect();
        assert_eq!(codes, code.into_iter().collect::<Vec<_>>(), "{name}");
        assert!(told.faults().is_empty(), "{name}");
    }
    assert_eq!(seen("captures", "spdy-exec-out-1m").data(Side::Server, &Name::Stdout).len(), 98_304);
}

#[test]
fn terminals_have_their_sizes_and_stdin_its_end() {
    let sizes =
        |sizes: &[(u16, u16)]| sizes.iter().map(|&(width, height)| TerminalSize { width, height }).collect::<Vec<_>>();
    for (directory, name) in [
        ("captures", "spdy-exec-tty-resize"),
        ("captures", "spdy-attach-tty"),
        ("websocket", "ws-exec-tty-resize"),
        ("websocket", "ws-attach-tty"),
    ] {
        let told = seen(directory, name);
        let mut seen = told.sizes();
        seen.dedup();
        assert!(
            seen.ends_with(&sizes(&[(80, 24), (132, 50)])) || seen.ends_with(&sizes(&[(132, 50)])),
            "{name}: {seen:?}"
        );
    }
    for (directory, name, ends) in [
        ("captures", "spdy-attach", 1),
        ("captures", "spdy-exec-stdin-100k", 1),
        ("websocket", "ws-attach", 1),
        ("websocket", "ws-v5-raw-exec", 1),
        ("websocket", "ws-v4-exec", 0),
    ] {
        assert_eq!(seen(directory, name).ends(Side::Client, &Name::Stdin), ends, "{name}");
    }
}

#[test]
fn resets_and_farewells_are_told() {
    let told = seen("captures", "spdy-attach");
    let reset = |event: &&Event| matches!(event, Event::End { side: Side::Client, reset: Some(RstStatus::CANCEL), stream } if stream.name == Name::Stdout);
    assert_eq!(told.0.iter().filter(reset).count(), 1);
    let farewells = told.0.iter().filter_map(|event| match event {
        Event::GoAway { side, status } => Some((*side, *status)),
        _ => None,
    });
    let ok = GoAwayStatus::OK;
    assert_eq!(farewells.collect::<Vec<_>>(), [(Side::Client, ok), (Side::Server, ok)]);
    let told = seen("captures", "spdy-exec-tty-resize");
    assert!(matches!(told.0.last(), Some(Event::Over { side: Side::Server, .. })));
}

#[test]
fn forwarded_connections_are_told_apart() {
    let told = seen("captures", "spdy-portforward-two");
    let opened = told.0.iter().filter_map(|event| match event {
        Event::Opened { stream, side: Side::Client } => Some(stream.name.to_string()),
        _ => None,
    });
    let opened: Vec<_> = opened.collect();
    assert_eq!(opened.len(), 8);
    for request in 0..4 {
        assert_eq!(
            opened.iter().filter(|name| name.ends_with(&format!("connection {request}"))).count(),
            2,
            "{opened:?}"
        );
    }
    for name in ["ws-v4-portforward", "ws-v4-base64-portforward"] {
        let told = seen("websocket", name);
        assert!(told.faults().is_empty());
        let opened = told.0.iter().any(
            |event| matches!(event, Event::Opened { stream, .. } if stream.name.to_string() == "port 7007, connection 0"),
        );
        assert!(opened, "{name}: {told:?}");
    }
}

/// A connection of which only one side is fed. Bytes on streams that were not opened are ignored.
#[test]
fn one_side_alone_can_be_followed_as_far_as_it_goes() {
    let capture = capture("captures", "spdy-exec-exit-7");
    let told = told(Protocol::SpdyExec(Version::V4), &[], &capture.said[1..], &[]);
    let whole = |events: &[Event]| {
        matches!(
            events,
            [
                Event::GoAway { .. },
                Event::Over { side: Side::Client, .. },
                Event::Over { side: Side::Server, cut: false }
            ]
        )
    };
    assert!(whole(&told.0), "{told:?}");
    // Sending the client's first byte twice is an error of the client only.
    let twice = [(Side::Client, Bytes::from_static(b"\x80")), capture.said[0].clone(), capture.said[1].clone()];
    let told = crate::told(Protocol::SpdyExec(Version::V4), &[], &twice, &[]);
    assert_eq!(told.faults().len(), 1);
    assert!(
        matches!(&told.0[0], Event::Fault { side: Side::Client, error: ConnectionError::Malformed(_) }),
        "{told:?}"
    );
    assert!(matches!(told.0.last(), Some(Event::Over { side: Side::Server, .. })));
}

quickcheck! {
    fn a_cut_makes_no_difference(cuts: Vec<usize>) -> bool {
        all().all(|(name, capture)| {
            let Capture { protocol, ports, said } = &capture;
            let (whole, cut) = (told(*protocol, ports, said, &[]).text(), told(*protocol, ports, said, &cuts).text());
            assert_eq!(whole, cut, "{name}, {cuts:?}");
            true
        })
    }
}
