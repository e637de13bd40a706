//! Where an object is and how that was found, by a real search like that of a transaction.

use super::error::{Error, Result};
use super::host::Host;
use crate::Peer;
use crate::explaining::Found;
use crate::steps::{Begin, StepError};
use driftmesh_model::{Micros, ObjectId, TxnId};
use driftmesh_txn::TaskKind;
use std::future::poll_fn;

/// Ends the transaction when the search is over or dropped.
struct Open<H: Host> {
    host: H,
    id: TxnId,
}

impl<H: Host> Drop for Open<H> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|peer, now| peer.end(now, id));
    }
}

/// Finds an object and says how. Moves nothing and locks nothing. Cancel safe.
///
/// # Errors
/// `Busy`, `Leaving`, or `Deadline` when nothing conclusive was heard within `limit`, at most 60 s.
pub async fn explain<H: Host>(host: H, object: ObjectId, limit: Micros) -> Result<Found> {
    let kind = TaskKind::new("explain");
    let begin = Begin { kind: kind.clone(), deadline: limit, age: None, read_only: true, recent: None, task: None };
    let begun = host.step(|peer, now| {
        let id = peer.begin(now, begin)?;
        peer.explain(now, id);
        Ok(id)
    });
    let id = begun.map_err(Error::of_begin)?;
    let open = Open { host, id };
    // What the snapshot sees of the object does not matter: it was found, also where the read failed.
    let step = |peer: &mut Peer, now| peer.read(now, id, object);
    let read = poll_fn(|context| open.host.poll_step(id, context, step)).await;
    let found = open.host.step(|peer, _| peer.found(id, object));
    found.ok_or_else(|| match read {
        Err(StepError::Busy) => Error::Busy(StepError::Busy),
        Ok(_) | Err(_) => Error::Deadline { kind, deadline: limit, attempts: 1, last: None },
    })
}
