//! Peers begin, end, and begin again: who crashes, and who comes back as whom.
//!
//! A crash takes a peer's memory and the work of its clients; what the clients were told is kept outside. Unless a seed
//! says otherwise every group keeps the majority of its voters, and the next crash waits until all groups are whole.
//!
//! It refuses to let anything of a life reach the next one: who comes back has a new incarnation and an empty memory. (Old
//! copies are another matter: `old_copies.rs`.)

use crate::bounds::HeldBefore;
use crate::client::{Client, World};
use crate::hearing::Heard;
use crate::host::{Clock, Place, SimHost};
use crate::options::Options;
use crate::requests::Requests;
use crate::wall_clock::WallClock;
use crate::workloads;
use crate::world::{Event, SimPeer, Simulation};
use driftmesh_model::{GroupId, Incarnation, Micros, Now, PeerId};
use driftmesh_object_store::{Group, MemberId, Membership};
use driftmesh_peer::session::{Fates, Host};
use driftmesh_peer::{Config, Peer, Settings};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Failure domains that peers are spread over.
const DOMAINS: u64 = 4;
/// Clients at each peer that append to lists, where these are dumped.
const APPENDERS: usize = 3;

/// Who works at the peers.
pub(crate) struct Staff {
    pub(crate) world: World,
    /// They work until so many transactions were begun.
    pub(crate) until: u64,
    pub(crate) next_session: u32,
}

/// Where a peer is started.
pub(crate) struct MadeAt {
    pub(crate) index: usize,
    pub(crate) clock: Arc<Clock>,
    pub(crate) requests: Requests,
}

fn peer_id(seed: u64, index: usize) -> PeerId {
    let mut hasher = blake3::Hasher::new_derive_key("driftmesh simulator peer v1");
    hasher.update(&seed.to_be_bytes());
    hasher.update(&(index as u64).to_be_bytes());
    PeerId::from_bytes(*hasher.finalize().as_bytes())
}

impl MadeAt {
    /// A peer at its first start.
    pub(crate) fn first(self, options: &Options, rng: &mut Rng) -> SimPeer {
        let index = self.index;
        let id = peer_id(options.seed, index);
        let mad = options.mad_clock && index + 1 == options.peers;
        let wall_clock = WallClock::draw(options, rng, mad);
        let host = self.host(new_config(options, rng, id, index == 0), wall_clock.clone());
        let (life, timer_set, paused_until, journals) = (1, None, 0, 0);
        let late = index + options.late_peers >= options.peers;
        let held = HeldBefore::default();
        SimPeer { host, id, life, wall_clock, timer_set, paused_until, journals, held, mad, gone: late, missed: late }
    }

    fn host(self, config: Config, wall_clock: WallClock) -> SimHost {
        self.host_of(wall_clock, |now| Peer::new(config, now))
    }

    /// A peer that is made so.
    pub(crate) fn host_of(self, wall_clock: WallClock, make: impl FnOnce(Now) -> Peer) -> SimHost {
        let Self { index, clock, requests } = self;
        let host = SimHost::new(Place { index, clock, requests, wall_clock }, make);
        workloads::runs_tasks(&host);
        host
    }
}

fn new_config(options: &Options, rng: &mut Rng, id: PeerId, founder: bool) -> Config {
    let mut seed = [0; 32];
    seed.fill_with(|| rng.u8(..));
    let incarnation = Incarnation::from_u64(rng.u64(..));
    let mut config = Config::new(id, incarnation, seed);
    config.replicas = options.replicas;
    config.domain = rng.u64(..DOMAINS);
    config.journal = Settings {
        election_after: Micros(options.election_after_us),
        election_spread: Micros(options.election_after_us / 2),
        heartbeat: Micros(options.election_after_us / 4),
        batch_every: Micros(options.batch_every_us),
        keep_bytes: u64::MAX,
        lag_bytes: options.lag_bytes,
        ..Settings::default()
    };
    config.replace_after = Micros(options.replace_after_us);
    config.unstable_max = Micros(options.unstable_max_us);
    config.followed_max = options.followed_max;
    config.fed_max = options.fed_max;
    config.version_bytes_max = options.version_bytes_max;
    config.pointers_max = options.pointers_max;
    config.pointer_grace = Micros(options.pointer_grace_us);
    config.records_max = NonZeroUsize::new(options.records_max).unwrap_or(NonZeroUsize::MIN);
    // Who forgets where objects are also forgets what tasks touch.
    config.routes_max = config.records_max;
    #[cfg(feature = "sabotage")]
    {
        config.sabotage = options.sabotage;
    }
    config.rare_branches = Some(rng.u64(..)).filter(|_| options.rare_branches);
    config.founder = founder;
    config.name_bucket_entries_max = options.name_bucket_entries_max;
    config
}

