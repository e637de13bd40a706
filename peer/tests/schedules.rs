//! Schedules: each occurrence takes effect once, where its object is, and what cannot run is kept and said.

use crate::harness::{GoldRef, Mesh, Rule, SeatHost, is_entries, peer_id};
use driftmesh_model::limits::{
    SCHEDULE_AHEAD_MAX, SCHEDULE_BYTES_MAX, SCHEDULE_CATCH_UP_MAX, SCHEDULE_PERIOD_MIN, TASK_KIND_BYTES_MAX,
};
use driftmesh_model::{Micros, ObjectId, PeerId, ScheduleId, Value, codec};
use driftmesh_object_store::Entry;
use driftmesh_peer::session::{
    Error, First, Handlers, Isolation, Options, Plan, ScheduleRefused, Scheduled, TaskFuture, run_here, transact,
};
use driftmesh_peer::{CatchUp, ScheduleWaits, Work};
use std::sync::Arc;

/// What tasks do: `add` adds as many to their object as they stand for, `reject` and `panic` do what they say.
fn handlers() -> Arc<Handlers<SeatHost>> {
    let mut handlers = Handlers::default();
    for name in ["add", "reject", "panic"] {
        handlers.add(name, 1, move |body: &Value| {
            let gold: GoldRef = codec::decode(body.bytes()).map_err(|error| error.to_string())?;
            Ok(Box::new(move |tx| {
                let attempt: TaskFuture = Box::pin(async move {
                    let occurrence = tx.occurrence().ok_or_else(|| tx.reject("it is no occurrence"))?;
                    assert!(name != "panic", "as it was asked to");
                    tx.get_mut(gold).await?.amount += occurrence.count;
                    if name == "reject" { Err(tx.reject("as it was asked to")) } else { Ok(Value::from_slice(&[])) }
                });
                attempt
            }))
        });
    }
    Arc::new(handlers)
}

fn millis(millis: u64) -> Micros {
    Micros::from_millis(millis)
}

fn once(after: u64) -> Plan {
    let first = First::After(millis(after));
    Plan { first, period: None, catch_up: CatchUp::Once, after_stable: false }
}

fn every(period: u64, catch_up: CatchUp) -> Plan {
    Plan { period: Some(millis(period)), catch_up, ..once(period) }
}

/// Schedules something with an object, at a peer.
fn schedule(mesh: &Mesh, at: usize, object: ObjectId, name: &str, plan: Plan) -> ScheduleId {
    let body = Value::from_slice(&codec::encode(&GoldRef::from_id(object)).expect("encodes"));
    let work = Work { name: name.to_owned(), version: 1, body };
    let host = mesh.host(at);
    let job = mesh.spawn(async move {
        let schedules = |tx: driftmesh_peer::session::Tx<SeatHost>| {
            let work = work.clone();
            async move { tx.schedule_work(object, work, plan).await }
        };
        transact(host, Options { isolation: Isolation::Snapshot, ..Options::new("plan") }, schedules).await
    });
    mesh.finish(&job, 5_000).expect("it commits").value
}

fn listed(mesh: &Mesh, at: usize, object: ObjectId) -> Vec<Scheduled> {
    let host = mesh.host(at);
    let job = mesh.spawn(async move {
        transact(host, Options::new("list"), |tx| async move { tx.schedules(object).await }).await
    });
    mesh.finish(&job, 5_000).expect("it commits").value
}

/// Lets time pass, and these peers run what they are asked to.
fn run_at(mesh: &Mesh, peers: &[usize], millis: u64) {
    for _ in 0..millis {
        for at in peers {
            for run in mesh.take_tasks(*at) {
                mesh.spawn(run_here(mesh.host(*at), handlers(), run));
            }
        }
        mesh.run(1);
    }
}

fn counts(mesh: &Mesh, at: usize) -> (usize, usize, usize) {
    let counts = mesh.step(at, |peer, now| peer.schedule_counts(now));
    (counts.scheduled, counts.late, counts.parked)
}

#[test]
fn a_rate_is_fixed_and_what_was_missed_is_made_up_for_as_was_asked() {
    for (catch_up, expected) in [(CatchUp::Once, 8), (CatchUp::Each { max: 100 }, 8), (CatchUp::Skip, 3)] {
        let mesh = Mesh::new(1);
        let object = mesh.create(0, 0);
        let id = schedule(&mesh, 0, object, "add", every(50, catch_up));
        run_at(&mesh, &[0], 120);
        assert_eq!(mesh.newest(object), Some(2), "at 50 and 100 ms");
        // Nobody runs anything for a while: what is due at 150 ms waits, and those up to 350 ms are missed.
        mesh.run(240);
        run_at(&mesh, &[0], 60);
        assert_eq!(mesh.newest(object), Some(expected), "{catch_up:?}");
        let next = listed(&mesh, 0, object)[0].next;
        run_at(&mesh, &[0], 50);
        assert_eq!(mesh.newest(object), Some(expected + 1), "{catch_up:?}");
        let after = &listed(&mesh, 0, object)[0];
        assert_eq!((after.id, after.next), (id, next.plus(millis(50))), "the rate is that of the first day");
    }
}

