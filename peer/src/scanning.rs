//! Walking through all that a group owns, page by page, at one snapshot: for audits and tools. With the values comes what the
//! objects kept of tasks.
//!
//! A scan takes no locks and does not stop objects from moving: one that moves meanwhile may be met twice or not. Who must
//! not miss any asks, after the last page of the last peer, each for what has come since its first page: an object that
//! was met nowhere was being sent, or has arrived somewhere since.

use crate::Peer;
use crate::message::{KeptSeen, Message, ScanPage, Scanned, Seen};
use crate::timers::Timer;
use driftmesh_model::{HybridClock, Lsn, Micros, Now, ObjectId, PeerId, Timestamp, TxnId};
use driftmesh_object_store::Outcomes;
use driftmesh_txn::Status;
use std::collections::{BTreeMap, VecDeque};
use std::task::Poll;

/// Most objects in a page, and about how many bytes of values.
const PAGE_OBJECTS_MAX: usize = 1_024;
const PAGE_BYTES_MAX: usize = 256 << 10;
/// Slots that are looked at for one page.
const PAGE_SLOTS_MAX: usize = 16 << 10;
/// Cursors from here on are those of arrivals: the number of one is added to it.
pub const ARRIVALS_FROM: u64 = 1 << 63;
/// Arrivals that are remembered (R24).
const ARRIVALS_MAX: usize = 1 << 16;
/// Most ids of moving objects in a page.
const MOVING_MAX: usize = 1 << 14;
/// A page that does not come is asked for again after this.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(300);

/// Objects that may be on a page, each with the cursor after it, and the cursor after all of them if more follow.
type Candidates = (Vec<(u64, ObjectId)>, Option<u64>);

#[derive(Clone, Debug)]
struct Asked {
    snapshot: Timestamp,
    cursor: u64,
    page: Option<ScanPage>,
    due: Micros,
}

/// What has come to this peer's group, or come back to it, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    total: u64,
    last: VecDeque<ObjectId>,
}

impl Arrivals {
    pub(crate) fn push(&mut self, object: ObjectId) {
        self.total += 1;
        self.last.push_back(object);
        if self.last.len() > ARRIVALS_MAX {
            self.last.pop_front();
        }
    }

    /// Those from a number on, if all of them are remembered.
    fn from(&self, number: u64) -> Option<impl Iterator<Item = ObjectId>> {
        let first = self.total - self.last.len() as u64;
        let skip = usize::try_from(number.checked_sub(first)?).ok()?;
        Some(self.last.iter().skip(skip).copied())
    }
}

