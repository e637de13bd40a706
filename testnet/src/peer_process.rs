//! One peer process: takes orders from the orchestrator on its standard input, answers on its standard output.
//!
//! It refuses to outlive the orchestrator: when its standard input closes, it ends at once.

use crate::protocol::{Answer, Order, Settled, pack, unpack};
use crate::workload::{Plan, Workload};
use crate::world;
use anyhow::{Context, Result, bail};
use driftmesh::{Mesh, ObjectId};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

/// How long a peer waits for the others.
const PEERS_LIMIT: Duration = Duration::from_secs(30);
/// How long a peer may take until nothing moves any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
/// How often it looks.
const SETTLE_TICK: Duration = Duration::from_millis(10);
/// Exit code after the orchestrator has gone: nobody reads it.
const ORPHANED: i32 = 3;

/// Runs until the orchestrator closes the standard input.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut orders = read_orders();
        let mut process = Process::default();
        while let Some(order) = orders.recv().await {
            if let Err(error) = process.obey(order).await {
                tell(&Answer::Failed { error: format!("{error:#}") })?;
                bail!(error);
            }
        }
        Ok(())
    })
}

/// Reads on a thread of its own, so that the end of the orchestrator is seen however busy this process is.
fn read_orders() -> UnboundedReceiver<Order> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(order) = line.context("cannot read").and_then(|line| Ok(serde_json::from_str(&line)?)) else {
                break;
            };
            if sender.send(order).is_err() {
                break;
            }
        }
        std::process::exit(ORPHANED);
    });
    receiver
}

/// Writes one answer. Fails when the orchestrator has gone.
fn tell(answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line)?;
    output.flush()?;
    Ok(())
}

#[derive(Debug, Default)]
struct Process {
    mesh: Option<Mesh>,
    world: Arc<[ObjectId]>,
    locals: Vec<ObjectId>,
}

impl Process {
    fn mesh(&self) -> Result<&Mesh> {
        self.mesh.as_ref().context("the peer is not started yet")
    }

    async fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Start { mesh, secret, join } => self.start(&mesh, secret, join.as_deref()).await,
            Order::WaitForPeers { others } => self.wait_for_peers(others).await,
            Order::Create { number, players } => {
                let players = world::create_players(self.mesh()?, number, players).await?;
                tell(&Answer::Created { players: pack(&players) })
            }
            Order::World { shares, own } => self.learn(&shares, own),
            Order::Work { seconds, locality, seed } => self.work(seconds, locality, seed).await,
            Order::Settle => self.settle().await,
        }
    }

    async fn start(&mut self, name: &str, secret: String, join: Option<&str>) -> Result<()> {
        let builder = Mesh::builder().name(name).secret(secret).listen("127.0.0.1:0");
        let builder = match join {
            Some(address) => builder.join(address),
            None => builder.new_mesh(),
        };
        let mesh = builder.start().await.context("cannot start the peer")?;
        let address = mesh.addresses().into_iter().next().context("the peer listens nowhere")?;
        tell(&Answer::Started { peer: mesh.peer_id().to_string(), address })?;
        self.mesh = Some(mesh);
        Ok(())
    }

    async fn wait_for_peers(&self, others: usize) -> Result<()> {
        let mesh = self.mesh()?;
        if tokio::time::timeout(PEERS_LIMIT, mesh.wait_for_peers(others)).await.is_err() {
            let there = mesh.peers().len();
            bail!("only {there} of {others} other peers were seen within {} s", PEERS_LIMIT.as_secs());
        }
        tell(&Answer::SeesAll)
    }

    fn learn(&mut self, shares: &[String], own: usize) -> Result<()> {
        let mut world = Vec::new();
        for (number, share) in shares.iter().enumerate() {
            let players = unpack(share)?;
            world.extend_from_slice(&players);
            if number == own {
                self.locals = players;
            }
        }
        self.world = world.into();
        tell(&Answer::Ready)
    }

    async fn work(&self, seconds: u64, locality: f64, seed: u64) -> Result<()> {
        let plan = Plan { world: Arc::clone(&self.world), locals: &self.locals, locality, seed };
        let mut workload = Workload::start(self.mesh()?, &plan);
        let begun = Instant::now();
        for second in 1..=seconds {
            tokio::time::sleep_until(begun + Duration::from_secs(second)).await;
            tell(&Answer::Progress(workload.progress()))?;
        }
        let finished = workload.finish().await.context("a bot panicked")?;
        tell(&Answer::Finished(finished))
    }

    async fn settle(&self) -> Result<()> {
        let mesh = self.mesh()?;
        let until = Instant::now() + SETTLE_LIMIT;
        loop {
            let (status, metrics) = (mesh.status(), mesh.metrics());
            let settled = Settled {
                in_transit: status.in_transit as u64,
                fetching: status.fetching as u64,
                arrived: metrics.arrived,
                left: metrics.left,
            };
            if (settled.in_transit, settled.fetching) == (0, 0) || Instant::now() >= until {
                return tell(&Answer::Settled(settled));
            }
            tokio::time::sleep(SETTLE_TICK).await;
        }
    }
}
