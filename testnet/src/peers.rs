//! The peer processes of a run: started, given orders all together, asked for fates, and replaced.
//!
//! It refuses to keep a process beyond its own end, and to see game objects itself: the auditing peer does.

use crate::chance;
use crate::children::{Child, PEER_PROCESS, ZONE_SERVER};
use crate::exchange::Exchange;
use crate::fates::Fate;
use crate::ledger::{Ledger, Question};
use crate::net::{self, Machine, Network};
use crate::protocol::{Answer, Order, Settled, pack_receipt, unpack};
use crate::workloads::parts::Part;
use crate::workloads::plan::{Made, Plan};
use crate::world::share;
use anyhow::{Context, Result};
use driftmesh::transport::RefuseReason;
use driftmesh::{ObjectId, Receipt};
use fastrand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a peer may take for an order that is not work.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// Where peers listen that are in no network of their own.
const LOOPBACK: &str = "127.0.0.1:0";
/// Addresses that a newcomer is given, at most.
const JOIN_MAX: usize = 3;
/// How long nobody may know more about any fate before the ledger gives up on what is not known.
const FATE_LIMIT: Duration = Duration::from_secs(10);
/// Pause before peers that knew nothing new are asked again.
const FATE_PAUSE: Duration = Duration::from_millis(50);

/// What all peers of a run share.
#[derive(Debug)]
pub(crate) struct Meeting {
    /// The mesh's name.
    pub(crate) mesh: String,
    /// Its secret.
    pub(crate) secret: String,
    /// What bots and faults are drawn from.
    pub(crate) seed: u64,
    replicas: usize,
}

impl Meeting {
    fn new(replicas: u8, seed: Option<u64>) -> Self {
        let mut chance = chance::rng();
        Self {
            mesh: format!("testnet-{:016x}", chance.u64(..)),
            secret: format!("{:032x}", chance.u128(..)),
            seed: seed.unwrap_or_else(|| chance.u64(..u64::from(u32::MAX))),
            replicas: usize::from(replicas),
        }
    }
}

/// The peer processes, and who they are in the mesh.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Where bots and processes meet.
    pub(crate) exchange: Arc<Exchange>,
    /// What all peers share.
    pub(crate) meeting: Meeting,
    subcommand: &'static str,
    /// What the processes are in, unless it is the machine's own loopback.
    network: Option<Network>,
    /// The machine that each process is on, where there is a network.
    machines: Vec<Machine>,
    /// What the identity of each is made of.
    identities: Vec<[u8; 32]>,
    chance: Rng,
    children: Vec<Child>,
    /// Whose place each process takes: its own, or that of one that was killed.
    places: Vec<usize>,
    names: Vec<String>,
    addresses: Vec<String>,
    /// The players created at each peer, packed.
    shares: Vec<String>,
    /// All players, in the order in which trades name them.
    pub(crate) world: Vec<ObjectId>,
    /// All lists and registers, packed, if there are any.
    lists: Option<(String, String)>,
    /// The world of a workload, if there is one.
    parts: Option<(Plan, Made)>,
}

/// What people call a peer.
pub(crate) fn number_of(peer: usize) -> String {
    format!("peer {peer}")
}

impl Peers {
    /// None yet; each is to have so many followers. What is drawn comes from the seed, which is drawn unless given.
    pub(crate) fn new(replicas: u8, seed: Option<u64>) -> Self {
        Self {
            exchange: Arc::new(Exchange::new()),
            meeting: Meeting::new(replicas, seed),
            subcommand: PEER_PROCESS,
            network: None,
            machines: Vec::new(),
            identities: Vec::new(),
            chance: chance::rng(),
            places: Vec::new(),
            children: Vec::new(),
            names: Vec::new(),
            addresses: Vec::new(),
            shares: Vec::new(),
            world: Vec::new(),
            lists: None,
            parts: None,
        }
    }

    /// As [`Peers::new`], each on a machine of this network.
    pub(crate) fn in_network(replicas: u8, seed: Option<u64>, network: Network) -> Self {
        Self { network: Some(network), ..Self::new(replicas, seed) }
    }

