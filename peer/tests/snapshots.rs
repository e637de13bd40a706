//! R16 and R17: what a snapshot sees, across transfers, slow clocks and pruning.

use crate::harness::{Mesh, Rule, Txn, is_grant, is_heartbeat, large, ready, small, wire};
use driftmesh_model::{ObjectId, Timestamp};
use driftmesh_object_store::Entry;
use driftmesh_peer::{Cause, RareEvent, StepError};

/// A mesh whose peers' wall clocks are off by so much, ms.
fn mesh_with_clocks(offsets_ms: &[i64]) -> Mesh {
    Mesh::with(offsets_ms.len(), |at, setup| setup.wall_offset_us = offsets_ms[at] * 1_000)
}

fn is_too_old(result: &Result<Option<u64>, StepError>) -> bool {
    matches!(result, Err(StepError::Failed(Cause::SnapshotTooOld { .. })))
}

/// The floor of the last grant that a peer has journalled.
fn last_floor(mesh: &Mesh, at: usize) -> Timestamp {
    let mut last = Timestamp::ZERO;
    for entry in mesh.journal(at) {
        if let Entry::TransferOut { floor, .. } = entry {
            last = floor;
        }
    }
    last
}

fn version_bytes(mesh: &Mesh, at: usize) -> usize {
    let now = mesh.now(at);
    mesh.look(at, |peer| peer.status(now).version_bytes)
}

#[test]
fn a_read_raises_a_slow_owners_clock_so_that_no_later_commit_slips_below_it() {
    let mesh = mesh_with_clocks(&[-400, 0]);
    let objects = mesh.create_values(0, &[small(1), small(1)]);
    mesh.run(20);
    let reader = mesh.begin_snapshot(1);
    let snapshot = mesh.snapshot(reader);
    assert_eq!(mesh.read_wait(reader, objects[0]), Ok(Some(1)));
    // Written together after the read, by the owner whose wall clock says that the snapshot is still to come.
    let written = mesh.put_values(0, &objects.iter().map(|object| (*object, Some(small(2)))).collect::<Vec<_>>());
    assert!(written.receipt.commit > snapshot);
    assert_eq!(mesh.read_wait(reader, objects[1]), Ok(Some(1)));
    let again = mesh.begin(1, "again");
    assert!(mesh.snapshot(again) >= snapshot);
    assert_eq!(mesh.read_wait(reader, objects[0]), Ok(Some(1)));
}

#[test]
fn the_first_commit_after_a_transfer_to_a_slow_clock_lies_above_the_floor() {
    for behind in [-300, -10_000] {
        let mesh = mesh_with_clocks(&[0, behind, 0]);
        let objects = mesh.create_values(0, &[small(1), small(1)]);
        mesh.run(20);
        let reader = mesh.begin_snapshot(2);
        let snapshot = mesh.snapshot(reader);
        assert_eq!(mesh.read_wait(reader, objects[0]), Ok(Some(1)));
        let txn = mesh.begin(1, "slow clock");
        mesh.intend_wait(txn, &objects).unwrap();
        let committed = mesh.commit(txn, &objects.iter().map(|object| (*object, Some(small(2)))).collect::<Vec<_>>());
        let floor = last_floor(&mesh, 0);
        assert!(floor >= snapshot && committed.unwrap().receipt.commit > floor);
        assert_eq!(mesh.newest(objects[1]), Some(2));
        // The same snapshot, asked of the new owner now, still sees neither write; a peer whose clock is out of all
        // bounds refuses it rather than guess (R18).
        let seen = mesh.read_wait(reader, objects[1]);
        if behind > -500 {
            assert_eq!(seen, Ok(Some(1)));
        } else {
            assert!(matches!(seen, Err(StepError::Failed(Cause::ClockAhead { .. }))), "{seen:?}");
        }
    }
}

