//! A task's answer before it is stable: in one round trip to where its data is, while its copies are still on their way.
//!
//! It refuses to let its caller build on it: what the same caller begins next waits until the answer is certain (R6).

use crate::caller::{Caller, Seat, Taken};
use crate::doubt::{Hearing, InDoubt};
use crate::submit::{Prepared, Submit, decoded, decoded_answer, submit_anchored};
use crate::{Receipt, Task};
use driftmesh_model::{PeerId, Value};
use driftmesh_peer::session::{TaskDone, TaskError};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::oneshot;

type Ended = Result<TaskDone<Value>, TaskError>;

/// What a task came to at the peer that ran it. See [`Caller::provisional`].
#[derive(Debug)]
#[must_use = "a crash may undo it: await `settled` before anything outside of the mesh rests on it"]
pub struct Provisional<T> {
    /// The answer.
    pub value: T,
    /// Where its commit stands.
    pub receipt: Receipt,
    /// Who ran it.
    pub by: PeerId,
    name: &'static str,
    rest: Rest,
}

/// What is still to come.
#[derive(Debug)]
enum Rest {
    Ended(TaskDone<Value>),
    Open { ended: oneshot::Receiver<Ended>, hearing: Hearing },
}

/// What is told first.
struct Told {
    told: driftmesh_peer::Provisional,
    hearing: Hearing,
}

impl<T: DeserializeOwned> Provisional<T> {
    /// Whether it was certain when it was told.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.rest, Rest::Ended(_))
    }

    /// Waits until it is certain how the task ended. If the peer that ran it has crashed with it, the task has run again
    /// elsewhere, once, and may have come to another answer; if to the same, that is the answer, though its receipt is
    /// another. Not cancel safe: dropped before it is ready, the next call of the caller is told instead.
    ///
    /// # Errors
    /// Why it did not take effect in the end, or `Unknown`, or `NotStable` when its deadline came first.
    pub async fn settled(self) -> Result<TaskDone<T>, TaskError> {
        let stopped = TaskError::Stopped { name: self.name.to_owned() };
        let ended = match self.rest {
            Rest::Ended(done) => Ok(done),
            Rest::Open { ended, hearing } => {
                let ended = ended.await.unwrap_or(Err(stopped));
                hearing.heard();
                ended
            }
        };
        decoded(self.name, ended?)
    }
}

impl Caller {
    /// Submits a task and returns its answer as soon as the peer that ran it has told it, before it is stable: some 1.5 round
    /// trips. A crash of that peer in the next milliseconds may undo it; [`Provisional::settled`] tells how the task ended.
    ///
    /// For what a player sees, not for what the world rests on: until the answer is certain, whatever this caller calls then
    /// waits, for as long as it may take itself. If the answer did not stay, its calls are refused with `ToldOtherwise` until
    /// `settled` has told it; the next one if this was dropped. Neither other callers nor what was under way already wait or
    /// are refused, so keep what one was told from them, and from everything outside of the mesh.
    ///
    /// The task goes on when this is dropped, and keeps the peer running until it has ended. Its place among those that the
    /// caller may have under way is free as soon as it has told its answer.
    ///
    /// # Errors
    /// As awaiting the task; `CallerBusy` and `ToldOtherwise` of this caller.
    pub async fn provisional<T: Task>(&self, task: Submit<T>) -> Result<Provisional<T::Output>, TaskError> {
        // A task that another caller was about to submit may rest on what that one was told.
        task.certain_elsewhere(&self.seat).await?;
        let submit = task.of_caller(Arc::clone(&self.seat)).stable();
        let Prepared { host, request, how, taken } = submit.prepared().await?;
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let seat = Arc::clone(&self.seat);
        let shared = Arc::clone(&host.shared);
        shared.spawn(async move {
            let mut first = First { tell: Some(tell), in_doubt: None, seat, taken, name: T::NAME };
            let done = submit_anchored(&host, request, how, Some(&mut |told| first.tell(told))).await;
            first.end(&done);
            // Its place is free before its caller can know that it has ended.
            drop(first);
            // Nobody may wait for it any more.
            let _ = end.send(done);
        });
        let name = T::NAME;
        if let Ok(Told { told, hearing }) = told.await {
            let driftmesh_peer::Provisional { by, answer, receipt } = told;
            let value = decoded_answer(name, &answer)?;
            return Ok(Provisional { value, receipt, by, name, rest: Rest::Open { ended, hearing } });
        }
        // It was certain at once, or did not take effect.
        let done = ended.await.unwrap_or_else(|_| Err(TaskError::Stopped { name: name.to_owned() }))?;
        let value = decoded_answer(name, &done.value)?;
        Ok(Provisional { value, receipt: done.receipt, by: done.by, name, rest: Rest::Ended(done) })
    }
}

/// The first answer on its way to the caller, and what becomes of it.
struct First {
    tell: Option<oneshot::Sender<Told>>,
    in_doubt: Option<(Value, InDoubt)>,
    seat: Arc<Seat>,
    /// Given back as soon as the caller is told: what it calls then waits anyway.
    taken: Option<Taken>,
    name: &'static str,
}

impl First {
    fn tell(&mut self, told: driftmesh_peer::Provisional) {
        // Whoever has given up is never told, so nothing can rest on it, and it takes its place until it has ended.
        let Some(tell) = self.tell.take().filter(|tell| !tell.is_closed()) else { return };
        // R6: before the caller can know, so that nothing it does then comes before this.
        let (in_doubt, hearing) = self.seat.doubts().begin(self.name);
        self.in_doubt = Some((told.answer.clone(), in_doubt));
        self.taken = None;
        // If it gives up right now, its next call waits for nothing that it knows of.
        let _ = tell.send(Told { told, hearing });
    }

    /// The task has ended. What it came to may be what was told, also if it had to run again.
    fn end(&mut self, done: &Ended) {
        let Some((answer, in_doubt)) = self.in_doubt.take() else { return };
        if done.as_ref().is_ok_and(|done| done.value == answer) {
            in_doubt.stayed();
        }
    }
}
