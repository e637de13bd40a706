//! Watching: the newest stable version since the last look, over transfers, crashes and losses.

use crate::harness::wire::Wire;
use crate::harness::{Flight, Gold, GoldRef, Mesh, Rule, SeatHost, is_read, is_read_answer};
use driftmesh_directory::Record;
use driftmesh_model::{Epoch, GroupId, Incarnation, ObjectId, PeerId, Ref, Timestamp};
use driftmesh_peer::session::{Error, NameNews, NameWatch, Watch, Watched};
use driftmesh_peer::{Envelope, Introduction, Message, NewsOf, Peer, WATCHERS_MAX, Wish};

type GoldWatch = Watch<SeatHost, Gold>;

fn watch(mesh: &Mesh, at: usize, object: ObjectId) -> GoldWatch {
    Watch::begin(mesh.host(at), Ref::from_id(object)).expect("there is room")
}

/// All that is new, as numbers; a deletion is `None`.
fn look(watch: &mut GoldWatch) -> Vec<Option<u64>> {
    let mut seen = Vec::new();
    while let Some(told) = watch.try_next().expect("it is gold") {
        seen.push(match told {
            Watched::Version { value, .. } => Some(value.amount),
            Watched::Deleted { .. } => None,
            Watched::Missing | Watched::Lost { .. } => panic!("it exists: {told:?}"),
        });
    }
    seen
}

#[test]
fn the_newest_version_is_told_where_it_is_owned_followed_and_neither() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let mut watches: Vec<GoldWatch> = (0..5).map(|at| watch(&mesh, at, object)).collect();
    mesh.run(300);
    for watch in &mut watches {
        assert_eq!(look(watch), [Some(1)]);
        assert_eq!(look(watch), []);
    }
    mesh.put(0, object, 2);
    mesh.put(0, object, 3);
    mesh.run(60);
    for watch in &mut watches {
        assert_eq!(look(watch), [Some(3)], "the newest only");
    }
    mesh.put_values(0, &[(object, None)]);
    mesh.run(60);
    for watch in &mut watches {
        assert_eq!(look(watch), [None]);
    }
}

#[test]
fn a_watch_goes_where_its_object_goes() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 0);
    mesh.run(100);
    let mut watches: Vec<GoldWatch> = (0..5).map(|at| watch(&mesh, at, object)).collect();
    mesh.run(300);
    watches.iter_mut().for_each(|watch| drop(look(watch)));
    for number in 1..=20 {
        mesh.put(usize::try_from(number % 5).unwrap(), object, number);
        mesh.run(15);
    }
    mesh.run(500);
    for watch in &mut watches {
        let seen = look(watch);
        assert_eq!(seen.last(), Some(&Some(20)));
        assert_eq!(seen.len(), 1);
    }
}

#[test]
fn a_watch_outlives_the_owner_and_never_shows_what_was_lost() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let mut watches: Vec<GoldWatch> = (1..5).map(|at| watch(&mesh, at, object)).collect();
    mesh.run(300);
    watches.iter_mut().for_each(|watch| drop(look(watch)));
    mesh.hold_entries(0);
    mesh.put(0, object, 666);
    mesh.run(100);
    for watch in &mut watches {
        assert_eq!(look(watch), [], "it is not stable");
    }
    let _ = mesh.take_held();
    mesh.kill(0);
    mesh.run(2_000);
    mesh.add(2, object, 5);
    mesh.run(1_500);
    for watch in &mut watches {
        assert_eq!(look(watch).last(), Some(&Some(6)));
    }
}

