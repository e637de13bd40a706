//! Where a task is likely to find its data: by what it says, by records, and by where tasks like it went before.
//!
//! All of that are hints (R1). It refuses to send anything, and to look for an object.

use crate::Peer;
use crate::message::{TaskEnd, TaskRequest};
use crate::routes::Route;
use driftmesh_directory::Record;
use driftmesh_model::limits::TASK_TOLD_MAX;
use driftmesh_model::{ObjectId, PeerId, TxnId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What an object counts for when a peer is chosen, if the task says that it touches it; twice if it is the anchor. What was
/// learned counts as often as former runs touched it, which is no more.
const DECLARED_WEIGHT: u64 = 16;

/// A peer that a task may be sent to, and what speaks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskPlace {
    /// The peer.
    pub peer: PeerId,
    /// The sum: the highest wins, this peer if it has as much.
    pub score: u64,
    /// Objects there that the task says it touches, the anchor included.
    pub declared: usize,
    /// Objects there that former tasks of the kind and key touched.
    pub learned: usize,
    /// Whether it ran the last of these.
    pub ran_last: bool,
}

impl fmt::Display for TaskPlace {
    /// One line: the peer, its score, and why.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, score, declared, learned, ran_last } = self;
        write!(formatter, "{peer}: score {score}, has {declared} of what the task says it touches")?;
        write!(formatter, ", {learned} of what tasks like it touched")?;
        if *ran_last { formatter.write_str(", ran the last of these") } else { Ok(()) }
    }
}

impl Peer {
    /// The anchor of a task that names none: what it wants where it is sent on, or what all like it touched.
    pub(super) fn anchor_for(
        &mut self,
        request: &TaskRequest,
        sent_on: Option<(PeerId, ObjectId)>,
    ) -> Option<ObjectId> {
        let learned = || self.routes.get(&request.name, request.key).and_then(Route::most);
        sent_on.map(|(_, object)| object).or_else(learned)
    }

    /// R1: the peer that a task is sent to, by records that are only hints. `None` for this one.
    pub(super) fn place_for_task(&mut self, waiter: TxnId) -> Option<PeerId> {
        let submitted = self.tasks.submitted.get(&waiter)?;
        let refused_by = submitted.refused_by.clone();
        let may_run = |peer: &PeerId, this: &Self| {
            *peer == this.config.peer
                || (this.is_connected(peer) && !this.is_leaving(peer) && !refused_by.contains(peer))
        };
        if let Some(peer) = submitted.sent_on.filter(|peer| may_run(peer, self)) {
            return Some(peer).filter(|peer| *peer != self.config.peer);
        }
        let request = submitted.request.clone();
        let places = self.task_places(&request);
        let best = places.into_iter().find(|place| may_run(&place.peer, self))?;
        Some(best.peer).filter(|peer| *peer != self.config.peer)
    }

    /// The peers that a task may be sent to, the best first; none if nothing is known of what it touches. Of two that are as
    /// good this one is the better.
    pub fn task_places(&mut self, request: &TaskRequest) -> Vec<TaskPlace> {
        let mut places: BTreeMap<PeerId, TaskPlace> = BTreeMap::new();
        let mut add = |peer: PeerId, score: u64, declared: usize, learned: usize| {
            let empty = TaskPlace { peer, score: 0, declared: 0, learned: 0, ran_last: false };
            let place = places.entry(peer).or_insert(empty);
            place.score += score;
            place.declared += declared;
            place.learned += learned;
        };
        let anchor = request.id.anchor;
        if let Some(peer) = self.peer_of(anchor) {
            add(peer, 2 * DECLARED_WEIGHT, 1, 0);
        }
        let declared: BTreeSet<ObjectId> = request.touches.iter().copied().filter(|object| *object != anchor).collect();
        for peer in declared.iter().filter_map(|object| self.peer_of(*object)) {
            add(peer, DECLARED_WEIGHT, 1, 0);
        }
        if declared.is_empty()
            && let Some(route) = self.routes.get(&request.name, request.key).cloned()
        {
            for (object, count) in route.expected() {
                // Where there is no record, it is likely to be where the last run has left it.
                let peer = self.peer_of(object).unwrap_or(route.at);
                add(peer, u64::from(count), 0, 1);
            }
            if let Some(place) = places.get_mut(&route.at) {
                place.ran_last = true;
            }
        }
        let me = self.config.peer;
        let mut places: Vec<TaskPlace> = places.into_values().collect();
        places.sort_by_key(|place| (Reverse(place.score), place.peer != me, place.peer));
        places
    }

    /// Who owns an object, by the best record here.
    pub(super) fn peer_of(&mut self, object: ObjectId) -> Option<PeerId> {
        let (_, record) = self.best_record(object)?;
        self.leader_of(record.group)
    }

    /// Learns from a task that took effect where the next one like it finds its data.
    pub fn learn_from_task(&mut self, request: &TaskRequest, by: PeerId, end: &TaskEnd, session: Option<ObjectId>) {
        let TaskEnd::Done { receipt, touched, .. } = end else { return };
        if by != self.config.peer {
            for (object, epoch) in touched.iter().take(TASK_TOLD_MAX) {
                let record = Record { object: *object, group: receipt.group, epoch: *epoch };
                if record.is_sound() {
                    self.hints.learn(record);
                }
            }
        }
        if request.touches.is_empty() {
            let touched = touched.iter().map(|(object, _)| *object).filter(|object| Some(*object) != session);
            self.routes.learn(&request.name, request.key, touched, by);
        }
    }

    /// What was learned of a task's anchor is wrong: there is no such object.
    pub fn forget_route(&mut self, request: &TaskRequest) {
        self.routes.forget(&request.name, request.key);
    }
}
