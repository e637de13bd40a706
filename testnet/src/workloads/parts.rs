//! The making of a workload's world: parts of it at whatever peer, and then who is where.
//!
//! Places come first and know nothing, players name their places, and then places are told their players and neighbours.
//! It refuses to draw: what is made where comes from the orchestrator (`plan.rs`).

use super::objects::{Boss, Cell, Good, Hero, Stall};
use crate::protocol::unpack;
use anyhow::{Context, Result};
use driftmesh::{Mesh, Object, ObjectId, Ref, Tx};
use serde::{Deserialize, Serialize};

/// Parts in one creating transaction.
const PARTS_PER_TRANSACTION: usize = 100;

/// An object to be made, and what belongs to it alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// A place without anybody.
    Cell,
    /// A player with belongings.
    Hero {
        /// Where he is.
        #[serde(with = "crate::protocol::maybe_id_text")]
        place: Option<ObjectId>,
        /// His gold.
        gold: u64,
        /// How many items he has.
        goods: u64,
    },
    /// A boss.
    Boss {
        /// The health that each life begins with.
        health: u64,
    },
    /// A stall.
    Stall {
        /// Its gold.
        gold: u64,
        /// The pieces that it has.
        stock: u64,
    },
}

/// What a place is told once all is made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Filled {
    /// Which.
    #[serde(with = "crate::protocol::id_text")]
    pub(crate) place: ObjectId,
    /// Who is there, as [`crate::protocol::pack`] writes it.
    pub(crate) members: String,
    /// The places next to it, likewise.
    pub(crate) neighbours: String,
}

/// Makes parts at this peer; returns them in the same order.
pub(crate) async fn create(mesh: &Mesh, parts: &[Part]) -> Result<Vec<ObjectId>> {
    let mut created = Vec::with_capacity(parts.len());
    for batch in parts.chunks(PARTS_PER_TRANSACTION) {
        let made = mesh.task("create parts").run(|tx| async move {
            let mut made = Vec::with_capacity(batch.len());
            for part in batch {
                made.push(create_one(&tx, *part).await?);
            }
            Ok(made)
        });
        created.append(&mut made.await.context("cannot create a part of the world")?);
    }
    Ok(created)
}

async fn create_one(tx: &Tx, part: Part) -> driftmesh::Result<ObjectId> {
    Ok(match part {
        Part::Cell => tx.create(&Cell::default())?.id(),
        Part::Hero { place, gold, goods } => {
            let mut hero = Hero { gold, place: place.map(Ref::from_id), ..Hero::default() };
            let reference = tx.create(&hero)?;
            for _ in 0..goods {
                hero.pack.push(tx.create(&Good { holder: reference })?);
            }
            if goods > 0 {
                tx.put(reference, &hero).await?;
            }
            reference.id()
        }
        Part::Boss { health } => tx.create(&Boss { health, health_max: health, lives: 0 })?.id(),
        Part::Stall { gold, stock } => tx.create(&Stall { gold, stock, ..Stall::default() })?.id(),
    })
}

/// Tells places who is there.
pub(crate) async fn fill(mesh: &Mesh, places: &[Filled]) -> Result<()> {
    fn refs<T: Object>(packed: &str) -> Result<Vec<Ref<T>>> {
        Ok(unpack(packed)?.into_iter().map(Ref::from_id).collect())
    }
    for filled in places {
        let (members, neighbours) = (refs::<Hero>(&filled.members)?, refs::<Cell>(&filled.neighbours)?);
        let cell = Cell { entered: members.len() as u64, members, neighbours, left: 0 };
        let (cell, place) = (&cell, Ref::<Cell>::from_id(filled.place));
        let done = mesh.task("fill places").run(|tx| async move { tx.put(place, cell).await });
        done.await.context("cannot fill a place")?;
    }
    Ok(())
}
