//! One seed from beginning to end: a world is made, worked in under faults, healed, and judged.
//!
//! It refuses to forgive after the faults: from then on everything must end, and every purse must be found.

use crate::audit;
use crate::client::{Came, Client, World};
use crate::dump::{APPENDS_MIN, Dumped};
use crate::dumping::{Created, Dump, Share};
use crate::game::{GOLD_AT_FIRST, ITEMS_AT_FIRST, Item, Purse};
use crate::history::Recorder;
use crate::lives::Staff;
use crate::name_watchers::NameWatches;
use crate::network::LATE_MAX_US;
use crate::options::{Options, Overrides};
use crate::report::SeedReport;
use crate::watchers::Watches;
use crate::workloads::names::Names;
use crate::workloads::{Grounds, Making};
use crate::world::Simulation;
use driftmesh_model::Ref;
use driftmesh_object_store::Fate;
use driftmesh_peer::Peer;
use driftmesh_peer::session::{Fates, Options as TxnOptions, transact};
use fastrand::Rng;
use std::sync::{Arc, Mutex, PoisonError};

const SECOND_US: u64 = 1_000_000;
/// Longest phase under faults, virtual.
const FAULTS_MAX_US: u64 = 60 * SECOND_US;
/// Once faults stop, everything that runs must end within this: a transaction's deadline, and a bit.
const END_WITHIN_US: u64 = 8 * SECOND_US;
/// A fate that is unknown is asked for again so often.
const ASKED_AGAIN: u64 = 4;
/// How often is looked whether everything has settled, us.
const LOOK_EVERY_US: u64 = 20_000;
/// Clients at each peer that want the same objects once the faults have stopped.
const CLASHING_CLIENTS: usize = 3;
/// So often each of them does its work, and whoever pays or names something.
const ROUNDS_IN_PEACE: usize = 4;
/// And who looks for owners looks for so many.
const FINDS_IN_PEACE: usize = 8;
/// And everything must have settled within this.
const SETTLE_WITHIN_US: u64 = 30 * SECOND_US;

/// With a lower bound of what leaders tell subscribers than this, watches are late.
const FED_ENOUGH: usize = 1_000;
const WATCHES_END_WITHIN_US: u64 = 3 * SECOND_US;
/// So much later those of names, which read bucket by bucket and then the signs.
const NAMES_END_WITHIN_US: u64 = 10 * SECOND_US;

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, overrides: &Overrides) -> SeedReport {
    let options = Options::draw(seed, overrides);
    let text = options.to_string();
    let mut simulation = Simulation::new(options);
    let mut wrong = Vec::new();
    let world = make_world(&mut simulation);
    work_under_faults(&mut simulation, &world, &mut wrong);
    work_in_peace(&mut simulation, &world, &mut wrong);
    let dumped = end_dump(&mut simulation, &world, &mut wrong);
    // What an owner has no room for is read every second by those who watch it.
    let is_late = simulation.options.fed_max < FED_ENOUGH;
    let pause = simulation.now_us() + WATCHES_END_WITHIN_US;
    simulation.run(pause, |_| !is_late);
    if simulation.options.name_watchers > 0 {
        let for_us = if is_late { NAMES_END_WITHIN_US } else { WATCHES_END_WITHIN_US };
        let looks = world.name_watches.clone().look_on(world.clone(), for_us);
        simulation.executor.spawn_boxed(None, Box::pin(looks));
        let pause = simulation.now_us() + for_us + SECOND_US;
        simulation.run(pause, |simulation| simulation.executor.unfinished() == 0);
    }
    if simulation.lost_groups.is_empty() {
        // What was used together may have followed each other since.
        let now = simulation.now_us();
        settle(&mut simulation, now);
    }
    wrong.append(&mut audit::audit(&mut simulation, &world));
    SeedReport { dumped, ..report(&simulation, &world, wrong, text) }
}

/// Peers that are up, and own objects at first: all but one with a mad clock.
fn founders(simulation: &Simulation) -> Vec<usize> {
    let is_one = |index: &usize| !simulation.peers[*index].mad && !simulation.peers[*index].gone;
    (0..simulation.peers.len()).filter(is_one).collect()
}

