//! A group of members on a network, in virtual time and on one thread. The same seed makes the same run.

use crate::network::{Network, Quality};
use crate::port::{Copied, Port, TestEntry};
use crate::rng::Rng;
use crate::watch::Watch;
use driftmesh_model::{Incarnation, Lsn, Micros, PeerId};
use driftmesh_object_store::{MemberId, Membership, Settings};
use std::collections::{BTreeMap, BTreeSet};

/// No message takes longer.
const UNDER_WAY_FOR: Micros = Micros::from_millis(3_000);
/// A copy that was not taken in after this is sent again.
const COPY_AGAIN_AFTER: Micros = Micros::from_millis(200);
/// And after this it is begun anew.
const COPY_ANEW_AFTER: Micros = Micros::from_millis(3_000);

pub(crate) fn member(peer: u8, incarnation: u64) -> MemberId {
    MemberId { peer: PeerId::from_bytes([peer; 32]), incarnation: Incarnation::from_u64(incarnation) }
}

#[derive(Debug)]
enum Packet<M> {
    Said(M),
    Copied(Copied),
}

#[derive(Debug)]
enum Event<M> {
    Arrives { from: MemberId, to: MemberId, packet: Packet<M> },
    Wakes(MemberId),
}

#[derive(Debug)]
struct Copying {
    to: MemberId,
    copied: Copied,
    begun_at: Micros,
    sent_at: Option<Micros>,
}

#[derive(Debug)]
struct Member<P> {
    port: P,
    wake_at: Option<Micros>,
    paused_until: Micros,
    copying: Option<Copying>,
}

/// What went over the network.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) copies: u64,
}

pub(crate) struct World<P: Port> {
    pub(crate) now: Micros,
    pub(crate) rng: Rng,
    pub(crate) network: Network,
    pub(crate) watch: Watch,
    /// The first thing that must not be.
    pub(crate) broken: Option<String>,
    /// A sum of all that happened.
    pub(crate) trace: u64,
    pub(crate) traffic: Traffic,
    /// Messages are encoded and decoded this often, of a thousand.
    pub(crate) encoded: u64,
    /// Messages with entries are lost, others not.
    pub(crate) starved: bool,
    /// Messages need not wait for others this often, of a thousand.
    pub(crate) urgent: u64,
    /// Everything that was said, if it is to be kept.
    pub(crate) said: Option<Vec<(MemberId, MemberId, P::Message)>>,
    /// What is done to every member when it begins.
    pub(crate) prepare: fn(&mut P),
    settings: Settings,
    events: BTreeMap<(Micros, u64), Event<P::Message>>,
    sequence: u64,
    members: BTreeMap<MemberId, Member<P>>,
    /// Who died: when, and whom it held to belong. What it said of that may still be on its way.
    dead: BTreeMap<MemberId, (Micros, (Lsn, Membership))>,
    /// How many values were appended.
    pub(crate) values: u64,
}

impl<P: Port> World<P> {
    pub(crate) fn new(seed: u64, settings: Settings, quality: Quality) -> Self {
        Self {
            now: Micros::from_millis(1_000),
            rng: Rng::new(seed),
            network: Network::new(quality),
            watch: Watch::default(),
            broken: None,
            trace: seed,
            traffic: Traffic::default(),
            encoded: 50,
            starved: false,
            urgent: 100,
            said: None,
            prepare: |_| (),
            settings,
            events: BTreeMap::new(),
            sequence: 0,
            members: BTreeMap::new(),
            dead: BTreeMap::new(),
            values: 0,
        }
    }

    pub(crate) fn found(&mut self, me: MemberId) {
        let port = P::found(me, self.settings, self.rng.next(), self.now);
        self.begin(me, port);
    }

    pub(crate) fn join(&mut self, me: MemberId) {
        let port = P::join(me, self.settings, self.rng.next(), self.now);
        self.begin(me, port);
    }

    fn begin(&mut self, me: MemberId, mut port: P) {
        (self.prepare)(&mut port);
        let looked = self.watch.begins(me, &mut port);
        self.note(looked);
        let fresh = Member { port, wake_at: None, paused_until: Micros(0), copying: None };
        assert!(self.members.insert(me, fresh).is_none(), "somebody begins twice");
        self.settle(me, false);
    }

    /// Its memory is lost, and it never comes back.
    pub(crate) fn crash(&mut self, me: MemberId) {
        if let Some(member) = self.members.remove(&me) {
            self.dead.insert(me, (self.now, member.port.newest_membership()));
        }
    }

    /// Who belongs, in the view of each of the living and of those who died a short time ago.
    pub(crate) fn views(&self) -> Vec<(Lsn, Membership)> {
        let dead = self.dead.values().filter(|(at, _)| self.now.since(*at) < UNDER_WAY_FOR);
        let living = self.members.values().map(|member| member.port.newest_membership());
        living.chain(dead.map(|(_, view)| view.clone())).collect()
    }

