//! What was used here lately, how much, and together with what: a sample of the commits, by object.
//!
//! It refuses to decide anything, to cost a commit that is not sampled more than a counter, and to remember for long: two
//! windows of some seconds are all there is, so what it says is of now, and bounded.

use driftmesh_model::{LookupMap, Micros, ObjectId};
use std::collections::BTreeMap;

/// How long a window is. What was used counts for one to two of them.
const WINDOW: Micros = Micros::from_millis(2_000);
/// Commits that are sampled in a window; of more, every n-th, and half as many each time that there are so many more.
const SAMPLES_MAX: u64 = 4_096;
/// Objects that a window remembers (R24).
const OBJECTS_MAX: usize = 16_384;
/// Most objects of one commit that are looked at.
pub(crate) const TOGETHER_MAX: usize = 8;

/// How an object was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Use {
    /// About how many commits touched it.
    pub(crate) heat: u64,
    /// What it was used with most, if one object stands out.
    pub(crate) with: Option<ObjectId>,
    /// By how many commits that one stands out.
    pub(crate) votes: u64,
    /// Attempts that ended because of it.
    pub(crate) contended: u64,
    /// How often it came here, and when last, monotonic.
    pub(crate) came: u64,
    pub(crate) came_at: Option<Micros>,
}

impl Use {
    /// Notes a commit that touched it, and this other one, which is the most used of those beside it.
    fn add(&mut self, weight: u64, with: Option<ObjectId>) {
        self.heat = self.heat.saturating_add(weight);
        // The majority vote of Boyer and Moore: one candidate, and by how much it leads.
        if self.with == with {
            self.votes += weight;
        } else if self.votes >= weight {
            self.votes -= weight;
        } else {
            self.with = with;
            self.votes = weight - self.votes;
        }
    }

    fn and(self, before: Self) -> Self {
        let (with, votes) = if self.with == before.with {
            (self.with, self.votes + before.votes)
        } else if self.votes >= before.votes {
            (self.with, self.votes - before.votes)
        } else {
            (before.with, before.votes - self.votes)
        };
        Self {
            heat: self.heat.saturating_add(before.heat),
            with,
            votes,
            contended: self.contended + before.contended,
            came: self.came + before.came,
            came_at: self.came_at.max(before.came_at),
        }
    }
}

/// What was used together, also by way of others: a forest of disjoint sets (Galler and Fischer), with union by size and paths
/// that are halved on the way.
#[derive(Clone, Debug, Default)]
struct Crowds {
    index: LookupMap<ObjectId, usize>,
    /// Of each object the one above it, and for the uppermost how many there are.
    above: Vec<usize>,
    size: Vec<u64>,
}

impl Crowds {
    fn top(&mut self, mut at: usize) -> usize {
        while self.above[at] != at {
            self.above[at] = self.above[self.above[at]];
            at = self.above[at];
        }
        at
    }

    fn index_of(&mut self, object: ObjectId) -> Option<usize> {
        if let Some(index) = self.index.get(&object) {
            return Some(*index);
        }
        let index = self.above.len();
        if index >= OBJECTS_MAX {
            return None;
        }
        self.index.insert(object, index);
        self.above.push(index);
        self.size.push(1);
        Some(index)
    }

    fn join(&mut self, objects: impl Iterator<Item = ObjectId>) {
        let mut former: Option<usize> = None;
        for object in objects {
            let Some(index) = self.index_of(object) else { return };
            let top = self.top(index);
            former = Some(match former {
                Some(other) if other != top => {
                    let (large, small) = if self.size[other] >= self.size[top] { (other, top) } else { (top, other) };
                    self.above[small] = large;
                    self.size[large] += self.size[small];
                    large
                }
                Some(_) | None => top,
            });
        }
    }

    /// An object is here no longer.
    fn leave(&mut self, object: ObjectId) {
        if let Some(index) = self.index.remove(&object) {
            let top = self.top(index);
            self.size[top] = self.size[top].saturating_sub(1);
        }
    }

    fn size_of(&self, object: ObjectId) -> u64 {
        let Some(mut at) = self.index.get(&object).copied() else { return 0 };
        while self.above[at] != at {
            at = self.above[at];
        }
        self.size[at]
    }
}

/// What was used in this window and the one before.
#[derive(Clone, Debug)]
pub(crate) struct Uses {
    present: BTreeMap<ObjectId, Use>,
    before: BTreeMap<ObjectId, Use>,
    crowds: Crowds,
    crowds_before: Crowds,
    ends: Micros,
    /// Commits of this window, how many were looked at since `every` is what it is, every n-th is, and how many are
    /// passed over until the next.
    commits: u64,
    looked_at: u64,
    every: u64,
    pass_over: u64,
}

