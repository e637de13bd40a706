//! Addresses of peers: what a user writes, and what a remote tells of itself or of others.
//!
//! It refuses everything that plain TCP cannot dial, with a message that shows what would be right. It does not
//! resolve names while it reads them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::bytes::Bytes;
use super::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, RESOLVE_TIMEOUT};

/// Longest host name, bytes (RFC 1035).
const HOST_NAME_BYTES_MAX: usize = 253;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Where a peer can be reached, and who is expected there, if that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerAddress {
    host: Host,
    port: u16,
    peer: Option<libp2p::PeerId>,
}

impl PeerAddress {
    /// The peer that is expected at the address, from its `/p2p/` part.
    #[must_use]
    pub const fn peer(&self) -> Option<&libp2p::PeerId> {
        self.peer.as_ref()
    }

    /// The addresses to dial, without the `/p2p/` part. Asks the system's resolver when the host is a name; waits
    /// 5 s at most. Cancel safe.
    ///
    /// # Errors
    /// When the name cannot be resolved.
    pub(super) async fn resolve(&self) -> Result<Vec<Multiaddr>, String> {
        let name = match &self.host {
            Host::Ip(ip) => return Ok(vec![multiaddress(*ip, self.port)]),
            Host::Name(name) => name,
        };
        let lookup = tokio::net::lookup_host((name.as_str(), self.port));
        let sockets = match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
            Ok(Ok(sockets)) => sockets,
            Ok(Err(error)) => return Err(format!("the name {name} cannot be resolved: {error}")),
            Err(_) => return Err(format!("resolving the name {name} took longer than {RESOLVE_TIMEOUT:?}")),
        };
        let addresses: Vec<Multiaddr> =
            sockets.take(ADDRESSES_MAX).map(|socket| multiaddress(socket.ip(), socket.port())).collect();
        if addresses.is_empty() {
            return Err(format!("the name {name} has no address"));
        }
        Ok(addresses)
    }

    /// The address as a multiaddress, for events; a name as `/dns/NAME`.
    pub(super) fn to_multiaddress(&self) -> Multiaddr {
        let address = match &self.host {
            Host::Ip(ip) => multiaddress(*ip, self.port),
            Host::Name(name) => {
                Multiaddr::empty().with(Protocol::Dns(name.as_str().into())).with(Protocol::Tcp(self.port))
            }
        };
        match self.peer {
            Some(peer) => address.with(Protocol::P2p(peer)),
            None => address,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_multiaddress().fmt(formatter)
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse_address(text)
    }
}

/// An address that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// Nothing is there.
    #[error("the address is empty; give HOST:PORT, for example 192.0.2.7:4000, or /ip4/192.0.2.7/tcp/4000")]
    Empty,
    /// The port is missing, not a number, 0, or above 65535.
    #[error("`{text}` has no valid port; end it with a port from 1 to 65535, for example {text_host}:4000")]
    Port {
        /// What was given.
        text: String,
        /// The part of it that looks like the host.
        text_host: String,
    },
    /// The host is neither an IP address nor a possible name.
    #[error("`{text}` has no valid host; give a name, an IPv4 address, or an IPv6 address in brackets like [::1]:4000")]
    Host {
        /// What was given.
        text: String,
    },
    /// It begins like a multiaddress and is none.
    #[error("`{text}` is not a multiaddress ({error}); it should look like /ip4/192.0.2.7/tcp/4000/p2p/PEER")]
    Multiaddress {
        /// What was given.
        text: String,
        /// What is wrong with it.
        error: String,
    },
    /// A multiaddress for something else than TCP.
    #[error(
        "`{text}` is not a TCP address; only /ip4/…/tcp/PORT, /ip6/…/tcp/PORT and /dns/…/tcp/PORT, each with or \
         without /p2p/PEER, can be dialled"
    )]
    NotTcp {
        /// What was given.
        text: String,
    },
}

