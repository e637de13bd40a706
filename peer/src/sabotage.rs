//! Rules broken on purpose, one at a time, in test builds only: a rule whose loss nothing notices is unproven.

use crate::Peer;

/// A rule that a test build can break. What is removed is said at the place that asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sabotage {
    /// R1: a peer acts on an object because a hint says that it is here.
    Hint,
    /// R2: whatever record comes last wins.
    Climb,
    /// R3: a group keeps no pointer of what leaves it.
    Pointers,
    /// R4: owners do not publish again when the nearest peers change.
    Republish,
    /// R5: what runs at a leader that is deposed goes on, and commits.
    OneWriter,
    /// R6: an answer to a read does not wait until what it shows is stable.
    BarrierReads,
    /// R6: a grant does not wait until it is stable that the object has left.
    BarrierGrants,
    /// R6: an object is acknowledged before its arrival is stable.
    BarrierAnswers,
    /// R6: what callers were told in a group that this peer led before does not hold back commits in another.
    ToldOrder,
    /// R6: what follows from a commit, and what it says outside of the mesh, does not wait until it is stable.
    Outbox,
    /// R7: a follower takes entries that do not follow its own.
    Prefix,
    /// R7: a vote is given to whoever asks, though it lacks entries.
    UpToDate,
    /// R7: what a leader alone holds counts as stable.
    Stable,
    /// R8: a leader answers at any snapshot, whether its group has agreed on a window or not.
    Window,
    /// R9: followers take entries of a lower term.
    Fence,
    /// R10: commits go on, however much is unstable.
    BoundedLoss,
    /// R11: while the voters change, a majority of the present ones is enough.
    Joint,
    /// R11: who drops a journal owes nothing to the group any more, and votes like somebody new.
    Promises,
    /// R11: whoever acknowledges counts, whether it belongs to the group or not.
    Members,
    /// R11: an old copy of a peer's memory takes part as if it were the peer.
    OldCopies,
    /// R22: a leader that is deposed calls lost what is not stable.
    Fates,
    /// R12: an older transaction does not wound a younger holder; it waits.
    WoundWait,
    /// R13: a wounded transaction commits.
    CommitPoint,
    /// R14: a fetch keeps the age of its first waiter.
    FetchAge,
    /// R15: a retry takes its snapshot before the locks of what it conflicted on.
    LockFirst,
    /// R16: an owner's clock does not follow the snapshots it answers, nor the floor of what it adopts.
    SnapshotClock,
    /// R16: a follower answers up to a closed timestamp, whatever it lacks of the journal.
    CloseLsn,
    /// R16: what is closed lies ahead of what may still be committed.
    CloseEarly,
    /// R6: subscribers are told what is not stable.
    FeedUnstable,
    /// R16: subscribers are not told that an object has left, and go on believing that nothing happens to it.
    FeedPastOut,
    /// R8: what is closed may lie above the stable window.
    CloseWindow,
    /// R16: a serializable transaction takes no lock of what it reads.
    Serializable,
    /// R17: superseded versions go at once, and the low-water mark does not rise.
    OldVersions,
    /// R18: requests from the future are merged.
    ClockGuard,
    /// R18: a peer whose own clock is wrong goes on.
    ClockWatch,
    /// R19: a sender takes back what was not acknowledged for a while.
    OneOwner,
    /// R20: a repeated grant is adopted again.
    Once,
    /// R21: an anchor is not asked whether a task has ended before.
    Tasks,
    /// R21: what is due of a schedule takes effect in one commit, and the schedule moves on in the next.
    Schedules,
    /// R23: a fresh peer that answers a ballot forgets what it promised and accepted before.
    OneGenesis,
    /// R23: `bind` does not look whether the name is bound.
    Names,
    /// R24: a leader tells subscribers of as many objects as they ask for, and commits as much as they write.
    Bounds,
    /// R25: a record at the end of all numbers, which nothing could ever replace, is taken like any other.
    Wire,
    /// R26: what panicked is over like anything that failed, and neither kept nor listed.
    Parking,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 44] = [
        Self::Hint,
        Self::Climb,
        Self::Pointers,
        Self::Republish,
        Self::OneWriter,
        Self::BarrierReads,
        Self::BarrierGrants,
        Self::BarrierAnswers,
        Self::ToldOrder,
        Self::Outbox,
        Self::Prefix,
        Self::UpToDate,
        Self::Stable,
        Self::Window,
        Self::Fence,
        Self::BoundedLoss,
        Self::Joint,
        Self::Promises,
        Self::Members,
        Self::OldCopies,
        Self::Fates,
        Self::WoundWait,
        Self::CommitPoint,
        Self::FetchAge,
        Self::LockFirst,
        Self::SnapshotClock,
        Self::CloseLsn,
        Self::CloseEarly,
        Self::FeedUnstable,
        Self::FeedPastOut,
        Self::CloseWindow,
        Self::Serializable,
        Self::OldVersions,
        Self::ClockGuard,
        Self::ClockWatch,
        Self::OneOwner,
        Self::Once,
        Self::Tasks,
        Self::Schedules,
        Self::OneGenesis,
        Self::Names,
        Self::Bounds,
        Self::Wire,
        Self::Parking,
    ];

    /// The rule it breaks.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Hint => "R1",
            Self::Climb => "R2",
            Self::Pointers => "R3",
            Self::Republish => "R4",
            Self::OneWriter => "R5",
            Self::BarrierReads
            | Self::BarrierGrants
            | Self::BarrierAnswers
            | Self::ToldOrder
            | Self::Outbox
            | Self::FeedUnstable => "R6",
            Self::Prefix | Self::UpToDate | Self::Stable => "R7",
            Self::Window | Self::CloseWindow => "R8",
            Self::Fence => "R9",
            Self::BoundedLoss => "R10",
            Self::Joint | Self::Promises | Self::Members | Self::OldCopies => "R11",
            Self::Fates => "R22",
            Self::WoundWait => "R12",
            Self::CommitPoint => "R13",
            Self::FetchAge => "R14",
            Self::LockFirst => "R15",
            Self::SnapshotClock | Self::CloseLsn | Self::CloseEarly | Self::FeedPastOut | Self::Serializable => "R16",
            Self::OldVersions => "R17",
            Self::ClockGuard | Self::ClockWatch => "R18",
            Self::OneOwner => "R19",
            Self::Once => "R20",
            Self::Tasks | Self::Schedules => "R21",
            Self::OneGenesis | Self::Names => "R23",
            Self::Bounds => "R24",
            Self::Wire => "R25",
            Self::Parking => "R26",
        }
    }
}

