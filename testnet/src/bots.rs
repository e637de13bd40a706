//! The bots: each has one order under way at one peer, and a new one with each answer.
//!
//! A bot whose peer is gone connects to another and goes on with its players. It refuses to know processes and clocks,
//! and to judge what an answer says.

use crate::ledger::Named;
use crate::places::Places;
use crate::records::TradeOrder;
use crate::recovery::Recovery;
use crate::shares::next_to_move;
use fastrand::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Bots for each peer that a run begins with. So many that a process works through its turn on a busy machine, and is not
/// woken for a few trades each time.
pub(crate) const BOTS: usize = 32;
/// Most that a trade costs.
const PRICE_MAX: u16 = 5;
/// One order of so many asks to be told when its commit is stable.
const WATCHED_OF: u64 = 64;

/// An order under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct UnderWay {
    trade: Named,
    peer: usize,
}

#[derive(Debug, Default)]
struct Bot {
    /// `None` while no peer lives.
    peer: Option<usize>,
    order: Option<UnderWay>,
    /// Players of a peer that is gone: it tries these first, until it has reached them.
    looks_after: VecDeque<u32>,
}

/// All bots of a run, and where they believe the players to be.
#[derive(Debug)]
pub(crate) struct Bots {
    bots: Vec<Bot>,
    /// Orders that their bots do not wait for any more, because their peer did not answer.
    given_up: BTreeMap<u64, UnderWay>,
    places: Places,
    recovery: Recovery,
    locality: f64,
    rng: Rng,
    next_trade: u64,
}

impl Bots {
    /// An even share of bots at each peer, whose players are numbered in this order.
    pub(crate) fn new(shares: &[usize], locality: f64, seed: u64) -> Self {
        let places = Places::new(shares);
        let bot = |number: usize| Bot { peer: Some(number % shares.len().max(1)), ..Bot::default() };
        Self {
            bots: (0..BOTS * shares.len()).map(bot).collect(),
            given_up: BTreeMap::new(),
            recovery: Recovery::new(places.len()),
            places,
            locality,
            rng: Rng::with_seed(seed),
            next_trade: 1,
        }
    }

    /// How many bots there are.
    pub(crate) fn len(&self) -> usize {
        self.bots.len()
    }

    /// Players and their recovery after kills.
    pub(crate) const fn recovery(&mut self) -> (&mut Recovery, &Places) {
        (&mut self.recovery, &self.places)
    }

    /// Whether a bot has no order under way.
    pub(crate) fn is_free(&self, number: usize) -> bool {
        self.bots.get(number).is_some_and(|bot| bot.order.is_none())
    }

    /// Draws a bot's next order, and for which peer. `None` while it has one under way, or nobody to trade with.
    pub(crate) fn order(&mut self, number: usize) -> Option<(usize, TradeOrder)> {
        let bot = self.bots.get_mut(number).filter(|bot| bot.order.is_none())?;
        let peer = bot.peer?;
        let lost = std::iter::from_fn(|| bot.looks_after.pop_front()).find(|player| self.places.is_away(*player));
        let player = lost.or_else(|| self.places.choose(peer, None, &mut self.rng))?;
        let partner = if self.rng.f64() < self.locality {
            self.places.choose(peer, Some(player), &mut self.rng)
        } else {
            self.places.choose_any(player, &mut self.rng)
        };
        let Some(partner) = partner else {
            bot.looks_after.extend(lost);
            return None;
        };
        self.places.send(partner, peer);
        let (buyer, seller) = if self.rng.bool() { (player, partner) } else { (partner, player) };
        let id = self.next_trade;
        self.next_trade += 1;
        bot.order = Some(UnderWay { trade: Named { id, buyer, seller }, peer });
        [buyer, seller].into_iter().for_each(|player| self.recovery.tried(player, peer, Instant::now));
        let order = TradeOrder {
            id,
            bot: u32::try_from(number).unwrap_or(u32::MAX),
            buyer,
            seller,
            price: self.rng.u16(1..=PRICE_MAX),
            choice: self.rng.u16(..),
            watched: id.is_multiple_of(WATCHED_OF),
        };
        Some((peer, order))
    }

