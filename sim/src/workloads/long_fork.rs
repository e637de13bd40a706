//! W4, the long fork: of a pair of objects one peer writes one, another peer the other, and all read both at snapshots.
//!
//! Two snapshots may not disagree on which write came first. The history checker looks for that too; here the numbers
//! that were read must stand in one order. It refuses to write both in one transaction: then they could not disagree.

use super::end::{End, Notes};
use crate::client::{Came, Client};
use crate::game::Tally;
use driftmesh_model::Ref;
use driftmesh_object_store::Fate;
use std::sync::Arc;

const PAIRS: usize = 2;
/// Peers take turns: one writes left, one writes right, one only reads.
const ROLES: usize = 3;

#[derive(Clone)]
struct Pair {
    left: Ref<Tally>,
    right: Ref<Tally>,
    /// Left and right as snapshots saw them.
    seen: Notes<(u64, u64)>,
}

/// The pairs of a run.
#[derive(Clone)]
pub(crate) struct Forks(Arc<[Pair]>);

impl Forks {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: super::Maker| async move {
            let mut pairs = Vec::new();
            for _ in 0..PAIRS {
                let (left, right) = (maker.create(Tally::default())?, maker.create(Tally::default())?);
                pairs.push(Pair { left, right, seen: Notes::default() });
            }
            Ok(pairs)
        };
        Some(Self(client.make("create pairs", make).await?.into()))
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        for pair in self.0.iter() {
            let all = pair.seen.with_fates(end.fates).into_iter();
            let mut seen: Vec<(u64, u64)> =
                all.filter(|(fate, _)| *fate == Fate::Stable).map(|(_, seen)| seen).collect();
            seen.sort_unstable();
            let fork = seen.windows(2).find(|two| two[0].1 > two[1].1);
            if let Some(fork) = fork {
                end.wrong.push(format!("snapshots do not agree on the order of two writes: {fork:?} of {seen:?}"));
            }
        }
    }
}

impl Client {
    pub(super) async fn use_forks(&mut self, forks: &Forks) -> Came {
        let pair = forks.0[self.rng.usize(..PAIRS)].clone();
        match self.host.index() % ROLES {
            0 if self.rng.bool() => self.add_one("write left", pair.left).await,
            1 if self.rng.bool() => self.add_one("write right", pair.right).await,
            _ => self.read_both(&pair).await,
        }
    }

    /// Adds one, without a look at anything else.
    async fn add_one(&mut self, kind: &str, tally: Ref<Tally>) -> Came {
        self.run(kind, move |tx, log| async move {
            let mut value = tx.get_mut(tally).await?;
            log.change(&mut value);
            value.count += 1;
            Ok(())
        })
        .await
    }

    /// Reads both at one snapshot, in any order, and not at once.
    async fn read_both(&mut self, pair: &Pair) -> Came {
        let think = self.think();
        let left_first = self.rng.bool();
        let Some(mut look) = self.look("read both") else { return Came::Nothing };
        let mut seen = [None; 2];
        for place in if left_first { [0, 1] } else { [1, 0] } {
            let tally = [pair.left, pair.right][place];
            let Some(value) = look.first_sees(tally).await else { break };
            seen[place] = Some(value.count);
            think.pause(&self.world).await;
        }
        let Some(number) = look.end() else { return Came::Nothing };
        let [Some(left), Some(right)] = seen else { return Came::Nothing };
        pair.seen.note(number, (left, right));
        Came::Committed
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;

    fn wrong(seen: &[(Fate, (u64, u64))]) -> usize {
        let pair = Pair { left: numbered(1), right: numbered(2), seen: Notes::default() };
        seen.iter().enumerate().for_each(|(number, (_, both))| pair.seen.note(number, *both));
        let fates: Vec<Fate> = seen.iter().map(|(fate, _)| *fate).collect();
        judged::<Tally>(&[], &fates, |end| Forks([pair].into()).judge(end)).len()
    }

    #[test]
    fn snapshots_stand_in_one_order() {
        assert_eq!(wrong(&[(Fate::Stable, (1, 0)), (Fate::Stable, (0, 0)), (Fate::Stable, (1, 2))]), 0);
        assert_eq!(wrong(&[(Fate::Stable, (1, 0)), (Fate::Stable, (0, 1))]), 1);
        assert_eq!(wrong(&[(Fate::Stable, (1, 0)), (Fate::Lost, (0, 1))]), 0, "it did not happen");
    }
}
