//! Surveys: everybody in reach is asked what it holds of a group and has from it, before an operator does something to the
//! group; and all of them are told that what it was is over, before it is founded anew. Refuses to decide anything.

use crate::Peer;
use crate::message::{GroupRecord, Message};
use crate::operating::OperatorError;
use crate::timers::Timer;
use driftmesh_model::limits::GRANT_WINDOW;
use driftmesh_model::{Epoch, Generation, GroupId, Lsn, Micros, ObjectId, PeerId, Term, TxnId};
use driftmesh_object_store::{Entry, GrantLog, Group, Membership};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Poll;

/// Who has not answered by then, and said nothing else, counts as out of reach.
const SURVEY_FOR: Micros = Micros::from_millis(1_000);
/// Grants that a peer remembers of one group, the newest (R24): as many as can be unsettled at once.
const REMEMBERED_GRANTS_MAX: usize = GRANT_WINDOW as usize;
/// Groups of which grants are remembered (R24).
const REMEMBERED_GROUPS_MAX: usize = 256;
/// Surveys open at once (R24).
pub(crate) const SURVEYS_MAX: usize = 16;

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
    /// Whether its copy has stopped for good: it neither votes nor acknowledges.
    pub halted: bool,
    /// Who belongs, as far as it knows.
    pub membership: Membership,
}

/// What a peer says about a group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// What it holds of all groups that it belongs to.
    pub holds: BTreeMap<GroupId, Held>,
    /// The highest generation of a group that it knows.
    pub generation: Generation,
    /// The last grants of the group that it remembers to have adopted.
    pub adopted: Vec<AdoptedGrant>,
    /// The groups that lead here, and below which number each has settled all its grants to the group.
    pub settled: BTreeMap<GroupId, u64>,
    /// The groups that lead here, and the number of the last grant of each to the group.
    pub granted: BTreeMap<GroupId, u64>,
    /// Which grants of the group each group here has answered, as far as this member holds that.
    pub received: BTreeMap<GroupId, GrantLog>,
    /// Whether what the question ended was over before this was said.
    pub fenced: bool,
}

impl Standing {
    /// What the groups that lead here have answered.
    pub(crate) fn received_by_leaders(&self) -> impl Iterator<Item = (GroupId, &GrantLog)> {
        let leads = |group: &GroupId| self.holds.get(group).is_some_and(|held| held.leads);
        self.received.iter().filter(move |(group, _)| leads(group)).map(|(group, log)| (*group, log))
    }
}

/// What everybody in reach said.
pub(crate) type Answers = BTreeMap<PeerId, Standing>;

/// A survey of one group.
#[derive(Clone, Debug)]
struct Survey {
    group: GroupId,
    until: Micros,
    answers: Answers,
    asked: BTreeSet<PeerId>,
    /// What is over with the answers; empty while it is only asked.
    fences: Vec<GroupRecord>,
}

/// Surveys under way, and the grants that are remembered for those of others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surveys {
    open: BTreeMap<u64, Survey>,
    /// Who ended the last generation of a group that an operator ended here.
    ended_by: BTreeMap<GroupId, (Generation, PeerId)>,
    /// In which order these were noted.
    ended_order: VecDeque<GroupId>,
    adopted: BTreeMap<GroupId, VecDeque<AdoptedGrant>>,
}

impl Surveys {
    fn note_ended(&mut self, group: GroupId, generation: Generation, by: PeerId) {
        if self.ended_by.insert(group, (generation, by)).is_some() {
            self.ended_order.retain(|other| *other != group);
        } else if self.ended_by.len() > REMEMBERED_GROUPS_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended_by.remove(&oldest);
        }
        self.ended_order.push_back(group);
    }

    fn forget_ended(&mut self, group: GroupId) {
        self.ended_by.remove(&group);
        self.ended_order.retain(|other| *other != group);
    }
}

/// A survey that is over.
pub(crate) struct Surveyed {
    pub(crate) answers: Answers,
    /// What was over for all of these before they answered.
    pub(crate) fences: Vec<GroupRecord>,
    /// One that is in reach and has not answered.
    pub(crate) unanswered: Option<PeerId>,
}

