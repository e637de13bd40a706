//! What comes to this peer's group and leaves it, told to those who subscribed; and pages of what it owns.
//!
//! Nothing is recorded while nobody has subscribed. It refuses to let a slow subscriber cost memory without bound, and
//! to keep values in queues: an arrival's value is looked up when its event is taken.

use crate::Peer;
use driftmesh_model::{GroupId, ObjectId, PeerId, TxnId, Value};
use driftmesh_object_store::Write;
use std::collections::VecDeque;

/// Most subscriptions open at one peer (R24).
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Most events that wait for one subscriber (R24). Beyond it they are replaced by one [`OwnershipEvent::Missed`].
pub const OWNERSHIP_EVENTS_MAX: usize = 65_536;
/// Most events taken in one step, so that a step stays short.
pub(crate) const EVENTS_PER_STEP: usize = 512;
/// Places for objects, taken or free, that one page of owned objects looks at.
const PAGE_SLOTS: usize = 1_024;

/// One subscription. It is named when its subscriber takes its events and when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionId(usize);

impl SubscriptionId {
    /// Whom to wake when an event comes: ids of transactions begin at [`driftmesh_txn::TRANSACTIONS_MAX`].
    #[must_use]
    pub const fn wakes(self) -> TxnId {
        TxnId::from_u64(self.0 as u64)
    }
}

const _: () = assert!(SUBSCRIPTIONS_MAX < driftmesh_txn::TRANSACTIONS_MAX);

/// An object that has come to this peer, or was created here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The object.
    pub object: ObjectId,
    /// Its newest value when the event was taken; `None` if it had left again or was deleted by then, which another
    /// event tells.
    pub(crate) value: Option<Value>,
}

/// Something that happened to what this peer owns, or to another peer that owns something.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OwnershipEvent {
    /// An object is owned here from now on: created here, fetched by a transaction, handed over by a leaving peer, or
    /// taken back.
    Arrived(Arrival),
    /// An object is owned here no longer: it is on its way to another peer.
    Left {
        /// The object.
        object: ObjectId,
        /// Where it went; `None` if that peer is out of reach just now.
        to: Option<PeerId>,
    },
    /// An object that was owned here is deleted.
    Deleted {
        /// The object.
        object: ObjectId,
    },
    /// Another peer is out of reach, and it did not hand over what it owned. If it crashed, a follower of its group
    /// serves its objects from their copies, usually within a second; with too few followers for a majority they are
    /// unavailable until it is back or an operator decides. If only the connection broke, `PeerBack` follows.
    PeerGone {
        /// The peer.
        peer: PeerId,
        /// How many objects it last said it owned.
        objects: Option<u64>,
    },
    /// A peer that was told as `PeerGone` is back, in the same incarnation.
    PeerBack {
        /// The peer.
        peer: PeerId,
    },
    /// Events before this one were dropped, because too many waited. Forget what they told, and look at everything
    /// owned again.
    Missed,
}

/// An event as it waits: without values.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    Arrived(ObjectId),
    Left(ObjectId, Option<PeerId>),
    Deleted(ObjectId),
    PeerGone(PeerId, Option<u64>),
    PeerBack(PeerId),
    Missed,
}

#[derive(Clone, Debug, Default)]
struct Subscription {
    waiting: VecDeque<Waiting>,
    /// Whether somebody parked until the next event.
    is_awaited: bool,
}

/// All subscriptions of a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriptions {
    slots: Vec<Option<Subscription>>,
    open: usize,
}

impl Subscriptions {
    /// Opens a subscription, unless there are too many.
    fn open(&mut self) -> Option<SubscriptionId> {
        let free = self.slots.iter().position(Option::is_none);
        let slot = match free {
            Some(slot) => slot,
            None if self.slots.len() < SUBSCRIPTIONS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[slot] = Some(Subscription::default());
        self.open += 1;
        Some(SubscriptionId(slot))
    }

    fn close(&mut self, id: SubscriptionId) {
        if self.slots.get_mut(id.0).and_then(Option::take).is_some() {
            self.open -= 1;
        }
    }

    fn get_mut(&mut self, id: SubscriptionId) -> Option<&mut Subscription> {
        self.slots.get_mut(id.0)?.as_mut()
    }

    const fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// Adds an event for everybody; returns whom to wake.
    fn tell(&mut self, event: Waiting, wakes: &mut Vec<TxnId>) {
        for (slot, subscription) in self.slots.iter_mut().enumerate() {
            let Some(subscription) = subscription else { continue };
            // R24: what was dropped is told as one event; the subscriber looks at everything again.
            if subscription.waiting.len() >= OWNERSHIP_EVENTS_MAX {
                subscription.waiting.clear();
                subscription.waiting.push_back(Waiting::Missed);
            }
            subscription.waiting.push_back(event);
            if std::mem::take(&mut subscription.is_awaited) {
                wakes.push(SubscriptionId(slot).wakes());
            }
        }
    }
}

/// A page of what is owned, each with its newest value.
#[derive(Clone, Default, Debug)]
pub struct OwnedPage {
    /// The objects that exist; deleted ones are left out.
    pub objects: Vec<(ObjectId, Value)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<usize>,
}

impl Peer {
    /// Begins to record what arrives and leaves, from this step on. `None` when [`SUBSCRIPTIONS_MAX`] are open.
    pub fn subscribe(&mut self) -> Option<SubscriptionId> {
        self.subscriptions.open()
    }

