//! Watches the journals of all groups from outside: what each leader appends, what becomes stable, and by that who may
//! write each object, and when its versions were made.
//!
//! What is stable is one sequence for each group, whichever member shows it (R7): every member is compared with the
//! first who did, entry by entry. Who owns what is judged by stable entries alone, each once. It refuses to look into
//! consensus beyond terms, positions and watermarks.

use crate::pointer_check::Departures;
use crate::trace::Trace;
use driftmesh_model::{Epoch, GroupId, LookupMap, Lsn, Micros, ObjectId, Term, Timestamp, codec};
use driftmesh_object_store::{Arrival, Departure, Entry, Fate, Group, MemberId, State};
use driftmesh_peer::Receipt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most violations that are kept.
const VIOLATIONS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    At(GroupId, Epoch),
    OnTheWay { from: GroupId, to: GroupId, number: u64, epoch: Epoch },
}

/// Something that a leader has just appended and that is not stable: a good moment for a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opening {
    /// A commit, whose receipt is out.
    Commit,
    /// An object leaves, to this group.
    Out(GroupId),
    /// An object arrived, from this group.
    In(GroupId),
    /// The first entry of a leader that was elected.
    Elected,
    /// The members change in two steps.
    Joint,
    /// The group has ended and nobody was told.
    Retired,
}

/// One group's journal, as all its members together show it.
#[derive(Default)]
struct Journal {
    /// The stable entries, each with its term: the one at position n is at index n - 1.
    stable: Vec<(Term, Entry)>,
    /// What leaders have appended beyond, each in its term: which of two survives is not known before one is stable.
    unstable: BTreeMap<(Lsn, Term), Entry>,
    /// When each leader appended what it does not know to be stable, us: one that does not know yet that it is deposed
    /// too.
    appended: BTreeMap<(Term, Lsn), u64>,
    /// Who led each term.
    leaders: BTreeMap<Term, MemberId>,
    retired: bool,
    /// The latest commit that its founder's clock allows, us since the epoch minus the true time.
    ahead_us: Option<u64>,
}

impl Journal {
    fn stable_to(&self) -> Lsn {
        Lsn::from_u64(self.stable.len() as u64)
    }

    fn at(&self, lsn: Lsn) -> Option<&(Term, Entry)> {
        self.stable.get(usize::try_from(lsn.as_u64().checked_sub(1)?).ok()?)
    }

    /// The next entry is stable; what leaders appended up to there is decided.
    fn push_stable(&mut self, term: Term, entry: Entry) {
        self.stable.push((term, entry));
        let stable_to = self.stable_to();
        while self.unstable.first_key_value().is_some_and(|((lsn, _), _)| *lsn <= stable_to) {
            self.unstable.pop_first();
        }
    }
}

/// How far one member of one group was looked at.
#[derive(Clone, Copy, Default)]
struct Looked {
    term: Term,
    tail: Lsn,
    watermark: Lsn,
}

/// What the journals have said so far.
#[derive(Default)]
pub(crate) struct Observer {
    places: BTreeMap<ObjectId, Place>,
    newest: LookupMap<ObjectId, Timestamp>,
    on_the_way: BTreeMap<(GroupId, GroupId, u64), ObjectId>,
    refused: BTreeSet<(GroupId, GroupId, u64)>,
    journals: BTreeMap<GroupId, Journal>,
    looked: BTreeMap<(MemberId, GroupId), Looked>,
    pub(crate) violations: Vec<String>,
    pub(crate) transfers: u64,
    pub(crate) departures: Departures,
    /// Entries that became stable in the present step of a peer, and that were not judged yet.
    fresh: BTreeMap<GroupId, VecDeque<(Entry, Timestamp)>>,
    /// Peers that ended so far, in whatever way.
    pub(crate) restarts: usize,
}

/// Where and when something is looked at.
pub(crate) struct Look<'a> {
    pub(crate) trace: &'a mut Trace,
    pub(crate) now_us: u64,
    pub(crate) peer: usize,
    /// The true time, us since the epoch.
    pub(crate) true_wall_us: u64,
    /// How far ahead of it a commit of a group founded here may lie, us.
    pub(crate) ahead_us: u64,
    /// How long an entry may be unstable before commits wait, us (R10).
    pub(crate) unstable_max_us: u64,
}

impl Observer {
    /// The group that owns an object by what is stable; `None` while it is on its way, or unknown.
    pub(crate) fn owner_of(&self, object: ObjectId) -> Option<GroupId> {
        match self.places.get(&object)? {
            Place::At(group, _) => Some(*group),
            Place::OnTheWay { .. } => None,
        }
    }

