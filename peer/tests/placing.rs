//! Tasks go to what is in much use, and objects follow what they are used with.

use crate::harness::{Flight, Gold, Job, Mesh, Rule, SeatHost, ready};
use driftmesh_model::{Micros, Object, ObjectId, Ref, TaskId, Value, codec, limits};
use driftmesh_peer::session::{
    Error, Handlers, Submission, TaskDone, TaskError, TaskFuture, new_task_id, run_here, submit,
};
use driftmesh_peer::{
    Message, MoveReason, PINNED_MAX, PINNED_TYPES_MAX, RareEvent, TaskEnd, TaskKind, TaskRequest, TaskTo, TooManyPinned,
};
use std::sync::Arc;

type Done = Result<TaskDone<Value>, TaskError>;

/// Adds one to each of these objects.
fn handlers() -> Arc<Handlers<SeatHost>> {
    let mut handlers = Handlers::default();
    handlers.add("add", 1, |body: &Value| {
        let objects: Vec<Ref<Gold>> = codec::decode(body.bytes()).map_err(|error| error.to_string())?;
        let objects: Arc<[Ref<Gold>]> = objects.into();
        Ok(Box::new(move |tx| {
            let objects = Arc::clone(&objects);
            let attempt: TaskFuture = Box::pin(async move {
                for object in objects.iter() {
                    tx.get_mut(*object).await?.amount += 1;
                }
                Ok(Value::from_slice(&codec::encode(&()).map_err(Error::rejected)?))
            });
            attempt
        }))
    });
    Arc::new(handlers)
}

/// A task that says nothing of what it touches.
fn request(mesh: &Mesh, at: usize, session: ObjectId, objects: &[ObjectId], key: u64) -> TaskRequest {
    let refs: Vec<Ref<Gold>> = objects.iter().map(|object| Ref::from_id(*object)).collect();
    let body = Value::from_slice(&codec::encode(&refs).expect("encodes"));
    let id: TaskId = new_task_id(&mesh.host(at), session);
    TaskRequest { key, ..TaskRequest::new(id, "add".to_owned(), 1, body, Micros::from_millis(20_000)) }
}

/// Submits such a task at a peer.
pub(crate) fn submits(mesh: &Mesh, at: usize, objects: &[ObjectId], key: u64) -> Job<Done> {
    let session = mesh.create_known(at, 0);
    let request = request(mesh, at, session, objects, key);
    let how = Submission { to: TaskTo::Anywhere, again: false, stable: true, free_anchor: true, kept_id: true };
    let host = mesh.host(at);
    mesh.spawn(async move { submit(host, &handlers(), request, how).await })
}

/// Lets the peers run what they are asked to, and work for a moment.
pub(crate) fn run_tasks(mesh: &Mesh) {
    for at in mesh.alive() {
        for run in mesh.take_tasks(at) {
            mesh.spawn(run_here(mesh.host(at), handlers(), run));
        }
    }
    mesh.run(1);
}

pub(crate) fn run_at(mesh: &Mesh, at: usize, objects: &[ObjectId], key: u64) -> usize {
    ran_at(mesh, &submits(mesh, at, objects, key))
}

/// Lets the peers work until a task has ended; tells where it ran.
fn ran_at(mesh: &Mesh, job: &Job<Done>) -> usize {
    for _ in 0..20_000 {
        if let Some(done) = job.take() {
            let done = done.expect("it took effect");
            return (0..mesh.len()).find(|at| crate::harness::peer_id(*at) == done.by).expect("a peer");
        }
        run_tasks(mesh);
    }
    panic!("the task does not end");
}

/// Lets a peer use objects together so often.
pub(crate) fn use_together(mesh: &Mesh, at: usize, objects: &[ObjectId], times: usize) {
    for _ in 0..times {
        let writes: Vec<_> = objects.iter().map(|object| (*object, Some(crate::harness::small(1)))).collect();
        mesh.put_values(at, &writes);
    }
}

fn is_submit(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Submit { .. })
}

