//! A value lent out for change by `get_mut`.

use super::error::Error;
use super::write_set::WriteSet;
use driftmesh_model::{Object, Ref, encode_object};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// An object's value, to be read and changed. When it is dropped, the changed value becomes part of the
/// transaction's writes; if nothing was changed, nothing is written. It must be dropped before the closure ends.
pub struct Mutable<T: Object> {
    reference: Ref<T>,
    value: T,
    changed: bool,
    attempt: Arc<dyn AsRef<WriteSet> + Send + Sync>,
}

impl<T: Object + std::fmt::Debug> std::fmt::Debug for Mutable<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mutable").field("reference", &self.reference).field("value", &self.value).finish()
    }
}

impl<T: Object> Mutable<T> {
    /// A value that the write set of an attempt has lent out.
    pub(super) const fn lent(reference: Ref<T>, value: T, attempt: Arc<dyn AsRef<WriteSet> + Send + Sync>) -> Self {
        Self { reference, value, changed: false, attempt }
    }

    /// The reference to the object.
    pub const fn reference(this: &Self) -> Ref<T> {
        this.reference
    }
}

impl<T: Object> Deref for Mutable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Object> DerefMut for Mutable<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.value
    }
}

impl<T: Object> Drop for Mutable<T> {
    fn drop(&mut self) {
        let object = self.reference.id();
        let value = self.changed.then(|| encode_object(&self.value).map_err(|error| Error::Object { object, error }));
        (*self.attempt).as_ref().give_back(object, value);
    }
}
