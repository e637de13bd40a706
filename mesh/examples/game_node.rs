//! A game server in one file, to copy from: a world at 20 Hz, without a runtime of its own, with players who walk and
//! trade. A frame never waits: it submits transactions and hears of them in a later frame.
//!
//! ```text
//! cargo run --package driftmesh --example game_node                                  two nodes, 3 s, then a count
//! cargo run --package driftmesh --example game_node -- --listen 127.0.0.1:4001       one node, until it is killed
//! cargo run --package driftmesh --example game_node -- --join 127.0.0.1:4001 --seconds 20
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::{
    BlockingMesh, Bridge, BridgeEvent, Builder, Mesh, Object, OwnershipEvent, Ref, Seen, Tx, decode_object,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A world of 20 Hz.
const FRAMES_PER_SECOND: u64 = 20;
const FRAME: Duration = Duration::from_millis(1_000 / FRAMES_PER_SECOND);
/// What each node brings into the world.
const PLAYERS: usize = 50;
const GOLD_AT_FIRST: u64 = 100;
/// Every so many frames a player here wants to trade.
const FRAMES_BETWEEN_TRADES: u64 = 2;
/// How often a node that joins looks for the market, once a frame.
const LOOKS_FOR_MARKET: usize = 200;

type AnyError = Box<dyn Error + Send + Sync>;

// ---- The objects of the game.

#[derive(Clone, Serialize, Deserialize)]
struct Player {
    name: String,
    gold: u64,
    x: i32,
    y: i32,
}

impl Object for Player {
    const TYPE_NAME: &'static str = "player";
}

/// Where players find each other: everybody who ever came.
#[derive(Serialize, Deserialize)]
struct Market {
    players: Vec<Ref<Player>>,
}

impl Object for Market {
    const TYPE_NAME: &'static str = "market";
}

// ---- The rules of the game: functions of a transaction. They may run several times, and know nothing of frames.

async fn walk(tx: Tx, player: Ref<Player>) -> driftmesh::Result<Done> {
    let step = tx.random();
    let mut player = tx.get_mut(player).await?;
    player.x += i32::from(step & 1 == 0) - i32::from(step & 2 == 0);
    player.y += i32::from(step & 4 == 0) - i32::from(step & 8 == 0);
    Ok(Done::Walked(player.clone()))
}

async fn trade(tx: Tx, buyer: Ref<Player>, seller: Ref<Player>, price: u64) -> driftmesh::Result<Done> {
    // Both are taken in one round; who is at another node moves here.
    let mut both = tx.get_mut_many(&[buyer, seller]).await?;
    let rest = both[0].gold.checked_sub(price).ok_or_else(|| tx.reject("not enough gold"))?;
    both[0].gold = rest;
    both[1].gold += price;
    Ok(Done::Traded)
}

/// What a transaction is for: comes back with its result.
enum Job {
    Walk(Ref<Player>),
    Trade,
    LookAround,
}

/// What a transaction came to.
enum Done {
    Walked(Player),
    Traded,
    Saw(Vec<Ref<Player>>),
}

// ---- The node: the players that are here, and what it knows of the rest.

#[derive(Default)]
struct Report {
    frames: u64,
    steps: u64,
    trades: u64,
    refused: u64,
    arrivals: u64,
    longest_frame: Duration,
}

struct Node<'a> {
    mesh: &'a Mesh,
    bridge: Bridge<Job, Done>,
    market: Ref<Market>,
    /// The players that this node owns, and so moves.
    here: BTreeMap<Ref<Player>, Arc<Player>>,
    /// Those whose last step has not been heard of: a slow step must not be followed by another.
    walking: BTreeSet<Ref<Player>>,
    everybody: Vec<Ref<Player>>,
    dice: u64,
    report: Report,
}

impl<'a> Node<'a> {
    fn new(mesh: &'a Mesh, market: Ref<Market>) -> Result<Self, AnyError> {
        // Events from now on, then everything that is here already.
        let bridge = mesh.bridge()?;
        let here = mesh.owned::<Player>().collect::<Result<_, _>>()?;
        let (walking, everybody) = (BTreeSet::new(), Vec::new());
        // Nodes that throw the same dice would always want the same players.
        let dice = mesh.peer_id().as_bytes().iter().fold(0_u64, |dice, byte| dice.rotate_left(5) ^ u64::from(*byte));
        Ok(Self { mesh, bridge, market, here, walking, everybody, dice, report: Report::default() })
    }

