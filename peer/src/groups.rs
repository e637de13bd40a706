//! What a peer knows of all groups of its mesh: who leads each, and how those ended that are no more.
//!
//! Peers tell each other until all know the same (anti-entropy by a digest in the heartbeats). Like every record this
//! is only a hint where to ask (R1); the end of a group is none: it is told after its last entry was stable.

use crate::Peer;
use crate::message::{Ended, GroupRecord, Message};
use crate::metrics::RareEvent;
use driftmesh_model::{Generation, GroupId, Micros, ObjectId, PeerId, Term};
use driftmesh_object_store::{Group, is_sound_period};
use std::collections::BTreeMap;

/// Most records in one message, and about how many bytes (R24). What remains of a group that many others gave objects to weighs
/// something; a record that weighs more than that goes alone.
const RECORDS_PER_MESSAGE: usize = 256;
const RECORD_BYTES_PER_MESSAGE: usize = 1 << 20;
/// A member that knows something else is told all again after this.
const TELL_AGAIN_AFTER: Micros = Micros::from_millis(500);
/// Most groups known, those that have ended included (R24). Beyond it nothing new is learnt.
const GROUPS_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
struct Known {
    generation: Generation,
    term: Term,
    leader: Option<PeerId>,
}

/// The groups of the mesh.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    known: BTreeMap<GroupId, Known>,
    ended: BTreeMap<GroupId, Ended>,
    digest: u64,
}

/// What a record changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Nothing,
    Leader,
    End,
}

fn hashed(group: GroupId, parts: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&group.as_u128().to_be_bytes());
    for part in parts {
        hasher.update(&part.to_be_bytes());
    }
    let hash = hasher.finalize();
    u64::from_be_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
}

fn digest_of(group: GroupId, (generation, term): (Generation, Term)) -> u64 {
    hashed(group, &[generation.as_u64(), term.as_u64()])
}

fn digest_of_end(group: GroupId, ended: &Ended) -> u64 {
    if ended.lost { hashed(group, &[1]) } else { hashed(group, &[]) }
}

/// Cuts records into messages.
fn in_messages(records: Vec<GroupRecord>) -> Vec<Vec<GroupRecord>> {
    let (mut messages, mut bytes) = (Vec::<Vec<GroupRecord>>::new(), 0);
    for record in records {
        let more = record.about_bytes();
        match messages.last_mut() {
            Some(last) if last.len() < RECORDS_PER_MESSAGE && bytes + more <= RECORD_BYTES_PER_MESSAGE => {
                bytes += more;
                last.push(record);
            }
            Some(_) | None => {
                bytes = more;
                messages.push(vec![record]);
            }
        }
    }
    messages
}

impl Groups {
    fn is_full(&self) -> bool {
        self.known.len() + self.ended.len() >= GROUPS_MAX
    }

    fn learn_end(&mut self, group: GroupId, ended: &Ended) -> Change {
        if let Some(held) = self.ended.get(&group) {
            // What a group's own last entry says outranks that somebody gave it up: it is the truth, and all must agree.
            if !held.lost || ended.lost {
                return Change::Nothing;
            }
            self.digest ^= digest_of_end(group, held);
        } else if self.is_full() && !self.known.contains_key(&group) {
            return Change::Nothing;
        }
        if let Some(known) = self.known.remove(&group) {
            self.digest ^= digest_of(group, (known.generation, known.term));
        }
        self.digest ^= digest_of_end(group, ended);
        self.ended.insert(group, ended.clone());
        Change::End
    }

    fn learn(&mut self, record: &GroupRecord) -> Change {
        if let Some(ended) = &record.ended {
            return self.learn_end(record.group, ended);
        }
        if self.ended.contains_key(&record.group) {
            return Change::Nothing;
        }
        if !is_sound_period(record.generation, record.term) {
            // R25: no group came so far, and its true leaders could never say anything newer.
            return Change::Nothing;
        }
        let period = (record.generation, record.term);
        let former = self.known.get(&record.group).copied();
        // R2: a record is replaced by a higher one only.
        let better = match former {
            None => !self.is_full(),
            Some(former) => {
                let held = (former.generation, former.term);
                period > held || (period == held && former.leader.is_none() && record.leader.is_some())
            }
        };
        if !better {
            return Change::Nothing;
        }
        if let Some(former) = former {
            self.digest ^= digest_of(record.group, (former.generation, former.term));
        }
        self.digest ^= digest_of(record.group, period);
        let known = Known { generation: record.generation, term: record.term, leader: record.leader };
        self.known.insert(record.group, known);
        Change::Leader
    }

    /// Who leads a group, as far as this peer knows.
    pub(crate) fn leader(&self, group: GroupId) -> Option<PeerId> {
        self.known.get(&group)?.leader
    }

