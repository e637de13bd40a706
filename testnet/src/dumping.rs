//! Histories of a run for outside judges: lists and registers are created, worked on while peers die, and read by every
//! peer in the end; then the fate of every commit is asked for, and all is written.
//!
//! It refuses to write what proves too little without saying so. Nothing of it is judged here.

use crate::call_desk::{CallDesk, Counts, Kind, Limits};
use crate::callers::Caller;
use crate::dump_files::DumpFolder;
use crate::output;
use crate::peers::{Peers, number_of};
use crate::protocol::Asked;
use anyhow::{Context, Result, bail};
use driftmesh_sim::dump::{APPENDS_MIN, AppendOp, REGISTER_TXNS_MAX, reads_of_all, reads_of_registers};
use fastrand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What the files are called.
const NAME: &str = "real";
/// How many lists and registers there are.
const LISTS: u64 = 30;
const REGISTERS: u64 = 12;
/// Clients on lists, all peers together, at least; and at each peer at least.
const CLIENTS_MIN: usize = 10;
const CLIENTS_EACH_MIN: usize = 2;
/// About so many calls are made, most of them while the bots trade; more are not made then.
const LIST_CALLS: u32 = 800;
const LIST_CALLS_MAX: usize = 2_000;
const REGISTER_CALLS: u32 = 110;
/// So many commits are wanted while the bots trade: some may be lost.
const WANTED: usize = APPENDS_MIN + 40;
/// How long it may take until there are that many, once the bots have ended.
const WANTED_LIMIT: Duration = Duration::from_secs(10);
/// How long clients may take to end: the deadline of a transaction, and more.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Pause before the reads at the end: by then every peer's clock has passed what was committed.
const QUIET: Duration = Duration::from_secs(1);
/// What is drawn for the calls must not change what is drawn for bots and faults.
const OF_ITS_OWN: u64 = 0x6C69_7374;

/// The histories of a run.
#[derive(Debug)]
pub(crate) struct Dumping {
    folder: DumpFolder,
    limits: Limits,
    rng: Rng,
    callers: JoinSet<Result<()>>,
}

impl Dumping {
    /// Creates lists and registers, spread over all peers.
    pub(crate) async fn create(folder: DumpFolder, peers: &mut Peers) -> Result<Self> {
        peers.create_lists(LISTS, REGISTERS).await?;
        let register_calls = REGISTER_TXNS_MAX.saturating_sub(peers.exchange.seats());
        let limits = Limits { lists: LISTS, registers: REGISTERS, list_calls: LIST_CALLS_MAX, register_calls };
        let rng = Rng::with_seed(peers.meeting.seed ^ OF_ITS_OWN);
        Ok(Self { folder, limits, rng, callers: JoinSet::new() })
    }

    /// Lets clients begin at all live peers, in a run of this length.
    pub(crate) fn begin(&mut self, peers: &Peers, run: Duration) {
        let live = peers.exchange.live();
        let each = CLIENTS_MIN.div_ceil(live.len().max(1)).max(CLIENTS_EACH_MIN);
        let on_lists = CallDesk::pause_max(run, each * live.len(), LIST_CALLS);
        let on_registers = CallDesk::pause_max(run, live.len(), REGISTER_CALLS);
        for peer in live {
            let kinds = std::iter::repeat_n((Kind::Lists, on_lists), each).chain([(Kind::Registers, on_registers)]);
            for (kind, pause_max) in kinds {
                let caller = Caller::at(&peers.exchange, peer, Rng::with_seed(self.rng.u64(..)));
                self.callers.spawn(caller.work(kind, self.limits, pause_max));
            }
        }
    }

    /// Ends the clients, once they have done enough.
    pub(crate) async fn end_work(&mut self, peers: &crate::exchange::Exchange) -> Result<()> {
        let desk = &peers.desk;
        let begun = Instant::now();
        while desk.answered() < WANTED && begun.elapsed() < WANTED_LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        desk.finish();
        self.all_end().await
    }

    async fn all_end(&mut self) -> Result<()> {
        let all = async {
            while let Some(ended) = self.callers.join_next().await {
                ended.context("a client panicked")??;
            }
            Ok(())
        };
        match tokio::time::timeout(END_LIMIT, all).await {
            Ok(ended) => ended,
            Err(_) => bail!("calls were not answered within {} s", END_LIMIT.as_secs()),
        }
    }

    /// Has everything read by every live peer, asks for the fates of all commits, and writes the files. What is wrong is
    /// added to the troubles. Returns what all calls came to.
    pub(crate) async fn end(mut self, peers: &mut Peers, troubles: &mut Vec<String>) -> Result<Counts> {
        peers.learn_call_fates().await?;
        let live = peers.exchange.live();
        let missing = WANTED.saturating_sub(peers.exchange.desk.counts().lists);
        for peer in &live {
            let caller = Caller::at(&peers.exchange, *peer, Rng::with_seed(self.rng.u64(..)));
            self.callers.spawn(caller.work_more(self.limits, missing.div_ceil(live.len())));
        }
        self.all_end().await?;
        tokio::time::sleep(QUIET).await;
        let before = troubles.len();
        self.read_all(peers, &live, troubles).await?;
        if troubles.len() > before {
            troubles.append(&mut peers.search_lists().await?);
        }
        peers.learn_call_fates().await?;
        let desk = Arc::clone(&peers.exchange.desk);
        troubles.extend(desk.errors().into_iter().map(|error| format!("a call on lists or registers failed: {error}")));
        let counts = desk.counts();
        let Counts { lists, registers, lost } = counts;
        if lists < APPENDS_MIN {
            troubles.push(format!("only {lists} commits on lists are dumped, {APPENDS_MIN} are needed"));
        }
        let dumped = desk.write(peers.meeting.seed, self.limits.registers)?;
        self.folder.write(NAME, &dumped)?;
        output::line(&format!(
            "dumped {NAME}.edn with {lists} commits on lists and {NAME}.json with {registers} on registers; {lost} were lost"
        ));
        Ok(counts)
    }

    async fn read_all(&mut self, peers: &Peers, live: &[usize], troubles: &mut Vec<String>) -> Result<()> {
        let mut reads: Vec<Asked> =
            reads_of_all(self.limits.lists).into_iter().map(|ops| Asked::Lists { ops }).collect();
        reads.push(Asked::Registers { ops: reads_of_registers(self.limits.registers) });
        let mut readers = JoinSet::new();
        for peer in live.iter().copied() {
            let reader = Caller::at(&peers.exchange, peer, Rng::with_seed(self.rng.u64(..)));
            let reads = reads.clone();
            readers.spawn(async move { (peer, reader.make(reads).await) });
        }
        while let Some(ended) = readers.join_next().await {
            let (peer, failed) = ended.context("a reader panicked")?;
            let failed = failed?.into_iter().map(|asked| read_by(&asked));
            troubles.extend(failed.map(|what| format!("a read of {what} at the end failed at {}", number_of(peer))));
        }
        Ok(())
    }
}

/// What a read at the end was of, for people.
fn read_by(asked: &Asked) -> String {
    let list = |numbers: Vec<u64>| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    match asked {
        Asked::Lists { ops } => {
            let key = |op: &AppendOp| match op {
                AppendOp::Append { key, .. } | AppendOp::Read { key, .. } => *key,
            };
            format!("lists {}", list(ops.iter().map(key).collect()))
        }
        Asked::Registers { .. } => "all registers".to_owned(),
    }
}
