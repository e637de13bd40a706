//! The one way out of a peer: messages wait here until what they depend on is stable (R6).
//!
//! What one step says to one peer about many objects is gathered into one message of each kind, so that n objects cost
//! one round, and each peer on the way one turn on its processor.

use crate::message::{
    Envelope, Grant, GrantAnswer, LocateRequest, Located, Message, OwnRequest, Queued, ReadAnswer, ReadRequest,
};
use driftmesh_directory::Record;
use driftmesh_model::{Generation, GroupId, Lsn, ObjectId, PeerId, Timestamp};
use std::collections::BTreeMap;

/// About how many bytes of values one gathered message carries before it is sent.
const GATHERED_BYTES_MAX: usize = 256 << 10;
/// Most records in one message.
pub(crate) const RECORDS_MAX: usize = 4_096;
/// Most messages held back (R24). Whoever misses one asks again; the core repeats its own.
const HELD_MAX: usize = 1 << 16;
/// About how many bytes they have together at most: what is repeated while nothing becomes stable waits as often.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Positions of journals that must be stable before something leaves (R6). Those that are so already are left out.
pub(crate) type Needs = Vec<(GroupId, Lsn)>;

/// Answers of one group to reads at one snapshot, which depend on its journal up to a position; zero for none.
type AnswerKey = (Timestamp, GroupId, Lsn);

#[derive(Clone, Debug, Default)]
struct Gathered {
    reads: BTreeMap<Timestamp, Vec<ReadRequest>>,
    answers: BTreeMap<AnswerKey, (usize, Vec<ReadAnswer>)>,
    owns: BTreeMap<ObjectId, OwnRequest>,
    queued: Vec<Queued>,
    stays: Vec<ObjectId>,
    locates: Vec<LocateRequest>,
    located: Vec<Located>,
    learned: Vec<Record>,
    /// By the group that sends them.
    grants: BTreeMap<GroupId, Grants>,
    /// By the two groups, the sender of the grants first; each list depends on the receiver's journal up to a position.
    grant_answers: BTreeMap<(GroupId, GroupId), Answers>,
}

/// Grants of one group, which depend on its journal up to a position; zero for none.
#[derive(Clone, Debug, Default)]
struct Grants {
    generation: Generation,
    needs: Lsn,
    bytes: usize,
    grants: Vec<Grant>,
}

/// Answers of one group to grants of another; they depend on its journal up to a position, zero for none.
#[derive(Clone, Debug, Default)]
struct Answers {
    generation: Generation,
    needs: Lsn,
    answers: Vec<GrantAnswer>,
}

/// What depends on one position needs; zero for nothing.
pub(crate) fn needs_of(group: GroupId, lsn: Lsn) -> Needs {
    if lsn == Lsn::ZERO { Needs::new() } else { vec![(group, lsn)] }
}

/// Cuts what is said about many objects into messages (R24).
fn parts<T>(mut all: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let rest = if all.len() > RECORDS_MAX { all.split_off(RECORDS_MAX) } else { Vec::new() };
        Some(std::mem::replace(&mut all, rest)).filter(|part| !part.is_empty())
    })
}

#[derive(Clone, Debug)]
struct Held {
    /// What it depends on besides the position that it is held for.
    others: Needs,
    to: PeerId,
    message: Message,
    bytes: usize,
}

/// Messages on their way out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    gathered: BTreeMap<PeerId, Gathered>,
    /// Messages that depend on a position that is not stable yet, by that position.
    held: BTreeMap<(GroupId, Lsn), Vec<Held>>,
    held_count: usize,
    held_bytes: usize,
    ready: Vec<(PeerId, Message)>,
    /// For this peer itself, as a home: records by the group that they are of, with the position that they depend on.
    own_records: BTreeMap<GroupId, (Lsn, Vec<Record>)>,
    /// Each thing that could share a message leaves in its own.
    small: bool,
}

impl Outbox {
    /// From now on each thing that could share a message leaves in its own.
    pub(crate) const fn send_small(&mut self) {
        self.small = true;
    }

    const fn gathered_bytes_max(&self) -> usize {
        if self.small { 0 } else { GATHERED_BYTES_MAX }
    }

    pub(crate) fn read(&mut self, to: PeerId, snapshot: Timestamp, request: ReadRequest) {
        self.gathered.entry(to).or_default().reads.entry(snapshot).or_default().push(request);
    }

