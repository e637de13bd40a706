//! What a peer's objects may take (R24): what would grow beyond that is refused before it is done, and nothing that is
//! promised is.

use crate::harness::{Mesh, Rule, heavy, is_grant, is_own, ready, small};
use crate::placing::{run_at, run_tasks, submits, use_together};
use driftmesh_model::{Micros, ObjectId, Value};
use driftmesh_object_store::{CatchUp, OBJECT_OVERHEAD, Progress, Schedule, ScheduleChange, ScheduleStep, Work, Write};
use driftmesh_peer::session::TaskError;
use driftmesh_peer::{Committed, NoRoom, Peer, RareEvent, StepError, TxnWrites};

/// What objects with these values take.
fn taken(values: &[Value]) -> u64 {
    values.iter().map(|value| (OBJECT_OVERHEAD + value.len()) as u64).sum()
}

/// Creates objects, if there is room.
fn creates(mesh: &Mesh, at: usize, values: &[Value]) -> Result<Vec<ObjectId>, StepError> {
    let txn = mesh.begin(at, "create");
    let new = |value: &Value| (mesh.step(at, |peer, _| peer.new_object_id()), value.clone());
    let made: Vec<(ObjectId, Value)> = values.iter().map(new).collect();
    let mut created: Vec<ObjectId> = made.iter().map(|(object, _)| *object).collect();
    let objects = created.clone();
    created.sort_unstable();
    let writes = made.into_iter().map(|(object, value)| Write { object, value: Some(value) }).collect();
    let mut writes = TxnWrites { writes, created, outcome: None, schedules: Vec::new() };
    let done = ready(mesh.step(at, |peer, now| peer.commit(now, txn.id, &mut writes)));
    mesh.end(txn);
    done.map(|_| objects)
}

/// Changes an object, if there is room.
fn puts(mesh: &Mesh, at: usize, object: ObjectId, value: Option<Value>) -> Result<Committed, StepError> {
    let txn = mesh.begin(at, "put");
    mesh.intend_wait(txn, &[object])?;
    let done = mesh.commit(txn, &[(object, value)]);
    mesh.end(txn);
    done
}

/// Creates objects until there is room for none of so many bytes.
fn fill(mesh: &Mesh, at: usize, bytes: usize) -> Vec<ObjectId> {
    let mut objects = Vec::new();
    while let Ok(more) = creates(mesh, at, &[heavy(1, bytes)]) {
        objects.extend(more);
    }
    objects
}

/// The sum of the numbers in objects, as a peer that stays reads them.
fn sum_at(mesh: &Mesh, at: usize, objects: &[ObjectId]) -> u64 {
    objects.iter().map(|object| mesh.get(at, *object).expect("it is there")).sum()
}

fn held(mesh: &Mesh, at: usize) -> u64 {
    assert!(mesh.look(at, Peer::held_adds_up), "the figures of peer {at} are what its objects take");
    mesh.look(at, Peer::held)
}

fn is_full<T>(result: Result<T, StepError>) -> Option<NoRoom> {
    match result {
        Err(StepError::NoRoom(full)) => Some(full),
        Err(_) | Ok(_) => None,
    }
}

#[test]
fn what_grows_beyond_the_cap_is_refused_whole_and_what_shrinks_passes() {
    let one = taken(&[heavy(1, 1_000)]);
    let most = 10 * one + one / 2;
    let mesh = Mesh::with(1, |_, setup| setup.config.held_bytes_max = most);
    let objects = fill(&mesh, 0, 1_000);
    assert_eq!((objects.len(), held(&mesh, 0)), (10, 10 * one));
    let before = (mesh.tail(0), mesh.status(0).owned);
    // Of two that belong together neither is created.
    let refused = creates(&mesh, 0, &[small(1), heavy(2, 1_000)]);
    assert_eq!(is_full(refused), Some(NoRoom { held: 10 * one, most }));
    let grows = is_full(puts(&mesh, 0, objects[0], Some(heavy(1, 3_000))));
    assert_eq!(grows, Some(NoRoom { held: 10 * one, most }));
    assert_eq!((mesh.tail(0), mesh.status(0).owned), before);
    let status = mesh.status(0);
    assert_eq!((status.held_bytes, status.held_bytes_max, status.refused_for_room), (10 * one, most, 3));
    assert_eq!(mesh.rare(0, RareEvent::RefusedForRoom), 3);
    // As large as before, smaller, deleted.
    puts(&mesh, 0, objects[0], Some(heavy(2, 1_000))).expect("it does not grow");
    puts(&mesh, 0, objects[1], Some(small(2))).expect("it shrinks");
    assert!(held(&mesh, 0) < 10 * one);
    puts(&mesh, 0, objects[2], None).expect("it goes");
    // One that grows beside one that goes, together no larger.
    let txn = mesh.begin(0, "moves");
    mesh.intend_wait(txn, &[objects[3], objects[4]]).expect("here");
    mesh.commit(txn, &[(objects[3], None), (objects[4], Some(heavy(3, 1_900)))]).expect("together they do not grow");
    // What is deleted makes room but for what its owner remembers.
    assert_eq!(creates(&mesh, 0, &[heavy(3, 1_000)]).expect("room").len(), 1);
    assert!(held(&mesh, 0) <= most);
}

