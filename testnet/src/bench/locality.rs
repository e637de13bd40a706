//! `cargo testnet bench locality`: whether the objects of players who meet come together by themselves, and how soon again
//! when a crowd goes elsewhere.
//!
//! Real peer processes. The world is regions of cells with players; each object is made at a peer by chance, and each
//! player's commands are submitted at one peer by chance, which follows neither. Commands name the player and nothing else.
//! It refuses to report anything good when a command failed, or when a share is one of too few commits.

use super::work::{Work, Worked};
use super::{runtime, with_peers, worked};
use crate::numbers::{at_quantile, float, grouped, ratio, rounded, tenths, thousandths};
use crate::options::LocalityOptions;
use crate::output::{self, Redrawn};
use crate::peers::Peers;
use crate::protocol::{Answer, Order, pack};
use crate::testnet::become_whole;
use crate::workloads::plan::{Made, Plan};
use anyhow::Result;
use driftmesh::ObjectId;
use fastrand::Rng;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peer processes, and the followers of each.
const PEERS: usize = 5;
const REPLICAS: u8 = 2;
/// Commands under way at once at each gateway, at most.
const CLIENTS: u64 = 40;
/// What must be reached.
const SHARE_MIN: f64 = 0.95;
const RESETTLE_MAX_S: f64 = 10.0;
const MOVES_MAX: f64 = 0.2;
const OWNED_MAX: f64 = 0.4;
const PAIRS_MIN: f64 = 0.3;
/// A command may be given up now and then; of 1,000 so many.
const FAILED_MAX: f64 = 0.001;

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Peer processes.
    pub(crate) peers: u64,
    /// Followers of each.
    pub(crate) replicas: u64,
    /// Regions, cells of each, and players.
    pub(crate) regions: u64,
    pub(crate) cells: u64,
    pub(crate) players: u64,
    /// How long it was measured.
    pub(crate) seconds: u64,
    /// Commits per second.
    pub(crate) commits_per_s: f64,
    /// Share of the commits that awaited no message where they ran, in the last third of the first half.
    pub(crate) local_share_settled: f64,
    /// In the first second.
    pub(crate) local_share_first: f64,
    /// In the last third of the second half.
    pub(crate) local_share_end: f64,
    /// From the start until that share was reached for good; `None` if it never was.
    pub(crate) settle_s: Option<f64>,
    /// From when the crowd was sent elsewhere.
    pub(crate) resettle_s: Option<f64>,
    /// Until the last of the crowd had gone.
    pub(crate) crowd_moved_s: Option<f64>,
    /// Players in that crowd.
    pub(crate) crowd: u64,
    /// How often an object moved, for each object and minute: in the same third as `local_share_settled`.
    pub(crate) moves_per_object_minute: f64,
    /// Objects that moved before that third, for each object.
    pub(crate) moves_per_object_before: f64,
    /// The largest share of the objects that one peer had in that third, and in the whole run.
    pub(crate) owned_max_share: f64,
    pub(crate) owned_max_share_ever: f64,
    /// Share of the commits that were on the objects of two players.
    pub(crate) two_player_share: f64,
    /// Share of the tasks that another peer ran than the one that they were submitted at, in that third.
    pub(crate) forwarded_share: f64,
    /// From a command to its answer in that third: of each peer the quantile, of these the highest; microseconds.
    pub(crate) command_p50_us: u32,
    pub(crate) command_p99_us: u32,
    /// CPU time of all peers for one commit, microseconds.
    pub(crate) cpu_us_per_commit: f64,
    /// Commands that were given up.
    pub(crate) failed: u64,
    /// The local share of each second.
    pub(crate) local_shares: Vec<f64>,
    /// Objects that moved in each second.
    pub(crate) moves: Vec<u64>,
    /// What missed its bar.
    pub(crate) missed: Vec<String>,
    /// Why the figures do not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// One second of all peers.
#[derive(Clone, Debug, Default)]
struct Second {
    at: Duration,
    commits: u64,
    local: u64,
    arrived: u64,
    done: u64,
    pairs: u64,
    failed: u64,
    forwarded: u64,
    owned_max: f64,
    travelling: u64,
    cpu_us: u64,
    p50_us: u32,
    p99_us: u32,
    error: Option<String>,
}

impl Second {
    fn share(&self) -> f64 {
        ratio(self.local, self.commits)
    }
}

/// Measures and prints.
pub(crate) fn run(options: &LocalityOptions) -> Result<Figures> {
    let measured = with_peers((PEERS, REPLICAS), options.seed, async |peers| measure(peers, options).await);
    let figures = runtime()?.block_on(measured)?;
    tell(&figures);
    Ok(figures)
}

