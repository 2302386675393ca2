//! What a caller can set on the server.
//!
//! This module owns the settings and their defaults. It must not act on them.

use std::time::Duration;

use kubestream::{exec, mux, portforward, upgrade};

/// What a [`Server`](crate::Server) allows, and how long it waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuntimeConfig {
    /// How long a URL can be used after it was made. Default: 60 s, as in Go's server.
    pub token_ttl: Duration,
    /// How many URLs may wait to be used at the same time. Default: 1000, as in Go's server.
    pub max_tokens: usize,
    /// The limits of a connection's handshake. Default: those of [`upgrade::Config::default`], but with every `Origin`
    /// allowed: the URL is a secret, and a web page that has it was given it.
    pub upgrade: upgrade::Config,
    /// The settings of connections for exec and attach. Default: [`mux::Config::exec`].
    pub session: mux::Config,
    /// The settings of connections for port-forward. Default: [`mux::Config::default`].
    pub forward: mux::Config,
    /// The time limits of an exec or attach session. Default: [`exec::Options::default`].
    pub exec: exec::Options,
    /// The limits of port-forward. Default: [`portforward::Options::default`].
    pub port_forward: portforward::Options,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let mut upgrade = upgrade::Config::default();
        upgrade.allowed_origins = vec!["*".to_owned()];
        Self {
            token_ttl: Duration::from_secs(60),
            max_tokens: 1000,
            upgrade,
            session: mux::Config::exec(),
            forward: mux::Config::default(),
            exec: exec::Options::default(),
            port_forward: portforward::Options::default(),
        }
    }
}
