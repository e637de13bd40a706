//! What a peer says of itself and its mesh: for operators, tools and `driftmesh status`.
//!
//! It refuses to judge for all: each field is what this peer knows, which others may know better.

use crate::task_views::{PanickedView, SchedulesView};
use crate::transport::{Offender, TransportCounters, to_libp2p};
use driftmesh_model::PeerId;
use driftmesh_peer::{GroupStatus, MemberStatus, Metrics, Status};
use serde::{Serialize, Serializer};

/// A peer's full id, as it stands in addresses.
fn full_id<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    match to_libp2p(peer) {
        Some(full) => serializer.collect_str(&full),
        None => serializer.collect_str(peer),
    }
}

fn maybe_full_id<S: Serializer>(peer: &Option<PeerId>, serializer: S) -> Result<S::Ok, S::Error> {
    match peer {
        Some(peer) => full_id(peer, serializer),
        None => serializer.serialize_none(),
    }
}

/// Another member as this peer sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MemberView {
    /// Who it is; in JSON its full id.
    #[serde(serialize_with = "full_id")]
    pub peer: PeerId,
    /// The group it leads.
    pub group: String,
    /// Whether it can be reached.
    pub connected: bool,
    /// How many objects it last said it owns.
    pub owned: u64,
    /// Its wall clock minus ours, microseconds; what heartbeats take there and back cancels out. `None` before the
    /// first heartbeat.
    pub clock_offset_us: Option<i64>,
    /// How long ago it was last heard, milliseconds.
    pub heard_ms_ago: u64,
}

impl From<MemberStatus> for MemberView {
    fn from(member: MemberStatus) -> Self {
        Self {
            peer: member.peer,
            group: member.group.to_string(),
            connected: member.connected,
            owned: member.owned.unwrap_or(0),
            clock_offset_us: member.clock_offset_us,
            heard_ms_ago: member.heard_ms_ago,
        }
    }
}

/// A group that this peer belongs to: its own, or another's of which it holds a copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GroupView {
    /// The group.
    pub group: String,
    /// Who leads it, as far as this peer knows; in JSON the full id.
    #[serde(serialize_with = "maybe_full_id")]
    pub leader: Option<PeerId>,
    /// How often it has changed its leader, and one.
    pub term: u64,
    /// Members that vote.
    pub voters: usize,
    /// Members that only hold the data.
    pub learners: usize,
    /// Members that hold everything, the leader included; only its leader knows.
    pub whole: usize,
    /// How many there shall be.
    pub wanted: usize,
    /// Whether it has all members that it can have and all of them hold everything; `false` where this peer follows.
    pub is_whole: bool,
    /// Whether any one member may crash and the group goes on without an operator; `false` where this peer follows.
    pub may_lose_one: bool,
    /// Whether a majority of its voters is in reach; without one nothing that it commits becomes stable, until its members are
    /// back or an operator promotes it. `false` where this peer follows.
    pub has_majority: bool,
    /// Objects it owns, as far as this peer has heard.
    pub owned: usize,
    /// The last position of its journal here.
    pub tail: u64,
    /// Positions here that are not known to be stable.
    pub lag: u64,
    /// Why this peer's part in it has stopped, if it has.
    pub halted: Option<String>,
}

impl From<GroupStatus> for GroupView {
    fn from(group: GroupStatus) -> Self {
        Self {
            group: group.group.to_string(),
            leader: group.leader,
            term: group.term,
            voters: group.voters,
            learners: group.learners,
            whole: group.whole,
            wanted: group.wanted,
            is_whole: group.is_whole,
            may_lose_one: group.may_lose_one,
            has_majority: group.has_majority,
            owned: group.owned,
            tail: group.tail,
            lag: group.lag,
            halted: group.halted,
        }
    }
}

