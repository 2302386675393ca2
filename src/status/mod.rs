//! How a remote command ended, and how large its terminal is: what the error and the resize stream carry.
//!
//! Owns [`Status`], [`ExitStatus`] and [`TerminalSize`] and the form each version of the protocol gives them. It must not do
//! IO, nor know what carries the bytes.
//!
//! ```
//! use kubestream::status::ExitStatus;
//! use kubestream::upgrade::Version;
//!
//! let text = b"command terminated with non-zero exit code: error executing command [sh], exit code 7";
//! assert_eq!(ExitStatus::decode(Version::V3, text)?, Some(ExitStatus::Code(7)));
//! assert_eq!(ExitStatus::decode(Version::V4, b"")?, None, "v4 always says how it ended");
//! # Ok::<(), kubestream::status::StatusError>(())
//! ```

mod object;
mod reader;
mod resize;

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use reader::StatusReader;
pub use resize::{MAX_RESIZE_LEN, ResizeDecoder, ResizeError, TerminalSize};

use crate::initiator::Initiator;
use crate::protocol::Version;

/// Bytes that an error stream, or a [`Status`] anywhere else, may have: 256 KiB. A kubelet repeats the whole command in it,
/// and Linux allows an argument of 128 KiB.
pub const MAX_STATUS_LEN: usize = 256 * 1024;
/// Causes of a [`Status`] that are kept: the first 64. What follows is read and dropped.
pub const MAX_CAUSES: usize = 64;

/// A Kubernetes `metav1.Status`: what v4 says on its error stream, and what an API server answers where it refuses.
///
/// Text that the peer left out is empty, as in Go. Its metadata is not kept, nor are fields that it has and we do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Status {
    /// `Success` or `Failure`.
    #[serde(deserialize_with = "null_is_default")]
    pub status: String,
    /// What happened, for people.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What happened, in one word for programs: `NotFound`, `NonZeroExitCode`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status code that goes with it. It is not the exit code of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}

/// What a [`Status`] is about.
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
    /// Seconds after which to try again, where the server says so.
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<i32>,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct Cause {
    /// Its type: `ExitCode` where the message is one.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it says.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field of the request that is at fault.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Status {
    /// The command ended well.
    #[must_use]
    pub fn success() -> Self {
        Self { status: SUCCESS.into(), ..Self::default() }
    }

    /// The command ended with an exit code: [`Status::success`] for 0, else what cri-streaming sends.
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

    /// The command could not be run, or its end is not known: an `InternalError` in the words of Kubernetes.
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

    /// Reads one from JSON.
    ///
    /// # Errors
    /// [`StatusError::TooLong`] past [`MAX_STATUS_LEN`]; [`StatusError::Malformed`] where the bytes are no JSON object, or
    /// one whose `status` is neither `Success` nor `Failure`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StatusError> {
        check_len(bytes)?;
        let malformed = |reason: String| StatusError::Malformed { text: text(bytes), reason };
        let status: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        // serde takes a list as well, of the fields in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(malformed("not an object".into()));
        }
        match &status.status[..] {
            SUCCESS | FAILURE => Ok(status),
            other => Err(malformed(format!("unknown status {other:?}"))),
        }
    }

    /// The JSON of it, with the empty `metadata` that Kubernetes' own have.
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
        // Strings and integers always serialise; were it otherwise, silence would read as a lost status.
        serde_json::to_vec(&Object { metadata: Metadata {}, status: self })
            .map_or(Bytes::from_static(br#"{"metadata":{},"status":"Failure"}"#), Bytes::from)
    }

    fn failure() -> Self {
        Self { status: FAILURE.into(), ..Self::default() }
    }

    /// The code in the first cause that is an `ExitCode`, where it is an integer and not zero: no failure has code 0.
    fn exit_code(&self) -> Option<i32> {
        if self.reason != NON_ZERO_EXIT_CODE {
            return None;
        }
        let cause = self.details.as_ref()?.causes.iter().find(|cause| cause.reason == EXIT_CODE)?;
        cause.message.parse().ok().filter(|&code| code != 0)
    }
}

