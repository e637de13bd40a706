//! Who is connected, and how joining goes: what `wait_for_peers` and the start of a peer wait for.
//!
//! It refuses to give up on what may pass: only refusals that another try cannot change end a join early.

use crate::StartError;
use crate::addresses::{place, places};
use crate::transport::{PeerAddress, RefuseReason};
use driftmesh_model::PeerId;
use futures::future::join_all;
use libp2p::Multiaddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;

/// Most places whose troubles are remembered; there are at most as many join addresses, each with a few places.
const PLACES_MAX: usize = 1_024;

/// How a peer comes to belong to a mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Way {
    /// It founds one by itself.
    #[default]
    Found,
    /// It joins one, by the addresses that it was given or by being found, and never founds one.
    Join,
    /// It joins one, or founds one together with others.
    Expect,
}

/// What was last heard from a place.
#[derive(Clone, Debug)]
enum Trouble {
    /// It refuses, and will go on to.
    Refused(RefuseReason),
    /// It may pass.
    Passing(String),
}

#[derive(Clone, Debug, Default)]
struct State {
    members: BTreeSet<PeerId>,
    /// Whether it was ever admitted, or is the first of a mesh.
    was_admitted: bool,
    /// Whether some member is known to count on this peer, or it is the first of a mesh.
    is_counted: bool,
    /// How many peers wait for the mesh to be founded, this one included.
    found: usize,
    /// Until the first admission only.
    troubles: BTreeMap<Multiaddr, Trouble>,
}

/// The state of a peer's membership.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    way: Way,
    /// Where this peer was told to join, with what to call it.
    seeds: Vec<Multiaddr>,
    state: watch::Sender<State>,
}

/// Whether another try would end the same way, as long as nobody changes a setting.
const fn is_final(reason: &RefuseReason) -> bool {
    match reason {
        RefuseReason::WrongMeshName { .. }
        | RefuseReason::WrongSecret
        | RefuseReason::OtherGenesis { .. }
        | RefuseReason::ProtocolVersion { .. }
        | RefuseReason::NotDriftmesh
        | RefuseReason::SelfConnect
        | RefuseReason::WrongPeer { .. }
        | RefuseReason::UnknownIdentity => true,
        RefuseReason::NoMeshYet
        | RefuseReason::OtherExpect { .. }
        | RefuseReason::TooManyPeers
        | RefuseReason::HandshakeTimeout
        | RefuseReason::Malformed(_)
        | RefuseReason::DuplicateIncarnation
        | RefuseReason::ShuttingDown
        | RefuseReason::Dropped { .. }
        | RefuseReason::ConnectionLost => false,
    }
}

async fn trouble_of(seed: &Multiaddr, state: &State) -> Option<Trouble> {
    let places = places(seed).await;
    let troubles = || places.iter().filter_map(|place| state.troubles.get(place));
    let refused = troubles().find(|trouble| matches!(trouble, Trouble::Refused(_)));
    refused.or_else(|| troubles().next()).cloned()
}

impl Joining {
    /// A peer that is to come to a mesh in this way, by these addresses where it has any.
    pub(crate) fn new(way: Way, seeds: &[PeerAddress]) -> Self {
        // What a peer address displays is a multiaddress.
        let seeds = seeds.iter().filter_map(|seed| seed.to_string().parse().ok()).collect();
        let found = usize::from(way == Way::Expect);
        Self { way, seeds, state: watch::Sender::new(State { found, ..State::default() }) }
    }

    pub(crate) fn is_member(&self, peer: &PeerId) -> bool {
        self.state.borrow().members.contains(peer)
    }

    pub(crate) fn members(&self) -> Vec<PeerId> {
        self.state.borrow().members.iter().copied().collect()
    }

    /// Returns how many are connected now.
    pub(crate) fn admitted(&self, peer: PeerId) -> usize {
        self.change(|state| {
            state.was_admitted = true;
            state.troubles.clear();
            state.members.insert(peer);
            state.members.len()
        })
    }

    /// A member has said something, so it counts on this peer: what this one makes from now on, nobody can take for
    /// absent (R4). Before, it might be asked about by nobody.
    pub(crate) fn heard(&self, peer: &PeerId) {
        let is_news = |state: &State| !state.is_counted && state.members.contains(peer);
        if is_news(&self.state.borrow()) {
            self.change(|state| state.is_counted = true);
        }
    }

