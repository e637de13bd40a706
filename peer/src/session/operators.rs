//! What operators ask of a peer about a group that lost its majority, as futures.

use super::host::Host;
use crate::Peer;
use crate::operating::{OperatorError, Promoted};
use driftmesh_model::{GroupId, Now, TxnId};
use std::future::poll_fn;
use std::task::Poll;

/// Somebody who waits for a survey, which is forgotten when this is dropped.
struct Waiter<H: Host> {
    host: H,
    id: TxnId,
}

impl<H: Host> Drop for Waiter<H> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|peer, _| peer.forget_waiter(id));
    }
}

async fn wait<H: Host, T>(host: H, step: impl Fn(&mut Peer, Now, TxnId) -> Poll<T>) -> T {
    let id = host.step(|peer, _| peer.new_waiter());
    let waiter = Waiter { host, id };
    poll_fn(|context| waiter.host.poll_step(id, context, |peer, now| step(peer, now, id))).await
}

/// Founds a group anew from what this peer holds of it; see [`Peer::promote`]. Cancel safe.
///
/// # Errors
/// As [`Peer::promote`].
pub async fn promote<H: Host>(host: H, group: GroupId, accept_loss: bool) -> Result<Promoted, OperatorError> {
    wait(host, |peer, now, id| peer.promote(now, id, group, accept_loss)).await
}

/// Gives a group up; see [`Peer::forget_group`]. Cancel safe.
///
/// # Errors
/// As [`Peer::forget_group`].
pub async fn forget<H: Host>(host: H, group: GroupId, force: bool) -> Result<(), OperatorError> {
    wait(host, |peer, now, id| peer.forget_group(now, id, group, force)).await
}
