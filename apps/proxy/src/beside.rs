//! Which requests pass beside the recorded sessions.
//!
//! This file owns the list. A request could run a command in a way that no recording sees: by the kubelet behind
//! `nodes/NAME/proxy`, by a program behind `pods/NAME/proxy` or `services/NAME/proxy`, or in another spelling of a path.
//! So a request passes only if its path is known. What Kubernetes starts by itself when an object is created or changed
//! is no session: the rights of the proxy's credentials limit that. This file must not look at headers or bodies.

/// The subresources that pass. None of them is a connection to a process.
const SUBRESOURCES: [&str; 10] =
    ["approval", "binding", "ephemeralcontainers", "eviction", "finalize", "log", "resize", "scale", "status", "token"];

/// Whether an ordinary request to this path opens no way to a process.
pub(crate) fn passes(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    // A last slash is one of `/api/`.
    let parts: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
    // An escape, or a part that a server may leave out, could make another path of it.
    let is_plain = |part: &&str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'~' | b'@');
        !part.is_empty() && !matches!(*part, "." | "..") && part.bytes().all(known)
    };
    if !parts.iter().all(is_plain) {
        return path.is_empty();
    }
    match &parts[..] {
        ["version" | "api" | "apis" | "healthz" | "livez" | "readyz"] => true,
        ["openapi", ..] | ["healthz" | "livez" | "readyz", ..] => true,
        ["api", _version, rest @ ..] | ["apis", _, _version, rest @ ..] => resource(rest),
        ["apis", _] => true,
        _ => false,
    }
}

/// What follows the API's version: `[watch/][namespaces/NAMESPACE/]RESOURCE[/NAME[/SUBRESOURCE]]`.
fn resource(parts: &[&str]) -> bool {
    match parts {
        ["proxy", ..] => false,
        ["watch", rest @ ..] => resource(rest),
        [] | [_] | [_, _] => true,
        ["namespaces", _, "proxy", ..] => false,
        ["namespaces", _, _] | ["namespaces", _, _, _] => true,
        ["namespaces", _, _, _, subresource] | [_, _, subresource] => SUBRESOURCES.contains(subresource),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_asks_beside_a_session_passes() {
        for path in [
            "/",
            "/version",
            "/api",
            "/api/",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/openapi/v3/apis/apps/v1",
            "/readyz/ping",
            "/api/v1/namespaces",
            "/api/v1/namespaces/default",
            "/api/v1/namespaces/default/pods",
            "/api/v1/namespaces/default/pods/web-0",
            "/api/v1/namespaces/default/pods/proxy",
            "/api/v1/namespaces/default/pods/web-0/log",
            "/api/v1/namespaces/default/pods/web-0/ephemeralcontainers",
            "/api/v1/watch/namespaces/default/pods",
            "/api/v1/nodes/n1",
            "/api/v1/nodes/n1/status",
            "/api/v1/namespaces/default/finalize",
            "/apis/apps/v1/namespaces/default/deployments/web/scale",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        ] {
            assert!(passes(path), "{path}");
        }
    }

    #[test]
    fn what_may_lead_to_a_process_does_not_pass() {
        for path in [
            "",
            "*",
            "/api/v1/nodes/n1/proxy",
            "/api/v1/nodes/n1/proxy/run/default/web/main",
            "/api/v1/nodes/n1/%70roxy/run/default/web/main",
            "/api/v1/nodes/n1//proxy/run/default/web/main",
            "/api/v1/./nodes/n1/proxy/run/default/web/main",
            "/api/v1/namespaces/../nodes/n1/proxy",
            "/api/v1/proxy/nodes/n1/run/default/web/main",
            "/api/v1/watch/proxy/nodes/n1",
            "/api/v1/namespaces/default/pods/web-0/proxy/sh",
            "/api/v1/namespaces/default/pods/https:web-0:10250/proxy",
            "/api/v1/namespaces/default/services/web/proxy/",
            "/api/v1/namespaces/default/pods/web-0/exec",
            "/api/v1/namespaces/default/pods/web-0/attach/",
            "/api/v1/namespaces/default/pods/web-0/portforward",
            "/run/default/web/main",
            "/exec/default/web/main",
            "/logs/",
            "/apis/subresources.example.io/v1/namespaces/default/virtualmachineinstances/vm/console",
        ] {
            assert!(!passes(path), "{path}");
        }
    }
}
