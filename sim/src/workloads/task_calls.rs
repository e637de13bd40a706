//! What workloads of tasks share: types of tasks, how they are submitted and asked for again, and what must hold of each.
//!
//! Callers keep the ids of their requests outside of the peers. What a caller has no certain answer to, because its peer
//! crashed, the answer was lost or it lost patience, it or another one asks for again. Each task leaves its number in the
//! objects that it changes, and its answer is another each time that it runs: so what took effect twice, or was told in two
//! ways, shows. It refuses to look at how tasks travel.

use super::end::{End, Notes};
use crate::client::{Client, SimTx};
use crate::history::TxnLog;
use crate::host::SimHost;
use driftmesh_model::{Micros, ObjectId, TaskId, Value, codec};
use driftmesh_object_store::Fate;
use driftmesh_peer::session::{
    Error, Handlers, Host as _, Result, Submission, TaskDone, TaskError, TaskFuture, new_task_id, run_here, submit,
    submit_provisional,
};
use driftmesh_peer::{Provisional, TaskRequest, TaskTo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// A task of a workload. It answers with a number that is another in each attempt.
pub(super) trait SimTask: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Tells it from others.
    const NAME: &'static str;

    /// Its number: no two requests share one.
    fn number(&self) -> u64;

    /// What it touches, the anchor first.
    fn touches(&self) -> Vec<ObjectId>;

    /// Does the work.
    fn run(&self, tx: &SimTx) -> impl Future<Output = Result<u64>> + Send;
}

/// What requests about the same first object have in common.
fn request_key(touches: &[ObjectId]) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "half of a random number is random")]
    touches.first().map_or(0, |object| object.as_u128() as u64)
}

/// Adds a type to those that a peer can run.
pub(super) fn add<T: SimTask>(handlers: &mut Handlers<SimHost>) {
    let is_new = handlers.add(T::NAME, 1, |body: &Value| {
        let task: Arc<T> = Arc::new(codec::decode(body.bytes()).map_err(|error| error.to_string())?);
        Ok(Box::new(move |tx: SimTx| {
            let task = Arc::clone(&task);
            let attempt: TaskFuture = Box::pin(async move {
                let answer = task.run(&tx).await?;
                Ok(Value::from_slice(&codec::encode(&answer).map_err(Error::rejected)?))
            });
            attempt
        }))
    });
    debug_assert!(is_new, "{} is there once", T::NAME);
}

/// Lets a peer run the tasks of others.
pub(crate) fn runs_tasks(host: &SimHost) {
    let handlers = Arc::new(super::handlers());
    host.step(|peer, _| peer.deliver_messages(handlers.messages()));
    host.run_tasks_by(move |host, run| Some(Box::pin(run_here(host, Arc::clone(&handlers), run))));
}

/// What a caller was told of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// It took effect, with this answer.
    Done { number: u64, answer: u64 },
    /// It did not and never will.
    Rejected { number: u64 },
}

/// A request that was or will be made.
#[derive(Clone, Debug)]
pub(super) struct Request<T> {
    id: TaskId,
    task: T,
}

struct Book<T> {
    last: u64,
    /// Those without a certain answer that nobody asks about just now.
    open: Vec<Request<T>>,
    rejected: BTreeSet<u64>,
}

/// All requests of a workload, and what was told of them. Clones share it.
pub(super) struct Requests<T> {
    book: Arc<Mutex<Book<T>>>,
    pub(super) told: Notes<Told>,
}

impl<T> Clone for Requests<T> {
    fn clone(&self) -> Self {
        Self { book: Arc::clone(&self.book), told: self.told.clone() }
    }
}

impl<T> Default for Requests<T> {
    fn default() -> Self {
        let book = Book { last: 0, open: Vec::new(), rejected: BTreeSet::new() };
        Self { book: Arc::new(Mutex::new(book)), told: Notes::default() }
    }
}

/// A request that somebody asks about. Whatever ends that, it can be asked about again.
struct Asking<T> {
    request: Option<Request<T>>,
    book: Arc<Mutex<Book<T>>>,
}

