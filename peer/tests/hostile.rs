//! R24, R25: whatever a peer says, nothing panics, nothing grows without bound, and the next transaction works.

use crate::harness::wire::{
    self, Wire, WireAnswer, WireGrant, WireLocate, WireLocated, WireOwn, WirePage, WireQueued, WireRead, WireReply,
    WireScanned, WireValue, WireVersion,
};
use crate::harness::{
    Flight, Mesh, Rule, is_grant, is_grant_answer, is_located, is_published, is_read, peer_id, ready, small,
};
use driftmesh_directory::{Holds, Record};
use driftmesh_model::{
    Epoch, GroupId, Lsn, Micros, ObjectId, PeerId, TaskId, TaskKey, Timestamp, TxnTimestamp, Value, codec, limits,
};
use driftmesh_object_store::Entry;
use driftmesh_peer::{
    Cause, Envelope, Message, Peer, RareEvent, Seen, Status, TASKS_RUNNING_MAX, TASKS_RUNNING_PER_PEER_MAX, TaskEnd,
    TaskRequest,
};
use proptest::prelude::*;
use std::num::NonZeroUsize;

const NOWHERE: ObjectId = ObjectId::from_u128(0xdead);
const NOBODY: GroupId = GroupId::from_u128(0xbeef);
const RECORDS_MAX: usize = 1_000;

fn small_mesh() -> Mesh {
    Mesh::with(3, |_, setup| setup.config.records_max = NonZeroUsize::new(RECORDS_MAX).unwrap_or(NonZeroUsize::MIN))
}

fn group_of(mesh: &Mesh, at: usize) -> GroupId {
    mesh.look(at, |peer| peer.group().id())
}

fn status(mesh: &Mesh, at: usize) -> Status {
    let now = mesh.now(at);
    mesh.look(at, |peer| peer.status(now))
}

fn malformed(mesh: &Mesh, at: usize) -> u64 {
    mesh.metrics(at).malformed
}

fn impossible(mesh: &Mesh, at: usize) -> u64 {
    mesh.metrics(at).impossible
}

/// An object that is created, read, written and moved between the first two peers, as if nothing had happened.
fn a_normal_transaction_works(mesh: &Mesh) {
    let object = mesh.create_known(0, 1);
    mesh.add(1, object, 1);
    mesh.add(0, object, 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (0, Some(3)));
    assert_eq!(mesh.get(1, object), Some(3));
}

fn record(object: ObjectId, group: GroupId, epoch: u64) -> Record {
    Record { object, group, epoch: Epoch::from_u64(epoch) }
}

fn grant(mesh: &Mesh, object: ObjectId, number: u64) -> WireGrant {
    let commit = Timestamp::from_wall(mesh.now(1).wall);
    WireGrant {
        from: group_of(mesh, 1),
        to: group_of(mesh, 0),
        number,
        unsettled_from: 1,
        object,
        epoch: Epoch::from_u64(2),
        versions: vec![WireVersion { commit, value: WireValue::Whole(small(666)) }],
        low_water: Timestamp::ZERO,
        floor: commit,
    }
}

fn age(time: Timestamp) -> TxnTimestamp {
    TxnTimestamp { time, incarnation: 77, sequence: 77 }
}

/// One of each kind of message, about an object that exists or not, with plausible contents.
fn one_of_each(mesh: &Mesh, object: ObjectId) -> Vec<Message> {
    let now = Timestamp::from_wall(mesh.now(1).wall);
    let epoch = Epoch::from_u64(3);
    let (ours, theirs) = (group_of(mesh, 0), group_of(mesh, 1));
    let seen = Seen::Version { commit: now, value: Some(small(666)) };
    let located = WireLocated {
        object,
        holds: Holds::Owns,
        record: Some(record(object, theirs, 9)),
        leader: Some(PeerId::from_bytes([77; 32])),
        moves: 3,
        round: 1,
        groups_digest: 0,
    };
    let page = WirePage {
        snapshot: now,
        cursor: 0,
        next: Some(1),
        objects: vec![WireScanned { object, epoch, seen: seen.clone() }],
        in_transit: 0,
        group: theirs,
        caretaken: 0,
        arrivals: 0,
        moving: vec![object],
        whole: true,
    };
    [
        wire::heartbeat(theirs, mesh.now(1).wall, Some(now), 3, 1_000),
        Wire::Read { snapshot: now, objects: vec![WireRead { object, epoch }] },
        Wire::ReadAnswers { snapshot: now, group: theirs, answers: vec![WireAnswer { object, epoch, seen }] },
        Wire::Own {
            group: theirs,
            requests: vec![WireOwn { object, epoch, age: age(now), kind: "k".to_owned(), have: None, pull: Some(1) }],
        },
        Wire::Queued { objects: vec![WireQueued { object, behind: Some((age(now), "other".to_owned())) }] },
        Wire::Locate { objects: vec![WireLocate { object, round: 1 }] },
        Wire::Located { answers: vec![located] },
        Wire::Publish { batch: 1, records: vec![record(object, theirs, 3)] },
        Wire::Published { batch: 1 },
        Wire::Learned { records: vec![record(object, theirs, 3)] },
        Wire::grant(grant(mesh, object, 1)),
        Wire::grant_answer(ours, theirs, 1, WireReply::Adopted),
        Wire::grant_answer(ours, theirs, 1, WireReply::Refused),
        Wire::grant_answer(ours, theirs, 1, WireReply::NeedsValues),
        Wire::ClockAhead { objects: vec![object], receiver: mesh.now(1).wall },
        Wire::Scan { snapshot: now, cursor: 0 },
        Wire::ScanPage(page),
        Wire::AskStanding { ask: 1, group: ours, fences: Vec::new() },
        Wire::Standing { ask: 1, group: ours, standing: driftmesh_peer::Standing::default() },
    ]
    .iter()
    .map(Wire::message)
    .chain(of_tasks(mesh, object))
    .collect()
}

