//! Who belongs to a group: its voters, the voters it changes to, and its learners.

use driftmesh_model::{Incarnation, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One start of one peer. Votes and acknowledgements belong to it: a peer that lost its state is somebody else (R11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct MemberId {
    /// The peer.
    pub peer: PeerId,
    /// The start of it.
    pub incarnation: Incarnation,
}

/// The members of a group, as one journal entry says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Members that count for majorities.
    pub voters: BTreeSet<MemberId>,
    /// The voters that the group changes to: until it has, majorities of both are needed (joint consensus, Ongaro and
    /// Ousterhout 2014, section 6).
    pub incoming: Option<BTreeSet<MemberId>>,
    /// Members that only hold the data, and whether a single voter's entries are stable only with theirs.
    pub learners: BTreeMap<MemberId, bool>,
}

impl Membership {
    /// A group of one.
    #[must_use]
    pub fn alone(member: MemberId) -> Self {
        Self { voters: BTreeSet::from([member]), incoming: None, learners: BTreeMap::new() }
    }

    /// Whether it has but one member.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.voters.len() == 1 && self.incoming.is_none() && self.learners.is_empty()
    }

    /// Whether a member may be elected and counts for majorities, now or soon.
    #[must_use]
    pub fn is_voter(&self, member: &MemberId) -> bool {
        self.voters.contains(member) || self.incoming.as_ref().is_some_and(|incoming| incoming.contains(member))
    }

    /// Whether somebody belongs to the group.
    #[must_use]
    pub fn contains(&self, member: &MemberId) -> bool {
        self.is_voter(member) || self.learners.contains_key(member)
    }

    /// Everybody, each once, in order.
    #[must_use]
    pub fn members(&self) -> BTreeSet<MemberId> {
        let incoming = self.incoming.iter().flatten();
        self.voters.iter().chain(incoming).chain(self.learners.keys()).copied().collect()
    }

    /// All that vote.
    #[must_use]
    pub fn all_voters(&self) -> BTreeSet<MemberId> {
        self.voters.iter().chain(self.incoming.iter().flatten()).copied().collect()
    }

    /// Whether these members are a majority of the voters, and of the incoming ones.
    pub fn is_majority(&self, has: impl Fn(&MemberId) -> bool) -> bool {
        let most = |voters: &BTreeSet<MemberId>| voters.iter().filter(|voter| has(voter)).count() * 2 > voters.len();
        most(&self.voters) && self.incoming.as_ref().is_none_or(most)
    }

    /// The highest number that enough members have reached: a majority of the voters, and of the incoming ones; with a
    /// single voter every learner of its sync set too.
    pub fn reached<T: Ord + Copy>(&self, reached: impl Fn(&MemberId) -> T) -> Option<T> {
        let most = |voters: &BTreeSet<MemberId>| {
            let mut all: Vec<T> = voters.iter().map(&reached).collect();
            all.sort_unstable();
            // The median, the lower one of an even number: a majority is at or above it.
            all.get(all.len().checked_sub(1)? / 2).copied()
        };
        let mut least = most(&self.voters)?;
        if let Some(incoming) = &self.incoming {
            least = least.min(most(incoming)?);
        }
        if self.voters.len() == 1 && self.incoming.is_none() {
            for (learner, in_sync) in &self.learners {
                if *in_sync {
                    least = least.min(reached(learner));
                }
            }
        }
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64) -> MemberId {
        MemberId { peer: PeerId::from_bytes([7; 32]), incarnation: Incarnation::from_u64(number) }
    }

    fn reached(membership: &Membership, at: &[u64]) -> Option<u64> {
        membership.reached(|member| at[usize::try_from(member.incarnation.as_u64()).unwrap()])
    }

    #[test]
    fn a_majority_of_both_sets_is_needed_while_the_voters_change() {
        let mut membership = Membership { voters: (0..3).map(member).collect(), ..Membership::default() };
        assert_eq!(reached(&membership, &[9, 5, 1]), Some(5));
        membership.incoming = Some([member(0), member(3), member(4)].into());
        assert_eq!(reached(&membership, &[9, 5, 1, 2, 3]), Some(3));
        let both = [member(0), member(1)];
        assert!(!membership.is_majority(|voter| both.contains(voter)));
        let both = [member(0), member(1), member(4)];
        assert!(membership.is_majority(|voter| both.contains(voter)));
    }

    #[test]
    fn a_single_voter_waits_for_its_sync_set() {
        let mut membership = Membership::alone(member(0));
        membership.learners.insert(member(1), false);
        assert_eq!(reached(&membership, &[9, 5]), Some(9));
        membership.learners.insert(member(1), true);
        assert_eq!(reached(&membership, &[9, 5]), Some(5));
        membership.voters.insert(member(2));
        assert_eq!(reached(&membership, &[9, 5, 7]), Some(7));
    }

    #[test]
    fn an_even_number_of_voters_needs_more_than_half() {
        let membership = Membership { voters: (0..2).map(member).collect(), ..Membership::default() };
        assert_eq!(reached(&membership, &[9, 5]), Some(5));
        assert!(!membership.is_majority(|voter| *voter == member(0)));
    }
}
