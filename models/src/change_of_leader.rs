//! A change of leader: the consensus of decision 0016, with R7 (prefix), R9 (fence) and R22 (fate).
//!
//! *Covered.* Three voters of one group. Any member stands for election at any time, with one vote a term for whose journal
//! is as new as one's own; a leader appends at once, sends entries after any position, counts acknowledgements, and moves
//! its watermark to what a majority holds in its own term. A leader that was replaced goes on until it hears of it. All that
//! was ever said stays in the network for ever: what is lost is never delivered, and anything may be doubled or late. Since
//! a leader's journal only grows in its term, its `Append`s are the slices of what it ever held ([`Lead`]). A crash is a
//! member that does nothing any more: members keep everything in memory, so it never comes back (R11). Fates are told by
//! the real [`TermTable`].
//!
//! *Left out.* Trial votes, time and refusals, which serve speed alone (any member stands, and a leader tries any position);
//! changes of the members, learners and generations; copies of the state; several entries in one message, which are several
//! messages here. A member hears of a higher term by that term's `Vote` or `Append` alone: by a refusal it would hear less.
//!
//! *States.* 249,190 with three terms and a commit in each, 376,939 with four terms and a commit in the first.

use crate::checking::{assert_broken, assert_holds};
use driftmesh_model::{Lsn, Term};
use driftmesh_object_store::{Fate, TermTable};
use stateright::{Model, Property};
use std::collections::BTreeSet;

const MEMBERS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum What {
    TermStart,
    Commit,
}

/// An entry: which leader made it, of which term, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Entry {
    term: u8,
    by: usize,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Member {
    term: u8,
    voted_for: Option<usize>,
    log: Vec<Entry>,
    watermark: usize,
    /// Up to here its journal is the present leader's.
    verified: usize,
}

impl Member {
    fn last(&self) -> (u8, usize) {
        (self.term_at(self.log.len()), self.log.len())
    }

    fn term_at(&self, lsn: usize) -> u8 {
        lsn.checked_sub(1).and_then(|at| self.log.get(at)).map_or(0, |entry| entry.term)
    }

    fn follow(&mut self, term: u8, voted_for: Option<usize>) {
        (self.term, self.voted_for, self.verified) = (term, voted_for, self.watermark);
    }

    fn stable(&self) -> &[Entry] {
        &self.log[..self.watermark]
    }
}

/// A member asks for votes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Vote {
    term: u8,
    candidate: usize,
    /// Term and position of its last entry.
    last: (u8, usize),
}

/// A vote that was given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Voted {
    term: u8,
    voter: usize,
    candidate: usize,
}

/// A member's time as a leader: all that it ever said as such.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Lead {
    term: u8,
    leader: usize,
    /// Its own first entry.
    first: usize,
    log: Vec<Entry>,
    watermark: usize,
    /// What each member said to hold. Nobody needs it when the lead is over.
    acknowledged: [usize; MEMBERS],
}

impl Lead {
    fn stable(&self) -> &[Entry] {
        &self.log[..self.watermark]
    }

    /// The positions of the commits whose callers it gave receipts.
    fn receipts(&self) -> impl Iterator<Item = usize> {
        self.first + 1..=self.log.len()
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    members: [Member; MEMBERS],
    votes: BTreeSet<Vote>,
    voted: BTreeSet<Voted>,
    /// By term.
    leads: Vec<Lead>,
}

impl World {
    /// The lead that a member has at present, as far as it knows.
    fn lead_of(&self, member: usize) -> Option<usize> {
        self.leads.iter().position(|lead| lead.leader == member && lead.term == self.members[member].term)
    }

