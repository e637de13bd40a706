//! R8: what a leader promises to others lies below the end of a window that its group has agreed on; commits need none.

use crate::harness::{Flight, Mesh, Rule, is_entries, is_groups, is_read_answer, ready, shifted, small, wire};
use driftmesh_model::{Epoch, Micros, Timestamp};
use driftmesh_object_store::Entry;
use driftmesh_peer::{Message, RareEvent};

/// The end of the last window in a peer's own journal.
fn last_window(mesh: &Mesh, at: usize) -> Timestamp {
    let ends = mesh.journal(at).into_iter().filter_map(|entry| {
        let Entry::Window { until } = entry else { return None };
        Some(until)
    });
    ends.max().unwrap_or_default()
}

/// The snapshots at which a peer has answered.
fn answered_by(mesh: &Mesh, at: usize) -> Vec<Timestamp> {
    let answers = mesh.sent(|flight: &Flight| flight.from == at && is_read_answer(flight));
    let snapshot = |flight: Flight| {
        let Message::ReadAnswers { snapshot, .. } = flight.envelope.message else { panic!("not an answer") };
        snapshot
    };
    answers.into_iter().map(snapshot).collect()
}

#[test]
fn a_group_of_one_needs_no_window_and_commits_never_do() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    assert_eq!(mesh.get(1, object), Some(1));
    assert_eq!(last_window(&mesh, 0), Timestamp::ZERO);
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    let before = last_window(&mesh, 0);
    for number in 0..50 {
        mesh.put(0, object, number);
        mesh.run(20);
    }
    assert_eq!(last_window(&mesh, 0), before);
}

#[test]
fn steady_readers_wait_for_no_window_but_the_first() {
    let mesh = Mesh::replicated(3, 2);
    mesh.rule(Rule::Delay(2_000), |flight| matches!(flight.message(), Message::Group { .. }));
    let object = mesh.create_known(0, 1);
    mesh.run(50);
    assert_eq!(mesh.get(1, object), Some(1));
    let mut waited = 0;
    for _ in 0..100 {
        mesh.run(10);
        let reader = mesh.begin(1, "reader");
        assert!(mesh.read(reader, object).is_pending());
        mesh.settle();
        waited += u64::from(mesh.read(reader, object).is_pending());
        mesh.end(reader);
    }
    assert_eq!(waited, 0);
    let windows = mesh.metrics(0).windows;
    assert!((8..=13).contains(&windows), "{windows} windows in a second");
}

#[test]
fn an_answer_waits_until_the_window_that_covers_it_is_stable() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    mesh.hold_entries(0);
    mesh.clear_log();
    let reader = mesh.begin(1, "reader");
    assert!(mesh.read(reader, object).is_pending());
    mesh.run(200);
    assert!(answered_by(&mesh, 0).is_empty() && mesh.metrics(0).windows > 0);
    mesh.release();
    mesh.settle();
    assert!(mesh.read(reader, object).is_ready());
}

#[test]
fn a_window_ends_soon_after_the_physical_clock_and_a_read_beyond_waits_for_that() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    mesh.clear_log();
    let far = Timestamp::from_wall(mesh.now(0).wall.plus(Micros::from_millis(450)));
    mesh.forge(1, 0, wire::read(object, far));
    // It follows the snapshot with its clock at once, so that no commit slips below it.
    assert!(mesh.put(0, object, 2).receipt.commit > far);
    mesh.run(240);
    assert!(answered_by(&mesh, 0).is_empty());
    assert!(mesh.rare(0, RareEvent::ReadTooEarly) > 0);
    mesh.run(20);
    assert_eq!(answered_by(&mesh, 0), [far]);
    let end = last_window(&mesh, 0).wall();
    assert!(end <= mesh.now(0).wall.plus(Micros::from_millis(200)));
}

