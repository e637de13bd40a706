//! `cargo testnet hostile`: the testnet's run, while members that know the secret say what they like, and strangers that do
//! not know it besiege the ports.
//!
//! World, bots, ledger and audit are those of the plain run. It refuses to call a run good in which an honest peer ended,
//! an honest caller waited for more than a second, memory grew, or an attacker was not counted, dropped and refused.

mod attacker;
mod outsiders;
mod report;
mod samples;
mod tally;
mod ways;

use crate::chance;
use crate::exchange::Exchange;
use crate::interrupt::interrupt;
use crate::numbers::grouped;
use crate::options::HostileOptions;
use crate::peers::{Meeting, Peers};
use crate::protocol::{Answer, Order, PeerStatus};
use crate::testnet::{self, Ended};
use crate::{json_file, output, tell};
use anyhow::{Context, Result, bail};
use attacker::Known;
use driftmesh::{GroupId, Mesh, ObjectId};
use report::HostileReport;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tally::{Tally, read};

/// The attackers end so long before the bots do, so that the end of the attack is seen too.
const CALM: Duration = Duration::from_secs(2);
/// How long the attackers may take to end.
const END_LIMIT: Duration = Duration::from_secs(40);
/// How often it is looked how much memory each peer takes.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Honest peers that join while strangers besiege the ports, and how long each may take for it and to leave again.
const NEWCOMERS: u32 = 2;
const JOIN_LIMIT: Duration = Duration::from_secs(20);
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// What besieges a run.
#[derive(Debug)]
pub(crate) struct Siege {
    tally: Arc<Tally>,
    group: GroupId,
    watch: Mutex<Watch>,
    newcomers: Mutex<Vec<Mesh>>,
}

/// What was seen of the honest peers.
#[derive(Debug, Default)]
struct Watch {
    /// Memory of each peer, KiB, second by second.
    memory: Vec<Vec<u64>>,
    /// What each peer said last.
    last: Vec<PeerStatus>,
    /// Peers that ended though nobody ended them.
    crashes: u64,
}

impl Siege {
    fn new() -> Self {
        let group = GroupId::from_u128(chance::rng().u128(1..));
        Self { tally: Arc::default(), group, watch: Mutex::default(), newcomers: Mutex::default() }
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What attackers of this run know.
    pub(crate) fn known(&self, peers: &Peers) -> Known {
        let Meeting { mesh, secret, seed, .. } = &peers.meeting;
        let world: Arc<[ObjectId]> = peers.world.clone().into();
        let (mesh, secret, addresses) = (mesh.clone(), secret.clone(), peers.all_addresses());
        Known { mesh, secret, addresses, world, group: self.group, seed: *seed, domain: Arc::default() }
    }

    /// Besieges the peers for so long, less some calm at the end.
    pub(crate) async fn lay(&self, known: &Known, exchange: &Exchange, run: Duration) -> Result<()> {
        let begun = Instant::now();
        let until = begun + run.saturating_sub(CALM);
        let all = async {
            tokio::try_join!(
                attacker::break_messages(known, &self.tally, until),
                attacker::lie(known, &self.tally, until),
                attacker::flood(known, &self.tally, until),
                outsiders::come(known, &self.tally, until),
                self.let_newcomers_in(known, begun, run),
            )
        };
        tokio::select! {
            done = all => done.context("an attacker")?,
            never = self.look(exchange) => match never {},
            () = tokio::time::sleep(run + END_LIMIT) => bail!("the attackers did not end"),
        };
        Ok(())
    }

    /// Honest peers join while all this goes on. They stay, and leave at the end.
    async fn let_newcomers_in(&self, known: &Known, begun: Instant, run: Duration) -> Result<()> {
        for number in 1..=NEWCOMERS {
            tokio::time::sleep_until((begun + run * number / (NEWCOMERS + 1)).into()).await;
            let builder = Mesh::builder().name(&known.mesh).secret(known.secret.clone()).listen("127.0.0.1:0");
            let builder = known.addresses.iter().fold(builder, |builder, address| builder.join(address));
            let asked = Instant::now();
            let joining = async {
                let mesh = builder.start().await.context("it cannot join")?;
                mesh.wait_for_peers(known.addresses.len()).await;
                Ok::<_, anyhow::Error>(mesh)
            };
            match tokio::time::timeout(JOIN_LIMIT, joining).await {
                Ok(Ok(mesh)) => {
                    self.tally.joined(u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX));
                    self.newcomers.lock().unwrap_or_else(PoisonError::into_inner).push(mesh);
                }
                Ok(Err(error)) => self.tally.fault(format!("an honest newcomer: {error:#}")),
                Err(_) => self.tally.fault(format!("an honest newcomer did not join within {JOIN_LIMIT:?}")),
            }
        }
        Ok(())
    }

