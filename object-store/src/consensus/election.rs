//! Elections: a trial first, so that a member who is merely cut off does not unseat a leader; then one vote a term.

use super::{Body, BrokenRule, Consensus, LogEntry, MemberId, Membership, Role};
use driftmesh_model::{Lsn, Micros, Term};
use std::collections::BTreeSet;

/// A member that wants to be elected.
#[derive(Clone, Debug)]
pub(super) struct Election {
    trial: bool,
    votes: BTreeSet<MemberId>,
    /// When it tries again.
    pub(super) again_at: Micros,
}

impl<E: LogEntry> Consensus<E> {
    /// Asks all voters whether they would vote for this member.
    pub(super) fn stand(&mut self, now: Micros) {
        let again_at = self.election_due(now);
        // R11: nor does it ask for votes before it holds again what it held.
        if !self.may_be_needed() || self.is_of_the_past() || self.is_short() || self.unfit {
            match &mut self.role {
                Role::Following(following) => following.election_due = again_at,
                Role::Electing(_) => self.follow(now, None),
                Role::Leading(_) => {}
            }
            // R11: who hears nothing may belong no more. Voters that know so say so to whoever asks for a trial.
            self.send_vote_requests(true);
            return;
        }
        self.ask_for_votes(now, again_at, true);
    }

    /// Whether this member may have to lead. One that votes no longer by its newest entry may be the only one that has
    /// this entry, and is needed until it is stable (Ongaro's thesis, 4.2.2); its own vote does not count then.
    fn may_be_needed(&self) -> bool {
        self.membership().is_voter(&self.me) || self.stable_membership().1.is_voter(&self.me)
    }

    /// Whether it held more before it dropped the journal.
    fn is_short(&self) -> bool {
        (self.log.tail_term(), self.log.tail()) < self.promised
    }

    fn send_vote_requests(&mut self, trial: bool) {
        let (last, last_term) = (self.log.tail(), self.log.tail_term());
        for voter in self.membership().all_voters() {
            if voter != self.me {
                self.say(voter, Body::Vote { last, last_term, trial });
            }
        }
    }

    fn ask_for_votes(&mut self, now: Micros, again_at: Micros, trial: bool) {
        self.role = Role::Electing(Election { trial, votes: BTreeSet::from([self.me]), again_at });
        self.send_vote_requests(trial);
        self.count_votes(now);
    }

    fn is_majority(&self, has: impl Fn(&MemberId) -> bool) -> bool {
        if self.breaks(BrokenRule::Joint) {
            return Membership { incoming: None, ..self.membership().clone() }.is_majority(has);
        }
        self.membership().is_majority(has)
    }

    fn count_votes(&mut self, now: Micros) {
        let Role::Electing(election) = &self.role else { return };
        if !self.is_majority(|member| election.votes.contains(member)) {
            return;
        }
        if election.trial {
            self.term = self.term.next();
            self.voted_for = Some(self.me);
            let again_at = self.election_due(now);
            self.ask_for_votes(now, again_at, false);
        } else {
            self.lead(now);
        }
    }

    pub(super) fn vote_asked(&mut self, now: Micros, from: MemberId, last: (Term, Lsn), trial: bool) {
        self.hear(now, &from);
        // Messages may be heard before the tick that is late.
        self.note_standstill(now);
        // Raft 5.4.1: whoever lacks an entry that this journal has cannot be given the vote. R11: nor one that it had
        // before it dropped the journal.
        let held = (self.log.tail_term(), self.log.tail()).max(self.promised);
        let up_to_date = last >= held || self.breaks(BrokenRule::UpToDate);
        if trial && !up_to_date && self.is_gone(&from) {
            // R11: who was replaced while it could not be told learns it now.
            let since = self.stable_membership().0;
            self.say(from, Body::Excluded { since });
            return;
        }
        let granted = up_to_date
            && !self.is_of_the_past()
            && if trial { !self.hears_a_leader(now) } else { self.may_vote_for(from) };
        if granted && !trial {
            self.voted_for = Some(from);
            let due = self.election_due(now);
            if let Role::Following(following) = &mut self.role {
                following.election_due = due;
            }
        }
        self.say(from, Body::Voted { granted, trial });
        if trial && !up_to_date && matches!(self.role, Role::Following(_)) && !self.hears_a_leader(now) {
            self.stand_in(now);
        }
    }

    /// Whether somebody belongs to the group neither by the newest stable entry nor by a later one. One that has more of
    /// the journal may know better.
    fn is_gone(&self, member: &MemberId) -> bool {
        let (_, stable) = self.stable_membership();
        !stable.voters.is_empty() && !stable.contains(member) && !self.membership().contains(member)
    }

    /// Somebody wants to lead who lacks what this member has. If that is a learner, whose vote may be needed by a change
    /// that it does not know, it leads for as long as it takes until the voters have it.
    fn stand_in(&mut self, now: Micros) {
        if !self.may_be_needed() && !self.is_short() && !self.unfit {
            let again_at = self.election_due(now);
            self.ask_for_votes(now, again_at, true);
        }
    }

    /// Whether there is a leader, as far as this member can tell: then nobody else is needed.
    pub fn hears_a_leader(&self, now: Micros) -> bool {
        match &self.role {
            Role::Leading(_) => true,
            Role::Electing(_) => false,
            Role::Following(following) => {
                following.leader.is_some() && now.since(following.heard_at) < self.settings.election_after
            }
        }
    }

    fn may_vote_for(&self, candidate: MemberId) -> bool {
        if self.breaks(BrokenRule::OneVote) {
            return true;
        }
        // R11: who knows nothing of the group is no voter yet, or was one before it lost its memory.
        let knows = !self.membership().voters.is_empty();
        knows && self.voted_for.is_none_or(|voted| voted == candidate) && !self.is_leading()
    }

    pub(super) fn voted(&mut self, now: Micros, from: MemberId, granted: bool, trial: bool) {
        let from = self.counted_as(from);
        let Role::Electing(election) = &mut self.role else { return };
        if granted && trial == election.trial {
            election.votes.insert(from);
            self.count_votes(now);
        }
    }
}
