//! Peers that join, leave, stop, or are not let in.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{Player, bounded, meshes, until};
use driftmesh::transport::RefuseReason;
use driftmesh::{Error, Mesh, Notice, Ref, Result, StartError, limits};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

async fn create(mesh: &Mesh, count: u64) -> Vec<Ref<Player>> {
    let created = mesh.transact(|tx| async move {
        (0..count).map(|gold| tx.create(&Player::new("Ada", gold))).collect::<Result<Vec<_>>>()
    });
    bounded(created).await.unwrap()
}

async fn sum(mesh: &Mesh, players: &[Ref<Player>]) -> u64 {
    let summed = mesh
        .transact(|tx| async move { Ok(tx.get_many(players).await?.iter().map(|player| player.gold).sum::<u64>()) });
    bounded(summed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_peer_hands_its_objects_over() {
    let all = meshes(3).await;
    let players = create(&all[0], 500).await;
    let left = bounded(all[0].leave(LONG)).await;
    assert_eq!((left.handed_over, left.stayed), (500 + limits::NAME_BUCKETS, 0));
    for mesh in &all[1..] {
        until("the others saw it leave", || mesh.peers().len() == 1).await;
        assert_eq!(sum(mesh, &players).await, 499 * 500 / 2);
        until("a clean leave is forgotten", || mesh.status().members.len() == 1).await;
    }
    assert_eq!(all[1].status().owned + all[2].status().owned, 500 + limits::NAME_BUCKETS);
    let refused = bounded(all[0].transact(|tx| async move { tx.create(&Player::new("late", 1)) })).await;
    assert!(matches!(refused, Err(Error::Leaving)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_peer_says_what_ends_with_it() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    create(&mesh, 7).await;
    let left = bounded(mesh.leave(LONG)).await;
    assert_eq!((left.handed_over, left.stayed), (0, 7 + limits::NAME_BUCKETS));
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_that_is_given_up_leaves_a_working_peer() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let other = bounded(Mesh::builder().join(&mesh.addresses()[0]).start()).await.unwrap();
    let players = create(&mesh, 1).await;
    let (player, held) = (players[0], Arc::new(tokio::sync::Notify::new()));
    let notify = Arc::clone(&held);
    let holder = tokio::spawn(mesh.task("holder").deadline(LONG).run(move |tx| {
        let notify = Arc::clone(&notify);
        async move {
            let _guard = tx.get_mut(player).await?;
            notify.notify_one();
            std::future::pending::<Result<()>>().await
        }
    }));
    bounded(held.notified()).await;
    // The object is locked, so the leave cannot end before it is given up.
    assert!(tokio::time::timeout(Duration::from_millis(50), mesh.leave(LONG)).await.is_err());
    // Of two that wait for it, one gives up: the peer still leaves.
    let leaving = tokio::spawn({
        let mesh = mesh.clone();
        async move { mesh.leave(LONG).await }
    });
    let refused = || mesh.transact(|tx| async move { tx.create(&Player::new("late", 0)) });
    while !matches!(bounded(refused()).await, Err(Error::Leaving)) {
        tokio::task::yield_now().await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), mesh.leave(LONG)).await.is_err());
    assert!(matches!(bounded(refused()).await, Err(Error::Leaving)));
    leaving.abort();
    assert!(leaving.await.is_err());
    holder.abort();
    assert_eq!(create(&mesh, 1).await.len(), 1);
    assert_eq!(sum(&other, &players).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_clone_that_is_dropped_stops_the_peer() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let other = bounded(Mesh::builder().join(&mesh.addresses()[0]).start()).await.unwrap();
    bounded(mesh.wait_for_peers(1)).await;
    let address = mesh.addresses()[0].split("/p2p/").next().unwrap().to_owned();
    let clone = mesh.clone();
    drop(mesh);
    assert_eq!(create(&clone, 1).await.len(), 1);
    drop(clone);
    until("the other saw it stop", || other.peers().is_empty()).await;
    let port_free = async {
        while Mesh::builder().listen(&address).start().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(port_free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_says_goodbye_and_refuses_new_work() {
    let all = meshes(2).await;
    bounded(all[0].shutdown()).await;
    until("the other saw it leave", || all[1].peers().is_empty()).await;
    let refused = bounded(all[0].transact(|tx| async move { tx.create(&Player::new("late", 1)) })).await;
    assert!(matches!(refused, Err(Error::Leaving)), "{refused:?}");
    bounded(all[0].shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_from_before_a_peer_joined_are_found() {
    let founder = bounded(Mesh::builder().start()).await.unwrap();
    let players = create(&founder, 100).await;
    let other = bounded(Mesh::builder().join(&founder.addresses()[0]).start()).await.unwrap();
    assert_eq!(sum(&other, &players).await, 99 * 100 / 2);
    assert_eq!(other.peers(), [founder.peer_id()]);
}

async fn refusal(founder: driftmesh::Builder, joiner: driftmesh::Builder) -> (RefuseReason, Mesh) {
    let founder = bounded(founder.start()).await.unwrap();
    // For ever: the refusal itself must end it.
    let refused = bounded(joiner.join(&founder.addresses()[0]).join_timeout(None).start()).await;
    let Err(StartError::Refused { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(founder.peers().is_empty());
    (reason, founder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_secret_or_name_is_refused() {
    let mesh = Mesh::builder;
    let (reason, _) = refusal(mesh().secret("right"), mesh().secret("wrong")).await;
    assert_eq!(reason, RefuseReason::WrongSecret);
    let (reason, _) = refusal(mesh().secret("right"), mesh()).await;
    assert_eq!(reason, RefuseReason::WrongSecret);
    let (reason, founder) = refusal(mesh().name("one"), mesh().name("two")).await;
    assert!(matches!(reason, RefuseReason::WrongMeshName { .. }));
    // Nobody who was refused keeps the right one out.
    let joined = bounded(mesh().name("one").join(&founder.addresses()[0]).start()).await.unwrap();
    assert_eq!(joined.status().genesis, founder.status().genesis);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_told_before_anything_starts() {
    let mesh = Mesh::builder;
    assert!(matches!(mesh().new_mesh().join("127.0.0.1:1").start().await, Err(StartError::NewAndJoin)));
    assert!(matches!(mesh().secret("").start().await, Err(StartError::EmptySecret)));
    assert!(matches!(mesh().listen("0.0.0.0:0").start().await, Err(StartError::NotLoopback { .. })));
    assert!(matches!(mesh().advertise("example.org:4000").start().await, Err(StartError::NotLoopback { .. })));
    assert!(matches!(mesh().listen("nonsense").start().await, Err(StartError::ListenAddress { .. })));
    assert!(matches!(mesh().join("nonsense").start().await, Err(StartError::Address(_))));
    assert!(mesh().listen("0.0.0.0:0").open(true).start().await.is_ok());
    assert!(mesh().listen("0.0.0.0:0").secret("right").start().await.is_ok());
    let unreachable = mesh().join("127.0.0.1:1").join_timeout(Some(Duration::from_millis(300))).start().await;
    assert!(matches!(unreachable, Err(StartError::Unreachable { .. })), "{unreachable:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_hears_who_comes_and_goes() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let builder = Mesh::builder().observe(move |notice| hears.lock().unwrap().push(notice));
    let founder = bounded(builder.start()).await.unwrap();
    let other = bounded(Mesh::builder().join(&founder.addresses()[0]).start()).await.unwrap();
    bounded(founder.wait_for_peers(1)).await;
    bounded(other.leave(LONG)).await;
    let count = |is_it: fn(&Notice) -> bool| heard.lock().unwrap().iter().filter(|notice| is_it(notice)).count();
    until("it left", || count(|notice| matches!(notice, Notice::Left { members: 0, .. })) == 1).await;
    assert_eq!(count(|notice| matches!(notice, Notice::Joined { members: 1, .. })), 1);
    assert!(count(|notice| matches!(notice, Notice::Listening { .. })) > 0);
}