/// What went over all connections since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TransportView {
    /// Frames written.
    pub frames_sent: u64,
    /// Bytes written, before encryption.
    pub bytes_sent: u64,
    /// Frames read.
    pub frames_received: u64,
    /// Bytes read, after decryption.
    pub bytes_received: u64,
    /// Messages that were queued, but not written before their connection ended.
    pub dropped: u64,
    /// Messages turned away because a peer's queue was full.
    pub busy: u64,
    /// Handshakes that ended with a refusal, by either side.
    pub refused: u64,
    /// Those of them where the other side belongs to another mesh of the same name.
    pub other_genesis: u64,
    /// Peers heard of by mDNS for which there was no room.
    pub nearby_dropped: u64,
    /// Records that members wanted Kademlia to store, which it never does.
    pub records_refused: u64,
    /// How often a connection's routing messages had to wait because there were too many.
    pub routing_throttled: u64,
    /// Messages that did not decode.
    pub undecodable: u64,
    /// Messages that no peer says, whatever faults there are.
    pub impossible: u64,
    /// Connections of members that ended with bytes that are no frame.
    pub malformed: u64,
    /// How often a member was dropped for any of these three, and refused for a while.
    pub offenders_dropped: u64,
    /// Handshakes that were refused because the peer had been dropped.
    pub offenders_refused: u64,
    /// How often nothing more was taken in of a member for a moment, because it had said too much.
    pub inbound_paused: u64,
    /// Connections that were not taken because there were too many, or too many of one address or peer.
    pub connections_turned_away: u64,
    /// Handshakes that were not begun because too many were under way, or too many of one address.
    pub handshakes_turned_away: u64,
}

impl TransportView {
    pub(crate) const fn new(counters: TransportCounters, undecodable: u64) -> Self {
        Self {
            frames_sent: counters.frames_sent,
            bytes_sent: counters.bytes_sent,
            frames_received: counters.frames_received,
            bytes_received: counters.bytes_received,
            dropped: counters.dropped,
            busy: counters.busy,
            refused: counters.refused,
            other_genesis: counters.other_genesis,
            nearby_dropped: counters.nearby_dropped,
            records_refused: counters.records_refused,
            routing_throttled: counters.routing_throttled,
            undecodable,
            impossible: counters.impossible,
            malformed: counters.malformed,
            offenders_dropped: counters.offenders_dropped,
            offenders_refused: counters.offenders_refused,
            inbound_paused: counters.inbound_paused,
            connections_turned_away: counters.connections_turned_away,
            handshakes_turned_away: counters.handshakes_turned_away,
        }
    }
}

/// A member that said what no peer says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OffenderView {
    /// Who; in JSON its full id.
    #[serde(serialize_with = "full_id")]
    pub peer: PeerId,
    /// Its messages that did not decode.
    pub undecodable: u64,
    /// Its messages that no peer says, whatever faults there are.
    pub impossible: u64,
    /// Its connections that ended with bytes that are no frame.
    pub malformed: u64,
    /// How often it was dropped.
    pub dropped: u32,
    /// How long it will still be refused, milliseconds; 0 when it is not.
    pub refused_for_ms: u64,
}

impl From<Offender> for OffenderView {
    fn from(offender: Offender) -> Self {
        let left = offender.refused_for.unwrap_or_default().as_millis();
        Self {
            peer: offender.peer,
            undecodable: offender.undecodable,
            impossible: offender.impossible,
            malformed: offender.malformed,
            dropped: offender.dropped,
            refused_for_ms: u64::try_from(left).unwrap_or(u64::MAX),
        }
    }
}

/// Who answered the reads of recent snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ReadsView {
    /// This peer, of what it owns.
    pub own: u64,
    /// This peer, from a group that it follows.
    pub followed: u64,
    /// This peer, from a copy that it is subscribed to.
    pub subscribed: u64,
    /// Another peer.
    pub elsewhere: u64,
}

