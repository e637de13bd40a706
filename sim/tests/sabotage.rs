//! Every rule is broken on purpose, one at a time, and the simulator must notice: by histories, journals, answers
//! or final states. Run with `cargo test --package driftmesh-sim --features sabotage`.
#![cfg(feature = "sabotage")]

mod gold;

use driftmesh_peer::Sabotage;
use driftmesh_sim::matrix::{Caught, Matrix, RULES, SEEDS_MAX, Search, counts, notices, search};
use driftmesh_sim::{Options, Overrides, Stage};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where it takes long to find a seed that notices: those that did, tried first.
const NOTICED_BEFORE: [(Sabotage, u64); 1] = [(Sabotage::Members, 895)];

fn caught(sabotage: Sabotage) -> Option<Caught> {
    let before = NOTICED_BEFORE.iter().filter(|(before, _)| *before == sabotage);
    let again = before.map(|(_, seed)| (*seed, notices(sabotage, *seed)));
    let again = again.filter_map(|(seed, violation)| Some(Caught { seed, violation: violation? })).next();
    again.or_else(|| search(sabotage, SEEDS_MAX).caught)
}

macro_rules! sabotages {
    ($($test:ident: $sabotage:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                let sabotage = Sabotage::$sabotage;
                let Caught { seed, violation } = caught(sabotage)
                    .unwrap_or_else(|| panic!("without {} nothing was noticed in {SEEDS_MAX} seeds", sabotage.rule()));
                println!("without {}: seed {seed}: {violation}", sabotage.rule());
            }
        )*

        #[test]
        fn no_sabotage_is_without_a_test() {
            assert_eq!(Sabotage::ALL.to_vec(), vec![$(Sabotage::$sabotage),*]);
        }
    };
}

sabotages! {
    hint: Hint,
    climb: Climb,
    pointers: Pointers,
    republish: Republish,
    one_writer: OneWriter,
    barrier_reads: BarrierReads,
    barrier_grants: BarrierGrants,
    barrier_answers: BarrierAnswers,
    told_order: ToldOrder,
    outbox: Outbox,
    prefix: Prefix,
    up_to_date: UpToDate,
    stable: Stable,
    window: Window,
    fence: Fence,
    bounded_loss: BoundedLoss,
    joint: Joint,
    promises: Promises,
    members: Members,
    old_copies: OldCopies,
    fates: Fates,
    wound_wait: WoundWait,
    commit_point: CommitPoint,
    fetch_age: FetchAge,
    lock_first: LockFirst,
    snapshot_clock: SnapshotClock,
    close_lsn: CloseLsn,
    close_early: CloseEarly,
    feed_unstable: FeedUnstable,
    feed_past_out: FeedPastOut,
    close_window: CloseWindow,
    serializable: Serializable,
    old_versions: OldVersions,
    clock_guard: ClockGuard,
    clock_watch: ClockWatch,
    one_owner: OneOwner,
    once: Once,
    tasks: Tasks,
    schedules: Schedules,
    one_genesis: OneGenesis,
    names: Names,
    bounds: Bounds,
    wire: Wire,
    parking: Parking,
}

/// What the judge of a stage finds wrong in a seed.
fn judged(seed: u64, sabotage: Sabotage) -> Vec<String> {
    let overrides = Overrides { peers: Some(3), sabotage: Some(sabotage), ..Overrides::default() };
    let mut stage = Stage::new(Options::draw(seed, &overrides));
    stage.begin_faults();
    let main = gold::exchange(&stage);
    // A broken rule may also keep the world from coming to an end.
    let _ = stage.run(main, 60_000_000);
    stage.settle_and_judge()
}

#[test]
fn the_judge_of_the_stage_notices_too() {
    for sabotage in [Sabotage::OneOwner, Sabotage::Once] {
        let caught = (0..SEEDS_MAX).find_map(|seed| {
            // A core that trips over its own feet is no judge that noticed.
            let wrong = catch_unwind(AssertUnwindSafe(|| judged(seed, sabotage))).unwrap_or_default();
            wrong.into_iter().next().map(|violation| (seed, violation))
        });
        let (seed, violation) = caught.expect("two owners are noticed");
        println!("without {}: seed {seed}: {violation}", sabotage.rule());
    }
}

fn searched(sabotage: Sabotage, is_caught: bool) -> Search {
    let caught = is_caught.then(|| Caught { seed: 3, violation: "two owners".to_owned() });
    Search { rule: sabotage.rule(), switch: format!("{sabotage:?}"), seeds_run: 4, caught }
}

#[test]
fn every_rule_is_there_in_order_and_every_switch_breaks_one() {
    for (number, rule) in (1..).zip(RULES) {
        assert_eq!(rule.name, format!("R{number}"));
    }
    let switches = RULES.iter().map(|rule| rule.switches().count()).sum::<usize>();
    assert_eq!(switches, Sabotage::ALL.len());
}

#[test]
fn a_seed_counts_that_is_wrong_with_the_switch_and_good_without() {
    let wrong = || Some(vec!["two owners".to_owned()]);
    assert_eq!(counts(wrong(), || Some(Vec::new())), Some("two owners".to_owned()));
    assert_eq!(counts(wrong(), wrong), None);
    assert_eq!(counts(wrong(), || None), None, "the core panicked");
    assert_eq!(counts(Some(Vec::new()), || unreachable!("it is not run")), None);
    assert_eq!(counts(None, || unreachable!("it is not run")), None);
}

#[test]
fn a_rule_is_missed_without_a_switch_and_with_one_that_nobody_noticed() {
    let searches: Vec<Search> = Sabotage::ALL
        .into_iter()
        .filter(|sabotage| *sabotage != Sabotage::Once)
        .map(|sabotage| searched(sabotage, sabotage != Sabotage::BarrierReads))
        .collect();
    let matrix = Matrix::of(&searches, 10);
    let missed = |name| matrix.missed.contains(&name);
    assert!(missed("R6") && missed("R20"), "{:?}", matrix.missed);
    assert!(matrix.caught.contains(&"R19"));
    assert_eq!(matrix.caught.len() + matrix.missed.len(), matrix.rules.len());
}
