//! Who is connected, and how joining goes: what `wait_for_peers` and the start of a joining peer wait for.
//!
//! It refuses to give up on what may pass: only refusals that another try cannot change end a join early.

use crate::StartError;
use crate::addresses::{place, places};
use crate::transport::{PeerAddress, RefuseReason};
use driftmesh_model::PeerId;
use libp2p::Multiaddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;

/// Most places whose troubles are remembered; there are at most as many join addresses, each with a few places.
const PLACES_MAX: usize = 1_024;

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
    was_admitted: bool,
    /// Until the first admission only.
    troubles: BTreeMap<Multiaddr, Trouble>,
}

/// The state of a peer's membership.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// Where this peer was told to join, with what to call it.
    seeds: Vec<Multiaddr>,
    /// Belongs to a mesh without anybody's admission.
    founds: bool,
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
        | RefuseReason::TooManyPeers
        | RefuseReason::HandshakeTimeout
        | RefuseReason::Malformed(_)
        | RefuseReason::DuplicateIncarnation
        | RefuseReason::ShuttingDown
        | RefuseReason::ConnectionLost => false,
    }
}

impl Joining {
    /// A peer that founds a mesh, or is to join one: by these addresses, or by mDNS when there are none.
    pub(crate) fn new(seeds: &[PeerAddress], founds: bool) -> Self {
        // What a peer address displays is a multiaddress.
        let seeds = seeds.iter().filter_map(|seed| seed.to_string().parse().ok()).collect();
        Self { seeds, founds, state: watch::Sender::default() }
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
        if self.founds {
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
            if state.was_admitted {
                return Ok(());
            }
            if let Some(refused) = self.refused_by_all(&state).await {
                return Err(refused);
            }
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    async fn trouble_of(&self, seed: &Multiaddr, state: &State) -> Option<Trouble> {
        let places = places(seed).await;
        let troubles = || places.iter().filter_map(|place| state.troubles.get(place));
        let refused = troubles().find(|trouble| matches!(trouble, Trouble::Refused(_)));
        refused.or_else(|| troubles().next()).cloned()
    }

    async fn refused_by_all(&self, state: &State) -> Option<StartError> {
        let mut first = None;
        for seed in &self.seeds {
            let Some(Trouble::Refused(reason)) = self.trouble_of(seed, state).await else { return None };
            first.get_or_insert(StartError::Refused { address: seed.to_string(), reason });
        }
        first
    }

    /// What each join address last said.
    pub(crate) async fn tried(&self) -> Vec<String> {
        let state = self.state.borrow().clone();
        let mut tried = Vec::new();
        if self.seeds.is_empty() {
            tried.push("mDNS has found none on this network yet".to_owned());
        }
        for seed in &self.seeds {
            tried.push(match self.trouble_of(seed, &state).await {
                Some(Trouble::Refused(reason)) => format!("{seed}: {reason}"),
                Some(Trouble::Passing(error)) => format!("{seed}: {error}"),
                None => format!("{seed}: no answer yet"),
            });
        }
        tried
    }

    async fn give_up(&self, after: Duration) -> StartError {
        let state = self.state.borrow().clone();
        for seed in &self.seeds {
            if let Some(Trouble::Refused(reason)) = self.trouble_of(seed, &state).await {
                return StartError::Refused { address: seed.to_string(), reason };
            }
        }
        StartError::Unreachable { after, tried: self.tried().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(seeds: &[&str]) -> Joining {
        let seeds: Vec<PeerAddress> = seeds.iter().map(|seed| seed.parse().unwrap()).collect();
        Joining::new(&seeds, false)
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
    async fn what_may_pass_is_waited_for() {
        let joining = joining(&["127.0.0.1:4000"]);
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/4000".parse().unwrap();
        joining.refused(&address, RefuseReason::NoMeshYet);
        joining.unreachable(&address, "connection refused".to_owned());
        let ended = joining.joined(Some(Duration::from_millis(1))).await;
        let Err(StartError::Unreachable { tried, .. }) = ended else { panic!("{ended:?}") };
        assert_eq!(tried, ["/ip4/127.0.0.1/tcp/4000: connection refused"]);
        joining.admitted(PeerId::from_bytes([7; 32]));
        assert_eq!(joining.joined(None).await, Ok(()));
    }
}
