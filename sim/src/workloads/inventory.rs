//! W8, the inventory: items are traded, dropped and raced for, and gold is set aside in pouches that are created and deleted all the time.
//!
//! Each item is in exactly one purse or in the chest, as `audit.rs` counts. It refuses to move gold alone: that is the bank.

use super::bank::move_gold;
use crate::client::{Came, Client};
use crate::game::{Item, Pouch};
use driftmesh_peer::session::{Error, Isolation};
use std::sync::{Arc, Mutex};

impl Client {
    /// Trades, takes and drops items, and fills and empties pouches.
    pub(super) async fn use_inventory(&mut self) -> Came {
        match self.rng.u8(..11) {
            0..=4 => self.trade().await,
            5 => self.wager().await,
            6 => self.fill_pouch().await,
            7 => self.empty_pouch().await,
            8 => self.leak_reference().await,
            _ => self.race_for_loot().await,
        }
    }

    /// Takes an item from the chest that all players want; if there is none, drops one there.
    async fn race_for_loot(&mut self) -> Came {
        let Some(chest) = self.world.grounds.chest else { return Came::Nothing };
        let purse = self.purse();
        let think = self.think();
        let choice = self.rng.usize(..64);
        let world = self.world.clone();
        self.run("race for loot", move |tx, log| {
            let world = world.clone();
            async move {
                let mut lying = tx.get_mut(chest).await?;
                think.pause(&world).await;
                let mut mine = tx.get_mut(purse).await?;
                if let Some(item) = lying.items.pop() {
                    let mut taken = tx.get_mut::<Item>(item).await?;
                    log.change(&mut taken);
                    taken.holder = purse;
                    mine.items.push(item);
                } else if mine.items.is_empty() {
                    log.saw(chest, &*lying);
                    log.saw(purse, &*mine);
                    return Ok(());
                } else {
                    let index = choice % mine.items.len();
                    lying.items.push(mine.items.swap_remove(index));
                }
                log.change(&mut lying);
                log.change(&mut mine);
                Ok(())
            }
        })
        .await
    }

    /// Moves an item, for gold.
    pub(super) async fn trade(&mut self) -> Came {
        let (seller, buyer) = self.two_purses();
        let think = self.think();
        let choice = self.rng.usize(..64);
        let world = self.world.clone();
        self.run("trade", move |tx, log| {
            let world = world.clone();
            async move {
                let purses = tx.get_mut_many(&[seller, buyer]).await?;
                let Ok([mut from, mut to]) = <[_; 2]>::try_from(purses) else {
                    return Err(tx.reject("not two purses"));
                };
                think.pause(&world).await;
                if from.items.is_empty() {
                    log.saw(seller, &*from);
                    return Ok(());
                }
                let index = choice % from.items.len();
                let item = from.items.remove(index);
                let mut sold = tx.get_mut::<Item>(item).await?;
                if sold.holder != seller {
                    log.wrong(format!("item {item} is in purse {seller} but says {}", sold.holder));
                }
                log.change(&mut sold);
                sold.holder = buyer;
                to.items.push(item);
                move_gold(&log, &mut to, &mut from, 1)
            }
        })
        .await
    }

    /// Reads two purses and changes one: two of these may skew each other unless they are serializable.
    pub(super) async fn wager(&mut self) -> Came {
        let (seen, changed) = self.two_purses();
        let think = self.think();
        let world = self.world.clone();
        self.run_isolated("wager", Isolation::Serializable, move |tx, log| {
            let world = world.clone();
            async move {
                let read = tx.get(seen).await?;
                log.saw(seen, &*read);
                think.pause(&world).await;
                let mut purse = tx.get_mut(changed).await?;
                log.change(&mut purse);
                if purse.items.len() > 1 && read.gold % 2 == 0 {
                    purse.items.rotate_left(1);
                }
                Ok(())
            }
        })
        .await
    }

    /// Sets gold aside in a new object.
    pub(super) async fn fill_pouch(&mut self) -> Came {
        let from = self.purse();
        self.run("fill pouch", move |tx, log| async move {
            let mut purse = tx.get_mut(from).await?;
            log.change(&mut purse);
            let gold = purse.gold.min(10);
            purse.gold -= gold;
            let mut pouch = Pouch { token: 0, gold };
            let token = log.create(&mut pouch);
            let pouch = tx.create(&pouch)?;
            log.created(pouch, token);
            purse.pouches.push(pouch);
            Ok(())
        })
        .await
    }

    /// Takes the gold back and deletes the object.
    pub(super) async fn empty_pouch(&mut self) -> Came {
        let from = self.purse();
        self.run("empty pouch", move |tx, log| async move {
            let mut purse = tx.get_mut(from).await?;
            let Some(reference) = purse.pouches.first().copied() else {
                log.saw(from, &*purse);
                return Ok(());
            };
            let pouch = match tx.get(reference).await {
                Err(Error::Dangling { object }) => {
                    log.wrong(format!("purse {from} refers to pouch {object}, which is nowhere"));
                    return Err(Error::Dangling { object });
                }
                other => other?,
            };
            log.change(&mut purse);
            purse.gold += pouch.gold;
            purse.pouches.remove(0);
            log.deleted(reference, &*pouch);
            tx.delete(reference).await
        })
        .await
    }

    /// Creates an object in a transaction that is rejected, and looks for it: it must be found nowhere.
    pub(super) async fn leak_reference(&mut self) -> Came {
        let leaked = std::cell::Cell::new(None);
        let leaked = Arc::new(Mutex::new(leaked));
        let slot = Arc::clone(&leaked);
        self.run("leak", move |tx, _| {
            let slot = Arc::clone(&slot);
            async move {
                let pouch = tx.create(&Pouch { token: 0, gold: 1_000 })?;
                if let Ok(slot) = slot.lock() {
                    slot.set(Some(pouch));
                }
                Err(tx.reject("leaves a reference to nothing"))
            }
        })
        .await;
        let Some(reference) = leaked.lock().ok().and_then(|slot| slot.take()) else { return Came::Nothing };
        let world = self.world.clone();
        self.run("look for nothing", move |tx, _| {
            let world = world.clone();
            async move {
                match tx.get(reference).await {
                    Err(Error::Dangling { .. }) => Ok(()),
                    Ok(pouch) => {
                        world.recorder.violation(format!("a rejected creation exists: {pouch:?}"));
                        Ok(())
                    }
                    Err(other) => Err(other),
                }
            }
        })
        .await
    }
}
