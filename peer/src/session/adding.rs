//! Changes that commute: they are made at the commit, to the newest value, so that what others have committed meanwhile is no
//! conflict.
//!
//! It refuses to show what comes of them before the commit: that may be of a later time than the attempt's snapshot.

use super::error::{Error, Result};
use super::host::Host;
use super::tx::Tx;
use driftmesh_model::{Object, ObjectId, Ref, Value, decode_object, encode_object};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

type Change = Box<dyn FnOnce(&Value) -> Result<Value> + Send>;

/// The changes of one attempt, in the order in which they were asked for.
#[derive(Default)]
pub(super) struct Changes {
    /// Whether there are any: most attempts have none, and look no further.
    any: AtomicBool,
    all: Mutex<Vec<(ObjectId, Change)>>,
}

impl Changes {
    fn push(&self, object: ObjectId, change: Change) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push((object, change));
        self.any.store(true, Ordering::Release);
    }

    /// Whether any were asked for in this attempt.
    pub(super) fn are_some(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes those of some objects.
    fn take(&self, of: impl Fn(ObjectId) -> bool) -> Vec<(ObjectId, Change)> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extract_if(.., |(object, _)| of(*object)).collect()
    }
}

impl<H: Host> Tx<H> {
    /// Changes an object without reading it: `tx.add(market, |market| market.sold += 1)`. The change is made when the
    /// transaction commits, to what the object is then, so transactions that only add to an object never end each other's
    /// attempts, and only hold its lock while they commit. The order among them is any: use it for changes that come to the
    /// same in every order. The object is fetched like any that is written.
    ///
    /// Who reads or changes the object otherwise in the same transaction makes it an ordinary change.
    ///
    /// # Errors
    /// `Ended` when the transaction has ended. That the object does not exist or is of another type shows at the commit.
    pub fn add<T: Object>(&self, reference: Ref<T>, change: impl FnOnce(&mut T) + Send + 'static) -> Result<()> {
        self.check_open()?;
        let object = reference.id();
        let change = move |value: &Value| {
            let wrong = |error| Error::Object { object, error };
            let mut value: T = decode_object(value).map_err(wrong)?;
            change(&mut value);
            encode_object(&value).map_err(wrong)
        };
        self.changes().push(object, Box::new(change));
        Ok(())
    }

    /// Makes the changes of an object now, because it is used otherwise: then they are like any other.
    pub(super) async fn settle_changes_of(&self, object: ObjectId) -> Result<()> {
        let changes = self.changes().take(|changed| changed == object);
        if changes.is_empty() {
            return Ok(());
        }
        let mut value = match self.pending(object)? {
            Some(value) => value,
            None => self.lock_and_read(object).await?,
        };
        for (_, change) in changes {
            value = Some(change(&value.ok_or_else(|| self.missing(object))?)?);
        }
        self.note_write(object, value)
    }

    /// Makes all changes, at the end of the attempt.
    pub(super) async fn settle_changes(&self) -> Result<()> {
        let changes = self.changes().take(|_| true);
        if changes.is_empty() {
            return Ok(());
        }
        let id = self.id();
        let mut objects: Vec<ObjectId> = Vec::new();
        for (object, _) in &changes {
            if self.pending(*object)?.is_none() {
                objects.push(*object);
            }
        }
        objects.sort_unstable();
        objects.dedup();
        let newest = self.step(|peer, now| peer.lock_newest(now, id, &objects)).await?;
        for (object, change) in changes {
            let known = self.pending(object)?.flatten();
            let place = || objects.binary_search(&object).ok().and_then(|place| newest.get(place)?.clone());
            let value = known.or_else(place).ok_or_else(|| self.missing(object))?;
            self.note_write(object, Some(change(&value)?))?;
        }
        Ok(())
    }
}