impl<T> Drop for Asking<T> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.book.lock().unwrap_or_else(PoisonError::into_inner).open.push(request);
        }
    }
}

/// How often each number was found.
pub(super) fn counts<'a>(numbers: impl IntoIterator<Item = &'a u64>) -> BTreeMap<u64, usize> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    numbers.into_iter().for_each(|number| *counts.entry(*number).or_default() += 1);
    counts
}

impl<T> Requests<T> {
    fn book(&self) -> MutexGuard<'_, Book<T>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a new request.
    pub(super) fn number(&self) -> u64 {
        let mut book = self.book();
        book.last += 1;
        book.last
    }

    /// R21: each request took effect once at most, once if that was told and is stable, and was told in one way only. `found`
    /// says how often each number was found in what it changes.
    pub(super) fn judge(&self, what: &str, found: &BTreeMap<u64, usize>, end: &mut End<'_>) {
        for (number, times) in found.iter().filter(|(_, times)| **times > 1) {
            end.wrong.push(format!("{what} {number} took effect {times} times"));
        }
        let mut answers: BTreeMap<u64, u64> = BTreeMap::new();
        for (fate, told) in self.told.with_fates(end.fates) {
            match told {
                Told::Done { number, answer } if fate == Fate::Stable => {
                    if !found.contains_key(&number) {
                        end.wrong.push(format!("{what} {number} is told to be done, which is stable, and is not"));
                    }
                    let first = *answers.entry(number).or_insert(answer);
                    if first != answer {
                        end.wrong.push(format!("{what} {number} was told {first} and {answer}, both stable"));
                    }
                }
                Told::Done { .. } => {}
                Told::Rejected { number } => {
                    if found.contains_key(&number) {
                        end.wrong.push(format!("{what} {number} was told to be rejected, and took effect"));
                    }
                }
            }
        }
    }
}

use crate::client::Came;

impl Client {
    /// Makes a new request, or asks about one that has no certain answer.
    pub(super) async fn use_requests<T: SimTask>(
        &mut self,
        requests: &Requests<T>,
        new: impl FnOnce(&mut Self, &Requests<T>) -> T,
    ) -> Came {
        if !self.sane {
            return Came::Nothing;
        }
        let asks_again = self.rng.u8(..5) < 2;
        let former = if asks_again { self.some_open_request(requests) } else { None };
        let again = former.is_some();
        let request = former.unwrap_or_else(|| {
            let task = new(self, requests);
            let anchor = task.touches().first().copied().unwrap_or(ObjectId::from_u128(0));
            Request { id: new_task_id(&self.host, anchor), task }
        });
        self.ask(requests, request, again).await
    }

    fn some_open_request<T: Clone>(&mut self, requests: &Requests<T>) -> Option<Request<T>> {
        let mut book = requests.book();
        if book.open.is_empty() {
            return None;
        }
        let index = self.rng.usize(..book.open.len());
        Some(book.open.swap_remove(index))
    }

