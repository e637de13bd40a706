//! Many peers: a flash join, churn, and the loss of half of all peers at one moment, while clients work.
//!
//! The peers, the clients, the observer of journals and the audit are those of any seed; only what happens to whom is
//! planned here instead of drawn. What the loss of half of all peers leaves without a majority is out of reach, and
//! counted; everything else must be found from everywhere. It refuses to look into messages.

use crate::audit;
use crate::client::{Came, World};
use crate::game::Purse;
use crate::lives::Staff;
use crate::options::{Options, Overrides};
use crate::run::{ask_all_fates, client, make_world};
use crate::world::{Event, Simulation};
use driftmesh_model::{GroupId, ObjectId, Ref};
use driftmesh_object_store::Fate;
use driftmesh_peer::Peer;
use driftmesh_peer::session::Host;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

const SECOND_US: u64 = 1_000_000;
/// Of so many peers one is there at first, and the others come at once.
const FLASH: usize = 4;
/// Within which the others come.
const FLASH_WITHIN_US: u64 = SECOND_US;
/// In a minute one of so many peers goes, and somebody comes instead.
const CHURN_PER_MINUTE: u64 = 5;
const CHURN_FOR_US: u64 = 60 * SECOND_US;
/// How long a peer that crashed is away at most.
const AWAY_MAX_US: u64 = 4 * SECOND_US;
/// Purses for each peer.
const PURSES_PER_PEER: usize = 2;
/// Mean pause of a client between two transactions.
const PACE_US: u64 = 2 * SECOND_US;
/// Within which groups must be whole after others came, and served by somebody after half of all went.
const WITHIN_US: u64 = 30 * SECOND_US;
/// Clients work until so many transactions were begun: more than they can begin, until somebody says that they were.
const WORK_UNTIL: u64 = u64::MAX / 2;
/// At so many peers each purse is looked for.
const LOOKED_FOR_AT: usize = 3;
const LOOK_EVERY_US: u64 = 50_000;
/// Time of clients to end, and of seekers to find all.
const END_WITHIN_US: u64 = 60 * SECOND_US;

/// What became of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScaleReport {
    /// The seed.
    pub seed: u64,
    /// How many peers, once all are there.
    pub peers: usize,
    /// What was wrong; empty is good.
    pub violations: Vec<String>,
    /// Commits that clients saw.
    pub commits: u64,
    /// Objects that changed their owner.
    pub transfers: u64,
    /// Commits, and snapshots read, that were lost and told so.
    pub lost: u64,
    /// After the last of those who came at once, ms, until every group was whole and everybody said that a peer may stop.
    pub whole_after_flash_ms: u64,
    /// Peers that went during the churn: half of them drained, half crashed.
    pub churned: u64,
    /// Peers that were killed at one moment.
    pub killed_at_once: usize,
    /// Groups that lost their majority with that, which only an operator could revive.
    pub groups_lost: usize,
    /// After that moment, ms, until everything that survived had an owner that served it.
    pub served_again_ms: u64,
    /// Purses that were made.
    pub objects: usize,
    /// Those that survived; each was found from several peers.
    pub objects_surviving: usize,
    /// Messages that a peer sent, per virtual second, over the whole run.
    pub messages_per_peer_second: u64,
    /// Virtual time, seconds.
    pub sim_seconds: f64,
    /// Real time, seconds; filled in by whoever has a clock.
    pub wall_seconds: f64,
}

struct Scale {
    simulation: Simulation,
    world: World,
    report: ScaleReport,
    wrong: Vec<String>,
}

/// Runs one seed with so many peers, eight at least.
#[must_use]
pub fn run_scale(seed: u64, peers: usize) -> ScaleReport {
    let mut simulation = Simulation::new(options_of(seed, peers.max(2 * FLASH)));
    let world = make_world(&mut simulation);
    let report = ScaleReport { seed, peers: simulation.peers.len(), objects: world.purses.len(), ..Default::default() };
    let mut scale = Scale { simulation, world, report, wrong: Vec::new() };
    scale.flash_join();
    scale.churn();
    scale.lose_half();
    scale.find_all();
    scale.judge()
}

