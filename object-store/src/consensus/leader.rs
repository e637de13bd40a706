//! A leader: appends without waiting, sends what its followers lack, and learns what is stable.

use super::{Batch, Body, BrokenRule, CannotChange, Consensus, LogEntry, MemberId, Membership, Message, Role};
use driftmesh_model::{Lsn, Micros};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A follower that acknowledges nothing for this long, and lacks what it once held, has lost it.
const FORGOTTEN_AFTER: Micros = Micros::from_millis(500);

/// What a leader knows of one follower.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Its journal is the leader's up to here.
    matched: Lsn,
    /// What it is sent next.
    next: Lsn,
    sent_at: Micros,
    heard_at: Micros,
    /// When it last acknowledged anything.
    acked_at: Micros,
    /// When its journal last grew, or it was last sent something again.
    moved_at: Micros,
    /// It lacks entries that are not kept any more: it needs a copy of the state.
    needs_copy: bool,
    /// Where its journal agrees is being found out: one message at a time, until one is acknowledged. Else each of many
    /// under way that does not fit would make all of them go out again.
    probing: bool,
    /// That message is under way.
    probed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Leadership {
    followers: BTreeMap<MemberId, Progress>,
    /// The leader's own first entry: what lies before it becomes stable with it (Raft 5.4.2).
    first: Lsn,
    /// When entries were last sent.
    batch_at: Micros,
    /// When it last did what was due.
    looked_at: Micros,
    /// Entries after this one are kept, because a copy of the state is on its way that they follow.
    copied_to: Option<Lsn>,
    /// The members that the present change leads to, when it takes two steps.
    target: Option<Membership>,
    /// So few answer that it hardly says anything, for others to notice and elect somebody who is answered.
    silent: bool,
    /// Former members that are told so when it is stable.
    leaving: BTreeSet<MemberId>,
}

impl<E: LogEntry> Consensus<E> {
    /// Begins to lead: the term is this member's.
    pub(super) fn lead(&mut self, now: Micros) {
        let first = self.log.tail().next();
        self.role = Role::Leading(Leadership {
            followers: BTreeMap::new(),
            first,
            batch_at: Micros(0),
            looked_at: now,
            copied_to: None,
            target: None,
            silent: false,
            leaving: BTreeSet::new(),
        });
        self.renew_followers(now);
        let entry = E::term_start(self.term);
        // Nobody has applied this one yet: it is kept until then, also by who is alone.
        self.append_kept(now, entry);
    }

    /// Appends an entry, which has its position at once. Whether it is stable is known later.
    ///
    /// # Panics
    /// When this member does not lead: callers look first.
    pub fn append(&mut self, now: Micros, entry: E) -> Lsn {
        assert!(self.is_leading(), "only a leader appends");
        if self.alone && self.log.is_empty() && self.settings.keep_bytes != u64::MAX && entry.membership().is_none() {
            // Stable at once and wanted by nobody, for who appends has applied it; nor is anything before it.
            let lsn = self.log.pass(self.term);
            self.watermark = lsn;
            return lsn;
        }
        self.append_kept(now, entry)
    }

    fn append_kept(&mut self, now: Micros, entry: E) -> Lsn {
        let lsn = self.take_in(self.term, Arc::new(entry), now);
        if self.log.entry(lsn).is_some_and(|entry| entry.membership().is_some()) {
            self.renew_followers(now);
        }
        // With more voters an own entry is not held by a majority yet.
        if self.membership().voters.len() < 2 || self.breaks(BrokenRule::Stable) {
            self.renew_watermark(now);
        }
        lsn
    }

