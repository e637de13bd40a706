//! The list-append workload: which transactions there are, and how one runs.
//!
//! It runs inside any session's closure, so simulated and real peers run the very same code. It refuses to record.

use super::objects::Series;
use driftmesh_model::Ref;
use driftmesh_peer::session::{Host, Result, Tx};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// How many lists the reads of all lists take together.
pub const KEYS_TOGETHER: u64 = 6;
/// Operations of a transaction.
const OPS: std::ops::RangeInclusive<usize> = 3..=6;

/// How many lists are near a client.
const NEAR: u64 = 3;

/// One operation of a transaction on lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppendOp {
    /// Append.
    Append {
        /// To which list.
        key: u64,
        /// What, from 1 on; nothing is appended twice.
        element: u64,
    },
    /// Read a list.
    Read {
        /// Which.
        key: u64,
        /// What it was, once that is answered.
        elements: Option<Vec<u64>>,
    },
}

impl AppendOp {
    /// A read that is not answered yet.
    pub(super) const fn read(key: u64) -> Self {
        Self::Read { key, elements: None }
    }
}

/// What a client's transactions are drawn from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    /// How many lists there are.
    pub keys: u64,
    /// The client's number: half of its transactions are on a few lists of its own choice, which so come to its peer and
    /// stay. Only commits that wait for no message can be lost.
    pub client: u32,
}

impl Mix {
    /// Draws a list: one of a few near ones, or else most often one of the first third.
    fn key(self, rng: &mut Rng, near: bool) -> u64 {
        let keys = self.keys.max(1);
        if near {
            return (u64::from(self.client) * NEAR + rng.u64(..NEAR)) % keys;
        }
        let bound = if rng.u8(..10) < 7 { keys.div_ceil(3) } else { keys };
        rng.u64(..bound)
    }
}

/// Draws a transaction on lists. A third only reads; of the others every fourth operation does. `appended` is the last
/// element that was ever given away.
pub fn draw_appends(rng: &mut Rng, mix: Mix, appended: &mut u64) -> Vec<AppendOp> {
    let (only_reads, near) = (rng.u8(..3) == 0, rng.bool());
    let count = rng.usize(OPS);
    let mut ops = Vec::with_capacity(count);
    for place in 0..count {
        let key = mix.key(rng, near);
        // The last one appends: else it might only read after all.
        let reads = only_reads || (place + 1 < count && rng.u8(..4) == 0);
        ops.push(if reads {
            AppendOp::read(key)
        } else {
            *appended += 1;
            AppendOp::Append { key, element: *appended }
        });
    }
    ops
}

/// Transactions that read all lists together, [`KEYS_TOGETHER`] each.
#[must_use]
pub fn reads_of_all(keys: u64) -> Vec<Vec<AppendOp>> {
    let all: Vec<AppendOp> = (0..keys).map(AppendOp::read).collect();
    all.chunks(usize::try_from(KEYS_TOGETHER).unwrap_or(1)).map(<[AppendOp]>::to_vec).collect()
}

/// Runs a transaction: the body of one attempt. Returns the operations with what was read.
///
/// # Errors
/// Those of [`Tx::get`] and [`Tx::get_mut`]; a rejection for a list that is not there.
pub async fn run_appends<H: Host, P, F>(
    tx: Tx<H>,
    keys: &[Ref<Series>],
    ops: &[AppendOp],
    pause: P,
) -> Result<Vec<AppendOp>>
where
    P: Fn() -> F,
    F: Future<Output = ()>,
{
    let reference = |key: &u64| {
        let found = usize::try_from(*key).ok().and_then(|key| keys.get(key)).copied();
        found.ok_or_else(|| tx.reject("there is no such list"))
    };
    let mut answered = Vec::with_capacity(ops.len());
    for op in ops {
        answered.push(match op {
            AppendOp::Append { key, element } => {
                tx.get_mut(reference(key)?).await?.elements.push(*element);
                op.clone()
            }
            AppendOp::Read { key, .. } => {
                let series = tx.get(reference(key)?).await?;
                AppendOp::Read { key: *key, elements: Some(series.elements.clone()) }
            }
        });
        pause().await;
    }
    Ok(answered)
}
