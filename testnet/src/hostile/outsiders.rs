//! Strangers without the secret: connections that say nothing, or stop in the middle of the handshake, or bring garbage,
//! or come and go as fast as they can; and peers with another secret.
//!
//! They come from an address of their own where the system has one. It refuses to hold more connections than this process
//! may have open.

use crate::chance;
use crate::hostile::attacker::Known;
use crate::hostile::tally::{Tally, count};
use anyhow::{Context, Result};
use driftmesh::PeerId;
use driftmesh::transport::{
    Event, Handler, Keypair, Received, Transport, TransportConfig, parse_address, random_incarnation,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Where strangers come from: on Linux all of 127.0.0.0/8 is this machine.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections to each peer that say nothing, and that stop in the middle: more than a peer lets wait of one address.
const SILENT: usize = 100;
const HALF_OPEN: usize = 60;
/// What a connection begins with whose handshake goes on: a name of a protocol, and then nothing.
const FIRST_WORDS: &[u8] = b"\x13/multistream/1.0.0\n";
/// Longest wait for a connection, and how long one is held at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const HELD_FOR: Duration = Duration::from_secs(15);
/// Pauses: between garbage, between those that come and go, between peers with another secret.
const GARBAGE_PAUSE: Duration = Duration::from_millis(20);
const COME_AND_GO_PAUSE: Duration = Duration::from_millis(2);
const WRONG_SECRET_PAUSE: Duration = Duration::from_millis(1_000);
/// Most bytes of garbage.
const GARBAGE_MAX: usize = 4_096;

/// The socket address of an address as peers tell it.
fn socket_of(address: &str) -> Result<SocketAddr> {
    let mut parts = address.split('/').skip(1);
    let (mut ip, mut port) = (None, None);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        match name {
            "ip4" | "ip6" => ip = value.parse::<IpAddr>().ok(),
            "tcp" => port = value.parse::<u16>().ok(),
            _ => {}
        }
    }
    let socket = ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
    socket.with_context(|| format!("{address} names no address and port"))
}

async fn connect(to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    // Where there is no such address, they come from the same one as the peers.
    let _ = socket.bind((STRANGER, 0).into());
    tokio::time::timeout(CONNECT_LIMIT, socket.connect(to)).await.ok()?.ok()
}

/// Holds a connection that says so much and no more, until it is closed or the time is over.
async fn hold(to: SocketAddr, words: &'static [u8], counter: impl Fn(), until: Instant) {
    while Instant::now() < until {
        if let Some(mut stream) = connect(to).await {
            counter();
            let _ = stream.write_all(words).await;
            let mut ignored = [0; 256];
            let left = until.saturating_duration_since(Instant::now()).min(HELD_FOR);
            let _ = tokio::time::timeout(left, async {
                while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
            })
            .await;
        }
        // Who is turned away at once tries again, and not in a tight loop.
        tokio::time::sleep(GARBAGE_PAUSE).await;
    }
}

async fn bring_garbage(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    let mut rng = chance::rng();
    while Instant::now() < until {
        if let Some(mut stream) = connect(to).await {
            count(&tally.garbage);
            let mut bytes = vec![0; rng.usize(1..GARBAGE_MAX)];
            rng.fill(&mut bytes);
            let _ = stream.write_all(&bytes).await;
        }
        tokio::time::sleep(GARBAGE_PAUSE).await;
    }
}

async fn come_and_go(to: SocketAddr, tally: Arc<Tally>, until: Instant) {
    while Instant::now() < until {
        if connect(to).await.is_some() {
            count(&tally.come_and_go);
        }
        tokio::time::sleep(COME_AND_GO_PAUSE).await;
    }
}

/// Hears nothing but whether anybody lets it in.
struct Deaf(Arc<Tally>);

impl Handler for Deaf {
    fn received(&self, _: PeerId, _: Vec<Vec<u8>>) -> Received {
        Received::default()
    }

    fn event(&self, event: Event) {
        if let Event::Admitted { peer, .. } = event {
            self.0.fault(format!("{peer} admitted a peer with another secret"));
        }
    }
}

async fn come_with_another_secret(known: Known, tally: Arc<Tally>, until: Instant) -> Result<()> {
    while Instant::now() < until {
        let join = known.addresses.iter().map(|address| Ok(parse_address(address)?)).collect::<Result<_>>()?;
        let config = TransportConfig {
            keypair: Keypair::generate_ed25519(),
            listen: Vec::new(),
            advertise: Vec::new(),
            join,
            mesh_name: known.mesh.clone(),
            genesis: None,
            expect: None,
            secret: Some(b"guessed".to_vec()),
            incarnation: random_incarnation(),
            hello: Vec::new(),
            mdns: false,
        };
        let transport = Transport::start(config, Arc::new(Deaf(Arc::clone(&tally)))).await?;
        count(&tally.wrong_secret);
        tokio::time::sleep(WRONG_SECRET_PAUSE).await;
        transport.shutdown().await;
    }
    Ok(())
}

/// All of it at once, at all peers, until the time is over.
pub(crate) async fn come(known: &Known, tally: &Arc<Tally>, until: Instant) -> Result<()> {
    let mut strangers = tokio::task::JoinSet::new();
    let counter = |tally: &Arc<Tally>, of: fn(&Tally) -> &AtomicU64| {
        let tally = Arc::clone(tally);
        move || count(of(&tally))
    };
    for address in &known.addresses {
        let to = socket_of(address)?;
        for _ in 0..SILENT {
            strangers.spawn(hold(to, b"", counter(tally, |tally| &tally.silent), until));
        }
        for _ in 0..HALF_OPEN {
            strangers.spawn(hold(to, FIRST_WORDS, counter(tally, |tally| &tally.half_open), until));
        }
        strangers.spawn(bring_garbage(to, Arc::clone(tally), until));
        strangers.spawn(come_and_go(to, Arc::clone(tally), until));
    }
    let guessing = come_with_another_secret(known.clone(), Arc::clone(tally), until).await;
    // Some may hang in a connection to a peer that is turned away.
    strangers.join_all().await;
    guessing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_peer_is_an_address_and_a_port() {
        let of = |address: &str| socket_of(address).ok();
        assert_eq!(of("/ip4/127.0.0.1/tcp/4001/p2p/12D3"), "127.0.0.1:4001".parse().ok());
        assert_eq!(of("/ip4/127.0.0.1/udp/4001"), None);
    }
}
