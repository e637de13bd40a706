//! W5, write skew: two doors of which one at most may be open, and transactions that look at both and open one.
//!
//! Under snapshot isolation both may be opened side by side; how often that is seen is counted, and is no violation.
//! Where all transactions are serializable, or change the key beside a door, it must never be seen.

use super::end::{End, Notes};
use crate::client::{Came, Client};
use crate::game::Tally;
use crate::workloads::{Door, Maker};
use driftmesh_model::Ref;
use driftmesh_object_store::Fate;
use driftmesh_peer::session::{Isolation, Result};

/// What keeps both doors of a house from being opened side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    /// Nothing does.
    Not,
    /// All transactions are serializable.
    Serializable,
    /// Whoever opens or closes a door changes the key too.
    ByKey,
}

#[derive(Clone, Copy)]
struct House {
    kept: Kept,
    doors: [Ref<Door>; 2],
    key: Ref<Tally>,
}

/// The houses of a run: one for each way.
#[derive(Clone)]
pub(crate) struct Houses {
    houses: [House; 3],
    /// What was seen of the house that is not kept: whether both doors were open.
    both_open: Notes<bool>,
}

impl Houses {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let house = |kept| -> Result<House> {
                let doors = [maker.create(Door::default())?, maker.create(Door::default())?];
                Ok(House { kept, doors, key: maker.create(Tally::default())? })
            };
            Ok([house(Kept::Not)?, house(Kept::Serializable)?, house(Kept::ByKey)?])
        };
        let houses = client.make("create houses", make).await?;
        Some(Self { houses, both_open: Notes::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        for house in &self.houses {
            let Some(doors) = end.values(&house.doors) else { continue };
            if house.kept != Kept::Not && doors.iter().all(|door| door.is_open) {
                end.wrong.push(format!("both doors of the house that is kept {:?} are open at the end", house.kept));
            }
        }
    }

    /// How often it was seen, by what was not lost, that nothing keeps both doors from being opened.
    pub(super) fn skews(&self, fates: &[Fate]) -> u64 {
        let seen = self.both_open.with_fates(fates).into_iter();
        seen.filter(|(fate, both_open)| *fate != Fate::Lost && *both_open).count() as u64
    }
}

impl Client {
    pub(super) async fn use_doors(&mut self, houses: &Houses) -> Came {
        let house = houses.houses[self.rng.usize(..houses.houses.len())];
        if self.rng.u8(..4) == 0 { self.see_doors(houses, house).await } else { self.use_door(houses, house).await }
    }

    /// Opens a door if both are closed, and closes whatever is open otherwise.
    async fn use_door(&mut self, houses: &Houses, house: House) -> Came {
        let at = house.doors[self.rng.usize(..2)];
        let think = self.think();
        let world = self.world.clone();
        let isolation = match house.kept {
            Kept::Serializable => Isolation::Serializable,
            Kept::Not | Kept::ByKey => Isolation::Snapshot,
        };
        let done = self.run_for("use door", isolation, move |tx, log| {
            let world = world.clone();
            async move {
                if house.kept == Kept::ByKey {
                    let mut key = tx.get_mut(house.key).await?;
                    log.change(&mut key);
                    key.count += 1;
                }
                let mut open = Vec::new();
                for door in house.doors {
                    let value = tx.get(door).await?;
                    log.saw(door, &*value);
                    open.extend(value.is_open.then_some(door));
                }
                think.pause(&world).await;
                let both_open = open.len() > 1;
                if both_open && house.kept != Kept::Not {
                    log.wrong(format!("both doors of the house that is kept {:?} are open", house.kept));
                }
                let closes = !open.is_empty();
                let turned = if closes { open } else { vec![at] };
                for door in turned {
                    let mut door = tx.get_mut(door).await?;
                    log.change(&mut door);
                    door.is_open = !closes;
                }
                Ok(both_open)
            }
        });
        match done.await {
            Ok((both_open, _, number)) => {
                if house.kept == Kept::Not {
                    houses.both_open.note(number, both_open);
                }
                Came::Committed
            }
            Err(came) => came,
        }
    }

    /// Looks at both doors at one snapshot.
    async fn see_doors(&mut self, houses: &Houses, house: House) -> Came {
        let Some(mut look) = self.look("see doors") else { return Came::Nothing };
        let mut both_open = true;
        for door in house.doors {
            let Some(value) = look.first_sees(door).await else {
                both_open = false;
                break;
            };
            both_open &= value.is_open;
        }
        if both_open && house.kept != Kept::Not {
            look.wrong(format!("sees both doors open of the house that is kept {:?}", house.kept));
        }
        let Some(number) = look.end() else { return Came::Nothing };
        if house.kept == Kept::Not {
            houses.both_open.note(number, both_open);
        }
        Came::Committed
    }
}
