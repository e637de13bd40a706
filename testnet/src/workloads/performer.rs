//! Submits acts inside a peer process, and tells how each ended.
//!
//! The clients and what they know live in the orchestrator. It refuses to keep an answer back: receipts must be outside
//! before this process is killed.

use super::records::{self, ActAnswer, ActOrder, Said};
use super::tasks::{Act, Deed, MUST_NOT};
use crate::answers::Answers;
use driftmesh::{Mesh, Task, TaskDone, TaskError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How long an act may take before it is asked for again, perhaps elsewhere.
const DEADLINE: Duration = Duration::from_secs(2);

/// Submits acts. Dropping it lets those under way end.
#[derive(Clone, Debug)]
pub(crate) struct Performer {
    mesh: Mesh,
    answers: Arc<Answers>,
    runtime: Handle,
}

impl Performer {
    /// Submits at this mesh, on the current runtime.
    pub(crate) fn new(mesh: Mesh, answers: Arc<Answers>) -> Self {
        Self { mesh, answers, runtime: Handle::current() }
    }

    /// Begins acts. May be called from any thread.
    pub(crate) fn begin(&self, orders: Vec<ActOrder>) {
        for order in orders {
            let performer = self.clone();
            self.runtime.spawn(async move { performer.run(order).await });
        }
    }

    async fn run(&self, order: ActOrder) {
        let begun = Instant::now();
        let done = match order.act {
            Act::Walk(task) => self.submit(task, &order).await,
            Act::Meet(task) => self.submit(task, &order).await,
            Act::Rest(task) => self.submit(task, &order).await,
            Act::Deal(task) => self.submit(task, &order).await,
            Act::Strike(task) => self.submit(task, &order).await,
            Act::Shop(task) => self.submit(task, &order).await,
        };
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let answer = ActAnswer { id: order.id, client: order.client, nanos, said: said(done) };
        match records::encode(&vec![answer]) {
            Ok(body) => self.answers.tell_acts(&body),
            // An answer is plain data, which always encodes.
            Err(_) => std::process::exit(crate::answers::ORPHANED),
        }
    }

    async fn submit<T: Task<Output = Deed>>(&self, task: T, order: &ActOrder) -> Result<TaskDone<Deed>, TaskError> {
        let submit = self.mesh.submit(task).with_id(order.task).deadline(DEADLINE);
        if order.again { submit.stable().with_receipt().await } else { submit.with_receipt().await }
    }
}

fn said(done: Result<TaskDone<Deed>, TaskError>) -> Said {
    match done {
        Ok(TaskDone { value: deed, receipt, stable, earlier, .. }) => Said::Done { receipt, stable, earlier, deed },
        Err(TaskError::Rejected { reason, .. }) if !reason.starts_with(MUST_NOT) => Said::Rejected { reason },
        // Nothing of this copy took effect, or nobody knows: the same id tells, here or elsewhere.
        Err(
            TaskError::Unknown { .. }
            | TaskError::NotStable { .. }
            | TaskError::Lost { .. }
            | TaskError::Deadline { .. }
            | TaskError::Busy { .. }
            | TaskError::Leaving
            | TaskError::NoRoom { .. }
            | TaskError::Unreachable(_),
        ) => Said::Unknown,
        Err(error) => Said::Failed { error: error.to_string() },
    }
}
