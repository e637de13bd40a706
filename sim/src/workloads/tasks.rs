//! W12, tasks: requests to pay that are made several times, at several peers, and take effect once.
//!
//! Each payment leaves its number in both accounts. How requests are made and asked for again is in `task_calls.rs`. It
//! refuses to look at how tasks travel.

use super::Maker;
use super::end::End;
use super::task_calls::{Requests, SimTask, counts};
use crate::client::{Came, Client, SimTx};
use driftmesh_model::{Object, ObjectId, Ref, Value, decode_object};
use driftmesh_peer::session::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const ACCOUNTS: usize = 5;
const BALANCE_AT_FIRST: u64 = 30;

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
pub(super) fn is_account(value: &Value) -> bool {
    decode_object::<Account>(value).is_ok()
}

/// A payment.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Payment {
    number: u64,
    from: Ref<Account>,
    to: Ref<Account>,
    amount: u64,
}

impl SimTask for Payment {
    const NAME: &'static str = "pay by task";

    fn number(&self) -> u64 {
        self.number
    }

    fn touches(&self) -> Vec<ObjectId> {
        vec![self.from.id(), self.to.id()]
    }

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

/// The accounts of a run, and what was asked for. Clones share it.
#[derive(Clone)]
pub(crate) struct Accounts {
    all: Arc<[Ref<Account>]>,
    requests: Requests<Payment>,
}

impl Accounts {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let account = Account { balance: BALANCE_AT_FIRST, ..Account::default() };
            (0..ACCOUNTS).map(|_| maker.tx.create(&account)).collect::<Result<Vec<_>>>()
        };
        let all = client.make("create accounts", make).await?;
        Some(Self { all: all.into(), requests: Requests::default() })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        let Some(accounts) = end.values(&self.all) else { return };
        let balance: u64 = accounts.iter().map(|account| account.balance).sum();
        if balance != BALANCE_AT_FIRST * ACCOUNTS as u64 {
            end.wrong.push(format!("the accounts have {balance} gold together"));
        }
        let (gave, took) = (
            counts(accounts.iter().flat_map(|account| &account.gave)),
            counts(accounts.iter().flat_map(|account| &account.took)),
        );
        if gave != took {
            end.wrong.push(format!("gold was given by payments {gave:?} and taken by payments {took:?}"));
        }
        self.requests.judge("payment", &took, end);
    }
}

impl Client {
    /// Makes a payment, or asks about one that has no certain answer.
    pub(super) async fn use_tasks(&mut self, accounts: &Accounts) -> Came {
        let new = |client: &mut Self, requests: &Requests<Payment>| {
            let from = client.rng.usize(..ACCOUNTS);
            let to = (from + client.rng.usize(1..ACCOUNTS)) % ACCOUNTS;
            let amount = client.rng.u64(1..20);
            let (from, to) = (accounts.all[from], accounts.all[to]);
            Payment { number: requests.number(), from, to, amount }
        };
        self.use_requests(&accounts.requests, new).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::super::task_calls::Told;
    use super::*;
    use driftmesh_object_store::Fate;

    fn account(balance: u64, gave: &[u64], took: &[u64]) -> Account {
        Account { balance, gave: gave.to_vec(), took: took.to_vec() }
    }

    fn wrong(first: Account, second: Account, told: &[(Fate, Told)]) -> Vec<String> {
        let rest = || account(BALANCE_AT_FIRST, &[], &[]);
        let values = [first, second, rest(), rest(), rest()];
        let all = (1..=ACCOUNTS as u128).map(numbered).collect();
        let accounts = Accounts { all, requests: Requests::default() };
        told.iter().enumerate().for_each(|(number, (_, told))| accounts.requests.told.note(number, *told));
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
