//! Seeds under all faults: no violation, and work worth the name.

use driftmesh_sim::{Options, Overrides, Report, SeedReport, run_seed};

/// A peer alone has nobody to be parted from.
#[test]
fn faults_that_do_nothing_are_not_counted() {
    let overrides = Overrides { peers: Some(1), ..Overrides::default() };
    let is_spared = |seed: &u64| {
        let options = Options::draw(*seed, &overrides);
        let its_own = options.stalls || options.restarts || options.crashes || options.clock_jumps;
        !its_own && !options.slow_peers && !options.old_copies && options.aim.is_none() && options.fault_every_us > 0
    };
    let spared: Vec<u64> = (0..10_000).filter(is_spared).take(3).collect();
    assert!(!spared.is_empty());
    for seed in spared {
        assert_eq!(sound(seed, &overrides).faults, 0, "seed {seed}");
    }
}

/// Runs a seed in which nothing may be wrong.
fn sound(seed: u64, overrides: &Overrides) -> SeedReport {
    let run = run_seed(seed, overrides);
    assert!(run.violations.is_empty(), "{}\n{:#?}", run.options, run.violations);
    run
}

#[test]
fn seeds_pass_and_are_not_idle() {
    let runs: Vec<_> = (0..60).map(|seed| sound(seed, &Overrides::default())).collect();
    let report = Report::of(&runs);
    assert!(report.commits_median >= 100, "{} commits in a typical seed", report.commits_median);
    assert!(report.transfers_median >= 20, "{} transfers in a typical seed", report.transfers_median);
    assert!(report.wounds > 0 && report.aborts > 0 && report.faults > 0);
}

#[test]
fn a_single_peer_works_alone() {
    let overrides = Overrides { peers: Some(1), ..Overrides::default() };
    for seed in 0..10 {
        assert_eq!(sound(seed, &overrides).transfers, 0);
    }
}
