//! A look at a workload's whole world at one snapshot, while its players act: inside a peer process.
//!
//! It refuses to pass a look that did not see everything: that one counts for nothing.

use super::plan::{Made, Plan};
use super::tally::Scene;
use driftmesh::{Mesh, Object, ObjectId, Ref, Tx};
use std::collections::BTreeMap;

/// Objects that are asked for together.
const TOGETHER: usize = 256;
/// Faults of one look that are told.
const TOLD_MAX: usize = 3;

/// Looks once. What is wrong, or why not everything was seen.
pub(crate) async fn look(mesh: &Mesh, plan: &Plan, made: &Made) -> Result<Vec<String>, String> {
    let seen = mesh.task("look").run(|tx| async move { see(&tx, made).await });
    let scene = seen.await.map_err(|error| error.to_string())?;
    let mut faults = scene.faults(plan);
    faults.truncate(TOLD_MAX);
    Ok(faults)
}

async fn see(tx: &Tx, made: &Made) -> driftmesh::Result<Scene> {
    Ok(Scene {
        heroes: see_all(tx, &made.heroes).await?,
        cells: see_all(tx, &made.cells).await?,
        bosses: see_all(tx, &made.bosses).await?,
        stalls: see_all(tx, &made.stalls).await?,
        goods: BTreeMap::new(),
    })
}

async fn see_all<T: Object + Clone>(tx: &Tx, objects: &[ObjectId]) -> driftmesh::Result<BTreeMap<ObjectId, T>> {
    let mut seen = BTreeMap::new();
    for part in objects.chunks(TOGETHER) {
        let references: Vec<Ref<T>> = part.iter().map(|object| Ref::from_id(*object)).collect();
        let values = tx.get_many(&references).await?;
        seen.extend(part.iter().copied().zip(values.iter().map(|value| T::clone(value))));
    }
    Ok(seen)
}