    /// Followers come and go with the members.
    fn renew_followers(&mut self, now: Micros) {
        let others = self.others();
        let next = self.log.tail().next();
        let Role::Leading(leadership) = &mut self.role else { return };
        let gone = leadership.followers.keys().filter(|member| !others.contains(member));
        leadership.leaving.extend(gone.copied());
        leadership.followers.retain(|member, _| others.contains(member));
        for member in others {
            let fresh = Progress {
                matched: Lsn::ZERO,
                next,
                sent_at: Micros(0),
                heard_at: now,
                acked_at: now,
                moved_at: now,
                needs_copy: false,
                probing: true,
                probed: false,
            };
            leadership.followers.entry(member).or_insert(fresh);
        }
    }

    /// Finds the highest position that enough members hold.
    fn renew_watermark(&mut self, now: Micros) {
        let Role::Leading(leadership) = &self.role else { return };
        let tail = self.log.tail();
        let holds = |member: &MemberId| {
            if *member == self.me {
                return tail;
            }
            leadership.followers.get(member).map_or(Lsn::ZERO, |progress| progress.matched)
        };
        let reached = if self.breaks(BrokenRule::Stable) {
            Some(tail)
        } else if self.breaks(BrokenRule::Joint) {
            Membership { incoming: None, ..self.membership().clone() }.reached(holds)
        } else {
            self.membership().reached(holds)
        };
        // Raft 5.4.2: only an entry of the present term becomes stable by being counted.
        let counts = |reached: &Lsn| *reached >= leadership.first || self.breaks(BrokenRule::FormerTerms);
        let Some(reached) = reached.filter(counts) else { return };
        if reached > self.watermark {
            self.watermark = reached;
            self.go_on_changing(now);
        }
    }

    /// The first step of a change of the members is stable: the second one follows.
    fn go_on_changing(&mut self, now: Micros) {
        let (lsn, membership) = self.memberships.back().expect("there is always one");
        let Role::Leading(leadership) = &mut self.role else { return };
        if *lsn > self.watermark || (membership.incoming.is_none() && leadership.leaving.is_empty()) {
            return;
        }
        let (since, membership) = (*lsn, membership.clone());
        for member in std::mem::take(&mut leadership.leaving) {
            // One that does not hear this asks when it hears nothing more.
            if !membership.contains(&member) {
                self.say(member, Body::Excluded { since });
            }
        }
        let Some(voters) = membership.incoming else { return };
        let Role::Leading(leadership) = &mut self.role else { return };
        let target = leadership.target.take().filter(|target| target.voters == voters);
        let last = target.unwrap_or(Membership { voters, incoming: None, learners: membership.learners });
        self.append(now, E::members(last));
    }

    /// Whether the group goes on with another leader, and all that it takes is stable. Then this one ends its lead at
    /// its next tick, with its journal whole.
    fn is_done(&self) -> bool {
        let (lsn, membership) = self.memberships.back().expect("there is always one");
        *lsn <= self.watermark && self.is_confirmed() && !membership.is_voter(&self.me)
    }

    /// Proposes who shall belong to the group. Voters change by a joint step in between.
    ///
    /// # Errors
    /// When this member does not lead, the last change is not stable yet, or somebody would count too early (R11).
    pub fn propose(&mut self, now: Micros, target: Membership) -> Result<(), CannotChange> {
        if self.counts_too_early(&target) && !self.breaks(BrokenRule::Members) {
            return Err(CannotChange::NotCaughtUp);
        }
        let Role::Leading(leadership) = &mut self.role else { return Err(CannotChange::NotLeading) };
        let (lsn, present) = self.memberships.back().expect("there is always one");
        if *lsn > self.watermark || leadership.first > self.watermark || present.incoming.is_some() {
            return Err(CannotChange::Pending);
        }
        if target.voters.is_empty() {
            return Err(CannotChange::NoVoters);
        }
        let step = if target.voters == present.voters {
            Membership { incoming: None, ..target }
        } else {
            let mut learners = target.learners.clone();
            learners.retain(|learner, _| !present.voters.contains(learner));
            let step = Membership { voters: present.voters.clone(), incoming: Some(target.voters.clone()), learners };
            leadership.target = Some(Membership { incoming: None, ..target });
            step
        };
        self.append(now, E::members(step));
        Ok(())
    }

