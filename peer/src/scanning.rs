//! Walking through all that a group owns, page by page, at one snapshot: for audits and tools.
//!
//! A scan takes no locks and does not stop objects from moving: one that moves meanwhile may be met twice or not.

use crate::message::{Message, ScanPage, Scanned, Seen};
use crate::timers::Timer;
use crate::Peer;
use driftmesh_model::{HybridClock, Micros, Now, PeerId, Timestamp, TxnId};
use std::collections::BTreeMap;
use std::task::Poll;

/// Most objects in a page, and about how many bytes of values.
const PAGE_OBJECTS_MAX: usize = 1_024;
const PAGE_BYTES_MAX: usize = 256 << 10;
/// A page that does not come is asked for again after this.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(300);

#[derive(Debug)]
struct Asked {
    snapshot: Timestamp,
    cursor: u64,
    waiter: TxnId,
    page: Option<ScanPage>,
}

/// The pages asked for, one a peer.
#[derive(Debug, Default)]
pub(crate) struct ScanPages {
    asked: BTreeMap<PeerId, Asked>,
}

impl Peer {
    /// One page of what `owner` owns, at the snapshot of an open transaction. May be called again until it answers.
    pub fn scan(&mut self, now: Now, id: TxnId, owner: PeerId, cursor: u64) -> Poll<Option<ScanPage>> {
        self.now = now;
        let Some(snapshot) = self.snapshot_of(id) else { return Poll::Ready(None) };
        if owner == self.config.peer {
            return Poll::Ready(Some(self.page(snapshot, cursor)));
        }
        if !self.is_connected(&owner) {
            return Poll::Ready(None);
        }
        if let Some(asked) = self.scans.asked.get_mut(&owner)
            && (asked.snapshot, asked.cursor, asked.waiter) == (snapshot, cursor, id)
        {
            let Some(page) = asked.page.take() else { return Poll::Pending };
            self.scans.asked.remove(&owner);
            return Poll::Ready(Some(page));
        }
        self.scans.asked.insert(owner, Asked { snapshot, cursor, waiter: id, page: None });
        self.scan_due(owner);
        Poll::Pending
    }

    pub(crate) fn scan_due(&mut self, owner: PeerId) {
        let Some(asked) = self.scans.asked.get(&owner) else { return };
        if asked.page.is_some() {
            return;
        }
        let (snapshot, cursor, waiter) = (asked.snapshot, asked.cursor, asked.waiter);
        if self.txns.get(waiter).is_none() || !self.is_connected(&owner) {
            self.scans.asked.remove(&owner);
            self.wakes.push(waiter);
            return;
        }
        self.send(owner, Message::Scan { snapshot, cursor });
        self.timers.set(self.now.mono.plus(ASK_AGAIN_AFTER), Timer::Scan(owner));
    }

    pub(crate) fn scan_asked(&mut self, from: PeerId, snapshot: Timestamp, cursor: u64) {
        if HybridClock::guard(snapshot, self.now.wall).is_err() {
            self.send(from, Message::ClockAhead { objects: Vec::new(), receiver: self.now.wall });
            return;
        }
        self.clock.raise_above(snapshot);
        let page = self.page(snapshot, cursor);
        self.send(from, Message::ScanPage(page));
    }

    pub(crate) fn scan_answered(&mut self, from: PeerId, page: ScanPage) {
        if let Some(asked) = self.scans.asked.get_mut(&from)
            && (asked.snapshot, asked.cursor) == (page.snapshot, page.cursor)
        {
            asked.page = Some(page);
            self.wakes.push(asked.waiter);
        }
    }

    fn page(&mut self, snapshot: Timestamp, cursor: u64) -> ScanPage {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut ids = Vec::new();
        let mut next = None;
        for (after, stored) in self.group.owned_from(from) {
            ids.push(stored.object);
            bytes += stored.chain.newest().value.as_ref().map_or(0, driftmesh_model::Value::len);
            if ids.len() >= PAGE_OBJECTS_MAX || bytes >= PAGE_BYTES_MAX {
                next = Some(after as u64);
                break;
            }
        }
        let mut objects = Vec::with_capacity(ids.len());
        for object in ids {
            if let Some((epoch, seen)) = self.seen_here(object, snapshot) {
                let exists = !matches!(seen, Seen::NotYetCreated | Seen::Version { value: None, .. });
                if exists {
                    objects.push(Scanned { object, epoch, seen });
                }
            }
        }
        ScanPage { snapshot, cursor, next, objects, in_transit: self.group.in_transit_count() as u64 }
    }
}
