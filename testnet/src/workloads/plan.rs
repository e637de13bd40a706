//! The world of a workload as the orchestrator plans it, and who belongs where once it is made.
//!
//! It refuses to make anything: peers do (`parts.rs`).

use super::Workload;
use super::parts::{Filled, Part};
use crate::protocol::{pack, unpack};
use anyhow::Result;
use driftmesh::ObjectId;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Gold and items of each player at first.
pub(crate) const HERO_GOLD: u64 = 100;
pub(crate) const HERO_GOODS: u64 = 1;
/// Players in a cell of a crowd, in the mean.
const CELL_PLAYERS: u64 = 10;
/// Zones that players stream through.
const ZONES: u64 = 8;
/// Health of a boss: so that it dies some times a second.
const BOSS_HEALTH: u64 = 2_000;
/// Stalls of a market, and what each begins with: fewer pieces than there are buyers.
const STALLS: u64 = 8;
pub(crate) const STALL_GOLD: u64 = 300;
pub(crate) const STALL_STOCK: u64 = 40;

/// What a world is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// How many places.
    pub(crate) cells: u64,
    /// Of how many of them a region is made: those are in a ring.
    pub(crate) region: u64,
    /// How many players.
    pub(crate) heroes: u64,
    /// The items of each.
    pub(crate) goods: u64,
    /// How many bosses.
    pub(crate) bosses: u64,
    /// How many stalls.
    pub(crate) stalls: u64,
}

/// Everything that was made, each kind in the order in which it was planned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Made {
    /// The places.
    pub(crate) cells: Vec<ObjectId>,
    /// The players.
    pub(crate) heroes: Vec<ObjectId>,
    /// The bosses.
    pub(crate) bosses: Vec<ObjectId>,
    /// The stalls.
    pub(crate) stalls: Vec<ObjectId>,
}

impl Made {
    /// As a message carries it.
    pub(crate) fn packed(&self) -> [String; 4] {
        [&self.cells, &self.heroes, &self.bosses, &self.stalls].map(|objects| pack(objects))
    }

    /// Reads what [`Made::packed`] wrote.
    pub(crate) fn unpacked([cells, heroes, bosses, stalls]: &[String; 4]) -> Result<Self> {
        Ok(Self { cells: unpack(cells)?, heroes: unpack(heroes)?, bosses: unpack(bosses)?, stalls: unpack(stalls)? })
    }
}

impl Plan {
    /// The world of a workload with so many players.
    pub(crate) fn of(workload: Workload, heroes: u64) -> Self {
        let none = Self { heroes, goods: HERO_GOODS, region: 1, ..Self::default() };
        match workload {
            Workload::Trade | Workload::World => none,
            Workload::Crowd => {
                let cells = (heroes / CELL_PLAYERS).max(2);
                Self { cells, region: cells, ..none }
            }
            Workload::Crossing => Self { cells: ZONES, region: ZONES, ..none },
            Workload::Boss => Self { goods: 0, bosses: 1, ..none },
            Workload::Market => Self { goods: 0, stalls: STALLS, ..none },
        }
    }

    /// What is made first: everything but players.
    pub(crate) fn places(&self) -> Vec<Part> {
        let mut parts = vec![Part::Cell; len(self.cells)];
        parts.extend(std::iter::repeat_n(Part::Boss { health: BOSS_HEALTH }, len(self.bosses)));
        parts.extend(std::iter::repeat_n(Part::Stall { gold: STALL_GOLD, stock: STALL_STOCK }, len(self.stalls)));
        parts
    }

    /// Takes what came of [`Plan::places`], in the same order.
    pub(crate) fn take_places(&self, mut created: Vec<ObjectId>) -> Made {
        let stalls = created.split_off(len(self.cells + self.bosses).min(created.len()));
        let bosses = created.split_off(len(self.cells).min(created.len()));
        Made { cells: created, heroes: Vec::new(), bosses, stalls }
    }

    /// The players, each in a place where there are places: which, and what is made.
    pub(crate) fn heroes(&self, made: &Made, rng: &mut Rng) -> Vec<(Option<usize>, Part)> {
        let hero = |_| {
            let place = (!made.cells.is_empty()).then(|| rng.usize(..made.cells.len()));
            let part = Part::Hero { place: place.map(|place| made.cells[place]), gold: HERO_GOLD, goods: self.goods };
            (place, part)
        };
        (0..self.heroes).map(hero).collect()
    }