    /// All objects that any journal has named.
    pub(crate) fn objects(&self) -> impl Iterator<Item = ObjectId> {
        self.places.keys().copied()
    }

    /// Looks at what a member of a group has appended, and what it holds for stable, since the last time. Returns what
    /// was appended that makes a good moment for a fault, and whether anything has left the group.
    pub(crate) fn watch(&mut self, group: &Group, is_own: bool, look: &mut Look<'_>) -> (Vec<Opening>, bool) {
        let me = group.consensus().me();
        let looked = self.looked.get(&(me, group.id())).copied().unwrap_or_default();
        let now = Looked { term: group.term(), tail: group.tail(), watermark: group.watermark() };
        let leads = group.is_leading();
        if (leads && (now.tail, now.term) != (looked.tail, looked.term)) || now.watermark != looked.watermark {
            self.looked.insert((me, group.id()), now);
        } else {
            return (Vec::new(), false);
        }
        let mut openings = Vec::new();
        if leads {
            let from = if now.term == looked.term { looked.tail } else { Lsn::ZERO };
            self.appended(group, from, is_own, look, &mut openings);
        }
        // One that has dropped its journal and follows again in one step begins at the beginning.
        let follows_again = !leads && now.tail < looked.watermark;
        let looked = if follows_again { Looked::default() } else { looked };
        if now.watermark < looked.watermark {
            self.wrong(format!(
                "the watermark of group {} sank from {} to {}",
                group.id(),
                looked.watermark,
                now.watermark
            ));
        }
        let left = self.became_stable(group, looked.watermark, look.true_wall_us);
        (openings, left)
    }

    fn appended(&mut self, group: &Group, from: Lsn, is_own: bool, look: &mut Look<'_>, openings: &mut Vec<Opening>) {
        let (id, term, me) = (group.id(), group.term(), group.consensus().me());
        let journal = self.journals.entry(id).or_default();
        if is_own && journal.ahead_us.is_none() {
            journal.ahead_us = Some(look.ahead_us);
        }
        let other = *journal.leaders.entry(term).or_insert(me);
        let watermark = group.watermark();
        journal.appended.retain(|(of, lsn), _| *of != term || *lsn > watermark);
        let mut waited_long = 0;
        for (lsn, entry) in group.entries_from(from.next()) {
            if group.consensus().term_at(lsn) != Some(term) {
                continue;
            }
            if look.trace.is_wanted() {
                let bytes = codec::encode(entry).expect("entries encode");
                look.trace.note(look.now_us, look.peer, "journal", &bytes);
            }
            journal.unstable.insert((lsn, term), entry.clone());
            if lsn > watermark {
                journal.appended.insert((term, lsn), look.now_us);
            }
            let oldest = journal.appended.get(&(term, watermark.next())).copied();
            let waits_since = look.now_us - oldest.unwrap_or(look.now_us);
            if matches!(entry, Entry::Commit { .. }) && lsn > watermark && waits_since >= look.unstable_max_us {
                waited_long = waited_long.max(waits_since);
            }
            if lsn > watermark {
                openings.extend(opening(entry, is_own));
            }
        }
        if waited_long > 0 {
            self.wrong(format!("R10: group {id} commits, though an entry of it is not stable for {waited_long} us"));
        }
        if other != me {
            self.wrong(format!("group {id} has two leaders in term {term}: {other:?} and {me:?}"));
        }
    }

    /// Judges what became stable in a step. One step may move an object through several groups that one peer leads, so
    /// an entry waits for the one of another group that it follows from.
    pub(crate) fn judge(&mut self) {
        while let Some(first) = self.fresh.keys().next().copied() {
            let ready = self
                .fresh
                .iter()
                .find(|(group, entries)| entries.front().is_some_and(|(entry, _)| self.follows(**group, entry)));
            let group = ready.map(|(group, _)| *group);
            let group = group.unwrap_or(first);
            let Some(entries) = self.fresh.get_mut(&group) else { return };
            let next = entries.pop_front();
            if entries.is_empty() {
                self.fresh.remove(&group);
            }
            if let Some((entry, latest)) = next {
                self.entry(group, &entry, latest);
            }
        }
    }