    /// Zone servers instead of peers.
    pub(crate) fn of_zones(seed: Option<u64>) -> Self {
        Self { subcommand: ZONE_SERVER, ..Self::new(0, seed) }
    }

    /// Starts so many, and waits until they see each other.
    pub(crate) async fn start(&mut self, count: usize) -> Result<()> {
        // All processes start at the same time; the peers one after the other.
        for _ in 0..count {
            let machine = self.free_machine()?;
            self.start_process(machine)?;
        }
        for number in 0..count {
            self.start_peer(number, number).await?;
        }
        let all: Vec<usize> = (0..count).collect();
        self.see_others(&all, count - 1).await
    }

    /// Starts a process, on a machine where there is a network. Returns its number.
    fn start_process(&mut self, machine: Option<Machine>) -> Result<usize> {
        let child = Child::start(&self.exchange, self.subcommand, machine.as_ref())?;
        let number = child.number();
        self.children.push(child);
        self.machines.extend(machine);
        let mut identity = [0; 32];
        self.chance.fill(&mut identity);
        self.identities.push(identity);
        Ok(number)
    }

    async fn start_peer(&mut self, number: usize, place: usize) -> Result<()> {
        let join = self.addresses_to_join();
        let Meeting { mesh, secret, replicas, .. } = &self.meeting;
        let listen = self.machines.get(number).map_or_else(|| LOOPBACK.to_owned(), Machine::listen);
        let (mesh, secret) = (mesh.clone(), secret.clone());
        let identity = self.identities.get(number).copied().with_context(|| format!("{number} was not started"))?;
        let start = Order::Start { mesh, secret, join, listen, replicas: *replicas, place, identity };
        let child = &mut self.children[number];
        child.order(&start).await?;
        let started = child.take(ORDER_LIMIT, |answer| {
            if let Answer::Started { peer, address } = answer { Some((peer.clone(), address.clone())) } else { None }
        });
        let (peer, address) = started.await?;
        self.places.push(place);
        self.names.push(peer);
        self.addresses.push(address);
        Ok(())
    }

    /// Addresses of peers that are there: of some that take trades, before that of the first.
    pub(crate) fn addresses_to_join(&self) -> Vec<String> {
        let live = self.exchange.live();
        let known = if live.is_empty() { vec![0] } else { live };
        known.into_iter().filter_map(|peer| self.addresses.get(peer).cloned()).take(JOIN_MAX).collect()
    }

    /// The addresses of all peers that were started.
    pub(crate) fn all_addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// How many processes have ended that nobody has ended.
    pub(crate) fn ended_by_themselves(&mut self) -> u64 {
        self.children.iter_mut().map(|child| u64::from(child.has_ended())).sum()
    }

    async fn see_others(&mut self, peers: &[usize], others: usize) -> Result<()> {
        self.all(peers, &Order::WaitForPeers { others }, |answer| matches!(answer, Answer::SeesAll).then_some(()))
            .await?;
        Ok(())
    }

    /// Starts one more in place of one that was killed: it joins the live ones, and is told the world. Returns its number.
    pub(crate) async fn start_another(&mut self, killed: usize) -> Result<usize> {
        let others = self.exchange.live().len();
        // It is on the same machine at the same address, once the former one has let go of it.
        self.child(killed)?.ended().await?;
        let machine = self.machines.get(killed).cloned();
        let number = self.start_process(machine)?;
        self.let_in(number, killed, others).await?;
        Ok(number)
    }

    /// Starts one more process as a peer that runs: with its identity, on another machine. Returns its number.
    pub(crate) async fn start_copy(&mut self, original: usize) -> Result<usize> {
        let others = self.exchange.live().into_iter().filter(|live| *live != original).count();
        let machine = self.free_machine()?;
        let number = self.start_process(machine)?;
        self.identities[number] = self.identities[original];
        self.let_in(number, original, others).await?;
        Ok(number)
    }

    /// Lets a new process join in the place of another, and tells it the world.
    async fn let_in(&mut self, number: usize, before: usize, others: usize) -> Result<()> {
        let place = self.places.get(before).copied().unwrap_or(before);
        self.start_peer(number, place).await?;
        self.see_others(&[number], others).await?;
        self.tell_world(&[number]).await?;
        self.tell_parts(&[number]).await?;
        self.tell_lists(&[number]).await
    }

