//! Meshes that are founded by agreement: who expects how many, who joins whom, and who is the founder.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{Player, bounded, until, unused_address};
use driftmesh::transport::RefuseReason;
use driftmesh::{Builder, Mesh, Notice, StartError};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What an observer heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Notice>>>);

impl Heard {
    fn by(&self, builder: Builder) -> Builder {
        let heard = self.clone();
        builder.observe(move |notice| heard.0.lock().unwrap().push(notice))
    }

    fn count(&self, is_it: impl Fn(&Notice) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|notice| is_it(notice)).count()
    }

    fn founders(&self) -> Vec<driftmesh::PeerId> {
        let founder =
            |notice: &Notice| if let Notice::Founded { founder, .. } = notice { Some(*founder) } else { None };
        self.0.lock().unwrap().iter().filter_map(founder).collect()
    }
}

/// Waits until all are one mesh, and returns its genesis.
async fn one_mesh(all: &[Mesh]) -> String {
    for mesh in all {
        bounded(mesh.joined(None)).await.unwrap();
        bounded(mesh.wait_for_peers(all.len() - 1)).await;
    }
    let geneses: BTreeSet<_> = all.iter().map(|mesh| mesh.status().genesis.unwrap()).collect();
    assert_eq!(geneses.len(), 1);
    assert_eq!(all.iter().filter(|mesh| mesh.status().founder).count(), 1, "one mesh has one founder");
    geneses.into_iter().next().unwrap()
}

