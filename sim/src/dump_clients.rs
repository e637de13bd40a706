//! Clients whose transactions are dumped for outside judges: they append to lists, and write registers.
//!
//! Each is one process that does one thing after the other. They refuse to know what a judge makes of it.

use crate::client::Client;
use crate::dump::{AppendOp, End, Fate, RegisterOp, reads_of_all, reads_of_registers, run_appends, run_registers};
use crate::dumping::{Dump, Ended};
use crate::host::SimHost;
use crate::ledger::Depends;
use driftmesh_model::Micros;
use driftmesh_peer::session::{Done, Error, Options as TxnOptions, Outcome, Reads, Result, transact};
use std::sync::Arc;

/// Longest pause between two operations of a transaction, us.
const PAUSE_MAX_US: u64 = 5_000;
/// Longest pause after a transaction that came to nothing, us.
const AFTER_FAILURE_MAX_US: u64 = 500_000;
/// How old the snapshots are at most that copies answer.
const STALENESS: Micros = Micros(50_000);

impl Client {
    /// Appends and reads until it is over.
    pub(crate) async fn append(mut self, dump: Dump) {
        let client = dump.client();
        let reads = Reads::begin(self.host.clone()).staleness(STALENESS);
        while dump.goes_on() {
            let committed = self.append_once(&dump, client, &reads).await;
            self.rest(committed, 1).await;
        }
    }

    /// Makes so many transactions on lists, and so many on registers.
    pub(crate) async fn work_more(mut self, dump: Dump, appends: usize, registers: usize) {
        let client = dump.client();
        let reads = Reads::begin(self.host.clone()).staleness(STALENESS);
        for _ in 0..appends {
            self.append_once(&dump, client, &reads).await;
        }
        for _ in 0..registers {
            let Some(ops) = dump.draw_registers(&mut self.rng) else { return };
            self.run_registers(&dump, client, ops).await;
        }
    }

    /// Reads and writes registers until there were enough of that.
    pub(crate) async fn register(mut self, dump: Dump) {
        let client = dump.client();
        while !dump.is_over() {
            let Some(ops) = dump.draw_registers(&mut self.rng) else { return };
            let committed = self.run_registers(&dump, client, ops).await;
            self.rest(committed, 4).await;
        }
    }

    /// Reads all lists and all registers. Returns what could not be read.
    pub(crate) async fn read_all(mut self, dump: Dump) -> Vec<String> {
        let client = dump.client();
        let mut failed = Vec::new();
        for ops in reads_of_all(dump.lists.len() as u64) {
            if !self.run_appends(&dump, client, ops.clone()).await {
                failed.push(format!("client {} could not read {ops:?} at the end", self.session));
            }
        }
        if !self.run_registers(&dump, client, reads_of_registers(dump.registers.len() as u64)).await {
            failed.push(format!("client {} could not read all registers at the end", self.session));
        }
        failed
    }

    /// A pause between two transactions: longer where nothing works at present, as at a peer that is leaving.
    async fn rest(&mut self, worked: bool, times: u64) {
        let most = if worked { times * self.world.options.pace_us } else { AFTER_FAILURE_MAX_US };
        let pause = self.rng.u64(0..most);
        self.world.clock.sleep(pause).await;
    }

    /// One transaction on lists. Returns whether it committed.
    async fn append_once(&mut self, dump: &Dump, client: u32, reads: &Reads<SimHost>) -> bool {
        let ops = dump.draw_appends(client, &mut self.rng);
        let only_reads = ops.iter().all(|op| matches!(op, AppendOp::Read { .. }));
        if only_reads && self.rng.u8(..3) == 0 {
            self.read_recently(dump, client, reads, ops).await
        } else {
            self.run_appends(dump, client, ops).await
        }
    }

    /// Runs a transaction on lists. Returns whether it committed.
    async fn run_appends(&mut self, dump: &Dump, client: u32, ops: Vec<AppendOp>) -> bool {
        let (pause_us, clock) = (self.pause_us(), Arc::clone(&self.world.clock));
        let call = dump.begin_appends(client, &ops);
        let (lists, ops) = (Arc::clone(&dump.lists), Arc::<[AppendOp]>::from(ops));
        let done = transact(self.host.clone(), TxnOptions::new("append"), |tx| {
            let (lists, ops, clock) = (Arc::clone(&lists), Arc::clone(&ops), Arc::clone(&clock));
            async move { run_appends(tx, &lists, &ops, || clock.sleep(pause_us)).await }
        });
        let ended = self.ended("append", done.await);
        let (end, kept) = self.keep("append", ended);
        dump.end_appends(call, end, kept);
        kept.is_some()
    }

