//! What a peer counts, and the rare events that a good simulator must reach.

use crate::RareBranch;
use std::collections::BTreeMap;

/// Something rare enough that a test plan must make sure it happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RareEvent {
    /// A transaction was wounded while it waited for something.
    WoundOfParkedHolder,
    /// A lookup followed three pointers or more.
    ChainOfThreePointers,
    /// A grant was sent again.
    RepeatedGrant,
    /// A grant came again after it was answered.
    LateDuplicateGrant,
    /// A grant was refused.
    GrantRefused,
    /// A refused object was taken back.
    TakenBack,
    /// A snapshot moved forward past a newer version.
    SnapshotMovedForward,
    /// A newer version ended an attempt.
    Conflict,
    /// A snapshot met a pruned version.
    SnapshotTooOld,
    /// A snapshot met an object that was created after it.
    CreatedLater,
    /// An older transaction took an object pinned for a younger one.
    PinOverruled,
    /// Somebody waited because of a pin.
    PinHeld,
    /// An older transaction joined a fetch, which was sent again with its age.
    FetchAgeRaised,
    /// A request waited for an object that was on its way here.
    RequestParked,
    /// The homes were asked.
    HomesAsked,
    /// Everybody was asked.
    EveryoneAsked,
    /// A request from the future was refused.
    ClockRefused,
    /// A granted hash named a value that was gone.
    ValuesMissing,
    /// A value was spared by its hash.
    ValueSpared,
    /// A snapshot was answered from an object in transit.
    ReadInTransit,
    /// A search ended with `NotFound`.
    NotFound,
    /// Nobody answered for a while.
    Unavailable,
    /// A message waited for the watermark.
    HeldByBarrier,
    /// An object waited before it left, for want of room for its forwarding pointer.
    PointersFull,
    /// A forwarding pointer went, because its homes know as much.
    PointerCollected,
    /// The routing was asked for peers that are not known.
    Sought,
    /// A transaction was refused because this peer's own clock is off.
    OwnClockOff,
    /// A directory bucket was split.
    BucketSplit,
    /// This peer began to follow a group.
    BeganToFollow,
    /// This peer was elected to lead a group in place of its founder.
    TookOver,
    /// Another peer was elected to lead this peer's group.
    Deposed,
    /// A group ended.
    GroupEnded,
    /// A leader proposed other members for its group.
    MembersChanged,
    /// A peer would not follow one more group.
    NoRoom,
    /// A commit, or an object that was to come, was refused because the peer holds as much as it may.
    RefusedForRoom,
    /// Others were asked what became of a commit.
    FateAsked,
    /// A commit waited because too much was unstable.
    CommitHeld,
    /// A read waited for its owner's clock.
    ReadTooEarly,
    /// A grant came to a peer that does not lead its destination.
    GrantToFormerLeader,
    /// A follower's state answered a read at its peer.
    ReadAtFollower,
    /// A copy held what was asked for, but could not answer for the snapshot.
    CopyBehind,
    /// A subscription answered a read at its peer.
    ReadAtSubscriber,
    /// A leader had no room for a subscription, or for an object in it.
    SubscriberRefused,
    /// A message of a subscription was missing, so it began anew.
    FeedGap,
    /// A subscription heard nothing more, so it began anew.
    FeedSilent,
    /// An object of a subscription had left the group.
    FeedMoved,
    /// A version was told that another one, which was not told, came before.
    VersionsPassedOver,
    /// An object that is watched was looked for.
    WatchSearched,
    /// An old copy of a peer's memory was refused.
    OldCopyRefused,
    /// A task was sent again, because nothing was heard of it or its peer had gone.
    TaskSentAgain,
    /// A task had ended before, and its anchor said how.
    TaskMetAgain,
    /// A task ended before it had done anything, because what it wanted is in much use elsewhere.
    SentToItsData,
    /// A task was sent on to where it should run.
    TaskSentOn,
}