    /// An incarnation of a peer is gone: if it led the group, nobody does until somebody is elected. Whoever was elected
    /// already goes on leading it.
    pub(crate) fn leaderless(&mut self, group: GroupId, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&group).filter(|known| known.leader == Some(peer)) {
            known.leader = None;
        }
    }

    /// The newest leadership period that is known of a group that lives.
    fn period(&self, group: GroupId) -> Option<(Generation, Term)> {
        self.known.get(&group).map(|known| (known.generation, known.term))
    }

    /// The newest generation that is known of a group that lives.
    pub(crate) fn generation(&self, group: GroupId) -> Option<Generation> {
        self.known.get(&group).map(|known| known.generation)
    }

    /// The highest generation of any group.
    pub(crate) fn highest_generation(&self) -> Generation {
        self.known.values().map(|known| known.generation).max().unwrap_or_default()
    }

    /// What remains of a group that has ended.
    pub(crate) fn ended(&self, group: GroupId) -> Option<&Ended> {
        self.ended.get(&group)
    }

    /// Whether anything is known of a group.
    pub(crate) fn is_known(&self, group: GroupId) -> bool {
        self.known.contains_key(&group) || self.ended.contains_key(&group)
    }

    /// All groups that have ended.
    pub(crate) fn all_ended(&self) -> impl Iterator<Item = (GroupId, &Ended)> {
        self.ended.iter().map(|(group, ended)| (*group, ended))
    }

    /// The groups that live, and who leads each.
    pub(crate) fn leaders(&self) -> impl Iterator<Item = (GroupId, Option<PeerId>)> {
        self.known.iter().map(|(group, known)| (*group, known.leader))
    }

    /// Peers that know the same of all groups have the same digest.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    fn records(&self) -> Vec<GroupRecord> {
        let live = self.known.iter().map(|(group, known)| GroupRecord {
            group: *group,
            generation: known.generation,
            term: known.term,
            leader: known.leader,
            ended: None,
        });
        let ended = self.ended.iter().map(|(group, ended)| GroupRecord {
            group: *group,
            generation: Generation::ZERO,
            term: Term::ZERO,
            leader: None,
            ended: Some(ended.clone()),
        });
        live.chain(ended).collect()
    }
}

