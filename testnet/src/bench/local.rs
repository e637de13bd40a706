//! `cargo testnet bench local`: transfers inside one peer beside the same transfers in a plain map.
//!
//! Both decode two accounts from bytes and encode them again. Rounds of both alternate, and figures are medians. It
//! refuses to report anything when money was made or lost.

use super::baseline::Baseline;
use super::cpu_time;
use super::zipf::Choice;
use crate::latency::Latencies;
use crate::{numbers, output};
use anyhow::{Context, Result, bail};
use driftmesh::{Mesh, Object, Ref};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Accounts on each side.
const ACCOUNTS: usize = 100_000;
/// Balance of each at first.
const BALANCE_AT_FIRST: i64 = 1_000;
/// The exponent of Zipf's law.
const ZIPF_EXPONENT: f64 = 1.5;
/// Rounds of each side, for each way to choose accounts.
const ROUNDS: usize = 5;
/// How long a round is.
const ROUND: Duration = Duration::from_secs(1);
/// Transfers between two looks at the clock.
const BATCH: usize = 64;
/// Pairs of accounts drawn in advance, so that drawing is not measured.
const PAIRS: usize = 1 << 18;
/// Accounts in one creating transaction.
const CREATED_AT_ONCE: usize = 500;

/// An account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Whose it is.
    owner: String,
    /// What is on it; may be overdrawn.
    pub(crate) balance: i64,
    /// Transfers it took part in.
    transfers: u64,
}

impl Object for Account {
    const TYPE_NAME: &'static str = "account";
}

impl Account {
    /// The account with this number.
    pub(crate) fn new(number: u64) -> Self {
        Self { owner: format!("owner {number}"), balance: BALANCE_AT_FIRST, transfers: 0 }
    }

    /// Pays one to another.
    pub(crate) fn pay(&mut self, payee: &mut Self) {
        self.balance -= 1;
        payee.balance += 1;
        self.transfers += 1;
        payee.transfers += 1;
    }
}

/// The figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Figures {
    /// Our transfers per second of CPU, divided by those of the plain map, for uniform choices.
    pub(crate) ratio_uniform: f64,
    /// The same for Zipf's law.
    pub(crate) ratio_zipf: f64,
    /// Our transfers per second of CPU, for uniform choices.
    pub(crate) tps_per_core_uniform: f64,
    /// The same for Zipf's law.
    pub(crate) tps_per_core_zipf: f64,
    /// The plain map's, for uniform choices.
    pub(crate) baseline_tps_per_core_uniform: f64,
    /// The same for Zipf's law.
    pub(crate) baseline_tps_per_core_zipf: f64,
    /// Our latency for uniform choices: the median, microseconds.
    pub(crate) p50_us: f64,
    /// Of 100, the slowest but one.
    pub(crate) p99_us: f64,
    /// Of 1,000, the slowest but one.
    pub(crate) p999_us: f64,
    /// The longest time that the peer's timers held its core, microseconds.
    pub(crate) longest_core_hold_us: u64,
}

/// One side's transfers per second of CPU.
struct Medians {
    ours: f64,
    baseline: f64,
}

/// Both sides, ready to be measured.
struct Sides {
    mesh: Mesh,
    accounts: Vec<Ref<Account>>,
    baseline: Baseline,
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    // The transactions run on this thread, in a closed loop; the peer's own tasks on another.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let figures = runtime.block_on(measure())?;
    tell(&figures);
    Ok(figures)
}

async fn measure() -> Result<Figures> {
    let sides = Sides::new().await?;
    let mut latencies = Latencies::default();
    let mut rng = Rng::with_seed(1);
    let uniform = Choice::uniform(ACCOUNTS).pairs(PAIRS, &mut rng);
    let uniform = sides.rounds(&uniform, Some(&mut latencies)).await?;
    let zipf = Choice::zipf(ACCOUNTS, ZIPF_EXPONENT).pairs(PAIRS, &mut rng);
    let zipf = sides.rounds(&zipf, None).await?;
    sides.check_sums().await?;
    Ok(Figures {
        ratio_uniform: numbers::thousandths(uniform.ours / uniform.baseline),
        ratio_zipf: numbers::thousandths(zipf.ours / zipf.baseline),
        tps_per_core_uniform: uniform.ours.round(),
        tps_per_core_zipf: zipf.ours.round(),
        baseline_tps_per_core_uniform: uniform.baseline.round(),
        baseline_tps_per_core_zipf: zipf.baseline.round(),
        p50_us: latencies.at_quantile_us(0.5),
        p99_us: latencies.at_quantile_us(0.99),
        p999_us: latencies.at_quantile_us(0.999),
        longest_core_hold_us: sides.mesh.status().longest_core_hold_us,
    })
}

