//! How long the players of a killed peer are out of reach, as their bots see it.
//!
//! A player counts whom the dead peer owned for all that was known outside, and whom a bot tried within a second of the
//! kill: one who is tried later would add the time in which nobody wanted him. He is back with the first commit of his
//! that another peer answers. It refuses to count who had left before the kill.

use crate::places::index;
use std::time::{Duration, Instant};

/// Share of the tried players who must be back.
const MOST: f64 = 0.99;

/// Who is tried later after a kill does not count.
const TRIED_WITHIN: Duration = Duration::from_secs(1);

/// What is watched after each kill.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    kills: Vec<Kill>,
    /// For each player who is not back yet, the kill since which he is watched, counted from 1.
    watched: Vec<u32>,
    /// Who of them was tried in time.
    tried: Vec<bool>,
}

#[derive(Debug)]
struct Kill {
    at: Instant,
    peer: usize,
    /// Who was tried and is not back.
    missed: u64,
    back: Vec<Duration>,
}

/// What one kill came to; `None` where it never came so far.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Recovered {
    /// From the kill to the first commit of a player of the dead peer.
    pub(crate) first: Option<Duration>,
    /// From the kill until 99 % of those players that bots tried were back.
    pub(crate) most: Option<Duration>,
    /// How many players were tried and never came back.
    pub(crate) missed: u64,
}

impl Recovery {
    /// For a world of so many players.
    pub(crate) fn new(players: usize) -> Self {
        Self { kills: Vec::new(), watched: vec![0; players], tried: vec![false; players] }
    }

    /// A peer was killed that owned these players.
    pub(crate) fn killed(&mut self, peer: usize, owned: impl Iterator<Item = u32>, at: Instant) {
        self.kills.push(Kill { at, peer, missed: 0, back: Vec::new() });
        let kill = u32::try_from(self.kills.len()).unwrap_or(u32::MAX);
        for player in owned {
            let watched = &mut self.watched[index(player)];
            if *watched == 0 {
                *watched = kill;
                self.tried[index(player)] = false;
            }
        }
    }

    /// A bot sends an order to a peer that names a player. What still goes to the dead one counts for nothing.
    pub(crate) fn tried(&mut self, player: u32, peer: usize, now: impl FnOnce() -> Instant) {
        let was_tried = self.tried[index(player)];
        if let Some(kill) = self.kill_of(player).filter(|kill| !was_tried && kill.peer != peer)
            && now() - kill.at <= TRIED_WITHIN
        {
            kill.missed += 1;
            self.tried[index(player)] = true;
        }
    }

    /// A peer answered a commit of a player.
    pub(crate) fn committed(&mut self, player: u32, peer: usize, now: Instant) {
        let was_tried = self.tried[index(player)];
        if let Some(kill) = self.kill_of(player)
            && kill.peer != peer
        {
            if was_tried {
                kill.back.push(now - kill.at);
                kill.missed = kill.missed.saturating_sub(1);
            }
            self.watched[index(player)] = 0;
        }
    }

    fn kill_of(&mut self, player: u32) -> Option<&mut Kill> {
        let kill = index(self.watched[index(player)]).checked_sub(1)?;
        self.kills.get_mut(kill)
    }

    /// Whether most of the players who were tried in time are back, after each kill.
    pub(crate) fn is_over(&self) -> bool {
        self.kills.iter().all(|kill| kill.missed == 0 || kill.back.len() >= kill.enough())
    }

    /// What each kill came to.
    pub(crate) fn results(&self) -> Vec<Recovered> {
        self.kills.iter().map(Kill::result).collect()
    }
}

impl Kill {
    /// How many of the tried players must be back.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small count")]
    fn enough(&self) -> usize {
        let tried = self.back.len() as u64 + self.missed;
        (crate::numbers::float(tried) * MOST).ceil() as usize
    }

    fn result(&self) -> Recovered {
        let mut back = self.back.clone();
        back.sort_unstable();
        let most = self.enough().checked_sub(1).and_then(|last| back.get(last).copied());
        Recovered { first: back.first().copied(), most, missed: self.missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_are_back_with_their_first_commit_elsewhere() {
        let at = Instant::now();
        let after = |millis| at + Duration::from_millis(millis);
        let mut recovery = Recovery::new(300);
        recovery.tried(5, 1, || at);
        recovery.killed(0, 0..200, at);
        // What the dead peer had answered before is no recovery, and who was elsewhere does not count.
        recovery.committed(7, 0, after(1));
        recovery.tried(250, 1, || after(1));
        recovery.committed(250, 1, after(1));
        assert_eq!(recovery.results(), [Recovered { first: None, most: None, missed: 0 }]);
        for player in 0..100 {
            recovery.tried(player, 1, || after(1));
            recovery.tried(player, 1, || after(2));
            recovery.committed(player, 1, after(100 + u64::from(player)));
        }
        recovery.committed(0, 2, after(900));
        let found = recovery.results()[0];
        assert_eq!(found.first, Some(Duration::from_millis(100)));
        assert_eq!((found.most, found.missed), (Some(Duration::from_millis(198)), 0));
        recovery.tried(100, 1, || after(900));
        recovery.tried(101, 1, || after(900));
        assert_eq!(recovery.results()[0].most, None);
        assert_eq!(recovery.results()[0].missed, 2);
    }

    #[test]
    fn what_goes_to_the_dead_peer_is_no_try() {
        let at = Instant::now();
        let mut recovery = Recovery::new(2);
        recovery.killed(0, 0..2, at);
        recovery.tried(0, 0, || at);
        assert_eq!(recovery.results()[0].missed, 0);
        recovery.tried(0, 1, || at);
        assert_eq!(recovery.results()[0].missed, 1);
    }

    #[test]
    fn who_is_tried_late_does_not_count() {
        let at = Instant::now();
        let after = |millis| at + Duration::from_millis(millis);
        let mut recovery = Recovery::new(2);
        recovery.killed(0, 0..2, at);
        recovery.tried(0, 1, || after(500));
        recovery.tried(1, 1, || after(3_000));
        recovery.committed(0, 1, after(800));
        recovery.committed(1, 1, after(3_001));
        assert_eq!(recovery.results()[0].most, Some(Duration::from_millis(800)));
    }

    #[test]
    fn a_player_is_watched_since_the_first_kill_that_took_him() {
        let at = Instant::now();
        let mut recovery = Recovery::new(2);
        recovery.killed(0, 0..1, at);
        recovery.killed(1, 0..2, at + Duration::from_millis(10));
        recovery.tried(0, 1, || at + Duration::from_millis(20));
        recovery.committed(0, 2, at + Duration::from_millis(30));
        let found = recovery.results();
        assert_eq!((found[0].first, found[1].first), (Some(Duration::from_millis(30)), None));
    }
}
