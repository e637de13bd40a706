//! Where objects and work come together: whether an object goes to a task or the task to the object, and which objects follow
//! what they are used with.
//!
//! A transaction is never refused what it wants; what can go elsewhere is a task that has done nothing yet. It refuses to
//! plan for the whole mesh: each peer decides about what it owns, by what it saw lately ([`crate::uses`]), and a little at a
//! time.

use crate::Peer;
use crate::metrics::RareEvent;
use crate::rare_branches::RareBranch;
use crate::transfer::is_let_go;
use crate::uses::TOGETHER_MAX;
use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, TxnId, TxnTimestamp, stored_header};
use driftmesh_txn::{Cause, Intent, TaskKind};
use std::collections::{BTreeSet, VecDeque};

/// What has come here follows nothing for so long.
const STAY_MIN: Micros = Micros::from_millis(1_000);
/// What is used elsewhere is looked for this often, in heartbeats.
const LOOK_EVERY: u64 = 3;
/// Objects looked at each time, and those of them that may go.
const LOOKED_AT: usize = 1_024;
const MOVES_MAX: usize = 64;
/// Bytes that may go each time.
const BYTES_MAX: usize = 1 << 18;
/// Commits with the same other object that make one follow it.
const FOLLOW_VOTES_MIN: u64 = 3;
/// A peer that owns so much more than the average has no room for more crowds: in quarters of the average.
const OVERLOADED_QUARTERS: u64 = 6;
/// However small the average is, so many more are no overload.
const OVERLOADED_MORE: u64 = 128;
/// Moves that are remembered (R24).
const REMEMBERED_MAX: usize = 1_024;
/// Objects that are pinned at a peer (R24).
pub const PINNED_MAX: usize = 65_536;
/// Types of objects that are pinned at a peer (R24).
pub const PINNED_TYPES_MAX: usize = 256;
/// What whoever waits for an object hears that it is behind, when the placement lets the object go: a transaction's kind may
/// be called the same.
const KIND: &str = "placement";

/// Why an object left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MoveReason {
    /// A transaction of this kind elsewhere wanted it.
    WantedBy(TaskKind),
    /// Most of what used it here used another object too, which is there: this one, or `None` if that was forgotten while it
    /// left.
    UsedWith(Option<ObjectId>),
    /// This peer handed over what it owned, to leave.
    Drained,
}

/// An object that left this peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    /// When, by this peer's wall clock.
    pub at: Micros,
    /// The object.
    pub object: ObjectId,
    /// The group that it went to.
    pub to: GroupId,
    /// Why.
    pub reason: MoveReason,
}

/// How an object is used where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectUse {
    /// The object.
    pub object: ObjectId,
    /// About how many commits touched it in the last seconds.
    pub commits: u64,
    /// Attempts that ended because of it.
    pub contended: u64,
    /// How often it came here.
    pub came: u64,
    /// The object that it was used with most, if one stands out.
    pub with: Option<ObjectId>,
}

/// What is decided here about places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placing {
    /// The last moves.
    moves: VecDeque<Move>,
    pinned: BTreeSet<ObjectId>,
    pinned_types: BTreeSet<String>,
    /// Where the search for what should follow goes on.
    from: Option<ObjectId>,
    looks: u64,
}

/// Too many objects, or types of them, are pinned at a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{PINNED_MAX} objects or {PINNED_TYPES_MAX} types of them are pinned at this peer, the most there may be; unpin some"
)]
pub struct TooManyPinned;

impl Peer {
    /// Keeps an object here once it is here: tasks go to it, and it follows nothing. A transaction elsewhere that writes it
    /// takes it along all the same. Forgotten with this start of the peer.
    ///
    /// # Errors
    /// When too many are pinned.
    pub fn pin(&mut self, object: ObjectId) -> Result<(), TooManyPinned> {
        if self.placing.pinned.len() >= PINNED_MAX && !self.placing.pinned.contains(&object) {
            return Err(TooManyPinned);
        }
        self.placing.pinned.insert(object);
        Ok(())
    }

    /// Lets an object go again. Returns whether it was pinned.
    pub fn unpin(&mut self, object: ObjectId) -> bool {
        self.placing.pinned.remove(&object)
    }

    /// Keeps all objects of a type here that are here, or come, as [`Peer::pin`] does with one.
    ///
    /// # Errors
    /// When too many types are pinned.
    pub fn pin_type(&mut self, name: &str) -> Result<(), TooManyPinned> {
        let types = &mut self.placing.pinned_types;
        if types.len() >= PINNED_TYPES_MAX && !types.contains(name) {
            return Err(TooManyPinned);
        }
        types.insert(name.to_owned());
        Ok(())
    }

