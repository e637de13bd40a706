//! The matrix of sabotages: every rule, the switches that break it, and the search for a seed in which the simulator notices
//! that one is broken.
//!
//! What notices are histories, journals, answers and final states, never a check beside the switch. It refuses to count
//! a seed that is wrong without the switch too, and a core that trips over its own feet.

use crate::workloads::Workload;
use crate::{Aim, Options, Overrides, run_founding_seed, run_seed};
use driftmesh_peer::Sabotage;
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Within this many seeds each switch must be noticed.
pub const SEEDS_MAX: u64 = 5_000;

/// A rule of the design.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as in `R5`.
    pub name: &'static str,
    /// What it says, in a few words.
    pub says: &'static str,
}

const fn rule(name: &'static str, says: &'static str) -> Rule {
    Rule { name, says }
}

/// All rules. One that is missing here is missing everywhere.
pub const RULES: [Rule; 26] = [
    rule("R1", "hint: records only say whom to ask"),
    rule("R2", "climb: a record yields to a higher one only"),
    rule("R3", "pointers: kept until the homes know more"),
    rule("R4", "found: every lookup ends, and truly"),
    rule("R5", "one writer: only the leader of its group commits to an object"),
    rule("R6", "barrier: nothing leaves that is not stable"),
    rule("R7", "prefix: a change of leader keeps everything stable, and whole commits"),
    rule("R8", "window: promises lie below what the group agreed on"),
    rule("R9", "fence: a deposed leader's commits never become stable"),
    rule("R10", "bounded loss: commits wait when too much is unstable"),
    rule("R11", "members: who votes and acknowledges is who belongs"),
    rule("R12", "wound-wait: who waits, waits for an older one"),
    rule("R13", "commit point: a wounded transaction never commits"),
    rule("R14", "waits: none without end"),
    rule("R15", "progress: a retry meets nothing twice"),
    rule("R16", "snapshots: every history is snapshot isolated"),
    rule("R17", "old versions: a mark below which nobody guesses"),
    rule("R18", "clock guard: a wrong clock carries nobody along"),
    rule("R19", "one owner: or in transit, and none"),
    rule("R20", "once: no grant is adopted twice"),
    rule("R21", "exactly once: a task's outcome is written with its effects"),
    rule("R22", "fate: told lost if and only if lost"),
    rule("R23", "names: bound to at most one live object"),
    rule("R24", "bounded: every queue and cache has a bound"),
    rule("R25", "wire: what cannot be meant is refused"),
    rule("R26", "members: only admitted peers take part, and what panics at two of them is parked"),
];

impl Rule {
    /// The switches that break it.
    pub fn switches(&self) -> impl Iterator<Item = Sabotage> {
        let name = self.name;
        Sabotage::ALL.into_iter().filter(move |sabotage| sabotage.rule() == name)
    }
}

/// A seed that noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Caught {
    /// The first seed that did.
    pub seed: u64,
    /// What was found wrong in it first.
    pub violation: String,
}

/// What the search for one switch came to.
#[derive(Clone, Debug, Serialize)]
pub struct Search {
    /// The rule that the switch breaks.
    pub rule: &'static str,
    /// The switch.
    pub switch: String,
    /// How many seeds were run with it.
    pub seeds_run: u64,
    /// What noticed, if anything did.
    pub caught: Option<Caught>,
}

/// Options that are fixed because the loss of a rule hardly shows with others.
fn overrides(sabotage: Sabotage) -> Overrides {
    let mut overrides = Overrides { untraced: true, ..Overrides::default() };
    if sabotage == Sabotage::Promises {
        // Followers drop journals, and take them up again.
        (overrides.peers, overrides.aim) = (Some(5), Some(Aim::Dropped));
    }
    if sabotage == Sabotage::Members {
        // Members come and go.
        (overrides.peers, overrides.aim) = (Some(4), Some(Aim::Joint));
    }
    let believers =
        [Sabotage::BarrierReads, Sabotage::FeedUnstable, Sabotage::Window, Sabotage::CloseWindow].contains(&sabotage);
    if believers {
        // Those outside of a group believe its leader, while its followers have another.
        (overrides.peers, overrides.aim) = (Some(6), Some(Aim::Close));
        // Readers look at purses: these must be written.
        overrides.usual_workloads = true;
    }
    overrides
}

