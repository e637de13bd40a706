//! W15, schedules: delayed and periodic tasks of objects that move and whose owners crash, tasks that follow from commits, and
//! what commits say to the world outside.
//!
//! A plan is noted in the same commit that schedules it, a run in the same commit that has its effects. So the final values
//! say by themselves what had to run, and what ran twice, out of step, or never. It refuses to look at how what is due is
//! found.

use super::Maker;
use super::end::End;
use crate::client::{Came, Client, SimTx};
use crate::host::SimHost;
use driftmesh_model::{Micros, Object, Ref, ScheduleId, Value, codec, decode_object};
use driftmesh_peer::session::{Error, First, Handlers, Isolation, Plan, Result, TaskFuture};
use driftmesh_peer::{CatchUp, Work};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const TOWERS: usize = 4;
const RING: &str = "ring";
const FOLLOW: &str = "follow";
const SAY: &str = "say";
/// Of plans with this remainder some occurrences are rejected.
const REJECTING: u64 = 3;

/// What was planned with a tower, and what took effect.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Tower {
    plans: Vec<Planned>,
    rang: Vec<Rang>,
    /// What plans of others did here too.
    echoes: Vec<(u64, u64)>,
    /// What had to follow: numbers, each with how many more follow after the first.
    parents: Vec<(u64, u8)>,
    followed: Vec<(u64, u8)>,
    /// What had to be said outside.
    said: Vec<u64>,
    touched: u64,
}

impl Object for Tower {
    const TYPE_NAME: &'static str = "tower";
}

#[derive(Clone, Serialize, Deserialize, Debug)]
struct Planned {
    plan: u64,
    first: u64,
    period: Option<u64>,
    /// The first occurrence after this ends it.
    until: u64,
    skips: bool,
    /// The number of its schedule.
    schedule: u64,
    /// Its task panics.
    breaks: bool,
    cancelled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Rang {
    plan: u64,
    intended: u64,
    count: u64,
}

/// Whether a value is a tower: tasks change it, whose reads and writes are in no history.
pub(crate) fn is_tower(value: &Value) -> bool {
    decode_object::<Tower>(value).is_ok()
}

/// What is scheduled.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Ring {
    plan: u64,
    tower: Ref<Tower>,
    echo: Option<Ref<Tower>>,
    period: Option<u64>,
    until: u64,
    breaks: bool,
}

impl Ring {
    fn rejects(&self, intended: u64) -> bool {
        self.period
            .is_some_and(|period| self.plan.is_multiple_of(REJECTING) && (intended / period).is_multiple_of(REJECTING))
    }

    async fn run(&self, tx: &SimTx) -> Result<()> {
        if self.breaks {
            // As a panic, without its message on the error output.
            std::panic::resume_unwind(Box::new("the bell is broken"));
        }
        let occurrence = tx.occurrence().ok_or_else(|| tx.reject("it is no occurrence"))?;
        let (intended, count) = (occurrence.intended.0, occurrence.count);
        if self.rejects(intended) {
            return Err(tx.reject("this one is not wanted"));
        }
        tx.get_mut(self.tower).await?.rang.push(Rang { plan: self.plan, intended, count });
        if let Some(echo) = self.echo {
            tx.get_mut(echo).await?.echoes.push((self.plan, intended));
        }
        if self.period.is_some_and(|period| intended + period * count > self.until) {
            tx.cancel(occurrence.id).await?;
        }
        Ok(())
    }
}

/// What follows from a commit.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Follow {
    number: u64,
    more: u8,
    to: Ref<Tower>,
    then: Ref<Tower>,
}

impl Follow {
    async fn run(&self, tx: &SimTx) -> Result<()> {
        tx.get_mut(self.to).await?.followed.push((self.number, self.more));
        if self.more > 0 {
            let next = Self { number: self.number, more: self.more - 1, to: self.then, then: self.to };
            tx.schedule_work(self.to.id(), work(FOLLOW, &next), Plan::FOLLOW_UP).await?;
        }
        Ok(())
    }
}

/// What a commit says outside.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Say {
    number: u64,
    /// How often it is not taken, and when it is said again, us.
    refusals: usize,
    pause_us: u64,
    /// How long the way there and the way back take, us.
    way_us: u64,
}

impl Say {
    async fn deliver(self, host: SimHost, id: ScheduleId) -> std::result::Result<(), Micros> {
        host.sleep(self.way_us).await;
        let taken = host.outside().hear(self.number, id, self.refusals);
        host.sleep(self.way_us).await;
        if taken { Ok(()) } else { Err(Micros(self.pause_us)) }
    }
}