#[test]
fn a_task_goes_to_what_is_in_use_and_takes_along_what_is_not() {
    let mesh = Mesh::new(3);
    let (market, player) = (mesh.create_known(1, 1), mesh.create_known(0, 1));
    let others: Vec<ObjectId> = (0..3).map(|_| mesh.create_known(1, 1)).collect();
    mesh.run(3_000);
    others.iter().for_each(|other| use_together(&mesh, 1, &[market, *other], 3));
    use_together(&mesh, 0, &[player], 1);
    assert_eq!(run_at(&mesh, 0, &[player, market], 7), 1);
    assert_eq!((mesh.owner_of(market), mesh.owner_of(player)), (1, 1));
    // The next one with the same key goes there at once.
    mesh.clear_log();
    assert_eq!(run_at(&mesh, 0, &[player, market], 7), 1);
    assert_eq!(mesh.sent(is_submit).len(), 1);
    assert!(mesh.sent(|flight| matches!(flight.message(), Message::Own { .. })).is_empty());
    assert_eq!(mesh.newest(player), Some(3));
}

#[test]
fn what_is_not_in_use_comes_to_the_task() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    mesh.run(6_000);
    assert_eq!(run_at(&mesh, 0, &[object], 7), 0);
    assert_eq!(mesh.owner_of(object), 0);
}

#[test]
fn a_task_that_two_crowds_want_goes_to_one_and_the_other_comes() {
    for order in [[1, 2], [2, 1]] {
        let mesh = Mesh::new(3);
        let objects: Vec<ObjectId> = (0..3).map(|at| mesh.create_known(at, 1)).collect();
        mesh.run(3_000);
        objects.iter().enumerate().for_each(|(at, object)| use_together(&mesh, at, &[*object], 50));
        mesh.clear_log();
        let by = run_at(&mesh, 0, &order.map(|at| objects[at]), 7);
        assert_eq!((mesh.owner_of(objects[1]), mesh.owner_of(objects[2])), (by, by));
        assert_eq!(objects.iter().map(|object| mesh.newest(*object).unwrap()).sum::<u64>(), 5);
        // It came to the first that it wants, and of two crowds that are as large the other one did not send it back.
        let sent = mesh.sent(is_submit).len();
        assert!((1..=2).contains(&sent), "{sent} requests");
    }
}

#[test]
fn a_task_follows_what_has_left_before_it_arrives() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(1, 1);
    mesh.run(3_000);
    use_together(&mesh, 1, &[object], 50);
    mesh.rule(Rule::Hold, is_submit);
    let job = submits(&mesh, 0, &[object], 7);
    mesh.run(20);
    mesh.add(2, object, 1);
    use_together(&mesh, 2, &[object], 50);
    mesh.release();
    assert_eq!(ran_at(&mesh, &job), 2);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (2, Some(2)));
}

#[test]
fn a_transaction_gets_what_it_wants_however_much_it_is_used() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    use_together(&mesh, 1, &[object], 50);
    mesh.add(0, object, 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (0, Some(2)));
    let left = mesh.look(1, |peer| peer.moves().cloned().collect::<Vec<_>>());
    assert!(left.iter().any(|one| one.object == object && matches!(one.reason, MoveReason::WantedBy(_))), "{left:?}");
}

#[test]
fn an_object_follows_what_it_is_used_with_unless_it_is_pinned() {
    for pinned in ["nothing", "another type", "the object", "its type"] {
        let is_pinned = ["the object", "its type"].contains(&pinned);
        let mesh = Mesh::new(2);
        let (cell, player) = (mesh.create_known(0, 1), mesh.create_known(0, 1));
        mesh.run(3_000);
        use_together(&mesh, 0, &[cell, player], 20);
        mesh.step(0, |peer, _| match pinned {
            "the object" => peer.pin(player),
            "its type" => peer.pin_type(Gold::TYPE_NAME),
            _ => peer.pin_type("another type"),
        })
        .expect("room");
        mesh.add(1, cell, 1);
        assert_eq!((mesh.owner_of(cell), mesh.owner_of(player)), (1, 0));
        mesh.run(1_000);
        assert_eq!(mesh.owner_of(player), usize::from(!is_pinned));
        let left = mesh.look(0, |peer| peer.moves().cloned().collect::<Vec<_>>());
        let followed = left.iter().any(|one| one.object == player && one.reason == MoveReason::UsedWith(Some(cell)));
        assert_eq!(followed, !is_pinned, "{left:?}");
    }
}

