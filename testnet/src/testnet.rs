//! The main job: starts peer processes, creates a world in them, lets bots trade while peers die, and has the world
//! audited.
//!
//! It refuses to leave a peer process behind when it returns.

use crate::accounts::{self, First};
use crate::audit::Findings;
use crate::auditor::{Audited, Auditor, Created};
use crate::call_desk::Counts;
use crate::carry_out::{Course, Rules, carry_out};
use crate::check;
use crate::dump_files::DumpFolder;
use crate::dumping::Dumping;
use crate::exchange::Exchange;
use crate::faults;
use crate::hostile::Siege;
use crate::interrupt::Interrupt;
use crate::live_table;
use crate::naive::{self, folder_of};
use crate::net::Network;
use crate::numbers::grouped;
use crate::options::{Mode, RunOptions};
use crate::output::{self, Redrawn};
use crate::peers::{Peers, number_of};
use crate::protocol::{Settled, pack};
use crate::rate::Rate;
use crate::report::{Outcome, Report};
use crate::workloads::Workload;
use crate::workloads::desk::Desk;
use crate::workloads::plan::{Made, Plan};
use crate::world::Totals;
use anyhow::{Context, Result, bail};
use driftmesh::ObjectId;
use fastrand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long trades may take to end after the last order: transactions that run out of time are part of the work.
const WORK_LIMIT: Duration = Duration::from_secs(30);
/// How long acts that have no certain answer are asked for again after the last order.
const ASKING_LIMIT: Duration = Duration::from_secs(20);
/// How long the groups may take to become whole after the last fault.
const WHOLE_LIMIT: Duration = Duration::from_secs(30);
/// How often the exchange is given a push.
const TICK: Duration = Duration::from_millis(10);
/// Players that are searched for, of those whom the audit did not meet.
const MISSING_MAX: usize = 3;
/// Audits that are repeated because objects moved meanwhile.
const AUDITS_MAX: u32 = 10;

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With a report, which says whether the run counts.
    Reported(Box<Report>),
    /// By a signal.
    Interrupted(Interrupt),
}

/// Runs the testnet until it is done or interrupted, in a network of its own where one is given, besieged where that is
/// wanted. No peer process is left when this returns, and nothing of the network, whatever happens.
pub(crate) async fn run(
    options: &RunOptions,
    network: Option<Network>,
    siege: Option<&Siege>,
    interrupt: impl Future<Output = Interrupt>,
) -> Result<Ended> {
    let mut peers = match (options.mode, network) {
        (Mode::Mesh, None) => Peers::new(options.replicas, options.seed),
        (Mode::Mesh, Some(network)) => Peers::in_network(options.replicas, options.seed, network),
        (Mode::Naive, _) => Peers::of_zones(options.seed),
    };
    if options.mode == Mode::Naive {
        std::fs::create_dir(folder_of(&peers.meeting.mesh)).context("cannot create a folder for the zones")?;
    }
    let ended = tokio::select! {
        report = run_all(&mut peers, options, siege) => report.map(|report| Ended::Reported(Box::new(report))),
        interrupt = interrupt => Ok(Ended::Interrupted(interrupt)),
    };
    let is_good = match &ended {
        Ok(Ended::Reported(report)) => report.invalid.is_empty(),
        Ok(Ended::Interrupted(_)) => true,
        Err(_) => false,
    };
    if !is_good {
        peers.error_lines().iter().for_each(|line| output::error_line(line));
    }
    if let Some(siege) = siege {
        siege.ended(peers.ended_by_themselves(), &peers.exchange);
    }
    peers.end().await;
    if options.mode == Mode::Naive {
        // What is left of it is in the folder for such things.
        let _ = std::fs::remove_dir_all(folder_of(&peers.meeting.mesh));
    }
    ended
}

