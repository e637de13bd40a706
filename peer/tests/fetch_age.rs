//! R14: a fetch in flight has the age of its oldest waiter, else a shared fetch can deadlock.

use crate::harness::{Mesh, Txn, is_own, ready, small};
use driftmesh_model::TxnTimestamp;
use driftmesh_peer::{Message, RareEvent};

/// The ages that ownership was asked with, in order.
fn ages_asked(mesh: &Mesh) -> Vec<TxnTimestamp> {
    let mut ages = Vec::new();
    for flight in mesh.sent(is_own) {
        if let Message::Own { requests, .. } = flight.message() {
            ages.extend(requests.iter().map(|request| request.age));
        }
    }
    ages
}

/// Three transactions, oldest first, with a moment between their beginnings.
fn three(mesh: &Mesh, at: [usize; 3]) -> [Txn; 3] {
    at.map(|at| {
        mesh.run(1);
        mesh.begin(at, ["first", "second"][at])
    })
}

#[test]
fn transactions_of_different_age_share_one_fetch_which_takes_the_age_of_the_oldest() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    let [oldest, holder, young] = three(&mesh, [1, 0, 1]);
    let younger = mesh.begin(1, "younger");
    ready(mesh.intend(holder, &[object])).unwrap();
    mesh.clear_log();
    assert!(mesh.intend(young, &[object]).is_pending());
    assert!(mesh.intend(younger, &[object]).is_pending());
    mesh.settle();
    let young_age = mesh.attempt(young).0;
    assert!(ages_asked(&mesh).iter().all(|age| *age == young_age));
    assert_eq!(mesh.failure(holder), None);

    assert!(mesh.intend(oldest, &[object]).is_pending());
    mesh.settle();
    assert_eq!(ages_asked(&mesh).last(), Some(&mesh.attempt(oldest).0));
    assert_eq!(mesh.rare(1, RareEvent::FetchAgeRaised), 1);
    // The older age wounds the holder at once, and the object comes to the oldest first.
    assert!(mesh.failure(holder).is_some());
    ready(mesh.intend(oldest, &[object])).unwrap();
    assert!(mesh.intend(young, &[object]).is_pending());
    mesh.commit_amount(oldest, object, 2).unwrap();
    ready(mesh.intend(young, &[object])).unwrap();
    assert!(mesh.intend(younger, &[object]).is_pending());
    mesh.commit_amount(young, object, 3).unwrap();
    mesh.intend_wait(younger, &[object]).unwrap();
    assert_eq!(mesh.metrics(1).arrived, 1);
}

#[test]
fn a_shared_fetch_does_not_deadlock_across_two_peers() {
    // The youngest fetches y from the first peer, where the middle one holds it; the oldest holds x at the second
    // peer and joins that fetch; the middle one asks for x. Each waits for the next unless the fetch gets older.
    for joins_first in [false, true] {
        let mesh = Mesh::new(2);
        let (x, y) = (mesh.create_known(1, 0), mesh.create_known(0, 0));
        let [oldest, middle, young] = three(&mesh, [1, 0, 1]);
        ready(mesh.intend(oldest, &[x])).unwrap();
        ready(mesh.intend(middle, &[y])).unwrap();
        assert!(mesh.intend(young, &[y]).is_pending());
        mesh.settle();
        let begun = mesh.mono_us();
        if joins_first {
            assert!(mesh.intend(oldest, &[y]).is_pending());
            assert!(mesh.intend(middle, &[x]).is_pending());
        } else {
            assert!(mesh.intend(middle, &[x]).is_pending());
            mesh.settle();
            assert!(mesh.intend(oldest, &[y]).is_pending());
        }
        mesh.intend_wait(oldest, &[x, y]).unwrap();
        assert!(mesh.mono_us() - begun < 10_000, "the oldest waited for a timer");
        mesh.commit(oldest, &[(x, Some(small(1))), (y, Some(small(1)))]).unwrap();
        for txn in [middle, young] {
            mesh.retry_wait(txn).unwrap();
            mesh.intend_wait(txn, &[x, y]).unwrap();
            mesh.commit(txn, &[(x, Some(small(2))), (y, Some(small(2)))]).unwrap();
        }
        assert_eq!((mesh.newest(x), mesh.newest(y)), (Some(2), Some(2)));
        assert_eq!(mesh.metrics(0).expired + mesh.metrics(1).expired, 0);
    }
}

#[test]
fn a_fetch_outlives_the_waiter_that_began_it() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    let [old, holder, young] = three(&mesh, [1, 0, 1]);
    ready(mesh.intend(holder, &[object])).unwrap();
    assert!(mesh.intend(old, &[object]).is_pending());
    assert!(mesh.intend(young, &[object]).is_pending());
    mesh.end(old);
    mesh.settle();
    mesh.intend_wait(young, &[object]).unwrap();
    mesh.commit_amount(young, object, 2).unwrap();
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(2)));
}

#[test]
fn what_was_fetched_stays_pinned_for_its_fetcher_over_its_attempts_until_it_idles() {
    for idles in [false, true] {
        let mesh = Mesh::new(2);
        let (object, other) = (mesh.create_known(0, 1), mesh.create_known(1, 1));
        let [oldest, fetcher, young] = three(&mesh, [1, 1, 0]);
        mesh.intend_wait(fetcher, &[object, other]).unwrap();
        // Wounded for the sake of another object: its lock of this one is free, but the pin holds.
        ready(mesh.intend(oldest, &[other])).unwrap();
        assert!(mesh.failure(fetcher).is_some());
        assert!(mesh.intend(young, &[object]).is_pending());
        mesh.run(90);
        assert_eq!(mesh.owner_of(object), 1);
        assert!(mesh.rare(1, RareEvent::PinHeld) > 0);
        mesh.commit_amount(oldest, other, 2).unwrap();
        if idles {
            mesh.run(20);
            ready(mesh.intend(young, &[object])).unwrap();
            mesh.commit_amount(young, object, 2).unwrap();
            assert_eq!(mesh.owner_of(object), 0);
        } else {
            mesh.retry_wait(fetcher).unwrap();
            ready(mesh.intend(fetcher, &[object, other])).unwrap();
            mesh.commit_amount(fetcher, object, 3).unwrap();
            mesh.intend_wait(young, &[object]).unwrap();
            mesh.commit_amount(young, object, 4).unwrap();
        }
    }
}

#[test]
fn an_older_one_takes_what_is_pinned_for_a_younger_one() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    let [oldest, fetcher, _] = three(&mesh, [0, 1, 0]);
    mesh.intend_wait(fetcher, &[object]).unwrap();
    let begun = mesh.mono_us();
    mesh.intend_wait(oldest, &[object]).unwrap();
    assert_eq!(mesh.mono_us(), begun, "the oldest waited for a pin");
    assert!(mesh.failure(fetcher).is_some());
    assert_eq!(mesh.rare(1, RareEvent::PinOverruled), 1);
    mesh.commit_amount(oldest, object, 2).unwrap();
    mesh.retry_wait(fetcher).unwrap();
    mesh.intend_wait(fetcher, &[object]).unwrap();
    mesh.commit_amount(fetcher, object, 3).unwrap();
    assert_eq!(mesh.newest(object), Some(3));
}
