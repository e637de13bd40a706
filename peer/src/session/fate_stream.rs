//! Many receipts followed at once: each is told once, when it has become stable or lost (R22).
//!
//! It costs a commit nothing: positions of one journal are decided in order, so one look decides all up to there. It
//! refuses to tell of a fate before it is decided, and to follow more receipts than its bound.

use super::fates::{Fate, Loss, Waiter};
use super::host::Host;
use crate::Peer;
use crate::message::FateTold;
use crate::steps::Receipt;
use driftmesh_model::{GroupId, Lsn, Now, Term, TxnId};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll};

/// Most receipts that one stream follows at once (R24).
pub const FATES_MAX: usize = 65_536;
/// Most looks at a journal in one step of the core, so that a step stays short.
const LOOKS_PER_STEP: usize = 64;

/// Too many receipts are followed and not decided yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the fates of {FATES_MAX} receipts are followed by this stream and not decided yet, the most it takes; take what it tells, or wait"
)]
pub struct FatesFull;

/// A receipt whose fate is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled<T> {
    /// What was given with the receipt.
    pub tag: T,
    /// The receipt.
    pub receipt: Receipt,
    /// `Stable` or `Lost`; it never changes any more.
    pub fate: Fate,
}

/// Receipts of one leader: what is lost of them begins at one position, and all before it is stable.
struct Journal<H: Host, T> {
    waiter: Waiter<H>,
    undecided: BTreeMap<Lsn, Vec<(T, Receipt)>>,
    /// The position that others were asked for: what is followed meanwhile waits for its turn.
    asked: Option<Lsn>,
}

impl<H: Host, T> Journal<H, T> {
    /// Looks at what can be decided now.
    fn look(&mut self, peer: &mut Peer, now: Now, decided: &mut VecDeque<Settled<T>>) -> Poll<()> {
        let before = decided.len();
        for _ in 0..LOOKS_PER_STEP {
            let Some(receipt) = self.next_to_ask(peer) else { break };
            let (fates, fate) = match peer.stable(now, self.waiter.id(), &receipt) {
                Poll::Ready(FateTold::Lost) => {
                    (self.undecided.split_off(&receipt.lsn), Fate::Lost { why: Loss::NotInJournal })
                }
                Poll::Ready(FateTold::Stable { copies }) => {
                    let above = self.undecided.split_off(&Lsn::from_u64(receipt.lsn.as_u64().saturating_add(1)));
                    (std::mem::replace(&mut self.undecided, above), Fate::Stable { copies })
                }
                Poll::Ready(FateTold::Unknown) | Poll::Pending => break,
            };
            let fates = fates.into_values().flatten();
            decided.extend(fates.map(|(tag, receipt)| Settled { tag, receipt, fate }));
        }
        if decided.len() > before || self.undecided.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// In this peer's own journal the first that waits is decided first. Of another one answer costs a message, and what
    /// is told of the last decides all; but a question that was asked stands until it is decided, however many more
    /// receipts come.
    fn next_to_ask(&mut self, peer: &Peer) -> Option<Receipt> {
        let of = |told: &Vec<(T, Receipt)>| told.first().map(|(_, receipt)| *receipt);
        let first = self.undecided.values().next().and_then(of)?;
        if first.group != peer.group().id() {
            let asked = self.asked.and_then(|lsn| self.undecided.get(&lsn)).and_then(of);
            let next = asked.or_else(|| self.undecided.values().next_back().and_then(of));
            self.asked = next.map(|receipt| receipt.lsn);
            return next;
        }
        let stable = self.undecided.range(..=peer.group().watermark()).next_back();
        stable.and_then(|(_, told)| of(told)).or(Some(first))
    }
}

/// Tells what becomes of many commits, of this peer or others. Each receipt that [`Fates::follow`] is given is told
/// once, with its tag; positions of one journal in groups, in no particular order between journals.
pub struct Fates<H: Host, T> {
    host: H,
    journals: BTreeMap<(GroupId, Term), Journal<H, T>>,
    undecided: usize,
    decided: VecDeque<Settled<T>>,
}

impl<H: Host, T> std::fmt::Debug for Fates<H, T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Fates").field("undecided", &self.undecided).finish_non_exhaustive()
    }
}

impl<H: Host, T> Fates<H, T> {
    /// Follows nothing yet.
    pub const fn new(host: H) -> Self {
        Self { host, journals: BTreeMap::new(), undecided: 0, decided: VecDeque::new() }
    }

    /// Follows a commit until its fate is decided.
    ///
    /// # Errors
    /// [`FatesFull`], with nothing changed.
    pub fn follow(&mut self, receipt: Receipt, tag: T) -> Result<(), FatesFull> {
        if self.len() >= FATES_MAX {
            return Err(FatesFull);
        }
        let journal = self.journals.entry((receipt.group, receipt.term)).or_insert_with(|| Journal {
            waiter: Waiter::new(self.host.clone()),
            undecided: BTreeMap::new(),
            asked: None,
        });
        journal.undecided.entry(receipt.lsn).or_default().push((tag, receipt));
        self.undecided += 1;
        Ok(())
    }

    /// How many receipts are followed and not told yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.undecided + self.decided.len()
    }

    /// Whether nothing is followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is followed and not known to be decided, journal by journal.
    pub fn undecided(&self) -> impl Iterator<Item = &Receipt> {
        self.journals.values().flat_map(|journal| journal.undecided.values().flatten()).map(|(_, receipt)| receipt)
    }

    /// The next that is decided, if one is. Never waits, beyond the end of another's step of the core: for loops that
    /// look each frame.
    pub fn try_next(&mut self) -> Option<Settled<T>> {
        if self.decided.is_empty() {
            self.look(|host, _, step| host.step(step));
        }
        self.decided.pop_front()
    }

    /// Waits for the next that is decided, however long that takes; `None` when nothing is followed. Cancel safe: what
    /// is not given out stays.
    pub async fn next(&mut self) -> Option<Settled<T>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Settled<T>>> {
        if self.decided.is_empty() {
            self.look(|host, waiter, step| host.poll_step(waiter, context, step));
        }
        match self.decided.pop_front() {
            Some(settled) => Poll::Ready(Some(settled)),
            None if self.undecided == 0 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn look(&mut self, mut step: impl FnMut(&H, TxnId, &mut dyn FnMut(&mut Peer, Now) -> Poll<()>) -> Poll<()>) {
        for journal in self.journals.values_mut() {
            let before = self.decided.len();
            let decided = &mut self.decided;
            // A wake is lost if it came between the last look and parking; so the look is what parks.
            while step(&self.host, journal.waiter.id(), &mut |peer, now| journal.look(peer, now, decided)).is_ready()
                && !journal.undecided.is_empty()
            {}
            self.undecided -= self.decided.len() - before;
        }
        self.journals.retain(|_, journal| !journal.undecided.is_empty());
    }
}
