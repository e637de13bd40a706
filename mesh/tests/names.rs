//! Names between peers of one process: bound at one, found and taken at the other.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, Sword, bounded, meshes, until};
use driftmesh::{Error, Mesh, NameBucket, NameError, ObjectError, Outcome, Ref, limits};
use std::collections::BTreeSet;

/// A player with a name, both made in one transaction.
async fn christen(mesh: &Mesh, name: &str) -> driftmesh::Result<Ref<Player>> {
    let christened = mesh.task("christen").deadline(HANGS).run(|tx| async move {
        let player = tx.create(&Player::new(name, 10))?;
        tx.bind(name, player).await?;
        Ok(player)
    });
    bounded(christened).await
}

async fn find(mesh: &Mesh, name: &str) -> Option<Ref<Player>> {
    bounded(mesh.transact(|tx| async move { tx.lookup(name).await })).await.unwrap()
}

/// Waits until a peer's snapshots see what a name is bound to: they may lag by the difference of the clocks.
async fn sees(mesh: &Mesh, name: &str, expected: Option<Ref<Player>>) {
    let seen = async {
        while find(mesh, name).await != expected {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    bounded(seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_bound_at_one_peer_is_found_and_taken_at_the_other() {
    let all = meshes(2).await;
    let ada = christen(&all[1], "player/ada").await.unwrap();
    sees(&all[0], "player/ada", Some(ada)).await;
    let gold = bounded(all[0].transact(|tx| async move {
        let ada: Ref<Player> = tx.lookup("player/ada").await?.ok_or_else(|| tx.reject("nobody"))?;
        Ok(tx.get(ada).await?.gold)
    }));
    assert_eq!(gold.await.unwrap(), 10);

    let taken = christen(&all[0], "player/ada").await.unwrap_err();
    assert!(matches!(&taken, Error::NameTaken { name, by } if name == "player/ada" && *by == ada.id()), "{taken}");
    assert_eq!(taken.outcome(), Outcome::Aborted);
    let other: Ref<Sword> = Ref::from_id(ada.id());
    let as_sword = bounded(all[0].transact(|tx| async move { tx.get(other).await })).await.unwrap_err();
    assert!(matches!(as_sword, Error::Object { error: ObjectError::WrongType { .. }, .. }), "{as_sword}");

    let freed = bounded(all[0].transact(|tx| async move { tx.unbind("player/ada").await })).await.unwrap();
    assert_eq!(freed, Some(ada.id()));
    let new = christen(&all[1], "player/ada").await.unwrap();
    sees(&all[0], "player/ada", Some(new)).await;
    let refused = christen(&all[0], "player/\u{7}").await.unwrap_err();
    assert!(matches!(refused, Error::IllegalName(NameError::ControlCharacter { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_one_name_one_gets_it() {
    let all = meshes(3).await;
    for round in 0..10 {
        let name = format!("guild/{round}");
        let wanted = (0..6).map(|number| {
            let (mesh, name) = (all[number % 3].clone(), name.clone());
            tokio::spawn(async move { christen(&mesh, &name).await })
        });
        let mut winners = Vec::new();
        for done in wanted.collect::<Vec<_>>() {
            match done.await.unwrap() {
                Ok(player) => winners.push(player),
                Err(error) => assert!(matches!(error, Error::NameTaken { .. }), "{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "{name}");
        sees(&all[0], &name, Some(winners[0])).await;
    }
}

/// Binds names in transactions of some hundreds.
async fn bind_all(mesh: &Mesh, names: &[String]) {
    let player = bounded(mesh.transact(|tx| async move { tx.create(&Player::new("all", 1)) })).await.unwrap();
    for names in names.chunks(250) {
        let bound = mesh.task("bind many").deadline(HANGS).run(|tx| async move {
            for name in names {
                tx.bind(name, player).await?;
            }
            Ok(())
        });
        bounded(bound).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_names_under_one_prefix_are_spread_split_and_listed_in_pages() {
    const EACH: usize = 5_000;
    let all = meshes(2).await;
    let names = |peer: usize| (0..EACH).map(move |number| format!("player/{peer}/{number:05}")).collect::<Vec<_>>();
    let (first, second) = (names(0), names(1));
    tokio::join!(bind_all(&all[0], &first), bind_all(&all[1], &second));
    sees_last(&all[0], &first, &second).await;

    let snapshot = all[1].snapshot().unwrap();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = bounded(snapshot.list("player/0/", after.as_deref())).await.unwrap();
        assert!(page.names.len() <= limits::NAMES_PER_PAGE_MAX);
        listed.extend(page.names.into_iter().map(|(name, _)| name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, first);
    let both = bounded(snapshot.list("player/", Some("player/0/04500"))).await.unwrap();
    assert_eq!((both.names.len(), &both.names[500].0), (limits::NAMES_PER_PAGE_MAX, &second[1]));

    // No bucket has more than its part: 10,000 names do not fit the first buckets unless these split.
    let owned: usize = all.iter().map(|mesh| mesh.status().owned).sum();
    assert!(owned > 2 + limits::NAME_BUCKETS, "{owned} objects");
    let buckets: BTreeSet<_> = first.iter().map(|name| NameBucket::first_of(name)).collect();
    assert_eq!(buckets.len(), limits::NAME_BUCKETS);
}

/// Waits until both peers see all names.
async fn sees_last(mesh: &Mesh, first: &[String], second: &[String]) {
    for name in [first.last(), second.last()].into_iter().flatten() {
        let mut found = None;
        while found.is_none() {
            found = find(mesh, name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_outlive_the_founder_that_leaves() {
    let all = meshes(3).await;
    let ada = christen(&all[0], "ada").await.unwrap();
    let left = bounded(all[0].leave(HANGS)).await;
    assert_eq!((left.handed_over, left.stayed), (1 + limits::NAME_BUCKETS, 0));
    for mesh in &all[1..] {
        until("it left", || mesh.peers().len() == 1).await;
        sees(mesh, "ada", Some(ada)).await;
    }
    let late = bounded(Mesh::builder().join(&all[1].addresses()[0]).start()).await.unwrap();
    sees(&late, "ada", Some(ada)).await;
    assert!(matches!(christen(&late, "ada").await, Err(Error::NameTaken { .. })));
}
