//! Elections: a trial first, so that a member who is merely cut off does not unseat a leader; then one vote a term.

use super::{Body, Consensus, LogEntry, MemberId, Role};
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
        if !self.is_voter() || self.is_of_the_past() {
            if let Role::Following(following) = &mut self.role {
                following.election_due = again_at;
            }
            // R11: who hears nothing may belong no more. Voters that know so say so to whoever asks for a trial.
            self.send_vote_requests(true);
            return;
        }
        self.ask_for_votes(now, again_at, true);
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

    fn count_votes(&mut self, now: Micros) {
        let Role::Electing(election) = &self.role else { return };
        if !self.membership().is_majority(|member| election.votes.contains(member)) {
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
        let (since, membership) = self.stable_membership();
        if trial && !membership.contains(&from) && !membership.voters.is_empty() && !self.membership().contains(&from) {
            // R11: who was replaced while it could not be told learns it now.
            let since = *since;
            self.say(from, Body::Excluded { since });
            return;
        }
        // Raft 5.4.1: whoever lacks an entry that this journal has cannot be given the vote.
        let up_to_date = last >= (self.log.tail_term(), self.log.tail());
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
    }

    /// Whether there is a leader, as far as this member can tell: then nobody else is needed.
    fn hears_a_leader(&self, now: Micros) -> bool {
        match &self.role {
            Role::Leading(_) => true,
            Role::Electing(_) => false,
            Role::Following(following) => {
                following.leader.is_some() && now.since(following.heard_at) < self.settings.election_after
            }
        }
    }

    fn may_vote_for(&self, candidate: MemberId) -> bool {
        self.voted_for.is_none_or(|voted| voted == candidate) && !self.is_leading()
    }

    pub(super) fn voted(&mut self, now: Micros, from: MemberId, granted: bool, trial: bool) {
        let Role::Electing(election) = &mut self.role else { return };
        if granted && trial == election.trial {
            election.votes.insert(from);
            self.count_votes(now);
        }
    }
}