    /// Creates an even share of the players at each peer; returns how many at each.
    pub(crate) async fn create_world(&mut self, players: u64) -> Result<Vec<usize>> {
        let count = self.children.len();
        let mut sizes = Vec::with_capacity(count);
        for (number, child) in (0..).zip(&self.children) {
            child.order(&Order::Create { number, players: share(players, count as u64, number) }).await?;
        }
        for child in &mut self.children {
            let created =
                |answer: &Answer| if let Answer::Created { players } = answer { Some(players.clone()) } else { None };
            let packed = child.take(ORDER_LIMIT, created).await?;
            let mut created = unpack(&packed)?;
            sizes.push(created.len());
            self.world.append(&mut created);
            self.shares.push(packed);
        }
        let all: Vec<usize> = (0..count).collect();
        self.tell_world(&all).await?;
        Ok(sizes)
    }

    /// Creates the world of a workload, each part at a peer by chance, and tells all peers of it. Where each player is at
    /// first, by the places' numbers.
    pub(crate) async fn create_parts(&mut self, plan: Plan, rng: &mut Rng) -> Result<(Made, Vec<Option<usize>>)> {
        let (created, at) = self.create_at_random(plan.places(), rng).await?;
        let mut made = plan.take_places(created);
        let (places, heroes): (Vec<_>, Vec<_>) = plan.heroes(&made, rng).into_iter().unzip();
        (made.heroes, _) = self.create_at_random(heroes, rng).await?;
        let count = self.children.len();
        let mut filled = vec![Vec::new(); count];
        for (place, peer) in plan.filled(&made, &places).into_iter().zip(at) {
            filled[peer].push(place);
        }
        for (child, places) in self.children.iter().zip(filled) {
            child.order(&Order::FillPlaces { places }).await?;
        }
        let ready = |answer: &Answer| matches!(answer, Answer::Ready).then_some(());
        for child in &mut self.children {
            child.take(ORDER_LIMIT, ready).await?;
        }
        self.world = made.heroes.iter().chain(&made.stalls).copied().collect();
        self.parts = Some((plan, made.clone()));
        let all: Vec<usize> = (0..count).collect();
        self.tell_parts(&all).await?;
        Ok((made, places))
    }

    /// The objects that were created, in the order of their parts, and at which peer each was.
    async fn create_at_random(&mut self, parts: Vec<Part>, rng: &mut Rng) -> Result<(Vec<ObjectId>, Vec<usize>)> {
        let count = self.children.len();
        let at: Vec<usize> = parts.iter().map(|_| rng.usize(..count.max(1))).collect();
        for (number, child) in self.children.iter().enumerate() {
            let here = parts.iter().zip(&at).filter(|(_, peer)| **peer == number).map(|(part, _)| *part);
            child.order(&Order::CreateParts { parts: here.collect() }).await?;
        }
        let mut created = Vec::with_capacity(count);
        for child in &mut self.children {
            let packed =
                |answer: &Answer| if let Answer::Created { players } = answer { Some(players.clone()) } else { None };
            created.push(unpack(&child.take(ORDER_LIMIT, packed).await?)?.into_iter());
        }
        let objects = at.iter().map(|peer| created[*peer].next().context("a part was not created"));
        Ok((objects.collect::<Result<_>>()?, at))
    }

