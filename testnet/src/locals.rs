//! The players that are believed to be at this peer: what its bots choose from.

use driftmesh::ObjectId;
use fastrand::Rng;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A list with a random choice, each player in it once. Shared by the bots of one peer.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    players: Vec<ObjectId>,
    places: HashMap<ObjectId, usize>,
}

impl Locals {
    /// A list of these players.
    pub(crate) fn new(players: &[ObjectId]) -> Self {
        let locals = Self::default();
        for player in players {
            locals.add(*player);
        }
        locals
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No change below can panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a player who came.
    pub(crate) fn add(&self, player: ObjectId) {
        let mut inner = self.lock();
        let place = inner.players.len();
        if inner.places.contains_key(&player) {
            return;
        }
        inner.places.insert(player, place);
        inner.players.push(player);
    }

    /// Drops a player who has gone.
    pub(crate) fn remove(&self, player: ObjectId) {
        let mut inner = self.lock();
        let Some(place) = inner.places.remove(&player) else { return };
        inner.players.swap_remove(place);
        if let Some(moved) = inner.players.get(place).copied() {
            inner.places.insert(moved, place);
        }
    }

    /// One of them by chance.
    pub(crate) fn choose(&self, rng: &mut Rng) -> Option<ObjectId> {
        let inner = self.lock();
        if inner.players.is_empty() { None } else { Some(inner.players[rng.usize(..inner.players.len())]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_player_is_in_it_once_and_can_be_chosen_until_removed() {
        let players: Vec<ObjectId> = (0..10).map(ObjectId::from_u128).collect();
        let locals = Locals::new(&players);
        locals.add(players[3]);
        locals.remove(players[0]);
        locals.remove(players[9]);
        locals.remove(players[9]);
        let mut rng = Rng::with_seed(1);
        let chosen: std::collections::BTreeSet<ObjectId> = (0..1_000).filter_map(|_| locals.choose(&mut rng)).collect();
        assert_eq!(chosen.into_iter().collect::<Vec<_>>(), players[1..9]);
        for player in &players {
            locals.remove(*player);
        }
        assert_eq!(locals.choose(&mut rng), None);
    }
}
