//! The search for one object's owner: the best record first, then the homes, then every group (R2, R4).
//!
//! A state machine: told what others answer, it says whom to ask next. It refuses to conclude that an object does
//! not exist while any group is out of reach or anybody remembers it.

use crate::{Record, Source, Step, Trail};
use driftmesh_model::{GroupId, ObjectId, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// After this many pointers in a row a lookup goes to the homes (R2).
pub const HOP_LIMIT: usize = 8;
/// Rounds of questions that one lookup may number: more than it can ask within any deadline.
const ROUNDS_PER_LOOKUP: u64 = 1 << 20;
/// After this many silent repetitions a lookup stops asking one group and goes on: the record that names it may be a lie, and
/// whoever waits should not wait for a second.
const SILENT_ASKED_MAX: u32 = 1;
/// After this many a lookup that asks everybody begins anew.
const SILENT_MAX: u32 = 2;
/// Words of owners and senders that a search follows below its best record before it begins anew: such a word does not climb, so
/// whoever repeats one must not lead it in circles as fast as the network goes.
const WORDS_MAX: u32 = 4;

/// What a peer says of an object in its own group's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Holds {
    /// The group owns it.
    Owns,
    /// The group is sending it elsewhere.
    Sending,
    /// It does neither.
    No,
}

/// An answer about an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Who answers.
    pub peer: PeerId,
    /// What it says of its own group.
    pub holds: Holds,
    /// The best record it knows, its own ownership included.
    pub record: Option<Record>,
    /// How many objects that share this one's counter have come to or left its group so far.
    pub moves: u64,
    /// The round of questions it answers; zero when it answers a request for the object itself.
    pub round: u64,
    /// Tells whether it knows the same groups as the asker.
    pub groups_digest: u64,
}

/// Whom a lookup can ask: supplied at each step, because peers come and go.
#[derive(Clone, Debug, Default)]
pub struct Reachable {
    /// The object's homes, without the asking peer.
    pub homes: BTreeSet<PeerId>,
    /// All reachable peers, without the asking one.
    pub everyone: BTreeSet<PeerId>,
    /// Whether some known peer is out of reach: then nothing can be declared absent (R4).
    pub someone_missing: bool,
    /// Tells which groups the asking peer knows.
    pub groups_digest: u64,
    /// Whether the asking peer's own group owns or sends the object.
    pub held_here: bool,
    /// The asking peer's own counter for the object.
    pub moves_here: u64,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Send the request itself to this group's leader.
    Ask(GroupId),
    /// Ask these peers what they know of the object, in [`Lookup::round`].
    Locate(BTreeSet<PeerId>),
    /// Wait for answers, or for the timer.
    Wait,
    /// Everybody was asked and nobody has it; ask again after a pause.
    Pause,
    /// Every group denied owning or sending it twice, none is out of reach, all know the same groups, and nothing
    /// moved in between (R4).
    NotFound,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    Asking(GroupId),
    Homes(BTreeSet<PeerId>),
    Everyone(Round),
    Pausing,
}

/// One round of asking everybody. An object that moves while a round goes on can dodge all questions; so absence
/// needs two rounds between which nothing moved (the double collect of Afek et al., "Atomic Snapshots of Shared
/// Memory", 1993).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Round {
    waiting: BTreeSet<PeerId>,
    /// The counter of each peer that denied.
    denied: BTreeMap<PeerId, u64>,
    /// The asking peer's own counter when the round began.
    here: u64,
    /// Both of the round before, if everybody denied in it.
    former: Option<(BTreeMap<PeerId, u64>, u64)>,
    /// Whether somebody owns or sends the object.
    held: bool,
    /// Whether who has answered was asked again.
    all_again: bool,
    /// Whether somebody knows other groups than the asker: one of them may have the object.
    strangers: bool,
}

/// One search.
#[derive(Clone, Debug)]
pub struct Lookup {
    object: ObjectId,
    best: Option<Record>,
    stage: Stage,
    /// The number of the present round of questions: what answers a former one says nothing any more.
    round: u64,
    /// The groups asked since the last success; they all learn the end (path compression).
    path: Vec<GroupId>,
    silent: u32,
    /// The group to be asked has just said by itself that it owns the object, when everybody was asked.
    named_by_owner: bool,
    /// How often it followed the word of an owner or a sender below its best record, since it began.
    words: u32,
    /// What the best record came from.
    led_by: Source,
    trail: Trail,
}

