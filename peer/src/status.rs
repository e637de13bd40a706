//! What a peer says of itself: for operators and tools.

use crate::{PanickedTask, Peer, ScheduleCounts, WaitingSchedule};
use driftmesh_model::{GroupId, Now, PeerId};
use driftmesh_object_store::{Group, MemberId};

/// One member as this peer sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    /// Who it is.
    pub peer: PeerId,
    /// The group it leads.
    pub group: GroupId,
    /// Whether it can be reached.
    pub connected: bool,
    /// How many objects it last said it owns.
    pub owned: Option<u64>,
    /// Its wall clock minus ours, microseconds; what heartbeats take there and back cancels out where it is the same.
    pub clock_offset_us: Option<i64>,
    /// How long ago it was last heard, milliseconds.
    pub heard_ms_ago: u64,
}

/// A group that a peer belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Who leads it, as far as this peer knows.
    pub leader: Option<PeerId>,
    /// Its leadership period.
    pub term: u64,
    /// Members that vote.
    pub voters: usize,
    /// Members that only hold the data.
    pub learners: usize,
    /// Members that hold everything, as its leader knows: the leader included.
    pub whole: usize,
    /// How many there shall be.
    pub wanted: usize,
    /// Whether it has all members that it can have and all of them hold everything, as its leader knows.
    pub is_whole: bool,
    /// Whether any one member may crash and the group goes on without an operator.
    pub may_lose_one: bool,
    /// Whether a majority of its voters is in reach, as its leader knows: without one nothing that it commits becomes stable.
    pub has_majority: bool,
    /// Objects it owns.
    pub owned: usize,
    /// Its last position here.
    pub tail: u64,
    /// Positions that are not stable yet.
    pub lag: u64,
    /// Why this peer's part in it has stopped, if it has.
    pub halted: Option<String>,
}

/// A peer's view of itself and its mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Who it is.
    pub peer: PeerId,
    /// The group it leads.
    pub group: GroupId,
    /// Whether it founded the mesh.
    pub founder: bool,
    /// The other members.
    pub members: Vec<MemberStatus>,
    /// Objects owned, deleted ones included.
    pub owned: usize,
    /// Objects on their way to other groups.
    pub in_transit: usize,
    /// Objects being fetched or read elsewhere.
    pub fetching: usize,
    /// Transactions and snapshots open.
    pub transactions: usize,
    /// Tasks submitted here that are under way elsewhere.
    pub tasks_submitted: usize,
    /// Tasks of other peers that run here.
    pub tasks_running: usize,
    /// Those that panicked here last, the newest first, 16 at most.
    pub tasks_panicked: Vec<PanickedTask>,
    /// Schedules of this peer's objects.
    pub schedules: ScheduleCounts,
    /// Those that do not run, 16 at most, and why.
    pub schedules_waiting: Vec<WaitingSchedule>,
    /// The journal's last position.
    pub journal_tail: u64,
    /// Positions that are not stable yet.
    pub journal_lag: u64,
    /// What the objects take that this peer holds, its own and copies of others', bytes (R24).
    pub held_bytes: u64,
    /// What they may take.
    pub held_bytes_max: u64,
    /// Commits, and objects that were to come, that were refused because of it.
    pub refused_for_room: u64,
    /// What superseded versions of its own group cost, bytes.
    pub version_bytes: usize,
    /// Forwarding pointers kept.
    pub pointers: usize,
    /// Location hints kept.
    pub hints: usize,
    /// Home records kept.
    pub home_records: usize,
    /// About how much memory pointers, hints and home records take, bytes.
    pub directory_bytes: usize,
    /// How far this peer's clock is ahead of the median of the members', us, if it is too far off to begin anything.
    pub clock_off_us: Option<i64>,
    /// Whether the peer is leaving.
    pub draining: bool,
    /// The groups that this peer belongs to, its own first.
    pub groups: Vec<GroupStatus>,
    /// Groups of the mesh that nobody is known to lead, or whose leader is out of reach.
    pub leaderless: Vec<GroupId>,
    /// Messages that wait until what they depend on is stable (R6).
    pub held_messages: usize,
    /// Bytes of this peer's journal that are not stable, and how long the oldest of them has been there, ms (R10).
    pub unstable_bytes: u64,
    /// See `unstable_bytes`.
    pub unstable_ms: u64,
    /// Copies of others' objects that this peer is subscribed to, and groups of which it is told.
    pub subscribed: usize,
    /// See `subscribed`.
    pub subscriptions: usize,
    /// Objects of groups led here of which subscribers are told.
    pub fed: usize,
    /// Objects that are watched here.
    pub watched: usize,
    /// Reads of recent snapshots: of what this peer owns.
    pub reads_own: u64,
    /// Those that a group answered which this peer follows.
    pub reads_followed: u64,
    /// Those that a subscription answered.
    pub reads_subscribed: u64,
    /// Those that went to another peer.
    pub reads_elsewhere: u64,
    /// Whether every group that this peer leads is whole, every group of the mesh has a leader in reach, and somebody
    /// else knows of the groups that this peer has ended: then one more peer may stop or crash.
    pub may_stop: bool,
}

