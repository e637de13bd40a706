//! The main job: starts peer processes, creates a world in them, lets bots trade, and has the world audited.
//!
//! It refuses to keep a peer process beyond its own end, and to see game objects itself: the auditing peer does.

use crate::audit::Findings;
use crate::auditor::Auditor;
use crate::children::Child;
use crate::interrupt::Interrupt;
use crate::live_table;
use crate::numbers::grouped;
use crate::options::RunOptions;
use crate::output::{self, Redrawn};
use crate::protocol::{Answer, Finished, Order, Settled};
use crate::report::Report;
use crate::world::{Totals, share};
use anyhow::{Context, Result, bail};
use fastrand::Rng;
use std::time::Duration;

/// How long a peer may take for an order that is not work.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// How long after its second a peer may tell of it: transactions that run out of time are part of the work.
const WORK_LIMIT: Duration = Duration::from_secs(30);
/// Audits that are repeated because objects moved meanwhile.
const AUDITS_MAX: u32 = 10;

/// What all peers of a run share.
struct Meeting {
    mesh: String,
    secret: String,
    seed: u64,
}

/// The peer processes, and who they are in the mesh.
#[derive(Default)]
struct Peers {
    children: Vec<Child>,
    names: Vec<String>,
    addresses: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With a report, which says whether the run counts.
    Reported(Box<Report>),
    /// By a signal.
    Interrupted(Interrupt),
}

/// Runs the testnet until it is done or interrupted. No peer process is left when this returns, whatever happens.
pub(crate) async fn run(options: &RunOptions, interrupt: impl Future<Output = Interrupt>) -> Result<Ended> {
    let mut peers = Peers::default();
    let ended = tokio::select! {
        report = peers.run(options) => report.map(|report| Ended::Reported(Box::new(report))),
        interrupt = interrupt => Ok(Ended::Interrupted(interrupt)),
    };
    let is_good = match &ended {
        Ok(Ended::Reported(report)) => report.invalid.is_empty(),
        Ok(Ended::Interrupted(_)) => true,
        Err(_) => false,
    };
    if !is_good {
        for child in &peers.children {
            child.error_lines().iter().for_each(|line| output::error_line(line));
        }
    }
    for child in &mut peers.children {
        child.hang_up();
    }
    for child in &mut peers.children {
        child.end().await;
    }
    ended
}

impl Peers {
    async fn run(&mut self, options: &RunOptions) -> Result<Report> {
        let mut chance = Rng::new();
        let meeting = Meeting {
            mesh: format!("testnet-{:016x}", chance.u64(..)),
            secret: format!("{:032x}", chance.u128(..)),
            seed: options.seed.unwrap_or_else(|| chance.u64(..u64::from(u32::MAX))),
        };
        self.start(options, &meeting).await?;
        self.create_world(options).await?;
        let work = self.work(options, meeting.seed).await?;
        let audit = self.audit(options, &meeting).await?;
        Report::new(options, meeting.seed, &self.names, &work, &audit)
    }

    async fn start(&mut self, options: &RunOptions, meeting: &Meeting) -> Result<()> {
        let count = usize::try_from(options.peers).context("too many peers")?;
        for number in 0..count {
            self.children.push(Child::start(number)?);
        }
        let (mesh, secret) = (meeting.mesh.clone(), meeting.secret.clone());
        let mut start = Order::Start { mesh, secret, join: None };
        for number in 0..count {
            let child = &mut self.children[number];
            child.order(&start).await?;
            let started = child.take(ORDER_LIMIT, |answer| {
                if let Answer::Started { peer, address } = answer {
                    Some((peer.clone(), address.clone()))
                } else {
                    None
                }
            });
            let (peer, address) = started.await?;
            self.names.push(peer);
            self.addresses.push(address.clone());
            if let Order::Start { join, .. } = &mut start {
                join.get_or_insert(address);
            }
        }
        let orders = vec![Order::WaitForPeers { others: count - 1 }; count];
        self.all(&orders, |answer| matches!(answer, Answer::SeesAll).then_some(())).await?;
        output::line(&format!("{count} peers see each other; seed {}", meeting.seed));
        Ok(())
    }

