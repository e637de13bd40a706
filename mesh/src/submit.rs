//! A task that is about to be submitted: where, for how long, under which id, and how certain its end is to be.
//!
//! It refuses to say what became of a task that nobody has told: that is `Unknown`, with the id to ask by.

use crate::caller::{Seat, Taken};
use crate::host::LiveHost;
use crate::{Error, Result, Task};
use driftmesh_model::{Micros, Object, ObjectId, PeerId, TaskId, Value, codec};
use driftmesh_peer::session::{self, Options, Submission, TaskDone, TaskError};
use driftmesh_peer::{TaskRequest, TaskTo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a task may take unless [`Submit::deadline`] says otherwise.
const DEADLINE: Micros = Micros::from_millis(5_000);

/// The anchor of tasks that name none: one object of each peer that needs it.
#[derive(Serialize, Deserialize)]
struct Session;

impl Object for Session {
    const TYPE_NAME: &'static str = "driftmesh.session";
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
    /// What is kept of its caller, if it is one of several.
    seat: Option<Arc<Seat>>,
}

impl<T: Task> Submit<T> {
    pub(crate) const fn new(host: LiveHost, task: T) -> Self {
        let how = Submission { to: TaskTo::Anywhere, again: false, stable: false, free_anchor: false, kept_id: false };
        Self { host, task, id: None, deadline: DEADLINE, how, seat: None }
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
        self.deadline = Micros(u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX));
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

    /// Submits it, and returns the receipt too.
    ///
    /// # Errors
    /// Why the task did not take effect, or `Unknown`: then submit it again with the id that the error names.
    pub async fn with_receipt(self) -> Result<TaskDone<T::Output>, TaskError> {
        let Prepared { host, request, how, taken: _taken } = self.prepared().await?;
        let handlers = Arc::clone(&host.shared.handlers);
        decoded(T::NAME, session::submit(host, &handlers, request, how).await?)
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
        let Self { host, task, id, mut deadline, mut how, seat } = self;
        let taken = match &seat {
            Some(seat) => Some(seat.take().ok_or(TaskError::CallerBusy { most: seat.most() })?),
            None => None,
        };
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
            None => task_id(&host, &task).await.map_err(|error| without_anchor(&name, deadline, &error))?,
        };
        let touches = task.touches();
        let body = Value::from_slice(&body);
        let (version, key) = (T::VERSION, task.key());
        let request = TaskRequest { touches, key, ..TaskRequest::new(id, name, version, body, deadline) };
        Ok(Prepared { host, request, how, taken })
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

/// A new id for a task.
pub(crate) async fn task_id<T: Task>(host: &LiveHost, task: &T) -> Result<TaskId> {
    let anchor = match task.anchor() {
        Some(anchor) => anchor,
        None => *host.shared.session.get_or_try_init(|| create_session(host.clone())).await?,
    };
    Ok(session::new_task_id(host, anchor))
}

async fn create_session(host: LiveHost) -> Result<ObjectId> {
    // It outlives what this peer leads now, so it must not be taken back.
    let options = Options { stable: true, ..Options::new("session") };
    let created = session::transact(host, options, |tx| async move { tx.create(&Session) });
    Ok(created.await?.value.id())
}
