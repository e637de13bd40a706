//! What must hold in the worlds of workloads: at each snapshot, and at the end.
//!
//! A scene is everything that was seen at one snapshot. It refuses to read anything itself, and to explain away what does
//! not add up.

use super::objects::{Boss, Cell, Good, Hero, Stall};
use super::plan::Plan;
use crate::audit::{Fault, Findings};
use driftmesh::{NameBucket, Object, ObjectId, Value, decode_object};
use driftmesh_model::stored_header;
use driftmesh_sim::dump::{Register, Series};
use std::collections::{BTreeMap, BTreeSet};

/// Objects of one snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) heroes: BTreeMap<ObjectId, Hero>,
    pub(crate) cells: BTreeMap<ObjectId, Cell>,
    pub(crate) bosses: BTreeMap<ObjectId, Boss>,
    pub(crate) stalls: BTreeMap<ObjectId, Stall>,
    pub(crate) goods: BTreeMap<ObjectId, Good>,
}

impl Scene {
    /// What is wrong with what was seen, besides items: those are not looked for while they are traded.
    pub(crate) fn faults(&self, plan: &Plan) -> Vec<String> {
        let mut told = self.misplaced();
        told.extend(self.miscounted());
        told.extend(self.bosses_wrong());
        told.extend(self.stalls_wrong(plan));
        let gold = self.heroes.values().map(|hero| hero.gold).chain(self.stalls.values().map(|stall| stall.gold));
        let gold = gold.fold(0_u64, u64::saturating_add);
        if gold != plan.gold() {
            told.push(format!("{gold} gold, {} were made", plan.gold()));
        }
        told
    }

    /// Players who are not in exactly the place that they say.
    fn misplaced(&self) -> Vec<String> {
        let mut found: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
        for (place, cell) in &self.cells {
            for member in &cell.members {
                found.entry(member.id()).or_default().push(*place);
            }
        }
        let mut wrong = Vec::new();
        for (player, hero) in &self.heroes {
            let places = found.remove(player).unwrap_or_default();
            let says: Vec<ObjectId> = hero.place.iter().map(driftmesh::Ref::id).collect();
            if places != says {
                wrong.push(format!("player {player} says he is in {says:?}, and is listed in {places:?}"));
            }
        }
        wrong.extend(found.into_iter().map(|(player, places)| format!("{places:?} lists {player}, who is nobody")));
        wrong
    }

    /// Places whose counters do not tell how many are there.
    fn miscounted(&self) -> Vec<String> {
        let is_wrong = |cell: &Cell| cell.entered.checked_sub(cell.left) != Some(cell.members.len() as u64);
        let wrong = self.cells.iter().filter(|(_, cell)| is_wrong(cell));
        let told = |(place, cell): (&ObjectId, &Cell)| {
            let Cell { entered, left, members, .. } = cell;
            format!("{entered} have entered {place} and {left} have left, and {} are there", members.len())
        };
        wrong.map(told).collect()
    }

    fn bosses_wrong(&self) -> Vec<String> {
        let taken = |boss: &Boss| boss.lives * boss.health_max + boss.health_max.saturating_sub(boss.health);
        let (taken, lives) =
            self.bosses.values().fold((0, 0), |(all, lives), boss| (all + taken(boss), lives + boss.lives));
        let (dealt, kills) =
            self.heroes.values().fold((0, 0), |(dealt, kills), hero| (dealt + hero.damage, kills + hero.kills));
        let mut wrong = Vec::new();
        if taken != dealt {
            wrong.push(format!("bosses lost {taken} health, players took {dealt}"));
        }
        if lives != kills {
            wrong.push(format!("{lives} lives of bosses are over, players ended {kills}"));
        }
        wrong
    }

