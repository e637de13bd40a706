//! Where objects are and why: pins, the moves that were made, what is contended, and where a task would be sent.
//!
//! It refuses to decide anything: the core does (`driftmesh-peer`, `placing.rs`).

use crate::{Mesh, Task};
use driftmesh_model::{Micros, Object, ObjectId, TaskId, TaskKey, Value};
use driftmesh_peer::{Move, ObjectUse, TaskPlace, TaskRequest, TooManyPinned};

/// The objects that were most in the way of each other's users in the last seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contention {
    /// Those that attempts ended because of, most first.
    pub contended: Vec<ObjectUse>,
    /// Those that came here more than once, most often first.
    pub bouncing: Vec<ObjectUse>,
}

impl Mesh {
    /// Keeps an object here once it is here: tasks that use it come here, and it follows nothing. A transaction elsewhere
    /// that writes it takes it along all the same. Forgotten when this peer ends; fetch the object first, to have it here.
    ///
    /// # Errors
    /// When 65,536 are pinned here.
    pub fn pin(&self, object: ObjectId) -> Result<(), TooManyPinned> {
        self.host.shared.step(|peer, _| peer.pin(object))
    }

    /// Lets an object go again that was pinned here. Returns whether it was.
    pub fn unpin(&self, object: ObjectId) -> bool {
        self.host.shared.step(|peer, _| peer.unpin(object))
    }

    /// Keeps all objects of a type here that are here, or come: as [`Mesh::pin`] does with one.
    ///
    /// # Errors
    /// When 256 types are pinned here.
    pub fn pin_type<T: Object>(&self) -> Result<(), TooManyPinned> {
        self.host.shared.step(|peer, _| peer.pin_type(T::TYPE_NAME))
    }

    /// Lets the objects of a type go again that was pinned here. Returns whether it was. Those that are pinned by themselves stay.
    pub fn unpin_type<T: Object>(&self) -> bool {
        self.host.shared.step(|peer, _| peer.unpin_type(T::TYPE_NAME))
    }

    /// The last 1,024 objects that left this peer, and why, oldest first.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        self.host.shared.step(|peer, _| peer.moves().cloned().collect())
    }

    /// So many objects at most, of each kind, that this peer's transactions were ended by or that came here often, in the
    /// last two to four seconds.
    #[must_use]
    pub fn contention(&self, most: usize) -> Contention {
        let (contended, bouncing) = self.host.shared.step(|peer, _| peer.most_contended(most));
        Contention { contended, bouncing }
    }

    /// The peers that a task may be sent to, the best first, and what speaks for each; empty if nothing is known of what it
    /// touches, and it runs here. It is not submitted.
    pub fn explain_task<T: Task>(&self, task: &T) -> Vec<TaskPlace> {
        let touches = task.touches();
        let nothing = ObjectId::from_u128(0);
        let anchor = task.anchor().unwrap_or(nothing);
        let id = TaskId { anchor, key: TaskKey { issued: Micros(0), number: 0 } };
        let request = TaskRequest {
            touches,
            key: task.key(),
            ..TaskRequest::new(id, T::NAME.to_owned(), T::VERSION, Value::from_slice(&[]), Micros(1))
        };
        self.host.shared.step(|peer, _| peer.task_places(&request))
    }
}
