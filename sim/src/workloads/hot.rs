//! W11, hot objects: many clients want the same few purses, in any order.
//!
//! Whoever began first must get them (R12, R14): after the faults all of these must commit. It refuses to judge values.

use crate::client::{Came, Client, Think};
use crate::game::Purse;
use driftmesh_model::Ref;

impl Client {
    /// Locks three hot purses one after the other, in any order, and passes gold round.
    pub(crate) async fn clash(&mut self) -> Came {
        let mut purses: Vec<Ref<Purse>> = self.world.purses.iter().copied().take(4).collect();
        self.rng.shuffle(&mut purses);
        purses.truncate(3);
        let think = Think(self.rng.u64(0..3_000));
        let world = self.world.clone();
        self.run("clash", move |tx, log| {
            let (world, purses) = (world.clone(), purses.clone());
            async move {
                let mut lent = Vec::new();
                for reference in purses {
                    let mut purse = tx.get_mut(reference).await?;
                    log.change(&mut purse);
                    lent.push(purse);
                    think.pause(&world).await;
                }
                if lent[0].gold > 0 {
                    lent[0].gold -= 1;
                    lent[1].gold += 1;
                }
                Ok(())
            }
        })
        .await
    }
}
