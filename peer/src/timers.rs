//! Every timer of a peer, in one enum and one queue.

use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, TxnId};
use std::collections::BTreeSet;

/// What a timer is for, and when it fires.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// Every heartbeat interval: tell the members, prune, send batches again.
    Heartbeat,
    /// A moment after records were noted: send them to their homes in one batch.
    Publish,
    /// A fetch heard nothing for a while.
    Fetch(ObjectId),
    /// A grant of one group to another may not have been answered for a while.
    Grants(GroupId, GroupId),
    /// The pin of an object may have ended, or a transfer may go on.
    HandOver(ObjectId),
    /// Somebody waits for, or in, a transaction: end it at its deadline.
    Deadline(TxnId),
    /// Whoever waits in a step looks again: a transaction whose pause before a retry is over, or that waits for a window or for
    /// a former lead; a question, a survey, or a task on its way.
    Wake(TxnId),
    /// A request waited long enough for an object on its way here.
    Parked(ObjectId),
    /// Owned objects are published again, a slice at a time, because the members changed.
    Republish,
    /// Objects are handed to others, a slice at a time, because this peer leaves.
    Drain,
    /// Objects wait for room for their forwarding pointers: collect some.
    Collect,
    /// A page of a scan did not come.
    Scan(PeerId, TxnId),
    /// A group of this peer has something to say, or has heard nothing for long.
    Group(GroupId),
    /// A group that is led in place of its founder hands out what it owns.
    Caretake(GroupId),
    /// Reads waited for this peer's clock.
    EarlyReads,
    /// Groups that this peer leads close the present moment for those who read copies.
    Close,
    /// Subscriptions of this peer are kept up.
    Subscriptions,
    /// Schedules of objects here may be due.
    Schedules,
    /// This peer has said more to itself than one step may hear.
    Loopback,
}

/// Timers in order of time. Setting one twice lets it fire twice: whoever is called looks whether there is work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Micros, Timer)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Micros, timer: Timer) {
        self.queue.insert((at, timer));
    }

    pub(crate) fn clear(&mut self, at: Micros, timer: Timer) {
        self.queue.remove(&(at, timer));
    }

    /// When the next one fires, monotonic.
    pub(crate) fn next(&self) -> Option<Micros> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the next one that is due.
    pub(crate) fn pop_due(&mut self, now: Micros) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, timer)| timer)
    }
}
