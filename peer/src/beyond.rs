//! What others have of a group that is not in what is left of it, when an operator founds it anew: what is named, what is
//! refused, and what has to happen again so that nothing exists twice (R20).

use crate::Peer;
use crate::surveying::{AdoptedGrant, Answers};
use driftmesh_model::limits::GRANT_WINDOW;
use driftmesh_model::{Epoch, Generation, GroupId, Lsn, ObjectId};
use driftmesh_object_store::{Departure, Entry, GrantLog, GrantSeen, Group, Write};
use std::collections::{BTreeMap, BTreeSet};

/// Most objects that an error names.
const NAMED_MAX: usize = 16;

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
    /// Objects that other groups handed over after it: they are lost.
    pub handed_in: u64,
    /// Objects that it handed to groups which were founded anew since, and had not got them: they are lost.
    pub lost_there: u64,
    /// Groups that were given up: what reached them is not known.
    pub given_up: Vec<GroupId>,
    /// Grants that were handed out after it, of which nobody in reach remembers the object: it would exist twice.
    pub unnamed: usize,
    /// Groups that nobody leads or holds in reach: what reached them would exist twice if they came back.
    pub silent: Vec<GroupId>,
    /// Objects in what is left that came from groups which were founded anew since from less, and own them still.
    pub owned_twice: u64,
}

impl Beyond {
    pub(crate) fn is_nothing(&self) -> bool {
        self.handed_out_count == 0
            && self.handed_in == 0
            && self.lost_there == 0
            && self.given_up.is_empty()
            && !self.may_duplicate()
    }

    /// Whether the group cannot go on without a risk that something exists twice, which no operator may accept.
    pub(crate) fn may_duplicate(&self) -> bool {
        self.unnamed > 0 || !self.silent.is_empty() || self.owned_twice > 0
    }

    fn write_refusals(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.silent.is_empty() {
            write!(
                formatter,
                " nobody in reach holds group {}, and what went there would exist twice if it came back: start its members \
                 again, or give it up with `forget` first;",
                listed(&self.silent)
            )?;
        }
        if self.unnamed > 0 {
            write!(
                formatter,
                " {} objects went to other groups later, and nobody in reach remembers which, so they would exist twice: \
                 give the group up with `forget`;",
                self.unnamed
            )?;
        }
        if self.owned_twice > 0 {
            write!(
                formatter,
                " {} of its objects came from groups that were founded anew since and own them still: give the group up \
                 with `forget`;",
                self.owned_twice
            )?;
        }
        Ok(())
    }
}

fn listed<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl std::fmt::Display for Beyond {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "what is left of group {} ends at {}, and others saw more of it:", self.group, self.end)?;
        if self.handed_out_count > 0 {
            let (count, named) = (self.handed_out_count, listed(&self.handed_out));
            write!(formatter, " {count} objects went to other groups later and stay there ({named});")?;
        }
        if self.handed_in > 0 {
            write!(formatter, " {} objects came from other groups later and are lost;", self.handed_in)?;
        }
        if self.lost_there > 0 {
            write!(
                formatter,
                " {} objects went to groups that were founded anew since, which have not got them: they are lost;",
                self.lost_there
            )?;
        }
        if !self.given_up.is_empty() {
            write!(formatter, " what reached group {} is not known, which was given up;", listed(&self.given_up))?;
        }
        if self.may_duplicate() {
            return self.write_refusals(formatter);
        }
        write!(formatter, " --accept-loss goes on from there all the same")
    }
}

impl Peer {
    /// The highest number of a grant of this group that each other group has answered, as anybody in reach knows.
    fn answered_of(&self, id: GroupId, answers: &Answers) -> BTreeMap<GroupId, u64> {
        let mut answered: BTreeMap<GroupId, u64> = BTreeMap::new();
        let logs = answers.values().flat_map(|standing| &standing.received);
        let told = logs.map(|(to, log)| (*to, log.highest()));
        // R20: what those have answered that are no more outlives them.
        let remains = self.groups.all_ended().filter_map(|(to, ended)| Some((to, ended.received.get(&id)?.highest())));
        for (to, number) in told.chain(remains) {
            let highest = answered.entry(to).or_default();
            *highest = number.max(*highest);
        }
        answered
    }

    pub(crate) fn beyond(&self, group: &Group, answers: &Answers) -> Beyond {
        let id = group.id();
        let unled = self.unled(id, answers);
        let mut beyond = Beyond {
            group: id,
            end: group.tail(),
            handed_out: Vec::new(),
            handed_out_count: 0,
            handed_in: 0,
            lost_there: 0,
            given_up: self.groups.all_ended().filter(|(_, ended)| ended.lost).map(|(other, _)| other).collect(),
            unnamed: 0,
            silent: unled.iter().copied().filter(|other| !is_held(*other, answers)).collect(),
            owned_twice: 0,
        };
        for (to, highest) in self.answered_of(id, answers) {
            self.note_handed_out(&mut beyond, group, (to, highest), answers, &unled);
        }
        for (from, settled) in answers.values().flat_map(|standing| &standing.settled) {
            beyond.handed_in += group.unanswered_below(*from, *settled).count() as u64;
        }
        let ended = self.groups.all_ended().filter(|(_, ended)| !ended.lost);
        let remains: Vec<(GroupId, GrantLog)> =
            ended.map(|(to, ended)| (to, ended.received.get(&id).cloned().unwrap_or_default())).collect();
        let told = answers.values().flat_map(crate::Standing::received_by_leaders);
        for (to, received) in told.chain(remains.iter().map(|(to, received)| (*to, received))) {
            beyond.lost_there = beyond.lost_there.saturating_add(settled_and_unanswered(group, to, received));
        }
        for (from, received) in group.grants_received() {
            let known = answers.values().filter_map(|standing| standing.granted.get(&from).copied());
            let ended = self.groups.ended(from).filter(|ended| !ended.lost);
            let remains = ended.map(|ended| ended.sent.get(&id).copied().unwrap_or(0));
            if let Some(last) = known.chain(remains).max() {
                beyond.owned_twice = beyond.owned_twice.saturating_add(received.highest().saturating_sub(last));
            }
        }
        beyond
    }