pub(crate) fn make_world(simulation: &mut Simulation) -> World {
    let recorder = Recorder::default();
    let purses = Arc::new(Mutex::new(Vec::new()));
    let founders = founders(simulation);
    for number in 0..simulation.options.purses {
        let at = founders[number % founders.len()];
        let host = simulation.peers[at].host.clone();
        let (recorder, purses) = (recorder.clone(), Arc::clone(&purses));
        let padding = if number % 3 == 0 { "x".repeat(300) } else { String::new() };
        simulation.executor.spawn(at, async move {
            let log = recorder.transaction(1_000 + u32::try_from(number).unwrap_or(0), "create");
            let attempts = log.clone();
            let created = transact(host, TxnOptions::new("create"), |tx| {
                let log = attempts.attempt();
                let mut purse = Purse {
                    token: 0,
                    gold: GOLD_AT_FIRST,
                    items: Vec::new(),
                    pouches: Vec::new(),
                    padding: padding.clone(),
                };
                async move {
                    let token = log.create(&mut purse);
                    let reference = tx.create(&purse)?;
                    for _ in 0..ITEMS_AT_FIRST {
                        let mut item = Item { token: 0, holder: reference };
                        let token = log.create(&mut item);
                        let item = tx.create(&item)?;
                        log.created(item, token);
                        purse.items.push(item);
                    }
                    tx.put(reference, &purse).await?;
                    log.created(reference, token);
                    Ok(reference)
                }
            })
            .await;
            if let Ok(done) = created {
                log.committed(vec![done.committed.receipt], done.committed.stable);
                purses.lock().unwrap_or_else(PoisonError::into_inner).push(done.value);
            }
        });
    }
    let until = simulation.now_us() + SECOND_US;
    simulation.run(until, |simulation| simulation.executor.unfinished() == 0);
    let purses: Vec<Ref<Purse>> = purses.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut world = World {
        clock: Arc::clone(&simulation.clock),
        gold: purses.len() as u64 * GOLD_AT_FIRST,
        items: purses.len() * ITEMS_AT_FIRST,
        purses: purses.into(),
        options: Arc::clone(&simulation.options),
        names: Names::new(simulation.options.names),
        watches: Watches::default(),
        name_watches: NameWatches::default(),
        dump: simulation.options.dump.then(|| make_dump(simulation)),
        recorder,
        grounds: Arc::default(),
    };
    world.grounds = make_grounds(simulation, &world);
    world
}

/// Lets each workload make its objects, at one founder or another.
fn make_grounds(simulation: &mut Simulation, world: &World) -> Arc<Grounds> {
    let making = Making::default();
    let founders = founders(simulation);
    for (number, workload) in (0..).zip(world.options.workloads.iter()) {
        let at = founders[number % founders.len()];
        let client = client(simulation, world, at, 1_500 + u32::try_from(number).unwrap_or(0));
        simulation.executor.spawn(at, client.prepare(workload, making.clone()));
    }
    let until = simulation.now_us() + SECOND_US;
    simulation.run(until, |simulation| simulation.executor.unfinished() == 0);
    let made = std::mem::take(&mut *making.lock().unwrap_or_else(PoisonError::into_inner));
    Arc::new(made)
}

/// Creates the lists and registers that are dumped, spread over the founders.
fn make_dump(simulation: &mut Simulation) -> Dump {
    let created = Created::default();
    let founders = founders(simulation);
    for (at, share) in founders.iter().zip(Share::all(&mut simulation.rng, founders.len())) {
        let (host, created) = (simulation.peers[*at].host.clone(), created.clone());
        // What was not created is missing at the end, and told then.
        simulation.executor.spawn(*at, async move { drop(share.create(host, created).await) });
    }
    let until = simulation.now_us() + SECOND_US;
    simulation.run(until, |simulation| simulation.executor.unfinished() == 0);
    Dump::new(&created, Arc::clone(&simulation.clock), simulation.options.peers)
}