    /// Whether what an entry follows from in another group's journal has been judged.
    fn follows(&self, group: GroupId, entry: &Entry) -> bool {
        match entry {
            Entry::TransferIn { from, arrivals, .. } => arrivals.iter().all(|arrival| {
                let expected = on_the_way(*from, group, arrival);
                self.places.get(&arrival.object) == Some(&expected)
            }),
            Entry::Handed { to, numbers } => !numbers.iter().any(|number| {
                let object = self.on_the_way.get(&(group, *to, *number));
                object.is_some_and(|object| self.is_on_the_way(*object, group, *to, *number))
            }),
            Entry::TakenBack { to, number } => self.refused.contains(&(group, *to, *number)) || self.is_retired(*to),
            Entry::TermStart { .. }
            | Entry::Window { .. }
            | Entry::Members(_)
            | Entry::Commit { .. }
            | Entry::TransferOut { .. }
            | Entry::Refused { .. }
            | Entry::Retired
            | Entry::Imported { .. } => true,
        }
    }

    /// Compares what a member holds for stable with what others do, and judges what nobody has shown before.
    fn became_stable(&mut self, group: &Group, from: Lsn, true_wall_us: u64) -> bool {
        let id = group.id();
        let mut left = false;
        let base = group.consensus().base();
        let mut lsn = from;
        while lsn < group.watermark() {
            lsn = lsn.next();
            let here = group.consensus().entry(lsn).zip(group.consensus().term_at(lsn));
            let journal = self.journals.entry(id).or_default();
            match (journal.at(lsn), here) {
                (Some((term, entry)), Some((here, its_term))) => {
                    if (*term, entry) != (its_term, here) {
                        let text = format!(
                            "R7: members of group {id} hold {entry:?} of term {term} and {here:?} of term {its_term} for \
                             stable at {lsn}"
                        );
                        self.wrong(text);
                        return left;
                    }
                }
                (Some(_), None) => {
                    if lsn > base {
                        self.wrong(format!("a member of group {id} holds nothing at {lsn}, below its watermark"));
                        return left;
                    }
                }
                (None, _) => {
                    let noted = noted(group, journal, lsn);
                    let Some((term, entry)) = here.map(|(entry, term)| (term, (**entry).clone())).or(noted) else {
                        self.wrong(format!("nobody has seen the entry of group {id} at {lsn}, which is stable"));
                        return left;
                    };
                    let first = journal.stable_to();
                    if first.next() != lsn {
                        self.wrong(format!("group {id} is stable to {lsn}, but {first} was the last entry seen"));
                        return left;
                    }
                    let latest = journal.ahead_us.map(|ahead| Timestamp::from_wall(Micros(true_wall_us + ahead)));
                    journal.push_stable(term, entry.clone());
                    let latest = latest.unwrap_or(Timestamp::MAX);
                    self.fresh.entry(id).or_default().push_back((entry.clone(), latest));
                    left |= matches!(entry, Entry::TransferOut { .. });
                }
            }
        }
        left
    }

    /// Forgets how far a member was looked at of groups that it has left: it may follow them again, from the beginning.
    /// A leader that ends a group may drop it in the step in which it journals the last entry: then nobody ever sees
    /// that, and its word counts.
    pub(crate) fn forget_left(&mut self, me: MemberId, groups: &[GroupId], has_ended: impl Fn(GroupId) -> bool) {
        let all = (me, GroupId::from_u128(0))..=(me, GroupId::from_u128(u128::MAX));
        // One step may leave several.
        let looked = self.looked.range(all).map(|((_, group), _)| *group);
        for left in looked.filter(|group| !groups.contains(group)).collect::<Vec<_>>() {
            self.looked.remove(&(me, left));
            if has_ended(left) {
                self.journals.entry(left).or_default().retired = true;
            }
        }
    }

    /// A member holds again what it held some time ago.
    pub(crate) fn set_back(&mut self, member: MemberId) {
        self.looked.retain(|(me, _), _| *me != member);
    }

