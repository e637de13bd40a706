//! W17, the market rush: all buy and sell at one stall, by tasks. It is sold out now and then.
//!
//! What was sold is gone from the stall and with those who bought it, and gold is neither made nor lost. It refuses to sell what
//! is not there: such a request is rejected, and nobody may have its piece.

use super::Maker;
use super::end::End;
use super::task_calls::{Requests, SimTask, counts};
use crate::client::{Came, Client, SimTx};
use driftmesh_model::{Object, ObjectId, Ref, Value, decode_object};
use driftmesh_peer::session::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const BUYERS: usize = 5;
const GOLD_AT_FIRST: u64 = 20;
const STOCK_AT_FIRST: u64 = 6;
const PRICE: u64 = 3;

/// Who buys, and sells again.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Buyer {
    gold: u64,
    pieces: u64,
    deals: Vec<u64>,
}

impl Object for Buyer {
    const TYPE_NAME: &'static str = "buyer";
}

/// Where all buy.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Stall {
    gold: u64,
    stock: u64,
    sold: u64,
    bought: u64,
    deals: Vec<u64>,
}

impl Object for Stall {
    const TYPE_NAME: &'static str = "stall";
}

/// Whether a value is of this workload.
pub(super) fn is_of_market(value: &Value) -> bool {
    decode_object::<Buyer>(value).is_ok() || decode_object::<Stall>(value).is_ok()
}

/// A piece is bought or sold.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Deal {
    number: u64,
    buyer: Ref<Buyer>,
    stall: Ref<Stall>,
    sells: bool,
}

impl SimTask for Deal {
    const NAME: &'static str = "deal";

    fn number(&self) -> u64 {
        self.number
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.buyer.id(), self.stall.id()]
    }

    async fn run(&self, tx: &SimTx) -> Result<u64> {
        let mut buyer = tx.get_mut(self.buyer).await?;
        let mut stall = tx.get_mut(self.stall).await?;
        if self.sells {
            buyer.pieces = buyer.pieces.checked_sub(1).ok_or_else(|| tx.reject("nothing to sell"))?;
            stall.gold = stall.gold.checked_sub(PRICE).ok_or_else(|| tx.reject("no gold"))?;
            buyer.gold += PRICE;
            (stall.stock, stall.bought) = (stall.stock + 1, stall.bought + 1);
        } else {
            stall.stock = stall.stock.checked_sub(1).ok_or_else(|| tx.reject("sold out"))?;
            buyer.gold = buyer.gold.checked_sub(PRICE).ok_or_else(|| tx.reject("not enough gold"))?;
            (stall.gold, stall.sold) = (stall.gold + PRICE, stall.sold + 1);
            buyer.pieces += 1;
        }
        buyer.deals.push(self.number);
        stall.deals.push(self.number);
        Ok(tx.random())
    }
}

/// The market of a run. Clones share it.
#[derive(Clone)]
pub(crate) struct Market {
    stall: Ref<Stall>,
    buyers: Arc<[Ref<Buyer>]>,
    requests: Requests<Deal>,
}

impl Market {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let stall = maker.tx.create(&Stall { stock: STOCK_AT_FIRST, ..Stall::default() })?;
            let buyer = Buyer { gold: GOLD_AT_FIRST, ..Buyer::default() };
            let buyers = (0..BUYERS).map(|_| maker.tx.create(&buyer)).collect::<Result<Vec<_>>>()?;
            Ok((stall, buyers))
        };
        let (stall, buyers) = client.make("create market", make).await?;
        Some(Self { stall, buyers: buyers.into(), requests: Requests::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let (Some(stall), Some(buyers)) = (end.value(self.stall), end.values(&self.buyers)) else { return };
        end.wrong.extend(wrong(&stall, &buyers));
        let (there, with) = (counts(&stall.deals), counts(buyers.iter().flat_map(|buyer| &buyer.deals)));
        if there != with {
            end.wrong.push(format!("the stall knows deals {there:?}, buyers know {with:?}"));
        }
        self.requests.judge("deal", &there, end);
    }
}

/// What does not add up between a stall and all who buy there.
fn wrong(stall: &Stall, buyers: &[Buyer]) -> Vec<String> {
    let mut wrong = Vec::new();
    let Stall { stock, sold, bought, .. } = stall;
    if STOCK_AT_FIRST + bought != stock + sold {
        wrong.push(format!("{sold} pieces were sold and {bought} bought, and {stock} of {STOCK_AT_FIRST} are there"));
    }
    let pieces: u64 = buyers.iter().map(|buyer| buyer.pieces).sum();
    if pieces + stock != STOCK_AT_FIRST {
        wrong.push(format!("buyers have {pieces} pieces, and {stock} of {STOCK_AT_FIRST} are there"));
    }
    let gold = stall.gold + buyers.iter().map(|buyer| buyer.gold).sum::<u64>();
    if gold != GOLD_AT_FIRST * buyers.len() as u64 {
        wrong.push(format!("there is {gold} gold"));
    }
    wrong
}

impl Client {
    /// Buys or sells, or asks about a deal that has no certain answer; now and then everything is looked at.
    pub(super) async fn use_market(&mut self, market: &Market) -> Came {
        if self.rng.u8(..6) == 0 {
            return self.see_market(market).await;
        }
        let new = |client: &mut Self, requests: &Requests<Deal>| {
            let buyer = market.buyers[client.rng.usize(..BUYERS)];
            let sells = client.rng.u8(..5) < 2;
            Deal { number: requests.number(), buyer, stall: market.stall, sells }
        };
        self.use_requests(&market.requests, new).await
    }

    async fn see_market(&mut self, market: &Market) -> Came {
        let Some(mut look) = self.look("see market") else { return Came::Nothing };
        if let Some(stall) = look.sees_of_tasks(market.stall).await
            && let Some(buyers) = look.see_all_of_tasks(&market.buyers).await
        {
            wrong(&stall, &buyers).into_iter().for_each(|text| look.wrong(format!("sees a market in which {text}")));
        }
        look.end().map_or(Came::Nothing, |_| Came::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sold_is_gone_and_with_those_who_bought_it() {
        let wrong = |stock, sold, pieces, gold| {
            let stall = Stall { gold: 6, stock, sold, ..Stall::default() };
            wrong(&stall, &[Buyer { gold, pieces, ..Buyer::default() }]).len()
        };
        assert_eq!(wrong(STOCK_AT_FIRST - 2, 2, 2, GOLD_AT_FIRST - 6), 0);
        assert_eq!(wrong(STOCK_AT_FIRST - 2, 2, 3, GOLD_AT_FIRST - 6), 1, "a buyer has what was sold out");
        assert_eq!(wrong(STOCK_AT_FIRST - 1, 2, 1, GOLD_AT_FIRST - 6), 1, "a piece is there that was sold");
        assert_eq!(wrong(STOCK_AT_FIRST - 2, 2, 2, GOLD_AT_FIRST), 1, "gold out of nothing");
    }
}