/// Reads an address: a multiaddress with or without `/p2p/PEER`, or `HOST:PORT` where the host is a name, an IPv4
/// address, or an IPv6 address in brackets.
///
/// # Errors
/// When it is neither; the error says what would be right.
pub fn parse_address(text: &str) -> Result<PeerAddress, AddressError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    if text.starts_with('/') {
        return parse_multiaddress(text);
    }
    if let Ok(socket) = SocketAddr::from_str(text) {
        return with_port(text, Host::Ip(socket.ip()), socket.port());
    }
    let shown = || text.escape_debug().to_string();
    if IpAddr::from_str(text).is_ok_and(|ip| ip.is_ipv6()) {
        return Err(AddressError::Port { text: shown(), text_host: format!("[{text}]") });
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(AddressError::Port { text: shown(), text_host: shown() });
    };
    if !is_host_name(name) {
        return Err(AddressError::Host { text: shown() });
    }
    with_port(text, Host::Name(name.to_owned()), port.parse().unwrap_or(0))
}

fn with_port(text: &str, host: Host, port: u16) -> Result<PeerAddress, AddressError> {
    if port == 0 {
        let text_host = text.rsplit_once(':').map_or(text, |(name, _)| name).escape_debug().to_string();
        return Err(AddressError::Port { text: text.escape_debug().to_string(), text_host });
    }
    Ok(PeerAddress { host, port, peer: None })
}

fn is_host_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && name.len() <= HOST_NAME_BYTES_MAX && name.bytes().all(allowed)
}

fn parse_multiaddress(text: &str) -> Result<PeerAddress, AddressError> {
    let shown = || text.escape_debug().to_string();
    let address = Multiaddr::from_str(text)
        // It repeats parts of the text.
        .map_err(|error| AddressError::Multiaddress {
            text: shown(),
            error: error.to_string().escape_debug().to_string(),
        })?;
    let not_tcp = || AddressError::NotTcp { text: shown() };
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(ip)) => Host::Ip(ip.into()),
        Some(Protocol::Ip6(ip)) => Host::Ip(ip.into()),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) if is_host_name(&name) => {
            Host::Name(name.into_owned())
        }
        Some(_) | None => return Err(not_tcp()),
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return Err(not_tcp()) };
    let peer = match parts.next() {
        Some(Protocol::P2p(peer)) => Some(peer),
        None => None,
        Some(_) => return Err(not_tcp()),
    };
    if parts.next().is_some() {
        return Err(not_tcp());
    }
    if port == 0 {
        return Err(AddressError::Port { text: shown(), text_host: "HOST".to_owned() });
    }
    Ok(PeerAddress { host, port, peer })
}

fn multiaddress(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(port))
}

/// The IP address and port of a plain TCP multiaddress, with or without a `/p2p/` part.
pub(super) fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
        Some(_) | None => return None,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    let ends = match parts.next() {
        Some(Protocol::P2p(_)) => parts.next().is_none(),
        Some(_) => false,
        None => true,
    };
    ends.then_some(SocketAddr::new(ip, port))
}

/// Whether nobody outside this machine can use the address.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    let ip: IpAddr = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        Some(Protocol::Dns(name)) => return name == "localhost",
        Some(_) | None => return false,
    };
    ip.is_loopback()
}

/// The addresses that a remote told, as far as they can be dialled.
pub(super) fn from_remote(addresses: &[Bytes]) -> Vec<Multiaddr> {
    let mut dialable: Vec<Multiaddr> = Vec::new();
    for Bytes(bytes) in addresses.iter().take(ADDRESSES_MAX) {
        if bytes.len() > ADDRESS_BYTES_MAX {
            continue;
        }
        let Some(socket) = Multiaddr::try_from(bytes.clone()).ok().as_ref().and_then(socket) else { continue };
        let address = multiaddress(socket.ip(), socket.port());
        if socket.port() != 0 && !socket.ip().is_unspecified() && !dialable.contains(&address) {
            dialable.push(address);
        }
    }
    dialable
}

/// The addresses in the form in which they are told to a remote.
pub(super) fn to_remote(addresses: &[Multiaddr]) -> Vec<Bytes> {
    addresses
        .iter()
        .map(|address| Bytes(address.to_vec()))
        .filter(|Bytes(bytes)| bytes.len() <= ADDRESS_BYTES_MAX)
        .take(ADDRESSES_MAX)
        .collect()
}

