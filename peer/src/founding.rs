//! Founding a mesh by agreement: fresh peers, none of which has a genesis, decide on one.
//!
//! Single-decree Paxos (Lamport, "Paxos Made Simple", 2001) among the fresh peers that see each other. Every peer is
//! told the same number N, more than half of the peers that are planned, and nothing is decided without the promises
//! and the acceptances of N peers: any two sets of N among fewer than 2 N peers share one, which remembers. A majority
//! of N would not do, because fewer than 2 N peers have room for two of those.
//!
//! It refuses to find peers, to compare their N (the handshake does, before the first message), to keep anything over
//! a restart (who restarts is another peer, so its former self has left the vote), and to go on voting once its peer
//! belongs to a mesh.

use crate::Sabotage;
use driftmesh_model::{GenesisId, Micros, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most fresh peers that an operator can wait for.
pub const EXPECT_MAX: usize = 128;
/// Most fresh peers in reach that are remembered: all that N = [`EXPECT_MAX`] can mean.
const FRESH_PEERS_MAX: usize = 2 * EXPECT_MAX;
/// How long a fresh peer looks for a mesh before it may propose one: an existing mesh comes first.
const LOOK_FIRST: Micros = Micros::from_millis(2_000);
/// How long a ballot may take, and how long a peer that promised itself to another's ballot leaves that one alone.
const BALLOT_MAX: Micros = Micros::from_millis(2_000);
/// What separates the first ballots of two peers that follow each other in the order of ids; it doubles per attempt.
const STAGGER: Micros = Micros::from_millis(500);
/// Longest wait before a peer's next ballot, without the jitter.
const BALLOT_WAIT_MAX: Micros = Micros::from_millis(10_000);
/// How often [`STAGGER`] doubles.
const DOUBLINGS_MAX: u32 = 5;
/// Beyond it a round was made up: at a ballot each millisecond it takes a year.
const ROUND_MAX: u64 = 1 << 35;

/// A numbered attempt to found the mesh. Higher ones outrank lower ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Ballot {
    /// Above every round that the proposer has heard of.
    pub round: u64,
    /// Who proposes.
    pub peer: PeerId,
}

/// A mesh that may be founded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The genesis of the mesh.
    pub genesis: GenesisId,
    /// Who is its founder: who proposed this genesis first, whoever carries it through.
    pub founder: PeerId,
}

/// What fresh peers say to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FoundingMessage {
    /// Asks for a promise.
    Prepare {
        /// The sender's ballot.
        ballot: Ballot,
    },
    /// The sender takes part in no lower ballot any more.
    Promise {
        /// The receiver's ballot.
        ballot: Ballot,
        /// What the sender accepted last, and in which ballot.
        accepted: Option<(Ballot, Proposal)>,
    },
    /// Asks to accept a proposal.
    Accept {
        /// The sender's ballot.
        ballot: Ballot,
        /// What all promises allow.
        proposal: Proposal,
    },
    /// The sender accepted the proposal of a ballot.
    Accepted {
        /// The receiver's ballot.
        ballot: Ballot,
    },
    /// The sender is promised to a higher ballot.
    Outranked {
        /// The receiver's ballot.
        ballot: Ballot,
        /// What outranks it.
        promised: Ballot,
    },
}

/// What a founding peer wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundingOutput {
    /// Send a message. It may be lost: a later ballot makes up for it.
    Send {
        /// To this fresh peer.
        to: PeerId,
        /// This message.
        message: FoundingMessage,
    },
    /// The mesh is founded. The peer belongs to it, and whoever is fresh and meets it joins.
    Founded(Proposal),
}

/// What a founding peer is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct FoundingConfig {
    /// Who it is: new at each start.
    pub peer: PeerId,
    /// N: how many peers must agree, itself included; 1 to [`EXPECT_MAX`], the same at all peers, and more than half
    /// of the peers that are ever started before there is a mesh.
    pub expect: usize,
    /// The genesis that it proposes when it is free to choose: random.
    pub genesis: GenesisId,
    /// What its delays are drawn from.
    pub seed: u64,
    /// The one rule that is broken on purpose.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<Sabotage>,
}