async fn measure(peers: &mut Peers, options: &LocalityOptions) -> Result<Figures> {
    let mut rng = Rng::with_seed(peers.meeting.seed);
    let cells = options.regions * options.cells;
    let plan = Plan { cells, region: options.cells, heroes: options.players, ..Plan::default() };
    let (made, places) = peers.create_parts(plan, &mut rng).await?;
    let mut figures = Figures {
        peers: PEERS as u64,
        replicas: REPLICAS.into(),
        regions: options.regions,
        cells: options.cells,
        players: options.players,
        seconds: options.seconds,
        ..Figures::default()
    };
    become_whole(&peers.exchange, &mut figures.invalid).await?;
    output::line(&format!(
        "{PEERS} peers; {} regions of {} cells, {} players; seed {}",
        options.regions,
        options.cells,
        grouped(options.players),
        peers.meeting.seed
    ));
    let gateways: Vec<usize> = made.heroes.iter().map(|_| rng.usize(..PEERS)).collect();
    begin(peers, options, &made, &gateways, &mut rng).await?;
    let crowd = Crowd::of_first_region(options, &made, &places, &gateways);
    figures.crowd = crowd.heroes.iter().map(Vec::len).sum::<usize>() as u64;
    let seconds = watch(peers, options, &crowd, &mut rng, &made).await?;
    figures.invalid.append(&mut peers.faults());
    figures.sum_up(&seconds, options, made.heroes.len() as u64 + cells);
    Ok(figures)
}

/// Lets every gateway give its players' commands.
async fn begin(
    peers: &mut Peers,
    options: &LocalityOptions,
    made: &Made,
    gateways: &[usize],
    rng: &mut Rng,
) -> Result<()> {
    // Each client's share of the pace.
    let every_us = 1_000_000 * CLIENTS * PEERS as u64 / options.rate.max(1);
    for peer in 0..PEERS {
        let heroes = made.heroes.iter().zip(gateways).filter(|(_, gateway)| **gateway == peer);
        let heroes: Vec<ObjectId> = heroes.map(|(hero, _)| *hero).collect();
        let work = Work::Crowd { heroes: pack(&heroes), clients: CLIENTS, every_us, seed: rng.u64(..) };
        peers.child(peer)?.order(&Order::BeginWork { work }).await?;
    }
    for peer in 0..PEERS {
        peers
            .child(peer)?
            .take(Duration::from_secs(10), |answer| matches!(answer, Answer::Ready).then_some(()))
            .await?;
    }
    Ok(())
}

/// The players of the first region, by their gateways: they walk within it until they are sent elsewhere.
struct Crowd {
    heroes: Vec<Vec<ObjectId>>,
}

impl Crowd {
    fn of_first_region(options: &LocalityOptions, made: &Made, places: &[Option<usize>], gateways: &[usize]) -> Self {
        let region = usize::try_from(options.cells).unwrap_or(usize::MAX);
        let mut heroes = vec![Vec::new(); PEERS];
        for ((hero, place), gateway) in made.heroes.iter().zip(places).zip(gateways) {
            if place.is_some_and(|place| place < region) {
                heroes[*gateway].push(*hero);
            }
        }
        Self { heroes }
    }
}

