//! What operators do to a group that lost its majority: give it up (`forget`), or found it anew from what is left of it
//! (`promote`). Both begin with a survey: everybody in reach is asked what it holds of the group and has from it.
//!
//! Nothing here happens by itself, and nothing is merged: one side goes on, what the other side has beyond that is
//! reported lost. See `docs/operations.md`, "Operators' commands".

use crate::Peer;
use crate::message::{Ended, GroupRecord, Message};
use crate::timers::Timer;
use driftmesh_model::limits::GRANT_WINDOW;
use driftmesh_model::{Epoch, Generation, GroupId, Lsn, Micros, Now, ObjectId, PeerId, Term, TxnId};
use driftmesh_object_store::{Entry, Group, MemberId, Membership, Write};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::task::Poll;

/// Who has not answered by then counts as out of reach.
const SURVEY_FOR: Micros = Micros::from_millis(1_000);
/// Grants that a peer remembers of one group, the newest (R24): as many as can be unsettled at once.
const REMEMBERED_GRANTS_MAX: usize = GRANT_WINDOW as usize;
/// Groups of which grants are remembered (R24).
const REMEMBERED_GROUPS_MAX: usize = 256;
/// Surveys open at once (R24).
const SURVEYS_MAX: usize = 16;
/// Most objects that an error names.
const NAMED_MAX: usize = 16;

/// A grant that was adopted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdoptedGrant {
    /// The group that adopted it.
    pub to: GroupId,
    /// Its number between the two groups.
    pub number: u64,
    /// The object.
    pub object: ObjectId,
    /// Its epoch at the receiver.
    pub epoch: Epoch,
}

/// What a member holds of a group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// The generation of what it holds.
    pub generation: Generation,
    /// The term of its last entry.
    pub last_term: Term,
    /// Its last position.
    pub tail: Lsn,
    /// The leadership period that it knows.
    pub term: Term,
    /// Whether it leads.
    pub leads: bool,
    /// Who belongs, as far as it knows.
    pub membership: Membership,
}

/// What a peer says about a group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// What it holds of it, if it belongs to it.
    pub held: Option<Held>,
    /// The last grants of the group that it remembers to have adopted.
    pub adopted: Vec<AdoptedGrant>,
    /// The highest number of a grant of the group that each group here has answered.
    pub answered: BTreeMap<GroupId, u64>,
    /// The groups that lead here, and below which number each has settled all its grants to the group.
    pub settled: BTreeMap<GroupId, u64>,
}

/// A survey of one group.
#[derive(Debug)]
struct Survey {
    group: GroupId,
    until: Micros,
    answers: BTreeMap<PeerId, Standing>,
    asked: usize,
}

/// Surveys under way, and the grants that are remembered for those of others.
#[derive(Debug, Default)]
pub(crate) struct Surveys {
    open: BTreeMap<u64, Survey>,
    adopted: BTreeMap<GroupId, VecDeque<AdoptedGrant>>,
}

/// Why an operator's command about a group is refused. Nothing has changed then.
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
    /// Too many of these are under way.
    #[error("{SURVEYS_MAX} such commands are under way at this peer; try again in a second")]
    Busy,
}

/// What lies beyond the end of what is left of a group, as those say whom it reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beyond {
    /// The group.
    pub group: GroupId,
    /// The last position that is left.
    pub end: Lsn,
    /// Objects that were handed to other groups after it: they stay where they are. Sixteen at most are named.
    pub handed_out: Vec<ObjectId>,
    /// How many.
    pub handed_out_count: usize,
    /// Grants that were handed out after it, of which nobody in reach remembers the object.
    pub unnamed: usize,
    /// Objects that other groups handed over after it: they are lost.
    pub handed_in: u64,
    /// Groups that nobody in reach can speak for: what reached them is not known.
    pub silent: Vec<GroupId>,
}

impl Beyond {
    fn is_nothing(&self) -> bool {
        self.handed_out_count == 0 && self.unnamed == 0 && self.handed_in == 0 && self.silent.is_empty()
    }
}

impl std::fmt::Display for Beyond {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "what is left of group {} ends at {}, and others saw more of it:", self.group, self.end)?;
        if self.handed_out_count > 0 {
            let named: Vec<String> = self.handed_out.iter().map(ToString::to_string).collect();
            let (count, named) = (self.handed_out_count, named.join(", "));
            write!(formatter, " {count} objects went to other groups later and stay there ({named});")?;
        }
        if self.handed_in > 0 {
            write!(formatter, " {} objects came from other groups later and are lost;", self.handed_in)?;
        }
        if !self.silent.is_empty() {
            let silent: Vec<String> = self.silent.iter().map(ToString::to_string).collect();
            write!(formatter, " nobody in reach can speak for group {};", silent.join(", "))?;
        }
        if self.unnamed > 0 {
            return write!(
                formatter,
                " {} objects went to other groups later, and nobody in reach remembers which, so they would exist twice: \
                 give the group up with `forget`",
                self.unnamed
            );
        }
        write!(formatter, " --accept-loss goes on from there all the same")
    }
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
    /// What was accepted as lost, if anything.
    pub beyond: Option<Beyond>,
}