    /// Adds an answer, which depends on `needs` of the answering group's journal; zero for what is stable. Returns a
    /// full message to send now, if one is.
    pub(crate) fn answer(
        &mut self,
        to: PeerId,
        (snapshot, group, needs): AnswerKey,
        bytes: usize,
        answer: ReadAnswer,
    ) -> Option<Message> {
        let most = self.gathered_bytes_max();
        let gathered = self.gathered.entry(to).or_default();
        let (size, answers) = gathered.answers.entry((snapshot, group, needs)).or_default();
        *size += bytes;
        answers.push(answer);
        if *size < most {
            return None;
        }
        let (_, answers) = gathered.answers.remove(&(snapshot, group, needs))?;
        Some(Message::ReadAnswers { snapshot, group, answers })
    }

    pub(crate) fn own(&mut self, to: PeerId, request: OwnRequest) {
        self.gathered.entry(to).or_default().owns.insert(request.object, request);
    }

    pub(crate) fn queued(&mut self, to: PeerId, queued: Queued) {
        self.gathered.entry(to).or_default().queued.push(queued);
    }

    pub(crate) fn stays(&mut self, to: PeerId, object: ObjectId) {
        self.gathered.entry(to).or_default().stays.push(object);
    }

    pub(crate) fn locate(&mut self, to: PeerId, request: LocateRequest) {
        self.gathered.entry(to).or_default().locates.push(request);
    }

    pub(crate) fn located(&mut self, to: PeerId, located: Located) {
        self.gathered.entry(to).or_default().located.push(located);
    }

    pub(crate) fn learned(&mut self, to: PeerId, record: Record) {
        self.gathered.entry(to).or_default().learned.push(record);
    }

    /// Adds a record for this peer as a home, which depends on `needs` of its group's journal.
    pub(crate) fn own_record(&mut self, record: Record, needs: Lsn) {
        let (latest, records) = self.own_records.entry(record.group).or_default();
        *latest = needs.max(*latest);
        records.push(record);
    }

    /// Adds a grant, which depends on `needs` of the granting group's journal; zero for what is stable. Returns how many
    /// have to wait.
    pub(crate) fn grant(
        &mut self,
        to: PeerId,
        (generation, needs): (Generation, Lsn),
        bytes: usize,
        grant: Grant,
    ) -> usize {
        let (from, most) = (grant.from, self.gathered_bytes_max());
        let grants = self.gathered.entry(to).or_default().grants.entry(from).or_default();
        grants.generation = generation;
        grants.needs = grants.needs.max(needs);
        grants.bytes += bytes;
        grants.grants.push(grant);
        if grants.bytes < most {
            return 0;
        }
        let Grants { generation, needs, grants, .. } = std::mem::take(grants);
        usize::from(self.when_stable(needs_of(from, needs), to, Message::Grants { generation, grants }))
    }

    /// Adds the answer of a group to a grant, which depends on `needs` of that group's journal; zero for what is stable.
    pub(crate) fn grant_answer(
        &mut self,
        peer: PeerId,
        (from, to): (GroupId, GroupId),
        (generation, needs): (Generation, Lsn),
        answer: GrantAnswer,
    ) {
        let answers = self.gathered.entry(peer).or_default().grant_answers.entry((from, to)).or_default();
        answers.generation = generation;
        answers.needs = answers.needs.max(needs);
        answers.answers.push(answer);
    }

    /// Sends what depends on nothing.
    pub(crate) fn now(&mut self, to: PeerId, message: Message) {
        self.ready.push((to, message));
    }

    /// The one barrier: a message leaves once all that it depends on is stable. Returns whether it has to wait.
    pub(crate) fn when_stable(&mut self, mut needs: Needs, to: PeerId, message: Message) -> bool {
        let Some(first) = needs.pop() else {
            self.now(to, message);
            return false;
        };
        let bytes = message.about_bytes();
        if self.held_count >= HELD_MAX || self.held_bytes.saturating_add(bytes) > HELD_BYTES_MAX {
            // R24: while nothing becomes stable nothing is promised either.
            return true;
        }
        self.hold(first, Held { others: needs, to, message, bytes });
        true
    }

    fn hold(&mut self, first: (GroupId, Lsn), held: Held) {
        self.held_count += 1;
        self.held_bytes += held.bytes;
        self.held.entry(first).or_default().push(held);
    }

