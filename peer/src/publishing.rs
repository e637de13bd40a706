//! Telling homes and passers-by where objects are. Asynchronous: correctness never waits for it (R1).

use crate::Peer;
use crate::message::Message;
use crate::timers::Timer;
use driftmesh_directory::Record;
use driftmesh_model::{Micros, ObjectId, PeerId};

/// Records noted within this time leave in one batch.
const PUBLISH_AFTER: Micros = Micros::from_millis(5);
/// Objects looked at in one slice of republishing.
const REPUBLISH_SLICE: usize = 256;
/// Pause between two slices.
const REPUBLISH_PAUSE: Micros = Micros::from_millis(5);
/// Most records taken in from one message.
const RECORDS_PER_MESSAGE_MAX: usize = 4_096;

impl Peer {
    /// Notes an owned object for its homes.
    pub(crate) fn publish(&mut self, object: ObjectId) {
        let Some(stored) = self.group.owned(object) else { return };
        let record = self.own_record(object, stored.epoch);
        for home in self.ring.homes(object) {
            if home == self.config.peer {
                self.homes.learn(record);
            } else {
                self.publisher.publish(home, record);
                self.set_publish_timer();
            }
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
        self.publisher.acknowledged(home, batch);
        self.set_publish_timer();
    }

    pub(crate) fn published(&mut self, from: PeerId, batch: u64, records: Vec<Record>) {
        if records.len() > RECORDS_PER_MESSAGE_MAX {
            self.metrics.malformed += 1;
            return;
        }
        for record in records {
            self.homes.learn(record);
        }
        self.send(from, Message::Published { batch });
    }

    /// Path compression: a search that passed here ended there.
    pub(crate) fn learned(&mut self, records: Vec<Record>) {
        if records.len() > RECORDS_PER_MESSAGE_MAX {
            self.metrics.malformed += 1;
            return;
        }
        for record in records {
            self.learn_record(record);
        }
    }

    /// Takes in a record as a hint, and lets a search for the object follow it.
    pub(crate) fn learn_record(&mut self, record: Record) {
        if record.group == self.group.id() && self.group.owned(record.object).is_some() {
            return;
        }
        if self.hints.learn(record) {
            self.follow(record);
        }
    }

    /// The nearest peers may have changed: owners publish again (R4).
    pub(crate) fn begin_republishing(&mut self) {
        if self.republish_from.is_none() {
            self.timers.set(self.now.mono.plus(REPUBLISH_PAUSE), Timer::Republish);
        }
        self.republish_from = Some(0);
    }

    pub(crate) fn republish_due(&mut self) {
        let Some(cursor) = self.republish_from else { return };
        let slice: Vec<(usize, ObjectId)> =
            self.group.owned_from(cursor).take(REPUBLISH_SLICE).map(|(next, stored)| (next, stored.object)).collect();
        for (_, object) in &slice {
            self.publish(*object);
        }
        self.republish_from = slice.last().map(|(next, _)| *next);
        if self.republish_from.is_some() {
            self.timers.set(self.now.mono.plus(REPUBLISH_PAUSE), Timer::Republish);
        }
    }
}
