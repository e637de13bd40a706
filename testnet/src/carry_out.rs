//! Carries out the plan of faults on the peer processes and their network while the bots trade.
//!
//! It refuses to begin a fault while another is going on or a group is not whole, unless told to; what finds no time then
//! is not done, and counted. In the end the network is whole.

use crate::children::Child;
use crate::exchange::Exchange;
use crate::fates::Fate;
use crate::faults::{Fault, Planned, Trouble};
use crate::ledger::{Entry, Ledger};
use crate::net::links::{Effect, LinkFault, Which};
use crate::peers::{Peers, number_of};
use crate::protocol::{Answer, Order};
use crate::soak::{Kept, SPARED};
use anyhow::{Context, Result};
use driftmesh::transport::RefuseReason;
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
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
/// After so long the former of two processes of one peer must know that there is another.
const FENCED_WITHIN: Duration = Duration::from_secs(4);
/// How often it is looked whether all groups are whole.
const TICK: Duration = Duration::from_millis(20);
/// How often it is looked whether the ledger is long.
const LEDGER_EVERY: Duration = Duration::from_secs(1);
/// How much longer traffic is held than the victim lives, so that nothing goes out at the last moment.
const HOLD_MARGIN: Duration = Duration::from_secs(2);
/// How long a victim may take to hold its traffic.
const HOLD_LIMIT: Duration = Duration::from_secs(5);

/// A fault that happened.
#[derive(Clone, Copy, PartialEq, Debug)]
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
pub(crate) struct Course {
    /// The faults that happened. Of those of the network that concern no single peer, the peer says nothing.
    pub(crate) happened: Vec<Happened>,
    /// Faults for which no time was left, by kind.
    pub(crate) left_out: BTreeMap<&'static str, u64>,
    /// Peers that were started in place of killed ones.
    pub(crate) restarts: u64,
    /// What was wrong.
    pub(crate) troubles: Vec<String>,
    /// What the first peer keeps, over time, where it is spared.
    pub(crate) kept: Kept,
}

/// What is still to come of a pause.
#[derive(Debug)]
struct Paused {
    peer: usize,
    at: Instant,
    is_deserted: bool,
}

/// What is still to come of a fault of the network.
#[derive(Debug)]
struct Ongoing {
    until: Instant,
    what: &'static str,
}

/// A peer of which there are two processes.
#[derive(Debug)]
struct Copied {
    original: usize,
    at: Instant,
    /// Since when the network is whole.
    in_peace_since: Instant,
    is_deserted: bool,
}

/// What is going on.
#[derive(Debug, Default)]
struct Going {
    paused: Vec<Paused>,
    ongoing: Vec<Ongoing>,
    copied: Vec<Copied>,
}

impl Going {
    fn is_over(&self) -> bool {
        self.paused.is_empty() && self.ongoing.is_empty() && self.copied.is_empty()
    }
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
    /// Whether the first peer is never killed or paused.
    pub(crate) spares_first: bool,
}

/// Carries a plan out, and has a long ledger shortened meanwhile. Returns when the bots have ended and nothing is going on.
pub(crate) async fn carry_out(peers: &mut Peers, plan: Vec<Planned>, rules: Rules, rng: &mut Rng) -> Result<Course> {
    let mut course = Course::default();
    let mut plan = VecDeque::from(plan);
    let mut going = Going::default();
    let begun = peers.exchange.begun();
    let mut ledger_seen = begun;
    let is_late = |begun: Instant| begun.elapsed() >= rules.run + LATE_MAX;
    // Who was tried right after a kill is tried until he is served again: that is what is to be told.
    loop {
        let is_missed = !is_late(begun) && peers.exchange.awaits_players();
        let is_over = begun.elapsed() >= rules.run && going.is_over() && (plan.is_empty() || is_late(begun));
        if is_over && !is_missed {
            break;
        }
        if !plan.is_empty() || !going.is_over() || is_missed {
            peers.exchange.prolong(Instant::now() + WAITING);
        }
        end_pauses(peers, &mut going.paused)?;
        end_troubles(peers, &mut going.ongoing);
        if !going.ongoing.is_empty() {
            // Who is cut off learns nothing.
            going.copied.iter_mut().for_each(|copied| copied.in_peace_since = Instant::now());
        }
        course.end_copied(peers, &mut going.copied)?;
        if rules.spares_first {
            course.kept.look(|| peers.exchange.statuses());
        }
        if ledger_seen.elapsed() >= LEDGER_EVERY {
            ledger_seen = Instant::now();
            peers.shorten_ledger().await?;
        }
        let due = plan.front().filter(|next| !is_late(begun) && begun.elapsed() >= next.at);
        let may_begin = |next: &Planned| {
            rules.together || (next.along && !going.is_over()) || (going.is_over() && peers.exchange.is_whole())
        };
        if due.is_some_and(may_begin) {
            let victim = choose_victim(&peers.exchange, course.happened.is_empty(), rules.spares_first, rng);
            // Where nobody can be struck now, it waits for somebody.
            if let Some((victim, planned)) = victim.and_then(|victim| Some((victim, plan.pop_front()?))) {
                course.strike(peers, planned.fault, victim, &mut going, rules.restart, rng).await?;
            }
        }
        tokio::time::sleep(TICK).await;
    }
    for planned in plan {
        *course.left_out.entry(planned.fault.kind()).or_default() += 1;
    }
    if let Some(network) = peers.network() {
        network.mend();
    }
    Ok(course)
}