#[test]
fn a_snapshot_at_or_below_the_floor_is_answered_while_the_object_is_in_transit() {
    let mesh = mesh_with_clocks(&[0, 0, -50]);
    let object = mesh.create_known(0, 1);
    let before = mesh.begin_snapshot(2);
    mesh.rule(Rule::Hold, is_grant);
    mesh.run(1);
    let txn = mesh.begin(1, "fetch");
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.settle();
    let floor = last_floor(&mesh, 0);
    mesh.run(1);
    let above = mesh.begin_snapshot(1);
    assert!(mesh.snapshot(before) <= floor && mesh.snapshot(above) > floor);
    assert!(mesh.read(before, object).is_pending() && mesh.read(above, object).is_pending());
    mesh.settle();
    assert_eq!(ready(mesh.read(before, object)).unwrap().value, Some(small(1)));
    assert_eq!(mesh.rare(0, RareEvent::ReadInTransit), 1);
    // At the floor itself too: the slow peer's clock is what it was told last.
    let at_floor = mesh.begin_snapshot(0);
    assert!(mesh.snapshot(at_floor) > floor);
    assert!(mesh.read(at_floor, object).is_pending());
    mesh.run(20);
    assert!(mesh.read(above, object).is_pending() && mesh.read(at_floor, object).is_pending());
    // Above the floor the new owner answers, and what it has committed meanwhile is not missed.
    mesh.release();
    mesh.intend_wait(txn, &[object]).unwrap();
    assert_eq!(mesh.read_wait(above, object), Ok(Some(1)));
    mesh.commit_amount(txn, object, 2).unwrap();
    assert_eq!(mesh.read_wait(at_floor, object), Ok(Some(1)));
    assert_eq!(mesh.newest(object), Some(2));
}

#[test]
fn the_floor_itself_is_answered_in_transit_and_the_next_moment_is_not() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 1);
    mesh.rule(Rule::Hold, is_grant);
    let txn = mesh.begin(1, "fetch");
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.settle();
    let floor = last_floor(&mesh, 0);
    for (snapshot, answered) in [(floor, true), (floor.next(), false)] {
        mesh.clear_log();
        mesh.forge(2, 0, wire::read(object, snapshot));
        assert_eq!(mesh.in_flight(crate::harness::is_read_answer).len(), usize::from(answered));
        mesh.settle();
    }
}

#[test]
fn a_reader_below_the_first_owners_mark_is_told_so_by_every_later_owner() {
    let mesh = Mesh::with(3, |at, setup| {
        if at == 0 {
            setup.config.version_bytes_max = 0;
        }
    });
    let object = mesh.create_known(0, 1);
    let old: Vec<Txn> = (0..4).map(|_| mesh.begin(2, "old reader")).collect();
    mesh.run(1);
    mesh.put(0, object, 2);
    // Long enough for a round of pruning.
    mesh.run(120);
    let between = mesh.begin(2, "reader above the mark");
    mesh.run(1);
    assert!(is_too_old(&mesh.read_wait(old[0], object)));
    mesh.put(1, object, 3);
    assert_eq!(mesh.owner_of(object), 1);
    assert!(is_too_old(&mesh.read_wait(old[1], object)));
    mesh.put(0, object, 4);
    mesh.run(120);
    mesh.put(1, object, 5);
    assert!(is_too_old(&mesh.read_wait(old[2], object)));
    assert!(is_too_old(&mesh.read_wait(between, object)));
    mesh.put(2, object, 6);
    assert_eq!(mesh.owner_of(object), 2);
    assert!(is_too_old(&mesh.read_wait(old[3], object)));
    // A retry takes a new snapshot, and sees what is there.
    mesh.retry_wait(old[3]).unwrap();
    assert_eq!(mesh.read_wait(old[3], object), Ok(Some(6)));
}

#[test]
fn a_version_above_the_mark_travels_with_the_object() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 1);
    let mut readers = Vec::new();
    for (at, amount) in [(0, 2), (1, 3), (0, 4), (1, 5), (2, 6)] {
        readers.push(mesh.begin_snapshot(2));
        mesh.run(1);
        mesh.put(at, object, amount);
        mesh.run(1);
    }
    for (index, reader) in readers.into_iter().enumerate() {
        assert_eq!(mesh.read_wait(reader, object), Ok(Some(index as u64 + 1)));
    }
}

