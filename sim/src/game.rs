//! The world that the clients play in: purses with gold, items and pouches, signs with names, and numbers. Every value carries the token of the
//! attempt that wrote it, so that a history can be checked from what clients saw alone.

use driftmesh_model::{Object, Ref};
use serde::{Deserialize, Serialize};

/// Gold in each purse at first.
pub(crate) const GOLD_AT_FIRST: u64 = 100;
/// Items in each purse at first.
pub(crate) const ITEMS_AT_FIRST: usize = 2;

/// A player's purse.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Purse {
    pub(crate) token: u64,
    pub(crate) gold: u64,
    pub(crate) items: Vec<Ref<Item>>,
    pub(crate) pouches: Vec<Ref<Pouch>>,
    /// Makes some purses large enough for grants by hash.
    pub(crate) padding: String,
}

impl Object for Purse {
    const TYPE_NAME: &'static str = "purse";
}

/// A thing that is in exactly one purse.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Item {
    pub(crate) token: u64,
    pub(crate) holder: Ref<Purse>,
}

impl Object for Item {
    const TYPE_NAME: &'static str = "item";
}

/// Gold set aside: created and deleted all the time.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Pouch {
    pub(crate) token: u64,
    pub(crate) gold: u64,
}

impl Object for Pouch {
    const TYPE_NAME: &'static str = "pouch";
}

/// What a name is bound to: it says which name.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Sign {
    pub(crate) token: u64,
    pub(crate) name: String,
}

impl Object for Sign {
    const TYPE_NAME: &'static str = "sign";
}

/// A number that clients count up.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct Tally {
    pub(crate) token: u64,
    pub(crate) count: u64,
}

impl Object for Tally {
    const TYPE_NAME: &'static str = "tally";
}

/// What carries a token.
pub(crate) trait Marked: Object {
    fn token(&self) -> u64;
    fn mark(&mut self, token: u64);
}

macro_rules! marked {
    ($($kind:ty),*) => {$(
        impl $crate::game::Marked for $kind {
            fn token(&self) -> u64 {
                self.token
            }

            fn mark(&mut self, token: u64) {
                self.token = token;
            }
        }
    )*};
}

pub(crate) use marked;

marked!(Purse, Item, Pouch, Sign, Tally);