#[cfg(feature = "sabotage")]
impl Peer {
    /// A group in which the rule of consensus is broken that this run breaks, if it breaks one.
    pub(crate) fn sabotaged(&self, mut group: driftmesh_object_store::Group) -> driftmesh_object_store::Group {
        use driftmesh_object_store::BrokenRule;
        let rules = [
            (Sabotage::Prefix, BrokenRule::Prefix),
            (Sabotage::UpToDate, BrokenRule::UpToDate),
            (Sabotage::Stable, BrokenRule::Stable),
            (Sabotage::Fence, BrokenRule::Fence),
            (Sabotage::Joint, BrokenRule::Joint),
            (Sabotage::Members, BrokenRule::Members),
        ];
        if self.broken(Sabotage::CloseLsn) {
            group.sabotage_closing();
        }
        if let Some((_, rule)) = rules.into_iter().find(|(sabotage, _)| self.broken(*sabotage)) {
            group.sabotage(rule);
        }
        group
    }
}

impl Peer {
    /// Whether this rule is broken in this run. Always false without the feature `sabotage`.
    #[cfg(feature = "sabotage")]
    pub(crate) fn broken(&self, rule: Sabotage) -> bool {
        self.config.sabotage == Some(rule)
    }

    /// Whether this rule is broken in this run: it is not.
    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(crate) const fn broken(&self, _rule: Sabotage) -> bool {
        false
    }
}