impl FoundingConfig {
    /// A founding that breaks no rule.
    #[must_use]
    pub const fn new(peer: PeerId, expect: usize, genesis: GenesisId, seed: u64) -> Self {
        Self {
            peer,
            expect,
            genesis,
            seed,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

/// A ballot of this peer that is under way.
#[derive(Clone, Debug)]
struct Attempt {
    ballot: Ballot,
    deadline: Micros,
    /// Who promised, or accepted when there is a proposal.
    agreed: BTreeSet<PeerId>,
    /// The highest accepted proposal that a promise told of.
    bound_to: Option<(Ballot, Proposal)>,
    /// What is to be accepted, since N peers promised.
    proposal: Option<Proposal>,
}

/// A fresh peer that founds a mesh together with others, or finds that there is one.
#[derive(Clone, Debug)]
pub struct Founding {
    config: FoundingConfig,
    /// The other fresh peers in reach.
    seen: BTreeSet<PeerId>,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Proposal)>,
    highest_round: u64,
    attempt: Option<Attempt>,
    /// Ballots of this peer that came to nothing.
    failed: u32,
    /// Before this it proposes nothing.
    look_until: Micros,
    /// When it proposes next; `None` while fewer than N are in reach.
    due: Option<Micros>,
    outcome: Option<GenesisId>,
    outputs: Vec<FoundingOutput>,
    malformed: u64,
}

impl Founding {
    /// A fresh peer that sees nobody yet.
    ///
    /// # Panics
    /// When N is not within its bounds, which the caller has to check.
    #[must_use]
    pub fn new(now: Micros, config: FoundingConfig) -> Self {
        assert!((1..=EXPECT_MAX).contains(&config.expect), "N is 1 to {EXPECT_MAX}");
        let mut founding = Self {
            config,
            seen: BTreeSet::new(),
            promised: None,
            accepted: None,
            highest_round: 0,
            attempt: None,
            failed: 0,
            look_until: now.plus(LOOK_FIRST),
            due: None,
            outcome: None,
            outputs: Vec::new(),
            malformed: 0,
        };
        founding.schedule(now);
        founding
    }

    /// How many fresh peers are in reach, this one included.
    #[must_use]
    pub fn found(&self) -> usize {
        self.seen.len() + 1
    }

    /// The mesh that this peer belongs to.
    #[must_use]
    pub const fn outcome(&self) -> Option<GenesisId> {
        self.outcome
    }

    /// Whether this peer is the founder of its mesh: exactly one peer can be, and none is when that one stopped in the
    /// middle of the founding.
    #[must_use]
    pub fn is_founder(&self) -> bool {
        self.outcome == Some(self.config.genesis)
    }

    /// Messages that made no sense and were dropped (R25).
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// When [`Founding::timer_due`] is to be called.
    #[must_use]
    pub fn next_timer(&self) -> Option<Micros> {
        self.attempt.as_ref().map(|attempt| attempt.deadline).or(self.due)
    }

    /// Takes what the inputs since the last call have caused.
    pub fn take_outputs(&mut self) -> Vec<FoundingOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// Another fresh peer of the same N is in reach. Beyond the bound it is not counted (R24).
    pub fn met(&mut self, now: Micros, peer: PeerId) {
        if peer != self.config.peer && self.seen.len() < FRESH_PEERS_MAX {
            self.seen.insert(peer);
        }
        self.schedule(now);
    }

    /// A fresh peer is out of reach, or not fresh any more.
    pub fn lost(&mut self, now: Micros, peer: PeerId) {
        self.seen.remove(&peer);
        self.schedule(now);
    }

    /// This peer was admitted to a mesh, whatever it had promised. A vote that it cast may count elsewhere; its
    /// silence from now on is that of a peer that stopped, which the others' safety does not depend on.
    pub fn adopted(&mut self, genesis: GenesisId) {
        if self.outcome.is_none() {
            self.end(genesis);
        }
    }

    fn end(&mut self, genesis: GenesisId) {
        self.outcome = Some(genesis);
        self.attempt = None;
        self.due = None;
        self.seen.clear();
    }

    /// The time of [`Founding::next_timer`] has come; earlier calls do nothing.
    pub fn timer_due(&mut self, now: Micros) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.deadline <= now) {
            self.give_way(now);
        } else if self.attempt.is_none() && self.due.is_some_and(|due| due <= now) {
            self.propose(now);
        }
    }

