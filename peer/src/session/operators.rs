//! What operators ask of a peer about a group that lost its majority, as futures.

use super::fates::Waiter;
use super::host::Host;
use crate::operating::{OperatorError, Promoted};
use driftmesh_model::GroupId;

/// Founds a group anew from what this peer holds of it; see [`crate::Peer::promote`]. Cancel safe.
///
/// # Errors
/// As [`crate::Peer::promote`].
pub async fn promote<H: Host>(host: H, group: GroupId, accept_loss: bool) -> Result<Promoted, OperatorError> {
    Waiter::new(host).wait(|peer, now, id| peer.promote(now, id, group, accept_loss)).await
}

/// Gives a group up; see [`crate::Peer::forget_group`]. Cancel safe.
///
/// # Errors
/// As [`crate::Peer::forget_group`].
pub async fn forget<H: Host>(host: H, group: GroupId, force: bool) -> Result<(), OperatorError> {
    Waiter::new(host).wait(|peer, now, id| peer.forget_group(now, id, group, force)).await
}
