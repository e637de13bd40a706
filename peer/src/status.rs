//! What a peer says of itself: for operators and tools.

use crate::Peer;
use driftmesh_model::{GroupId, Now, PeerId};

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
    /// The journal's last position.
    pub journal_tail: u64,
    /// Positions that are not stable yet.
    pub journal_lag: u64,
    /// What superseded versions cost, bytes.
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
        let journal = self.group.journal();
        Status {
            peer: self.config.peer,
            group: self.group.id(),
            founder: self.config.founder,
            members: self.members.iter().map(member).collect(),
            owned: self.group.owned_count(),
            in_transit: self.group.in_transit_count(),
            fetching: self.fetches.len(),
            transactions: self.txns.len(),
            journal_tail: journal.tail().as_u64(),
            journal_lag: journal.tail().as_u64() - journal.watermark().as_u64(),
            version_bytes: self.group.superseded_cost(),
            pointers: self.pointers.len(),
            hints: self.hints.len(),
            home_records: self.homes.len(),
            directory_bytes: self.pointers.about_bytes() + self.hints.about_bytes() + self.homes.about_bytes(),
            clock_off_us: self.clock_off_us(),
            draining: self.draining,
        }
    }
}
