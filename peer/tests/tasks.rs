//! R21: a task takes effect once, however often its request comes, and whoever runs it.

use crate::harness::{Flight, Gold, GoldRef, Job, Mesh, Rule, SeatHost, carries, is_entries};
use driftmesh_model::limits::TASK_ANSWER_BYTES_MAX;
use driftmesh_model::{Micros, ObjectId, TaskId, TaskKey, Value, codec};
use driftmesh_object_store::{Entry, Write};
use driftmesh_peer::session::{
    Error, Handlers, Outcome, Submission, TaskDone, TaskError, TaskFuture, Tx, new_task_id, run_here, submit,
    submit_provisional,
};
use driftmesh_peer::{
    Message, NotSubmitted, Provisional, SubmitTask, TASKS_RUNNING_HERE_MAX, TASKS_RUNNING_PER_PEER_MAX,
    TASKS_SENT_PER_PEER_MAX, TASKS_SUBMITTED_MAX, TaskEnd, TaskRequest, TaskStep, TaskTo,
};
use std::sync::{Arc, Mutex};
use std::task::Poll;

type Done = Result<TaskDone<Value>, TaskError>;

/// Adds one to the anchor, and answers what it is then; rejects at nine.
fn handlers() -> Arc<Handlers<SeatHost>> {
    let mut handlers = Handlers::default();
    handlers.add("add", 1, |body: &Value| {
        let gold: GoldRef = codec::decode(body.bytes()).map_err(|error| error.to_string())?;
        Ok(Box::new(move |tx| {
            let attempt: TaskFuture = Box::pin(async move {
                let mut gold = tx.get_mut(gold).await?;
                if gold.amount >= 9 {
                    return Err(tx.reject("nine is enough"));
                }
                gold.amount += 1;
                Ok(Value::from_slice(&codec::encode(&gold.amount).map_err(Error::rejected)?))
            });
            attempt
        }))
    });
    Arc::new(handlers)
}

fn request(id: TaskId, millis: u64) -> TaskRequest {
    let gold: GoldRef = GoldRef::from_id(id.anchor);
    let body = Value::from_slice(&codec::encode(&gold).expect("encodes"));
    let deadline = Micros::from_millis(millis);
    TaskRequest { touches: vec![id.anchor], ..TaskRequest::new(id, "add".to_owned(), 1, body, deadline) }
}

fn new_id(mesh: &Mesh, at: usize, anchor: ObjectId) -> TaskId {
    new_task_id(&mesh.host(at), anchor)
}

fn submits(mesh: &Mesh, at: usize, id: TaskId, again: bool) -> Job<Done> {
    let host = mesh.host(at);
    let how = Submission { to: TaskTo::Anywhere, again, stable: true, free_anchor: false, kept_id: true };
    mesh.spawn(async move { submit(host, &handlers(), request(id, 20_000), how).await })
}

/// Lets peers run what they are asked to.
fn run_tasks(mesh: &Mesh) {
    for at in mesh.alive() {
        for run in mesh.take_tasks(at) {
            mesh.spawn(run_here(mesh.host(at), handlers(), run));
        }
    }
}

fn finish(mesh: &Mesh, job: &Job<Done>) -> Done {
    for _ in 0..20_000 {
        if let Some(done) = job.take() {
            return done;
        }
        run_tasks(mesh);
        mesh.run(1);
    }
    panic!("the task does not end");
}

fn answer(done: Done) -> (u64, bool) {
    let done = done.expect("it took effect");
    (codec::decode(done.value.bytes()).expect("a number"), done.earlier)
}

fn is_told(flight: &Flight) -> bool {
    matches!(flight.message(), Message::TaskEnded { .. })
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_the_anchor_gives_it() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    let id = new_id(&mesh, 0, object);
    mesh.rule(Rule::Drop, is_told);
    let job = submits(&mesh, 0, id, false);
    for _ in 0..100 {
        run_tasks(&mesh);
        mesh.run(1);
    }
    assert_eq!((mesh.newest(object), job.is_done()), (Some(2), false));
    mesh.release();
    assert_eq!(answer(finish(&mesh, &job)), (2, true));
    assert_eq!((mesh.newest(object), mesh.owner_of(object)), (Some(2), 1));
    let sent = mesh.sent(|flight| matches!(flight.message(), Message::Submit { .. }));
    assert_eq!(sent.len(), 2);
}

