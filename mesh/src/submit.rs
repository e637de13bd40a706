//! A task that is about to be submitted: where, for how long, under which id, and how certain its end is to be.
//!
//! It refuses to say what became of a task that nobody has told: that is `Unknown`, with the id to ask by.

use crate::caller::{Seat, Taken};
use crate::host::LiveHost;
use crate::retry_budget::pause;
use crate::{Error, Receipt, Result, Task};
use driftmesh_model::{Micros, Object, ObjectId, PeerId, TaskId, Value, codec};
use driftmesh_peer::session::{self, Fate, Options, Submission, TaskDone, TaskError, Tell};
use driftmesh_peer::{TaskRequest, TaskTo};
use futures::future::{Either, select};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a task may take unless [`Submit::deadline`] says otherwise.
const DEADLINE: Micros = Micros::from_millis(5_000);
/// The kind of the transaction that makes the object which stands in for an anchor.
const SESSION_KIND: &str = "session";

/// The anchor of tasks that name none: one object of each peer that needs it.
#[derive(Serialize, Deserialize)]
struct Session;

impl Object for Session {
    const TYPE_NAME: &'static str = "driftmesh.session";
}

/// The anchor of this peer's tasks that name none. It goes where they run, so it may be lost with another peer's group:
/// then there is another.
#[derive(Debug, Default)]
pub(crate) struct StandIn {
    made: Mutex<Option<Made>>,
    /// Held by who makes it: one is enough.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    object: ObjectId,
    /// What is still to become stable before tasks may have it.
    open: Option<Receipt>,
}

impl StandIn {
    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> Option<ObjectId> {
        (*self.lock()).filter(|made| made.open.is_none()).map(|made| made.object)
    }

    /// The object is lost. Says whether it was this one.
    fn is_lost(&self, object: ObjectId) -> bool {
        self.lock().take_if(|made| made.object == object).is_some()
    }
}

/// A task to be submitted; await it. See [`crate::Mesh::submit`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is awaited"]
pub struct Submit<T> {
    host: LiveHost,
    task: T,
    id: Option<TaskId>,
    deadline: Micros,
    how: Submission,
    /// How often it may be tried again.
    retries: u32,
    /// What is kept of its caller, if it is one of several.
    seat: Option<Arc<Seat>>,
}

impl<T: Task> Submit<T> {
    pub(crate) const fn new(host: LiveHost, task: T) -> Self {
        let how = Submission { to: TaskTo::Anywhere, again: false, stable: false, free_anchor: false, kept_id: false };
        Self { host, task, id: None, deadline: DEADLINE, how, retries: 0, seat: None }
    }

    /// It takes one of its caller's places as long as it is under way.
    pub(crate) fn of_caller(mut self, seat: Arc<Seat>) -> Self {
        self.seat = Some(seat);
        self
    }

    /// Runs it at this peer or not at all.
    pub fn to(mut self, peer: PeerId) -> Self {
        self.how.to = TaskTo::Peer(peer);
        self
    }

    /// How long it may take, retries and repeated requests included: 5 s unless set, at most 60 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Micros::from_duration(deadline);
        self
    }

    /// Submits it under this id of [`crate::Mesh::task_id`], for the first time or again. If it has run before, wherever it
    /// was submitted, its first outcome is told. The task must be the same each time.
    pub fn with_id(mut self, id: TaskId) -> Self {
        self.id = Some(id);
        // Whether there are other copies this peer cannot know.
        self.how.again = true;
        self
    }

    /// Ends only when the commit is stable: held by enough peers to survive the crash of the one that ran it. What another
    /// peer ran is stable in any case when its end is told.
    pub fn stable(mut self) -> Self {
        self.how.stable = true;
        self
    }

    /// Tries it again, so often at most and within the deadline, if it is refused because somebody has too much to do (`Busy`): after
    /// the time that the refusal names, longer each time, and by chance. Of all tasks that are submitted so at this peer one in
    /// five may be tried again, and 100 at first: beyond that `Busy` is told at once, as it is unless this is set, and to
    /// whoever wants a provisional answer.
    pub fn retries(mut self, most: u32) -> Self {
        self.retries = most;
        self
    }

    /// Submits it, and returns the receipt too.
    ///
    /// # Errors
    /// Why the task did not take effect, or `Unknown`: then submit it again with the id that the error names.
    pub async fn with_receipt(self) -> Result<TaskDone<T::Output>, TaskError> {
        let retries = self.retries;
        let Prepared { host, request, how, taken: _taken } = self.prepared().await?;
        decoded(T::NAME, submit_patiently(&host, request, how, retries).await?)
    }

    /// Waits until it is certain what the caller was told that the task is of, if that is another one than this.
    pub(crate) async fn certain_elsewhere(&self, here: &Arc<Seat>) -> Result<(), TaskError> {
        match self.seat.as_ref().filter(|seat| !Arc::ptr_eq(seat, here)) {
            Some(seat) => certain_within(&self.host, seat, self.deadline).await.map(drop),
            None => Ok(()),
        }
    }

    /// Makes the request, when its caller has room for it and is in no doubt.
    pub(crate) async fn prepared(self) -> Result<Prepared, TaskError> {
        let Self { host, task, id, mut deadline, mut how, retries: _, seat } = self;
        let taken = match &seat {
            Some(seat) => Some(seat.take().ok_or(TaskError::CallerBusy { most: seat.most() })?),
            None => None,
        };
        let whole = deadline;
        if let Some(seat) = &seat {
            deadline = certain_within(&host, seat, deadline).await?;
        }
        // An id that the caller has is as it is.
        how.kept_id = id.is_some();
        how.free_anchor = id.is_none() && task.anchor().is_none();
        let name = T::NAME.to_owned();
        let body = codec::encode(&task)
            .map_err(|error| TaskError::Unencodable { name: name.clone(), reason: error.to_string() })?;
        let id = match id {
            Some(id) => id,
            None => match task.anchor() {
                Some(anchor) => session::new_task_id(&host, anchor),
                None => {
                    let (id, left) =
                        stand_in_id(&host, deadline).await.map_err(|error| without_anchor(&name, whole, &error))?;
                    deadline = left;
                    id
                }
            },
        };
        let touches = task.touches();
        let body = Value::from_slice(&body);
        let (version, key) = (T::VERSION, task.key());
        let request = TaskRequest { touches, key, ..TaskRequest::new(id, name, version, body, deadline) };
        Ok(Prepared { host, request, how, taken })
    }
}