    /// R11: whether somebody new would count who lacks more of the journal than may be under way, or has yet to hear that
    /// it belongs.
    fn counts_too_early(&self, target: &Membership) -> bool {
        let Role::Leading(leadership) = &self.role else { return false };
        let (since, present) = self.newest_membership();
        let counted = |member: &MemberId| present.is_voter(member) || present.learners.get(member) == Some(&true);
        let lacks = |member: &MemberId| {
            let Some(progress) = leadership.followers.get(member) else { return *member != self.me };
            let behind = self.log.bytes_between(progress.matched.max(self.log.base()), self.log.tail());
            progress.needs_copy || progress.matched < *since || behind > self.settings.in_flight_bytes
        };
        let in_sync = target.learners.iter().filter(|(_, in_sync)| **in_sync).map(|(learner, _)| learner);
        target.voters.iter().chain(in_sync).any(|member| !counted(member) && lacks(member))
    }

    /// Whether a change of the members may be proposed now.
    pub fn may_change(&self) -> bool {
        let Role::Leading(leadership) = &self.role else { return false };
        let (lsn, present) = self.memberships.back().expect("there is always one");
        *lsn <= self.watermark && leadership.first <= self.watermark && present.incoming.is_none()
    }

    pub(super) fn appended(&mut self, now: Micros, from: MemberId, matched: Lsn) {
        let tail = self.log.tail();
        let base = self.log.base();
        let from = self.counted_as(from);
        let Role::Leading(leadership) = &mut self.role else { return };
        // R11: whoever does not belong to the group does not count.
        let Some(progress) = leadership.followers.get_mut(&from) else { return };
        (progress.heard_at, progress.acked_at) = (now, now);
        if matched > tail {
            // R25: nobody holds what was never appended.
            return;
        }
        progress.probing = false;
        if matched > progress.matched {
            progress.matched = matched;
            progress.moved_at = now;
            progress.next = progress.next.max(matched.next());
            progress.needs_copy &= matched < base;
            self.renew_watermark(now);
        }
    }

    pub(super) fn refused(&mut self, now: Micros, from: MemberId, hint: Lsn) {
        let resend_after = self.settings.resend_after;
        let Role::Leading(leadership) = &mut self.role else { return };
        let Some(progress) = leadership.followers.get_mut(&from) else { return };
        progress.heard_at = now;
        if hint < progress.matched {
            if now.since(progress.acked_at) < FORGOTTEN_AFTER {
                // A late word. If it is true it is said again: nothing is sent at once, or the two would go on for ever.
                return;
            }
            // It dropped its journal and follows again from the beginning; what is stable stays so.
            (progress.matched, progress.acked_at) = (Lsn::ZERO, now);
        }
        let next = progress.matched.max(hint.min(Lsn::from_u64(progress.next.as_u64().saturating_sub(2)))).next();
        // Messages that overtook each other are refused too: what follows the gap is not sent again at each.
        let settled = !progress.probing && now.since(progress.moved_at) < resend_after;
        if next < progress.next && !settled {
            (progress.next, progress.moved_at) = (next, now);
            (progress.probing, progress.probed) = (true, false);
        }
    }

    /// Due work of a leader: what was not acknowledged is sent again; silent learners leave the sync set.
    pub(super) fn lead_on(&mut self, now: Micros) {
        if self.is_done() {
            self.excluded = !self.membership().contains(&self.me);
            self.follow(now, None);
            return;
        }
        let settings = self.settings;
        let Role::Leading(leadership) = &mut self.role else { return };
        let stood_still = now.since(leadership.looked_at).0 >= settings.sync_grace.0 / 2;
        leadership.looked_at = now;
        for progress in leadership.followers.values_mut() {
            if stood_still {
                // Nobody was silent: this leader did not listen. The group may have gone on without it.
                progress.heard_at = now;
            }
            let waits = progress.next.as_u64() > progress.matched.as_u64() + 1;
            if waits && now.since(progress.moved_at) >= settings.resend_unasked_after && progress.matched > Lsn::ZERO {
                (progress.next, progress.moved_at) = (progress.matched.next(), now);
                (progress.probing, progress.probed) = (true, false);
            }
        }
        self.drop_silent_learners(now);
    }

