//! One peer process: takes orders and trades from the orchestrator on its standard input, answers on its standard
//! output.
//!
//! It refuses to outlive the orchestrator: when its standard input closes, it ends at once.

use crate::answers::{Answers, ORPHANED};
use crate::bench::cpu_time;
use crate::bench::work::{Bump, Counter, Worker};
use crate::executor::Executor;
use crate::frames::{self, Kind};
use crate::lists::{Call, Lists};
use crate::marks::Marks;
use crate::protocol::{Answer, Order, PeerStatus, Settled, pack, unpack, unpack_receipt};
use crate::records::TradeOrder;
use crate::workloads::look::look;
use crate::workloads::performer::Performer;
use crate::workloads::plan::{Made, Plan};
use crate::workloads::{parts, records, tasks};
use crate::{fates, memory, world};
use anyhow::{Context, Result, bail};
use driftmesh::{Builder, Mesh, Notice, ObjectId};
use std::io::BufReader;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a peer waits for the others.
const PEERS_LIMIT: Duration = Duration::from_secs(30);
/// How long a peer may take until nothing moves any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(15);
/// How often outcomes of tasks are counted.
const COUNT_OUTCOMES_EVERY: Duration = Duration::from_secs(5);
/// How often it looks.
const SETTLE_TICK: Duration = Duration::from_millis(10);

/// Runs until the orchestrator closes the standard input.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let answers = Arc::new(Answers::on_standard_output()?);
        let executor = Arc::default();
        let (sender, mut orders) = unbounded_channel();
        let performer = Arc::default();
        let input = Input {
            orders: sender,
            executor: Arc::clone(&executor),
            performer: Arc::clone(&performer),
            answers: Arc::clone(&answers),
        };
        std::thread::spawn(move || input.read());
        let mut process = Process {
            answers,
            mesh: None,
            executor,
            performer,
            marks: Marks::default(),
            lists: Lists::default(),
            parts: Arc::default(),
            worker: None,
            outcomes: 0,
            outcomes_counted: None,
        };
        while let Some(order) = orders.recv().await {
            if let Err(error) = process.obey(order).await {
                process.answers.tell(&Answer::Failed { error: format!("{error:#}") });
                bail!(error);
            }
        }
        Ok(())
    })
}

/// What comes in. It is read on a thread of its own, so that the end of the orchestrator is seen however busy this
/// process is, and that trades need not pass through another task.
struct Input {
    orders: UnboundedSender<Order>,
    executor: Arc<OnceLock<Mutex<Executor>>>,
    performer: Arc<OnceLock<Performer>>,
    answers: Arc<Answers>,
}

impl Input {
    fn read(&self) {
        let mut input = BufReader::new(std::io::stdin());
        let mut body = Vec::new();
        while let Ok(Some(kind)) = frames::read(&mut input, &mut body) {
            if let Err(error) = self.take(kind, &body) {
                self.answers.tell(&Answer::Failed { error: format!("{error:#}") });
                break;
            }
        }
        std::process::exit(ORPHANED);
    }

