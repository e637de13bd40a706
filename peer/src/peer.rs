//! The state of a peer, and the dispatch of what comes in.

use crate::caretaking::Caretaking;
use crate::clock_watch::ClockWatch;
use crate::closing::Closing;
use crate::collecting::Stalled;
use crate::copies::Copies;
use crate::departing::Departing;
use crate::fates::Fates;
use crate::feeding::Feeding;
use crate::fetching::Fetch;
use crate::grants_due::GrantsDue;
use crate::groups::Groups;
use crate::membership::{Gone, Member};
use crate::mending::Mending;
use crate::message::{Envelope, Message};
use crate::metrics::{Metrics, RareEvent};
use crate::outbox::{Needs, Outbox};
use crate::ownership::Subscriptions;
use crate::placing::Placing;
use crate::publishing::Republish;
use crate::rare_branches::{RareBranch, RareBranches};
use crate::recent::RecentReads;
use crate::replicating::Followed;
use crate::routes::Routes;
use crate::scanning::{Arrivals, ScanPages};
use crate::scheduling::Scheduling;
use crate::seeking::{Seek, Sought};
use crate::subscribing::{FeedPart, Subscribed};
use crate::surveying::Surveys;
use crate::tasking::{Provisional, Run, Tasks};
use crate::timers::{Timer, Timers};
use crate::told::Told;
use crate::uses::Uses;
use crate::watching::Watching;
use crate::windows::{EarlyRead, Windows};
use crate::{Config, Sabotage};
use driftmesh_directory::{HomeRing, Pointers, Publisher, Record, Records, Source};
use driftmesh_model::{GroupId, HybridClock, Micros, Now, ObjectId, PeerId, SmallMap, Timestamp, TxnId, TxnTimestamp};
use driftmesh_object_store::{Entry, Group, Imported, MemberId, Promises, Write};
use driftmesh_txn::{Intent, LockTable, TaskKind, Transactions};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a step wants done outside.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// Messages, in the order in which they left.
    pub sends: Vec<(PeerId, Envelope)>,
    /// Transactions whose parked steps should be taken again.
    pub wakes: Vec<TxnId>,
    /// Questions to the routing of the mesh; who is found and admitted appears by `joined`.
    pub seeks: Vec<Seek>,
    /// Tasks of other peers, and what is due of schedules, to be run here.
    pub tasks: Vec<Run>,
}

/// A recent commit, remembered so that a conflict can name it.
#[derive(Clone, Debug)]
pub(crate) struct RecentCommit {
    pub(crate) commit: Timestamp,
    pub(crate) timestamp: TxnTimestamp,
    pub(crate) kind: TaskKind,
}

/// Rounds of what a peer says to itself that one step hears.
const OWN_ROUNDS: usize = 32;

