//! The requests that kubectl sends to a kube-apiserver before a session.
//!
//! Answers them with fixed values.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// Returns the answer to a request about the API itself.
pub fn discovery(path: &[&str]) -> Option<Response<Bytes>> {
    Some(ok(&match path {
        ["version"] => json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"}),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"]}),
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        ["api", "v1"] => resources(),
        _ => return None,
    }))
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        resource("pods", "Pod", &["get"]),
        resource("pods/exec", "PodExecOptions", &["create", "get"]),
        resource("pods/attach", "PodAttachOptions", &["create", "get"]),
        resource("pods/portforward", "PodPortForwardOptions", &["create", "get"]),
    ]})
}

pub fn ok(value: &Value) -> Response<Bytes> {
    response(StatusCode::OK, "application/json", value.to_string())
}

/// Returns a refusal in Kubernetes' format.
pub fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Bytes> {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    response(code, "application/json", status.to_string())
}

pub fn response(code: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