#[test]
fn beyond_the_cap_what_does_not_grow_goes_on() {
    let mesh = Mesh::replicated_with(2, 1, |at, setup| {
        setup.config.held_bytes_max = if at == 1 { 8_000 } else { u64::MAX };
    });
    let own = creates(&mesh, 1, &[heavy(1, 1_000)]).expect("room")[0];
    mesh.run(500);
    // R10: a copy grows as its leader does, whatever room there is.
    let objects = mesh.create_values(0, &vec![heavy(1, 1_000); 20]);
    mesh.run(500);
    assert_eq!(held(&mesh, 1), taken(&vec![heavy(1, 1_000); 21]));
    assert!(mesh.all_whole());
    puts(&mesh, 1, own, Some(heavy(2, 1_000))).expect("it does not grow");
    puts(&mesh, 1, own, Some(small(2))).expect("it shrinks");
    assert!(is_full(puts(&mesh, 1, own, Some(small(u64::MAX)))).is_some(), "by a few bytes");
    assert!(is_full(creates(&mesh, 1, &[small(1)])).is_some());
    // What it holds as a copy can come: it takes no more room than before.
    assert_eq!(mesh.add(1, objects[0], 1).attempts, 1);
    mesh.run(500);
    assert_eq!(mesh.owner_of(objects[0]), 1);
    assert_eq!(held(&mesh, 0), held(&mesh, 1));
}

#[test]
fn schedules_take_room_too() {
    let mesh = Mesh::with(1, |_, setup| setup.config.held_bytes_max = 2_000);
    let object = mesh.create(0, 1);
    let work = Work { name: "tick".to_owned(), version: 1, body: Value::from_slice(&[7; 1_000]) };
    let progress = Progress { due: Micros(u64::MAX / 1_000_000), ran: 0, failed: 0, panicked_at: Vec::new() };
    let begin = |number| {
        let (catch_up, work, progress) = (CatchUp::Once, work.clone(), progress.clone());
        ScheduleStep::Begin(Box::new(Schedule { number, work, period: None, catch_up, after_stable: false, progress }))
    };
    let changes = |step: ScheduleStep| {
        let txn = mesh.begin(0, "schedule");
        mesh.intend_wait(txn, &[object]).expect("here");
        let mut all = TxnWrites { schedules: vec![ScheduleChange { object, step }], ..TxnWrites::default() };
        let done = ready(mesh.step(0, |peer, now| peer.commit(now, txn.id, &mut all)));
        mesh.end(txn);
        done
    };
    changes(begin(1)).expect("room");
    let with_one = held(&mesh, 0);
    assert!(with_one > 1_000);
    assert!(is_full(changes(begin(2))).is_some());
    changes(begin(1)).expect("it replaces one that is as large");
    assert_eq!(held(&mesh, 0), with_one);
    changes(ScheduleStep::End { number: 1 }).expect("it goes");
    changes(begin(2)).expect("room again");
    assert_eq!(held(&mesh, 0), with_one);
}

#[test]
fn what_there_is_no_room_for_is_not_asked_for() {
    let mesh = Mesh::with(2, |at, setup| {
        setup.config.held_bytes_max = if at == 1 { taken(&[small(1)]) } else { u64::MAX };
    });
    let object = mesh.create_known(0, 1);
    let own = mesh.create(1, 1);
    mesh.clear_log();
    let txn = mesh.begin(1, "wants");
    assert!(is_full(ready(mesh.intend(txn, &[object]))).is_some(), "at once");
    mesh.end(txn);
    mesh.run(500);
    assert!(mesh.sent(is_own).is_empty());
    assert_eq!((mesh.owner_of(object), mesh.status(1).refused_for_room), (0, 1));
    // It is read as ever, and comes when there is room.
    assert_eq!(mesh.get(1, object), Some(1));
    puts(&mesh, 1, own, None).expect("it goes");
    mesh.add(1, object, 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(2)));
}

