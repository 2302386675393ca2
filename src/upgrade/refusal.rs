//! What a refusal says, in one line for a person: the reason, the status, who has answered, and what that often means.
//!
//! The answer may be anybody's: a server's, or a gateway's page. So the text is bounded, and nothing in it controls a
//! terminal. This module decides nothing: an error keeps the whole answer.

use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use serde_json::Value;

/// The characters of a reason that are shown.
const MAX_REASON: usize = 500;
/// The characters of a header, a name or a URL that are shown.
const MAX_NAME: usize = 200;
/// No gateway that is known to limit heads allows fewer bytes than this.
const LONG_HEAD: usize = 4 * 1024;

/// How the text of a refusal begins, as in kubectl.
pub(super) const PREFIX: &str = "unable to upgrade connection: ";

/// The text of a refusal without its hint: the reason, and in parentheses the status and the hops that name themselves.
pub(super) fn said<B: AsRef<[u8]>>(response: &Response<B>) -> String {
    let status = status_line(response.status());
    let reason = reason(response);
    let (reason, status) = match reason {
        // A page often has the status as its title.
        Some(reason) if reason.starts_with(response.status().as_str()) => (reason, None),
        Some(reason) if status.get(4..).is_none_or(|phrase| !phrase.eq_ignore_ascii_case(&reason)) => {
            (reason, Some(status))
        }
        _ => (status, None),
    };
    let hops = [("Server", header::SERVER), ("Via", header::VIA)].map(|(shown, name)| {
        let value = lines(response, &name);
        if value.is_empty() { None } else { Some(format!("{shown}: {}", short(&value))) }
    });
    let from: Vec<String> = status.into_iter().chain(hops.into_iter().flatten()).collect();
    let from = if from.is_empty() { String::new() } else { format!(" ({})", from.join(", ")) };
    format!("{PREFIX}{reason}{from}")
}

/// What such a refusal often means. `sent` is the length of the request's head.
pub(super) fn hint<B: AsRef<[u8]>>(response: &Response<B>, sent: usize) -> Option<String> {
    /// What servers say to a request without upgrade headers: kube-apiserver and kubelet, Go's SPDY and this crate, and
    /// gorilla/websocket.
    const NO_UPGRADE: [&str; 3] = ["upgrade request required", "missing upgrade headers", "'upgrade' token not found"];
    let status = response.status();
    let body = String::from_utf8_lossy(response.body().as_ref()).trim().to_ascii_lowercase();
    let refuses = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UPGRADE_REQUIRED);
    if refuses && NO_UPGRADE.iter().any(|text| body.contains(text)) {
        return Some("a hop has dropped the Upgrade header, or the server does not know this transport".to_owned());
    }
    if status.is_success() {
        return Some("a hop has dropped the Upgrade header, or the server has no such upgrade at this URL".to_owned());
    }
    if status == StatusCode::FORBIDDEN
        && body.is_empty()
        && lines(response, &header::SERVER).eq_ignore_ascii_case("envoy")
    {
        return Some("an Envoy answers so if its upgrade_configs do not allow this upgrade".to_owned());
    }
    let is_limit = matches!(status, StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    if is_limit || status == StatusCode::BAD_REQUEST && is_page(response, &body) && sent > LONG_HEAD {
        return Some(format!("the request's head has {sent} bytes, which may be more than a hop allows"));
    }
    None
}

/// The first `most` characters of a text, in one line. What would control a terminal is escaped.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let words = text.split_whitespace().enumerate();
    let characters = words.flat_map(|(at, word)| (at > 0).then_some(' ').into_iter().chain(word.chars()));
    let mut line = String::new();
    for (at, character) in characters.enumerate() {
        match character {
            _ if at == most => {
                line.push('\u{2026}');
                break;
            }
            other if other.is_control() || is_unseen(other) => line.extend(other.escape_unicode()),
            other => line.push(other),
        }
    }
    line
}

/// Characters that change how others are shown, or show nothing: directions of text, separators of lines, marks of
/// width zero, tags.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A name or a URL that a peer has sent, in one line.
pub(super) fn short(name: &str) -> String {
    one_line(name, MAX_NAME)
}