impl fmt::Display for Status {
    /// The message, else the reason, else the status.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = [&self.message, &self.reason, &self.status].into_iter().find(|text| !text.is_empty());
        f.write_str(said.map_or("unknown error", String::as_str))
    }
}

/// How a remote command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// With exit code 0.
    Success,
    /// With an exit code. Go's clients take 0 to 255 only; Windows' codes are larger.
    Code(i32),
    /// It could not be run, or the server does not know how it ended.
    Failed(Box<Status>),
}

impl ExitStatus {
    /// Whether the command ended with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// The exit code, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Success => Some(0),
            Self::Code(code) => Some(*code),
            Self::Failed(_) => None,
        }
    }

    /// Reads a whole error stream.
    ///
    /// v1 to v3 carry text, and nothing at all for success. v4 carries one JSON [`Status`], so that its empty stream says
    /// nothing: `None`. (Go takes that for success, and a lost connection with it.)
    ///
    /// An exit code that is not an `i32`, or is 0 in a failure, makes the status [`ExitStatus::Failed`].
    ///
    /// # Errors
    /// As [`Status::from_json`], for v4; [`StatusError::TooLong`] for all.
    pub fn decode(version: Version, bytes: &[u8]) -> Result<Option<Self>, StatusError> {
        check_len(bytes)?;
        match version {
            Version::V1 | Version::V2 | Version::V3 if bytes.is_empty() => Ok(Some(Self::Success)),
            Version::V1 | Version::V2 | Version::V3 => Ok(Some(Self::from_text(text(bytes)))),
            Version::V4 | Version::V5 if bytes.trim_ascii().is_empty() => Ok(None),
            Version::V4 | Version::V5 => Status::from_json(bytes).map(|status| Some(status.into())),
        }
    }

    /// What a server writes to the error stream.
    #[must_use]
    pub fn encode(&self, version: Version) -> Bytes {
        let status = match self {
            Self::Success => &Status::success(),
            Self::Code(code) => &Status::exit(*code),
            Self::Failed(status) => status,
        };
        match version {
            Version::V1 | Version::V2 | Version::V3 if self.success() => Bytes::new(),
            // Never empty, which would be success.
            Version::V1 | Version::V2 | Version::V3 => status.to_string().into(),
            Version::V4 | Version::V5 => status.to_json(),
        }
    }

    fn from_text(text: String) -> Self {
        let code = || {
            let rest = text.strip_prefix(NON_ZERO)?.trim_end();
            // The command line comes before, and may itself say "exit code".
            let (_, code) = rest.rsplit_once("exit code ").or_else(|| rest.rsplit_once("exit status "))?;
            code.parse().ok().filter(|&code| code != 0)
        };
        match code() {
            Some(code) => Self::Code(code),
            None => Self::Failed(Box::new(Status { message: text, ..Status::failure() })),
        }
    }
}

impl From<Status> for ExitStatus {
    fn from(status: Status) -> Self {
        if status.status == SUCCESS {
            return Self::Success;
        }
        status.exit_code().map_or_else(|| Self::Failed(Box::new(status)), Self::Code)
    }
}

impl fmt::Display for ExitStatus {
    /// In kubectl's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("command succeeded"),
            Self::Code(code) => write!(f, "command terminated with exit code {code}"),
            Self::Failed(status) => status.fmt(f),
        }
    }
}

/// An error stream does not carry a status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// It is longer than [`MAX_STATUS_LEN`].
    #[error("status longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It is not a JSON Status.
    #[error("{reason} in {text:?}")]
    Malformed {
        /// What the peer sent, with what is not UTF-8 replaced.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl StatusError {
    /// Who caused the error: always the peer.
    #[must_use]
    pub fn initiator(&self) -> Initiator {
        Initiator::Remote
    }
}

