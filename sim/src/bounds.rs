//! What peers keep, by their own figures, against the bounds that the seed has set (R24).
//!
//! At every fault and at the end. It refuses to look at anything that has no bound yet: see R24 in `docs/rules.md`.

use crate::world::Simulation;

impl Simulation {
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
            ];
            for (what, kept, most) in kept.into_iter().filter(|(_, kept, most)| kept > most) {
                wrong.push(format!("R24: peer {index} keeps {kept} {what}, and may keep {most}"));
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
