//! What the players of a workload do next.
//!
//! It refuses to know where anything is: it draws by the seed alone.

use super::Workload;
use super::plan::Made;
use super::tasks::{Act, Deal, Meet, Meeting, Rest, Shop, Strike, Walk, Way};
use crate::world::mark;
use driftmesh::{ObjectId, Ref};
use fastrand::Rng;

/// Of 100 acts of a crowd so many are walks, and so many meetings with somebody in the same cell.
const WALKS: u8 = 25;
const MEETINGS: u8 = 45;
/// Of 100 crossings so many go against the stream.
const AGAINST: u8 = 10;
/// Of 100 customers so many buy; the others sell what they have.
const BUYERS: u8 = 65;
/// Most that a blow takes, and most that a trade costs.
const DAMAGE_MAX: u8 = 20;
const PRICE_MAX: u8 = 5;

/// Draws an act of this player, with this number.
pub(crate) fn draw(workload: Workload, made: &Made, hero: ObjectId, id: u64, rng: &mut Rng) -> Option<Act> {
    let mark = mark(id);
    let hero = Ref::from_id(hero);
    let one = |objects: &[ObjectId], rng: &mut Rng| rng.choice(objects).copied();
    Some(match workload {
        Workload::Trade => return None,
        Workload::Crowd => match rng.u8(..100) {
            of if of < WALKS => Act::Walk(Walk { hero, way: Way::Next(rng.u16(..)), mark }),
            of if of < WALKS + MEETINGS => {
                let what = if rng.bool() { Meeting::Trade } else { Meeting::Fight };
                Act::Meet(Meet { hero, what, choice: rng.u16(..), price: rng.u8(1..=PRICE_MAX), mark })
            }
            _ => Act::Rest(Rest { hero, mark }),
        },
        Workload::Crossing => {
            let way = Way::Next(u16::from(rng.u8(..100) < AGAINST));
            Act::Walk(Walk { hero, way, mark })
        }
        Workload::Boss => {
            let boss = Ref::from_id(one(&made.bosses, rng)?);
            Act::Strike(Strike { hero, boss, damage: rng.u8(1..=DAMAGE_MAX), mark })
        }
        Workload::Market => {
            let stall = Ref::from_id(one(&made.stalls, rng)?);
            Act::Shop(Shop { hero, stall, sells: rng.u8(..100) >= BUYERS, mark })
        }
        Workload::World => {
            let seller = one(&made.heroes, rng).filter(|seller| *seller != hero.id())?;
            let (seller, choice, price) = (Ref::from_id(seller), rng.u16(..), rng.u8(1..=PRICE_MAX));
            Act::Deal(Deal { buyer: hero, seller, choice, price, mark })
        }
    })
}