#[test]
fn a_task_whose_peer_dies_runs_once_before_or_after() {
    for dies_after_its_commit in [false, true] {
        let mesh = Mesh::replicated(4, 2);
        let object = mesh.create_known(1, 1);
        mesh.get(0, object);
        let id = new_id(&mesh, 0, object);
        mesh.rule(Rule::Drop, is_told);
        let job = submits(&mesh, 0, id, false);
        mesh.settle();
        if dies_after_its_commit {
            for _ in 0..100 {
                run_tasks(&mesh);
                mesh.run(1);
            }
            assert_eq!(mesh.newest(object), Some(2));
        }
        mesh.kill(1);
        mesh.release();
        assert_eq!(answer(finish(&mesh, &job)), (2, dies_after_its_commit));
        assert_eq!(mesh.get(2, object), Some(2));
    }
}

#[test]
fn an_outcome_travels_with_its_anchor() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let id = new_id(&mesh, 0, object);
    assert_eq!(answer(finish(&mesh, &submits(&mesh, 0, id, false))), (2, false));
    for at in [1, 2, 3] {
        mesh.add(at, object, 1);
        assert_eq!(mesh.owner_of(object), at);
        assert_eq!(answer(finish(&mesh, &submits(&mesh, at, id, true))), (2, true));
    }
    assert_eq!(mesh.newest(object), Some(5));
    // A rejection is an outcome too, for whoever may have asked before.
    mesh.add(3, object, 4);
    let id = new_id(&mesh, 0, object);
    let rejected = |done: Done| matches!(done, Err(TaskError::Rejected { .. }));
    assert!(rejected(finish(&mesh, &submits(&mesh, 3, id, true))));
    mesh.put(2, object, 1);
    assert!(rejected(finish(&mesh, &submits(&mesh, 2, id, true))));
    assert_eq!(mesh.newest(object), Some(1));
}

#[test]
fn what_an_anchor_has_forgotten_is_not_run() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let old = new_id(&mesh, 0, object);
    mesh.run(1);
    for _ in 0..driftmesh_model::limits::OUTCOMES_MAX + 2 {
        mesh.put(0, object, 1);
        mesh.run(1);
        let id = new_id(&mesh, 0, object);
        assert_eq!(answer(finish(&mesh, &submits(&mesh, 0, id, false))), (2, false));
    }
    assert!(matches!(finish(&mesh, &submits(&mesh, 0, old, true)), Err(TaskError::Forgotten { .. })));
    assert_eq!((mesh.newest(object), mesh.metrics(0).tasks_forgotten), (Some(2), 1));
}

/// On the way of the first task others of its peer, of another peer and of callers end, more than an anchor remembers.
#[test]
fn a_task_that_waits_its_turn_is_not_forgotten_for_those_that_overtake_it() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    mesh.get(2, object);
    let late = new_id(&mesh, 0, object);
    let is_late =
        move |flight: &Flight| matches!(flight.message(), Message::Submit { request, .. } if request.id == late);
    mesh.rule(Rule::Hold, is_late);
    let host = mesh.host(0);
    let how = Submission { to: TaskTo::Anywhere, again: false, stable: true, free_anchor: false, kept_id: true };
    let job = mesh.spawn(async move { submit(host, &handlers(), request(late, 60_000), how).await });
    mesh.run(1);
    for number in 0..driftmesh_model::limits::OUTCOMES_MAX as u64 {
        mesh.put(1, object, 1);
        let of_caller = TaskId { anchor: object, key: TaskKey::of_caller(mesh.now(0).wall, number) };
        for (at, id) in [(0, new_id(&mesh, 0, object)), (2, new_id(&mesh, 2, object)), (1, of_caller)] {
            finish(&mesh, &submits(&mesh, at, id, false)).expect("it took effect");
        }
    }
    assert!(!job.is_done());
    mesh.put(1, object, 1);
    mesh.release();
    assert_eq!(answer(finish(&mesh, &job)), (2, false));
    assert_eq!(mesh.metrics(1).tasks_forgotten, 0);
}

