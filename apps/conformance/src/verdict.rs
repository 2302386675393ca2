//! What became of a case, and in whose words.
//!
//! Owns the kinds of result. What is expected, the cases say.

use std::fmt::{self, Debug, Display};
use std::time::Duration;

/// What is done differently, where that is known and documented: of whom, and since when.
#[derive(Debug)]
pub struct Known {
    /// What a reader of the table is told.
    pub text: &'static str,
    /// Who does it, and in which versions it was seen.
    pub of: &'static str,
}

/// A case that did not pass.
#[derive(Clone, Debug)]
pub enum Departure {
    /// Not what every server must do. `late`: nothing came at all, for as long as one waits.
    Failed { expected: String, came: String, late: bool },
    /// The server was not to be reached: whatever the case is about, it was not seen.
    Unreached(String),
    /// Not what every server must do, and known.
    Known { known: &'static Known, expected: String, came: String },
    /// The server has not what the case is about.
    NotOffered(String),
}

/// Of one case in one column.
pub type Outcome<T = ()> = Result<T, Departure>;

impl Departure {
    /// It is known: unless it is something else altogether, or known as something else.
    #[must_use]
    pub fn known(self, known: &'static Known) -> Self {
        match self {
            Self::Failed { expected, came, .. } => Self::Known { known, expected, came },
            other => other,
        }
    }

    /// It is known that nothing comes; something that is wrong is not.
    #[must_use]
    pub fn known_silence(self, known: &'static Known) -> Self {
        if self.is_late() { self.known(known) } else { self }
    }

    /// Nothing came.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Failed { late: true, .. })
    }

    /// It counts against the server.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Unreached(_))
    }

    /// For a server that nothing is forgiven.
    #[must_use]
    pub fn strict(self) -> Self {
        match self {
            Self::Known { expected, came, .. } => Self::Failed { expected, came, late: false },
            other => other,
        }
    }

    /// Says where in a case it happened.
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

/// A failure, in words.
pub fn failed(expected: impl Display, came: impl Display) -> Departure {
    Departure::Failed { expected: clipped(expected), came: clipped(came), late: false }
}

/// Nothing came.
pub fn late(expected: impl Display, limit: Duration) -> Departure {
    let came = format!("nothing within {} s", limit.as_secs());
    Departure::Failed { expected: clipped(expected), came, late: true }
}

/// What was seen is what had to be.
pub fn expect<T: PartialEq + Debug>(came: T, expected: T) -> Outcome {
    if came == expected {
        return Ok(());
    }
    Err(failed(format_args!("{expected:?}"), format_args!("{came:?}")))
}

/// An error of whatever kind, as what came instead.
pub trait Instead<T> {
    /// `expected` is what there is to be without the error.
    fn instead_of(self, expected: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Instead<T> for Result<T, E> {
    fn instead_of(self, expected: impl Display) -> Outcome<T> {
        self.map_err(|error| failed(expected, error))
    }
}

/// Long outputs are not for a table.
fn clipped(text: impl Display) -> String {
    const LONGEST: usize = 400;
    let text = text.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
