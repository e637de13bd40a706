//! What became of commits: stable, lost, or not decided yet, for whoever holds a receipt (R22).

use crate::message::{FateTold, Message};
use crate::metrics::RareEvent;
use crate::questions::Questions;
use crate::steps::Receipt;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::{GroupId, Lsn, Micros, Now, PeerId, Term, TxnId};
use driftmesh_object_store::Fate;
use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

/// How long others are given to answer; then the fate is unknown for now.
const ASK_FOR: Micros = Micros::from_millis(300);
/// Of how many leaders is remembered what others told (R24).
const HEARD_MAX: usize = 4_096;
/// Who waits for a position to become stable and hears nothing looks again after this.
const LOOK_AGAIN_AFTER: Micros = Micros::from_millis(100);

/// What others told of one leader's entries: all up to `stable` are, all from `lost` on are not.
#[derive(Clone, Copy, Debug, Default)]
struct Hearsay {
    stable: Option<(Lsn, u32)>,
    lost: Option<Lsn>,
}

/// Questions about receipts, and those who wait for positions to become stable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fates {
    questions: Questions,
    /// The last id that was given to somebody who waits.
    last: u64,
    /// What was told of groups that this peer cannot judge itself. A fate that is decided never changes.
    heard: BTreeMap<(GroupId, Term), Hearsay>,
    /// Who waits for this peer's own journal, each once.
    stable: BTreeSet<(Lsn, TxnId)>,
    waiting: BTreeMap<TxnId, Lsn>,
}

impl Fates {
    fn hear(&mut self, (group, term): (GroupId, Term), up_to: Option<(Lsn, u32)>, lost_from: Option<Lsn>) {
        if self.heard.len() >= HEARD_MAX {
            // R24: it is only asked again.
            self.heard.clear();
        }
        let heard = self.heard.entry((group, term)).or_default();
        heard.stable = heard.stable.max(up_to);
        heard.lost = heard.lost.or(lost_from);
    }

    fn heard(&self, group: GroupId, term: Term, lsn: Lsn) -> FateTold {
        match self.heard.get(&(group, term)).copied().unwrap_or_default() {
            Hearsay { lost: Some(from), .. } if from <= lsn => FateTold::Lost,
            Hearsay { stable: Some((up_to, copies)), .. } if lsn <= up_to => FateTold::Stable { copies },
            Hearsay { lost: Some(_), .. } => FateTold::Stable { copies: 1 },
            Hearsay { .. } => FateTold::Unknown,
        }
    }

    /// Somebody waits until this peer's own journal is stable up to here.
    pub(crate) fn wait_for_stable(&mut self, lsn: Lsn, waiter: TxnId) {
        self.forget(waiter);
        self.stable.insert((lsn, waiter));
        self.waiting.insert(waiter, lsn);
    }

    pub(crate) fn forget(&mut self, waiter: TxnId) {
        if let Some(lsn) = self.waiting.remove(&waiter) {
            self.stable.remove(&(lsn, waiter));
        }
    }
}

/// Ids of those who wait begin above here: far above those of transactions.
pub(crate) const WAITERS_FROM: u64 = 1 << 62;

impl Peer {
    /// This peer's own group, and the position in its journal that must become stable before all that other peers wait for now can be told.
    /// `None` if they wait for nothing.
    #[must_use]
    pub fn others_wait_for_stable(&self) -> Option<(GroupId, Lsn)> {
        let lsn = self.outbox.waits_for(self.group.id());
        (lsn > self.group.watermark()).then(|| (self.group.id(), lsn))
    }

    /// An id for somebody who waits for something that is no transaction.
    pub fn new_waiter(&mut self) -> TxnId {
        self.fates.last += 1;
        TxnId::from_u64(WAITERS_FROM + self.fates.last)
    }