impl Lookup {
    /// Begins with what is known already, and from where. `number` tells it from all former lookups of the same peer, whose late
    /// answers must not count for this one.
    #[must_use]
    pub fn new(object: ObjectId, known: Option<(Source, Record)>, number: u64) -> Self {
        let mut trail = Trail::default();
        if let Some((source, record)) = known {
            trail.push(Step::Knew(source, record));
        }
        Self {
            object,
            best: known.map(|(_, record)| record),
            stage: Stage::Pausing,
            round: number.saturating_mul(ROUNDS_PER_LOOKUP),
            path: Vec::new(),
            silent: 0,
            named_by_owner: false,
            words: 0,
            led_by: known.map_or(Source::Search, |(source, _)| source),
            trail,
        }
    }

    /// The best record so far.
    #[must_use]
    pub const fn best(&self) -> Option<Record> {
        self.best
    }

    /// The number of the present round of questions.
    #[must_use]
    pub const fn round(&self) -> u64 {
        self.round
    }

    /// Whether it asks all peers, because no home knew the object.
    #[must_use]
    pub const fn asks_everyone(&self) -> bool {
        matches!(self.stage, Stage::Everyone(_))
    }

    /// What the best record came from.
    #[must_use]
    pub const fn led_by(&self) -> Source {
        self.led_by
    }

    /// What the search has done so far.
    #[must_use]
    pub const fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The groups that were asked.
    #[must_use]
    pub fn path(&self) -> &[GroupId] {
        &self.path
    }

    /// First step, and the step after a pause.
    pub fn begin(&mut self, reachable: &Reachable) -> Next {
        self.begin_at_best().unwrap_or_else(|| self.ask_homes(reachable))
    }

    /// As [`Lookup::begin`], if there is a record to begin with.
    pub fn begin_at_best(&mut self) -> Option<Next> {
        self.path.clear();
        self.silent = 0;
        self.words = 0;
        self.best.map(|record| self.ask(record.group))
    }

    /// A newer record came without being asked for. Returns whom to ask if that changes.
    pub fn learn(&mut self, record: Record) -> Option<Next> {
        let next = self.learn_from(Source::Hint, record);
        if self.best == Some(record) {
            self.trail.push(Step::Knew(Source::Hint, record));
        }
        next
    }

    fn learn_from(&mut self, source: Source, record: Record) -> Option<Next> {
        if record.object != self.object || self.best.is_some_and(|best| !record.outranks(&best)) {
            return None;
        }
        self.best = Some(record);
        self.led_by = source;
        if self.path.len() >= HOP_LIMIT {
            return None;
        }
        Some(self.ask(record.group))
    }

    /// An answer came; `groups_digest` tells which groups the asking peer knows. `None` where it depends on whom this peer
    /// can ask what comes next: then `go_on` follows. Most answers do not.
    pub fn told(&mut self, answer: Answer, asked: Option<GroupId>, groups_digest: u64) -> Option<Next> {
        self.trail.push(Step::Told(answer.peer, answer.holds, answer.record));
        let source = match &self.stage {
            Stage::Asking(_) => Source::Pointer,
            Stage::Homes(_) => Source::Home,
            Stage::Everyone(_) | Stage::Pausing => Source::Search,
        };
        if let Some(record) = answer.record
            && let Some(next) = self.learn_from(source, record)
        {
            self.silent = 0;
            self.named_by_owner = source == Source::Search && answer.holds == Holds::Owns;
            return Some(next);
        }
        let of_this_round = answer.round == self.round;
        if let Some(next) = self.follow_word(&answer, asked) {
            self.silent = 0;
            return Some(next);
        }
        let waiting = match &mut self.stage {
            // The group that was asked denies, and knows nothing newer that may be followed.
            Stage::Asking(group) if asked == Some(*group) => {
                self.silent = 0;
                return None;
            }
            // Only what is of use ends a silence: else anybody could keep a search where it is, by saying anything.
            Stage::Asking(_) | Stage::Pausing => return Some(Next::Wait),
            Stage::Homes(_) | Stage::Everyone(_) if !of_this_round => return Some(Next::Wait),
            Stage::Homes(waiting) => {
                if !waiting.remove(&answer.peer) {
                    return Some(Next::Wait);
                }
                waiting
            }
            Stage::Everyone(round) => {
                round.held |= answer.holds != Holds::No;
                if !round.waiting.remove(&answer.peer) {
                    return Some(Next::Wait);
                }
                round.denied.insert(answer.peer, answer.moves);
                round.strangers |= answer.groups_digest != groups_digest;
                &mut round.waiting
            }
        };
        self.silent = 0;
        if waiting.is_empty() { None } else { Some(Next::Wait) }
    }

