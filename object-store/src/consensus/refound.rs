//! Generations: an operator founds a group anew from what one member holds, when the majority is gone for good.
//!
//! A generation outranks all terms of those before it. Members of a former one may hold, as stable, what the next one
//! does not have; so they count for nothing until their journal has been compared with the new leader's, and begin with
//! nothing where the two differ (R11). It refuses to decide when a group is founded anew, and from which member.

use super::{Consensus, LogEntry, Membership};
use driftmesh_model::{Generation, Lsn, Micros, Term};
use std::collections::VecDeque;

/// The terms of a generation begin at its number times this: no leader of a former one can have had them, whatever this
/// member has not heard, so that a receipt never speaks of two entries (R22).
const TERMS_PER_GENERATION: u64 = 1 << 32;

/// Whether a sound group can have come to a term of a generation (R25). Whatever somebody says of a group, its next generation
/// has terms left.
#[must_use]
pub const fn is_sound_period(generation: Generation, term: Term) -> bool {
    let next = generation.as_u64().saturating_add(2).saturating_mul(TERMS_PER_GENERATION);
    generation.as_u64() < Generation::END.as_u64() && term.as_u64() < next
}

impl<E: LogEntry> Consensus<E> {
    /// Learns that the group goes on, if at all, as this generation: what it was before is over, whoever leads it. Until its
    /// journal was compared with that generation's this member counts for nothing. Lower ones are no news.
    pub fn supersede(&mut self, now: Micros, generation: Generation) {
        if generation <= self.generation || generation >= Generation::END {
            return;
        }
        self.generation = generation;
        self.voted_for = None;
        self.follow(now, None);
    }

    /// Founds the group anew: this member leads this generation with all that it holds, and these members belong to it.
    /// Nobody is asked. The generation is above all that any member ever heard of.
    pub fn refound(&mut self, now: Micros, generation: Generation, membership: Membership) {
        self.generation = self.generation.max(generation);
        self.held = self.generation;
        // Of two members that found one generation without hearing each other, one outranks.
        let [a, b, c, ..] = *self.me.peer.as_bytes();
        let own = u64::from(u32::from_be_bytes([0, a, b, c]));
        let first = self.generation.as_u64().saturating_mul(TERMS_PER_GENERATION).saturating_add(own);
        self.term = self.term.next().max(Term::from_u64(first));
        self.voted_for = Some(self.me);
        self.excluded = false;
        self.lead(now);
        self.append(now, E::members(membership));
    }

    /// The generation of what this member holds.
    pub const fn held_generation(&self) -> Generation {
        self.held
    }

    /// The term of the last entry that this member holds.
    pub fn last_term(&self) -> Term {
        self.log.tail_term()
    }

    /// Whether there is a generation whose journal this member's is not known to be a part of.
    pub fn is_of_the_past(&self) -> bool {
        self.held < self.generation
    }

    /// Whether everything held was dropped since this was asked last: the state begins with nothing too.
    pub const fn take_emptied(&mut self) -> bool {
        std::mem::replace(&mut self.emptied, false)
    }

    /// Compares this journal with that of the leader of a higher generation. `Err` says where the two may agree.
    pub(super) fn check_generation(&mut self, now: Micros, (previous, previous_term): (Lsn, Term)) -> Result<(), Lsn> {
        if !self.is_of_the_past() {
            return Ok(());
        }
        if self.log.tail() == Lsn::ZERO {
            self.held = self.generation;
            return Ok(());
        }
        if previous > self.watermark {
            // Log matching: where one entry agrees, all before do. Else the leader asks about an earlier one, down to
            // the watermark.
            return match self.log.term_at(previous) {
                Some(term) if term == previous_term => {
                    self.held = self.generation;
                    Ok(())
                }
                Some(_) | None => Err(self.log.tail().min(Lsn::from_u64(previous.as_u64() - 1)).max(self.watermark)),
            };
        }
        if previous == self.watermark && self.log.term_at(previous) == Some(previous_term) {
            self.held = self.generation;
            return Ok(());
        }
        // What is stable here is not what the new generation has there, or cannot be compared any more.
        self.drop_everything(now);
        if previous == Lsn::ZERO { Ok(()) } else { Err(Lsn::ZERO) }
    }

    /// Drops everything: this member is as one that has just been asked to follow.
    fn drop_everything(&mut self, now: Micros) {
        let leader = self.leader();
        self.log = super::Log::new();
        self.watermark = Lsn::ZERO;
        self.memberships = VecDeque::from([(Lsn::ZERO, Membership::default())]);
        self.alone = false;
        self.held = self.generation;
        self.emptied = true;
        self.follow(now, leader);
    }
}