    fn stalls_wrong(&self, plan: &Plan) -> Vec<String> {
        if self.stalls.is_empty() {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        let first = super::plan::STALL_STOCK;
        for (object, stall) in &self.stalls {
            let Stall { stock, sold, bought, .. } = stall;
            if first + bought != stock + sold {
                wrong.push(format!("stall {object} had {first} pieces, sold {sold}, bought {bought}, and has {stock}"));
            }
        }
        let there: u64 = self.stalls.values().map(|stall| stall.stock).sum();
        let wares: u64 = self.heroes.values().map(|hero| hero.wares).sum();
        if there + wares != plan.items() {
            wrong.push(format!("{there} pieces at stalls and {wares} with players, {} were made", plan.items()));
        }
        wrong
    }

    /// Lives of bosses that are over: each has left one item.
    pub(crate) fn lives(&self) -> u64 {
        self.bosses.values().map(|boss| boss.lives).sum()
    }

    /// The figures of the invariants, for the report.
    pub(crate) fn figures(&self) -> BTreeMap<&'static str, u64> {
        let mut figures = BTreeMap::new();
        if !self.cells.is_empty() {
            figures.insert("places", self.cells.len() as u64);
            figures.insert("placed", self.cells.values().map(|cell| cell.members.len() as u64).sum());
            figures.insert("walks", self.cells.values().map(|cell| cell.left).sum());
        }
        if !self.bosses.is_empty() {
            figures.insert("lives", self.lives());
            figures.insert("damage", self.heroes.values().map(|hero| hero.damage).sum());
            figures.insert("winners", self.heroes.values().filter(|hero| hero.kills > 0).count() as u64);
        }
        if !self.stalls.is_empty() {
            figures.insert("sold", self.stalls.values().map(|stall| stall.sold).sum());
            figures.insert("bought", self.stalls.values().map(|stall| stall.bought).sum());
            figures.insert("stock", self.stalls.values().map(|stall| stall.stock).sum());
        }
        figures
    }
}

/// A count that is going on.
#[derive(Debug, Default)]
pub(crate) struct Count {
    findings: Findings,
    met: BTreeSet<ObjectId>,
    scene: Scene,
}

impl Count {
    /// Counts one object, met at `owner`.
    pub(crate) fn meet(&mut self, owner: &str, object: ObjectId, value: &Value) {
        if !self.met.insert(object) {
            self.findings.duplicates += 1;
            self.findings.fault(Fault::MetAgain, 1, || format!("object {object} was met again at {owner}"));
        }
        match self.keep(object, value) {
            Ok(true) => *self.findings.owned.entry(owner.to_owned()).or_default() += 1,
            Ok(false) => {}
            Err(reason) => {
                self.findings.fault(Fault::UnknownType, 1, || format!("object {object} at {owner}: {reason}"));
            }
        }
    }

    /// Whether it is of the world.
    fn keep(&mut self, object: ObjectId, value: &Value) -> Result<bool, String> {
        fn of<T: Object>(value: &Value) -> Result<T, String> {
            decode_object(value).map_err(|error| error.to_string())
        }
        let header = stored_header(value).map_err(|error| error.to_string())?;
        let scene = &mut self.scene;
        match &*header.type_name {
            Hero::TYPE_NAME => drop(scene.heroes.insert(object, of(value)?)),
            Cell::TYPE_NAME => drop(scene.cells.insert(object, of(value)?)),
            Boss::TYPE_NAME => drop(scene.bosses.insert(object, of(value)?)),
            Stall::TYPE_NAME => drop(scene.stalls.insert(object, of(value)?)),
            Good::TYPE_NAME => drop(scene.goods.insert(object, of(value)?)),
            // Beside the world: directory buckets, and what histories are taken of.
            NameBucket::TYPE_NAME | Series::TYPE_NAME | Register::TYPE_NAME => return Ok(false),
            other => return Err(format!("it is a `{other}`, which this world does not have")),
        }
        Ok(true)
    }