    /// All who were asked have answered: whoever comes next.
    pub fn go_on(&mut self, reachable: &Reachable) -> Next {
        match &self.stage {
            Stage::Asking(_) | Stage::Pausing => self.ask_homes(reachable),
            Stage::Homes(_) => self.ask_everyone(None, reachable),
            Stage::Everyone(_) => self.all_answered(reachable),
        }
    }

    /// Who owns the object, or is sending it away, knows where it is, whatever the best record claims: that may be a lie that
    /// outranks the truth (R1). So its own word is followed although it does not climb (R2), and past the hop limit.
    fn follow_word(&mut self, answer: &Answer, asked: Option<GroupId>) -> Option<Next> {
        let record = answer.record.filter(|record| record.object == self.object)?;
        let (was_asked, source) = match &self.stage {
            Stage::Asking(group) => (asked == Some(*group), Source::Pointer),
            Stage::Homes(_) => (answer.round == self.round, Source::Home),
            Stage::Everyone(_) => (answer.round == self.round, Source::Search),
            Stage::Pausing => (false, Source::Search),
        };
        if !was_asked {
            return None;
        }
        let asks_everyone = self.asks_everyone();
        let ends_the_search = asks_everyone && answer.holds == Holds::Owns;
        let leads_on = match answer.holds {
            Holds::Owns => true,
            // What the best record says already was tried.
            Holds::Sending => self.best != Some(record),
            Holds::No => false,
        };
        if !ends_the_search && (!leads_on || self.words >= WORDS_MAX) {
            return None;
        }
        self.words += u32::from(!ends_the_search);
        // It stays the best: it says how new a record must be to be news.
        self.best = self.best.filter(|best| best.outranks(&record)).or(Some(record));
        self.led_by = source;
        let next = self.ask(record.group);
        self.named_by_owner = ends_the_search;
        Some(next)
    }

    /// The group that was asked has the object and makes the asker wait: no reason to search elsewhere.
    pub const fn heard(&mut self) {
        self.silent = 0;
    }

    /// The group to be asked cannot be: it is this peer's own, or its leader is out of reach.
    pub fn cannot_ask(&mut self, reachable: &Reachable) -> Next {
        if self.named_by_owner {
            // Nobody knows more than its owner: who leads the group is told soon, and to ask all again at once would be to ask as
            // fast as the network goes until then.
            self.stage = Stage::Pausing;
            return Next::Pause;
        }
        self.ask_homes(reachable)
    }

    /// Nothing came for a while.
    pub fn timed_out(&mut self, reachable: &Reachable) -> Next {
        self.silent += 1;
        match &mut self.stage {
            Stage::Asking(group) if self.silent <= SILENT_ASKED_MAX => Next::Ask(*group),
            Stage::Asking(_) => self.ask_homes(reachable),
            Stage::Homes(_) => self.ask_everyone(None, reachable),
            // Once, who has answered is asked again too: the object may have come there since, and the silent ones may never
            // answer.
            Stage::Everyone(round) if !round.all_again => {
                round.all_again = true;
                Next::Locate(reachable.everyone.clone())
            }
            Stage::Everyone(round) if self.silent <= SILENT_MAX => Next::Locate(round.waiting.clone()),
            Stage::Everyone(_) | Stage::Pausing => self.begin(reachable),
        }
    }

    fn ask(&mut self, group: GroupId) -> Next {
        self.stage = Stage::Asking(group);
        self.named_by_owner = false;
        if self.path.last() != Some(&group) {
            self.path.push(group);
        }
        self.trail.push(Step::AskedGroup(group));
        Next::Ask(group)
    }

