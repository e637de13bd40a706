//! `cargo testnet bench failover`: how long the objects of a peer are out of reach after it was killed, and after it was
//! frozen, and what the others notice of that.
//!
//! Real peer processes, all with followers and a steady work of their own. One owns the objects; in the moment of its
//! fault all others begin to change these, each an equal part, some at a time. Times are taken outside of the peers, when
//! their answers come in. It refuses to report anything good when an object is not there in the end, or was not changed
//! just once.

use super::{above, created, runtime, with_peers};
use crate::auditor::{Auditor, Gaps};
use crate::marks::Mark;
use crate::output;
use crate::peers::{Peers, number_of};
use crate::protocol::{Answer, Order, pack, unpack};
use crate::testnet::become_whole;
use anyhow::{Context, Result, anyhow, bail};
use driftmesh::{Object, decode_object};
use driftmesh_model::stored_header;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peers beside the one that fails: one more than its followers, so that its group can become whole again.
const OTHERS: usize = 3;
/// Followers of each group.
const REPLICAS: u8 = 2;
/// Marks that each of the others owns and works with.
const OWN: u64 = 1_000;
/// How long gaps are looked for before the fault, and after it.
const STRETCH: Duration = Duration::from_secs(4);
/// How long the others may take for all objects.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked for all objects in the end, and how long nothing is done before.
const LOOKS_MAX: u32 = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// What must be reached, milliseconds: the first commit on the peer's objects, one on 99 % of them, and the longest gap elsewhere,
/// unless it is within so many times that before the fault.
const FIRST_MS_MAX: f64 = 1_000.0;
const P99_MS_MAX: f64 = 2_000.0;
const GAP_MS_MAX: f64 = 100.0;
const GAP_TIMES_MAX: f64 = 3.0;
/// Between two looks for answers.
const TICK: Duration = Duration::from_millis(1);

/// The figures; `None` for what never came.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// How many objects the peer owned.
    pub(crate) objects: u64,
    /// Peer processes.
    pub(crate) peers: u64,
    /// Followers of each group.
    pub(crate) replicas: u64,
    /// From the kill to the first commit on an object of the killed peer, milliseconds.
    pub(crate) first_ms: Option<f64>,
    /// From the kill until 99 % of its objects had one.
    pub(crate) p99_ms: Option<f64>,
    /// As `first_ms`, for a peer that is frozen (SIGSTOP).
    pub(crate) frozen_first_ms: Option<f64>,
    /// As `p99_ms`, for a peer that is frozen.
    pub(crate) frozen_p99_ms: Option<f64>,
    /// The longest time without a commit in the steady work of any other peer, in some seconds before the kill.
    pub(crate) gap_before_ms: f64,
    /// The same in as many seconds from the kill on.
    pub(crate) gap_after_ms: f64,
    /// As `gap_before_ms`, for a peer that is frozen.
    pub(crate) frozen_gap_before_ms: f64,
    /// As `gap_after_ms`, for a peer that is frozen.
    pub(crate) frozen_gap_after_ms: f64,
    /// What missed its bar.
    pub(crate) missed: Vec<String>,
    /// Why the figures do not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// What happens to the peer that owns the objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Kill,
    Freeze,
}

/// What one fault came to.
#[derive(Clone, Debug, Default)]
struct Part {
    first: Option<Duration>,
    most: Option<Duration>,
    gap_before: Duration,
    gap_after: Duration,
    invalid: Vec<String>,
}

/// Measures and prints, with so many objects at the peer that fails.
pub(crate) fn run(objects: u64) -> Result<Figures> {
    let runtime = runtime()?;
    let mut figures = Figures { objects, peers: OTHERS as u64 + 1, replicas: REPLICAS.into(), ..Figures::default() };
    let killed = runtime.block_on(part(objects, Fault::Kill))?;
    (figures.first_ms, figures.p99_ms) = (killed.first.map(millis), killed.most.map(millis));
    (figures.gap_before_ms, figures.gap_after_ms) = (millis(killed.gap_before), millis(killed.gap_after));
    figures.invalid.extend(killed.invalid.iter().map(|why| format!("after the kill: {why}")));
    if cfg!(unix) {
        let frozen = runtime.block_on(part(objects, Fault::Freeze))?;
        (figures.frozen_first_ms, figures.frozen_p99_ms) = (frozen.first.map(millis), frozen.most.map(millis));
        (figures.frozen_gap_before_ms, figures.frozen_gap_after_ms) =
            (millis(frozen.gap_before), millis(frozen.gap_after));
        figures.invalid.extend(frozen.invalid.iter().map(|why| format!("after the freeze: {why}")));
    }
    figures.judge();
    tell(&figures);
    Ok(figures)
}

