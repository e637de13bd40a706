//! What a peer can run, by name: types of tasks, and types of messages to the world outside.
//!
//! It refuses to know the types: what it is given makes runs of their encoded values.

use super::error::Result;
use super::host::Host;
use super::task_run::{cut, panic_text};
use super::tx::Tx;
use crate::message::TaskAbort;
use driftmesh_model::{Micros, ScheduleId, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

/// One attempt of a task on its way; it ends with the encoded answer.
pub type TaskFuture = Pin<Box<dyn Future<Output = Result<Value>> + Send>>;
/// Begins an attempt of one task.
pub type TaskAttempts<H> = Box<dyn FnMut(Tx<H>) -> TaskFuture + Send>;
/// One delivery on its way; if it fails, it says after how long to try again.
pub type DeliveryFuture = Pin<Box<dyn Future<Output = std::result::Result<(), Micros>> + Send>>;
/// Delivers one message, which has this id whenever and wherever it is delivered.
pub type Delivery<H> = Box<dyn FnOnce(H, ScheduleId) -> DeliveryFuture + Send>;

/// Makes something of an encoded value, or says why it does not decode.
type Decode<T> = dyn Fn(&Value) -> std::result::Result<T, String> + Send + Sync;

enum Kind<H: Host> {
    Task(Box<Decode<TaskAttempts<H>>>),
    Message(Box<Decode<Delivery<H>>>),
}

struct Handler<H: Host> {
    version: u32,
    kind: Kind<H>,
}

/// What can be made of work that is due.
pub(super) enum Runnable<H: Host> {
    Task(TaskAttempts<H>),
    Message(Delivery<H>),
}

/// The types of tasks and messages that a peer can run, by name.
pub struct Handlers<H: Host> {
    by_name: BTreeMap<String, Handler<H>>,
}

impl<H: Host> Default for Handlers<H> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new() }
    }
}

impl<H: Host> fmt::Debug for Handlers<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self.by_name.iter().map(|(name, handler)| (name, handler.version));
        formatter.debug_map().entries(versions).finish()
    }
}

impl<H: Host> Handlers<H> {
    /// Adds a type of tasks. Returns whether the name was free; if not, nothing has changed.
    pub fn add(
        &mut self,
        name: &str,
        version: u32,
        decode: impl Fn(&Value) -> std::result::Result<TaskAttempts<H>, String> + Send + Sync + 'static,
    ) -> bool {
        self.insert(name, Handler { version, kind: Kind::Task(Box::new(decode)) })
    }

    /// Adds a type of messages to the world outside. Returns whether the name was free; if not, nothing has changed.
    pub fn add_message(
        &mut self,
        name: &str,
        version: u32,
        decode: impl Fn(&Value) -> std::result::Result<Delivery<H>, String> + Send + Sync + 'static,
    ) -> bool {
        self.insert(name, Handler { version, kind: Kind::Message(Box::new(decode)) })
    }

    fn insert(&mut self, name: &str, handler: Handler<H>) -> bool {
        let is_free = !self.by_name.contains_key(name);
        if is_free {
            self.by_name.insert(name.to_owned(), handler);
        }
        is_free
    }

    /// Makes attempts of a task of this name and version. A message is no task: nobody can submit one.
    pub(super) fn attempts(
        &self,
        name: &str,
        version: u32,
        body: &Value,
    ) -> std::result::Result<TaskAttempts<H>, TaskAbort> {
        match self.by_name.get(name) {
            Some(Handler { version: there, kind: Kind::Task(decode) }) if *there == version => caught(|| decode(body)),
            Some(Handler { version: there, kind: Kind::Task(_) }) => Err(TaskAbort::OtherVersion { there: *there }),
            Some(Handler { kind: Kind::Message(_), .. }) | None => Err(TaskAbort::Unregistered),
        }
    }

    /// Makes what runs work of this name and version.
    pub(super) fn runnable(
        &self,
        name: &str,
        version: u32,
        body: &Value,
    ) -> std::result::Result<Runnable<H>, TaskAbort> {
        let handler = self.by_name.get(name).ok_or(TaskAbort::Unregistered)?;
        if handler.version != version {
            return Err(TaskAbort::OtherVersion { there: handler.version });
        }
        caught(|| match &handler.kind {
            Kind::Task(decode) => decode(body).map(Runnable::Task),
            Kind::Message(decode) => decode(body).map(Runnable::Message),
        })
    }

    /// The types of messages.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        let messages = self.by_name.iter().filter(|(_, handler)| matches!(handler.kind, Kind::Message(_)));
        messages.map(|(name, _)| name.clone())
    }
}

/// What a decoder makes, or why it does not.
fn caught<T>(decode: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, TaskAbort> {
    let made = catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
    made.map_err(|reason| TaskAbort::Undecodable(cut(reason)))
}
