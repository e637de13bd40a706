//! What players do, each a task: it is submitted anywhere and runs where its data is.
//!
//! Who walks, meets or rests names nothing but the player: where that is and who else is there, the task finds out. It
//! refuses to take what is not there: then the task rejects itself, and nothing has happened.

use super::objects::{Boss, Cell, Good, Hero, Stall};
use driftmesh::{Error, ObjectId, Ref, Result, Task, Tx};
use serde::{Deserialize, Serialize};

/// What a task did, for the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Deed {
    /// Who else took part and has its mark.
    pub(crate) other: Option<ObjectId>,
    /// Gold that the player gained, from the other.
    pub(crate) gold: i16,
    /// Items that the player gained: 1, 0 or -1.
    pub(crate) items: i8,
}

/// Where somebody walks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Way {
    /// To a neighbour of the place where the player is, modulo their number.
    Next(u16),
    /// There.
    To(Ref<Cell>),
}

/// A player goes to another place: he and both places change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Walk {
    /// Who.
    pub(crate) hero: Ref<Hero>,
    /// Where.
    pub(crate) way: Way,
    /// The act's mark.
    pub(crate) mark: u64,
}

impl Task for Walk {
    type Output = Deed;
    const NAME: &'static str = "testnet.walk";

    async fn run(&self, tx: &Tx) -> Result<Deed> {
        let mut hero = tx.get_mut(self.hero).await?;
        let from = hero.place.ok_or_else(|| tx.reject("the player is nowhere"))?;
        let to = match self.way {
            Way::To(to) => to,
            Way::Next(choice) => {
                let neighbours = &tx.get(from).await?.neighbours;
                let count = neighbours.len().max(1);
                let next = neighbours.get(usize::from(choice) % count);
                *next.ok_or_else(|| tx.reject("no way leads from here"))?
            }
        };
        hero.sign(self.mark);
        if to != from {
            let mut places = tx.get_mut_many(&[from, to]).await?;
            let (Some(mut entered), Some(mut left)) = (places.pop(), places.pop()) else {
                return Err(tx.reject("two places were asked for, and not two came"));
            };
            if !left.members.contains(&self.hero) || entered.members.contains(&self.hero) {
                return Err(Error::rejected(Misplaced { hero: self.hero.id(), place: from.id() }));
            }
            left.members.retain(|member| *member != self.hero);
            left.left += 1;
            entered.members.push(self.hero);
            entered.entered += 1;
            hero.place = Some(to);
        }
        Ok(Deed::default())
    }

    fn anchor(&self) -> Option<ObjectId> {
        Some(self.hero.id())
    }

    fn key(&self) -> u64 {
        key_of(self.hero)
    }
}

/// What a player's commands touch is learned by the player.
#[expect(clippy::cast_possible_truncation, reason = "half of a random number is random")]
const fn key_of(hero: Ref<Hero>) -> u64 {
    hero.id().as_u128() as u64
}

/// What a rejection begins with that must never happen.
pub(crate) const MUST_NOT: &str = "must not happen: ";

/// A place does not have a player who says that he is there.
#[derive(Debug, thiserror::Error)]
#[error("{MUST_NOT}player {hero} says he is in {place}, whose list says otherwise")]
struct Misplaced {
    hero: ObjectId,
    place: ObjectId,
}

/// What two players do who are in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Meeting {
    /// Gold for an item of the other, or a gift where there is none.
    Trade,
    /// One of both loses gold.
    Fight,
}

/// A player trades or fights with somebody in the same place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Meet {
    /// Who.
    pub(crate) hero: Ref<Hero>,
    /// What for.
    pub(crate) what: Meeting,
    /// Who else, which item and who wins: modulo what there is.
    pub(crate) choice: u16,
    /// How much gold it is about, at most.
    pub(crate) price: u8,
    /// The act's mark.
    pub(crate) mark: u64,
}

impl Task for Meet {
    type Output = Deed;
    const NAME: &'static str = "testnet.meet";