impl Sides {
    async fn new() -> Result<Self> {
        let mesh = Mesh::builder().start().await.context("cannot start a peer")?;
        let mut accounts = Vec::with_capacity(ACCOUNTS);
        while accounts.len() < ACCOUNTS {
            let numbers = accounts.len()..ACCOUNTS.min(accounts.len() + CREATED_AT_ONCE);
            let created = mesh.transact(|tx| {
                let numbers = numbers.clone();
                async move {
                    numbers.map(|number| tx.create(&Account::new(number as u64))).collect::<driftmesh::Result<Vec<_>>>()
                }
            });
            accounts.append(&mut created.await.context("cannot create accounts")?);
        }
        Ok(Self { mesh, accounts, baseline: Baseline::new(ACCOUNTS as u64)? })
    }

    /// Alternates rounds of both sides.
    async fn rounds(&self, pairs: &[(usize, usize)], mut latencies: Option<&mut Latencies>) -> Result<Medians> {
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(self.our_round(pairs, latencies.as_deref_mut()).await?);
            baseline.push(self.baseline_round(pairs)?);
        }
        Ok(Medians { ours: numbers::median(&mut ours), baseline: numbers::median(&mut baseline) })
    }

    /// One round of ours, on the CPU time of the whole process: what the peer does beside counts as ours.
    async fn our_round(&self, pairs: &[(usize, usize)], mut latencies: Option<&mut Latencies>) -> Result<f64> {
        let (begun, cpu_before) = (Instant::now(), cpu_time::of_process());
        let mut transfers = 0;
        for batch in pairs.chunks(BATCH).cycle() {
            for (from, to) in batch {
                let (from, to) = (self.accounts[*from], self.accounts[*to]);
                let called = Instant::now();
                let done = self.mesh.transact(|tx| async move {
                    let mut payer = tx.get_mut(from).await?;
                    let mut payee = tx.get_mut(to).await?;
                    payer.pay(&mut payee);
                    Ok(())
                });
                done.await.context("a transfer failed")?;
                if let Some(latencies) = &mut latencies {
                    latencies.record(called.elapsed());
                }
            }
            transfers += batch.len() as u64;
            if begun.elapsed() >= ROUND {
                break;
            }
        }
        Ok(numbers::float(transfers) / (cpu_time::of_process() - cpu_before).as_secs_f64())
    }

    fn baseline_round(&self, pairs: &[(usize, usize)]) -> Result<f64> {
        let (begun, cpu_before) = (Instant::now(), cpu_time::of_thread());
        let mut transfers = 0;
        for batch in pairs.chunks(BATCH).cycle() {
            for (from, to) in batch {
                self.baseline.transfer(*from as u64, *to as u64)?;
            }
            transfers += batch.len() as u64;
            if begun.elapsed() >= ROUND {
                break;
            }
        }
        Ok(numbers::float(transfers) / (cpu_time::of_thread() - cpu_before).as_secs_f64())
    }

    async fn check_sums(&self) -> Result<()> {
        let expected = BALANCE_AT_FIRST * ACCOUNTS as i64;
        let accounts = &self.accounts;
        let found: i64 = self
            .mesh
            .transact(|tx| async move { Ok(tx.get_many(accounts).await?.iter().map(|account| account.balance).sum()) })
            .await
            .context("cannot read the accounts")?;
        if found != expected {
            bail!("{found} is on all accounts together, it should be {expected}");
        }
        let found = self.baseline.sum()?;
        if found != expected {
            bail!("{found} is on all accounts of the plain map together, it should be {expected}");
        }
        Ok(())
    }
}

fn tell(figures: &Figures) {
    output::line(&format!("{:>8}  {:>14}  {:>14}  {:>5}", "choice", "driftmesh tps", "plain map tps", "ratio"));
    let row = |name: &str, ours: f64, baseline: f64, ratio: f64| {
        let (ours, baseline) = (numbers::rounded(ours), numbers::rounded(baseline));
        output::line(&format!("{name:>8}  {ours:>14}  {baseline:>14}  {ratio:>5.3}"));
    };
    let uniform = figures.baseline_tps_per_core_uniform;
    row("uniform", figures.tps_per_core_uniform, uniform, figures.ratio_uniform);
    row("zipf 1.5", figures.tps_per_core_zipf, figures.baseline_tps_per_core_zipf, figures.ratio_zipf);
    let Figures { p50_us, p99_us, p999_us, longest_core_hold_us: hold, .. } = figures;
    output::line(&format!("latency, uniform: p50 {p50_us} us, p99 {p99_us} us, p99.9 {p999_us} us"));
    output::line(&format!("timers held the core for {hold} us at most"));
    output::line("tps: transfers per second of CPU time, medians of 5 rounds; all sums are right");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_pay_the_same() {
        let baseline = Baseline::new(3).unwrap();
        baseline.transfer(0, 2).unwrap();
        assert_eq!(baseline.sum().unwrap(), 3 * BALANCE_AT_FIRST);
    }
}