pub(crate) fn client(simulation: &mut Simulation, world: &World, at: usize, session: u32) -> Client {
    Client {
        host: simulation.peers[at].host.clone(),
        world: world.clone(),
        rng: Rng::with_seed(simulation.rng.u64(..)),
        session,
        fates: Fates::new(simulation.peers[at].host.clone()),
        sane: !simulation.peers[at].mad,
    }
}

fn work_under_faults(simulation: &mut Simulation, world: &World, wrong: &mut Vec<String>) {
    let until = world.recorder.lock().begun + simulation.options.steps;
    simulation.staff = Some(Staff { world: world.clone(), until, next_session: 2_000 });
    simulation.begin_faults();
    for at in 0..simulation.peers.len() {
        simulation.staff_begins(at);
    }
    let limit = simulation.now_us() + FAULTS_MAX_US;
    let has_enough = || world.dump.as_ref().is_none_or(Dump::has_enough);
    simulation.run(limit, |_| world.recorder.lock().begun >= until && has_enough());
    simulation.heal();
    if let Some(dump) = &world.dump {
        dump.finish();
    }
    let limit = simulation.now_us() + END_WITHIN_US;
    let recorder = &world.recorder;
    let begun = simulation.executor.begun();
    // Who is between two transactions sees that enough were begun, and ends.
    {
        let mut inner = recorder.lock();
        inner.begun = inner.begun.max(until);
    }
    let has_ended = simulation.run(limit, |simulation| simulation.executor.unfinished() == 0);
    // What is scheduled and wants something that was lost with its group begins again and again, and ends each time.
    let is_waiting = simulation.lost_groups.is_empty() || simulation.executor.unfinished_of_first(begun) > 0;
    if !has_ended && (is_waiting || simulation.is_spinning()) {
        wrong.push(format!(
            "{} jobs still wait {} s after the faults stopped, {:?}; {}",
            simulation.executor.unfinished(),
            END_WITHIN_US / SECOND_US,
            recorder.under_way(),
            audit::what_is_open(simulation)
        ));
    }
}

/// R12, R14, R15: once faults stop, every transaction ends within its deadline, however many want the same objects.
fn clash_in_peace(simulation: &mut Simulation, world: &World) -> Arc<Mutex<Vec<String>>> {
    // The first peaceful second belongs to what the faults left behind.
    let pause = simulation.now_us() + SECOND_US;
    simulation.run(pause, |_| false);
    let failed = Arc::new(Mutex::new(Vec::new()));
    for (number, at) in founders(simulation).into_iter().enumerate() {
        for part in 0..CLASHING_CLIENTS {
            let session = 700 + u32::try_from(CLASHING_CLIENTS * number + part).unwrap_or(0);
            let client = client(simulation, world, at, session);
            spawn_checked(simulation, at, client, &failed, ("clash", ROUNDS_IN_PEACE), |mut client, _| async move {
                let came = client.clash().await;
                (client, came)
            });
        }
    }
    let limit = simulation.now_us() + SETTLE_WITHIN_US;
    simulation.run(limit, |simulation| simulation.executor.unfinished() == 0);
    failed
}

/// Whether all schedules of a peer's objects have ended, but for what panicked here: that waits for another peer (R26).
fn nothing_is_due(peer: &Peer) -> bool {
    let group = peer.group();
    group.due_after(None).all(|(_, object, number)| {
        let schedule = group.schedules(object).and_then(|all| all.get(number));
        schedule.is_some_and(|schedule| schedule.waits_for_another(&peer.id()))
    })
}

/// Lets everything come to rest. Returns whether it did in time.
fn settle(simulation: &mut Simulation, not_before: u64) -> bool {
    let mut look_at = not_before;
    let settled = |simulation: &Simulation| {
        if simulation.executor.unfinished() > 0 || simulation.now_us() < look_at {
            return false;
        }
        look_at = simulation.now_us() + LOOK_EVERY_US;
        simulation.peers.iter().filter(|peer| !peer.gone).all(|peer| {
            // Schedules of the workloads end by themselves.
            peer.host.look(|peer| peer.is_quiet() && nothing_is_due(peer))
        }) && simulation.all_whole()
            // Whoever comes back as the judges look is not yet told where everything is.
            && !simulation.expects_somebody()
    };
    let limit = simulation.now_us() + SETTLE_WITHIN_US;
    simulation.run(limit, settled)
}