    pub(crate) fn wrong(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(text);
        }
    }

    fn entry(&mut self, group: GroupId, entry: &Entry, latest: Timestamp) {
        if self.is_retired(group) && !matches!(entry, Entry::Members(_) | Entry::TermStart { .. } | Entry::Retired) {
            self.wrong(format!("group {group} has ended, and goes on with {entry:?}"));
        }
        match entry {
            Entry::TermStart { .. } | Entry::Window { .. } | Entry::Members(_) | Entry::Imported { .. } => {}
            Entry::Commit { commit, writes, outcome: _, schedules: _ } => {
                if *commit > latest {
                    self.wrong(format!("group {group} committed at {commit}, far ahead of its own clock"));
                }
                for write in writes {
                    self.written(group, write.object, *commit);
                }
            }
            Entry::TransferOut { to, first, departures, .. } => {
                for (departure, number) in departures.iter().zip(*first..) {
                    self.left(group, (*to, number), departure);
                }
            }
            Entry::TransferIn { from, arrivals, .. } => {
                for arrival in arrivals {
                    self.arrived(group, *from, arrival);
                }
            }
            Entry::Handed { to, numbers } => {
                for number in numbers {
                    if let Some(object) = self.on_the_way.remove(&(group, *to, *number))
                        && self.is_on_the_way(object, group, *to, *number)
                    {
                        self.wrong(format!("group {group} dropped object {object} before {to} adopted it"));
                    }
                }
            }
            Entry::Refused { from, number, unsettled_from: _ } => {
                self.refused.insert((*from, group, *number));
            }
            Entry::TakenBack { to, number } => self.taken_back(group, *to, *number),
            Entry::Retired => self.retired(group),
        }
    }

    fn is_on_the_way(&self, object: ObjectId, group: GroupId, to: GroupId, number: u64) -> bool {
        matches!(self.places.get(&object), Some(Place::OnTheWay { from, to: there, number: sent, .. })
            if *from == group && *there == to && *sent == number)
    }

    fn left(&mut self, group: GroupId, (to, number): (GroupId, u64), departure: &Departure) {
        let Departure { object, epoch } = *departure;
        match self.places.get(&object) {
            Some(Place::At(at, held)) if *at == group && held.next() == epoch => {}
            other => {
                let text = format!("group {group} sent object {object} at epoch {epoch}, but it is {other:?}");
                self.wrong(text);
            }
        }
        self.places.insert(object, Place::OnTheWay { from: group, to, number, epoch });
        self.on_the_way.insert((group, to, number), object);
        self.departures.left(group, object, epoch, self.restarts);
    }

    fn arrived(&mut self, group: GroupId, from: GroupId, arrival: &Arrival) {
        let (object, epoch) = (arrival.object, arrival.epoch);
        if self.places.get(&object) != Some(&on_the_way(from, group, arrival)) {
            let place = self.places.get(&object);
            let text = format!("group {group} adopted object {object} at epoch {epoch}, but it is {place:?}");
            self.wrong(text);
        }
        self.transfers += 1;
        self.departures.arrived(group, object);
        self.places.insert(object, Place::At(group, epoch));
    }

    fn written(&mut self, group: GroupId, object: ObjectId, commit: Timestamp) {
        match self.places.get(&object) {
            None => {
                self.places.insert(object, Place::At(group, Epoch::ZERO.next()));
            }
            Some(Place::At(at, _)) if *at == group => {}
            Some(place) => {
                let text = format!("group {group} committed to object {object}, but it is {place:?}");
                self.wrong(text);
            }
        }
        let newest = self.newest.insert(object, commit);
        if newest.is_some_and(|newest| newest >= commit) {
            self.wrong(format!("object {object} was committed to at {commit}, below its newest version"));
        }
    }

    fn taken_back(&mut self, group: GroupId, to: GroupId, number: u64) {
        let Some(object) = self.on_the_way.remove(&(group, to, number)) else { return };
        self.departures.arrived(group, object);
        // A group that has ended without adopting it has refused it for ever.
        let is_refused = self.refused.contains(&(group, to, number)) || self.is_retired(to);
        match self.places.get(&object) {
            Some(Place::OnTheWay { from, to: there, epoch, number: sent })
                if *from == group && *there == to && *sent == number && is_refused =>
            {
                let epoch = epoch.next();
                self.places.insert(object, Place::At(group, epoch));
            }
            place => {
                let text = format!("group {group} took back object {object}, which {to} did not refuse: {place:?}");
                self.wrong(text);
                self.places.insert(object, Place::At(group, Epoch::ZERO));
            }
        }
    }

    fn retired(&mut self, group: GroupId) {
        let stands = |place: &Place| match place {
            Place::At(at, _) => *at == group,
            Place::OnTheWay { from, .. } => *from == group,
        };
        let left = self.places.iter().filter(|(_, place)| stands(place)).count();
        if left > 0 {
            self.wrong(format!("group {group} has ended and owned or was sending {left} objects"));
        }
        self.journals.entry(group).or_default().retired = true;
    }

    /// Whether the group has ended, by its journal.
    pub(crate) fn is_retired(&self, group: GroupId) -> bool {
        self.journals.get(&group).is_some_and(|journal| journal.retired)
    }

    /// All groups that ever appended anything.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.journals.keys().copied()
    }

    /// What became of a receipt, by the stable journal (R22).
    pub(crate) fn fate(&self, receipt: &Receipt) -> Fate {
        let Some(journal) = self.journals.get(&receipt.group) else { return Fate::Unknown };
        let starts = journal.stable.iter().enumerate().filter_map(|(index, (_, entry))| {
            if let Entry::TermStart { term } = entry { Some((*term, Lsn::from_u64(index as u64 + 1))) } else { None }
        });
        let mut began = false;
        for (term, start) in starts {
            began |= term == receipt.term;
            if term > receipt.term && (start <= receipt.lsn || !began) {
                return Fate::Lost;
            }
        }
        // A leader that ends a group may drop it in the step in which its last entries became stable: nobody shows those, and
        // they were seen when they were appended. After it there was no other leader.
        let is_the_last = journal.leaders.last_key_value().is_some_and(|(term, _)| *term == receipt.term);
        let is_among_the_last =
            journal.retired && is_the_last && journal.unstable.contains_key(&(receipt.lsn, receipt.term));
        if began && (journal.stable_to() >= receipt.lsn || is_among_the_last) { Fate::Stable } else { Fate::Unknown }
    }

    /// The state that the stable journal up to a position says.
    pub(crate) fn state_at(&self, group: GroupId, to: Lsn) -> State {
        let mut state = State::new();
        if let Some(journal) = self.journals.get(&group) {
            let to = usize::try_from(to.as_u64()).unwrap_or(usize::MAX);
            for (index, (_, entry)) in journal.stable.iter().take(to).enumerate() {
                state.apply_stable(Lsn::from_u64(index as u64 + 1), entry);
            }
        }
        state
    }

    /// The end of a group's stable journal.
    pub(crate) fn stable_to(&self, group: GroupId) -> Lsn {
        self.journals.get(&group).map_or(Lsn::ZERO, Journal::stable_to)
    }

    /// Replays the journal of a group up to where a member has applied it, and compares: the state of a member is a
    /// fold over a prefix of the journal (R7). `None` when it is.
    pub(crate) fn differs(&self, group: &Group) -> Option<String> {
        let id = group.id();
        if let Some(why) = group.halted() {
            return Some(format!("a member of group {id} has stopped: {why}"));
        }
        let applied = group.applied();
        // What is not stable at a leader is its own: another one may have taken its place without its knowing yet.
        let mut state = self.state_at(id, applied.min(group.watermark()));
        for (lsn, entry) in group.entries_from(state.applied().next()) {
            if lsn <= applied {
                state.apply(lsn, entry);
            }
        }
        state.same_content(group).err().map(|what| format!("group {id} and its journal differ: {what}"))
    }
}

