//! W12, tasks: requests to pay that are made several times, at several peers, and take effect once.
//!
//! Callers keep the ids of their requests outside of the peers. What a caller has no certain answer to, because its peer
//! crashed, the answer was lost or it lost patience, it or another one asks for again. Each payment leaves its number in
//! both accounts, and its answer is another each time that it runs: so what took effect twice, or was told in two ways,
//! shows. It refuses to look at how tasks travel.

use super::Maker;
use super::end::{End, Notes};
use crate::client::{Came, Client, SimTx};
use crate::host::SimHost;
use driftmesh_model::{Micros, Object, Ref, TaskId, Value, codec, decode_object};
use driftmesh_object_store::Fate;
use driftmesh_peer::session::{
    Error, Handlers, Result, Submission, TaskDone, TaskError, TaskFuture, new_task_id, run_here, submit,
};
use driftmesh_peer::{TaskRequest, TaskTo};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

const ACCOUNTS: usize = 5;
const BALANCE_AT_FIRST: u64 = 30;
const NAME: &str = "pay by task";

/// Where gold is, and which payments have changed it.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct Account {
    balance: u64,
    gave: Vec<u64>,
    took: Vec<u64>,
}

impl Object for Account {
    const TYPE_NAME: &'static str = "account";
}

/// Whether a value is an account: tasks change it, whose reads and writes are in no history.
pub(crate) fn is_account(value: &Value) -> bool {
    decode_object::<Account>(value).is_ok()
}

/// A payment.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Payment {
    number: u64,
    from: Ref<Account>,
    to: Ref<Account>,
    amount: u64,
}

impl Payment {
    /// Answers with a number that is another in each attempt.
    async fn run(&self, tx: &SimTx) -> Result<u64> {
        let mut from = tx.get_mut(self.from).await?;
        from.balance = from.balance.checked_sub(self.amount).ok_or_else(|| tx.reject("too little gold"))?;
        from.gave.push(self.number);
        let mut to = tx.get_mut(self.to).await?;
        to.balance += self.amount;
        to.took.push(self.number);
        Ok(tx.random())
    }
}

fn handlers() -> Handlers<SimHost> {
    let mut handlers = Handlers::default();
    let is_new = handlers.add(NAME, 1, |body: &Value| {
        let payment: Arc<Payment> = Arc::new(codec::decode(body.bytes()).map_err(|error| error.to_string())?);
        Ok(Box::new(move |tx: SimTx| {
            let payment = Arc::clone(&payment);
            let attempt: TaskFuture = Box::pin(async move {
                let answer = payment.run(&tx).await?;
                Ok(Value::from_slice(&codec::encode(&answer).map_err(Error::rejected)?))
            });
            attempt
        }))
    });
    debug_assert!(is_new, "names differ");
    super::schedules::add_handlers(&mut handlers);
    handlers
}

/// Lets a peer run the payments of others, and what is due of schedules.
pub(crate) fn runs_tasks(host: &SimHost) {
    let handlers = Arc::new(handlers());
    host.run_tasks_by(move |host, run| Some(Box::pin(run_here(host, Arc::clone(&handlers), run))));
}

/// What a caller was told of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// It took effect, with this answer.
    Done { number: u64, answer: u64 },
    /// It did not and never will.
    Rejected { number: u64 },
}

#[derive(Clone, Debug)]
struct Request {
    id: TaskId,
    payment: Payment,
}

#[derive(Default)]
struct Book {
    last: u64,
    /// Those without a certain answer that nobody asks about just now.
    open: Vec<Request>,
    rejected: BTreeSet<u64>,
}

/// The accounts of a run, and what was asked for. Clones share it.
#[derive(Clone)]
pub(crate) struct Accounts {
    all: Arc<[Ref<Account>]>,
    book: Arc<Mutex<Book>>,
    told: Notes<Told>,
}

/// A request that somebody asks about. Whatever ends that, it can be asked about again.
struct Asking {
    request: Option<Request>,
    book: Arc<Mutex<Book>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.book.lock().unwrap_or_else(PoisonError::into_inner).open.push(request);
        }
    }
}

