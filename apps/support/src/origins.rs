//! Which web pages a server of the programs lets in.

use clap::Args;
use kubestream::upgrade;

/// The switch of the programs that serve WebSocket.
#[derive(Debug, Args)]
pub struct Origins {
    /// Let web pages of this origin open a WebSocket, such as https://console.example:8443. May be given several times.
    /// "*" allows every origin. [default: only pages of this server's own host, and clients with a bearer token]
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allowed: Vec<String>,
}

impl Origins {
    /// The settings of the handshake with a client.
    pub fn config(self) -> upgrade::Config {
        let mut config = upgrade::Config::default();
        config.allowed_origins = self.allowed;
        config
    }
}
