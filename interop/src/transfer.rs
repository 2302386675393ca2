//! The content of every transfer: byte *i* is *i* mod 251, so that a lost or moved block shows.
//!
//! Makes, sends and checks the pattern. The tests decide how it is carried.

use bytes::Bytes;
use kubestream::StreamError;
use kubestream::mux::{RecvHalf, SendHalf};
use sha2::{Digest, Sha256};

/// Go's peers write 32 KiB at a time.
const CHUNK: usize = 32 * 1024;
const PERIOD: usize = 251;

/// The first bytes of the pattern.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    (0..PERIOD as u8).cycle().take(length).collect()
}

/// Sends the first bytes of the pattern, then FIN.
///
/// # Errors
/// Fails as the stream does.
pub async fn send_pattern(to: &mut SendHalf, length: usize) -> Result<(), StreamError> {
    let mut all = Bytes::from(pattern(length));
    while !all.is_empty() {
        to.send(all.split_to(CHUNK.min(all.len()))).await?;
    }
    to.finish();
    Ok(())
}

/// Reads a stream to its end, and checks that it is exactly that much of the pattern.
///
/// # Errors
/// Fails as the stream does.
///
/// # Panics
/// Panics if the bytes differ.
pub async fn read_pattern(from: &mut RecvHalf, length: usize) -> Result<(), StreamError> {
    let mut got = 0;
    while let Some(data) = from.data().await.transpose()? {
        for byte in data {
            assert_eq!(byte, (got % PERIOD) as u8, "byte {got} of {length}");
            got += 1;
        }
    }
    assert_eq!(got, length, "the stream ended too early or too late");
    Ok(())
}

/// Reads a stream to its end.
///
/// # Errors
/// Fails as the stream does.
pub async fn read_all(from: &mut RecvHalf) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(data) = from.data().await {
        all.extend_from_slice(&data?);
    }
    Ok(all)
}

/// The answer of the scenario `sink`: a count, a space, and the SHA-256 in hex.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {hash}", content.len())
}