/// One peer of the mesh: the leader of the group that it founded, a follower of others', with its view of the mesh.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) config: Config,
    /// The time of the present step.
    pub(crate) now: Now,
    pub(crate) clock: HybridClock,
    pub(crate) group: Group,
    pub(crate) locks: LockTable,
    pub(crate) txns: Transactions,
    /// Empty, but with room: the next transaction need not ask for some.
    pub(crate) spare_intents: SmallMap<ObjectId, Intent>,
    /// Boxed: they are large, and come and go.
    pub(crate) fetches: BTreeMap<ObjectId, Box<Fetch>>,
    /// Requests for objects that are on their way here, by object.
    pub(crate) parked: BTreeMap<ObjectId, Vec<crate::answering::ParkedRequest>>,
    pub(crate) hints: Records,
    pub(crate) pointers: Pointers,
    /// The home records kept here.
    pub(crate) homes: Records,
    pub(crate) ring: HomeRing,
    pub(crate) publisher: Publisher,
    pub(crate) publish_timer_set: bool,
    pub(crate) republish: Republish,
    pub(crate) members: BTreeMap<PeerId, Member>,
    /// Those that are forgotten.
    pub(crate) gone: Gone,
    /// The other groups that this peer belongs to.
    pub(crate) followed: BTreeMap<GroupId, Followed>,
    /// What the objects of those take, bytes.
    pub(crate) held_of_others: u64,
    /// What this incarnation owes to groups that it followed and does not any more (R11).
    pub(crate) dropped: BTreeMap<GroupId, Promises>,
    /// Those of `followed` that it leads in place of their founders.
    pub(crate) caretaking: BTreeMap<GroupId, Caretaking>,
    pub(crate) mending: BTreeMap<GroupId, Mending>,
    /// All groups of the mesh.
    pub(crate) groups: Groups,
    /// This peer has ended a group, and nobody is known to have heard of it.
    pub(crate) end_is_untold: bool,
    /// The own group took a step, or has something to say.
    pub(crate) own_dirty: bool,
    /// And these.
    pub(crate) dirty: BTreeSet<GroupId>,
    /// When each group is looked at next.
    pub(crate) armed: BTreeMap<GroupId, Micros>,
    /// What the own group journals before this leaves then, with what waits already; zero if nothing waits.
    pub(crate) own_batch_at: Micros,
    pub(crate) windows: BTreeMap<GroupId, Windows>,
    pub(crate) early_reads: Vec<EarlyRead>,
    pub(crate) closing: Closing,
    pub(crate) recent: RecentReads,
    pub(crate) feeding: Feeding,
    pub(crate) subscribed: Subscribed,
    pub(crate) watching: Watching,
    pub(crate) fates: Fates,
    pub(crate) told: Told,
    pub(crate) surveys: Surveys,
    pub(crate) tasks: Tasks,
    pub(crate) routes: Routes,
    pub(crate) uses: Uses,
    pub(crate) placing: Placing,
    pub(crate) scheduling: Scheduling,
    /// Transactions whose commit waits until less is unstable (R10).
    pub(crate) held_commits: BTreeSet<TxnId>,
    /// Fixed snapshots that have read from this peer's own group.
    pub(crate) snapshots_here: BTreeSet<TxnId>,
    /// Fixed snapshots that wait to read from it, and since when, monotonic.
    pub(crate) window_waits: BTreeMap<TxnId, Micros>,
    /// How often this incarnation founded a group.
    pub(crate) foundings: u64,
    /// What was counted with groups that this peer does not lead any more.
    pub(crate) moves_base: u64,
    /// When each unsettled grant of a group to another one is due to be sent again.
    pub(crate) grants_due: GrantsDue,
    /// What leaves in the present step.
    pub(crate) departing: Departing,
    pub(crate) drain_from: usize,
    /// How often this peer began to leave.
    pub(crate) drains: u64,
    /// Whether the timer of leaving is set.
    pub(crate) drain_is_armed: bool,
    /// From when on versions travel with their objects, and until when that is not looked up again, monotonic.
    pub(crate) travel_below: (Micros, Timestamp),
    pub(crate) heartbeats: u64,
    pub(crate) timers: Timers,
    pub(crate) outbox: Outbox,
    pub(crate) rare_branches: RareBranches,
    pub(crate) wakes: Vec<TxnId>,
    /// Objects whose lock was released while somebody waits.
    pub(crate) hand_overs: VecDeque<ObjectId>,
    /// Objects that wait for the grant window towards their destination.
    pub(crate) stalled: BTreeMap<GroupId, Stalled>,
    /// Objects that wait until there is room for one more forwarding pointer.
    pub(crate) stalled_for_pointers: Stalled,
    pub(crate) collect_timer_set: bool,
    pub(crate) clock_watch: ClockWatch,
    pub(crate) sought: Sought,
    pub(crate) seeks: Vec<Seek>,
    /// How the objects were found that these transactions have read.
    pub(crate) explaining: BTreeMap<TxnId, Vec<(ObjectId, crate::Found)>>,
    pub(crate) copies: Copies,
    pub(crate) recent_commits: VecDeque<RecentCommit>,
    pub(crate) scans: ScanPages,
    pub(crate) arrivals: Arrivals,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) draining: bool,
    /// Another process with this peer's key was admitted after it: nothing begins or commits here any more (R9).
    pub(crate) is_superseded: bool,
    pub(crate) ids_drawn: u64,
    /// Lookups begun so far.
    pub(crate) lookups: u64,
    pub(crate) metrics: Metrics,
}

