//! One trade between two players, as a transaction: gold one way, an item the other.
//!
//! A partner from another peer travels here with his belongings in the same transaction. It refuses to go on when an
//! item in an inventory names another holder: that is reported, never repaired.

use crate::world::{Item, Player};
use driftmesh::{Error, Mutable, ObjectId, Ref, Result, Tx};

/// Who trades with whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trade {
    /// Who pays.
    pub(crate) buyer: Ref<Player>,
    /// Who has an item to sell.
    pub(crate) seller: Ref<Player>,
    /// The player who is elsewhere and travels here; his belongings come with him.
    pub(crate) traveller: Option<Ref<Player>>,
    /// What is paid, unless the payer has less.
    pub(crate) price: u64,
    /// Which of the seller's items is sold, modulo their number.
    pub(crate) choice: usize,
}

/// What became of a trade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Traded {
    /// Gold for an item.
    Item,
    /// A gift of gold, for want of an item or of gold to buy it.
    Gift,
    /// Neither had anything to give; nothing was written.
    Nothing,
}

/// An item in a player's inventory names another holder.
#[derive(Debug, thiserror::Error)]
#[error("item {item} is in the inventory of player {seller}, but names {holder} as its holder")]
pub(crate) struct WrongHolder {
    item: ObjectId,
    seller: ObjectId,
    holder: ObjectId,
}

impl Trade {
    /// Runs the trade inside a transaction.
    pub(crate) async fn run(self, tx: Tx) -> Result<Traded> {
        let mut both = tx.get_mut_many(&[self.buyer, self.seller]).await?;
        let (Some(mut seller), Some(mut buyer)) = (both.pop(), both.pop()) else {
            return Err(tx.reject("two players were asked for, and not two came"));
        };
        if let Some(traveller) = self.traveller {
            let luggage = if traveller == self.buyer { &buyer.inventory } else { &seller.inventory };
            let items: Vec<ObjectId> = luggage.iter().map(Ref::id).collect();
            tx.acquire(&items).await?;
        }
        if buyer.gold > 0 && !seller.inventory.is_empty() {
            self.sell(&tx, &mut buyer, &mut seller).await?;
            return Ok(Traded::Item);
        }
        if seller.gold == 0 {
            return Ok(Traded::Nothing);
        }
        let gift = self.price.min(seller.gold);
        seller.gold -= gift;
        buyer.gold += gift;
        seller.trades += 1;
        buyer.trades += 1;
        Ok(Traded::Gift)
    }

    async fn sell(&self, tx: &Tx, buyer: &mut Mutable<Player>, seller: &mut Mutable<Player>) -> Result<()> {
        let place = self.choice % seller.inventory.len();
        let reference: Ref<Item> = seller.inventory[place];
        let mut item = tx.get_mut(reference).await?;
        if item.holder != self.seller {
            let wrong = WrongHolder { item: reference.id(), seller: self.seller.id(), holder: item.holder.id() };
            return Err(Error::rejected(wrong));
        }
        let price = self.price.min(buyer.gold);
        buyer.gold -= price;
        seller.gold += price;
        seller.inventory.remove(place);
        buyer.inventory.push(reference);
        item.holder = self.buyer;
        seller.trades += 1;
        buyer.trades += 1;
        Ok(())
    }
}