    /// Forgets what no member can be told any more, so that states that are alike are the same.
    fn tidy(&mut self, one_vote: bool) {
        let Self { members, votes, voted, leads } = self;
        let listens = |member: &Member, vote: &Vote| {
            member.term < vote.term || (member.term == vote.term && (member.voted_for.is_none() || !one_vote))
        };
        votes.retain(|vote| {
            let others = members.iter().enumerate().filter(|(number, _)| *number != vote.candidate);
            others.map(|(_, member)| member).any(|member| listens(member, vote))
        });
        let leads_already =
            |voted: &Voted| leads.iter().any(|lead| (lead.term, lead.leader) == (voted.term, voted.candidate));
        voted.retain(|voted| members[voted.candidate].term == voted.term && !leads_already(voted));
        for lead in leads {
            if members[lead.leader].term > lead.term {
                lead.acknowledged = [0; MEMBERS];
            }
        }
    }
}

/// What can happen, named as the messages and entries are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// A member stands for election in the next term.
    Vote { candidate: usize },
    /// A request for a vote arrives.
    Voted { vote: Vote, voter: usize },
    /// A majority has voted: the lead begins.
    TermStart { leader: usize },
    /// A leader appends.
    Commit { leader: usize },
    /// The entry of a lead after a position arrives, and is acknowledged.
    Append { lead: usize, to: usize, previous: usize },
    /// A lead's watermark arrives, far enough for one step.
    Watermark { lead: usize, to: usize },
    /// A leader has counted enough acknowledgements.
    Appended { leader: usize },
}

/// How receipts are decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fates {
    /// R22.
    TermTable,
    /// Broken: what a deposed leader did not know to be stable is lost.
    DeposedIsLost,
    /// Broken: what lies below the watermark is stable.
    BelowWatermarkIsStable,
}

/// The sizes, and the rules, each of which can be broken.
#[derive(Clone)]
struct Consensus {
    terms: u8,
    /// In each term up to this one.
    commits: usize,
    commits_until: u8,
    /// R7: what is stable is held by a majority.
    quorum: bool,
    /// R7: a vote is for whom lacks nothing (Raft 5.4.1).
    up_to_date: bool,
    /// R9: one vote a term.
    one_vote: bool,
    /// R9: followers refuse a lower term.
    fence: bool,
    /// R7: an entry is taken only after the one it follows (log matching).
    prefix: bool,
    /// R7: former terms' entries become stable with the leader's first one, not by being counted (Raft 5.4.2).
    former_terms: bool,
    fates: Fates,
}

impl Default for Consensus {
    fn default() -> Self {
        Self {
            terms: 3,
            commits: 1,
            commits_until: u8::MAX,
            quorum: true,
            up_to_date: true,
            one_vote: true,
            fence: true,
            prefix: true,
            former_terms: true,
            fates: Fates::TermTable,
        }
    }
}

impl Consensus {
    fn vote_asked(&self, world: &mut World, vote: Vote, voter: usize) {
        let leads = world.lead_of(voter).is_some_and(|lead| world.leads[lead].term == vote.term);
        let member = &mut world.members[voter];
        if member.term > vote.term {
            return;
        }
        if member.term < vote.term {
            member.follow(vote.term, None);
        }
        let up_to_date = vote.last >= member.last() || !self.up_to_date;
        let is_free = member.voted_for.is_none_or(|voted| voted == vote.candidate) && !leads;
        if up_to_date && (is_free || !self.one_vote) {
            member.voted_for = Some(vote.candidate);
            world.voted.insert(Voted { term: vote.term, voter, candidate: vote.candidate });
        }
    }

    fn append_received(&self, world: &mut World, lead: usize, to: usize, previous: usize) {
        let leads = world.lead_of(to);
        let lead = &mut world.leads[lead];
        let member = &mut world.members[to];
        if member.term > lead.term && (self.fence || leads.is_some()) {
            return;
        }
        if member.term == lead.term && leads.is_some() {
            return;
        }
        if member.term != lead.term || member.voted_for != Some(lead.leader) {
            // R9: the term has its leader; nobody else gets a vote in it.
            member.follow(lead.term, Some(lead.leader));
        }
        let term_there = previous.checked_sub(1).map_or(0, |at| lead.log[at].term);
        let is_held = previous <= member.log.len();
        let follows = previous <= member.watermark || member.term_at(previous) == term_there || !self.prefix;
        if !is_held || !follows {
            return;
        }
        let (entry, lsn) = (lead.log[previous], previous + 1);
        if lsn > member.watermark && member.term_at(lsn) != entry.term {
            member.log.truncate(previous);
            member.log.push(entry);
        }
        member.verified = member.verified.max(lsn);
        lead.acknowledged[to] = lead.acknowledged[to].max(member.verified);
    }