impl Simulation {
    /// A peer crashes, unless that would take more than this seed allows.
    pub(crate) fn crash_if_allowed(&mut self, index: usize) -> bool {
        if !self.options.crashes || self.peers[index].gone || self.peers[index].mad || !self.network.faulty {
            return false;
        }
        if !self.options.together && !self.all_whole() {
            return false;
        }
        let lost = self.lost_with(&[index]);
        if !lost.is_empty() && (!self.options.lossy || self.lives() <= 2) {
            return false;
        }
        self.lose(&[index]);
        let after = match self.rng.u8(..6) {
            0..=2 => self.rng.u64(10_000..600_000),
            3 | 4 => self.rng.u64(600_000..4_000_000),
            _ => return true,
        };
        let as_itself = self.rng.bool();
        self.schedule(self.now_us() + after, Event::Return(index, as_itself));
        true
    }

    /// Peers crash at one moment, whatever that takes with it.
    pub(crate) fn lose(&mut self, victims: &[usize]) {
        let lost = self.lost_with(victims);
        self.lost_groups.extend(lost);
        for index in victims {
            self.crashes += 1;
            self.end_life(*index, false);
        }
    }

    /// How many peers are up.
    pub(crate) fn lives(&self) -> usize {
        self.peers.iter().filter(|peer| !peer.gone).count()
    }

    /// Whether every peer says that one more may stop.
    pub(crate) fn all_whole(&self) -> bool {
        let may_stop = |peer: &SimPeer| {
            let now = peer.wall_clock.now(&self.clock);
            peer.host.look(|peer| peer.status(now).may_stop)
        };
        self.peers.iter().filter(|peer| !peer.gone && !peer.mad).all(may_stop)
    }

    /// Groups that have members and no majority of voters that live, were these peers to crash now.
    pub(crate) fn lost_with(&self, victims: &[usize]) -> BTreeSet<GroupId> {
        let mut alive = BTreeSet::new();
        let mut newest: BTreeMap<GroupId, Vec<Membership>> = BTreeMap::new();
        for (index, peer) in self.peers.iter().enumerate().filter(|(_, peer)| !peer.gone) {
            peer.host.look(|peer| {
                for group in peer.groups() {
                    if !victims.contains(&index) {
                        alive.insert(group.consensus().me());
                    }
                    let consensus = group.consensus();
                    let views = newest.entry(group.id()).or_default();
                    views.extend([consensus.membership().clone(), consensus.stable_membership().1.clone()]);
                }
            });
        }
        let holds = |member: &MemberId| alive.contains(member);
        let lost =
            |views: &Vec<Membership>| views.iter().any(|view| !view.voters.is_empty() && !view.is_majority(holds));
        let open = newest.into_iter().filter(|(group, _)| !self.is_over(*group, victims));
        open.filter(|(_, views)| lost(views)).map(|(group, _)| group).collect()
    }

    /// Whether a group has ended and somebody knows it who lives, were these peers to crash now.
    fn is_over(&self, group: GroupId, victims: &[usize]) -> bool {
        let mut others = self.peers.iter().enumerate().filter(|(index, peer)| !peer.gone && !victims.contains(index));
        self.observer.is_retired(group) && others.any(|(_, peer)| peer.host.look(|peer| peer.has_ended(group)))
    }

    /// A start of a peer is over: with a goodbye, or not.
    pub(crate) fn end_life(&mut self, index: usize, clean: bool) {
        self.down.retain(|(left, right)| *left != index && *right != index);
        self.observer.restarts += 1;
        let metrics = self.peers[index].host.look(|peer| peer.metrics().clone());
        self.former_metrics.push(metrics);
        self.peers[index].gone = true;
        self.executor.kill(index);
        self.trace.note(self.clock.now_us(), index, if clean { "leaves" } else { "crashes" }, &[]);
        let life = self.peers[index].life;
        if clean {
            self.tell_others(index, true);
        } else {
            // A process that dies is missed at once, a machine that dies is not.
            let after = if self.rng.bool() { 0 } else { self.rng.u64(..1_000_000) };
            self.schedule(self.now_us() + after, Event::Missed(index, life));
            if self.rng.bool() {
                // What it sent last never arrives.
                self.peers[index].life += 1;
            }
        }
    }

    /// The others find out that a peer is gone.
    pub(crate) fn missed(&mut self, index: usize, life: u64) {
        let peer = &self.peers[index];
        if peer.gone && (peer.life == life || peer.life == life + 1) {
            self.tell_others(index, false);
        }
    }

    pub(crate) fn tell_others(&mut self, index: usize, clean: bool) {
        self.peers[index].missed = true;
        let id = self.peers[index].id;
        for other in 0..self.peers.len() {
            if other != index && !self.peers[other].gone {
                self.hear(other, Heard::Left(id, clean), "gone");
            }
        }
    }

