//! The commit of a transaction: what it waits for, the one step in which it happens (R13), and what it leaves behind.
//!
//! Whatever may be refused or has to wait is, before anything is journalled. It refuses to take locks: what is written
//! without one is not committed (R5).

use super::{Committed, RETRY_PAUSE, Receipt, StepError, Stepped, TxnWrites, stepped};
use crate::metrics::RareEvent;
use crate::peer::RecentCommit;
use crate::rare_branches::RareBranch;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::limits::TASK_TOLD_MAX;
use driftmesh_model::{Epoch, Micros, Now, ObjectId, Timestamp, TxnId};
use driftmesh_object_store::Entry;
use driftmesh_txn::Intent;

/// Commits remembered so that a conflict can name the other side.
const RECENT_COMMITS_MAX: usize = 1_024;
/// Held commits that look again at once when more is stable.
const HELD_WOKEN_MAX: usize = 64;

impl Peer {
    /// R13: Running becomes Committed in this one step. Before it a wound wins; after it nothing can. "Not yet" while too
    /// much is unstable (R10); the writes are taken only when it commits. May be called again until it answers.
    ///
    /// # Errors
    /// When the attempt has ended, or a write is not covered by a lock; nothing is written then.
    pub fn commit(&mut self, now: Now, id: TxnId, txn_writes: &mut TxnWrites) -> Stepped<Committed> {
        stepped(self.try_commit(now, id, txn_writes))
    }

    fn try_commit(&mut self, now: Now, id: TxnId, txn_writes: &mut TxnWrites) -> Result<Option<Committed>, StepError> {
        match self.enter(now, id) {
            Err(StepError::Failed(_)) if self.broken(Sabotage::CommitPoint) => {}
            entered => entered?,
        }
        if !txn_writes.is_empty() {
            if self.group.is_retired() {
                return Err(StepError::Leaving);
            }
            // R24: before anything of it is done.
            self.refuse_growth(txn_writes)?;
            // R6: what was told here in another group is decided before anything builds on it in this one.
            if !self.former_leads_are_decided(id) {
                return Ok(None);
            }
            let waits = self.group.watermark() < self.group.tail() && self.rarely(RareBranch::HoldCommit);
            if waits || self.is_too_much_unstable() {
                self.hold_commit(id);
                return Ok(None);
            }
        }
        if txn_writes.is_empty() && !self.may_stand_together(id) {
            return Ok(None);
        }
        self.commit_now(id, std::mem::take(txn_writes)).map(Some)
    }

    /// R8: whether what a transaction that only read saw here may stand beside what it, or one before it, saw elsewhere. A
    /// window that covers its snapshot is journalled, and its receipt says up to there: if this peer leads no more, it is
    /// lost as the window is. What was read here alone does not wait for that: it is a past that was true.
    fn may_stand_together(&mut self, id: TxnId) -> bool {
        let Some(txn) = self.txns.get(id) else { return true };
        let (here, elsewhere) = (txn.has_read_here(), txn.has_read_elsewhere());
        let snapshot = txn.snapshot;
        if txn.read_only || !here || self.window_needs(self.group.id(), snapshot).is_some() || !elsewhere {
            return true;
        }
        self.timers.set(self.now.mono.plus(RETRY_PAUSE), Timer::Wake(id));
        self.watch_deadline(id);
        false
    }

    /// Ends an attempt whose closure ended with an error. R8: an error has no receipt, so what was seen here beside what
    /// came from elsewhere is told only when it is certain that this peer leads its group. May be called again until it
    /// answers.
    ///
    /// # Errors
    /// When the attempt has ended, and what the closure made of it does not count.
    pub fn conclude(&mut self, now: Now, id: TxnId) -> Stepped<()> {
        stepped(self.try_conclude(now, id))
    }

    fn try_conclude(&mut self, now: Now, id: TxnId) -> Result<Option<()>, StepError> {
        self.enter(now, id)?;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        let (mixed, snapshot) = (txn.has_read_here() && txn.awaited_message, txn.snapshot);
        if mixed && !self.own_window_covers(snapshot, id) {
            self.watch_deadline(id);
            return Ok(None);
        }
        self.end(now, id);
        Ok(Some(()))
    }

    /// R10: what a crash may lose is bounded in time and bytes.
    fn is_too_much_unstable(&self) -> bool {
        if self.group.consensus().is_alone() || self.broken(Sabotage::BoundedLoss) {
            return false;
        }
        let (bytes, since) = self.group.consensus().unstable();
        let age = since.map_or(Micros(0), |since| self.now.mono.since(since));
        bytes >= self.config.unstable_bytes_max || age >= self.config.unstable_max
    }

    /// More is stable: commits that were held look again, the oldest first. Some at a time, while more is to become stable,
    /// which wakes the next ones: all of them at each step of the watermark would be the work of all for each of them.
    pub(crate) fn wake_held_commits(&mut self) {
        if self.group.watermark() >= self.group.tail() {
            self.wakes.extend(std::mem::take(&mut self.held_commits));
        } else if !self.is_too_much_unstable() {
            self.wakes.extend((0..HELD_WOKEN_MAX).map_while(|_| self.held_commits.pop_first()));
        }
    }