/// An object whose first version is superseded 10 ms after two snapshots of it were taken at the second peer.
fn superseded(mesh: &Mesh) -> (ObjectId, Txn, Txn) {
    let object = mesh.create_known(0, 1);
    let readers = (mesh.begin_snapshot(1), mesh.begin_snapshot(1));
    mesh.run(10);
    mesh.put(0, object, 2);
    (object, readers.0, readers.1)
}

#[test]
fn superseded_versions_are_kept_five_seconds_and_then_go() {
    let mesh = Mesh::new(2);
    // Nobody tells the owner of the open snapshots.
    mesh.rule(Rule::Drop, |flight| is_heartbeat(flight) && flight.from == 1);
    let (object, early, late) = superseded(&mesh);
    mesh.run(4_900);
    assert_eq!(mesh.read_wait(early, object), Ok(Some(1)));
    assert!(version_bytes(&mesh, 0) > 0);
    mesh.run(300);
    assert!(is_too_old(&mesh.read_wait(late, object)));
    assert_eq!(version_bytes(&mesh, 0), 0);
    assert_eq!(mesh.get(1, object), Some(2));
}

#[test]
fn versions_are_kept_up_to_a_minute_for_an_open_snapshot_that_a_member_reports() {
    let mesh = Mesh::new(2);
    let (object, early, late) = superseded(&mesh);
    mesh.run(30_000);
    assert_eq!(mesh.read_wait(early, object), Ok(Some(1)));
    mesh.run(29_900);
    assert_eq!(mesh.read_wait(late, object), Ok(Some(1)));
    assert!(version_bytes(&mesh, 0) > 0);
    // They stay open beyond the minute; nothing is kept for them any more.
    mesh.run(400);
    assert_eq!(version_bytes(&mesh, 0), 0);
    assert_eq!(mesh.get(1, object), Some(2));
}

#[test]
fn versions_go_once_the_snapshot_that_needed_them_is_closed() {
    let mesh = Mesh::new(2);
    let (_, first, second) = superseded(&mesh);
    mesh.run(10_000);
    mesh.end(first);
    mesh.run(300);
    assert!(version_bytes(&mesh, 0) > 0);
    mesh.end(second);
    // Members that have nothing to do with each other hear one heartbeat of ten.
    mesh.run(1_300);
    assert_eq!(version_bytes(&mesh, 0), 0);
}

#[test]
fn a_member_that_is_not_heard_any_more_keeps_no_versions_alive() {
    let mesh = Mesh::new(2);
    let (_, _, _) = superseded(&mesh);
    mesh.run(6_000);
    assert!(version_bytes(&mesh, 0) > 0);
    mesh.cut(0, 1);
    mesh.run(4_300);
    assert_eq!(version_bytes(&mesh, 0), 0);
}

#[test]
fn a_byte_budget_prunes_earlier_oldest_first() {
    const BUDGET: usize = 10_000;
    let mesh = Mesh::with(2, |_, setup| setup.config.version_bytes_max = BUDGET);
    let objects = mesh.create_values(0, &[large(0), large(0)]);
    mesh.run(120);
    let reader = mesh.begin_snapshot(0);
    let recent = {
        for amount in 1..=100 {
            mesh.run(1);
            mesh.put_values(0, &[(objects[0], Some(large(amount)))]);
            // The version that exceeds it may stay until the next write.
            let most = BUDGET + 2 * large(0).len();
            assert!(version_bytes(&mesh, 0) <= most, "{}", version_bytes(&mesh, 0));
        }
        mesh.begin_snapshot(0)
    };
    mesh.run(1);
    mesh.put_values(0, &[(objects[0], Some(large(101)))]);
    // The open snapshot's versions went; what was not superseded, and what was superseded lately, is there.
    assert!(is_too_old(&mesh.read_wait(reader, objects[0])));
    assert_eq!(mesh.read_wait(recent, objects[0]), Ok(Some(100)));
    assert_eq!(mesh.read_wait(recent, objects[1]), Ok(Some(0)));
    assert!(version_bytes(&mesh, 0) > BUDGET / 2);
}