#[test]
fn a_copy_that_cannot_run_does_not_call_undone_what_another_may_have_done() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let id = new_id(&mesh, 0, object);
    let submits_unregistered = |again| {
        let (host, none) = (mesh.host(0), Arc::new(Handlers::default()));
        let how = Submission { to: TaskTo::Anywhere, again, stable: true, free_anchor: false, kept_id: true };
        mesh.spawn(async move { submit(host, &none, request(id, 20_000), how).await })
    };
    assert!(matches!(finish(&mesh, &submits_unregistered(false)), Err(TaskError::Unregistered { .. })));
    assert!(matches!(finish(&mesh, &submits_unregistered(true)), Err(TaskError::Unknown { .. })));
    let elsewhere = Submission {
        to: TaskTo::Peer(crate::harness::peer_id(7)),
        again: true,
        stable: true,
        free_anchor: false,
        kept_id: true,
    };
    let host = mesh.host(0);
    let job = mesh.spawn(async move { submit(host, &handlers(), request(id, 20_000), elsewhere).await });
    assert!(matches!(finish(&mesh, &job), Err(TaskError::Unknown { .. })));
    assert_eq!(mesh.newest(object), Some(1));
}

#[test]
fn what_ended_here_is_not_begun_by_a_repeat_of_what_was_sent_before() {
    for (amount, ends) in [(9, 9), (1, 2)] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(1, amount);
        mesh.get(0, object);
        let id = new_id(&mesh, 0, object);
        let host = mesh.host(0);
        // Its caller never asks again.
        let how = Submission { to: TaskTo::Anywhere, again: false, stable: false, free_anchor: false, kept_id: false };
        let job = mesh.spawn(async move { submit(host, &handlers(), request(id, 20_000), how).await });
        mesh.settle();
        for run in mesh.take_tasks(1) {
            // This peer cannot run it just now: so the other one does.
            mesh.spawn(run_here(mesh.host(1), Arc::new(Handlers::default()), run));
        }
        let done = finish(&mesh, &job);
        assert_eq!(matches!(done, Err(TaskError::Rejected { .. })), amount == 9, "{done:?}");
        assert_eq!((mesh.newest(object), mesh.owner_of(object)), (Some(ends), 0));
        mesh.put(1, object, 5);
        let mut sent = mesh.sent(|flight| matches!(flight.message(), Message::Submit { .. }));
        mesh.hand(sent.remove(0));
        for _ in 0..100 {
            run_tasks(&mesh);
            mesh.run(1);
        }
        assert_eq!(mesh.newest(object), Some(5));
    }
}

#[test]
fn an_id_from_ahead_of_the_clock_does_nothing_where_it_is_submitted() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    let id = new_id(&mesh, 0, object);
    let hour = Micros::from_millis(3_600_000);
    for issued in [id.key.issued.plus(hour), Micros(u64::MAX)] {
        let far = TaskId { key: TaskKey { issued, ..id.key }, ..id };
        let done = finish(&mesh, &submits(&mesh, 0, far, false));
        assert!(matches!(done, Err(TaskError::ClockAhead { .. })), "{done:?}");
    }
    assert_eq!(answer(finish(&mesh, &submits(&mesh, 0, id, false))), (2, false));
    mesh.run(200);
    for at in 0..3 {
        assert!(mesh.status(at).groups.iter().all(|group| group.halted.is_none()), "{:?}", mesh.status(at).groups);
    }
}

#[test]
fn an_abort_that_is_not_stable_in_time_is_not_told_as_a_commit() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 9);
    mesh.run(200);
    let id = new_id(&mesh, 0, object);
    mesh.rule(Rule::Hold, is_entries);
    let how = Submission { to: TaskTo::Anywhere, again: true, stable: false, free_anchor: false, kept_id: true };
    let host = mesh.host(0);
    // It rejects at nine, and that is journalled.
    let job = mesh.spawn(async move { submit(host, &handlers(), request(id, 300), how).await });
    let done = finish(&mesh, &job);
    assert!(matches!(done, Err(TaskError::Unknown { .. })), "{done:?}");
    mesh.release();
    mesh.run(2_000);
    assert!(matches!(finish(&mesh, &submits(&mesh, 1, id, true)), Err(TaskError::Rejected { .. })));
}

