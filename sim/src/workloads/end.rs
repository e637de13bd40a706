//! What workloads judge by at the end of a run: final values, and what became of each commit that a client was told of.
//!
//! It refuses to judge itself.

use crate::outside::Heard;
use driftmesh_model::{Object, ObjectId, Ref, ScheduleId, Value, decode_object};
use driftmesh_object_store::Fate;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The end of a run.
pub(crate) struct End<'a> {
    /// Every object's value, deleted ones left out.
    pub(crate) values: &'a BTreeMap<ObjectId, Value>,
    /// What became of everything in the ledger. Only what a lost group has taken with it may be unknown.
    pub(crate) fates: &'a [Fate],
    /// What was heard outside of the mesh, in order.
    pub(crate) heard: &'a [Heard],
    /// The schedules that are kept and whose tasks have panicked.
    pub(crate) panicked: &'a BTreeSet<ScheduleId>,
    /// Whether groups are out of reach for good: what is due there does not run.
    pub(crate) lost: bool,
    /// What is wrong.
    pub(crate) wrong: Vec<String>,
}

impl End<'_> {
    /// The final value of an object that is never deleted.
    pub(super) fn value<T: Object>(&mut self, reference: Ref<T>) -> Option<T> {
        let value = self.values.get(&reference.id()).and_then(|value| decode_object(value).ok());
        if value.is_none() {
            self.wrong.push(format!("{} {reference} is nowhere at the end", T::TYPE_NAME));
        }
        value
    }

    /// The final values of objects that are never deleted, if all are there.
    pub(super) fn values<T: Object>(&mut self, references: &[Ref<T>]) -> Option<Vec<T>> {
        references.iter().map(|reference| self.value(*reference)).collect()
    }
}

/// What clients did, in the order in which they were told, each under its number in the ledger. Clones share it.
pub(crate) struct Notes<T>(Arc<Mutex<Vec<(usize, T)>>>);

impl<T> Clone for Notes<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Notes<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Notes<T> {
    pub(super) fn note(&self, number: usize, done: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((number, done));
    }

    /// Everything, with what became of it.
    pub(super) fn with_fates(&self, fates: &[Fate]) -> Vec<(Fate, T)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(number, done)| (fates[*number], done.clone())).collect()
    }
}

/// What a judge finds wrong with final values, under ids from 1 on, and with fates.
#[cfg(test)]
pub(super) fn judged<T: Object>(values: &[T], fates: &[Fate], judge: impl FnOnce(&mut End<'_>)) -> Vec<String> {
    let values = (1..).zip(values).map(|(number, value)| {
        let value = driftmesh_model::encode_object(value).expect("it is small");
        (ObjectId::from_u128(number), value)
    });
    let values = values.collect();
    let panicked = BTreeSet::new();
    let mut end = End { values: &values, fates, heard: &[], panicked: &panicked, lost: false, wrong: Vec::new() };
    judge(&mut end);
    end.wrong
}

/// A reference to the value with that number.
#[cfg(test)]
pub(super) fn numbered<T>(number: u128) -> Ref<T> {
    Ref::from_id(ObjectId::from_u128(number))
}