    /// Ends the count.
    pub(crate) fn judge(mut self, plan: &Plan) -> (Findings, Scene) {
        let scene = &self.scene;
        let mut purses: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
        for (player, hero) in &scene.heroes {
            hero.pack.iter().for_each(|good| purses.entry(good.id()).or_default().push(*player));
        }
        let mut faults = Vec::new();
        for (good, players) in &purses {
            match (scene.goods.get(good), &players[..]) {
                (None, _) => faults.push((Fault::Dangling, format!("{players:?} has item {good}, which was not met"))),
                (Some(_), [_, _, ..]) => {
                    self.findings.duplicates += 1;
                    faults.push((Fault::InTwoInventories, format!("item {good} is in the purses of {players:?}")));
                }
                (Some(Good { holder }), _) if players != &[holder.id()] => {
                    faults.push((Fault::WrongHolder, format!("item {good} of {players:?} names {holder}")));
                }
                (Some(_), _) => {}
            }
        }
        for good in scene.goods.keys().filter(|good| !purses.contains_key(good)) {
            faults.push((Fault::InNoInventory, format!("item {good} is in no purse")));
        }
        faults.extend(scene.faults(plan).into_iter().map(|told| (Fault::Invariant, told)));
        let pieces: u64 = scene.stalls.values().map(|stall| stall.stock).sum();
        let wares: u64 = scene.heroes.values().map(|hero| hero.wares).sum();
        let findings = &mut self.findings;
        findings.items = scene.goods.len() as u64 + pieces + wares;
        let gold = scene.heroes.values().map(|hero| hero.gold).chain(scene.stalls.values().map(|stall| stall.gold));
        findings.gold = gold.fold(0, u64::saturating_add);
        let ends = scene.heroes.iter().map(|(object, hero)| (*object, hero.end()));
        findings.players = ends.chain(scene.stalls.iter().map(|(object, stall)| (*object, stall.end()))).collect();
        faults.into_iter().for_each(|(fault, told)| findings.fault(fault, 1, || told));
        findings.total(Fault::Items, "items", findings.items, plan.items() + scene.lives());
        let counts = [
            ("players", scene.heroes.len() as u64, plan.heroes),
            ("places", scene.cells.len() as u64, plan.cells),
            ("bosses", scene.bosses.len() as u64, plan.bosses),
            ("stalls", scene.stalls.len() as u64, plan.stalls),
        ];
        counts.into_iter().for_each(|(what, found, made)| findings.total(Fault::Players, what, found, made));
        findings.tell_counts();
        (self.findings, self.scene)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh::Ref;

    fn id(number: u128) -> ObjectId {
        ObjectId::from_u128(number)
    }

    fn hero(place: u128) -> Hero {
        Hero { gold: 100, place: Some(Ref::from_id(id(place))), ..Hero::default() }
    }

    fn cell(members: &[u128]) -> Cell {
        let members: Vec<_> = members.iter().map(|member| Ref::from_id(id(*member))).collect();
        Cell { entered: members.len() as u64, members, ..Cell::default() }
    }

    fn crowd(cells: [&[u128]; 2]) -> Scene {
        let heroes = [(id(10), hero(1)), (id(11), hero(2))].into();
        let cells = [(id(1), cell(cells[0])), (id(2), cell(cells[1]))].into();
        Scene { heroes, cells, ..Scene::default() }
    }

    #[test]
    fn a_player_is_in_the_one_place_that_he_names() {
        let plan = Plan { heroes: 2, cells: 2, ..Plan::default() };
        let faults = |cells| crowd(cells).faults(&plan).len();
        assert_eq!(faults([&[10], &[11]]), 0);
        assert_eq!(faults([&[11], &[10]]), 2, "both are elsewhere");
        assert_eq!(faults([&[10, 11], &[11]]), 1, "one is in two places");
        assert_eq!(faults([&[10], &[]]), 1, "one is nowhere");
        assert_eq!(faults([&[10, 10], &[11]]), 1, "one is there twice");
        assert_eq!(faults([&[10], &[11, 12]]), 1, "a place lists nobody");
        let mut counted = crowd([&[10], &[11]]);
        counted.cells.get_mut(&id(1)).unwrap().left = 1;
        assert_eq!(counted.faults(&plan).len(), 1, "the counters differ");
    }

    #[test]
    fn gold_is_neither_made_nor_lost() {
        let plan = Plan { heroes: 2, cells: 2, ..Plan::default() };
        let mut poor = crowd([&[10], &[11]]);
        poor.heroes.get_mut(&id(10)).unwrap().gold = 99;
        assert_eq!(poor.faults(&plan).len(), 1);
    }

    #[test]
    fn health_that_a_boss_lost_was_taken_by_players() {
        let plan = Plan { heroes: 1, bosses: 1, ..Plan::default() };
        let scene = |damage, kills, health, lives| Scene {
            heroes: [(id(1), Hero { gold: 100, damage, kills, ..Hero::default() })].into(),
            bosses: [(id(2), Boss { health, health_max: 10, lives })].into(),
            ..Scene::default()
        };
        assert_eq!(scene(23, 2, 7, 2).faults(&plan), Vec::<String>::new());
        assert_eq!(scene(22, 2, 7, 2).faults(&plan).len(), 1, "a blow is lost");
        assert_eq!(scene(23, 3, 7, 2).faults(&plan).len(), 1, "two winners of one life");
    }

    #[test]
    fn what_is_sold_is_gone_from_the_stall() {
        let plan = Plan { heroes: 1, stalls: 1, ..Plan::default() };
        let first = super::super::plan::STALL_STOCK;
        let scene = |wares, stock, sold, bought| Scene {
            heroes: [(id(1), Hero { gold: 100, wares, ..Hero::default() })].into(),
            stalls: [(id(2), Stall { gold: super::super::plan::STALL_GOLD, stock, sold, bought, ..Stall::default() })]
                .into(),
            ..Scene::default()
        };
        assert_eq!(scene(2, first - 2, 3, 1).faults(&plan), Vec::<String>::new());
        assert_eq!(scene(2, first - 1, 3, 1).faults(&plan).len(), 2, "a piece is there twice");
        assert_eq!(scene(3, first - 2, 3, 1).faults(&plan).len(), 1, "a player has what was not sold");
    }
}