#[test]
fn who_asks_again_waits_longer_each_time_although_it_is_refused_at_once() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    let id = new_id(&mesh, 0, object);
    let how = Submission {
        to: TaskTo::Peer(crate::harness::peer_id(1)),
        again: true,
        stable: true,
        free_anchor: false,
        kept_id: true,
    };
    let host = mesh.host(0);
    let job = mesh.spawn(async move { submit(host, &handlers(), request(id, 20_000), how).await });
    for _ in 0..5_000 {
        for run in mesh.take_tasks(1) {
            mesh.spawn(run_here(mesh.host(1), Arc::new(Handlers::default()), run));
        }
        mesh.run(1);
    }
    assert!(!job.is_done());
    let sent = mesh.sent(|flight| matches!(flight.message(), Message::Submit { .. })).len();
    assert!((3..=6).contains(&sent), "{sent} requests in 5 s");
}

/// Submits a task whose id nobody keeps, and whose end need not be stable.
fn submits_once(mesh: &Mesh, at: usize, anchor: ObjectId) -> Job<Done> {
    let (host, id) = (mesh.host(at), new_id(mesh, at, anchor));
    let how = Submission { to: TaskTo::Anywhere, again: false, stable: false, free_anchor: false, kept_id: false };
    mesh.spawn(async move { submit(host, &handlers(), request(id, 20_000), how).await })
}

#[test]
fn who_runs_a_task_here_waits_for_copies_while_others_wait_for_theirs() {
    let mesh = Mesh::replicated(3, 2);
    let objects = [mesh.create_known(0, 1), mesh.create_known(0, 1)];
    mesh.get(1, objects[0]);
    mesh.run(200);
    mesh.rule(Rule::Hold, is_entries);
    let alone = submits_once(&mesh, 0, objects[1]);
    mesh.run(5);
    assert!(!alone.take().expect("nobody waits").expect("it took effect").stable);
    mesh.release();
    mesh.run(200);
    mesh.rule(Rule::Hold, is_entries);
    let theirs = submits(&mesh, 1, new_id(&mesh, 1, objects[0]), false);
    (0..5).for_each(|_| {
        run_tasks(&mesh);
        mesh.run(1);
    });
    assert_eq!((mesh.newest(objects[0]), theirs.is_done()), (Some(2), false));
    let beside = submits_once(&mesh, 0, objects[1]);
    mesh.run(5);
    assert!(mesh.newest(objects[1]) == Some(3) && !beside.is_done(), "it got ahead");
    mesh.release();
    assert!(finish(&mesh, &beside).expect("it took effect").stable);
    finish(&mesh, &theirs).expect("it took effect");
}

/// One of theirs ends before what ran here is stable.
#[test]
fn who_ran_a_task_here_lets_those_off_first_who_wait_when_it_is_stable() {
    let mesh = Mesh::replicated(3, 2);
    let objects = [mesh.create_known(0, 1), mesh.create_known(0, 1)];
    mesh.get(1, objects[0]);
    mesh.run(200);
    mesh.rule(Rule::Hold, is_entries);
    // Somebody waits already, so it waits too.
    let before = submits(&mesh, 1, new_id(&mesh, 1, objects[0]), false);
    let ran = |amount| {
        (0..5).for_each(|_| {
            run_tasks(&mesh);
            mesh.run(1);
        });
        assert_eq!(mesh.newest(objects[0]), Some(amount));
    };
    ran(2);
    let here = submits_once(&mesh, 0, objects[1]);
    mesh.run(5);
    let (theirs, committed) = (submits(&mesh, 1, new_id(&mesh, 1, objects[0]), false), mesh.tail(0));
    ran(3);
    let is_late = |entry: &Entry| {
        let is_theirs = |writes: &[Write]| writes.iter().any(|write| write.value == Some(crate::harness::small(3)));
        matches!(entry, Entry::Commit { writes, .. } if is_theirs(writes))
    };
    mesh.take_held().into_iter().filter(|flight| !carries(flight, is_late)).for_each(|flight| mesh.hand(flight));
    mesh.run(5);
    finish(&mesh, &before).expect("it took effect");
    assert!(mesh.watermark(0) >= committed && !theirs.is_done());
    assert!(!here.is_done(), "it got ahead");
    mesh.release();
    assert!(finish(&mesh, &here).expect("it took effect").stable);
    finish(&mesh, &theirs).expect("it took effect");
}

