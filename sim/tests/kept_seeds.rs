//! Every seed that has ever found something, kept for good: each runs in every run of the tests, as it was run then.
//!
//! What keeping a seed shows: that the run which the seed gives *today* is good. What it cannot show: that the mended fault
//! would be noticed if it came back. Each new draw, message or timer makes another run of the same seed, and all that are
//! listed here are other runs by now than those which found something. So a fault of the core gets a test of its own beside
//! (`docs/proof.md` names them), a rule gets a switch that the simulator must notice, and what is kept here is one more
//! sample of the neighbourhood: seeds with many faults, drawn before anybody knew what they would find.
//!
//! Whoever mends what a seed found adds a row in the same commit, with the options that it ran with. It refuses to drop a
//! row, and to run one with options that find less.

use driftmesh_sim::{Aim, Overrides, run_seed};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the fault was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    /// In what a live mesh runs.
    Core,
    /// In what the simulator takes for right: it had said that something was wrong, and it was not.
    Check,
}

/// A seed, and what it once found.
struct Kept {
    seed: u64,
    /// What was fixed beside the seed.
    with: fn() -> Overrides,
    place: Where,
    rules: &'static str,
    /// The commit that mended it, or the one after which it was found.
    commit: &'static str,
    found: &'static str,
}

const fn core(seed: u64, rules: &'static str, commit: &'static str, found: &'static str) -> Kept {
    Kept { seed, with: Overrides::default, place: Where::Core, rules, commit, found }
}

const fn check(seed: u64, rules: &'static str, commit: &'static str, found: &'static str) -> Kept {
    Kept { seed, with: Overrides::default, place: Where::Check, rules, commit, found }
}

/// Five peers, little room for followers, faults aimed at copies.
fn crowded_copies() -> Overrides {
    Overrides { peers: Some(5), followed_max: Some(2), aim: Some(Aim::Copy), ..Overrides::default() }
}

