//! Where the bots' orders go out and the peers' answers come in: the bots, the ledger and all peer processes as seats.
//!
//! Everything here is in the orchestrator, so it outlives any peer. It refuses to start, stop and kill processes; it is
//! told when that happens.

use crate::bots::Bots;
use crate::call_desk::CallDesk;
use crate::latency::Latencies;
use crate::ledger::{Ledger, Named};
use crate::looks::Looks;
use crate::protocol::{Order, PeerStatus, Told};
use crate::rate::Rate;
use crate::records::{Commit, Said, TradeAnswer};
use crate::recovery::Recovered;
use crate::seats::{Life, Outgoing, Row, Seat, Traded};
use crate::way_in::{WayIn, frame_of};
use crate::workloads::Workload;
use crate::workloads::desk::Desk;
use crate::workloads::plan::Made;
use crate::workloads::records::{self, ActAnswer, Said as ActSaid};
use anyhow::{Context, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often each peer is asked for its status.
const STATUS_EVERY: Duration = Duration::from_millis(200);
/// A status that is older says nothing of now.
const STATUS_AGE_MAX: Duration = Duration::from_secs(1);
/// Errors that are told in full.
const ERRORS_TOLD_MAX: usize = 5;

/// The exchange. Shared by the tasks that listen to the processes.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Where calls on lists and registers are noted.
    pub(crate) desk: Arc<CallDesk>,
    inner: Mutex<Inner>,
    trouble: Notify,
}

#[derive(Debug)]
struct Inner {
    seats: Vec<Seat>,
    /// What is sent once the lock is released.
    outgoing: Vec<Outgoing>,
    bots: Bots,
    /// Who acts in the workloads beside trades; nobody where bots trade.
    acts: Desk,
    looks: Looks,
    rate: Rate,
    ledger: Ledger,
    /// Whether bots give orders.
    is_open: bool,
    /// Until when they are to, though their time is over.
    prolonged: Instant,
    /// Bots that found nobody to trade with, or whose turn it is not yet.
    idle: Vec<usize>,
    begun: Instant,
    last_commit: Instant,
    last_row: Instant,
    /// When a peer was last killed, paused, resumed or started.
    last_change: Instant,
    statuses_asked: Instant,
    ticks: usize,
    deadlines: u64,
    errors: Vec<String>,
    error_count: u64,
    until_stable: Latencies,
    /// What happened to peers, for people.
    events: Vec<String>,
    trouble: Option<Trouble>,
}

/// Why a run cannot go on.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// The peer process.
    pub(crate) number: usize,
    /// What it did; `None` when it ended though nobody killed it.
    pub(crate) error: Option<anyhow::Error>,
}

/// What all trades came to.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The commits of all peers.
    pub(crate) traded: Traded,
    /// Trades given up at their deadline.
    pub(crate) deadlines: u64,
    /// The first errors that no trade should meet.
    pub(crate) errors: Vec<String>,
    /// How many there were.
    pub(crate) error_count: u64,
    /// From the answer of watched commits until they were stable.
    pub(crate) until_stable: Latencies,
    /// From the first order to the last commit.
    pub(crate) elapsed: Duration,
    /// What each peer said of itself before the bots began, and last; and how it is.
    pub(crate) peers: Vec<(PeerStatus, PeerStatus, Life)>,
    /// What each kill came to.
    pub(crate) recovered: Vec<Recovered>,
    /// The looks at the whole world of a workload.
    pub(crate) looks: Looks,
}

