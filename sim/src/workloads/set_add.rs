//! W7, sets with receipts: elements that are never used twice are added to one set, or to two at once.
//!
//! At the end an element is there if and only if its receipt is stable, and in all sets that it was added to. It refuses
//! to remove elements.

use super::end::{End, Notes};
use crate::client::{Came, Client};
use crate::workloads::{Maker, Roll};
use driftmesh_model::Ref;
use driftmesh_object_store::Fate;
use driftmesh_peer::session::Isolation;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ROLLS: usize = 3;

/// The sets of a run.
#[derive(Clone)]
pub(crate) struct Rolls {
    rolls: Arc<[Ref<Roll>]>,
    /// The element that is added next.
    next: Arc<AtomicU64>,
    /// Which element was added, and to which sets.
    added: Notes<(u64, Vec<Ref<Roll>>)>,
}

impl Rolls {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            (0..ROLLS).map(|_| maker.create(Roll::default())).collect::<Result<Vec<_>, _>>()
        };
        let rolls = client.make("create sets", make).await?;
        Some(Self { rolls: rolls.into(), next: Arc::default(), added: Notes::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let mut found = BTreeSet::new();
        for roll in self.rolls.iter() {
            let Some(value) = end.value(*roll) else { return };
            for element in value.elements {
                if !found.insert((element, *roll)) {
                    end.wrong.push(format!("element {element} is twice in set {roll}"));
                }
            }
        }
        for (fate, (element, rolls)) in self.added.with_fates(end.fates) {
            let there = rolls.iter().filter(|roll| found.remove(&(element, **roll))).count();
            let is_right = match fate {
                Fate::Stable => there == rolls.len(),
                Fate::Lost => there == 0,
                Fate::Unknown => there == 0 || there == rolls.len(),
            };
            if !is_right {
                end.wrong.push(format!("element {element}, told {fate:?}, is in {there} of {rolls:?}"));
            }
        }
        // Commits are local: what came to nothing for its client has come to nothing.
        for (element, roll) in found {
            end.wrong.push(format!("element {element} is in set {roll}, and nobody was told that it was added"));
        }
    }
}

impl Client {
    pub(super) async fn use_sets(&mut self, rolls: &Rolls) -> Came {
        if self.rng.u8(..5) == 0 { self.read_sets(rolls).await } else { self.add_to_sets(rolls).await }
    }

    async fn add_to_sets(&mut self, rolls: &Rolls) -> Came {
        let element = rolls.next.fetch_add(1, Ordering::Relaxed);
        let mut to = rolls.rolls.to_vec();
        self.rng.shuffle(&mut to);
        to.truncate(if self.rng.u8(..3) == 0 { 2 } else { 1 });
        let think = self.think();
        let (world, targets) = (self.world.clone(), to.clone());
        let done = self.run_with_receipt("add to sets", Isolation::Snapshot, move |tx, log| {
            let (world, targets) = (world.clone(), targets.clone());
            async move {
                for roll in targets {
                    let mut roll = tx.get_mut(roll).await?;
                    log.change(&mut roll);
                    roll.elements.push(element);
                    think.pause(&world).await;
                }
                Ok(())
            }
        });
        match done.await {
            Ok((_, number)) => {
                rolls.added.note(number, (element, to));
                Came::Committed
            }
            Err(came) => came,
        }
    }

    /// Reads all sets at one snapshot: what was added to two is in both, once.
    async fn read_sets(&mut self, rolls: &Rolls) -> Came {
        let Some(mut look) = self.look("read sets") else { return Came::Nothing };
        for roll in rolls.rolls.iter() {
            let Some(value) = look.first_sees(*roll).await else { break };
            let distinct: BTreeSet<u64> = value.elements.iter().copied().collect();
            if distinct.len() != value.elements.len() {
                look.wrong(format!("sees an element twice in set {roll}: {:?}", value.elements));
            }
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;

    /// What is wrong if element 7 was added to both of two sets, became this, and is found so.
    fn wrong(fate: Fate, found: [&[u64]; 2]) -> usize {
        let rolls = Rolls { rolls: [numbered(1), numbered(2)].into(), next: Arc::default(), added: Notes::default() };
        rolls.added.note(0, (7, vec![numbered(1), numbered(2)]));
        let values = found.map(|elements| Roll { token: 1, elements: elements.to_vec() });
        judged(&values, &[fate], |end| rolls.judge(end)).len()
    }

    #[test]
    fn an_element_is_there_if_and_only_if_its_receipt_is_stable() {
        assert_eq!(wrong(Fate::Stable, [&[7], &[7]]), 0);
        assert_eq!(wrong(Fate::Lost, [&[], &[]]), 0);
        assert_eq!(wrong(Fate::Stable, [&[], &[]]), 1, "stable and gone");
        assert_eq!(wrong(Fate::Stable, [&[7], &[]]), 1, "half of it");
        assert_eq!(wrong(Fate::Lost, [&[7], &[7]]), 1, "lost and there");
        assert_eq!(wrong(Fate::Unknown, [&[7], &[]]), 1, "half of what is unknown");
        assert_eq!(wrong(Fate::Stable, [&[7, 7], &[7]]), 1, "twice");
        assert_eq!(wrong(Fate::Stable, [&[7], &[7, 8]]), 1, "nobody was told");
    }
}