/// The busiest peer first; later ones by chance.
fn choose_victim(exchange: &Exchange, is_first: bool, spares_first: bool, rng: &mut Rng) -> Option<usize> {
    if spares_first {
        return rng.choice(exchange.live().into_iter().filter(|peer| *peer != SPARED).collect::<Vec<_>>());
    }
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

/// Notes which faults of the network are over.
fn end_troubles(peers: &Peers, ongoing: &mut Vec<Ongoing>) {
    for over in ongoing.extract_if(.., |trouble| Instant::now() >= trouble.until) {
        peers.exchange.disturbed();
        peers.exchange.tell(format!("the network is rid of its {}", over.what));
    }
}

impl Course {
    /// The longest time between the answer of a commit that was lost later and the fault that its peer met next. After
    /// faults of the network nothing says when its peer was cut off.
    pub(crate) fn lost_window(&self, ledger: &Ledger, begun: Instant) -> Option<Duration> {
        if self.happened.iter().any(|happened| matches!(happened.fault, Fault::Network { .. } | Fault::Copy)) {
            return None;
        }
        let lost = ledger.entries().filter(|(_, _, fate)| *fate == Fate::Lost);
        let window = |(peer, entry, _): (usize, &Entry, Fate)| {
            let answered = begun + Duration::from_micros(u64::from(entry.at) * 100);
            let next = self.happened.iter().find(|fault| fault.peer == peer && fault.at >= answered)?;
            Some(next.at - answered)
        };
        lost.filter_map(window).max()
    }

    /// How many faults happened, by kind.
    pub(crate) fn done(&self) -> BTreeMap<&'static str, u64> {
        let mut done = BTreeMap::new();
        for happened in &self.happened {
            *done.entry(happened.fault.kind()).or_default() += 1;
        }
        if self.restarts > 0 {
            done.insert("restart", self.restarts);
        }
        done
    }

    async fn strike(
        &mut self,
        peers: &mut Peers,
        fault: Fault,
        peer: usize,
        going: &mut Going,
        restarts: bool,
        rng: &mut Rng,
    ) -> Result<()> {
        let at = match fault {
            Fault::Kill { hold } => {
                let at = kill(peers, peer, hold).await?;
                if restarts {
                    self.restart(peers, peer).await?;
                }
                at
            }
            Fault::Pause => {
                let at = peers.exchange.paused(peer);
                peers.child(peer)?.stop()?;
                going.paused.push(Paused { peer, at, is_deserted: false });
                peers.exchange.tell(format!("{} is paused for {} s", number_of(peer), PAUSE.as_secs()));
                at
            }
            Fault::Copy => {
                let (at, copied) = self.copy(peers, peer).await?;
                going.copied.push(copied);
                at
            }
            Fault::Network { what, lasts } => {
                let at = Instant::now();
                let Some(ongoing) = trouble(peers, what, lasts, peer, rng) else {
                    *self.left_out.entry(fault.kind()).or_default() += 1;
                    return Ok(());
                };
                going.ongoing.push(ongoing);
                at
            }
        };
        peers.exchange.prolong(at + AFTERMATH);
        self.happened.push(Happened { peer, at, fault });
        Ok(())
    }

    /// Starts a second process as a peer that runs, and goes on running: it answers its bots until they lose patience.
    async fn copy(&mut self, peers: &mut Peers, original: usize) -> Result<(Instant, Copied)> {
        peers.exchange.tell(format!("a second process is started as {}", number_of(original)));
        let copy = peers.start_copy(original).await.context("cannot start a second process as a peer that runs")?;
        let at = peers.exchange.paused(original);
        peers.exchange.welcome(copy);
        peers.exchange.tell(format!("{} joined as {}", number_of(copy), number_of(original)));
        Ok((at, Copied { original, at, in_peace_since: at, is_deserted: false }))
    }

    /// Ends the former processes of peers that have another one, once they had time to learn of it; they must have.
    fn end_copied(&mut self, peers: &mut Peers, copied: &mut Vec<Copied>) -> Result<()> {
        for copied in &mut *copied {
            if copied.at.elapsed() >= PATIENCE && !copied.is_deserted {
                copied.is_deserted = true;
                peers.exchange.deserted(copied.original);
            }
        }
        let fenced = RefuseReason::DuplicateIncarnation.to_string();
        for over in copied.extract_if(.., |copied| copied.at.elapsed() >= FENCED_WITHIN) {
            let (original, name) = (over.original, number_of(over.original));
            let told = peers.child(original)?.error_lines();
            match told.iter().find(|line| line.contains(&fenced)) {
                Some(line) => peers.exchange.tell(format!("the former process of {name} said: {line}")),
                // It was cut off, and dies so.
                None if over.in_peace_since.elapsed() < FENCED_WITHIN => {}
                None => self.troubles.push(format!("the former process of {name} was not told that there is another")),
            }
            peers.exchange.ended(original);
            peers.child(original)?.kill()?;
        }
        Ok(())
    }

    /// Starts a peer in place of a killed one.
    async fn restart(&mut self, peers: &mut Peers, killed: usize) -> Result<()> {
        let newcomer = peers.start_another(killed).await.context("cannot start a peer in place of the killed one")?;
        peers.exchange.welcome(newcomer);
        self.restarts += 1;
        peers.exchange.tell(format!("{} joined in its place", number_of(newcomer)));
        Ok(())
    }
}