/// What replica groups made a peer do since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ReplicationView {
    /// Groups that it was elected to lead in place of their founders.
    pub taken_over: u64,
    /// Objects that it handed out of such groups.
    pub handed_out: u64,
    /// How often another peer was elected to lead its own group.
    pub deposed: u64,
    /// Windows of time that it journalled: each lets it promise something to others for a while.
    pub windows: u64,
    /// Commits that waited because too much was not stable.
    pub held_commits: u64,
}

impl From<&Metrics> for ReplicationView {
    fn from(metrics: &Metrics) -> Self {
        let Metrics { taken_over, handed_out, deposed, windows, held_commits, .. } = metrics;
        Self {
            taken_over: *taken_over,
            handed_out: *handed_out,
            deposed: *deposed,
            windows: *windows,
            held_commits: *held_commits,
        }
    }
}

/// A peer's view of itself and its mesh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MeshStatus {
    /// The name of the mesh.
    pub mesh: String,
    /// What tells the mesh from others of its name; `None` until a peer has admitted this one.
    pub genesis: Option<String>,
    /// This peer; in JSON its full id.
    #[serde(serialize_with = "full_id")]
    pub peer: PeerId,
    /// Where others can join.
    pub addresses: Vec<String>,
    /// The failure domain it was started in.
    pub zone: Option<String>,
    /// Time since the start, milliseconds.
    pub uptime_ms: u64,
    /// The group this peer leads.
    pub group: String,
    /// Whether it founded the mesh; one peer of a mesh did, and may have ended since.
    pub founder: bool,
    /// Objects owned, deleted ones that are not forgotten yet included.
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
    /// Tasks that panicked here, the last 16 kinds of them, the newest first. They have ended with that.
    pub tasks_panicked: Vec<PanickedView>,
    /// Schedules of the objects that this peer owns.
    pub schedules: SchedulesView,
    /// The journal's last position.
    pub journal_tail: u64,
    /// Positions of the journal that are not stable yet.
    pub journal_lag: u64,
    /// What the objects take that this peer holds, its own and copies of others', bytes.
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
    /// How far this peer's clock is ahead of the median of the members' (negative: behind), microseconds, if that is so
    /// far off that it begins no transaction.
    pub clock_off_us: Option<i64>,
    /// Whether the peer is leaving.
    pub draining: bool,
    /// Whether another process counts as this peer now: it takes no part any more, and should be stopped.
    pub superseded: bool,
    /// The groups that this peer belongs to, its own first.
    pub groups: Vec<GroupView>,
    /// Groups of the mesh that nobody in reach is known to lead: what they own is unavailable.
    pub leaderless: Vec<String>,
    /// Messages that wait until what they depend on is stable.
    pub held_messages: usize,
    /// Bytes of this peer's journal that are not stable.
    pub unstable_bytes: u64,
    /// How long the oldest of them has been there, milliseconds.
    pub unstable_ms: u64,
    /// Copies of others' objects that this peer is subscribed to, because they are often read here or watched.
    pub subscribed: usize,
    /// Groups of which it is told so.
    pub subscriptions: usize,
    /// Objects of groups led here of which subscribers are told.
    pub fed: usize,
    /// Objects that are watched here.
    pub watched: usize,
    /// Reads of recent snapshots ([`crate::Mesh::reads`]) since the start, by who answered.
    pub reads: ReadsView,
    /// Whether every group that this peer leads is whole, every group of the mesh has a leader in reach, and somebody
    /// else knows of the groups that have ended here. When all peers say so, one more may stop or crash.
    pub may_stop: bool,
    /// Why not, in one line for people; `None` when one may.
    pub may_not_stop_because: Option<String>,
    /// The other members that this peer knows of.
    pub members: Vec<MemberView>,
    /// What went over all connections.
    pub transport: TransportView,
    /// Members that said what no peer says: the worst 16 that are remembered.
    pub offenders: Vec<OffenderView>,
    /// The longest time that messages or timers held the core, microseconds.
    pub longest_core_hold_us: u64,
    /// What replica groups made it do since its start.
    pub replication: ReplicationView,
}

