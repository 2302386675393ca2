//! How a remote command ended, and the bytes that say so in each version of the protocol.
//!
//! Reads and writes a whole error stream. [`StatusReader`](super::StatusReader) collects one.

use std::fmt;

use bytes::Bytes;

use super::error::{StatusError, check_len};
use super::metav1::{NON_ZERO, SUCCESS, Status, text};
use crate::protocol::Version;

/// How a remote command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// The command ended with exit code 0.
    Success,
    /// The command ended with this exit code, usually not 0. Go's clients accept only codes from 0 to 255. Exit codes
    /// of Windows can be larger.
    Code(i32),
    /// The command could not be run, or the server does not know how it ended. The [`Status`] says why.
    Failed(Box<Status>),
}

impl ExitStatus {
    /// Whether the command ended with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code() == Some(0)
    }

    /// The exit code. `None` for [`ExitStatus::Failed`].
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Success => Some(0),
            Self::Code(code) => Some(*code),
            Self::Failed(_) => None,
        }
    }

    /// Reads all the bytes of an error stream, from its beginning to its end.
    ///
    /// In v1 to v3 a failure is a text, and success is an empty stream. In v4 and v5 the stream carries one JSON
    /// [`Status`]. There the result for an empty stream is `None`, because it does not say how the command ended. (To
    /// Go's clients an empty stream is success, and so a lost connection can look like success.)
    ///
    /// If the exit code of a failure is 0 or not an `i32`, the result is [`ExitStatus::Failed`].
    ///
    /// # Errors
    /// [`StatusError::TooLong`] in every version. In v4 and v5 also [`StatusError::Malformed`], as in
    /// [`Status::from_json`].
    pub fn decode(version: Version, bytes: &[u8]) -> Result<Option<Self>, StatusError> {
        check_len(bytes)?;
        match version {
            Version::V1 | Version::V2 | Version::V3 if bytes.is_empty() => Ok(Some(Self::Success)),
            Version::V1 | Version::V2 | Version::V3 => Ok(Some(Self::from_text(text(bytes)))),
            Version::V4 | Version::V5 if bytes.trim_ascii().is_empty() => Ok(None),
            Version::V4 | Version::V5 => Status::from_json(bytes).map(|status| Some(status.into())),
        }
    }

    /// The bytes that a server writes to the error stream, in the form of this version. No bytes for success in v1 to
    /// v3.
    #[must_use]
    pub fn encode(&self, version: Version) -> Bytes {
        let status = match self {
            Self::Success => &Status::success(),
            Self::Code(code) => &Status::exit(*code),
            Self::Failed(status) => status,
        };
        match version {
            Version::V1 | Version::V2 | Version::V3 if self.success() => Bytes::new(),
            // This text is never empty: empty would be success.
            Version::V1 | Version::V2 | Version::V3 => status.to_string().into(),
            Version::V4 | Version::V5 => status.to_json(),
        }
    }

    fn from_text(text: String) -> Self {
        let code = || {
            let rest = text.strip_prefix(NON_ZERO)?.trim_end();
            // The command line stands before the code, and may itself contain "exit code".
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
    /// Writes how the command ended, in kubectl's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("command succeeded"),
            Self::Code(code) => write!(f, "command terminated with exit code {code}"),
            Self::Failed(status) => status.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::super::error::MAX_STATUS_LEN;
    use super::super::metav1::{Cause, Details, MAX_CAUSES};
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
