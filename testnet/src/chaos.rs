//! Carries out the plan of faults on the peer processes while the bots trade.
//!
//! It refuses to begin a fault while a group is not whole, unless told to; what finds no time then is not done, and
//! counted.

use crate::children::Child;
use crate::exchange::Exchange;
use crate::fates::Fate;
use crate::faults::{Fault, Planned};
use crate::ledger::{Entry, Ledger};
use crate::peers::{Peers, number_of};
use crate::protocol::{Answer, Order};
use anyhow::{Context, Result};
use fastrand::Rng;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a pause is.
const PAUSE: Duration = Duration::from_secs(5);
/// How long bots wait for a peer that does not answer before they go elsewhere.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much longer than asked for a run may become, because faults had to wait for whole groups.
const LATE_MAX: Duration = Duration::from_secs(15);
/// So long after a fault the bots trade at least: what they meet then is what the run is for.
const AFTERMATH: Duration = Duration::from_secs(3);
/// While faults are still to come the bots go on for so long at least.
const WAITING: Duration = Duration::from_secs(1);
/// How often it is looked whether all groups are whole.
const TICK: Duration = Duration::from_millis(20);
/// How often it is looked whether the ledger is long.
const LEDGER_EVERY: Duration = Duration::from_secs(1);
/// How much longer traffic is held than the victim lives, so that nothing goes out at the last moment.
const HOLD_MARGIN: Duration = Duration::from_secs(2);
/// How long a victim may take to hold its traffic.
const HOLD_LIMIT: Duration = Duration::from_secs(5);

/// A fault that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Happened {
    /// To which peer.
    pub(crate) peer: usize,
    /// When.
    pub(crate) at: Instant,
    /// What.
    pub(crate) fault: Fault,
}

/// All that came of a plan.
#[derive(Debug, Default)]
pub(crate) struct Chaos {
    /// The faults that happened.
    pub(crate) happened: Vec<Happened>,
    /// Faults for which no time was left.
    pub(crate) left_out: u64,
    /// Peers that were started in place of killed ones.
    pub(crate) restarts: u64,
}

/// What is still to come of a pause.
#[derive(Debug)]
struct Paused {
    peer: usize,
    at: Instant,
    is_deserted: bool,
}

/// How the plan is to be carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether faults do not wait for whole groups.
    pub(crate) together: bool,
    /// Whether a killed peer is started again.
    pub(crate) restart: bool,
    /// For how long the bots trade.
    pub(crate) run: Duration,
}

/// Carries a plan out, and has a long ledger shortened meanwhile. Returns when the bots have ended and no peer is paused.
pub(crate) async fn carry_out(peers: &mut Peers, plan: Vec<Planned>, rules: Rules, rng: &mut Rng) -> Result<Chaos> {
    let mut chaos = Chaos::default();
    let mut plan = VecDeque::from(plan);
    let mut paused: Vec<Paused> = Vec::new();
    let begun = peers.exchange.begun();
    let mut ledger_seen = begun;
    let is_late = |begun: Instant| begun.elapsed() >= rules.run + LATE_MAX;
    while begun.elapsed() < rules.run || !paused.is_empty() || (!plan.is_empty() && !is_late(begun)) {
        if !plan.is_empty() || !paused.is_empty() {
            peers.exchange.prolong(Instant::now() + WAITING);
        }
        end_pauses(peers, &mut paused)?;
        if ledger_seen.elapsed() >= LEDGER_EVERY {
            ledger_seen = Instant::now();
            peers.shorten_ledger().await?;
        }
        let is_due = !is_late(begun) && plan.front().is_some_and(|next| begun.elapsed() >= next.at);
        if is_due && (rules.together || peers.exchange.is_whole()) {
            let victim = choose_victim(&peers.exchange, chaos.happened.is_empty(), rng);
            if let (Some(planned), Some(victim)) = (plan.pop_front(), victim) {
                chaos.strike(peers, planned.fault, victim, rules, &mut paused).await?;
            }
        }
        tokio::time::sleep(TICK).await;
    }
    chaos.left_out += plan.len() as u64;
    Ok(chaos)
}