impl Peer {
    /// Who leads a group and can be asked: a connected peer, or this one.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<PeerId> {
        let leader = self.groups.leader(group)?;
        (leader == self.config.peer || self.is_connected(&leader)).then_some(leader)
    }

    /// Whether an operator gave a group up: what it owned is lost.
    pub(crate) fn was_forgotten(&self, group: GroupId) -> bool {
        self.groups.ended(group).is_some_and(|ended| ended.lost)
    }

    /// The group that an object was lost with, if the best record of it names one that was given up (R1: what owners
    /// say comes first; ask after a search that found none).
    pub fn lost_with(&mut self, object: ObjectId) -> Option<GroupId> {
        let (_, record) = self.best_record(object)?;
        self.was_forgotten(record.group).then_some(record.group)
    }

    /// Whether this peer knows that a group has ended.
    #[must_use]
    pub fn has_ended(&self, group: GroupId) -> bool {
        self.groups.ended(group).is_some()
    }

    /// Whether a group has ended, or goes on as a higher generation than this.
    pub(crate) fn is_over(&self, group: GroupId, generation: Generation) -> bool {
        self.has_ended(group) || self.groups.generation(group).is_some_and(|known| known > generation)
    }

    /// R4: whether a group may have objects that nobody answers for: it has no leader that this peer knows of, or one
    /// that does not promise anything yet, or more is going on in it than was told to all.
    pub(crate) fn some_group_is_silent(&self) -> bool {
        let unknown = |group: &Group| {
            let period = (group.generation(), group.term());
            let told = self.groups.ended(group.id()).is_some() || self.groups.period(group.id()) >= Some(period);
            !told || (group.is_leading() && !group.consensus().is_confirmed())
        };
        let nobody = |(group, leader): (GroupId, Option<PeerId>)| match leader {
            None => true,
            Some(leader) => leader == self.config.peer && self.led(group).is_none(),
        };
        self.groups().any(unknown) || self.groups.leaders().any(nobody)
    }

    /// R4: whether the best record of an object that is looked for names a group of which nothing else is known: somebody
    /// had it, and cannot be asked.
    pub(crate) fn names_unknown_group(&self, object: ObjectId) -> bool {
        let best = self.fetches.get(&object).and_then(|fetch| fetch.lookup.best());
        let is_unknown = |group| self.groups.period(group).is_none() && self.groups.ended(group).is_none();
        best.is_some_and(|best| is_unknown(best.group))
    }

    /// What peers compare to know whether they know the same of all groups, for those who look for an object.
    pub(crate) fn digest_for_search(&self) -> u64 {
        // What somebody cannot answer for, nobody may declare absent.
        if self.some_group_is_silent() { !self.groups.digest() } else { self.groups.digest() }
    }

    /// Takes in what is known of a group.
    pub(crate) fn learn_group(&mut self, record: &GroupRecord) {
        match self.groups.learn(record) {
            Change::Nothing => {}
            Change::Leader => {
                // R9: what a member holds of a former generation counts for nothing, whoever leads that.
                let (group, generation) = (record.group, record.generation);
                if self.group_of(group).is_some_and(|held| held.generation() < generation) {
                    self.with_group(group, |held, now| held.supersede(now, generation));
                }
                self.repeat_grants_to(record.group);
                self.searches_for_group(record.group);
            }
            Change::End => self.group_ended(record.group),
        }
    }

    pub(crate) fn groups_told(&mut self, records: &[GroupRecord]) {
        for record in records {
            self.learn_group(record);
        }
    }

    /// What this peer's journal says of a group that it leads.
    pub(crate) fn record_of_led(&self, group: GroupId) -> Option<GroupRecord> {
        let led = self.led(group)?;
        let leader = Some(self.config.peer);
        Some(GroupRecord { group, generation: led.generation(), term: led.term(), leader, ended: None })
    }

    /// What remains of a group, if this peer knows that it has ended.
    #[must_use]
    pub fn remains_of(&self, group: GroupId) -> Option<&Ended> {
        self.groups.ended(group)
    }

    /// What remains of a group, if it has ended.
    pub(crate) fn record_of_ended(&self, group: GroupId) -> Option<GroupRecord> {
        let ended = Some(self.groups.ended(group)?.clone());
        Some(GroupRecord { group, generation: Generation::ZERO, term: Term::ZERO, leader: None, ended })
    }

    /// Tells all members about one group.
    pub(crate) fn tell_all_about(&mut self, record: &GroupRecord) {
        self.learn_group(record);
        self.end_is_untold |= record.ended.is_some();
        for peer in self.connected_members() {
            self.send_now(peer, Message::Groups { records: vec![record.clone()] });
        }
    }

    /// Tells a member all that this peer knows of groups.
    pub(crate) fn tell_groups(&mut self, to: PeerId) {
        for records in in_messages(self.groups.records()) {
            self.send_now(to, Message::Groups { records });
        }
    }

    /// A heartbeat told whether its sender knows the same of all groups.
    pub(crate) fn compare_groups(&mut self, from: PeerId, digest: u64) {
        let now = self.now.mono;
        let Some(member) = self.members.get_mut(&from) else { return };
        member.groups_digest = Some(digest);
        if digest == self.groups.digest() {
            self.end_is_untold = false;
            return;
        }
        if now.since(member.told_groups_at) >= TELL_AGAIN_AFTER {
            member.told_groups_at = now;
            self.tell_groups(from);
        }
    }

    /// A group is no more: what it answered is known, and nobody waits for it.
    fn group_ended(&mut self, group: GroupId) {
        self.metrics.note(RareEvent::GroupEnded);
        if group == self.group.id() && self.remains(group).is_none() {
            // R9: others elected a leader while this peer was cut off or stood still, and are done with the group.
            self.own_group_deposed();
        }
        self.drop_followed(group);
        self.dropped.remove(&group);
        self.settle_grants_to_ended(group);
        self.wake_fates(group);
        self.forget_members_of(group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::limits::GRANT_WINDOW;
    use driftmesh_model::{Lsn, codec};
    use driftmesh_object_store::{GrantLog, TermTable};

    /// What remains of a group that so many others gave objects to, with as much as a grant log remembers for some of them.
    fn remains(group: u64, others: u64) -> GroupRecord {
        let mut terms = TermTable::default();
        (1..=20).for_each(|term| terms.push(Term::from_u64(term << 40), Lsn::from_u64(term << 40)).unwrap());
        let id = |number: u64| GroupId::from_u128(u128::MAX - u128::from(number));
        let log = |other: u64| {
            let mut log = GrantLog::default();
            let remembered = if other.is_multiple_of(100) { GRANT_WINDOW } else { 2 };
            (1..remembered).for_each(|number| log.record(1 << 40 | number, number % 2 == 0));
            log
        };
        let received = (0..others).map(|other| (id(other), log(other))).collect();
        let sent = (0..others).map(|other| (id(other), u64::MAX)).collect();
        let ended = Some(Ended { terms, tail: Lsn::from_u64(u64::MAX), received, sent, lost: false });
        let group = id(group);
        GroupRecord { group, generation: Generation::ZERO, term: Term::ZERO, leader: None, ended }
    }

    #[test]
    fn what_is_told_of_many_groups_is_cut_by_count_and_by_bytes() {
        let light: Vec<_> = (0..600).map(|group| remains(group, 0)).collect();
        let lengths: Vec<usize> = in_messages(light).iter().map(Vec::len).collect();
        assert_eq!(lengths, [256, 256, 88]);

        let heavy: Vec<_> = (0..256).map(|group| remains(group, 400)).collect();
        let whole = codec::encode(&Message::Groups { records: heavy.clone() }).unwrap().len();
        assert!(whole > driftmesh_model::limits::MESSAGE_BYTES_MAX, "{whole} bytes would fit one message");
        let messages = in_messages(heavy.clone());
        assert_eq!(messages.concat(), heavy);
        for records in messages {
            let most =
                records.iter().map(GroupRecord::about_bytes).max().unwrap_or_default().max(RECORD_BYTES_PER_MESSAGE);
            let encoded = codec::encode(&Message::Groups { records }).unwrap().len();
            assert!(encoded <= most + 256, "{encoded} bytes");
        }
    }
}