    /// Ends a subscription; what waits for it is dropped.
    pub fn unsubscribe(&mut self, id: SubscriptionId) {
        self.subscriptions.close(id);
        // A dropped wait of it may have left a waker with the host.
        self.wakes.push(id.wakes());
    }

    /// Takes the next events, oldest first, so many that the step stays short. Empty when none waits.
    pub fn take_ownership_events(&mut self, id: SubscriptionId) -> Vec<OwnershipEvent> {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return Vec::new() };
        let count = subscription.waiting.len().min(EVENTS_PER_STEP);
        let taken: Vec<Waiting> = subscription.waiting.drain(..count).collect();
        if subscription.waiting.is_empty() {
            // A burst must not hold its memory for ever.
            subscription.waiting.shrink_to(EVENTS_PER_STEP);
        }
        taken.into_iter().map(|event| self.ownership_event(event)).collect()
    }

    /// As [`Peer::take_ownership_events`]; when there is none, [`SubscriptionId::wakes`] is woken at the next.
    pub fn await_ownership_events(&mut self, id: SubscriptionId) -> Vec<OwnershipEvent> {
        let events = self.take_ownership_events(id);
        if let Some(subscription) = self.subscriptions.get_mut(id) {
            subscription.is_awaited = events.is_empty();
        }
        events
    }

    fn ownership_event(&self, event: Waiting) -> OwnershipEvent {
        match event {
            Waiting::Arrived(object) => OwnershipEvent::Arrived(Arrival { object, value: self.owned_value(object) }),
            Waiting::Left(object, to) => OwnershipEvent::Left { object, to },
            Waiting::Deleted(object) => OwnershipEvent::Deleted { object },
            Waiting::PeerGone(peer, objects) => OwnershipEvent::PeerGone { peer, objects },
            Waiting::PeerBack(peer) => OwnershipEvent::PeerBack { peer },
            Waiting::Missed => OwnershipEvent::Missed,
        }
    }

    fn owned_value(&self, object: ObjectId) -> Option<Value> {
        self.group.owned(object).and_then(|stored| stored.chain.newest().value.clone())
    }

    /// A page of what is owned, from a cursor on; the first begins at zero. An object that arrives or leaves between
    /// pages may be missed or met.
    #[must_use]
    pub fn owned_page(&self, cursor: usize) -> OwnedPage {
        let (stored, next) = self.group.owned_slice(cursor, PAGE_SLOTS);
        let exists = stored.filter_map(|(_, stored)| Some((stored.object, stored.chain.newest().value.clone()?)));
        OwnedPage { objects: exists.collect(), next }
    }

    fn tell_subscribers(&mut self, event: Waiting) {
        self.subscriptions.tell(event, &mut self.wakes);
    }

    /// An object is owned here from now on. What remains of a deleted one is nothing that a subscriber would use.
    pub(crate) fn tell_arrived(&mut self, object: ObjectId) {
        if !self.subscriptions.is_idle() && self.owned_value(object).is_some() {
            self.tell_subscribers(Waiting::Arrived(object));
        }
    }

    /// An object is about to leave: called while it is still owned.
    pub(crate) fn tell_leaving(&mut self, object: ObjectId, to: GroupId) {
        if !self.subscriptions.is_idle() && self.owned_value(object).is_some() {
            self.tell_subscribers(Waiting::Left(object, self.leader_of(to)));
        }
    }

    /// A commit creates and deletes objects.
    pub(crate) fn tell_written(&mut self, writes: &[Write], created: &[ObjectId]) {
        if self.subscriptions.is_idle() {
            return;
        }
        for write in writes {
            match &write.value {
                None => self.tell_subscribers(Waiting::Deleted(write.object)),
                Some(_) if created.binary_search(&write.object).is_ok() => {
                    self.tell_subscribers(Waiting::Arrived(write.object));
                }
                Some(_) => {}
            }
        }
    }

    /// What is owned here has changed as a whole: subscribers look at everything again.
    pub(crate) fn tell_missed(&mut self) {
        self.tell_subscribers(Waiting::Missed);
    }

    /// A member went without having handed everything over.
    pub(crate) fn tell_peer_gone(&mut self, peer: PeerId, objects: Option<u64>) {
        self.tell_subscribers(Waiting::PeerGone(peer, objects));
    }

    /// A member that went is back as it was.
    pub(crate) fn tell_peer_back(&mut self, peer: PeerId) {
        self.tell_subscribers(Waiting::PeerBack(peer));
    }
}
