//! `--mode naive`: the same bots on zone servers without a protocol, for contrast.
//!
//! Each process keeps the players who are in its zone in memory, saves them to a file every 2 s, and gives a player away
//! when another zone asks for him. One that is killed is started again from its last save: who had left since is there
//! once more, who had come since is gone. It refuses to be any better than that, and to hide what comes of it.

use crate::answers::{Answers, ORPHANED};
use crate::audit::{Findings, Tally};
use crate::fates::Fate;
use crate::frames::{self, Kind};
use crate::places::index;
use crate::protocol::{Answer, Order, PeerStatus, Settled, pack, unpack};
use crate::records::{Commit, Said, TradeAnswer, TradeOrder};
use crate::world::{GOLD_AT_FIRST, ITEMS_AT_FIRST, Item, Player, Totals, mark};
use anyhow::{Result, bail};
use driftmesh::{GroupId, Lsn, ObjectId, Receipt, Ref, Term, Timestamp};
use driftmesh_model::{TxnTimestamp, codec, encode_object};
use std::collections::btree_map::{BTreeMap, Entry};
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

const SAVE_EVERY: Duration = Duration::from_secs(2);
/// How long a zone waits for another one's answer; how often it asks all others for somebody, and the pause between.
const PATIENCE: Duration = Duration::from_millis(500);
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(20);
/// Threads that fetch players.
const FETCHERS: usize = 8;

/// Where the zones of a run save, and leave their addresses.
pub(crate) fn folder_of(run: &str) -> PathBuf {
    std::env::temp_dir().join(format!("driftmesh-{run}"))
}

fn file(folder: &Path, zone: usize, what: &str) -> PathBuf {
    folder.join(format!("{zone}.{what}"))
}

/// What the threads of a zone share.
#[derive(Default)]
struct Zone {
    folder: PathBuf,
    number: usize,
    players: BTreeMap<ObjectId, Player>,
    world: Vec<ObjectId>,
    commits: u64,
    came: u64,
    went: u64,
}

type Shared = Arc<Mutex<Zone>>;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn objects_of(player: &Player) -> u64 {
    1 + player.inventory.len() as u64
}

impl Zone {
    fn zones(&self) -> usize {
        (0..).take_while(|zone| file(&self.folder, *zone, "address").exists()).count()
    }

    fn create(&mut self, number: u64, players: u64) -> Vec<ObjectId> {
        let id = |of: u64| ObjectId::from_u128((u128::from(number) << 64) | u128::from(of));
        let each = ITEMS_AT_FIRST + 1;
        for player in 0..players {
            let inventory = (1..each).map(|item| Ref::from_id(id(player * each + item))).collect();
            let name = format!("player {number}.{player}");
            self.players.insert(id(player * each), Player { name, gold: GOLD_AT_FIRST, inventory, trades: 0, sum: 0 });
        }
        self.players.keys().copied().collect()
    }

    fn save(&self) -> Result<()> {
        let (new, save) = (file(&self.folder, self.number, "new"), file(&self.folder, self.number, "save"));
        std::fs::write(&new, codec::encode(&self.players.iter().collect::<Vec<_>>())?)?;
        Ok(std::fs::rename(new, save)?)
    }

    /// Trades, if both are here.
    fn trade(&mut self, order: &TradeOrder, begun: Instant, awaited_message: bool) -> Option<Said> {
        let [buyer_id, seller_id] = [*self.world.get(index(order.buyer))?, *self.world.get(index(order.seller))?];
        let (mut buyer, mut seller) = (self.players.get(&buyer_id)?.clone(), self.players.get(&seller_id)?.clone());
        let sold = buyer.gold > 0 && !seller.inventory.is_empty();
        let amount = u64::from(order.price).min(if sold { buyer.gold } else { seller.gold });
        if amount == 0 {
            return Some(Said::Nothing);
        }
        if sold {
            let place = usize::from(order.choice) % seller.inventory.len();
            buyer.inventory.push(seller.inventory.remove(place));
            (buyer.gold, seller.gold) = (buyer.gold - amount, seller.gold + amount);
        } else {
            (buyer.gold, seller.gold) = (buyer.gold + amount, seller.gold - amount);
        }
        for player in [&mut buyer, &mut seller] {
            player.trades += 1;
            player.sum = player.sum.wrapping_add(mark(order.id));
        }
        self.players.extend([(buyer_id, buyer), (seller_id, seller)]);
        self.commits += 1;
        let gold = i16::try_from(amount).unwrap_or(i16::MAX) * if sold { -1 } else { 1 };
        let receipt = Receipt {
            group: GroupId::from_u128(self.number as u128 + 1),
            // Another one after each start.
            term: Term::from_u64(std::process::id().into()),
            lsn: Lsn::from_u64(self.commits),
            commit: Timestamp::ZERO,
            txn: TxnTimestamp { time: Timestamp::ZERO, incarnation: 0, sequence: order.id },
        };
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Some(Said::Committed(Commit { receipt, nanos, gold, sold, awaited_message, stable: false }))
    }
}