impl RareEvent {
    /// All of them.
    pub const ALL: [Self; 53] = [
        Self::WoundOfParkedHolder,
        Self::ChainOfThreePointers,
        Self::RepeatedGrant,
        Self::LateDuplicateGrant,
        Self::GrantRefused,
        Self::TakenBack,
        Self::SnapshotMovedForward,
        Self::Conflict,
        Self::SnapshotTooOld,
        Self::CreatedLater,
        Self::PinOverruled,
        Self::PinHeld,
        Self::FetchAgeRaised,
        Self::RequestParked,
        Self::HomesAsked,
        Self::EveryoneAsked,
        Self::ClockRefused,
        Self::ValuesMissing,
        Self::ValueSpared,
        Self::ReadInTransit,
        Self::NotFound,
        Self::Unavailable,
        Self::HeldByBarrier,
        Self::PointersFull,
        Self::PointerCollected,
        Self::Sought,
        Self::OwnClockOff,
        Self::BucketSplit,
        Self::BeganToFollow,
        Self::TookOver,
        Self::Deposed,
        Self::GroupEnded,
        Self::MembersChanged,
        Self::NoRoom,
        Self::RefusedForRoom,
        Self::FateAsked,
        Self::CommitHeld,
        Self::ReadTooEarly,
        Self::GrantToFormerLeader,
        Self::ReadAtFollower,
        Self::CopyBehind,
        Self::ReadAtSubscriber,
        Self::SubscriberRefused,
        Self::FeedGap,
        Self::FeedSilent,
        Self::FeedMoved,
        Self::VersionsPassedOver,
        Self::WatchSearched,
        Self::OldCopyRefused,
        Self::TaskSentAgain,
        Self::TaskMetAgain,
        Self::SentToItsData,
        Self::TaskSentOn,
    ];
}

/// Counters since the peer's start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Transactions begun.
    pub begun: u64,
    /// Commits that wrote something.
    pub commits: u64,
    /// Commits that only read.
    pub read_only_commits: u64,
    /// Objects that followed what they were used with.
    pub placed: u64,
    /// Tasks that were sent on to where their data is.
    pub tasks_sent_on: u64,
    /// Tasks submitted here whose answer another peer told before it was stable.
    pub tasks_told_early: u64,
    /// Commits that awaited no message.
    pub local_commits: u64,
    /// Attempts that ended without a commit.
    pub aborts: u64,
    /// Attempts that an older transaction ended.
    pub wounds: u64,
    /// Objects that came here.
    pub arrived: u64,
    /// Objects that left.
    pub left: u64,
    /// Transactions given up at their deadline.
    pub expired: u64,
    /// Lookups that found their object.
    pub found: u64,
    /// Pointers followed, over all lookups that found their object.
    pub hops: u64,
    /// Most pointers that one of them followed.
    pub chain_max: u64,
    /// Questions to the routing of the mesh.
    pub seeks: u64,
    /// Groups that this peer was elected to lead in place of their founders.
    pub taken_over: u64,
    /// How often another peer was elected to lead this peer's group.
    pub deposed: u64,
    /// Objects handed out of groups led in place of their founders.
    pub handed_out: u64,
    /// Windows of time journalled (R8).
    pub windows: u64,
    /// Closed timestamps told to followers that read (R16).
    pub closes: u64,
    /// Reads of recent snapshots that this peer's own group answered.
    pub reads_own: u64,
    /// Those that a group answered which this peer follows.
    pub reads_followed: u64,
    /// Those that a subscription of this peer answered.
    pub reads_subscribed: u64,
    /// Messages sent to subscribers.
    pub feeds: u64,
    /// Reads of recent snapshots that went to another peer.
    pub reads_elsewhere: u64,
    /// Commits that waited because too much was unstable (R10).
    pub held_commits: u64,
    /// Tasks that other peers sent here and that were taken.
    pub tasks_for_others: u64,
    /// Tasks that there was no room for: of other peers here, and of callers here at any peer.
    pub tasks_refused: u64,
    /// Commits, and objects that were to come, that were refused because this peer holds as much as it may (R24).
    pub refused_for_room: u64,
    /// Tasks that their anchors did not remember any more, so that they were not run.
    pub tasks_forgotten: u64,
    /// Tasks, and runs of schedules, that panicked here.
    pub tasks_panicked: u64,
    /// Runs of schedules that took effect.
    pub schedule_runs: u64,
    /// Runs of schedules that were rejected, failed or panicked.
    pub schedule_failures: u64,
    /// Messages that did not decode or did not fit.
    pub malformed: u64,
    /// Those of them that no peer says, whatever faults there are.
    pub impossible: u64,
    /// How often each rare event happened.
    pub rare: BTreeMap<RareEvent, u64>,
    /// How often each rare branch was taken on purpose: never in a live peer.
    pub branches: BTreeMap<RareBranch, u64>,
}

impl Metrics {
    /// Counts a rare event.
    pub(crate) fn note(&mut self, event: RareEvent) {
        self.note_many(event, 1);
    }

    pub(crate) fn note_many(&mut self, event: RareEvent, times: u64) {
        *self.rare.entry(event).or_default() += times;
    }

    /// Counts a message that no peer says, whatever faults there are.
    pub(crate) fn note_impossible(&mut self) {
        self.malformed += 1;
        self.impossible += 1;
    }
}
