//! Dumped histories are valid, and large enough to prove something; those of a mesh that breaks a rule are not.

use driftmesh_sim::dump::{APPENDS_MIN, AppendSummary, REGISTER_TXNS_MAX, RegisterSummary, check_edn, check_json};
use driftmesh_sim::{Overrides, SeedReport, run_seed};

const SEEDS: u64 = 100;

fn run(seed: u64, overrides: Overrides) -> SeedReport {
    run_seed(seed, &Overrides { dump: true, ..overrides })
}

fn is_enough(lists: &AppendSummary, registers: &RegisterSummary) -> bool {
    let AppendSummary { committed, processes, keys, reads, appends, .. } = *lists;
    committed >= APPENDS_MIN
        && processes >= 8
        && keys <= 60
        && 3 * reads >= reads + appends
        && (1..=REGISTER_TXNS_MAX).contains(&registers.committed)
        && registers.sessions >= 3
}

/// Judges the histories of some seeds; tells what was lost and what stayed unknown in them.
fn judge(seeds: impl Iterator<Item = u64>) -> (u64, u64) {
    let (mut lost, mut unknown) = (0, 0);
    for seed in seeds {
        let report = run(seed, Overrides::default());
        assert!(report.violations.is_empty(), "{}\n{:#?}", report.options, report.violations);
        let dumped = report.dumped.expect("it was asked for");
        let lists = check_edn(&dumped.edn).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let registers = check_json(&dumped.json).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(is_enough(&lists, &registers), "seed {seed}: {lists:?} {registers:?}");
        lost += report.lost;
        unknown += lists.unknown as u64;
    }
    (lost, unknown)
}

#[test]
fn dumped_histories_are_valid_and_prove_something() {
    let (lost, unknown) = std::thread::scope(|scope| {
        let other = scope.spawn(|| judge((1..SEEDS).step_by(2)));
        let (one, other) = (judge((0..SEEDS).step_by(2)), other.join().expect("it is told above what is wrong"));
        (one.0 + other.0, one.1 + other.1)
    });
    assert!(lost > 0 && unknown > 0, "no crash took anything with it");
}

#[test]
fn a_dump_repeats_and_other_seeds_do_not_change() {
    let dumped = || run(3, Overrides::default());
    let (one, two) = (dumped(), dumped());
    assert_eq!((one.dumped, &one.trace_hash), (two.dumped, &two.trace_hash));
    let without = run_seed(3, &Overrides::default());
    assert!(without.dumped.is_none());
    assert_ne!(without.trace_hash, one.trace_hash);
}

/// Not all rules can show here: wound-wait keeps transactions going, and without it they come to nothing.
#[cfg(feature = "sabotage")]
#[test]
fn broken_rules_show_in_the_files_alone() {
    use driftmesh_peer::Sabotage;
    let rules = [
        Sabotage::SnapshotClock,
        Sabotage::CommitPoint,
        Sabotage::OneWriter,
        Sabotage::CloseEarly,
        Sabotage::CloseLsn,
        Sabotage::OldVersions,
        Sabotage::Stable,
        Sabotage::Fates,
        Sabotage::OneOwner,
        Sabotage::Once,
    ];
    for sabotage in rules {
        let broken = |seed| {
            let overrides = Overrides { sabotage: Some(sabotage), ..Overrides::default() };
            // A core that trips over its own feet is no file that shows it.
            let report = std::panic::catch_unwind(|| run(seed, overrides)).ok()?;
            let dumped = report.dumped?;
            let why = check_edn(&dumped.edn).err().or_else(|| check_json(&dumped.json).err())?;
            Some((seed, why.to_string()))
        };
        // The same seeds are valid without it: see above.
        let (seed, why) = (0..SEEDS).find_map(broken).unwrap_or_else(|| panic!("without {sabotage:?} all was valid"));
        println!("without {sabotage:?} ({}): seed {seed}: {why}", sabotage.rule());
    }
}
