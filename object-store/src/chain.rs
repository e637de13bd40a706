//! The versions of one object, newest last, down to its low-water mark (R16, R17).

use driftmesh_model::{Timestamp, Value};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a version costs beside its bytes when budgets are counted, bytes.
const VERSION_OVERHEAD: usize = 64;

/// One committed version of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// When it took effect.
    pub commit: Timestamp,
    /// Its value; `None` is a deletion.
    pub value: Option<Value>,
}

impl Version {
    /// What the version counts in budgets, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        VERSION_OVERHEAD + self.value_len()
    }

    /// How long the value is, bytes.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.value.as_ref().map_or(0, Value::len)
    }
}

/// What a snapshot sees of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadAt<'a> {
    /// This version, which may be a deletion.
    Version(&'a Version),
    /// The object was created after the snapshot.
    NotYetCreated,
    /// The version it would see is gone: it lies below the object's low-water mark.
    TooOld(Timestamp),
}

/// All kept versions of one object. There is always at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    newest: Version,
    /// Superseded versions, oldest first.
    older: VecDeque<Version>,
    /// When the oldest of these was superseded; never, if there is none. It is here because the versions themselves are
    /// seldom in a cache.
    oldest_until: Timestamp,
    /// Snapshots below it cannot be answered any more.
    low_water: Timestamp,
}

impl Chain {
    /// The chain of an object just created.
    #[must_use]
    pub const fn new(first: Version) -> Self {
        Self { newest: first, older: VecDeque::new(), oldest_until: Timestamp::MAX, low_water: Timestamp::ZERO }
    }

    /// The chain made of the versions of a grant, oldest first.
    ///
    /// `None` unless there is a version, commit timestamps strictly climb, and none lies below the low-water mark:
    /// such a grant comes from a faulty peer (R25).
    #[must_use]
    pub fn from_versions(versions: Vec<Version>, low_water: Timestamp) -> Option<Self> {
        if !Self::are_sound(&versions, low_water) {
            return None;
        }
        let mut older = VecDeque::from(versions);
        let newest = older.pop_back()?;
        Some(Self::with(newest, older, low_water))
    }

    /// As [`Chain::from_versions`], of versions that stay where they are.
    #[must_use]
    pub fn from_slice(versions: &[Version], low_water: Timestamp) -> Option<Self> {
        if !Self::are_sound(versions, low_water) {
            return None;
        }
        let (newest, older) = versions.split_last()?;
        Some(Self::with(newest.clone(), older.iter().cloned().collect(), low_water))
    }

    fn with(newest: Version, older: VecDeque<Version>, low_water: Timestamp) -> Self {
        // Most objects travel with one version: no memory is kept for others.
        let older = if older.is_empty() { VecDeque::new() } else { older };
        let mut chain = Self { newest, older, oldest_until: Timestamp::MAX, low_water };
        chain.renew_oldest();
        chain
    }

    fn renew_oldest(&mut self) {
        let until = self.older.get(1).unwrap_or(&self.newest).commit;
        self.oldest_until = if self.older.is_empty() { Timestamp::MAX } else { until };
    }

    /// Whether a chain can be made of these versions.
    #[must_use]
    pub fn are_sound(versions: &[Version], low_water: Timestamp) -> bool {
        versions.first().is_some_and(|first| first.commit >= low_water)
            && versions.is_sorted_by(|left, right| left.commit < right.commit)
    }

    /// The newest version and as many before it as cost at most `budget` bytes, oldest first, with the low-water mark
    /// that they have by themselves (R17).
    #[must_use]
    pub fn newest_within(&self, budget: usize) -> (Vec<Version>, Timestamp) {
        let mut cost = 0_usize;
        let fits = |version: &&Version| {
            cost = cost.saturating_add(version.cost());
            cost <= budget
        };
        let dropped = self.older.len() - self.older.iter().rev().take_while(fits).count();
        let versions: Vec<_> = self.older.range(dropped..).chain(std::iter::once(&self.newest)).cloned().collect();
        let first = versions.first().map_or(self.low_water, |version| version.commit);
        (versions, if dropped == 0 { self.low_water } else { first })
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.older.iter().chain(std::iter::once(&self.newest))
    }