    fn drop_silent_learners(&mut self, now: Micros) {
        let grace = self.settings.sync_grace;
        // A leader of a single voter decides alone who is in the sync set, also while nothing becomes stable: one of the
        // set that is silent is what keeps it from that.
        let present = self.membership();
        if present.voters.len() != 1 || present.incoming.is_some() {
            return;
        }
        let Role::Leading(leadership) = &self.role else { return };
        let silent = |member: &MemberId| {
            leadership.followers.get(member).is_some_and(|progress| now.since(progress.heard_at) >= grace)
        };
        let mut target = present.clone();
        for (learner, in_sync) in &mut target.learners {
            *in_sync &= !silent(learner);
        }
        if target != *present {
            self.append(now, E::members(target));
        }
    }

    /// Sends what followers lack, and signs of life.
    pub(super) fn send_entries(&mut self, now: Micros, urgent: bool) {
        let settings = self.settings;
        let tail = self.log.tail();
        let base = self.log.base();
        let is_answered = self.is_answered(now);
        let Role::Leading(leadership) = &mut self.role else { return };
        leadership.silent = !is_answered;
        let heartbeat = settings.sign_of_life(leadership.silent);
        let may_batch = !leadership.silent && (urgent || now >= leadership.batch_at.plus(settings.batch_every));
        // Followers that lack the same entries get the same batch.
        let mut made: Vec<(Lsn, Batch<E>)> = Vec::new();
        for (member, progress) in &mut leadership.followers {
            if progress.next <= base {
                progress.needs_copy = true;
            }
            while may_batch && !progress.needs_copy && progress.next <= tail && !(progress.probing && progress.probed) {
                let previous = Lsn::from_u64(progress.next.as_u64() - 1);
                if self.log.bytes_between(progress.matched.max(base), previous) > settings.in_flight_bytes {
                    break;
                }
                let batch = match made.iter().find(|(first, _)| *first == progress.next) {
                    Some((_, batch)) => batch.clone(),
                    None => {
                        let batch = Batch::new(self.log.batch_from(progress.next, settings.batch_bytes));
                        made.push((progress.next, batch.clone()));
                        batch
                    }
                };
                progress.next = Lsn::from_u64(progress.next.as_u64() + batch.entries().len() as u64);
                if progress.matched.next() > previous {
                    progress.moved_at = now;
                }
                (progress.sent_at, progress.probed) = (now, true);
                leadership.batch_at = now;
                let previous_term = self.log.term_at(previous).unwrap_or_default();
                let body = Body::Append { previous, previous_term, batch, watermark: self.watermark };
                self.out.push((*member, Message { generation: self.generation, term: self.term, body }));
            }
            if now.since(progress.sent_at) >= heartbeat {
                (progress.sent_at, progress.probed) = (now, false);
                let previous = if progress.needs_copy { Lsn::ZERO } else { Lsn::from_u64(progress.next.as_u64() - 1) };
                let previous_term = self.log.term_at(previous).unwrap_or_default();
                let batch = Batch::new(Vec::new());
                let body = Body::Append { previous, previous_term, batch, watermark: self.watermark };
                self.out.push((*member, Message { generation: self.generation, term: self.term, body }));
            }
        }
    }

    /// Whether a majority was heard lately. A leader whose words arrive while no answer does would else lead for ever,
    /// and nothing would become stable.
    fn is_answered(&self, now: Micros) -> bool {
        let Role::Leading(leadership) = &self.role else { return false };
        let patience = self.settings.election_after.plus(self.settings.election_after);
        let heard = |progress: &Progress| now.since(progress.heard_at) < patience;
        self.membership()
            .is_majority(|member| *member == self.me || leadership.followers.get(member).is_some_and(heard))
    }