    /// A group's watermark moved: what waited for it may leave, or waits for another group.
    pub(crate) fn release(&mut self, group: GroupId, watermark: Lsn, is_stable: impl Fn(GroupId, Lsn) -> bool) {
        while let Some((key, _)) = self.held.range((group, Lsn::ZERO)..=(group, watermark)).next() {
            let key = *key;
            for mut held in self.held.remove(&key).unwrap_or_default() {
                self.held_count -= 1;
                self.held_bytes -= held.bytes;
                held.others.retain(|(group, lsn)| !is_stable(*group, *lsn));
                match held.others.pop() {
                    Some(next) => self.hold(next, held),
                    None => self.now(held.to, held.message),
                }
            }
        }
    }

    /// R9: a group that is led by somebody else says nothing more of what it held back.
    pub(crate) fn forget_group(&mut self, group: GroupId) {
        for gathered in self.gathered.values_mut() {
            // What was gathered in this very step has not been held back yet. Whoever asked asks again.
            gathered.answers.retain(|(_, of, needs), _| *of != group || *needs == Lsn::ZERO);
            gathered.grants.retain(|of, _| *of != group);
            gathered.grant_answers.retain(|(_, of), answers| *of != group || answers.needs == Lsn::ZERO);
            gathered.learned.clear();
            gathered.located.clear();
            gathered.queued.clear();
        }
        self.own_records.remove(&group);
        for held in self.held.values_mut() {
            held.retain(|held| held.others.iter().all(|(other, _)| *other != group));
        }
        self.held.retain(|(of, _), held| *of != group && !held.is_empty());
        self.count_held();
    }

    /// The last position of a group's journal that anything waits for; zero when nothing does.
    pub(crate) fn waits_for(&self, group: GroupId) -> Lsn {
        let held = self.held.range((group, Lsn::ZERO)..=(group, Lsn::from_u64(u64::MAX)));
        held.map(|((_, lsn), _)| *lsn).next_back().unwrap_or_default()
    }

    /// Whether so much is held back that nothing should be repeated which waits already: there is to be room for others.
    pub(crate) const fn is_pressed(&self) -> bool {
        self.held_bytes > HELD_BYTES_MAX / 2 || self.held_count > HELD_MAX / 2
    }

    fn count_held(&mut self) {
        let held = self.held.values().flatten();
        (self.held_count, self.held_bytes) = held.fold((0, 0), |(count, bytes), held| (count + 1, bytes + held.bytes));
    }

    /// How many messages are held back.
    pub(crate) const fn held_count(&self) -> usize {
        self.held_count
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.ready.is_empty() && self.own_records.is_empty()
    }

    /// Turns what was gathered into messages. `needs` is what says of this peer's groups depend on, `own` the group
    /// that asks for ownership, `me` this peer. Returns how many have to wait.
    pub(crate) fn flush(&mut self, needs: &Needs, own: GroupId, me: PeerId) -> usize {
        let mut held = 0;
        for (group, (lsn, records)) in std::mem::take(&mut self.own_records) {
            for records in records.chunks(if self.small { 1 } else { RECORDS_MAX }) {
                let message = Message::Publish { batch: 0, records: records.to_vec() };
                held += usize::from(self.when_stable(needs_of(group, lsn), me, message));
            }
        }
        for (to, gathered) in std::mem::take(&mut self.gathered) {
            // Requests tell nothing of what is here.
            for (snapshot, objects) in gathered.reads {
                for objects in parts(objects) {
                    self.now(to, Message::Read { snapshot, objects });
                }
            }
            for requests in parts(gathered.owns.into_values().collect()) {
                self.now(to, Message::Own { group: own, requests });
            }
            for objects in parts(gathered.queued) {
                self.now(to, Message::Queued { objects });
            }
            for objects in parts(gathered.stays) {
                // R6: whoever hears it sends its task here, which builds on nothing that this says.
                self.now(to, Message::Stays { objects });
            }
            for objects in parts(gathered.locates) {
                self.now(to, Message::Locate { objects });
            }
            for ((snapshot, group, lsn), (_, answers)) in gathered.answers {
                let message = Message::ReadAnswers { snapshot, group, answers };
                held += usize::from(self.when_stable(needs_of(group, lsn), to, message));
            }
            for (group, Grants { generation, needs, grants, .. }) in gathered.grants {
                if !grants.is_empty() {
                    let message = Message::Grants { generation, grants };
                    held += usize::from(self.when_stable(needs_of(group, needs), to, message));
                }
            }
            for ((from, group), Answers { generation, needs, answers }) in gathered.grant_answers {
                let message = Message::GrantAnswers { from, to: group, generation, answers };
                held += usize::from(self.when_stable(needs_of(group, needs), to, message));
            }
            for records in gathered.learned.chunks(if self.small { 1 } else { RECORDS_MAX }) {
                let message = Message::Learned { records: records.to_vec() };
                held += usize::from(self.when_stable(needs.clone(), to, message));
            }
            for answers in parts(gathered.located) {
                let message = Message::Located { answers };
                held += usize::from(self.when_stable(needs.clone(), to, message));
            }
        }
        held
    }

