//! One peer process: takes orders and trades from the orchestrator on its standard input, answers on its standard
//! output.
//!
//! It refuses to outlive the orchestrator: when its standard input closes, it ends at once.

use crate::answers::{Answers, ORPHANED};
use crate::executor::Executor;
use crate::frames::{self, Kind};
use crate::protocol::{Answer, Order, PeerStatus, Settled, pack, unpack, unpack_receipt};
use crate::records::TradeOrder;
use crate::{fates, world};
use anyhow::{Context, Result, bail};
use driftmesh::Mesh;
use std::io::{BufReader, Read};
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

/// What comes in.
enum Input {
    Order(Order),
    Trades(Vec<TradeOrder>),
}

/// Runs until the orchestrator closes the standard input.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut inputs = read_inputs();
        let mut process = Process { answers: Arc::new(Answers::on_standard_output()?), mesh: None, executor: None };
        while let Some(input) = inputs.recv().await {
            let obeyed = match input {
                Input::Order(order) => process.obey(order).await,
                Input::Trades(trades) => process.trade(trades),
            };
            if let Err(error) = obeyed {
                process.answers.tell(&Answer::Failed { error: format!("{error:#}") });
                bail!(error);
            }
        }
        Ok(())
    })
}

/// Reads on a thread of its own, so that the end of the orchestrator is seen however busy this process is.
fn read_inputs() -> UnboundedReceiver<Input> {
    let (sender, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        let mut input = BufReader::new(std::io::stdin());
        let mut body = Vec::new();
        while let Ok(Some(next)) = read_input(&mut input, &mut body) {
            if sender.send(next).is_err() {
                break;
            }
        }
        std::process::exit(ORPHANED);
    });
    receiver
}

fn read_input(input: &mut impl Read, body: &mut Vec<u8>) -> Result<Option<Input>> {
    Ok(match frames::read(input, body)? {
        None => None,
        Some(Kind::Control) => Some(Input::Order(serde_json::from_slice(body)?)),
        Some(Kind::Trades) => Some(Input::Trades(TradeOrder::read_all(body)?)),
    })
}

#[derive(Debug)]
struct Process {
    answers: Arc<Answers>,
    mesh: Option<Mesh>,
    executor: Option<Executor>,
}

impl Process {
    fn mesh(&self) -> Result<&Mesh> {
        self.mesh.as_ref().context("the peer is not started yet")
    }

    fn trade(&mut self, trades: Vec<TradeOrder>) -> Result<()> {
        self.executor.as_mut().context("the world is not known yet")?.begin(trades);
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<()> {
        let answer = match order {
            Order::Start { mesh, secret, join, replicas } => {
                self.start(&mesh, secret, join.as_deref(), replicas).await?
            }
            Order::WaitForPeers { others } => self.wait_for_peers(others).await?,
            Order::Create { number, players } => {
                Answer::Created { players: pack(&world::create_players(self.mesh()?, number, players).await?) }
            }
            Order::World { shares } => self.learn(&shares)?,
            Order::Status => Answer::Status(status(self.mesh()?)),
            Order::HoldTraffic { ms } => {
                self.mesh()?.hold_outgoing(Duration::from_millis(ms));
                Answer::Holding
            }
            Order::Fates { receipts } => {
                let receipts = receipts.iter().map(|receipt| unpack_receipt(receipt)).collect::<Result<Vec<_>>>()?;
                Answer::Fates { fates: fates::fates(self.mesh()?, &receipts).await }
            }
            Order::Settle => self.settle().await?,
        };
        self.answers.tell(&answer);
        Ok(())
    }

    async fn start(&mut self, name: &str, secret: String, join: Option<&str>, replicas: usize) -> Result<Answer> {
        let builder = Mesh::builder().name(name).secret(secret).listen("127.0.0.1:0");
        let builder = builder.replicas(replicas);
        let builder = match join {
            Some(address) => builder.join(address),
            None => builder.new_mesh(),
        };
        let mesh = builder.start().await.context("cannot start the peer")?;
        let address = mesh.addresses().into_iter().next().context("the peer listens nowhere")?;
        let peer = mesh.peer_id().to_string();
        self.mesh = Some(mesh);
        Ok(Answer::Started { peer, address })
    }

    async fn wait_for_peers(&self, others: usize) -> Result<Answer> {
        let mesh = self.mesh()?;
        if tokio::time::timeout(PEERS_LIMIT, mesh.wait_for_peers(others)).await.is_err() {
            let there = mesh.peers().len();
            bail!("only {there} of {others} other peers were seen within {} s", PEERS_LIMIT.as_secs());
        }
        Ok(Answer::SeesAll)
    }

    fn learn(&mut self, shares: &[String]) -> Result<Answer> {
        let mut world = Vec::new();
        for share in shares {
            world.append(&mut unpack(share)?);
        }
        self.executor = Some(Executor::new(self.mesh()?.clone(), world.into(), Arc::clone(&self.answers)));
        Ok(Answer::Ready)
    }

    async fn settle(&self) -> Result<Answer> {
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
                return Ok(Answer::Settled(settled));
            }
            tokio::time::sleep(SETTLE_TICK).await;
        }
    }
}

fn status(mesh: &Mesh) -> PeerStatus {
    let (status, metrics) = (mesh.status(), mesh.metrics());
    PeerStatus {
        owned: status.owned as u64,
        connected: mesh.peers().len() as u64,
        whole: status.may_stop,
        arrived: metrics.arrived,
        aborts: metrics.aborts,
        frames_sent: status.transport.frames_sent,
        bytes_sent: status.transport.bytes_sent,
        longest_core_hold_us: status.longest_core_hold_us,
        found: metrics.found,
        hops: metrics.hops,
        chain_max: metrics.chain_max,
        pointers: status.pointers as u64,
        directory_bytes: status.directory_bytes as u64,
    }
}
