//! What peers keep, by their own figures, against the bounds that the seed has set (R24).
//!
//! At one fault in four and at the end. It refuses to look at anything that has no bound yet: see R24 in `docs/rules.md`.

use crate::world::Simulation;
use driftmesh_peer::session::Host as _;
use driftmesh_peer::{Peer, SCHEDULES_RUNNING_MAX, TASKS_RUNNING_MAX, TASKS_SUBMITTED_MAX, WATCHED_MAX};

/// What a peer held when it was looked at last.
#[derive(Clone, Copy, Default)]
pub(crate) struct HeldBefore {
    own: usize,
    commits: u64,
    arrived: u64,
}

impl HeldBefore {
    pub(crate) fn of(peer: &Peer) -> Self {
        let metrics = peer.metrics();
        Self { own: peer.group().held(), commits: metrics.commits, arrived: metrics.arrived }
    }
}

impl Simulation {
    /// In some seeds the peers may hold little more than they do when the faults begin.
    pub(crate) fn begin_little_room(&mut self) {
        let Some(more) = self.options.room_bytes else { return };
        let held = self.peers.iter().filter(|peer| !peer.gone).map(|peer| peer.host.look(|core| core.held()));
        self.held_bytes_max = held.max().unwrap_or(0) + more;
        for peer in self.peers.iter().filter(|peer| !peer.gone) {
            peer.host.step(|core, _| core.set_held_bytes_max(self.held_bytes_max));
        }
    }

    /// R24: what commits add never makes a peer hold more than it may. What it is sent, and what copies and crashes bring, may.
    pub(crate) fn check_growth(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let (now, held, most) = peer.host.look(|core| (HeldBefore::of(core), core.held(), core.held_bytes_max()));
        let before = std::mem::replace(&mut peer.held, now);
        let by_commits = now.commits > before.commits && now.arrived == before.arrived;
        if held > most && by_commits && now.own > before.own {
            self.observer.wrong(format!(
                "R24: commits made peer {index} hold {held} bytes, and it may hold {most}: its own objects took {}, and take {}",
                before.own, now.own
            ));
        }
    }

    /// Notes every peer that keeps more than it may.
    pub(crate) fn check_bounds(&mut self) {
        let options = &self.options;
        let mut wrong = Vec::new();
        for (index, peer) in self.peers.iter().enumerate().filter(|(_, peer)| !peer.gone) {
            let status = peer.host.look(|core| core.status(peer.wall_clock.now(&self.clock)));
            let kept = [
                ("objects that subscribers are told of", status.fed, options.fed_max),
                ("hints", status.hints, options.records_max),
                ("home records", status.home_records, options.records_max),
                ("tasks of its own on their way", status.tasks_submitted, TASKS_SUBMITTED_MAX),
                ("tasks of others", status.tasks_running, TASKS_RUNNING_MAX),
                ("occurrences that run", status.schedules.running, SCHEDULES_RUNNING_MAX),
                ("watched objects", status.watched, WATCHED_MAX),
            ];
            for (what, kept, most) in kept.into_iter().filter(|(_, kept, most)| kept > most) {
                wrong.push(format!("R24: peer {index} keeps {kept} {what}, and may keep {most}"));
            }
            if !peer.host.look(|core| core.held_adds_up()) {
                wrong.push(format!(
                    "R24: peer {index} says that it holds {} bytes, and that is not so",
                    status.held_bytes
                ));
            }
            // R24: a live peer drops whoever says such things, and nobody is honest who does.
            let impossible = peer.host.look(|core| core.metrics().impossible);
            if impossible > 0 && !options.rubbish {
                wrong.push(format!(
                    "R24: peer {index} heard {impossible} messages that no peer says, and all are honest"
                ));
            }
        }
        wrong.into_iter().for_each(|text| self.observer.wrong(text));
    }
}