impl Peer {
    /// Remembers a grant for those who might have to know that it left its group.
    pub(crate) fn remember_adopted(&mut self, from: GroupId, adopted: AdoptedGrant) {
        let remembered = &mut self.surveys.adopted;
        if remembered.len() >= REMEMBERED_GROUPS_MAX && !remembered.contains_key(&from) {
            // The group that leaves is one whose grants are long settled, as far as anybody can say.
            remembered.pop_first();
        }
        let grants = remembered.entry(from).or_default();
        grants.push_back(adopted);
        if grants.len() > REMEMBERED_GRANTS_MAX {
            grants.pop_front();
        }
    }

    /// What this peer can say of a group.
    fn standing_of(&self, id: GroupId) -> Standing {
        let held = self.group_of(id).filter(|group| group.tail() > Lsn::ZERO).map(|group| Held {
            generation: group.consensus().held_generation(),
            last_term: group.consensus().last_term(),
            tail: group.tail(),
            term: group.term(),
            leads: group.is_leading(),
            membership: group.consensus().membership().clone(),
        });
        let received = |group: &Group| {
            let log = group.grants_received().find(|(from, _)| *from == id).map(|(_, log)| log.highest());
            (group.id(), log.unwrap_or(0))
        };
        let answered = self.groups().filter(|group| group.id() != id).map(received).collect();
        let settled =
            self.led_groups().filter(|group| group.id() != id).map(|group| (group.id(), group.unsettled_from(id)));
        let adopted = self.surveys.adopted.get(&id).into_iter().flatten().copied().collect();
        Standing { held, adopted, answered, settled: settled.collect() }
    }

    pub(crate) fn standing_asked(&mut self, from: PeerId, ask: u64, group: GroupId) {
        let standing = Box::new(self.standing_of(group));
        // R6: a verdict on what is not stable here is redone by the ordinary transfers, or refused; no need to wait.
        self.send_now(from, Message::Standing { ask, group, standing });
    }

    pub(crate) fn standing_told(&mut self, from: PeerId, ask: u64, group: GroupId, standing: Standing) {
        let Some(survey) = self.surveys.open.get_mut(&ask).filter(|survey| survey.group == group) else { return };
        survey.answers.insert(from, standing);
        self.wakes.push(TxnId::from_u64(ask));
    }

    /// Asks everybody in reach about a group. May be called again until it is ready; `waiter` is woken.
    fn survey(&mut self, waiter: TxnId, group: GroupId) -> Poll<Result<BTreeMap<PeerId, Standing>, OperatorError>> {
        let number = waiter.as_u64();
        let (now, peer) = (self.now.mono, self.config.peer);
        if let Some(survey) = self.surveys.open.get(&number) {
            if survey.answers.len() < survey.asked && now < survey.until {
                return Poll::Pending;
            }
            let mut answers = self.surveys.open.remove(&number).map(|survey| survey.answers).unwrap_or_default();
            answers.insert(peer, self.standing_of(group));
            return Poll::Ready(Ok(answers));
        }
        if let Some(lost) = self.groups.ended(group).map(|ended| ended.lost) {
            return Poll::Ready(Err(OperatorError::Ended { group, lost }));
        }
        if !self.groups.is_known(group) {
            return Poll::Ready(Err(OperatorError::Unknown { group }));
        }
        if self.surveys.open.len() >= SURVEYS_MAX {
            return Poll::Ready(Err(OperatorError::Busy));
        }
        let members = self.connected_members();
        if members.is_empty() {
            return Poll::Ready(Ok(BTreeMap::from([(peer, self.standing_of(group))])));
        }
        let until = now.plus(SURVEY_FOR);
        let survey = Survey { group, until, answers: BTreeMap::new(), asked: members.len() };
        self.surveys.open.insert(number, survey);
        self.timers.set(until, Timer::Wake(waiter));
        for member in members {
            self.send_now(member, Message::AskStanding { ask: number, group });
        }
        Poll::Pending
    }

    /// Whoever wanted a survey does not wait any more.
    pub(crate) fn forget_survey(&mut self, waiter: TxnId) {
        self.surveys.open.remove(&waiter.as_u64());
    }