#[test]
fn a_zombie_answers_below_its_stable_window_only_and_the_heir_moves_things_above_it() {
    // F7, F9: the destination's clock is slow, so that only the floor keeps its commits above what the zombie said.
    let mesh = Mesh::replicated_with(5, 2, |at, setup| setup.wall_offset_us = if at == 4 { -200_000 } else { 0 });
    let object = mesh.create_known(0, 1);
    assert_eq!(mesh.get(3, object), Some(1));
    let former = mesh.group_id(0);
    let inside = mesh.followers(former);
    // Nobody tells it either.
    mesh.rule(Rule::Drop, |flight| flight.to == 0 && is_groups(flight));
    for follower in &inside {
        mesh.cut(0, *follower);
    }
    // Readers keep it busy to the end: it extends its window as often as it is asked, and to no avail.
    mesh.clear_log();
    let outside: Vec<usize> = (1..5).filter(|at| !inside.contains(at)).collect();
    let heir = {
        let group = former;
        let mut at = 0;
        while !inside.iter().any(|at| mesh.leads(*at, group)) {
            mesh.forge(outside[at % 2], 0, wire::read(object, Timestamp::from_wall(mesh.now(0).wall)));
            mesh.run(5);
            at += 1;
            assert!(at < 400, "nobody is elected");
        }
        inside.iter().copied().find(|at| mesh.leads(*at, group)).unwrap()
    };
    let stable_window = mesh.look_at_group(heir, former, |group| group.window()).unwrap();
    let answered = answered_by(&mesh, 0);
    assert!(!answered.is_empty());
    assert!(answered.iter().all(|snapshot| *snapshot <= stable_window));
    // Who commits to it next does so above everything that was answered, whatever its clock says.
    let commit = mesh.put(4, object, 2).receipt.commit;
    assert!(commit > stable_window, "{commit} is not above {stable_window}");
    assert!(answered.iter().all(|snapshot| *snapshot < commit));
    // And the zombie still says nothing above.
    mesh.clear_log();
    for _ in 0..50 {
        mesh.forge(outside[0], 0, wire::read(object, Timestamp::from_wall(mesh.now(0).wall)));
        mesh.run(10);
    }
    assert!(mesh.leads(0, former));
    assert!(answered_by(&mesh, 0).is_empty());
    // Old snapshots it may answer, and rightly.
    mesh.forge(outside[0], 0, wire::read(object, shifted(stable_window, -1)));
    assert_eq!(answered_by(&mesh, 0).len(), 1);
}

#[test]
fn an_heir_with_a_slow_clock_moves_things_above_the_window_of_its_predecessor() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let former = mesh.group_id(0);
    mesh.forge(3, 0, wire::read(object, Timestamp::from_wall(mesh.now(0).wall)));
    mesh.run(100);
    let window = last_window(&mesh, 0);
    assert!(window > Timestamp::ZERO);
    mesh.kill(0);
    for at in 1..4 {
        mesh.set_wall_offset(at, -700_000);
    }
    let heir = mesh.leader_within(former, 2_000, 0);
    let floors = |mesh: &Mesh| {
        let departures = |group: &driftmesh_object_store::Group| {
            let floor = |(_, entry): (_, &Entry)| {
                let Entry::TransferOut { floor, .. } = entry else { return None };
                Some(*floor)
            };
            group.entries_from(driftmesh_model::Lsn::ZERO).filter_map(floor).collect::<Vec<_>>()
        };
        mesh.look_at_group(heir, former, departures).unwrap_or_default()
    };
    mesh.run_until("something has left", 1_000, || !floors(&mesh).is_empty());
    assert!(Timestamp::from_wall(mesh.now(heir).wall) < window, "its clock alone would not do");
    assert!(floors(&mesh).iter().all(|floor| *floor >= window), "{:?} are below {window}", floors(&mesh));
}

#[test]
fn an_heir_promises_nothing_before_its_own_first_entry_is_stable() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let former = mesh.group_id(0);
    mesh.kill(0);
    mesh.rule(Rule::Hold, is_entries);
    let heir = mesh.leader_within(former, 2_000, 0);
    mesh.clear_log();
    let reader = (1..5).find(|at| *at != heir).unwrap();
    mesh.forge(reader, heir, wire::read(object, Timestamp::from_wall(mesh.now(heir).wall)));
    mesh.run(200);
    assert!(answered_by(&mesh, heir).is_empty());
    mesh.release();
    mesh.run(100);
    assert!(!answered_by(&mesh, heir).is_empty());
    assert_eq!(mesh.get(reader, object), Some(1));
}