#[test]
fn what_was_asked_for_while_there_was_room_is_taken() {
    let mesh = Mesh::with(2, |at, setup| {
        setup.config.held_bytes_max = if at == 1 { 2_000 } else { u64::MAX };
    });
    let object = mesh.create_values(0, &[heavy(1, 1_000)])[0];
    mesh.run(20);
    mesh.rule(Rule::Hold, is_grant);
    let txn = mesh.begin(1, "wants");
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.run(5);
    fill(&mesh, 1, 10);
    assert!(mesh.look(1, Peer::room) < 300);
    mesh.release();
    mesh.run(5);
    // R19: nobody else has it any more.
    ready(mesh.intend(txn, &[object])).expect("it has come");
    assert_eq!((mesh.owner_of(object), mesh.rare(1, RareEvent::GrantRefused)), (1, 0));
    assert!(held(&mesh, 1) > 2_000);
}

#[test]
fn a_task_goes_to_what_its_peer_has_no_room_for() {
    let with_room = |most: u64| {
        let mesh = Mesh::with(2, |at, setup| setup.config.held_bytes_max = if at == 0 { most } else { u64::MAX });
        let object = mesh.create_known(1, 1);
        mesh.get(0, object);
        mesh.run(6_000);
        run_at(&mesh, 0, &[object], 7)
    };
    assert_eq!(with_room(u64::MAX), 0, "it is not in use: it comes");
    // Room for the session, and nothing else.
    assert_eq!(with_room(taken(&[small(0)])), 1);
}

#[test]
fn a_task_that_nobody_has_room_for_says_so() {
    let mesh = Mesh::with(1, |_, setup| setup.config.held_bytes_max = taken(&[small(0), small(1)]));
    let object = mesh.create_known(0, 1);
    // What it adds has one digit more, so to say.
    puts(&mesh, 0, object, Some(small(23))).expect("as large");
    let job = submits(&mesh, 0, &[object], 7);
    for _ in 0..100 {
        run_tasks(&mesh);
    }
    let done = job.take().expect("it has ended");
    assert!(matches!(done, Err(TaskError::NoRoom { .. })), "{done:?}");
    assert_eq!(mesh.newest(object), Some(23));
}

#[test]
fn nothing_follows_to_who_has_no_room() {
    for most in [u64::MAX, 1_000] {
        let mesh = Mesh::with(2, |at, setup| setup.config.held_bytes_max = if at == 1 { most } else { u64::MAX });
        let (cell, player) = (mesh.create_known(0, 1), mesh.create_values(0, &[heavy(1, 1_000)])[0]);
        mesh.run(3_000);
        for _ in 0..20 {
            mesh.put_values(0, &[(cell, Some(small(1))), (player, Some(heavy(1, 1_000)))]);
        }
        mesh.add(1, cell, 1);
        assert_eq!((mesh.owner_of(cell), mesh.owner_of(player)), (1, 0));
        mesh.run(1_500);
        assert_eq!(mesh.owner_of(player), usize::from(most == u64::MAX));
    }
}

#[test]
fn who_leaves_hands_over_to_those_with_room_and_keeps_what_nobody_has_room_for() {
    let mesh = Mesh::with(3, |at, setup| {
        // The second takes a few, the third many.
        setup.config.held_bytes_max = [u64::MAX, 20_000, 200_000][at];
    });
    let objects = mesh.create_values(0, &vec![heavy(1, 1_000); 100]);
    mesh.run(500);
    // While nothing arrives, they go on saying how much room they have.
    mesh.rule(Rule::Hold, is_grant);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run(1_000);
    mesh.release();
    mesh.run_until("it is drained", 20_000, || mesh.look(0, Peer::is_drained));
    assert!(held(&mesh, 1) <= 20_000 && held(&mesh, 1) > 10_000);
    assert_eq!(held(&mesh, 1) + held(&mesh, 2), taken(&vec![heavy(1, 1_000); 100]));
    assert_eq!(sum_at(&mesh, 1, &objects), 100);
}

#[test]
fn what_nobody_has_room_for_stays_with_who_leaves_until_there_is_some() {
    let mesh = Mesh::with(2, |at, setup| {
        setup.config.held_bytes_max = if at == 1 { 20_000 } else { u64::MAX };
    });
    let own = creates(&mesh, 1, &vec![heavy(1, 1_000); 10]).expect("room");
    let objects = mesh.create_values(0, &vec![heavy(1, 1_000); 10]);
    mesh.run(500);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run(5_000);
    let left = mesh.status(0);
    assert!(!mesh.look(0, Peer::is_drained) && left.in_transit == 0);
    assert!((3..10).contains(&left.owned), "{} are left", left.owned);
    assert!(held(&mesh, 1) <= 20_000);
    assert_eq!(sum_at(&mesh, 1, &objects), 10);
    for object in own {
        puts(&mesh, 1, object, None).expect("it goes");
    }
    mesh.run_until("it is drained", 20_000, || mesh.look(0, Peer::is_drained));
    assert_eq!(sum_at(&mesh, 1, &objects), 10);
}

