//! From a host's name to a connection: lookup, look at each address, connect to that very address, TLS.
//!
//! Invariant: no name is looked up twice for one request, so none can lead elsewhere once it was looked at.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wess_schemas::hosts::{HostName, HttpScheme};

use super::target::Target;
use super::{Outbound, OutboundFault};

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// A connection, whatever it is made of.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How TLS is spoken. Nothing is resumed: a ticket would tie requests of two tenants together.
pub fn connector(roots: RootCertStore) -> Result<TlsConnector, OutboundFault> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| OutboundFault::Internal)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects by the deadline.
pub async fn connect(
    outbound: &Outbound,
    target: &Target,
    deadline: Instant,
) -> Result<Box<dyn Stream>, OutboundFault> {
    let found = match &target.host {
        HostName::Address(address) => vec![SocketAddr::new(*address, target.port)],
        HostName::Name(name) => {
            let lookup = look_up(outbound, name, target.port);
            timeout_at(deadline, lookup)
                .await
                .map_err(|_| OutboundFault::LookupTimeout)??
        }
    };
    let tcp = connect_to_any(&allowed(target, found)?, deadline).await?;
    // Requests and responses are written in whole pieces; waiting for more would only delay them.
    let _ = tcp.set_nodelay(true);
    if target.scheme == HttpScheme::Http {
        return Ok(Box::new(tcp));
    }
    let connecting = async {
        let tls = outbound.tls().await?;
        let connected = tls.connect(server_name(&target.host)?, tcp).await;
        connected.map_err(|error| OutboundFault::of_handshake(&error))
    };
    let tls = timeout_at(deadline, connecting).await;
    Ok(Box::new(tls.map_err(|_| OutboundFault::ConnectTimeout)??))
}

fn server_name(host: &HostName) -> Result<ServerName<'static>, OutboundFault> {
    match host {
        HostName::Address(address) => Ok(ServerName::from(*address)),
        HostName::Name(name) => ServerName::try_from(name.clone()).map_err(|_| OutboundFault::UriInvalid),
    }
}

/// Every address of a name, as the system finds them. A lookup cannot be called off: its room is taken until it is over,
/// and its thread is nobody's, so that a process that stops does not wait for it.
async fn look_up(outbound: &Outbound, name: &str, port: u16) -> Result<Vec<SocketAddr>, OutboundFault> {
    let room = Arc::clone(&outbound.lookups).acquire_owned().await;
    let (room, name) = (room.map_err(|_| OutboundFault::Internal)?, name.to_owned());
    let (tell, told) = oneshot::channel();
    let looking = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        drop(room);
        // Whoever asked may have given up.
        let _ = tell.send(found);
    };
    let thread = std::thread::Builder::new().name("wess-lookup".into());
    thread.spawn(looking).map_err(|_| OutboundFault::Internal)?;
    let found = told.await.map_err(|_| OutboundFault::Internal)?;
    found.map_err(|_| OutboundFault::Lookup)
}

/// Those that may be connected to. Where there are others and none that may, that is said.
fn allowed(target: &Target, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, OutboundFault> {
    if found.is_empty() {
        return Err(OutboundFault::Lookup);
    }
    found.retain(|address| target.may_connect(address.ip()));
    found.truncate(MAX_ADDRESSES);
    match found.is_empty() {
        true => Err(OutboundFault::AddressProhibited),
        false => Ok(found),
    }
}

/// The first connection that comes about; each address gets its share of the time that is left.
async fn connect_to_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, OutboundFault> {
    let mut last = OutboundFault::Lookup;
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let share = left / (addresses.len() - tried) as u32;
        last = match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => OutboundFault::of_connection(&error),
            Err(_) => OutboundFault::ConnectTimeout,
        };
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::outbound::OutboundPolicy;

    fn target(granted: &[&str]) -> Target {
        let granted = granted.iter().map(|entry| (*entry).to_owned()).collect();
        let uri = "http://a.example/".parse().unwrap();
        Target::of(&uri, &granted, OutboundPolicy::Granted).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts
            .iter()
            .map(|text| format!("{text}:80").parse().unwrap())
            .collect()
    }

    #[test]
    fn of_a_names_addresses_those_that_are_not_public_are_passed_over() {
        let found = addresses(&["10.0.0.1", "1.1.1.1", "127.0.0.1"]);
        let by_name = target(&["a.example"]);
        assert_eq!(allowed(&by_name, found.clone()), Ok(addresses(&["1.1.1.1"])));
        let both = target(&["a.example", "10.0.0.1"]);
        assert_eq!(allowed(&both, found), Ok(addresses(&["10.0.0.1", "1.1.1.1"])));
    }

    #[test]
    fn a_name_with_private_addresses_alone_is_prohibited_and_one_with_none_not_found() {
        let by_name = target(&["a.example"]);
        let private = addresses(&["127.0.0.1", "169.254.169.254"]);
        assert_eq!(allowed(&by_name, private), Err(OutboundFault::AddressProhibited));
        assert_eq!(allowed(&by_name, Vec::new()), Err(OutboundFault::Lookup));
    }

    #[tokio::test]
    async fn an_address_where_nobody_listens_is_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (there, nobody) = (listener.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = connect_to_any(&[nobody, there], deadline).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        let refused = connect_to_any(&[nobody], deadline).await.unwrap_err();
        assert_eq!(refused, OutboundFault::Refused);
    }
}
