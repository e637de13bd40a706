//! What must hold at every step: the suite's own account of who held what, made from outside.
//!
//! It refuses to believe a member: that an entry is stable counts only if those who make it so have it.

use crate::port::{Copied, Period, Port, TestEntry};
use driftmesh_model::{Generation, Lsn, Micros};
use driftmesh_object_store::{MemberId, Membership};
use std::collections::{BTreeMap, BTreeSet};

type Held = (driftmesh_model::Term, TestEntry);

/// What a member was last seen to be.
#[derive(Debug)]
struct Seen {
    watermark: Lsn,
    leading: Option<Period>,
    membership: Membership,
    /// Up to here it got a copy.
    copied: Lsn,
    /// Everything it holds after that, kept or not.
    held: Vec<Held>,
    /// What it held before it dropped its journal.
    dropped: Vec<Self>,
}

impl Seen {
    fn tail(&self) -> Lsn {
        Lsn::from_u64(self.copied.as_u64() + self.held.len() as u64)
    }

    /// Whether it has an entry, or had it when it acknowledged that.
    fn has(&self, lsn: Lsn, held: &Held) -> bool {
        let has = lsn <= self.copied || self.at(lsn).is_some_and(|at| at.0 == held.0);
        has || self.dropped.iter().any(|before| before.has(lsn, held))
    }

    fn at(&self, lsn: Lsn) -> Option<&Held> {
        let index = lsn.as_u64().checked_sub(self.copied.as_u64())?.checked_sub(1)?;
        self.held.get(usize::try_from(index).unwrap())
    }
}

/// A stable entry, and the lead in which it became so.
#[derive(Debug)]
struct Stable {
    held: Held,
    period: Period,
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: BTreeMap<MemberId, Seen>,
    stable: Vec<Stable>,
    leaders: BTreeMap<Period, MemberId>,
    /// How often an entry was overwritten.
    pub(crate) overwritten: u64,
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn positions(after: Lsn, to: Lsn) -> impl Iterator<Item = Lsn> {
    (after.as_u64() + 1..=to.as_u64()).map(Lsn::from_u64)
}

impl Watch {
    /// Everything that anybody ever held to be stable.
    pub(crate) fn stable_end(&self) -> Lsn {
        Lsn::from_u64(self.stable.len() as u64)
    }

    pub(crate) fn leads(&self) -> usize {
        self.leaders.len()
    }

    /// The numbers of the stable values.
    pub(crate) fn values(&self) -> BTreeSet<u64> {
        let number = |stable: &Stable| match stable.held.1 {
            TestEntry::Value { number, .. } => Some(number),
            TestEntry::Start(_) | TestEntry::Members(_) => None,
        };
        self.stable.iter().filter_map(number).collect()
    }

    /// The newest stable entry that says who belongs.
    pub(crate) fn members(&self) -> Option<(Lsn, &Membership)> {
        let at = self.stable.iter().rposition(|stable| matches!(stable.held.1, TestEntry::Members(_)))?;
        let TestEntry::Members(membership) = &self.stable[at].held.1 else { return None };
        Some((Lsn::from_u64(at as u64 + 1), membership))
    }

    /// A member begins.
    pub(crate) fn begins<P: Port>(&mut self, me: MemberId, port: &mut P) -> Result<(), String> {
        let seen = Seen {
            watermark: Lsn::ZERO,
            leading: None,
            membership: port.membership(),
            copied: Lsn::ZERO,
            held: Vec::new(),
            dropped: Vec::new(),
        };
        ensure(self.seen.insert(me, seen).is_none(), || format!("{me:?} was there before"))?;
        self.look(me, port, None, None)
    }

    /// A member drops its journal, and follows again from the beginning.
    pub(crate) fn drops<P: Port>(&mut self, me: MemberId, port: &mut P) -> Result<(), String> {
        let before = self.seen.remove(&me).ok_or("nobody dropped a journal")?;
        self.begins(me, port)?;
        self.seen.get_mut(&me).ok_or("gone")?.dropped.push(before);
        Ok(())
    }