    fn take(&self, kind: Kind, body: &[u8]) -> Result<()> {
        match kind {
            // The receiver ends with the process.
            Kind::Control => drop(self.orders.send(serde_json::from_slice(body)?)),
            Kind::Trades => {
                let executor = self.executor.get().context("the world is not known yet")?;
                let trades = TradeOrder::read_all(body)?;
                executor.lock().unwrap_or_else(PoisonError::into_inner).begin(trades);
            }
            Kind::Acts => {
                self.performer.get().context("the peer is not started yet")?.begin(records::decode(body)?);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Process {
    answers: Arc<Answers>,
    mesh: Option<Mesh>,
    executor: Arc<OnceLock<Mutex<Executor>>>,
    performer: Arc<OnceLock<Performer>>,
    marks: Marks,
    lists: Lists,
    /// The world of a workload.
    parts: Arc<(Plan, Made)>,
    /// What works in a benchmark.
    worker: Option<Worker>,
    /// Outcomes of tasks that were kept here, and when they were counted: that looks at all objects.
    outcomes: u64,
    outcomes_counted: Option<Instant>,
}

impl Process {
    fn mesh(&self) -> Result<&Mesh> {
        self.mesh.as_ref().context("the peer is not started yet")
    }

    async fn obey(&mut self, order: Order) -> Result<()> {
        let answer = match order {
            Order::Start { mesh, secret, join, listen, replicas, place: _, identity } => {
                let builder = Mesh::builder().name(&mesh).secret(secret).listen(&listen).replicas(replicas);
                self.start(builder.identity_of(identity).observe(say_refusal), &join).await?
            }
            Order::WaitForPeers { others } => self.wait_for_peers(others).await?,
            Order::Create { number, players } => {
                Answer::Created { players: pack(&world::create_players(self.mesh()?, number, players).await?) }
            }
            Order::World { shares } => self.learn(&shares)?,
            Order::Status => {
                if self.outcomes_counted.is_none_or(|counted| counted.elapsed() >= COUNT_OUTCOMES_EVERY) {
                    self.outcomes = self.mesh()?.kept_outcomes() as u64;
                    self.outcomes_counted = Some(Instant::now());
                }
                Answer::Status(status(self.mesh()?, self.outcomes))
            }
            Order::Forget { group } => {
                let group = group.parse().context("it is no id of a group")?;
                self.mesh()?.forget(group, true).await.context("cannot forget a group")?;
                Answer::Ready
            }
            Order::HoldTraffic { ms } => {
                self.mesh()?.hold_outgoing(Duration::from_millis(ms));
                Answer::Holding
            }
            Order::Fates { receipts } => {
                let receipts = receipts.iter().map(|receipt| unpack_receipt(receipt)).collect::<Result<Vec<_>>>()?;
                Answer::Fates { fates: fates::fates(self.mesh()?, &receipts).await }
            }
            Order::Settle => self.settle().await?,
            Order::CreateLists { lists, registers } => {
                let (lists, registers) = Lists::create(self.mesh()?, lists, registers).await?;
                Answer::ListsCreated { lists, registers }
            }
            Order::LearnLists { lists, registers } => {
                self.lists = Lists::of(&unpack(&lists)?, &unpack(&registers)?);
                Answer::Ready
            }
            Order::Call { id, asked, pause_us } => {
                let pause = Duration::from_micros(pause_us);
                self.lists.begin(self.mesh()?, &self.answers, Call { id, asked, pause });
                // It is answered when it has ended.
                return Ok(());
            }
            Order::Search { objects } => Answer::Searched { missed: search(self.mesh()?, unpack(&objects)?).await },
            Order::CreateMarks { count } => {
                let mesh = self.mesh()?.clone();
                Answer::Created { players: pack(&self.marks.create(&mesh, count).await?) }
            }
            Order::Beat => {
                let mesh = self.mesh()?.clone();
                self.marks.begin(&mesh)?;
                Answer::Ready
            }
            Order::Gap => {
                let longest = self.marks.longest_gap()?;
                Answer::Gap { longest_us: u64::try_from(longest.as_micros()).unwrap_or(u64::MAX) }
            }
            Order::LearnMarks { marks } => {
                self.marks.learn(unpack(&marks)?);
                Answer::Ready
            }
            Order::Mark => {
                self.marks.mark(self.mesh()?, &self.answers);
                Answer::Ready
            }
            Order::CreateParts { parts } => {
                Answer::Created { players: pack(&parts::create(self.mesh()?, &parts).await?) }
            }
            Order::FillPlaces { places } => {
                parts::fill(self.mesh()?, &places).await?;
                Answer::Ready
            }
            Order::LearnParts { plan, made } => {
                self.parts = Arc::new((plan, Made::unpacked(&made)?));
                Answer::Ready
            }
            Order::Look => {
                let (mesh, parts, answers) = (self.mesh()?.clone(), Arc::clone(&self.parts), Arc::clone(&self.answers));
                tokio::spawn(async move {
                    let seen = look(&mesh, &parts.0, &parts.1).await;
                    answers.tell(&Answer::Looked { seen });
                });
                // It is answered when it has ended.
                return Ok(());
            }
            Order::BeginWork { work } => {
                self.worker = Some(Worker::begin(self.mesh()?, work)?);
                Answer::Ready
            }
            Order::Travel { heroes, places } => {
                self.worker.as_ref().context("no work has begun")?.travel(&unpack(&heroes)?, &unpack(&places)?);
                Answer::Ready
            }
            Order::CreateCounter => {
                let created = self.mesh()?.transact(|tx| async move { tx.create(&Counter::default()) }).await;
                Answer::Created { players: pack(&[created.context("cannot create a counter")?.id()]) }
            }
            Order::Read { object } => {
                let snapshot = self.mesh()?.snapshot().context("cannot take a snapshot")?;
                snapshot.value(object).await.context("cannot read an object")?;
                Answer::Ready
            }
            Order::WorkDone => Answer::Worked(self.worker.as_ref().context("no work has begun")?.done()),
            Order::EndWork => Answer::Worked(self.worker.take().context("no work has begun")?.end().await),
        };
        self.answers.tell(&answer);
        Ok(())
    }

    async fn start(&mut self, builder: Builder, join: &[String]) -> Result<Answer> {
        let builder = match join {
            [] => builder.new_mesh(),
            addresses => addresses.iter().fold(builder, |builder, address| builder.join(address)),
        };
        let mesh = tasks::register(builder).register::<Bump>().start().await.context("cannot start the peer")?;
        // Nobody else starts it: an order comes after the one before.
        let _ = self.performer.set(Performer::new(mesh.clone(), Arc::clone(&self.answers)));
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
        let executor = Executor::new(self.mesh()?.clone(), world.into(), Arc::clone(&self.answers));
        if self.executor.set(Mutex::new(executor)).is_err() {
            bail!("the world is known already");
        }
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

/// Searches for objects; tells which are not found, and why.
async fn search(mesh: &Mesh, objects: Vec<ObjectId>) -> Vec<String> {
    let mut searches = JoinSet::new();
    for object in objects {
        let mesh = mesh.clone();
        searches.spawn(async move { Some(format!("{object} is not found: {}", mesh.explain(object).await.err()?)) });
    }
    searches.join_all().await.into_iter().flatten().collect()
}

/// Says on the error output why another peer has refused this one, as `driftmesh peer` does.
fn say_refusal(notice: Notice) {
    if let Notice::Refused { peer: Some(peer), reason, by_remote: true, .. } = notice {
        crate::output::error_line(&format!("refused by peer {peer}: {reason}"));
    }
}

fn status(mesh: &Mesh, outcomes: u64) -> PeerStatus {
    let (status, metrics) = (mesh.status(), mesh.metrics());
    PeerStatus {
        owned: status.owned as u64,
        connected: mesh.peers().len() as u64,
        not_whole: status.may_not_stop_because,
        arrived: metrics.arrived,
        commits: metrics.commits + metrics.read_only_commits,
        local_commits: metrics.local_commits,
        aborts: metrics.aborts,
        frames_sent: status.transport.frames_sent,
        bytes_sent: status.transport.bytes_sent,
        cpu_us: u64::try_from(cpu_time::of_process().as_micros()).unwrap_or(u64::MAX),
        longest_core_hold_us: status.longest_core_hold_us,
        found: metrics.found,
        hops: metrics.hops,
        chain_max: metrics.chain_max,
        pointers: status.pointers as u64,
        directory_bytes: status.directory_bytes as u64,
        version_bytes: status.version_bytes as u64,
        held_messages: status.held_messages as u64,
        outcomes,
        memory_kib: memory::of_process_kib(),
        undecodable: status.transport.undecodable,
        impossible: status.transport.impossible,
        malformed: status.transport.malformed,
        offenders_dropped: status.transport.offenders_dropped,
        offenders_refused: status.transport.offenders_refused,
        inbound_paused: status.transport.inbound_paused,
        connections_turned_away: status.transport.connections_turned_away,
        handshakes_turned_away: status.transport.handshakes_turned_away,
    }
}