fn check_len(bytes: &[u8]) -> Result<(), StatusError> {
    if bytes.len() > MAX_STATUS_LEN { Err(StatusError::TooLong { limit: MAX_STATUS_LEN }) } else { Ok(()) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Go writes `null` for what is empty, and reads it so.
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

const SUCCESS: &str = "Success";
const FAILURE: &str = "Failure";
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";
/// How the text of v1 to v3 begins, and the message of v4, where the command has an exit code.
const NON_ZERO: &str = "command terminated with non-zero exit code: ";

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const TEXT_VERSIONS: [Version; 3] = [Version::V1, Version::V2, Version::V3];

    /// Sent by a 1.34 kubelet with containerd 1.6 for `sh -c 'echo bye; exit 7'`, over v4.
    const KUBELET_EXIT_7: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: error executing command [sh -c echo bye; exit 7], exit code 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
    /// Sent by cri-streaming itself, without metadata.
    const CRI_EXIT_3: &str = r#"{"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;

    fn v4(json: &str) -> Option<ExitStatus> {
        ExitStatus::decode(Version::V4, json.as_bytes()).unwrap()
    }

    fn failed(status: Option<ExitStatus>) -> Status {
        match status {
            Some(ExitStatus::Failed(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn v4_reads_what_go_servers_send() {
        assert_eq!(v4(r#"{"status":"Success"}"#), Some(ExitStatus::Success));
        assert_eq!(v4(r#"{"metadata":{},"status":"Success"}"#), Some(ExitStatus::Success));
        assert_eq!(v4(KUBELET_EXIT_7), Some(ExitStatus::Code(7)));
        assert_eq!(v4(CRI_EXIT_3), Some(ExitStatus::Code(3)));
        let boom = r#"{"status":"Failure","message":"Internal error occurred: error executing command in container: boom","reason":"InternalError","code":500}"#;
        let boom = failed(v4(boom));
        assert_eq!((&boom.reason[..], boom.code), ("InternalError", Some(500)));
        assert_eq!(boom.to_string(), "Internal error occurred: error executing command in container: boom");
    }

    #[test]
    fn v4_writes_the_kubelets_bytes() {
        assert_eq!(ExitStatus::Success.encode(Version::V4), r#"{"metadata":{},"status":"Success"}"#);
        let exit =
            KUBELET_EXIT_7.replace("error executing command [sh -c echo bye; exit 7], exit code 7", "exit status 7");
        assert_eq!(ExitStatus::Code(7).encode(Version::V4), exit);
        let boom = r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: boom","reason":"InternalError","details":{"causes":[{"message":"boom"}]},"code":500}"#;
        assert_eq!(ExitStatus::Failed(Status::internal_error("boom").into()).encode(Version::V4), boom);
    }

    #[test]
    fn an_empty_error_stream_is_success_up_to_v3_and_nothing_in_v4() {
        for version in TEXT_VERSIONS {
            assert_eq!(ExitStatus::decode(version, b"").unwrap(), Some(ExitStatus::Success));
            assert!(ExitStatus::Success.encode(version).is_empty());
        }
        assert_eq!(v4(""), None);
        assert_eq!(v4("\n"), None);
    }

    #[test]
    fn an_exit_code_is_read_from_the_text_of_v1_to_v3() {
        for (said, code) in [
            ("error executing command [sh], exit code 7", Some(7)),
            ("error executing command [sh -c echo exit code 5; exit 7], exit code 7\n", Some(7)),
            ("command terminated with exit code 3", Some(3)),
            ("exit status 255", Some(255)),
            ("exit status -1", Some(-1)),
            ("exit code 0", None),
            ("exit code seven", None),
            ("exit code 99999999999", None),
            ("signal: killed", None),
        ] {
            let said = format!("{NON_ZERO}{said}");
            for version in TEXT_VERSIONS {
                let status = ExitStatus::decode(version, said.as_bytes()).unwrap().unwrap();
                assert_eq!(status.code(), code, "{said}");
                assert!(code.is_some() || status.to_string() == said, "{status}");
            }
        }
        let other = ExitStatus::decode(Version::V2, b"Internal error occurred: exit code 7").unwrap();
        assert_eq!(failed(other).message, "Internal error occurred: exit code 7");
    }

    #[test]
    fn a_lying_exit_code_is_a_failure() {
        for code in ["", "seven", "99999999999", "7 ", "0x7", "0"] {
            let json = KUBELET_EXIT_7.replace(r#""message":"7""#, &format!(r#""message":"{code}""#));
            assert_eq!(failed(v4(&json)).reason, "NonZeroExitCode", "{code}");
        }
        let json = KUBELET_EXIT_7.replace(r#""message":"7""#, r#""message":"-1073741819""#);
        assert_eq!(v4(&json), Some(ExitStatus::Code(-1_073_741_819)));
        assert_eq!(failed(v4(r#"{"status":"Failure","reason":"NonZeroExitCode"}"#)).details, None);
    }

    #[test]
    fn exit_code_0_is_success_on_every_version() {
        assert!(ExitStatus::Code(0).success());
        for version in TEXT_VERSIONS.into_iter().chain([Version::V4]) {
            let bytes = ExitStatus::Code(0).encode(version);
            assert_eq!(ExitStatus::decode(version, &bytes).unwrap(), Some(ExitStatus::Success));
        }
    }

    #[test]
    fn a_failure_without_words_is_not_success() {
        for version in TEXT_VERSIONS {
            assert_eq!(ExitStatus::Failed(Box::default()).encode(version), "unknown error");
        }
    }

    #[test]
    fn words_are_kubectls() {
        assert_eq!(ExitStatus::Code(7).to_string(), "command terminated with exit code 7");
        assert_eq!(v4(r#"{"status":"Failure","reason":"Gone"}"#).unwrap().to_string(), "Gone");
    }

    #[test]
    fn bad_json_is_an_error_that_says_what_was_sent() {
        for bad in
            ["boom", "{", "[]", "7", r#"{"status":7}"#, r#"{"status":"Maybe"}"#, r#"{"status":"Success"}}"#, "{}"]
        {
            match ExitStatus::decode(Version::V4, bad.as_bytes()) {
                Err(StatusError::Malformed { text, .. }) => assert_eq!(text, bad),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_list_of_a_statuss_fields_is_no_status() {
        for list in [r#"["Success"]"#, r#" ["Failure","boom"]"#] {
            let error = ExitStatus::decode(Version::V4, list.as_bytes()).unwrap_err();
            assert_eq!(error, StatusError::Malformed { text: list.into(), reason: "not an object".into() });
        }
    }

    #[test]
    fn null_reads_as_left_out() {
        let json =
            r#"{"status":"Failure","message":null,"reason":null,"code":null,"details":{"name":null,"causes":null}}"#;
        assert_eq!(failed(v4(json)), Status { details: Some(Details::default()), ..Status::failure() });
    }

    #[test]
    fn a_status_is_bounded_in_length_depth_and_causes() {
        let long = vec![b'x'; MAX_STATUS_LEN + 1];
        let too_long = StatusError::TooLong { limit: MAX_STATUS_LEN };
        for version in TEXT_VERSIONS.into_iter().chain([Version::V4]) {
            assert_eq!(ExitStatus::decode(version, &long), Err(too_long.clone()));
        }

        let deep = format!(r#"{{"status":"Failure","details":{{"causes":{}"#, "[".repeat(60_000));
        assert!(ExitStatus::decode(Version::V4, deep.as_bytes()).is_err());

        let cause = r#"{"reason":"ExitCode","message":"7"}"#;
        let many = KUBELET_EXIT_7.replace(cause, &[r#"{"message":"x"}"#; 1000].join(","));
        let many = failed(v4(&many));
        assert_eq!(many.details.unwrap().causes.len(), MAX_CAUSES);
    }

    quickcheck! {
        fn statuses_survive_v4(message: String, reason: String, code: Option<i32>, causes: Vec<(String, String)>) -> bool {
            let cause = |(reason, message)| Cause { reason, message, ..Cause::default() };
            let causes = causes.into_iter().take(MAX_CAUSES).map(cause).collect();
            let details = Some(Details { causes, ..Details::default() });
            let status = Status { message, reason, code, details, ..Status::failure() };
            Status::from_json(&status.to_json()) == Ok(status)
        }

        fn exit_codes_survive_every_version(code: i32) -> bool {
            TEXT_VERSIONS.into_iter().chain([Version::V4]).all(|version| {
                let bytes = ExitStatus::Code(code).encode(version);
                ExitStatus::decode(version, &bytes).unwrap().unwrap().code() == Some(code)
            })
        }

        fn no_bytes_panic(bytes: Vec<u8>) -> bool {
            let _ = ExitStatus::decode(Version::V4, &bytes);
            let _ = ExitStatus::decode(Version::V2, &bytes);
            true
        }
    }
}