    /// It drops the journal, and follows again if it is asked to.
    pub(crate) fn drop_journal(&mut self, me: MemberId) {
        let (settings, seed, now) = (self.settings, self.rng.next(), self.now);
        let Some(member) = self.members.get_mut(&me) else { return };
        member.port = member.port.join_again(settings, seed, now);
        member.copying = None;
        (self.prepare)(&mut member.port);
        let looked = self.watch.drops(me, &mut member.port);
        self.note(looked);
        self.settle(me, false);
    }

    pub(crate) fn pause(&mut self, me: MemberId, time: Micros) {
        let until = self.now.plus(time);
        if let Some(member) = self.members.get_mut(&me) {
            member.paused_until = until;
        }
    }

    pub(crate) fn is_paused(&self, me: &MemberId) -> bool {
        self.members.get(me).is_some_and(|member| self.now < member.paused_until)
    }

    pub(crate) fn wake_all(&mut self) {
        for member in self.members.values_mut() {
            member.paused_until = self.now;
        }
    }

    pub(crate) fn live(&self) -> BTreeSet<MemberId> {
        self.members.keys().copied().collect()
    }

    pub(crate) fn is_live(&self, me: &MemberId) -> bool {
        self.members.contains_key(me)
    }

    pub(crate) fn has_lived(&self, me: &MemberId) -> bool {
        self.members.contains_key(me) || self.dead.contains_key(me)
    }

    pub(crate) fn port(&self, me: MemberId) -> &P {
        &self.members.get(&me).expect("it lives").port
    }

    /// How a member stands, in words.
    pub(crate) fn standing(&self, me: MemberId) -> String {
        let port = self.port(me);
        let others: Vec<_> = self.members.keys().map(|other| (other, port.held_by(other, self.now))).collect();
        format!(
            "{me:?} keeps {}..{}, stable {}, in {:?} of {:?}, {:?}, next {:?} at {:?}, {others:?}",
            port.base(),
            port.tail(),
            port.watermark(),
            port.period(),
            port.leader(),
            port.newest_membership(),
            port.next_tick(),
            self.now,
        )
    }

    /// Who leads, the newest lead first.
    pub(crate) fn leaders(&self) -> Vec<MemberId> {
        let mut leading: Vec<_> =
            self.members.iter().filter(|(_, member)| member.port.is_leading()).map(|(me, _)| *me).collect();
        leading.sort_by_key(|me| std::cmp::Reverse(self.port(*me).period()));
        leading
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        self.leaders().first().copied()
    }

    /// Appends a value, if the member leads.
    pub(crate) fn append(&mut self, me: MemberId, weight: u64) -> Option<Lsn> {
        let now = self.now;
        let entry = TestEntry::Value { by: me, number: self.values, weight };
        let member = self.members.get_mut(&me)?;
        let lsn = member.port.append(now, entry.clone())?;
        self.values += 1;
        let looked = self.watch.look(me, &mut member.port, Some(&entry), None);
        self.note(looked);
        self.settle(me, false);
        Some(lsn)
    }

    pub(crate) fn append_many(&mut self, me: MemberId, count: u64) {
        for _ in 0..count {
            let _ = self.append(me, 100);
        }
    }

    pub(crate) fn propose(&mut self, me: MemberId, target: Membership) -> bool {
        let now = self.now;
        let Some(member) = self.members.get_mut(&me) else { return false };
        let proposed = member.port.propose(now, target);
        let looked = self.watch.look(me, &mut member.port, None, None);
        self.note(looked);
        self.settle(me, false);
        proposed
    }

    /// Delivers a message out of thin air.
    pub(crate) fn deliver(&mut self, from: MemberId, to: MemberId, message: P::Message) {
        self.arrives(from, to, Packet::Said(message));
    }

    pub(crate) fn run_for(&mut self, time: Micros) {
        let until = self.now.plus(time);
        while self.broken.is_none()
            && let Some(first) = self.events.first_entry()
            && first.key().0 <= until
        {
            let ((at, _), event) = first.remove_entry();
            self.now = self.now.max(at);
            self.happens(event);
        }
        self.now = until;
    }

    /// Runs until something holds; whether it came to that in time.
    pub(crate) fn run_until(&mut self, within: Micros, holds: impl Fn(&Self) -> bool) -> bool {
        let until = self.now.plus(within);
        while self.now < until && self.broken.is_none() {
            if holds(self) {
                return true;
            }
            self.run_for(Micros(1_000));
        }
        self.broken.is_none() && holds(self)
    }

    /// Fails the test if something must not be.
    pub(crate) fn expect_sound(&self) {
        if let Some(broken) = &self.broken {
            panic!("{broken}");
        }
    }

    /// The first thing that must not be is kept.
    pub(crate) fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    fn note(&mut self, looked: Result<(), String>) {
        if let Err(what) = looked {
            self.fail(format!("at {} us: {what}", self.now.0));
        }
    }

    fn schedule(&mut self, at: Micros, event: Event<P::Message>) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn happens(&mut self, event: Event<P::Message>) {
        let to = match &event {
            Event::Arrives { to, .. } | Event::Wakes(to) => *to,
        };
        let Some(member) = self.members.get_mut(&to) else { return };
        if self.now < member.paused_until {
            let until = member.paused_until;
            self.schedule(until, event);
            return;
        }
        match event {
            Event::Arrives { from, to, packet } => self.arrives(from, to, packet),
            Event::Wakes(me) => {
                if member.wake_at.is_none_or(|at| at > self.now) {
                    return;
                }
                member.wake_at = None;
                self.settle(me, true);
            }
        }
    }