    /// Looks at a member after each step of it: `appended` if it was told to append, `copied` if it got a copy.
    pub(crate) fn look<P: Port>(
        &mut self,
        me: MemberId,
        port: &mut P,
        appended: Option<&TestEntry>,
        copied: Option<&Copied>,
    ) -> Result<(), String> {
        let (base, tail, watermark) = (port.base(), port.tail(), port.watermark());
        ensure(base <= watermark && watermark <= tail, || {
            format!("{me:?} keeps entries after {base} and up to {tail}, and {watermark} is stable")
        })?;
        let seen = self.seen.get(&me).ok_or_else(|| format!("nobody knows {me:?}"))?;
        let before = seen.watermark;
        ensure(watermark >= before, || format!("the watermark of {me:?} fell from {before} to {watermark}"))?;
        self.look_at_leader(me, port)?;
        match copied {
            Some(copied) if watermark > before => self.look_at_copy(me, port, copied)?,
            Some(_) | None => self.look_at_journal(me, port, appended)?,
        }
        self.look_at_stable(me, port, before, copied)?;
        let leading = port.is_leading().then(|| port.period());
        let seen = self.seen.get_mut(&me).ok_or("gone")?;
        let newly = leading.filter(|period| seen.leading != Some(*period));
        seen.leading = leading;
        seen.membership = port.membership();
        seen.watermark = watermark;
        newly.map_or(Ok(()), |period| self.look_at_new_leader(me, period))
    }

    /// One leader a period.
    fn look_at_leader<P: Port>(&mut self, me: MemberId, port: &P) -> Result<(), String> {
        if !port.is_leading() {
            return Ok(());
        }
        let period = port.period();
        let leader = *self.leaders.entry(period).or_insert(me);
        ensure(leader == me, || format!("both {leader:?} and {me:?} lead in {period:?}"))
    }

    /// A journal changes at its end only, and what is overwritten was not stable.
    fn look_at_journal<P: Port>(
        &mut self,
        me: MemberId,
        port: &mut P,
        appended: Option<&TestEntry>,
    ) -> Result<(), String> {
        let (base, tail) = (port.base(), port.tail());
        let leading = port.is_leading().then(|| port.period());
        let seen = self.seen.get_mut(&me).ok_or("gone")?;
        let old_tail = seen.tail();
        let since = if leading.is_some() && leading == seen.leading { old_tail } else { seen.watermark.max(base) };
        let common = old_tail.min(tail);
        let is_same = |lsn: &Lsn| {
            let held = seen.at(*lsn);
            held.is_some_and(|(term, entry)| {
                port.term_at(*lsn) == Some(*term) && port.entry(*lsn).as_ref() == Some(entry)
            })
        };
        let differs = positions(since, common).find(|lsn| !is_same(lsn));
        let differs = differs.or_else(|| (tail < old_tail).then(|| tail.next()));
        if let Some(from) = differs {
            ensure(from > seen.watermark, || format!("{me:?} overwrote the stable entry {from}"))?;
            let keep = from.as_u64() - 1 - seen.copied.as_u64();
            seen.held.truncate(usize::try_from(keep).unwrap());
            self.overwritten += 1;
        }
        for lsn in positions(seen.tail(), tail) {
            let term = port.term_at(lsn).unwrap_or_else(|| port.period().1);
            // A group of one need not keep what is stable at once.
            let gone = || appended.cloned().or(leading.map(|(_, term)| TestEntry::Start(term)));
            let entry = port.entry(lsn).or_else(gone);
            let entry = entry.ok_or_else(|| format!("{me:?} does not keep its entry {lsn}"))?;
            seen.held.push((term, entry));
        }
        Ok(())
    }

    /// A copied state takes the place of a part of the journal; what follows it must stay if it was the leader's.
    fn look_at_copy<P: Port>(&mut self, me: MemberId, port: &mut P, copied: &Copied) -> Result<(), String> {
        let seen = self.seen.get_mut(&me).ok_or("gone")?;
        let agrees = seen.at(copied.at).is_some_and(|(term, _)| *term == copied.at_term);
        let (old_tail, tail) = (seen.tail(), port.tail());
        ensure(!agrees || tail >= old_tail, || {
            format!("{me:?} dropped the entries after {tail}, up to {old_tail}, for a copy as of {}", copied.at)
        })?;
        let after = positions(copied.at, tail);
        let held = after.map(|lsn| Some((port.term_at(lsn)?, port.entry(lsn)?))).collect::<Option<Vec<Held>>>();
        seen.held = held.ok_or_else(|| format!("{me:?} does not keep what follows its copy"))?;
        seen.copied = copied.at;
        Ok(())
    }

