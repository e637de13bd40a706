//! What became of commits, as futures: waiting until one is stable, and asking for the fate of a receipt.

use super::host::Host;
use crate::Peer;
use crate::message::FateTold;
use crate::steps::Receipt;
use driftmesh_model::{Micros, Now, TxnId};
use std::future::poll_fn;
use std::task::Poll;

/// When to ask again for a fate that nobody could tell yet, ms.
const RETRY_AFTER_MS: u64 = 100;

/// What became of a commit (R22).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It survives every change of leader of its group.
    Stable {
        /// How many peers hold it at least, as far as the peer that answered knows.
        copies: u32,
    },
    /// It is not in its group's journal and never will be: a crash undid it, with all that followed it there.
    Lost {
        /// How that came.
        why: Loss,
    },
    /// Not decided yet, or nobody in reach can tell.
    Unknown {
        /// When to ask again, ms.
        retry_after_ms: u64,
    },
}

/// How a commit came to be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Its group went on under another leader, whose journal does not have it.
    NotInJournal,
}

impl From<FateTold> for Fate {
    fn from(told: FateTold) -> Self {
        match told {
            FateTold::Stable { copies } => Self::Stable { copies },
            FateTold::Lost => Self::Lost { why: Loss::NotInJournal },
            FateTold::Unknown => Self::Unknown { retry_after_ms: RETRY_AFTER_MS },
        }
    }
}

impl From<Fate> for FateTold {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Stable { copies } => Self::Stable { copies },
            Fate::Lost { why: Loss::NotInJournal } => Self::Lost,
            Fate::Unknown { .. } => Self::Unknown,
        }
    }
}

/// Somebody who waits for what is no transaction; what it asked is forgotten when it is dropped.
pub(super) struct Waiter<H: Host> {
    host: H,
    id: TxnId,
}

impl<H: Host> Waiter<H> {
    pub(super) fn new(host: H) -> Self {
        let id = host.step(|peer, _| peer.new_waiter());
        Self { host, id }
    }

    /// Under which name it waits.
    pub(super) const fn id(&self) -> TxnId {
        self.id
    }

    /// Waits until the core answers. Cancel safe.
    pub(super) async fn wait<T>(&self, step: impl Fn(&mut Peer, Now, TxnId) -> Poll<T>) -> T {
        let id = self.id;
        poll_fn(|context| self.host.poll_step(id, context, |peer, now| step(peer, now, id))).await
    }
}

impl<H: Host> Drop for Waiter<H> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|peer, _| peer.forget_waiter(id));
    }
}

/// What became of a commit, as this peer or any other can tell now. Cancel safe.
pub async fn fate<H: Host>(host: H, receipt: Receipt) -> Fate {
    Waiter::new(host).wait(|peer, now, id| peer.fate(now, id, &receipt)).await.into()
}

/// Waits until a commit is stable or lost, so long at most. `None` when it was neither by then. Cancel safe.
pub(super) async fn settled_within<H: Host>(host: H, receipt: Receipt, limit: Micros) -> Option<Fate> {
    let waiter = Waiter::new(host);
    let id = waiter.id;
    let until = waiter.host.step(|peer, now| {
        let until = now.mono.plus(limit);
        peer.wake_at(until, id);
        until
    });
    let polled = poll_fn(|context| {
        waiter.host.poll_step(id, context, |peer, now| match peer.stable(now, id, &receipt) {
            Poll::Ready(told) => Poll::Ready(Some(told)),
            Poll::Pending if now.mono >= until => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
    });
    polled.await.map(Fate::from)
}

/// Waits until a commit is stable or lost, however long that takes. Cancel safe.
pub async fn settled<H: Host>(host: H, receipt: Receipt) -> Fate {
    Waiter::new(host).wait(|peer, now, id| peer.stable(now, id, &receipt)).await.into()
}
