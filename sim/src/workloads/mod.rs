//! What the clients do: one file for each workload, and the choice among those that a seed runs together.
//!
//! W2, lists that are appended to, belongs to the histories for outside judges (`dump_clients.rs`). A workload makes its own objects,
//! and judges their values at the end; what the history checker finds, it does not look for.

mod bank;
mod boss;
mod crossing;
mod crowd;
mod end;
mod hot;
mod inventory;
mod long_fork;
mod long_reader;
mod market;
pub(crate) mod names;
mod objects;
mod register;
mod ring;
mod schedules;
mod session;
mod set_add;
mod task_calls;
mod tasks;
mod write_skew;

pub(crate) use end::End;
use objects::{Cell, Door, Node, Player, Roll};
pub(crate) use objects::{Chest, token_of};
pub(crate) use schedules::is_tower;
pub(crate) use task_calls::runs_tasks;

use crate::client::{Came, Client, SimTx};
use crate::game::Marked;
use crate::history::TxnLog;
use crate::host::SimHost;
use driftmesh_model::{Ref, Value};
use driftmesh_object_store::Fate;
use driftmesh_peer::session::{Handlers, Isolation, Result};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that clients do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Workload {
    /// W1.
    Bank,
    /// W3.
    Register,
    /// W4.
    LongFork,
    /// W5.
    WriteSkew,
    /// W6.
    Session,
    /// W7.
    SetAdd,
    /// W8.
    Inventory,
    /// W9.
    Names,
    /// W10.
    Ring,
    /// W11.
    Hot,
    /// W12.
    Tasks,
    /// W13.
    LongReader,
    /// W14.
    Crowd,
    /// W15.
    Schedules,
    /// W16.
    Boss,
    /// W17.
    Market,
    /// W18.
    Crossing,
}

/// The tasks of all workloads.
fn handlers() -> Handlers<SimHost> {
    let mut handlers = Handlers::default();
    task_calls::add::<tasks::Payment>(&mut handlers);
    task_calls::add::<boss::Strike>(&mut handlers);
    task_calls::add::<market::Deal>(&mut handlers);
    task_calls::add::<crossing::Cross>(&mut handlers);
    schedules::add_handlers(&mut handlers);
    handlers
}

/// Whether a value is of a workload of tasks: their reads and writes are in no history.
pub(crate) fn is_of_tasks(value: &Value) -> bool {
    tasks::is_account(value)
        || boss::is_of_fight(value)
        || market::is_of_market(value)
        || crossing::is_of_crossing(value)
}

impl Workload {
    /// All of them, with their names and how often each is chosen beside others.
    const ALL: [(Self, &'static str, u32); 17] = [
        (Self::Bank, "bank", 11),
        (Self::Register, "register", 4),
        (Self::LongFork, "long-fork", 4),
        (Self::WriteSkew, "write-skew", 4),
        (Self::Session, "session", 3),
        (Self::SetAdd, "set-add", 3),
        (Self::Inventory, "inventory", 9),
        (Self::Names, "names", 4),
        (Self::Ring, "ring", 4),
        (Self::Hot, "hot", 2),
        (Self::Tasks, "tasks", 6),
        (Self::LongReader, "long-reader", 1),
        (Self::Crowd, "crowd", 5),
        (Self::Schedules, "schedules", 8),
        (Self::Boss, "boss", 4),
        (Self::Market, "market", 4),
        (Self::Crossing, "crossing", 4),
    ];
    /// Drawn from numbers of their own: a seed without them is the run that it was before there were any.
    const BY_OWN_NUMBERS: [Self; 4] = [Self::Schedules, Self::Boss, Self::Market, Self::Crossing];
    /// What those numbers differ by from the others.
    const OWN_NUMBERS: u64 = 0x9e37_79b9_7f4a_7c15;
    /// Those that are tasks.
    #[cfg(feature = "sabotage")]
    pub(crate) const OF_TASKS: [Self; 4] = [Self::Tasks, Self::Boss, Self::Market, Self::Crossing];
    /// On in most seeds: the checks of the whole world are about them.
    const USUAL: [Self; 3] = [Self::Bank, Self::Inventory, Self::Names];
}

/// The workloads of a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workloads(BTreeSet<Workload>);

impl Workloads {
    /// Those of most seeds.
    pub(crate) fn usual() -> Self {
        Self(Workload::USUAL.into_iter().collect())
    }