impl Exchange {
    /// Without peers.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let inner = Inner {
            seats: Vec::new(),
            outgoing: Vec::new(),
            bots: Bots::new(&[], 1.0, 0),
            acts: Desk::new(Workload::default(), Made::default(), 0, 0),
            looks: Looks::default(),
            rate: Rate::default(),
            ledger: Ledger::default(),
            is_open: false,
            prolonged: now,
            idle: Vec::new(),
            begun: now,
            last_commit: now,
            last_row: now,
            last_change: now,
            statuses_asked: now,
            ticks: 0,
            deadlines: 0,
            errors: Vec::new(),
            error_count: 0,
            until_stable: Latencies::default(),
            events: Vec::new(),
            trouble: None,
        };
        Self { desk: Arc::new(CallDesk::new()), inner: Mutex::new(inner), trouble: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in here ends the run anyway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a process that is starting; returns its number.
    pub(crate) fn add_seat(&self, way_in: Arc<WayIn>) -> usize {
        let mut inner = self.lock();
        inner.seats.push(Seat::new(way_in));
        inner.seats.len() - 1
    }

    /// The players give orders at this rate.
    pub(crate) fn keep_to(&self, rate: Rate) {
        self.lock().rate = rate;
    }

    /// Lets the bots begin, in a world of which each peer has so many players.
    pub(crate) fn open(&self, shares: &[usize], locality: f64, seed: u64) -> Result<()> {
        self.work_with(|inner| {
            inner.bots = Bots::new(shares, locality, seed);
            inner.ledger = Ledger::new(shares.iter().sum());
            inner.is_open = true;
            inner.seats.iter_mut().for_each(|seat| seat.life = Life::Live);
            inner.begun = Instant::now();
            (inner.last_commit, inner.last_row, inner.last_change) = (inner.begun, inner.begun, inner.begun);
            inner.wake_idle()
        })
    }

    /// Lets the players of a workload begin; the ledger has so many accounts.
    pub(crate) fn open_acts(&self, acts: Desk, accounts: usize) -> Result<()> {
        self.work_with(|inner| {
            inner.acts = acts;
            inner.ledger = Ledger::new(accounts);
            inner.is_open = true;
            inner.seats.iter_mut().for_each(Seat::begin_acts);
            inner.begun = Instant::now();
            (inner.last_commit, inner.last_row, inner.last_change) = (inner.begun, inner.begun, inner.begun);
            inner.wake_idle()
        })
    }

    /// The bots are to give orders until then at least.
    pub(crate) fn prolong(&self, until: Instant) {
        let mut inner = self.lock();
        inner.prolonged = inner.prolonged.max(until);
    }

    /// Whether the bots are to go on, though their time is over.
    pub(crate) fn is_prolonged(&self) -> bool {
        self.lock().prolonged > Instant::now()
    }

    /// Lets no bot give another order.
    pub(crate) fn close(&self) {
        self.lock().is_open = false;
    }

    /// Takes the answers to trades that a peer has sent.
    pub(crate) fn take_answers(&self, number: usize, records: &[u8]) {
        self.or_trouble(number, |inner| {
            let mut free = Vec::new();
            for answer in TradeAnswer::read_all(records)? {
                if let Some(bot) = inner.take_answer(number, &answer)? {
                    free.push(bot);
                }
            }
            inner.give_orders(free)
        });
    }

    /// Takes the error of a trade.
    pub(crate) fn take_error(&self, number: usize, id: u64, bot: u32, error: String, aborted: bool) {
        self.or_trouble(number, |inner| {
            let (bot, trade) = inner.answered(number, id, bot)?;
            inner.error_count += 1;
            if inner.errors.len() < ERRORS_TOLD_MAX {
                inner.errors.push(error);
            }
            if aborted {
                inner.ledger.aborted(trade)
            } else {
                inner.ledger.unanswered(trade)
            }
            inner.give_orders(vec![bot])
        });
    }

    /// Takes the answers to acts that a peer has sent.
    pub(crate) fn take_acts(&self, number: usize, body: &[u8]) {
        self.or_trouble(number, |inner| {
            let mut free = Vec::new();
            for answer in records::decode::<ActAnswer>(body)? {
                free.extend(inner.take_act(number, answer)?);
            }
            inner.give_acts(free)
        });
    }

    /// Takes what a look at the whole world saw, or why it did not see everything.
    pub(crate) fn take_look(&self, number: usize, seen: Result<Vec<String>, String>) {
        self.lock().looks.take(number, seen);
    }

    /// Takes what came of a call on lists or registers.
    pub(crate) fn take_call(&self, number: usize, id: u64, told: Told) {
        self.or_trouble(number, |_| self.desk.take(number, id, told));
    }

    /// How a peer is reached.
    pub(crate) fn way_in(&self, number: usize) -> Arc<WayIn> {
        self.lock().seats[number].way_in()
    }

    /// How many processes were ever started.
    pub(crate) fn seats(&self) -> usize {
        self.lock().seats.len()
    }

    /// Takes a peer's status.
    pub(crate) fn take_status(&self, number: usize, status: PeerStatus) {
        self.lock().seats[number].take_status(status);
    }

    /// The output of a process has ended, or makes no sense, as the error says: all that it ever answered was taken.
    pub(crate) fn gone(&self, number: usize, error: Option<anyhow::Error>) {
        self.desk.gone(number);
        self.or_trouble(number, |inner| {
            if inner.seats[number].life != Life::Dead {
                inner.trouble = Some(Trouble { number, error });
                return Ok(());
            }
            inner.desert(number);
            for trade in inner.bots.buried(number) {
                inner.ledger.unanswered(trade);
            }
            inner.looks.gone(number);
            inner.wake_idle()
        });
        self.trouble.notify_one();
    }

    /// A process is being killed. Its bots do not know yet.
    pub(crate) fn killed(&self, number: usize) -> Instant {
        let mut inner = self.lock();
        let now = inner.changed(number, Life::Dead);
        let (recovery, places) = inner.bots.recovery();
        recovery.killed(number, places.owned(number), now);
        now
    }

    /// Whether bots go on to try players whom they tried right after a kill, of whom most are to be served again.
    pub(crate) fn awaits_players(&self) -> bool {
        let mut inner = self.lock();
        inner.is_open && !inner.bots.recovery().0.is_over()
    }

    /// A process is being killed that its bots have deserted: nobody is out of reach because of that.
    pub(crate) fn ended(&self, number: usize) {
        self.lock().changed(number, Life::Dead);
    }

    /// A process is being paused. Its bots do not know yet.
    pub(crate) fn paused(&self, number: usize) -> Instant {
        self.lock().changed(number, Life::Paused)
    }

    /// The network has changed: what peers said before says nothing of now.
    pub(crate) fn disturbed(&self) {
        self.lock().last_change = Instant::now();
    }

    /// The bots of a paused peer lose patience and go elsewhere.
    pub(crate) fn deserted(&self, number: usize) {
        self.or_trouble(number, |inner| {
            inner.desert(number);
            inner.wake_idle()
        });
    }

    /// A peer takes trades: it is new, or goes on after a pause.
    pub(crate) fn welcome(&self, number: usize) {
        self.or_trouble(number, |inner| {
            inner.changed(number, Life::Live);
            let live = inner.live();
            inner.bots.welcome(number, &live);
            inner.acts.welcome(number, &live);
            inner.wake_idle()
        });
    }

    /// To be called every few milliseconds: asks for statuses, and lets bots that found nobody look again.
    pub(crate) fn tick(&self) -> Result<()> {
        self.work_with(|inner| {
            if inner.statuses_asked.elapsed() >= STATUS_EVERY {
                inner.statuses_asked = Instant::now();
                inner.ask_statuses(inner.statuses_asked)?;
            }
            let idle = std::mem::take(&mut inner.idle);
            inner.give_orders(idle)?;
            inner.look()?;
            // Each time another client comes first: where a rate is kept to, the last ones get nothing.
            inner.ticks += 1;
            let clients = inner.acts.len();
            let first = inner.ticks % clients.max(1);
            inner.give_acts((first..clients).chain(0..first).collect())
        })
    }

    /// Waits until the run cannot go on. Cancel safe.
    pub(crate) async fn trouble(&self) -> Trouble {
        loop {
            if let Some(trouble) = self.lock().trouble.take() {
                return trouble;
            }
            self.trouble.notified().await;
        }
    }

    /// The peers that take trades.
    pub(crate) fn live(&self) -> Vec<usize> {
        self.lock().live()
    }

    /// The live peer with the most commits in the running second.
    pub(crate) fn busiest(&self) -> Option<usize> {
        let inner = self.lock();
        inner.live().into_iter().max_by_key(|number| inner.seats[*number].commits_this_second())
    }

    /// Whether every group has all its members, as the peers said since the last change: all of them live, see each
    /// other and nobody else.
    pub(crate) fn is_whole(&self) -> bool {
        self.not_whole().is_empty()
    }

    /// What keeps the groups from being whole: which peers, and why.
    pub(crate) fn not_whole(&self) -> Vec<(usize, String)> {
        let inner = self.lock();
        let others = (inner.live().len() as u64).saturating_sub(1);
        let since = inner.last_change.max(Instant::now().checked_sub(STATUS_AGE_MAX).unwrap_or(inner.last_change));
        let why = |seat: &Seat| match (seat.life, seat.status_since(since)) {
            (Life::Dead, _) => None,
            (Life::Starting | Life::Paused, _) => Some("takes no trades".to_owned()),
            (Life::Live, None) => Some("has not told how it stands".to_owned()),
            (Life::Live, Some(status)) if status.connected != others => {
                Some("does not see just the live peers".to_owned())
            }
            (Life::Live, Some(status)) => status.not_whole.as_ref().map(|why| format!("says: {why}")),
        };
        inner.seats.iter().enumerate().filter_map(|(number, seat)| Some((number, why(seat)?))).collect()
    }

    /// Whether every live peer has told its status since then; asks those who have not.
    pub(crate) fn have_told_since(&self, since: Instant) -> Result<bool> {
        self.work_with(|inner| {
            inner.ask_statuses(since)?;
            Ok(inner.outgoing.is_empty())
        })
    }

    /// What each peer said last of itself; of one that has said nothing yet, nothing but zeros.
    pub(crate) fn statuses(&self) -> Vec<PeerStatus> {
        self.lock().seats.iter().map(|seat| seat.first_and_last().1).collect()
    }

    /// How many orders are under way at live peers, and acts that have no certain answer yet.
    pub(crate) fn under_way(&self) -> usize {
        let inner = self.lock();
        inner.acts.under_way() + inner.live().into_iter().map(|number| inner.bots.under_way(number)).sum::<usize>()
    }

    /// Nobody asks any more for acts that have no certain answer: what became of them is not known.
    pub(crate) fn give_up_acts(&self) {
        let mut inner = self.lock();
        for act in inner.acts.give_up() {
            inner.ledger.unanswered(act);
        }
    }

    /// What each peer did since the last call.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut inner = self.lock();
        let elapsed = std::mem::replace(&mut inner.last_row, Instant::now()).elapsed();
        inner.seats.iter_mut().map(|seat| seat.row(elapsed)).collect()
    }

    /// Notes what happened to a peer, for people.
    pub(crate) fn tell(&self, event: String) {
        let mut inner = self.lock();
        let event = format!("{:.1} s: {event}", inner.begun.elapsed().as_secs_f64());
        inner.events.push(event);
    }

    /// Takes what was noted for people.
    pub(crate) fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().events)
    }

    /// Lends the ledger.
    pub(crate) fn ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.lock().ledger)
    }

    /// When the bots began.
    pub(crate) fn begun(&self) -> Instant {
        self.lock().begun
    }

    /// What all trades came to.
    pub(crate) fn work(&self) -> Work {
        let mut inner = self.lock();
        let mut work = Work {
            deadlines: inner.deadlines,
            errors: inner.errors.clone(),
            error_count: inner.error_count,
            until_stable: inner.until_stable.clone(),
            elapsed: inner.last_commit - inner.begun,
            recovered: inner.bots.recovery().0.results(),
            looks: inner.looks.clone(),
            ..Work::default()
        };
        for seat in &inner.seats {
            work.traded.add(&seat.all());
            let (first, last) = seat.first_and_last();
            work.peers.push((first, last, seat.life));
        }
        work
    }

    /// Does some work, and sends what it wants sent: without the lock, so that the others need not wait for that.
    fn work_with<T>(&self, work: impl FnOnce(&mut Inner) -> Result<T>) -> Result<T> {
        let mut inner = self.lock();
        let done = work(&mut inner);
        let outgoing = std::mem::take(&mut inner.outgoing);
        drop(inner);
        outgoing.iter().for_each(|(way_in, frame)| way_in.send(frame));
        done
    }

    /// Does some work; an error of it ends the run.
    fn or_trouble(&self, number: usize, work: impl FnOnce(&mut Inner) -> Result<()>) {
        if let Err(error) = self.work_with(work) {
            self.lock().trouble = Some(Trouble { number, error: Some(error) });
            self.trouble.notify_one();
        }
    }
}