    /// This peer is the first of its mesh.
    pub(crate) fn founded(&self) {
        self.change(|state| {
            state.was_admitted = true;
            state.is_counted = true;
            state.troubles.clear();
        });
    }

    /// So many peers wait for the mesh to be founded. Returns whether that is another number than before.
    pub(crate) fn found(&self, found: usize) -> bool {
        self.change(|state| {
            let before = std::mem::replace(&mut state.found, found);
            if before < found {
                // One that could not be dialled may have come by itself. What still fails is told again, but the own
                // address is not.
                let is_own = |trouble: &Trouble| matches!(trouble, Trouble::Refused(RefuseReason::SelfConnect));
                state.troubles.retain(|_, trouble| is_own(trouble));
            }
            before != found
        })
    }

    /// How many peers wait for the mesh to be founded, this one included; 0 when it does not, or not any more.
    pub(crate) fn fresh_peers(&self) -> usize {
        let state = self.state.borrow();
        if state.was_admitted { 0 } else { state.found }
    }

    /// Returns how many are connected now.
    pub(crate) fn left(&self, peer: &PeerId) -> usize {
        self.change(|state| {
            state.members.remove(peer);
            state.members.len()
        })
    }

    pub(crate) fn refused(&self, address: &Multiaddr, reason: RefuseReason) {
        let trouble = if is_final(&reason) { Trouble::Refused(reason) } else { Trouble::Passing(reason.to_string()) };
        self.trouble(address, trouble);
    }

    pub(crate) fn unreachable(&self, address: &Multiaddr, error: String) {
        self.trouble(address, Trouble::Passing(error));
    }

    fn trouble(&self, address: &Multiaddr, trouble: Trouble) {
        self.change(|state| {
            let place = place(address);
            if !state.was_admitted && (state.troubles.len() < PLACES_MAX || state.troubles.contains_key(&place)) {
                state.troubles.insert(place, trouble);
            }
        });
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.expect("send_modify calls its closure once")
    }

    /// Waits until at least so many other peers are connected. Cancel safe.
    pub(crate) async fn wait_for_peers(&self, others: usize) {
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = self.state.subscribe().wait_for(|state| state.members.len() >= others).await;
    }

    /// Waits until a peer has admitted this one, which happens at most once. Cancel safe.
    ///
    /// # Errors
    /// `Refused` when every join address refuses for good, `Unreachable` after `limit`.
    pub(crate) async fn joined(&self, limit: Option<Duration>) -> Result<(), StartError> {
        if self.way == Way::Found {
            return Ok(());
        }
        match limit {
            None => self.admitted_or_refused().await,
            Some(limit) => match tokio::time::timeout(limit, self.admitted_or_refused()).await {
                Ok(ended) => ended,
                Err(_) => Err(self.give_up(limit).await),
            },
        }
    }

