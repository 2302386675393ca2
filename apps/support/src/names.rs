//! The names of namespaces, pods and containers, as Kubernetes allows them.
//!
//! Checks names before they become part of a path, where `..` or `?` would lead elsewhere. It builds no path.

/// A name that no namespace, pod or container can have.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidName {
    kind: &'static str,
    name: String,
}

impl std::fmt::Display for InvalidName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, name } = self;
        write!(
            f,
            "invalid {kind} name {name:?}: a name has lower case letters, digits, '-' and '.', and begins and ends with a letter or digit"
        )
    }
}

impl std::error::Error for InvalidName {}

/// Checks that a name is a DNS subdomain of RFC 1123. `kind` says what it names.
///
/// # Errors
/// The name is not valid.
pub fn check(kind: &'static str, name: &str) -> Result<(), InvalidName> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = |label: &[u8]| {
        label.iter().all(|byte| letter(*byte) || *byte == b'-')
            && label.first().copied().is_some_and(letter)
            && label.last().copied().is_some_and(letter)
    };
    if name.len() <= 253 && name.as_bytes().split(|byte| *byte == b'.').all(fits) {
        Ok(())
    } else {
        Err(InvalidName { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_subdomain() {
        for name in ["a", "web-0", "kube-proxy-node.example", "0"] {
            check("pod", name).unwrap();
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a?b",
            "a#b",
            "a%2Fb",
            "A",
            "-a",
            "a-",
            "a..b",
            "a b",
            "\u{e9}",
            &"a".repeat(254),
        ] {
            assert!(check("pod", name).is_err(), "{name:?}");
        }
    }
}
