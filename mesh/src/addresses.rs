//! Addresses to listen at and to advertise, as a user writes them, and whether they stay on this machine.
//!
//! It refuses what plain TCP cannot use, and to wait for a resolver that does not answer. Addresses to join are read by
//! the transport.

use crate::StartError;
pub(crate) use crate::transport::is_loopback;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How long resolving a name may take; then it stands for itself only.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Reads an address to listen at: `/ip4/ADDRESS/tcp/PORT`, `/ip6/ADDRESS/tcp/PORT` or `ADDRESS:PORT`. Port 0 lets
/// the operating system choose.
///
/// # Errors
/// When it is neither.
pub(crate) fn parse_listen(text: &str) -> Result<Multiaddr, StartError> {
    let wrong = || StartError::ListenAddress { text: text.escape_debug().to_string() };
    let text = text.trim();
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port())));
    }
    let address: Multiaddr = text.parse().map_err(|_| wrong())?;
    let mut parts = address.iter();
    let is_ip = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)));
    let is_tcp = matches!(parts.next(), Some(Protocol::Tcp(_)));
    if is_ip && is_tcp && parts.next().is_none() { Ok(address) } else { Err(wrong()) }
}

/// The address without its `/p2p/` part: addresses of one place are equal then, whoever is expected there.
pub(crate) fn place(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// The places that an address stands for now: itself, and what its name resolves to within 2 s.
pub(crate) async fn places(address: &Multiaddr) -> Vec<Multiaddr> {
    let own = place(address);
    let mut parts = own.iter();
    let mut places = Vec::new();
    if let (Some(Protocol::Dns(name)), Some(Protocol::Tcp(port))) = (parts.next(), parts.next()) {
        let sockets = in_time(tokio::net::lookup_host((name.as_ref(), port))).await;
        places.extend(sockets.map(|socket| Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))));
    }
    places.push(own);
    places
}

/// What a resolver answers in time; nothing else.
async fn in_time<A: Iterator<Item = SocketAddr>>(
    lookup: impl Future<Output = io::Result<A>>,
) -> impl Iterator<Item = SocketAddr> {
    let answered = tokio::time::timeout(RESOLVE_MAX, lookup).await;
    answered.ok().and_then(Result::ok).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_or_refused_with_what_would_be_right() {
        for (text, read) in [
            ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0"),
            (" 127.0.0.1:4000 ", "/ip4/127.0.0.1/tcp/4000"),
            ("[::1]:0", "/ip6/::1/tcp/0"),
        ] {
            assert_eq!(parse_listen(text).unwrap().to_string(), read);
        }
        for text in ["", "4000", "host:4000", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/ws", "/ip4/1.2.3.4"] {
            assert!(parse_listen(text).unwrap_err().to_string().contains("/tcp/PORT"), "{text}");
        }
    }

    #[test]
    fn only_loopback_is_loopback() {
        for (text, loopback) in [
            ("/ip4/127.0.0.1/tcp/1", true),
            ("/ip4/127.8.0.1/tcp/1", true),
            ("/ip6/::1/tcp/1", true),
            ("/dns/localhost/tcp/1", true),
            ("/ip4/0.0.0.0/tcp/1", false),
            ("/ip6/::/tcp/1", false),
            ("/dns/localhost.example.org/tcp/1", false),
            ("/ip4/192.0.2.7/tcp/1", false),
        ] {
            assert_eq!(is_loopback(&text.parse().unwrap()), loopback, "{text}");
        }
    }

    #[tokio::test]
    async fn a_resolver_that_does_not_answer_is_not_waited_for() {
        let silent = std::future::pending::<io::Result<std::vec::IntoIter<SocketAddr>>>();
        let resolved = tokio::time::timeout(Duration::from_secs(60), in_time(silent)).await;
        assert_eq!(resolved.map(Iterator::count), Ok(0));
    }

    #[tokio::test]
    async fn a_name_stands_for_its_addresses() {
        let places = places(&"/dns/localhost/tcp/4000".parse().unwrap()).await;
        assert!(places.len() > 1 && places.iter().all(is_loopback));
    }
}