async fn run_all(peers: &mut Peers, options: &RunOptions, siege: Option<&Siege>) -> Result<Report> {
    let count = usize::try_from(options.peers).context("too many peers")?;
    peers.start(count).await?;
    output::line(&format!("{count} peers see each other; seed {}", peers.meeting.seed));
    let world = create_world(peers, options).await?;
    let mut dumping = match options.dump.as_deref() {
        Some(folder) => Some(Dumping::create(DumpFolder::open(folder)?, peers).await?),
        None => None,
    };
    output::line(&world.line());
    if let Some(note) = options.note_on_kills().filter(|_| peers.network().is_none()) {
        output::line(note);
    }
    let mut troubles = Vec::new();
    let course = work(peers, options, (&world, siege), dumping.as_mut()).await?;
    if let Some(siege) = siege {
        siege.lift(peers).await?;
    }
    become_whole(&peers.exchange, &mut troubles).await?;
    peers.learn_fates().await?;
    let mut calls = Counts::default();
    if let Some((dumping, folder)) = dumping.zip(options.dump.as_deref()) {
        calls = dumping.end(peers, &mut troubles).await?;
        if peers.network().is_some() {
            troubles.append(&mut check::faults_in(folder)?);
        }
    }
    troubles.append(&mut peers.contradictions().await?);
    let created = world.created(options);
    let Audited { findings: audit, scene } = match (options.mode, &created) {
        (Mode::Naive, Created::Trade(totals)) => {
            peers.settle().await?;
            Audited { findings: naive::audit(&peers.meeting.mesh, *totals)?, ..Audited::default() }
        }
        (Mode::Mesh | Mode::Naive, _) => audit(peers, &created, &mut troubles).await?,
    };
    troubles.append(&mut search_for_missing(peers, options.mode, &audit).await?);
    troubles.append(&mut peers.faults());
    let exchange = &peers.exchange;
    let begun = exchange.begun();
    let outcome = Outcome {
        seed: peers.meeting.seed,
        live: peers.names(&exchange.live()),
        verdict: exchange.ledger(|ledger| match options.mode {
            Mode::Mesh => match &world {
                World::Shares(_) => accounts::judge(ledger, &peers.world, First::Alike, &audit.players),
                World::Parts { plan, .. } => {
                    accounts::judge(ledger, &peers.world, First::Each(&plan.accounts()), &audit.players)
                }
            },
            Mode::Naive => accounts::judge_by_counts(ledger, &peers.world, &audit.players),
        }),
        lost_window: exchange.ledger(|ledger| course.lost_window(ledger, begun)),
        work: exchange.work(),
        course,
        calls,
        traffic: peers.network().map(Network::traffic),
        audit,
        created,
        invariants: scene.figures(),
        lives: scene.lives(),
        troubles,
    };
    Ok(Report::new(options, outcome))
}

/// The world that was created.
enum World {
    /// That of trades: how many players at each peer.
    Shares(Vec<usize>),
    /// That of another workload.
    Parts { plan: Plan, made: Made },
}

async fn create_world(peers: &mut Peers, options: &RunOptions) -> Result<World> {
    if options.workload == Workload::Trade {
        return Ok(World::Shares(peers.create_world(options.players()).await?));
    }
    let plan = Plan::of(options.workload, options.players());
    let mut rng = Rng::with_seed(peers.meeting.seed);
    let (made, _) = peers.create_parts(plan.clone(), &mut rng).await?;
    Ok(World::Parts { plan, made })
}

impl World {
    fn created(&self, options: &RunOptions) -> Created {
        match self {
            Self::Shares(_) => Created::Trade(Totals::of_players(options.players())),
            Self::Parts { plan, .. } => Created::Parts(plan.clone()),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Shares(shares) => {
                let totals = Totals::of_players(shares.iter().sum::<usize>() as u64);
                let [players, items, gold] = [totals.players, totals.items, totals.gold].map(grouped);
                format!("world: {players} players, {items} items, {gold} gold")
            }
            Self::Parts { plan, .. } => {
                let numbers = [plan.heroes, plan.cells, plan.bosses, plan.stalls, plan.items(), plan.gold()];
                let [heroes, cells, bosses, stalls, items, gold] = numbers.map(grouped);
                format!(
                    "world: {heroes} players, {cells} places, {bosses} bosses, {stalls} stalls, {items} items, {gold} gold"
                )
            }
        }
    }

    /// Lets the bots, or the players of a workload, begin.
    fn open(&self, peers: &Peers, options: &RunOptions, seed: u64) -> Result<()> {
        peers.exchange.keep_to(Rate::new(options.rate));
        match self {
            Self::Shares(shares) => peers.exchange.open(shares, options.locality, seed),
            Self::Parts { plan, made } => {
                let desk = Desk::new(options.workload, made.clone(), usize::try_from(options.peers)?, seed);
                peers.exchange.open_acts(desk, plan.accounts().len())
            }
        }
    }
}

/// Lets the bots trade while the plan of faults is carried out; ends when both have ended and all trades are answered.
async fn work(
    peers: &mut Peers,
    options: &RunOptions,
    (world, siege): (&World, Option<&Siege>),
    mut dumping: Option<&mut Dumping>,
) -> Result<Course> {
    let exchange = Arc::clone(&peers.exchange);
    tell_statuses(&exchange).await?;
    let run = Duration::from_secs(options.seconds);
    let mut rng = Rng::with_seed(peers.meeting.seed);
    world.open(peers, options, rng.u64(..))?;
    if let Some(dumping) = &mut dumping {
        dumping.begin(peers, run);
    }
    let plan = match peers.network() {
        Some(_) => faults::chaos(&options.only, run, &mut rng),
        None => faults::plan(options.kills(), options.pause, run, &mut rng),
    };
    let (together, restart, spares_first) = (options.together, options.restarts(), options.spares_first);
    let rules = Rules { together, restart, run, spares_first };
    let known = siege.map(|siege| siege.known(peers));
    let besieging = async {
        match siege.zip(known.as_ref()) {
            Some((siege, known)) => siege.lay(known, &exchange, run).await,
            None => Ok(()),
        }
    };
    let working = async {
        let faults = carry_out(peers, plan, rules, &mut rng);
        let ((), course, ()) = tokio::try_join!(show(&exchange, options.seconds, siege), faults, besieging)?;
        all_answered(&exchange).await?;
        if let Some(dumping) = dumping {
            dumping.end_work(&exchange).await?;
        }
        Ok(course)
    };
    let trouble = tokio::select! {
        done = working => return done,
        trouble = exchange.trouble() => trouble,
    };
    Err(match trouble.error {
        Some(error) => error.context(number_of(trouble.number)),
        None => peers.child(trouble.number)?.why_ended().await,
    })
}