fn work<T: Serialize>(name: &str, task: &T) -> Work {
    let body = codec::encode(task).unwrap_or_default();
    Work { name: name.to_owned(), version: 1, body: Value::from_slice(&body) }
}

fn add<T: DeserializeOwned + Send + Sync + 'static>(
    handlers: &mut Handlers<SimHost>,
    name: &str,
    run: impl Fn(Arc<T>, SimTx) -> TaskFuture + Clone + Send + Sync + 'static,
) {
    let is_new = handlers.add(name, 1, move |body: &Value| {
        let task: Arc<T> = Arc::new(codec::decode(body.bytes()).map_err(|error| error.to_string())?);
        let run = run.clone();
        Ok(Box::new(move |tx: SimTx| run(Arc::clone(&task), tx)))
    });
    debug_assert!(is_new, "names differ");
}

/// Lets a peer run what is due.
pub(super) fn add_handlers(handlers: &mut Handlers<SimHost>) {
    let done = |()| Value::from_slice(&[]);
    add(handlers, RING, move |task: Arc<Ring>, tx| Box::pin(async move { task.run(&tx).await.map(done) }));
    add(handlers, FOLLOW, move |task: Arc<Follow>, tx| Box::pin(async move { task.run(&tx).await.map(done) }));
    let is_new = handlers.add_message(SAY, 1, |body: &Value| {
        let say: Say = codec::decode(body.bytes()).map_err(|error| error.to_string())?;
        Ok(Box::new(move |host, id| Box::pin(say.deliver(host, id))))
    });
    debug_assert!(is_new, "names differ");
}

#[derive(Default)]
struct Book {
    last: u64,
    /// What can be cancelled.
    made: Vec<(ScheduleId, u64, Ref<Tower>)>,
}

/// The towers of a run. Clones share them.
#[derive(Clone)]
pub(crate) struct Towers {
    all: Arc<[Ref<Tower>]>,
    book: Arc<Mutex<Book>>,
}

impl Towers {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            (0..TOWERS).map(|_| maker.tx.create(&Tower::default())).collect::<Result<Vec<_>>>()
        };
        let all = client.make("create towers", make).await?;
        Some(Self { all: all.into(), book: Arc::default() })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        let mut book = self.book();
        book.last += 1;
        book.last
    }

    /// R21: each occurrence took effect once at most, in step, and all that were due have run; and what had to follow did.
    pub(super) fn judge(&self, end: &mut End<'_>) {
        let Some(towers) = end.values(&self.all) else { return };
        let is_whole = !end.lost;
        for (tower, of) in towers.iter().zip(self.all.iter()) {
            for planned in &tower.plans {
                // R26: what panics is kept and listed, wherever it was tried.
                let id = ScheduleId { object: of.id(), number: planned.schedule };
                if planned.breaks && !planned.cancelled && is_whole && !end.panicked.contains(&id) {
                    end.wrong.push(format!("plan {} panics, and is not kept: {planned:?}", planned.plan));
                }
                let rang: Vec<Rang> = tower.rang.iter().filter(|rang| rang.plan == planned.plan).copied().collect();
                if let Err(text) = planned.judge(&rang, is_whole) {
                    end.wrong.push(format!("plan {}: {text}: {planned:?}, {rang:?}", planned.plan));
                }
            }
            let known: BTreeSet<u64> = tower.plans.iter().map(|planned| planned.plan).collect();
            for rang in tower.rang.iter().filter(|rang| !known.contains(&rang.plan)) {
                end.wrong.push(format!("{rang:?} of a plan whose commit is no more"));
            }
        }
        judge_echoes(&towers, end);
        judge_followed(&towers, is_whole, end);
        judge_said(&towers, is_whole, end);
    }
}