impl Accounts {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let account = Account { balance: BALANCE_AT_FIRST, ..Account::default() };
            (0..ACCOUNTS).map(|_| maker.tx.create(&account)).collect::<Result<Vec<_>>>()
        };
        let all = client.make("create accounts", make).await?;
        Some(Self { all: all.into(), book: Arc::default(), told: Notes::default() })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// R21: each payment took effect once at most, once if that was told and is stable, and was told in one way only.
    pub(super) fn judge(&self, end: &mut End<'_>) {
        let Some(accounts) = end.values(&self.all) else { return };
        let balance: u64 = accounts.iter().map(|account| account.balance).sum();
        if balance != BALANCE_AT_FIRST * ACCOUNTS as u64 {
            end.wrong.push(format!("the accounts have {balance} gold together"));
        }
        let count = |all: fn(&Account) -> &Vec<u64>| {
            let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
            accounts.iter().flat_map(all).for_each(|number| *counts.entry(*number).or_default() += 1);
            counts
        };
        let (gave, took) = (count(|account| &account.gave), count(|account| &account.took));
        if gave != took {
            end.wrong.push(format!("gold was given by payments {gave:?} and taken by payments {took:?}"));
        }
        for (number, times) in took.iter().filter(|(_, times)| **times > 1) {
            end.wrong.push(format!("payment {number} took effect {times} times"));
        }
        let mut answers: BTreeMap<u64, u64> = BTreeMap::new();
        for (fate, told) in self.told.with_fates(end.fates) {
            match told {
                Told::Done { number, answer } if fate == Fate::Stable => {
                    if !took.contains_key(&number) {
                        end.wrong.push(format!("payment {number} is told to be done, which is stable, and is not"));
                    }
                    let first = *answers.entry(number).or_insert(answer);
                    if first != answer {
                        end.wrong.push(format!("payment {number} was told {first} and {answer}, both stable"));
                    }
                }
                Told::Done { .. } => {}
                Told::Rejected { number } => {
                    if took.contains_key(&number) {
                        end.wrong.push(format!("payment {number} was told to be rejected, and took effect"));
                    }
                }
            }
        }
    }
}

impl Client {
    /// Makes a payment, or asks about one that has no certain answer.
    pub(super) async fn use_tasks(&mut self, accounts: &Accounts) -> Came {
        if !self.sane {
            return Came::Nothing;
        }
        let asks_again = self.rng.u8(..5) < 2;
        let former = if asks_again { self.some_open_request(accounts) } else { None };
        let again = former.is_some();
        let request = former.unwrap_or_else(|| self.new_request(accounts));
        self.ask(accounts, request, again).await
    }

    fn some_open_request(&mut self, accounts: &Accounts) -> Option<Request> {
        let mut book = accounts.book();
        if book.open.is_empty() {
            return None;
        }
        let index = self.rng.usize(..book.open.len());
        Some(book.open.swap_remove(index))
    }

    fn new_request(&mut self, accounts: &Accounts) -> Request {
        let from = self.rng.usize(..ACCOUNTS);
        let to = (from + self.rng.usize(1..ACCOUNTS)) % ACCOUNTS;
        let amount = self.rng.u64(1..20);
        let number = {
            let mut book = accounts.book();
            book.last += 1;
            book.last
        };
        let (from, to) = (accounts.all[from], accounts.all[to]);
        let id = new_task_id(&self.host, from.id());
        Request { id, payment: Payment { number, from, to, amount } }
    }

