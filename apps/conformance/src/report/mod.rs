//! Reports: what people and programs read of a run.
//!
//! Holds their forms. Nothing is judged here.

mod json;
mod junit;
mod table;

pub use json::json;
pub use junit::junit;
pub use table::table;

use crate::verdict::{Departure, Outcome};

const FAIL: &str = "fail";
const NOTE: &str = "note";
const NOT_OFFERED: &str = "not offered";

/// The outcome in one word, the same in every form.
fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(()) => "pass",
        Err(Departure::Failed { .. } | Departure::Unreached(_)) => FAIL,
        Err(Departure::Known { .. }) => NOTE,
        Err(Departure::NotOffered(_)) => NOT_OFFERED,
    }
}