impl Figures {
    fn judge(&mut self) {
        // What never came made the figures invalid.
        let most = |before: f64| GAP_MS_MAX.max(GAP_TIMES_MAX * before);
        self.missed = above(&[
            ("first_ms", self.first_ms.unwrap_or(0.0), FIRST_MS_MAX),
            ("p99_ms", self.p99_ms.unwrap_or(0.0), P99_MS_MAX),
            ("gap_after_ms", self.gap_after_ms, most(self.gap_before_ms)),
            ("frozen_first_ms", self.frozen_first_ms.unwrap_or(0.0), FIRST_MS_MAX),
            ("frozen_p99_ms", self.frozen_p99_ms.unwrap_or(0.0), P99_MS_MAX),
            ("frozen_gap_after_ms", self.frozen_gap_after_ms, most(self.frozen_gap_before_ms)),
        ]);
    }
}

fn tell(figures: &Figures) {
    let time = |millis: Option<f64>| millis.map_or_else(|| "never".to_owned(), |millis| format!("{millis} ms"));
    let objects = crate::numbers::grouped(figures.objects);
    output::line(&format!("{} peers, {objects} objects at the one that fails", figures.peers));
    let row = |what: &str, first: Option<f64>, most: Option<f64>, before: f64, after: f64| {
        output::line(&format!(
            "{what}: first commit on its objects after {}, on 99 % of them after {}; longest gap elsewhere {before} ms \
             before, {after} ms after",
            time(first),
            time(most),
        ));
    };
    row("killed", figures.first_ms, figures.p99_ms, figures.gap_before_ms, figures.gap_after_ms);
    if cfg!(unix) {
        let (before, after) = (figures.frozen_gap_before_ms, figures.frozen_gap_after_ms);
        row("frozen", figures.frozen_first_ms, figures.frozen_p99_ms, before, after);
    }
}

/// One fault, in a mesh of its own.
async fn part(objects: u64, fault: Fault) -> Result<Part> {
    with_peers((OTHERS + 1, REPLICAS), None, async |peers| measure(peers, objects, fault).await).await
}

async fn measure(peers: &mut Peers, objects: u64, fault: Fault) -> Result<Part> {
    let all: Vec<usize> = (0..=OTHERS).collect();
    let (victim, others) = (0, &all[1..]);
    let marks = peers.all(&[victim], &Order::CreateMarks { count: objects }, created).await?;
    let marks = unpack(marks.first().context("no marks were created")?)?;
    peers.all(others, &Order::CreateMarks { count: OWN }, created).await?;
    let ready = |answer: &Answer| matches!(answer, Answer::Ready).then_some(());
    for (number, other) in others.iter().enumerate() {
        let part: Vec<_> = marks.iter().skip(number).step_by(others.len()).copied().collect();
        peers.all(&[*other], &Order::LearnMarks { marks: pack(&part) }, ready).await?;
    }
    let mut part = Part::default();
    become_whole(&peers.exchange, &mut part.invalid).await?;
    peers.all(&all, &Order::Beat, ready).await?;
    gaps(peers, others).await?;
    tokio::time::sleep(STRETCH).await;
    part.gap_before = gaps(peers, others).await?;
    let begun = match fault {
        Fault::Kill => {
            let begun = peers.exchange.killed(victim);
            peers.child(victim)?.kill()?;
            begun
        }
        Fault::Freeze => {
            let begun = peers.exchange.paused(victim);
            peers.child(victim)?.stop()?;
            begun
        }
    };
    for other in others {
        peers.child(*other)?.order(&Order::Mark).await?;
    }
    take_over(peers, others, objects, begun, &mut part).await?;
    if fault == Fault::Freeze {
        peers.child(victim)?.go_on()?;
        peers.exchange.welcome(victim);
    }
    become_whole(&peers.exchange, &mut part.invalid).await?;
    check(peers, objects, &mut part).await?;
    part.invalid.append(&mut peers.faults());
    Ok(part)
}