impl Peer {
    /// A peer that has just started and knows nobody.
    #[must_use]
    pub fn new(config: Config, now: Now) -> Self {
        let group_id = GroupId::of_founder(&config.peer, config.incarnation);
        let me = MemberId { peer: config.peer, incarnation: config.incarnation };
        let seed = config.incarnation.as_u64();
        let group = Group::found(group_id, me, config.journal, seed, now.mono);
        let mut ring = HomeRing::default();
        ring.add(config.peer);
        let republish = Republish::begun_with(&ring);
        let mut timers = Timers::default();
        timers.set(now.mono.plus(config.heartbeat), Timer::Heartbeat);
        let mut clock = HybridClock::default();
        clock.now(now.wall);
        let records = || Records::new(config.records_max);
        let mut peer = Self {
            now,
            clock,
            group,
            locks: LockTable::default(),
            txns: Transactions::default(),
            spare_intents: SmallMap::default(),
            fetches: BTreeMap::new(),
            parked: BTreeMap::new(),
            hints: records(),
            pointers: Pointers::default(),
            homes: records(),
            ring,
            publisher: Publisher::default(),
            publish_timer_set: false,
            republish,
            members: BTreeMap::new(),
            gone: Gone::default(),
            followed: BTreeMap::new(),
            held_of_others: 0,
            dropped: BTreeMap::new(),
            caretaking: BTreeMap::new(),
            mending: BTreeMap::new(),
            groups: Groups::default(),
            end_is_untold: false,
            own_dirty: false,
            dirty: BTreeSet::new(),
            armed: BTreeMap::new(),
            own_batch_at: Micros(0),
            windows: BTreeMap::new(),
            early_reads: Vec::new(),
            closing: Closing::default(),
            recent: RecentReads::default(),
            feeding: Feeding::default(),
            subscribed: Subscribed::default(),
            watching: Watching::default(),
            fates: Fates::default(),
            told: Told::default(),
            surveys: Surveys::default(),
            tasks: Tasks::default(),
            routes: Routes::new(config.routes_max),
            uses: Uses::default(),
            placing: Placing::default(),
            scheduling: Scheduling::default(),
            held_commits: BTreeSet::new(),
            snapshots_here: BTreeSet::new(),
            window_waits: BTreeMap::new(),
            foundings: 0,
            moves_base: 0,
            grants_due: GrantsDue::default(),
            departing: Departing::default(),
            drain_from: 0,
            drains: 0,
            drain_is_armed: false,
            travel_below: (Micros(0), Timestamp::ZERO),
            heartbeats: 0,
            timers,
            outbox: Outbox::default(),
            rare_branches: RareBranches::new(config.rare_branches),
            wakes: Vec::new(),
            hand_overs: VecDeque::new(),
            stalled: BTreeMap::new(),
            stalled_for_pointers: Stalled::default(),
            collect_timer_set: false,
            clock_watch: ClockWatch::default(),
            sought: Sought::default(),
            seeks: Vec::new(),
            explaining: BTreeMap::new(),
            copies: Copies::default(),
            recent_commits: VecDeque::new(),
            scans: ScanPages::default(),
            arrivals: Arrivals::default(),
            subscriptions: Subscriptions::default(),
            draining: false,
            is_superseded: false,
            ids_drawn: 0,
            lookups: 0,
            metrics: Metrics::default(),
            config,
        };
        if let Some(record) = peer.record_of_led(group_id) {
            peer.learn_group(&record);
        }
        peer.renew_prune_below();
        peer.apply_sabotage();
        if peer.rarely(RareBranch::SmallMessages) {
            peer.outbox.send_small();
        }
        if peer.config.founder {
            peer.create_directory();
        }
        peer
    }

    /// R23: the founder begins with the directory buckets, the only objects whose ids everybody knows. Their first
    /// versions lie before every snapshot, so nobody comes too early for them.
    pub(crate) fn create_directory(&mut self) {
        let commit = Timestamp::ZERO.next();
        self.journal(Entry::Commit { commit, writes: crate::session::genesis(), outcome: None, schedules: Vec::new() });
        for bucket in crate::session::NameBucket::of_genesis() {
            self.publish(bucket);
        }
    }