    /// The next position up to which a leader may call its journal stable, if enough was acknowledged.
    fn next_stable(&self, lead: &Lead) -> Option<usize> {
        let next = lead.watermark + 1;
        let next = if self.former_terms { next.max(lead.first) } else { next };
        // With the leader's own, one acknowledgement is a majority of three.
        let held = if self.quorum { lead.acknowledged.into_iter().max().unwrap_or(0) } else { lead.log.len() };
        (next <= held).then_some(next)
    }

    /// What a member says of a receipt.
    fn fate(&self, world: &World, member: usize, term: u8, lsn: usize) -> Fate {
        let Member { log, watermark, term: present, .. } = &world.members[member];
        match self.fates {
            Fates::TermTable => {}
            Fates::DeposedIsLost => {
                let deposed =
                    world.leads.iter().any(|lead| lead.leader == member && lead.term == term) && *present > term;
                if deposed && lsn > *watermark {
                    return Fate::Lost;
                }
            }
            Fates::BelowWatermarkIsStable => {
                if lsn <= *watermark {
                    return Fate::Stable;
                }
            }
        }
        let mut table = TermTable::default();
        for (at, entry) in log.iter().enumerate() {
            if entry.what == What::TermStart {
                // A journal that a broken rule has spoiled has no table that climbs.
                let _ = table.push(Term::from_u64(entry.term.into()), position(at + 1));
            }
        }
        table.fate(Term::from_u64(term.into()), position(lsn), position(*watermark))
    }

    fn fates<'a>(&'a self, world: &'a World, lead: &'a Lead) -> impl Iterator<Item = (usize, [Fate; MEMBERS])> + 'a {
        lead.receipts().map(|lsn| (lsn, std::array::from_fn(|member| self.fate(world, member, lead.term, lsn))))
    }

    fn is_told(&self, world: &World, fate: Fate) -> bool {
        world.leads.iter().any(|lead| self.fates(world, lead).any(|(_, told)| told.contains(&fate)))
    }
}

fn position(lsn: usize) -> Lsn {
    Lsn::from_u64(lsn as u64)
}

impl Model for Consensus {
    type State = World;
    type Action = Action;