#[test]
fn versions_that_travelled_are_pruned_in_time_too() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    for amount in 2..10 {
        mesh.put((amount % 2) as usize, object, amount);
        mesh.run(10);
    }
    let owner = mesh.owner_of(object);
    assert!(version_bytes(&mesh, owner) > 0);
    mesh.run(5_300);
    assert_eq!((version_bytes(&mesh, 0), version_bytes(&mesh, 1)), (0, 0));
    let kept = mesh.look(owner, |peer| peer.group().owned(object).map_or(0, |stored| stored.chain.superseded()));
    assert_eq!((kept, mesh.newest(object)), (0, Some(9)));
}

/// What a snapshot can need goes along, and not all that was superseded in the last seconds.
#[test]
fn an_object_that_moves_leaves_behind_what_no_snapshot_needs() {
    for is_read in [false, true] {
        let mesh = Mesh::new(3);
        let object = mesh.create_known(0, 0);
        mesh.run(1_000);
        let reader = is_read.then(|| mesh.begin_snapshot(2));
        for amount in 1..=100 {
            mesh.run(40);
            mesh.put(0, object, amount);
        }
        let kept = |at| mesh.look(at, |peer| peer.group().owned(object).map_or(0, |stored| stored.chain.superseded()));
        assert_eq!(kept(0), 100);
        mesh.run(1);
        // As new as it can be, and nobody has reported it.
        let late = mesh.begin_snapshot(2);
        mesh.run(1);
        mesh.put(0, object, 101);
        mesh.add(1, object, 1);
        let most = if is_read { 102 } else { 40 };
        assert!((1..=most).contains(&kept(1)) && (kept(1) > 100) == is_read, "{}", kept(1));
        assert_eq!(mesh.read_wait(late, object), Ok(Some(100)));
        if let Some(reader) = reader {
            assert_eq!(mesh.read_wait(reader, object), Ok(Some(0)));
        }
    }
}

#[test]
fn an_object_created_after_the_snapshot_is_created_later_and_the_retry_sees_it() {
    for reader_at in [0, 1] {
        let mesh = Mesh::new(2);
        let early = mesh.begin(reader_at, "early");
        mesh.run(1);
        let object = mesh.create_known(0, 7);
        let failed = mesh.read_wait(early, object);
        assert_eq!(failed, Err(StepError::Failed(Cause::CreatedLater { object })));
        mesh.retry_wait(early).unwrap();
        assert_eq!(mesh.read_wait(early, object), Ok(Some(7)));
        assert_eq!(mesh.rare(reader_at, RareEvent::CreatedLater), 1);
        // A lock of it moves the snapshot forward instead, while nothing was read.
        let other = mesh.begin(reader_at, "other");
        mesh.run(1);
        let newer = mesh.create_known(0, 8);
        mesh.intend_wait(other, &[newer]).unwrap();
        assert_eq!(mesh.read_wait(other, newer), Ok(Some(8)));
    }
}

#[test]
fn created_later_is_said_across_a_transfer_too() {
    let mesh = Mesh::new(3);
    let early = mesh.begin(2, "early");
    mesh.run(1);
    let object = mesh.create_known(0, 7);
    mesh.put(1, object, 8);
    assert_eq!(mesh.owner_of(object), 1);
    let failed = mesh.read_wait(early, object);
    assert_eq!(failed, Err(StepError::Failed(Cause::CreatedLater { object })));
    mesh.retry_wait(early).unwrap();
    assert_eq!(mesh.read_wait(early, object), Ok(Some(8)));
}