#[test]
fn a_move_is_told_by_what_made_it_whatever_a_game_calls_its_transactions() {
    let mesh = Mesh::new(2);
    let objects = ["drain", "placement"].map(|kind| {
        let object = mesh.create_known(0, 1);
        let txn = mesh.begin(1, kind);
        mesh.intend_wait(txn, &[object]).expect("nobody else wants it");
        mesh.commit_wait(txn, &[]).expect("it only locked");
        (object, MoveReason::WantedBy(TaskKind::new(kind)))
    });
    let stays = mesh.create_known(0, 1);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run(10_000);
    let left = mesh.look(0, |peer| peer.moves().cloned().collect::<Vec<_>>());
    for (object, reason) in objects.into_iter().chain([(stays, MoveReason::Drained)]) {
        let told = left.iter().find(|one| one.object == object);
        assert_eq!(told.map(|one| &one.reason), Some(&reason), "{left:?}");
    }
}

#[test]
fn what_is_in_the_way_is_listed() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    for _ in 0..3 {
        mesh.add(1, object, 1);
        mesh.add(0, object, 1);
    }
    let (_, bouncing) = mesh.look(0, |peer| peer.most_contended(4));
    assert_eq!(bouncing.first().map(|used| (used.object, used.came)), Some((object, 3)));
}

#[test]
fn a_transaction_that_waits_beside_a_task_gets_what_the_task_would_go_to() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    mesh.run(3_000);
    use_together(&mesh, 1, &[object], 50);
    mesh.rule(Rule::Hold, |flight| matches!(flight.message(), Message::Stays { .. }));
    let job = submits(&mesh, 0, &[object], 7);
    mesh.run(5);
    assert!(mesh.owner_of(object) == 1 && !job.is_done());
    let txn = mesh.begin(0, "cannot go");
    assert!(mesh.intend(txn, &[object]).is_pending());
    // Sooner than any request is repeated.
    mesh.run(50);
    ready(mesh.intend(txn, &[object])).expect("it has the object");
    assert_eq!(mesh.owner_of(object), 0);
}

/// Of two copies of a task that names no anchor one is late, and the other one is refused. So it runs at home, and is sent on.
#[test]
fn a_task_of_which_a_copy_is_on_its_way_keeps_its_anchor_when_it_is_sent_on() {
    let mesh = Mesh::new(3);
    let (session, object) = (mesh.create_known(1, 0), mesh.create_known(2, 1));
    mesh.get(0, session);
    mesh.run(3_000);
    use_together(&mesh, 2, &[object], 50);
    let request = request(&mesh, 0, session, &[object], 7);
    let how = Submission { to: TaskTo::Anywhere, again: false, stable: false, free_anchor: true, kept_id: false };
    let host = mesh.host(0);
    mesh.rule(Rule::Hold, is_submit);
    let job = mesh.spawn(async move { submit(host, &handlers(), request, how).await });
    mesh.run(400);
    let mut copies = mesh.take_held();
    assert_eq!(copies.len(), 2);
    mesh.release();
    mesh.hand(copies.pop().expect("the second"));
    mesh.run(1);
    for run in mesh.take_tasks(1) {
        mesh.spawn(run_here(mesh.host(1), Arc::new(Handlers::default()), run));
    }
    assert_eq!(ran_at(&mesh, &job), 2, "where what it wants is");
    // Nobody uses it any more, so it comes to whoever runs the late copy.
    mesh.run(6_000);
    mesh.hand(copies.pop().expect("the first"));
    for _ in 0..500 {
        run_tasks(&mesh);
    }
    assert_eq!(mesh.newest(object), Some(2), "once");
}

/// Each of two objects stays where it is, so that either would send the task to the other.
#[test]
fn a_task_is_sent_on_so_often_and_then_runs_where_it_is() {
    let mesh = Mesh::new(3);
    let objects = [mesh.create_known(1, 1), mesh.create_known(2, 1)];
    for (at, object) in [1, 2].into_iter().zip(objects) {
        mesh.step(at, |peer, _| peer.pin(object)).expect("room");
    }
    mesh.clear_log();
    let by = run_at(&mesh, 0, &objects, 7);
    assert_eq!(objects.map(|object| (mesh.owner_of(object), mesh.newest(object))), [(by, Some(2)); 2]);
    let sent = mesh.sent(is_submit).len();
    assert!((2..=3).contains(&sent), "{sent} requests");
}

