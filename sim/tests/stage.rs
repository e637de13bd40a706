//! The stage: somebody else's futures on simulated peers, in an order that repeats, and judged.

use crate::gold::exchange;
use driftmesh_sim::{Options, Overrides, Stage, Unfinished};
use std::sync::{Arc, Mutex};

fn options(seed: u64) -> Options {
    let overrides = Overrides { peers: Some(3), ..Overrides::default() };
    Options::draw(seed, &overrides)
}

#[test]
fn a_seed_repeats_and_nothing_is_wrong_under_faults() {
    let hash = |seed| {
        let mut stage = Stage::new(options(seed));
        stage.begin_faults();
        let main = exchange(&stage);
        assert_eq!(stage.run(main, 120_000_000), Ok(()), "seed {seed}");
        assert_eq!(stage.settle_and_judge(), Vec::<String>::new(), "seed {seed}");
        assert!(stage.transfers() > 0, "seed {seed}");
        stage.trace_hash().expect("a hash is made unless the caller wants none")
    };
    for seed in 0..10 {
        assert_eq!(hash(seed), hash(seed), "seed {seed} run twice");
        assert_ne!(hash(seed), hash(seed + 1_000), "seed {seed} and another");
    }
}

#[test]
fn spawned_futures_sleep_side_by_side_in_virtual_time() {
    let mut stage = Stage::new(options(1));
    let handle = stage.handle();
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let main = async move {
        for (name, after) in [("late", 3_000_000), ("early", 1_000_000), ("middle", 2_000_000)] {
            let (order, there) = (Arc::clone(&noted), handle.clone());
            handle.spawn(async move {
                there.sleep(after).await;
                order.lock().unwrap().push((name, there.now_us()));
            });
        }
        handle.sleep(4_000_000).await;
    };
    assert_eq!(stage.run(main, 10_000_000), Ok(()));
    assert_eq!(*order.lock().unwrap(), [("early", 1_000_000), ("middle", 2_000_000), ("late", 3_000_000)]);
    assert_eq!(stage.run(std::future::pending(), 11_000_000), Err(Unfinished::TooLate));
}

#[test]
fn a_peer_that_said_goodbye_is_connected_to_nobody_and_stays_away() {
    let mut stage = Stage::new(options(2));
    let peers = stage.peers();
    let handle = stage.handle();
    let main = async move {
        peers[1].1.say_goodbye();
        handle.sleep(10_000).await;
        handle.heal();
        handle.sleep(3_000_000).await;
        assert_eq!(peers[0].1.members(), [peers[2].0]);
        assert!(peers[1].1.members().is_empty());
    };
    assert_eq!(stage.run(main, 10_000_000), Ok(()));
}