/// The same of tasks.
fn of_tasks(mesh: &Mesh, object: ObjectId) -> [Message; 2] {
    let request = task_request(object, mesh.now(1).wall, 1);
    let task = request.id;
    let end = TaskEnd::Forgotten;
    [Message::Submit { ask: 1, request: Box::new(request) }, Message::TaskEnded { ask: 1, task, end: Box::new(end) }]
}

fn task_request(anchor: ObjectId, issued: Micros, number: u64) -> TaskRequest {
    let id = TaskId { anchor, key: TaskKey { issued, number } };
    let (name, body) = ("task".to_owned(), small(1));
    TaskRequest { touches: vec![anchor], ..TaskRequest::new(id, name, 1, body, Micros::from_millis(1_000)) }
}

#[test]
fn what_an_unknown_peer_says_is_counted_and_nothing_else() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    let before = (status(&mesh, 0), mesh.tail(0));
    mesh.clear_log();
    let messages = one_of_each(&mesh, object);
    let count = messages.len() as u64;
    for message in messages {
        let envelope = Envelope { clock: Timestamp::from_wall(mesh.now(0).wall.plus(Micros(400_000))), message };
        mesh.step(0, |peer, now| peer.received(now, peer_id(99), envelope));
    }
    assert_eq!((malformed(&mesh, 0), impossible(&mesh, 0)), (count, 0), "who is not met yet may be a moment later");
    assert_eq!((status(&mesh, 0), mesh.tail(0)), before);
    assert!(mesh.sent(|_| true).is_empty());
    let commit = mesh.put(0, object, 2).receipt.commit;
    assert!(commit < Timestamp::from_wall(mesh.now(0).wall.plus(Micros(1_000))), "its clock was followed");
    a_normal_transaction_works(&mesh);
}

#[test]
fn one_of_each_message_that_nobody_asked_for_does_no_harm() {
    for about_a_live_one in [true, false] {
        let mesh = small_mesh();
        let live = mesh.create_known(0, 1);
        let object = if about_a_live_one { live } else { NOWHERE };
        for message in one_of_each(&mesh, object) {
            // A grant would be one: what a member forges is not the subject here.
            if !matches!(message, Message::Grants { .. }) {
                mesh.forge(1, 0, message);
                mesh.settle();
            }
        }
        mesh.run(1_000);
        assert_eq!(mesh.get(2, live), Some(1));
        a_normal_transaction_works(&mesh);
    }
}

#[test]
fn messages_to_other_groups_than_are_led_here_are_dropped() {
    let mesh = small_mesh();
    let others = [group_of(&mesh, 1), group_of(&mesh, 2), NOBODY];
    let own = group_of(&mesh, 0);
    let tail = mesh.tail(0);
    for (from, to) in [(others[0], others[1]), (others[0], NOBODY), (own, own)] {
        let forged = WireGrant { from, to, ..grant(&mesh, NOWHERE, 1) };
        mesh.forge(1, 0, Wire::grant(forged).message());
    }
    for (from, to) in [(others[0], others[1]), (others[0], own), (NOBODY, others[0]), (own, others[1]), (own, own)] {
        mesh.forge(1, 0, Wire::grant_answer(from, to, 1, WireReply::Refused).message());
    }
    assert_eq!(mesh.tail(0), tail);
    a_normal_transaction_works(&mesh);
}

#[test]
fn wrong_grant_numbers_adopt_nothing() {
    let mesh = small_mesh();
    let tail = mesh.tail(0);
    for number in [0, u64::MAX, u64::MAX - 1, 1_025, 1 << 40] {
        for unsettled_from in [0, 1, u64::MAX] {
            let forged = WireGrant { unsettled_from, ..grant(&mesh, NOWHERE, number) };
            mesh.forge(1, 0, Wire::grant(forged).message());
        }
    }
    assert_eq!(mesh.tail(0), tail);
    assert!(mesh.look(0, |peer| peer.group().owned(NOWHERE).is_none()));
    // Without a number, or settled beyond it.
    assert!(impossible(&mesh, 0) > 0);
    for number in [0, 1, 2, u64::MAX] {
        for reply in [WireReply::Adopted, WireReply::Refused, WireReply::NeedsValues] {
            let (from, to) = (group_of(&mesh, 0), group_of(&mesh, 1));
            mesh.forge(1, 0, Wire::grant_answer(from, to, number, reply).message());
        }
    }
    assert_eq!(mesh.tail(0), tail);
    mesh.settle();
    // The next true grants begin at 1, both ways.
    a_normal_transaction_works(&mesh);
}

