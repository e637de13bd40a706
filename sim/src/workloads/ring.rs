//! W10, the ring: objects that refer to each other in a circle, in which two neighbours change places.
//!
//! Whatever of such a transaction is missing or doubled tears the ring or ties a knot in it: at every snapshot and at
//! the end it must be one ring of all. It refuses to add or to remove objects.

use super::end::End;
use crate::client::{Came, Client};
use crate::workloads::{Maker, Node};
use driftmesh_model::{ObjectId, Ref};
use std::collections::BTreeSet;
use std::sync::Arc;

const NODES: usize = 6;

/// The ring of a run.
#[derive(Clone)]
pub(crate) struct Ring(Arc<[Ref<Node>]>);

impl Ring {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let mut nodes = Vec::new();
            for _ in 0..NODES {
                // They have ids before they have values.
                let mut node = Node { token: 0, next: Ref::from_id(ObjectId::from_u128(0)) };
                let token = maker.log.create(&mut node);
                nodes.push((maker.tx.create(&node)?, node, token));
            }
            let references: Vec<Ref<Node>> = nodes.iter().map(|(reference, _, _)| *reference).collect();
            let after = references.iter().cycle().skip(1);
            for ((reference, mut node, token), next) in nodes.into_iter().zip(after) {
                node.next = *next;
                maker.tx.put(reference, &node).await?;
                maker.log.created(reference, token);
            }
            Ok(references)
        };
        Some(Self(client.make("create ring", make).await?.into()))
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let mut at = self.0[0];
        let mut path = Vec::new();
        for _ in 0..NODES {
            let Some(node) = end.value(at) else { return };
            path.push(at);
            at = node.next;
        }
        if let Some(text) = knot(&path, at) {
            end.wrong.push(format!("at the end the ring {text}"));
        }
    }
}

/// What is wrong with a walk through the ring from its first object, which ended at another one.
fn knot(path: &[Ref<Node>], ends_at: Ref<Node>) -> Option<String> {
    let met: BTreeSet<Ref<Node>> = path.iter().copied().collect();
    let is_ring = met.len() == NODES && path.first() == Some(&ends_at);
    (!is_ring).then(|| format!("goes through {} of {NODES} objects, and then on to {ends_at}: {path:?}", met.len()))
}

impl Client {
    pub(super) async fn use_ring(&mut self, ring: &Ring) -> Came {
        if self.rng.u8(..4) == 0 { self.walk_ring(ring).await } else { self.turn_ring(ring).await }
    }

    /// The two objects after a third change places.
    async fn turn_ring(&mut self, ring: &Ring) -> Came {
        let at = ring.0[self.rng.usize(..NODES)];
        let think = self.think();
        let world = self.world.clone();
        self.run("turn ring", move |tx, log| {
            let world = world.clone();
            async move {
                let mut before = tx.get_mut(at).await?;
                let first = before.next;
                let mut one = tx.get_mut(first).await?;
                think.pause(&world).await;
                let second = one.next;
                let mut other = tx.get_mut(second).await?;
                for node in [&mut before, &mut one, &mut other] {
                    log.change(node);
                }
                before.next = second;
                one.next = other.next;
                other.next = first;
                Ok(())
            }
        })
        .await
    }

    /// Goes round once, at one snapshot.
    async fn walk_ring(&mut self, ring: &Ring) -> Came {
        let Some(mut look) = self.look("walk ring") else { return Came::Nothing };
        let mut at = ring.0[0];
        let mut path = Vec::new();
        while path.len() < NODES {
            let Some(node) = look.first_sees(at).await else { break };
            path.push(at);
            at = node.next;
        }
        if path.len() == NODES
            && let Some(text) = knot(&path, at)
        {
            look.wrong(format!("sees a ring that {text}"));
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;

    fn wrong(next: [u128; NODES]) -> usize {
        let nodes = next.map(|next| Node { token: 1, next: numbered(next) });
        let ring = Ring((1..=NODES as u128).map(numbered).collect());
        judged(&nodes, &[], |end| ring.judge(end)).len()
    }

    #[test]
    fn one_ring_of_all_is_right_and_a_knot_is_not() {
        assert_eq!(wrong([2, 3, 4, 5, 6, 1]), 0);
        assert_eq!(wrong([3, 4, 5, 6, 1, 2]), 1, "two rings");
        assert_eq!(wrong([2, 3, 2, 5, 6, 1]), 1, "a knot");
        assert_eq!(wrong([2, 3, 4, 5, 1, 6]), 1, "one is left out");
        assert_eq!(wrong([2, 3, 9, 5, 6, 1]), 1, "one is nowhere");
    }
}