#[test]
fn an_outcome_is_kept_for_who_may_ask_and_for_nobody_else() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let kept = || {
        let is_kept = |entry: &Entry| matches!(entry, Entry::Commit { outcome: Some(_), .. });
        mesh.journal(0).iter().filter(|entry| is_kept(entry)).count()
    };
    finish(&mesh, &submits_once(&mesh, 0, object)).expect("it took effect");
    assert_eq!((mesh.newest(object), kept()), (Some(2), 0));
    finish(&mesh, &submits(&mesh, 0, new_id(&mesh, 0, object), false)).expect("it took effect");
    assert_eq!((mesh.newest(object), kept()), (Some(3), 1));
}

/// Submits a task and keeps what is told of it before it has ended.
fn submits_provisional(mesh: &Mesh, at: usize, id: TaskId) -> (Job<Done>, Arc<Mutex<Vec<Provisional>>>) {
    let (host, told) = (mesh.host(at), Arc::new(Mutex::new(Vec::new())));
    let how = Submission { to: TaskTo::Anywhere, again: false, stable: true, free_anchor: false, kept_id: true };
    let keeps = Arc::clone(&told);
    let job = mesh.spawn(async move {
        let mut tell = |provisional| keeps.lock().expect("whole").push(provisional);
        submit_provisional(host, &handlers(), request(id, 20_000), how, &mut tell).await
    });
    (job, told)
}

fn told_early(told: &Mutex<Vec<Provisional>>) -> Vec<u64> {
    let told = told.lock().expect("whole");
    told.iter().map(|told| codec::decode(told.answer.bytes()).expect("a number")).collect()
}

#[test]
fn who_asks_hears_an_answer_before_it_is_stable_and_nobody_else_does() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    mesh.run(200);
    mesh.rule(Rule::Hold, is_entries);
    let (job, told) = submits_provisional(&mesh, 0, new_id(&mesh, 0, object));
    let (here, here_told) = submits_provisional(&mesh, 1, new_id(&mesh, 1, object));
    let plain = submits(&mesh, 0, new_id(&mesh, 0, object), false);
    for _ in 0..20 {
        run_tasks(&mesh);
        mesh.run(1);
    }
    assert_eq!(mesh.newest(object), Some(4));
    let mut early = [told_early(&told), told_early(&here_told)].concat();
    early.sort_unstable();
    assert_eq!((early.len(), job.is_done(), here.is_done(), plain.is_done()), (2, false, false, false));
    let said = mesh.sent(|flight| matches!(flight.message(), Message::TaskProvisional { .. }));
    assert_eq!(said.len(), 1, "nobody else asked, and one has run where it was submitted");
    mesh.release();
    let first = told_early(&told)[0];
    assert_eq!(answer(finish(&mesh, &job)), (first, false));
    finish(&mesh, &here).expect("it took effect");
    finish(&mesh, &plain).expect("it took effect");
    assert_eq!((told_early(&told).len(), told_early(&here_told).len()), (1, 1), "each is told once");
    assert_eq!(mesh.metrics(0).tasks_told_early, 1);
}