    /// Takes the order that a peer has answered. `None` when it was never given, or answered before.
    pub(crate) fn answered(&mut self, number: usize, id: u64, peer: usize) -> Option<Named> {
        let is_it = |order: &mut UnderWay| order.trade.id == id && order.peer == peer;
        let order = self.bots.get_mut(number)?.order.take_if(is_it);
        let order = order.or_else(|| self.given_up.remove(&id).filter(|order| order.peer == peer))?;
        Some(order.trade)
    }

    /// Notes that a trade found both players at a peer, whatever became of it.
    pub(crate) fn reached(&mut self, trade: Named, peer: usize) {
        trade.players().for_each(|player| self.places.reached(player, peer));
    }

    /// Notes that a bot's trade failed: who is still out of reach is tried again.
    pub(crate) fn failed(&mut self, number: usize, trade: Named) {
        if let Some(bot) = self.bots.get_mut(number) {
            bot.looks_after.extend(trade.players().filter(|player| self.places.is_away(*player)));
        }
    }

    /// Notes where both players of a commit are.
    pub(crate) fn committed(&mut self, trade: Named, peer: usize, now: Instant) {
        self.reached(trade, peer);
        for player in trade.players() {
            self.places.confirm(player, peer);
            self.recovery.committed(player, peer, now);
        }
    }

    /// How many orders are under way at a peer.
    pub(crate) fn under_way(&self, peer: usize) -> usize {
        let orders = self.bots.iter().filter_map(|bot| bot.order.as_ref()).chain(self.given_up.values());
        orders.filter(|order| order.peer == peer).count()
    }

    /// Takes the orders that a dead peer will never answer.
    pub(crate) fn buried(&mut self, peer: usize) -> Vec<Named> {
        let mut orders: Vec<Named> = self
            .bots
            .iter_mut()
            .filter_map(|bot| bot.order.take_if(|order| order.peer == peer))
            .map(|order| order.trade)
            .collect();
        let given_up = self.given_up.extract_if(.., |_, order| order.peer == peer);
        orders.extend(given_up.map(|(_, order)| order.trade));
        orders
    }

    /// Moves the bots of a peer that is gone or does not answer to others, and divides the players there among them. What
    /// is under way there is not waited for.
    pub(crate) fn desert(&mut self, peer: usize, live: &[usize]) {
        let numbers: Vec<usize> = (0..self.bots.len()).filter(|bot| self.bots[*bot].peer == Some(peer)).collect();
        for (count, number) in numbers.iter().enumerate() {
            let bot = &mut self.bots[*number];
            bot.peer = live.get(count % live.len().max(1)).copied();
            if let Some(order) = bot.order.take() {
                // Whoever it was about comes first.
                for player in order.trade.players() {
                    if self.places.is_away(player) || self.places.at(peer).contains(&player) {
                        self.places.lose(player);
                        bot.looks_after.push_front(player);
                    }
                }
                self.given_up.insert(order.trade.id, order);
            }
        }
        // When the peer had no bots, those of others look after its players.
        let heirs = if numbers.is_empty() { (0..self.bots.len()).collect() } else { numbers };
        for (count, player) in self.places.at(peer).to_vec().into_iter().enumerate() {
            self.places.lose(player);
            if let Some(heir) = heirs.get(count % heirs.len().max(1)) {
                self.bots[*heir].looks_after.push_back(player);
            }
        }
    }

