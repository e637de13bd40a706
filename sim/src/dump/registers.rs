//! The register workload: which transactions there are, and how one runs.
//!
//! Every write reads what it replaces, so the order of versions is known from what was read. A transaction touches each
//! register once: only first reads from outside are events in the format of its judge.

use super::objects::Register;
use driftmesh_model::Ref;
use driftmesh_peer::session::{Host, Result, Tx};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// Operations of a transaction.
const OPS: std::ops::RangeInclusive<usize> = 2..=5;

/// One operation of a transaction on registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterOp {
    /// Read a register.
    Read {
        /// Which.
        variable: u64,
    },
    /// Read a register, and replace what is there.
    Write {
        /// Which.
        variable: u64,
        /// By what, from 1 on; nothing is written twice.
        version: u64,
    },
}

impl RegisterOp {
    /// The register that it is about.
    #[must_use]
    pub const fn variable(&self) -> u64 {
        match self {
            Self::Read { variable } | Self::Write { variable, .. } => *variable,
        }
    }
}

/// What an operation found in its register.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenVersion {
    /// The version that was there; 0 at first.
    pub version: u64,
    /// Those before it, oldest first.
    pub past: Vec<u64>,
}

impl From<&Register> for SeenVersion {
    fn from(register: &Register) -> Self {
        Self { version: register.version, past: register.past.clone() }
    }
}

/// Draws a transaction on so many registers; two of five operations write. `written` is the last version that was ever
/// given away.
pub fn draw_registers(rng: &mut Rng, registers: u64, written: &mut u64) -> Vec<RegisterOp> {
    let mut variables: Vec<u64> = (0..registers).collect();
    rng.shuffle(&mut variables);
    variables.truncate(rng.usize(OPS));
    let draw = |variable| {
        if rng.u8(..5) < 2 {
            *written += 1;
            RegisterOp::Write { variable, version: *written }
        } else {
            RegisterOp::Read { variable }
        }
    };
    variables.into_iter().map(draw).collect()
}

/// The transaction that reads all registers.
#[must_use]
pub fn reads_of_registers(registers: u64) -> Vec<RegisterOp> {
    (0..registers).map(|variable| RegisterOp::Read { variable }).collect()
}

/// Runs a transaction: the body of one attempt. Returns what each operation found.
///
/// # Errors
/// Those of [`Tx::get`] and [`Tx::get_mut`]; a rejection for a register that is not there.
pub async fn run_registers<H: Host, P, F>(
    tx: Tx<H>,
    registers: &[Ref<Register>],
    ops: &[RegisterOp],
    pause: P,
) -> Result<Vec<SeenVersion>>
where
    P: Fn() -> F,
    F: Future<Output = ()>,
{
    let mut seen = Vec::with_capacity(ops.len());
    for op in ops {
        let found = usize::try_from(op.variable()).ok().and_then(|variable| registers.get(variable)).copied();
        let reference = found.ok_or_else(|| tx.reject("there is no such register"))?;
        seen.push(match op {
            RegisterOp::Read { .. } => SeenVersion::from(&*tx.get(reference).await?),
            RegisterOp::Write { version, .. } => {
                let mut register = tx.get_mut(reference).await?;
                let seen = SeenVersion::from(&*register);
                register.past.push(seen.version);
                register.version = *version;
                seen
            }
        });
        pause().await;
    }
    Ok(seen)
}
