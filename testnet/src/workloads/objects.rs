//! The objects of the workloads: players, their belongings, and the places where they meet.
//!
//! It refuses to know what is done with them (`tasks.rs`), and how they are counted (`tally.rs`).

use crate::accounts::PlayerEnd;
use driftmesh::{Object, Ref};
use serde::{Deserialize, Serialize};

/// A player.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hero {
    /// The gold in the purse.
    pub(crate) gold: u64,
    /// The items in it. Each of them names its holder.
    pub(crate) pack: Vec<Ref<Good>>,
    /// Pieces bought at stalls.
    pub(crate) wares: u64,
    /// Where the player is; nowhere in worlds without places.
    pub(crate) place: Option<Ref<Cell>>,
    /// How often the player took part in something.
    pub(crate) acts: u64,
    /// The marks of that, added up: tells what it was.
    pub(crate) sum: u64,
    /// Health taken from bosses.
    pub(crate) damage: u64,
    /// Bosses that died by the player's blow.
    pub(crate) kills: u64,
}

impl Object for Hero {
    const TYPE_NAME: &'static str = "testnet.hero";
}

impl Hero {
    /// What the ledger compares.
    pub(crate) const fn end(&self) -> PlayerEnd {
        let items = self.pack.len() as u64 + self.wares;
        PlayerEnd { trades: self.acts, sum: self.sum, gold: self.gold, items }
    }

    /// Leaves the mark by which the ledger outside finds an act again.
    pub(crate) const fn sign(&mut self, mark: u64) {
        self.acts += 1;
        self.sum = self.sum.wrapping_add(mark);
    }
}

/// An item.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Good {
    /// In whose purse it is.
    pub(crate) holder: Ref<Hero>,
}

impl Object for Good {
    const TYPE_NAME: &'static str = "testnet.good";
}

/// A part of the world, and who is in it: a cell of a region, or a zone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Who is here. Each of them names this place.
    pub(crate) members: Vec<Ref<Hero>>,
    /// The places next to it.
    pub(crate) neighbours: Vec<Ref<Self>>,
    /// How often somebody came, those who were here at first included.
    pub(crate) entered: u64,
    /// How often somebody left.
    pub(crate) left: u64,
}

impl Object for Cell {
    const TYPE_NAME: &'static str = "testnet.cell";
}

/// An enemy of all: it dies, and comes back with full health.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Boss {
    /// What is left of this life.
    pub(crate) health: u64,
    /// What each life begins with.
    pub(crate) health_max: u64,
    /// Lives that are over. Each left one item to one winner.
    pub(crate) lives: u64,
}

impl Object for Boss {
    const TYPE_NAME: &'static str = "testnet.boss";
}

/// Where wares are bought and sold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// Its gold.
    pub(crate) gold: u64,
    /// Pieces that it has.
    pub(crate) stock: u64,
    /// Pieces that it has sold.
    pub(crate) sold: u64,
    /// Pieces that it has bought.
    pub(crate) bought: u64,
    /// How often it took part in something.
    pub(crate) acts: u64,
    /// The marks of that, added up.
    pub(crate) sum: u64,
}

impl Object for Stall {
    const TYPE_NAME: &'static str = "testnet.stall";
}

impl Stall {
    /// What the ledger compares.
    pub(crate) const fn end(&self) -> PlayerEnd {
        PlayerEnd { trades: self.acts, sum: self.sum, gold: self.gold, items: self.stock }
    }

    /// Leaves the mark of an act.
    pub(crate) const fn sign(&mut self, mark: u64) {
        self.acts += 1;
        self.sum = self.sum.wrapping_add(mark);
    }
}