    async fn ask(&mut self, accounts: &Accounts, request: Request, again: bool) -> Came {
        let Request { id, payment } = request.clone();
        let mut asking = Asking { request: Some(request), book: Arc::clone(&accounts.book) };
        let Ok(body) = codec::encode(&payment) else { return Came::Nothing };
        let says = self.rng.bool();
        let touches = if says { vec![payment.from.id(), payment.to.id()] } else { Vec::new() };
        let key = payment.from.id().as_u128() as u64;
        let deadline = Micros(self.rng.u64(20_000..4_000_000));
        let body = Value::from_slice(&body);
        let request =
            TaskRequest { id, name: NAME.to_owned(), version: 1, body, touches, deadline, key, settled: false };
        let to = if self.rng.u8(..3) == 0 { self.some_peer() } else { TaskTo::Anywhere };
        let how = Submission { to, again, stable: self.rng.u8(..4) == 0, free_anchor: false };
        let patience = if self.rng.u8(..4) == 0 { self.rng.u64(100..200_000) } else { u64::MAX >> 1 };
        let log = self.world.recorder.transaction(self.session, NAME);
        let handlers = Arc::new(handlers());
        let clock = Arc::clone(&self.world.clock);
        let mut done = pin!(submit(self.host.clone(), &handlers, request, how));
        let mut given_up = pin!(async move {
            if patience < u64::MAX >> 1 {
                clock.sleep(patience).await;
            } else {
                std::future::pending::<()>().await;
            }
        });
        let done = poll_fn(|context| match done.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => given_up.as_mut().poll(context).map(|()| None),
        });
        match done.await {
            Some(Ok(TaskDone { value, receipt, stable, .. })) => {
                let Ok(answer) = codec::decode(value.bytes()) else {
                    self.world.recorder.violation("the answer of a payment does not decode".to_owned());
                    return Came::Nothing;
                };
                let number = log.committed(vec![receipt], stable);
                accounts.told.note(number, Told::Done { number: payment.number, answer });
                if stable {
                    asking.request = None;
                }
                Came::Committed
            }
            Some(Err(TaskError::Rejected { .. })) => {
                log.aborted();
                if accounts.book().rejected.insert(payment.number) {
                    let number = log.committed(Vec::new(), true);
                    accounts.told.note(number, Told::Rejected { number: payment.number });
                }
                asking.request = None;
                Came::Rejected
            }
            Some(Err(error)) => {
                log.aborted();
                self.explain_task_error(&error);
                Came::Nothing
            }
            None => {
                log.aborted();
                Came::Nothing
            }
        }
    }

    /// Another peer that this one is connected to, or nobody in particular.
    fn some_peer(&mut self) -> TaskTo {
        let members = self.host.members();
        self.rng.choice(members).map_or(TaskTo::Anywhere, TaskTo::Peer)
    }

    fn explain_task_error(&self, error: &TaskError) {
        let is_expected = matches!(
            error,
            TaskError::Unknown { .. }
                | TaskError::Deadline { .. }
                | TaskError::Busy { .. }
                | TaskError::Unreachable(_)
                | TaskError::Leaving
                | TaskError::ClockOff { .. }
                | TaskError::ClockAhead { .. }
                | TaskError::Lost { .. }
                | TaskError::NotStable { .. }
                | TaskError::Forgotten { .. }
        );
        if !is_expected {
            self.world.recorder.violation(format!("a payment ended with an error that nothing explains: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;

    fn account(balance: u64, gave: &[u64], took: &[u64]) -> Account {
        Account { balance, gave: gave.to_vec(), took: took.to_vec() }
    }

    fn wrong(first: Account, second: Account, told: &[(Fate, Told)]) -> Vec<String> {
        let rest = || account(BALANCE_AT_FIRST, &[], &[]);
        let values = [first, second, rest(), rest(), rest()];
        let all = (1..=ACCOUNTS as u128).map(numbered).collect();
        let accounts = Accounts { all, book: Arc::default(), told: Notes::default() };
        told.iter().enumerate().for_each(|(number, (_, told))| accounts.told.note(number, *told));
        let fates: Vec<Fate> = told.iter().map(|(fate, _)| *fate).collect();
        judged(&values, &fates, |end| accounts.judge(end))
    }

    #[test]
    fn a_payment_takes_effect_once_and_is_told_in_one_way() {
        let done = |answer| Told::Done { number: 1, answer };
        let (stable, lost) = (Fate::Stable, Fate::Lost);
        let paid = || (account(20, &[1], &[]), account(40, &[], &[1]));
        let unpaid = || (account(30, &[], &[]), account(30, &[], &[]));
        let wrong = |(first, second), told: &[(Fate, Told)]| wrong(first, second, told).len();
        assert_eq!(wrong(paid(), &[(stable, done(7)), (stable, done(7)), (lost, done(6))]), 0);
        assert_eq!(wrong(unpaid(), &[(lost, done(7)), (stable, Told::Rejected { number: 1 })]), 0);
        assert_eq!(wrong(paid(), &[(stable, done(7)), (stable, done(8))]), 1, "two answers");
        assert_eq!(wrong(unpaid(), &[(stable, done(7))]), 1, "not done");
        assert_eq!(wrong(paid(), &[(stable, Told::Rejected { number: 1 })]), 1, "rejected and done");
        let twice = (account(10, &[1, 1], &[]), account(50, &[], &[1, 1]));
        assert_eq!(wrong(twice, &[]), 1);
        assert_eq!(wrong((account(30, &[], &[]), account(40, &[], &[])), &[]), 1, "gold out of nothing");
    }
}
