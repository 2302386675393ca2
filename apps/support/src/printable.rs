//! The text of a peer, made safe for a terminal and for a log of one event per line.
//!
//! Escapes what would control either. It knows nothing of what the text is about.

use std::fmt::{self, Display, Write};

/// Shows a text with its control characters escaped, line breaks included, and the characters that turn or hide text.
pub fn printable(text: impl Display) -> impl Display {
    Printable(text)
}

/// The same for a text of several lines, such as what a command wrote to stderr: it keeps its line breaks and tabs.
pub fn printable_lines(text: &str) -> impl Display {
    let lines: Vec<String> =
        text.split('\n').map(|line| line.split('\t').map(escaped).collect::<Vec<_>>().join("\t")).collect();
    lines.join("\n")
}

fn escaped(text: &str) -> String {
    printable(text).to_string()
}

struct Printable<T>(T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Escapes what is written to it.
struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '\n' | '\r' | '\t' => write!(self.0, "{}", character.escape_default())?,
                character if character.is_control() || is_unseen(character) => {
                    write!(self.0, "{}", character.escape_unicode())?;
                }
                character => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Characters that change how others are shown, or show nothing: directions of text, separators of lines, marks of
/// width zero, tags.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped_and_all_else_is_kept() {
        for (text, shown) in [
            (
                "pods \"web\" not found: caf\u{e9} \u{65e5}\u{672c} \u{1f600} C:\\x",
                "pods \"web\" not found: caf\u{e9} \u{65e5}\u{672c} \u{1f600} C:\\x",
            ),
            ("\x1b[31mred\x1b]0;title\x07", "\\u{1b}[31mred\\u{1b}]0;title\\u{7}"),
            ("a\nerror: b\r\tc", "a\\nerror: b\\r\\tc"),
            ("\u{9b}31m\x7f\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("exe\u{202e}gpj\u{2066}\u{2029}\u{200f}\u{feff}", "exe\\u{202e}gpj\\u{2066}\\u{2029}\\u{200f}\\u{feff}"),
        ] {
            assert_eq!(printable(text).to_string(), shown);
        }
        let pieces = format_args!("{}:{:?}", "\x1b", '\x1b').to_string();
        assert_eq!(printable(pieces).to_string(), "\\u{1b}:'\\u{1b}'");
        assert_eq!(printable_lines("tar: \x1b[1m\tx\ny\u{202e}\n").to_string(), "tar: \\u{1b}[1m\tx\ny\\u{202e}\n");
    }
}
