//! The simulated network and clocks pass the suites; and the network breaks, under faults, what it does not promise.

use super::{ClockPort, NetworkPort, NotSent, Promises, Told, clock_conforms, network_conforms};
use crate::hearing::Heard;
use crate::options::{Options, Overrides};
use crate::world::Simulation;
use driftmesh_directory::Record;
use driftmesh_model::limits::MESSAGE_BYTES_MAX;
use driftmesh_model::{Epoch, GroupId, Micros, Now, ObjectId, Timestamp};
use driftmesh_peer::session::Host;
use driftmesh_peer::{Envelope, Message};
use std::sync::{Arc, Mutex};

const PEERS: usize = 3;
/// Tells what the suite sends from what peers say by themselves.
const MARK: GroupId = GroupId::from_u128(0x5EED);
/// A record takes more on the wire, bytes.
const RECORD_BYTES_MIN: usize = 50;
/// Longer than anything is on its way in a network without faults, or until a crash is noticed, us.
const RUN_OUT_US: u64 = 5_000_000;
const PATIENCE_US: u64 = 60_000_000;

fn options(seed: u64) -> Options {
    let drawn = Options::draw(seed, &Overrides { peers: Some(PEERS), ..Overrides::default() });
    Options { strangers: false, mad_clock: false, rubbish: false, fault_every_us: 0, ..drawn }
}

struct SimNetwork {
    simulation: Simulation,
    /// Where the present start of each peer begins in what it was told.
    began: [usize; PEERS],
}

impl SimNetwork {
    fn new(options: Options) -> Self {
        Self { simulation: Simulation::new(options), began: [0; PEERS] }
    }
}

fn records(number: u64, count: usize) -> Vec<Record> {
    let record = |part: usize| Record {
        object: ObjectId::from_u128((u128::from(number) << 64) | part as u128),
        group: MARK,
        epoch: Epoch::from_u64(1),
    };
    (0..count).map(record).collect()
}

/// A payload of the suite, if it is one: its number and length, if it is as it was sent.
fn payload(envelope: &Envelope) -> Option<Option<(u64, usize)>> {
    let Message::Learned { records: said } = &envelope.message else { return None };
    let first = said.first().filter(|record| record.group == MARK)?;
    let number = u64::try_from(first.object.as_u128() >> 64).ok()?;
    Some((*said == records(number, said.len())).then_some((number, said.len())))
}

impl NetworkPort for SimNetwork {
    fn promises(&self) -> Promises {
        Promises { in_order: false, once: false }
    }

    fn peers(&self) -> usize {
        PEERS
    }