    /// Lets the objects of a type go again. Returns whether it was pinned.
    pub fn unpin_type(&mut self, name: &str) -> bool {
        self.placing.pinned_types.remove(name)
    }

    /// Whether an object of this peer stays here, by itself or by its type.
    fn is_pinned(&self, object: ObjectId) -> bool {
        let Placing { pinned, pinned_types, .. } = &self.placing;
        if pinned.contains(&object) || pinned_types.is_empty() {
            return pinned.contains(&object);
        }
        let value = self.group.owned(object).and_then(|stored| stored.chain.newest().value.as_ref());
        value.and_then(|value| stored_header(value).ok()).is_some_and(|header| pinned_types.contains(&header.type_name))
    }

    /// The last objects that left this peer, and why, oldest first.
    pub fn moves(&self) -> impl Iterator<Item = &Move> {
        self.placing.moves.iter()
    }

    /// The objects that attempts ended because of most, and those that came here most often, in the last seconds.
    #[must_use]
    pub fn most_contended(&self, most: usize) -> (Vec<ObjectUse>, Vec<ObjectUse>) {
        let all = self.uses.from(ObjectId::from_u128(0), usize::MAX).into_iter().map(|object| {
            let used = self.uses.of(object);
            ObjectUse { object, commits: used.heat, contended: used.contended, came: used.came, with: used.with }
        });
        let mut all: Vec<ObjectUse> = all.filter(|used| used.contended > 0 || used.came > 1).collect();
        let mut first = |by: fn(&ObjectUse) -> u64, least: u64| {
            all.sort_by_key(|used| (std::cmp::Reverse(by(used)), used.object));
            all.iter().copied().take_while(|used| by(used) >= least).take(most).collect()
        };
        (first(|used| used.contended, 1), first(|used| used.came, 2))
    }

    /// Notes what a transaction that commits has touched. One commit of several, so that most cost nothing.
    pub(crate) fn note_touched(&mut self, id: TxnId) {
        if !self.config.placement {
            return;
        }
        let Some(weight) = self.uses.sample() else { return };
        let Some(txn) = self.txns.get(id) else { return };
        let read = txn.reads.iter().map(|(object, _)| *object).filter(|object| !txn.intents.contains_key(object));
        let mut touched = [ObjectId::from_u128(0); TOGETHER_MAX];
        let mut count = 0;
        for (place, object) in touched.iter_mut().zip(txn.intents.iter().map(|(object, _)| *object).chain(read)) {
            *place = object;
            count += 1;
        }
        let touched = &touched[..count];
        self.uses.note(touched, weight);
        let group = &self.group;
        self.uses.join(touched.iter().copied().filter(|object| group.owned(*object).is_some()));
    }

    /// What would have to leave here sooner or later if a transaction went elsewhere: what is used together with what it has
    /// locked. `None` if it cannot go.
    pub(crate) fn pull_of(&self, id: TxnId) -> Option<u64> {
        let txn = self.txns.get(id).filter(|txn| txn.may_move && txn.attempt == 1)?;
        let held = txn.intents.iter().filter(|(_, intent)| matches!(intent, Intent::Held | Intent::Checked));
        // What a task came for counts before it is locked, or two crowds would send the task to and fro.
        let came_for = txn.came_for.filter(|object| self.group.owned(*object).is_some());
        let all = held.map(|(object, _)| *object).chain(came_for);
        Some(all.map(|object| self.uses.crowd_of(object)).max().unwrap_or(0))
    }

    /// Whether a task that wants an object should come to it, rather than the object to the task: the larger crowd stays, unless
    /// only one of both peers has room for what would follow.
    pub(crate) fn should_stay(&mut self, object: ObjectId, pull: u64, (from, group): (PeerId, GroupId)) -> bool {
        if !self.config.placement || self.draining {
            return false;
        }
        if self.is_pinned(object) || self.rarely(RareBranch::StayPut) {
            return true;
        }
        let crowd = self.uses.crowd_of(object);
        if crowd == 0 {
            return false;
        }
        // While one crowd joins the other these sums stay what they are, so that nobody changes his mind half-way.
        let owned = self.group.owned_count() as u64;
        let there = self.members.get(&from).and_then(|member| member.owned).unwrap_or(0);
        let fits_here = !self.is_much(owned.saturating_add(pull));
        let fits_there = !self.is_much(there.saturating_add(crowd));
        // Of two that are as large always the same one stays.
        if fits_here == fits_there { (crowd, self.group.id()) > (pull, group) } else { fits_here }
    }

    /// Whether so many objects are much more than the average of the peers.
    fn is_much(&self, owned: u64) -> bool {
        owned > self.average_owned().saturating_mul(OVERLOADED_QUARTERS) / 4 + OVERLOADED_MORE
    }