    /// Its locks are held, and a wound still works.
    fn hold_commit(&mut self, id: TxnId) {
        if self.held_commits.insert(id) {
            self.metrics.held_commits += 1;
            self.metrics.note(RareEvent::CommitHeld);
        }
        self.own_dirty = true;
        self.watch_deadline(id);
    }

    fn commit_now(&mut self, id: TxnId, txn_writes: TxnWrites) -> Result<Committed, StepError> {
        let wrote = !txn_writes.is_empty();
        let TxnWrites { writes, created, outcome, schedules } = txn_writes;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.read_only && wrote {
            return Err(StepError::ReadOnly);
        }
        // R21: the anchor is owned here and nobody else's until this has committed.
        if let Some(anchor) = outcome.as_ref().map(|outcome| outcome.anchor())
            && txn.intents.get(&anchor) != Some(&Intent::Checked)
        {
            return Err(StepError::NotIntended(anchor));
        }
        // R5: everything written is locked here, and so belongs to the one group that this peer leads.
        let uncovered = |object: &ObjectId| {
            txn.intents.get(object) != Some(&Intent::Checked) && created.binary_search(object).is_err()
        };
        let changed = writes.iter().map(|write| write.object);
        if !self.broken(Sabotage::CommitPoint)
            && let Some(object) = changed.chain(schedules.iter().map(|change| change.object)).find(uncovered)
        {
            return Err(StepError::NotIntended(object));
        }
        let all = TxnWrites { writes, created, outcome, schedules };
        let commit = if wrote { self.journal_commit(all) } else { txn.snapshot };
        let journal_tail = self.group.tail();
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.deadline_watched {
            // It waited; a step of it that was dropped meanwhile may have left a waker with the host.
            self.wakes.push(id);
        }
        self.metrics.local_commits += u64::from(!txn.awaited_message);
        let receipt =
            Receipt { group: self.group.id(), term: self.group.term(), lsn: journal_tail, commit, txn: txn.timestamp };
        let stable = self.group.watermark() >= journal_tail;
        if !stable {
            self.told.unstable(receipt);
        }
        let touched = if txn.is_task { self.touched_by(id) } else { Vec::new() };
        self.note_touched(id);
        let Some(txn) = self.txns.get(id) else { return Err(StepError::Ended) };
        let (awaited_message, attempts) = (txn.awaited_message, txn.attempt);
        let committed = Committed { receipt, awaited_message, attempts, stable, touched };
        if wrote {
            self.remember_commit(id, commit);
        }
        self.remove_transaction(id);
        Ok(committed)
    }

    /// What a task's transaction has locked, as far as anybody learns it.
    fn touched_by(&self, id: TxnId) -> Vec<(ObjectId, Epoch)> {
        let Some(txn) = self.txns.get(id) else { return Vec::new() };
        let locked = txn.intents.iter().filter(|(_, intent)| **intent == Intent::Checked);
        let epoch = |object: ObjectId| self.group.owned(object).map(|stored| self.group.epoch_of(stored));
        let mut touched: Vec<_> = locked.filter_map(|(object, _)| Some((*object, epoch(*object)?))).collect();
        // What is used least is most its own.
        touched.sort_by_cached_key(|(object, _)| self.uses.of(*object).heat);
        touched.truncate(TASK_TOLD_MAX);
        touched
    }

    /// Remembers who committed, in exchange for the oldest that is remembered. The transaction is about to go.
    fn remember_commit(&mut self, id: TxnId, commit: Timestamp) {
        let Some(txn) = self.txns.get_mut(id) else { return };
        let full = self.recent_commits.len() >= RECENT_COMMITS_MAX;
        let kind = match self.recent_commits.pop_front_if(|_| full) {
            Some(oldest) => std::mem::replace(&mut txn.kind, oldest.kind),
            None => txn.kind.clone(),
        };
        self.recent_commits.push_back(RecentCommit { commit, timestamp: txn.timestamp, kind });
    }

    fn journal_commit(&mut self, all: TxnWrites) -> Timestamp {
        let TxnWrites { writes, created, outcome, schedules } = all;
        let commit = self.clock.tick(self.now.wall);
        // What leads back from a change of schedules goes like a superseded version.
        let changed = writes.len() + schedules.len();
        if self.members.is_empty() && self.txns.len() == 1 {
            // Nobody here or elsewhere reads at an older snapshot: what is superseded goes while it is at hand.
            self.group.set_prune_below(commit, self.config.version_bytes_max);
        }
        self.tell_written(&writes, &created);
        self.journal(Entry::Commit { commit, writes, outcome, schedules });
        for object in created {
            self.publish(object);
        }
        self.metrics.commits += 1;
        self.prune_versions(changed);
        commit
    }
}
