//! Where the bots believe each player to be: what they choose from.
//!
//! A player is where an order last sent him; the mesh may know better, and a trade there brings him. Players of a dead
//! peer are out of reach until a bot that looks after them has reached them: nobody else chooses them. It refuses to ask
//! the mesh.

use fastrand::Rng;

/// How often another player is drawn before nobody is found.
const CHOICES_MAX: usize = 64;

/// The players by the peers they are at. Players and peers are named by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Places {
    players: Vec<Player>,
    /// The players at each peer, without those out of reach, in no order.
    at: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Player {
    peer: usize,
    /// Where he stands in the peer's list.
    slot: usize,
    /// Where his last commit was.
    confirmed: usize,
    /// Whether he is out of reach.
    is_away: bool,
}

impl Places {
    /// So many players at each peer, numbered in this order.
    pub(crate) fn new(shares: &[usize]) -> Self {
        let mut places = Self { players: Vec::new(), at: vec![Vec::new(); shares.len()] };
        for (peer, share) in shares.iter().enumerate() {
            for slot in 0..*share {
                places.at[peer].push(number(places.players.len()));
                places.players.push(Player { peer, slot, confirmed: peer, is_away: false });
            }
        }
        places
    }

    /// Makes room for a peer, at which nobody is unless it is known.
    pub(crate) fn make_room_for(&mut self, peer: usize) {
        if self.at.len() <= peer {
            self.at.resize(peer + 1, Vec::new());
        }
    }

    /// Whether a player is out of reach.
    pub(crate) fn is_away(&self, player: u32) -> bool {
        self.player(player).is_away
    }

    /// One of all players by chance, other than `not`; nobody when the one drawn is out of reach.
    pub(crate) fn choose_any(&self, not: u32, rng: &mut Rng) -> Option<u32> {
        let chosen = (!self.players.is_empty()).then(|| number(rng.usize(..self.players.len())))?;
        (chosen != not && !self.is_away(chosen)).then_some(chosen)
    }

    /// How many players there are.
    pub(crate) fn len(&self) -> usize {
        self.players.len()
    }

    /// The players at a peer.
    pub(crate) fn at(&self, peer: usize) -> &[u32] {
        // A peer that nobody is at need not be known.
        self.at.get(peer).map_or(&[], Vec::as_slice)
    }

    /// The players who are at a peer and whose last commit was there: it owns them, for all that is known outside.
    pub(crate) fn owned(&self, peer: usize) -> impl Iterator<Item = u32> {
        self.at(peer).iter().copied().filter(move |player| self.player(*player).confirmed == peer)
    }

    /// One of the players at a peer by chance, other than `not`.
    pub(crate) fn choose(&self, peer: usize, not: Option<u32>, rng: &mut Rng) -> Option<u32> {
        let there = self.at(peer);
        if there.is_empty() {
            return None;
        }
        (0..CHOICES_MAX).map(|_| there[rng.usize(..there.len())]).find(|player| Some(*player) != not)
    }

    /// Notes that a player is sent to a peer.
    pub(crate) fn send(&mut self, player: u32, peer: usize) {
        let Player { peer: before, is_away, .. } = self.player(player);
        if before == peer || is_away {
            return;
        }
        self.take_off_list(player);
        self.put_on_list(player, peer);
    }

    /// Notes that a player is out of reach.
    pub(crate) fn lose(&mut self, player: u32) {
        if !self.is_away(player) {
            self.take_off_list(player);
            self.players[index(player)].is_away = true;
        }
    }

    /// Notes that a trade reached a player at a peer.
    pub(crate) fn reached(&mut self, player: u32, peer: usize) {
        if std::mem::take(&mut self.players[index(player)].is_away) {
            self.put_on_list(player, peer);
        }
    }

    /// Notes that a commit of a player was answered at a peer.
    pub(crate) fn confirm(&mut self, player: u32, peer: usize) {
        self.players[index(player)].confirmed = peer;
    }

    fn take_off_list(&mut self, player: u32) {
        let Player { peer, slot, .. } = self.player(player);
        self.at[peer].swap_remove(slot);
        if let Some(moved) = self.at[peer].get(slot).copied() {
            self.players[index(moved)].slot = slot;
        }
    }

    fn put_on_list(&mut self, player: u32, peer: usize) {
        let place = &mut self.players[index(player)];
        (place.peer, place.slot) = (peer, self.at[peer].len());
        self.at[peer].push(player);
    }

    fn player(&self, player: u32) -> Player {
        self.players[index(player)]
    }
}

/// A player's number as a place in a list.
pub(crate) fn index(player: u32) -> usize {
    usize::try_from(player).unwrap_or(usize::MAX)
}

fn number(index: usize) -> u32 {
    // The command line refuses worlds beyond a million players.
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_are_where_they_were_sent_last() {
        let mut places = Places::new(&[3, 2]);
        places.send(0, 1);
        places.send(0, 1);
        places.send(4, 0);
        assert_eq!((places.at(0), places.at(1)), (&[2, 1, 4][..], &[3, 0][..]));
        places.make_room_for(2);
        for player in 0..5 {
            places.send(player, 2);
        }
        assert!(places.at(0).is_empty() && places.at(1).is_empty());
        assert_eq!(places.at(2).len(), 5);
    }

    #[test]
    fn nobody_chooses_who_is_out_of_reach() {
        let mut places = Places::new(&[3]);
        places.lose(1);
        places.lose(1);
        places.send(1, 0);
        let mut rng = Rng::with_seed(1);
        assert!((0..100).all(|_| places.choose(0, None, &mut rng) != Some(1)));
        assert!((0..100).all(|_| places.choose_any(0, &mut rng).is_none_or(|player| player == 2)));
        places.reached(1, 0);
        places.reached(1, 0);
        assert_eq!(places.at(0), [0, 2, 1]);
    }

    #[test]
    fn a_peer_owns_who_is_there_and_had_a_commit_there() {
        let mut places = Places::new(&[2, 1]);
        places.send(2, 0);
        assert_eq!(places.owned(0).collect::<Vec<_>>(), [0, 1]);
        places.confirm(2, 0);
        assert_eq!(places.owned(0).collect::<Vec<_>>(), [0, 1, 2]);
        places.send(0, 1);
        assert_eq!(places.owned(1).count(), 0);
    }

    #[test]
    fn everybody_there_can_be_chosen_and_nobody_else() {
        let places = Places::new(&[3, 2]);
        let mut rng = Rng::with_seed(1);
        let mut chosen: Vec<u32> = (0..100).filter_map(|_| places.choose(0, Some(1), &mut rng)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen, [0, 2]);
        assert_eq!(Places::new(&[1]).choose(0, Some(0), &mut rng), None);
        assert_eq!(Places::new(&[0]).choose(0, None, &mut rng), None);
    }
}