    async fn tell_parts(&mut self, peers: &[usize]) -> Result<()> {
        let Some((plan, made)) = &self.parts else { return Ok(()) };
        let order = Order::LearnParts { plan: plan.clone(), made: made.packed() };
        self.all(peers, &order, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
        Ok(())
    }

    async fn tell_world(&mut self, peers: &[usize]) -> Result<()> {
        let world = Order::World { shares: self.shares.clone() };
        self.all(peers, &world, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
        Ok(())
    }

    /// Creates so many lists and registers, an even share at each peer, and tells all peers of them.
    pub(crate) async fn create_lists(&mut self, lists: u64, registers: u64) -> Result<()> {
        let count = self.children.len() as u64;
        for (number, child) in (0..).zip(&self.children) {
            let (lists, registers) = (share(lists, count, number), share(registers, count, number));
            child.order(&Order::CreateLists { lists, registers }).await?;
        }
        let (mut all_lists, mut all_registers) = (String::new(), String::new());
        for child in &mut self.children {
            let created = |answer: &Answer| {
                if let Answer::ListsCreated { lists, registers } = answer {
                    Some((lists.clone(), registers.clone()))
                } else {
                    None
                }
            };
            let (lists, registers) = child.take(ORDER_LIMIT, created).await?;
            all_lists.push_str(&lists);
            all_registers.push_str(&registers);
        }
        self.lists = Some((all_lists, all_registers));
        let all: Vec<usize> = (0..self.children.len()).collect();
        self.tell_lists(&all).await
    }

    async fn tell_lists(&mut self, peers: &[usize]) -> Result<()> {
        let Some((lists, registers)) = self.lists.clone() else { return Ok(()) };
        let order = Order::LearnLists { lists, registers };
        self.all(peers, &order, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
        Ok(())
    }

    /// Which lists and registers the live peers do not find, and why; each is asked.
    pub(crate) async fn search_lists(&mut self) -> Result<Vec<String>> {
        let Some((lists, registers)) = self.lists.clone() else { return Ok(Vec::new()) };
        self.search(lists + &registers).await
    }

    /// Which of these objects the live peers do not find, and why; each is asked.
    pub(crate) async fn search(&mut self, objects: String) -> Result<Vec<String>> {
        let live = self.exchange.live();
        let missed =
            |answer: &Answer| if let Answer::Searched { missed } = answer { Some(missed.clone()) } else { None };
        let found = self.all(&live, &Order::Search { objects }, missed).await?;
        let told = live.iter().zip(found).flat_map(|(peer, missed)| {
            missed.into_iter().map(move |missed| format!("at {} {missed}", number_of(*peer)))
        });
        Ok(told.collect())
    }

    /// Asks live peers in turns until the fate of every commit on lists and registers is known, or nobody knows more.
    pub(crate) async fn learn_call_fates(&mut self) -> Result<()> {
        let live = self.exchange.live();
        let mut last_news = Instant::now();
        for peer in live.iter().copied().cycle() {
            let questions = self.exchange.desk.questions();
            if questions.is_empty() || last_news.elapsed() >= FATE_LIMIT {
                break;
            }
            let fates = self.fates(peer, questions.iter().map(|(_, receipt)| receipt)).await?;
            let answers = questions.iter().zip(fates);
            if answers.filter(|((place, _), fate)| self.exchange.desk.answer(*place, *fate)).count() > 0 {
                last_news = Instant::now();
            } else {
                tokio::time::sleep(FATE_PAUSE).await;
            }
        }
        Ok(())
    }

    /// The network that the processes are in.
    pub(crate) const fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// A machine on which no process is yet, where there is a network.
    pub(crate) fn free_machine(&mut self) -> Result<Option<Machine>> {
        self.network.as_mut().map(Network::plug_in).transpose()
    }

    /// The machines of these processes.
    pub(crate) fn machines(&self, peers: &[usize]) -> Vec<net::Number> {
        peers.iter().filter_map(|peer| Some(self.machines.get(*peer)?.number)).collect()
    }

    /// The process with this number.
    pub(crate) fn child(&mut self, number: usize) -> Result<&mut Child> {
        self.children.get_mut(number).with_context(|| format!("there is no peer process {number}"))
    }

    /// What the mesh calls these peers.
    pub(crate) fn names(&self, peers: &[usize]) -> Vec<String> {
        peers.iter().filter_map(|peer| self.names.get(*peer).cloned()).collect()
    }

    /// Waits at each live peer until nothing moves any more, and takes what it says then.
    pub(crate) async fn settle(&mut self) -> Result<Vec<Settled>> {
        let live = self.exchange.live();
        let settled =
            |answer: &Answer| if let Answer::Settled(settled) = answer { Some(settled.clone()) } else { None };
        self.all(&live, &Order::Settle, settled).await
    }

    /// Asks live peers in turns until the fate of every commit in the ledger is known, or nobody knows more.
    pub(crate) async fn learn_fates(&mut self) -> Result<()> {
        let live = self.exchange.live();
        let mut last_news = Instant::now();
        for peer in live.iter().copied().cycle() {
            let questions = self.exchange.ledger(Ledger::questions);
            if questions.is_empty() || last_news.elapsed() >= FATE_LIMIT {
                break;
            }
            let fates = self.fates(peer, questions.iter().map(|question| &question.receipt)).await?;
            let answers = questions.iter().zip(&fates);
            let news = |ledger: &mut Ledger| answers.filter(|(question, fate)| ledger.answer(question, **fate)).count();
            if self.exchange.ledger(news) > 0 {
                last_news = Instant::now();
            } else {
                tokio::time::sleep(FATE_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Has commits added up that are stable, once the ledger is so long that it must.
    pub(crate) async fn shorten_ledger(&mut self) -> Result<()> {
        let questions: Vec<Question> = self.exchange.ledger(Ledger::questions_to_settle);
        let Some(peer) = self.exchange.live().first().copied().filter(|_| !questions.is_empty()) else { return Ok(()) };
        let fates = self.fates(peer, questions.iter().map(|question| &question.receipt)).await?;
        self.exchange.ledger(|ledger| {
            questions.iter().zip(fates).for_each(|(question, fate)| ledger.settle(question, fate));
        });
        Ok(())
    }

    /// Where live peers say something else about a fate than what the ledger learnt.
    pub(crate) async fn contradictions(&mut self) -> Result<Vec<String>> {
        let known = self.exchange.ledger(|ledger| ledger.boundaries());
        let mut contradictions = Vec::new();
        for peer in self.exchange.live() {
            let fates = self.fates(peer, known.iter().map(|(receipt, _)| receipt)).await?;
            for ((receipt, before), now) in known.iter().zip(fates) {
                if now != Fate::Unknown && now != *before {
                    contradictions.push(format!(
                        "{} calls the commit at {} of term {} in group {} {now:?}, another peer called it {before:?}",
                        number_of(peer),
                        receipt.lsn,
                        receipt.term,
                        receipt.group
                    ));
                }
            }
        }
        Ok(contradictions)
    }

    async fn fates(&mut self, peer: usize, receipts: impl Iterator<Item = &Receipt>) -> Result<Vec<Fate>> {
        let receipts = receipts.map(pack_receipt).collect::<Result<Vec<_>>>()?;
        let child = self.child(peer)?;
        child.order(&Order::Fates { receipts }).await?;
        child
            .take(ORDER_LIMIT, |answer| if let Answer::Fates { fates } = answer { Some(fates.clone()) } else { None })
            .await
    }

    /// Gives these peers an order, then takes their answers.
    pub(crate) async fn all<T>(
        &mut self,
        peers: &[usize],
        order: &Order,
        wanted: impl Fn(&Answer) -> Option<T>,
    ) -> Result<Vec<T>> {
        for peer in peers {
            self.child(*peer)?.order(order).await?;
        }
        let mut taken = Vec::new();
        for peer in peers {
            taken.push(self.child(*peer)?.take(ORDER_LIMIT, &wanted).await?);
        }
        Ok(taken)
    }

    /// What all processes wrote to their error outputs.
    pub(crate) fn error_lines(&self) -> Vec<String> {
        self.children.iter().flat_map(Child::error_lines).collect()
    }

    /// What the processes logged as errors and said of panics, killed ones included. A peer that found a newer process
    /// with its key says so in an error: where such processes are started, that is right.
    pub(crate) fn faults(&self) -> Vec<String> {
        let fenced = RefuseReason::DuplicateIncarnation.to_string();
        let is_wanted = |line: &String| self.network().is_some() && line.contains(&fenced);
        let of = |child: &Child| {
            let named = |line| format!("{} logged: {line}", number_of(child.number()));
            child.faults().into_iter().filter(|line| !is_wanted(line)).map(named).collect::<Vec<_>>()
        };
        self.children.iter().flat_map(of).collect()
    }

    /// Ends all processes, whatever they do.
    pub(crate) async fn end(&mut self) {
        self.children.iter_mut().for_each(Child::hang_up);
        for child in &mut self.children {
            child.end().await;
        }
    }
}