impl Planned {
    /// `is_whole` if all that was due must have run by now.
    fn judge(&self, rang: &[Rang], is_whole: bool) -> std::result::Result<(), &'static str> {
        let distinct: BTreeSet<u64> = rang.iter().map(|rang| rang.intended).collect();
        if distinct.len() != rang.len() {
            return Err("an occurrence took effect twice");
        }
        if self.breaks {
            return if rang.is_empty() { Ok(()) } else { Err("what panics took effect") };
        }
        let Some(period) = self.period else {
            let is_right = match rang {
                [] => self.cancelled || !is_whole,
                [rang] => !self.cancelled && rang.intended == self.first && rang.count == 1,
                [_, _, ..] => false,
            };
            return if is_right { Ok(()) } else { Err("it did not run once") };
        };
        if rang.iter().any(|rang| !(rang.intended - self.first).is_multiple_of(period)) {
            return Err("it ran at a time that was not intended");
        }
        let leaves_out = self.skips || self.plan.is_multiple_of(REJECTING);
        let mut next = self.first;
        for rang in rang {
            if rang.intended < next || (rang.intended > next && !leaves_out) {
                return Err("occurrences are missing, or stand for others twice");
            }
            next = rang.intended + rang.count * period;
        }
        if is_whole && !self.cancelled && next <= self.until {
            return Err("not all that was due has run");
        }
        if !rang.is_empty() && next > self.until + period && rang.len() > 1 && !leaves_out {
            let last = rang[rang.len() - 1];
            if last.intended > self.until {
                return Err("it ran on after its end");
            }
        }
        Ok(())
    }
}

/// What a plan does at another tower too is in the same commit.
fn judge_echoes(towers: &[Tower], end: &mut End<'_>) {
    let rang: BTreeSet<(u64, u64)> =
        towers.iter().flat_map(|tower| &tower.rang).map(|rang| (rang.plan, rang.intended)).collect();
    let mut seen = BTreeSet::new();
    for echo in towers.iter().flat_map(|tower| &tower.echoes) {
        if !rang.contains(echo) || !seen.insert(*echo) {
            end.wrong.push(format!("(plan, time) {echo:?} took effect at another tower alone, or twice"));
        }
    }
}

fn judge_followed(towers: &[Tower], is_whole: bool, end: &mut End<'_>) {
    let mut counts: BTreeMap<(u64, u8), usize> = BTreeMap::new();
    towers.iter().flat_map(|tower| &tower.followed).for_each(|did| *counts.entry(*did).or_default() += 1);
    for (number, more) in towers.iter().flat_map(|tower| tower.parents.clone()) {
        let mut before = true;
        for more in (0..=more).rev() {
            let times = counts.remove(&(number, more)).unwrap_or(0);
            if times > 1 || (times == 0 && is_whole) || (times == 1 && !before) {
                end.wrong.push(format!("what follows from {number}, with {more} more, took effect {times} times"));
            }
            before = times == 1;
        }
    }
    for (number, more) in counts.keys() {
        end.wrong.push(format!("something followed from {number}, with {more} more, whose commit is no more"));
    }
}

/// R6: what is said outside is of commits that are kept; and all that these say is taken, each under one id.
fn judge_said(towers: &[Tower], is_whole: bool, end: &mut End<'_>) {
    let said: BTreeSet<u64> = towers.iter().flat_map(|tower| tower.said.iter().copied()).collect();
    let mut ids: BTreeMap<u64, ScheduleId> = BTreeMap::new();
    for heard in end.heard {
        if is_whole && !said.contains(&heard.number) {
            end.wrong.push(format!("{heard:?} was heard of a commit that is no more"));
        }
        if *ids.entry(heard.number).or_insert(heard.id) != heard.id {
            end.wrong.push(format!("{heard:?} was heard under another id before"));
        }
    }
    let taken: BTreeSet<u64> = end.heard.iter().filter(|heard| heard.taken).map(|heard| heard.number).collect();
    for number in said.difference(&taken).filter(|_| is_whole) {
        end.wrong.push(format!("message {number} was never taken outside"));
    }
}

impl Client {
    /// Says something outside, plans something, cancels something, hands something over, or moves towers.
    pub(super) async fn use_schedules(&mut self, towers: &Towers) -> Came {
        if !self.sane {
            return Came::Nothing;
        }
        match self.rng.u8(..10) {
            0..4 => self.plan(towers).await,
            4 => self.cancel_plan(towers).await,
            5 | 6 => self.hand_over(towers).await,
            7 => self.say(towers).await,
            _ => self.touch_towers(towers).await,
        }
    }

    fn some_towers(&mut self, towers: &Towers) -> (Ref<Tower>, Ref<Tower>) {
        let one = self.rng.usize(..TOWERS);
        let other = (one + self.rng.usize(1..TOWERS)) % TOWERS;
        (towers.all[one], towers.all[other])
    }