/// The network and the groups as the seed draws them; nothing but what is planned happens to peers.
fn options_of(seed: u64, peers: usize) -> Options {
    let overrides = Overrides { peers: Some(peers), usual_workloads: true, untraced: true, ..Overrides::default() };
    let purses = PURSES_PER_PEER * peers;
    Options {
        late_peers: peers - peers / FLASH,
        clients: 1,
        readers: 0,
        watchers: 0,
        name_watchers: 0,
        purses,
        hot_purses: purses,
        pace_us: 2 * PACE_US,
        fault_every_us: 0,
        replicas: 2,
        followed_max: 256,
        crashes: true,
        // Whoever crashes may take the last majority of a group with it.
        together: true,
        lossy: true,
        aim: None,
        strangers: false,
        mad_clock: false,
        old_copies: false,
        rubbish: false,
        records_max: 1 << 16,
        pointers_max: 1 << 16,
        lag_bytes: u64::MAX,
        unstable_max_us: SECOND_US,
        ..Options::draw(seed, &overrides)
    }
}

impl Scale {
    /// Three times the peers that are there come within a second, while clients work.
    fn flash_join(&mut self) {
        let simulation = &mut self.simulation;
        simulation.staff = Some(Staff { world: self.world.clone(), until: WORK_UNTIL, next_session: 2_000 });
        simulation.begin_faults();
        let now_us = simulation.now_us();
        for index in 0..simulation.peers.len() {
            if simulation.peers[index].gone {
                let at_us = now_us + SECOND_US + simulation.rng.u64(0..FLASH_WITHIN_US);
                simulation.schedule(at_us, Event::Return(index, true));
            } else {
                simulation.staff_begins(index);
            }
        }
        simulation.run(now_us + SECOND_US + FLASH_WITHIN_US, |_| false);
        let begun_us = simulation.now_us();
        if !run_until(simulation, WITHIN_US, Simulation::all_whole) {
            self.wrong.push("not every group is whole 30 s after three times the peers came".to_owned());
        }
        self.report.whole_after_flash_ms = (simulation.now_us() - begun_us) / 1_000;
    }

    /// Peers go one after the other, drained or not, and others come.
    fn churn(&mut self) {
        let simulation = &mut self.simulation;
        let peers = simulation.peers.len() as u64;
        let every_us = 60 * SECOND_US * CHURN_PER_MINUTE / peers;
        let until = simulation.now_us() + CHURN_FOR_US;
        while simulation.now_us() + every_us <= until {
            let next = simulation.now_us() + every_us;
            simulation.run(next, |_| false);
            let there: Vec<usize> = (0..simulation.peers.len()).filter(|at| !simulation.peers[*at].gone).collect();
            let Some(index) = simulation.rng.choice(there) else { break };
            self.report.churned += 1;
            if self.report.churned.is_multiple_of(2) {
                simulation.peers[index].host.step(Peer::drain);
                simulation.collect(index, "drain");
                simulation.schedule(next + 20_000, Event::Leave(index, next + AWAY_MAX_US));
            } else {
                simulation.lose(&[index]);
                let as_itself = simulation.rng.bool();
                let back_at = next + simulation.rng.u64(10_000..AWAY_MAX_US);
                simulation.schedule(back_at, Event::Return(index, as_itself));
            }
        }
        // Whoever is still on the way out or in.
        let until = simulation.now_us() + 2 * AWAY_MAX_US;
        simulation.run(until, |_| false);
    }

    /// Half of all peers go at one moment, and stay away.
    fn lose_half(&mut self) {
        let simulation = &mut self.simulation;
        let mut there: Vec<usize> = (0..simulation.peers.len()).filter(|at| !simulation.peers[*at].gone).collect();
        simulation.rng.shuffle(&mut there);
        there.truncate(there.len() / 2);
        simulation.lose(&there);
        self.report.killed_at_once = there.len();
        self.report.groups_lost = simulation.lost_groups.len();
        let begun_us = simulation.now_us();
        let world = &self.world;
        if !run_until(simulation, WITHIN_US, |simulation| unserved(simulation, world) == 0) {
            let left = unserved(simulation, world);
            self.wrong.push(format!(
                "{left} purses of groups with a majority have no owner 30 s after half of all peers went"
            ));
        }
        self.report.served_again_ms = (simulation.now_us() - begun_us) / 1_000;
    }

