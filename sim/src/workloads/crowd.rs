//! W14, the crowd: players walk from cell to cell. A player and the cells that it leaves and enters are changed in one
//! transaction, so that objects follow whoever walks.
//!
//! A player is in exactly one cell, the one that it says itself, at every snapshot and at the end. It refuses to let
//! players come and go.

use super::end::End;
use crate::client::{Came, Client};
use crate::workloads::{Cell, Maker, Player};
use driftmesh_model::Ref;
use std::collections::BTreeMap;
use std::sync::Arc;

const CELLS: usize = 4;
const PLAYERS: usize = 6;

/// The crowd of a run.
#[derive(Clone)]
pub(crate) struct Crowd {
    cells: Arc<[Ref<Cell>]>,
    players: Arc<[Ref<Player>]>,
}

impl Crowd {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let (mut cells, mut all) = (Vec::new(), Vec::new());
            for number in 0..CELLS {
                let mut cell = Cell::default();
                let token = maker.log.create(&mut cell);
                let reference = maker.tx.create(&cell)?;
                for _ in (number..PLAYERS).step_by(CELLS) {
                    cell.players.push(maker.create(Player { token: 0, cell: reference })?);
                }
                maker.tx.put(reference, &cell).await?;
                maker.log.created(reference, token);
                all.extend(cell.players);
                cells.push(reference);
            }
            Ok((cells, all))
        };
        let (cells, players) = client.make("create crowd", make).await?;
        Some(Self { cells: cells.into(), players: players.into() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let Some(cells) = end.values(&self.cells) else { return };
        let Some(players) = end.values(&self.players) else { return };
        let wrong = self.misplaced(cells.iter(), players.iter());
        end.wrong.extend(wrong.into_iter().map(|text| format!("at the end {text}")));
    }

    /// Players that are not in exactly the cell that they say.
    fn misplaced<'a>(
        &self,
        cells: impl Iterator<Item = &'a Cell>,
        players: impl Iterator<Item = &'a Player>,
    ) -> Vec<String> {
        let mut found: BTreeMap<Ref<Player>, Vec<Ref<Cell>>> = BTreeMap::new();
        for (reference, cell) in self.cells.iter().zip(cells) {
            for player in &cell.players {
                found.entry(*player).or_default().push(*reference);
            }
        }
        let mut wrong = Vec::new();
        for (reference, player) in self.players.iter().zip(players) {
            let places = found.remove(reference).unwrap_or_default();
            if places != [player.cell] {
                wrong.push(format!("player {reference} says {}, and is in {places:?}", player.cell));
            }
        }
        wrong
    }
}

impl Client {
    pub(super) async fn use_crowd(&mut self, crowd: &Crowd) -> Came {
        if self.rng.u8(..6) == 0 { self.see_crowd(crowd).await } else { self.walk(crowd).await }
    }

    /// A player leaves its cell and enters another.
    async fn walk(&mut self, crowd: &Crowd) -> Came {
        let walker = crowd.players[self.rng.usize(..PLAYERS)];
        let to = crowd.cells[self.rng.usize(..CELLS)];
        let think = self.think();
        let world = self.world.clone();
        self.run("walk", move |tx, log| {
            let world = world.clone();
            async move {
                let mut player = tx.get_mut(walker).await?;
                let from = player.cell;
                if from == to {
                    log.saw(walker, &*player);
                    return Ok(());
                }
                think.pause(&world).await;
                let cells = tx.get_mut_many(&[from, to]).await?;
                let Ok([mut left, mut entered]) = <[_; 2]>::try_from(cells) else {
                    return Err(tx.reject("not two cells"));
                };
                if !left.players.contains(&walker) || entered.players.contains(&walker) {
                    log.wrong(format!("player {walker} says {from}, which is not where it is"));
                }
                log.change(&mut player);
                log.change(&mut left);
                log.change(&mut entered);
                left.players.retain(|player| *player != walker);
                entered.players.push(walker);
                player.cell = to;
                Ok(())
            }
        })
        .await
    }

    /// Looks at all cells and all players at one snapshot.
    async fn see_crowd(&mut self, crowd: &Crowd) -> Came {
        let Some(mut look) = self.look("see crowd") else { return Came::Nothing };
        let (mut cells, mut players) = (Vec::new(), Vec::new());
        for cell in crowd.cells.iter() {
            let Some(value) = look.first_sees(*cell).await else { break };
            cells.push(value);
        }
        if cells.len() == CELLS {
            for player in crowd.players.iter() {
                let Some(value) = look.first_sees(*player).await else { break };
                players.push(value);
            }
        }
        if players.len() == PLAYERS {
            let wrong = crowd.misplaced(cells.iter().map(|cell| &**cell), players.iter().map(|player| &**player));
            wrong.into_iter().for_each(|text| look.wrong(format!("sees a crowd in which {text}")));
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::numbered;
    use super::*;

    #[test]
    fn a_player_is_in_the_one_cell_that_it_says() {
        let crowd = Crowd { cells: [numbered(1), numbered(2)].into(), players: [numbered(3)].into() };
        let player = Player { token: 1, cell: numbered(1) };
        let misplaced = |there: [bool; 2]| {
            let cells = there.map(|there| Cell { token: 1, players: there.then(|| numbered(3)).into_iter().collect() });
            crowd.misplaced(cells.iter(), std::iter::once(&player)).len()
        };
        assert_eq!(misplaced([true, false]), 0);
        assert_eq!(misplaced([false, true]), 1, "it is elsewhere");
        assert_eq!(misplaced([true, true]), 1, "it is in two cells");
        assert_eq!(misplaced([false, false]), 1, "it is nowhere");
    }
}
