//! Rules that tests break on purpose, one at a time, to see that they would notice.
//!
//! Without the feature `sabotage` nothing can be broken, and every question here is answered with a constant.

use super::{Consensus, LogEntry, MemberId};

/// A rule of consensus that can be broken in builds with the feature `sabotage`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BrokenRule {
    /// R9: followers take what a lower term says.
    Fence,
    /// R7: a follower takes entries without looking at the term of what they follow (log matching).
    Prefix,
    /// R7: a vote is given to whoever asks, though it lacks entries (Raft 5.4.1).
    UpToDate,
    /// R9: several are given the vote of one term.
    OneVote,
    /// R7: what a leader alone holds counts as stable.
    Stable,
    /// R7: entries of former terms become stable by being counted (Raft 5.4.2).
    FormerTerms,
    /// R11: while the voters change, a majority of the present ones is enough.
    Joint,
    /// R11: what a former incarnation of a peer said counts for the present one, and newcomers count at once.
    Members,
}

impl BrokenRule {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Fence,
        Self::Prefix,
        Self::UpToDate,
        Self::OneVote,
        Self::Stable,
        Self::FormerTerms,
        Self::Joint,
        Self::Members,
    ];
}

impl<E: LogEntry> Consensus<E> {
    /// Breaks a rule from now on.
    #[cfg(feature = "sabotage")]
    pub const fn sabotage(&mut self, rule: BrokenRule) {
        self.broken = Some(rule);
    }

    /// Whether this rule is broken.
    #[cfg(feature = "sabotage")]
    pub(super) fn breaks(&self, rule: BrokenRule) -> bool {
        self.broken == Some(rule)
    }

    /// Whether this rule is broken: never.
    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(super) const fn breaks(&self, _: BrokenRule) -> bool {
        false
    }

    /// Whom an acknowledgement or a vote counts for: the incarnation that gave it (R11).
    pub(super) fn counted_as(&self, from: MemberId) -> MemberId {
        if self.breaks(BrokenRule::Members) {
            let present = self.membership().members();
            return present.into_iter().find(|member| member.peer == from.peer).unwrap_or(from);
        }
        from
    }
}