    /// A peer is started again: another incarnation of itself, or somebody new. It knows nothing.
    pub(crate) fn begin_life(&mut self, index: usize, as_itself: bool) {
        if !self.peers[index].gone {
            return;
        }
        let id = if as_itself {
            self.peers[index].id
        } else {
            // Nobody misses it any more when its place is taken.
            self.tell_others(index, false);
            peer_id(self.options.seed, index + 1_000 * self.observer.restarts)
        };
        let options = Arc::clone(&self.options);
        let config = new_config(&options, &mut self.rng, id, false);
        let made_at = MadeAt { index, clock: Arc::clone(&self.clock), requests: self.requests.clone() };
        let host = made_at.host(config, self.peers[index].wall_clock.clone());
        self.begin_with(index, id, host);
        if !self.network.faulty {
            self.peers[index].host.step(|peer, _| peer.end_rare_branches());
        }
        for other in 0..self.peers.len() {
            if other != index {
                self.meet(index, other);
            }
        }
        self.collect(index, "starts");
        self.staff_begins(index);
    }

    /// A peer that was down is up, and connected to nobody.
    pub(crate) fn begin_with(&mut self, index: usize, id: PeerId, host: SimHost) {
        let peer = &mut self.peers[index];
        peer.host = host;
        (peer.id, peer.timer_set, peer.paused_until) = (id, None, 0);
        (peer.gone, peer.missed) = (false, false);
        let most = if self.network.faulty { self.held_bytes_max } else { u64::MAX };
        peer.host.step(|peer, _| peer.set_held_bytes_max(most));
        peer.held = peer.host.look(|peer| HeldBefore::of(peer));
        peer.life += 2;
    }

    /// Clients begin to work at a peer.
    pub(crate) fn staff_begins(&mut self, index: usize) {
        let Some(mut staff) = self.staff.take() else { return };
        for _ in 0..self.options.clients {
            let client = self.hired(&mut staff, index);
            self.executor.spawn(index, client.work(staff.until));
        }
        for _ in 0..self.options.readers {
            let client = self.hired(&mut staff, index);
            self.executor.spawn(index, client.only_read(staff.until));
        }
        for _ in 0..self.options.watchers {
            let client = self.hired(&mut staff, index);
            let life = self.peers[index].life;
            self.executor.spawn(index, client.watch((index, life), staff.until));
        }
        if index < self.options.name_watchers {
            let client = self.hired(&mut staff, index);
            let life = self.peers[index].life;
            self.executor.spawn(index, client.watch_names((index, life), staff.until));
        }
        if let Some(dump) = staff.world.dump.clone() {
            for _ in 0..APPENDERS {
                let client = self.hired(&mut staff, index);
                self.executor.spawn(index, client.append(dump.clone()));
            }
            let client = self.hired(&mut staff, index);
            self.executor.spawn(index, client.register(dump));
        }
        self.staff = Some(staff);
    }

    /// One more client at a peer, with a session of its own.
    fn hired(&mut self, staff: &mut Staff, index: usize) -> Client {
        let session = staff.next_session;
        staff.next_session += 1;
        Client {
            host: self.peers[index].host.clone(),
            world: staff.world.clone(),
            rng: Rng::with_seed(self.rng.u64(..)),
            session,
            fates: Fates::new(self.peers[index].host.clone()),
            sane: !self.peers[index].mad,
        }
    }

    /// A client asks some peer what became of some commit.
    pub(crate) fn ask_some_fate(&mut self) {
        let Some(staff) = &self.staff else { return };
        let recorder = staff.world.recorder.clone();
        let open: Vec<(usize, usize)> =
            recorder.lock().ledger.receipts().map(|(number, index, _, _)| (number, index)).collect();
        let Some((number, index)) = self.rng.choice(open) else { return };
        let alive: Vec<usize> = (0..self.peers.len()).filter(|index| !self.peers[*index].gone).collect();
        let Some(at) = self.rng.choice(alive) else { return };
        self.ask_fate(number, index, at);
    }

    /// A client asks a peer what became of a commit, once.
    pub(crate) fn ask_fate(&mut self, number: usize, index: usize, at: usize) {
        let Some(staff) = &self.staff else { return };
        let recorder = staff.world.recorder.clone();
        let host = self.peers[at].host.clone();
        let by = format!("peer {at} at {} us", self.now_us());
        self.executor.spawn(at, async move {
            let receipt = recorder.lock().ledger.kept[number].receipts[index];
            let waiter = host.step(|peer, _| peer.new_waiter());
            let told = std::future::poll_fn(|context| {
                host.poll_step(waiter, context, |peer, now| peer.fate(now, waiter, &receipt))
            });
            let told = told.await;
            recorder.lock().ledger.told(number, index, told, &by);
        });
    }

    /// What the leaders among the peers that are up lead.
    pub(crate) fn leaders(&self) -> Vec<(usize, GroupId)> {
        let mut leaders = Vec::new();
        for (index, peer) in self.peers.iter().enumerate().filter(|(_, peer)| !peer.gone) {
            peer.host.look(|peer| {
                leaders.extend(peer.groups().filter(|group| group.is_leading()).map(|group| (index, Group::id(group))));
            });
        }
        leaders
    }
}
