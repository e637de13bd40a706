//! What a run keeps for outside judges: lists and registers, and all calls on them.
//!
//! It is part of a run only where the caller wants files, so that seeds without it run as ever. It refuses to judge: the
//! files are judged by whoever reads them.

use crate::dump::{
    APPENDS_MIN, About, AppendCalls, AppendOp, CallId, Dumped, End, Mix, REGISTER_TXNS_MAX, Register, RegisterCalls,
    RegisterOp, SeenVersion, Series, draw_appends, draw_registers, write_edn, write_json,
};
use crate::host::{Clock, SimHost};
use crate::ledger::Ledger;
use driftmesh_model::Ref;
use driftmesh_peer::Receipt;
use driftmesh_peer::session::{Options as TxnOptions, Result, transact};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many lists there are: some numbers, so that seeds differ in how much clients meet.
const LISTS: [u64; 3] = [18, 24, 36];
/// How many registers.
const REGISTERS: u64 = 12;
/// So many answered commits on lists end the phase under faults: a crash may undo some.
const ENOUGH: usize = APPENDS_MIN + 100;
/// More transactions than that are not begun under faults.
const BEGUN_MAX: usize = 1_500;
/// Transactions on registers that are made in any case.
const REGISTER_TXNS_MIN: usize = 60;
/// So many more than needed are made stable in the end.
const SPARE: usize = 12;

/// The lists and registers of a run, and the calls on them. Clones share them.
#[derive(Clone)]
pub(crate) struct Dump {
    pub(crate) lists: Arc<[Ref<Series>]>,
    pub(crate) registers: Arc<[Ref<Register>]>,
    clock: Arc<Clock>,
    /// Registers may be used in so many transactions: the reads at the end must have room.
    register_calls_max: usize,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    appends: AppendCalls,
    register_calls: RegisterCalls,
    /// The last element and the last version that were given away.
    appended: u64,
    written: u64,
    clients: u32,
    answered: usize,
    /// Transactions on registers that may have taken effect.
    register_calls_open: usize,
    /// Commits, under their numbers in the ledger.
    commits: Vec<(Call, usize)>,
    is_over: bool,
}

/// A call on lists or on registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Lists(CallId),
    Registers(CallId),
}

/// What one founder is to create.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    lists: Vec<u64>,
    registers: Vec<u64>,
}

/// What was created, by its numbers.
#[derive(Clone, Default)]
pub(crate) struct Created(Arc<Mutex<References>>);

type References = (BTreeMap<u64, Ref<Series>>, BTreeMap<u64, Ref<Register>>);

impl Share {
    /// Shares for so many founders.
    pub(crate) fn all(rng: &mut Rng, founders: usize) -> Vec<Self> {
        let mut shares = vec![Self::default(); founders.max(1)];
        let lists = LISTS[rng.usize(..LISTS.len())];
        let mut turn = 0;
        let mut next = || {
            turn += 1;
            turn % founders.max(1)
        };
        (0..lists).for_each(|list| shares[next()].lists.push(list));
        (0..REGISTERS).for_each(|register| shares[next()].registers.push(register));
        shares
    }

    /// Creates them. No crash may undo that: it is no part of the history.
    pub(crate) async fn create(self, host: SimHost, created: Created) -> Result<()> {
        let options = TxnOptions { stable: true, ..TxnOptions::new("create lists") };
        let done = transact(host, options, |tx| {
            let share = self.clone();
            async move {
                let lists = share.lists.iter().map(|list| Ok((*list, tx.create(&Series::default())?)));
                let lists = lists.collect::<Result<Vec<_>>>()?;
                let registers =
                    share.registers.iter().map(|register| Ok((*register, tx.create(&Register::default())?)));
                Ok((lists, registers.collect::<Result<Vec<_>>>()?))
            }
        });
        let (lists, registers) = done.await?.value;
        let mut created = created.0.lock().unwrap_or_else(PoisonError::into_inner);
        created.0.extend(lists);
        created.1.extend(registers);
        Ok(())
    }
}

impl Dump {
    pub(crate) fn new(created: &Created, clock: Arc<Clock>, peers: usize) -> Self {
        let created = created.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            lists: created.0.values().copied().collect(),
            registers: created.1.values().copied().collect(),
            clock,
            register_calls_max: REGISTER_TXNS_MAX.saturating_sub(peers),
            inner: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self) -> u64 {
        self.clock.now_us() * 1_000
    }

