//! Which requests a server on a user's own machine answers at all: none for a host that is not its own, and none of a
//! web page of another site.
//!
//! Every web page can send requests to loopback. A page whose own name was made to lead there (DNS rebinding) is told
//! by the `Host`, and every other page by the `Origin` and by `Sec-Fetch-Site`. This module judges the head of a
//! request by these alone. It authenticates nobody, and it does not know what the request is about.

use std::net::IpAddr;

use bytes::Bytes;
use clap::Args;
use http::header::{self, HeaderMap, HeaderName};
use http::uri::Authority;
use http::{Request, Response, StatusCode};

use kubestream::upgrade::is_own_origin;

use crate::api::failure;

/// The hosts for which a server answers.
#[derive(Args, Clone, Debug, Default)]
pub struct Hosts {
    /// Also answer requests for this host name. May be given several times, and "*" allows all hosts. The server always
    /// answers for localhost, for loopback addresses and for the address on which it listens. Other hosts are refused,
    /// because a web page could have made its own name lead to this server.
    #[arg(long = "allow-host", value_name = "NAME")]
    allowed: Vec<String>,
}

impl Hosts {
    /// Refuses a request for a host that is not this server's. `own` are the addresses of the server. The port is not
    /// compared: a browser connects to the port that it names, and a tunnel may have another port than the server.
    ///
    /// # Errors
    /// The answer for the client.
    pub fn check(&self, request: &Request<()>, own: &[IpAddr]) -> Result<(), Box<Response<Bytes>>> {
        if self.allowed.iter().any(|name| name == "*") {
            return Ok(());
        }
        // A request line with a whole URL names a host, too.
        let named = request.uri().authority().map(Authority::as_str);
        let lines = request.headers().get_all(header::HOST).iter();
        let mut hosts = lines.map(|line| line.to_str().unwrap_or_default()).chain(named);
        // Every browser names a host. The health check of HAProxy, in HTTP/1.0, names none.
        let Some(host) = hosts.find(|host| !self.is_known(host, own)) else { return Ok(()) };
        let message = format!("this server does not answer for the host {host:?}, which --allow-host would allow");
        Err(Box::new(failure(StatusCode::MISDIRECTED_REQUEST, "MisdirectedRequest", &message)))
    }

    fn is_known(&self, host: &str, own: &[IpAddr]) -> bool {
        let Ok(host) = host.parse::<Authority>() else { return false };
        // `me@localhost` is no host.
        if host.as_str().contains('@') {
            return false;
        }
        let host = host.host();
        // No name of an attacker is an address, and a browser connects to the address that it names.
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            let is_own = own.iter().any(|own| own.to_canonical() == address.to_canonical());
            return address.to_canonical().is_loopback() || is_own || self.allows(host);
        }
        is_same_name(host, "localhost") || self.allows(host)
    }

    fn allows(&self, host: &str) -> bool {
        self.allowed.iter().any(|name| is_same_name(name, host))
    }
}

/// A name may end with the dot of the root.
fn is_same_name(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    plain(one) == plain(other)
}

/// Refuses a request of a web page of another origin, upgrade or not, unless the origin is `allowed` as in
/// [`kubestream::upgrade::Config::allowed_origins`].
///
/// # Errors
/// The answer for the client.
pub fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Box<Response<Bytes>>> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if allowed.iter().any(|origin| origin == "*") {
        return Ok(());
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().map(|origin| {
        // Several count as one that is allowed nowhere.
        if origins.next().is_none() { origin.to_str().unwrap_or_default() } else { "" }
    });
    if origin.is_some_and(|origin| allowed.iter().any(|other| other.eq_ignore_ascii_case(origin))) {
        return Ok(());
    }
    // Without an Origin, a browser still says this of a request that a page of another site causes, such as an image's.
    let elsewhere = headers.get_all(SITE).iter().find(|site| *site != "same-origin" && *site != "none");
    let message = match (origin, elsewhere) {
        (Some(origin), _) if !is_own_origin(origin, headers) => format!("the origin {origin:?} is not allowed"),
        (_, Some(site)) => format!("a request of another origin is not allowed: Sec-Fetch-Site is {site:?}"),
        _ => return Ok(()),
    };
    Err(Box::new(failure(StatusCode::FORBIDDEN, "Forbidden", &message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_for_the_address_on_which_it_listens_and_for_no_other() {
        let own = ["192.0.2.7".parse().unwrap(), "::ffff:198.51.100.7".parse().unwrap()];
        let asked = |uri: &str, host: &str| {
            let request = Request::get(uri).header("Host", host).body(()).unwrap();
            Hosts::default().check(&request, &own).map_err(|answer| answer.status())
        };
        for host in ["192.0.2.7", "192.0.2.7:8001", "198.51.100.7", "[::ffff:127.0.0.1]:80", "localhost:1"] {
            assert_eq!(asked("/", host), Ok(()), "{host}");
        }
        for host in ["192.0.2.8", "[2001:db8::1]", "0.0.0.0", "localhost..", "local host", "a.example:80"] {
            assert_eq!(asked("/", host), Err(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        assert_eq!(asked("http://a.example/", "localhost"), Err(StatusCode::MISDIRECTED_REQUEST));
        // No browser leaves the host out.
        let nobody = Request::get("/").body(()).unwrap();
        assert!(Hosts::default().check(&nobody, &own).is_ok());
    }

    #[test]
    fn an_origin_that_is_allowed_may_be_elsewhere() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        headers.insert(header::ORIGIN, "https://console.example".parse().unwrap());
        headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
        for allowed in [&["https://Console.example"][..], &["https://a.example", "*"]] {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            check_origin(&headers, &allowed).unwrap();
        }
        assert_eq!(check_origin(&headers, &[]).unwrap_err().status(), StatusCode::FORBIDDEN);
        headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
        for (origin, is_own) in [
            ("http://localhost", true),
            ("http://localhost:80", true),
            ("http://localhost:443", false),
            // No browser writes this, but ws4py does.
            ("ws://localhost", true),
            ("wss://localhost:80", false),
        ] {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            assert_eq!(check_origin(&headers, &[]).is_ok(), is_own, "{origin}");
        }
    }
}
