//! A follower: takes the leader's entries in order, and nobody else's.

use super::{Batch, Body, BrokenRule, Consensus, LogEntry, MemberId, Role};
use driftmesh_model::{Generation, Lsn, Micros, Term};
use std::collections::BTreeMap;

/// Messages that came before the one they follow, kept until it comes (R24).
const EARLY_MAX: usize = 64;

#[derive(Clone)]
pub(super) struct Following<E> {
    pub(super) leader: Option<MemberId>,
    pub(super) heard_at: Micros,
    pub(super) election_due: Micros,
    /// When this member looks at the latest whether it still is in time itself.
    pub(super) look_due: Micros,
    /// Up to here this journal is the present leader's.
    pub(super) verified: Lsn,
    /// The leader's watermark.
    stable: Lsn,
    /// Entries that came before those they follow, by the position that they follow.
    early: BTreeMap<Lsn, (Term, Batch<E>)>,
}

impl<E> Following<E> {
    pub(super) const fn new(heard_at: Micros, election_due: Micros, verified: Lsn) -> Self {
        Self {
            leader: None,
            heard_at,
            election_due,
            look_due: heard_at,
            verified,
            stable: Lsn::ZERO,
            early: BTreeMap::new(),
        }
    }
}

impl<E: LogEntry> Consensus<E> {
    pub(super) fn append_received(
        &mut self,
        now: Micros,
        from: MemberId,
        previous: (Lsn, Term),
        batch: &Batch<E>,
        watermark: Lsn,
    ) {
        if self.is_leading() {
            // Two leaders of one term cannot be; whoever says so is mistaken.
            return;
        }
        let known = matches!(&self.role, Role::Following(following) if following.leader == Some(from));
        if !known {
            self.follow(now, Some(from));
            // R9: the term has its leader; nobody else gets a vote in it.
            self.voted_for = Some(from);
        }
        let (due, look_every) = (self.election_due(now), self.settings.look_every());
        let Role::Following(following) = &mut self.role else { return };
        following.look_due = now.plus(look_every);
        (following.heard_at, following.election_due) = (now, due);
        following.stable = following.stable.max(watermark);
        // R25: no position of a sound member is so high.
        let end = previous.0.as_u64().checked_add(batch.entries().len() as u64);
        if end.is_none_or(|end| end >= super::PERIOD_END) {
            return;
        }
        if let Err(hint) = self.check_generation(now, previous).and_then(|()| self.take_batch(now, previous, batch)) {
            self.keep_early(previous, batch);
            self.say(from, Body::Refused { hint });
            return;
        }
        self.take_early(now);
        let Role::Following(following) = &self.role else { return };
        let verified = following.verified;
        // Raft 5.3: what the leader knows to be stable, as far as this journal is known to be the leader's.
        self.watermark = self.watermark.max(following.stable.min(verified));
        self.excluded = false;
        self.say(from, Body::Appended { matched: verified });
    }

    /// The leader says what is stable, without entries.
    pub fn watermark_told(&mut self, from: MemberId, period: (Generation, Term), watermark: Lsn) {
        if period != self.period() || self.is_of_the_past() {
            return;
        }
        let Role::Following(following) = &mut self.role else { return };
        if following.leader == Some(from) {
            following.stable = following.stable.max(watermark);
            self.watermark = self.watermark.max(following.stable.min(following.verified));
        }
    }

    /// Messages may overtake each other: what came too early waits for what it follows.
    fn keep_early(&mut self, previous: (Lsn, Term), batch: &Batch<E>) {
        let tail = self.log.tail();
        if let Role::Following(following) = &mut self.role
            && previous.0 > tail
            && !batch.entries().is_empty()
        {
            following.early.insert(previous.0, (previous.1, batch.clone()));
            if following.early.len() > EARLY_MAX {
                // What is needed last makes room.
                following.early.pop_last();
            }
        }
    }

    fn take_early(&mut self, now: Micros) {
        loop {
            let Role::Following(following) = &mut self.role else { return };
            let verified = following.verified;
            let Some(first) = following.early.first_entry().filter(|first| *first.key() <= verified) else { return };
            let previous = *first.key();
            let (term, batch) = first.remove();
            // What does not fit any more is sent again.
            let _ = self.take_batch(now, (previous, term), &batch);
        }
    }

    /// Takes entries that follow `previous`. `Err` says where the journals may still agree.
    fn take_batch(&mut self, now: Micros, previous: (Lsn, Term), batch: &Batch<E>) -> Result<(), Lsn> {
        let (previous, previous_term) = previous;
        // What is stable agrees by itself.
        if previous > self.watermark {
            match self.log.term_at(previous) {
                None => return Err(self.log.tail()),
                Some(term) if term != previous_term && !self.breaks(BrokenRule::Prefix) => {
                    let first = self.log.first_of_term_at(previous);
                    return Err(Lsn::from_u64(first.as_u64() - 1).max(self.watermark));
                }
                Some(_) => {}
            }
        }
        let mut lsn = previous;
        for (term, entry) in batch.entries() {
            lsn = lsn.next();
            if lsn <= self.watermark || self.log.term_at(lsn) == Some(*term) {
                continue;
            }
            if lsn <= self.log.tail() {
                self.overwrite_from(lsn);
            }
            self.take_in(*term, std::sync::Arc::clone(entry), now);
        }
        if let Role::Following(following) = &mut self.role {
            following.verified = following.verified.max(lsn);
        }
        Ok(())
    }

