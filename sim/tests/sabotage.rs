//! Every rule is broken on purpose, one at a time, and the simulator must notice: by histories, journals, answers
//! or final states. Run with `cargo test --package driftmesh-sim --features sabotage`.
#![cfg(feature = "sabotage")]

mod gold;

use driftmesh_peer::Sabotage;
use driftmesh_sim::{Aim, Options, Overrides, Stage, run_founding_seed, run_seed};

/// Within this many seeds each sabotage must be caught.
const SEEDS_MAX: u64 = 5_000;

/// Options that are fixed because the loss of a rule hardly shows with others.
fn overrides(sabotage: Sabotage) -> Overrides {
    let mut overrides = Overrides::default();
    if sabotage == Sabotage::BarrierReads {
        // Commits that others can see, while their leader is cut off from its followers.
        (overrides.peers, overrides.aim) = (Some(6), Some(Aim::Commit));
    }
    if sabotage == Sabotage::CloseWindow {
        // Readers that belong to no group of the leader.
        (overrides.peers, overrides.aim) = (Some(6), Some(Aim::Close));
    }
    if sabotage == Sabotage::Promises {
        // Followers that have no room drop journals, and take them up again.
        (overrides.peers, overrides.followed_max) = (Some(5), Some(2));
    }
    overrides
}

/// Whether the loss of a rule can show in a seed. Others are passed over, to save time: they count all the same.
fn may_show(sabotage: Sabotage, options: &Options) -> bool {
    // So many followers elect another leader when theirs is out of reach.
    let elects = options.replicas.min(options.peers - 1) >= 2;
    let needs = [
        (Sabotage::BarrierReads, elects && options.peers > options.replicas + 1),
        (Sabotage::Window, elects && options.aim.is_some()),
        (Sabotage::CloseWindow, elects && options.readers > 0 && options.election_after_us < 1_000_000),
        (Sabotage::Promises, elects && options.crashes && options.replace_after_us < 1_000_000),
    ];
    needs.iter().all(|(needed, has)| *needed != sabotage || *has)
}

/// What is found wrong in a seed.
fn violations(seed: u64, overrides: &Overrides) -> Vec<String> {
    // A core that trips over its own feet is no check that noticed: the next seed, then.
    std::panic::catch_unwind(|| run_seed(seed, overrides).violations).unwrap_or_default()
}

fn caught_within(sabotage: Sabotage) -> Option<(u64, String)> {
    // Before there is a mesh, there is nothing that the world of transactions could run.
    if sabotage == Sabotage::OneGenesis {
        return (0..SEEDS_MAX).find_map(|seed| {
            let noticed = run_founding_seed(seed, Some(sabotage)).violations.into_iter().next();
            noticed.map(|violation| (seed, violation))
        });
    }
    let whole = overrides(sabotage);
    let broken = Overrides { sabotage: Some(sabotage), ..whole.clone() };
    (0..SEEDS_MAX).filter(|seed| may_show(sabotage, &Options::draw(*seed, &whole))).find_map(|seed| {
        let noticed = violations(seed, &broken).into_iter().next()?;
        // What is wrong without it too, it did not do.
        violations(seed, &whole).is_empty().then_some((seed, noticed))
    })
}

macro_rules! sabotages {
    ($($test:ident: $sabotage:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                let sabotage = Sabotage::$sabotage;
                let (seed, violation) = caught_within(sabotage)
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
    prefix: Prefix,
    up_to_date: UpToDate,
    stable: Stable,
    window: Window,
    fence: Fence,
    bounded_loss: BoundedLoss,
    joint: Joint,
    promises: Promises,
    members: Members,
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
    one_genesis: OneGenesis,
    names: Names,
}

#[test]
fn the_judge_of_the_stage_notices_too() {
    let caught = |sabotage| {
        (0..SEEDS_MAX).find_map(|seed| {
            let overrides = Overrides { peers: Some(3), sabotage: Some(sabotage), ..Overrides::default() };
            let mut stage = Stage::new(Options::draw(seed, &overrides));
            stage.begin_faults();
            let main = gold::exchange(&stage);
            // A broken rule may also keep the world from coming to an end.
            let _ = stage.run(main, 60_000_000);
            stage.settle_and_judge().into_iter().next().map(|violation| (seed, violation))
        })
    };
    for sabotage in [Sabotage::OneOwner, Sabotage::Once] {
        let (seed, violation) = caught(sabotage).expect("two owners are noticed");
        println!("without {}: seed {seed}: {violation}", sabotage.rule());
    }
}
