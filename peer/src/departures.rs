//! Objects whose departure is not stable yet, and so may never have happened (R6).
//!
//! While it leads, a peer tells of a departure only when that is stable. When its lead ends, what is not stable by then
//! may be lost: a pointer that stayed would send others where the object never went, at the epoch of its next real move.

use crate::Peer;
use driftmesh_directory::Record;
use driftmesh_model::{GroupId, Lsn, ObjectId};
use std::collections::BTreeMap;

/// Departures from groups that this peer leads, until they are stable.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// The pointers that were set, by the entries that say so.
    unstable: BTreeMap<(GroupId, Lsn), Record>,
    /// How many of them are of each object.
    objects: BTreeMap<ObjectId, u32>,
}

impl Departures {
    fn note(&mut self, group: GroupId, lsn: Lsn, record: Record) {
        self.unstable.insert((group, lsn), record);
        *self.objects.entry(record.object).or_default() += 1;
    }

    /// Takes those of a group up to a position.
    fn take(&mut self, group: GroupId, to: Lsn) -> Vec<Record> {
        let mut taken = Vec::new();
        while let Some((key, record)) = self.unstable.range((group, Lsn::ZERO)..=(group, to)).next() {
            let (key, record) = (*key, *record);
            self.unstable.remove(&key);
            if let Some(count) = self.objects.get_mut(&record.object) {
                *count -= 1;
                if *count == 0 {
                    self.objects.remove(&record.object);
                }
            }
            taken.push(record);
        }
        taken
    }
}

impl Peer {
    /// An object has left a group by this entry, and a pointer says where it went.
    pub(crate) fn note_departure(&mut self, group: GroupId, lsn: Lsn, record: Record) {
        if self.led(group).is_some_and(|group| group.watermark() < lsn) {
            self.departures.note(group, lsn, record);
        }
    }

    /// More of a journal is stable: what left by then has left.
    pub(crate) fn departures_stable(&mut self, group: GroupId, watermark: Lsn) {
        self.departures.take(group, watermark);
    }

    /// A lead has ended: what is not stable may never have left.
    pub(crate) fn forget_departures(&mut self, group: GroupId) {
        for record in self.departures.take(group, Lsn::from_u64(u64::MAX)) {
            self.pointers.forget_up_to(&record);
        }
    }

    /// Whether it is not stable yet that an object has left.
    pub(crate) fn may_not_have_left(&self, object: ObjectId) -> bool {
        self.departures.objects.contains_key(&object)
    }
}