#[test]
fn absurd_epochs_mislead_nobody_for_long() {
    let mesh = small_mesh();
    let live = mesh.create_known(1, 5);
    let (epoch, now) = (Epoch::from_u64(u64::MAX), Timestamp::from_wall(mesh.now(0).wall));
    for object in [live, NOWHERE] {
        for group in [group_of(&mesh, 0), group_of(&mesh, 1), group_of(&mesh, 2), NOBODY] {
            let absurd = record(object, group, u64::MAX);
            let highest = Record { epoch: Epoch::from_u64(u64::MAX / 2), ..absurd };
            let located = |record| WireLocated {
                object,
                holds: Holds::No,
                record,
                leader: Some(PeerId::from_bytes([77; 32])),
                moves: u64::MAX,
                round: u64::MAX,
                groups_digest: 0,
            };
            for message in [
                Wire::Read { snapshot: now, objects: vec![WireRead { object, epoch }] },
                Wire::Own {
                    group,
                    requests: vec![WireOwn {
                        object: NOWHERE,
                        epoch,
                        age: age(now),
                        kind: String::new(),
                        have: None,
                        pull: None,
                    }],
                },
                Wire::Located { answers: vec![located(Some(absurd)), located(Some(highest)), located(None)] },
                Wire::Publish { batch: u64::MAX, records: vec![absurd, highest] },
                Wire::Learned { records: vec![absurd, highest] },
                Wire::ReadAnswers {
                    snapshot: now,
                    group,
                    answers: vec![WireAnswer { object, epoch, seen: Seen::NotYetCreated }],
                },
            ] {
                mesh.forge(2, 0, message.message());
                mesh.settle();
            }
        }
    }
    assert_eq!(mesh.get(0, live), Some(5));
    assert_eq!(mesh.get(0, NOWHERE), None);
    mesh.put(0, live, 6);
    assert_eq!((mesh.owner_of(live), mesh.get(2, live)), (0, Some(6)));
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_record_that_nothing_could_ever_replace_is_not_taken_and_its_pointer_is_not_laundered() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    mesh.put(1, object, 2);
    mesh.run(50);
    let absurd = record(object, NOBODY, u64::MAX - 1);
    let before = malformed(&mesh, 0);
    for message in [Wire::Learned { records: vec![absurd] }, Wire::Publish { batch: 9, records: vec![absurd] }] {
        mesh.forge(2, 0, message.message());
    }
    assert_eq!((malformed(&mesh, 0), impossible(&mesh, 0)), (before + 2, 2));
    let known = mesh.step(0, |peer, _| (peer.pointer(object), peer.kept_record(object)));
    assert!([known.0, known.1].iter().flatten().all(|record| record.epoch.as_u64() < 10), "{known:?}");
    assert_eq!(mesh.get(2, object), Some(2));
}

#[test]
fn a_lie_and_members_that_say_nothing_do_not_hide_what_is_on_its_way() {
    let mesh = Mesh::new(5);
    let object = mesh.create_known(0, 5);
    // Two members answer no question, and one of them has lied to everybody.
    mesh.rule(Rule::Drop, |flight| flight.from >= 3 && is_located(flight));
    mesh.rule(Rule::Delay(130_000), |flight| flight.from == 0 && is_grant(flight));
    let taker = mesh.begin(1, "taker");
    assert!(mesh.intend(taker, &[object]).is_pending());
    mesh.settle();
    let lie = record(object, NOBODY, 1 << 20);
    for at in 0..3 {
        mesh.forge(3, at, Wire::Learned { records: vec![lie] }.message());
    }
    let (begun, wants) = (mesh.mono_us(), mesh.begin(2, "wants"));
    assert!(mesh.intend(wants, &[object]).is_pending());
    mesh.run_until("it arrives", 200, || mesh.owners_of(object) == [1]);
    mesh.end(taker);
    mesh.intend_wait(wants, &[object]).unwrap();
    // The homes' silence, the way, and a little: not the silence of those who never answer, over and over.
    let took = mesh.mono_us() - begun;
    assert!(took < 250_000, "{took} us");
}

#[test]
fn an_answer_that_nobody_asked_for_plants_no_record() {
    let mesh = small_mesh();
    let object = mesh.create_known(1, 5);
    assert_eq!(mesh.get(0, object), Some(5));
    let (snapshot, before) = (Timestamp::from_wall(mesh.now(0).wall), mesh.rare(0, RareEvent::HomesAsked));
    // At the end of the epochs, which nothing could ever replace; and in the name of a group that another leads.
    for (group, epoch) in [(NOBODY, 1 << 20), (group_of(&mesh, 2), u64::MAX), (group_of(&mesh, 0), 1 << 20)] {
        let answer = WireAnswer { object, epoch: Epoch::from_u64(epoch), seen: Seen::NotYetCreated };
        mesh.forge(2, 0, Wire::ReadAnswers { snapshot, group, answers: vec![answer] }.message());
        assert_eq!(mesh.get(0, object), Some(5));
    }
    assert_eq!(mesh.rare(0, RareEvent::HomesAsked), before);
}

#[test]
fn a_lie_about_what_is_here_is_forgotten_and_its_next_departure_is_known() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    mesh.put(1, object, 2);
    let lie = Wire::Learned { records: vec![record(object, NOBODY, 1 << 20)] };
    // Once while it is away, and once while it is here.
    mesh.forge(2, 0, lie.message());
    mesh.put(0, object, 3);
    mesh.forge(2, 0, lie.message());
    mesh.put(1, object, 4);
    let pointer = mesh.look(0, |peer| peer.pointer(object));
    assert_eq!(pointer, Some(record(object, group_of(&mesh, 1), mesh.epoch_of(object))));
    let before = mesh.rare(0, RareEvent::HomesAsked);
    assert_eq!(mesh.get(0, object), Some(4));
    assert_eq!(mesh.rare(0, RareEvent::HomesAsked), before);
}