impl Peer {
    /// The peer's view of itself and its mesh.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let member = |(peer, member): (&PeerId, &crate::membership::Member)| MemberStatus {
            peer: *peer,
            group: member.group,
            connected: member.connected,
            owned: member.owned,
            clock_offset_us: member.clock_offset,
            heard_ms_ago: now.mono.since(member.heard_at).as_millis(),
        };
        let (unstable_bytes, unstable_since) = self.group.consensus().unstable();
        let groups: Vec<GroupStatus> = self.groups().map(|group| self.group_status(group)).collect();
        let in_reach = |leader: &PeerId| *leader == self.config.peer || self.is_connected(leader);
        let known = self.groups.leaders();
        let leaderless: Vec<GroupId> =
            known.filter(|(_, leader)| !leader.as_ref().is_some_and(in_reach)).map(|(group, _)| group).collect();
        let may_stop = leaderless.is_empty()
            && self.caretaking.is_empty()
            // What remains of a group that ended here goes with this peer, and its last members may be too few to find out.
            && (!self.end_is_untold || self.connected_members().is_empty())
            && self.led_groups().all(|group| self.wholeness(group).is_whole());
        Status {
            peer: self.config.peer,
            group: self.group.id(),
            founder: self.config.founder,
            members: self.members.iter().map(member).collect(),
            owned: self.group.owned_count(),
            in_transit: self.group.in_transit_count(),
            fetching: self.fetches.len(),
            transactions: self.txns.len(),
            tasks_submitted: self.tasks.counts().0,
            tasks_running: self.tasks.counts().1,
            tasks_panicked: self.tasks.panicked.listed(),
            schedules: self.schedule_counts(now),
            schedules_waiting: self.waiting_schedules(),
            journal_tail: self.group.tail().as_u64(),
            journal_lag: self.group.tail().as_u64() - self.group.watermark().as_u64(),
            held_bytes: self.held(),
            held_bytes_max: self.config.held_bytes_max,
            refused_for_room: self.metrics.refused_for_room,
            version_bytes: self.group.superseded_cost(),
            pointers: self.pointers.len(),
            hints: self.hints.len(),
            home_records: self.homes.len(),
            directory_bytes: self.pointers.about_bytes() + self.hints.about_bytes() + self.homes.about_bytes(),
            clock_off_us: self.clock_off_us(),
            draining: self.draining,
            groups,
            leaderless,
            held_messages: self.outbox.held_count(),
            unstable_bytes,
            unstable_ms: unstable_since.map_or(0, |since| now.mono.since(since).as_millis()),
            subscribed: self.subscribed.copies(),
            subscriptions: self.subscribed.feeds(),
            fed: self.feeding.objects(),
            watched: self.watching.objects(),
            reads_own: self.metrics.reads_own,
            reads_followed: self.metrics.reads_followed,
            reads_subscribed: self.metrics.reads_subscribed,
            reads_elsewhere: self.metrics.reads_elsewhere,
            may_stop,
        }
    }

    fn reaches_majority(&self, group: &Group) -> bool {
        let is_there = |voter: &MemberId| {
            let connected =
                |known: &crate::membership::Member| known.incarnation == voter.incarnation && known.connected;
            *voter == self.me() || self.members.get(&voter.peer).is_some_and(connected)
        };
        group.consensus().membership().is_majority(is_there)
    }

    fn group_status(&self, group: &Group) -> GroupStatus {
        let consensus = group.consensus();
        let wholeness = self.wholeness(group);
        GroupStatus {
            group: group.id(),
            leader: consensus.leader().map(|member| member.peer),
            term: group.term().as_u64(),
            voters: consensus.membership().voters.len(),
            learners: consensus.membership().learners.len(),
            whole: wholeness.whole,
            wanted: wholeness.wanted,
            is_whole: group.is_leading() && wholeness.is_whole(),
            may_lose_one: group.is_leading() && wholeness.may_lose_one,
            has_majority: group.is_leading() && self.reaches_majority(group),
            owned: group.owned_count(),
            tail: group.tail().as_u64(),
            lag: group.tail().as_u64() - group.watermark().as_u64(),
            halted: group.halted().map(str::to_owned),
        }
    }
}
