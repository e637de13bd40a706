//! The objects of the workloads beside purses, items, pouches and signs. Each value carries the token of whoever wrote it.

use crate::game::{Item, Marked, Tally, marked};
use driftmesh_model::{Object, Ref, Value, decode_object};
use serde::{Deserialize, Serialize};

/// A door that is open or closed.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct Door {
    pub(crate) token: u64,
    pub(crate) is_open: bool,
}

impl Object for Door {
    const TYPE_NAME: &'static str = "door";
}

/// A set of elements, in the order in which they were added.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct Roll {
    pub(crate) token: u64,
    pub(crate) elements: Vec<u64>,
}

impl Object for Roll {
    const TYPE_NAME: &'static str = "roll";
}

/// An object in a ring of references.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Node {
    pub(crate) token: u64,
    pub(crate) next: Ref<Self>,
}

impl Object for Node {
    const TYPE_NAME: &'static str = "node";
}

/// Somebody who walks.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Player {
    pub(crate) token: u64,
    pub(crate) cell: Ref<Cell>,
}

impl Object for Player {
    const TYPE_NAME: &'static str = "player";
}

/// A part of the world, and who is in it.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct Cell {
    pub(crate) token: u64,
    pub(crate) players: Vec<Ref<Player>>,
}

impl Object for Cell {
    const TYPE_NAME: &'static str = "cell";
}

/// Where items lie that are in no purse: whoever comes first takes them.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct Chest {
    pub(crate) token: u64,
    pub(crate) items: Vec<Ref<Item>>,
}

impl Object for Chest {
    const TYPE_NAME: &'static str = "chest";
}

marked!(Door, Roll, Node, Player, Cell, Chest);

/// The token of a value that is one of these, or a number that clients count up.
pub(crate) fn token_of(value: &Value) -> Option<u64> {
    fn of<T: Marked>(value: &Value) -> Option<u64> {
        decode_object::<T>(value).ok().map(|value| value.token())
    }
    let kinds = [of::<Tally>, of::<Door>, of::<Roll>, of::<Node>, of::<Player>, of::<Cell>, of::<Chest>];
    kinds.iter().find_map(|kind| kind(value))
}