#[test]
fn what_is_due_runs_once_where_its_object_has_gone() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 0);
    schedule(&mesh, 0, object, "add", once(100));
    mesh.add(1, object, 1);
    assert_eq!((mesh.owner_of(object), counts(&mesh, 0).0, counts(&mesh, 1).0), (1, 0, 1));
    run_at(&mesh, &[0, 1], 300);
    assert_eq!((mesh.newest(object), mesh.owner_of(object)), (Some(2), 1));
    assert_eq!(counts(&mesh, 1), (0, 0, 0));
}

#[test]
fn a_run_whose_commit_is_lost_runs_again_and_one_that_is_kept_does_not() {
    for is_copied in [false, true] {
        let mesh = Mesh::replicated(3, 2);
        let object = mesh.create_known(0, 0);
        schedule(&mesh, 0, object, "add", once(50));
        mesh.run(20);
        if !is_copied {
            mesh.rule(Rule::Drop, |flight| flight.from == 0 && is_entries(flight));
        }
        run_at(&mesh, &[0], 45);
        assert_eq!(mesh.newest(object), Some(1));
        mesh.kill(0);
        run_at(&mesh, &[1, 2], 3_000);
        assert_eq!(mesh.newest(object), Some(1), "copied: {is_copied}");
        assert_ne!(mesh.owner_of(object), 0);
        assert_eq!(mesh.alive().iter().map(|at| counts(&mesh, *at).0).sum::<usize>(), 0);
    }
}

#[test]
fn the_objects_of_a_dead_peer_that_are_due_are_handed_out_first() {
    let mesh = Mesh::replicated(3, 2);
    let objects = mesh.create_values(0, &vec![crate::harness::small(0); 600]);
    for object in objects.iter().rev().take(3) {
        schedule(&mesh, 0, *object, "add", once(5));
    }
    mesh.run(20);
    mesh.kill(0);
    let due: Vec<ObjectId> = objects.iter().rev().take(3).copied().collect();
    let has_run = |object: &ObjectId| mesh.owners_of(*object).len() == 1 && mesh.newest(*object) == Some(1);
    let mut waited = 0;
    while !due.iter().all(has_run) {
        run_at(&mesh, &[1, 2], 5);
        waited += 5;
        assert!(waited < 5_000, "{waited} ms");
    }
    let owner = mesh.owner_of(due[0]);
    let arrived: Vec<ObjectId> = mesh
        .journal(owner)
        .into_iter()
        .flat_map(|entry| if let Entry::TransferIn { arrivals, .. } = entry { arrivals } else { Vec::new() })
        .map(|arrival| arrival.object)
        .collect();
    assert!(arrived[..3].iter().all(|object| due.contains(object)), "the first of {} to come", arrived.len());
}

#[test]
fn a_follow_up_waits_until_its_commit_is_stable() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 0);
    mesh.hold_entries(0);
    schedule(&mesh, 0, object, "add", Plan::FOLLOW_UP);
    run_at(&mesh, &[0], 50);
    assert_eq!((mesh.newest(object), counts(&mesh, 0).0), (Some(0), 1));
    mesh.release();
    run_at(&mesh, &[0], 100);
    assert_eq!((mesh.newest(object), counts(&mesh, 0).0), (Some(1), 0));
}

#[test]
fn a_peer_that_does_not_know_the_type_keeps_the_schedule_and_says_so() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 0);
    let id = schedule(&mesh, 0, object, "add", once(10));
    for _ in 0..50 {
        for run in mesh.take_tasks(0) {
            mesh.spawn(run_here(mesh.host(0), Arc::new(Handlers::default()), run));
        }
        mesh.run(1);
    }
    let waiting = mesh.look(0, driftmesh_peer::Peer::waiting_schedules);
    assert_eq!((waiting.len(), waiting[0].id, waiting[0].name.as_str()), (1, id, "add"));
    assert!(matches!(waiting[0].why, ScheduleWaits::NotHere(_)));
    mesh.add(1, object, 1);
    run_at(&mesh, &[1], 50);
    assert_eq!(mesh.newest(object), Some(2));
    assert!(mesh.look(0, |peer| peer.waiting_schedules().is_empty()));
}

#[test]
fn what_rejects_goes_on_and_is_counted_and_what_runs_once_ends() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 0);
    schedule(&mesh, 0, object, "reject", once(10));
    schedule(&mesh, 0, object, "reject", every(20, CatchUp::Once));
    run_at(&mesh, &[0], 70);
    assert_eq!(mesh.newest(object), Some(0));
    let listed = listed(&mesh, 0, object);
    assert_eq!((listed.len(), listed[0].failed, listed[0].ran), (1, 3, 0));
}

