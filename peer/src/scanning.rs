//! Walking through all that a group owns, page by page, at one snapshot: for audits and tools.
//!
//! A scan takes no locks and does not stop objects from moving: one that moves meanwhile may be met twice or not.

use crate::Peer;
use crate::message::{Message, ScanPage, Scanned, Seen};
use crate::timers::Timer;
use driftmesh_model::{HybridClock, Lsn, Micros, Now, PeerId, Timestamp, TxnId};
use driftmesh_txn::Status;
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
    page: Option<ScanPage>,
    due: Micros,
}

/// The pages asked for: one for each snapshot and peer.
#[derive(Debug, Default)]
pub(crate) struct ScanPages {
    asked: BTreeMap<(PeerId, TxnId), Asked>,
}

impl ScanPages {
    /// The snapshot has ended.
    pub(crate) fn forget(&mut self, id: TxnId) {
        self.asked.retain(|(_, waiter), _| *waiter != id);
    }
}

impl Peer {
    /// One page of what `owner` owns, at the snapshot of an open transaction. May be called again until it answers.
    pub fn scan(&mut self, now: Now, id: TxnId, owner: PeerId, cursor: u64) -> Poll<Option<ScanPage>> {
        self.now = now;
        let open = self.txns.get(id).filter(|txn| txn.status != Status::Expired);
        let Some(snapshot) = open.map(|txn| txn.snapshot) else { return Poll::Ready(None) };
        if owner == self.config.peer {
            if !self.own_window_covers(snapshot, id) {
                self.watch_deadline(id);
                return Poll::Pending;
            }
            self.snapshots_here.insert(id);
            return Poll::Ready(Some(self.page(snapshot, cursor)));
        }
        if !self.is_connected(&owner) {
            return Poll::Ready(None);
        }
        self.watch_deadline(id);
        if let Some(asked) = self.scans.asked.get_mut(&(owner, id))
            && (asked.snapshot, asked.cursor) == (snapshot, cursor)
        {
            let Some(page) = asked.page.take() else { return Poll::Pending };
            self.scans.asked.remove(&(owner, id));
            return Poll::Ready(Some(page));
        }
        self.scans.asked.insert((owner, id), Asked { snapshot, cursor, page: None, due: now.mono });
        self.scan_due(owner, id);
        Poll::Pending
    }

    pub(crate) fn scan_due(&mut self, owner: PeerId, id: TxnId) {
        let reachable = self.is_connected(&owner);
        let now = self.now.mono;
        let Some(asked) = self.scans.asked.get_mut(&(owner, id)) else { return };
        if asked.page.is_some() || now < asked.due {
            return;
        }
        if !reachable {
            self.scans.asked.remove(&(owner, id));
            self.wakes.push(id);
            return;
        }
        asked.due = now.plus(ASK_AGAIN_AFTER);
        let (due, scan) = (asked.due, Message::Scan { snapshot: asked.snapshot, cursor: asked.cursor });
        self.send_now(owner, scan);
        self.timers.set(due, Timer::Scan(owner, id));
    }

    pub(crate) fn scan_asked(&mut self, from: PeerId, snapshot: Timestamp, cursor: u64) {
        if HybridClock::guard(snapshot, self.now.wall).is_err() {
            self.send_now(from, Message::ClockAhead { objects: Vec::new(), receiver: self.now.wall });
            return;
        }
        self.clock.raise_above(snapshot);
        // R8: without a window that covers the snapshot there is no answer yet; the asker asks again.
        let own = self.group.id();
        let Some(window) = self.window_needs(own, snapshot) else { return };
        let page = self.page(snapshot, cursor);
        let mut needs = self.needs_of_all();
        if window > Lsn::ZERO && needs.is_empty() {
            needs = self.needs_of(own, window);
        }
        self.send_when(needs, from, Message::ScanPage(page));
    }

    pub(crate) fn scan_answered(&mut self, from: PeerId, page: ScanPage) {
        let mine = (from, TxnId::from_u64(0))..=(from, TxnId::from_u64(u64::MAX));
        for ((_, waiter), asked) in self.scans.asked.range_mut(mine) {
            if (asked.snapshot, asked.cursor) == (page.snapshot, page.cursor) {
                asked.page = Some(page.clone());
                self.wakes.push(*waiter);
            }
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
        // What is led in place of somebody else is on its way to where it is scanned.
        let caretaken: usize = self.caretaken().map(|group| group.owned_count() + group.in_transit_count()).sum();
        let in_transit = (self.group.in_transit_count() + caretaken) as u64;
        ScanPage { snapshot, cursor, next, objects, in_transit }
    }
}