    async fn ask<T: SimTask>(&mut self, requests: &Requests<T>, request: Request<T>, again: bool) -> Came {
        let Request { id, task } = request.clone();
        let mut asking = Asking { request: Some(request), book: Arc::clone(&requests.book) };
        let Ok(body) = codec::encode(&task) else { return Came::Nothing };
        let says = self.rng.bool();
        let touches = if says { task.touches() } else { Vec::new() };
        // What tasks of one anchor touch is learned together.
        let key = request_key(&task.touches());
        let deadline = Micros(self.rng.u64(20_000..4_000_000));
        let body = Value::from_slice(&body);
        let request = TaskRequest { touches, key, ..TaskRequest::new(id, T::NAME.to_owned(), 1, body, deadline) };
        let to = if self.rng.u8(..3) == 0 { self.some_peer() } else { TaskTo::Anywhere };
        let how = Submission { to, again, stable: self.rng.u8(..4) == 0, free_anchor: false, kept_id: true };
        let patience = if self.rng.u8(..4) == 0 { self.rng.u64(100..200_000) } else { u64::MAX >> 1 };
        let log = self.world.recorder.transaction(self.session, T::NAME);
        let handlers = Arc::new(super::handlers());
        let clock = Arc::clone(&self.world.clock);
        // A third hears the answer also before it is stable: if its commit stays, that is how the task ended.
        let hears_early = deadline.0.is_multiple_of(3);
        let mut tell = self.notes_early(requests, &task);
        let mut done = pin!(async {
            if hears_early {
                submit_provisional(self.host.clone(), &handlers, request, how, &mut tell).await
            } else {
                submit(self.host.clone(), &handlers, request, how).await
            }
        });
        let mut given_up = pin!(async move {
            if patience < u64::MAX >> 1 {
                clock.sleep(patience).await;
            } else {
                std::future::pending::<()>().await;
            }
        });
        let done = poll_fn(|context| match done.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => given_up.as_mut().poll(context).map(|()| None),
        });
        let done = done.await;
        self.note_end(requests, &task, done, &log, &mut asking)
    }

    fn notes_early<T: SimTask>(&self, requests: &Requests<T>, task: &T) -> impl FnMut(Provisional) + Send + use<T> {
        let (world, session) = (self.world.clone(), self.session);
        let (number, told) = (task.number(), requests.told.clone());
        move |Provisional { answer, receipt, .. }| match codec::decode(answer.bytes()) {
            Ok(answer) => {
                let log = world.recorder.transaction(session, T::NAME);
                told.note(log.committed(vec![receipt], false), Told::Done { number, answer });
            }
            Err(_) => world.recorder.violation(format!("an early answer of `{}` does not decode", T::NAME)),
        }
    }

    fn note_end<T: SimTask>(
        &self,
        requests: &Requests<T>,
        task: &T,
        done: Option<Result<TaskDone<Value>, TaskError>>,
        log: &TxnLog,
        asking: &mut Asking<T>,
    ) -> Came {
        match done {
            Some(Ok(TaskDone { value, receipt, stable, .. })) => {
                let Ok(answer) = codec::decode(value.bytes()) else {
                    self.world.recorder.violation(format!("the answer of `{}` does not decode", T::NAME));
                    return Came::Nothing;
                };
                let number = log.committed(vec![receipt], stable);
                requests.told.note(number, Told::Done { number: task.number(), answer });
                if stable {
                    asking.request = None;
                }
                Came::Committed
            }
            Some(Err(TaskError::Rejected { .. })) => {
                log.aborted();
                if requests.book().rejected.insert(task.number()) {
                    let number = log.committed(Vec::new(), true);
                    requests.told.note(number, Told::Rejected { number: task.number() });
                }
                asking.request = None;
                Came::Rejected
            }
            Some(Err(error)) => {
                log.aborted();
                self.explain_task_error(T::NAME, &error);
                Came::Nothing
            }
            None => {
                log.aborted();
                Came::Nothing
            }
        }
    }

    /// Another peer that this one is connected to, or nobody in particular.
    fn some_peer(&mut self) -> TaskTo {
        let members = self.host.members();
        self.rng.choice(members).map_or(TaskTo::Anywhere, TaskTo::Peer)
    }

    fn explain_task_error(&self, name: &str, error: &TaskError) {
        let is_expected = matches!(
            error,
            TaskError::Unknown { .. }
                | TaskError::Deadline { .. }
                | TaskError::Busy { .. }
                | TaskError::Unreachable(_)
                | TaskError::Leaving
                | TaskError::NoRoom { .. }
                | TaskError::ClockOff { .. }
                | TaskError::ClockAhead { .. }
                | TaskError::Lost { .. }
                | TaskError::NotStable { .. }
                | TaskError::Forgotten { .. }
        );
        if !is_expected {
            self.world.recorder.violation(format!("`{name}` ended with an error that nothing explains: {error}"));
        }
    }
}