/// Which grants of another group this one has answered, by all that it holds: what is not stable too.
fn received_from(group: &Group, from: GroupId) -> GrantLog {
    let known = group.grants_received().find(|(other, _)| *other == from).map(|(_, log)| log.clone());
    let mut log = known.unwrap_or_default();
    for (_, entry) in group.entries_from(group.applied().next()) {
        match entry {
            Entry::TransferIn { from: sender, arrivals, .. } if *sender == from => {
                arrivals.iter().for_each(|arrival| log.record(arrival.number, false));
            }
            Entry::Refused { from: sender, number, .. } if *sender == from => log.record(*number, true),
            Entry::TransferIn { .. }
            | Entry::Refused { .. }
            | Entry::TermStart { .. }
            | Entry::Commit { .. }
            | Entry::TransferOut { .. }
            | Entry::Handed { .. }
            | Entry::TakenBack { .. }
            | Entry::Window { .. }
            | Entry::Members(_)
            | Entry::Retired
            | Entry::Imported { .. } => {}
        }
    }
    log
}

impl Peer {
    /// Remembers a grant for those who might have to know that it left its group.
    pub(crate) fn remember_adopted(&mut self, from: GroupId, adopted: AdoptedGrant) {
        let remembered = &mut self.surveys.adopted;
        if remembered.len() >= REMEMBERED_GROUPS_MAX && !remembered.contains_key(&from) {
            // Any of them: what is not remembered makes `promote` refuse, no more.
            remembered.pop_first();
        }
        let grants = remembered.entry(from).or_default();
        grants.push_back(adopted);
        if grants.len() > REMEMBERED_GRANTS_MAX {
            grants.pop_front();
        }
    }

    /// What this peer can say of a group.
    fn standing_of(&self, id: GroupId, fenced: bool) -> Standing {
        let held = |group: &Group| Held {
            generation: group.consensus().held_generation(),
            last_term: group.consensus().last_term(),
            tail: group.tail(),
            term: group.term(),
            leads: group.is_leading(),
            halted: group.halted().is_some(),
            membership: group.consensus().membership().clone(),
        };
        let holds = self.groups().filter(|group| group.tail() > Lsn::ZERO).map(|group| (group.id(), held(group)));
        let received = |group: &Group| (group.id(), received_from(group, id));
        let others = || self.led_groups().filter(|group| group.id() != id);
        Standing {
            holds: holds.collect(),
            generation: self.groups.highest_generation(),
            adopted: self.surveys.adopted.get(&id).into_iter().flatten().copied().collect(),
            settled: others().map(|group| (group.id(), group.unsettled_from(id))).collect(),
            granted: others().map(|group| (group.id(), group.last_grant_to(id))).collect(),
            received: self.groups().filter(|group| group.id() != id).map(received).collect(),
            fenced,
        }
    }

    pub(crate) fn standing_asked(&mut self, from: PeerId, ask: u64, group: GroupId, fences: &[GroupRecord]) {
        let ends_it = |survey: &Survey| survey.group == group && !survey.fences.is_empty();
        let mine = self.surveys.open.iter().find(|(_, survey)| ends_it(survey)).map(|(number, _)| *number);
        if let Some(mine) = mine.filter(|_| !fences.is_empty()) {
            // Two operators at two members at once: one generation is founded by one of them only.
            if self.config.peer < from {
                return;
            }
            // Asked from the beginning again, it finds that the group is led.
            self.surveys.open.remove(&mine);
            self.surveys.forget_ended(group);
            self.wakes.push(TxnId::from_u64(mine));
        }
        if !self.take_fences(from, group, fences) {
            return;
        }
        if self.members.get(&from).is_some_and(|member| member.groups_digest != Some(self.groups.digest())) {
            // What it does not know of groups it must know before it decides.
            self.tell_groups(from);
        }
        let standing = Box::new(self.standing_of(group, !fences.is_empty()));
        // R6: a verdict on what is not stable here is redone by the ordinary transfers, or refused; no need to wait.
        self.send_now(from, Message::Standing { ask, group, standing });
    }

    /// From here on nothing of these former generations is taken in, so that the answer stays true of them. Returns whether that
    /// is so, and whether this peer may tell the asker: two who do not hear each other must not found one generation.
    fn take_fences(&mut self, from: PeerId, group: GroupId, fences: &[GroupRecord]) -> bool {
        self.groups_told(fences);
        let Some(fence) = fences.iter().find(|fence| fence.group == group) else { return true };
        let known = self.surveys.ended_by.get(&group).filter(|(generation, _)| *generation >= fence.generation);
        if known.is_some_and(|known| *known != (fence.generation, from)) {
            return false;
        }
        self.surveys.note_ended(group, fence.generation, from);
        let is_taken = |fence: &GroupRecord| {
            self.has_ended(fence.group)
                || self.groups.generation(fence.group).is_some_and(|known| known >= fence.generation)
        };
        fences.iter().all(is_taken)
    }

