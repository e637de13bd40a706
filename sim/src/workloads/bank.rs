//! W1, the bank: gold is paid from purse to purse, and whole snapshots count all of it.
//!
//! Gold and items are never made or lost: `audit.rs` counts them at the end. It refuses to know what else is done with purses.

use crate::client::{Came, Client};
use crate::game::Purse;
use crate::history::TxnLog;
use crate::look::Look;
use driftmesh_model::Ref;
use driftmesh_peer::session::{Mutable, Result};
use std::sync::Arc;

impl Client {
    /// Pays, or counts.
    pub(super) async fn use_bank(&mut self) -> Came {
        match self.rng.u8(..11) {
            0..=5 => self.pay().await,
            6 | 7 => self.read_then_pay().await,
            8 => self.gift_to_many().await,
            _ => self.audit().await,
        }
    }

    pub(super) fn two_purses(&mut self) -> (Ref<Purse>, Ref<Purse>) {
        let one = self.purse();
        loop {
            let other = self.purse();
            if other != one {
                return (one, other);
            }
        }
    }

    /// Moves gold from one purse to another.
    pub(crate) async fn pay(&mut self) -> Came {
        let (from, to) = self.two_purses();
        let think = self.think();
        let amount = self.rng.u64(1..20);
        let world = self.world.clone();
        self.run("pay", move |tx, log| {
            let world = world.clone();
            async move {
                let mut payer = tx.get_mut(from).await?;
                think.pause(&world).await;
                let mut payee = tx.get_mut(to).await?;
                think.pause(&world).await;
                move_gold(&log, &mut payer, &mut payee, amount)
            }
        })
        .await
    }

    /// Reads one purse, thinks, and pays from another by what it saw.
    pub(super) async fn read_then_pay(&mut self) -> Came {
        let (seen, from) = self.two_purses();
        let to = self.purse();
        let think = self.think();
        let world = self.world.clone();
        if to == from || to == seen {
            return Came::Nothing;
        }
        self.run("read then pay", move |tx, log| {
            let world = world.clone();
            async move {
                let read = tx.get(seen).await?;
                log.saw(seen, &*read);
                think.pause(&world).await;
                let mut payer = tx.get_mut(from).await?;
                let mut payee = tx.get_mut(to).await?;
                move_gold(&log, &mut payer, &mut payee, read.gold % 7 + 1)
            }
        })
        .await
    }

    /// Pays one gold to several purses at once.
    pub(super) async fn gift_to_many(&mut self) -> Came {
        let mut purses = self.world.purses.to_vec();
        self.rng.shuffle(&mut purses);
        purses.truncate(5);
        self.run("gift to many", move |tx, log| {
            let purses = purses.clone();
            async move {
                let mut lent = tx.get_mut_many(&purses).await?;
                for purse in &mut lent {
                    log.change(purse);
                }
                let given = (lent.len() as u64 - 1).min(lent[0].gold);
                lent[0].gold -= given;
                for purse in lent.iter_mut().skip(1).take(usize::try_from(given).unwrap_or(0)) {
                    purse.gold += 1;
                }
                Ok(())
            }
        })
        .await
    }

    /// Counts everything at one snapshot.
    pub(crate) async fn audit(&mut self) -> Came {
        self.count_at_a_snapshot("audit", None).await
    }

    /// Counts everything at one snapshot, with a pause before each purse of so many us.
    pub(super) async fn count_at_a_snapshot(&mut self, kind: &str, pause_us: Option<u64>) -> Came {
        let Some(mut look) = self.look(kind) else { return Came::Nothing };
        let counted = self.count(&mut look, pause_us).await;
        if counted.is_none() && !look.is_wrong() {
            look.forget();
            return Came::Nothing;
        }
        look.end();
        if counted.is_some() { Came::Committed } else { Came::Nothing }
    }

    /// Counts everything at a snapshot; pauses before some purses for a moment, or before each for a given time.
    pub(crate) async fn count(&mut self, look: &mut Look, pause_us: Option<u64>) -> Option<()> {
        let (mut gold, mut items) = (0, 0);
        for reference in Arc::clone(&self.world.purses).iter() {
            let for_a_moment = self.rng.u8(..8) == 0;
            if let Some(pause_us) = pause_us {
                self.world.clock.sleep(pause_us).await;
            } else if for_a_moment {
                let pause = self.rng.u64(..2_000);
                self.world.clock.sleep(pause).await;
            }
            let purse = look.first_sees(*reference).await?;
            gold += purse.gold;
            items += purse.items.len();
            for pouch in &purse.pouches {
                gold += look.sees(*pouch).await?.gold;
            }
        }
        if let Some(chest) = self.world.grounds.chest {
            items += look.first_sees(chest).await?.items.len();
        }
        let all = (self.world.gold, self.world.items);
        if (gold, items) != all {
            look.wrong(format!("sees {gold} gold of {} and {items} items of {}", all.0, all.1));
        }
        Some(())
    }

    /// Reads an object: after the faults, every peer must find every owner.
    pub(crate) async fn finds(&mut self, reference: Ref<Purse>) -> Came {
        self.run("find", move |tx, log| async move {
            let purse = tx.get(reference).await?;
            log.saw(reference, &*purse);
            Ok(())
        })
        .await
    }
}

pub(super) fn move_gold(log: &TxnLog, from: &mut Mutable<Purse>, to: &mut Mutable<Purse>, amount: u64) -> Result<()> {
    log.change(from);
    log.change(to);
    let amount = amount.min(from.gold);
    from.gold -= amount;
    to.gold += amount;
    Ok(())
}
