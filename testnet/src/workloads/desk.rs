//! The players of a workload as the orchestrator drives them: each client has one act under way at one peer, for one of its
//! players, and a new one with each answer.
//!
//! Acts have ids that are kept here. What has no certain answer, because its peer died, was paused or did not know, is
//! asked for again under the same id, at another peer if need be: it takes effect once. It refuses to know processes.

use super::Workload;
use super::draw::draw;
use super::plan::Made;
use super::records::ActOrder;
use super::tasks::{Act, Deed};
use crate::ledger::{ANYBODY, NOBODY, Named};
use crate::shares::next_to_move;
use driftmesh::{Micros, ObjectId, TaskId, TaskKey};
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Before something is asked for again that nobody knew.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An act under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    order: ActOrder,
    peer: usize,
}

#[derive(Debug, Default)]
struct Client {
    /// `None` while no peer lives.
    peer: Option<usize>,
    act: Option<UnderWay>,
    /// Its players: nobody else acts for them.
    heroes: Vec<ObjectId>,
    /// To be asked for again, and when.
    again: VecDeque<(Instant, ActOrder)>,
}

/// All clients of a run.
#[derive(Debug)]
pub(crate) struct Desk {
    workload: Workload,
    made: Made,
    /// The places of players and stalls in the ledger.
    numbers: BTreeMap<ObjectId, u32>,
    clients: Vec<Client>,
    rng: Rng,
    last_id: u64,
}

/// What an act did to the accounts of a ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Effect {
    /// Whose.
    pub(crate) trade: Named,
    /// What the buyer gained in gold.
    pub(crate) gold: i16,
    /// Whether the buyer gained an item.
    pub(crate) sold: bool,
}

impl Desk {
    /// Clients for these players, an even share of both at each of so many peers.
    pub(crate) fn new(workload: Workload, made: Made, peers: usize, seed: u64) -> Self {
        let count = (workload.clients() * peers).min(made.heroes.len());
        let share = |number: usize| made.heroes.iter().skip(number).step_by(count.max(1)).copied().collect();
        let client =
            |number: usize| Client { peer: Some(number % peers.max(1)), heroes: share(number), ..Client::default() };
        let clients = (0..count).map(client).collect();
        let numbers = (0..).zip(made.heroes.iter().chain(&made.stalls)).map(|(number, object)| (*object, number));
        let numbers = numbers.collect();
        Self { workload, numbers, clients, made, rng: Rng::with_seed(seed), last_id: 0 }
    }

    /// How many clients there are.
    pub(crate) const fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether a client has no act under way.
    pub(crate) fn is_free(&self, number: usize) -> bool {
        self.clients.get(number).is_some_and(|client| client.act.is_none())
    }

    /// The next act of a client, and for which peer. `None` while it has one under way or nothing to do; where nothing is
    /// begun any more, only what has no certain answer yet.
    pub(crate) fn order(&mut self, number: usize, is_open: bool, now: Instant) -> Option<(usize, ActOrder)> {
        let client = self.clients.get_mut(number).filter(|client| client.act.is_none())?;
        let peer = client.peer?;
        let order = if client.again.front().is_some_and(|(due, _)| *due <= now) {
            let (_, order) = client.again.pop_front()?;
            ActOrder { again: true, ..order }
        } else if is_open {
            let hero = self.rng.choice(&client.heroes).copied()?;
            let id = self.last_id + 1;
            let act = draw(self.workload, &self.made, hero, id, &mut self.rng)?;
            self.last_id = id;
            let key = TaskKey::of_caller(wall(), self.rng.u64(..));
            let task = TaskId { anchor: act.hero().id(), key };
            ActOrder { id, client: u32::try_from(number).unwrap_or(u32::MAX), task, act, again: false }
        } else {
            return None;
        };
        client.act = Some(UnderWay { order, peer });
        Some((peer, order))
    }

    /// Takes the act that a peer has answered. `None` when it is not waited for there any more.
    pub(crate) fn answered(&mut self, number: usize, id: u64, peer: usize) -> Option<ActOrder> {
        let is_it = |act: &mut UnderWay| act.order.id == id && act.peer == peer;
        self.clients.get_mut(number)?.act.take_if(is_it).map(|act| act.order)
    }

