//! W6, the session that travels: a client goes from peer to peer, takes along what it was told, and reads what it wrote.
//!
//! It is at one peer at a time. When that one crashes it goes on at another, with what it was told before. All it reads
//! and writes is one session to the history checker; and its diary, which nobody else writes, must be as it left it,
//! except for what was lost. It refuses to stay at peers whose clocks are wrong.

use super::end::{End, Notes};
use crate::client::{Came, Client};
use crate::game::Tally;
use crate::host::SimHost;
use crate::workloads::Maker;
use driftmesh_model::{Ref, Timestamp};
use driftmesh_object_store::Fate;
use driftmesh_peer::session::{Error, Isolation, Reads};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

const TRAVELLERS: u32 = 2;
/// Sessions of travellers begin here.
const SESSIONS_FROM: u32 = 3_000_000;
/// Most things that one does before it goes on to another peer.
const STAY_MAX: usize = 3;

/// Whether a client that travels wrote or read its diary, and how many entries that had then.
#[derive(Clone, Copy, Debug)]
enum Did {
    Wrote(u64),
    Read(u64),
}

/// Who travels, and what it knows.
#[derive(Clone)]
struct Traveller {
    session: u32,
    diary: Ref<Tally>,
    told: Timestamp,
    did: Notes<Did>,
}

/// Those who travel in a run.
#[derive(Clone)]
pub(crate) struct Travellers {
    all: Arc<[Traveller]>,
    /// Those who are at no peer just now.
    waiting: Arc<Mutex<VecDeque<Traveller>>>,
}

/// One who is at a peer. Whatever ends that, it can go on elsewhere.
struct Visit {
    traveller: Traveller,
    waiting: Arc<Mutex<VecDeque<Traveller>>>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.traveller.clone());
    }
}

impl Travellers {
    pub(super) async fn create(client: &mut Client) -> Option<Self> {
        let make = |maker: Maker| async move {
            let mut all = Vec::new();
            for number in 0..TRAVELLERS {
                let diary = maker.create(Tally::default())?;
                let session = SESSIONS_FROM + number;
                all.push(Traveller { session, diary, told: Timestamp::ZERO, did: Notes::default() });
            }
            Ok(all)
        };
        let all: Vec<Traveller> = client.make("create diaries", make).await?;
        Some(Self { waiting: Arc::new(Mutex::new(all.iter().cloned().collect())), all: all.into() })
    }

    fn next(&self) -> Option<Visit> {
        let traveller = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        Some(Visit { traveller, waiting: Arc::clone(&self.waiting) })
    }

    pub(super) fn judge(&self, end: &mut End<'_>) {
        for Traveller { session, diary, did, .. } in self.all.iter() {
            let mut entries = 0;
            let mut is_known = true;
            for (fate, did) in did.with_fates(end.fates) {
                is_known &= fate != Fate::Unknown;
                let right = match did {
                    Did::Wrote(entries_then) => (entries_then == entries + 1, entries_then),
                    Did::Read(entries_then) => (entries_then == entries, entries_then),
                };
                if fate == Fate::Lost || !is_known {
                    continue;
                }
                if !right.0 {
                    end.wrong.push(format!("session {session} had {entries} entries in its diary and then {did:?}"));
                }
                entries = right.1;
            }
            let Some(Tally { count, .. }) = end.value(*diary) else { continue };
            if is_known && count != entries {
                end.wrong.push(format!("session {session} wrote {entries} entries in its diary, which has {count}"));
            }
        }
    }
}

impl Client {
    /// Somebody who travels comes by, stays for a while and goes on.
    pub(super) async fn receive(&mut self, travellers: &Travellers) -> Came {
        if !self.sane {
            return Came::Nothing;
        }
        let Some(mut visit) = travellers.next() else { return Came::Nothing };
        let own_session = std::mem::replace(&mut self.session, visit.traveller.session);
        let came = self.host_visit(travellers, &mut visit).await;
        self.session = own_session;
        came
    }