/// What stands in a [`MeshStatus`] beside the core's part.
pub(crate) struct Surroundings {
    pub(crate) mesh: String,
    pub(crate) genesis: Option<String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) zone: Option<String>,
    pub(crate) uptime_ms: u64,
    pub(crate) transport: TransportView,
    pub(crate) offenders: Vec<OffenderView>,
    pub(crate) longest_core_hold_us: u64,
    pub(crate) replication: ReplicationView,
    pub(crate) superseded: bool,
}

impl MeshStatus {
    pub(crate) fn new(core: Status, around: Surroundings) -> Self {
        let schedules = SchedulesView::from(&core);
        let may_not_stop_because = (!core.may_stop).then(|| hindrance(&core));
        Self {
            mesh: around.mesh,
            genesis: around.genesis,
            peer: core.peer,
            addresses: around.addresses,
            zone: around.zone,
            uptime_ms: around.uptime_ms,
            group: core.group.to_string(),
            founder: core.founder,
            owned: core.owned,
            in_transit: core.in_transit,
            fetching: core.fetching,
            transactions: core.transactions,
            tasks_submitted: core.tasks_submitted,
            tasks_running: core.tasks_running,
            tasks_panicked: core.tasks_panicked.into_iter().map(PanickedView::from).collect(),
            schedules,
            journal_tail: core.journal_tail,
            journal_lag: core.journal_lag,
            held_bytes: core.held_bytes,
            held_bytes_max: core.held_bytes_max,
            refused_for_room: core.refused_for_room,
            version_bytes: core.version_bytes,
            pointers: core.pointers,
            hints: core.hints,
            home_records: core.home_records,
            directory_bytes: core.directory_bytes,
            clock_off_us: core.clock_off_us,
            draining: core.draining,
            superseded: around.superseded,
            groups: core.groups.into_iter().map(GroupView::from).collect(),
            leaderless: core.leaderless.iter().map(ToString::to_string).collect(),
            held_messages: core.held_messages,
            unstable_bytes: core.unstable_bytes,
            unstable_ms: core.unstable_ms,
            subscribed: core.subscribed,
            subscriptions: core.subscriptions,
            fed: core.fed,
            watched: core.watched,
            reads: ReadsView {
                own: core.reads_own,
                followed: core.reads_followed,
                subscribed: core.reads_subscribed,
                elsewhere: core.reads_elsewhere,
            },
            may_stop: core.may_stop,
            may_not_stop_because,
            members: core.members.into_iter().map(MemberView::from).collect(),
            transport: around.transport,
            offenders: around.offenders,
            longest_core_hold_us: around.longest_core_hold_us,
            replication: around.replication,
        }
    }
}

/// What keeps another peer from stopping, as a peer knows that says one may not.
fn hindrance(core: &Status) -> String {
    if let Some(group) = core.leaderless.first() {
        let more = core.leaderless.len() - 1;
        let others = if more > 0 { format!(" and {more} others") } else { String::new() };
        return format!("nobody in reach leads group {group}{others}");
    }
    let led = |group: &&GroupStatus| group.leader == Some(core.peer);
    if let Some(group) = core.groups.iter().find(|group| led(group) && !group.has_majority) {
        return format!("the majority of group {} is out of reach: nothing becomes stable in it", group.group);
    }
    if let Some(group) = core.groups.iter().skip(1).find(led) {
        return format!("group {} of a lost peer still owns {} objects", group.group, group.owned);
    }
    match core.groups.iter().find(|group| led(group) && !group.is_whole) {
        Some(group) => format!("{} of {} members hold all of group {}", group.whole, group.wanted, group.group),
        None => "nobody else is known to have heard of a group that has ended here".to_owned(),
    }
}
