//! R23: names are unique, bound and freed with the transaction, found from everywhere, and split into more buckets
//! without anybody noticing.

use crate::harness::{Gold, GoldRef, Job, Mesh, Rule, is_grant, is_locate, is_read};
use driftmesh_model::limits::{NAME_BUCKETS, NAME_BYTES_MAX, NAMES_PER_PAGE_MAX};
use driftmesh_model::{ObjectId, Ref};
use driftmesh_peer::session::{
    Error, Host as _, NameBucket, NameError, NamePage, Options, Outcome, Result, Snapshot, Tx, transact,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::Poll;

/// How long any job may take, virtual milliseconds.
const LIMIT: u64 = 20_000;

/// So many peers, the first of which founded the mesh; a bucket with more names than given splits.
fn founded(peers: usize, entries_max: usize) -> Mesh {
    Mesh::with(peers, |index, setup| {
        setup.config.founder = index == 0;
        setup.config.name_bucket_entries_max = entries_max;
    })
}

type Handle = Tx<crate::harness::SeatHost>;

fn spawn<T, F, Fut>(mesh: &Mesh, at: usize, body: F) -> Job<Result<T>>
where
    T: Send + 'static,
    F: FnMut(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let host = mesh.host(at);
    mesh.spawn(async move { Ok(transact(host, Options::new("names"), body).await?.value) })
}

fn run<T, F, Fut>(mesh: &Mesh, at: usize, body: F) -> Result<T>
where
    T: Send + 'static,
    F: FnMut(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let job = spawn(mesh, at, body);
    let done = mesh.finish(&job, LIMIT);
    // A snapshot elsewhere sees a commit that no message told of once its own clock has passed it.
    mesh.run(1);
    done
}

fn gold(number: u128) -> GoldRef {
    Ref::from_id(ObjectId::from_u128(number))
}

fn bind(mesh: &Mesh, at: usize, name: &str, to: GoldRef) -> Result<()> {
    let name = name.to_owned();
    run(mesh, at, move |tx| {
        let name = name.clone();
        async move { tx.bind(&name, to).await }
    })
}

fn lookup(mesh: &Mesh, at: usize, name: &str) -> Option<GoldRef> {
    let name = name.to_owned();
    let found = run(mesh, at, move |tx| {
        let name = name.clone();
        async move { tx.lookup(&name).await }
    });
    found.expect("nothing is in the way")
}

/// All names as a snapshot lists them, page by page.
fn all_names(mesh: &Mesh, at: usize, prefix: &'static str) -> Vec<NamePage> {
    let host = mesh.host(at);
    let job = mesh.spawn(async move {
        let snapshot = Snapshot::take(host, "list")?;
        let mut pages: Vec<NamePage> = Vec::new();
        loop {
            let after = pages.last().and_then(|page| page.next.as_deref());
            let page = snapshot.list(prefix, after).await?;
            let is_last = page.next.is_none();
            pages.push(page);
            if is_last {
                return Ok::<_, Error>(pages);
            }
        }
    });
    mesh.finish(&job, LIMIT).expect("a list")
}

/// So many names that all begin in the same bucket of genesis.
fn in_one_bucket(count: usize) -> Vec<String> {
    let first = NameBucket::of_genesis().next();
    let names = (0..).map(|number| format!("name {number}"));
    names.filter(|name| Some(NameBucket::first_of(name)) == first).take(count).collect()
}

#[test]
fn who_turns_out_to_be_the_founder_makes_the_buckets_once() {
    let mesh = Mesh::with(2, |_, setup| setup.config.founder = false);
    let owned = |at: usize| mesh.host(at).step(|peer, now| peer.status(now).owned);
    let turns_out = |at: usize| mesh.host(at).step(|peer, now| peer.founded(now));
    assert_eq!(owned(1), 0);
    turns_out(1);
    assert_eq!(owned(1), NAME_BUCKETS);
    bind(&mesh, 0, "player/ada", gold(1)).expect("commits");
    turns_out(1);
    assert_eq!(lookup(&mesh, 1, "player/ada"), Some(gold(1)), "what is there is not made again");

    let mesh = founded(2, 128);
    bind(&mesh, 1, "player/ada", gold(1)).expect("commits");
    mesh.host(0).step(|peer, now| peer.founded(now));
    assert_eq!(lookup(&mesh, 0, "player/ada"), Some(gold(1)));
}

#[test]
fn a_name_is_bound_with_the_creation_and_found_from_the_other_peer() {
    let mesh = founded(2, 128);
    let ada = run(&mesh, 1, |tx| async move {
        let ada = tx.create(&Gold::of(7))?;
        tx.bind("player/ada", ada).await?;
        assert_eq!(tx.lookup("player/ada").await?, Some(ada), "it sees its own names");
        Ok(ada)
    });
    let ada = ada.expect("commits");
    let found = run(&mesh, 0, |tx| async move {
        let Some(found) = tx.lookup::<Gold>("player/ada").await? else { return Ok(None) };
        Ok(Some((found, tx.get(found).await?.amount)))
    });
    assert_eq!(found.expect("reads"), Some((ada, 7)));
    for at in 0..2 {
        let error = bind(&mesh, at, "player/ada", gold(1)).expect_err("it is taken");
        assert!(matches!(&error, Error::NameTaken { name, by } if name == "player/ada" && *by == ada.id()), "{error}");
        assert_eq!(error.outcome(), Outcome::Aborted);
    }
    assert_eq!(lookup(&mesh, 0, "player/bob"), None);
}

#[test]
fn a_transaction_that_aborts_binds_and_frees_nothing() {
    let mesh = founded(2, 1);
    let names = in_one_bucket(3);
    bind(&mesh, 0, &names[0], gold(1)).expect("free");
    let tried = names.clone();
    let rejected = run(&mesh, 1, move |tx| {
        let names = tried.clone();
        async move {
            assert_eq!(tx.unbind(&names[0]).await?, Some(gold(1).id()));
            // These two split the bucket, and the split goes with the rest.
            tx.bind(&names[1], gold(2)).await?;
            tx.bind(&names[2], gold(3)).await?;
            Err::<(), _>(tx.reject("changed its mind"))
        }
    });
    assert!(matches!(rejected, Err(Error::Rejected(_))));
    let found: Vec<_> = names.iter().map(|name| lookup(&mesh, 0, name)).collect();
    assert_eq!(found, [Some(gold(1)), None, None]);
}

#[test]
fn a_name_outlives_its_object_until_it_is_freed_or_bound_anew() {
    let mesh = founded(2, 128);
    let bob = run(&mesh, 0, |tx| async move {
        let bob = tx.create(&Gold::of(1))?;
        tx.bind("bob", bob).await?;
        Ok(bob)
    });
    let bob = bob.expect("commits");
    run(&mesh, 0, move |tx| async move { tx.delete(bob).await }).expect("deletes");
    assert_eq!(lookup(&mesh, 1, "bob"), Some(bob));
    let dangling = run(&mesh, 1, move |tx| async move { tx.get(bob).await });
    assert!(matches!(dangling, Err(Error::Dangling { object }) if object == bob.id()));
    assert!(matches!(bind(&mesh, 1, "bob", gold(9)), Err(Error::NameTaken { by, .. }) if by == bob.id()));
    let rebound = run(&mesh, 1, |tx| async move { tx.rebind("bob", gold(9)).await });
    assert_eq!(rebound.expect("rebinds"), Some(bob.id()));
    let freed = run(&mesh, 0, |tx| async move { Ok((tx.unbind("bob").await?, tx.unbind("bob").await?)) });
    assert_eq!(freed.expect("frees"), (Some(gold(9).id()), None));
    assert_eq!(run(&mesh, 0, |tx| async move { tx.rebind("bob", gold(3)).await }).expect("binds"), None);
    assert_eq!(lookup(&mesh, 1, "bob"), Some(gold(3)));
}

#[test]
fn what_is_no_name_is_refused_by_every_operation() {
    let mesh = founded(1, 128);
    let longest = "é".repeat(NAME_BYTES_MAX / 2) + "x";
    assert_eq!(longest.len(), NAME_BYTES_MAX);
    bind(&mesh, 0, &longest, gold(1)).expect("the longest name");
    assert_eq!(lookup(&mesh, 0, &longest), Some(gold(1)));
    bind(&mesh, 0, "Zoë's guild / 日本 🐉", gold(2)).expect("any text");
    let wrong = [
        (String::new(), NameError::Empty),
        (longest + "x", NameError::TooLong { bytes: NAME_BYTES_MAX + 1 }),
        ("ada\n".to_owned(), NameError::ControlCharacter { character: '\n', at: 3 }),
        ("é\u{85}".to_owned(), NameError::ControlCharacter { character: '\u{85}', at: 2 }),
    ];
    for (name, expected) in wrong {
        let refused = run(&mesh, 0, move |tx| {
            let name = name.clone();
            async move {
                let all = [
                    tx.bind(&name, gold(1)).await.err(),
                    tx.rebind(&name, gold(1)).await.err(),
                    tx.unbind(&name).await.err(),
                    tx.lookup::<Gold>(&name).await.err(),
                ];
                Ok(all)
            }
        });
        for error in refused.expect("the transaction itself is fine") {
            assert!(matches!(&error, Some(Error::IllegalName(found)) if *found == expected), "{error:?}");
        }
    }
}

#[test]
fn lists_come_in_order_in_pages_and_by_prefix() {
    let mesh = founded(2, 64);
    let count = 2 * NAMES_PER_PAGE_MAX + 1;
    let expected: Vec<(String, ObjectId)> =
        (0..count).map(|number| (format!("guild/{number:05}"), gold(number as u128).id())).collect();
    let names = expected.clone();
    let bound = run(&mesh, 0, move |tx| {
        let names = names.clone();
        async move {
            tx.bind("guild", gold(0)).await?;
            tx.bind("guilds", gold(0)).await?;
            for (name, object) in &names {
                tx.bind(name, GoldRef::from_id(*object)).await?;
            }
            Ok(())
        }
    });
    bound.expect("binds");
    let pages = all_names(&mesh, 1, "guild/");
    assert_eq!(
        pages.iter().map(|page| page.names.len()).collect::<Vec<_>>(),
        [NAMES_PER_PAGE_MAX, NAMES_PER_PAGE_MAX, 1]
    );
    assert_eq!(pages.into_iter().flat_map(|page| page.names).collect::<Vec<_>>(), expected);

    // A full page that is the last one says so, and pages may begin anywhere.
    let page = run(&mesh, 1, |tx| async move {
        let page = tx.list("guild/", Some("guild/01000")).await?;
        let none = tx.list("guild/", Some("guild/1")).await?;
        let all = tx.list("guild/", Some("a")).await?;
        Ok((page, none, all.names.len()))
    });
    let (page, none, all) = page.expect("lists");
    assert_eq!((page.names.len(), &page.names[0].0, page.next), (NAMES_PER_PAGE_MAX, &expected[1_001].0, None));
    assert_eq!((none, all), (NamePage::default(), NAMES_PER_PAGE_MAX));
    assert_eq!(all_names(&mesh, 1, "guilds")[0].names, [("guilds".to_owned(), gold(0).id())]);
}

#[test]
fn a_list_asks_once_for_each_level_and_only_for_its_first_page() {
    let mesh = founded(2, 1);
    for (number, name) in in_one_bucket(2).iter().enumerate() {
        bind(&mesh, 0, name, gold(number as u128)).expect("free");
    }
    // Until all records are at their homes.
    mesh.run(500);
    let host = mesh.host(1);
    mesh.clear_log();
    let job = mesh.spawn(async move {
        let snapshot = Snapshot::take(host, "list")?;
        let first = snapshot.list("", None).await?;
        Ok::<_, Error>((first, snapshot.list("", Some("name")).await?))
    });
    let (first, second) = mesh.finish(&job, LIMIT).expect("lists");
    assert_eq!((first.names.len(), first == second), (2, true));
    let reads = mesh.sent(|flight| flight.from == 1 && is_read(flight)).len();
    let searches = mesh.sent(|flight| flight.from == 1 && is_locate(flight)).len();
    assert_eq!((reads, searches), (2, 0));
}

#[test]
fn a_bind_waits_for_its_own_leaf_only_and_a_lookup_for_none() {
    let mesh = founded(1, 1);
    let names = in_one_bucket(40);
    for (number, name) in names[..2].iter().enumerate() {
        bind(&mesh, 0, name, gold(number as u128)).expect("free");
    }
    // One name that shares a leaf with the first, and one that does not.
    let first = NameBucket::first_of(&names[0]);
    let split: NameBucket = mesh.look(0, |peer| {
        let value = peer.group().owned(first).and_then(|stored| stored.chain.newest().value.clone());
        driftmesh_model::decode_object(&value.expect("it exists")).expect("a bucket")
    });
    let leaf = |name: &String| split.child_of(name, 0).expect("it has split");
    let near = names[2..].iter().find(|name| leaf(name) == leaf(&names[0])).expect("one of many").clone();
    let far = names[2..].iter().find(|name| leaf(name) != leaf(&names[0])).expect("one of many").clone();

    let (slow_mesh, slow_name) = (mesh.clone(), names[0].clone());
    let slow = spawn(&mesh, 0, move |tx| {
        let (mesh, name) = (slow_mesh.clone(), slow_name.clone());
        async move {
            tx.rebind(&name, gold(77)).await?;
            mesh.sleep(2_000).await;
            Ok(())
        }
    });
    mesh.run(10);
    bind(&mesh, 0, &far, gold(5)).expect("another leaf is free");
    assert_eq!(lookup(&mesh, 0, &names[0]), Some(gold(0)), "what is not committed is not seen");
    let waiting = spawn(&mesh, 0, move |tx| {
        let near = near.clone();
        async move { tx.bind(&near, gold(6)).await }
    });
    mesh.run(10);
    assert!(!slow.is_done() && !waiting.is_done());
    mesh.finish(&slow, LIMIT).expect("commits");
    mesh.finish(&waiting, LIMIT).expect("its turn");
    assert_eq!(lookup(&mesh, 0, &names[0]), Some(gold(77)));
}

#[test]
fn binds_in_one_bucket_from_all_sides_while_it_splits_all_succeed_and_one_of_each_name() {
    let mesh = founded(3, 2);
    let names = in_one_bucket(24);
    let mut jobs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        for at in 0..3 {
            let (name, to) = (name.clone(), gold(100 * number as u128 + at as u128));
            let job = spawn(&mesh, at, move |tx| {
                let name = name.clone();
                async move { tx.bind(&name, to).await }
            });
            jobs.push((number, to, job));
        }
    }
    let mut winners: BTreeMap<usize, GoldRef> = BTreeMap::new();
    for (number, to, job) in jobs {
        match mesh.finish(&job, LIMIT) {
            Ok(()) => assert_eq!(winners.insert(number, to), None, "bound twice: {}", names[number]),
            Err(error) => assert!(matches!(error, Error::NameTaken { .. }), "{error}"),
        }
    }
    assert_eq!(winners.len(), names.len());
    for (number, winner) in winners {
        assert_eq!(lookup(&mesh, number % 3, &names[number]), Some(winner));
    }
}