#[test]
fn what_a_group_of_one_answered_binds_the_heir_of_the_group_that_it_became() {
    let mesh = Mesh::with(4, |at, setup| {
        setup.config.replicas = 2;
        setup.config.domain = at as u64;
        // Nobody follows yet.
        setup.config.followed_max = 0;
    });
    let object = mesh.create_known(0, 1);
    let far = Timestamp::from_wall(mesh.now(0).wall.plus(Micros::from_millis(450)));
    mesh.clear_log();
    mesh.forge(1, 0, wire::read(object, far));
    assert_eq!(answered_by(&mesh, 0), [far], "alone it may answer whatever its clock can follow");
    // Then two others come who follow it, and it dies.
    for _ in 0..2 {
        mesh.join(|setup| {
            setup.config.domain = setup.config.incarnation.as_u64();
            setup.config.replicas = 2;
        });
    }
    mesh.run_until("it has followers", 1_000, || {
        mesh.look(0, |peer| peer.group().consensus().membership().voters.len()) == 3
    });
    mesh.run(100);
    let former = mesh.group_id(0);
    mesh.kill(0);
    let heir = mesh.leader_within(former, 2_000, 0);
    // Whatever the clocks say then, it moves nothing below this.
    let window = mesh.look_at_group(heir, former, |group| group.window()).unwrap();
    assert!(window >= far, "{window} is below what was answered at {far}");
    assert_eq!(mesh.get(1, object), Some(1));
}

#[test]
fn a_clock_that_jumps_ahead_carries_no_window_along() {
    // F7 c: ten minutes ahead, then it crashes: whoever takes over must not be ten minutes ahead too.
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    assert_eq!(mesh.get(1, object), Some(1));
    mesh.set_wall_offset(0, 600_000_000);
    for _ in 0..10 {
        mesh.run(50);
        assert_eq!(mesh.get(1, object), Some(1));
    }
    mesh.kill(0);
    mesh.run(1_000);
    for at in 1..4 {
        assert_eq!(mesh.get(at, object), Some(1));
        mesh.add(at, object, 0);
        assert_eq!(mesh.rare(at, RareEvent::ClockRefused), 0);
    }
    let commit = mesh.put(1, object, 2).receipt.commit;
    assert!(commit < Timestamp::from_wall(mesh.now(1).wall.plus(Micros::from_millis(1_000))));
}

#[test]
fn followers_that_pause_for_900_ms_stop_no_commit() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 0);
    mesh.run(100);
    mesh.pause(1);
    mesh.pause(2);
    for number in 1..=45 {
        let writer = mesh.begin(0, "writer");
        ready(mesh.intend(writer, &[object])).unwrap();
        assert!(ready(mesh.try_commit(writer, &[(object, Some(small(number)))])).is_ok());
        mesh.run(20);
    }
    assert_eq!(mesh.metrics(0).held_commits, 0);
    mesh.resume(1);
    mesh.resume(2);
    mesh.run(200);
    assert_eq!(mesh.metrics(0).deposed, 0, "they heard it again before they stood for election");
    assert_eq!(mesh.watermark(0), mesh.tail(0));
    assert_eq!(mesh.get(1, object), Some(45));
}

#[test]
fn without_a_majority_windows_do_not_pile_up() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    for follower in [1, 2] {
        mesh.pause(follower);
    }
    mesh.run(100);
    let before = mesh.tail(0).as_u64();
    for _ in 0..3_000 {
        let reader = mesh.begin_snapshot(0);
        assert!(mesh.read(reader, object).is_pending(), "nobody agreed to a window");
        mesh.run(100);
        mesh.end(reader);
    }
    // R24.
    assert!(mesh.tail(0).as_u64() - before <= 1_100, "{} windows", mesh.tail(0).as_u64() - before);
    // Nobody can be answered before there is a majority again: a read that came does not keep this peer busy meanwhile.
    let early = mesh.rare(0, RareEvent::ReadTooEarly);
    let snapshot = Timestamp::from_wall(mesh.now(0).wall);
    mesh.forge(
        1,
        0,
        wire::Wire::Read { snapshot, objects: vec![wire::WireRead { object, epoch: Epoch::ZERO }] }.message(),
    );
    mesh.run(20);
    assert_eq!(mesh.rare(0, RareEvent::ReadTooEarly), early + 1);
}