    /// A fresh peer said something. What makes no sense is counted and dropped (R25).
    pub fn received(&mut self, now: Micros, from: PeerId, message: FoundingMessage) {
        if self.outcome.is_some() {
            return;
        }
        match message {
            FoundingMessage::Prepare { ballot } | FoundingMessage::Accept { ballot, .. }
                if ballot.peer != from || from == self.config.peer || ballot.round > ROUND_MAX =>
            {
                self.malformed += 1;
            }
            FoundingMessage::Prepare { ballot } => {
                let answer = self.promise(ballot);
                self.leave_alone(now);
                self.send(from, answer);
            }
            FoundingMessage::Accept { ballot, proposal } => {
                let answer = self.accept(ballot, proposal);
                self.leave_alone(now);
                self.send(from, answer);
            }
            FoundingMessage::Promise { ballot, accepted } => self.promised_by(from, ballot, accepted),
            FoundingMessage::Accepted { ballot } => self.accepted_by(from, ballot),
            FoundingMessage::Outranked { promised, .. } if promised.round > ROUND_MAX => self.malformed += 1,
            FoundingMessage::Outranked { ballot, promised } => {
                self.highest_round = self.highest_round.max(promised.round);
                if self.attempt.as_ref().is_some_and(|attempt| attempt.ballot == ballot && promised > ballot) {
                    self.give_way(now);
                }
            }
        }
    }

    fn send(&mut self, to: PeerId, message: FoundingMessage) {
        self.outputs.push(FoundingOutput::Send { to, message });
    }

    fn send_to_all(&mut self, message: FoundingMessage) {
        self.outputs.extend(self.seen.iter().map(|to| FoundingOutput::Send { to: *to, message }));
    }

    /// Whether the rule is broken in this run. Always false without the feature `sabotage`.
    #[cfg(feature = "sabotage")]
    fn broken(&self, rule: Sabotage) -> bool {
        self.config.sabotage == Some(rule)
    }

    /// Whether the rule is broken in this run: it is not.
    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    const fn broken(&self, _rule: Sabotage) -> bool {
        false
    }

    /// The acceptor's answer to a `Prepare`.
    fn promise(&mut self, ballot: Ballot) -> FoundingMessage {
        self.highest_round = self.highest_round.max(ballot.round);
        if self.broken(Sabotage::OneGenesis) {
            (self.promised, self.accepted) = (None, None);
        }
        // R23: two meshes would come out of one group if a peer took part in a lower ballot after this.
        match self.promised {
            Some(promised) if promised > ballot => FoundingMessage::Outranked { ballot, promised },
            Some(_) | None => {
                self.promised = Some(ballot);
                FoundingMessage::Promise { ballot, accepted: self.accepted }
            }
        }
    }

    /// The acceptor's answer to an `Accept`.
    fn accept(&mut self, ballot: Ballot, proposal: Proposal) -> FoundingMessage {
        self.highest_round = self.highest_round.max(ballot.round);
        if self.broken(Sabotage::OneGenesis) {
            self.promised = None;
        }
        match self.promised {
            Some(promised) if promised > ballot => FoundingMessage::Outranked { ballot, promised },
            Some(_) | None => {
                self.promised = Some(ballot);
                self.accepted = Some((ballot, proposal));
                FoundingMessage::Accepted { ballot }
            }
        }
    }

    fn propose(&mut self, now: Micros) {
        if self.highest_round >= ROUND_MAX {
            // Somebody made up rounds; waiting for a mesh of others is all that is left.
            self.due = None;
            return;
        }
        let me = self.config.peer;
        let ballot = Ballot { round: self.highest_round + 1, peer: me };
        self.attempt = Some(Attempt {
            ballot,
            deadline: now.plus(BALLOT_MAX),
            agreed: BTreeSet::new(),
            bound_to: None,
            proposal: None,
        });
        self.send_to_all(FoundingMessage::Prepare { ballot });
        // Its own vote follows the same rule as any other's; the round is above all it promised.
        if let FoundingMessage::Promise { accepted, .. } = self.promise(ballot) {
            self.promised_by(me, ballot, accepted);
        }
    }

    fn promised_by(&mut self, from: PeerId, ballot: Ballot, accepted: Option<(Ballot, Proposal)>) {
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.ballot != ballot || attempt.proposal.is_some() {
            return;
        }
        attempt.agreed.insert(from);
        if accepted.map(|(ballot, _)| ballot) > attempt.bound_to.map(|(ballot, _)| ballot) {
            attempt.bound_to = accepted;
        }
        if attempt.agreed.len() < self.config.expect {
            return;
        }
        // R23: what may have been decided already is all that may be proposed now.
        let own = Proposal { genesis: self.config.genesis, founder: self.config.peer };
        let proposal = attempt.bound_to.map_or(own, |(_, proposal)| proposal);
        attempt.proposal = Some(proposal);
        attempt.agreed.clear();
        self.send_to_all(FoundingMessage::Accept { ballot, proposal });
        if let FoundingMessage::Accepted { .. } = self.accept(ballot, proposal) {
            self.accepted_by(self.config.peer, ballot);
        }
    }