    /// Two at least.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let is_on = |workload: &Workload| {
            if Workload::USUAL.contains(workload) { rng.u8(..8) > 0 } else { rng.u8(..3) == 0 }
        };
        let all = Workload::ALL.map(|(workload, _, _)| workload).into_iter();
        let mut drawn: BTreeSet<Workload> =
            all.filter(|workload| !Workload::BY_OWN_NUMBERS.contains(workload)).filter(is_on).collect();
        if drawn.len() < 2 {
            drawn.extend([Workload::Bank, Workload::Inventory]);
        }
        let mut own = Rng::with_seed(rng.clone().u64(..) ^ Workload::OWN_NUMBERS);
        drawn.extend(Workload::BY_OWN_NUMBERS.into_iter().filter(|_| own.u8(..4) == 0));
        Self(drawn)
    }

    /// Whether it is one of them.
    pub(crate) fn has(&self, workload: Workload) -> bool {
        self.0.contains(&workload)
    }

    fn with_weights(&self) -> impl Iterator<Item = (Workload, &'static str, u32)> {
        Workload::ALL.into_iter().filter(|(workload, _, _)| self.has(*workload))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Workload> {
        self.0.iter().copied()
    }

    /// Chooses what is done next.
    fn choose(&self, rng: &mut Rng) -> Workload {
        let all: u32 = self.with_weights().map(|(_, _, weight)| weight).sum();
        let mut left = rng.u32(..all);
        for (workload, _, weight) in self.with_weights() {
            if left < weight {
                return workload;
            }
            left -= weight;
        }
        Workload::Bank
    }
}

impl fmt::Display for Workloads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.with_weights().map(|(_, name, _)| name).collect();
        formatter.write_str(&names.join(","))
    }
}

/// What the workloads of a run have made, and what they noted. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Grounds {
    pub(crate) chest: Option<Ref<Chest>>,
    register: Option<register::Registers>,
    long_fork: Option<long_fork::Forks>,
    write_skew: Option<write_skew::Houses>,
    session: Option<session::Travellers>,
    set_add: Option<set_add::Rolls>,
    ring: Option<ring::Ring>,
    crowd: Option<crowd::Crowd>,
    tasks: Option<tasks::Accounts>,
    schedules: Option<schedules::Towers>,
    boss: Option<boss::Fight>,
    market: Option<market::Market>,
    crossing: Option<crossing::Border>,
}

impl Grounds {
    /// Looks at final values, and at what became of commits.
    pub(crate) fn judge(&self, end: &mut End<'_>) {
        let Self { chest: _, register, long_fork, write_skew, session, set_add, ring, crowd, tasks, .. } = self;
        let Self { schedules, boss, market, crossing, .. } = self;
        register.iter().for_each(|registers| registers.judge(end));
        long_fork.iter().for_each(|forks| forks.judge(end));
        write_skew.iter().for_each(|houses| houses.judge(end));
        session.iter().for_each(|travellers| travellers.judge(end));
        set_add.iter().for_each(|rolls| rolls.judge(end));
        ring.iter().for_each(|ring| ring.judge(end));
        crowd.iter().for_each(|crowd| crowd.judge(end));
        tasks.iter().for_each(|accounts| accounts.judge(end));
        schedules.iter().for_each(|towers| towers.judge(end));
        boss.iter().for_each(|fight| fight.judge(end));
        market.iter().for_each(|market| market.judge(end));
        crossing.iter().for_each(|border| border.judge(end));
    }

    /// How often write skew was seen where it may be.
    pub(crate) fn skews(&self, fates: &[Fate]) -> u64 {
        self.write_skew.as_ref().map_or(0, |houses| houses.skews(fates))
    }
}

/// What the transaction that makes a workload's objects works with.
#[derive(Clone)]
pub(crate) struct Maker {
    tx: SimTx,
    log: TxnLog,
}

impl Maker {
    fn create<T: Marked>(&self, mut value: T) -> Result<Ref<T>> {
        let token = self.log.create(&mut value);
        let reference = self.tx.create(&value)?;
        self.log.created(reference, token);
        Ok(reference)
    }
}

/// What was made so far, by clients at several peers.
pub(crate) type Making = Arc<Mutex<Grounds>>;