/// Whether the loss of a rule can show in a seed. Others are passed over, to save time: they count all the same.
fn may_show(sabotage: Sabotage, options: &Options) -> bool {
    // So many followers elect another leader when theirs is out of reach.
    let elects = options.replicas.min(options.peers - 1) >= 2;
    // What takes a rare sequence of faults has it more often where there are no others between.
    let is_plain = !options.odd_links && !options.clock_jumps && !options.slow_peers;
    let has_readers = elects && options.peers > options.replicas + 1 && options.readers > 0;
    let needs = [
        (Sabotage::BarrierReads, has_readers),
        (Sabotage::FeedUnstable, has_readers),
        (Sabotage::Window, is_plain && has_readers && options.election_after_us < 1_000_000),
        (Sabotage::CloseWindow, is_plain && has_readers && options.election_after_us < 1_000_000),
        (Sabotage::Promises, elects),
        (Sabotage::Tasks, Workload::OF_TASKS.iter().any(|workload| options.workloads.has(*workload))),
        (Sabotage::Outbox, elects && options.workloads.has(Workload::Schedules)),
        (Sabotage::Parking, options.workloads.has(Workload::Schedules)),
        (Sabotage::Schedules, options.workloads.has(Workload::Schedules)),
    ];
    needs.iter().all(|(needed, has)| *needed != sabotage || *has)
}

/// What is found wrong in a seed. `None` if the core trips over its own feet.
fn violations(seed: u64, overrides: &Overrides) -> Option<Vec<String>> {
    catch_unwind(AssertUnwindSafe(|| run_seed(seed, overrides).violations)).ok()
}

/// What of a seed counts as noticed: what is found wrong with a rule broken, if nothing is wrong without that. A core that
/// trips over its own feet is no check that noticed, and none that is good either: the next seed, then.
#[must_use]
pub fn counts(broken: Option<Vec<String>>, whole: impl FnOnce() -> Option<Vec<String>>) -> Option<String> {
    let violation = broken?.into_iter().next()?;
    // What is wrong without it too, it did not do.
    whole()?.is_empty().then_some(violation)
}

/// Looks for the first of so many seeds in which it is noticed that a rule is broken, and that are good otherwise.
#[must_use]
pub fn search(sabotage: Sabotage, seeds: u64) -> Search {
    let mut seeds_run = 0;
    let caught = (0..seeds).find_map(|seed| {
        let violation = noticed(sabotage, seed, &mut seeds_run)?;
        Some(Caught { seed, violation })
    });
    Search { rule: sabotage.rule(), switch: format!("{sabotage:?}"), seeds_run, caught }
}

/// Whether it is noticed in this seed that a rule is broken, and what is found wrong then. Good for a seed that noticed it
/// before: a change of anything may make that another run.
#[must_use]
pub fn notices(sabotage: Sabotage, seed: u64) -> Option<String> {
    noticed(sabotage, seed, &mut 0)
}

fn noticed(sabotage: Sabotage, seed: u64, seeds_run: &mut u64) -> Option<String> {
    // Before there is a mesh, there is nothing that the world of transactions could run.
    if sabotage == Sabotage::OneGenesis {
        *seeds_run += 1;
        return run_founding_seed(seed, Some(sabotage)).violations.into_iter().next();
    }
    let whole = overrides(sabotage);
    if !may_show(sabotage, &Options::draw(seed, &whole)) {
        return None;
    }
    *seeds_run += 1;
    let broken = Overrides { sabotage: Some(sabotage), ..whole };
    counts(violations(seed, &broken), || violations(seed, &whole))
}

/// All searches together, rule by rule.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// All rules.
    pub rules: Vec<&'static str>,
    /// Those of which every switch was noticed.
    pub caught: Vec<&'static str>,
    /// Those that have no switch, or one that was not noticed.
    pub missed: Vec<&'static str>,
    /// Within how many seeds each switch had to be noticed.
    pub seeds: u64,
    /// Every switch, in the order of the rules.
    pub switches: Vec<Search>,
}

impl Matrix {
    /// Sums up the searches, which may come in any order.
    #[must_use]
    pub fn of(searches: &[Search], seeds: u64) -> Self {
        let mut matrix =
            Self { rules: Vec::new(), caught: Vec::new(), missed: Vec::new(), seeds, switches: Vec::new() };
        for Rule { name, .. } in RULES {
            let of_rule: Vec<&Search> = searches.iter().filter(|search| search.rule == name).collect();
            matrix.switches.extend(of_rule.iter().copied().cloned());
            matrix.rules.push(name);
            let is_caught = !of_rule.is_empty() && of_rule.iter().all(|search| search.caught.is_some());
            if is_caught { matrix.caught.push(name) } else { matrix.missed.push(name) }
        }
        matrix
    }
}