    fn accepted_by(&mut self, from: PeerId, ballot: Ballot) {
        let Some(attempt) = &mut self.attempt else { return };
        let Some(proposal) = attempt.proposal.filter(|_| attempt.ballot == ballot) else { return };
        attempt.agreed.insert(from);
        if attempt.agreed.len() >= self.config.expect {
            self.end(proposal.genesis);
            self.outputs.push(FoundingOutput::Founded(proposal));
        }
    }

    /// Ends this peer's ballot; the next one comes later.
    fn give_way(&mut self, now: Micros) {
        self.attempt = None;
        self.failed = self.failed.saturating_add(1);
        self.due = None;
        self.schedule(now);
    }

    /// Gives the ballot of another the time it needs.
    fn leave_alone(&mut self, now: Micros) {
        self.due = self.due.map(|due| due.max(now.plus(BALLOT_MAX).plus(self.jitter())));
    }

    fn schedule(&mut self, now: Micros) {
        if self.outcome.is_some() || self.attempt.is_some() {
            return;
        }
        if self.found() < self.config.expect {
            self.due = None;
        } else if self.due.is_none() {
            self.due = Some(now.max(self.look_until).plus(self.wait()));
        }
    }

    /// How long to wait before the next ballot: the lowest peer goes first, and who failed waits longer, so that one
    /// of several has the time to end its ballot.
    fn wait(&self) -> Micros {
        let rank = self.seen.range(..self.config.peer).count() as u64;
        let turn = if self.failed == 0 { rank } else { rank + 1 };
        let step = STAGGER.0 << self.failed.saturating_sub(1).min(DOUBLINGS_MAX);
        let wait = Micros(turn.saturating_mul(step).min(BALLOT_WAIT_MAX.0));
        if turn == 0 { wait } else { wait.plus(self.jitter()) }
    }

