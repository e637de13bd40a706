//! What operators do to a group that lost its majority: give it up (`forget`), or found it anew from what is left of it
//! (`promote`). Both begin with a survey of what everybody in reach holds of it and has from it.
//!
//! Nothing here happens by itself, and nothing is merged: one side goes on, what the other side has beyond that is
//! reported lost. See `docs/operations.md`, "Operators' commands".

use crate::Peer;
use crate::beyond::Beyond;
use crate::message::{Ended, GroupRecord};
use crate::surveying::{Answers, Held, SURVEYS_MAX, Surveyed};
use driftmesh_model::{Generation, GroupId, Now, PeerId, Term, TxnId};
use driftmesh_object_store::{Group, MemberId, Membership};
use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

/// Why an operator's command about a group is refused. Nothing has changed then, unless it fails in its second round
/// (see [`Peer::promote`]).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The peer knows no such group.
    #[error("no group {group} is known here; `driftmesh status` lists those that nobody leads")]
    Unknown {
        /// What was asked for.
        group: GroupId,
    },
    /// The group has ended already.
    #[error("group {group} has ended already{}", if *.lost { ": it was given up" } else { ": all it owned was moved before" })]
    Ended {
        /// The group.
        group: GroupId,
        /// Whether it was given up.
        lost: bool,
    },
    /// The group is led.
    #[error("group {group} is led by {leader}, who answers: nothing is wrong with it")]
    HasLeader {
        /// The group.
        group: GroupId,
        /// Who leads it.
        leader: PeerId,
    },
    /// A majority is in reach.
    #[error("the majority of group {group} is in reach and elects a leader by itself; wait for a second")]
    HasMajority {
        /// The group.
        group: GroupId,
    },
    /// Somebody in reach holds a copy.
    #[error(
        "peer {member} holds a copy of group {group}: `promote` saves what is in it; --force gives it up all the same"
    )]
    HasMember {
        /// The group.
        group: GroupId,
        /// One that holds a copy.
        member: PeerId,
    },
    /// Nobody in reach holds anything of it.
    #[error("nobody in reach holds a copy of group {group}; start its members again, or give it up with `forget`")]
    NoMember {
        /// The group.
        group: GroupId,
    },
    /// Another member holds more.
    #[error("peer {member} holds more of group {group} than this one; give the command there")]
    AskPeer {
        /// The group.
        group: GroupId,
        /// Who holds most.
        member: PeerId,
    },
    /// This peer's copy has stopped.
    #[error("this peer's copy of group {group} cannot be used: {why}")]
    Halted {
        /// The group.
        group: GroupId,
        /// Why.
        why: String,
    },
    /// Something beyond the end of what is left has reached others.
    #[error("{0}")]
    Beyond(Box<Beyond>),
    /// One that is in reach did not answer.
    #[error("peer {member} is in reach and did not say in time what it knows of group {group}; try again")]
    Unanswered {
        /// The group.
        group: GroupId,
        /// Who did not answer.
        member: PeerId,
    },
    /// Too many of these are under way.
    #[error("{SURVEYS_MAX} such commands are under way at this peer; try again in a second")]
    Busy,
}

/// A group that was founded anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promoted {
    /// Its generation.
    pub generation: Generation,
    /// The objects that it owns.
    pub owned: usize,
    /// Those who hold a copy, this peer included.
    pub members: usize,
    /// Other groups that nobody in reach leads: whatever returns of them waits for an operator too, so that nothing that
    /// went there from this one's former generation can come back.
    pub fenced: Vec<GroupId>,
    /// What was accepted as lost, if anything.
    pub beyond: Option<Beyond>,
}

