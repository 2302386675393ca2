//! An upgraded connection as tshark read it: which side sent what, in the notation of a transcript.
//!
//! Holds that notation, and the checks that apply to every session. It trusts Wireshark for every byte, and must not
//! use the library's codec.

use std::collections::BTreeMap;
use std::ops::Range;

use roxmltree::{Document, Node, ParsingOptions};

/// The sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that asked for the upgrade.
    Client,
    /// The side that granted it.
    Server,
}

/// A SPDY frame, a message of a channel, or a control frame of WebSocket.
#[derive(Clone, Debug)]
pub struct Said {
    /// The side that sent it.
    pub side: Side,
    /// The type of a frame, or the name of a channel.
    pub what: String,
    /// The stream or channel, if there is one.
    pub on: Option<u32>,
    /// The content, if it is not plain bytes.
    pub says: Option<String>,
    /// True if it ends its side of the stream.
    pub fin: bool,
    /// The headers of a frame.
    pub headers: BTreeMap<String, String>,
    /// The data of a frame, or the payload of a message.
    pub bytes: Vec<u8>,
}

/// The size of the largest DATA frame and of the largest message, the same as in Go.
const LARGEST: usize = 32 * 1024;

/// An upgraded connection.
#[derive(Debug, Default)]
pub struct Wire {
    /// The protocol that the server named in its 101.
    pub protocol: String,
    /// Everything after the heads, in order.
    pub said: Vec<Said>,
    /// Errors and warnings of Wireshark, and masks on the wrong side.
    pub complaints: Vec<String>,
}

impl Wire {
    /// What one side sent, in lines such as `SYN_STREAM 1 error`, `DATA 3 8 FIN`, `stdin 0 8`. Adjacent DATA of one
    /// stream, or payloads of one channel, are one line. PINGs, window updates and settings may come at any time and
    /// are left out.
    #[must_use]
    pub fn by(&self, side: Side) -> Vec<String> {
        const AT_ANY_TIME: [&str; 5] = ["SETTINGS", "WINDOW_UPDATE", "PING", "ping", "pong"];
        lines(self.said.iter().filter(|said| said.side == side && !AT_ANY_TIME.contains(&&*said.what)))
    }

    /// What one side sent on a stream or channel.
    #[must_use]
    pub fn on(&self, side: Side, on: u32) -> Vec<String> {
        lines(self.all(side, on).filter(|said| said.what != "WINDOW_UPDATE"))
    }

    /// The bytes that one side sent on a stream or channel.
    #[must_use]
    pub fn bytes(&self, side: Side, on: u32) -> Vec<u8> {
        self.all(side, on).flat_map(|said| said.bytes.iter().copied()).collect()
    }

    /// The headers with which a side opened a stream or replied to it.
    ///
    /// # Panics
    /// Panics if it did neither.
    #[must_use]
    pub fn headers(&self, side: Side, on: u32) -> &BTreeMap<String, String> {
        let opened = self.all(side, on).find(|said| said.what.starts_with("SYN_"));
        &opened.unwrap_or_else(|| panic!("{side:?} has not opened {on}")).headers
    }

    /// Checks what must hold for every session.
    ///
    /// # Panics
    /// Panics if something is wrong.
    #[track_caller]
    pub fn assert_sound(&self, name: &str) {
        assert_eq!(self.complaints, [""; 0], "{name}");
        let largest = self.said.iter().map(|said| said.bytes.len()).max();
        assert!(largest <= Some(LARGEST), "{name}: {largest:?} bytes in a frame");
    }

    fn all(&self, side: Side, on: u32) -> impl Iterator<Item = &Said> {
        self.said.iter().filter(move |said| said.side == side && said.on == Some(on))
    }

    /// Reads tshark's output for a server's port.
    pub(crate) fn read(pdml: &str, server: u16) -> Self {
        let options = ParsingOptions { nodes_limit: u32::MAX, ..ParsingOptions::default() };
        let document = Document::parse_with_options(pdml, options).expect("XML");
        let mut connections = BTreeMap::<u32, Self>::new();
        let mut segments = BTreeMap::<(u32, bool), Vec<(Range<u32>, u32)>>::new();
        for packet in document.root_element().children().filter(|node| node.has_tag_name("packet")) {
            let tcp = layers(packet).find(|layer| name(*layer) == "tcp").expect("TCP");
            let side = if number(tcp, "tcp.srcport") == Some(server.into()) { Side::Server } else { Side::Client };
            let stream = number(tcp, "tcp.stream").expect("a connection");
            segments.entry((stream, side == Side::Server)).or_default().push(segment(tcp));
            connections.entry(stream).or_default().packet(packet, side);
        }
        for ((stream, by_server), sent) in &segments {
            let acked = segments.get(&(*stream, !by_server)).into_iter().flatten().map(|(_, acked)| *acked).max();
            let bytes = contiguous(sent.iter().map(|(bytes, _)| bytes.clone()).collect());
            assert!(acked <= Some(bytes), "{acked:?} is acknowledged, but the recording has a gap at {bytes}");
        }
        let mut upgraded =
            connections.into_values().filter(|wire| !wire.said.is_empty() || !wire.complaints.is_empty());
        let wire = upgraded.next().expect("an upgraded connection");
        assert!(upgraded.next().is_none(), "one upgraded connection");
        wire
    }