    async fn plan(&mut self, towers: &Towers) -> Came {
        let plan = towers.number();
        let (tower, other) = self.some_towers(towers);
        let echo = (self.rng.u8(..3) == 0).then_some(other);
        let period = (self.rng.u8(..3) > 0).then(|| 10_000 * self.rng.u64(1..15));
        let (delay, times) = (self.rng.u64(..400_000), self.rng.u64(..12));
        let breaks = period.is_none() && self.rng.u8(..6) == 0;
        let catch_up = match self.rng.u8(..3) {
            0 => CatchUp::Each { max: self.rng.u32(1..6) },
            1 => CatchUp::Once,
            _ => CatchUp::Skip,
        };
        let done = self.run_for("plan", Isolation::Snapshot, move |tx, _| async move {
            let first = tx.snapshot().wall().0 + delay;
            let until = first + period.unwrap_or(0) * times;
            let ring = Ring { plan, tower, echo, period, until, breaks };
            let when =
                Plan { first: First::At(Micros(first)), period: period.map(Micros), catch_up, after_stable: false };
            let id = match tx.schedule_work(tower.id(), work(RING, &ring), when).await {
                Err(Error::Schedule { .. }) => return Err(tx.reject("the tower has enough")),
                id => id?,
            };
            let skips = catch_up == CatchUp::Skip;
            let planned = Planned { plan, first, period, until, skips, schedule: id.number, breaks, cancelled: false };
            tx.get_mut(tower).await?.plans.push(planned);
            Ok(id)
        });
        match done.await {
            Ok((id, _, _)) => {
                towers.book().made.push((id, plan, tower));
                Came::Committed
            }
            Err(came) => came,
        }
    }

    async fn cancel_plan(&mut self, towers: &Towers) -> Came {
        let made = {
            let mut book = towers.book();
            if book.made.is_empty() {
                return Came::Nothing;
            }
            let index = self.rng.usize(..book.made.len());
            book.made.swap_remove(index)
        };
        let (id, plan, tower) = made;
        self.run("cancel", move |tx, _| async move {
            let mut value = tx.get_mut(tower).await?;
            // What has run, has run; what was never made, because its commit was lost, is not there.
            if tx.cancel(id).await? {
                value
                    .plans
                    .iter_mut()
                    .filter(|planned| planned.plan == plan)
                    .for_each(|planned| planned.cancelled = true);
            }
            Ok(())
        })
        .await
    }

    async fn hand_over(&mut self, towers: &Towers) -> Came {
        let number = towers.number();
        let ((tower, to), more) = (self.some_towers(towers), self.rng.u8(..3));
        self.run("hand over", move |tx, _| async move {
            tx.get_mut(tower).await?.parents.push((number, more));
            let follow = Follow { number, more, to, then: tower };
            match tx.schedule_work(tower.id(), work(FOLLOW, &follow), Plan::FOLLOW_UP).await {
                Err(Error::Schedule { .. }) => Err(tx.reject("the tower has enough")),
                id => id.map(|_| ()),
            }
        })
        .await
    }

    async fn say(&mut self, towers: &Towers) -> Came {
        let number = towers.number();
        let (tower, _) = self.some_towers(towers);
        let (refusals, pause_us, way_us) = (self.rng.usize(..3), self.rng.u64(..200_000), self.rng.u64(..30_000));
        self.run("say", move |tx, _| async move {
            tx.get_mut(tower).await?.said.push(number);
            let say = Say { number, refusals, pause_us, way_us };
            match tx.schedule_work(tower.id(), work(SAY, &say), Plan::FOLLOW_UP).await {
                Err(Error::Schedule { .. }) => Err(tx.reject("the tower has enough")),
                id => id.map(|_| ()),
            }
        })
        .await
    }