    /// Whether an act with this number was ever ordered.
    pub(crate) const fn knows(&self, id: u64) -> bool {
        id <= self.last_id
    }

    /// An act has no certain answer: it is to be asked for again.
    pub(crate) fn ask_again(&mut self, order: ActOrder, now: Instant) {
        if let Some(client) = usize::try_from(order.client).ok().and_then(|number| self.clients.get_mut(number)) {
            client.again.push_back((now + AGAIN_AFTER, order));
        }
    }

    /// How many acts are under way, or to be asked for again.
    pub(crate) fn under_way(&self) -> usize {
        self.clients.iter().map(|client| usize::from(client.act.is_some()) + client.again.len()).sum()
    }

    /// Takes all that has no certain answer: nobody asks any more.
    pub(crate) fn give_up(&mut self) -> Vec<Named> {
        let mut given_up = Vec::new();
        for client in &mut self.clients {
            let under_way = client.act.take().map(|act| act.order);
            given_up.extend(under_way.into_iter().chain(client.again.drain(..).map(|(_, order)| order)));
        }
        given_up.iter().map(|order| self.named(order)).collect()
    }

    /// Moves the clients of a peer that is gone or does not answer to others. What is under way there is asked for again.
    pub(crate) fn desert(&mut self, peer: usize, live: &[usize], now: Instant) {
        let mut count = 0;
        for client in &mut self.clients {
            if let Some(act) = client.act.take_if(|act| act.peer == peer) {
                client.again.push_back((now, act.order));
            }
            if client.peer == Some(peer) || client.peer.is_none() {
                client.peer = live.get(count % live.len().max(1)).copied();
                count += 1;
            }
        }
    }

    /// A peer is new, or answers again: it gets an even share of the clients. `live` includes it.
    pub(crate) fn welcome(&mut self, peer: usize, live: &[usize]) {
        let others = || live.iter().copied().filter(|other| *other != peer);
        for _ in 0..self.clients.len() / live.len().max(1) {
            if let Some(number) = next_to_move(self.clients.iter().map(|client| client.peer), others()) {
                self.clients[number].peer = Some(peer);
            }
        }
    }

    /// Who took part in an act, as far as its order says.
    pub(crate) fn named(&self, order: &ActOrder) -> Named {
        let number = |object: ObjectId| self.numbers.get(&object).copied().unwrap_or(NOBODY);
        let other = match order.act {
            Act::Walk(_) | Act::Rest(_) | Act::Strike(_) => NOBODY,
            Act::Meet(_) => ANYBODY,
            Act::Deal(deal) => number(deal.seller.id()),
            Act::Shop(shop) => number(shop.stall.id()),
        };
        Named { id: order.id, buyer: number(order.act.hero().id()), seller: other }
    }

    /// What an act did.
    pub(crate) fn effect(&self, order: &ActOrder, deed: &Deed) -> Effect {
        let number = |object: ObjectId| self.numbers.get(&object).copied().unwrap_or(NOBODY);
        let (hero, other) = (number(order.act.hero().id()), deed.other.map_or(NOBODY, number));
        let trade = Named { id: order.id, buyer: hero, seller: other };
        if deed.items < 0 {
            // The other one has bought.
            let trade = Named { buyer: other, seller: hero, ..trade };
            return Effect { trade, gold: deed.gold.saturating_neg(), sold: true };
        }
        Effect { trade, gold: deed.gold, sold: deed.items > 0 }
    }
}