    /// Clients end, the faults stop, and every purse that survived is looked for at several peers.
    fn find_all(&mut self) {
        let simulation = &mut self.simulation;
        self.world.recorder.lock().begun = WORK_UNTIL;
        simulation.heal();
        let until = simulation.now_us() + END_WITHIN_US;
        // Clients that wait for what is out of reach end with their deadlines.
        simulation.run(until, |simulation| simulation.executor.unfinished() == 0);
        let there: Vec<usize> = (0..simulation.peers.len()).filter(|at| !simulation.peers[*at].gone).collect();
        let served = served(simulation);
        let purses: Vec<_> = self.world.purses.iter().copied().filter(|purse| served.contains(&purse.id())).collect();
        self.report.objects_surviving = purses.len();
        let missed = Arc::new(Mutex::new(Vec::new()));
        for (number, purse) in (0..).zip(purses) {
            for part in 0..LOOKED_FOR_AT {
                let Some(at) = self.simulation.rng.choice(there.iter().copied()) else { return };
                self.look_for(purse, at, 1_000_000 + 10 * number + u32::try_from(part).unwrap_or(0), &missed);
            }
        }
        let simulation = &mut self.simulation;
        let until = simulation.now_us() + END_WITHIN_US;
        if !simulation.run(until, |simulation| simulation.executor.unfinished() == 0) {
            self.wrong.push("lookups do not end".to_owned());
        }
        self.wrong.append(&mut missed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn look_for(&mut self, purse: Ref<Purse>, at: usize, session: u32, missed: &Arc<Mutex<Vec<String>>>) {
        let mut seeker = client(&mut self.simulation, &self.world, at, session);
        let missed = Arc::clone(missed);
        self.simulation.executor.spawn(at, async move {
            if seeker.finds(purse).await != Came::Committed {
                let text = format!("peer {at} does not find {purse}, which survived");
                missed.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        });
    }

    fn judge(self) -> ScaleReport {
        let Self { mut simulation, world, mut report, mut wrong } = self;
        ask_all_fates(&mut simulation, &world);
        wrong.append(&mut audit::audit(&mut simulation, &world));
        let recorder = world.recorder.lock();
        let ledger = &recorder.ledger;
        let is_lost = |number: &usize| ledger.fate(*number) == Fate::Lost;
        report.lost = (0..ledger.kept.len()).filter(is_lost).count() as u64;
        report.commits = recorder.committed;
        report.transfers = simulation.observer.transfers;
        report.messages_per_peer_second =
            simulation.messages() * SECOND_US / simulation.now_us().max(1) / report.peers as u64;
        #[expect(clippy::cast_precision_loss, reason = "a duration for people")]
        let sim_seconds = simulation.now_us() as f64 / 1e6;
        ScaleReport { violations: wrong, sim_seconds, ..report }
    }
}

/// Runs until it is so, looking now and then. Returns whether it was in time.
fn run_until(simulation: &mut Simulation, within_us: u64, is_so: impl Fn(&Simulation) -> bool) -> bool {
    let until = simulation.now_us() + within_us;
    let mut look_at = 0;
    simulation.run(until, |simulation| {
        if simulation.now_us() < look_at {
            return false;
        }
        look_at = simulation.now_us() + LOOK_EVERY_US;
        is_so(simulation)
    })
}

/// What leaders own whose groups kept their majority: others cannot make anything stable, and so answer nobody.
fn served(simulation: &Simulation) -> BTreeSet<ObjectId> {
    let mut served = BTreeSet::new();
    let is_lost = |id: &GroupId| simulation.lost_groups.contains(id);
    for (index, id) in simulation.leaders().into_iter().filter(|(_, id)| !is_lost(id)) {
        simulation.peers[index].host.look(|peer| {
            for group in peer.groups().filter(|group| group.id() == id) {
                served.extend(group.owned_from(0).map(|(_, stored)| stored.object));
            }
        });
    }
    served
}

/// Purses that groups own which kept their majority, by their journals, and no leader does.
fn unserved(simulation: &Simulation, world: &World) -> usize {
    let served = served(simulation);
    let survives = |object: ObjectId| {
        simulation.observer.owner_of(object).is_some_and(|group| !simulation.lost_groups.contains(&group))
    };
    world.purses.iter().filter(|purse| survives(purse.id()) && !served.contains(&purse.id())).count()
}