#[test]
fn a_wait_that_is_dropped_loses_nothing() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    let mut watched = watch(&mesh, 1, object);
    mesh.run(300);
    assert_eq!(look(&mut watched), [Some(1)]);
    let job = mesh.spawn(async move {
        let mut watched = watched;
        // A wait that is polled once and dropped.
        {
            let mut next = Box::pin(watched.next());
            std::future::poll_fn(|context| {
                assert!(next.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        match watched.next().await {
            Ok(Watched::Version { value, .. }) => value.amount,
            other => panic!("{other:?}"),
        }
    });
    mesh.run(50);
    mesh.put(0, object, 2);
    assert_eq!(mesh.finish(&job, 500), 2);
}

#[test]
fn what_never_was_is_missing_until_it_is() {
    let mesh = Mesh::replicated(3, 2);
    let nowhere = ObjectId::from_u128(99);
    let mut watched = watch(&mesh, 1, nowhere);
    mesh.run(1_500);
    assert!(matches!(watched.try_next(), Ok(Some(Watched::Missing))));
    mesh.run(2_000);
    assert!(matches!(watched.try_next(), Ok(None)), "it is told once");
}

#[test]
fn what_an_operator_gives_up_is_told_as_lost() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let group = mesh.group_id(0);
    let members: Vec<usize> = std::iter::once(0).chain(mesh.followers(group)).collect();
    let at = (1..5).find(|at| !members.contains(at)).unwrap();
    let mut watched = watch(&mesh, at, object);
    mesh.run(300);
    assert_eq!(look(&mut watched), [Some(1)]);
    mesh.kill_all(&members);
    mesh.run(1_000);
    let forget = mesh.spawn(driftmesh_peer::session::forget(mesh.host(at), group, true));
    let forgotten = mesh.finish(&forget, 2_000);
    assert!(forgotten.is_ok(), "{forgotten:?}");
    for other in members.iter().skip(1) {
        let theirs = mesh.group_id(*other);
        let forget = mesh.spawn(driftmesh_peer::session::forget(mesh.host(at), theirs, true));
        assert!(mesh.finish(&forget, 2_000).is_ok());
    }
    mesh.run(4_000);
    let told = watched.try_next();
    assert!(matches!(told, Ok(Some(Watched::Lost { group: of })) if of == group), "{told:?}");
}

#[test]
fn an_idle_watch_costs_a_few_messages_a_second_and_a_closed_one_none() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let followers = mesh.followers(mesh.group_id(0));
    let at = (1..5).find(|at| !followers.contains(at)).unwrap();
    let mut watched = watch(&mesh, at, object);
    mesh.run(1_000);
    assert_eq!(look(&mut watched), [Some(1)]);
    mesh.clear_log();
    mesh.run(10_000);
    let of_watches = |flight: &Flight| {
        matches!(flight.message(), Message::Feed { .. } | Message::Subscribe { .. } | Message::WantCloses { .. })
    };
    let messages = mesh.sent(of_watches).len();
    assert!((20..=40).contains(&messages), "{messages} messages in 10 s");
    drop(watched);
    mesh.run(5_000);
    mesh.clear_log();
    mesh.run(5_000);
    assert!(mesh.sent(of_watches).is_empty());
}

#[test]
fn watches_are_bounded() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let watches: Vec<GoldWatch> = (0..WATCHERS_MAX).map(|_| watch(&mesh, 0, object)).collect();
    let more: Result<GoldWatch, Error> = Watch::begin(mesh.host(0), Ref::from_id(object));
    assert!(matches!(more, Err(Error::TooManyWatches)));
    drop(watches);
    mesh.run(100);
    assert_eq!(look(&mut watch(&mesh, 0, object)), []);
}

#[test]
fn a_leader_without_room_is_asked_again_and_the_watch_comes_to_the_end_all_the_same() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    let mut watched = watch(&mesh, 1, object);
    mesh.rule(Rule::Drop, |flight| matches!(flight.message(), Message::Feed { .. }));
    mesh.put(0, object, 2);
    mesh.run(3_000);
    mesh.release();
    mesh.run(3_000);
    assert_eq!(look(&mut watched).last(), Some(&Some(2)));
}

#[test]
fn a_peer_that_was_restarted_is_told_as_soon_as_before() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    for _ in 0..5 {
        let watched = watch(&mesh, 1, object);
        mesh.run(200);
        drop(watched);
        mesh.run(200);
    }
    let before = watch(&mesh, 1, object);
    mesh.run(200);
    mesh.restart(1);
    drop(before);
    mesh.run(100);
    let mut watched = watch(&mesh, 1, object);
    mesh.run(200);
    assert_eq!(look(&mut watched), [Some(1)]);
    mesh.put(0, object, 2);
    mesh.run(100);
    assert_eq!(look(&mut watched), [Some(2)]);
}