#[test]
fn who_was_not_asked_neither_holds_up_a_search_nor_ends_it() {
    let mesh = small_mesh();
    let object = mesh.create_known(1, 5);
    assert_eq!(mesh.get(0, object), Some(5));
    let (reader, before) = (mesh.begin(0, "reader"), mesh.rare(0, RareEvent::HomesAsked));
    // The owner hears no request.
    mesh.rule(Rule::Drop, |flight| flight.to == 1 && is_read(flight));
    assert!(mesh.read(reader, object).is_pending());
    for _ in 0..5 {
        mesh.run(100);
        mesh.forge(2, 0, Wire::ClockAhead { objects: vec![object], receiver: Micros(1) }.message());
        mesh.forge(2, 0, Wire::Queued { objects: vec![WireQueued { object, behind: None }] }.message());
        assert_eq!(mesh.failure(reader), None);
    }
    assert!(mesh.rare(0, RareEvent::HomesAsked) > before, "it still asks the same one");
    mesh.forge(1, 0, Wire::ClockAhead { objects: vec![object], receiver: Micros(1) }.message());
    assert!(matches!(mesh.failure(reader), Some(Cause::ClockAhead { .. })));
}

#[test]
fn a_grant_at_the_end_of_the_epochs_is_refused_and_one_far_from_it_moves_on() {
    let mesh = small_mesh();
    let from = group_of(&mesh, 2);
    for (number, epoch, adopted) in [(1, u64::MAX, false), (2, u64::MAX - 1, false), (3, 1 << 40, true)] {
        let forged = WireGrant { from, epoch: Epoch::from_u64(epoch), ..grant(&mesh, NOWHERE, number) };
        mesh.forge(2, 0, Wire::grant(forged).message());
        assert_eq!(mesh.look(0, |peer| peer.group().owned(NOWHERE).is_some()), adopted);
    }
    assert_eq!(malformed(&mesh, 0), 2);
    mesh.run(20);
    // Never from the forger to the first peer: the true grants would have the numbers of the forged ones.
    for (round, at) in [1, 2, 1, 0, 1, 2].into_iter().enumerate() {
        mesh.put(at, NOWHERE, round as u64);
        assert_eq!((mesh.owner_of(NOWHERE), mesh.newest(NOWHERE)), (at, Some(round as u64)));
    }
    assert_eq!(mesh.epoch_of(NOWHERE), (1 << 40) + 6);
}

#[test]
fn absurd_timestamps_move_no_clock_and_prune_nothing() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    let reader = mesh.begin_snapshot(0);
    mesh.run(1);
    mesh.put(0, object, 2);
    for time in [Timestamp::MAX, Timestamp::from_u64(u64::MAX - 1), Timestamp::from_u64(1 << 63), Timestamp::ZERO] {
        for wall in [Micros(u64::MAX), Micros(i64::MAX as u64 + 1), Micros(0)] {
            for message in [
                wire::heartbeat(group_of(&mesh, 1), wall, Some(time), u64::MAX, u64::MAX).message(),
                wire::read(object, time),
                wire::read(NOWHERE, time),
                Wire::Scan { snapshot: time, cursor: u64::MAX }.message(),
                Wire::ClockAhead { objects: vec![object, NOWHERE], receiver: wall }.message(),
                Wire::Queued { objects: vec![WireQueued { object, behind: Some((age(time), String::new())) }] }
                    .message(),
                Wire::ReadAnswers { snapshot: time, group: NOBODY, answers: Vec::new() }.message(),
            ] {
                mesh.hand(Flight { from: 1, to: 0, envelope: Envelope { clock: time, message } });
            }
        }
        if time > Timestamp::from_wall(mesh.now(0).wall) {
            mesh.forge(1, 0, wire::own(group_of(&mesh, 1), object, age(time)));
            assert_eq!(mesh.owner_of(object), 0);
        }
        mesh.run(300);
    }
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(1)));
    let commit = mesh.put(0, object, 3).receipt.commit;
    assert!(commit < Timestamp::from_wall(mesh.now(0).wall.plus(Micros(1_000))));
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_grant_with_an_absurd_floor_does_not_stop_the_clock() {
    for floor in [Timestamp::MAX, Timestamp::from_u64(u64::MAX - 3)] {
        let mesh = small_mesh();
        let object = mesh.create_known(0, 1);
        let forged = WireGrant { floor, ..grant(&mesh, NOWHERE, 1) };
        mesh.forge(1, 0, Wire::grant(forged).message());
        for number in 0..10 {
            mesh.put(0, object, number);
        }
        assert_eq!(mesh.newest(object), Some(9));
    }
}

#[test]
fn a_grant_of_what_is_here_already_does_not_replace_it() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    mesh.forge(2, 0, Wire::grant(WireGrant { from: group_of(&mesh, 2), ..grant(&mesh, object, 1) }).message());
    assert_eq!(mesh.newest(object), Some(1));
    let copies = mesh.look(0, |peer| peer.group().owned_from(0).filter(|(_, stored)| stored.object == object).count());
    assert_eq!(copies, 1);
    mesh.put(0, object, 2);
    assert_eq!(mesh.newest(object), Some(2));
    assert_eq!(mesh.look(0, |peer| peer.group().owned_count()), 1);
}