#[test]
fn who_leaves_hands_over_to_its_followers_though_they_are_full() {
    let mesh = Mesh::replicated_with(3, 2, |at, setup| {
        setup.config.held_bytes_max = if at == 0 { u64::MAX } else { 20_000 };
    });
    mesh.run(500);
    let objects = mesh.create_values(0, &vec![heavy(1, 1_000); 30]);
    mesh.run(500);
    assert!(held(&mesh, 1) > 20_000 && held(&mesh, 2) > 20_000);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run_until("it is drained", 20_000, || mesh.look(0, Peer::is_drained));
    mesh.run(2_000);
    assert_eq!(sum_at(&mesh, 1, &objects), 30);
    assert_eq!(held(&mesh, 1), taken(&vec![heavy(1, 1_000); 30]));
}

#[test]
fn who_has_no_room_for_a_groups_objects_does_not_follow_it() {
    let bytes = taken(&vec![heavy(1, 1_000); 30]);
    let mesh = Mesh::with(1, |_, setup| setup.config.replicas = 2);
    mesh.create_values(0, &vec![heavy(1, 1_000); 30]);
    // Full at once, not large enough, and two that are.
    for most in [0, bytes - 1, bytes, u64::MAX] {
        mesh.join(|setup| {
            setup.config.replicas = 2;
            setup.config.held_bytes_max = most;
        });
    }
    mesh.run(15_000);
    let group = mesh.group_id(0);
    let follows = |at: usize| mesh.look_at_group(at, group, |_| ()).is_some();
    assert_eq!([1, 2, 3, 4].map(follows), [false, false, true, true]);
    assert!(mesh.rare(0, RareEvent::NoRoom) >= 1);
    assert!(mesh.status(0).groups[0].is_whole);
    (0..5).for_each(|at| _ = held(&mesh, at));
}

#[test]
fn what_a_crash_leaves_to_a_follower_it_takes_though_it_is_full() {
    let mesh = Mesh::replicated_with(3, 2, |at, setup| {
        setup.config.held_bytes_max = if at == 0 { u64::MAX } else { 20_000 };
    });
    mesh.run(500);
    let objects = mesh.create_values(0, &vec![heavy(1, 1_000); 30]);
    mesh.run(500);
    let group = mesh.group_id(0);
    mesh.kill(0);
    mesh.run_until("the group has ended", 20_000, || {
        [1, 2].into_iter().for_each(|at| _ = held(&mesh, at));
        mesh.is_ended_everywhere(group)
    });
    mesh.run(2_000);
    assert_eq!(mesh.sum(&objects), 30);
    for at in [1, 2] {
        assert_eq!(held(&mesh, at), taken(&vec![heavy(1, 1_000); 30]));
        assert!(is_full(creates(&mesh, at, &[small(1)])).is_some());
    }
    // What goes there goes everywhere.
    objects.iter().for_each(|object| _ = puts(&mesh, mesh.owner_of(*object), *object, None).expect("it goes"));
    mesh.run(500);
    creates(&mesh, 1, &[small(1)]).expect("room");
}

#[test]
fn the_figures_hold_when_a_leader_is_deposed_and_when_peers_come_and_go() {
    let mesh = Mesh::replicated(4, 2);
    let objects: Vec<ObjectId> = (0..4).flat_map(|at| mesh.create_values(at, &vec![heavy(1, 500); 5])).collect();
    mesh.run(500);
    mesh.hold_entries(0);
    mesh.create_values(0, &[heavy(9, 5_000)]);
    mesh.put_values(0, &[(objects[0], Some(heavy(2, 2_000))), (objects[1], None)]);
    mesh.settle();
    mesh.pause(0);
    mesh.run(3_000);
    mesh.take_held();
    mesh.resume(0);
    mesh.run(3_000);
    for round in 0..12 {
        use_together(&mesh, round % 4, &[objects[round], objects[19 - round]], 2);
        mesh.run(100);
        (0..4).for_each(|at| _ = held(&mesh, at));
    }
    mesh.restart(2);
    mesh.run(5_000);
    (0..4).for_each(|at| _ = held(&mesh, at));
}

#[test]
fn who_holds_more_than_it_may_says_by_how_much() {
    let mesh = Mesh::new(1);
    mesh.create_values(0, &[heavy(1, 1_000)]);
    assert_eq!(mesh.look(0, Peer::beyond_room), None);
    mesh.step(0, |peer, _| peer.set_held_bytes_max(500));
    let held = held(&mesh, 0);
    assert!(held > 1_000);
    assert_eq!(mesh.look(0, Peer::beyond_room), Some(NoRoom { held, most: 500 }));
    assert_eq!(mesh.look(0, Peer::room), 0);
}