#[test]
fn names_that_come_and_go_are_told_with_what_they_are_bound_to() {
    let mesh = Mesh::replicated_with(3, 2, |at, setup| {
        setup.config.founder = at == 0;
        // Buckets split soon.
        setup.config.name_bucket_entries_max = 2;
    });
    let host = mesh.host(1);
    let mut names: NameWatch<SeatHost, Gold> = NameWatch::begin(host, "guild/").unwrap();
    let mut known: std::collections::BTreeMap<String, Option<u64>> = std::collections::BTreeMap::new();
    let mut look = |mesh: &Mesh, known: &mut std::collections::BTreeMap<String, Option<u64>>| {
        // What a name is bound to is watched once the name is told.
        for _ in 0..4 {
            mesh.run(300);
            while let Some(news) = names.try_next().expect("all is well") {
                match news {
                    NameNews::Bound { name, .. } => drop(known.insert(name, None)),
                    NameNews::Unbound { name, .. } => assert!(known.remove(&name).is_some(), "{name} was bound"),
                    NameNews::Changed { name, seen, .. } => {
                        let amount = if let Watched::Version { value, .. } = seen { Some(value.amount) } else { None };
                        assert!(known.insert(name, amount).is_some());
                    }
                }
            }
        }
        known.clone()
    };
    let bind = |number: u64, name: String| {
        let job = mesh.spawn(driftmesh_peer::session::transact(
            mesh.host(2),
            driftmesh_peer::session::Options::new("bind"),
            move |tx| {
                let name = name.clone();
                async move {
                    let gold = tx.create(&Gold::of(number))?;
                    tx.bind(&name, gold).await?;
                    Ok(gold)
                }
            },
        ));
        mesh.finish(&job, 5_000).expect("it binds").value
    };
    let first = bind(1, "guild/a".to_owned());
    bind(2, "else/a".to_owned());
    assert_eq!(look(&mesh, &mut known), [("guild/a".to_owned(), Some(1))].into());
    mesh.put(0, first.id(), 10);
    for number in 0..150 {
        bind(number, format!("guild/{number}"));
    }
    let told = look(&mesh, &mut known);
    assert_eq!(told.len(), 151);
    assert!((0..150).all(|number| told[&format!("guild/{number}")] == Some(number)));
    assert_eq!(told["guild/a"], Some(10));
    let unbind = mesh.spawn(driftmesh_peer::session::transact(
        mesh.host(0),
        driftmesh_peer::session::Options::new("unbind"),
        |tx| async move { tx.unbind("guild/a").await },
    ));
    assert!(mesh.finish(&unbind, 5_000).is_ok());
    assert!(!look(&mesh, &mut known).contains_key("guild/a"));
}

fn is_subscribe(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Subscribe { .. })
}

fn is_feed(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Feed { .. })
}

/// An answer to a read of peer 1 from before the object has its number 2, which has not arrived yet.
fn old_answer(mesh: &Mesh, object: ObjectId) -> Vec<Flight> {
    let snapshot = mesh.begin_snapshot(1);
    mesh.rule(Rule::Hold, |flight| is_read_answer(flight) && flight.to == 1);
    assert!(mesh.read(snapshot, object).is_pending());
    mesh.run(10);
    let answers = mesh.take_held();
    assert!(!answers.is_empty());
    mesh.release();
    mesh.end(snapshot);
    answers
}

/// Peer 1 begins to look for what it subscribed to, after a while in which nobody answered.
fn looks_for_it(mesh: &Mesh) {
    mesh.rule(Rule::Drop, |flight| flight.from == 1 && (is_subscribe(flight) || is_read(flight)));
    mesh.rule(Rule::Drop, |flight| flight.to == 1 && is_feed(flight));
    mesh.run(2_000);
}

fn hand_all(mesh: &Mesh, flights: Vec<Flight>) {
    flights.into_iter().for_each(|flight| mesh.hand(flight));
    mesh.run(1);
}

#[test]
fn a_watch_that_begins_after_another_shows_nothing_older() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    let answers = old_answer(&mesh, object);
    mesh.put(0, object, 2);
    let mut first = watch(&mesh, 1, object);
    mesh.run(300);
    assert_eq!(look(&mut first), [Some(2)]);
    drop(first);
    let mut second = watch(&mesh, 1, object);
    looks_for_it(&mesh);
    hand_all(&mesh, answers);
    assert_eq!(look(&mut second), [], "it is an answer to a question asked before the first was told");
    mesh.release();
    mesh.run(2_000);
    assert_eq!(look(&mut second), [Some(2)]);
}

/// Peer 1 watched an object until it had the number 2, and does so no more. Peer 2 closes nothing above its stable window
/// (R8): at first it can say only what was before that. Its own object is the second.
fn window_of_long_ago() -> (Mesh, [ObjectId; 2]) {
    let mesh = Mesh::replicated(4, 2);
    let [object, other] = [0, 2].map(|at| mesh.create_known(at, 1));
    mesh.run(100);
    let snapshot = mesh.begin_snapshot(1);
    assert_eq!(mesh.read_wait(snapshot, other), Ok(Some(1)));
    mesh.run(3_000);
    mesh.put(0, object, 2);
    let mut first = watch(&mesh, 1, object);
    mesh.run(300);
    assert_eq!(look(&mut first), [Some(2)]);
    drop(first);
    mesh.run(100);
    (mesh, [object, other])
}