#[test]
fn answers_about_other_objects_than_were_asked_for_answer_nothing() {
    let mesh = small_mesh();
    let (asked, other) = (mesh.create_known(1, 5), mesh.create_known(1, 6));
    let reader = mesh.begin(0, "reader");
    let writer = mesh.begin(0, "writer");
    assert!(mesh.read(reader, asked).is_pending());
    assert!(mesh.intend(writer, &[other]).is_pending());
    mesh.intercept(|_| true);
    let (snapshot, theirs) = (mesh.snapshot(reader), group_of(&mesh, 1));
    let seen = Seen::Version { commit: snapshot, value: Some(small(666)) };
    let epoch = Epoch::from_u64(1);
    // Another object's value, another snapshot's value, another object's record.
    let answer = |object| WireAnswer { object, epoch, seen: seen.clone() };
    mesh.forge(
        1,
        0,
        Wire::ReadAnswers { snapshot, group: theirs, answers: vec![answer(NOWHERE), answer(other)] }.message(),
    );
    mesh.forge(
        1,
        0,
        Wire::ReadAnswers { snapshot: snapshot.next(), group: theirs, answers: vec![answer(asked)] }.message(),
    );
    let located = WireLocated {
        object: asked,
        holds: Holds::Owns,
        record: Some(record(other, NOBODY, 50)),
        leader: Some(PeerId::from_bytes([77; 32])),
        moves: 0,
        round: 0,
        groups_digest: 0,
    };
    mesh.forge(1, 0, Wire::Located { answers: vec![located] }.message());
    let learned = vec![record(NOWHERE, NOBODY, 50), record(NOWHERE, theirs, 51)];
    mesh.forge(1, 0, Wire::Learned { records: learned }.message());
    // R25: at the end of all epochs it would be a hint that nothing replaces.
    let last = WireAnswer { object: NOWHERE, epoch: Epoch::from_u64(u64::MAX), seen: seen.clone() };
    let (hints, counted) = (status(&mesh, 0).hints, impossible(&mesh, 0));
    mesh.forge(1, 0, Wire::ReadAnswers { snapshot, group: theirs, answers: vec![last] }.message());
    assert_eq!((status(&mesh, 0).hints, impossible(&mesh, 0)), (hints, counted + 1));
    assert!(mesh.read(reader, asked).is_pending());
    assert_eq!(mesh.read_wait(reader, asked), Ok(Some(5)));
    mesh.intend_wait(writer, &[other]).unwrap();
    assert_eq!(mesh.read_wait(writer, other), Ok(Some(6)));
}

#[test]
fn a_hundred_thousand_records_in_one_message_are_refused() {
    let mesh = small_mesh();
    let theirs = group_of(&mesh, 1);
    let records: Vec<Record> = (0..100_000).map(|id| record(ObjectId::from_u128(id), theirs, 1)).collect();
    let before = status(&mesh, 0);
    mesh.clear_log();
    mesh.forge(1, 0, Wire::Publish { batch: 1, records: records.clone() }.message());
    mesh.forge(1, 0, Wire::Learned { records: records.clone() }.message());
    assert_eq!((malformed(&mesh, 0), impossible(&mesh, 0)), (2, 2));
    let after = status(&mesh, 0);
    assert_eq!((before.home_records, before.hints), (after.home_records, after.hints));
    assert!(mesh.sent(is_published).is_empty());
    // In portions of a legal size they are taken, and forgotten within the bound.
    for (batch, portion) in records.chunks(4_000).enumerate() {
        mesh.forge(1, 0, Wire::Publish { batch: batch as u64, records: portion.to_vec() }.message());
        mesh.forge(1, 0, Wire::Learned { records: portion.to_vec() }.message());
    }
    let after = status(&mesh, 0);
    assert!(after.home_records <= RECORDS_MAX && after.hints <= RECORDS_MAX);
    assert_eq!(mesh.sent(is_published).len(), 25);
    mesh.settle();
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_list_that_is_longer_than_any_peer_makes_is_refused_whole() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    let locates = |count: usize| Wire::Locate { objects: vec![WireLocate { object, round: 1 }; count] }.message();
    // What is said of many objects is cut into messages of so many.
    let most = 4_096;
    mesh.clear_log();
    mesh.forge(1, 0, locates(most + 1));
    assert_eq!((malformed(&mesh, 0), impossible(&mesh, 0)), (1, 1));
    assert!(mesh.sent(is_located).is_empty());
    mesh.forge(1, 0, locates(most));
    assert_eq!(impossible(&mesh, 0), 1);
    a_normal_transaction_works(&mesh);
}