    async fn admitted_or_refused(&self) -> Result<(), StartError> {
        let mut changes = self.state.subscribe();
        loop {
            let state = changes.borrow_and_update().clone();
            if state.is_counted {
                return Ok(());
            }
            if let Some(refused) = self.refused_by_all(&state).await {
                return Err(refused);
            }
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// What was last heard from each join address. All names are resolved at once: each may take its time.
    async fn troubles(&self, state: &State) -> Vec<(&Multiaddr, Option<Trouble>)> {
        join_all(self.seeds.iter().map(|seed| async move { (seed, trouble_of(seed, state).await) })).await
    }

    /// Whether the refusal means nothing: all peers of a founding may be given the same addresses, their own included.
    fn is_own_seed(&self, reason: &RefuseReason) -> bool {
        self.way == Way::Expect && *reason == RefuseReason::SelfConnect
    }

    async fn refused_by_all(&self, state: &State) -> Option<StartError> {
        let mut first = None;
        for (seed, trouble) in self.troubles(state).await {
            let Some(Trouble::Refused(reason)) = trouble else { return None };
            if self.is_own_seed(&reason) {
                continue;
            }
            first.get_or_insert(StartError::Refused { address: seed.to_string(), reason });
        }
        first
    }

    /// What each join address last said.
    pub(crate) async fn tried(&self) -> Vec<String> {
        let state = self.state.borrow().clone();
        self.told_of(self.troubles(&state).await)
    }

    fn told_of(&self, troubles: Vec<(&Multiaddr, Option<Trouble>)>) -> Vec<String> {
        let mut tried = Vec::new();
        if self.seeds.is_empty() && self.way == Way::Join {
            tried.push("no address was given, and none was found on the network or has found this peer".to_owned());
        }
        for (seed, trouble) in troubles {
            tried.push(match trouble {
                Some(Trouble::Refused(reason)) if self.is_own_seed(&reason) => continue,
                Some(Trouble::Refused(reason)) => format!("{seed}: {reason}"),
                Some(Trouble::Passing(error)) => format!("{seed}: {error}"),
                // It may be one of those that were found.
                None if self.way == Way::Expect => continue,
                None => format!("{seed}: no answer yet"),
            });
        }
        tried
    }

    async fn give_up(&self, after: Duration) -> StartError {
        let state = self.state.borrow().clone();
        let troubles = self.troubles(&state).await;
        for (seed, trouble) in &troubles {
            if let Some(Trouble::Refused(reason)) = trouble
                && !self.is_own_seed(reason)
            {
                return StartError::Refused { address: seed.to_string(), reason: reason.clone() };
            }
        }
        match self.way {
            Way::Found | Way::Join => StartError::Unreachable { after, tried: self.told_of(troubles) },
            Way::Expect => StartError::NotFounded { after, found: state.found },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(seeds: &[&str]) -> Joining {
        let seeds: Vec<PeerAddress> = seeds.iter().map(|seed| seed.parse().unwrap()).collect();
        Joining::new(Way::Join, &seeds)
    }

    #[tokio::test]
    async fn one_refusing_seed_of_two_does_not_end_the_join() {
        let joining = joining(&["127.0.0.1:4000", "localhost:4001"]);
        joining.refused(&"/ip4/127.0.0.1/tcp/4000".parse().unwrap(), RefuseReason::WrongSecret);
        let waited = joining.joined(Some(Duration::from_millis(1))).await;
        assert!(matches!(waited, Err(StartError::Refused { .. })), "told at the end of the time");
        let state = joining.state.borrow().clone();
        assert_eq!(joining.refused_by_all(&state).await, None);
        joining.refused(&"/ip4/127.0.0.1/tcp/4001".parse().unwrap(), RefuseReason::WrongSecret);
        let ended = joining.joined(None).await;
        assert!(matches!(ended, Err(StartError::Refused { reason: RefuseReason::WrongSecret, .. })));
    }

    #[tokio::test]
    async fn a_peer_that_was_given_its_own_address_waits_for_the_others() {
        let joining =
            Joining::new(Way::Expect, &["127.0.0.1:4000".parse().unwrap(), "127.0.0.1:4001".parse().unwrap()]);
        joining.refused(&"/ip4/127.0.0.1/tcp/4000".parse().unwrap(), RefuseReason::SelfConnect);
        joining.unreachable(&"/ip4/127.0.0.1/tcp/4001".parse().unwrap(), "connection refused".to_owned());
        assert_eq!(joining.tried().await, ["/ip4/127.0.0.1/tcp/4001: connection refused"]);
        assert!(joining.found(2) && !joining.found(2));
        assert!(joining.tried().await.is_empty(), "it may be who was found");
        let after = Duration::from_millis(1);
        assert_eq!(joining.joined(Some(after)).await, Err(StartError::NotFounded { after, found: 2 }));
        joining.refused(&"/ip4/127.0.0.1/tcp/4001".parse().unwrap(), RefuseReason::WrongSecret);
        assert!(matches!(joining.joined(None).await, Err(StartError::Refused { .. })), "the other refuses for good");
        joining.founded();
        assert_eq!(joining.joined(None).await, Ok(()));
    }

    #[tokio::test]
    async fn what_may_pass_is_waited_for() {
        let joining = joining(&["127.0.0.1:4000"]);
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/4000".parse().unwrap();
        joining.refused(&address, RefuseReason::NoMeshYet);
        joining.unreachable(&address, "connection refused".to_owned());
        let ended = joining.joined(Some(Duration::from_millis(1))).await;
        let Err(StartError::Unreachable { tried, .. }) = ended else { panic!("{ended:?}") };
        assert_eq!(tried, ["/ip4/127.0.0.1/tcp/4000: connection refused"]);
        let peer = PeerId::from_bytes([7; 32]);
        joining.heard(&peer);
        joining.admitted(peer);
        // Who has not said anything may not know this peer yet.
        assert!(joining.joined(Some(Duration::from_millis(1))).await.is_err());
        joining.heard(&peer);
        assert_eq!(joining.joined(None).await, Ok(()));
    }
}