/// The longest gap in the steady work of any of these since the last such question.
async fn gaps(peers: &mut Peers, of: &[usize]) -> Result<Duration> {
    let gap = |answer: &Answer| if let Answer::Gap { longest_us } = answer { Some(*longest_us) } else { None };
    let gaps = peers.all(of, &Order::Gap, gap).await?;
    Ok(Duration::from_micros(gaps.into_iter().max().unwrap_or(0)))
}

/// Takes what the others tell of their work, until all objects are theirs and the stretch is over.
async fn take_over(peers: &mut Peers, others: &[usize], objects: u64, begun: Instant, part: &mut Part) -> Result<()> {
    let enough = (objects * 99).div_ceil(100);
    let (mut marked, mut gaps_known) = (0, 0);
    let mut are_gaps_asked = false;
    while marked < objects || gaps_known < others.len() {
        if begun.elapsed() > LIMIT + STRETCH {
            part.invalid.push(format!("only {marked} of {objects} objects were changed within {} s", LIMIT.as_secs()));
            return Ok(());
        }
        if begun.elapsed() >= STRETCH && !are_gaps_asked {
            are_gaps_asked = true;
            for other in others {
                peers.child(*other)?.order(&Order::Gap).await?;
            }
        }
        for other in others {
            for answer in peers.child(*other)?.take_all()? {
                match answer {
                    Answer::Marked { count } => {
                        part.first.get_or_insert_with(|| begun.elapsed());
                        marked += count;
                        if marked >= enough {
                            part.most.get_or_insert_with(|| begun.elapsed());
                        }
                    }
                    Answer::Gap { longest_us } => {
                        part.gap_after = part.gap_after.max(Duration::from_micros(longest_us));
                        gaps_known += 1;
                    }
                    Answer::Ready => {}
                    Answer::Failed { error } => bail!("{}: {error}", number_of(*other)),
                    answer @ (Answer::Started { .. }
                    | Answer::SeesAll
                    | Answer::Created { .. }
                    | Answer::Status(_)
                    | Answer::Holding
                    | Answer::Searched { .. }
                    | Answer::Fates { .. }
                    | Answer::TradeFailed { .. }
                    | Answer::ListsCreated { .. }
                    | Answer::Called { .. }
                    | Answer::Looked { .. }
                    | Answer::Worked(_)
                    | Answer::Settled(_)) => bail!("{} gave an unexpected answer: {answer:?}", number_of(*other)),
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// What a look at all objects found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Found {
    objects: u64,
    /// Those of them that were changed by another peer, once.
    once: u64,
    /// More often than once, or unreadable.
    wrong: u64,
}

/// Every object of the peer must be there once, and must have been changed once by another. A look is repeated only when
/// objects were on their way meanwhile, never because of what it found.
async fn check(peers: &mut Peers, objects: u64, part: &mut Part) -> Result<()> {
    let live = peers.exchange.live();
    let settled = |answer: &Answer| if let Answer::Settled(settled) = answer { Some(settled.clone()) } else { None };
    let auditor = Auditor::join(peers).await?;
    let mut found = Err(anyhow!("objects were still on their way"));
    for _ in 0..LOOKS_MAX {
        // At first also so that every peer has told its clock.
        tokio::time::sleep(LOOK_PAUSE).await;
        let before = peers.all(&live, &Order::Settle, settled).await?;
        let (seen, gaps) = look(&auditor).await?;
        if gaps == Gaps::default() && peers.all(&live, &Order::Settle, settled).await? == before {
            found = Ok(seen);
            break;
        }
    }
    auditor.end().await;
    let expected = Found { objects: objects + OWN * OTHERS as u64, once: objects, wrong: 0 };
    match found {
        Ok(found) if found == expected => {}
        Ok(found) => part.invalid.push(format!("the end was {found:?}, it should be {expected:?}")),
        Err(error) => part.invalid.push(error.to_string()),
    }
    Ok(())
}

async fn look(auditor: &Auditor) -> Result<(Found, Gaps)> {
    let mut found = Found::default();
    let gaps = auditor.read_all(|_, _, value| {
        if !stored_header(value).is_ok_and(|header| header.type_name == Mark::TYPE_NAME) {
            return;
        }
        found.objects += 1;
        match decode_object::<Mark>(value) {
            Ok(mark) => {
                found.once += u64::from(mark.marks == 1);
                found.wrong += u64::from(mark.marks > 1);
            }
            Err(_) => found.wrong += 1,
        }
    });
    let gaps = gaps.await?;
    Ok((found, gaps))
}

fn millis(duration: Duration) -> f64 {
    // One decimal: what is more is noise.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
