//! What the benchmark compares with: encoded accounts in a plain map behind a mutex. At most 40 lines.

use super::local::Account;
use driftmesh_model::codec::{decode, encode};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub(crate) struct Baseline(Mutex<HashMap<u64, Vec<u8>>>);

impl Baseline {
    pub(crate) fn new(accounts: u64) -> anyhow::Result<Self> {
        let encoded = (0..accounts).map(|number| Ok((number, encode(&Account::new(number))?)));
        Ok(Self(Mutex::new(encoded.collect::<anyhow::Result<_>>()?)))
    }

    pub(crate) fn transfer(&self, from: u64, to: u64) -> anyhow::Result<()> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut payer: Account = decode(&map[&from])?;
        let mut payee: Account = decode(&map[&to])?;
        payer.pay(&mut payee);
        map.insert(from, encode(&payer)?);
        map.insert(to, encode(&payee)?);
        Ok(())
    }

    pub(crate) fn sum(&self) -> anyhow::Result<i64> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.values().map(|bytes| Ok(decode::<Account>(bytes)?.balance)).sum()
    }
}