    /// What another group has answered of this one's grants after its last entry, up to the highest one.
    fn note_handed_out(
        &self,
        beyond: &mut Beyond,
        group: &Group,
        (to, highest): (GroupId, u64),
        answers: &Answers,
        unled: &[GroupId],
    ) {
        let first = group.last_grant_to(to).saturating_add(1);
        let room = first.saturating_add(group.grant_room(to) as u64);
        if highest >= room {
            // More than can be done again at once, which no lead can have left unsettled.
            let more = usize::try_from(highest - room).unwrap_or(usize::MAX).saturating_add(1);
            beyond.unnamed = beyond.unnamed.saturating_add(more);
        }
        for number in first..=highest.min(room.saturating_sub(1)) {
            match adopted(answers, to, number) {
                Some(grant) => {
                    beyond.handed_out_count += 1;
                    if beyond.handed_out.len() < NAMED_MAX {
                        beyond.handed_out.push(grant.object);
                    }
                }
                None if self.has_none(group.id(), to, number, answers, unled) => {}
                None => beyond.unnamed = beyond.unnamed.saturating_add(1),
            }
        }
    }

    /// Whether a group has not adopted this grant, for certain: its object stays where it is, and another may go by the
    /// number. Only whoever leads a group knows that, or what remains of one that has ended.
    fn has_none(&self, id: GroupId, to: GroupId, number: u64, answers: &Answers, unled: &[GroupId]) -> bool {
        let leaders = answers.values().flat_map(crate::Standing::received_by_leaders);
        let told = leaders.filter(|(group, _)| *group == to && !unled.contains(&to)).map(|(_, log)| log);
        let remains = self.groups.ended(to).filter(|ended| !ended.lost).and_then(|ended| ended.received.get(&id));
        let mut known = told.chain(remains).peekable();
        known.peek().is_some() && known.all(|log| matches!(log.look_up(number), GrantSeen::Refused | GrantSeen::New))
    }

    /// The other groups that nobody in reach leads for certain: one that leads without a majority may have been replaced
    /// by the others, who do what it does not know.
    pub(crate) fn unled(&self, id: GroupId, answers: &Answers) -> Vec<GroupId> {
        let is_led = |group: GroupId| {
            let leads = |standing: &crate::Standing| standing.holds.get(&group).is_some_and(|held| held.leads);
            answers.values().any(leads) && self.has_majority(group, answers)
        };
        self.groups.leaders().map(|(other, _)| other).filter(|other| *other != id && !is_led(*other)).collect()
    }

    /// What others had from this group beyond its new end happens again, in the same order: each object goes where it is,
    /// by the number that it went by (R20), so that nobody can have it twice and no number means two objects.
    pub(crate) fn redo_beyond(&mut self, id: GroupId, former: Generation, answers: &Answers) {
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
                    stored.is_some_and(|stored| stored.epoch.of_generation(former).next() == grant.epoch)
                });
                // An object that is not here any more came back and left again beyond the end; its number is used up by
                // one that never was.
                let (object, epoch) = match owned {
                    Some(grant) => (grant.object, grant.epoch),
                    None => self.never_was(id),
                };
                let departures = vec![Departure { object, epoch }];
                if self.journal_of(id, Entry::TransferOut { to, first: next, floor, departures }).is_none() {
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
        self.journal_of(
            id,
            Entry::Commit { commit, writes: vec![Write { object, value: None }], outcome: None, schedules: Vec::new() },
        );
        let epoch = self.led(id).and_then(|group| group.owned(object)).map_or(Epoch::ZERO, |stored| stored.epoch);
        (object, epoch.next())
    }
}

/// The grant with this number to this group, if anybody remembers it.
fn adopted(answers: &Answers, to: GroupId, number: u64) -> Option<AdoptedGrant> {
    let all = answers.values().flat_map(|standing| &standing.adopted);
    all.copied().find(|grant| (grant.to, grant.number) == (to, number))
}

/// How many grants a group has settled that the other one, as it goes on now, never answered.
fn settled_and_unanswered(group: &Group, to: GroupId, received: &GrantLog) -> u64 {
    let (first, last) = (received.contiguous().saturating_add(1), group.last_grant_to(to));
    let is_open: BTreeSet<u64> = group.unsettled_to(to).collect();
    // R25: more than that no two sound groups differ by.
    let end = last.min(first.saturating_add(2 * GRANT_WINDOW));
    let is_lost = |number: &u64| {
        !is_open.contains(number) && matches!(received.look_up(*number), GrantSeen::New | GrantSeen::BeyondWindow)
    };
    (first..=end).filter(is_lost).count() as u64
}

/// Whether anybody in reach holds something of a group.
fn is_held(group: GroupId, answers: &Answers) -> bool {
    answers.values().any(|standing| standing.holds.contains_key(&group))
}