    /// One frame: hear what happened, then submit what shall happen. Nothing in it waits.
    fn frame(&mut self, number: u64) -> Result<(), AnyError> {
        for event in self.bridge.events() {
            match event {
                BridgeEvent::Ownership(event) => self.owned_changed(event)?,
                BridgeEvent::Finished { tag, result, .. } => self.finished(tag, result)?,
            }
        }
        for player in self.here.keys().copied().collect::<Vec<_>>() {
            // A full bridge is no error: the player stands still for a frame.
            if self.walking.insert(player) && self.bridge.submit(Job::Walk(player), move |tx| walk(tx, player)).is_err()
            {
                self.walking.remove(&player);
            }
        }
        if number.is_multiple_of(FRAMES_PER_SECOND) {
            let market = self.market;
            let look = move |tx: Tx| async move { Ok(Done::Saw(tx.get(market).await?.players.clone())) };
            let _ = self.bridge.submit(Job::LookAround, look);
        }
        if number.is_multiple_of(FRAMES_BETWEEN_TRADES) {
            self.begin_trade(number);
        }
        self.report.frames += 1;
        Ok(())
    }

    fn begin_trade(&mut self, number: u64) {
        let buyer = self.pick(self.here.len());
        let buyer = self.here.keys().nth(buyer).copied();
        let seller = self.pick(self.everybody.len());
        let seller = self.everybody.get(seller).copied();
        if let (Some(buyer), Some(seller)) = (buyer, seller)
            && buyer != seller
        {
            let price = 1 + number % 9;
            let _ = self.bridge.submit(Job::Trade, move |tx| trade(tx, buyer, seller, price));
        }
    }