    /// A group of three whose founder leads it in term 1; its first entry is stable and known to be.
    fn init_states(&self) -> Vec<World> {
        let log = vec![Entry { term: 1, by: 0, what: What::TermStart }];
        let member = Member { term: 1, voted_for: Some(0), log: log.clone(), watermark: 1, verified: 1 };
        let lead = Lead { term: 1, leader: 0, first: 1, log, watermark: 1, acknowledged: [0, 1, 1] };
        let members = [member.clone(), member.clone(), member];
        vec![World { members, votes: BTreeSet::new(), voted: BTreeSet::new(), leads: vec![lead] }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, member) in world.members.iter().enumerate() {
            if let Some(lead) = world.lead_of(number) {
                let lead = &world.leads[lead];
                if lead.term <= self.commits_until && lead.receipts().count() < self.commits {
                    actions.push(Action::Commit { leader: number });
                }
                if self.next_stable(lead).is_some() {
                    actions.push(Action::Appended { leader: number });
                }
                continue;
            }
            if member.term < self.terms {
                actions.push(Action::Vote { candidate: number });
            }
            let has_vote =
                |voted: &Voted| (voted.term, voted.candidate) == (member.term, number) && voted.voter != number;
            if member.voted_for == Some(number) && world.voted.iter().any(has_vote) {
                actions.push(Action::TermStart { leader: number });
            }
        }
        for vote in &world.votes {
            let voters = (0..MEMBERS).filter(|voter| *voter != vote.candidate);
            actions.extend(voters.map(|voter| Action::Voted { vote: *vote, voter }));
        }
        for (number, lead) in world.leads.iter().enumerate() {
            for to in (0..MEMBERS).filter(|to| *to != lead.leader) {
                actions.extend((0..lead.log.len()).map(|previous| Action::Append { lead: number, to, previous }));
                let member = &world.members[to];
                let follows = (member.term, member.voted_for) == (lead.term, Some(lead.leader));
                if follows && member.watermark < lead.watermark.min(member.verified) {
                    actions.push(Action::Watermark { lead: number, to });
                }
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Vote { candidate } => {
                let member = &mut next.members[candidate];
                member.follow(member.term + 1, Some(candidate));
                next.votes.insert(Vote { term: member.term, candidate, last: member.last() });
            }
            Action::Voted { vote, voter } => self.vote_asked(&mut next, vote, voter),
            Action::TermStart { leader } => {
                let member = &mut next.members[leader];
                member.log.push(Entry { term: member.term, by: leader, what: What::TermStart });
                let (term, first, watermark) = (member.term, member.log.len(), member.watermark);
                let log = member.log.clone();
                next.leads.push(Lead { term, leader, first, log, watermark, acknowledged: [0; MEMBERS] });
                next.leads.sort_by_key(|lead| (lead.term, lead.leader));
            }
            Action::Commit { leader } => {
                let lead = next.lead_of(leader)?;
                let entry = Entry { term: next.leads[lead].term, by: leader, what: What::Commit };
                next.leads[lead].log.push(entry);
                next.members[leader].log.push(entry);
            }
            Action::Append { lead, to, previous } => self.append_received(&mut next, lead, to, previous),
            Action::Watermark { to, .. } => next.members[to].watermark += 1,
            Action::Appended { leader } => {
                let lead = next.lead_of(leader)?;
                let stable = self.next_stable(&next.leads[lead])?;
                next.leads[lead].watermark = stable;
                next.members[leader].watermark = stable;
            }
        }
        next.tidy(self.one_vote);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_LEADER, |_: &Self, world: &World| {
                world.leads.windows(2).all(|leads| leads[0].term < leads[1].term)
            }),
            Property::always(COMPLETE, |_: &Self, world: &World| {
                let holds_all = |former: &Lead, lead: &Lead| lead.log.starts_with(former.stable());
                world.leads.iter().enumerate().all(|(at, former)| {
                    world.leads[at + 1..]
                        .iter()
                        .filter(|lead| lead.term > former.term)
                        .all(|lead| holds_all(former, lead))
                })
            }),
            Property::always(NEVER_CHANGES, |_: &Self, world: &World| {
                let stable = || world.members.iter().map(Member::stable).chain(world.leads.iter().map(Lead::stable));
                stable().all(|one| stable().all(|other| one.starts_with(other) || other.starts_with(one)))
            }),
            Property::always(MAJORITY, |_: &Self, world: &World| {
                world.leads.iter().all(|lead| {
                    let holds = |member: &&Member| member.log.starts_with(lead.stable());
                    world.members.iter().filter(holds).count() > MEMBERS / 2
                })
            }),
            Property::always(FATES_AGREE, |model: &Self, world: &World| {
                world.leads.iter().all(|lead| {
                    let agree = |told: [Fate; MEMBERS]| !(told.contains(&Fate::Stable) && told.contains(&Fate::Lost));
                    model.fates(world, lead).all(|(_, told)| agree(told))
                })
            }),
            Property::always(FATES_TRUE, |model: &Self, world: &World| {
                world.leads.iter().all(|lead| {
                    model.fates(world, lead).all(|(lsn, told)| {
                        let is_stable = |member: &Member| member.stable().get(lsn - 1) == lead.log.get(lsn - 1);
                        told.iter().zip(&world.members).all(|(fate, member)| match fate {
                            Fate::Stable => is_stable(member),
                            Fate::Lost => !world.members.iter().any(is_stable),
                            Fate::Unknown => !is_stable(member),
                        })
                    })
                })
            }),
        ]
        .into_iter()
        .chain(happening())
        .collect()
    }
}