    async fn run(&self, tx: &Tx) -> Result<Deed> {
        let place = tx.get(self.hero).await?.place.ok_or_else(|| tx.reject("the player is nowhere"))?;
        let cell = tx.get(place).await?;
        let others = cell.members.iter().filter(|member| **member != self.hero);
        let count = others.clone().count().max(1);
        let other = *others.clone().nth(usize::from(self.choice) % count).ok_or_else(|| tx.reject("nobody is here"))?;
        let mut both = tx.get_mut_many(&[self.hero, other]).await?;
        let (Some(mut them), Some(mut hero)) = (both.pop(), both.pop()) else {
            return Err(tx.reject("two players were asked for, and not two came"));
        };
        // Both are locked now: neither walks away.
        if hero.place != Some(place) || them.place != Some(place) {
            return Err(tx.reject("one of both has walked away"));
        }
        hero.sign(self.mark);
        them.sign(self.mark);
        let price = u64::from(self.price);
        let (gold, items) = match self.what {
            Meeting::Trade => trade(tx, (self.hero, &mut hero), (other, &mut them), price, self.choice).await?,
            Meeting::Fight if self.choice & 1 == 0 => (give(&mut them, &mut hero, price), 0),
            Meeting::Fight => (-give(&mut hero, &mut them, price), 0),
        };
        Ok(Deed { other: Some(other.id()), gold, items })
    }

    fn anchor(&self) -> Option<ObjectId> {
        Some(self.hero.id())
    }

    fn key(&self) -> u64 {
        key_of(self.hero)
    }
}

/// Moves so much gold, or what there is. Prices are small.
fn give(from: &mut Hero, to: &mut Hero, gold: u64) -> i16 {
    let gold = gold.min(from.gold);
    from.gold -= gold;
    to.gold += gold;
    i16::try_from(gold).unwrap_or(i16::MAX)
}

/// One of both buys an item of the other, who gives gold when there is nothing to buy. What the buyer gained.
async fn trade(
    tx: &Tx,
    (buys, buyer): (Ref<Hero>, &mut Hero),
    (sells, seller): (Ref<Hero>, &mut Hero),
    price: u64,
    choice: u16,
) -> Result<(i16, i8)> {
    if buyer.gold == 0 || seller.pack.is_empty() {
        return Ok((give(seller, buyer, price), 0));
    }
    let place = usize::from(choice) % seller.pack.len();
    let reference: Ref<Good> = seller.pack[place];
    let mut good = tx.get_mut(reference).await?;
    if good.holder != sells {
        let wrong = WrongHolder { good: reference.id(), hero: sells.id(), holder: good.holder.id() };
        return Err(Error::rejected(wrong));
    }
    let paid = give(buyer, seller, price);
    seller.pack.remove(place);
    buyer.pack.push(reference);
    good.holder = buys;
    Ok((-paid, 1))
}

/// An item in a purse names another holder.
#[derive(Debug, thiserror::Error)]
#[error("{MUST_NOT}item {good} is in the purse of player {hero}, and names {holder} as its holder")]
struct WrongHolder {
    good: ObjectId,
    hero: ObjectId,
    holder: ObjectId,
}

/// A player does something alone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// Who.
    pub(crate) hero: Ref<Hero>,
    /// The act's mark.
    pub(crate) mark: u64,
}

impl Task for Rest {
    type Output = Deed;
    const NAME: &'static str = "testnet.rest";

    async fn run(&self, tx: &Tx) -> Result<Deed> {
        tx.get_mut(self.hero).await?.sign(self.mark);
        Ok(Deed::default())
    }

    fn anchor(&self) -> Option<ObjectId> {
        Some(self.hero.id())
    }

    fn key(&self) -> u64 {
        key_of(self.hero)
    }
}

/// Two players trade, wherever they are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Deal {
    /// Who buys.
    pub(crate) buyer: Ref<Hero>,
    /// Who sells.
    pub(crate) seller: Ref<Hero>,
    /// Which item, modulo their number.
    pub(crate) choice: u16,
    /// For how much, at most.
    pub(crate) price: u8,
    /// The act's mark.
    pub(crate) mark: u64,
}

impl Task for Deal {
    type Output = Deed;
    const NAME: &'static str = "testnet.deal";

    async fn run(&self, tx: &Tx) -> Result<Deed> {
        let mut both = tx.get_mut_many(&[self.buyer, self.seller]).await?;
        let (Some(mut seller), Some(mut buyer)) = (both.pop(), both.pop()) else {
            return Err(tx.reject("two players were asked for, and not two came"));
        };
        buyer.sign(self.mark);
        seller.sign(self.mark);
        let (buys, sells) = ((self.buyer, &mut *buyer), (self.seller, &mut *seller));
        let (gold, items) = trade(tx, buys, sells, self.price.into(), self.choice).await?;
        Ok(Deed { other: Some(self.seller.id()), gold, items })
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.buyer.id(), self.seller.id()]
    }
}