impl Default for Uses {
    fn default() -> Self {
        let (present, before) = (BTreeMap::new(), BTreeMap::new());
        let (crowds, crowds_before) = (Crowds::default(), Crowds::default());
        Self {
            present,
            before,
            crowds,
            crowds_before,
            ends: Micros(0),
            commits: 0,
            looked_at: 0,
            every: 1,
            pass_over: 0,
        }
    }
}

impl Uses {
    /// Counts a commit. If it is to be looked at: how many commits it stands for.
    pub(crate) const fn sample(&mut self) -> Option<u64> {
        self.commits += 1;
        if self.pass_over > 0 {
            self.pass_over -= 1;
            return None;
        }
        let stands_for = self.every;
        self.looked_at += 1;
        if self.looked_at >= SAMPLES_MAX {
            // A burst after a quiet window would else pay for each of its commits until the window ends.
            self.every = self.every.saturating_mul(2);
            self.looked_at = 0;
        }
        self.pass_over = self.every - 1;
        Some(stands_for)
    }

    /// Begins a new window when it is time.
    pub(crate) fn renew(&mut self, now: Micros) {
        if now < self.ends {
            return;
        }
        let is_late = now >= self.ends.plus(WINDOW);
        self.before = std::mem::take(&mut self.present);
        self.crowds_before = std::mem::take(&mut self.crowds);
        if is_late {
            self.before.clear();
            self.crowds_before = Crowds::default();
        }
        self.every = (self.commits / SAMPLES_MAX).max(1);
        (self.commits, self.looked_at) = (0, 0);
        self.ends = now.plus(WINDOW);
    }

    /// Notes that a commit touched these objects, each once.
    pub(crate) fn note(&mut self, objects: &[ObjectId], weight: u64) {
        let mut heats = [0; TOGETHER_MAX];
        for (heat, object) in heats.iter_mut().zip(objects) {
            *heat = self.heat_of(*object).saturating_add(1);
        }
        for (number, object) in objects.iter().take(TOGETHER_MAX).enumerate() {
            let others = objects.iter().take(TOGETHER_MAX).enumerate().filter(|(other, _)| *other != number);
            let with = others.max_by_key(|(other, _)| heats[*other]).map(|(_, object)| *object);
            if let Some(used) = self.entry(*object) {
                used.add(weight, with);
            }
        }
    }

    /// Notes that these objects, which are here, were used together.
    pub(crate) fn join(&mut self, objects: impl Iterator<Item = ObjectId>) {
        self.crowds.join(objects);
    }

    /// Notes that an object has left.
    pub(crate) fn left(&mut self, object: ObjectId) {
        self.crowds.leave(object);
        self.crowds_before.leave(object);
    }

    /// How many objects here were used together with this one, also by way of others: they would have to follow it.
    pub(crate) fn crowd_of(&self, object: ObjectId) -> u64 {
        self.crowds.size_of(object).max(self.crowds_before.size_of(object))
    }

    /// Notes that an attempt ended because of an object.
    pub(crate) fn note_contended(&mut self, object: ObjectId) {
        if let Some(used) = self.entry(object) {
            used.contended += 1;
        }
    }

    /// Notes that an object came here because somebody wanted it.
    pub(crate) fn note_came(&mut self, object: ObjectId, now: Micros) {
        if let Some(used) = self.entry(object) {
            used.came += 1;
            used.came_at = Some(now);
        }
    }

    fn entry(&mut self, object: ObjectId) -> Option<&mut Use> {
        if self.present.len() >= OBJECTS_MAX && !self.present.contains_key(&object) {
            return None;
        }
        Some(self.present.entry(object).or_default())
    }

    fn heat_of(&self, object: ObjectId) -> u64 {
        let heat = |window: &BTreeMap<ObjectId, Use>| window.get(&object).map_or(0, |used| used.heat);
        heat(&self.present).saturating_add(heat(&self.before))
    }

    /// How an object was used.
    pub(crate) fn of(&self, object: ObjectId) -> Use {
        let of = |window: &BTreeMap<ObjectId, Use>| window.get(&object).copied().unwrap_or_default();
        of(&self.present).and(of(&self.before))
    }