    fn packet(&mut self, packet: Node<'_, '_>, side: Side) {
        for layer in layers(packet) {
            match name(layer) {
                "http" => self.protocol.push_str(&named(layer)),
                "websocket" => self.websocket(layer, side),
                "k8s_channel" => self.said.push(message(layer, side)),
                "spdy" => self.said.push(frame(layer, side)),
                "_ws.malformed" => self.complaints.push(format!("_ws.malformed {}", text(layer, "showname"))),
                _ => {}
            }
            if name(layer) != "tcp" {
                self.complaints.extend(layer.descendants().filter_map(complaint));
            }
        }
    }

    /// RFC 6455 §5.1: a client masks every frame, and a server none.
    fn websocket(&mut self, layer: Node<'_, '_>, side: Side) {
        const CONTROL: [(&str, &str); 3] = [("8", "close"), ("9", "ping"), ("10", "pong")];
        // A fragmented message is shown once more as a whole.
        let Some(opcode) = field(layer, "websocket.opcode") else { return };
        if (number(layer, "websocket.mask") == Some(1)) != (side == Side::Client) {
            self.complaints.push(format!("websocket.mask {side:?}"));
        }
        if let Some((_, what)) = CONTROL.into_iter().find(|(code, _)| *code == opcode) {
            let says = field(layer, "websocket.payload.close.status_code").map(str::to_owned);
            self.said.push(Said { says, ..said(side, what, None) });
        }
    }
}

/// The sequence numbers of a segment's bytes and FIN, and the number that it acknowledges. Wireshark counts from the
/// SYN, which has number 0.
fn segment(tcp: Node<'_, '_>) -> (Range<u32>, u32) {
    let [begins, length, fin, acked] = ["tcp.seq", "tcp.len", "tcp.flags.fin", "tcp.ack"]
        .map(|name| number(tcp, name).unwrap_or_else(|| panic!("no {name}")));
    (begins..begins + length + fin, acked)
}

/// How far the segments go without a gap. On a machine with several CPUs, a connection on loopback may reorder segments
/// and send some again.
fn contiguous(mut segments: Vec<Range<u32>>) -> u32 {
    segments.sort_by_key(|bytes| bytes.start);
    segments.into_iter().fold(1, |until, bytes| if bytes.start <= until { until.max(bytes.end) } else { until })
}

/// The protocol that a server named, in either header.
fn named(http: Node<'_, '_>) -> String {
    if field(http, "http.response.code") != Some("101") {
        return String::new();
    }
    let lines = all(http, "http.response.line").map(|line| text(line, "show"));
    let names = ["sec-websocket-protocol", "x-stream-protocol-version"];
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_end_matches("\\r\\n").trim();
        names.contains(&&*name.to_ascii_lowercase()).then(|| value.to_owned())
    };
    lines.filter_map(value).collect()
}

/// If part of a frame is missing, Wireshark reports it as an error.
fn frame(layer: Node<'_, '_>, side: Side) -> Said {
    let on = number(layer, "spdy.streamid");
    let fin = field(layer, "spdy.flags.fin") == Some("1");
    let says = |name| field(layer, name).map(str::to_owned);
    if number(layer, "spdy.control_bit") == Some(0) {
        return Said { fin, bytes: bytes(layer, "spdy.data"), ..said(side, "DATA", on) };
    }
    match field(layer, "spdy.type").unwrap_or_default() {
        "1" => {
            let headers = headers(layer);
            let says = headers.get("streamtype").cloned();
            Said { fin, says, headers, ..said(side, "SYN_STREAM", on) }
        }
        "2" => Said { fin, headers: headers(layer), ..said(side, "SYN_REPLY", on) },
        "3" => Said { says: says("spdy.rst_stream_status"), ..said(side, "RST_STREAM", on) },
        "4" => said(side, "SETTINGS", None),
        "6" => Said { says: says("spdy.ping_id"), ..said(side, "PING", None) },
        "7" => {
            let last = says("spdy.goaway_last_good_stream_id").unwrap_or_default();
            let says = says("spdy.goaway_status").map(|status| format!("{last} {status}"));
            Said { says, ..said(side, "GOAWAY", None) }
        }
        "9" => Said { says: says("spdy.window_update_delta"), ..said(side, "WINDOW_UPDATE", on) },
        other => said(side, &format!("type {other}"), on),
    }
}