    /// Looks at the honest peers for ever.
    async fn look(&self, exchange: &Exchange) -> std::convert::Infallible {
        loop {
            self.note(exchange.statuses());
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }

    fn note(&self, statuses: Vec<PeerStatus>) {
        let mut watch = self.watch();
        watch.memory.push(statuses.iter().map(|status| status.memory_kib).collect());
        watch.last = statuses;
    }

    /// The line below the table.
    pub(crate) fn line(&self) -> String {
        let tally = &self.tally;
        let watch = self.watch();
        let sum = |part: fn(&PeerStatus) -> u64| watch.last.iter().map(part).sum::<u64>();
        format!(
            "attackers: {} messages by {} members, of whom {} did not decode; dropped {} times, refused {} times; {} strangers, \
             {} turned away",
            grouped(tally.all()),
            grouped(read(&tally.identities)),
            grouped(sum(|status| status.undecodable + status.impossible)),
            grouped(sum(|status| status.offenders_dropped)),
            grouped(sum(|status| status.offenders_refused)),
            grouped(tally.strangers()),
            grouped(sum(|status| status.connections_turned_away)),
        )
    }

    /// After the attack: an operator gives up the group that the attackers said they led, and the newcomers leave.
    pub(crate) async fn lift(&self, peers: &mut Peers) -> Result<()> {
        let live = peers.exchange.live();
        let first = live.first().copied().context("no peer is left")?;
        let order = Order::Forget { group: self.group.to_string() };
        peers.all(&[first], &order, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
        let newcomers = std::mem::take(&mut *self.newcomers.lock().unwrap_or_else(PoisonError::into_inner));
        for mesh in newcomers {
            let left = mesh.leave(LEAVE_LIMIT).await;
            if left.lost > 0 {
                self.tally.fault(format!("a newcomer lost {} objects when it left", left.lost));
            }
        }
        Ok(())
    }

    /// How many peers ended though nobody ended them, before all are ended.
    pub(crate) fn ended(&self, crashes: u64, exchange: &Exchange) {
        let mut watch = self.watch();
        watch.crashes = crashes;
        watch.last = exchange.statuses();
    }
}

/// Runs it.
pub(crate) fn run(options: &HostileOptions) -> Result<ExitCode> {
    let run_options = options.run_options();
    run_options.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let siege = Siege::new();
    let ended = runtime.block_on(async { testnet::run(&run_options, None, Some(&siege), interrupt()?).await });
    let report = match ended {
        Ok(Ended::Interrupted(_)) => return crate::tell_ended(ended?, &run_options),
        Ok(Ended::Reported(report)) => HostileReport::new(*report, &siege, options.seconds),
        Err(error) => {
            let report = HostileReport::of_failure(&siege, format!("{error:#}"));
            json_file::write(options.json.as_deref(), &report)?;
            return Err(error);
        }
    };
    json_file::write(options.json.as_deref(), &report)?;
    report.lines().iter().for_each(|line| output::line(line));
    Ok(tell(&report.run))
}
