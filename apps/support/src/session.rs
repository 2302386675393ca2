//! The upgrade of an exec, over the transport that the user chose.
//!
//! Chooses the protocols to offer. [`Server`] connects.

use std::error::Error;

use http::Method;
use kubestream::upgrade::{self, Protocol, Transport, Upgraded};

use crate::server::Server;
use crate::transport::Io;

/// Which transports the user lets the program try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preference {
    Websocket,
    Spdy,
    Auto,
}

/// Upgrades a new connection, with the usual protocols or the named one.
pub async fn upgrade(
    server: &Server,
    url: &str,
    preference: Preference,
    name: Option<&str>,
) -> Result<Upgraded<Box<dyn Io>>, Box<dyn Error + Send + Sync>> {
    let config = upgrade::Config::default();
    // A command may be too long for a URI.
    let (uri, query) = url.split_once('?').unwrap_or((url, ""));
    let request = |method| {
        let mut request =
            http::Request::builder().method(method).uri(uri).header("User-Agent", "kubestream").body(())?;
        upgrade::set_query(&mut request, query)?;
        Ok::<_, Box<dyn Error + Send + Sync>>(request)
    };
    let dial = || server.connect();
    let upgraded = match preference {
        Preference::Websocket => {
            let offers = offers(Transport::WebSocket, name, Protocol::WEBSOCKET_EXEC_V5)?;
            upgrade::connect(dial().await?, request(Method::GET)?, &offers, &config).await
        }
        Preference::Spdy => {
            let offers = offers(Transport::Spdy, name, Protocol::SPDY_EXEC)?;
            upgrade::connect(dial().await?, request(Method::POST)?, &offers, &config).await
        }
        Preference::Auto => {
            if name.is_some() {
                return Err(
                    "--protocol requires --transport: the same name means another protocol on each transport".into()
                );
            }
            let request = request(Method::GET)?;
            let (websocket, spdy) = (Protocol::WEBSOCKET_EXEC_V5, Protocol::SPDY_EXEC);
            upgrade::connect_with_fallback(dial, request, websocket, spdy, &config).await
        }
    };
    upgraded.map_err(|error| server.explain(error))
}

/// Returns the named protocol, or the usual ones.
fn offers(
    transport: Transport,
    name: Option<&str>,
    usual: &[Protocol],
) -> Result<Vec<Protocol>, Box<dyn Error + Send + Sync>> {
    let Some(name) = name else { return Ok(usual.to_vec()) };
    let protocol = Protocol::from_name(transport, name);
    Ok(vec![protocol.ok_or_else(|| format!("there is no protocol {name:?} over {transport}"))?])
}
