//! Leading a group in place of its founder: whoever is elected after a crash hands out what the group owns, and never
//! commits to it (decision 0017).
//!
//! Nothing runs on the objects of such a group. Whoever wants one gets it by a transfer, also this peer's own group; what
//! nobody wants is moved in the background, back to the founder if it lives, else to this peer's own group. A group that
//! owns nothing any more, and has nothing in transit, is retired.

use crate::Peer;
use crate::metrics::RareEvent;
use crate::timers::Timer;
use driftmesh_directory::Record;
use driftmesh_model::{Epoch, GroupId, Hash, Micros, ObjectId, PeerId};

/// Slots of owned objects that one slice looks at, and the pause between slices.
const SLOTS_PER_SLICE: usize = 256;
const PAUSE: Micros = Micros::from_millis(1);
/// How soon something is tried again that cannot be done yet.
const TRY_AGAIN_AFTER: Micros = Micros::from_millis(10);
/// The background begins when nobody has asked for so long: first come those who want something, and what is moved here
/// would have to be moved again to them.
const BEGIN_AFTER: Micros = Micros::from_millis(50);
/// Most objects with something due that are handed out before the others at a time.
const DUE_PER_SLICE: usize = 64;
/// It waits no longer than this, however much is asked for.
const WAIT_MAX: Micros = Micros::from_millis(3_000);

/// A group that this peer leads for another.
#[derive(Clone, Debug)]
pub(crate) struct Caretaking {
    /// Who led it before.
    founder: Option<PeerId>,
    from: usize,
    since: Micros,
    /// When an object was last handed out to somebody who asked.
    asked_at: Micros,
}

impl Caretaking {
    /// Whether the background has to wait for those who ask.
    fn is_busy(&self, now: Micros) -> bool {
        now.since(self.asked_at) < BEGIN_AFTER && now.since(self.since) < WAIT_MAX
    }
}

impl Peer {
    /// This peer was elected.
    pub(crate) fn begin_caretaking(&mut self, id: GroupId) {
        self.metrics.note(RareEvent::TookOver);
        self.metrics.taken_over += 1;
        let founder = self.groups.leader(id);
        let Some(group) = self.led(id) else { return };
        // R8, R16: what is promised or moved from now on lies above all that any leader of the group ever said.
        let highest = group.highest().max(group.closed());
        let unsettled: Vec<(GroupId, u64, ObjectId, Epoch)> =
            group.all_unsettled().map(|(to, number, transit)| (to, number, transit.object, transit.epoch)).collect();
        self.clock.raise_above(highest);
        for (to, number, object, epoch) in unsettled {
            // R3: what is on its way leaves a pointer here too.
            self.pointers.set(Record { object, group: to, epoch }, self.now.mono);
            self.grant_is_due(id, to, number, self.now.mono);
        }
        self.windows.remove(&id);
        let now = self.now.mono;
        self.caretaking.insert(id, Caretaking { founder, from: 0, since: now, asked_at: now });
        self.timers.set(self.now.mono.plus(BEGIN_AFTER), Timer::Caretake(id));
    }

    /// Its first entry as leader is stable: the others may know (R6).
    pub(crate) fn caretaking_confirmed(&mut self, id: GroupId) {
        if let Some(record) = self.record_of_led(id) {
            self.tell_all_about(&record);
        }
    }

    /// Somebody else leads the group now, or it is no more.
    pub(crate) fn end_caretaking(&mut self, id: GroupId) {
        if let Some(mut followed) = self.followed.remove(&id) {
            self.forget_undone(&mut followed.group);
            self.followed.insert(id, followed);
        }
        self.caretaking.remove(&id);
        self.forget_lead(id);
    }

    pub(crate) fn caretake_due(&mut self, id: GroupId) {
        let Some(caretaking) = self.caretaking.get(&id) else { return };
        let (from, founder, is_busy) = (caretaking.from, caretaking.founder, caretaking.is_busy(self.now.mono));
        let Some(group) = self.led(id) else { return };
        let mut pause = TRY_AGAIN_AFTER;
        if !group.consensus().is_confirmed() {
            // R8: nothing is promised before.
        } else if group.owned_count() + group.in_transit_count() == 0 {
            self.retire(id);
            if let Some(record) = self.remains(id) {
                self.tell_all_about(&record);
                return;
            }
        } else if self.hand_out_due(id, founder) {
            pause = PAUSE;
        } else if is_busy {
            pause = BEGIN_AFTER;
        } else if let Some(to) = self.caretaking_target(id, founder) {
            let Some(group) = self.led(id) else { return };
            let (slice, next) = group.owned_slice(from, SLOTS_PER_SLICE);
            let slice: Vec<ObjectId> = slice.map(|(_, stored)| stored.object).collect();
            let mut all_left = true;
            for object in slice {
                all_left &= self.hand_out(id, object, to, None);
            }
            self.depart();
            if all_left {
                pause = PAUSE;
                if let Some(caretaking) = self.caretaking.get_mut(&id) {
                    caretaking.from = next.unwrap_or(0);
                }
            }
        }
        self.timers.set(self.now.mono.plus(pause), Timer::Caretake(id));
    }

    /// Nothing runs here of the schedules of such a group: what is due goes first, and waits for nobody. Returns whether
    /// anything went.
    fn hand_out_due(&mut self, id: GroupId, founder: Option<PeerId>) -> bool {
        let Some(group) = self.led(id) else { return false };
        let due = group.due_after(None).take_while(|due| due.0 <= self.now.wall).take(DUE_PER_SLICE);
        let due: Vec<ObjectId> = due.map(|(_, object, _)| object).collect();
        if due.is_empty() {
            return false;
        }
        let Some(to) = self.caretaking_target(id, founder) else { return false };
        let mut any = false;
        for object in due {
            let is_here = self.led(id).is_some_and(|group| group.owned(object).is_some());
            any |= is_here && self.hand_out(id, object, to, None);
        }
        self.depart();
        any
    }

    /// Where objects go that nobody asks for.
    fn caretaking_target(&self, id: GroupId, founder: Option<PeerId>) -> Option<GroupId> {
        let lives = |peer: &PeerId| *peer != self.config.peer && self.is_connected(peer);
        let group = self.led(id)?;
        let back = founder.filter(lives).and_then(|peer| self.receiver(&peer, group)).map(|(back, _)| back);
        if let Some(back) = back.filter(|back| *back != id && self.takes_objects(*back)) {
            return Some(back);
        }
        if !self.draining {
            // R24: it holds all of it already.
            return Some(self.group.id());
        }
        let mut receivers = self.receivers(group).into_iter().map(|(to, _)| to);
        receivers.find(|to| *to != id && self.takes_objects(*to))
    }

    /// Somebody asks for an object of a group that this peer leads for another. Returns whether it is on its way, as soon
    /// as `depart` follows.
    pub(crate) fn hand_out_to_asker(&mut self, id: GroupId, object: ObjectId, to: GroupId, have: Option<Hash>) -> bool {
        if let Some(caretaking) = self.caretaking.get_mut(&id) {
            caretaking.asked_at = self.now.mono;
        }
        self.hand_out(id, object, to, have)
    }
}