#[test]
fn what_was_told_early_and_died_with_its_peer_runs_again_once() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    mesh.run(200);
    mesh.rule(Rule::Drop, is_entries);
    let (job, told) = submits_provisional(&mesh, 0, new_id(&mesh, 0, object));
    for _ in 0..20 {
        run_tasks(&mesh);
        mesh.run(1);
    }
    let receipt = told.lock().unwrap()[0].receipt;
    mesh.kill(1);
    mesh.release();
    let done = finish(&mesh, &job).expect("it took effect");
    assert_ne!(done.receipt, receipt);
    assert_ne!(done.by, crate::harness::peer_id(1));
    assert_eq!(answer(Ok(done)), (2, false));
    let early = told_early(&told);
    assert!(!early.is_empty() && early.iter().all(|answer| *answer == 2), "{early:?}");
    assert_eq!(mesh.get(2, object), Some(2));
}

#[test]
fn an_early_answer_that_nobody_asked_for_or_that_is_too_long_is_told_to_nobody() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    let id = new_id(&mesh, 0, object);
    mesh.rule(Rule::Hold, |flight| matches!(flight.message(), Message::Submit { .. }));
    let plain = submits(&mesh, 0, id, false);
    mesh.run(1);
    let asked = mesh.sent(|flight| matches!(flight.message(), Message::Submit { .. }));
    let Message::Submit { ask, .. } = asked[0].message() else { panic!("it was asked for") };
    let receipt = mesh.add(1, object, 0).receipt;
    for length in [1, TASK_ANSWER_BYTES_MAX + 1] {
        let answer = Value::from_slice(&vec![0; length]);
        mesh.forge(1, 0, Message::TaskProvisional { ask: *ask, task: id, answer, receipt });
    }
    mesh.run(1);
    assert_eq!((mesh.metrics(0).tasks_told_early, mesh.metrics(0).malformed), (0, 1));
    mesh.release();
    assert_eq!(answer(finish(&mesh, &plain)), (2, false));
}

fn is_busy(job: &Job<Done>) -> bool {
    matches!(job.take(), Some(Err(TaskError::Busy { .. })))
}

#[test]
fn nothing_is_sent_to_a_peer_that_has_just_said_that_it_is_full() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    let submit_one = || submits(&mesh, 0, new_id(&mesh, 0, object), false);
    let sent = || mesh.sent(|flight| matches!(flight.message(), Message::Submit { .. })).len();
    // Nobody runs what arrives.
    let under_way: Vec<_> = (0..TASKS_RUNNING_PER_PEER_MAX).map(|_| submit_one()).collect();
    let refused = submit_one();
    mesh.run_until("it is refused", 20, || refused.is_done());
    assert!(is_busy(&refused));
    assert_eq!((sent(), mesh.metrics(1).tasks_refused), (TASKS_RUNNING_PER_PEER_MAX + 1, 1));
    let refused = submit_one();
    mesh.run_us(100);
    assert!(is_busy(&refused));
    assert_eq!((sent(), mesh.metrics(0).tasks_refused), (TASKS_RUNNING_PER_PEER_MAX + 1, 1));
    // That is not taken to last.
    answer(finish(&mesh, &under_way[0]));
    mesh.run(3);
    let taken = submit_one();
    mesh.run(10);
    assert!(!taken.is_done() || taken.take().is_some_and(|done| !matches!(done, Err(TaskError::Busy { .. }))));
}

#[test]
fn no_more_is_sent_to_a_peer_than_it_is_heard_through() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    mesh.rule(Rule::Drop, |flight| matches!(flight.message(), Message::Submit { .. }));
    let submit_one = || submits(&mesh, 0, new_id(&mesh, 0, object), false);
    let mut under_way: Vec<_> = (0..TASKS_SENT_PER_PEER_MAX).map(|_| submit_one()).collect();
    let refused = submit_one();
    mesh.run(1);
    assert!(is_busy(&refused));
    assert!(!under_way.iter().any(Job::is_done));
    assert_eq!(mesh.metrics(0).tasks_refused, 1);
    // Whoever waits no more leaves room.
    under_way.truncate(TASKS_SENT_PER_PEER_MAX - 1);
    mesh.run(21_000);
    let taken = submit_one();
    mesh.run(1);
    assert!(!taken.is_done());
}

