//! Who shall belong next, as a leader's host decides it: the dead are replaced, newcomers catch up before they count.

use crate::port::Port;
use crate::world::{World, member};
use driftmesh_model::{Lsn, Micros};
use driftmesh_object_store::{MemberId, Membership};
use std::collections::BTreeSet;

/// A follower that its leader did not hear for this long counts as dead.
const DEAD_AFTER: Micros = Micros::from_millis(400);

/// The host's part in who belongs.
#[derive(Clone, Debug)]
pub(crate) struct Mending {
    /// How many members a group shall have, its leader among them.
    pub(crate) wanted: usize,
    /// How many peers there are.
    pub(crate) peers: u8,
}

impl Mending {
    pub(crate) const fn new(wanted: usize, peers: u8) -> Self {
        Self { wanted, peers }
    }

    /// Somebody who does not belong: a peer that is not running starts again, or one that belonged once is asked again.
    fn newcomer<P: Port>(&self, world: &mut World<P>, present: &Membership) -> Option<MemberId> {
        let idle: Vec<_> = world.live().into_iter().filter(|live| !present.contains(live)).collect();
        if world.rng.often(500)
            && let Some(again) = world.rng.pick(&idle)
        {
            return Some(*again);
        }
        let running: BTreeSet<_> = world.live().into_iter().map(|live| live.peer).collect();
        let free: Vec<u8> = (0..self.peers).filter(|peer| !running.contains(&member(*peer, 0).peer)).collect();
        let peer = *world.rng.pick(&free)?;
        let fresh = (0..).map(|incarnation| member(peer, incarnation)).find(|fresh| !world.has_lived(fresh))?;
        world.join(fresh);
        Some(fresh)
    }

    /// Proposes the next step towards a whole group, at one leader. Whether it proposed anything.
    pub(crate) fn mend<P: Port>(&self, world: &mut World<P>, leader: MemberId) -> bool {
        if !world.port(leader).may_change() {
            return false;
        }
        let present = world.port(leader).membership();
        let (mut chosen, caught_up) = chosen(world, leader, &present);
        chosen.truncate(self.wanted - 1);
        if chosen.len() + 1 < self.wanted {
            let Some(fresh) = self.newcomer(world, &present) else {
                return self.settle(world, leader, &chosen, &caught_up);
            };
            let mut target = present;
            target.learners.insert(fresh, false);
            return world.propose(leader, target);
        }
        self.settle(world, leader, &chosen, &caught_up)
    }

    fn settle<P: Port>(
        &self,
        world: &mut World<P>,
        leader: MemberId,
        chosen: &[MemberId],
        caught_up: &BTreeSet<MemberId>,
    ) -> bool {
        let present = world.port(leader).membership();
        let able: Vec<MemberId> = chosen.iter().filter(|member| caught_up.contains(member)).copied().collect();
        let mut count = (able.len() + 1).min(self.wanted);
        count -= usize::from(count.is_multiple_of(2));
        // Deaths never make a group smaller, but to an odd number.
        let all_answer = present.voters.iter().all(|voter| caught_up.contains(voter));
        if count + usize::from(present.voters.len().is_multiple_of(2)) < present.voters.len() && !all_answer {
            return false;
        }
        let voters: BTreeSet<_> = std::iter::once(leader).chain(able.iter().copied()).take(count).collect();
        let rest = chosen.iter().filter(|member| !voters.contains(member));
        let learners = rest.map(|learner| (*learner, count == 1 && caught_up.contains(learner))).collect();
        let target = Membership { voters, incoming: None, learners };
        target != present && world.propose(leader, target)
    }

    /// Proposes any change that leaves a group able to go on.
    pub(crate) fn meddle<P: Port>(&self, world: &mut World<P>, leader: MemberId) -> bool {
        if !world.port(leader).may_change() {
            return false;
        }
        let present = world.port(leader).membership();
        let (_, caught_up) = chosen(world, leader, &present);
        let mut target = Membership::default();
        for one in &caught_up {
            if world.rng.often(600) {
                target.voters.insert(*one);
            }
        }
        let single = target.voters.len() == 1;
        for other in present.members() {
            if !target.voters.contains(&other) && world.rng.often(600) {
                target.learners.insert(other, single && caught_up.contains(&other) && world.rng.often(500));
            }
        }
        !target.voters.is_empty() && target != present && world.propose(leader, target)
    }
}

/// Members that answer, voters first; and those who hold enough to count.
fn chosen<P: Port>(world: &World<P>, leader: MemberId, present: &Membership) -> (Vec<MemberId>, BTreeSet<MemberId>) {
    let port = world.port(leader);
    let nearly_all = Lsn::from_u64(port.watermark().as_u64().saturating_sub(50));
    let mut answering = Vec::new();
    let mut caught_up = BTreeSet::from([leader]);
    for other in present.members().into_iter().filter(|other| *other != leader) {
        let Some((held, silent)) = port.held_by(&other, world.now) else { continue };
        // The suite must not lose a majority by its own doing: a change is proposed with members that do live.
        if silent < DEAD_AFTER && world.is_live(&other) {
            answering.push(other);
            if held >= nearly_all && held > Lsn::ZERO && !port.needs_copy(&other) {
                caught_up.insert(other);
            }
        }
    }
    answering.sort_by_key(|other| !present.is_voter(other));
    (answering, caught_up)
}

/// Whether a group can go on without a member, as the newest stable membership and all that may follow it say.
pub(crate) fn safe_without<P: Port>(world: &World<P>, lost: MemberId) -> bool {
    let mut live = world.live();
    live.remove(&lost);
    let most = |voters: &BTreeSet<MemberId>| voters.intersection(&live).count() > voters.len() / 2;
    views(world).iter().all(|view| most(&view.voters) && view.incoming.as_ref().is_none_or(most))
}

/// Who belongs as the newest stable membership says, and as all do that may follow it.
fn views<P: Port>(world: &World<P>) -> Vec<Membership> {
    let since = world.watch.members().map_or(Lsn::ZERO, |(lsn, _)| lsn);
    let stable = world.watch.members().map(|(_, membership)| membership.clone());
    let founded = || Membership::alone(member(0, 0));
    let newer = world.views().into_iter().filter(|(at, _)| *at > since).map(|(_, membership)| membership);
    std::iter::once(stable.unwrap_or_else(founded)).chain(newer).collect()
}

/// Those whom a leader's group does not count on: their hosts drop them after a while.
pub(crate) fn strays<P: Port>(world: &World<P>, leader: MemberId) -> Vec<MemberId> {
    let port = world.port(leader);
    // Who was deposed and does not know it has no say.
    let newest = world.watch.members().is_some_and(|(lsn, _)| port.newest_membership().0 == lsn);
    if !newest || !port.may_change() {
        return Vec::new();
    }
    world.live().into_iter().filter(|live| !port.membership().contains(live)).collect()
}