#[test]
fn what_honest_faults_cause_is_nothing_that_no_peer_says() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    for round in 0..3 {
        mesh.add(round, object, 1);
    }
    // All that was said comes again, and late.
    let said: Vec<Flight> = mesh.sent(|_| true);
    assert!(said.len() > 10);
    mesh.run(2_000);
    for flight in said {
        mesh.hand(flight);
    }
    mesh.run(1_000);
    assert!((0..3).all(|at| impossible(&mesh, at) == 0));
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_flood_of_requests_for_objects_said_to_be_on_their_way_is_answered_in_time() {
    let mesh = small_mesh();
    let snapshot = Timestamp::from_wall(mesh.now(0).wall);
    let epoch = Epoch::from_u64(1_000);
    let asked = |id: u128| WireRead { object: ObjectId::from_u128(id), epoch };
    mesh.clear_log();
    // More objects than may be waited for, and more requests for one object than may wait.
    for ids in [1..=3_000, 3_001..=6_000] {
        mesh.forge(1, 0, Wire::Read { snapshot, objects: ids.map(asked).collect() }.message());
    }
    mesh.forge(1, 0, Wire::Read { snapshot, objects: (0..200).map(|_| asked(1)).collect() }.message());
    mesh.run(60);
    let mut answers = 0;
    for flight in mesh.sent(|flight| is_located(flight) && flight.from == 0) {
        if let Message::Located { answers: located } = flight.message() {
            answers += located.len();
        }
    }
    assert_eq!(answers, 6_200);
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_flood_of_requests_for_one_object_is_bounded_and_served_in_age_order() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    let holder = mesh.begin(0, "holder");
    ready(mesh.intend(holder, &[object])).unwrap();
    mesh.run(1);
    let now = Timestamp::from_wall(mesh.now(1).wall);
    for sequence in 0..20_000 {
        let younger = TxnTimestamp { time: now, incarnation: 2, sequence };
        mesh.forge(1, 0, wire::own(group_of(&mesh, 1), object, younger));
    }
    mesh.intercept(|flight| flight.to == 1);
    mesh.commit_amount(holder, object, 2).unwrap();
    mesh.run(100);
    // All were one group's: it gets the object once.
    assert_eq!(mesh.sent(is_grant).len(), 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(2)));
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_message_of_nothing_is_a_message() {
    let mesh = small_mesh();
    for wire in [
        Wire::Read { snapshot: Timestamp::ZERO, objects: Vec::new() },
        Wire::ReadAnswers { snapshot: Timestamp::ZERO, group: NOBODY, answers: Vec::new() },
        Wire::Own { group: NOBODY, requests: Vec::new() },
        Wire::Queued { objects: Vec::new() },
        Wire::Locate { objects: Vec::new() },
        Wire::Located { answers: Vec::new() },
        Wire::Publish { batch: 0, records: Vec::new() },
        Wire::Learned { records: Vec::new() },
        Wire::ClockAhead { objects: Vec::new(), receiver: Micros(0) },
        Wire::grant(WireGrant { versions: Vec::new(), ..grant(&mesh, NOWHERE, 5) }),
    ] {
        mesh.forge(1, 0, wire.message());
        mesh.settle();
    }
    assert_eq!(mesh.sent(is_grant_answer).len(), 1);
    a_normal_transaction_works(&mesh);
}

#[test]
fn a_value_over_the_limit_does_not_decode() {
    let mesh = small_mesh();
    let huge = Value::from_slice(&vec![0; limits::OBJECT_BYTES_MAX + 1]);
    let mut forged = grant(&mesh, NOWHERE, 1);
    forged.versions[0].value = WireValue::Whole(huge);
    let bytes = codec::encode(&Wire::grant(forged)).unwrap();
    assert!(codec::decode::<Message>(&bytes).is_err());
}

#[test]
fn a_flood_of_tasks_is_refused_early_and_leaves_room_for_others() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    let submit = |from: usize, ask: u64| {
        let request = task_request(object, mesh.now(from).wall, ask);
        mesh.forge(from, 0, Message::Submit { ask, request: Box::new(request) });
    };
    let of_one = TASKS_RUNNING_PER_PEER_MAX as u64;
    (1..=of_one + 10).for_each(|ask| submit(1, ask));
    // The same number again is the same task.
    (1..=of_one).for_each(|ask| submit(1, ask));
    assert_eq!((mesh.take_tasks(0).len(), mesh.metrics(0).tasks_refused), (TASKS_RUNNING_PER_PEER_MAX, 10));
    submit(2, 1);
    assert_eq!(mesh.take_tasks(0).len(), 1);
    assert!(mesh.status(0).tasks_running < TASKS_RUNNING_MAX);
    let is_busy = |flight: &Flight| matches!(flight.message(), Message::TaskEnded { end, .. } if matches!(**end, TaskEnd::Busy { .. }));
    assert_eq!(mesh.sent(is_busy).len(), 10);
    a_normal_transaction_works(&mesh);
}

#[test]
fn tasks_beyond_the_limits_or_from_the_future_are_not_run() {
    let mesh = small_mesh();
    let object = mesh.create_known(0, 1);
    let wall = mesh.now(1).wall;
    let plain = || task_request(object, wall, 1);
    let too_large = [
        TaskRequest { name: "x".repeat(limits::TASK_KIND_BYTES_MAX + 1), ..plain() },
        TaskRequest { body: Value::from_slice(&vec![0; limits::TASK_BYTES_MAX + 1]), ..plain() },
        TaskRequest { touches: vec![object; limits::TASK_TOUCHES_MAX + 1], ..plain() },
        TaskRequest { deadline: Micros(0), ..plain() },
    ];
    let before = malformed(&mesh, 0);
    for request in too_large {
        mesh.forge(1, 0, Message::Submit { ask: 1, request: Box::new(request) });
    }
    assert_eq!(malformed(&mesh, 0), before + 4);
    let ahead = task_request(object, wall.plus(Micros::from_millis(600)), 1);
    mesh.forge(1, 0, Message::Submit { ask: 1, request: Box::new(ahead) });
    assert!(mesh.take_tasks(0).is_empty());
    let told = mesh.sent(|flight| matches!(flight.message(), Message::TaskEnded { .. }));
    assert_eq!(told.len(), 1, "the one with the clock that is wrong");
    a_normal_transaction_works(&mesh);
}