#[test]
fn a_peer_runs_no_more_of_its_own_than_end_in_time() {
    let mesh = Mesh::new(1);
    let object = mesh.create_known(0, 1);
    let holder = mesh.begin(0, "long");
    mesh.intend_wait(holder, &[object]).expect("nobody else wants it");
    let submit_one = || submits(&mesh, 0, new_id(&mesh, 0, object), false);
    let wait: Vec<_> = (0..TASKS_RUNNING_HERE_MAX).map(|_| submit_one()).collect();
    let refused = submit_one();
    mesh.run(1);
    assert!(is_busy(&refused));
    assert!(!wait.iter().any(Job::is_done));
    mesh.end(holder);
    mesh.run(100);
    assert!(wait.iter().all(|job| job.take().is_some_and(|done| !matches!(done, Err(TaskError::Busy { .. })))));
    assert!(!is_busy(&submit_one()));
}

#[test]
fn what_may_have_run_already_waits_where_a_new_task_is_refused() {
    let mesh = Mesh::new(1);
    let object = mesh.create_known(0, 1);
    let holder = mesh.begin(0, "long");
    mesh.intend_wait(holder, &[object]).expect("nobody else wants it");
    let submit_one = |again| submits(&mesh, 0, new_id(&mesh, 0, object), again);
    let full: Vec<_> = (0..TASKS_RUNNING_HERE_MAX).map(|_| submit_one(false)).collect();
    // R21: nobody knows here whether a copy of it has run.
    let asked_again = submit_one(true);
    mesh.run(1_000);
    let refused = submit_one(false);
    mesh.run(1);
    assert!(is_busy(&refused) && !asked_again.is_done() && !full.iter().any(Job::is_done));
    mesh.end(holder);
    assert!(!matches!(finish(&mesh, &asked_again), Err(TaskError::Busy { .. })));
}

#[test]
fn an_answer_that_is_longer_than_any_task_has_is_not_taken() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    let receipt = mesh.put(1, object, 1).receipt;
    mesh.get(0, object);
    let task = new_id(&mesh, 0, object);
    mesh.rule(Rule::Hold, is_told);
    let job = submits(&mesh, 0, task, false);
    mesh.settle();
    let sent = mesh.sent(|flight| flight.from == 0 && matches!(flight.message(), Message::Submit { .. }));
    let Message::Submit { ask, .. } = sent[0].envelope.message else { panic!("it is sent") };
    let end = |bytes: usize| {
        let answer = Value::from_slice(&vec![0; bytes]);
        let end = TaskEnd::Done { answer, receipt, earlier: false, touched: Vec::new() };
        Message::TaskEnded { ask, task, end: Box::new(end) }
    };
    let before = mesh.metrics(0).malformed;
    mesh.forge(1, 0, end(TASK_ANSWER_BYTES_MAX + 1));
    mesh.settle();
    assert_eq!((job.is_done(), mesh.metrics(0).malformed), (false, before + 1));
    run_tasks(&mesh);
    mesh.run(1);
    mesh.release();
    assert_eq!(answer(finish(&mesh, &job)), (2, false));
}

#[test]
fn tasks_on_their_way_from_a_peer_are_bounded() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    let submit = |number: usize| {
        mesh.step(0, |peer, now| {
            let waiter = peer.new_waiter();
            let id = TaskId { anchor: object, key: TaskKey { issued: now.wall, number: number as u64 } };
            let (request, to) = (request(id, 1_000), TaskTo::Anywhere);
            let task = SubmitTask { request, to, again: false, free_anchor: false, sent_on: None, hops: 0 };
            peer.submit_task(now, waiter, task).map(|()| waiter)
        })
    };
    let waiters: Vec<_> = (0..TASKS_SUBMITTED_MAX).map(|number| submit(number).expect("there is room")).collect();
    assert_eq!(submit(TASKS_SUBMITTED_MAX), Err(NotSubmitted::Busy));
    assert_eq!(mesh.status(0).tasks_submitted, TASKS_SUBMITTED_MAX);
    // Who is told the end makes room.
    mesh.run(1_100);
    let end = mesh.step(0, |peer, now| peer.poll_task(now, waiters[0]));
    assert!(matches!(end, Poll::Ready(TaskStep::Unknown { .. })), "{end:?}");
    assert!(submit(TASKS_SUBMITTED_MAX).is_ok());
}

