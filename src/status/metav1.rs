//! A Kubernetes `metav1.Status`, and its JSON.
//!
//! [`ExitStatus`](super::ExitStatus) interprets what a `Status` says about a command.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::{StatusError, check_len};

/// How many causes of a [`Status`] are kept: the first 64. Further causes are read and dropped.
pub const MAX_CAUSES: usize = 64;

/// A Kubernetes `metav1.Status`: what v4 and v5 carry on the error stream, and what an API server answers when it
/// refuses.
///
/// If the peer left a text out, the field is empty, as in Go. `metadata` and unknown fields are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Status {
    /// `Success` or `Failure`.
    #[serde(deserialize_with = "null_is_default")]
    pub status: String,
    /// What happened, in words for people.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What happened, in one word for programs: `NotFound`, `NonZeroExitCode`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status code. It is not the exit code of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}

/// The resource that a [`Status`] is about, and the causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Details {
    /// The name of the resource.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The kind of the resource.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The causes, at most [`MAX_CAUSES`].
    #[serde(deserialize_with = "first_causes", skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// After how many seconds the client may try again, if the server says so.
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<i32>,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Cause {
    /// The type of the cause. With `ExitCode`, the message is an exit code.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The words of the cause.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The name of the request's field that is at fault.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Status {
    /// The command ended with exit code 0.
    #[must_use]
    pub fn success() -> Self {
        Self { status: SUCCESS.into(), ..Self::default() }
    }

    /// The command ended with an exit code. For 0 this is [`Status::success`], and for other codes the `Status` that
    /// cri-streaming sends: reason `NonZeroExitCode`, with the code in a cause `ExitCode`.
    #[must_use]
    pub fn exit(code: i32) -> Self {
        if code == 0 {
            return Self::success();
        }
        let cause = Cause { reason: EXIT_CODE.into(), message: code.to_string(), ..Cause::default() };
        Self {
            message: format!("{NON_ZERO}exit status {code}"),
            reason: NON_ZERO_EXIT_CODE.into(),
            details: Some(Details { causes: vec![cause], ..Details::default() }),
            ..Self::failure()
        }
    }

    /// The command could not be run, or how it ended is not known. This is Kubernetes' `InternalError`, with code 500
    /// and the message `Internal error occurred: {message}`.
    #[must_use]
    pub fn internal_error(message: impl Into<String>) -> Self {
        let cause = Cause { message: message.into(), ..Cause::default() };
        Self {
            message: format!("Internal error occurred: {}", cause.message),
            reason: "InternalError".into(),
            details: Some(Details { causes: vec![cause], ..Details::default() }),
            code: Some(500),
            ..Self::failure()
        }
    }

    /// Reads a `Status` from JSON, for example from the body of a refusal
    /// ([`UpgradeError::Refused`](crate::upgrade::UpgradeError::Refused)).
    ///
    /// # Errors
    /// [`StatusError::TooLong`] for more than [`MAX_STATUS_LEN`](super::MAX_STATUS_LEN) bytes.
    /// [`StatusError::Malformed`] if the bytes are not a JSON object, or if its `status` is neither `Success` nor
    /// `Failure`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StatusError> {
        check_len(bytes)?;
        let malformed = |reason: String| StatusError::Malformed { text: text(bytes), reason };
        let status: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        // serde would also take a list of the fields in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(malformed("not an object".into()));
        }
        match &status.status[..] {
            SUCCESS | FAILURE => Ok(status),
            other => Err(malformed(format!("unknown status {other:?}"))),
        }
    }

    /// Writes the `Status` as JSON, with an empty `metadata` as Kubernetes does.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        #[derive(Serialize)]
        struct Metadata {}
        #[derive(Serialize)]
        struct Object<'a> {
            metadata: Metadata,
            #[serde(flatten)]
            status: &'a Status,
        }
        // Strings and integers always serialise. If they ever did not, a failure without words is better than no
        // status.
        serde_json::to_vec(&Object { metadata: Metadata {}, status: self })
            .map_or(Bytes::from_static(br#"{"metadata":{},"status":"Failure"}"#), Bytes::from)
    }

    pub(super) fn failure() -> Self {
        Self { status: FAILURE.into(), ..Self::default() }
    }

    /// The exit code of a `NonZeroExitCode`: the message of the first cause that is an `ExitCode`. `None` if the
    /// message is not an `i32`, or is 0, which is not the exit code of a failure.
    pub(super) fn exit_code(&self) -> Option<i32> {
        if self.reason != NON_ZERO_EXIT_CODE {
            return None;
        }
        let cause = self.details.as_ref()?.causes.iter().find(|cause| cause.reason == EXIT_CODE)?;
        cause.message.parse().ok().filter(|&code| code != 0)
    }
}

impl fmt::Display for Status {
    /// Writes the first of message, reason and status that is not empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = [&self.message, &self.reason, &self.status].into_iter().find(|text| !text.is_empty());
        f.write_str(said.map_or("unknown error", String::as_str))
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Go writes `null` for an empty value, and reads it as one.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn first_causes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cause>, D::Error> {
    #[derive(Default)]
    struct Causes(PhantomData<Cause>);
    impl<'de> Visitor<'de> for Causes {
        type Value = Vec<Cause>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of causes")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut causes = Vec::new();
            while causes.len() < MAX_CAUSES {
                match list.next_element()? {
                    Some(cause) => causes.push(cause),
                    None => return Ok(causes),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(causes)
        }
    }
    from.deserialize_any(Causes::default())
}

pub(super) const SUCCESS: &str = "Success";
const FAILURE: &str = "Failure";
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";
/// How the text of v1 to v3, and the message of a v4 `Status`, begins if the command ended with an exit code.
pub(super) const NON_ZERO: &str = "command terminated with non-zero exit code: ";