// Random input.

/// Few of each, so that messages meet: objects, groups, times and numbers, true ones among absurd ones.
#[derive(Clone, Copy, Debug)]
struct Picks {
    object: usize,
    group: (usize, usize),
    time: usize,
    number: usize,
    variant: usize,
    flavour: usize,
}

fn picks() -> impl Strategy<Value = Picks> {
    (0..4_usize, (0..4_usize, 0..4_usize), 0..7_usize, 0..8_usize, 0..19_usize, 0..6_usize).prop_map(
        |(object, group, time, number, variant, flavour)| Picks { object, group, time, number, variant, flavour },
    )
}

struct Pool {
    objects: [ObjectId; 4],
    groups: [GroupId; 4],
}

/// A message about a task by these picks.
fn made_of_tasks(object: ObjectId, wall: Micros, number: u64, picks: Picks) -> Message {
    let issued = Micros(if picks.flavour == 1 { number } else { wall.0 });
    let request = TaskRequest {
        deadline: Micros(number),
        name: "x".repeat(20 * picks.flavour),
        touches: vec![object; 80 * picks.flavour],
        key: number,
        settled: picks.flavour > 2,
        ..task_request(object, issued, number)
    };
    let task = request.id;
    let told = |end| Message::TaskEnded { ask: number, task, end: Box::new(end) };
    match picks.variant {
        15 => Message::Submit { ask: number, request: Box::new(request) },
        16 => told(TaskEnd::Busy { retry_after: Micros(number) }),
        17 => told(TaskEnd::Elsewhere { object, at: peer_id(picks.flavour) }),
        _ => Message::Stays { objects: vec![object; 1 + picks.flavour] },
    }
}

/// A message by these picks.
fn made(pool: &Pool, wall: Micros, picks: Picks) -> Message {
    let object = pool.objects[picks.object];
    let (from, to) = (pool.groups[picks.group.0], pool.groups[picks.group.1]);
    let near = |micros: i64| crate::harness::shifted(Timestamp::from_wall(wall), micros);
    let times =
        [Timestamp::ZERO, Timestamp::MAX, near(0), near(-20_000), near(400_000), near(600_000), near(-70_000_000)];
    let time = times[picks.time];
    let number = [0, 1, 2, 3, 1_024, 1_025, u64::MAX - 1, u64::MAX][picks.number];
    let epoch = Epoch::from_u64(number);
    let record = Record { object, group: to, epoch };
    let seen = match picks.flavour {
        0 => Seen::TooOld,
        1 => Seen::NotYetCreated,
        2 => Seen::Version { commit: time, value: None },
        _ => Seen::Version { commit: time, value: Some(small(number)) },
    };
    let holds = [Holds::Owns, Holds::Sending, Holds::No][picks.flavour % 3];
    let reply = [WireReply::Adopted, WireReply::Refused, WireReply::NeedsValues][picks.flavour % 3];
    let value = match picks.flavour {
        0 => WireValue::Deleted,
        1 => WireValue::Hash(small(number).hash()),
        _ => WireValue::Whole(small(number)),
    };
    let version = |commit| WireVersion { commit, value: value.clone() };
    let versions = match picks.flavour {
        4 => vec![version(near(-30_000)), version(near(-20_000))],
        5 => vec![version(time), version(time)],
        _ => vec![version(time)],
    };
    // A floor at the end of time has a test of its own.
    let floor = if picks.flavour.is_multiple_of(2) { near(500) } else { near(3_600_000_000) };
    if picks.variant >= 15 {
        return made_of_tasks(object, wall, number, picks);
    }
    let wire = match picks.variant {
        0 => Wire::Heartbeat {
            wall: Micros(number),
            oldest_snapshot: Some(time),
            owned: number,
            sequence: number,
            draining: number % 3,
            unsettled: number,
            heard_draining: number % 2,
            your_offset: Some(i64::MIN),
            group: to,
            groups_digest: number,
            followed: number,
            room: number,
            led_bytes: number,
        },
        1 => Wire::Read { snapshot: time, objects: vec![WireRead { object, epoch }; 1 + picks.flavour] },
        2 => Wire::ReadAnswers { snapshot: time, group: to, answers: vec![WireAnswer { object, epoch, seen }] },
        3 => Wire::Own {
            group: to,
            requests: vec![WireOwn {
                object,
                epoch,
                age: age(time),
                kind: "x".repeat(30 * picks.flavour),
                have: (picks.flavour == 3).then(|| small(number).hash()),
                pull: (picks.flavour > 3).then_some(number),
            }],
        },
        4 => Wire::Queued { objects: vec![WireQueued { object, behind: Some((age(time), String::new())) }] },
        5 => Wire::Locate { objects: vec![WireLocate { object, round: number }; 1 + picks.flavour] },
        6 => {
            let record = (picks.flavour < 4).then_some(record);
            Wire::Located {
                answers: vec![WireLocated {
                    object,
                    holds,
                    record,
                    leader: Some(PeerId::from_bytes([77; 32])),
                    moves: number,
                    round: number,
                    groups_digest: number,
                }],
            }
        }
        7 => Wire::Publish { batch: number, records: vec![record] },
        8 => Wire::Published { batch: number },
        9 => Wire::Learned { records: vec![record] },
        10 => Wire::grant(WireGrant {
            from,
            to,
            number,
            unsettled_from: number / 2,
            object,
            epoch,
            versions,
            low_water: if picks.flavour == 3 { time } else { Timestamp::ZERO },
            floor,
        }),
        11 => Wire::grant_answer(from, to, number, reply),
        12 => Wire::ClockAhead { objects: vec![object], receiver: Micros(number) },
        13 => Wire::Scan { snapshot: time, cursor: number },
        _ => Wire::ScanPage(WirePage {
            snapshot: time,
            cursor: number,
            next: Some(number),
            objects: vec![WireScanned { object, epoch, seen }],
            in_transit: number,
            group: from,
            caretaken: number,
            arrivals: number,
            moving: vec![object],
            whole: picks.flavour == 3,
        }),
    };
    wire.message()
}