    /// Gives up a group whose members are all gone: its objects and receipts are lost, and nobody waits for it any more.
    /// Whoever belonged to it and comes back begins anew. May be called again until it answers; `waiter` is woken.
    ///
    /// With `force` also one of which somebody in reach holds a copy, or that is led.
    ///
    /// # Errors
    /// `Unknown`, `Ended`, `HasLeader`, `HasMember`, `Busy`: nothing changes then.
    pub fn forget_group(
        &mut self,
        now: Now,
        waiter: TxnId,
        group: GroupId,
        force: bool,
    ) -> Poll<Result<(), OperatorError>> {
        self.now = now;
        let answers = match self.survey(waiter, group) {
            Poll::Ready(Ok(answers)) => answers,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        if let Some(ended) = self.groups.ended(group) {
            return Poll::Ready(Err(OperatorError::Ended { group, lost: ended.lost }));
        }
        let held: Vec<(PeerId, Held)> =
            answers.into_iter().filter_map(|(peer, standing)| Some((peer, standing.held?))).collect();
        if !force {
            if let Some((leader, _)) = held.iter().find(|(_, held)| held.leads) {
                return Poll::Ready(Err(OperatorError::HasLeader { group, leader: *leader }));
            }
            if let Some((member, _)) = held.first() {
                return Poll::Ready(Err(OperatorError::HasMember { group, member: *member }));
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
    /// # Errors
    /// Why it cannot be, or must be asked of another peer. `Beyond`, without `accept_loss`: others have something of it that
    /// is not left. Nothing changes then.
    pub fn promote(
        &mut self,
        now: Now,
        waiter: TxnId,
        group: GroupId,
        accept_loss: bool,
    ) -> Poll<Result<Promoted, OperatorError>> {
        self.now = now;
        match self.survey(waiter, group) {
            Poll::Ready(Ok(answers)) => Poll::Ready(self.promote_by(group, &answers, accept_loss)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn promote_by(
        &mut self,
        id: GroupId,
        answers: &BTreeMap<PeerId, Standing>,
        accept_loss: bool,
    ) -> Result<Promoted, OperatorError> {
        if let Some(ended) = self.groups.ended(id) {
            return Err(OperatorError::Ended { group: id, lost: ended.lost });
        }
        let learners = self.may_promote(id, answers)?;
        let Some(group) = self.group_of(id) else { return Err(OperatorError::NoMember { group: id }) };
        let beyond = self.beyond(group, answers);
        if !beyond.is_nothing() && (!accept_loss || beyond.unnamed > 0) {
            return Err(OperatorError::Beyond(Box::new(beyond)));
        }
        let membership = Membership { learners, ..Membership::alone(self.me()) };
        let members = membership.members().len();
        self.with_group(id, |group, now| group.refound(now, membership));
        self.redo_beyond(id, answers);
        let Some(group) = self.led(id) else { return Err(OperatorError::NoMember { group: id }) };
        let (generation, owned) = (group.generation(), group.owned_count());
        Ok(Promoted { generation, owned, members, beyond: (!beyond.is_nothing()).then_some(beyond) })
    }

    /// Whether this peer is the one to found the group anew, and who else in reach belongs to it.
    fn may_promote(
        &self,
        id: GroupId,
        answers: &BTreeMap<PeerId, Standing>,
    ) -> Result<BTreeMap<MemberId, bool>, OperatorError> {
        let held = || answers.iter().filter_map(|(peer, standing)| Some((*peer, standing.held.as_ref()?)));
        if let Some((leader, _)) = held().find(|(_, held)| held.leads) {
            return Err(OperatorError::HasLeader { group: id, leader });
        }
        // Raft 5.4.1: whose last entry is of the highest term, and the longest journal of these, lacks nothing that is
        // stable and in reach.
        let rank = |held: &Held| (held.generation, held.last_term, held.tail);
        let best = held().max_by_key(|(peer, held)| (rank(held), *peer == self.config.peer));
        let Some((best, most)) = best else { return Err(OperatorError::NoMember { group: id }) };
        let in_reach = |member: &MemberId| {
            let same = *member == self.me()
                || self.members.get(&member.peer).is_some_and(|known| known.incarnation == member.incarnation);
            same && answers.get(&member.peer).is_some_and(|standing| standing.held.is_some())
        };
        if most.membership.is_majority(in_reach) {
            return Err(OperatorError::HasMajority { group: id });
        }
        if best != self.config.peer {
            return Err(OperatorError::AskPeer { group: id, member: best });
        }
        if let Some(why) = self.group_of(id).and_then(Group::halted) {
            return Err(OperatorError::Halted { group: id, why: why.to_owned() });
        }
        let mut others = most.membership.members();
        others.remove(&self.me());
        // Stable from now on is what they hold too; one that is silent leaves the sync set by itself.
        Ok(others.into_iter().filter(in_reach).map(|member| (member, true)).collect())
    }

    /// The highest number of a grant of this group that each other group has answered, as anybody in reach knows.
    fn answered_of(&self, id: GroupId, answers: &BTreeMap<PeerId, Standing>) -> BTreeMap<GroupId, u64> {
        let mut answered: BTreeMap<GroupId, u64> = BTreeMap::new();
        let told = answers.values().flat_map(|standing| &standing.answered).map(|(to, number)| (*to, *number));
        // R20: what those have answered that are no more outlives them.
        let remains = self.groups.all_ended().filter_map(|(to, ended)| Some((to, ended.received.get(&id)?.highest())));
        for (to, number) in told.chain(remains) {
            let highest = answered.entry(to).or_default();
            *highest = number.max(*highest);
        }
        answered
    }

    fn beyond(&self, group: &Group, answers: &BTreeMap<PeerId, Standing>) -> Beyond {
        let id = group.id();
        let answered = self.answered_of(id, answers);
        let mut beyond = Beyond {
            group: id,
            end: group.tail(),
            handed_out: Vec::new(),
            handed_out_count: 0,
            unnamed: 0,
            handed_in: 0,
            silent: Vec::new(),
        };
        for (to, highest) in &answered {
            let first = group.last_grant_to(*to).saturating_add(1);
            let room = first.saturating_add(group.grant_room(*to) as u64);
            if *highest >= room {
                // More than can be done again at once, which no lead can have left unsettled.
                let more = usize::try_from(*highest - room).unwrap_or(usize::MAX).saturating_add(1);
                beyond.unnamed = beyond.unnamed.saturating_add(more);
            }
            for number in first..=(*highest).min(room.saturating_sub(1)) {
                match adopted(answers, *to, number) {
                    Some(grant) => {
                        beyond.handed_out_count += 1;
                        if beyond.handed_out.len() < NAMED_MAX {
                            beyond.handed_out.push(grant.object);
                        }
                    }
                    None => beyond.unnamed = beyond.unnamed.saturating_add(1),
                }
            }
        }
        for (from, settled) in answers.values().flat_map(|standing| &standing.settled) {
            beyond.handed_in += group.unanswered_below(*from, *settled).count() as u64;
        }
        let others = self.groups.leaders().map(|(other, _)| other).filter(|other| *other != id);
        beyond.silent = others.filter(|other| !answered.contains_key(other)).collect();
        beyond
    }

    /// What others had from this group beyond its new end happens again, in the same order: each object goes where it is,
    /// by the number that it went by (R20), so that nobody can have it twice and no number means two objects.
    fn redo_beyond(&mut self, id: GroupId, answers: &BTreeMap<PeerId, Standing>) {
        for (to, highest) in self.answered_of(id, answers) {
            loop {
                let Some(next) = self.led(id).map(|group| group.last_grant_to(to).saturating_add(1)) else { return };
                if next > highest || self.led(id).and_then(|group| group.next_grant(to)) != Some(next) {
                    break;
                }
                let known = adopted(answers, to, next);
                let floor = self.clock.now(self.now.wall);
                let owned = known.filter(|grant| {
                    let stored = self.led(id).and_then(|group| group.owned(grant.object));
                    stored.is_some_and(|stored| stored.epoch.next() == grant.epoch)
                });
                // An object that is not here any more came back and left again beyond the end; its number is used up by
                // one that never was.
                let (object, epoch) = match owned {
                    Some(grant) => (grant.object, grant.epoch),
                    None => self.never_was(id),
                };
                if self.journal_of(id, Entry::TransferOut { object, epoch, to, number: next, floor }).is_none() {
                    return;
                }
                self.grant_is_due(id, to, next, self.now.mono);
            }
        }
        let settled: Vec<(GroupId, u64)> =
            answers.values().flat_map(|standing| &standing.settled).map(|(from, below)| (*from, *below)).collect();
        for (from, below) in settled {
            let Some(group) = self.led(id) else { return };
            for number in group.unanswered_below(from, below).collect::<Vec<_>>() {
                self.journal_of(id, Entry::Refused { from, number, unsettled_from: number });
            }
        }
    }

    /// An object that is deleted from its beginning, and the epoch that it leaves with.
    fn never_was(&mut self, id: GroupId) -> (ObjectId, Epoch) {
        let object = self.new_object_id();
        let commit = self.clock.tick(self.now.wall);
        self.journal_of(id, Entry::Commit { commit, writes: vec![Write { object, value: None }] });
        let epoch = self.led(id).and_then(|group| group.owned(object)).map_or(Epoch::ZERO, |stored| stored.epoch);
        (object, epoch.next())
    }
}

/// The grant with this number to this group, if anybody remembers it.
fn adopted(answers: &BTreeMap<PeerId, Standing>, to: GroupId, number: u64) -> Option<AdoptedGrant> {
    let all = answers.values().flat_map(|standing| &standing.adopted);
    all.copied().find(|grant| (grant.to, grant.number) == (to, number))
}