/// What a watch shows from one millisecond to the next.
fn look_closely(mesh: &Mesh, watch: &mut GoldWatch, millis: u64) -> Vec<Option<u64>> {
    let look_once = |_| {
        mesh.run(1);
        look(watch)
    };
    (0..millis).flat_map(look_once).collect()
}

#[test]
fn a_watch_at_an_owner_that_knows_only_what_was_long_ago_shows_nothing_older_than_another_did() {
    let (mesh, [object, _]) = window_of_long_ago();
    let moves = mesh.begin(2, "moves it");
    mesh.intend_wait(moves, &[object]).expect("nothing is in the way");
    mesh.end(moves);
    mesh.run(100);
    assert_eq!(mesh.owner_of(object), 2);
    let mut second = watch(&mesh, 1, object);
    assert_eq!(look_closely(&mesh, &mut second, 300), [Some(2)]);
}

#[test]
fn an_owner_that_knows_only_what_was_long_ago_is_asked_until_it_knows_more() {
    let (mesh, [_, other]) = window_of_long_ago();
    let mut second = watch(&mesh, 1, other);
    assert_eq!(look_closely(&mesh, &mut second, 200), [Some(1)], "though it has not changed");
    mesh.run(2_000);
    mesh.clear_log();
    mesh.run(2_000);
    assert!(mesh.sent(is_feed).len() < 10, "what it closes is wanted no longer");
}

/// All news of names, in words.
fn news(names: &mut NameWatch<SeatHost, Gold>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(news) = names.try_next().expect("all is well") {
        all.push(match news {
            NameNews::Bound { name, .. } => format!("{name} bound"),
            NameNews::Unbound { name, .. } => format!("{name} free"),
            NameNews::Changed { name, seen: Watched::Version { value, .. }, .. } => format!("{name} {}", value.amount),
            NameNews::Changed { seen, .. } => panic!("it exists: {seen:?}"),
        });
    }
    all
}

/// Binds and frees names at peer 0.
fn rename(mesh: &Mesh, free: &'static [&str], bind: &'static [&str], object: ObjectId) {
    let job = mesh.spawn(driftmesh_peer::session::transact(
        mesh.host(0),
        driftmesh_peer::session::Options::new("rename"),
        move |tx| async move {
            for name in free {
                tx.unbind(name).await?;
            }
            for name in bind {
                tx.bind::<Gold>(name, GoldRef::from_id(object)).await?;
            }
            Ok(())
        },
    ));
    assert!(mesh.finish(&job, 5_000).is_ok());
}

/// A mesh whose peer 1 watches the names "a..", one of which is bound to an object that it saw with the number 2; and an
/// answer that shows it with the number 1.
fn watched_name() -> (Mesh, ObjectId, NameWatch<SeatHost, Gold>, Vec<Flight>) {
    let mesh = Mesh::replicated_with(3, 2, |at, setup| setup.config.founder = at == 0);
    let object = mesh.create_known(0, 1);
    rename(&mesh, &[], &["a"], object);
    let answers = old_answer(&mesh, object);
    mesh.put(0, object, 2);
    let mut names: NameWatch<SeatHost, Gold> = NameWatch::begin(mesh.host(1), "a").expect("there is room");
    mesh.run(300);
    assert_eq!(news(&mut names), ["a bound"]);
    mesh.run(300);
    assert_eq!(news(&mut names), ["a 2"]);
    (mesh, object, names, answers)
}

#[test]
fn a_second_name_of_an_object_is_told_what_the_first_was_and_nothing_older() {
    let (mesh, object, mut names, answers) = watched_name();
    rename(&mesh, &[], &["aa"], object);
    mesh.run(100);
    mesh.clear_log();
    assert_eq!(news(&mut names), ["aa bound", "aa 2"], "at once, and of the first name nothing is news");
    mesh.run(100);
    let asks = |flight: &Flight| matches!(flight.message(), Message::Subscribe { wishes, .. } if !wishes.is_empty());
    assert!(mesh.sent(|flight| asks(flight) || is_read(flight)).is_empty(), "it is fed as before");
    looks_for_it(&mesh);
    hand_all(&mesh, answers);
    assert_eq!(news(&mut names), Vec::<String>::new());
    mesh.release();
    mesh.put(0, object, 3);
    mesh.run(3_000);
    assert_eq!(news(&mut names), ["a 3", "aa 3"]);
}

