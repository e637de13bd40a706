//! Acts as they are ordered and answered: encoded lists, one a frame.

use super::tasks::{Act, Deed};
use anyhow::{Context, Result};
use driftmesh::{Receipt, TaskId};
use driftmesh_model::codec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An act that a peer is to submit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ActOrder {
    /// Its number: no two acts of a run share one, and one that is asked for again keeps it.
    pub(crate) id: u64,
    /// Whose it is.
    pub(crate) client: u32,
    /// The task's id, which is kept outside of the peers.
    pub(crate) task: TaskId,
    /// What is to be done.
    pub(crate) act: Act,
    /// Whether it was ordered before: then its end must be stable, so that nobody asks a third time.
    pub(crate) again: bool,
}

/// What a peer says of an act.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ActAnswer {
    /// The order's number.
    pub(crate) id: u64,
    /// Whose order it was.
    pub(crate) client: u32,
    /// From the submission to its end, nanoseconds.
    pub(crate) nanos: u64,
    /// How it ended.
    pub(crate) said: Said,
}

/// How an act ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    /// It took effect.
    Done {
        /// Where its commit stands; of an earlier copy, where its anchor stood.
        receipt: Receipt,
        /// Whether that was stable.
        stable: bool,
        /// Whether an earlier copy had done it.
        earlier: bool,
        /// What it did.
        deed: Deed,
    },
    /// It rejected itself: it never takes effect.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Nobody knows yet whether it took effect: the same is to be asked for again.
    Unknown,
    /// It ended in a way that nothing explains.
    Failed {
        /// How.
        error: String,
    },
}

/// Encodes a list for one frame.
pub(crate) fn encode<T: Serialize>(list: &Vec<T>) -> Result<Vec<u8>> {
    codec::encode(list).context("acts do not encode")
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>> {
    codec::decode(bytes).context("no list of acts")
}