    /// Takes what may leave, with the clock it leaves at. What is for `own` itself is left.
    pub(crate) fn take(&mut self, clock: Timestamp, own: PeerId) -> Vec<(PeerId, Envelope)> {
        if self.ready.is_empty() {
            return Vec::new();
        }
        let (left, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ready).into_iter().partition(|(to, _)| *to == own);
        self.ready = left;
        gone.into_iter().map(|(to, message)| (to, Envelope { clock, message })).collect()
    }

    /// Takes what this peer says to itself: it leads more than one group.
    pub(crate) fn take_own(&mut self, own: PeerId) -> Vec<Message> {
        if !self.ready.iter().any(|(to, _)| *to == own) {
            return Vec::new();
        }
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ready).into_iter().partition(|(to, _)| *to == own);
        self.ready = left;
        taken.into_iter().map(|(_, message)| message).collect()
    }

    /// A peer is gone: nothing is for it any more.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.gathered.remove(&peer);
        self.ready.retain(|(to, _)| *to != peer);
        for held in self.held.values_mut() {
            held.retain(|held| held.to != peer);
        }
        self.held.retain(|_, held| !held.is_empty());
        self.count_held();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_about_very_many_objects_is_cut_into_messages() {
        let (mut outbox, me, to) = (Outbox::default(), PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let objects = 2 * RECORDS_MAX as u128 + 1;
        for object in (0..objects).map(ObjectId::from_u128) {
            outbox.locate(to, LocateRequest { object, round: 1 });
            outbox.queued(to, Queued { object, behind: None });
        }
        outbox.flush(&Needs::new(), GroupId::from_u128(1), me);
        let (mut located, mut queued) = (Vec::new(), Vec::new());
        for (_, envelope) in outbox.take(Timestamp::ZERO, me) {
            if let Message::Locate { objects } = &envelope.message {
                located.push(objects.len());
            } else if let Message::Queued { objects } = &envelope.message {
                queued.push(objects.len());
            }
        }
        assert_eq!((&located, &queued), (&vec![RECORDS_MAX, RECORDS_MAX, 1], &located));
    }

    #[test]
    fn what_is_held_back_is_bounded_in_bytes_and_leaves_when_it_may() {
        let (group, peer) = (GroupId::from_u128(1), PeerId::from_bytes([2; 32]));
        let record =
            |id: u128| Record { object: ObjectId::from_u128(id), group, epoch: driftmesh_model::Epoch::from_u64(1) };
        let records: Vec<Record> = (0..RECORDS_MAX as u128).map(record).collect();
        let (mut outbox, lsn) = (Outbox::default(), Lsn::from_u64(7));
        // R24: as somebody who repeats it for ever would.
        for batch in 0..1_000 {
            let message = Message::Publish { batch, records: records.clone() };
            assert!(outbox.when_stable(needs_of(group, lsn), peer, message));
        }
        let bytes = outbox.held.values().flatten().map(|held| held.bytes).sum::<usize>();
        assert!(bytes == outbox.held_bytes && bytes <= HELD_BYTES_MAX, "{bytes} of {}", outbox.held_bytes);
        let held = outbox.held_count();
        assert!((10..1_000).contains(&held));
        outbox.release(group, lsn, |_, _| true);
        assert_eq!((outbox.held_count(), outbox.held_bytes), (0, 0));
        assert_eq!(outbox.take(Timestamp::ZERO, PeerId::from_bytes([3; 32])).len(), held);
        // Whom nobody tells anything any more takes no room.
        outbox.when_stable(needs_of(group, lsn), peer, Message::Publish { batch: 1, records });
        outbox.forget(peer);
        assert_eq!((outbox.held_count(), outbox.held_bytes), (0, 0));
    }
}
