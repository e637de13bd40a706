//! What a peer owns, typed: events when that changes, and a walk through all of it.
//!
//! It refuses to decode while the core is held: a step gives bytes, and the types are looked at afterwards.

use super::error::{Error, Result};
use super::host::Host;
use super::tx::decode_shared;
use crate::ownership::{Arrival, OwnershipEvent, SubscriptionId};
use driftmesh_model::{Object, ObjectId, Ref, Value, is_stored_as};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;

impl Arrival {
    /// The object and its newest value, if it is a `T`; `None` if it is of another type, or was gone again when the
    /// event was taken (another event tells that).
    ///
    /// # Errors
    /// `Object` when it was stored as a `T` but does not decode as one.
    pub fn decode<T: Object>(&self) -> Result<Option<(Ref<T>, Arc<T>)>> {
        match &self.value {
            Some(value) if is_stored_as::<T>(value) => {
                Ok(Some((Ref::from_id(self.object), decode_shared(self.object, value)?)))
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// The events of what a peer owns, from the moment of [`Ownership::subscribe`] on. To know everything that is owned,
/// subscribe first, then look at what is owned, then apply the events in their order.
///
/// At most [`crate::OWNERSHIP_EVENTS_MAX`] wait; beyond that they become one [`OwnershipEvent::Missed`].
pub struct Ownership<H: Host> {
    host: H,
    id: SubscriptionId,
    /// Taken from the core and not given out yet.
    taken: VecDeque<OwnershipEvent>,
}

impl<H: Host> std::fmt::Debug for Ownership<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ownership").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<H: Host> Ownership<H> {
    /// Subscribes.
    ///
    /// # Errors
    /// `TooManySubscriptions`.
    pub fn subscribe(host: H) -> Result<Self> {
        let id = host.step(|peer, _| peer.subscribe()).ok_or(Error::TooManySubscriptions)?;
        Ok(Self { host, id, taken: VecDeque::new() })
    }

    /// The next event, if one waits. Never waits itself, beyond the end of another's step of the core.
    pub fn try_next(&mut self) -> Option<OwnershipEvent> {
        if self.taken.is_empty() {
            let id = self.id;
            self.taken = self.host.step(|peer, _| peer.take_ownership_events(id)).into();
        }
        self.taken.pop_front()
    }

    /// Waits for the next event. Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> OwnershipEvent {
        let id = self.id;
        poll_fn(|context| {
            if let Some(event) = self.taken.pop_front() {
                return Poll::Ready(event);
            }
            let polled = self.host.poll_step(id.wakes(), context, |peer, _| {
                let events = peer.await_ownership_events(id);
                if events.is_empty() { Poll::Pending } else { Poll::Ready(events) }
            });
            polled.map(|events| {
                self.taken = events.into();
                self.taken.pop_front().expect("a ready step gave at least one event")
            })
        })
        .await
    }
}

impl<H: Host> Drop for Ownership<H> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|peer, _| peer.unsubscribe(id));
    }
}

/// Walks through what a peer owns of one type, each object at its newest version when its page was read: one short
/// step of the core for every 1,024 objects, none between them. Not a snapshot; what arrives or leaves during the
/// walk may be missed or met.
pub struct Owned<H: Host, T> {
    host: H,
    page: std::vec::IntoIter<(ObjectId, Value)>,
    next: Option<usize>,
    object_type: PhantomData<fn() -> T>,
}

impl<H: Host, T> std::fmt::Debug for Owned<H, T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Owned").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<H: Host, T: Object> Owned<H, T> {
    /// Begins a walk. Nothing is looked at before the first `next`.
    pub fn walk(host: H) -> Self {
        Self { host, page: Vec::new().into_iter(), next: Some(0), object_type: PhantomData }
    }
}

impl<H: Host, T: Object> Iterator for Owned<H, T> {
    /// `Err(Object)` for an object that was stored as a `T` and does not decode as one; the walk goes on after it.
    type Item = Result<(Ref<T>, Arc<T>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((object, value)) = self.page.find(|(_, value)| is_stored_as::<T>(value)) {
                return Some(decode_shared(object, &value).map(|value| (Ref::from_id(object), value)));
            }
            let cursor = self.next?;
            let page = self.host.step(|peer, _| peer.owned_page(cursor));
            self.next = page.next;
            self.page = page.objects.into_iter();
        }
    }
}