    async fn touch_towers(&mut self, towers: &Towers) -> Came {
        let (one, other) = self.some_towers(towers);
        self.run("touch towers", move |tx, _| async move {
            for mut tower in tx.get_mut_many(&[one, other]).await? {
                tower.touched += 1;
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;
    use crate::outside::Heard;

    fn planned(plan: u64, period: Option<u64>) -> Planned {
        Planned { plan, first: 100, period, until: 130, skips: false, schedule: plan, breaks: false, cancelled: false }
    }

    fn rang(plan: u64, all: &[(u64, u64)]) -> Vec<Rang> {
        all.iter().map(|(intended, count)| Rang { plan, intended: *intended, count: *count }).collect()
    }

    fn wrong(first: Tower) -> usize {
        let values = [first, Tower::default(), Tower::default(), Tower::default()];
        let towers = Towers { all: (1..=TOWERS as u128).map(numbered).collect(), book: Arc::default() };
        judged(&values, &[], |end| towers.judge(end)).len()
    }

    fn wrong_runs(planned: &Planned, all: &[(u64, u64)]) -> usize {
        wrong(Tower { plans: vec![planned.clone()], rang: rang(planned.plan, all), ..Tower::default() })
    }

    #[test]
    fn each_occurrence_takes_effect_once_and_in_step() {
        let periodic = planned(1, Some(10));
        assert_eq!(wrong_runs(&periodic, &[(100, 1), (110, 2), (130, 1)]), 0);
        assert_eq!(wrong_runs(&periodic, &[(100, 1), (110, 3)]), 0, "the last stands for three");
        assert_eq!(wrong_runs(&periodic, &[(100, 1), (110, 1), (110, 1), (120, 2)]), 1, "twice");
        assert_eq!(wrong_runs(&periodic, &[(100, 1), (120, 2)]), 1, "one is missing");
        assert_eq!(wrong_runs(&periodic, &[(100, 2), (110, 3)]), 1, "one stands for another's");
        assert_eq!(wrong_runs(&periodic, &[(100, 1), (115, 3)]), 1, "not intended");
        assert_eq!(wrong_runs(&periodic, &[(100, 1)]), 1, "not all have run");
        assert_eq!(wrong_runs(&Planned { cancelled: true, ..periodic }, &[(100, 1)]), 0);
        assert_eq!(wrong_runs(&Planned { skips: true, ..periodic }, &[(100, 1), (120, 1), (130, 1)]), 0);
        let once = planned(1, None);
        assert_eq!(wrong_runs(&once, &[(100, 1)]), 0);
        assert_eq!(wrong_runs(&once, &[]), 1, "never");
        let cancelled = Planned { cancelled: true, ..once };
        assert_eq!((wrong_runs(&cancelled, &[]), wrong_runs(&cancelled, &[(100, 1)])), (0, 1));
        let broken = Planned { breaks: true, ..planned(1, None) };
        assert_eq!(wrong_runs(&broken, &[]), 1, "it panics, and is not kept");
        assert_eq!(wrong_runs(&broken, &[(100, 1)]), 2, "nor does it take effect");
        assert_eq!(wrong_runs(&Planned { cancelled: true, ..broken }, &[]), 0);
    }

    #[test]
    fn what_is_said_is_taken_under_one_id_and_is_of_what_was_kept() {
        let id = |number| ScheduleId { object: driftmesh_model::ObjectId::from_u128(1), number };
        let wrong = |said: &[u64], heard: &[Heard]| {
            let towers = [Tower { said: said.to_vec(), ..Tower::default() }];
            let values = BTreeMap::new();
            let panicked = BTreeSet::new();
            let mut end =
                End { values: &values, fates: &[], heard, panicked: &panicked, lost: false, wrong: Vec::new() };
            judge_said(&towers, true, &mut end);
            end.wrong.len()
        };
        let heard = |number, under, taken| Heard { number, id: id(under), taken };
        assert_eq!(wrong(&[7], &[heard(7, 1, false), heard(7, 1, true), heard(7, 1, true)]), 0);
        assert_eq!(wrong(&[7], &[heard(7, 1, false)]), 1, "it was never taken");
        assert_eq!(wrong(&[], &[heard(7, 1, true)]), 1, "of nothing");
        assert_eq!(wrong(&[7], &[heard(7, 1, false), heard(7, 2, true)]), 1, "two ids");
    }

    #[test]
    fn what_follows_follows_once_from_what_was_kept() {
        let followed = |parents: &[(u64, u8)], followed: &[(u64, u8)]| {
            wrong(Tower { parents: parents.to_vec(), followed: followed.to_vec(), ..Tower::default() })
        };
        assert_eq!(followed(&[(7, 1)], &[(7, 1), (7, 0)]), 0);
        assert_eq!(followed(&[(7, 1)], &[(7, 1)]), 1, "the second is missing");
        assert_eq!(followed(&[(7, 0)], &[(7, 0), (7, 0)]), 1, "twice");
        assert_eq!(followed(&[], &[(7, 0)]), 1, "of nothing");
        assert_eq!(wrong(Tower { echoes: vec![(1, 2)], ..Tower::default() }), 1, "an echo alone");
    }
}