#[test]
fn who_was_not_asked_for_an_object_sends_no_task_to_itself() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(1, 1);
    mesh.run(3_000);
    use_together(&mesh, 1, &[object], 50);
    mesh.rule(Rule::Hold, |flight| matches!(flight.message(), Message::Stays { .. }));
    let job = submits(&mesh, 0, &[object], 7);
    mesh.run(5);
    assert!(!job.is_done() && mesh.rare(0, RareEvent::SentToItsData) == 0);
    // R1: the owner may say that it stays, and nobody else.
    mesh.forge(2, 0, Message::Stays { objects: vec![object] });
    assert_eq!(mesh.rare(0, RareEvent::SentToItsData), 0);
    mesh.release();
    assert_eq!(ran_at(&mesh, &job), 1);
    assert_eq!(mesh.rare(0, RareEvent::SentToItsData), 1);
}

/// R24: what its owner says of all that a task has locked is bounded, and what is longer comes from no peer.
#[test]
fn of_what_a_task_has_locked_a_few_are_told_and_more_are_not_taken() {
    let mesh = Mesh::new(2);
    let objects: Vec<ObjectId> = (0..20).map(|_| mesh.create_known(1, 1)).collect();
    mesh.run(3_000);
    use_together(&mesh, 1, &objects, 50);
    mesh.rule(
        Rule::Hold,
        |flight| matches!(flight.message(), Message::TaskEnded { end, .. } if matches!(**end, TaskEnd::Done { .. })),
    );
    let job = submits(&mesh, 0, &objects, 7);
    for _ in 0..50 {
        run_tasks(&mesh);
    }
    let told = mesh.take_held();
    let [flight] = told.as_slice() else { panic!("{} answers", told.len()) };
    let Message::TaskEnded { ask, task, end } = flight.message().clone() else { panic!("{flight:?}") };
    let TaskEnd::Done { answer, receipt, earlier, touched } = *end else { panic!("{flight:?}") };
    assert_eq!(touched.len(), limits::TASK_TOLD_MAX);
    let longer = touched.iter().chain(&touched[..1]).copied().collect();
    let says = |touched| {
        let end = TaskEnd::Done { answer: answer.clone(), receipt, earlier, touched };
        mesh.forge(1, 0, Message::TaskEnded { ask, task, end: Box::new(end) });
        mesh.run(1);
    };
    says(longer);
    assert_eq!((mesh.metrics(0).malformed, job.is_done()), (1, false));
    says(touched);
    assert_eq!((mesh.metrics(0).malformed, job.is_done()), (1, true));
}

#[test]
fn what_is_pinned_is_bounded_and_can_be_let_go() {
    let mesh = Mesh::new(1);
    let pin = |number: usize| mesh.step(0, |peer, _| peer.pin(ObjectId::from_u128(number as u128)));
    let unpin = |number: usize| mesh.step(0, |peer, _| peer.unpin(ObjectId::from_u128(number as u128)));
    assert!((0..PINNED_MAX).all(|number| pin(number).is_ok()));
    assert_eq!((pin(PINNED_MAX), pin(0)), (Err(TooManyPinned), Ok(())));
    assert_eq!((unpin(PINNED_MAX), unpin(0), unpin(0)), (false, true, false));
    assert_eq!(pin(PINNED_MAX), Ok(()));
    let pin_type = |number: usize| mesh.step(0, |peer, _| peer.pin_type(&number.to_string()));
    let unpin_type = |number: usize| mesh.step(0, |peer, _| peer.unpin_type(&number.to_string()));
    assert!((0..PINNED_TYPES_MAX).all(|number| pin_type(number).is_ok()));
    assert_eq!((pin_type(PINNED_TYPES_MAX), pin_type(0)), (Err(TooManyPinned), Ok(())));
    assert_eq!((unpin_type(PINNED_TYPES_MAX), unpin_type(0), unpin_type(0)), (false, true, false));
    assert_eq!(pin_type(PINNED_TYPES_MAX), Ok(()));
}