    async fn create_world(&mut self, options: &RunOptions) -> Result<()> {
        let orders: Vec<Order> = (0..options.peers)
            .map(|number| Order::Create { number, players: share(options.players, options.peers, number) })
            .collect();
        let created = |answer: &Answer| {
            if let Answer::Created { players } = answer { Some(players.clone()) } else { None }
        };
        let shares = self.all(&orders, created).await?;
        let orders: Vec<Order> =
            (0..self.children.len()).map(|own| Order::World { shares: shares.clone(), own }).collect();
        self.all(&orders, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
        let totals = Totals::of_players(options.players);
        output::line(&format!(
            "world: {} players, {} items, {} gold",
            grouped(totals.players),
            grouped(totals.items),
            grouped(totals.gold)
        ));
        Ok(())
    }

    async fn work(&mut self, options: &RunOptions, seed: u64) -> Result<Vec<Finished>> {
        let mut seeds = Rng::with_seed(seed);
        for child in &mut self.children {
            let work = Order::Work { seconds: options.seconds, locality: options.locality, seed: seeds.u64(..) };
            child.order(&work).await?;
        }
        let mut table = Redrawn::new();
        for second in 1..=options.seconds {
            let progress = |answer: &Answer| if let Answer::Progress(one) = answer { Some(one.clone()) } else { None };
            let progress = self.each(WORK_LIMIT, progress).await?;
            table.draw(&live_table::lines(second, options.seconds, &progress)?);
        }
        self.each(WORK_LIMIT, |answer| if let Answer::Finished(one) = answer { Some(one.clone()) } else { None }).await
    }

    /// Has the world counted while nothing moves. A count is repeated only when objects changed their owner
    /// meanwhile, never because of what was found.
    async fn audit(&mut self, options: &RunOptions, meeting: &Meeting) -> Result<Findings> {
        let before = self.settle().await?;
        let secret = meeting.secret.clone();
        let auditor = Auditor::join(&meeting.mesh, secret, &self.addresses[0], self.children.len()).await?;
        let findings = self.audit_in_peace(&auditor, before, Totals::of_players(options.players)).await;
        auditor.end().await;
        findings
    }

    async fn audit_in_peace(
        &mut self,
        auditor: &Auditor,
        mut before: Vec<Settled>,
        created: Totals,
    ) -> Result<Findings> {
        for _ in 0..AUDITS_MAX {
            let findings = auditor.audit(created).await?;
            let after = self.settle().await?;
            if after == before {
                return Ok(findings);
            }
            before = after;
        }
        bail!("objects still changed their owner during each of {AUDITS_MAX} audits, though the bots have ended");
    }

    async fn settle(&mut self) -> Result<Vec<Settled>> {
        let orders = vec![Order::Settle; self.children.len()];
        let settled =
            |answer: &Answer| if let Answer::Settled(settled) = answer { Some(settled.clone()) } else { None };
        let settled = self.all(&orders, settled).await?;
        for (number, peer) in settled.iter().enumerate() {
            if (peer.in_transit, peer.fetching) != (0, 0) {
                bail!(
                    "peer {number} did not settle: {} objects are on their way from it, {} are being fetched",
                    peer.in_transit,
                    peer.fetching
                );
            }
        }
        Ok(settled)
    }

    /// Gives each child its order, then takes their answers.
    async fn all<T>(&mut self, orders: &[Order], wanted: impl Fn(&Answer) -> Option<T>) -> Result<Vec<T>> {
        for (child, order) in self.children.iter_mut().zip(orders) {
            child.order(order).await?;
        }
        self.each(ORDER_LIMIT, wanted).await
    }

    /// Takes the next answer of each child.
    async fn each<T>(&mut self, limit: Duration, wanted: impl Fn(&Answer) -> Option<T>) -> Result<Vec<T>> {
        let mut taken = Vec::new();
        for child in &mut self.children {
            taken.push(child.take(limit, &wanted).await?);
        }
        Ok(taken)
    }
}