/// What must happen in some history, or the model covers less than it says.
fn happening() -> Vec<Property<Consensus>> {
    vec![
        Property::sometimes("a commit is told to be stable", |model: &Consensus, world: &World| {
            model.is_told(world, Fate::Stable)
        }),
        Property::sometimes("a commit is told to be lost", |model: &Consensus, world: &World| {
            model.is_told(world, Fate::Lost)
        }),
        Property::sometimes("two take themselves for the leader", |_: &Consensus, world: &World| {
            (0..MEMBERS).filter(|member| world.lead_of(*member).is_some()).count() > 1
        }),
        Property::sometimes("all three were leaders", |_: &Consensus, world: &World| {
            (0..MEMBERS).all(|member| world.leads.iter().any(|lead| lead.leader == member))
        }),
        Property::sometimes(
            "a former leader's commit becomes stable with its successor's first entry",
            |_: &Consensus, world: &World| {
                world.leads.windows(2).any(|leads| {
                    let first = leads[1].first;
                    let inherits =
                        leads[1].log.get(first.wrapping_sub(2)).is_some_and(|entry| entry.what == What::Commit);
                    inherits && leads[1].watermark >= first && leads[0].watermark < first - 1
                })
            },
        ),
    ]
}

const ONE_LEADER: &str = "at most one leader a term";
const COMPLETE: &str = "a new leader has all stable entries";
const NEVER_CHANGES: &str = "what is stable is the same for everybody and never changes";
const MAJORITY: &str = "a majority holds what is stable";
const FATES_AGREE: &str = "nobody is told that something is stable, and by another that it is lost";
const FATES_TRUE: &str = "what is told is true";

#[test]
fn three_members_and_three_terms() {
    assert_holds("three terms", Consensus::default(), 225_000);
}

#[test]
fn four_terms_with_a_commit_in_the_first() {
    assert_holds("four terms", Consensus { terms: 4, commits_until: 1, ..Consensus::default() }, 340_000);
}

#[test]
fn stable_without_a_majority_is_noticed() {
    assert_broken("no majority", Consensus { quorum: false, ..Consensus::default() }, MAJORITY);
    assert_broken("no majority", Consensus { quorum: false, ..Consensus::default() }, NEVER_CHANGES);
}

#[test]
fn votes_for_those_who_lack_entries_are_noticed() {
    assert_broken("votes for anybody", Consensus { up_to_date: false, ..Consensus::default() }, COMPLETE);
}

#[test]
fn two_votes_in_one_term_are_noticed() {
    assert_broken("two votes", Consensus { one_vote: false, ..Consensus::default() }, ONE_LEADER);
}

#[test]
fn followers_of_a_former_leader_are_noticed() {
    assert_broken("no fence", Consensus { fence: false, ..Consensus::default() }, MAJORITY);
}

#[test]
fn entries_that_do_not_follow_are_noticed() {
    assert_broken("no log matching", Consensus { prefix: false, ..Consensus::default() }, NEVER_CHANGES);
}

#[test]
fn entries_of_former_terms_that_are_counted_are_noticed() {
    let broken = Consensus { former_terms: false, terms: 4, commits_until: 1, ..Consensus::default() };
    assert_broken("former terms are counted", broken, COMPLETE);
}

#[test]
fn fates_that_are_guessed_are_noticed() {
    let broken = |fates| Consensus { fates, ..Consensus::default() };
    assert_broken("deposed is lost", broken(Fates::DeposedIsLost), FATES_AGREE);
    assert_broken("below the watermark is stable", broken(Fates::BelowWatermarkIsStable), FATES_AGREE);
}