/// The busiest peer first; later ones by chance.
fn choose_victim(exchange: &Exchange, is_first: bool, rng: &mut Rng) -> Option<usize> {
    if is_first { exchange.busiest() } else { rng.choice(exchange.live()) }
}

fn end_pauses(peers: &mut Peers, paused: &mut Vec<Paused>) -> Result<()> {
    for pause in &mut *paused {
        if pause.at.elapsed() >= PATIENCE && !pause.is_deserted {
            pause.is_deserted = true;
            peers.exchange.deserted(pause.peer);
        }
    }
    for over in paused.extract_if(.., |pause| pause.at.elapsed() >= PAUSE) {
        peers.child(over.peer)?.go_on()?;
        peers.exchange.welcome(over.peer);
        peers.exchange.tell(format!("{} goes on", number_of(over.peer)));
    }
    Ok(())
}

impl Chaos {
    /// The longest time between the answer of a commit that was lost later and the fault that its peer met next.
    pub(crate) fn lost_window(&self, ledger: &Ledger, begun: Instant) -> Option<Duration> {
        let lost = ledger.entries().filter(|(_, _, fate)| *fate == Fate::Lost);
        let window = |(peer, entry, _): (usize, &Entry, Fate)| {
            let answered = begun + Duration::from_micros(u64::from(entry.at) * 100);
            let next = self.happened.iter().find(|fault| fault.peer == peer && fault.at >= answered)?;
            Some(next.at - answered)
        };
        lost.filter_map(window).max()
    }

    async fn strike(
        &mut self,
        peers: &mut Peers,
        fault: Fault,
        peer: usize,
        rules: Rules,
        paused: &mut Vec<Paused>,
    ) -> Result<()> {
        let at = match fault {
            Fault::Kill { hold } => kill(peers, peer, hold).await?,
            Fault::Pause => {
                let at = peers.exchange.paused(peer);
                peers.child(peer)?.stop()?;
                paused.push(Paused { peer, at, is_deserted: false });
                peers.exchange.tell(format!("{} is paused for {} s", number_of(peer), PAUSE.as_secs()));
                at
            }
        };
        peers.exchange.prolong(at + AFTERMATH);
        self.happened.push(Happened { peer, at, fault });
        if rules.restart && matches!(fault, Fault::Kill { .. }) {
            let newcomer = peers.start_another(peer).await.context("cannot start a peer in place of the killed one")?;
            peers.exchange.welcome(newcomer);
            self.restarts += 1;
            peers.exchange.tell(format!("{} joined in its place", number_of(newcomer)));
        }
        Ok(())
    }
}

async fn kill(peers: &mut Peers, peer: usize, hold: Option<Duration>) -> Result<Instant> {
    if let Some(hold) = hold {
        hold_traffic(peers.child(peer)?, hold).await?;
    }
    let at = peers.exchange.killed(peer);
    peers.child(peer)?.kill()?;
    let held = hold.map(|hold| format!(", {} ms after its last word to the others", hold.as_millis()));
    peers.exchange.tell(format!("{} is killed{}", number_of(peer), held.unwrap_or_default()));
    Ok(at)
}

/// Lets nothing of the victim reach other peers while its callers are still answered. It is killed before that ends.
async fn hold_traffic(victim: &mut Child, hold: Duration) -> Result<()> {
    let ms = u64::try_from((hold + HOLD_MARGIN).as_millis()).unwrap_or(u64::MAX);
    victim.order(&Order::HoldTraffic { ms }).await?;
    victim.take(HOLD_LIMIT, |answer| matches!(answer, Answer::Holding).then_some(())).await?;
    tokio::time::sleep(hold).await;
    Ok(())
}