#[test]
fn what_cannot_be_run_says_why_and_has_no_effect() {
    let unsuited = || {
        let mut handlers = Handlers::default();
        let attempt = |long: bool| {
            move |_: &Value| {
                assert!(long, "it cannot be read");
                Ok(Box::new(move |tx: Tx<SeatHost>| {
                    let attempt: TaskFuture = Box::pin(async move {
                        tx.create(&Gold::of(1))?;
                        Ok(Value::from_slice(&[0; TASK_ANSWER_BYTES_MAX + 1]))
                    });
                    attempt
                }) as _)
            }
        };
        assert!(handlers.add("long", 1, attempt(true)) && handlers.add("unreadable", 1, attempt(false)));
        assert!(!handlers.add("long", 2, attempt(false)), "a name has one type");
        Arc::new(handlers)
    };
    let mesh = Mesh::with(1, |_, setup| setup.config.founder = true);
    let (object, nowhere) = (mesh.create(0, 1), ObjectId::from_u128(0xdead));
    let owned = || mesh.look(0, |peer| peer.group().owned_count());
    let before = owned();
    let run = |name: &str, version, anchor| {
        let (host, id) = (mesh.host(0), new_id(&mesh, 0, anchor));
        let request = TaskRequest { name: name.to_owned(), version, ..request(id, 5_000) };
        let how = Submission { to: TaskTo::Anywhere, again: false, stable: true, free_anchor: false, kept_id: true };
        let job = mesh.spawn(async move { submit(host, &unsuited(), request, how).await });
        finish(&mesh, &job).expect_err("it cannot be run")
    };
    let long = run("long", 1, object);
    assert!(matches!(long, TaskError::AnswerTooLarge { bytes, .. } if bytes > TASK_ANSWER_BYTES_MAX as u64), "{long}");
    let other = run("long", 2, object);
    assert!(matches!(other, TaskError::OtherVersion { here: 2, there: 1, .. }), "{other}");
    let unreadable = run("unreadable", 1, object);
    assert!(matches!(&unreadable, TaskError::Undecodable { reason, .. } if reason.contains("it cannot be read")));
    let unanchored = run("long", 1, nowhere);
    assert!(matches!(unanchored, TaskError::NoAnchor { .. }), "{unanchored}");
    for error in [long, other, unreadable, unanchored] {
        assert_eq!(error.outcome(), Outcome::Aborted);
    }
    assert_eq!(owned(), before);
}

#[test]
fn a_peer_that_was_full_is_sent_less_and_more_as_tasks_end_there() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(1, 1);
    mesh.get(0, object);
    let submit_one = || submits(&mesh, 0, new_id(&mesh, 0, object), false);
    let taken = |jobs: &[Job<Done>]| jobs.iter().filter(|job| !job.is_done()).count();
    // Nobody runs what arrives.
    let mut under_way: Vec<_> = (0..2 * TASKS_RUNNING_PER_PEER_MAX).map(|_| submit_one()).collect();
    mesh.run(10);
    assert_eq!(taken(&under_way), TASKS_RUNNING_PER_PEER_MAX);
    under_way.retain(|job| !job.is_done());
    // Half of these end.
    for run in mesh.take_tasks(1).into_iter().take(TASKS_RUNNING_PER_PEER_MAX / 2) {
        mesh.spawn(run_here(mesh.host(1), handlers(), run));
    }
    mesh.run(10);
    under_way.retain(|job| !job.is_done());
    assert_eq!(under_way.len(), TASKS_RUNNING_PER_PEER_MAX / 2);
    mesh.clear_log();
    let more: Vec<_> = (0..2 * TASKS_RUNNING_PER_PEER_MAX).map(|_| submit_one()).collect();
    mesh.run(10);
    // It has room for as many as have ended, and is not sent many more than that.
    let sent = mesh.sent(|flight| matches!(flight.message(), Message::Submit { .. })).len();
    let room = TASKS_RUNNING_PER_PEER_MAX / 2;
    assert!((room..3 * room).contains(&sent) && taken(&more) == room, "{sent} were sent, {} were taken", taken(&more));
}