/// Runs a zone server until the orchestrator closes the standard input.
pub(crate) fn run() -> Result<()> {
    let answers = Arc::new(Answers::on_standard_output()?);
    let zone = Shared::default();
    let (sender, orders) = mpsc::channel();
    let orders = Arc::new(Mutex::new(orders));
    for _ in 0..FETCHERS {
        let (zone, answers, orders) = (Arc::clone(&zone), Arc::clone(&answers), Arc::clone(&orders));
        std::thread::spawn(move || fetch_all(&zone, &orders, &answers));
    }
    let mut input = BufReader::new(std::io::stdin());
    let mut body = Vec::new();
    while let Ok(Some(kind)) = frames::read(&mut input, &mut body) {
        let taken = match kind {
            Kind::Control => obey(&zone, serde_json::from_slice(&body)?).map(|answer| answers.tell(&answer)),
            Kind::Trades => TradeOrder::read_all(&body).map(|orders| trade_all(&zone, orders, &sender, &answers)),
            Kind::Acts => Err(anyhow::anyhow!("a zone server knows trades only")),
        };
        taken.unwrap_or_else(|error| answers.tell(&Answer::Failed { error: format!("{error:#}") }));
    }
    std::process::exit(ORPHANED);
}

fn obey(zone: &Shared, order: Order) -> Result<Answer> {
    Ok(match order {
        Order::Start { mesh, place, .. } => start(zone, folder_of(&mesh), place)?,
        Order::WaitForPeers { .. } => Answer::SeesAll,
        Order::Create { number, players } => Answer::Created { players: pack(&lock(zone).create(number, players)) },
        Order::World { shares } => {
            lock(zone).world = unpack(&shares.concat())?;
            Answer::Ready
        }
        Order::Status => {
            let zone = lock(zone);
            let (owned, connected) = (zone.players.values().map(objects_of).sum(), zone.zones() as u64 - 1);
            Answer::Status(PeerStatus { owned, connected, arrived: zone.came, ..PeerStatus::default() })
        }
        Order::HoldTraffic { .. } => Answer::Holding,
        // Nobody tells otherwise: what was answered counts as done.
        Order::Fates { receipts } => Answer::Fates { fates: vec![Fate::Stable; receipts.len()] },
        Order::Settle => {
            let zone = lock(zone);
            zone.save()?;
            Answer::Settled(Settled { arrived: zone.came, left: zone.went, ..Settled::default() })
        }
        Order::CreateLists { .. } | Order::LearnLists { .. } | Order::Search { .. } | Order::Call { .. } => {
            bail!("a zone server keeps no histories")
        }
        Order::CreateParts { .. } | Order::FillPlaces { .. } | Order::LearnParts { .. } | Order::Look => {
            bail!("a zone server knows trades only")
        }
        Order::Forget { .. } => bail!("a zone server has no groups"),
        Order::CreateMarks { .. }
        | Order::Beat
        | Order::Gap
        | Order::LearnMarks { .. }
        | Order::Mark
        | Order::BeginWork { .. }
        | Order::Travel { .. }
        | Order::WorkDone
        | Order::EndWork
        | Order::CreateCounter
        | Order::Read { .. } => {
            bail!("a zone server takes no part in benchmarks")
        }
    })
}

