//! What a caller can set on the server.
//!
//! This module owns the settings and their defaults. It must not act on them.

use std::time::Duration;

use kubestream::{exec, mux, portforward, upgrade};

/// What a [`Server`](crate::Server) allows, and how long it waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuntimeConfig {
    /// How long a URL can be used. Default: 60 s, as in Go's server.
    pub token_ttl: Duration,
    /// How many URLs may wait to be used. Default: 1000, as in Go's server.
    pub max_tokens: usize,
    /// The limits of a connection's handshake.
    pub upgrade: upgrade::Config,
    /// The settings of connections of exec and attach. Default: [`mux::Config::exec`].
    pub session: mux::Config,
    /// The settings of connections of port-forward.
    pub forward: mux::Config,
    /// The timeouts of an exec or attach session.
    pub exec: exec::Options,
    /// The timeouts and limits of port-forward.
    pub port_forward: portforward::Options,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            token_ttl: Duration::from_secs(60),
            max_tokens: 1000,
            upgrade: upgrade::Config::default(),
            session: mux::Config::exec(),
            forward: mux::Config::default(),
            exec: exec::Options::default(),
            port_forward: portforward::Options::default(),
        }
    }
}