/// The addresses of a peer that were told by somebody unknown, as far as they can be dialled.
pub(super) fn from_hearsay(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut dialable: Vec<Multiaddr> = Vec::new();
    for socket in addresses.iter().filter_map(socket) {
        let address = multiaddress(socket.ip(), socket.port());
        let is_usable = socket.port() != 0 && !socket.ip().is_unspecified();
        if is_usable && !dialable.contains(&address) && dialable.len() < ADDRESSES_MAX {
            dialable.push(address);
        }
    }
    without_loopback(dialable)
}

/// Leaves out loopback addresses when there are others: they may lead back here.
fn without_loopback(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    if !addresses.iter().all(is_loopback) {
        addresses.retain(|address| !is_loopback(address));
    }
    addresses
}

/// Leaves out loopback addresses that came from another machine when there are others: they would lead back here.
pub(super) fn without_foreign_loopback(addresses: Vec<Multiaddr>, teller: Option<&Multiaddr>) -> Vec<Multiaddr> {
    let is_foreign = teller.and_then(socket).is_some_and(|socket| !socket.ip().is_loopback());
    if is_foreign { without_loopback(addresses) } else { addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_allowed_forms_are_read() {
        let peer = libp2p::PeerId::random();
        let table = [
            ("127.0.0.1:4000".to_owned(), "/ip4/127.0.0.1/tcp/4000".to_owned()),
            (" [::1]:4000 ".to_owned(), "/ip6/::1/tcp/4000".to_owned()),
            ("seed.example.org:1".to_owned(), "/dns/seed.example.org/tcp/1".to_owned()),
            ("/ip4/192.0.2.7/tcp/4000".to_owned(), "/ip4/192.0.2.7/tcp/4000".to_owned()),
            ("/dns4/a-b/tcp/65535".to_owned(), "/dns/a-b/tcp/65535".to_owned()),
            (format!("/ip6/::1/tcp/4000/p2p/{peer}"), format!("/ip6/::1/tcp/4000/p2p/{peer}")),
        ];
        for (text, shown) in table {
            assert_eq!(parse_address(&text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn wrong_forms_are_refused_with_what_would_be_right() {
        for (text, part) in [
            ("", "HOST:PORT"),
            ("host", "host:4000"),
            ("host:0", "1 to 65535"),
            ("host:65536", "1 to 65535"),
            ("host:http", "1 to 65535"),
            ("::1", "[::1]:4000"),
            ("a b:4000", "no valid host"),
            (":4000", "no valid host"),
            ("\u{1b}[31m:1", "\\u{1b}"),
            ("/ip4/1.2.3/tcp/1", "not a multiaddress"),
            ("/ip4/1.2.3.4/t\u{1b}cp/1", "unknown protocol string: t\\u{1b}cp"),
            ("/ip4/1.2.3.4/udp/1", "not a TCP address"),
            ("/ip4/1.2.3.4/tcp/1/ws", "not a TCP address"),
            ("/ip4/1.2.3.4/tcp/0", "1 to 65535"),
        ] {
            let error = parse_address(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_a_remote_tells_is_filtered() {
        let bytes = |text: &str| Bytes(text.parse::<Multiaddr>().unwrap().to_vec());
        let told = [
            bytes("/ip4/192.0.2.7/tcp/4000"),
            bytes("/ip4/192.0.2.7/tcp/4000"),
            bytes("/ip4/0.0.0.0/tcp/4000"),
            bytes("/ip4/192.0.2.7/tcp/0"),
            bytes("/ip4/192.0.2.7/udp/4000"),
            bytes("/dns/example.org/tcp/4000"),
            Bytes(vec![0xff; 40]),
            Bytes(vec![0; ADDRESS_BYTES_MAX + 1]),
            bytes("/ip4/127.0.0.1/tcp/4000"),
        ];
        let addresses = from_remote(&told);
        assert_eq!(addresses.len(), 2);
        let teller = "/ip4/192.0.2.9/tcp/1".parse().unwrap();
        assert_eq!(without_foreign_loopback(addresses, Some(&teller)).len(), 1);
    }

    #[tokio::test]
    async fn names_are_resolved() {
        let addresses = parse_address("localhost:4000").unwrap().resolve().await.unwrap();
        assert!(addresses.iter().all(|address| socket(address).is_some_and(|socket| socket.ip().is_loopback())));
    }
}