fn headers(layer: Node<'_, '_>) -> BTreeMap<String, String> {
    let texts = |name| all(layer, name).map(|field| text(field, "show").to_owned());
    texts("spdy.header.name").zip(texts("spdy.header.value")).collect()
}

fn message(layer: Node<'_, '_>, side: Side) -> Said {
    let shown = |name: &str| field(layer, &format!("k8s_channel.{name}"));
    let closes = number(layer, "k8s_channel.closes");
    let says = if let Some(status) = shown("status") {
        Some([Some(status), shown("exit_code")].into_iter().flatten().collect::<Vec<_>>().join(" "))
    } else if let (Some(width), Some(height)) = (shown("width"), shown("height")) {
        Some(format!("{width}x{height}"))
    } else {
        shown("port").map(|port| format!("port {port}"))
    };
    // WebSocket's own Close is in lower case.
    let what = if closes.is_some() { "CLOSE" } else { shown("name").unwrap_or("a message") };
    let on = closes.or_else(|| number(layer, "k8s_channel.id"));
    // The port number at the beginning of a channel is not part of the connection's bytes.
    let bytes = if shown("port").is_some() { Vec::new() } else { bytes(layer, "k8s_channel.payload") };
    Said { says, bytes, ..said(side, what, on) }
}

fn said(side: Side, what: &str, on: Option<u32>) -> Said {
    let (headers, bytes) = (BTreeMap::new(), Vec::new());
    Said { side, what: what.to_owned(), on, says: None, fin: false, headers, bytes }
}

fn lines<'a>(said: impl Iterator<Item = &'a Said>) -> Vec<String> {
    let mut joined: Vec<Said> = Vec::new();
    for next in said {
        match joined.last_mut() {
            Some(last) if follows(last, next) => {
                last.bytes.extend_from_slice(&next.bytes);
                last.fin = next.fin;
            }
            _ => joined.push(next.clone()),
        }
    }
    joined.iter().map(line).collect()
}

/// An empty message is a line of its own, because it announces a channel.
fn follows(last: &Said, next: &Said) -> bool {
    let same = last.what == next.what && last.on == next.on && last.says.is_none() && next.says.is_none();
    match &*last.what {
        "DATA" => same && !last.fin,
        "stdin" | "stdout" | "stderr" | "data" => same && !last.bytes.is_empty() && !next.bytes.is_empty(),
        _ => false,
    }
}

fn line(said: &Said) -> String {
    const BYTES: [&str; 6] = ["DATA", "stdin", "stdout", "stderr", "data", "error"];
    let mut line = said.what.clone();
    for word in said.on.map(|on| on.to_string()).iter().chain(&said.says) {
        line = format!("{line} {word}");
    }
    if said.says.is_none() && BYTES.contains(&&*said.what) {
        line = format!("{line} {}", said.bytes.len());
    }
    if said.fin { line + " FIN" } else { line }
}

/// The text of an expert info of Wireshark's, if it is a warning or an error.
fn complaint(node: Node<'_, '_>) -> Option<String> {
    const WARNING: u32 = 0x0060_0000;
    if name(node) != "_ws.expert" || number(node, "_ws.expert.severity") < Some(WARNING) {
        return None;
    }
    let what = node.first_element_child().map_or("", name);
    Some(format!("{what} {}", text(node, "showname")))
}

fn layers<'a, 'input>(packet: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    packet.children().filter(|node| node.has_tag_name("proto"))
}

fn all<'a, 'input>(layer: Node<'a, 'input>, wanted: &str) -> impl Iterator<Item = Node<'a, 'input>> {
    layer.descendants().filter(move |node| name(*node) == wanted)
}

fn field<'a>(layer: Node<'a, '_>, wanted: &str) -> Option<&'a str> {
    all(layer, wanted).next().map(|field| text(field, "show"))
}

fn number(layer: Node<'_, '_>, wanted: &str) -> Option<u32> {
    field(layer, wanted).map(|shown| shown.parse().unwrap_or_else(|_| panic!("{wanted} is {shown}")))
}

fn bytes(layer: Node<'_, '_>, wanted: &str) -> Vec<u8> {
    let digits = all(layer, wanted).next().map_or("", |field| text(field, "value"));
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn name<'a>(node: Node<'a, '_>) -> &'a str {
    text(node, "name")
}

fn text<'a>(node: Node<'a, '_>, attribute: &str) -> &'a str {
    node.attribute(attribute).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::contiguous;

    #[test]
    fn reordered_and_repeated_segments_are_whole_and_a_missing_one_is_a_gap() {
        assert_eq!(contiguous(vec![1..10, 20..30, 10..20, 10..30, 30..30]), 30);
        assert_eq!(contiguous(vec![1..10, 20..30]), 10);
        assert_eq!(contiguous(vec![2..10, 10..20]), 1);
        assert_eq!(contiguous(Vec::new()), 1);
    }
}