    /// Reads lists at one recent snapshot, which copies may answer. Returns whether it could.
    async fn read_recently(&mut self, dump: &Dump, client: u32, reads: &Reads<SimHost>, ops: Vec<AppendOp>) -> bool {
        let call = dump.begin_appends(client, &ops);
        let mut depends = Depends::default();
        let ended = match self.read_lists(dump, reads, &ops, &mut depends).await {
            Ok(answered) => Ended::Committed { answered, receipts: depends.receipts(), stable: false },
            Err(error) => self.explained("read recently", error),
        };
        let (end, kept) = self.keep("read recently", ended);
        dump.end_appends(call, end, kept);
        kept.is_some()
    }

    async fn read_lists(
        &mut self,
        dump: &Dump,
        reads: &Reads<SimHost>,
        ops: &[AppendOp],
        depends: &mut Depends,
    ) -> Result<Vec<AppendOp>> {
        let snapshot = reads.snapshot()?;
        let mut answered = Vec::with_capacity(ops.len());
        for op in ops {
            let AppendOp::Read { key, .. } = op else { continue };
            let Some(list) = usize::try_from(*key).ok().and_then(|key| dump.lists.get(key)) else { continue };
            let series = snapshot.get(*list).await?;
            self.rests_on(&snapshot, depends);
            answered.push(AppendOp::Read { key: *key, elements: Some(series.elements.clone()) });
        }
        Ok(answered)
    }

    /// Runs a transaction on registers. Returns whether it committed.
    async fn run_registers(&mut self, dump: &Dump, client: u32, ops: Vec<RegisterOp>) -> bool {
        let (pause_us, clock) = (self.pause_us(), Arc::clone(&self.world.clock));
        let call = dump.begin_registers(client, &ops);
        let (registers, ops) = (Arc::clone(&dump.registers), Arc::<[RegisterOp]>::from(ops));
        let done = transact(self.host.clone(), TxnOptions::new("register"), |tx| {
            let (registers, ops, clock) = (Arc::clone(&registers), Arc::clone(&ops), Arc::clone(&clock));
            async move { run_registers(tx, &registers, &ops, || clock.sleep(pause_us)).await }
        });
        let ended = self.ended("register", done.await);
        let (end, kept) = self.keep("register", ended);
        dump.end_registers(call, end, kept);
        kept.is_some()
    }

    /// How long a transaction pauses after each operation, us.
    fn pause_us(&mut self) -> u64 {
        let pauses = self.rng.u8(..100) < self.world.options.think_percent;
        if pauses { self.rng.u64(1..PAUSE_MAX_US) } else { 0 }
    }

    fn ended<A>(&self, kind: &str, done: Result<Done<A>>) -> Ended<A> {
        match done {
            Ok(Done { value, committed }) => {
                Ended::Committed { answered: value, receipts: vec![committed.receipt], stable: committed.stable }
            }
            Err(error) => self.explained(kind, error),
        }
    }

    /// What an error says of the outcome. Errors that neither faults nor a wrong clock explain are violations.
    fn explained<A>(&self, kind: &str, error: Error) -> Ended<A> {
        let is_explained = matches!(
            &error,
            Error::Deadline { .. }
                | Error::Busy(_)
                | Error::Leaving
                | Error::SnapshotTooOld { .. }
                | Error::CreatedLater { .. }
                | Error::SnapshotRead(_)
                | Error::SnapshotExpired
        );
        let little_room = self.world.options.room_bytes.is_some();
        let is_explained = is_explained || (little_room && matches!(&error, Error::NoRoom(_)));
        // R18: only a clock that is wrong may be told so.
        let is_explained = is_explained || (!self.sane && matches!(&error, Error::ClockOff { .. }));
        if !is_explained {
            self.world.recorder.violation(format!("`{kind}` ended with an error that nothing explains: {error}"));
        }
        match error.outcome() {
            Outcome::Aborted => Ended::Aborted,
            Outcome::Unknown | Outcome::Lost => Ended::Unknown,
        }
    }

    /// Keeps the receipts of a commit in the ledger, where their fates are asked for.
    fn keep<A>(&self, label: &str, ended: Ended<A>) -> (End<A>, Option<usize>) {
        match ended {
            Ended::Committed { answered, receipts, stable } => {
                let ledger = &mut self.world.recorder.lock().ledger;
                let number = ledger.keep(label.to_owned(), receipts, stable, None, Vec::new());
                (End::Committed { answered, fate: Fate::Unknown }, Some(number))
            }
            Ended::Aborted => (End::Aborted, None),
            Ended::Unknown => (End::Unknown, None),
        }
    }
}