/// Lets trouble of the network begin, about this peer where it is about one. `None` where there is no network, or nobody
/// else whom it could part from the peer.
fn trouble(peers: &Peers, what: Trouble, lasts: Duration, peer: usize, rng: &mut Rng) -> Option<Ongoing> {
    let network = peers.network()?;
    let mut others: Vec<usize> = peers.exchange.live().into_iter().filter(|other| *other != peer).collect();
    rng.shuffle(&mut others);
    let (alone, names) = (peers.machines(&[peer]), |peers: &[usize]| {
        peers.iter().map(|peer| number_of(*peer)).collect::<Vec<_>>().join(", ")
    });
    let pair = || Some((*alone.first()?, *peers.machines(others.get(..1)?).first()?));
    let percent = |share: f64| (100.0 * share).round();
    let (which, effect, told) = match what {
        Trouble::Partition => {
            let mut part = vec![peer];
            part.extend(others.iter().take(others.len() / 2).copied());
            part.truncate(rng.usize(1..=part.len()).max(2));
            let told = format!("{} reach no others", names(&part));
            (Which::Across(peers.machines(&part)), Effect::Cut, told)
        }
        Trouble::Isolation => (Which::Across(alone), Effect::Cut, format!("{} is isolated", number_of(peer))),
        Trouble::Deaf => (Which::Into(alone), Effect::Cut, format!("{} hears nobody", number_of(peer))),
        Trouble::Mute => (Which::OutOf(alone), Effect::Cut, format!("nobody hears {}", number_of(peer))),
        Trouble::CutLink => {
            let (one, other) = pair()?;
            let told = format!("{} and {} do not reach each other", number_of(peer), names(&others[..1]));
            (Which::Between(one, other), Effect::Cut, told)
        }
        Trouble::OneWayLink => {
            let (one, other) = pair()?;
            let told = format!("{} does not reach {}", number_of(peer), names(&others[..1]));
            (Which::OneWay(one, other), Effect::Cut, told)
        }
        Trouble::Flapping { turn } => {
            let told = format!("{} is isolated every other {} ms", number_of(peer), turn.as_millis());
            (Which::Across(alone), Effect::Flap { turn }, told)
        }
        Trouble::Loss { share } => {
            (Which::All, Effect::Lose(share), format!("{} % of all packets get lost", percent(share)))
        }
        Trouble::Delay { least, jitter } | Trouble::Reordering { least, jitter } => {
            let reorders = matches!(what, Trouble::Reordering { .. });
            let order = if reorders { "and in another order" } else { "in order" };
            let (least_ms, most_ms) = (least.as_millis(), (least + jitter).as_millis());
            let told = format!("packets come {least_ms} to {most_ms} ms late, {order}");
            (Which::All, Effect::Delay { least, jitter, reorders }, told)
        }
    };
    network.begin(LinkFault { which, effect, lasts });
    peers.exchange.disturbed();
    peers.exchange.tell(format!("for {:.1} s {told}", lasts.as_secs_f64()));
    let kind = Fault::Network { what, lasts }.kind();
    Some(Ongoing { until: Instant::now() + lasts, what: kind })
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