/// In the order in which they were found.
const KEPT: [Kept; 58] = [
    core(1, "R9", "04c2f10", "a leader whose group others had ended led on"),
    core(6, "R2 R3", "e7ffa29", "departures of a rolled back journal were told to homes and pointers"),
    core(20, "R2 R3", "e7ffa29", "the same"),
    core(56, "R2 R3", "e7ffa29", "the same"),
    core(11, "R4", "e7ffa29", "an object was called absent while its group had no leader that all knew"),
    core(42, "R4", "e7ffa29", "the same"),
    core(50, "R4", "e7ffa29", "the same"),
    core(55, "R4", "e7ffa29", "the same"),
    core(
        7,
        "R7 R11",
        "f822796",
        "a follower that was let go and came back had forgotten its votes: two leaders in a term",
    ),
    core(38, "R9", "25c57a2", "a peer that left knew alone of the end of a group"),
    core(59, "R19", "25c57a2", "an object was handed from a group to itself"),
    core(93, "R7", "23639a3", "a follower that had lost what it held was not sent it again"),
    core(0, "R18", "23639a3", "a follower whose clock was wrong was counted on"),
    core(128, "R18", "23639a3", "the same"),
    core(46, "R7", "d0343d9", "a copy of a state was begun anew for ever"),
    core(58, "R18", "742c053", "peers whose clocks were wrong were counted on as followers"),
    core(97, "R18", "742c053", "the same"),
    core(105, "R2 R4", "cbd78c4", "a home never learnt where an object was after a rollback"),
    core(125, "R2 R4", "cbd78c4", "the same"),
    core(139, "R2 R4", "cbd78c4", "the same"),
    core(
        611,
        "R3 R6",
        "5ff76c8",
        "an own home learnt what was not stable, and pointers went before the objects had arrived",
    ),
    core(775, "R3 R6", "5ff76c8", "the same, and once more until 1af9930"),
    core(780, "R3 R6", "5ff76c8", "the same, and once more until 1af9930"),
    core(16, "R24", "5b9948c", "a late refusal began a flood, and again until 57c5f1b"),
    core(
        138,
        "R24",
        "57c5f1b",
        "a follower that had lost its journal and its leader sent each other the same without end",
    ),
    core(
        122,
        "R4",
        "f3fa6d6",
        "an object was called absent though its record named a group of which nothing was known",
    ),
    core(143, "R4", "f3fa6d6", "who was heard last was forgotten first"),
    core(44, "R3", "1af9930", "a pointer went before its object had arrived"),
    core(888, "R3", "1af9930", "the same"),
    core(899, "R3", "1af9930", "the same"),
    core(146, "R24", "6ee0a55", "a group that was followed for a late message's sake took room for ever"),
    check(2_535, "R19", "57943f1", "of two senders of a lost object, the former hid the later"),
    check(3_141, "R19", "57943f1", "the same"),
    check(3_494, "R19", "57943f1", "the same"),
    check(4_217, "R22", "57943f1", "a group was over by the word of the peer that was about to crash"),
    core(187, "R18", "5a96655", "peers whose messages took long were said to have wrong clocks"),
    core(4_429, "R18", "5a96655", "the same"),
    check(529, "R10", "5a96655", "a leader that did not know yet of its successor was held to the successor's entry"),
    check(1_740, "R10", "5a96655", "the same"),
    check(2_598, "R18", "5a96655", "of two clocks that differ nobody can say which is wrong"),
    check(3_267, "R18", "5a96655", "the same"),
    core(734, "R14", "7630c4f", "two groups each said that an object was on its way to the other, without end"),
    core(
        3_966,
        "R11 R14",
        "7630c4f",
        "a voter left before a dead one was replaced; a snapshot waited 60 s for a window",
    ),
    core(3_403, "R22", "7630c4f", "who alone knew of the end of a group said that one more peer may stop"),
    core(2_164, "R11", "f03e5fa", "a change of voters counted on peers that had just died"),
    core(1_182, "R22", "f03e5fa", "something followed the told end of a group"),
    core(194, "R16", "fa632f4", "what a restarted peer wanted was taken for a late word of its former incarnation"),
    Kept {
        seed: 156,
        with: crowded_copies,
        place: Where::Core,
        rules: "R6 R16",
        commit: "4f0551c",
        found: "objects on their way to an ended group were settled before their departure was stable",
    },
    check(11_411, "R22", "fe961d6", "the observer had guessed an entry that no member showed"),
    core(14_130, "R16", "ca57b10", "a watch that began after another had ended could show an older state"),
    core(18_297, "R6 R22", "f5317d9", "an answer about one receipt was taken for one about the next"),
    core(7_335, "R1", "ba753da", "a watch went on asking its own peer for what that did not have"),
    check(7_679, "R22", "4ea56a2", "the observer had not seen the last entry of a group that ended"),
    check(100_039, "R21", "5ec06a4", "what was scheduled and wanted lost objects was taken for a client that waits"),
    core(
        311_596,
        "R21",
        "1765682",
        "a task was rejected here, and a repeat of the request that another peer had refused took effect",
    ),
    check(429_134, "R21", "400580f", "a peer set back to an image took tasks of others, and nothing ran them"),
    core(504_316, "R2 R19", "0e9b6e1", "who led a group was forgotten when the peer of its founder came back"),
    core(
        548_152,
        "R7 R11",
        "aded5b9",
        "a peer set back to an image founded the group that it had founded after the image",
    ),
];

#[test]
fn seeds_that_found_something_stay_good() {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(kept) = KEPT.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = run_seed(kept.seed, &(kept.with)());
            if !run.violations.is_empty() {
                let Kept { place, rules, commit, found, .. } = kept;
                let once = format!("once found ({place:?}, {rules}, {commit}): {found}");
                wrong.push(format!("{}\n{once}\n{:#?}", run.options, run.violations));
            }
        }
        wrong
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run does not panic")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn each_row_says_what_it_was_and_none_is_there_twice() {
    let mut seeds = BTreeSet::new();
    for Kept { seed, rules, commit, found, .. } in &KEPT {
        assert!(seeds.insert(*seed), "seed {seed} is there twice");
        let is_rule = |rule: &str| {
            rule.strip_prefix('R').is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number <= 26))
        };
        assert!(rules.split(' ').all(is_rule), "seed {seed}: {rules}");
        assert!(commit.len() == 7 && !found.is_empty(), "seed {seed}");
    }
}
