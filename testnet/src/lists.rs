//! The lists and registers of `--dump` inside a peer process: created, and worked on as the orchestrator orders.
//!
//! Histories are kept by the orchestrator, which outlives this process. It refuses to keep an answer back.

use crate::answers::Answers;
use crate::protocol::{Answer, Asked, Told, pack, pack_receipt};
use anyhow::{Context, Result};
use driftmesh::{Error, Mesh, ObjectId, Outcome, Receipt, Ref};
use driftmesh_sim::dump::{Register, Series, run_appends, run_registers};
use std::sync::Arc;
use std::time::Duration;

/// What every process knows of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    lists: Arc<[Ref<Series>]>,
    registers: Arc<[Ref<Register>]>,
}

/// One transaction that was ordered.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) id: u64,
    /// What it does.
    pub(crate) asked: Asked,
    /// How long it pauses after each operation.
    pub(crate) pause: Duration,
}

impl Lists {
    /// Creates so many here. They are stable when this returns: no history tells of their creation.
    pub(crate) async fn create(mesh: &Mesh, lists: u64, registers: u64) -> Result<(String, String)> {
        let task = mesh.task("create lists").stable();
        let created = task.run(|tx| async move {
            let lists = (0..lists).map(|_| Ok(tx.create(&Series::default())?.id()));
            let lists = lists.collect::<Result<Vec<ObjectId>, Error>>()?;
            let registers = (0..registers).map(|_| Ok(tx.create(&Register::default())?.id()));
            Ok((lists, registers.collect::<Result<Vec<ObjectId>, Error>>()?))
        });
        let (lists, registers) = created.await.context("cannot create lists and registers")?;
        Ok((pack(&lists), pack(&registers)))
    }

    /// Those of all peers together.
    pub(crate) fn of(lists: &[ObjectId], registers: &[ObjectId]) -> Self {
        Self {
            lists: lists.iter().map(|list| Ref::from_id(*list)).collect(),
            registers: registers.iter().map(|register| Ref::from_id(*register)).collect(),
        }
    }

    /// Begins a transaction, and tells what came of it once it has ended.
    pub(crate) fn begin(&self, mesh: &Mesh, answers: &Arc<Answers>, call: Call) {
        let (lists, mesh, answers) = (self.clone(), mesh.clone(), Arc::clone(answers));
        tokio::spawn(async move {
            let id = call.id;
            let told = lists.run(&mesh, call).await;
            answers.tell(&Answer::Called { id, told });
        });
    }

    async fn run(&self, mesh: &Mesh, call: Call) -> Told {
        let pause = || pause(call.pause);
        match call.asked {
            Asked::Lists { ops } => {
                let run = |tx| {
                    let (lists, ops) = (Arc::clone(&self.lists), ops.clone());
                    async move { run_appends(tx, &lists, &ops, pause).await }
                };
                let done = mesh.task("append").run_with_receipt(run).await;
                done.map_or_else(failed, |done| {
                    let receipt = done.committed.receipt;
                    told(&receipt, |receipt| Told::Lists { ops: done.value, receipt })
                })
            }
            Asked::Registers { ops } => {
                let run = |tx| {
                    let (registers, ops) = (Arc::clone(&self.registers), ops.clone());
                    async move { run_registers(tx, &registers, &ops, pause).await }
                };
                let done = mesh.task("register").run_with_receipt(run).await;
                done.map_or_else(failed, |done| {
                    let receipt = done.committed.receipt;
                    told(&receipt, |receipt| Told::Registers { seen: done.value, receipt })
                })
            }
        }
    }
}

async fn pause(length: Duration) {
    if !length.is_zero() {
        tokio::time::sleep(length).await;
    }
}

fn told(receipt: &Receipt, committed: impl FnOnce(String) -> Told) -> Told {
    match pack_receipt(receipt) {
        Ok(receipt) => committed(receipt),
        Err(error) => Told::Failed { error: Some(error.to_string()), aborted: false },
    }
}

/// Deadlines are part of the work, and that a copy of this process has taken its place; no other error is.
#[expect(clippy::needless_pass_by_value, reason = "it is the last use of the error")]
fn failed(error: Error) -> Told {
    let is_expected = matches!(error, Error::Deadline { .. } | Error::Superseded);
    Told::Failed { error: (!is_expected).then(|| error.to_string()), aborted: error.outcome() == Outcome::Aborted }
}
