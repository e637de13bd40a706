//! Undoing entries that will never be stable, the newest first: what a deposed leader does (R7, R9).
//!
//! It refuses to keep more than an entry itself does not say: versions that an unstable commit superseded stay in their
//! chains (`prune`), and nothing is kept of what is stable.

use super::{GrantKey, InTransit, Marks, State, Stored};
use crate::{Entry, Write};
use driftmesh_model::{Epoch, GroupId, Lsn, ObjectId, Timestamp};

/// An entry that was applied and may be undone.
#[derive(Clone, Debug)]
pub(super) struct Unstable {
    pub(super) lsn: Lsn,
    /// The marks after it.
    pub(super) marks: Marks,
    pub(super) kept: Option<Box<Kept>>,
}

/// What is needed to undo an entry beside the entry and the state.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Of an object that left: the entry that had changed it, and a former grant of it that is not settled.
    Left { changed: Lsn, former: Option<GrantKey> },
    /// Refusals that need not be remembered any more.
    Settled(Vec<u64>),
    /// A grant that was adopted; `indexed` if it was the last one of its object.
    Handed { transit: InTransit, indexed: bool },
    /// What is not in an object's chain of a grant that was refused.
    TakenBack { object: ObjectId, changed: Lsn, floor: Timestamp, indexed: bool },
    /// The end of the window before this one.
    Window(Timestamp),
}

impl State {
    /// Everything up to `lsn` will never be undone: what was kept for that goes.
    pub fn stable(&mut self, lsn: Lsn) {
        while let Some(first) = self.unstable.front()
            && first.lsn <= lsn
        {
            self.stable_marks = first.marks;
            self.unstable.pop_front();
        }
    }

    /// Undoes the last applied entry. Exact, but for `Stored::changed`, which may lie too late, the counters of moves,
    /// which only climb, and old versions that were pruned.
    ///
    /// # Panics
    /// When the entry is not the last one, or is stable.
    pub fn undo(&mut self, lsn: Lsn, entry: &Entry) {
        assert_eq!(
            self.unstable.back().map(|last| last.lsn),
            Some(lsn),
            "only the last entry is undone, if not stable"
        );
        let kept = self.unstable.pop_back().and_then(|last| last.kept);
        self.marks = self.unstable.back().map_or(self.stable_marks, |last| last.marks);
        self.applied = Lsn::from_u64(lsn.as_u64().saturating_sub(1));
        self.unfold(entry, kept.map(|kept| *kept));
    }

    fn unfold(&mut self, entry: &Entry, kept: Option<Kept>) {
        match entry {
            Entry::TermStart { .. } => {
                self.terms.pop();
            }
            Entry::Commit { writes, .. } => self.unfold_commit(writes),
            Entry::TransferOut { object, epoch, to, number, floor: _ } => {
                let Some((transit, _)) = self.remove_transit((*to, *number)) else { return };
                if let Some(Kept::Left { changed, former }) = kept {
                    self.index_transit(*object, former);
                    let epoch = Epoch::from_u64(epoch.as_u64().saturating_sub(1));
                    self.install(Stored { object: *object, epoch, changed, chain: transit.chain });
                }
                // Numbers are given one by one.
                match number.saturating_sub(1) {
                    0 => self.sent.remove(to),
                    former => self.sent.insert(*to, former),
                };
            }
            Entry::TransferIn { object, from, number, .. } => {
                self.remove(*object);
                self.count_move(*object);
                self.unfold_answer(*from, *number, kept);
            }
            Entry::Refused { from, number, .. } => self.unfold_answer(*from, *number, kept),
            Entry::Handed { to, number } => {
                if let Some(Kept::Handed { transit, indexed }) = kept {
                    self.count_move(transit.object);
                    self.insert_transit((*to, *number), transit, indexed);
                }
            }
            Entry::TakenBack { to, number } => {
                if let Some(Kept::TakenBack { object, changed, floor, indexed }) = kept
                    && let Some(Stored { epoch, chain, .. }) = self.remove(object)
                {
                    self.count_move(object);
                    let epoch = Epoch::from_u64(epoch.as_u64().saturating_sub(1));
                    let transit = InTransit { object, epoch, changed, chain, floor };
                    self.insert_transit((*to, *number), transit, indexed);
                }
            }
            Entry::Window { .. } => {
                if let Some(Kept::Window(former)) = kept {
                    self.window = former;
                }
            }
            Entry::Members(_) => {}
            Entry::Retired => self.retired = false,
        }
    }

    fn unfold_commit(&mut self, writes: &[Write]) {
        for write in writes.iter().rev() {
            let Some((slot, stored)) = self.objects.get_mut(&write.object) else { continue };
            if let Some(copy) = &mut self.copy {
                copy.object_changes(*slot, Some(stored));
            }
            if let Some(cost) = stored.chain.pop() {
                self.superseded_cost -= cost;
                // Which entry it was is not kept for each write. What is undone ends at the watermark, and so does this.
                stored.changed = stored.changed.min(self.applied);
            } else {
                // The commit created it.
                self.remove(write.object);
                self.count_move(write.object);
            }
        }
    }

    fn unfold_answer(&mut self, from: GroupId, number: u64, kept: Option<Kept>) {
        let Some(log) = self.received.get_mut(&from) else { return };
        log.forget(number);
        if let Some(Kept::Settled(refused)) = kept {
            log.unsettle(refused);
        }
    }
}
