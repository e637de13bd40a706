//! The router: takes what each machine sends, and delivers it as the links allow.
//!
//! One thread reads and writes all devices. It refuses to wait for a machine that does not take its packets: these are
//! lost, as in any network.

use super::links::{Fate, Links};
use super::{Number, Traffic, machine_at};
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tappers::Tun;

/// The longest wait of the thread: so soon it sees new machines, and its end.
const WAIT: Duration = Duration::from_millis(20);
/// Packets that are taken from one machine in a row.
const BURST: usize = 64;
/// Packets on their way over slow links, all links together; more are lost.
const LATE_MAX: usize = 200_000;
/// What a packet has at least, and where its header says what.
const HEADER: usize = 20;
const DESTINATION: std::ops::Range<usize> = 16..20;
/// Multicast, which is delivered to all.
const MULTICAST: std::ops::RangeInclusive<u8> = 224..=239;

/// A running router. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Router {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread shares with those who change the network.
#[derive(Debug)]
struct Shared {
    begun: Instant,
    links: Mutex<Links>,
    arrivals: Mutex<Vec<Arrival>>,
    traffic: Mutex<Traffic>,
    is_over: AtomicBool,
}

/// A machine that was plugged in.
struct Arrival(Number, Tun);

impl std::fmt::Debug for Arrival {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Arrival({})", self.0)
    }
}

impl Router {
    /// Starts without machines. What gets lost and late is drawn from the seed.
    pub(super) fn start(seed: u64) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            links: Mutex::default(),
            arrivals: Mutex::default(),
            traffic: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let rng = Rng::with_seed(seed);
            Routing { shared: of_thread, devices: BTreeMap::new(), late: BinaryHeap::new(), sent: 0, rng }.run();
        });
        Self { shared, thread: Some(thread) }
    }

    /// Plugs a machine in by its device.
    pub(super) fn plug_in(&self, machine: Number, device: Tun) {
        self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival(machine, device));
    }

    /// Changes the links.
    pub(super) fn links<T>(&self, change: impl FnOnce(&mut Links, Duration) -> T) -> T {
        let now = self.shared.begun.elapsed();
        change(&mut self.shared.links.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// What became of all packets until now.
    pub(super) fn traffic(&self) -> Traffic {
        *self.shared.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the runtime.
            let _ = thread.join();
        }
    }
}

/// A packet that is delivered later: when, which it is, to whom, and its bytes.
type Late = Reverse<(Duration, u64, Number, Box<[u8]>)>;

/// What the thread has.
struct Routing {
    shared: Arc<Shared>,
    devices: BTreeMap<Number, Tun>,
    late: BinaryHeap<Late>,
    sent: u64,
    rng: Rng,
}

impl Routing {
    fn run(mut self) {
        let mut packet = vec![0; 1 << 16];
        let mut traffic = Traffic::default();
        while !self.shared.is_over.load(Ordering::Relaxed) {
            for Arrival(machine, device) in
                self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner).drain(..)
            {
                self.devices.insert(machine, device);
            }
            for machine in self.ready() {
                self.take(machine, &mut packet, &mut traffic);
            }
            self.deliver_late(&mut traffic);
            *self.shared.traffic.lock().unwrap_or_else(PoisonError::into_inner) = traffic;
        }
    }

    /// Waits until a machine has sent something, or something is to be delivered; returns who has.
    fn ready(&self) -> Vec<Number> {
        let due = self.late.peek().map(|Reverse((at, ..))| at.saturating_sub(self.shared.begun.elapsed()));
        let wait = due.map_or(WAIT, |due| due.min(WAIT));
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let mut polled: Vec<PollFd<'_>> =
            self.devices.values().map(|device| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)).collect();
        if poll(&mut polled, Some(&wait)).is_err() {
            // A signal came. It is looked again.
            return Vec::new();
        }
        let found = self.devices.keys().zip(&polled);
        found.filter(|(_, polled)| !polled.revents().is_empty()).map(|(machine, _)| *machine).collect()
    }

    /// Takes some packets from a machine.
    fn take(&mut self, machine: Number, packet: &mut [u8], traffic: &mut Traffic) {
        for _ in 0..BURST {
            let Some(device) = self.devices.get(&machine) else { return };
            match device.recv(packet) {
                Ok(length) => self.route(machine, &packet[..length.min(packet.len())], traffic),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Its namespace is gone.
                Err(_) => {
                    self.devices.remove(&machine);
                }
            }
        }
    }

    fn route(&mut self, from: Number, packet: &[u8], traffic: &mut Traffic) {
        // What is not IPv4 is what every system says when a device comes up.
        if packet.len() < HEADER || packet[0] >> 4 != 4 {
            return;
        }
        let Ok(destination) = <[u8; 4]>::try_from(&packet[DESTINATION]) else { return };
        if MULTICAST.contains(&destination[0]) {
            let others: Vec<Number> = self.devices.keys().copied().filter(|to| *to != from).collect();
            others.into_iter().for_each(|to| self.send(from, to, packet, traffic));
        } else if let Some(to) = machine_at(destination) {
            self.send(from, to, packet, traffic);
        }
    }

    fn send(&mut self, from: Number, to: Number, packet: &[u8], traffic: &mut Traffic) {
        let now = self.shared.begun.elapsed();
        let fate = {
            let mut links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.fate(from, to, now, &mut self.rng)
        };
        match fate {
            Fate::Never => traffic.dropped += 1,
            Fate::Now => self.deliver(to, packet, traffic),
            Fate::At(_) if self.late.len() >= LATE_MAX => traffic.failed += 1,
            Fate::At(at) => {
                traffic.delayed += 1;
                self.sent += 1;
                self.late.push(Reverse((at, self.sent, to, packet.into())));
            }
        }
    }

    fn deliver_late(&mut self, traffic: &mut Traffic) {
        let now = self.shared.begun.elapsed();
        while self.late.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, to, packet))) = self.late.pop() else { return };
            self.deliver(to, &packet, traffic);
        }
    }

    fn deliver(&self, to: Number, packet: &[u8], traffic: &mut Traffic) {
        match self.devices.get(&to).map(|device| device.send(packet)) {
            Some(Ok(_)) => traffic.delivered += 1,
            Some(Err(_)) | None => traffic.failed += 1,
        }
    }
}