/// Submits a task, and again if it is refused because somebody has too much to do. A refusal is certain (R21): no copy of the
/// request runs then.
async fn submit_patiently(
    host: &LiveHost,
    request: TaskRequest,
    how: Submission,
    retries: u32,
) -> Result<TaskDone<Value>, TaskError> {
    if retries == 0 {
        return submit_anchored(host, request, how, None).await;
    }
    let shared = &host.shared;
    shared.retries.submitted();
    let (begun, deadline) = (shared.step(|_, now| now.mono), request.deadline);
    let mut retry = 0;
    loop {
        let left = deadline.since(shared.step(|_, now| now.mono).since(begun));
        let again = TaskRequest { deadline: left.max(Micros(1)), ..request.clone() };
        let ended = submit_anchored(host, again, how, None).await;
        let Err(TaskError::Busy { retry_after }) = ended else { return ended };
        let (chance, now) = shared.step(|peer, now| (peer.new_object_id().as_u128(), now.mono));
        #[expect(clippy::cast_possible_truncation, reason = "half of a random number is random")]
        let pause = pause(retry_after, retry, chance as u64);
        if retry == retries || now.since(begun).plus(pause) >= deadline || !shared.retries.take() {
            return ended;
        }
        retry += 1;
        shared.sleep(Duration::from_micros(pause.0)).await;
    }
}

/// Waits until it is certain what a caller was told, so long at most; gives what is left of that.
async fn certain_within(host: &LiveHost, seat: &Seat, deadline: Micros) -> Result<Micros, TaskError> {
    let begun = host.shared.step(|_, now| now.mono);
    let settled = seat.doubts().settled_before(host.shared.sleep(Duration::from_micros(deadline.0))).await;
    settled.map_err(|name| TaskError::ToldOtherwise { name: name.to_owned() })?;
    Ok(deadline.since(host.shared.step(|_, now| now.mono).since(begun)))
}

/// A task that is ready to be submitted.
pub(crate) struct Prepared {
    pub(crate) host: LiveHost,
    pub(crate) request: TaskRequest,
    pub(crate) how: Submission,
    /// What it takes of its caller's room.
    pub(crate) taken: Option<Taken>,
}

/// An answer as the task's type has it.
pub(crate) fn decoded_answer<T: DeserializeOwned>(name: &str, answer: &Value) -> Result<T, TaskError> {
    codec::decode(answer.bytes()).map_err(|error| {
        let reason = error.to_string();
        TaskError::AnswerUndecodable { name: name.to_owned(), reason }
    })
}

/// The same with all that is told of the task.
pub(crate) fn decoded<T: DeserializeOwned>(name: &str, done: TaskDone<Value>) -> Result<TaskDone<T>, TaskError> {
    let TaskDone { value, task, receipt, stable, earlier, by } = done;
    Ok(TaskDone { value: decoded_answer(name, &value)?, task, receipt, stable, earlier, by })
}

impl<T: Task> IntoFuture for Submit<T> {
    type Output = Result<T::Output, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.with_receipt().await.map(|done| done.value) })
    }
}

/// The object that stands in for an anchor could not be created.
fn without_anchor(name: &str, deadline: Micros, error: &Error) -> TaskError {
    if matches!(error, Error::Deadline { .. }) {
        return TaskError::Deadline { name: name.to_owned(), deadline };
    }
    TaskError::Failed { name: name.to_owned(), reason: error.to_string() }
}

