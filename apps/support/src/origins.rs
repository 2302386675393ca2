//! Which web pages a server of the programs lets in.

use clap::Args;
use kubestream::upgrade;

/// The switch of the programs that are servers.
#[derive(Debug, Args)]
pub struct Origins {
    /// Answer web pages of this origin, too, such as https://console.example:8443. May be given several times, and "*"
    /// allows every origin. The server always answers pages of the host that a request names in its Host header.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<String>,
}

impl Origins {
    /// The settings of the handshake with a client.
    pub fn config(self) -> upgrade::Config {
        let mut config = upgrade::Config::default();
        config.allowed_origins = self.origins;
        config
    }
}