    /// What this peer itself can tell: of a group that it belongs to, or that has ended.
    pub(crate) fn fate_here(&self, group: GroupId, term: Term, lsn: Lsn) -> FateTold {
        if let Some(ended) = self.groups.ended(group) {
            if ended.lost {
                return FateTold::Lost;
            }
            // R22: the table outlives the group.
            return match ended.terms.fate(term, lsn, ended.tail) {
                Fate::Stable => FateTold::Stable { copies: 1 },
                Fate::Lost => FateTold::Lost,
                Fate::Unknown => FateTold::Unknown,
            };
        }
        let Some(of) = self.group_of(group) else { return self.fates.heard(group, term, lsn) };
        if self.broken(Sabotage::Fates) && !of.is_leading() && lsn > of.watermark() {
            return FateTold::Lost;
        }
        match of.fate(term, lsn) {
            Fate::Stable => {
                let copies = of.consensus().copies(lsn);
                FateTold::Stable { copies: u32::try_from(copies).unwrap_or(u32::MAX) }
            }
            Fate::Lost => FateTold::Lost,
            Fate::Unknown => self.fates.heard(group, term, lsn),
        }
    }

    /// What became of a commit. Others are asked where this peer cannot tell; without their word it is unknown for now.
    /// May be called again until it answers; `waiter` is woken.
    pub fn fate(&mut self, now: Now, waiter: TxnId, receipt: &Receipt) -> Poll<FateTold> {
        self.now = now;
        let here = self.fate_here(receipt.group, receipt.term, receipt.lsn);
        let is_own = self.group.id() == receipt.group;
        if here != FateTold::Unknown || is_own {
            self.fates.questions.close(waiter);
            return Poll::Ready(here);
        }
        if let Some(question) = self.fates.questions.about(waiter, receipt) {
            if question.told == FateTold::Unknown && now.mono < question.until {
                return Poll::Pending;
            }
            self.fates.questions.close(waiter);
            return Poll::Ready(question.told);
        }
        if self.ask_for_fate(waiter, receipt) { Poll::Pending } else { Poll::Ready(FateTold::Unknown) }
    }

    /// Wakes somebody who waits, at a time of the monotonic clock.
    pub fn wake_at(&mut self, at: Micros, waiter: TxnId) {
        self.timers.set(at, Timer::Wake(waiter));
    }

    /// Whoever asked does not wait any more.
    pub fn forget_waiter(&mut self, waiter: TxnId) {
        self.fates.questions.close(waiter);
        self.forget_survey(waiter);
        self.task_is_told(waiter);
        self.fates.forget(waiter);
        self.wakes.push(waiter);
    }

    /// Asks others. Returns whether there was room for another question.
    fn ask_for_fate(&mut self, waiter: TxnId, receipt: &Receipt) -> bool {
        let until = self.now.mono.plus(ASK_FOR);
        let Some(ask) = self.fates.questions.open(waiter, receipt, until) else { return false };
        self.timers.set(until, Timer::Wake(waiter));
        self.metrics.note(RareEvent::FateAsked);
        let Receipt { group, term, lsn, .. } = *receipt;
        // Any member can tell; who belongs to a group of others is not known here, so all are asked.
        for peer in self.connected_members() {
            self.send_now(peer, Message::AskFate { ask, group, term, lsn });
        }
        true
    }

    pub(crate) fn fate_asked(&mut self, from: PeerId, ask: u64, group: GroupId, term: Term, lsn: Lsn) {
        // R6: told is only what the stable part of the journal says.
        let fate = self.fate_here(group, term, lsn);
        if fate != FateTold::Unknown {
            let lost_from = self.lost_from(group, term);
            self.send_now(from, Message::Fate { ask, fate, lost_from });
        }
    }

    /// Remembers what is decided of a leader's entries up to a position.
    pub(crate) fn remember_fate(&mut self, receipt: &Receipt, fate: FateTold) {
        let up_to = if let FateTold::Stable { copies } = fate { Some((receipt.lsn, copies)) } else { None };
        let lost_from = self.lost_from(receipt.group, receipt.term);
        self.fates.hear((receipt.group, receipt.term), up_to, lost_from);
    }

    fn lost_from(&self, group: GroupId, term: Term) -> Option<Lsn> {
        if let Some(ended) = self.groups.ended(group) {
            return if ended.lost { Some(Lsn::ZERO) } else { ended.terms.lost_from(term, ended.tail) };
        }
        let heard = || self.fates.heard.get(&(group, term)).and_then(|heard| heard.lost);
        self.group_of(group).and_then(|of| of.terms().lost_from(term, of.watermark())).or_else(heard)
    }