#[test]
fn an_object_does_not_go_back_when_its_name_changes() {
    let (mesh, object, mut names, answers) = watched_name();
    // In another bucket: it is seen free in between.
    rename(&mesh, &["a"], &[], object);
    mesh.run(100);
    assert_eq!(news(&mut names), ["a free"]);
    rename(&mesh, &[], &["ab"], object);
    mesh.run(100);
    assert_eq!(news(&mut names), ["ab bound"]);
    looks_for_it(&mesh);
    hand_all(&mesh, answers);
    assert_eq!(news(&mut names), Vec::<String>::new());
    mesh.release();
    mesh.run(3_000);
    assert_eq!(news(&mut names), ["ab 2"]);
}

#[test]
fn what_an_owner_has_no_room_for_is_read_now_and_then() {
    let mesh = Mesh::replicated_with(4, 2, |_, setup| setup.config.fed_max = 0);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let mut watches: Vec<GoldWatch> = (0..4).map(|at| watch(&mesh, at, object)).collect();
    mesh.run(3_000);
    assert!(mesh.rare(0, driftmesh_peer::RareEvent::SubscriberRefused) > 0);
    for watch in &mut watches {
        assert_eq!(look(watch), [Some(1)]);
    }
    mesh.put(0, object, 2);
    mesh.put(1, object, 3);
    mesh.run(4_000);
    for watch in &mut watches {
        assert_eq!(look(watch).last(), Some(&Some(3)));
    }
}

#[test]
fn what_an_owner_watches_itself_takes_no_room_from_others() {
    let mesh = Mesh::replicated_with(4, 2, |_, setup| setup.config.fed_max = 1);
    let objects: Vec<_> = (0..3).map(|_| mesh.create_known(0, 1)).collect();
    mesh.run(100);
    let own: Vec<GoldWatch> = objects.iter().map(|object| watch(&mesh, 0, *object)).collect();
    mesh.run(1_000);
    let mut other = watch(&mesh, 3, objects[0]);
    mesh.run(1_000);
    assert_eq!(look(&mut other), [Some(1)]);
    assert_eq!(mesh.rare(0, driftmesh_peer::RareEvent::SubscriberRefused), 0);
    assert_eq!(mesh.status(0).fed, 1);
    drop(own);
}

/// Lets a peer believe that another one, or itself, has an object.
fn hint(mesh: &Mesh, at: usize, object: ObjectId, says: usize) {
    let record = Record { object, group: mesh.group_id(says), epoch: Epoch::from_u64(50) };
    mesh.forge((at + 1) % mesh.len(), at, Wire::Learned { records: vec![record] }.message());
}

#[test]
fn a_watch_whose_own_peer_is_said_to_have_the_object_looks_elsewhere() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 1);
    hint(&mesh, 2, object, 2);
    let mut watched = watch(&mesh, 2, object);
    mesh.run(500);
    assert_eq!(look(&mut watched), [Some(1)]);
    mesh.put(1, object, 2);
    // It is told of that, too.
    hint(&mesh, 2, object, 2);
    mesh.run(500);
    assert_eq!(look(&mut watched), [Some(2)]);
}

#[test]
fn a_watch_does_not_go_round_in_a_circle_of_hints() {
    let mesh = Mesh::with(4, |_, setup| setup.config.records_max = std::num::NonZeroUsize::MIN);
    let object = mesh.create_known(0, 1);
    for (at, says) in [(3, 1), (1, 2), (2, 1)] {
        hint(&mesh, at, object, says);
    }
    let mut watched = watch(&mesh, 3, object);
    mesh.run(500);
    assert_eq!(look(&mut watched), [Some(1)]);
}

#[test]
fn a_leader_without_room_says_where_an_object_is_that_it_does_not_have() {
    let mesh = Mesh::with(4, |at, setup| {
        if at == 1 {
            setup.config.fed_max = 0;
        }
    });
    let object = mesh.create_known(0, 1);
    hint(&mesh, 3, object, 1);
    let mut watched = watch(&mesh, 3, object);
    mesh.run(300);
    assert_eq!(look(&mut watched), [Some(1)], "sooner than what there is no room for is read again");
    assert_eq!(mesh.rare(1, driftmesh_peer::RareEvent::SubscriberRefused), 0);
    mesh.put(0, object, 2);
    mesh.run(60);
    assert_eq!(look(&mut watched), [Some(2)], "its owner has room");
}

