//! Outcomes: what happened to a case, and in what words.
//!
//! Holds the kinds of outcome. The cases say what is expected.

use std::fmt::{self, Debug, Display};
use std::time::Duration;

/// A known departure: what is done differently, by which servers, in which versions.
#[derive(Debug)]
pub struct Known {
    /// The description in the table.
    pub text: &'static str,
    /// Which servers do it, and in which versions it was seen.
    pub of: &'static str,
}

/// A case that did not pass.
#[derive(Clone, Debug)]
pub enum Departure {
    /// The server does not do what every server must. With `late`, the time limit passed without an answer.
    Failed { expected: String, came: String, late: bool },
    /// The server was not reached, so the case says nothing about it.
    Unreached(String),
    /// A known departure from what every server must do.
    Known { known: &'static Known, expected: String, came: String },
    /// The server does not offer what the case tests.
    NotOffered(String),
}

/// The outcome of one case in one column.
pub type Outcome<T = ()> = Result<T, Departure>;

impl Departure {
    /// Turns a failure into a known departure. Other outcomes stay as they are.
    #[must_use]
    pub fn known(self, known: &'static Known) -> Self {
        match self {
            Self::Failed { expected, came, .. } => Self::Known { known, expected, came },
            other => other,
        }
    }

    /// The same for a failure that is silence. A wrong answer stays a failure.
    #[must_use]
    pub fn known_silence(self, known: &'static Known) -> Self {
        if self.is_late() { self.known(known) } else { self }
    }

    /// True if the time limit passed without an answer.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Failed { late: true, .. })
    }

    /// True if the outcome counts against the server.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Unreached(_))
    }

    /// Turns a known departure into a failure, for strict runs.
    #[must_use]
    pub fn strict(self) -> Self {
        match self {
            Self::Known { expected, came, .. } => Self::Failed { expected, came, late: false },
            other => other,
        }
    }

    /// Adds where in the case it happened.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        match self {
            Self::Failed { expected, came, late } => {
                Self::Failed { expected: format!("{place}: {expected}"), came, late }
            }
            other => other,
        }
    }
}

impl Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { expected, came, .. } => write!(f, "expected {expected}; came {came}"),
            Self::Unreached(why) => write!(f, "the server was not reached: {why}"),
            Self::Known { known, came, .. } => write!(f, "{} ({}); here: {came}", known.text, known.of),
            Self::NotOffered(why) => f.write_str(why),
        }
    }
}

/// A failure, described in words.
pub fn failed(expected: impl Display, came: impl Display) -> Departure {
    Departure::Failed { expected: clipped(expected), came: clipped(came), late: false }
}

/// A failure because the time limit passed.
pub fn late(expected: impl Display, limit: Duration) -> Departure {
    let came = format!("nothing within {} s", limit.as_secs());
    Departure::Failed { expected: clipped(expected), came, late: true }
}

/// Fails if the two differ.
pub fn expect<T: PartialEq + Debug>(came: T, expected: T) -> Outcome {
    if came == expected {
        return Ok(());
    }
    Err(failed(format_args!("{expected:?}"), format_args!("{came:?}")))
}

/// Turns an error of any kind into a failure.
pub trait Instead<T> {
    /// `expected` is what should have come instead of the error.
    fn instead_of(self, expected: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Instead<T> for Result<T, E> {
    fn instead_of(self, expected: impl Display) -> Outcome<T> {
        self.map_err(|error| failed(expected, error))
    }
}

/// Shortens a long text for the table.
fn clipped(text: impl Display) -> String {
    const LONGEST: usize = 400;
    let text = text.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
