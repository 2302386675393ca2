//! Tests what the error stream and the resize stream carry, against serde_json's view of where an object ends.
//!
//! Holds that view. The crate itself decides what a whole object means; the result must only be the same for any cut.

use kubestream::status::{ExitStatus, MAX_RESIZE_LEN, StatusError, TerminalSize};
use kubestream::unstable::{ResizeDecoder, StatusReader};
use kubestream::upgrade::Version;
use serde::de::IgnoredAny;

const VERSIONS: [Version; 5] = [Version::V1, Version::V2, Version::V3, Version::V4, Version::V5];
/// Well below the limit of a status, whose JSON may be six times as long as its content.
const MOST: usize = 16 * 1024;

type Said = Result<Option<ExitStatus>, StatusError>;

/// Any bytes of an error stream are a status, nothing or an error, the same for any cut. So are the sizes of a resize
/// stream. Each object ends where serde_json ends it. What was read can be written and read again, and no version turns
/// another result into a success.
///
/// The first byte chooses the version, and the second how the bytes are cut.
pub fn status(input: &[u8]) {
    let [choice, step, bytes @ ..] = input else { return };
    let bytes = &bytes[..bytes.len().min(MOST)];
    let (version, step) = (VERSIONS[usize::from(*choice) % VERSIONS.len()], 1 + usize::from(step % 23));
    let said = read(version, bytes, bytes.len().max(1));
    assert_eq!(said, read(version, bytes, step), "a cut matters");
    assert_eq!(said, plain(version, bytes), "another reading");
    match &said {
        Ok(Some(status)) => write_and_read(version, status),
        Ok(None) => {}
        Err(error) => assert!(matches!(error, StatusError::Malformed { .. }), "{error}"),
    }

    let sizes = resizes(bytes, bytes.len().max(1));
    let cut = resizes(bytes, step);
    // If sizes come together with an error, only the error is reported.
    assert_eq!(sizes.1, cut.1, "a cut matters");
    if sizes.1.is_none() {
        assert_eq!(sizes.0.last(), cut.0.last(), "a cut matters");
    }
    let (plain, end) = plain_resizes(bytes);
    assert_eq!(resizes(bytes, 1).0, plain, "another reading");
    if let Some(end) = end {
        assert_eq!(sizes.1, end, "another reading");
    }
    for size in plain {
        assert_eq!(ResizeDecoder::default().push(&size.encode()), Ok(Some(size)));
    }
}

/// Reads as a session does: up to a whole status, otherwise to the end.
fn read(version: Version, bytes: &[u8], step: usize) -> Said {
    let mut reader = StatusReader::new(version);
    for piece in bytes.chunks(step) {
        match reader.push(piece) {
            Ok(None) => {}
            said => return said,
        }
    }
    reader.finish()
}

fn plain(version: Version, bytes: &[u8]) -> Said {
    if version < Version::V4 {
        return ExitStatus::decode(version, bytes);
    }
    let begins = bytes.iter().position(|byte| !b" \t\r\n".contains(byte)).unwrap_or(bytes.len());
    if bytes.get(begins) != Some(&b'{') {
        assert!(!matches!(ExitStatus::decode(version, bytes), Ok(Some(_))), "a status that is not an object");
        return ExitStatus::decode(version, bytes);
    }
    match object(bytes) {
        Object::Whole(len) => ExitStatus::decode(version, &bytes[..len]),
        Object::Part => {
            assert!(ExitStatus::decode(version, bytes).is_err(), "an incomplete status");
            ExitStatus::decode(version, bytes)
        }
        Object::Malformed => {
            // How much of it the error repeats depends on matching braces, which serde_json does not report.
            let said = read(version, bytes, 1);
            assert!(said.is_err(), "a status of {said:?}");
            said
        }
    }
}

enum Object {
    Whole(usize),
    Part,
    Malformed,
}

/// Where serde_json ends the object at the beginning of the bytes.
fn object(bytes: &[u8]) -> Object {
    let mut objects = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    match objects.next() {
        Some(Ok(_)) => Object::Whole(objects.byte_offset()),
        Some(Err(error)) if error.is_eof() && !ends_in_no_escape(bytes) => Object::Part,
        _ => Object::Malformed,
    }
}

/// True if the bytes end within `\u` and characters that are not digits: serde_json waits for four digits before it
/// checks them.
fn ends_in_no_escape(bytes: &[u8]) -> bool {
    let from = bytes.len().saturating_sub(5);
    let at = bytes[from..].windows(2).position(|escape| escape == b"\\u");
    at.is_some_and(|at| !bytes[from + at + 2..].iter().all(u8::is_ascii_hexdigit))
}

fn write_and_read(version: Version, status: &ExitStatus) {
    let said = status.encode(version);
    assert_eq!(ExitStatus::decode(version, &said).as_ref(), Ok(&Some(status.clone())), "written and read");
    assert!(!status.to_string().is_empty());
    for other in VERSIONS {
        let said = ExitStatus::decode(other, &status.encode(other)).unwrap().unwrap();
        assert_eq!(said.success(), status.success(), "{other:?} of {status:?}");
        assert!(status.code().is_none() || said.code() == status.code(), "{other:?} of {status:?}");
    }
}

fn resizes(bytes: &[u8], step: usize) -> (Vec<TerminalSize>, Option<StatusError>) {
    let (mut decoder, mut sizes) = (ResizeDecoder::default(), Vec::new());
    for piece in bytes.chunks(step) {
        match decoder.push(piece) {
            Ok(size) => sizes.extend(size),
            Err(error) => {
                assert_eq!(decoder.push(b"{}"), Err(error.clone()), "an error that passes");
                return (sizes, Some(error));
            }
        }
    }
    (sizes, None)
}

/// The sizes and what follows them, as far as that is certain: the length of a malformed size is unknown.
#[allow(clippy::option_option)] // whether it is known, and what it is
fn plain_resizes(mut bytes: &[u8]) -> (Vec<TerminalSize>, Option<Option<StatusError>>) {
    let (mut sizes, too_long) = (Vec::new(), StatusError::SizeTooLong { limit: MAX_RESIZE_LEN });
    loop {
        bytes = bytes.trim_ascii_start();
        match bytes.first() {
            None => return (sizes, Some(None)),
            Some(b'{') => {}
            Some(_) => return (sizes, Some(Some(StatusError::NotASize))),
        }
        match object(bytes) {
            Object::Whole(len) if len > MAX_RESIZE_LEN => return (sizes, Some(Some(too_long))),
            Object::Whole(len) => match serde_json::from_slice(&bytes[..len]) {
                Ok(size) => {
                    sizes.push(size);
                    bytes = &bytes[len..];
                }
                Err(_) => return (sizes, Some(Some(StatusError::NotASize))),
            },
            Object::Part => return (sizes, Some((bytes.len() > MAX_RESIZE_LEN).then_some(too_long))),
            Object::Malformed => return (sizes, None),
        }
    }
}
