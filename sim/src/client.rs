//! The clients: game code in ordinary closures, run through the same session as in a live mesh.

use crate::dumping::Dump;
use crate::game::{Item, Pouch, Purse};
use crate::history::{Recorder, TxnLog};
use crate::host::{Clock, SimHost};
use crate::ledger::Depends;
use crate::name_watchers::NameWatches;
use crate::names::Names;
use crate::options::Options;
use crate::watchers::Watches;
use driftmesh_model::{Micros, ObjectId, Ref};
use driftmesh_peer::session::{Error, Fates, Isolation, Options as TxnOptions, Result, Snapshot, Tx, transact};
use driftmesh_peer::{Cause, Committed};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What all clients of a run share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) purses: Arc<[Ref<Purse>]>,
    pub(crate) options: Arc<Options>,
    pub(crate) names: Names,
    pub(crate) watches: Watches,
    pub(crate) name_watches: NameWatches,
    /// What is dumped for outside judges, if anything.
    pub(crate) dump: Option<Dump>,
    pub(crate) gold: u64,
    pub(crate) items: usize,
}

/// One client at one peer.
pub(crate) struct Client {
    pub(crate) host: SimHost,
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) session: u32,
    /// What becomes of its commits, by their numbers in the ledger.
    pub(crate) fates: Fates<SimHost, usize>,
    /// What it does counts for the check that everything ends well.
    pub(crate) sane: bool,
}

/// What a transaction came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    Committed,
    Rejected,
    /// Its deadline passed, or it could not begin.
    Nothing,
}

type SimTx = Tx<SimHost>;

/// The objects on which attempts of one transaction ended with a conflict.
#[derive(Clone, Default)]
struct Conflicts(Arc<Mutex<BTreeSet<ObjectId>>>);

impl Conflicts {
    /// Notes a conflict; says whether there was one on this object before.
    fn met_before(&self, object: ObjectId) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(object)
    }
}

/// A pause in the middle of a transaction, of so many us.
#[derive(Clone, Copy)]
struct Think(u64);

impl Think {
    async fn pause(self, world: &World) {
        if self.0 > 0 {
            world.clock.sleep(self.0).await;
        }
    }
}

impl Client {
    /// Works until so many transactions were begun by all clients together.
    pub(crate) async fn work(mut self, until: u64) {
        loop {
            if self.world.recorder.lock().begun >= until {
                return;
            }
            self.one().await;
            let pause = self.rng.u64(0..self.world.options.pace_us);
            self.world.clock.sleep(pause).await;
        }
    }

    pub(crate) fn purse(&mut self) -> Ref<Purse> {
        let options = &self.world.options;
        let bound = if self.rng.u8(..10) < 8 { options.hot_purses } else { options.purses };
        self.world.purses[self.rng.usize(..bound)]
    }

    fn two_purses(&mut self) -> (Ref<Purse>, Ref<Purse>) {
        let one = self.purse();
        loop {
            let other = self.purse();
            if other != one {
                return (one, other);
            }
        }
    }

    fn think(&mut self) -> Think {
        if self.rng.u8(..100) < self.world.options.think_percent { Think(self.rng.u64(1..20_000)) } else { Think(0) }
    }

    /// One transaction or snapshot of a random kind.
    pub(crate) async fn one(&mut self) {
        match self.rng.u8(..24) {
            0..=5 => self.pay().await,
            6 => self.wager().await,
            7..=11 => self.trade().await,
            12 | 13 => self.read_then_pay().await,
            14 => self.gift_to_many().await,
            15 => self.fill_pouch().await,
            16 => self.empty_pouch().await,
            17 => self.leak_reference().await,
            18 | 19 => self.audit().await,
            _ => self.use_names().await,
        };
    }