/// R4: once faults stop, every peer finds every owner, and can write every object.
fn work_in_peace(simulation: &mut Simulation, world: &World, wrong: &mut Vec<String>) {
    // What was sent under faults may still arrive so much later, and move something.
    let late = simulation.now_us() + LATE_MAX_US;
    let failed = clash_in_peace(simulation, world);
    for (number, at) in founders(simulation).into_iter().enumerate() {
        let session = 500 + 4 * u32::try_from(number).unwrap_or(0);
        let finder = client(simulation, world, at, session);
        spawn_checked(
            simulation,
            at,
            finder,
            &failed,
            ("find an owner", FINDS_IN_PEACE),
            |mut client, reference| async move {
                let came = client.finds(reference).await;
                (client, came)
            },
        );
        let payer = client(simulation, world, at, session + 1);
        spawn_checked(simulation, at, payer, &failed, ("pay", ROUNDS_IN_PEACE), |mut client, _| async move {
            let came = client.pay().await;
            (client, came)
        });
        let seeker = client(simulation, world, at, session + 2);
        spawn_checked(
            simulation,
            at,
            seeker,
            &failed,
            ("look names up", ROUNDS_IN_PEACE),
            |mut client, _| async move {
                let came = client.seek_names().await;
                (client, came)
            },
        );
        let binder = client(simulation, world, at, session + 3);
        spawn_checked(simulation, at, binder, &failed, ("bind a name", ROUNDS_IN_PEACE), |mut client, _| async move {
            let came = client.christen().await;
            (client, came)
        });
    }
    let mad = simulation.peers.iter().position(|peer| peer.mad && !peer.gone);
    // Crashes may have left too few to tell who is wrong.
    if let Some(at) = mad.filter(|_| simulation.lives() > 2) {
        // It has heard the others in peace for long enough by then.
        let pause = simulation.now_us() + 5 * SECOND_US;
        simulation.run(pause, |_| false);
        let mut client = client(simulation, world, at, 900);
        simulation.executor.spawn(at, async move { client.stays_out().await });
    }
    let has_settled = settle(simulation, late);
    ask_all_fates(simulation, world);
    if !simulation.lost_groups.is_empty() {
        // What a group without a majority owns is out of reach; that is all there is to say.
        return;
    }
    if !has_settled {
        let text = format!("not everything settled within {} s of peace: ", SETTLE_WITHIN_US / SECOND_US);
        wrong.push(text + &audit::what_is_open(simulation));
    }
    wrong.append(&mut failed.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Ends the history for outside judges: enough commits that are kept, and then reads of everything by every peer.
fn end_dump(simulation: &mut Simulation, world: &World, wrong: &mut Vec<String>) -> Option<Dumped> {
    let dump = world.dump.clone()?;
    dump.decide(&world.recorder.lock().ledger);
    let founders = founders(simulation);
    let (appends, registers) = dump.missing();
    let each = |missing: usize| missing.div_ceil(founders.len().max(1));
    for (number, at) in (0..).zip(&founders) {
        let client = client(simulation, world, *at, 3_000 + number);
        simulation.executor.spawn(*at, client.work_more(dump.clone(), each(appends), each(registers)));
    }
    let limit = simulation.now_us() + SETTLE_WITHIN_US;
    simulation.run(limit, |simulation| simulation.executor.unfinished() == 0);
    // Snapshots see all of this once every clock has passed it.
    let pause = simulation.now_us() + SECOND_US;
    simulation.run(pause, |_| false);
    let failed = Arc::new(Mutex::new(Vec::new()));
    for (number, at) in (0..).zip(&founders) {
        let client = client(simulation, world, *at, 3_500 + number);
        let (dump, failed) = (dump.clone(), Arc::clone(&failed));
        simulation.executor.spawn(*at, async move {
            let mut mine = client.read_all(dump).await;
            failed.lock().unwrap_or_else(PoisonError::into_inner).append(&mut mine);
        });
    }
    let limit = simulation.now_us() + SETTLE_WITHIN_US;
    simulation.run(limit, |simulation| simulation.executor.unfinished() == 0);
    wrong.append(&mut failed.lock().unwrap_or_else(PoisonError::into_inner));
    (1..=ASKED_AGAIN).for_each(|round| ask_fates(simulation, world, round));
    dump.decide(&world.recorder.lock().ledger);
    if dump.committed() < APPENDS_MIN {
        wrong.push(format!("the dumped history has {} commits, of {APPENDS_MIN} at least", dump.committed()));
    }
    dump.write(simulation.options.seed)
        .map_err(|error| wrong.push(format!("the history cannot be dumped: {error}")))
        .ok()
}

/// R22: every receipt is asked for, at some peer, and some at another one too.
pub(crate) fn ask_all_fates(simulation: &mut Simulation, world: &World) {
    for round in 0..ASKED_AGAIN {
        ask_fates(simulation, world, round);
    }
}

/// Asks for all receipts, and then again for those that were not decided.
fn ask_fates(simulation: &mut Simulation, world: &World, round: u64) {
    let receipts: Vec<(usize, usize)> = world
        .recorder
        .lock()
        .ledger
        .receipts()
        .filter(|(_, _, _, told)| round == 0 || told.is_none())
        .map(|(number, index, _, _)| (number, index))
        .collect();
    if receipts.is_empty() {
        return;
    }
    let alive: Vec<usize> = (0..simulation.peers.len()).filter(|index| !simulation.peers[*index].gone).collect();
    for (number, index) in receipts {
        let times = if simulation.rng.u8(..8) == 0 { 2 } else { 1 };
        for _ in 0..times {
            let at = alive[simulation.rng.usize(..alive.len())];
            simulation.ask_fate(number, index, at);
        }
    }
    let limit = simulation.now_us() + SETTLE_WITHIN_US;
    simulation.run(limit, |simulation| simulation.executor.unfinished() == 0);
    let pause = simulation.now_us() + SECOND_US / 5;
    simulation.run(pause, |_| false);
}

/// Runs something once for each of the first purses, and notes what did not commit.
fn spawn_checked<F, Fut>(
    simulation: &mut Simulation,
    at: usize,
    client: Client,
    failed: &Arc<Mutex<Vec<String>>>,
    (what, rounds): (&'static str, usize),
    act: F,
) where
    F: Fn(Client, Ref<Purse>) -> Fut + Send + 'static,
    Fut: Future<Output = (Client, Came)> + Send,
{
    let failed = Arc::clone(failed);
    simulation.executor.spawn(at, async move {
        let mut client = client;
        for reference in client.world.purses.iter().copied().take(rounds).collect::<Vec<_>>() {
            let (back, came) = act(client, reference).await;
            client = back;
            if came != Came::Committed {
                let text = format!("client {} could not {what} after the faults stopped", client.session);
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        }
        client.audit().await;
    });
}

fn report(simulation: &Simulation, world: &World, wrong: Vec<String>, options: String) -> SeedReport {
    let mut report = SeedReport {
        seed: simulation.options.seed,
        violations: wrong,
        commits: world.recorder.lock().committed,
        transfers: simulation.observer.transfers,
        faults: simulation.faults,
        trace_hash: simulation.trace_hash(),
        sim_us: simulation.now_us(),
        options,
        ..SeedReport::default()
    };
    let alive = simulation.peers.iter().filter(|peer| !peer.gone);
    let present = alive.map(|peer| peer.host.look(|peer| peer.metrics().clone()));
    for metrics in simulation.former_metrics.iter().cloned().chain(present) {
        report.wounds += metrics.wounds;
        report.aborts += metrics.aborts;
        for (branch, times) in metrics.branches {
            *report.branches.entry(branch).or_default() += times;
        }
        for (event, times) in metrics.rare {
            *report.rare.entry(event).or_default() += times;
        }
    }
    report.crashes = simulation.crashes;
    report.write_skews = world.grounds.skews(&audit::fates(world));
    let ledger = &world.recorder.lock().ledger;
    for number in 0..ledger.kept.len() {
        report.lost += u64::from(ledger.fate(number) == Fate::Lost);
    }
    report
}
