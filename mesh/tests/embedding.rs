//! A peer inside of a game: the bridge that never waits, events and walks of what is owned, prefetching, and a peer
//! without a runtime around it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, Sword, bounded, meshes, until};
use driftmesh::{
    BRIDGE_IN_FLIGHT, BlockingMesh, Bridge, BridgeEvent, Error, Mesh, Object, ObjectId, OwnershipEvent, PREFETCH_MAX,
    PrefetchBusy, Ref, Result, StartError, Ticket, Tx,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

async fn create(mesh: &Mesh, gold: u64) -> Ref<Player> {
    bounded(mesh.transact(|tx| async move { tx.create(&Player::new("Ada", gold)) })).await.unwrap()
}

/// Calls `events` like a game loop until so many transactions have ended; everything it met.
fn frames<K: Send + 'static, T: Send + 'static>(bridge: &mut Bridge<K, T>, finished: usize) -> Vec<BridgeEvent<K, T>> {
    let begun = Instant::now();
    let mut all = Vec::new();
    let is_finished = |event: &&BridgeEvent<K, T>| matches!(event, BridgeEvent::Finished { .. });
    while all.iter().filter(is_finished).count() < finished {
        assert!(begun.elapsed() < HANGS, "nothing hangs");
        all.extend(bridge.events());
        std::thread::sleep(Duration::from_millis(1));
    }
    all
}

/// The results among events, by tag.
fn results<T>(events: Vec<BridgeEvent<usize, T>>) -> Vec<(usize, Ticket, Result<T>)> {
    let finished = events.into_iter().filter_map(|event| match event {
        BridgeEvent::Finished { ticket, tag, result, .. } => Some((tag, ticket, result)),
        BridgeEvent::Ownership(_) => None,
    });
    let mut all: Vec<_> = finished.collect();
    all.sort_by_key(|(tag, ..)| *tag);
    all
}

#[test]
fn a_program_without_a_runtime_runs_a_game_loop() {
    let mesh = Mesh::builder().start_blocking().unwrap();
    let player = mesh.wait(create(mesh.mesh(), 0));
    let mut bridge: Bridge<usize, u64> = mesh.mesh().bridge().unwrap();
    let mut tickets = Vec::new();
    for tag in 0..50 {
        let add = move |tx: Tx| async move {
            let mut player = tx.get_mut(player).await?;
            player.gold += 1;
            Ok(player.gold)
        };
        tickets.push(bridge.submit(tag, add).unwrap());
    }
    assert_eq!(bridge.in_flight(), 50, "results count until they are given out");
    let ended = results(frames(&mut bridge, 50));
    let golds: BTreeSet<u64> = ended.iter().map(|(_, _, result)| *result.as_ref().unwrap()).collect();
    assert_eq!(golds, (1..=50).collect());
    assert_eq!(
        ended.iter().map(|(_, ticket, _)| *ticket).collect::<Vec<_>>(),
        tickets,
        "tag and ticket belong together"
    );
    assert_eq!(bridge.in_flight(), 0);
    let left = mesh.wait(mesh.mesh().leave(Duration::from_secs(1)));
    assert_eq!(left.stayed, 1 + driftmesh::limits::NAME_BUCKETS);
}

#[test]
fn rejections_deadlines_and_panics_come_back_as_typed_errors() {
    #[derive(Debug, thiserror::Error)]
    #[error("the gate is closed")]
    struct GateClosed;

    let mesh = Mesh::builder().start_blocking().unwrap();
    let player = mesh.wait(create(mesh.mesh(), 10));
    let mut bridge: Bridge<usize, ()> = mesh.mesh().bridge().unwrap();
    bridge.submit(0, |tx| async move { Err(tx.reject(GateClosed)) }).unwrap();
    let late = mesh.mesh().task("late").deadline(Duration::from_millis(50));
    bridge.submit_as(&late, 1, |_| std::future::pending()).unwrap();
    let panics = move |tx: Tx| async move {
        tx.get_mut(player).await?.gold = 0;
        panic!("a mistake with {}", player.id());
    };
    bridge.submit_as(&mesh.mesh().task("careless"), 2, panics).unwrap();
    let early = |_| -> std::future::Ready<Result<()>> { panic!("before the first await") };
    bridge.submit(3, early).unwrap();
    let ended = results(frames(&mut bridge, 4));
    assert!(ended[0].2.as_ref().unwrap_err().rejection::<GateClosed>().is_some());
    assert!(matches!(&ended[1].2, Err(Error::Deadline { kind, .. }) if kind.as_str() == "late"));
    let said = ended[2].2.as_ref().unwrap_err().to_string();
    assert!(
        said.contains("`careless` panicked") && said.contains(&format!("a mistake with {}", player.id())),
        "{said}"
    );
    assert!(matches!(&ended[3].2, Err(Error::Panicked { message, .. }) if message == "before the first await"));
    // The peer goes on, and nothing of the panicked closure took effect or stays locked.
    let gold = mesh.wait(bounded(mesh.mesh().transact(|tx| async move { Ok(tx.get_mut(player).await?.gold) })));
    assert_eq!(gold.unwrap(), 10);
}

#[test]
fn a_full_bridge_says_so_at_once_and_takes_more_after_a_frame() {
    let mesh = Mesh::builder().start_blocking().unwrap();
    let mut bridge: Bridge<usize, ()> = mesh.mesh().bridge().unwrap().limit(3);
    for tag in 0..3 {
        bridge.submit(tag, |_| async { Ok(()) }).unwrap();
    }
    let busy = bridge.submit(3, |_| async { Ok(()) }).unwrap_err();
    assert_eq!(busy.in_flight, 3);
    frames(&mut bridge, 3);
    bridge.submit(3, |_| async { Ok(()) }).unwrap();
    let mut usual: Bridge<usize, ()> = mesh.mesh().bridge().unwrap();
    for tag in 0..BRIDGE_IN_FLIGHT {
        usual.submit(tag, |_| async { Ok(()) }).unwrap();
    }
    assert!(usual.submit(0, |_| async { Ok(()) }).is_err());
}

#[test]
fn a_runtime_that_stops_leaves_no_job_without_an_answer() {
    let mesh = Mesh::builder().start_blocking().unwrap();
    let mut bridge: Bridge<usize, ()> = mesh.mesh().bridge().unwrap();
    bridge.submit(0, |_| std::future::pending()).unwrap();
    drop(mesh);
    // Also what is submitted when there is no runtime any more.
    bridge.submit(1, |_| std::future::pending()).unwrap();
    for (_, _, result) in results(frames(&mut bridge, 2)) {
        assert!(matches!(result, Err(Error::RuntimeStopped { .. })), "{result:?}");
    }
}

#[test]
fn ownership_comes_before_the_result_that_caused_it() {
    let mesh = Mesh::builder().start_blocking().unwrap();
    let mut bridge: Bridge<usize, Ref<Player>> = mesh.mesh().bridge().unwrap();
    for tag in 0..20 {
        bridge.submit(tag, |tx| async move { tx.create(&Player::new("Ada", 7)) }).unwrap();
    }
    let mut known = BTreeSet::new();
    for event in frames(&mut bridge, 20) {
        match event {
            BridgeEvent::Ownership(OwnershipEvent::Arrived(arrival)) => {
                let (player, value) = arrival.decode::<Player>().unwrap().unwrap();
                assert_eq!(value.gold, 7);
                assert_eq!(arrival.decode::<Sword>().unwrap(), None);
                known.insert(player);
            }
            BridgeEvent::Finished { result, .. } => assert!(known.contains(&result.unwrap())),
            BridgeEvent::Ownership(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_on_two_peers_follows_arrivals_departures_and_losses() {
    let mut all = meshes(2).await;
    let (mut here, mut there) = (all[0].ownership().unwrap(), all[1].ownership().unwrap());
    let player = create(&all[0], 5).await;
    let first = bounded(here.next()).await;
    assert!(matches!(&first, OwnershipEvent::Arrived(arrival) if arrival.object == player.id()));
    let changed = all[1].transact(|tx| async move {
        tx.get_mut(player).await?.gold += 1;
        Ok(())
    });
    bounded(changed).await.unwrap();
    let OwnershipEvent::Arrived(arrival) = bounded(there.next()).await else { panic!("it came") };
    assert_eq!(arrival.decode::<Player>().unwrap().unwrap().1.gold, 6);
    let left = bounded(here.next()).await;
    assert_eq!(left, OwnershipEvent::Left { object: player.id(), to: Some(all[1].peer_id()) });
    assert_eq!(all[0].owned::<Player>().count(), 0);

    let gone = all.pop().unwrap();
    // Its owner stops with it, and says goodbye without having handed it over.
    until("the heartbeat told what it owns", || {
        all[0].status().members.first().is_some_and(|member| member.owned == 1)
    })
    .await;
    bounded(gone.shutdown()).await;
    let lost = bounded(here.next()).await;
    assert_eq!(lost, OwnershipEvent::PeerGone { peer: gone.peer_id(), objects: Some(1) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_meets_all_objects_of_a_type_while_others_are_written() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let mut players = BTreeSet::new();
    for _ in 0..10 {
        let some = mesh.transact(|tx| async move {
            tx.create(&Sword { damage: 1 })?;
            (0..300).map(|gold| tx.create(&Player::new("Ada", gold))).collect::<Result<Vec<_>>>()
        });
        players.extend(bounded(some).await.unwrap());
    }
    let writer = tokio::spawn({
        let (mesh, players) = (mesh.clone(), players.clone());
        async move {
            for player in players {
                mesh.transact(|tx| async move {
                    tx.get_mut(player).await?.gold += 1;
                    Ok(())
                })
                .await?;
            }
            Ok::<_, Error>(())
        }
    });
    let met: BTreeSet<_> = mesh.owned::<Player>().map(|entry| entry.unwrap().0).collect();
    assert_eq!(met, players);
    assert_eq!(mesh.owned::<Sword>().count(), 10);
    bounded(writer).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_decode_is_an_error_of_its_own_and_the_walk_goes_on() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Later {
        name: String,
        gold: u64,
        rank: u8,
    }
    impl Object for Later {
        const TYPE_NAME: &'static str = Player::TYPE_NAME;
    }
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    create(&mesh, 1).await;
    let later = Later { name: "Bob".into(), gold: 2, rank: 3 };
    bounded(mesh.transact(|tx| {
        let later = &later;
        async move { tx.create(later) }
    }))
    .await
    .unwrap();
    let met: Vec<_> = mesh.owned::<Later>().collect();
    assert_eq!((met.len(), met.iter().filter(|entry| entry.is_ok()).count()), (2, 1));
    assert!(met.iter().any(|entry| matches!(entry, Err(Error::Object { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetched_objects_come_and_are_free() {
    let all = meshes(2).await;
    let mut players = Vec::new();
    for gold in 0..200 {
        players.push(create(&all[0], gold).await);
    }
    let own = create(&all[1], 1).await;
    let deleted = create(&all[0], 1).await;
    bounded(all[0].transact(|tx| async move { tx.delete(deleted).await })).await.unwrap();
    let nowhere = ObjectId::from_u128(77);
    let wanted = players.iter().chain([&own, &own, &deleted]).map(Ref::id).chain([nowhere]);
    all[1].prefetch(wanted).unwrap();
    until("all came", || players.iter().all(|player| all[1].is_owned(player.id()))).await;
    let players = &players;
    // Nothing is locked any more: the other peer takes them at once.
    let taken = all[0].task("take back").deadline(HANGS).run(|tx| async move {
        for mut player in tx.get_mut_many(players).await? {
            player.gold += 1;
        }
        Ok(())
    });
    bounded(taken).await.unwrap();
    until("the task ended", || all[1].status().transactions == 0).await;

    let too_many = (0..=PREFETCH_MAX as u128).map(ObjectId::from_u128);
    assert_eq!(all[1].prefetch(too_many), Err(PrefetchBusy));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_bridges_share_one_bound_and_give_it_back() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let bridges: Vec<Bridge<usize, ()>> = (0..64).map(|_| mesh.bridge().unwrap()).collect();
    assert!(matches!(mesh.ownership(), Err(Error::TooManySubscriptions)));
    drop(bridges);
    assert!(mesh.ownership().is_ok());
}

#[tokio::test]
async fn a_blocking_start_inside_of_a_runtime_is_refused() {
    assert_eq!(Mesh::builder().start_blocking().unwrap_err(), StartError::InsideRuntime);
}

/// What game code relies on when it stores and sends these around.
#[test]
fn handles_can_be_sent_and_shared() {
    fn send<T: Send + 'static>() {}
    fn send_and_sync<T: Send + Sync + Clone + 'static>() {}
    send_and_sync::<Mesh>();
    send_and_sync::<driftmesh::Transactions>();
    send::<Bridge<String, Vec<u8>>>();
    send::<BridgeEvent<String, Vec<u8>>>();
    send::<BlockingMesh>();
    send::<driftmesh::Ownership>();
    send::<driftmesh::Owned<Player>>();
    send::<OwnershipEvent>();
    send::<Tx>();
}