    /// The newest version.
    #[must_use]
    pub const fn newest(&self) -> &Version {
        &self.newest
    }

    /// Snapshots below this cannot be answered (R17).
    #[must_use]
    pub const fn low_water(&self) -> Timestamp {
        self.low_water
    }

    /// How many superseded versions are kept.
    #[must_use]
    pub fn superseded(&self) -> usize {
        self.older.len()
    }

    /// What the superseded versions cost, bytes.
    #[must_use]
    pub fn superseded_cost(&self) -> usize {
        self.older.iter().map(Version::cost).sum()
    }

    /// The newest version at or below a snapshot (R16).
    #[must_use]
    pub fn read_at(&self, snapshot: Timestamp) -> ReadAt<'_> {
        if self.newest.commit <= snapshot {
            return ReadAt::Version(&self.newest);
        }
        let after = self.older.partition_point(|version| version.commit <= snapshot);
        match after.checked_sub(1).and_then(|index| self.older.get(index)) {
            Some(version) => ReadAt::Version(version),
            // R17: below the mark an answer would be a guess.
            None if snapshot < self.low_water => ReadAt::TooOld(self.low_water),
            None => ReadAt::NotYetCreated,
        }
    }

    /// The version that one with this commit timestamp superseded, if it is kept.
    #[must_use]
    pub fn before(&self, commit: Timestamp) -> Option<&Version> {
        let from_here = self.older.partition_point(|version| version.commit < commit);
        if self.newest.commit < commit { Some(&self.newest) } else { self.older.get(from_here.checked_sub(1)?) }
    }

    /// Adds a version, which must be newer than all before; returns what the superseded one costs, bytes. Nothing of
    /// it is kept if it is the only one and was superseded at or before `horizon`.
    pub fn push(&mut self, version: Version, horizon: Timestamp) -> usize {
        let commit = version.commit;
        assert!(commit > self.newest.commit, "commit timestamps of an object climb");
        let superseded = std::mem::replace(&mut self.newest, version);
        if commit <= horizon && self.older.is_empty() {
            // R17: the mark is where the oldest kept version begins.
            self.low_water = commit;
            return 0;
        }
        let cost = superseded.cost();
        if self.older.is_empty() {
            self.oldest_until = commit;
        }
        self.older.push_back(superseded);
        cost
    }

    /// Takes the newest version away, so that the one before it is the newest again; returns what that one costs,
    /// bytes. `None`, and nothing changes, if there is none before it.
    pub fn pop(&mut self) -> Option<usize> {
        self.newest = self.older.pop_back()?;
        self.renew_oldest();
        Some(self.newest.cost())
    }

    /// Drops at most `most` versions that were superseded at or before `horizon`, oldest first, and raises the
    /// low-water mark accordingly. Returns what they cost, bytes.
    pub fn prune(&mut self, horizon: Timestamp, most: usize) -> usize {
        let mut freed = 0;
        for _ in 0..most {
            if self.oldest_until > horizon {
                break;
            }
            let Some(dropped) = self.older.pop_front() else { break };
            freed += dropped.cost();
            // R17: the mark is where the oldest kept version begins.
            self.low_water = self.oldest_until;
            self.renew_oldest();
        }
        freed
    }

    /// Drops at most `most` versions that were superseded at or before `horizon`, oldest first, until `excess` bytes
    /// are freed. Returns what was freed.
    pub fn prune_excess(&mut self, excess: usize, horizon: Timestamp, most: usize) -> usize {
        let mut freed = 0;
        for _ in 0..most {
            if freed >= excess {
                break;
            }
            let dropped = self.prune(horizon, 1);
            if dropped == 0 {
                break;
            }
            freed += dropped;
        }
        freed
    }

    /// Drops the oldest versions that were superseded at or before `horizon` until all superseded ones cost at most
    /// `budget` bytes. Returns what was freed.
    pub fn prune_to_budget(&mut self, budget: usize, horizon: Timestamp) -> usize {
        self.prune_excess(self.superseded_cost().saturating_sub(budget), horizon, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> Timestamp {
        Timestamp::from_u64(time)
    }

    fn version(time: u64) -> Version {
        Version { commit: at(time), value: Some(Value::from_slice(&time.to_be_bytes())) }
    }

    fn chain() -> Chain {
        let mut chain = Chain::new(version(10));
        chain.push(version(20), Timestamp::ZERO);
        chain.push(version(30), Timestamp::ZERO);
        chain
    }

    #[test]
    fn a_snapshot_sees_the_newest_version_at_or_below_it() {
        let chain = chain();
        assert_eq!(chain.read_at(at(9)), ReadAt::NotYetCreated);
        assert_eq!(chain.read_at(at(10)), ReadAt::Version(&version(10)));
        assert_eq!(chain.read_at(at(29)), ReadAt::Version(&version(20)));
        assert_eq!(chain.read_at(at(99)), ReadAt::Version(&version(30)));
    }

    #[test]
    fn below_the_low_water_mark_there_is_no_guess() {
        let mut chain = chain();
        chain.prune(at(20), 9);
        assert_eq!(chain.low_water(), at(20));
        assert_eq!(chain.read_at(at(15)), ReadAt::TooOld(at(20)));
        assert_eq!(chain.read_at(at(20)), ReadAt::Version(&version(20)));
        assert_eq!(chain.prune_to_budget(0, at(29)), 0, "superseded above the horizon");
        let freed = chain.prune_to_budget(0, at(30));
        assert_eq!((freed, chain.superseded()), (VERSION_OVERHEAD + 8, 0));
        assert_eq!(chain.read_at(at(29)), ReadAt::TooOld(at(30)));
    }

    #[test]
    fn what_nobody_needs_is_not_kept() {
        let mut chain = Chain::new(version(10));
        assert_eq!(chain.push(version(20), at(20)), 0);
        assert_eq!((chain.superseded(), chain.low_water()), (0, at(20)));
        assert_eq!(chain.read_at(at(19)), ReadAt::TooOld(at(20)));
        assert!(chain.push(version(30), at(29)) > 0);
        assert_eq!(chain.read_at(at(29)), ReadAt::Version(&version(20)));
    }

    #[test]
    fn the_newest_part_of_a_chain_has_a_mark_of_its_own() {
        let chain = chain();
        let one = version(20).cost();
        assert_eq!(chain.newest_within(2 * one), (vec![version(10), version(20), version(30)], at(0)));
        assert_eq!(chain.newest_within(2 * one - 1), (vec![version(20), version(30)], at(20)));
        assert_eq!(chain.newest_within(0), (vec![version(30)], at(30)));
    }

    #[test]
    fn when_the_oldest_was_superseded_is_known_after_every_change() {
        let mut chain = Chain::new(version(10));
        let mut seed = 1_u32;
        for time in 50..3_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match seed >> 30 {
                0 => {
                    chain.prune(at(time - 3), 2);
                }
                1 => {
                    chain.pop();
                }
                2 if time % 50 == 0 => {
                    chain = Chain::from_versions(chain.versions().cloned().collect(), chain.low_water()).unwrap();
                }
                _ => {
                    chain.push(version(time), at(time - 40));
                }
            }
            let until = chain.versions().nth(1).filter(|_| chain.superseded() > 0).map(|version| version.commit);
            assert_eq!(chain.oldest_until, until.unwrap_or(Timestamp::MAX));
        }
    }

    #[test]
    fn what_was_pushed_last_is_popped_first() {
        let mut chain = chain();
        assert_eq!(chain.pop(), Some(version(20).cost()));
        assert_eq!(chain.pop(), Some(version(10).cost()));
        assert_eq!((chain.pop(), chain.newest()), (None, &version(10)));
    }

    #[test]
    fn a_grant_with_disordered_versions_is_refused() {
        assert!(Chain::from_versions(vec![version(2), version(1)], at(0)).is_none());
        assert!(Chain::from_versions(vec![], at(0)).is_none());
        assert!(Chain::from_versions(vec![version(5)], at(6)).is_none());
        let whole: Vec<_> = chain().versions().cloned().collect();
        assert_eq!(Chain::from_slice(&whole, at(0)), Some(chain()));
        assert_eq!(Chain::from_versions(whole, at(0)), Some(chain()));
        assert!(Chain::from_slice(&[version(2), version(1)], at(0)).is_none());
    }
}
