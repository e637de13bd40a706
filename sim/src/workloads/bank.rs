//! W1, the bank: gold is paid from purse to purse, and whole snapshots count all of it.
//!
//! Gold and items are never made or lost: `audit.rs` counts them at the end. It refuses to know what else is done with purses.

use crate::client::{Came, Client, settled};
use crate::game::Purse;
use crate::history::TxnLog;
use crate::host::SimHost;
use crate::ledger::Depends;
use driftmesh_model::Ref;
use driftmesh_peer::session::{Error, Mutable, Result, Snapshot};

impl Client {
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
        let log = self.world.recorder.transaction(self.session, "audit");
        let mut depends = Depends::default();
        let mut wrong = Vec::new();
        let Ok(snapshot) = Snapshot::take(self.host.clone(), "audit") else {
            log.aborted();
            return Came::Nothing;
        };
        let result = self.count(&snapshot, &log, &mut depends, &mut wrong).await;
        let number = if result.is_some() || !wrong.is_empty() {
            log.committed(depends.receipts(), false)
        } else {
            log.aborted();
            return Came::Nothing;
        };
        // What was read of a leader that was deposed may be no part of the mesh after all.
        self.world.recorder.lock().ledger.wrong_unless_lost(number, wrong);
        if result.is_some() { Came::Committed } else { Came::Nothing }
    }

    /// Counts everything at a snapshot.
    pub(crate) async fn count(
        &mut self,
        snapshot: &Snapshot<SimHost>,
        log: &TxnLog,
        depends: &mut Depends,
        wrong: &mut Vec<String>,
    ) -> Option<()> {
        let (mut gold, mut items) = (0, 0);
        for reference in self.world.purses.iter() {
            let think = self.rng.u8(..8) == 0;
            if think {
                self.world.clock.sleep(self.rng.u64(..2_000)).await;
            }
            let purse = match snapshot.get(*reference).await {
                // A client learns of the purses without a message: a snapshot may lie before their creation.
                Err(Error::CreatedLater { .. }) => return None,
                other => settled(other, reference.id(), wrong)?,
            };
            self.rests_on(snapshot, depends);
            log.saw(*reference, &*purse);
            gold += purse.gold;
            items += purse.items.len();
            for pouch in &purse.pouches {
                let value = settled(snapshot.get(*pouch).await, pouch.id(), wrong)?;
                self.rests_on(snapshot, depends);
                log.saw(*pouch, &*value);
                gold += value.gold;
            }
        }
        if (gold, items) != (self.world.gold, self.world.items) {
            wrong.push(format!(
                "a snapshot at {} sees {gold} gold of {} and {items} items of {}",
                snapshot.timestamp(),
                self.world.gold,
                self.world.items
            ));
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