    /// What a member holds to be stable is what all hold to be stable, and enough of the group have it.
    fn look_at_stable<P: Port>(
        &mut self,
        me: MemberId,
        port: &P,
        before: Lsn,
        copied: Option<&Copied>,
    ) -> Result<(), String> {
        let watermark = port.watermark();
        let mut after = before;
        if let Some(copied) = copied.filter(|copied| copied.at > before && watermark >= copied.at) {
            let index = usize::try_from(copied.at.as_u64() - 1).unwrap();
            let stable = self.stable.get(index).map(|stable| stable.held.0);
            ensure(stable == Some(copied.at_term), || {
                format!("{me:?} got a copy as of {} of term {}, and {stable:?} is stable", copied.at, copied.at_term)
            })?;
            after = copied.at;
        }
        let memberships = [self.seen.get(&me).ok_or("gone")?.membership.clone(), port.membership()];
        for lsn in positions(after, watermark) {
            let seen = self.seen.get(&me).ok_or("gone")?;
            let held = seen.at(lsn).ok_or_else(|| format!("{me:?} has {lsn} stable without it"))?.clone();
            if let Some(stable) = self.stable.get(usize::try_from(lsn.as_u64() - 1).unwrap()) {
                ensure(stable.held == held, || {
                    format!("at {lsn} {me:?} has {held:?} stable, and others have {:?}", stable.held)
                })?;
                continue;
            }
            let led = seen.leading.is_some() || port.is_leading();
            ensure(led, || format!("{me:?} does not lead and has {lsn} stable before its leader"))?;
            ensure(memberships.iter().any(|membership| self.is_held(membership, lsn, &held)), || {
                format!("{me:?} calls {lsn} stable, which too few of {memberships:?} hold")
            })?;
            if let TestEntry::Value { by, .. } = held.1 {
                let leader = self.leaders.get(&(Generation::ZERO, held.0));
                ensure(leader == Some(&by), || format!("{lsn} was appended by {by:?} in the lead of {leader:?}"))?;
            }
            self.stable.push(Stable { held, period: port.period() });
        }
        if port.is_leading() && watermark > before {
            let (said, holders) = (port.copies(watermark), self.holders(&port.membership(), watermark));
            ensure(said <= holders, || format!("{me:?} says {said} copies of {watermark}, and there are {holders}"))?;
        }
        Ok(())
    }

    fn has(&self, member: &MemberId, lsn: Lsn, held: &Held) -> bool {
        self.seen.get(member).is_some_and(|seen| seen.has(lsn, held))
    }

    fn holders(&self, membership: &Membership, lsn: Lsn) -> usize {
        let Some(stable) = self.stable.get(usize::try_from(lsn.as_u64() - 1).unwrap()) else { return 0 };
        membership.members().iter().filter(|member| self.has(member, lsn, &stable.held)).count()
    }

    /// Whether those who make an entry stable have it. Who died since it acknowledged it counts.
    fn is_held(&self, membership: &Membership, lsn: Lsn, held: &Held) -> bool {
        let most = |voters: &BTreeSet<MemberId>| {
            voters.iter().filter(|voter| self.has(voter, lsn, held)).count() > voters.len() / 2
        };
        let in_sync = || {
            let sync = membership.learners.iter().filter(|(_, sync)| **sync);
            sync.map(|(learner, _)| learner).all(|learner| self.has(learner, lsn, held))
        };
        let single = membership.voters.len() == 1 && membership.incoming.is_none();
        most(&membership.voters) && membership.incoming.as_ref().is_none_or(most) && (!single || in_sync())
    }

    /// A leader has all that became stable before its lead.
    fn look_at_new_leader(&self, me: MemberId, period: Period) -> Result<(), String> {
        for (lsn, stable) in positions(Lsn::ZERO, self.stable_end()).zip(&self.stable) {
            ensure(stable.period >= period || self.has(&me, lsn, &stable.held), || {
                format!("{me:?} leads in {period:?} without {lsn}, which became stable in {:?}", stable.period)
            })?;
        }
        Ok(())
    }
}

/// How long after the last fault a group is given to be whole again.
pub(crate) const WHOLE_WITHIN: Micros = Micros::from_millis(12_000);