fn lock(making: &Making) -> MutexGuard<'_, Grounds> {
    making.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Makes what one workload needs, before there are any faults.
    pub(crate) async fn prepare(mut self, workload: Workload, making: Making) {
        match workload {
            Workload::Register => {
                let made = register::Registers::create(&mut self).await;
                lock(&making).register = made;
            }
            Workload::LongFork => {
                let made = long_fork::Forks::create(&mut self).await;
                lock(&making).long_fork = made;
            }
            Workload::WriteSkew => {
                let made = write_skew::Houses::create(&mut self).await;
                lock(&making).write_skew = made;
            }
            Workload::Session => {
                let made = session::Travellers::create(&mut self).await;
                lock(&making).session = made;
            }
            Workload::SetAdd => {
                let made = set_add::Rolls::create(&mut self).await;
                lock(&making).set_add = made;
            }
            Workload::Ring => {
                let made = ring::Ring::create(&mut self).await;
                lock(&making).ring = made;
            }
            Workload::Crowd => {
                let made = crowd::Crowd::create(&mut self).await;
                lock(&making).crowd = made;
            }
            Workload::Tasks => {
                let made = tasks::Accounts::create(&mut self).await;
                lock(&making).tasks = made;
            }
            Workload::Schedules => {
                let made = schedules::Towers::create(&mut self).await;
                lock(&making).schedules = made;
            }
            Workload::Boss => {
                let made = boss::Fight::create(&mut self).await;
                lock(&making).boss = made;
            }
            Workload::Market => {
                let made = market::Market::create(&mut self).await;
                lock(&making).market = made;
            }
            Workload::Crossing => {
                let made = crossing::Border::create(&mut self).await;
                lock(&making).crossing = made;
            }
            Workload::Inventory => {
                let made = self.make("create chest", |maker| async move { maker.create(Chest::default()) }).await;
                lock(&making).chest = made;
            }
            Workload::Bank | Workload::Names | Workload::Hot | Workload::LongReader => {}
        }
    }

    /// Makes objects in one transaction.
    async fn make<R, F, Fut>(&mut self, kind: &str, make: F) -> Option<R>
    where
        F: Fn(Maker) -> Fut,
        Fut: Future<Output = Result<R>>,
    {
        let made = self.run_for(kind, Isolation::Snapshot, |tx, log| make(Maker { tx, log })).await;
        made.ok().map(|(made, _, _)| made)
    }

    /// One transaction or snapshot of a random kind.
    pub(crate) async fn one(&mut self) {
        let options = Arc::clone(&self.world.options);
        let grounds = Arc::clone(&self.world.grounds);
        match (options.workloads.choose(&mut self.rng), &*grounds) {
            (Workload::Bank, _) => self.use_bank().await,
            (Workload::Inventory, _) => self.use_inventory().await,
            (Workload::Names, _) => self.use_names().await,
            (Workload::Hot, _) => self.clash().await,
            (Workload::LongReader, _) => self.read_slowly().await,
            (Workload::Register, Grounds { register: Some(made), .. }) => self.use_registers(made).await,
            (Workload::LongFork, Grounds { long_fork: Some(made), .. }) => self.use_forks(made).await,
            (Workload::WriteSkew, Grounds { write_skew: Some(made), .. }) => self.use_doors(made).await,
            (Workload::Session, Grounds { session: Some(made), .. }) => self.receive(made).await,
            (Workload::SetAdd, Grounds { set_add: Some(made), .. }) => self.use_sets(made).await,
            (Workload::Ring, Grounds { ring: Some(made), .. }) => self.use_ring(made).await,
            (Workload::Crowd, Grounds { crowd: Some(made), .. }) => self.use_crowd(made).await,
            (Workload::Tasks, Grounds { tasks: Some(made), .. }) => self.use_tasks(made).await,
            (Workload::Schedules, Grounds { schedules: Some(made), .. }) => self.use_schedules(made).await,
            (Workload::Boss, Grounds { boss: Some(made), .. }) => self.use_fight(made).await,
            (Workload::Market, Grounds { market: Some(made), .. }) => self.use_market(made).await,
            (Workload::Crossing, Grounds { crossing: Some(made), .. }) => self.use_border(made).await,
            // What it needs could not be made.
            (
                Workload::Register
                | Workload::LongFork
                | Workload::WriteSkew
                | Workload::Session
                | Workload::SetAdd
                | Workload::Ring
                | Workload::Crowd
                | Workload::Tasks
                | Workload::Schedules
                | Workload::Boss
                | Workload::Market
                | Workload::Crossing,
                _,
            ) => Came::Nothing,
        };
    }
}