    /// A peer is new, or answers again: it gets an even share of the bots and of the players. `live` includes it.
    pub(crate) fn welcome(&mut self, peer: usize, live: &[usize]) {
        self.places.make_room_for(peer);
        let peers = live.len().max(1);
        let others = || live.iter().copied().filter(|other| *other != peer);
        for other in others() {
            let mut leave = self.places.at(other).len() / peers;
            while leave > 0 {
                let Some(player) = self.places.choose(other, None, &mut self.rng) else { break };
                self.places.send(player, peer);
                leave -= 1;
            }
        }
        let share = self.bots.len() / peers;
        for _ in 0..share {
            if let Some(number) = next_to_move(self.bots.iter().map(|bot| bot.peer), others()) {
                self.bots[number].peer = Some(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bots: &Bots, peer: usize) -> usize {
        bots.bots.iter().filter(|bot| bot.peer == Some(peer)).count()
    }

    #[test]
    fn a_bot_has_one_order_under_way_at_its_peer() {
        let mut bots = Bots::new(&[10, 10], 1.0, 1);
        let (peer, order) = bots.order(1).unwrap();
        assert_eq!(peer, 1);
        assert!(order.buyer >= 10 && order.seller >= 10 && order.buyer != order.seller);
        assert!(bots.order(1).is_none());
        assert_eq!(bots.answered(1, order.id, 0), None);
        assert_eq!(bots.answered(1, order.id, 1).map(|trade| trade.id), Some(order.id));
        assert_eq!(bots.answered(1, order.id, 1), None);
        assert_ne!(bots.order(1).unwrap().1.id, order.id);
    }

    #[test]
    fn a_partner_who_is_elsewhere_is_sent_for() {
        let mut bots = Bots::new(&[2, 100], 0.0, 1);
        for _ in 0..20 {
            if let Some((peer, order)) = bots.order(0) {
                assert!([order.buyer, order.seller].iter().all(|player| bots.places.at(peer).contains(player)));
                bots.answered(0, order.id, peer).unwrap();
            }
        }
        assert!(bots.places.at(0).len() > 2);
    }

    #[test]
    fn bots_of_a_dead_peer_go_on_with_its_players_elsewhere() {
        let mut bots = Bots::new(&[40, 40, 40], 1.0, 1);
        let (_, order) = bots.order(0).unwrap();
        bots.desert(0, &[1, 2]);
        assert_eq!((at(&bots, 0), at(&bots, 1), at(&bots, 2)), (0, 3 * BOTS / 2, 3 * BOTS / 2));
        assert!(bots.places.at(0).is_empty());
        // The order died with the peer, and its bot has a new one that names one of the players it looks after.
        assert_eq!(bots.buried(0), [Named { id: order.id, buyer: order.buyer, seller: order.seller }]);
        assert!(bots.buried(0).is_empty());
        let (peer, order) = bots.order(0).unwrap();
        assert!(peer != 0 && (order.buyer < 40) != (order.seller < 40));
        // Nobody else chooses a player who is not reached yet.
        let (_, other) = bots.order(1).unwrap();
        assert!(other.buyer >= 40 && other.seller >= 40);
    }

    #[test]
    fn a_player_who_is_not_reached_is_tried_again_and_one_who_is_plays_on() {
        let mut bots = Bots::new(&[2, 2], 1.0, 1);
        bots.desert(0, &[1]);
        let (peer, order) = bots.order(0).unwrap();
        let trade = bots.answered(0, order.id, peer).unwrap();
        let lost = if order.buyer < 2 { order.buyer } else { order.seller };
        bots.failed(0, trade);
        assert_eq!(bots.bots[0].looks_after, [lost]);
        let (_, order) = bots.order(0).unwrap();
        assert!(order.buyer == lost || order.seller == lost);
        let trade = bots.answered(0, order.id, peer).unwrap();
        bots.reached(trade, peer);
        assert!(bots.places.at(1).contains(&lost));
        bots.order(0).unwrap();
        assert!(bots.bots[0].looks_after.is_empty());
    }

    #[test]
    fn an_answer_that_comes_late_is_still_taken() {
        let mut bots = Bots::new(&[4, 4], 1.0, 1);
        let (_, order) = bots.order(0).unwrap();
        bots.desert(0, &[1]);
        let (_, second) = bots.order(0).unwrap();
        assert_eq!((bots.under_way(0), bots.under_way(1)), (1, 1));
        assert!(bots.answered(0, order.id, 0).is_some());
        assert!(bots.answered(0, second.id, 1).is_some());
        assert_eq!((bots.under_way(0), bots.under_way(1)), (0, 0));
    }

    #[test]
    fn a_newcomer_gets_its_share() {
        let mut bots = Bots::new(&[30, 30], 1.0, 1);
        bots.welcome(2, &[0, 1, 2]);
        assert_eq!(bots.places.at(2).len(), 20);
        assert_eq!(at(&bots, 2), 2 * BOTS / 3);
        assert!(at(&bots, 0).abs_diff(at(&bots, 1)) <= 1);
    }

    #[test]
    fn bots_wait_while_no_peer_lives() {
        let mut bots = Bots::new(&[4], 1.0, 1);
        bots.desert(0, &[]);
        assert!(bots.order(0).is_none());
        bots.welcome(1, &[1]);
        assert_eq!(at(&bots, 1), BOTS);
        assert!(bots.bots.iter().all(|bot| bot.order.is_none()));
    }
}