/// A mesh in which the first peer is in the midst of everything: it owns, fetches, reads, sends and waits.
fn busy_mesh() -> (Mesh, Pool) {
    let mesh = small_mesh();
    let (owned, held) = (mesh.create_known(0, 1), mesh.create_known(0, 2));
    let elsewhere = mesh.create_known(1, 3);
    let holder = mesh.begin_for(0, "holder", 60_000);
    assert!(mesh.intend(holder, &[held]).is_ready());
    mesh.put(1, owned, 4);
    mesh.put(0, owned, 5);
    let busy = mesh.begin_for(0, "busy", 60_000);
    assert!(mesh.intend(busy, &[elsewhere]).is_pending() && mesh.read(busy, NOWHERE).is_pending());
    let groups = [group_of(&mesh, 0), group_of(&mesh, 1), group_of(&mesh, 2), NOBODY];
    (mesh, Pool { objects: [owned, held, elsewhere, NOWHERE], groups })
}

/// A peer that has heard all that still keeps its own house: what it creates it can change and read.
fn keeps_its_own_house(mesh: &Mesh) {
    let object = mesh.create(0, 1);
    let txn = mesh.begin(0, "own house");
    assert_eq!(ready(mesh.intend(txn, &[object])), Ok(()));
    mesh.commit_amount(txn, object, 2).expect("it holds the lock");
    let reader = mesh.begin(0, "reader");
    let read = ready(mesh.read(reader, object)).map(|read| read.value);
    assert_eq!(read, Ok(Some(small(2))));
    let entries: Vec<Entry> =
        mesh.look(0, |peer: &Peer| peer.group().entries_from(Lsn::ZERO).map(|(_, entry)| entry.clone()).collect());
    assert!(matches!(entries.last(), Some(Entry::Commit { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_wild_messages_panics(sequence in prop::collection::vec((1..3_usize, picks(), 0..60_u64), 1..60)) {
        let (mesh, pool) = busy_mesh();
        for (from, picks, millis) in sequence {
            let message = made(&pool, mesh.now(0).wall, picks);
            mesh.forge(from, 0, message);
            // Only the first peer goes on; what it says to the others is lost now and then.
            if picks.flavour == 0 {
                mesh.run(millis);
            } else {
                mesh.intercept(|flight| flight.from == 0);
            }
        }
        mesh.run(1_500);
        keeps_its_own_house(&mesh);
    }

    #[test]
    fn no_bytes_panic_a_peer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(envelope) = codec::decode::<Envelope>(&bytes) {
            let (mesh, _) = busy_mesh();
            mesh.hand(Flight { from: 1, to: 0, envelope });
            mesh.run(300);
            keeps_its_own_house(&mesh);
        }
    }

    #[test]
    fn no_mutated_message_panics_a_peer(
        seed in prop::collection::vec((0..21_usize, 0..2_000_usize, any::<u8>(), 0..4_usize), 1..30),
    ) {
        let (mesh, pool) = busy_mesh();
        let samples: Vec<Vec<u8>> = one_of_each(&mesh, pool.objects[2])
            .into_iter()
            .map(|message| {
                let clock = Timestamp::from_wall(mesh.now(1).wall);
                codec::encode(&Envelope { clock, message }).unwrap()
            })
            .collect();
        for (which, place, byte, how) in seed {
            let mut bytes = samples[which].clone();
            let place = place % bytes.len();
            match how {
                0 => bytes[place] = byte,
                1 => bytes[place] ^= 1 << (byte % 8),
                2 => bytes.truncate(place),
                _ => bytes.insert(place, byte),
            }
            if let Ok(envelope) = codec::decode::<Envelope>(&bytes) {
                let end = Timestamp::from_u64(1 << 63);
                let absurd = matches!(&envelope.message, Message::Grants { grants, .. } if grants.iter().any(|grant| grant.floor > end));
                // A floor at the end of time has a test of its own.
                if !absurd {
                    mesh.hand(Flight { from: 1, to: 0, envelope });
                }
            }
        }
        mesh.run(1_500);
        keeps_its_own_house(&mesh);
    }
}