/// Watches all peers second by second; half-way the crowd is sent to the region that is farthest.
async fn watch(
    peers: &mut Peers,
    options: &LocalityOptions,
    crowd: &Crowd,
    rng: &mut Rng,
    made: &Made,
) -> Result<Vec<Second>> {
    let all: Vec<usize> = (0..PEERS).collect();
    let mut before = peers.all(&all, &Order::WorkDone, worked).await?;
    let begun = Instant::now();
    let mut seconds: Vec<Second> = Vec::new();
    let mut table = Redrawn::new();
    for number in 1..=options.seconds {
        tokio::time::sleep_until((begun + Duration::from_secs(number)).into()).await;
        let now = peers.all(&all, &Order::WorkDone, worked).await?;
        let second = second_of(begun.elapsed(), &before, &now);
        let share = 100.0 * second.share();
        let line = format!(
            "{number:>3}/{} s  {:>7} commits  {share:>5.1} % local  {:>6} moves  {:>5.1} % of the objects at one peer  {:>4} \
             travelling  p99 {} us",
            options.seconds,
            grouped(second.commits),
            grouped(second.arrived),
            100.0 * second.owned_max,
            second.travelling,
            grouped(second.p99_us.into()),
        );
        table.draw(&[], &[line]);
        table = Redrawn::new();
        seconds.push(second);
        before = now;
        if number == options.seconds / 2 {
            let target = options.regions / 2;
            for (peer, heroes) in crowd.heroes.iter().enumerate() {
                let place = |_| {
                    let cell = target * options.cells + rng.u64(..options.cells);
                    usize::try_from(cell).ok().and_then(|cell| made.cells.get(cell)).copied()
                };
                let places: Vec<ObjectId> = heroes.iter().filter_map(place).collect();
                let order = Order::Travel { heroes: pack(heroes), places: pack(&places) };
                peers.all(&[peer], &order, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
            }
        }
    }
    Ok(seconds)
}

fn second_of(at: Duration, before: &[Worked], now: &[Worked]) -> Second {
    let gained = |part: fn(&Worked) -> u64| -> u64 {
        before.iter().zip(now).map(|(before, now)| part(now).saturating_sub(part(before))).sum()
    };
    let sum = |part: fn(&Worked) -> u64| now.iter().map(part).sum::<u64>();
    let quantile = |quantile| now.iter().map(|worked| at_quantile(&worked.samples_us, quantile)).max().unwrap_or(0);
    let owned = sum(|worked| worked.owned);
    let most = now.iter().map(|worked| worked.owned).max().unwrap_or(0);
    Second {
        at,
        commits: gained(|worked| worked.commits),
        local: gained(|worked| worked.local_commits),
        arrived: gained(|worked| worked.arrived),
        forwarded: gained(|worked| worked.tasks_for_others),
        cpu_us: gained(|worked| worked.cpu_us),
        done: sum(|worked| worked.done),
        pairs: sum(|worked| worked.pairs),
        failed: sum(|worked| worked.failed),
        travelling: sum(|worked| worked.travelling),
        owned_max: ratio(most, owned),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        error: now.iter().find_map(|worked| worked.error.clone()),
    }
}

/// From `since` until the share is reached in each second that follows. `None` if it is not in the last one.
fn settled_after(seconds: &[Second], since: Duration) -> Option<f64> {
    let last_below = seconds.iter().rposition(|second| second.share() < SHARE_MIN);
    let from = match last_below {
        Some(last) if last + 1 == seconds.len() => return None,
        Some(last) => seconds[last].at,
        None => since,
    };
    Some(tenths((from.saturating_sub(since)).as_secs_f64()))
}

impl Figures {
    fn sum_up(&mut self, seconds: &[Second], options: &LocalityOptions, objects: u64) {
        let half = usize::try_from(options.seconds / 2).unwrap_or(0).min(seconds.len());
        let (first, second) = seconds.split_at(half);
        let settled = &first[half - half / 3..];
        let end = &second[second.len() - second.len() / 3..];
        let sum = |seconds: &[Second], part: fn(&Second) -> u64| seconds.iter().map(part).sum::<u64>();
        let share =
            |seconds: &[Second]| thousandths(ratio(sum(seconds, |one| one.local), sum(seconds, |one| one.commits)));
        self.local_share_first = first.first().map_or(0.0, |second| thousandths(second.share()));
        self.local_share_settled = share(settled);
        self.local_share_end = share(end);
        self.settle_s = settled_after(first, Duration::ZERO);
        let moved = first.last().map_or(Duration::ZERO, |second| second.at);
        self.resettle_s = settled_after(second, moved);
        let gone = second.iter().find(|second| second.travelling == 0).map(|second| second.at.saturating_sub(moved));
        self.crowd_moved_s = gone.map(|gone| tenths(gone.as_secs_f64()));
        let minutes = float(settled.len() as u64) / 60.0;
        self.moves_per_object_minute = thousandths(ratio(sum(settled, |one| one.arrived), objects) / minutes.max(1e-9));
        let before = &first[..half - half / 3];
        self.moves_per_object_before = thousandths(ratio(sum(before, |one| one.arrived), objects));
        let most = |seconds: &[Second]| thousandths(seconds.iter().map(|one| one.owned_max).fold(0.0, f64::max));
        (self.owned_max_share, self.owned_max_share_ever) = (most(settled), most(seconds));
        let done = sum(seconds, |one| one.done);
        self.two_player_share = thousandths(ratio(sum(seconds, |one| one.pairs), done));
        self.forwarded_share = thousandths(ratio(sum(settled, |one| one.forwarded), sum(settled, |one| one.done)));
        let elapsed = seconds.last().map_or(1.0, |second| second.at.as_secs_f64());
        let commits = sum(seconds, |one| one.commits);
        self.commits_per_s = (float(commits) / elapsed).round();
        self.cpu_us_per_commit = tenths(ratio(sum(seconds, |one| one.cpu_us), commits));
        self.command_p50_us = settled.iter().map(|one| one.p50_us).max().unwrap_or(0);
        self.command_p99_us = settled.iter().map(|one| one.p99_us).max().unwrap_or(0);
        self.failed = sum(seconds, |one| one.failed);
        self.local_shares = seconds.iter().map(|second| thousandths(second.share())).collect();
        self.moves = seconds.iter().map(|second| second.arrived).collect();
        self.judge(done, seconds.iter().find_map(|second| second.error.clone()));
    }

    fn judge(&mut self, done: u64, error: Option<String>) {
        let mut miss = |is_good: bool, what: String| {
            if !is_good {
                self.missed.push(what);
            }
        };
        let share = self.local_share_settled;
        miss(share >= SHARE_MIN, format!("local_share_settled {share}, at least {SHARE_MIN}"));
        let resettled = self.resettle_s.is_some_and(|resettled| resettled <= RESETTLE_MAX_S);
        miss(resettled, format!("resettle_s {:?}, at most {RESETTLE_MAX_S}", self.resettle_s));
        let moves = self.moves_per_object_minute;
        miss(moves <= MOVES_MAX, format!("moves_per_object_minute {moves}, at most {MOVES_MAX}"));
        let owned = self.owned_max_share;
        miss(owned <= OWNED_MAX, format!("owned_max_share {owned}, at most {OWNED_MAX}"));
        if self.two_player_share < PAIRS_MIN {
            self.invalid.push(format!("two_player_share {}, at least {PAIRS_MIN}", self.two_player_share));
        }
        if ratio(self.failed, done) > FAILED_MAX {
            self.invalid.push(format!("{} commands failed: {}", self.failed, error.unwrap_or_default()));
        }
    }
}

fn tell(figures: &Figures) {
    let time = |time: Option<f64>| time.map_or_else(|| "never".to_owned(), |time| format!("after {time} s"));
    output::line(&format!(
        "{:.1} % of the commits local once settled ({}), {:.1} % in the first second; {} moves per object and minute then, {} per \
         object before",
        100.0 * figures.local_share_settled,
        time(figures.settle_s),
        100.0 * figures.local_share_first,
        figures.moves_per_object_minute,
        figures.moves_per_object_before,
    ));
    output::line(&format!(
        "a crowd of {} went to another region, all of it {}; settled again {}, {:.1} % local at the end",
        figures.crowd,
        time(figures.crowd_moved_s),
        time(figures.resettle_s),
        100.0 * figures.local_share_end,
    ));
    output::line(&format!(
        "{} commits/s, {:.1} % on two players' objects, {:.1} % forwarded, p50 {} us, p99 {} us, {} us CPU each; at most {:.1} % of \
         the objects at one peer",
        rounded(figures.commits_per_s),
        100.0 * figures.two_player_share,
        100.0 * figures.forwarded_share,
        figures.command_p50_us,
        figures.command_p99_us,
        figures.cpu_us_per_commit,
        100.0 * figures.owned_max_share,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: u64, local: u64) -> Second {
        Second { at: Duration::from_secs(at), commits: 100, local, done: 100, pairs: 40, ..Second::default() }
    }

    #[test]
    fn settled_is_from_the_last_second_below_on() {
        let shares = [50, 96, 90, 95, 99];
        let seconds: Vec<Second> = (11..).zip(shares).map(|(at, local)| second(at, local)).collect();
        assert_eq!(settled_after(&seconds, Duration::from_secs(10)), Some(3.0));
        assert_eq!(settled_after(&seconds[..3], Duration::from_secs(10)), None);
        assert_eq!(settled_after(&seconds[3..], Duration::from_secs(13)), Some(0.0));
    }

    #[test]
    fn what_misses_its_bar_is_told() {
        let options = LocalityOptions { seconds: 12, regions: 2, cells: 2, players: 10, rate: 1, seed: None };
        let missed = |local| {
            let seconds: Vec<Second> = (1..=12).map(|at| second(at, local)).collect();
            let mut figures = Figures::default();
            figures.sum_up(&seconds, &options, 10);
            (figures.missed.len(), figures.invalid.len(), figures.local_share_settled)
        };
        assert_eq!(missed(96), (0, 0, 0.96));
        assert_eq!(missed(90), (2, 0, 0.9));
    }
}
