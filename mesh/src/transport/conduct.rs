//! How members behave: what each said that no peer ever says, and who is refused for it for a while.
//!
//! Only what an honest peer cannot say counts, whatever faults there are: late, doubled, reordered and outdated messages
//! are normal. It refuses to forgive at once, and to remember more offenders than a bound.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use driftmesh_model::PeerId;

use super::limits::{
    DROPPED_FOR, DROPPED_FOR_MAX, OFFENCE_FORGIVEN_AFTER, OFFENCES_MAX, OFFENDERS_REMEMBERED, OFFENDERS_SHOWN,
};

/// What a handler makes of payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Payloads that are no message.
    pub undecodable: u32,
    /// Messages that no peer says, whatever faults there are.
    pub impossible: u32,
    /// How long they kept everybody else waiting.
    pub held: Duration,
}

/// A member that said what no peer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offender {
    /// Who.
    pub peer: PeerId,
    /// Payloads that were no message.
    pub undecodable: u64,
    /// Messages that no peer says.
    pub impossible: u64,
    /// Connections that ended with bytes that are no frame.
    pub malformed: u64,
    /// How often it was dropped.
    pub dropped: u32,
    /// How long it will still be refused.
    pub refused_for: Option<Duration>,
}

impl Offender {
    const fn offences(&self) -> u64 {
        self.undecodable + self.impossible + self.malformed
    }
}

/// One member's record.
#[derive(Clone, Copy, Debug)]
struct Record {
    undecodable: u64,
    impossible: u64,
    malformed: u64,
    dropped: u32,
    /// When all offences will be forgiven: each moves it on.
    even_at: Instant,
    /// Until when it is refused.
    refused_until: Option<Instant>,
}

impl Record {
    const fn new(now: Instant) -> Self {
        Self { undecodable: 0, impossible: 0, malformed: 0, dropped: 0, even_at: now, refused_until: None }
    }

    fn refused_for(&self, now: Instant) -> Option<Duration> {
        self.refused_until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Drops the member, each time for longer.
    fn drop_it(&mut self, now: Instant) -> Duration {
        let doubled = DROPPED_FOR * 2_u32.saturating_pow(self.dropped.min(16));
        let refused_for = doubled.min(DROPPED_FOR_MAX);
        self.dropped = self.dropped.saturating_add(1);
        self.even_at = now;
        self.refused_until = Some(now + refused_for);
        refused_for
    }

    /// When it need not be remembered any more.
    fn forgotten_at(&self) -> Instant {
        self.refused_until.map_or(self.even_at, |until| self.even_at.max(until + DROPPED_FOR_MAX))
    }
}

/// The records of all that offended.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    records: HashMap<PeerId, Record>,
}

impl Conduct {
    /// A member said what no peer says. Returns for how long it is refused from now on, if that was too much.
    pub(super) fn offended(&mut self, peer: PeerId, received: Received, now: Instant) -> Option<Duration> {
        let offences = received.undecodable.saturating_add(received.impossible);
        if offences == 0 {
            return None;
        }
        let record = self.record(peer, now);
        record.undecodable += u64::from(received.undecodable);
        record.impossible += u64::from(received.impossible);
        record.even_at = record.even_at.max(now) + OFFENCE_FORGIVEN_AFTER * offences;
        let is_too_much = record.even_at - now > OFFENCE_FORGIVEN_AFTER * OFFENCES_MAX;
        is_too_much.then(|| record.drop_it(now))
    }

    /// Bytes of a member were no frame: its stream cannot be read on. Returns for how long it is refused.
    pub(super) fn broke_the_protocol(&mut self, peer: PeerId, now: Instant) -> Duration {
        let record = self.record(peer, now);
        record.malformed += 1;
        record.drop_it(now)
    }

    /// For how long a peer is still refused.
    pub(super) fn refused_for(&self, peer: &PeerId, now: Instant) -> Option<Duration> {
        self.records.get(peer)?.refused_for(now)
    }