impl Peer {
    /// Gives up a group whose members are all gone: its objects and receipts are lost, and nobody waits for it any more.
    /// Whoever belonged to it and comes back begins anew. May be called again until it answers; `waiter` is woken.
    ///
    /// With `force` also one of which somebody in reach holds a copy, or that is led.
    ///
    /// # Errors
    /// `Unknown`, `Ended`, `HasLeader`, `HasMember`, `Unanswered`, `Busy`: nothing changes then.
    pub fn forget_group(
        &mut self,
        now: Now,
        waiter: TxnId,
        group: GroupId,
        force: bool,
    ) -> Poll<Result<(), OperatorError>> {
        self.now = now;
        let Surveyed { answers, unanswered, .. } = match self.survey(waiter, group) {
            Poll::Ready(Ok(surveyed)) => surveyed,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(ended) = self.groups.ended(group) {
            return Poll::Ready(Err(OperatorError::Ended { group, lost: ended.lost }));
        }
        if !force {
            let mut held = holders(group, &answers);
            if let Some((leader, _)) = held.clone().find(|(_, held)| held.leads) {
                return Poll::Ready(Err(OperatorError::HasLeader { group, leader }));
            }
            if let Some((member, _)) = held.next() {
                return Poll::Ready(Err(OperatorError::HasMember { group, member }));
            }
            if let Some(member) = unanswered {
                return Poll::Ready(Err(OperatorError::Unanswered { group, member }));
            }
        }
        let ended = Some(Ended { lost: true, ..Ended::default() });
        let (generation, term) = (Generation::ZERO, Term::ZERO);
        self.tell_all_about(&GroupRecord { group, generation, term, leader: None, ended });
        Poll::Ready(Ok(()))
    }

    /// Founds a group anew, as its next generation, from what this peer holds of it: for one that has lost its majority.
    /// Members of the former generation begin anew when they hear of it. May be called again until it answers; `waiter` is
    /// woken.
    ///
    /// First everybody in reach is asked. If it can be, all of them are told that the former generation is over: from then
    /// on they take nothing from it, and what they say once more is all that it ever gave them. Only then it is done.
    ///
    /// # Errors
    /// Why it cannot be, or must be asked of another peer. `Beyond`, without `accept_loss`: others have something of it that
    /// is not left. Nothing changes then; but where the second round fails, what was to be ended is over, for some or for all, and
    /// the command has to be given again.
    pub fn promote(
        &mut self,
        now: Now,
        waiter: TxnId,
        group: GroupId,
        accept_loss: bool,
    ) -> Poll<Result<Promoted, OperatorError>> {
        self.now = now;
        let surveyed = match self.survey(waiter, group) {
            Poll::Ready(Ok(surveyed)) => surveyed,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(member) = surveyed.unanswered {
            return Poll::Ready(Err(OperatorError::Unanswered { group, member }));
        }
        // What is not stable counts as well: it will be, if the group goes on from here.
        self.with_group(group, |held, _| held.apply_all());
        let decided = self.may_promote(group, &surveyed.answers, accept_loss);
        if decided.is_err() || surveyed.fences.is_empty() {
            self.with_group(group, |held, _| held.give_up_tail());
        }
        let (learners, beyond) = match decided {
            Ok(decided) => decided,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if surveyed.fences.is_empty() {
            let fences = self.fences(group, &surveyed.answers);
            let mut asked: BTreeSet<PeerId> = surveyed.answers.into_keys().collect();
            asked.remove(&self.config.peer);
            self.begin_survey(waiter, group, asked, fences);
            return Poll::Pending;
        }
        Poll::Ready(self.refound(group, &surveyed, learners, beyond))
    }

    /// What must be over before a group is founded anew: all that it was, and the other groups that nobody in reach leads. What
    /// these got from it would be there twice if they came back as they were.
    fn fences(&self, id: GroupId, answers: &Answers) -> Vec<GroupRecord> {
        let known = answers.values().map(|standing| standing.generation);
        // R2: above all that any object of it was ever in, so that what is said of it from now on climbs.
        let carried = self.group_of(id).map(Group::highest_generation);
        let generation = known.chain(carried).max().unwrap_or_default().next();
        let over = |group| GroupRecord { group, generation, term: Term::ZERO, leader: None, ended: None };
        std::iter::once(id).chain(self.unled(id, answers)).map(over).collect()
    }

    fn refound(
        &mut self,
        id: GroupId,
        surveyed: &Surveyed,
        learners: BTreeMap<MemberId, bool>,
        beyond: Beyond,
    ) -> Result<Promoted, OperatorError> {
        let membership = Membership { learners, ..Membership::alone(self.me()) };
        let members = membership.members().len();
        let generation = surveyed.fences.first().map(|fence| fence.generation).unwrap_or_default();
        let former = self.group_of(id).map(|group| group.consensus().held_generation()).unwrap_or_default();
        self.with_group(id, |group, now| group.refound(now, generation, membership));
        self.redo_beyond(id, former, &surveyed.answers);
        let Some(group) = self.led(id) else { return Err(OperatorError::NoMember { group: id }) };
        let (generation, owned) = (group.generation(), group.owned_count());
        let fenced = surveyed.fences.iter().skip(1).map(|fence| fence.group).collect();
        Ok(Promoted { generation, owned, members, fenced, beyond: (!beyond.is_nothing()).then_some(beyond) })
    }

    /// Whether this peer is the one to found the group anew; who else in reach belongs to it, and what is not left of it.
    fn may_promote(
        &self,
        id: GroupId,
        answers: &Answers,
        accept_loss: bool,
    ) -> Result<(BTreeMap<MemberId, bool>, Beyond), OperatorError> {
        if let Some(ended) = self.groups.ended(id) {
            return Err(OperatorError::Ended { group: id, lost: ended.lost });
        }
        let has_majority = self.has_majority(id, answers);
        let leader = holders(id, answers).find(|(_, held)| held.leads).map(|(peer, _)| peer);
        if let Some(leader) = leader.filter(|_| has_majority) {
            return Err(OperatorError::HasLeader { group: id, leader });
        }
        let Some((best, most)) = self.best_holder(id, answers) else {
            return Err(OperatorError::NoMember { group: id });
        };
        let unled = self.unled(id, answers);
        if let Some(group) = std::iter::once(id).chain(unled).find(|group| self.has_majority(*group, answers)) {
            return Err(OperatorError::HasMajority { group });
        }
        if best != self.config.peer {
            return Err(OperatorError::AskPeer { group: id, member: best });
        }
        let Some(group) = self.group_of(id) else { return Err(OperatorError::NoMember { group: id }) };
        if let Some(why) = group.halted() {
            return Err(OperatorError::Halted { group: id, why: why.to_owned() });
        }
        let beyond = self.beyond(group, answers);
        if beyond.may_duplicate() || (!accept_loss && !beyond.is_nothing()) {
            return Err(OperatorError::Beyond(Box::new(beyond)));
        }
        let mut others = most.membership.members();
        others.remove(&self.me());
        let others = others.into_iter().filter(|member| self.is_in_reach(id, member, answers));
        // Stable from now on is what they hold too; one that is silent leaves the sync set by itself.
        Ok((others.map(|member| (member, true)).collect(), beyond))
    }

    /// Raft 5.4.1: whose last entry is of the highest term, and the longest journal of these, lacks nothing that is stable
    /// and in reach.
    fn best_holder<'a>(&self, id: GroupId, answers: &'a Answers) -> Option<(PeerId, &'a Held)> {
        let rank = |held: &Held| (held.generation, held.last_term, held.tail);
        holders(id, answers).max_by_key(|(peer, held)| (rank(held), *peer == self.config.peer))
    }

    fn is_in_reach(&self, id: GroupId, member: &MemberId, answers: &Answers) -> bool {
        let same = *member == self.me()
            || self.members.get(&member.peer).is_some_and(|known| known.incarnation == member.incarnation);
        same && answers.get(&member.peer).is_some_and(|standing| standing.holds.contains_key(&id))
    }

    /// Whether so many of a group are in reach that they elect a leader by themselves, unless that was ended by an operator.
    pub(crate) fn has_majority(&self, id: GroupId, answers: &Answers) -> bool {
        self.best_holder(id, answers).is_some_and(|(_, most)| {
            !self.is_over(id, most.generation)
                && most
                    .membership
                    .is_majority(|member| self.is_in_reach(id, member, answers) && !is_halted(id, member.peer, answers))
        })
    }
}

/// Whether a member's copy of a group has stopped for good.
fn is_halted(id: GroupId, peer: PeerId, answers: &Answers) -> bool {
    answers.get(&peer).and_then(|standing| standing.holds.get(&id)).is_some_and(|held| held.halted)
}

/// Who holds something of a group.
fn holders(id: GroupId, answers: &Answers) -> impl Iterator<Item = (PeerId, &Held)> + Clone {
    answers.iter().filter_map(move |(peer, standing)| Some((*peer, standing.holds.get(&id)?)))
}
