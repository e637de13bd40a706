//! W16, the boss: all strike one object, by tasks. Who takes the last of a life gets its loot.
//!
//! Health taken is the damage that those who strike recorded in their own objects; a life ends once, and its loot goes to one
//! winner. It refuses to let the boss rest: it comes back with full health.

use super::Maker;
use super::end::End;
use super::task_calls::{Requests, SimTask, counts};
use crate::client::{Came, Client, SimTx};
use driftmesh_model::{Object, ObjectId, Ref, Value, decode_object};
use driftmesh_peer::session::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const FIGHTERS: usize = 4;
const HEALTH: u64 = 60;
const DAMAGE_MAX: u64 = 20;

/// What all strike.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Boss {
    health: u64,
    lives: u64,
    strikes: Vec<u64>,
}

impl Object for Boss {
    const TYPE_NAME: &'static str = "boss";
}

/// Somebody who strikes.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Fighter {
    damage: u64,
    strikes: Vec<u64>,
    /// The lives that this one ended.
    loot: Vec<u64>,
}

impl Object for Fighter {
    const TYPE_NAME: &'static str = "fighter";
}

/// Whether a value is of this workload.
pub(super) fn is_of_fight(value: &Value) -> bool {
    decode_object::<Boss>(value).is_ok() || decode_object::<Fighter>(value).is_ok()
}

/// One blow.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Strike {
    number: u64,
    fighter: Ref<Fighter>,
    boss: Ref<Boss>,
    damage: u64,
}

impl SimTask for Strike {
    const NAME: &'static str = "strike";

    fn number(&self) -> u64 {
        self.number
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.fighter.id(), self.boss.id()]
    }

    async fn run(&self, tx: &SimTx) -> Result<u64> {
        let mut fighter = tx.get_mut(self.fighter).await?;
        let mut boss = tx.get_mut(self.boss).await?;
        let taken = self.damage.min(boss.health);
        boss.health -= taken;
        boss.strikes.push(self.number);
        fighter.damage += taken;
        fighter.strikes.push(self.number);
        if boss.health == 0 {
            fighter.loot.push(boss.lives);
            (boss.lives, boss.health) = (boss.lives + 1, HEALTH);
        }
        Ok(tx.random())
    }
}

/// The fight of a run. Clones share it.
#[derive(Clone)]
pub(crate) struct Fight {
    boss: Ref<Boss>,
    fighters: Arc<[Ref<Fighter>]>,
    requests: Requests<Strike>,
}

impl Fight {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let boss = maker.tx.create(&Boss { health: HEALTH, ..Boss::default() })?;
            let fighters = (0..FIGHTERS).map(|_| maker.tx.create(&Fighter::default())).collect::<Result<Vec<_>>>()?;
            Ok((boss, fighters))
        };
        let (boss, fighters) = client.make("create boss", make).await?;
        Some(Self { boss, fighters: fighters.into(), requests: Requests::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let (Some(boss), Some(fighters)) = (end.value(self.boss), end.values(&self.fighters)) else { return };
        end.wrong.extend(wrong(&boss, &fighters));
        let (met, struck) = (counts(&boss.strikes), counts(fighters.iter().flat_map(|fighter| &fighter.strikes)));
        if met != struck {
            end.wrong.push(format!("the boss met strikes {met:?}, fighters made {struck:?}"));
        }
        self.requests.judge("strike", &met, end);
    }
}

/// What does not add up between a boss and all who strike it.
fn wrong(boss: &Boss, fighters: &[Fighter]) -> Vec<String> {
    let mut wrong = Vec::new();
    let taken = boss.lives * HEALTH + HEALTH.saturating_sub(boss.health);
    let dealt: u64 = fighters.iter().map(|fighter| fighter.damage).sum();
    if taken != dealt {
        wrong.push(format!("the boss lost {taken} health, fighters took {dealt}"));
    }
    let mut loot: Vec<u64> = fighters.iter().flat_map(|fighter| fighter.loot.iter().copied()).collect();
    loot.sort_unstable();
    if loot != (0..boss.lives).collect::<Vec<_>>() {
        wrong.push(format!("the boss died {} times, and the loot of lives {loot:?} was taken", boss.lives));
    }
    wrong
}

impl Client {
    /// Strikes, or asks about a blow that has no certain answer; now and then everything is looked at.
    pub(super) async fn use_fight(&mut self, fight: &Fight) -> Came {
        if self.rng.u8(..6) == 0 {
            return self.see_fight(fight).await;
        }
        let new = |client: &mut Self, requests: &Requests<Strike>| {
            let fighter = fight.fighters[client.rng.usize(..FIGHTERS)];
            let damage = client.rng.u64(1..=DAMAGE_MAX);
            Strike { number: requests.number(), fighter, boss: fight.boss, damage }
        };
        self.use_requests(&fight.requests, new).await
    }

    async fn see_fight(&mut self, fight: &Fight) -> Came {
        let Some(mut look) = self.look("see fight") else { return Came::Nothing };
        if let Some(boss) = look.sees_of_tasks(fight.boss).await
            && let Some(fighters) = look.see_all_of_tasks(&fight.fighters).await
        {
            wrong(&boss, &fighters).into_iter().for_each(|text| look.wrong(format!("sees a fight in which {text}")));
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_what_was_taken_and_each_life_has_one_winner() {
        let boss = Boss { health: 50, lives: 2, strikes: Vec::new() };
        let fighter = |damage, loot: &[u64]| Fighter { damage, loot: loot.to_vec(), ..Fighter::default() };
        let wrong = |first, second| wrong(&boss, &[first, second]).len();
        assert_eq!(wrong(fighter(100, &[1]), fighter(30, &[0])), 0);
        assert_eq!(wrong(fighter(100, &[1]), fighter(20, &[0])), 1, "a blow is lost");
        assert_eq!(wrong(fighter(100, &[1]), fighter(30, &[1])), 1, "two winners of one life");
        assert_eq!(wrong(fighter(100, &[]), fighter(30, &[0])), 1, "no winner");
    }
}