/// What a member has dropped in the step in which it became stable: its term table says whose entry it was, and what that
/// leader appended there was seen. A leader may drop its first entry in the step in which it journals it, before anybody
/// has seen it.
fn noted(group: &Group, journal: &Journal, lsn: Lsn) -> Option<(Term, Entry)> {
    let starts = group.terms().starts();
    let (term, start) = *starts[..starts.partition_point(|(_, start)| *start <= lsn)].last()?;
    if start == lsn {
        return Some((term, Entry::TermStart { term }));
    }
    journal.unstable.get(&(lsn, term)).map(|entry| (term, entry.clone()))
}

/// Where an object must be that arrives.
const fn on_the_way(from: GroupId, to: GroupId, arrival: &Arrival) -> Place {
    Place::OnTheWay { from, to, number: arrival.number, epoch: arrival.epoch }
}

fn opening(entry: &Entry, is_own: bool) -> Option<Opening> {
    match entry {
        Entry::Commit { .. } => Some(Opening::Commit),
        Entry::TransferOut { to, .. } => Some(Opening::Out(*to)),
        Entry::TransferIn { from, .. } => Some(Opening::In(*from)),
        Entry::TermStart { .. } if !is_own => Some(Opening::Elected),
        Entry::Members(membership) if membership.incoming.is_some() => Some(Opening::Joint),
        Entry::Retired => Some(Opening::Retired),
        Entry::TermStart { .. }
        | Entry::Members(_)
        | Entry::Handed { .. }
        | Entry::Refused { .. }
        | Entry::TakenBack { .. }
        | Entry::Window { .. }
        | Entry::Imported { .. } => None,
    }
}
