//! Telling homes and passers-by where objects are. Asynchronous: correctness never waits for it (R1).

use crate::collecting::slice_of;
use crate::message::Message;
use crate::rare_branches::RareBranch;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::{HomeRing, Record};
use driftmesh_model::{Micros, ObjectId, PeerId};
use std::collections::BTreeSet;

/// Records noted within this time leave in one batch.
const PUBLISH_AFTER: Micros = Micros::from_millis(5);
/// A slice of republishing looks for the homes of so many objects, divided by the number of peers.
const HOMES_PER_SLICE: usize = 2_048;
/// Pause between two slices.
const REPUBLISH_PAUSE: Micros = Micros::from_millis(5);

impl Peer {
    /// Notes an owned object for its homes.
    pub(crate) fn publish(&mut self, object: ObjectId) {
        let Some(stored) = self.group.owned(object) else { return };
        let record = self.own_record(object, self.group.epoch_of(stored));
        for home in self.ring.homes(object) {
            if !self.publish_to(home, record) {
                // R4: there was no room; a pass tells it all again.
                self.republish.forget(home);
                self.begin_republishing();
            }
        }
    }

    /// Notes a record for one home, if it is live. Returns whether there was room for it.
    pub(crate) fn publish_to(&mut self, home: PeerId, record: Record) -> bool {
        if home == self.config.peer {
            self.learn_as_home(record);
        } else if self.ring.contains(&home) {
            self.set_publish_timer();
            return self.publisher.publish(home, record);
        }
        true
    }

    /// This peer is a home itself. R6: a record is never undone, so this waits too until what it says is stable.
    fn learn_as_home(&mut self, record: Record) {
        // Of the own group alone: what waits for a group is dropped when that is led by somebody else, and nobody repeats
        // this.
        let tail = self.group.tail();
        if tail <= self.group.watermark() {
            self.homes.learn(record);
        } else {
            self.outbox.own_record(record, tail);
        }
    }

    fn set_publish_timer(&mut self) {
        if !self.publish_timer_set {
            self.publish_timer_set = true;
            self.timers.set(self.now.mono.plus(PUBLISH_AFTER), Timer::Publish);
        }
    }

    pub(crate) fn publish_due(&mut self) {
        self.publish_timer_set = false;
        for (home, batch, records) in self.publisher.due(self.now.mono) {
            self.send(home, Message::Publish { batch, records });
        }
    }

    pub(crate) fn batch_acknowledged(&mut self, home: &PeerId, batch: u64) {
        let records = self.publisher.acknowledged(home, batch);
        self.pointers_confirmed(home, &records);
        self.set_publish_timer();
    }

    pub(crate) fn published(&mut self, from: PeerId, batch: u64, records: Vec<Record>) {
        for record in records {
            if record.is_sound() || self.broken(Sabotage::Wire) {
                self.homes.learn(record);
            } else {
                self.metrics.note_impossible();
            }
        }
        if from != self.config.peer {
            self.send_now(from, Message::Published { batch });
        }
    }

    /// Path compression: a search that passed here ended there.
    pub(crate) fn learned(&mut self, records: Vec<Record>) {
        for record in records {
            self.learn_record(record);
        }
    }

    /// Takes in a record as a hint, and lets a search for the object follow it.
    pub(crate) fn learn_record(&mut self, record: Record) {
        if self.rarely(RareBranch::ForgetHint) {
            return;
        }
        if !record.is_sound() && !self.broken(Sabotage::Wire) {
            self.metrics.note_impossible();
            return;
        }
        if self.group.owned(record.object).is_some() {
            // Nobody else has it, whatever they claim.
            return;
        }
        // Chains of pointers are compressed: whoever comes here next goes on directly.
        let compressed = self.pointers.compress(&record);
        if self.hints.learn(record) || compressed {
            self.follow(record);
        }
    }

    /// The live peers may have changed: homes that are new to an object are told of it (R4).
    pub(crate) fn begin_republishing(&mut self) {
        if self.republish.cursor.is_none() && !self.broken(Sabotage::Republish) {
            self.republish.cursor = Some(0);
            self.republish.to = self.ring.clone();
            self.republish.retelling = std::mem::take(&mut self.republish.to_retell);
            self.timers.set(self.now.mono.plus(REPUBLISH_PAUSE), Timer::Republish);
        }
    }

    pub(crate) fn republish_due(&mut self) {
        let Some(cursor) = self.republish.cursor else { return };
        let (slice, next) = self.group.owned_slice(cursor, slice_of(HOMES_PER_SLICE, &self.ring));
        let slice: Vec<_> = slice.map(|(_, stored)| (stored.object, self.group.epoch_of(stored))).collect();
        let mut all_noted = true;
        for (object, epoch) in slice {
            let former = self.republish.from.homes(object);
            let record = self.own_record(object, epoch);
            for home in self.republish.to.homes(object) {
                if !former.contains(&home) || self.republish.retelling.contains(&home) {
                    all_noted &= self.publish_to(home, record);
                }
            }
        }
        // Where there was no room for all, the slice comes again.
        self.republish.cursor = if all_noted { next } else { Some(cursor) };
        if self.republish.cursor.is_some() {
            self.timers.set(self.now.mono.plus(REPUBLISH_PAUSE), Timer::Republish);
            return;
        }
        self.republish.from = std::mem::take(&mut self.republish.to);
        if self.republish.from != self.ring || !self.republish.to_retell.is_empty() {
            self.begin_republishing();
        }
    }
}

/// Which changes of the live peers the homes of the owned objects have been told of.
///
/// A slice looks at some owned objects; changes that come meanwhile are for the next pass, so that no rate of
/// changes keeps a pass from its end.
#[derive(Clone, Debug)]
pub(crate) struct Republish {
    /// The live peers whose homes know.
    from: HomeRing,
    /// The live peers of the present pass.
    to: HomeRing,
    /// Where the present pass goes on.
    cursor: Option<usize>,
    /// Peers that may have lost what they were told: told all again in the present pass, and in the next one.
    retelling: BTreeSet<PeerId>,
    to_retell: BTreeSet<PeerId>,
}

impl Republish {
    /// Nothing is owned yet, so whoever is live knows all.
    pub(crate) fn begun_with(ring: &HomeRing) -> Self {
        Self {
            from: ring.clone(),
            to: HomeRing::default(),
            cursor: None,
            retelling: BTreeSet::new(),
            to_retell: BTreeSet::new(),
        }
    }

    /// A peer is gone, and with it what it was told. It stays among those that knew, so that whoever takes its place
    /// counts as new; if it comes back, it is told again.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.to_retell.insert(peer);
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.cursor.is_none()
    }
}