/// A player strikes a boss. Who takes the last of a life gets an item that is made of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Strike {
    /// Who.
    pub(crate) hero: Ref<Hero>,
    /// Whom.
    pub(crate) boss: Ref<Boss>,
    /// Health that it takes, at most.
    pub(crate) damage: u8,
    /// The act's mark.
    pub(crate) mark: u64,
}

impl Task for Strike {
    type Output = Deed;
    const NAME: &'static str = "testnet.strike";

    async fn run(&self, tx: &Tx) -> Result<Deed> {
        let mut hero = tx.get_mut(self.hero).await?;
        let mut boss = tx.get_mut(self.boss).await?;
        let taken = u64::from(self.damage).min(boss.health);
        boss.health -= taken;
        hero.damage += taken;
        hero.sign(self.mark);
        let is_dead = boss.health == 0;
        if is_dead {
            boss.lives += 1;
            boss.health = boss.health_max;
            hero.kills += 1;
            hero.pack.push(tx.create(&Good { holder: self.hero })?);
        }
        Ok(Deed { other: None, gold: 0, items: i8::from(is_dead) })
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.hero.id(), self.boss.id()]
    }
}

/// What a piece costs at every stall.
pub(crate) const WARE_PRICE: u64 = 3;

/// A player buys a piece at a stall, or sells one to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shop {
    /// Who.
    pub(crate) hero: Ref<Hero>,
    /// Where.
    pub(crate) stall: Ref<Stall>,
    /// Whether the player sells.
    pub(crate) sells: bool,
    /// The act's mark.
    pub(crate) mark: u64,
}

impl Task for Shop {
    type Output = Deed;
    const NAME: &'static str = "testnet.shop";

    async fn run(&self, tx: &Tx) -> Result<Deed> {
        let mut hero = tx.get_mut(self.hero).await?;
        let mut stall = tx.get_mut(self.stall).await?;
        let (gold, items) = if self.sells {
            hero.wares = hero.wares.checked_sub(1).ok_or_else(|| tx.reject("nothing to sell"))?;
            stall.gold = stall.gold.checked_sub(WARE_PRICE).ok_or_else(|| tx.reject("the stall has no gold"))?;
            hero.gold += WARE_PRICE;
            (stall.stock, stall.bought) = (stall.stock + 1, stall.bought + 1);
            (WARE_PRICE, -1)
        } else {
            stall.stock = stall.stock.checked_sub(1).ok_or_else(|| tx.reject("sold out"))?;
            hero.gold = hero.gold.checked_sub(WARE_PRICE).ok_or_else(|| tx.reject("not enough gold"))?;
            (stall.gold, stall.sold) = (stall.gold + WARE_PRICE, stall.sold + 1);
            hero.wares += 1;
            (WARE_PRICE, 1)
        };
        hero.sign(self.mark);
        stall.sign(self.mark);
        let gold = i16::try_from(gold).unwrap_or(i16::MAX);
        Ok(Deed { other: Some(self.stall.id()), gold: if self.sells { gold } else { -gold }, items })
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.hero.id(), self.stall.id()]
    }
}

/// What a player does: one of the tasks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Goes elsewhere.
    Walk(Walk),
    /// Trades or fights with somebody near.
    Meet(Meet),
    /// Acts alone.
    Rest(Rest),
    /// Trades with somebody anywhere.
    Deal(Deal),
    /// Strikes a boss.
    Strike(Strike),
    /// Buys or sells at a stall.
    Shop(Shop),
}

impl Act {
    /// The player, who is also the anchor: nobody else uses him as one.
    pub(crate) const fn hero(&self) -> Ref<Hero> {
        match self {
            Self::Walk(Walk { hero, .. })
            | Self::Meet(Meet { hero, .. })
            | Self::Rest(Rest { hero, .. })
            | Self::Deal(Deal { buyer: hero, .. })
            | Self::Strike(Strike { hero, .. })
            | Self::Shop(Shop { hero, .. }) => *hero,
        }
    }
}

/// Lets a peer run all of them.
pub(crate) fn register(builder: driftmesh::Builder) -> driftmesh::Builder {
    builder
        .register::<Walk>()
        .register::<Meet>()
        .register::<Rest>()
        .register::<Deal>()
        .register::<Strike>()
        .register::<Shop>()
}
