//! A small game for the stage: every peer takes the same few objects from the others.

use driftmesh_model::{Object, Ref};
use driftmesh_peer::session::{Options as TxnOptions, Result, transact};
use driftmesh_sim::{SimHost, Stage, StageHandle};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Gold(u64);

impl Object for Gold {
    const TYPE_NAME: &'static str = "gold";
}

/// Twenty rounds in which each peer adds to each of four objects; what fails under faults is tried no more.
pub(crate) fn exchange(stage: &Stage) -> impl Future<Output = ()> + Send + 'static {
    let (peers, handle) = (stage.peers(), stage.handle());
    async move {
        let create = transact(peers[0].1.clone(), TxnOptions::new("create"), |tx| async move {
            (0..4).map(|gold| tx.create(&Gold(gold))).collect::<Result<Vec<_>>>()
        });
        let all = create.await.expect("creating is local").value;
        for (_, host) in peers {
            handle.spawn(add(host, handle.clone(), all.clone()));
        }
        handle.sleep(20_000_000).await;
        handle.heal();
        handle.sleep(10_000_000).await;
    }
}

async fn add(host: SimHost, handle: StageHandle, all: Vec<Ref<Gold>>) {
    for round in 0..20 {
        for gold in &all {
            let add = transact(host.clone(), TxnOptions::new("add"), |tx| async move {
                tx.get_mut(*gold).await?.0 += 1;
                Ok(())
            });
            // Under faults it may end with `Deadline`.
            let _ = add.await;
        }
        handle.sleep(1_000 * round).await;
    }
}