#[test]
fn news_of_large_objects_come_in_messages_of_a_bounded_size() {
    const LARGE: usize = 100 << 10;
    let mesh = Mesh::new(2);
    let values: Vec<_> = (0..8).map(|number| crate::harness::heavy(number, LARGE)).collect();
    let objects = mesh.create_values(0, &values);
    mesh.run(50);
    let mut watches: Vec<GoldWatch> = objects.iter().map(|object| watch(&mesh, 1, *object)).collect();
    mesh.run(1_000);
    for (number, watch) in (0..).zip(&mut watches) {
        assert_eq!(look(watch), [Some(number)]);
    }
    // All at once, and none of them new to the subscription.
    mesh.clear_log();
    let changed: Vec<_> = objects.iter().map(|object| (*object, Some(crate::harness::heavy(9, LARGE)))).collect();
    mesh.put_values(0, &changed);
    mesh.run(200);
    for watch in &mut watches {
        assert_eq!(look(watch), [Some(9)]);
    }
    let feeds = mesh.sent(|flight| matches!(flight.message(), Message::Feed { news, .. } if !news.is_empty()));
    let bytes: Vec<usize> = feeds.iter().map(|flight| flight.envelope.about_bytes()).collect();
    assert!(bytes.iter().sum::<usize>() >= 8 * LARGE && bytes.iter().any(|bytes| *bytes > LARGE * 3 / 2), "{bytes:?}");
    assert!(bytes.iter().all(|bytes| *bytes < 3 * LARGE), "{bytes:?}");
}

/// A peer that nobody plays, and which is a member all the same, subscribes to objects of peer 0. Returns how many of them
/// are refused.
fn subscribes(mesh: &Mesh, number: u16, objects: &[ObjectId], is_watched: bool) -> usize {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [5; 32];
    bytes[..3].copy_from_slice(&[200, high, low]);
    let from = PeerId::from_bytes(bytes);
    let known = mesh.look(0, Peer::introduction);
    let group = GroupId::from_u128(1_000 + u128::from(number));
    let introduction = Introduction { incarnation: Incarnation::from_u64(9), group, ..known };
    let wishes = objects.iter().map(|object| Wish { object: *object, is_watched }).collect();
    let (group, ended) = (mesh.group_id(0), Vec::new());
    let message = Message::Subscribe { group, feed: 1, number: 1, closed: false, wishes, ended };
    mesh.step(0, |peer, now| {
        peer.joined(now, from, introduction);
        peer.received(now, from, Envelope { clock: Timestamp::ZERO, message });
    });
    let said = mesh.intercept(|flight| flight.to == 200);
    let refused = |flight: &Flight| {
        let Message::Feed { news, .. } = flight.message() else { return 0 };
        news.iter().filter(|news| news.of == NewsOf::Refused).count()
    };
    said.iter().map(refused).sum()
}

#[test]
fn subscribers_are_bounded_and_one_that_watches_nothing_makes_room() {
    const SUBSCRIBERS_MAX: u16 = 256;
    for some_only_read in [false, true] {
        let mesh = Mesh::new(1);
        let object = mesh.create(0, 1);
        for number in 0..SUBSCRIBERS_MAX {
            let is_watched = !some_only_read || number != 7;
            assert_eq!(subscribes(&mesh, number, &[object], is_watched), 0);
        }
        assert_eq!(subscribes(&mesh, SUBSCRIBERS_MAX, &[object], true), usize::from(!some_only_read));
        // R24: now all of them watch.
        assert_eq!(subscribes(&mesh, SUBSCRIBERS_MAX + 1, &[object], true), 1);
        assert_eq!(mesh.status(0).fed, usize::from(SUBSCRIBERS_MAX));
    }
}

#[test]
fn one_subscriber_does_not_take_all_room() {
    const OBJECTS_MAX: usize = 8_192;
    let mesh = Mesh::with(1, |_, setup| setup.config.fed_max = usize::MAX);
    let objects = mesh.create_values(0, &vec![crate::harness::small(1); OBJECTS_MAX + 5]);
    assert_eq!(subscribes(&mesh, 0, &objects, true), 5);
    assert_eq!(mesh.status(0).fed, OBJECTS_MAX);
}
