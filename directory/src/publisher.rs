//! Telling homes where objects are: batched, repeated until acknowledged, newest record of an object only.
//!
//! Correctness never waits for it (R1). It refuses to grow without bound: beyond the bound records are turned away, and
//! whoever publishes comes back.

use crate::Record;
use driftmesh_model::{Micros, ObjectId, PeerId};
use std::collections::BTreeMap;

/// Most records in one message.
pub const BATCH_RECORDS_MAX: usize = 512;
/// Most records waiting for one home.
const WAITING_RECORDS_MAX: usize = 1 << 20;
/// After this a batch without acknowledgement is sent again.
const REPEAT_AFTER: Micros = Micros::from_millis(500);

#[derive(Clone, Debug, Default)]
struct Outbox {
    waiting: BTreeMap<ObjectId, Record>,
    /// The batch on its way: its number, when it was sent, what it holds.
    sent: Option<(u64, Micros, Vec<Record>)>,
}

/// What each home is still to be told.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    outboxes: BTreeMap<PeerId, Outbox>,
    last_batch: u64,
}

impl Publisher {
    /// Notes a record for a home. Returns whether there was room: the home has to be told later else.
    pub fn publish(&mut self, home: PeerId, record: Record) -> bool {
        let outbox = self.outboxes.entry(home).or_default();
        if outbox.waiting.len() >= WAITING_RECORDS_MAX && !outbox.waiting.contains_key(&record.object) {
            return false;
        }
        // R2: a pointer being collected may be older than what this peer has published since.
        let waiting = outbox.waiting.entry(record.object).or_insert(record);
        if record.outranks(waiting) {
            *waiting = record;
        }
        true
    }

    /// A home is gone: nothing is left to tell it.
    pub fn forget(&mut self, home: &PeerId) {
        self.outboxes.remove(home);
    }

    /// The batches to send now: the next one to each home that has none on its way, and those to be repeated.
    pub fn due(&mut self, now: Micros) -> Vec<(PeerId, u64, Vec<Record>)> {
        let mut batches = Vec::new();
        for (home, outbox) in &mut self.outboxes {
            if let Some((number, sent_at, records)) = &mut outbox.sent {
                if now.since(*sent_at) >= REPEAT_AFTER {
                    *sent_at = now;
                    batches.push((*home, *number, records.clone()));
                }
                continue;
            }
            let mut records = Vec::new();
            while records.len() < BATCH_RECORDS_MAX {
                let Some((_, record)) = outbox.waiting.pop_first() else { break };
                records.push(record);
            }
            if !records.is_empty() {
                self.last_batch += 1;
                outbox.sent = Some((self.last_batch, now, records.clone()));
                batches.push((*home, self.last_batch, records));
            }
        }
        batches
    }

    /// A home has a batch. Returns its records: the home holds these or newer ones.
    pub fn acknowledged(&mut self, home: &PeerId, number: u64) -> Vec<Record> {
        let Some(outbox) = self.outboxes.get_mut(home) else { return Vec::new() };
        let sent = outbox.sent.take_if(|(sent, _, _)| *sent == number);
        sent.map(|(_, _, records)| records).unwrap_or_default()
    }

    /// Whether anything waits to be sent or acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outboxes.values().all(|outbox| outbox.sent.is_none() && outbox.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::{Epoch, GroupId};

    #[test]
    fn a_batch_is_repeated_until_acknowledged_and_carries_the_newest_record() {
        let home = PeerId::from_bytes([1; 32]);
        let record = |epoch| Record {
            object: ObjectId::from_u128(1),
            group: GroupId::from_u128(2),
            epoch: Epoch::from_u64(epoch),
        };
        let mut publisher = Publisher::default();
        assert!(publisher.publish(home, record(1)));
        assert!(publisher.publish(home, record(2)));
        let first = publisher.due(Micros(0));
        assert_eq!(first, vec![(home, 1, vec![record(2)])]);
        assert!(publisher.publish(home, record(3)));
        assert!(publisher.due(Micros(1)).is_empty());
        assert_eq!(publisher.due(REPEAT_AFTER), first);
        assert_eq!(publisher.acknowledged(&home, 9), vec![]);
        assert_eq!(publisher.acknowledged(&home, 1), vec![record(2)]);
        assert!(publisher.publish(home, record(1)));
        assert_eq!(publisher.due(REPEAT_AFTER), vec![(home, 2, vec![record(3)])]);
        publisher.acknowledged(&home, 2);
        assert!(publisher.is_idle());
    }
}