    /// A follower said something, whatever it was.
    pub(super) fn hear(&mut self, now: Micros, from: &MemberId) {
        if let Role::Leading(leadership) = &mut self.role
            && let Some(progress) = leadership.followers.get_mut(from)
        {
            progress.heard_at = now;
        }
    }

    pub(super) fn next_of_leader(&self, leadership: &Leadership) -> Option<Micros> {
        if self.is_done() {
            return Some(Micros(0));
        }
        let settings = &self.settings;
        let heartbeat = settings.sign_of_life(leadership.silent);
        let tail = self.log.tail();
        let due = |progress: &Progress| {
            let mut due = progress.sent_at.plus(heartbeat);
            if progress.next.as_u64() > progress.matched.as_u64() + 1 && progress.matched > Lsn::ZERO {
                due = due.min(progress.moved_at.plus(settings.resend_unasked_after));
            }
            let previous = Lsn::from_u64(progress.next.as_u64() - 1);
            let room = || {
                let under_way = self.log.bytes_between(progress.matched.max(self.log.base()), previous);
                under_way <= settings.in_flight_bytes
            };
            let probed = progress.probing && progress.probed;
            if !leadership.silent && !progress.needs_copy && progress.next <= tail && !probed && room() {
                due = due.min(leadership.batch_at.plus(settings.batch_every));
            }
            due
        };
        leadership.followers.values().map(due).min()
    }

    /// The highest position up to which no member needs the journal any more.
    pub(super) fn needed_by_followers(&self) -> Option<Lsn> {
        let Role::Leading(leadership) = &self.role else { return None };
        let held = leadership.followers.values().filter(|progress| !progress.needs_copy);
        held.map(|progress| progress.matched).chain(leadership.copied_to).min()
    }

    /// The last position that was sent to some follower.
    pub fn sent(&self) -> Lsn {
        let Role::Leading(leadership) = &self.role else { return Lsn::ZERO };
        let sent = leadership.followers.values().map(|progress| Lsn::from_u64(progress.next.as_u64() - 1));
        sent.max().unwrap_or_default()
    }

    /// A member that needs a copy of the state, if any does: of several the one that was heard last, for others may be
    /// dead.
    pub fn wants_copy(&self) -> Option<MemberId> {
        let Role::Leading(leadership) = &self.role else { return None };
        let wanting = leadership.followers.iter().filter(|(_, progress)| progress.needs_copy);
        wanting.max_by_key(|(_, progress)| progress.heard_at).map(|(member, _)| *member)
    }

    /// Whether this member needs a copy of the state.
    pub fn needs_copy(&self, member: &MemberId) -> bool {
        let Role::Leading(leadership) = &self.role else { return false };
        leadership.followers.get(member).is_some_and(|progress| progress.needs_copy)
    }

    /// A copy of the state up to this entry is on its way: what follows is kept. `None` ends that.
    pub const fn keep_after(&mut self, copied_to: Option<Lsn>) {
        if let Role::Leading(leadership) = &mut self.role {
            leadership.copied_to = copied_to;
        }
    }

    /// What a follower holds, and how long ago it was heard, as its leader knows.
    pub fn follower(&self, member: &MemberId, now: Micros) -> Option<(Lsn, Micros)> {
        let Role::Leading(leadership) = &self.role else { return None };
        leadership.followers.get(member).map(|progress| (progress.matched, now.since(progress.heard_at)))
    }

    /// Whether this leader's first entry is stable: before, it promises nothing (R8).
    pub const fn is_confirmed(&self) -> bool {
        match &self.role {
            Role::Leading(leadership) => leadership.first.as_u64() <= self.watermark.as_u64(),
            Role::Following(_) | Role::Electing(_) => false,
        }
    }
}