/// The wall clock, by which tasks are numbered.
fn wall() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::from_duration(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(workload: Workload) -> Desk {
        let objects = |from: u128, to: u128| (from..to).map(ObjectId::from_u128).collect();
        let made =
            Made { cells: objects(1, 4), heroes: objects(10, 110), bosses: objects(5, 6), stalls: objects(200, 202) };
        Desk::new(workload, made, 3, 1)
    }

    #[test]
    fn a_client_has_one_act_under_way_and_its_players_are_its_own() {
        let now = Instant::now();
        let mut desk = desk(Workload::Crowd);
        let mut heroes = BTreeMap::new();
        for number in 0..desk.len() {
            for _ in 0..20 {
                let (peer, order) = desk.order(number, true, now).unwrap();
                assert_eq!((peer, order.task.anchor), (number % 3, order.act.hero().id()));
                assert!(desk.order(number, true, now).is_none());
                assert_eq!(*heroes.entry(order.task.anchor).or_insert(number), number);
                assert!(desk.answered(number, order.id, (peer + 1) % 3).is_none());
                assert!(desk.answered(number, order.id, peer).is_some());
            }
        }
    }

    #[test]
    fn what_has_no_certain_answer_is_asked_for_again_under_its_id_elsewhere() {
        let now = Instant::now();
        let mut desk = desk(Workload::Boss);
        let (peer, order) = desk.order(0, true, now).unwrap();
        assert_eq!(peer, 0);
        desk.desert(0, &[1, 2], now);
        let (peer, again) = desk.order(0, false, now).unwrap();
        assert!(peer != 0 && again.again && !order.again);
        assert_eq!((again.id, again.task), (order.id, order.task));
        assert!(desk.answered(0, order.id, 0).is_none() && desk.knows(order.id));
        let again = desk.answered(0, order.id, peer).unwrap();
        desk.ask_again(again, now);
        assert!(desk.order(0, false, now).is_none(), "not yet");
        assert_eq!(desk.under_way(), 1);
        assert!(desk.order(0, false, now + AGAIN_AFTER).is_some());
        assert_eq!(desk.give_up().len(), 1);
        assert_eq!(desk.under_way(), 0);
    }

    #[test]
    fn a_newcomer_gets_its_share_and_nobody_is_left_without_a_peer() {
        let now = Instant::now();
        let mut desk = desk(Workload::World);
        desk.desert(1, &[0, 2], now);
        assert!(desk.clients.iter().all(|client| matches!(client.peer, Some(0 | 2))));
        desk.welcome(3, &[0, 2, 3]);
        let there = desk.clients.iter().filter(|client| client.peer == Some(3)).count();
        assert_eq!(there, desk.len() / 3);
        // Whoever was there before has about as many left: at first each client is at the peer of its number.
        let mut desk = self::desk(Workload::World);
        desk.welcome(3, &[0, 1, 2, 3]);
        let at = |peer: usize| desk.clients.iter().filter(|client| client.peer == Some(peer)).count();
        let counts: Vec<usize> = (0..4).map(at).collect();
        assert!(counts.iter().all(|count| count.abs_diff(desk.len() / 4) <= 1), "{counts:?}");
        // The same in a run of three of which one is new again.
        desk.desert(0, &[1, 2, 3], now);
        desk.welcome(0, &[0, 1, 2, 3]);
        let at = |peer: usize| desk.clients.iter().filter(|client| client.peer == Some(peer)).count();
        let counts: Vec<usize> = (0..4).map(at).collect();
        assert!(counts.iter().all(|count| count.abs_diff(desk.len() / 4) <= 1), "{counts:?}");
    }

    #[test]
    fn effects_name_both_sides() {
        let now = Instant::now();
        let mut desk = desk(Workload::Market);
        let (_, order) = desk.order(0, true, now).unwrap();
        let stall = Some(ObjectId::from_u128(200));
        let bought = desk.effect(&order, &Deed { other: stall, gold: -3, items: 1 });
        assert_eq!((bought.trade.buyer, bought.trade.seller, bought.gold, bought.sold), (0, 100, -3, true));
        let sold = desk.effect(&order, &Deed { other: stall, gold: 3, items: -1 });
        assert_eq!((sold.trade.buyer, sold.trade.seller, sold.gold, sold.sold), (100, 0, -3, true));
        let alone = desk.effect(&order, &Deed::default());
        assert_eq!((alone.trade.buyer, alone.trade.seller, alone.sold), (0, NOBODY, false));
    }
}