    /// The worst, a bounded number of them.
    pub(super) fn worst(&self, now: Instant) -> Vec<Offender> {
        let mut all: Vec<Offender> = self
            .records
            .iter()
            .map(|(peer, record)| Offender {
                peer: *peer,
                undecodable: record.undecodable,
                impossible: record.impossible,
                malformed: record.malformed,
                dropped: record.dropped,
                refused_for: record.refused_for(now),
            })
            .collect();
        all.sort_unstable_by_key(|offender| (std::cmp::Reverse(offender.offences()), offender.peer));
        all.truncate(OFFENDERS_SHOWN);
        all
    }

    fn record(&mut self, peer: PeerId, now: Instant) -> &mut Record {
        if self.records.len() >= OFFENDERS_REMEMBERED && !self.records.contains_key(&peer) {
            self.records.retain(|_, record| now < record.forgotten_at());
            // Whoever has a new identity for each offence is only ever refused by the bounds on connections.
            while self.records.len() >= OFFENDERS_REMEMBERED {
                let first = self.records.iter().min_by_key(|(_, record)| record.forgotten_at());
                let Some(first) = first.map(|(peer, _)| *peer) else { break };
                self.records.remove(&first);
            }
        }
        self.records.entry(peer).or_insert(Record::new(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId::from_bytes([7; 32]);

    fn undecodable(count: u32) -> Received {
        Received { undecodable: count, ..Received::default() }
    }

    #[test]
    fn who_says_nothing_wrong_has_no_record() {
        let (mut conduct, now) = (Conduct::default(), Instant::now());
        let held = Received { held: Duration::from_secs(9), ..Received::default() };
        assert_eq!(conduct.offended(PEER, held, now), None);
        assert!(conduct.records.is_empty());
    }

    #[test]
    fn a_few_offences_are_forgiven_and_more_are_too_much() {
        let (mut conduct, begin) = (Conduct::default(), Instant::now());
        for second in 0..10 * OFFENCES_MAX {
            assert_eq!(conduct.offended(PEER, undecodable(1), begin + OFFENCE_FORGIVEN_AFTER * second), None);
        }
        let now = begin + OFFENCE_FORGIVEN_AFTER * (20 * OFFENCES_MAX);
        assert_eq!(conduct.offended(PEER, undecodable(OFFENCES_MAX), now), None);
        let one = Received { impossible: 1, ..Received::default() };
        assert_eq!(conduct.offended(PEER, one, now), Some(DROPPED_FOR));
        assert_eq!(conduct.refused_for(&PEER, now), Some(DROPPED_FOR));
        assert_eq!(conduct.refused_for(&PEER, now + DROPPED_FOR), None);
        let [worst] = conduct.worst(now)[..] else { panic!("one offender") };
        assert_eq!((worst.undecodable, worst.impossible, worst.dropped), (u64::from(11 * OFFENCES_MAX), 1, 1));
    }

    #[test]
    fn who_comes_back_and_goes_on_is_refused_for_longer_each_time() {
        let (mut conduct, mut now) = (Conduct::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = conduct.broke_the_protocol(PEER, now);
            waits.push(wait);
            now += wait;
        }
        assert_eq!(waits[..2], [DROPPED_FOR, 2 * DROPPED_FOR]);
        assert_eq!(waits.last(), Some(&DROPPED_FOR_MAX));
    }

    #[test]
    fn offenders_with_ever_new_identities_are_bounded() {
        let (mut conduct, now) = (Conduct::default(), Instant::now());
        for number in 0..2 * OFFENDERS_REMEMBERED {
            let mut bytes = [9; 32];
            bytes[24..].copy_from_slice(&number.to_be_bytes());
            conduct.broke_the_protocol(PeerId::from_bytes(bytes), now + Duration::from_millis(number as u64));
        }
        assert_eq!(conduct.records.len(), OFFENDERS_REMEMBERED);
        assert_eq!(conduct.worst(now).len(), OFFENDERS_SHOWN);
    }
}