    /// How many objects a peer owns in the mean.
    fn average_owned(&self) -> u64 {
        let others = self.members.values().filter(|member| member.connected && member.draining == 0);
        let (sum, count) = others.fold((self.group.owned_count() as u64, 1), |(sum, count), member| {
            (sum.saturating_add(member.owned.unwrap_or(0)), count + 1)
        });
        sum / count
    }

    /// The owner of an object says that work on it should go there.
    pub(crate) fn stays_told(&mut self, from: PeerId, objects: Vec<ObjectId>) {
        for object in objects {
            // R1: only whoever was asked for it.
            if !self.was_asked_for(object, from) {
                continue;
            }
            let Some(fetch) = self.fetches.get_mut(&object) else { continue };
            fetch.last_heard = self.now.mono;
            fetch.lookup.heard();
            let owners: Vec<TxnId> = fetch.owners.values().copied().collect();
            if owners.iter().all(|id| self.pull_of(*id).is_some()) {
                self.metrics.note(RareEvent::SentToItsData);
                for id in owners {
                    self.fail(id, Cause::UsedElsewhere { object, at: from });
                }
            } else {
                // Somebody waits who cannot go: it is asked for again, and without a choice.
                self.ask_again(object);
            }
        }
    }

    /// Notes that an object leaves, to whoever has this age.
    pub(crate) fn note_move(&mut self, object: ObjectId, to: GroupId, age: &TxnTimestamp, kind: &TaskKind) {
        // By the age and not by the kind alone: games name their kinds as they like.
        let reason = match (is_let_go(age), kind.as_str() == KIND) {
            (true, true) => MoveReason::UsedWith(self.uses.of(object).with),
            (true, false) => MoveReason::Drained,
            (false, _) => MoveReason::WantedBy(kind.clone()),
        };
        self.metrics.placed += u64::from(matches!(reason, MoveReason::UsedWith(_)));
        self.uses.left(object);
        if self.placing.moves.len() >= REMEMBERED_MAX {
            self.placing.moves.pop_front();
        }
        self.placing.moves.push_back(Move { at: self.now.wall, object, to, reason });
    }

    /// Lets what is used with objects that are elsewhere follow them, a few at a time.
    pub(crate) fn place(&mut self) {
        self.uses.renew(self.now.mono);
        self.placing.looks += 1;
        if !self.config.placement || self.draining || !self.placing.looks.is_multiple_of(LOOK_EVERY) {
            return;
        }
        let first = self.placing.from.unwrap_or(ObjectId::from_u128(0));
        let looked_at = self.uses.from(first, LOOKED_AT);
        self.placing.from = looked_at.last().copied().filter(|_| looked_at.len() == LOOKED_AT);
        let (trusted, kind) = (self.trusted_groups(), TaskKind::new(KIND));
        let (mut moves, mut bytes) = (0, 0);
        for object in looked_at {
            if moves >= MOVES_MAX || bytes >= BYTES_MAX {
                break;
            }
            let Some((group, size)) = self.should_follow(object, &trusted) else { continue };
            moves += 1;
            bytes += size;
            self.let_go(object, group, &kind);
        }
    }

    /// Where an object should follow what it is used with, and how large it is.
    fn should_follow(&mut self, object: ObjectId, trusted: &[GroupId]) -> Option<(GroupId, usize)> {
        let stored = self.group.owned(object)?;
        let (size, taken) = (stored.chain.newest().value.as_ref()?.len(), stored.held());
        let used = self.uses.of(object);
        let with = used.with.filter(|_| used.votes >= FOLLOW_VOTES_MIN && used.votes.saturating_mul(2) >= used.heat)?;
        let is_fresh = used.came_at.is_some_and(|came| self.now.mono.since(came) < STAY_MIN);
        if is_fresh || self.is_pinned(object) || self.group.owned(with).is_some() {
            return None;
        }
        // What is used as much is no reason to follow: it may be about to come here.
        if self.locks.is_waited_for(object) || self.is_sending(with) {
            return None;
        }
        let (_, record) = self.best_record(with)?;
        let leader = self.leader_of(record.group).filter(|leader| *leader != self.config.peer)?;
        let member = self.members.get(&leader).filter(|member| member.group == record.group)?;
        let there = member.owned;
        // R24: nobody is sent unasked what it has no room for.
        if self.room_at(&leader, member, &self.group) < taken as u64 {
            return None;
        }
        if !trusted.contains(&record.group) || there.is_none_or(|owned| self.is_much(owned)) {
            return None;
        }
        Some((record.group, size))
    }
}
