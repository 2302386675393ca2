//! The upgrade of an exec, over the transport that the user chose.
//!
//! Chooses the protocols to offer. [`transport`] connects.

use std::error::Error;

use http::Method;
use kubestream::upgrade::{self, Carrier, Protocol, Upgraded};

use crate::transport::{self, Io, Tls};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    Websocket,
    Spdy,
    Auto,
}

/// Upgrades a new connection, with the usual protocols or the named one.
pub async fn upgrade(
    url: &str,
    transport: Transport,
    name: Option<&str>,
    tls: &Tls,
) -> Result<Upgraded<Box<dyn Io>>, Box<dyn Error + Send + Sync>> {
    let config = upgrade::Config::default();
    let request = |method| http::Request::builder().method(method).uri(url).header("User-Agent", "kubestream").body(());
    let dial = || transport::connect(url, tls);
    match transport {
        Transport::Websocket => {
            let offers = offers(Carrier::WebSocket, name, Protocol::V5)?;
            Ok(upgrade::connect(dial().await?, request(Method::GET)?, &offers, &config).await?)
        }
        Transport::Spdy => {
            let offers = offers(Carrier::Spdy, name, Protocol::EXEC)?;
            Ok(upgrade::connect(dial().await?, request(Method::POST)?, &offers, &config).await?)
        }
        Transport::Auto => {
            if name.is_some() {
                return Err(
                    "--protocol requires --transport: the same name means another protocol on each transport".into()
                );
            }
            let request = request(Method::GET)?;
            let connected =
                upgrade::connect_with_fallback(dial, request, Protocol::V5, Protocol::EXEC, &config).await?;
            Ok(connected.upgraded)
        }
    }
}

/// Returns the named protocol, or the usual ones.
fn offers(
    carrier: Carrier,
    name: Option<&str>,
    usual: &[Protocol],
) -> Result<Vec<Protocol>, Box<dyn Error + Send + Sync>> {
    let Some(name) = name else { return Ok(usual.to_vec()) };
    let protocol = Protocol::from_name(carrier, name);
    Ok(vec![protocol.ok_or_else(|| format!("there is no protocol {name:?} over {carrier}"))?])
}