    /// Runs one transaction and records it.
    async fn run<F, Fut>(&mut self, kind: &str, body: F) -> Came
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        self.run_isolated(kind, Isolation::Snapshot, body).await
    }

    async fn run_isolated<F, Fut>(&mut self, kind: &str, isolation: Isolation, body: F) -> Came
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        match self.run_with_receipt(kind, isolation, body).await {
            Ok(_) => Came::Committed,
            Err(came) => came,
        }
    }

    /// Runs one transaction and records it; returns its receipt.
    pub(crate) async fn run_with_receipt<F, Fut>(
        &mut self,
        kind: &str,
        isolation: Isolation,
        mut body: F,
    ) -> Result<(Committed, usize), Came>
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let log = self.world.recorder.transaction(self.session, kind);
        if isolation == Isolation::Serializable {
            log.serializable();
        }
        let options = TxnOptions { deadline: Micros::from_millis(5_000), isolation, ..TxnOptions::new(kind) };
        let attempts = log.clone();
        let conflicts = Conflicts::default();
        let result = transact(self.host.clone(), options, |tx| {
            let attempt = body(tx, attempts.attempt());
            let (conflicts, recorder) = (conflicts.clone(), self.world.recorder.clone());
            async move {
                let result = attempt.await;
                if let Err(Error::AttemptEnded { cause: Cause::Conflict { object, .. }, .. }) = &result
                    && conflicts.met_before(*object)
                {
                    // R15: a retry can fail only on an object it had not met before.
                    recorder.violation(format!("a transaction was told twice of a conflict on object {object}"));
                }
                result
            }
        })
        .await;
        if let Err(error) = &result {
            log.aborted();
            if !matches!(error, Error::Deadline { .. }) {
                log.told();
            }
        }
        match result {
            Ok(done) => {
                let wrote = log.wrote_anything();
                let number = log.committed(vec![done.committed.receipt], done.committed.stable);
                self.follow(&done.committed, number, wrote, kind);
                return Ok((done.committed, number));
            }
            Err(Error::Rejected(_)) => return Err(Came::Rejected),
            Err(Error::Dangling { object }) => self.dangling(object, kind),
            Err(Error::Deadline { .. }) => {
                if self.sane {
                    self.world.recorder.lock().expired += 1;
                }
            }
            Err(Error::Leaving | Error::Busy(_)) => {}
            // R18: only a clock that is wrong may be told so.
            Err(Error::ClockOff { .. }) if !self.sane => {}
            Err(other) => {
                self.world.recorder.violation(format!("`{kind}` ended with an error that nothing explains: {other}"));
            }
        }
        Err(Came::Nothing)
    }

    /// Follows what becomes of a commit, and hears what became of others.
    fn follow(&mut self, committed: &Committed, number: usize, wrote: bool, kind: &str) {
        while let Some(settled) = self.fates.try_next() {
            self.world.recorder.lock().ledger.told(settled.tag, 0, settled.fate.into(), "a stream of fates");
        }
        let group = committed.receipt.group;
        let undecided = self.fates.undecided().find(|told| wrote && told.group != group);
        if let Some(told) = undecided {
            // R6: nothing builds on what may be undone in another journal.
            let told = format!("{told:?}, which its session was told, is not decided");
            self.world.recorder.violation(format!("`{kind}` is committed in group {group}, though {told}"));
        }
        if !committed.stable && self.fates.follow(committed.receipt, number).is_err() {
            self.world.recorder.violation("a stream of fates is full".to_owned());
        }
    }

    /// Purses and items are never deleted.
    fn dangling(&self, object: ObjectId, kind: &str) {
        let purse = self.world.purses.iter().any(|purse| purse.id() == object);
        if purse {
            self.world.recorder.violation(format!("`{kind}` was told that purse {object} does not exist"));
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

    /// Locks three hot purses one after the other, in any order, and passes gold round.
    pub(crate) async fn clash(&mut self) -> Came {
        let mut purses: Vec<Ref<Purse>> = self.world.purses.iter().copied().take(4).collect();
        self.rng.shuffle(&mut purses);
        purses.truncate(3);
        let think = Think(self.rng.u64(0..3_000));
        let world = self.world.clone();
        self.run("clash", move |tx, log| {
            let (world, purses) = (world.clone(), purses.clone());
            async move {
                let mut lent = Vec::new();
                for reference in purses {
                    let mut purse = tx.get_mut(reference).await?;
                    log.change(&mut purse);
                    lent.push(purse);
                    think.pause(&world).await;
                }
                if lent[0].gold > 0 {
                    lent[0].gold -= 1;
                    lent[1].gold += 1;
                }
                Ok(())
            }
        })
        .await
    }

    /// Moves an item, for gold.
    async fn trade(&mut self) -> Came {
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

    /// Reads one purse, thinks, and pays from another by what it saw.
    async fn read_then_pay(&mut self) -> Came {
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

    /// Reads two purses and changes one: two of these may skew each other unless they are serializable.
    async fn wager(&mut self) -> Came {
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

    /// Pays one gold to several purses at once.
    async fn gift_to_many(&mut self) -> Came {
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

    /// Sets gold aside in a new object.
    async fn fill_pouch(&mut self) -> Came {
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
    async fn empty_pouch(&mut self) -> Came {
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
    async fn leak_reference(&mut self) -> Came {
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

    /// R18: a peer whose clock is wrong, and knows others, begins nothing.
    pub(crate) async fn stays_out(&mut self) {
        let log = self.world.recorder.transaction(self.session, "stay out");
        let created = transact(self.host.clone(), TxnOptions::new("stay out"), |tx| async move {
            tx.create(&Pouch { token: 0, gold: 0 })
        });
        let created = created.await;
        log.aborted();
        if !matches!(created, Err(Error::ClockOff { .. })) {
            let text = format!("a peer whose clock is ten minutes ahead was not told so: {:?}", created.map(|_| ()));
            self.world.recorder.violation(text);
        }
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

/// A snapshot's read: it may be too old or unavailable, but what it refers to exists.
pub(crate) fn settled<T>(result: Result<T>, object: ObjectId, wrong: &mut Vec<String>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Dangling { .. } | Error::CreatedLater { .. }) => {
            wrong.push(format!("a snapshot refers to object {object}, which it does not see"));
            None
        }
        Err(_) => None,
    }
}

fn move_gold(
    log: &TxnLog,
    from: &mut driftmesh_peer::session::Mutable<Purse>,
    to: &mut driftmesh_peer::session::Mutable<Purse>,
    amount: u64,
) -> Result<()> {
    log.change(from);
    log.change(to);
    let amount = amount.min(from.gold);
    from.gold -= amount;
    to.gold += amount;
    Ok(())
}