fn status_line(status: StatusCode) -> String {
    status
        .canonical_reason()
        .map_or_else(|| status.as_str().to_owned(), |phrase| format!("{} {phrase}", status.as_str()))
}

/// The reason that the body gives: `message` or `error` of a JSON object, the title of a page, or the first line.
fn reason<B: AsRef<[u8]>>(response: &Response<B>) -> Option<String> {
    // The request asked for no coding, and nothing here can decode one.
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let json: Value = serde_json::from_slice(response.body().as_ref()).unwrap_or_default();
    let error = json.get("error");
    let members = [json.get("message"), error, error.and_then(|error| error.get("message"))];
    let text = String::from_utf8_lossy(response.body().as_ref());
    let text = text.trim_start_matches('\u{feff}').trim();
    let said = members.into_iter().flatten().filter_map(Value::as_str).find(|said| !said.trim().is_empty());
    let reason = match said {
        Some(said) => one_line(said, MAX_REASON),
        None if json.is_object() => one_line(text, MAX_REASON),
        None if is_page(response, text) => one_line(&plain(title(text).or_else(|| first_text(text))?), MAX_REASON),
        None => one_line(text.lines().next()?, MAX_REASON),
    };
    // Servers and proxies begin like this, too.
    let prefixes = [PREFIX, "unable to upgrade: "];
    let plain = prefixes.iter().find_map(|prefix| reason.strip_prefix(prefix)).unwrap_or(&reason);
    Some(plain.to_owned()).filter(|reason| !reason.is_empty())
}

fn is_page<B>(response: &Response<B>, text: &str) -> bool {
    text.starts_with('<') || lines(response, &header::CONTENT_TYPE).to_ascii_lowercase().contains("html")
}

fn title(page: &str) -> Option<&str> {
    // Lower case in ASCII does not move a byte.
    let lower = page.to_ascii_lowercase();
    let opened = lower.find("<title")?;
    let begin = opened.checked_add(lower.get(opened..)?.find('>')?)?.checked_add(1)?;
    let length = lower.get(begin..)?.find("</title")?;
    page.get(begin..begin.checked_add(length)?).filter(|title| !title.trim().is_empty())
}

/// The first text of a page that is not within a tag.
fn first_text(mut page: &str) -> Option<&str> {
    loop {
        let (text, tag) = page.split_once('<').unwrap_or((page, ""));
        if !text.trim().is_empty() {
            return Some(text);
        }
        let is = |name: &str| tag.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        let hidden = if is("style") || is("script") { tag.split_once("</")?.1 } else { tag };
        page = hidden.split_once(if is("!--") { "-->" } else { ">" })?.1;
    }
}

/// The characters that a title needs most.
fn plain(html: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
    named.iter().fold(html.to_owned(), |text, (name, character)| text.replace(name, character))
}

