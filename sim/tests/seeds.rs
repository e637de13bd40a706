//! Seeds under all faults: no violation, and work worth the name.

use driftmesh_sim::{Overrides, Report, run_seeds};

#[test]
fn seeds_pass_and_are_not_idle() {
    let runs = run_seeds(0, 60, &Overrides::default(), |run| {
        assert!(run.violations.is_empty(), "{}\n{:#?}", run.options, run.violations);
    });
    let report = Report::of(&runs);
    assert!(report.commits_median >= 100, "{} commits in a typical seed", report.commits_median);
    assert!(report.transfers_median >= 20, "{} transfers in a typical seed", report.transfers_median);
    assert!(report.wounds > 0 && report.aborts > 0 && report.faults > 0);
}

#[test]
fn a_single_peer_works_alone() {
    let overrides = Overrides { peers: Some(1), ..Overrides::default() };
    for run in run_seeds(0, 10, &overrides, |_| {}) {
        assert!(run.violations.is_empty(), "{}\n{:#?}", run.options, run.violations);
        assert_eq!(run.transfers, 0);
    }
}