/// Submits a task, and once more, with another anchor, if the object that stood in for its own is lost. `tell` takes an
/// answer before it is stable.
pub(crate) async fn submit_anchored(
    host: &LiveHost,
    request: TaskRequest,
    how: Submission,
    mut tell: Option<Tell<'_>>,
) -> Result<TaskDone<Value>, TaskError> {
    let (anchor, deadline) = (request.id.anchor, request.deadline);
    let again = how.free_anchor.then(|| (request.clone(), host.shared.step(|_, now| now.mono)));
    let ended = match &mut tell {
        Some(tell) => submit_once(host, request, how, Some(&mut **tell)).await,
        None => submit_once(host, request, how, None).await,
    };
    if let Err(TaskError::Unknown { task, .. }) = &ended
        && how.kept_id
        && task.anchor == anchor
    {
        // Of an id that was kept nobody can say more, also when its anchor is lost. Another object costs little.
        host.shared.stand_in.is_lost(anchor);
    }
    let Err(TaskError::NoAnchor { name, task }) = ended else { return ended };
    // R21: an id that the caller has stays as it is, but nothing new begins with a lost object.
    let was_stand_in = task.anchor == anchor && host.shared.stand_in.is_lost(anchor);
    let Some((again, begun)) = again.filter(|_| was_stand_in) else { return Err(TaskError::NoAnchor { name, task }) };
    tracing::info!(object = %anchor, "the object that stood in for the anchor of tasks is lost; another one does");
    let left = deadline.since(host.shared.step(|_, now| now.mono).since(begun));
    let (id, left) = stand_in_id(host, left).await.map_err(|error| without_anchor(&name, deadline, &error))?;
    submit_once(host, TaskRequest { id, deadline: left, ..again }, how, tell).await
}

async fn submit_once(
    host: &LiveHost,
    request: TaskRequest,
    how: Submission,
    tell: Option<Tell<'_>>,
) -> Result<TaskDone<Value>, TaskError> {
    let handlers = &host.shared.handlers;
    match tell {
        Some(tell) => session::submit_provisional(host.clone(), handlers, request, how, tell).await,
        None => session::submit(host.clone(), handlers, request, how).await,
    }
}

/// A new id for a task.
pub(crate) async fn task_id<T: Task>(host: &LiveHost, task: &T) -> Result<TaskId> {
    match task.anchor() {
        Some(anchor) => Ok(session::new_task_id(host, anchor)),
        None => Ok(stand_in_id(host, DEADLINE).await?.0),
    }
}

/// A new id for a task without an anchor, within so long; and what is left of that.
async fn stand_in_id(host: &LiveHost, deadline: Micros) -> Result<(TaskId, Micros)> {
    if let Some(object) = host.shared.stand_in.ready() {
        return Ok((session::new_task_id(host, object), deadline));
    }
    let begun = host.shared.step(|_, now| now.mono);
    let late = host.shared.sleep(Duration::from_micros(deadline.0));
    let object = match select(pin!(make_stand_in(host, deadline)), pin!(late)).await {
        Either::Left((made, _)) => made?,
        Either::Right(((), _)) => {
            return Err(Error::Deadline { kind: Options::new(SESSION_KIND).kind, deadline, attempts: 1, last: None });
        }
    };
    let left = deadline.since(host.shared.step(|_, now| now.mono).since(begun));
    Ok((session::new_task_id(host, object), left))
}

/// Cancel safe: what is made and not stable yet is waited for by the next one.
async fn make_stand_in(host: &LiveHost, deadline: Micros) -> Result<ObjectId> {
    let stand_in = &host.shared.stand_in;
    let _making = stand_in.making.lock().await;
    loop {
        let made = *stand_in.lock();
        match made {
            Some(Made { object, open: None }) => return Ok(object),
            // It outlives what this peer leads now, so it must not be taken back.
            Some(Made { object, open: Some(receipt) }) => {
                let fate = session::settled(host.clone(), receipt).await;
                let is_stable = matches!(fate, Fate::Stable { .. });
                *stand_in.lock() = is_stable.then_some(Made { object, open: None });
            }
            None => {
                let options = Options { deadline, ..Options::new(SESSION_KIND) };
                let created = session::transact(host.clone(), options, |tx| async move { tx.create(&Session) }).await?;
                let open = Some(created.committed.receipt).filter(|_| !created.committed.stable);
                *stand_in.lock() = Some(Made { object: created.value.id(), open });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mesh, Tx};

    #[derive(Serialize, Deserialize)]
    struct Nothing;

    impl Task for Nothing {
        type Output = ();
        const NAME: &'static str = "nothing";

        async fn run(&self, _: &Tx) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_the_object_that_stands_in_keeps_to_the_deadline() {
        let mesh = Mesh::builder().register::<Nothing>().start().await.unwrap();
        let making = mesh.host.shared.stand_in.making.lock().await;
        let deadline = Duration::from_millis(50);
        let ended =
            tokio::time::timeout(Duration::from_secs(60), mesh.submit(Nothing).deadline(deadline).into_future()).await;
        assert!(matches!(ended, Ok(Err(TaskError::Deadline { deadline: Micros(50_000), .. }))), "{ended:?}");
        drop(making);
        mesh.submit(Nothing).await.unwrap();
    }
}
