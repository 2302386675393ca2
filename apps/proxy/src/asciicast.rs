//! Recordings of a terminal in asciicast v2: one line of JSON as a header, and one for each event.
//!
//! Formats the lines. Each line is complete, so a file that was cut off can be read up to the cut.

use std::time::{Duration, SystemTime};

use kubestream::status::TerminalSize;
use serde_json::json;

/// The kinds of event, each with its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Output,
    Input,
    Resize,
    Marker,
}

/// Returns the header. The size of the terminal holds until the first resize event.
pub(crate) fn header(size: TerminalSize, at: SystemTime, title: &str, command: &str) -> Vec<u8> {
    let timestamp = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut header =
        json!({"version": 2, "width": size.width, "height": size.height, "timestamp": timestamp, "title": title});
    if !command.is_empty() {
        header["command"] = command.into();
    }
    line(&header)
}

/// Returns the line of an event that happened `after` the beginning.
pub(crate) fn event(after: Duration, kind: Kind, text: &str) -> Vec<u8> {
    let letter = match kind {
        Kind::Output => "o",
        Kind::Input => "i",
        Kind::Resize => "r",
        Kind::Marker => "m",
    };
    // The precision is one microsecond.
    let seconds = Duration::from_micros(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)).as_secs_f64();
    line(&json!([seconds, letter, text]))
}

fn line(value: &serde_json::Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Turns the bytes of one stream into text, as asciinema does: an incomplete character waits for its rest, and invalid
/// UTF-8 is replaced.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// The beginning of a character, at most three bytes.
    cut: Vec<u8>,
}

impl Text {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.cut);
        let (mut text, mut rest) = (String::new(), &bytes[..]);
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(all) => {
                    text.push_str(all);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, behind) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(wrong) = error.error_len() else {
                self.cut = behind.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = behind.get(wrong..).unwrap_or_default();
        }
    }

    /// Returns the rest at the end of the stream.
    pub(crate) fn finish(&mut self) -> String {
        let cut = std::mem::take(&mut self.cut);
        if cut.is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_asciicasts() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let header = header(TerminalSize { width: 80, height: 24 }, at, "exec default/web", "sh -c \"x\"");
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(
            header,
            json!({"version": 2, "width": 80, "height": 24, "timestamp": 1_700_000_000, "title": "exec default/web",
                "command": "sh -c \"x\""})
        );
        let line = event(Duration::from_nanos(1_234_567_891), Kind::Output, "a\n\u{1b}[0m\u{e9}");
        assert_eq!(String::from_utf8(line).unwrap(), "[1.234567,\"o\",\"a\\n\\u001b[0m\u{e9}\"]\n");
        assert_eq!(event(Duration::ZERO, Kind::Resize, "80x24"), b"[0.0,\"r\",\"80x24\"]\n");
    }

    /// The expected text is that of Python's incremental decoder with `errors="replace"`, which asciinema uses.
    #[test]
    fn text_may_be_cut_anywhere_and_what_is_none_is_replaced() {
        let bytes = b"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \xff \xe2\x82 \xf0\x9f\x98x \xed\xa0\x80 end\xe2\x82";
        let whole = "a\u{e9}\u{20ac}\u{1f600} \u{fffd} \u{fffd} \u{fffd}x \u{fffd}\u{fffd}\u{fffd} end\u{fffd}";
        for step in 1..=bytes.len() {
            let mut text = Text::default();
            let mut all: String = bytes.chunks(step).map(|piece| text.push(piece)).collect();
            all.push_str(&text.finish());
            assert_eq!(all, whole, "{step}");
        }
        assert_eq!(Text::default().finish(), "");
    }
}