    fn arrives(&mut self, from: MemberId, to: MemberId, packet: Packet<P::Message>) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&to) else { return };
        let (led, mut deposes, mut taken) = (member.port.is_leading(), false, None);
        match packet {
            Packet::Said(message) => {
                deposes = member.port.would_depose(&message);
                member.port.handle(now, from, message);
            }
            Packet::Copied(copied) => {
                // A copy belongs to one lead.
                if copied.period == member.port.period() && !led {
                    member.port.installed(now, copied.clone());
                    taken = Some(copied);
                }
            }
        }
        let ended = led && !member.port.is_leading();
        let looked = if ended && !deposes {
            Err(format!("a message of {from:?} deposed {to:?}, which did not know that it would"))
        } else {
            self.watch.look(to, &mut member.port, None, taken.as_ref())
        };
        self.note(looked);
        self.settle(to, false);
    }

    /// Does what is due, sends what is to be said, and finds out when to look again.
    fn settle(&mut self, me: MemberId, tick: bool) {
        let now = self.now;
        let mut due = tick;
        for _ in 0..4 {
            if self.broken.is_some() {
                return;
            }
            let Some(member) = self.members.get_mut(&me) else { return };
            if due {
                member.port.tick(now);
            }
            let urgent = self.rng.often(self.urgent);
            let messages = member.port.take_messages(now, urgent);
            let watermark = member.port.watermark();
            member.port.trim(watermark);
            let looked = self.watch.look(me, &mut member.port, None, None);
            let next = member.port.next_tick();
            let sum = [now.0, member.port.tail().as_u64(), watermark.as_u64(), member.port.period().1.as_u64()];
            self.trace = sum.into_iter().fold(self.trace, |trace, part| Rng::new(trace ^ part).next());
            self.note(looked);
            self.send(me, messages);
            self.copy_on(me);
            due = next.is_some_and(|next| next <= now);
            if !due {
                self.wake_at(me, next);
                return;
            }
        }
        self.note(Err(format!("{me:?} always has something to do at once: a busy loop")));
    }

    fn wake_at(&mut self, me: MemberId, next: Option<Micros>) {
        let Some(member) = self.members.get_mut(&me) else { return };
        let poll = member.copying.as_ref().map(|_| self.now.plus(Micros::from_millis(20)));
        let Some(at) = [next, poll].into_iter().flatten().min() else { return };
        if member.wake_at.is_none_or(|before| at < before || before <= self.now) {
            member.wake_at = Some(at);
            self.schedule(at, Event::Wakes(me));
        }
    }

    fn send(&mut self, from: MemberId, messages: Vec<(MemberId, P::Message)>) {
        for (to, message) in messages {
            let (entries, weight) = P::load_of(&message);
            self.traffic.messages += 1;
            self.traffic.entries += entries as u64;
            self.traffic.bytes += weight;
            if let Some(said) = &mut self.said {
                said.push((from, to, message.clone()));
            }
            if from == to {
                self.note(Err(format!("{from:?} talks to itself")));
            }
            if self.starved && entries > 0 {
                continue;
            }
            for takes in self.network.carry(&mut self.rng, from, to, weight) {
                let message = if self.rng.often(self.encoded) { P::carried(&message) } else { message.clone() };
                let packet = Packet::Said(message);
                self.schedule(self.now.plus(takes), Event::Arrives { from, to, packet });
            }
        }
    }

    /// A leader's copies for those who lack too much of the journal.
    fn copy_on(&mut self, me: MemberId) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&me) else { return };
        let port = &mut member.port;
        let is_over = |copying: &Copying| {
            !port.is_leading() || !port.needs_copy(&copying.to) || now.since(copying.begun_at) >= COPY_ANEW_AFTER
        };
        if member.copying.as_ref().is_some_and(is_over) {
            member.copying = None;
            port.keep_after(None);
        }
        if member.copying.is_none()
            && let Some(to) = port.wants_copy()
        {
            // Of what is stable: a copy of more could be needed to make it stable.
            let at = port.watermark();
            let at_term = port.term_at(at).expect("the newest stable entry has a term");
            let copied = Copied { period: port.period(), at, at_term, membership: port.stable_membership() };
            port.keep_after(Some(at));
            member.copying = Some(Copying { to, copied, begun_at: now, sent_at: None });
        }
        let Some(copying) = &mut member.copying else { return };
        let is_due = copying.sent_at.is_none_or(|at| now.since(at) >= COPY_AGAIN_AFTER);
        if is_due && now > copying.begun_at {
            copying.sent_at = Some(now);
            let (to, copied) = (copying.to, copying.copied.clone());
            self.traffic.copies += 1;
            for takes in self.network.carry(&mut self.rng, me, to, 100_000) {
                let packet = Packet::Copied(copied.clone());
                self.schedule(self.now.plus(takes), Event::Arrives { from: me, to, packet });
            }
        }
    }
}
