//! The ports in the query of a port-forward request. Legacy port-forward needs them in the handshake.
//!
//! Reads and checks them. [`portforward`](crate::portforward) makes the connections.

use std::sync::Arc;

use http::Request;

use super::error::UpgradeError;
use super::query::query;
use crate::port;
use crate::protocol::Protocol;

/// The ports of a request, in the request's order, if `protocol` is legacy port-forward. `None` for other protocols. If
/// the ports are `known`, the query is not read.
pub(super) fn of(
    request: &Request<()>,
    protocol: Protocol,
    known: Option<&Arc<[u16]>>,
) -> Result<Option<Arc<[u16]>>, UpgradeError> {
    let Protocol::LegacyPortForward(subprotocol) = protocol else { return Ok(None) };
    let ports = known.map_or_else(|| asked(request), |known| Ok(Arc::clone(known)))?;
    if ports.contains(&0) {
        return Err(UpgradeError::InvalidPort { port: "0".to_owned() });
    }
    let most = subprotocol.max_ports();
    match ports.len() {
        0 => Err(UpgradeError::NoPort),
        asked if asked > most => Err(UpgradeError::TooManyPorts { asked, most }),
        _ => Ok(Some(ports)),
    }
}

fn asked(request: &Request<()>) -> Result<Arc<[u16]>, UpgradeError> {
    Ok(asked_ports(query(request))?.into())
}

/// Reads the ports that a port-forward request names in its query, in the order in which it names them.
///
/// A query for a kubelet names them `port`, and a query for a kube-apiserver names them `ports`. Both parameters may be
/// repeated, and one value may list several ports with commas. A query that names no port gives an empty list.
///
/// [`Pending::accept`](super::Pending::accept) calls this function by itself. Call it yourself if another library makes
/// the handshake of [`Protocol::LegacyPortForward`], for [`Upgraded::with_ports`](super::Upgraded::with_ports), or if
/// you read a connection that you pass on, for [`Tap::new`](crate::tap::Tap::new).
///
/// # Errors
/// [`UpgradeError::InvalidPort`] if a value is not a port number from 1 to 65535.
pub fn asked_ports(query: &str) -> Result<Vec<u16>, UpgradeError> {
    let values = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| matches!(&name[..], "port" | "ports"));
    let mut ports = Vec::new();
    for (_, value) in values {
        for port in value.split(',') {
            let number = port::parse(port).filter(|port| *port > 0);
            ports.push(number.ok_or_else(|| UpgradeError::InvalidPort { port: port.to_owned() })?);
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Subprotocol;

    fn ports(query: &str, subprotocol: Subprotocol) -> Result<Vec<u16>, UpgradeError> {
        let request = Request::get(format!("http://node/portForward/default/web?{query}")).body(()).unwrap();
        of(&request, Protocol::LegacyPortForward(subprotocol), None).map(|ports| ports.unwrap().to_vec())
    }

    #[test]
    fn ports_are_given_as_to_kubelet_and_as_to_apiserver() {
        for query in ["port=80,81&port=443", "ports=80&ports=81&ports=443", "a=b&port=80%2C81%2C443"] {
            assert_eq!(ports(query, Subprotocol::V4).unwrap(), [80, 81, 443], "{query}");
        }
        assert_eq!(ports("port=80&port=80", Subprotocol::V4).unwrap(), [80, 80]);
    }

    #[test]
    fn what_is_no_port_is_named() {
        assert!(matches!(ports("", Subprotocol::V4), Err(UpgradeError::NoPort)));
        assert!(matches!(ports("p=1", Subprotocol::V4), Err(UpgradeError::NoPort)));
        for wrong in ["", "0", "65536", "+1", "-1", "1 ", "http"] {
            let query = format!("port=80,{}", wrong.replace('+', "%2B").replace(' ', "+"));
            let refused = ports(&query, Subprotocol::V4);
            assert!(matches!(&refused, Err(UpgradeError::InvalidPort { port }) if port == wrong), "{refused:?}");
        }
    }

    #[test]
    fn more_ports_than_channels_are_refused() {
        for (subprotocol, most) in [(Subprotocol::V4, 128), (Subprotocol::V4Base64, 40)] {
            let query = |count: usize| vec!["port=1"; count].join("&");
            assert_eq!(ports(&query(most), subprotocol).unwrap().len(), most);
            let refused = ports(&query(most + 1), subprotocol);
            let Err(UpgradeError::TooManyPorts { asked, most: named }) = refused else { panic!("{refused:?}") };
            assert_eq!((asked, named), (most + 1, most));
        }
    }

    #[test]
    fn ports_that_are_known_are_not_asked_for() {
        let request = Request::get("http://node/portforward/TOKEN?port=1").body(()).unwrap();
        let known = |ports: &[u16]| of(&request, Protocol::LegacyPortForward(Subprotocol::V4), Some(&ports.into()));
        assert_eq!(known(&[80]).unwrap().as_deref(), Some(&[80][..]));
        assert!(matches!(known(&[]), Err(UpgradeError::NoPort)));
        assert!(matches!(known(&[80, 0]), Err(UpgradeError::InvalidPort { port }) if port == "0"));
    }

    #[test]
    fn other_protocols_have_no_ports() {
        let request = Request::get("http://node/").body(()).unwrap();
        assert_eq!(of(&request, Protocol::TunneledPortForward, None).unwrap(), None);
    }
}