/// The pages asked for: one for each snapshot and peer.
#[derive(Clone, Debug, Default)]
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
            // R16: it ends if this peer is deposed, for what it sees here may be lost.
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
        // R18: before anything of the request is used.
        if HybridClock::guard(snapshot, self.now.wall).is_err() {
            self.send_now(from, Message::ClockAhead { objects: Vec::new(), receiver: self.now.wall });
            return;
        }
        // R16: no later commit can slip below the snapshot.
        self.clock.raise_above(snapshot);
        // R8: without a window that covers the snapshot there is no answer yet; the asker asks again.
        let own = self.group.id();
        let Some(window) = self.window_needs(own, snapshot) else { return };
        let page = self.page(snapshot, cursor);
        // R6: what it shows is stable, and below a stable window.
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
        let mut page = self.page_without_objects(snapshot, cursor);
        let found = if cursor >= ARRIVALS_FROM { self.arrivals_at(cursor) } else { Some(self.slots_at(cursor)) };
        let Some((candidates, after)) = found else {
            page.whole = false;
            return page;
        };
        page.next = self.fill(&mut page, candidates).or(after);
        if page.next.is_none() && cursor < ARRIVALS_FROM {
            page.moving = self.group.all_unsettled().map(|(_, _, transit)| transit.object).take(MOVING_MAX).collect();
            page.whole = self.group.in_transit_count() <= MOVING_MAX;
        }
        page
    }

    /// What is owned in the slots from a cursor on, each with the cursor after it, and where the next page goes on. Free slots
    /// count: a page may be empty, and is not the work of all that was ever owned here.
    fn slots_at(&self, cursor: u64) -> Candidates {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX);
        let (slots, next) = self.group.owned_slice(from, PAGE_SLOTS_MAX);
        let candidates: Vec<_> =
            slots.take(PAGE_OBJECTS_MAX).map(|(after, stored)| (after as u64, stored.object)).collect();
        let last = candidates.last().filter(|_| candidates.len() >= PAGE_OBJECTS_MAX).map(|(after, _)| *after);
        (candidates, last.or(next.map(|next| next as u64)))
    }

    /// The same of what has come since a number of arrivals; `None` if not all of that is remembered.
    fn arrivals_at(&self, cursor: u64) -> Option<Candidates> {
        let arrivals = self.arrivals.from(cursor - ARRIVALS_FROM)?;
        let candidates: Vec<_> = arrivals
            .take(PAGE_OBJECTS_MAX)
            .zip(cursor.saturating_add(1)..)
            .map(|(object, after)| (after, object))
            .collect();
        let after = candidates.last().map_or(cursor, |(after, _)| *after);
        Some((candidates, (after - ARRIVALS_FROM < self.arrivals.total).then_some(after)))
    }

    /// Puts on a page what its snapshot sees of these objects, and which of them are not here, until it is full; says where
    /// the next one goes on then. It is weighed by what it says: what an object was at the snapshot may be large, and what it
    /// is now small. What did not exist at the snapshot is named too: whoever knows it to be on its way does not wait for it.
    fn fill(&mut self, page: &mut ScanPage, candidates: Vec<(u64, ObjectId)>) -> Option<u64> {
        let (mut at, mut bytes) = (page.cursor, 0);
        for (after, object) in candidates {
            if bytes >= PAGE_BYTES_MAX {
                return Some(at);
            }
            at = after;
            match self.scanned(object, page.snapshot) {
                Some(scanned) => {
                    bytes += scanned.about_bytes();
                    page.objects.push(scanned);
                }
                None => page.moving.push(object),
            }
        }
        None
    }

    fn page_without_objects(&self, snapshot: Timestamp, cursor: u64) -> ScanPage {
        // What is led in place of somebody else is on its way to where it is scanned.
        let caretaken: usize = self.caretaken().map(|group| group.owned_count() + group.in_transit_count()).sum();
        ScanPage {
            snapshot,
            cursor,
            next: None,
            objects: Vec::new(),
            in_transit: (self.group.in_transit_count() + caretaken) as u64,
            group: self.group.id(),
            caretaken: caretaken as u64,
            arrivals: self.arrivals.total,
            moving: Vec::new(),
            whole: true,
        }
    }

    /// What a snapshot sees of an object; `None` if it is not here.
    fn scanned(&mut self, object: ObjectId, snapshot: Timestamp) -> Option<Scanned> {
        let (epoch, seen) = self.seen_here(object, snapshot)?;
        // R16: by the same commits as the value.
        let kept = match seen {
            Seen::Version { value: Some(_), .. } => KeptSeen::of(self.kept_of_tasks(object), snapshot),
            Seen::Version { value: None, .. } | Seen::NotYetCreated | Seen::TooOld => KeptSeen::Nothing,
        };
        Some(Scanned { object, epoch, seen, kept })
    }

    /// What an object that is here, or is being sent from here, keeps of tasks.
    fn kept_of_tasks(&self, object: ObjectId) -> Option<&Outcomes> {
        match self.group.owned(object) {
            Some(stored) => stored.outcomes.as_deref(),
            None => self.group.in_transit(object)?.1.outcomes.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_listed_from_one_on_or_it_is_known_that_some_are_forgotten() {
        let mut arrivals = Arrivals::default();
        (0..=ARRIVALS_MAX as u128).for_each(|number| arrivals.push(ObjectId::from_u128(number)));
        let from =
            |number: u64| arrivals.from(number).map(|rest| (rest.count(), arrivals.from(number).unwrap().next()));
        assert_eq!(arrivals.last.len(), ARRIVALS_MAX, "R24");
        assert_eq!(from(0), None);
        assert_eq!(from(1), Some((ARRIVALS_MAX, Some(ObjectId::from_u128(1)))));
        assert_eq!(from(arrivals.total), Some((0, None)));
    }
}