    /// A new client: one that does one thing after the other.
    pub(crate) fn client(&self) -> u32 {
        let mut inner = self.lock();
        inner.clients += 1;
        inner.clients - 1
    }

    /// Draws a transaction on lists.
    pub(crate) fn draw_appends(&self, client: u32, rng: &mut Rng) -> Vec<AppendOp> {
        let mix = Mix { keys: self.lists.len() as u64, client };
        draw_appends(rng, mix, &mut self.lock().appended)
    }

    /// Draws a transaction on registers; `None` when there were enough.
    pub(crate) fn draw_registers(&self, rng: &mut Rng) -> Option<Vec<RegisterOp>> {
        let mut inner = self.lock();
        let may = inner.register_calls_open < self.register_calls_max;
        inner.register_calls_open += usize::from(may);
        may.then(|| draw_registers(rng, self.registers.len() as u64, &mut inner.written))
    }

    /// A client begins a transaction on lists.
    pub(crate) fn begin_appends(&self, client: u32, ops: &[AppendOp]) -> CallId {
        self.lock().appends.begin(client, self.nanos(), ops.to_vec())
    }

    /// A client begins a transaction on registers.
    pub(crate) fn begin_registers(&self, client: u32, ops: &[RegisterOp]) -> CallId {
        self.lock().register_calls.begin(client, self.nanos(), ops.to_vec())
    }

    /// A transaction on lists ended; a commit is kept in the ledger under this number.
    pub(crate) fn end_appends(&self, call: CallId, end: End<Vec<AppendOp>>, kept: Option<usize>) {
        let mut inner = self.lock();
        inner.appends.end(call, self.nanos(), end);
        inner.answered += usize::from(kept.is_some());
        inner.commits.extend(kept.map(|number| (Call::Lists(call), number)));
    }

    /// A transaction on registers ended.
    pub(crate) fn end_registers(&self, call: CallId, end: End<Vec<SeenVersion>>, kept: Option<usize>) {
        let mut inner = self.lock();
        if end == End::Aborted {
            // The reads at the end are not counted.
            inner.register_calls_open = inner.register_calls_open.saturating_sub(1);
        }
        inner.register_calls.end(call, self.nanos(), end);
        inner.commits.extend(kept.map(|number| (Call::Registers(call), number)));
    }

    /// Whether enough was answered.
    pub(crate) fn has_enough(&self) -> bool {
        self.lock().answered >= ENOUGH
    }

    /// Whether clients go on.
    pub(crate) fn goes_on(&self) -> bool {
        let inner = self.lock();
        !inner.is_over && inner.appends.len() < BEGUN_MAX
    }

    /// Whether the faults are over.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Clients end after what they do now.
    pub(crate) fn finish(&self) {
        self.lock().is_over = true;
    }

    /// Takes what became of all commits from the ledger.
    pub(crate) fn decide(&self, ledger: &Ledger) {
        let mut inner = self.lock();
        for (call, number) in inner.commits.clone() {
            let fate = ledger.fate(number);
            match call {
                Call::Lists(call) => inner.appends.decide(call, fate),
                Call::Registers(call) => inner.register_calls.decide(call, fate),
            }
        }
    }

    /// How many commits on lists are kept so far.
    pub(crate) fn committed(&self) -> usize {
        self.lock().appends.committed()
    }

    /// How many transactions on lists and on registers are still to be made, so that the histories prove something.
    pub(crate) fn missing(&self) -> (usize, usize) {
        let registers = self.lock().register_calls.committed();
        ((APPENDS_MIN + SPARE).saturating_sub(self.committed()), REGISTER_TXNS_MIN.saturating_sub(registers))
    }

    /// Writes the files.
    pub(crate) fn write(&self, seed: u64) -> std::result::Result<Dumped, serde_json::Error> {
        let inner = self.lock();
        let registers = self.registers.len() as u64;
        let start_s = SimHost::true_wall_us(&Clock::default()) / 1_000_000;
        let json = write_json(&inner.register_calls, About { id: seed, registers, start_s })?;
        Ok(Dumped { edn: write_edn(&inner.appends), json })
    }
}

/// How a call ended, and its receipts.
pub(crate) enum Ended<A> {
    Committed { answered: A, receipts: Vec<Receipt>, stable: bool },
    Aborted,
    Unknown,
}