    /// Another leader's entries take the place of what follows.
    fn overwrite_from(&mut self, lsn: Lsn) {
        self.log.truncate_after(Lsn::from_u64(lsn.as_u64() - 1));
        while self.memberships.len() > 1 && self.memberships.back().is_some_and(|(at, _)| *at >= lsn) {
            self.memberships.pop_back();
        }
        self.renew_alone();
    }

    /// The state was copied up to an entry, which is stable: the journal goes on from there.
    pub fn installed(&mut self, now: Micros, at: Lsn, term: Term, membership: (Lsn, super::Membership)) {
        if self.is_leading() || at <= self.watermark {
            return;
        }
        if self.log.term_at(at) == Some(term) {
            // This journal holds that entry. What follows it may have been acknowledged, and stays.
            self.log.trim(at, 0);
            self.memberships.retain(|(lsn, _)| *lsn > at);
        } else {
            // Whether what lies before was overwritten cannot be told any more: the copied term table says.
            if self.log.tail() > at {
                self.overwrite_from(at.next());
            }
            self.log = super::Log::after(at, term);
            self.memberships.clear();
        }
        self.memberships.push_front(membership);
        self.renew_alone();
        self.held = self.generation;
        self.watermark = at;
        let Role::Following(following) = &mut self.role else { return };
        following.verified = following.verified.max(at);
        following.heard_at = now;
        let matched = following.verified;
        if let Some(leader) = following.leader {
            self.say(leader, Body::Appended { matched });
        }
    }

    /// Time in which this member stood still does not count as silence of the leader: what that said then waits to be heard.
    /// On a machine with too much to do all members stand still together, and each would take it for the others' silence.
    pub(super) fn note_standstill(&mut self, now: Micros) {
        // Who knows no voters has no ticks that could be late.
        let (settings, is_ticked) = (self.settings, !self.membership().voters.is_empty());
        let Role::Following(following) = &mut self.role else { return };
        let late = now.since(following.look_due);
        following.look_due = now.plus(settings.look_every());
        // A time of zero: the transport says that the leader is gone.
        if is_ticked && following.leader.is_some() && following.heard_at > Micros(0) && late >= settings.late_from() {
            following.heard_at = following.heard_at.plus(late);
            following.election_due = following.election_due.plus(late);
        }
    }

    /// The leader is out of reach, as the transport says: no need to wait for its silence. All followers hear of it at the same
    /// time, and those who stand at once split the vote: so one after the other, by their ids.
    pub fn leader_is_gone(&mut self, now: Micros) {
        let gone = self.leader();
        let before = |voter: &&MemberId| Some(**voter) != gone && **voter < self.me;
        let turn = self.membership().all_voters().iter().filter(before).count() as u64;
        let apart = self.settings.election_spread.0 / 2;
        let soon = Micros((turn * apart).saturating_add(self.draw(apart / 8)));
        if let Role::Following(following) = &mut self.role {
            following.heard_at = Micros(0);
            following.election_due = following.election_due.min(now.plus(soon));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, Promises, Settings};
    use super::*;
    use crate::Entry;
    use driftmesh_model::{Incarnation, PeerId};
    use std::sync::Arc;

    #[test]
    fn who_knows_no_voters_does_not_take_requests_for_votes_for_a_leaders_words() {
        let member =
            |number| MemberId { peer: PeerId::from_bytes([number; 32]), incarnation: Incarnation::from_u64(0) };
        let (generation, term) = (Generation::ZERO, Term::from_u64(1));
        let mut joined = Consensus::<Entry>::join(
            member(1),
            Settings::default(),
            1,
            Micros::from_millis(1_000),
            Promises::default(),
        );
        let batch = Batch::new(Vec::<(Term, Arc<Entry>)>::new());
        let body = Body::Append { previous: Lsn::from_u64(5), previous_term: term, batch, watermark: Lsn::ZERO };
        joined.handle(Micros::from_millis(1_000), member(2), Message { generation, term, body });
        assert!(joined.hears_a_leader(Micros::from_millis(1_000)));
        for millis in (2_000..10_000).step_by(500) {
            let body = Body::Vote { last: Lsn::from_u64(5), last_term: term, trial: true };
            joined.handle(Micros::from_millis(millis), member(3), Message { generation, term, body });
            assert!(!joined.hears_a_leader(Micros::from_millis(millis)), "at {millis} ms");
        }
    }
}