/// Shows the table each second, and closes the exchange after the last: of those asked for, or of those that it takes to see
/// what late faults do.
async fn show(exchange: &Exchange, seconds: u64, siege: Option<&Siege>) -> Result<()> {
    let begun = tokio::time::Instant::from_std(exchange.begun());
    let mut table = Redrawn::new();
    for second in 1.. {
        let until = begun + Duration::from_secs(second);
        while tokio::time::Instant::now() < until {
            exchange.tick()?;
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + TICK)).await;
        }
        let is_last = second >= seconds && !exchange.is_prolonged();
        if is_last {
            exchange.close();
        }
        let mut lines = live_table::lines(second, seconds, &exchange.rows());
        lines.extend(siege.map(Siege::line));
        table.draw(&exchange.events(), &lines);
        if is_last {
            break;
        }
    }
    Ok(())
}

async fn all_answered(exchange: &Exchange) -> Result<()> {
    let begun = Instant::now();
    while exchange.under_way() > 0 {
        // What has no certain answer is asked for again.
        exchange.tick()?;
        if begun.elapsed() > ASKING_LIMIT {
            exchange.give_up_acts();
        }
        if begun.elapsed() > WORK_LIMIT {
            bail!("{} trades were not answered within {} s", exchange.under_way(), WORK_LIMIT.as_secs());
        }
        tokio::time::sleep(TICK).await;
    }
    exchange.events().iter().for_each(|event| output::line(event));
    Ok(())
}

/// Waits until every live peer has told how it stands now.
async fn tell_statuses(exchange: &Exchange) -> Result<()> {
    let begun = Instant::now();
    while !exchange.have_told_since(begun)? {
        if begun.elapsed() > WORK_LIMIT {
            bail!("a peer process did not tell its status within {} s", WORK_LIMIT.as_secs());
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// Waits until all groups are whole; if that takes too long, the troubles say why.
pub(crate) async fn become_whole(exchange: &Exchange, troubles: &mut Vec<String>) -> Result<()> {
    let begun = Instant::now();
    while !exchange.is_whole() {
        if begun.elapsed() > WHOLE_LIMIT {
            let told = |(peer, why)| format!("within {} s: {} {why}", WHOLE_LIMIT.as_secs(), number_of(peer));
            troubles.extend(exchange.not_whole().into_iter().map(told));
            break;
        }
        exchange.tick()?;
        tokio::time::sleep(TICK).await;
    }
    tell_statuses(exchange).await
}

/// Has the world counted while nothing moves. A count is repeated only when objects changed their owner meanwhile, never
/// because of what was found.
async fn audit(peers: &mut Peers, created: &Created, troubles: &mut Vec<String>) -> Result<Audited> {
    let before = peers.settle().await?;
    troubles.extend(before.iter().filter_map(unsettled));
    let auditor = Auditor::join(peers).await?;
    let findings = audit_in_peace(peers, &auditor, before, created).await;
    auditor.end().await;
    findings
}

async fn audit_in_peace(
    peers: &mut Peers,
    auditor: &Auditor,
    mut before: Vec<Settled>,
    created: &Created,
) -> Result<Audited> {
    for _ in 0..AUDITS_MAX {
        let findings = auditor.audit(created).await?;
        let after = peers.settle().await?;
        if after == before {
            return Ok(findings);
        }
        before = after;
    }
    bail!("objects still changed their owner during each of {AUDITS_MAX} audits, though the bots have ended");
}

/// What peers say of the first players whom the audit did not meet.
async fn search_for_missing(peers: &mut Peers, mode: Mode, audit: &Findings) -> Result<Vec<String>> {
    let missing = peers.world.iter().filter(|player| !audit.players.contains_key(player));
    let missing: Vec<ObjectId> = missing.copied().take(MISSING_MAX).collect();
    if mode == Mode::Naive || missing.is_empty() {
        return Ok(Vec::new());
    }
    let mut told = vec![format!("players whom the audit did not meet, among them {}", pack(&missing))];
    told.append(&mut peers.search(pack(&missing)).await?);
    Ok(told)
}

fn unsettled(peer: &Settled) -> Option<String> {
    let Settled { in_transit, fetching, .. } = peer;
    ((*in_transit, *fetching) != (0, 0)).then(|| {
        format!("a peer did not settle: {in_transit} objects are on their way from it, {fetching} are being fetched")
    })
}