impl Inner {
    fn live(&self) -> Vec<usize> {
        let seats = self.seats.iter().enumerate();
        seats.filter(|(_, seat)| seat.life == Life::Live).map(|(number, _)| number).collect()
    }

    fn changed(&mut self, number: usize, life: Life) -> Instant {
        self.seats[number].life = life;
        self.last_change = Instant::now();
        self.last_change
    }

    fn desert(&mut self, number: usize) {
        let live = self.live();
        self.bots.desert(number, &live);
        self.acts.desert(number, &live, Instant::now());
    }

    /// Takes the answer to one act; returns the client that it frees.
    fn take_act(&mut self, number: usize, answer: ActAnswer) -> Result<Option<usize>> {
        let client = usize::try_from(answer.client)?;
        let Some(order) = self.acts.answered(client, answer.id, number) else {
            if !self.acts.knows(answer.id) {
                anyhow::bail!("an answer to act {}, which was never ordered", answer.id);
            }
            // It was asked for elsewhere meanwhile, and what is said there counts.
            return Ok(None);
        };
        let now = Instant::now();
        match answer.said {
            // An earlier copy's commit may still be undone: whoever asks again is told what is stable.
            ActSaid::Done { stable: false, earlier: true, .. } | ActSaid::Unknown => self.acts.ask_again(order, now),
            ActSaid::Done { receipt, stable, earlier, deed } => {
                let effect = self.acts.effect(&order, &deed);
                let (gold, sold, nanos) = (effect.gold, effect.sold, answer.nanos);
                let commit = Commit { receipt, nanos, gold, sold, awaited_message: false, stable };
                let at = u32::try_from((now - self.begun).as_micros() / 100).unwrap_or(u32::MAX);
                self.last_commit = now;
                if earlier {
                    self.ledger.certain(effect.trade, &commit, at);
                } else {
                    self.ledger.committed(number, effect.trade, &commit, at);
                }
                self.seats[number].count(&commit);
            }
            ActSaid::Rejected { .. } => {
                let named = self.acts.named(&order);
                self.ledger.aborted(named);
            }
            ActSaid::Failed { error } => {
                self.error_count += 1;
                if self.errors.len() < ERRORS_TOLD_MAX {
                    self.errors.push(error);
                }
                let named = self.acts.named(&order);
                self.ledger.unanswered(named);
            }
        }
        Ok(Some(client))
    }