    /// Fills a mesh that this peer has just founded and nobody has joined yet with objects from elsewhere: their ids are
    /// kept, and what genesis made is overwritten. Each object once, and no more than a transaction may write. With them
    /// comes what some of them kept of tasks, which must be sound; no more than an entry may move.
    ///
    /// Returns `false`, and does nothing, once another peer is known or if this one did not found the mesh.
    pub fn import(&mut self, now: Now, writes: Vec<Write>, kept: Vec<Imported>) -> bool {
        self.now = now;
        if !self.config.founder || !self.members.is_empty() {
            return false;
        }
        let commit = self.clock.tick(now.wall);
        let objects: Vec<ObjectId> = writes.iter().map(|write| write.object).collect();
        self.journal(Entry::Commit { commit, writes, outcome: None, schedules: Vec::new() });
        objects.into_iter().for_each(|object| self.publish(object));
        if !kept.is_empty() {
            let moved = |kept: Imported| Imported { outcomes: Box::new(kept.outcomes.moved_to(commit)), ..kept };
            self.journal(Entry::Imported { kept: kept.into_iter().map(moved).collect() });
        }
        true
    }

    #[cfg(feature = "sabotage")]
    fn apply_sabotage(&mut self) {
        self.group = self.sabotaged(self.group.clone());
        if self.broken(Sabotage::Climb) {
            self.hints.sabotage_climb();
            self.homes.sabotage_climb();
        }
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    const fn apply_sabotage(&mut self) {}

    /// Takes in a message from an admitted peer. Never fails: what makes no sense is counted and dropped (R25).
    pub fn received(&mut self, now: Now, from: PeerId, envelope: Envelope) {
        self.now = now;
        if !self.counts(&from) {
            self.hear_who_does_not_count(from, envelope.message);
            return;
        }
        if envelope.message.is_too_long() {
            // R24: so much at once would keep everybody else waiting.
            self.metrics.note_impossible();
            return;
        }
        if !matches!(envelope.message, Message::Heartbeat { .. } | Message::Group { .. }) {
            self.note_use(from);
        }
        // Causality: later snapshots here are not below what this message could have seen. A clock that is too far
        // ahead is not followed (R18).
        if !self.broken(Sabotage::SnapshotClock) {
            if self.broken(Sabotage::ClockGuard) {
                self.clock.raise_above(envelope.clock);
            } else {
                let _ = self.clock.observe(envelope.clock, now.wall);
            }
        }
        self.dispatch(from, envelope.message);
    }

    fn dispatch(&mut self, from: PeerId, message: Message) {
        match message {
            Message::Heartbeat {
                wall,
                oldest_snapshot,
                owned,
                sequence,
                draining,
                unsettled,
                heard_draining,
                your_offset,
                group,
                groups_digest,
                followed,
                room,
                led_bytes,
            } => {
                if self.is_news(from, sequence, group) {
                    self.followed_told(from, followed);
                    self.room_told(from, room, led_bytes);
                    self.heartbeat_received(from, wall, oldest_snapshot, owned, your_offset);
                    self.leaving_received(from, draining, unsettled, heard_draining);
                    self.compare_groups(from, groups_digest);
                }
            }
            Message::Group { group, message } => self.group_received(from, group, message),
            Message::Subscribe { group, feed, number, closed, wishes, ended } => {
                self.subscribe_asked(from, group, (feed, number, closed), &wishes, &ended);
            }
            Message::Feed { group, feed, opened, number, closed, news } => {
                self.fed(from, (group, feed, opened), number, FeedPart { closed, news });
            }
            Message::WantCloses { group } => self.closes_wanted(from, group),
            Message::NoRoom { group } => self.no_room(from, group),
            Message::Groups { records } => self.groups_told(&records),
            Message::AskFate { ask, group, term, lsn } => self.fate_asked(from, ask, group, term, lsn),
            Message::Fate { ask, fate, lost_from } => self.fate_told(ask, fate, lost_from),
            Message::Forgotten { incarnation, heartbeats } => self.told_forgotten(from, incarnation, heartbeats),
            // It counts already.
            Message::Introduced(_) => {}
            Message::AskStanding { ask, group, fences } => self.standing_asked(from, ask, group, &fences),
            Message::Standing { ask, group, standing } => self.standing_told(from, ask, group, *standing),
            Message::Read { snapshot, objects } => self.read_asked(from, snapshot, objects),
            Message::ReadAnswers { snapshot, group, answers } => self.read_answered(from, (snapshot, group), answers),
            Message::Own { group, requests } => self.own_asked(from, group, requests),
            Message::Queued { objects } => self.queued(from, objects),
            Message::Stays { objects } => self.stays_told(from, objects),
            Message::Locate { objects } => self.locate_asked(from, objects),
            Message::Located { answers } => self.located(from, answers),
            Message::Publish { batch, records } => self.published(from, batch, records),
            Message::Published { batch } => self.batch_acknowledged(&from, batch),
            Message::Learned { records } => self.learned(records),
            Message::Grants { generation, grants } => self.granted(from, generation, grants),
            Message::GrantAnswers { from: sender, to, generation, answers } => {
                self.grants_answered(sender, (to, generation), answers);
            }
            Message::Submit { ask, request } => self.task_asked(from, ask, *request),
            Message::TaskEnded { ask, task, end } => self.task_told(from, ask, task, *end),
            Message::TaskProvisional { ask, task, answer, receipt } => {
                self.task_told_early(ask, task, Provisional { by: from, answer, receipt });
            }
            Message::ClockAhead { objects, receiver } => self.clock_refused(from, &objects, receiver),
            Message::Scan { snapshot, cursor } => self.scan_asked(from, snapshot, cursor),
            Message::ScanPage(page) => self.scan_answered(from, page),
        }
    }

    /// Fires the timers that are due.
    pub fn timers_due(&mut self, now: Now) {
        /// Most timers in one step, so that a step stays short.
        const TIMERS_PER_STEP: usize = 256;
        self.now = now;
        for _ in 0..TIMERS_PER_STEP {
            let Some(timer) = self.timers.pop_due(now.mono) else { return };
            self.fire(timer);
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Heartbeat => self.heartbeat_due(),
            Timer::Publish => self.publish_due(),
            Timer::Fetch(object) => self.fetch_due(object),
            Timer::Grants(from, to) => self.grants_due(from, to),
            Timer::HandOver(object) => self.hand_overs.push_back(object),
            Timer::Deadline(txn) => self.deadline_due(txn),
            Timer::Wake(txn) => self.wakes.push(txn),
            Timer::Parked(object) => self.parked_due(object),
            Timer::Republish => self.republish_due(),
            Timer::Drain => self.drain_due(),
            Timer::Collect => self.collect_due(),
            Timer::Scan(peer, id) => self.scan_due(peer, id),
            Timer::Group(id) => self.group_due(id),
            Timer::Caretake(id) => self.caretake_due(id),
            Timer::EarlyReads => self.early_reads_due(),
            Timer::Close => self.close_due(),
            Timer::Subscriptions => self.subscriptions_due(),
            Timer::Schedules => self.schedules_due(),
            // The end of the step hears it.
            Timer::Loopback => {}
        }
    }

    /// When `timers_due` wants to be called next, monotonic.
    #[must_use]
    pub fn next_timer(&self) -> Option<Micros> {
        self.timers.next()
    }

    /// Whether `take_commands` has anything to do.
    #[must_use]
    pub fn has_commands(&self) -> bool {
        let quiet = self.hand_overs.is_empty()
            && self.outbox.is_empty()
            && self.wakes.is_empty()
            && self.seeks.is_empty()
            && self.tasks.starts.is_empty()
            && !self.schedules_have_changed()
            && self.dirty.is_empty();
        !quiet || self.own_group_has_to_say()
    }

    /// Finishes the step and takes what it wants done. Call after every input.
    pub fn take_commands(&mut self) -> Commands {
        self.settle_hand_overs();
        self.flush();
        self.hear_own();
        self.replicate();
        if self.schedules_have_changed() {
            self.look_at_schedules();
        }
        let mut sends = self.outbox.take(self.clock.last(), self.config.peer);
        if self.is_superseded {
            // R9: it does not count any more, and who has not heard of that must not be misled.
            sends.clear();
        }
        Commands {
            sends,
            wakes: std::mem::take(&mut self.wakes),
            seeks: std::mem::take(&mut self.seeks),
            tasks: std::mem::take(&mut self.tasks.starts),
        }
    }

    /// What this peer says to itself, because it leads more than one group, passes the same barrier and no network.
    fn hear_own(&mut self) {
        for _ in 0..OWN_ROUNDS {
            let own = self.outbox.take_own(self.config.peer);
            if own.is_empty() {
                return;
            }
            for message in own {
                self.dispatch(self.config.peer, message);
            }
            self.settle_hand_overs();
            self.flush();
        }
        self.timers.set(self.now.mono, Timer::Loopback);
    }

    fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let held = self.outbox.flush(&self.needs_of_all(), self.group.id(), self.config.peer);
        self.note_held(held);
    }