/// Begins with the last save of the zone, if there is one.
fn start(zone: &Shared, folder: PathBuf, number: usize) -> Result<Answer> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let mut here = lock(zone);
    (here.folder, here.number) = (folder, number);
    if let Ok(save) = std::fs::read(file(&here.folder, number, "save")) {
        here.players = codec::decode::<Vec<(ObjectId, Player)>>(&save)?.into_iter().collect();
    }
    std::fs::write(file(&here.folder, number, "address"), &address)?;
    drop(here);
    let (served, saved) = (Arc::clone(zone), Arc::clone(zone));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let zone = Arc::clone(&served);
            std::thread::spawn(move || serve(&zone, stream));
        }
    });
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(SAVE_EVERY);
            // A full disk is found at the next start.
            let _ = lock(&saved).save();
        }
    });
    Ok(Answer::Started { peer: format!("zone {number}"), address })
}

/// Gives players away to another zone: an id comes in, a length and the player go out.
fn serve(zone: &Shared, mut stream: TcpStream) -> Result<()> {
    let mut request = [0; 16];
    loop {
        stream.read_exact(&mut request)?;
        let mut zone = lock(zone);
        let player = zone.players.remove(&ObjectId::from_u128(u128::from_le_bytes(request)));
        zone.went += player.as_ref().map_or(0, objects_of);
        drop(zone);
        let reply = codec::encode(&player)?;
        stream.write_all(&[&u32::try_from(reply.len())?.to_le_bytes()[..], &reply].concat())?;
    }
}

fn trade_all(zone: &Shared, orders: Vec<TradeOrder>, fetch: &mpsc::Sender<TradeOrder>, answers: &Answers) {
    for order in orders {
        match lock(zone).trade(&order, Instant::now(), false) {
            Some(said) => drop(answers.add(&TradeAnswer { id: order.id, bot: order.bot, said })),
            // The receivers end with the process.
            None => drop(fetch.send(order)),
        }
    }
    answers.flush();
}

fn fetch_all(zone: &Shared, orders: &Mutex<mpsc::Receiver<TradeOrder>>, answers: &Answers) {
    let mut connections = BTreeMap::new();
    while let Ok(order) = { lock(orders).recv() } {
        let said = fetch(zone, &order, &mut connections).unwrap_or(Said::Deadline);
        answers.add(&TradeAnswer { id: order.id, bot: order.bot, said });
        answers.flush();
    }
}

/// Fetches who is missing, then trades.
fn fetch(zone: &Shared, order: &TradeOrder, connections: &mut BTreeMap<usize, TcpStream>) -> Option<Said> {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let here = lock(zone);
        let (number, zones) = (here.number, here.zones());
        let mut both = [order.buyer, order.seller].map(|player| here.world.get(index(player)).copied());
        both.iter_mut().for_each(|player| *player = player.filter(|player| !here.players.contains_key(player)));
        drop(here);
        for player in both.into_iter().flatten() {
            let mut others = (0..zones).filter(|other| *other != number);
            if let Some(found) = others.find_map(|other| ask(zone, other, player, connections)) {
                let mut zone = lock(zone);
                zone.came += objects_of(&found);
                zone.players.insert(player, found);
            }
        }
        if let Some(said) = lock(zone).trade(order, begun, true) {
            return Some(said);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Asks another zone for a player. A connection that fails is made anew at the next question.
fn ask(zone: &Shared, other: usize, player: ObjectId, open: &mut BTreeMap<usize, TcpStream>) -> Option<Player> {
    let mut answered = || -> Result<Option<Player>> {
        let stream = match open.entry(other) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let address = std::fs::read_to_string(file(&lock(zone).folder, other, "address"))?;
                let stream = place.insert(TcpStream::connect(address)?);
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(&player.as_u128().to_le_bytes())?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; usize::try_from(u32::from_le_bytes(length))?];
        stream.read_exact(&mut reply)?;
        Ok(codec::decode(&reply)?)
    };
    answered().unwrap_or_else(|_| {
        open.remove(&other);
        None
    })
}

/// Counts what the last saves hold; all zones have just saved.
pub(crate) fn audit(run: &str, created: Totals) -> Result<Findings> {
    let (folder, mut tally) = (folder_of(run), Tally::default());
    for zone in 0.. {
        let Ok(save) = std::fs::read(file(&folder, zone, "save")) else { break };
        let name = format!("zone {zone}");
        for (id, player) in codec::decode::<Vec<(ObjectId, Player)>>(&save)? {
            for item in &player.inventory {
                let value = Item { holder: Ref::from_id(id), kind: String::new() };
                tally.meet(&name, item.id(), &encode_object(&value)?);
            }
            tally.meet(&name, id, &encode_object(&player)?);
        }
    }
    Ok(tally.judge(created))
}