    pub(crate) fn standing_told(&mut self, from: PeerId, ask: u64, group: GroupId, standing: Standing) {
        let Some(survey) = self.surveys.open.get_mut(&ask).filter(|survey| survey.group == group) else { return };
        // What was said in the first round, and came late or twice, says nothing about what came after it.
        let is_of_this_round = standing.fenced != survey.fences.is_empty();
        if is_of_this_round && survey.asked.contains(&from) {
            survey.answers.insert(from, standing);
            self.wakes.push(TxnId::from_u64(ask));
        }
    }

    /// Asks everybody in reach about a group. May be called again until it is ready; `waiter` is woken.
    pub(crate) fn survey(&mut self, waiter: TxnId, group: GroupId) -> Poll<Result<Surveyed, OperatorError>> {
        let number = waiter.as_u64();
        let now = self.now.mono;
        if let Some(survey) = self.surveys.open.get(&number) {
            if survey.answers.len() < survey.asked.len() && now < survey.until {
                return Poll::Pending;
            }
            return Poll::Ready(Ok(self.surveyed(number, group)));
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
        let asked = self.connected_members().into_iter().collect();
        self.begin_survey(waiter, group, asked, Vec::new());
        if self.surveys.open.get(&number).is_some_and(|survey| survey.asked.is_empty()) {
            return Poll::Ready(Ok(self.surveyed(number, group)));
        }
        Poll::Pending
    }

    /// Tells these peers that what some groups were is over, and asks them once more. `survey` tells when it is done.
    pub(crate) fn begin_survey(
        &mut self,
        waiter: TxnId,
        group: GroupId,
        asked: BTreeSet<PeerId>,
        fences: Vec<GroupRecord>,
    ) {
        let ask = waiter.as_u64();
        if let Some(fence) = fences.first() {
            self.surveys.note_ended(group, fence.generation, self.config.peer);
        }
        self.groups_told(&fences);
        let until = self.now.mono.plus(SURVEY_FOR);
        self.timers.set(until, Timer::Wake(waiter));
        for member in &asked {
            self.send_now(*member, Message::AskStanding { ask, group, fences: fences.clone() });
        }
        if asked.is_empty() {
            self.wakes.push(waiter);
        }
        self.surveys.open.insert(ask, Survey { group, until, answers: Answers::new(), asked, fences });
    }

    fn surveyed(&mut self, number: u64, group: GroupId) -> Surveyed {
        let survey = self.surveys.open.remove(&number);
        let (mut answers, asked, fences) =
            survey.map(|survey| (survey.answers, survey.asked, survey.fences)).unwrap_or_default();
        // One that stands still is out of reach, whatever its connection says.
        let speaks = |peer: &PeerId| {
            let heard = |at: Micros| self.now.mono.since(at) < SURVEY_FOR;
            self.members.get(peer).is_some_and(|member| member.connected && heard(member.heard_at))
        };
        let must_answer = |peer: &&PeerId| !answers.contains_key(*peer) && (speaks(peer) || !fences.is_empty());
        let unanswered = asked.iter().find(must_answer).copied();
        answers.insert(self.config.peer, self.standing_of(group, !fences.is_empty()));
        Surveyed { answers, fences, unanswered }
    }

    /// Whoever wanted a survey does not wait any more.
    pub(crate) fn forget_survey(&mut self, waiter: TxnId) {
        self.surveys.open.remove(&waiter.as_u64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_ends_that_operators_made_the_oldest_is_forgotten_first() {
        let mut surveys = Surveys::default();
        let by = PeerId::from_bytes([1; 32]);
        let group = |number: usize| GroupId::from_u128(number as u128);
        // The ids fall while time goes on, and the first one is noted once more.
        let ids = (1..=REMEMBERED_GROUPS_MAX).rev().chain([REMEMBERED_GROUPS_MAX, 0]);
        ids.for_each(|number| surveys.note_ended(group(number), Generation::default().next(), by));
        let oldest = group(REMEMBERED_GROUPS_MAX - 1);
        assert_eq!((surveys.ended_by.len(), surveys.ended_order.len()), (REMEMBERED_GROUPS_MAX, REMEMBERED_GROUPS_MAX));
        assert!(!surveys.ended_by.contains_key(&oldest));
        assert!(
            surveys.ended_by.contains_key(&group(0)) && surveys.ended_by.contains_key(&group(REMEMBERED_GROUPS_MAX))
        );
    }
}