    async fn host_visit(&mut self, travellers: &Travellers, visit: &mut Visit) -> Came {
        let reads = Reads::begin(self.host.clone());
        match reads.go_on_from(visit.traveller.told) {
            Ok(()) => {}
            Err(Error::ClockOff { ahead_ms }) => {
                // R18: all that it was told came from clocks that are right.
                let text = format!("a session cannot go on at another peer, whose clock is {ahead_ms} ms ahead");
                self.world.recorder.violation(text);
                return Came::Nothing;
            }
            Err(_) => return Came::Nothing,
        }
        // The first snapshot carries this peer's clock past what the session was told: what it writes comes after.
        let mut came = self.read_diaries(travellers, visit, &reads).await;
        for _ in 0..self.rng.usize(..STAY_MAX) {
            if came != Came::Committed {
                break;
            }
            came = if self.rng.u8(..3) == 0 {
                self.read_diaries(travellers, visit, &reads).await
            } else {
                self.write_diary(visit, &reads).await
            };
        }
        came
    }

    /// Reads its diary, those of others and a purse, at one snapshot that may lie a little in the past.
    async fn read_diaries(&mut self, travellers: &Travellers, visit: &mut Visit, reads: &Reads<SimHost>) -> Came {
        let purse = self.purse();
        let Ok(snapshot) = reads.snapshot() else { return Came::Nothing };
        let log = self.world.recorder.transaction(self.session, "read diaries");
        let mut look = self.look_at(snapshot, log);
        let own = look.first_sees(visit.traveller.diary).await;
        if own.is_some() {
            for Traveller { diary, .. } in travellers.all.iter().filter(|other| other.session != self.session) {
                look.first_sees(*diary).await;
            }
            look.first_sees(purse).await;
        }
        visit.traveller.told = reads.told();
        let (Some(number), Some(own)) = (look.end(), own) else { return Came::Nothing };
        visit.traveller.did.note(number, Did::Read(own.count));
        Came::Committed
    }

    async fn write_diary(&mut self, visit: &mut Visit, reads: &Reads<SimHost>) -> Came {
        let diary = visit.traveller.diary;
        let think = self.think();
        let world = self.world.clone();
        let done = self.run_for("write diary", Isolation::Snapshot, move |tx, log| {
            let world = world.clone();
            async move {
                let mut value = tx.get_mut(diary).await?;
                think.pause(&world).await;
                log.change(&mut value);
                value.count += 1;
                Ok(value.count)
            }
        });
        match done.await {
            Ok((entries, committed, number)) => {
                visit.traveller.did.note(number, Did::Wrote(entries));
                reads.saw(&committed.receipt);
                visit.traveller.told = reads.told();
                Came::Committed
            }
            Err(came) => came,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::end::{judged, numbered};
    use super::*;

    fn wrong(count: u64, all: &[(Fate, Did)]) -> usize {
        let traveller = Traveller { session: 1, diary: numbered(1), told: Timestamp::ZERO, did: Notes::default() };
        all.iter().enumerate().for_each(|(number, (_, did))| traveller.did.note(number, *did));
        let travellers = Travellers { all: [traveller].into(), waiting: Arc::default() };
        let fates: Vec<Fate> = all.iter().map(|(fate, _)| *fate).collect();
        judged(&[Tally { token: 1, count }], &fates, |end| travellers.judge(end)).len()
    }

    #[test]
    fn a_session_reads_what_it_wrote_unless_that_was_lost() {
        let (stable, lost) = (Fate::Stable, Fate::Lost);
        assert_eq!(wrong(1, &[(stable, Did::Wrote(1)), (stable, Did::Read(1))]), 0);
        assert_eq!(wrong(1, &[(lost, Did::Wrote(1)), (stable, Did::Read(0)), (stable, Did::Wrote(1))]), 0);
        assert_eq!(wrong(1, &[(stable, Did::Wrote(1)), (stable, Did::Read(0))]), 2, "it read the past");
        assert_eq!(wrong(1, &[(stable, Did::Wrote(1)), (stable, Did::Wrote(1))]), 1, "an update is lost");
        assert_eq!(wrong(0, &[(stable, Did::Wrote(1))]), 1, "what is stable is gone");
    }
}