    /// Lets clients that are free give their next acts.
    fn give_acts(&mut self, clients: Vec<usize>) -> Result<()> {
        let now = Instant::now();
        for client in clients {
            let is_open = self.is_open && self.acts.is_free(client) && self.rate.take(now);
            if let Some((peer, order)) = self.acts.order(client, is_open, now) {
                self.seats[peer].add_act(order);
            }
        }
        for seat in &mut self.seats {
            self.outgoing.extend(seat.act_frame()?);
        }
        Ok(())
    }

    /// Has the whole world of a workload looked at by a live peer, now and then.
    fn look(&mut self) -> Result<()> {
        let live = if self.acts.len() > 0 && self.is_open { self.live() } else { Vec::new() };
        if let Some(peer) = self.looks.next(&live, Instant::now()) {
            self.outgoing.push((self.seats[peer].way_in(), frame_of(&Order::Look)?));
        }
        Ok(())
    }

    /// Takes one answer; returns the bot that it frees.
    fn take_answer(&mut self, number: usize, answer: &TradeAnswer) -> Result<Option<usize>> {
        if let Said::Stable { after_nanos } = &answer.said {
            self.until_stable.record(Duration::from_nanos(*after_nanos));
            return Ok(None);
        }
        let (bot, trade) = self.answered(number, answer.id, answer.bot)?;
        match &answer.said {
            Said::Committed(commit) => {
                let now = Instant::now();
                self.last_commit = now;
                let at = (now - self.begun).as_micros() / 100;
                self.ledger.committed(number, trade, commit, u32::try_from(at).unwrap_or(u32::MAX));
                self.bots.committed(trade, number, now);
                self.seats[number].count(commit);
            }
            Said::Nothing => self.bots.reached(trade, number),
            Said::Deadline => {
                self.deadlines += 1;
                self.ledger.aborted(trade);
                self.bots.failed(bot, trade);
            }
            Said::Stable { .. } => {}
        }
        Ok(Some(bot))
    }

