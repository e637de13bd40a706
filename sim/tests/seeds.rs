//! Seeds under all faults: no violation, and work worth the name.

use driftmesh_sim::{Overrides, Report, SeedReport, run_seed};

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
