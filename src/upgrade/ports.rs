//! The ports in the query of a port-forward request. Legacy port-forward needs them in the handshake.
//!
//! Reads and checks them. [`portforward`](crate::portforward) makes the connections.

use std::sync::Arc;

use http::Request;

use crate::port;
use crate::protocol::Protocol;

/// The ports of a request, in the request's order, if `protocol` is legacy port-forward. `None` for other protocols. If
/// the ports are `known`, the query is not read.
pub(super) fn of(
    request: &Request<()>,
    protocol: Protocol,
    known: Option<&Arc<[u16]>>,
) -> Result<Option<Arc<[u16]>>, PortsError> {
    let Protocol::LegacyPortForward(subprotocol) = protocol else { return Ok(None) };
    let ports = known.map_or_else(|| asked(request), |known| Ok(Arc::clone(known)))?;
    if ports.contains(&0) {
        return Err(PortsError::Invalid("0".to_owned()));
    }
    let most = subprotocol.max_ports();
    match ports.len() {
        0 => Err(PortsError::None),
        asked if asked > most => Err(PortsError::TooMany { asked, most }),
        _ => Ok(Some(ports)),
    }
}

fn asked(request: &Request<()>) -> Result<Arc<[u16]>, PortsError> {
    Ok(asked_ports(request.uri().query().unwrap_or_default())?.into())
}

/// Reads the ports that a port-forward request names in its query, in the order in which it names them.
///
/// The kubelet's query calls them `port` and the kube-apiserver's `ports`. Either may be repeated, and one value may
/// list several ports with commas. A query that names no port gives an empty list.
///
/// [`Pending::accept`](super::Pending::accept) does this by itself. Use it for
/// [`Upgraded::with_ports`](super::Upgraded::with_ports) if another library makes the handshake of
/// [`Protocol::LegacyPortForward`], or if you read a connection that you pass on.
///
/// # Errors
/// [`PortsError::Invalid`] if a value is not a port from 1 to 65535.
pub fn asked_ports(query: &str) -> Result<Vec<u16>, PortsError> {
    let values = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| matches!(&name[..], "port" | "ports"));
    let mut ports = Vec::new();
    for (_, value) in values {
        for port in value.split(',') {
            let number = port::parse(port).filter(|port| *port > 0);
            ports.push(number.ok_or_else(|| PortsError::Invalid(port.to_owned()))?);
        }
    }
    Ok(ports)
}

/// What is wrong with the ports of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortsError {
    /// The query names no port.
    #[error("query parameter \"port\" is required")]
    None,
    /// A value is not a port from 1 to 65535.
    #[error("unable to parse {0:?} as a port")]
    Invalid(String),
    /// The query names more ports than one connection can have
    /// ([`Subprotocol::max_ports`](crate::protocol::Subprotocol::max_ports)).
    #[error("the request asks for {asked} ports, but one connection has at most {most}")]
    TooMany {
        /// How many ports the query names.
        asked: usize,
        /// The most ports of one connection.
        most: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Subprotocol;

    fn ports(query: &str, subprotocol: Subprotocol) -> Result<Vec<u16>, PortsError> {
        let request = Request::get(format!("http://node/portForward/default/web?{query}")).body(()).unwrap();
        of(&request, Protocol::LegacyPortForward(subprotocol), None).map(|ports| ports.unwrap().to_vec())
    }

    #[test]
    fn ports_are_given_as_to_kubelet_and_as_to_apiserver() {
        for query in ["port=80,81&port=443", "ports=80&ports=81&ports=443", "a=b&port=80%2C81%2C443"] {
            assert_eq!(ports(query, Subprotocol::V4), Ok(vec![80, 81, 443]), "{query}");
        }
        assert_eq!(ports("port=80&port=80", Subprotocol::V4), Ok(vec![80, 80]));
    }

    #[test]
    fn what_is_no_port_is_named() {
        assert_eq!(ports("", Subprotocol::V4), Err(PortsError::None));
        assert_eq!(ports("p=1", Subprotocol::V4), Err(PortsError::None));
        for wrong in ["", "0", "65536", "+1", "-1", "1 ", "http"] {
            let query = format!("port=80,{}", wrong.replace('+', "%2B").replace(' ', "+"));
            assert_eq!(ports(&query, Subprotocol::V4), Err(PortsError::Invalid(wrong.to_owned())));
        }
    }

    #[test]
    fn more_ports_than_channels_are_refused() {
        for (subprotocol, most) in [(Subprotocol::V4, 128), (Subprotocol::V4Base64, 40)] {
            let query = |count: usize| vec!["port=1"; count].join("&");
            assert_eq!(ports(&query(most), subprotocol).unwrap().len(), most);
            let asked = most + 1;
            assert_eq!(ports(&query(asked), subprotocol), Err(PortsError::TooMany { asked, most }));
        }
    }

    #[test]
    fn ports_that_are_known_are_not_asked_for() {
        let request = Request::get("http://node/portforward/TOKEN?port=1").body(()).unwrap();
        let known = |ports: &[u16]| of(&request, Protocol::LegacyPortForward(Subprotocol::V4), Some(&ports.into()));
        assert_eq!(known(&[80]).unwrap().as_deref(), Some(&[80][..]));
        assert_eq!(known(&[]), Err(PortsError::None));
        assert_eq!(known(&[80, 0]), Err(PortsError::Invalid("0".to_owned())));
    }

    #[test]
    fn other_protocols_have_no_ports() {
        let request = Request::get("http://node/").body(()).unwrap();
        assert_eq!(of(&request, Protocol::TunneledPortForward, None), Ok(None));
    }
}