    fn answered(&mut self, number: usize, id: u64, bot: u32) -> Result<(usize, Named)> {
        let bot = usize::try_from(bot)?;
        let trade = self.bots.answered(bot, id, number);
        Ok((bot, trade.with_context(|| format!("an answer to trade {id}, which was not under way"))?))
    }

    /// Lets bots that are free give their next orders.
    fn give_orders(&mut self, bots: Vec<usize>) -> Result<()> {
        let now = Instant::now();
        for bot in bots {
            if !self.is_open || !self.bots.is_free(bot) {
                continue;
            }
            match self.rate.take(now).then(|| self.bots.order(bot)).flatten() {
                Some((peer, order)) => self.seats[peer].add(&order),
                None => self.idle.push(bot),
            }
        }
        for seat in &mut self.seats {
            self.outgoing.extend(seat.frame()?);
        }
        Ok(())
    }

    fn wake_idle(&mut self) -> Result<()> {
        self.idle.clear();
        self.give_orders((0..self.bots.len()).collect())?;
        self.give_acts((0..self.acts.len()).collect())
    }

    /// Asks the live peers that have not told their status since then.
    fn ask_statuses(&mut self, since: Instant) -> Result<()> {
        for seat in &self.seats {
            if seat.life == Life::Live && seat.status_since(since).is_none() {
                self.outgoing.push(seat.status_order()?);
            }
        }
        Ok(())
    }
}