    /// A number below `count`. Inside a transaction randomness comes from `tx.random()`; out here anything will do.
    fn pick(&mut self, count: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.dice >> 33).unwrap_or(0) % count.max(1)
    }

    /// Players come and go with the transactions that need them; the node follows without looking at the world.
    fn owned_changed(&mut self, event: OwnershipEvent) -> Result<(), AnyError> {
        match event {
            OwnershipEvent::Arrived(arrival) => {
                if let Some((player, value)) = arrival.decode::<Player>()? {
                    self.here.insert(player, value);
                    self.report.arrivals += 1;
                }
            }
            OwnershipEvent::Left { object, .. } | OwnershipEvent::Deleted { object } => {
                self.here.remove(&Ref::from_id(object));
            }
            // This node was too slow to hear everything: look once.
            OwnershipEvent::Missed => self.here = self.mesh.owned::<Player>().collect::<Result<_, _>>()?,
            OwnershipEvent::PeerGone { peer, objects } => println!("node {peer} is gone, with {objects:?} objects"),
            OwnershipEvent::PeerBack { peer } => println!("node {peer} is back"),
            _ => {}
        }
        Ok(())
    }

    fn finished(&mut self, job: Job, result: driftmesh::Result<Done>) -> Result<(), AnyError> {
        if let Job::Walk(player) = job {
            self.walking.remove(&player);
        }
        match result {
            Ok(Done::Walked(value)) => {
                self.report.steps += 1;
                // It may have left since.
                if let Job::Walk(player) = job
                    && let Some(here) = self.here.get_mut(&player)
                {
                    *here = Arc::new(value);
                }
            }
            Ok(Done::Traded) => self.report.trades += 1,
            Ok(Done::Saw(players)) => self.everybody = players,
            Err(driftmesh::Error::Rejected(_)) => self.report.refused += 1,
            // Somebody was busy or far away for too long. Nothing happened; the game goes on.
            Err(driftmesh::Error::Deadline { .. } | driftmesh::Error::Busy(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The loop. Afterwards no transaction is in flight any more.
    fn run(mut self, frames: u64) -> Result<Report, AnyError> {
        for number in 0..frames {
            let begun = Instant::now();
            self.frame(number)?;
            self.report.longest_frame = self.report.longest_frame.max(begun.elapsed());
            std::thread::sleep(FRAME.saturating_sub(begun.elapsed()));
        }
        while self.bridge.in_flight() > 0 {
            for event in self.bridge.events() {
                if let BridgeEvent::Finished { tag, result, .. } = event {
                    self.finished(tag, result)?;
                }
            }
            std::thread::sleep(FRAME);
        }
        Ok(self.report)
    }
}

// ---- Setting up and counting: outside of the loop, so it may wait.

/// The first node creates the market.
async fn create_market(mesh: &Mesh) -> Result<Ref<Market>, AnyError> {
    Ok(mesh.transact(|tx| async move { tx.create(&Market { players: Vec::new() }) }).await?)
}

/// The others find it at one of the peers. While it moves from one to another it is at none, so look again.
async fn find_market(mesh: &Mesh) -> Result<Ref<Market>, AnyError> {
    for _ in 0..LOOKS_FOR_MARKET {
        let snapshot = mesh.snapshot()?;
        for peer in mesh.peers() {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let page = snapshot.scan(peer, from).await?;
                for scanned in page.objects {
                    if let Seen::Version { value: Some(value), .. } = scanned.seen
                        && decode_object::<Market>(&value).is_ok()
                    {
                        return Ok(Ref::from_id(scanned.object));
                    }
                }
                cursor = page.next;
            }
        }
        tokio::time::sleep(FRAME).await;
    }
    Err("no peer has the market; is the mesh one of this game?".into())
}

/// Brings this node's players into the world.
async fn enter(mesh: &Mesh, market: Ref<Market>, place: &str) -> driftmesh::Result<()> {
    let create = |tx: Tx| async move {
        let mut all = tx.get_mut(market).await?;
        for number in 0..PLAYERS {
            let player = Player { name: format!("{place} {number}"), gold: GOLD_AT_FIRST, x: 0, y: 0 };
            all.players.push(tx.create(&player)?);
        }
        Ok(())
    };
    mesh.transact(create).await
}

/// All players and all gold, at one moment.
async fn count(mesh: &Mesh, market: Ref<Market>) -> Result<(usize, u64), AnyError> {
    let counted = mesh.task("count").deadline(Duration::from_secs(30)).run(|tx| async move {
        let all = tx.get(market).await?;
        let players = tx.get_many(&all.players).await?;
        Ok((players.len(), players.iter().map(|player| player.gold).sum()))
    });
    Ok(counted.await?)
}

fn play(mesh: &BlockingMesh, market: Ref<Market>, place: &str, frames: u64) -> Result<Report, AnyError> {
    mesh.wait(enter(mesh.mesh(), market, place))?;
    let report = Node::new(mesh.mesh(), market)?.run(frames)?;
    println!(
        "{place}: {} frames, the longest took {:?}; {} steps, {} trades, {} refused, {} arrivals",
        report.frames, report.longest_frame, report.steps, report.trades, report.refused, report.arrivals
    );
    Ok(report)
}

/// Two nodes, each with its loop on a thread of its own, as if they were two machines.
fn two_nodes(frames: u64) -> Result<(), AnyError> {
    let east = Mesh::builder().start_blocking()?;
    let west = Mesh::builder().join(&east.mesh().addresses()[0]).start_blocking()?;
    let market = east.wait(create_market(east.mesh()))?;
    let ended = std::thread::scope(|scope| {
        let nodes = [(&east, "east"), (&west, "west")];
        let loops = nodes.map(|(mesh, place)| scope.spawn(move || play(mesh, market, place, frames)));
        loops.map(|node| node.join().unwrap_or_else(|_| Err("a node's loop panicked".into())))
    });
    for node in ended {
        let report = node?;
        if report.steps == 0 || report.trades == 0 || report.arrivals == 0 {
            return Err("a node did nothing worth the name".into());
        }
    }
    let left = west.wait(west.mesh().leave(Duration::from_secs(10)));
    let (players, gold) = east.wait(count(east.mesh(), market))?;
    println!("the west handed {} objects over; {players} players have {gold} gold", left.handed_over);
    if (players, gold) != (2 * PLAYERS, 2 * PLAYERS as u64 * GOLD_AT_FIRST) {
        return Err("players or gold were lost or doubled".into());
    }
    Ok(())
}

fn one_node(builder: Builder, joins: bool, frames: u64) -> Result<(), AnyError> {
    let mesh = builder.start_blocking()?;
    println!("another node joins with: --join {}", mesh.mesh().addresses()[0]);
    let market = if joins { mesh.wait(find_market(mesh.mesh()))? } else { mesh.wait(create_market(mesh.mesh()))? };
    play(&mesh, market, "a node", frames)?;
    let left = mesh.wait(mesh.mesh().leave(Duration::from_secs(10)));
    println!("left: {} objects handed over, {} lost", left.handed_over, left.stayed);
    Ok(())
}

fn main() -> Result<(), AnyError> {
    let mut builder = Mesh::builder();
    let (mut joins, mut listens, mut seconds) = (false, false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--join" => (builder, joins) = (builder.join(&value), true),
            "--listen" => (builder, listens) = (builder.listen(&value), true),
            "--seconds" => seconds = Some(value.parse::<u64>()?),
            _ => return Err(format!("{argument}: give --join ADDRESS, --listen ADDRESS or --seconds N").into()),
        }
    }
    let frames = seconds.map(|seconds: u64| seconds.saturating_mul(FRAMES_PER_SECOND));
    if joins || listens {
        one_node(builder, joins, frames.unwrap_or(u64::MAX))
    } else {
        two_nodes(frames.unwrap_or(3 * FRAMES_PER_SECOND))
    }
}
