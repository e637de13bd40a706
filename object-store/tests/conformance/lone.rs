//! Stories of a single voter with learners: what is stable then, and how many copies there are.

use crate::network::Quality;
use crate::ours::Ours;
use crate::port::Port;
use crate::stories::{all_alike, millis};
use crate::world::{World, member};
use driftmesh_object_store::{MemberId, Membership, Settings};

/// A voter and a learner, which counts for what is stable if `in_sync`.
fn pair<P: Port>(in_sync: bool) -> (World<P>, MemberId, MemberId) {
    let (voter, learner) = (member(0, 0), member(1, 0));
    let mut world = World::<P>::new(7, Settings::default(), Quality::GOOD);
    world.found(voter);
    world.join(learner);
    let mut target = Membership::alone(voter);
    target.learners.insert(learner, false);
    assert!(world.propose(voter, target.clone()));
    assert!(world.run_until(millis(1_000), all_alike));
    if in_sync {
        target.learners.insert(learner, true);
        assert!(world.propose(voter, target));
        assert!(world.run_until(millis(1_000), |world| world.port(voter).may_change()));
    }
    (world, voter, learner)
}

#[test]
fn a_learner_holds_the_data_and_is_not_waited_for() {
    let (mut world, voter, learner) = pair::<Ours>(false);
    let lsn = world.append(voter, 100).unwrap();
    assert_eq!(world.port(voter).watermark(), lsn);
    assert!(world.run_until(millis(100), |world| world.port(learner).watermark() == lsn));
    world.crash(voter);
    world.run_for(millis(5_000));
    assert!(world.leader().is_none(), "a learner is not elected by itself");
    world.expect_sound();
}

#[test]
fn a_learner_of_the_sync_set_is_waited_for() {
    let (mut world, voter, learner) = pair::<Ours>(true);
    let before = world.port(voter).watermark();
    let lsn = world.append(voter, 100).unwrap();
    assert_eq!(world.port(voter).watermark(), before);
    assert!(world.run_until(millis(100), |world| world.port(voter).watermark() == lsn));
    assert_eq!(world.port(learner).tail(), lsn);
    assert_eq!(world.port(voter).copies(lsn), 2);
    world.expect_sound();
}

#[test]
fn a_silent_learner_leaves_the_sync_set_after_the_grace_and_may_come_back() {
    let (mut world, voter, learner) = pair::<Ours>(true);
    let grace = Settings::default().sync_grace;
    world.network.cut_both(voter, learner);
    let before = world.port(voter).watermark();
    let lsn = world.append(voter, 100).unwrap();
    world.run_for(millis(grace.as_millis() - 100));
    assert_eq!(world.port(voter).watermark(), before, "within the grace it is waited for");
    assert!(world.run_until(millis(300), |world| world.port(voter).watermark() >= lsn), "and then no more");
    assert_eq!(world.port(voter).copies(lsn), 1, "which is said");
    assert_eq!(world.port(voter).membership().learners.get(&learner), Some(&false));
    world.network.heal();
    assert!(world.run_until(millis(1_000), all_alike));
    let mut target = Membership::alone(voter);
    target.learners.insert(learner, true);
    assert!(world.propose(voter, target));
    assert!(world.run_until(millis(100), all_alike));
    assert_eq!(world.port(voter).copies(lsn), 2);
    world.expect_sound();
}

#[test]
fn a_group_of_two_that_was_left_by_its_founder_keeps_everything() {
    // What the heir has not been told to be stable must not be forgotten when it leads a group of one.
    let (mut world, founder, heir) = pair::<Ours>(true);
    assert!(world.propose(founder, Membership { voters: [heir].into(), ..Membership::default() }));
    let kept = world.values;
    world.append_many(founder, 20);
    assert!(world.run_until(millis(3_000), |world| world.leader() == Some(heir)));
    assert!(!world.port(founder).is_leading());
    let stable = world.watch.values();
    assert!((kept..kept + 20).all(|number| stable.contains(&number)), "the heir had all of it");
    let lsn = world.append(heir, 100).unwrap();
    assert_eq!(world.port(heir).watermark(), lsn);
    world.expect_sound();
}
