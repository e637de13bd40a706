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
    /// Which of them are elsewhere and travel here, the buyer and the seller; their belongings come with them.
    pub(crate) travels: [bool; 2],
    /// What is paid, unless the payer has less.
    pub(crate) price: u64,
    /// Which of the seller's items is sold, modulo their number.
    pub(crate) choice: usize,
    /// What the trade adds to the sum of either player.
    pub(crate) mark: u64,
}

/// What became of a trade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Traded {
    /// Gold for an item.
    Item {
        /// What the buyer paid.
        paid: u64,
    },
    /// A gift of gold to the buyer, for want of an item or of gold to buy it.
    Gift {
        /// How much.
        gold: u64,
    },
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
        let luggage = [&buyer.inventory, &seller.inventory].into_iter().zip(self.travels);
        let items: Vec<ObjectId> =
            luggage.filter(|(_, travels)| *travels).flat_map(|(items, _)| items.iter().map(Ref::id)).collect();
        if !items.is_empty() {
            tx.acquire(&items).await?;
        }
        if buyer.gold > 0 && !seller.inventory.is_empty() {
            let paid = self.sell(&tx, &mut buyer, &mut seller).await?;
            return Ok(Traded::Item { paid });
        }
        if seller.gold == 0 {
            return Ok(Traded::Nothing);
        }
        let gift = self.price.min(seller.gold);
        seller.gold -= gift;
        buyer.gold += gift;
        self.sign(&mut buyer, &mut seller);
        Ok(Traded::Gift { gold: gift })
    }

    async fn sell(&self, tx: &Tx, buyer: &mut Mutable<Player>, seller: &mut Mutable<Player>) -> Result<u64> {
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
        self.sign(buyer, seller);
        Ok(price)
    }

    /// Leaves the mark by which the ledger outside finds the trade again in both players.
    fn sign(&self, buyer: &mut Player, seller: &mut Player) {
        for player in [buyer, seller] {
            player.trades += 1;
            player.sum = player.sum.wrapping_add(self.mark);
        }
    }
}
