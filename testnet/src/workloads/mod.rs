//! The workloads beside trades: what is in their worlds, what their players do, and what must hold.
//!
//! All of it is tasks (`mesh.submit`). The orchestrator draws them and keeps their ids and what was told of each; a peer
//! process submits them. `trade` is the workload of `bots.rs`.

pub(crate) mod desk;
pub(crate) mod draw;
pub(crate) mod look;
pub(crate) mod objects;
pub(crate) mod parts;
pub(crate) mod performer;
pub(crate) mod plan;
pub(crate) mod records;
pub(crate) mod tally;
pub(crate) mod tasks;

use serde::Serialize;

/// What the players of a testnet do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// Players trade with neighbours, by transactions.
    #[default]
    Trade,
    /// Players walk from cell to cell, and trade and fight with whom they meet.
    Crowd,
    /// Players stream from zone to zone.
    Crossing,
    /// All players strike one boss.
    Boss,
    /// All players buy and sell at a few stalls.
    Market,
    /// Players trade with any others.
    World,
}

impl Workload {
    /// How many players there are unless told otherwise.
    pub(crate) const fn players(self) -> u64 {
        match self {
            Self::Trade => 10_000,
            Self::Crowd | Self::Crossing | Self::Boss | Self::Market | Self::World => 1_000,
        }
    }

    /// Players who act at the same time, for each peer that a run begins with.
    pub(crate) const fn clients(self) -> usize {
        match self {
            Self::Trade => crate::bots::BOTS,
            Self::Crowd | Self::Crossing | Self::World => 32,
            // Hundreds that want one thing.
            Self::Boss | Self::Market => 60,
        }
    }

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::Crowd => "crowd",
            Self::Crossing => "crossing",
            Self::Boss => "boss",
            Self::Market => "market",
            Self::World => "world",
        }
    }
}
