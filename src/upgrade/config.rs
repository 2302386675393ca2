//! The limits of a handshake.
//!
//! Only the values; the client and the server keep to them.

use std::time::Duration;

/// The limits of a handshake, for clients and servers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The maximum length of the peer's HTTP head, in bytes. For a client, the limit is for all 1xx heads and the final
    /// head together. A server needs room for the command, because kubectl puts each argument into the query. Memory is
    /// taken only as the bytes arrive. Default: 1 MiB, as in Go's servers.
    pub max_head: usize,
    /// The maximum number of header lines in the peer's head. Go's servers do not count them. Default: 1,000.
    pub max_headers: usize,
    /// For a server: whether to accept a request whose path and query do not fit into an [`http::Uri`], which holds
    /// 65,534 bytes. Its URI then has no query, and only [`upgrade::query`](super::query) returns it. Set this if your
    /// code reads the query with that function: code that reads it from the URI would miss a command, and a proxy would
    /// pass that command on unseen. Default: such a request is answered 414.
    pub long_queries: bool,
    /// For a server: the time limit until the whole head of the request has arrived, not for each read. It is also the
    /// time limit for writing an answer. Default: 10 s.
    pub head_timeout: Duration,
    /// For a client, and for a proxy at its backend: the time limit until the whole head of the answer has arrived,
    /// including the time to write the request. A kube-apiserver answers only when its admission webhooks and the node
    /// have answered, which takes 15 s in real clusters. kubectl has no limit. Default: 60 s.
    pub answer_timeout: Duration,
    /// For a client: how many bytes of a refusal's body it keeps. For a server: how many bytes of its client it reads
    /// and discards after its own refusal, before it closes the connection. Default: 64 KiB.
    pub max_refusal_body: usize,
    /// For a client: the time limit for reading a refusal's body. For a server: how long it waits for the client's end
    /// after its own refusal. Default: 5 s.
    pub refusal_body_timeout: Duration,
    /// For a server: the origins whose web pages may open a WebSocket, each written as browsers do:
    /// `https://console.example:8443`. `"*"` allows every request. A request is always allowed
    /// - if it has no `Origin`,
    /// - if its `Origin` names the same host as its `Host`,
    /// - or if it has `Authorization: Bearer …` and no `Cookie`: no page can set that header.
    ///
    /// Default: no other origins.
    ///
    /// A browser lets a page of any site open a WebSocket at this server, and adds what it holds for this server: its
    /// cookies, a password or a client certificate. It names the page's host in `Origin`. Only this check keeps out the
    /// pages of other sites. Without any authentication it also keeps them away from a server on loopback.
    ///
    /// A gateway that rewrites `Host`, as nginx does by default, makes every `Origin` look foreign: name here the
    /// origins of your pages. If every request is authenticated by something that a browser does not add by itself,
    /// such as a secret in the URL, `"*"` is safe. A gateway that replaces cookies by a bearer token, and removes the
    /// cookies, has to check `Origin` itself.
    ///
    /// The check does not help against DNS rebinding, where an attacker's own host name points to this server. A server
    /// that browsers can reach should also check `Host` against its own names, or ask for a token.
    pub allowed_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_head: 1024 * 1024,
            max_headers: 1000,
            long_queries: false,
            head_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            max_refusal_body: 64 * 1024,
            refusal_body_timeout: Duration::from_secs(5),
            allowed_origins: Vec::new(),
        }
    }
}