    /// The first so many objects that were used, from one on, in their order.
    pub(crate) fn from(&self, first: ObjectId, most: usize) -> Vec<ObjectId> {
        let of = |window: &BTreeMap<ObjectId, Use>| -> Vec<ObjectId> {
            window.range(first..).map(|(object, _)| *object).take(most).collect()
        };
        let mut all = [of(&self.present), of(&self.before)].concat();
        all.sort_unstable();
        all.dedup();
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> ObjectId {
        ObjectId::from_u128(number)
    }

    #[test]
    fn no_more_objects_are_noted_than_there_is_room_for() {
        let mut uses = Uses::default();
        let mut crowds = Crowds::default();
        uses.renew(Micros(1));
        for number in 0..OBJECTS_MAX as u128 + 10 {
            uses.note_came(id(number), Micros(1));
            crowds.join(std::iter::once(id(number)));
        }
        assert_eq!(
            (uses.present.len(), crowds.above.len(), crowds.size.len()),
            (OBJECTS_MAX, OBJECTS_MAX, OBJECTS_MAX)
        );
        // What is noted goes on to count.
        uses.note_came(id(0), Micros(2));
        assert_eq!(uses.of(id(0)).came, 2);
    }

    #[test]
    fn a_crowd_is_all_that_is_used_together_also_by_way_of_others() {
        let mut uses = Uses::default();
        uses.renew(Micros(1));
        (10..20).for_each(|player| {
            uses.note(&[id(1), id(player)], 1);
            uses.join([id(1), id(player)].into_iter());
        });
        uses.join([id(2), id(30)].into_iter());
        assert_eq!((uses.of(id(1)).heat, uses.of(id(15)).heat), (10, 1));
        assert_eq!(uses.of(id(15)).with, Some(id(1)));
        assert_eq!(
            (uses.crowd_of(id(1)), uses.crowd_of(id(19)), uses.crowd_of(id(30)), uses.crowd_of(id(7))),
            (11, 11, 2, 0)
        );
        uses.join([id(19), id(30)].into_iter());
        assert_eq!((uses.crowd_of(id(2)), uses.crowd_of(id(1))), (13, 13));
        uses.renew(Micros(2).plus(WINDOW));
        assert_eq!(uses.crowd_of(id(2)), 13);
        uses.left(id(30));
        assert_eq!((uses.crowd_of(id(2)), uses.crowd_of(id(30))), (12, 0));
        uses.renew(Micros(3).plus(WINDOW).plus(WINDOW));
        assert_eq!(uses.crowd_of(id(2)), 0);
    }

    #[test]
    fn what_is_not_used_any_more_is_forgotten_after_two_windows() {
        let mut uses = Uses::default();
        uses.renew(Micros(1));
        uses.note(&[id(1)], 5);
        uses.renew(Micros(2).plus(WINDOW));
        assert_eq!(uses.of(id(1)).heat, 5);
        uses.renew(Micros(3).plus(WINDOW).plus(WINDOW));
        assert_eq!(uses.of(id(1)), Use::default());
    }

    #[test]
    fn many_commits_are_sampled_and_still_count_as_many() {
        let mut uses = Uses::default();
        uses.renew(Micros(1));
        (0..10 * SAMPLES_MAX).for_each(|_| {
            uses.sample();
        });
        uses.renew(Micros(1).plus(WINDOW));
        let sampled: Vec<u64> = (0..100 * SAMPLES_MAX).filter_map(|_| uses.sample()).collect();
        assert!(sampled.len() as u64 <= 11 * SAMPLES_MAX);
        let of = sampled.iter().sum::<u64>().abs_diff(100 * SAMPLES_MAX);
        assert!(of <= 10, "{of}");
    }

    #[test]
    fn a_burst_is_sampled_less_and_less_and_still_counts_as_many() {
        let mut uses = Uses::default();
        uses.renew(Micros(1));
        let sampled: Vec<u64> = (0..1_000 * SAMPLES_MAX).filter_map(|_| uses.sample()).collect();
        assert!(sampled.len() as u64 <= 11 * SAMPLES_MAX, "{}", sampled.len());
        let of = sampled.iter().sum::<u64>().abs_diff(1_000 * SAMPLES_MAX);
        assert!(of <= SAMPLES_MAX, "{of}");
    }

    #[test]
    fn what_was_used_is_listed_also_when_a_window_has_just_begun() {
        let mut uses = Uses::default();
        uses.renew(Micros(1));
        [3, 1, 4].into_iter().for_each(|number| uses.note(&[id(number)], 1));
        uses.renew(Micros(1).plus(WINDOW));
        [2, 1].into_iter().for_each(|number| uses.note(&[id(number)], 1));
        assert_eq!(uses.from(id(0), 9), [1, 2, 3, 4].map(id));
        assert_eq!(uses.from(id(2), 2), [2, 3].map(id));
    }
}