    pub(crate) fn fate_told(&mut self, ask: u64, fate: FateTold, lost_from: Option<Lsn>) {
        if let Some(question) = self.fates.questions.answered(ask, fate) {
            let up_to = if let FateTold::Stable { copies } = fate { Some((question.lsn, copies)) } else { None };
            let of = (question.group, question.term);
            self.fates.hear(of, up_to, lost_from);
            self.wakes.push(question.waiter);
        }
    }

    /// More is known of a group: who asked looks again.
    pub(crate) fn wake_fates(&mut self, group: GroupId) {
        let asked = self.fates.questions.iter().filter(|question| question.group == group);
        self.wakes.extend(asked.map(|question| question.waiter));
        self.fates.stable.clear();
        self.wakes.extend(std::mem::take(&mut self.fates.waiting).into_keys());
    }

    /// This peer's journal is stable up to here.
    pub(crate) fn wake_stable(&mut self, watermark: Lsn) {
        while let Some((_, waiter)) = self.fates.stable.first().filter(|(lsn, _)| *lsn <= watermark).copied() {
            self.fates.forget(waiter);
            self.wakes.push(waiter);
        }
    }

    /// Waits until a commit of this peer is stable, or its fate is another. May be called again until it answers;
    /// `waiter` is woken.
    pub fn stable(&mut self, now: Now, waiter: TxnId, receipt: &Receipt) -> Poll<FateTold> {
        self.now = now;
        let here = self.fate_here(receipt.group, receipt.term, receipt.lsn);
        if here != FateTold::Unknown {
            self.fates.questions.close(waiter);
            return Poll::Ready(here);
        }
        if receipt.group == self.group.id() {
            self.own_dirty = true;
            self.fates.wait_for_stable(receipt.lsn, waiter);
            return Poll::Pending;
        }
        match self.fate(now, waiter, receipt) {
            Poll::Ready(FateTold::Unknown) => {
                self.timers.set(now.mono.plus(LOOK_AGAIN_AFTER), Timer::Wake(waiter));
                Poll::Pending
            }
            answer @ (Poll::Ready(_) | Poll::Pending) => answer,
        }
    }

    /// Whether a commit is stable now, as far as this peer knows.
    #[must_use]
    pub fn is_stable(&self, receipt: &Receipt) -> bool {
        matches!(self.fate_here(receipt.group, receipt.term, receipt.lsn), FateTold::Stable { .. })
    }

    /// Of the group, term and position of an open question: for tests.
    #[must_use]
    pub fn open_questions(&self) -> Vec<(GroupId, Term, Lsn)> {
        self.fates.questions.iter().map(|asked| (asked.group, asked.term, asked.lsn)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_told_of_a_leader_decides_its_receipts_in_bounded_memory() {
        let mut fates = Fates::default();
        let (group, term) = (GroupId::from_u128(1), Term::from_u64(1));
        let told = |fates: &Fates, lsn| fates.heard(group, term, Lsn::from_u64(lsn));
        fates.hear((group, term), Some((Lsn::from_u64(5), 2)), None);
        assert_eq!((told(&fates, 5), told(&fates, 6)), (FateTold::Stable { copies: 2 }, FateTold::Unknown));
        // What is told late says less, and takes nothing back.
        fates.hear((group, term), Some((Lsn::from_u64(3), 2)), None);
        assert_eq!(told(&fates, 5), FateTold::Stable { copies: 2 });
        fates.hear((group, term), None, Some(Lsn::from_u64(9)));
        assert_eq!((told(&fates, 8), told(&fates, 9)), (FateTold::Stable { copies: 1 }, FateTold::Lost));
        assert_eq!(fates.heard(group, term.next(), Lsn::from_u64(9)), FateTold::Unknown);
        for number in 0..2 * HEARD_MAX as u128 {
            let other = GroupId::from_u128(100 + number);
            fates.hear((other, term), Some((Lsn::from_u64(5), 1)), None);
            assert!(fates.heard.len() <= HEARD_MAX, "R24");
            assert_eq!(fates.heard(other, term, Lsn::from_u64(5)), FateTold::Stable { copies: 1 });
        }
    }
}
