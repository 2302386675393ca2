//! Makes each test of a suite twice: once for each of two transports.
//!
//! Owns the shape of the tests only. A suite says what its transports are, how a test begins and what it does.

/// Makes a test of each case over each of two transports, in a module for each.
///
/// A case is an async function of the suite. It gets what the suite's async function `begin` makes of the transport and
/// of what the case proves: a [`Proof`](crate::matrix::Proof), which lasts as long as the test, and the value for the
/// case. If no case says what it proves, a case gets the transport.
#[macro_export]
macro_rules! over_both_transports {
    ($first:ident: $one:expr, $second:ident: $other:expr; $($case:ident: $proves:literal),+ $(,)?) => {
        mod $first {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let (_proof, subject) = begin($one, $proves).await;
                super::$case(subject).await;
            })+
        }
        mod $second {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let (_proof, subject) = begin($other, $proves).await;
                super::$case(subject).await;
            })+
        }
    };
    ($first:ident: $one:expr, $second:ident: $other:expr; $($case:ident),+ $(,)?) => {
        mod $first {
            $(#[tokio::test]
            async fn $case() {
                super::$case($one).await;
            })+
        }
        mod $second {
            $(#[tokio::test]
            async fn $case() {
                super::$case($other).await;
            })+
        }
    };
}