    fn longest(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn send(&mut self, from: usize, to: usize, number: u64, bytes: usize) -> Result<(), NotSent> {
        let records = records(number, bytes / RECORD_BYTES_MIN + 1);
        let envelope = Envelope { clock: Timestamp::ZERO, message: Message::Learned { records } };
        let to = self.simulation.peers[to].id;
        self.simulation.ship(from, to, envelope);
        let refused = std::mem::take(&mut self.simulation.observer.violations);
        if refused.is_empty() { Ok(()) } else { Err(NotSent::TooLong) }
    }

    fn stop(&mut self, peer: usize, clean: bool) {
        self.simulation.end_life(peer, clean);
    }

    fn start(&mut self, peer: usize) {
        self.began[peer] = self.told(peer).0.len();
        self.simulation.begin_life(peer, true);
    }

    fn run_until(&mut self, is_so: &mut dyn FnMut(&Self) -> bool) -> bool {
        let limit = self.simulation.now_us() + PATIENCE_US;
        while self.simulation.now_us() < limit {
            if is_so(self) {
                return true;
            }
            let until = self.simulation.now_us() + 50_000;
            self.simulation.run(until, |_| false);
        }
        false
    }

    fn run_out(&mut self) {
        let until = self.simulation.now_us() + RUN_OUT_US;
        self.simulation.run(until, |_| false);
    }

    fn told(&self, at: usize) -> (Vec<Told>, usize) {
        let number = |id| self.simulation.peers.iter().position(|peer| peer.id == id).expect("nobody is somebody new");
        let told = |heard: &Heard| match heard {
            Heard::Met(peer, introduction) => {
                Some(Told::Met { peer: number(*peer), start: introduction.incarnation.as_u64() })
            }
            Heard::Said(from, envelope) => payload(envelope).map(|payload| Told::Said { from: number(*from), payload }),
            Heard::Left(peer, clean) => Some(Told::Left { peer: number(*peer), clean: *clean }),
            Heard::Due(_) => None,
        };
        let here = self.simulation.heard.iter().filter(|(_, by, _)| *by == at);
        (here.filter_map(|(_, _, heard)| told(heard)).collect(), self.began[at])
    }
}

#[test]
fn the_simulated_network_conforms() {
    for seed in 0..6 {
        network_conforms(|| SimNetwork::new(options(seed)));
    }
}

/// What the core may not rely on does not hold: messages are lost, come twice, in another order, and after a connection broke
/// and came back. What it may rely on holds all the same.
#[test]
fn under_faults_it_breaks_what_it_does_not_promise() {
    const SENT: u64 = 2_000;
    let faults = Options { loss_permille: 50, duplicate_permille: 100, tail_permille: 50, ..options(1) };
    let mut net = SimNetwork::new(Options { delay_spread_us: 5_000, ..faults });
    net.simulation.begin_faults();
    let mut met_anew = None;
    for number in 0..SENT {
        net.send(0, 1, number, 16).unwrap();
        let until = net.simulation.now_us() + 500;
        net.simulation.run(until, |_| false);
        if number == SENT / 2 {
            net.simulation.disconnect(0, 1);
            met_anew = Some(number);
        }
    }
    net.run_out();
    let (told, _) = net.told(1);
    let came: Vec<u64> = told
        .iter()
        .filter_map(|told| match told {
            Told::Said { from: 0, payload } => Some(payload.expect("as it was sent").0),
            Told::Said { .. } | Told::Met { .. } | Told::Left { .. } => None,
        })
        .collect();
    let mut each = came.clone();
    each.sort_unstable();
    each.dedup();
    assert!(each.len() < came.len(), "none came twice");
    assert!((each.len() as u64) < SENT, "none was lost");
    assert!(!came.is_sorted(), "all came in order");
    let (before, after) = told.split_at(told.iter().rposition(|told| matches!(told, Told::Met { .. })).unwrap());
    assert!(before.iter().any(|told| matches!(told, Told::Left { peer: 0, clean: false })));
    let broke_at = met_anew.unwrap();
    let is_from_before =
        |told: &Told| matches!(told, Told::Said { payload: Some((number, _)), .. } if *number <= broke_at);
    assert!(after.iter().any(is_from_before), "nothing of the former connection came in the next one");
}

struct SimClock {
    simulation: Simulation,
}

impl SimClock {
    fn new(drift_ppm: u32) -> Self {
        let simulation = Simulation::new(Options { skew_us: 120_000, drift_ppm, clock_jumps: false, ..options(2) });
        let mut clock = Self { simulation };
        // From where it can be set to both sides.
        let off = clock.now().wall.0.cast_signed() - clock.now().mono.0.cast_signed();
        let truth = crate::host::WALL_START_US.cast_signed();
        clock.set_wall(truth - off);
        clock
    }
}

impl ClockPort for SimClock {
    fn drift_ppm(&self) -> u64 {
        u64::from(self.simulation.options.drift_ppm)
    }

    fn jitter_us(&self) -> u64 {
        1
    }

    fn now(&mut self) -> Now {
        self.simulation.peers[0].host.step(|_, now| now)
    }

    fn set_wall(&mut self, by_us: i64) {
        self.simulation.peers[0].wall_clock.set_by(by_us);
    }

    fn sleep(&mut self, for_us: u64) -> Now {
        let host = self.simulation.peers[0].host.clone();
        let woken = Arc::new(Mutex::new(None));
        let note = Arc::clone(&woken);
        self.simulation.executor.spawn(0, async move {
            host.sleep(for_us).await;
            *note.lock().unwrap() = Some(host.step(|_, now| now));
        });
        let until = self.simulation.now_us() + PATIENCE_US;
        self.simulation.run(until, |_| woken.lock().unwrap().is_some());
        let woken = woken.lock().unwrap().take();
        woken.expect("it went on")
    }

    fn next_timer(&mut self) -> (Micros, Micros) {
        let former = self.simulation.heard.len();
        let is_due = |(at_us, at, heard): &(u64, usize, Heard)| match heard {
            Heard::Due(wanted) if *at == 0 => Some((*wanted, Micros(*at_us))),
            Heard::Due(_) | Heard::Met(..) | Heard::Said(..) | Heard::Left(..) => None,
        };
        let until = self.simulation.now_us() + PATIENCE_US;
        self.simulation.run(until, |simulation| simulation.heard[former..].iter().any(|heard| is_due(heard).is_some()));
        self.simulation.heard[former..].iter().find_map(is_due).expect("it was told")
    }
}

#[test]
fn simulated_clocks_conform() {
    for drift_ppm in [0, 500, 5_000] {
        clock_conforms(|| SimClock::new(drift_ppm));
    }
}