fn lines<B>(response: &Response<B>, name: &HeaderName) -> String {
    let lines = response.headers().get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    lines.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::UpgradeError;

    quickcheck::quickcheck! {
        fn the_text_of_any_answer_is_one_line(status: u16, tags: Vec<u8>, header: Vec<u8>, sent: usize) -> bool {
            const PIECES: [&str; 12] =
                ["<title", "</title", ">", "<", "<!--", "-->", "<style", "\u{e9}\n", "{\"error\":", "\u{1b}", "&lt;", "x"];
            let body: String = tags.iter().map(|&at| PIECES[usize::from(at) % PIECES.len()]).collect();
            let mut answer = Response::builder().status(status % 900 + 100);
            if let Ok(value) = http::HeaderValue::from_bytes(&header) {
                answer = answer.header("server", value);
            }
            let response = Box::new(answer.body(bytes::Bytes::from(body)).unwrap());
            let text = UpgradeError::Refused { response, truncated: true, sent }.to_string();
            text.len() < 10 * (MAX_REASON + MAX_NAME) + 500 && !text.chars().any(char::is_control)
        }
    }

    /// The text of the error for an answer to a request whose head has `sent` bytes.
    fn text_of(sent: usize, status: u16, headers: &[(&str, &str)], body: &'static str) -> String {
        let answer = Response::builder().status(status);
        let answer = headers.iter().fold(answer, |answer, (name, value)| answer.header(*name, *value));
        let response = Box::new(answer.body(bytes::Bytes::from_static(body.as_bytes())).unwrap());
        let text = UpgradeError::Refused { response, truncated: false, sent }.to_string();
        text.strip_prefix(PREFIX).unwrap().to_owned()
    }

    fn text(status: u16, headers: &[(&str, &str)], body: &'static str) -> String {
        text_of(200, status, headers, body)
    }

    #[test]
    fn a_status_says_its_message() {
        let body = "{\n  \"kind\": \"Status\",\n  \"status\": \"Failure\",\n\
            \"message\": \"pods \\\"nope\\\" not found\",\n  \"code\": 404\n}";
        assert_eq!(text(404, &[("content-type", "application/json")], body), "pods \"nope\" not found (404 Not Found)");
        let unauthorized = r#"{"kind":"Status","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        assert_eq!(text(401, &[], unauthorized), "401 Unauthorized");
    }

    #[test]
    fn every_other_body_says_one_line() {
        for (body, said) in [
            (r#"{"message":"upstream down"}"#, "upstream down (502 Bad Gateway)"),
            (r#"{"error":"upstream down"}"#, "upstream down (502 Bad Gateway)"),
            (r#"{"error":{"code":502,"message":"upstream down"}}"#, "upstream down (502 Bad Gateway)"),
            ("{\"error\":\n  {\"code\":502}}", "{\"error\": {\"code\":502}} (502 Bad Gateway)"),
            ("container not found (\"main\")\n", "container not found (\"main\") (502 Bad Gateway)"),
            ("unable to upgrade: no\nunable to upgrade: no\n", "no (502 Bad Gateway)"),
            ("unable to upgrade connection: no", "no (502 Bad Gateway)"),
            ("Bad gateway\n", "502 Bad Gateway"),
            ("502 upstream is down", "502 upstream is down"),
            ("  \n", "502 Bad Gateway"),
            ("", "502 Bad Gateway"),
        ] {
            assert_eq!(text(502, &[], body), said, "{body}");
        }
        assert_eq!(text(499, &[], ""), "499");
        assert_eq!(text(502, &[("content-encoding", "gzip")], "\u{1f}\u{8b}"), "502 Bad Gateway");
        assert_eq!(
            text(403, &[("server", "a"), ("via", "1.1 b"), ("via", "1.0 c")], "no"),
            "no (403 Forbidden, Server: a, Via: 1.1 b, 1.0 c)"
        );
    }

    #[test]
    fn a_page_says_its_title_or_its_first_text() {
        let nginx = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
            <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n";
        assert_eq!(text(502, &[("server", "nginx/1.22.1")], nginx), "502 Bad Gateway (Server: nginx/1.22.1)");
        let haproxy = "<html><body><h1>503 Service Unavailable</h1>\n\
            No server is available to handle this request.\n</body></html>\n";
        assert_eq!(text(503, &[], haproxy), "503 Service Unavailable");
        let squid = "<!DOCTYPE html>\n<html><head>\n<TITLE lang=en>ERROR: The requested URL\n could not be retrieved</TITLE>\n\
            <style><!-- body { color: red } --></style>";
        let via = "1.1 bastion (squid/5.7)";
        assert_eq!(
            text(502, &[("content-type", "text/html;charset=utf-8"), ("via", via)], squid),
            "ERROR: The requested URL could not be retrieved (502 Bad Gateway, Via: 1.1 bastion (squid/5.7))"
        );
        for (page, said) in [
            ("<!-- a > b --><style>p { color: red }</style>\n<p>it is <b>down</b>", "it is"),
            ("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
            ("<title>Tom &amp; Jerry&#39;s &lt;1&gt;</title>", "Tom & Jerry's <1>"),
            ("<title> </title><h1>down</h1>", "down"),
            ("<title>down", "down"),
        ] {
            assert_eq!(text(500, &[], page), format!("{said} (500 Internal Server Error)"), "{page}");
        }
        for page in ["<", "<html>", "<html></html>", "<!-- ", "<style>p { color: red }", "<title"] {
            assert_eq!(text(500, &[], page), "500 Internal Server Error", "{page}");
        }
    }

    #[test]
    fn an_envoy_that_allows_no_upgrade_is_told_from_a_server_that_allows_no_request() {
        let hint =
            "403 Forbidden (Server: envoy); an Envoy answers so if its upgrade_configs do not allow this upgrade";
        assert_eq!(text(403, &[("server", "envoy")], ""), hint);
        let denied = "RBAC: access denied (403 Forbidden, Server: envoy)";
        assert_eq!(text(403, &[("server", "envoy")], "RBAC: access denied"), denied);
        assert_eq!(text(403, &[("server", "nginx")], ""), "403 Forbidden (Server: nginx)");
    }

    #[test]
    fn a_server_that_has_seen_no_upgrade_points_to_a_hop() {
        let dropped = "; a hop has dropped the Upgrade header, or the server does not know this transport";
        for (status, body, said) in [
            (
                400,
                r#"{"kind":"Status","message":"Upgrade request required"}"#,
                "Upgrade request required (400 Bad Request)",
            ),
            (426, "Upgrade request required\n", "Upgrade request required (426 Upgrade Required)"),
            (
                400,
                "unable to upgrade: missing upgrade headers in request: http.Header{}\n",
                "missing upgrade headers in request: http.Header{} (400 Bad Request)",
            ),
        ] {
            assert_eq!(text(status, &[], body), format!("{said}{dropped}"));
        }
        let page = text(200, &[("server", "nginx")], "<title>Dashboard</title>");
        let hint = "a hop has dropped the Upgrade header, or the server has no such upgrade at this URL";
        assert_eq!(page, format!("Dashboard (200 OK, Server: nginx); {hint}"));
    }

    #[test]
    fn a_hop_that_limits_heads_is_told_how_long_the_head_was() {
        let hint = |sent: usize| format!("; the request's head has {sent} bytes, which may be more than a hop allows");
        for (status, server, page, said) in [
            (
                400,
                "nginx/1.22.1",
                "<html>\r\n<head><title>400 Request Header Or Cookie Too Large</title></head>\r\n",
                "400 Request Header Or Cookie Too Large (Server: nginx/1.22.1)",
            ),
            (
                414,
                "nginx",
                "<html>\r\n<head><title>414 Request-URI Too Large</title></head>",
                "414 Request-URI Too Large (Server: nginx)",
            ),
            (
                400,
                "Apache/2.4.71",
                "<!DOCTYPE HTML PUBLIC \"-//IETF//DTD HTML 2.0//EN\">\n\
                    <html><head>\n<title>400 Bad Request</title>\n</head>",
                "400 Bad Request (Server: Apache/2.4.71)",
            ),
            (431, "Caddy", "", "431 Request Header Fields Too Large (Server: Caddy)"),
        ] {
            assert_eq!(text_of(12_000, status, &[("server", server)], page), format!("{said}{}", hint(12_000)));
        }
        let haproxy = "<html><body><h1>400 Bad request</h1>\nYour browser sent an invalid request.\n</body></html>\n";
        assert_eq!(text_of(17_000, 400, &[], haproxy), format!("400 Bad request{}", hint(17_000)));
        // A short head was refused for something else.
        assert_eq!(text(400, &[], haproxy), "400 Bad request");
        assert_eq!(text_of(12_000, 400, &[], "no such container"), "no such container (400 Bad Request)");
    }

    #[test]
    fn a_reason_is_bounded_and_controls_no_terminal() {
        let long: &'static str = "x".repeat(60_000).leak();
        assert_eq!(text(500, &[], long), format!("{}\u{2026} (500 Internal Server Error)", "x".repeat(MAX_REASON)));
        let hostile =
            "\u{1b}[31mno\u{202e}\u{9b}2J cafe\u{301} \u{e44}\u{e21}\u{e48} \u{65e5} C:\\x 'y'\nerror: not ours";
        let shown =
            "\\u{1b}[31mno\\u{202e}\\u{9b}2J cafe\u{301} \u{e44}\u{e21}\u{e48} \u{65e5} C:\\x 'y' (403 Forbidden)";
        assert_eq!(text(403, &[], hostile), shown);
        assert_eq!(text(403, &[("via", "1.1 \u{9b}2J")], ""), "403 Forbidden (Via: 1.1 \\u{9b}2J)");
    }
}
