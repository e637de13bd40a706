//! What callers here were told before it was stable, and a change of leader may have undone: nothing that this peer
//! commits in another group builds on it before that is decided (R6).
//!
//! Inside one group its journal keeps the order by itself. It refuses to hold back reads, which tell nobody else
//! anything, and to look at groups that this peer never led for its own callers.

use crate::steps::Receipt;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::{GroupId, Micros, TxnId};
use std::task::Poll;

/// Who asks on behalf of commits that wait; they look again by themselves.
const TOLD_WAITER: TxnId = TxnId::from_u64(crate::fates::WAITERS_FROM);
/// How soon a commit that waits for the end of a former lead is tried again.
const LOOK_AGAIN_AFTER: Micros = Micros::from_millis(20);

/// The last unstable receipts, by group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// In the group that this peer works in.
    last: Option<Receipt>,
    /// In groups that it worked in before: not decided yet, as far as it knows.
    undecided: Vec<Receipt>,
}

impl Told {
    /// A caller gets a receipt that is not stable.
    pub(crate) const fn unstable(&mut self, receipt: Receipt) {
        self.last = Some(receipt);
    }

    /// This peer works in another group from now on.
    pub(crate) fn group_changed(&mut self, former: GroupId) {
        self.undecided.extend(self.last.take().filter(|receipt| receipt.group == former));
    }
}

impl Peer {
    /// Whether it is decided what became of everything that callers were told in former groups. If not, the transaction
    /// is woken to look again.
    pub(crate) fn former_leads_are_decided(&mut self, id: TxnId) -> bool {
        if self.told.undecided.is_empty() || self.broken(Sabotage::ToldOrder) {
            return true;
        }
        let now = self.now;
        let waiter = TOLD_WAITER;
        while let Some(receipt) = self.told.undecided.last().copied() {
            let Poll::Ready(fate) = self.stable(now, waiter, &receipt) else {
                // R14: it waits with its locks, where a wound still works, until its deadline at most.
                self.timers.set(now.mono.plus(LOOK_AGAIN_AFTER), Timer::Wake(id));
                self.watch_deadline(id);
                return false;
            };
            // Those who follow such receipts are told, also when this peer has nothing to do with that group any more.
            self.remember_fate(&receipt, fate);
            self.told.undecided.pop();
        }
        true
    }
}