#[test]
fn a_deletion_is_a_version_which_older_snapshots_do_not_see() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 7);
    let readers: Vec<Txn> = (0..3).map(|at| mesh.begin_snapshot(at)).collect();
    mesh.run(1);
    let deletion = mesh.put_values(0, &[(object, None)]);
    mesh.run(1);
    assert_eq!(mesh.get(1, object), None);
    assert_eq!(mesh.read_wait(readers[0], object), Ok(Some(7)));
    // The tombstone moves like any object, with its history.
    let mover = mesh.begin(1, "mover");
    mesh.intend_wait(mover, &[object]).unwrap();
    assert_eq!(mesh.owner_of(object), 1);
    assert_eq!(mesh.read_wait(mover, object), Ok(None));
    assert_eq!(mesh.read_wait(readers[1], object), Ok(Some(7)));
    assert_eq!(mesh.read_wait(readers[2], object), Ok(Some(7)));
    let after = mesh.begin_snapshot(2);
    assert!(mesh.snapshot(after) >= deletion.receipt.commit);
    assert_eq!(mesh.read_wait(after, object), Ok(None));
}

#[test]
fn a_commit_is_seen_whole_or_not_at_all_wherever_its_objects_went() {
    let mesh = Mesh::new(3);
    let objects = mesh.create_values(0, &[small(0), small(0)]);
    mesh.run(20);
    let mut readers = Vec::new();
    for amount in 1..=6 {
        readers.push(mesh.begin_snapshot(2));
        mesh.run(1);
        let at = (amount % 3) as usize;
        mesh.put_values(at, &objects.iter().map(|object| (*object, Some(small(amount)))).collect::<Vec<_>>());
        mesh.run(1);
        // One of them goes its own way.
        mesh.intend_wait(mesh.begin((at + 1) % 3, "away"), &[objects[1]]).unwrap_or_else(|error| panic!("{error}"));
    }
    for (index, reader) in readers.into_iter().enumerate() {
        for object in &objects {
            assert_eq!(mesh.read_wait(reader, *object), Ok(Some(index as u64)));
        }
    }
}

#[test]
fn a_short_break_of_a_connection_costs_no_snapshot() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 1);
    let snapshot = mesh.begin_snapshot(1);
    for amount in 0..80 {
        mesh.put(0, object, amount);
        mesh.run(100);
    }
    mesh.disconnect(0, 1);
    mesh.run(10);
    mesh.connect(0, 1);
    mesh.run(500);
    assert_eq!(mesh.read_wait(snapshot, object), Ok(Some(1)));
}

#[test]
fn a_snapshot_of_a_group_that_cannot_promise_anything_is_told_so() {
    // R14: the peer leads, and nobody takes its entries: no window of it becomes stable.
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(200);
    mesh.hold_entries(0);
    let reader = mesh.begin_snapshot(0);
    let begun = mesh.mono_us();
    let seen = mesh.read_wait(reader, object);
    assert!(matches!(seen, Err(StepError::Failed(Cause::Unavailable { .. }))), "{seen:?}");
    assert!(mesh.mono_us() - begun < 1_500_000);
    mesh.release();
    mesh.step(0, |peer, now| peer.reopen_snapshot(now, reader.id));
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(1)), "it reads on at the same timestamp");
}

#[test]
fn a_read_of_what_is_on_its_way_to_a_group_that_cannot_take_it_ends() {
    // R14: the sender is asked again and again, and says the same each time.
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(200);
    mesh.hold_entries(1);
    let taker = mesh.begin_for(1, "takes", 60_000);
    assert!(mesh.intend(taker, &[object]).is_pending());
    mesh.run(100);
    assert!(mesh.intend(taker, &[object]).is_ready());
    let reader = mesh.begin_snapshot(2);
    let begun = mesh.mono_us();
    let seen = mesh.read_wait(reader, object);
    assert!(matches!(seen, Err(StepError::Failed(Cause::Unavailable { .. }))), "{seen:?}");
    assert!(mesh.mono_us() - begun < 2_500_000, "{}", mesh.mono_us() - begun);
}