#[test]
fn what_panics_at_two_peers_is_parked_kept_and_said() {
    for period in [None, Some(millis(20))] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 0);
        let id = schedule(&mesh, 0, object, "panic", Plan { period, ..once(10) });
        run_at(&mesh, &[0], 200);
        assert_eq!(counts(&mesh, 0), (1, 0, 0), "one peer may be to blame");
        assert!(mesh.look(0, driftmesh_peer::Peer::is_quiet) || period.is_some());
        mesh.add(1, object, 1);
        run_at(&mesh, &[0, 1], 200);
        assert_eq!(counts(&mesh, 1), (0, 0, 1));
        let waiting = mesh.look(1, driftmesh_peer::Peer::waiting_schedules);
        assert_eq!((waiting[0].id, &waiting[0].why), (id, &ScheduleWaits::Parked));
        let panicked = mesh.status(1).tasks_panicked.remove(0);
        assert_eq!((panicked.name.as_str(), panicked.object), ("panic", object));
        let parked = &listed(&mesh, 0, object)[0];
        let at: Vec<PeerId> = vec![peer_id(0), peer_id(1)];
        assert_eq!((parked.parked, &parked.panicked_at), (true, &at), "wherever it goes");
        run_at(&mesh, &[0, 1], 200);
        assert_eq!(mesh.newest(object), Some(1));
    }
}

#[test]
fn a_deletion_ends_the_schedules_and_bounds_are_said() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 0);
    for _ in 0..driftmesh_model::limits::SCHEDULES_MAX {
        schedule(&mesh, 0, object, "add", once(10));
    }
    let host = mesh.host(0);
    let refused = mesh.spawn(async move {
        let work = Work { name: "add".to_owned(), version: 1, body: Value::from_slice(&[]) };
        let body = |tx: driftmesh_peer::session::Tx<SeatHost>| {
            let work = work.clone();
            async move { tx.schedule_work(object, work, once(10)).await }
        };
        transact(host, Options::new("one more"), body).await
    });
    assert!(matches!(mesh.finish(&refused, 1_000), Err(Error::Schedule { .. })));
    assert_eq!(counts(&mesh, 0).0, driftmesh_model::limits::SCHEDULES_MAX);
    mesh.put_values(0, &[(object, None)]);
    assert_eq!(counts(&mesh, 0).0, 0);
    run_at(&mesh, &[0], 50);
    assert_eq!(mesh.newest(object), None);
}

#[test]
fn many_that_nobody_here_can_run_do_not_keep_a_peer_busy() {
    let mesh = Mesh::new(1);
    // More than are looked at in one step, of a type that this peer does not know, as while releases change.
    for _ in 0..20 {
        let object = mesh.create(0, 0);
        for _ in 0..15 {
            schedule(&mesh, 0, object, "of another release", once(10));
        }
    }
    let known = mesh.create(0, 0);
    run_at(&mesh, &[0], 300);
    assert_eq!(counts(&mesh, 0).0, 300, "they are kept");
    schedule(&mesh, 0, known, "add", once(10));
    run_at(&mesh, &[0], 300);
    assert_eq!(mesh.newest(known), Some(1), "and others run");
}

#[test]
fn a_schedule_that_no_peer_could_keep_is_refused_when_it_is_made() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 0);
    let refused = |work: Work, plan: Plan| {
        let host = mesh.host(0);
        let job = mesh.spawn(async move {
            let make = |tx: driftmesh_peer::session::Tx<SeatHost>| {
                let (work, plan) = (work.clone(), plan);
                async move { tx.schedule_work(object, work, plan).await }
            };
            transact(host, Options::new("plan"), make).await
        });
        match mesh.finish(&job, 5_000) {
            Err(Error::Schedule { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    };
    let work =
        |name: usize, body: usize| Work { name: "x".repeat(name), version: 1, body: Value::from_slice(&vec![0; body]) };
    let fits = || work(TASK_KIND_BYTES_MAX, SCHEDULE_BYTES_MAX);
    let too_short = Micros(SCHEDULE_PERIOD_MIN.0 - 1);
    let (once_more, too_long) = (SCHEDULE_CATCH_UP_MAX + 1, Micros(SCHEDULE_AHEAD_MAX.0 + 1));
    assert!(matches!(
        refused(work(1, SCHEDULE_BYTES_MAX + 1), once(50)),
        ScheduleRefused::TooLarge { bytes } if bytes == SCHEDULE_BYTES_MAX + 1
    ));
    assert!(matches!(refused(work(TASK_KIND_BYTES_MAX + 1, 1), once(50)), ScheduleRefused::NameTooLong));
    for period in [Micros(0), too_short, too_long] {
        let plan = Plan { period: Some(period), ..once(50) };
        assert!(matches!(refused(fits(), plan), ScheduleRefused::Period { .. }), "{period:?}");
    }
    for max in [0, once_more] {
        assert!(matches!(refused(fits(), every(50, CatchUp::Each { max })), ScheduleRefused::CatchUp { .. }));
    }
    let far = Plan { first: First::After(too_long), ..once(50) };
    assert!(matches!(refused(fits(), far), ScheduleRefused::TooFarAhead));
    assert_eq!(counts(&mesh, 0), (0, 0, 0));
}