/// An object made and named at one is read at all others, by its id and by its name.
async fn works(all: &[Mesh]) {
    let made = all[0].transact(|tx| async move {
        let made = tx.create(&Player::new("Ada", 7))?;
        tx.bind("player/ada", made).await?;
        Ok(made)
    });
    let made = bounded(made).await.unwrap();
    for mesh in all {
        // A snapshot elsewhere sees a commit that no message told of once its own clock has passed it.
        let named = async {
            loop {
                let named = mesh.transact(|tx| async move { tx.lookup::<Player>("player/ada").await }).await.unwrap();
                if let Some(named) = named {
                    break named;
                }
            }
        };
        assert_eq!(bounded(named).await, made);
    }
    for mesh in all {
        let gold = bounded(mesh.transact(|tx| async move { Ok(tx.get(made).await?.gold) })).await.unwrap();
        assert_eq!(gold, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_that_know_each_others_addresses_become_one_mesh_with_one_founder() {
    let addresses = [unused_address(), unused_address(), unused_address()];
    let heard = Heard::default();
    let mut all = Vec::new();
    for own in &addresses {
        // The own address is among those to join, as it is when all are started alike.
        let builder = addresses.iter().fold(Mesh::builder().listen(own).expect(3), |builder, to| builder.join(to));
        all.push(bounded(heard.by(builder).launch()).await.unwrap());
    }
    let genesis = one_mesh(&all).await;
    works(&all).await;
    let (founders, ids) = (heard.founders(), all.iter().map(Mesh::peer_id).collect::<Vec<_>>());
    assert!(!founders.is_empty() && founders.iter().all(|founder| *founder == founders[0]), "{founders:?}");
    assert!(all.iter().any(|mesh| mesh.status().founder && mesh.peer_id() == founders[0]), "{ids:?}");

    let late = bounded(Mesh::builder().expect(3).join(&addresses[1]).start()).await.unwrap();
    assert_eq!(late.status().genesis, Some(genesis));
    bounded(late.wait_for_peers(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_that_expect_three_and_know_one_seed_become_one_mesh_in_any_order() {
    for seed_starts_at in 0..3 {
        let seed = unused_address();
        let starting = (0..5).map(|number| {
            let seed = seed.clone();
            tokio::spawn(async move {
                let builder = Mesh::builder().expect(3).join(&seed);
                // The seed comes first, in the middle, or last.
                let builder = if number == seed_starts_at * 2 { builder.listen(&seed) } else { builder };
                tokio::time::sleep(Duration::from_millis(number * 150)).await;
                builder.start().await
            })
        });
        let mut all = Vec::new();
        for mesh in futures::future::join_all(starting).await {
            all.push(mesh.unwrap().unwrap());
        }
        one_mesh(&all).await;
        works(&all).await;
        let late = bounded(Mesh::builder().expect(3).join(&all[4].addresses()[0]).start()).await.unwrap();
        all.push(late);
        one_mesh(&all).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_found_nothing_until_a_mesh_is_in_reach_and_then_join_it() {
    let address = unused_address();
    let one = bounded(Mesh::builder().expect(3).join(&address).launch()).await.unwrap();
    let other = bounded(Mesh::builder().expect(3).join(&one.addresses()[0]).launch()).await.unwrap();
    until("the two found each other", || one.fresh_peers() == 2 && other.fresh_peers() == 2).await;
    let waited = one.joined(Some(Duration::from_secs(3))).await;
    assert!(matches!(waited, Err(StartError::NotFounded { found: 2, .. })), "{waited:?}");
    assert_eq!((one.status().genesis, other.status().genesis), (None, None));
    let founder = bounded(Mesh::builder().new_mesh().listen(&address).start()).await.unwrap();
    let all = [founder, one, other];
    one_mesh(&all).await;
    works(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_is_told_to_both_and_joins_what_was_founded() {
    let (heard_three, heard_four) = (Heard::default(), Heard::default());
    let three = bounded(heard_three.by(Mesh::builder().expect(2)).launch()).await.unwrap();
    let address = three.addresses()[0].clone();
    let four = bounded(heard_four.by(Mesh::builder().expect(4).join(&address)).launch()).await.unwrap();
    let is_told = |heard: &Heard, theirs: u16, ours: u16| {
        let reason = RefuseReason::OtherExpect { theirs, ours };
        heard.count(|notice| matches!(notice, Notice::Refused { reason: told, .. } if *told == reason)) > 0
    };
    until("both are told", || is_told(&heard_three, 4, 2) && is_told(&heard_four, 2, 4)).await;
    assert_eq!((three.fresh_peers(), four.fresh_peers()), (1, 1));
    let second = bounded(Mesh::builder().expect(2).join(&address).start()).await.unwrap();
    one_mesh(&[three, second, four]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_peers_of_another_secret_or_name_take_no_part() {
    let one = bounded(Mesh::builder().expect(2).secret("right").launch()).await.unwrap();
    let address = &one.addresses()[0];
    for (builder, reason) in [
        (Mesh::builder().secret("wrong"), RefuseReason::WrongSecret),
        (
            Mesh::builder().secret("right").name("other"),
            RefuseReason::WrongMeshName { theirs: "default".to_owned(), ours: "other".to_owned() },
        ),
    ] {
        let refused = bounded(builder.expect(2).join(address).start()).await;
        let Err(StartError::Refused { reason: told, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(told, reason);
    }
    assert_eq!((one.fresh_peers(), one.status().genesis), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founded_mesh_and_another_refuse_each_other_and_both_say_so() {
    let address = unused_address();
    let heard = [Heard::default(), Heard::default()];
    let founded = bounded(heard[0].by(Mesh::builder().expect(1).join(&address)).start()).await.unwrap();
    let other = bounded(heard[1].by(Mesh::builder().new_mesh().listen(&address)).start()).await.unwrap();
    for heard in &heard {
        let is_it = |notice: &Notice| {
            matches!(notice, Notice::Refused { peer: Some(_), reason: RefuseReason::OtherGenesis { .. }, .. })
        };
        until("it is said", || heard.count(is_it) > 0).await;
    }
    for mesh in [&founded, &other] {
        assert!(mesh.peers().is_empty() && mesh.status().transport.other_genesis > 0);
    }
    assert_ne!(founded.status().genesis, other.status().genesis);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_only_joins_or_searches_founds_nothing_and_joins_what_others_found() {
    let searching = bounded(Mesh::builder().search().launch()).await.unwrap();
    let one = bounded(Mesh::builder().expect(2).join(&searching.addresses()[0]).launch()).await.unwrap();
    let joining = bounded(Mesh::builder().join(&one.addresses()[0]).join_timeout(None).launch()).await.unwrap();
    until("one was refused", || one.status().transport.refused > 1).await;
    assert_eq!((one.fresh_peers(), joining.fresh_peers(), searching.fresh_peers()), (1, 0, 0));
    let other = bounded(Mesh::builder().expect(2).join(&one.addresses()[0]).launch()).await.unwrap();
    one_mesh(&[one, other, joining, searching]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_way_to_a_mesh_can_be_asked_for() {
    let mesh = Mesh::builder;
    for builder in [mesh().new_mesh().expect(3), mesh().new_mesh().search(), mesh().search().expect(3)] {
        assert_eq!(builder.start().await.err(), Some(StartError::OneWayToFound));
    }
    for given in [0, 129, usize::MAX] {
        assert_eq!(mesh().expect(given).start().await.err(), Some(StartError::Expect { given }));
    }
}