    fn ask_homes(&mut self, reachable: &Reachable) -> Next {
        if reachable.homes.is_empty() {
            return self.ask_everyone(None, reachable);
        }
        self.round += 1;
        self.stage = Stage::Homes(reachable.homes.clone());
        self.trail.push(Step::AskedHomes(reachable.homes.iter().copied().collect()));
        Next::Locate(reachable.homes.clone())
    }

    fn ask_everyone(&mut self, former: Option<(BTreeMap<PeerId, u64>, u64)>, reachable: &Reachable) -> Next {
        self.round += 1;
        self.silent = 0;
        self.path.clear();
        let waiting = reachable.everyone.clone();
        self.trail.push(Step::AskedEveryone(waiting.len()));
        self.stage = Stage::Everyone(Round { waiting, former, here: reachable.moves_here, ..Round::default() });
        if reachable.everyone.is_empty() {
            self.all_answered(reachable)
        } else {
            Next::Locate(reachable.everyone.clone())
        }
    }

    fn all_answered(&mut self, reachable: &Reachable) -> Next {
        let Stage::Everyone(round) = &self.stage else { return Next::Wait };
        if !round.waiting.is_empty() {
            return Next::Wait;
        }
        if round.held || round.strangers || reachable.held_here || reachable.someone_missing {
            self.stage = Stage::Pausing;
            return Next::Pause;
        }
        // R4: `NotFound` only when every group denied and nothing moved while they were asked.
        let denied = (round.denied.clone(), round.here);
        let nothing_moved = round.former.as_ref() == Some(&denied) && round.here == reachable.moves_here;
        if nothing_moved || round.denied.is_empty() {
            return Next::NotFound;
        }
        self.ask_everyone(Some(denied), reachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::Epoch;

    const OBJECT: ObjectId = ObjectId::from_u128(5);

    impl Lookup {
        fn answered(&mut self, answer: Answer, asked: Option<GroupId>, reachable: &Reachable) -> Next {
            self.told(answer, asked, reachable.groups_digest).unwrap_or_else(|| self.go_on(reachable))
        }
    }

    fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn group(byte: u8) -> GroupId {
        GroupId::from_u128(u128::from(byte))
    }

    fn record(holder: u8, epoch: u64) -> Record {
        Record { object: OBJECT, group: group(holder), epoch: Epoch::from_u64(epoch) }
    }

    fn reachable() -> Reachable {
        Reachable { homes: [peer(1)].into(), everyone: [peer(1), peer(2)].into(), ..Reachable::default() }
    }

    fn in_round(lookup: &Lookup, answer: Answer) -> Answer {
        Answer { round: lookup.round(), ..answer }
    }

    fn denial(byte: u8, record: Option<Record>) -> Answer {
        Answer { peer: peer(byte), holds: Holds::No, record, moves: 7, round: 0, groups_digest: 0 }
    }

    #[test]
    fn pointers_are_followed_while_they_climb_then_the_homes_then_everyone() {
        let reachable = reachable();
        let mut lookup = Lookup::new(OBJECT, Some((Source::Hint, record(1, 3))), 1);
        assert_eq!(lookup.begin(&reachable), Next::Ask(group(1)));
        assert_eq!(lookup.answered(denial(1, Some(record(2, 4))), Some(group(1)), &reachable), Next::Ask(group(2)));
        // A pointer that does not climb is not followed (R2).
        let next = lookup.answered(denial(2, Some(record(1, 3))), Some(group(2)), &reachable);
        assert_eq!(next, Next::Locate([peer(1)].into()));
        let answer = in_round(&lookup, denial(1, Some(record(2, 4))));
        assert_eq!(lookup.answered(answer, None, &reachable), Next::Locate([peer(1), peer(2)].into()));
        // What answers a former round says nothing.
        assert_eq!(lookup.answered(answer, None, &reachable), Next::Wait);
        let answer = in_round(&lookup, denial(1, Some(record(2, 4))));
        assert_eq!(lookup.answered(answer, None, &reachable), Next::Wait);
        // Somebody is sending it: no verdict, a pause, then the best record again.
        let sending = in_round(&lookup, Answer { holds: Holds::Sending, ..denial(2, None) });
        assert_eq!(lookup.answered(sending, None, &reachable), Next::Pause);
        assert_eq!(lookup.timed_out(&reachable), Next::Ask(group(2)));
        assert_eq!(lookup.led_by(), Source::Pointer);
        assert_eq!(lookup.trail().steps()[0], Step::Knew(Source::Hint, record(1, 3)));
        assert_eq!(lookup.trail().steps()[2], Step::Told(peer(1), Holds::No, Some(record(2, 4))));
    }

    #[test]
    fn not_found_needs_everybody_twice_with_nothing_moving_in_between() {
        let mut reachable = reachable();
        let everyone = Next::Locate([peer(1), peer(2)].into());
        let mut lookup = Lookup::new(OBJECT, None, 1);
        assert_eq!(lookup.begin(&reachable), Next::Locate([peer(1)].into()));
        let deny = |lookup: &mut Lookup, answer: Answer, reachable: &Reachable| {
            let answer = in_round(lookup, answer);
            lookup.answered(answer, None, reachable)
        };
        assert_eq!(deny(&mut lookup, denial(1, None), &reachable), everyone);
        assert_eq!(deny(&mut lookup, denial(1, None), &reachable), Next::Wait);
        assert_eq!(deny(&mut lookup, denial(2, None), &reachable), everyone);
        // Something moved at the second peer: it may have dodged the questions.
        assert_eq!(deny(&mut lookup, denial(1, None), &reachable), Next::Wait);
        let moved = Answer { moves: 8, ..denial(2, None) };
        assert_eq!(deny(&mut lookup, moved, &reachable), everyone);
        assert_eq!(deny(&mut lookup, moved, &reachable), Next::Wait);
        assert_eq!(deny(&mut lookup.clone(), denial(1, None), &reachable), Next::NotFound);
        reachable.moves_here = 1;
        assert_eq!(deny(&mut lookup.clone(), denial(1, None), &reachable), everyone);
        reachable.held_here = true;
        assert_eq!(deny(&mut lookup.clone(), denial(1, None), &reachable), Next::Pause);
        reachable.held_here = false;
        let stranger = Answer { groups_digest: 5, ..denial(1, None) };
        assert_eq!(deny(&mut lookup.clone(), stranger, &reachable), Next::Pause);
        reachable.someone_missing = true;
        assert_eq!(deny(&mut lookup, denial(1, None), &reachable), Next::Pause);
    }

    #[test]
    fn an_owner_that_cannot_be_asked_is_waited_for_and_not_asked_for_again_at_once() {
        let reachable = reachable();
        for known in [None, Some((Source::Hint, record(2, 9)))] {
            let mut lookup = Lookup::new(OBJECT, known, 1);
            lookup.begin(&reachable);
            for _ in 0..3 {
                lookup.ask_everyone(None, &reachable);
                let owns = in_round(&lookup, Answer { holds: Holds::Owns, ..denial(2, Some(record(2, 4))) });
                assert_eq!(lookup.answered(owns, None, &reachable), Next::Ask(group(2)));
                assert_eq!(lookup.cannot_ask(&reachable), Next::Pause);
                // After the pause all are asked as before.
                assert_eq!(lookup.timed_out(&reachable), Next::Ask(group(2)));
                assert_eq!(lookup.cannot_ask(&reachable), Next::Locate([peer(1)].into()));
            }
        }
    }

    #[test]
    fn the_word_of_an_owner_or_a_sender_is_followed_below_a_lie_and_not_in_circles() {
        let reachable = reachable();
        let lie = record(9, 1 << 20);
        let mut lookup = Lookup::new(OBJECT, Some((Source::Hint, lie)), 1);
        lookup.begin(&reachable);
        for circle in 1..=WORDS_MAX + 1 {
            // Whom the lie names denies.
            let asked = lookup.path().last().copied();
            assert_eq!(lookup.answered(denial(1, Some(lie)), asked, &reachable), Next::Locate([peer(1)].into()));
            let owns = in_round(&lookup, Answer { holds: Holds::Owns, ..denial(1, Some(record(2, 4))) });
            // Of a home, and of a former round, that says nothing any more.
            assert_eq!(lookup.clone().answered(Answer { round: 0, ..owns }, None, &reachable), Next::Wait);
            let next = lookup.answered(owns, None, &reachable);
            if circle <= WORDS_MAX {
                assert_eq!((next, lookup.best()), (Next::Ask(group(2)), Some(lie)));
            } else {
                assert_eq!(next, Next::Locate(reachable.everyone.clone()));
            }
        }
        // Who was asked itself, and has sent it away meanwhile, says whereto.
        let mut waits = Lookup::new(OBJECT, Some((Source::Hint, lie)), 1);
        waits.ask_everyone(None, &reachable);
        let owns = in_round(&waits, Answer { holds: Holds::Owns, ..denial(2, Some(record(2, 4))) });
        assert_eq!(waits.answered(owns, None, &reachable), Next::Ask(group(2)));
        let sent = Answer { holds: Holds::Sending, ..denial(2, Some(record(3, 5))) };
        assert_eq!(waits.clone().answered(sent, None, &reachable), Next::Wait);
        assert_eq!(waits.answered(sent, Some(group(2)), &reachable), Next::Ask(group(3)));
        // Of everybody an owner's word always counts, a sender's as often as that.
        let sending = in_round(&lookup, Answer { holds: Holds::Sending, ..denial(2, Some(record(3, 5))) });
        assert_eq!(lookup.clone().answered(sending, None, &reachable), Next::Wait);
        let owns = in_round(&lookup, Answer { holds: Holds::Owns, ..denial(2, Some(record(2, 4))) });
        assert_eq!(lookup.clone().answered(owns, None, &reachable), Next::Ask(group(2)));
        lookup.begin(&reachable);
        lookup.ask_everyone(None, &reachable);
        let sending = in_round(&lookup, sending);
        assert_eq!(lookup.answered(sending, None, &reachable), Next::Ask(group(3)));
        // What is said again and was tried leads nowhere.
        lookup.ask_everyone(None, &reachable);
        let again = in_round(&lookup, Answer { holds: Holds::Sending, ..denial(2, Some(lie)) });
        assert_eq!(lookup.answered(again, None, &reachable), Next::Wait);
    }

    #[test]
    fn what_came_to_one_that_has_answered_is_found_though_another_is_silent() {
        let reachable = reachable();
        let everyone = Next::Locate(reachable.everyone.clone());
        let mut lookup = Lookup::new(OBJECT, None, 1);
        lookup.ask_everyone(None, &reachable);
        let denies = in_round(&lookup, denial(1, None));
        assert_eq!(lookup.answered(denies, None, &reachable), Next::Wait);
        assert_eq!(lookup.timed_out(&reachable), everyone);
        // What is of no use does not make the search more patient.
        for useless in [denies, Answer { round: 77, ..denial(2, None) }] {
            assert_eq!(lookup.answered(useless, None, &reachable), Next::Wait);
        }
        assert_eq!(lookup.clone().timed_out(&reachable), Next::Locate([peer(2)].into()));
        let owns = in_round(&lookup, Answer { holds: Holds::Owns, ..denial(1, Some(record(1, 4))) });
        assert_eq!(lookup.answered(owns, None, &reachable), Next::Ask(group(1)));
    }

    #[test]
    fn silence_is_not_waited_for_without_end() {
        let reachable = reachable();
        let mut lookup = Lookup::new(OBJECT, Some((Source::Hint, record(1, 3))), 1);
        lookup.begin(&reachable);
        assert_eq!(lookup.timed_out(&reachable), Next::Ask(group(1)));
        assert_eq!(lookup.timed_out(&reachable), Next::Locate([peer(1)].into()));
        assert!(matches!(lookup.timed_out(&reachable), Next::Locate(_)));
    }

    #[test]
    fn while_answers_trickle_in_who_has_answered_is_asked_again_once_only() {
        let everyone = [peer(1), peer(2), peer(3), peer(4)];
        let reachable = Reachable { everyone: everyone.into(), ..reachable() };
        let mut lookup = Lookup::new(OBJECT, None, 1);
        lookup.ask_everyone(None, &reachable);
        let denies = |lookup: &Lookup, byte: u8| in_round(lookup, denial(byte, None));
        assert_eq!(lookup.answered(denies(&lookup, 1), None, &reachable), Next::Wait);
        assert_eq!(lookup.timed_out(&reachable), Next::Locate(everyone.into()));
        // An answer of use ends the silence each time, and does not begin that anew.
        for answered in [2, 3] {
            assert_eq!(lookup.answered(denies(&lookup, answered), None, &reachable), Next::Wait);
            let silent = everyone[usize::from(answered)..].iter().copied().collect();
            assert_eq!(lookup.timed_out(&reachable), Next::Locate(silent), "after {answered}");
        }
    }
}