/// Runs futures side by side within one job.
async fn together(mut futures: Vec<Pin<Box<dyn Future<Output = Result<()>> + Send>>>) -> Result<()> {
    std::future::poll_fn(|context| {
        let mut index = 0;
        while index < futures.len() {
            match futures[index].as_mut().poll(context) {
                Poll::Ready(Ok(())) => drop(futures.swap_remove(index)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => index += 1,
            }
        }
        if futures.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

#[test]
fn branches_of_one_closure_bind_in_one_bucket_and_none_undoes_another() {
    let mesh = founded(2, 1);
    let names = in_one_bucket(6);
    let expected = names.clone();
    // The buckets are at the other peer, so all branches wait for the same one.
    let bound = run(&mesh, 1, move |tx| {
        let names = names.clone();
        async move {
            let mut branches: Vec<Pin<Box<dyn Future<Output = Result<()>> + Send>>> = Vec::new();
            for (number, name) in names.into_iter().enumerate() {
                let tx = tx.clone();
                branches.push(Box::pin(async move { tx.bind(&name, gold(number as u128)).await }));
            }
            together(branches).await
        }
    });
    bound.expect("binds");
    for (number, name) in expected.iter().enumerate() {
        assert_eq!(lookup(&mesh, 0, name), Some(gold(number as u128)));
    }
}

#[test]
fn a_bind_that_is_dropped_while_it_waits_binds_nothing() {
    let mesh = founded(2, 128);
    mesh.rule(Rule::Hold, is_grant);
    let bound = run(&mesh, 1, |tx| async move {
        let branch = tx.clone();
        let mut waiting = Box::pin(async move { branch.bind("ada", gold(1)).await });
        let mut polls = 0;
        std::future::poll_fn(|context| {
            polls += 1;
            // It waits for the bucket's content first, and then for its ownership, which is held back.
            if waiting.as_mut().poll(context).is_ready() || polls > 1 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        drop(waiting);
        Ok(())
    });
    bound.expect("commits");
    mesh.release();
    assert_eq!(lookup(&mesh, 0, "ada"), None);
}

#[test]
fn without_the_directory_names_are_a_typed_error() {
    // Nobody founded this mesh: as after the loss of the peer that had all buckets.
    let mesh = Mesh::new(2);
    let bucket = NameBucket::first_of("ada");
    let both = run(&mesh, 1, |tx| async move {
        Ok((tx.lookup::<Gold>("ada").await.err(), tx.bind("ada", gold(1)).await.err(), tx.list("", None).await.err()))
    });
    let (lookup, bind, list) = both.expect("the transaction itself is fine");
    for error in [lookup, bind] {
        assert!(matches!(&error, Some(Error::BucketMissing { bucket: missing }) if *missing == bucket), "{error:?}");
    }
    assert!(matches!(list, Some(Error::BucketMissing { .. })));
}

#[derive(Clone, Debug)]
enum Act {
    Bind(usize, u128),
    Rebind(usize, u128),
    Unbind(usize),
    Lookup(usize),
    List(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let name = 0..POOL;
    let act = prop_oneof![
        3 => (name.clone(), 1..9_u128).prop_map(|(name, to)| Act::Bind(name, to)),
        1 => (name.clone(), 1..9_u128).prop_map(|(name, to)| Act::Rebind(name, to)),
        2 => name.clone().prop_map(Act::Unbind),
        1 => name.clone().prop_map(Act::Lookup),
        1 => name.prop_map(Act::List),
    ];
    proptest::collection::vec(act, 1..8)
}

const POOL: usize = 20;

type Model = BTreeMap<String, ObjectId>;

/// Does the same to the mesh and to the model; fails the test where the answers differ.
async fn act(tx: &Handle, model: &mut Model, names: &[String], act: &Act) -> Result<()> {
    match act {
        Act::Bind(name, to) => match (tx.bind(&names[*name], gold(*to)).await, model.get(&names[*name]).copied()) {
            (Ok(()), None) => {
                model.insert(names[*name].clone(), gold(*to).id());
            }
            (Err(Error::NameTaken { by, .. }), Some(bound)) => assert_eq!(by, bound),
            (Err(error @ Error::AttemptEnded { .. }), _) => return Err(error),
            (other, bound) => panic!("{act:?} gives {other:?}, it was bound to {bound:?}"),
        },
        Act::Rebind(name, to) => {
            let former = tx.rebind(&names[*name], gold(*to)).await?;
            assert_eq!(former, model.insert(names[*name].clone(), gold(*to).id()), "{act:?}");
        }
        Act::Unbind(name) => assert_eq!(tx.unbind(&names[*name]).await?, model.remove(&names[*name]), "{act:?}"),
        Act::Lookup(name) => {
            let found = tx.lookup::<Gold>(&names[*name]).await?.map(|found| found.id());
            assert_eq!(found, model.get(&names[*name]).copied(), "{act:?}");
        }
        Act::List(after) => {
            let page = tx.list("name", Some(&names[*after])).await?;
            let expected: Vec<_> = model.iter().filter(|(name, _)| **name > names[*after]).collect();
            assert_eq!(page.names.iter().map(|(name, to)| (name, to)).collect::<Vec<_>>(), expected, "{act:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_behave_like_one_map_however_their_buckets_split(
        entries_max in 1_usize..5,
        one_bucket in any::<bool>(),
        work in proptest::collection::vec((0_usize..2, any::<bool>(), acts()), 1..16),
    ) {
        let mesh = founded(2, entries_max);
        let names: Vec<String> =
            if one_bucket { in_one_bucket(POOL) } else { (0..POOL).map(|number| format!("name {number}")).collect() };
        let mut model = Model::new();
        for (at, commits, acts) in work {
            let (before, names) = (model.clone(), names.clone());
            let done = run(&mesh, at, move |tx| {
                let (mut model, names, acts) = (before.clone(), names.clone(), acts.clone());
                async move {
                    for one in &acts {
                        act(&tx, &mut model, &names, one).await?;
                    }
                    if commits { Ok(model) } else { Err(tx.reject("only tried")) }
                }
            });
            match done {
                Ok(changed) => model = changed,
                Err(error) => prop_assert!(!commits && matches!(error, Error::Rejected(_)), "{error}"),
            }
        }
        for at in 0..2 {
            let listed: Model = all_names(&mesh, at, "").into_iter().flat_map(|page| page.names).collect();
            prop_assert_eq!(&listed, &model);
        }
        prop_assert!(mesh.look(0, |peer| peer.group().owned_count()) + mesh.look(1, |peer| peer.group().owned_count())
            >= NAME_BUCKETS);
    }
}