    /// What each place is told: who is there, and which are next to it.
    pub(crate) fn filled(&self, made: &Made, places: &[Option<usize>]) -> Vec<Filled> {
        let mut members = vec![Vec::new(); made.cells.len()];
        for (hero, place) in made.heroes.iter().zip(places) {
            if let Some(there) = place.and_then(|place| members.get_mut(place)) {
                there.push(*hero);
            }
        }
        let filled = |(number, (place, members)): (usize, (&ObjectId, Vec<ObjectId>))| Filled {
            place: *place,
            members: pack(&members),
            neighbours: pack(&self.neighbours(made, number)),
        };
        made.cells.iter().zip(members).enumerate().map(filled).collect()
    }

    /// The places before and after one in the ring of its region.
    fn neighbours(&self, made: &Made, number: usize) -> Vec<ObjectId> {
        let region = len(self.region).max(1);
        let first = number - number % region;
        let at = |step: usize| made.cells.get(first + (number - first + step) % region).copied();
        [1, region - 1].into_iter().filter_map(at).filter(|place| Some(place) != made.cells.get(number)).collect()
    }

    /// Gold and items of each account of the ledger at first: the players and then the stalls.
    pub(crate) fn accounts(&self) -> Vec<(u64, u64)> {
        let mut accounts = vec![(HERO_GOLD, self.goods); len(self.heroes)];
        accounts.extend(std::iter::repeat_n((STALL_GOLD, STALL_STOCK), len(self.stalls)));
        accounts
    }

    /// All gold.
    pub(crate) const fn gold(&self) -> u64 {
        self.heroes * HERO_GOLD + self.stalls * STALL_GOLD
    }

    /// All items and pieces. Bosses leave more.
    pub(crate) const fn items(&self) -> u64 {
        self.heroes * self.goods + self.stalls * STALL_STOCK
    }
}

fn len(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_in_the_ring_of_ones_own_region() {
        let cells = (0..6).map(ObjectId::from_u128).collect();
        let made = Made { cells, ..Made::default() };
        let plan = Plan { cells: 6, region: 3, ..Plan::default() };
        let next = |number| plan.neighbours(&made, number).iter().map(|place| place.as_u128()).collect::<Vec<_>>();
        assert_eq!((next(0), next(1), next(2)), (vec![1, 2], vec![2, 0], vec![0, 1]));
        assert_eq!((next(3), next(5)), (vec![4, 5], vec![3, 4]));
        let alone = Plan { region: 1, ..plan };
        assert_eq!(alone.neighbours(&made, 2), []);
    }

    #[test]
    fn each_player_is_told_to_the_place_that_he_names() {
        let plan = Plan { cells: 3, region: 3, heroes: 20, ..Plan::default() };
        let mut made = plan.take_places((100..103).map(ObjectId::from_u128).collect());
        let heroes = plan.heroes(&made, &mut Rng::with_seed(1));
        made.heroes = (0..20).map(ObjectId::from_u128).collect();
        let places: Vec<_> = heroes.iter().map(|(place, _)| *place).collect();
        let filled = plan.filled(&made, &places);
        for (hero, (_, part)) in made.heroes.iter().zip(heroes) {
            let there = filled.iter().filter(|filled| filled.members.contains(&hero.to_string()));
            let there: Vec<_> = there.map(|filled| filled.place).collect();
            assert!(matches!(part, Part::Hero { place: Some(place), .. } if there == [place]), "{hero}");
        }
    }

    #[test]
    fn accounts_have_what_the_world_has() {
        for workload in [Workload::Crowd, Workload::Market, Workload::Boss, Workload::World, Workload::Crossing] {
            let plan = Plan::of(workload, 50);
            let accounts = plan.accounts();
            let sum = |part: fn(&(u64, u64)) -> u64| accounts.iter().map(part).sum::<u64>();
            assert_eq!((sum(|one| one.0), sum(|one| one.1)), (plan.gold(), plan.items()), "{workload:?}");
        }
    }
}