    pub(crate) fn note_held(&mut self, held: usize) {
        if held > 0 {
            self.metrics.note_many(RareEvent::HeldByBarrier, held as u64);
            self.mark_dirty();
        }
    }

    /// Something waits for journals: their entries leave without waiting for a batch to fill.
    fn mark_dirty(&mut self) {
        self.own_dirty = true;
        let caretaken = self.caretaking.keys().copied();
        self.dirty.extend(caretaken);
    }

    /// R6: sends a message once everything that this peer has journalled so far is stable: whatever leaves depends on
    /// that at most.
    pub(crate) fn send(&mut self, to: PeerId, message: Message) {
        let needs = self.needs_of_all();
        self.send_when(needs, to, message);
    }

    /// Sends a message once these positions are stable.
    pub(crate) fn send_when(&mut self, needs: Needs, to: PeerId, message: Message) {
        if self.outbox.when_stable(needs, to, message) {
            self.note_held(1);
        }
    }

    /// Sends a message that depends on nothing that is journalled: a question, or what is stable already.
    pub(crate) fn send_now(&mut self, to: PeerId, message: Message) {
        self.outbox.now(to, message);
    }

    /// A record of what this peer's group owns.
    pub(crate) const fn own_record(&self, object: ObjectId, epoch: driftmesh_model::Epoch) -> Record {
        Record { object, group: self.group.id(), epoch }
    }