    /// Less than [`STAGGER`], and another for each attempt.
    fn jitter(&self) -> Micros {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.config.seed.to_be_bytes());
        bytes[8..].copy_from_slice(&self.failed.to_be_bytes());
        let hash = blake3::hash(&bytes);
        let first: [u8; 8] = std::array::from_fn(|index| hash.as_bytes()[index]);
        Micros(u64::from_be_bytes(first) % STAGGER.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn fresh(number: u8, expect: usize) -> Founding {
        let config = FoundingConfig {
            peer: peer(number),
            expect,
            genesis: GenesisId::from_u128(number.into()),
            seed: number.into(),
            #[cfg(feature = "sabotage")]
            sabotage: None,
        };
        Founding::new(Micros(0), config)
    }

    fn ballot(round: u64, number: u8) -> Ballot {
        Ballot { round, peer: peer(number) }
    }

    /// Fires the timer when it is due.
    fn wait(founding: &mut Founding) -> Vec<FoundingOutput> {
        let due = founding.next_timer().unwrap();
        founding.timer_due(due);
        founding.take_outputs()
    }

    fn proposal(number: u8) -> Proposal {
        Proposal { genesis: GenesisId::from_u128(number.into()), founder: peer(number) }
    }

    #[test]
    fn one_expected_peer_looks_for_a_mesh_first_and_then_founds_alone() {
        let mut alone = fresh(1, 1);
        assert_eq!(alone.next_timer(), Some(LOOK_FIRST));
        assert_eq!(wait(&mut alone), [FoundingOutput::Founded(proposal(1))]);
        assert!(alone.is_founder() && alone.next_timer().is_none());
    }

    #[test]
    fn nothing_is_proposed_while_fewer_than_n_are_in_reach() {
        let mut founding = fresh(1, 3);
        founding.met(Micros(0), peer(2));
        founding.met(Micros(0), peer(2));
        founding.met(Micros(0), peer(1));
        assert_eq!((founding.found(), founding.next_timer()), (2, None));
        founding.met(Micros(0), peer(3));
        assert!(founding.next_timer().is_some());
        founding.lost(Micros(0), peer(3));
        assert_eq!(founding.next_timer(), None);
    }

    #[test]
    fn it_takes_n_promises_and_n_acceptances_and_repetitions_do_not_count() {
        let mut founding = fresh(1, 3);
        founding.met(Micros(0), peer(2));
        founding.met(Micros(0), peer(3));
        let ballot = ballot(1, 1);
        assert_eq!(wait(&mut founding).len(), 2);
        let promise = FoundingMessage::Promise { ballot, accepted: None };
        for _ in 0..3 {
            founding.received(LOOK_FIRST, peer(2), promise);
            assert_eq!(founding.take_outputs(), []);
        }
        founding.received(LOOK_FIRST, peer(3), promise);
        assert_eq!(founding.take_outputs().len(), 2, "now it asks for acceptances");
        for _ in 0..3 {
            founding.received(LOOK_FIRST, peer(2), FoundingMessage::Accepted { ballot });
            assert_eq!(founding.outcome(), None);
        }
        founding.received(LOOK_FIRST, peer(3), FoundingMessage::Accepted { ballot });
        assert_eq!(founding.take_outputs(), [FoundingOutput::Founded(proposal(1))]);
    }

    #[test]
    fn what_may_have_been_decided_is_carried_through_with_its_founder() {
        let mut founding = fresh(3, 2);
        founding.met(Micros(0), peer(2));
        founding.received(Micros(1), peer(2), FoundingMessage::Accept { ballot: ballot(4, 2), proposal: proposal(2) });
        assert!(matches!(
            founding.take_outputs()[..],
            [FoundingOutput::Send { message: FoundingMessage::Accepted { .. }, .. }]
        ));
        wait(&mut founding);
        let mine = ballot(5, 3);
        let accepted = Some((ballot(3, 9), proposal(9)));
        founding.received(Micros(1), peer(2), FoundingMessage::Promise { ballot: mine, accepted });
        founding.received(Micros(1), peer(2), FoundingMessage::Accepted { ballot: mine });
        let founded = FoundingOutput::Founded(proposal(2));
        assert_eq!(founding.take_outputs().last(), Some(&founded), "the higher of the two accepted ones");
        assert!(!founding.is_founder());
    }

    #[test]
    fn a_promise_outranks_lower_ballots_and_their_proposers_learn_by_what() {
        let mut founding = fresh(1, 2);
        founding.received(Micros(0), peer(3), FoundingMessage::Prepare { ballot: ballot(7, 3) });
        founding.take_outputs();
        let lower = ballot(7, 2);
        founding.received(Micros(0), peer(2), FoundingMessage::Accept { ballot: lower, proposal: proposal(2) });
        let message = FoundingMessage::Outranked { ballot: lower, promised: ballot(7, 3) };
        assert_eq!(founding.take_outputs(), [FoundingOutput::Send { to: peer(2), message }]);

        let mut proposer = fresh(2, 2);
        proposer.met(Micros(0), peer(1));
        wait(&mut proposer);
        let promised = ballot(7, 3);
        let now = proposer.next_timer().unwrap();
        proposer.received(now, peer(1), FoundingMessage::Outranked { ballot: ballot(1, 2), promised });
        proposer.take_outputs();
        let message = FoundingMessage::Prepare { ballot: ballot(8, 2) };
        assert_eq!(wait(&mut proposer), [FoundingOutput::Send { to: peer(1), message }]);
    }

    #[test]
    fn who_joined_a_mesh_votes_no_more_whatever_it_promised() {
        let mut founding = fresh(1, 2);
        founding.met(Micros(0), peer(2));
        founding.received(Micros(0), peer(2), FoundingMessage::Accept { ballot: ballot(1, 2), proposal: proposal(2) });
        founding.take_outputs();
        founding.adopted(GenesisId::from_u128(99));
        founding.received(Micros(0), peer(2), FoundingMessage::Prepare { ballot: ballot(2, 2) });
        assert_eq!((founding.take_outputs(), founding.next_timer()), (vec![], None));
        assert_eq!(founding.outcome(), Some(GenesisId::from_u128(99)));
        assert!(!founding.is_founder());
    }

    #[test]
    fn who_meets_the_mesh_of_its_own_proposal_is_its_founder() {
        let mut founding = fresh(1, 2);
        founding.adopted(GenesisId::from_u128(1));
        assert!(founding.is_founder());
    }

    #[test]
    fn ballots_in_the_name_of_others_and_made_up_rounds_are_counted_and_dropped() {
        let mut founding = fresh(1, 2);
        for message in [
            FoundingMessage::Prepare { ballot: ballot(1, 3) },
            FoundingMessage::Prepare { ballot: ballot(u64::MAX, 2) },
            FoundingMessage::Accept { ballot: ballot(1, 3), proposal: proposal(3) },
            FoundingMessage::Outranked { ballot: ballot(1, 1), promised: ballot(u64::MAX, 2) },
        ] {
            founding.received(Micros(0), peer(2), message);
        }
        assert_eq!((founding.malformed(), founding.take_outputs()), (4, vec![]));
        // The highest round that is believed leaves no room for another, and no panic.
        founding.met(Micros(0), peer(2));
        founding.received(Micros(0), peer(2), FoundingMessage::Prepare { ballot: ballot(ROUND_MAX, 2) });
        founding.take_outputs();
        assert_eq!(wait(&mut founding), []);
        assert_eq!(founding.next_timer(), None);
    }
}