    /// The best record of an object that this peer has, from whatever source (R1: only a hint).
    pub(crate) fn best_record(&mut self, object: ObjectId) -> Option<(Source, Record)> {
        let of = |group: &Group| {
            let owned = group.owned(object);
            owned.map(|stored| Record { object, group: group.id(), epoch: group.epoch_of(stored) })
        };
        if let Some(record) = self.led_groups().find_map(of) {
            return Some((Source::Own, record));
        }
        let leaving = |group: &Group| {
            let (to, transit) = group.in_transit(object)?;
            Some(Record { object, group: to, epoch: transit.epoch })
        };
        if let Some(record) = self.led_groups().find_map(leaving) {
            // That it went there is certain (R19), and whoever is there knows more; what others claim beyond it may be a lie.
            return Some((Source::Pointer, record));
        }
        let known = [
            (Source::Pointer, self.pointers.get(object)),
            (Source::Hint, self.hints.get(object)),
            (Source::Home, self.homes.get(object)),
        ];
        let mut best: Option<(Source, Record)> = None;
        for (source, record) in known {
            if let Some(record) = record
                && best.is_none_or(|(_, best)| record.outranks(&best))
            {
                best = Some((source, record));
            }
        }
        if best.is_none() {
            // Whoever follows a group knows what it owns, or owned a moment ago.
            best = self.groups().find_map(of).map(|record| (Source::Hint, record));
        }
        best
    }

    /// Who this peer is.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.config.peer
    }

    /// The group it leads.
    #[must_use]
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// What it has counted.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether this peer is one of an object's homes, as far as it knows the live peers.
    #[must_use]
    pub fn is_home(&self, object: ObjectId) -> bool {
        self.ring.homes(object).contains(&self.config.peer)
    }

    /// Whether nothing is on its way: no fetch, no unsettled grant, no unpublished record, no open transaction.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.fetches.is_empty()
            && self.group.in_transit_count() == 0
            && self.caretaking.is_empty()
            && self.publisher.is_idle()
            && self.republish.is_idle()
            && self.txns.is_empty()
            && self.tasks.is_idle()
            && self.schedules_are_quiet()
    }
}

impl Peer {
    /// Whether anything that this peer's groups have journalled is not stable.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.groups().any(|group| group.watermark() < group.tail())
    }
}
