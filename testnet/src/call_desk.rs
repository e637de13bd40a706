//! Where calls on lists and registers go out and what came of them is noted: the histories that `--dump` writes.
//!
//! It is in the orchestrator, so it outlives any peer. A call's interval is from before its order is written until after
//! its answer was read, so what really happened lies within. It refuses to answer for a peer that has gone: its calls
//! stay without an end.

use crate::fates::Fate;
use crate::protocol::{Asked, Order, Told, unpack_receipt};
use crate::way_in::{WayIn, frame_of};
use anyhow::{Context, Result};
use driftmesh::Receipt;
use driftmesh_sim::dump::{
    self, About, AppendCalls, CallId, Dumped, End, Mix, RegisterCalls, draw_appends, draw_registers, write_edn,
    write_json,
};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot::{Receiver, Sender, channel};

/// Errors that are told in full.
const ERRORS_TOLD_MAX: usize = 5;
/// How often a transaction pauses between its operations, in percent, and for how long at most, us.
const PAUSE_PERCENT: u8 = 30;
const PAUSE_MAX_US: u64 = 3_000;

/// What a client works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Lists.
    Lists,
    /// Registers.
    Registers,
}

/// Most calls of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many lists there are.
    pub(crate) lists: u64,
    /// How many registers.
    pub(crate) registers: u64,
    /// Most calls on lists.
    pub(crate) list_calls: usize,
    /// Most calls on registers that may have taken effect.
    pub(crate) register_calls: usize,
}

/// The desk. Shared by the clients and by the tasks that listen to the processes.
#[derive(Debug)]
pub(crate) struct CallDesk {
    begun: Instant,
    begun_s: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lists: AppendCalls,
    registers: RegisterCalls,
    /// By the numbers of their orders.
    pending: BTreeMap<u64, Pending>,
    orders: u64,
    gone: BTreeSet<usize>,
    commits: Vec<Commit>,
    /// The last element and the last version that were given away.
    appended: u64,
    written: u64,
    clients: u32,
    /// Calls on registers that may have taken effect.
    register_calls: usize,
    is_over: bool,
    errors: Vec<String>,
}

#[derive(Debug)]
struct Pending {
    peer: usize,
    call: Call,
    /// Told whether it committed; dropped when its peer has gone.
    done: Sender<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Lists(CallId),
    Registers(CallId),
}

#[derive(Clone, Copy, Debug)]
struct Commit {
    call: Call,
    receipt: Receipt,
    fate: Fate,
}

/// What all calls came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Commits on lists that are kept.
    pub(crate) lists: usize,
    /// Commits on registers that are kept.
    pub(crate) registers: usize,
    /// Commits of both that were answered and told lost later.
    pub(crate) lost: usize,
}

impl CallDesk {
    pub(crate) fn new() -> Self {
        let begun_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { begun: Instant::now(), begun_s, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in here ends the run anyway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A new client: one that does one thing after the other, at one peer.
    pub(crate) fn client(&self) -> u32 {
        let mut inner = self.lock();
        inner.clients += 1;
        inner.clients - 1
    }

    /// Draws what a client does next. `None` when there was enough of that.
    pub(crate) fn draw(&self, client: u32, kind: Kind, limits: Limits, rng: &mut Rng) -> Option<Asked> {
        let mut inner = self.lock();
        let is_enough = match kind {
            Kind::Lists => inner.lists.len() >= limits.list_calls,
            Kind::Registers => inner.register_calls >= limits.register_calls,
        };
        let mix = Mix { keys: limits.lists, client };
        (!is_enough).then(|| match kind {
            Kind::Lists => Asked::Lists { ops: draw_appends(rng, mix, &mut inner.appended) },
            Kind::Registers => Asked::Registers { ops: draw_registers(rng, limits.registers, &mut inner.written) },
        })
    }

    /// Sends a call to a peer and waits until it is answered. `Ok(None)` when the peer has gone: then nobody knows, and
    /// the client must not go on under its number. Not cancel safe: what is not awaited stays without an end.
    pub(crate) async fn call(
        &self,
        client: u32,
        (peer, way_in): (usize, &WayIn),
        asked: Asked,
        rng: &mut Rng,
    ) -> Result<Option<bool>> {
        let pause_us = if rng.u8(..100) < PAUSE_PERCENT { rng.u64(..PAUSE_MAX_US) } else { 0 };
        let Some((id, done)) = self.begin(client, peer, &asked) else { return Ok(None) };
        way_in.send(&frame_of(&Order::Call { id, asked, pause_us })?);
        Ok(done.await.ok())
    }

    fn begin(&self, client: u32, peer: usize, asked: &Asked) -> Option<(u64, Receiver<bool>)> {
        let nanos = self.nanos();
        let mut inner = self.lock();
        if inner.gone.contains(&peer) {
            return None;
        }
        let call = match asked {
            Asked::Lists { ops } => Call::Lists(inner.lists.begin(client, nanos, ops.clone())),
            Asked::Registers { ops } => {
                inner.register_calls += 1;
                Call::Registers(inner.registers.begin(client, nanos, ops.clone()))
            }
        };
        inner.orders += 1;
        let (id, (done, waits)) = (inner.orders, channel());
        inner.pending.insert(id, Pending { peer, call, done });
        Some((id, waits))
    }

    /// Takes what came of a call.
    pub(crate) fn take(&self, peer: usize, id: u64, told: Told) -> Result<()> {
        let nanos = self.nanos();
        let mut inner = self.lock();
        let pending = inner.pending.remove(&id).filter(|pending| pending.peer == peer);
        let pending = pending.with_context(|| format!("an answer to call {id}, which was not under way"))?;
        let committed = inner.end(pending.call, nanos, told)?;
        // A client that is gone needs no answer.
        let _ = pending.done.send(committed);
        Ok(())
    }

    /// A peer answers nothing any more.
    pub(crate) fn gone(&self, peer: usize) {
        let mut inner = self.lock();
        inner.gone.insert(peer);
        inner.pending.retain(|_, pending| pending.peer != peer);
    }

    /// Whether clients are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Clients end after what they do now.
    pub(crate) fn finish(&self) {
        self.lock().is_over = true;
    }

    /// How many commits on lists were answered so far, and not told lost.
    pub(crate) fn answered(&self) -> usize {
        let inner = self.lock();
        inner.commits.iter().filter(|commit| matches!(commit.call, Call::Lists(_)) && commit.fate != Fate::Lost).count()
    }

    /// The commits whose fates are not known.
    pub(crate) fn questions(&self) -> Vec<(usize, Receipt)> {
        let inner = self.lock();
        let open = inner.commits.iter().enumerate().filter(|(_, commit)| commit.fate == Fate::Unknown);
        open.map(|(place, commit)| (place, commit.receipt)).collect()
    }

    /// What became of one of them. Returns whether that is news.
    pub(crate) fn answer(&self, place: usize, told: Fate) -> bool {
        let mut inner = self.lock();
        let Some(commit) = inner.commits.get_mut(place).filter(|_| told != Fate::Unknown) else { return false };
        commit.fate = told;
        let fate = match told {
            Fate::Stable => dump::Fate::Stable,
            Fate::Lost => dump::Fate::Lost,
            Fate::Unknown => dump::Fate::Unknown,
        };
        match commit.call {
            Call::Lists(call) => inner.lists.decide(call, fate),
            Call::Registers(call) => inner.registers.decide(call, fate),
        }
        true
    }

    /// What all calls came to, as far as fates are known.
    pub(crate) fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts {
            lists: inner.lists.committed(),
            registers: inner.registers.committed(),
            lost: inner.commits.iter().filter(|commit| commit.fate == Fate::Lost).count(),
        }
    }

    /// Errors that no call should meet.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.lock().errors.clone()
    }

    /// Writes the histories.
    pub(crate) fn write(&self, seed: u64, registers: u64) -> Result<Dumped> {
        let inner = self.lock();
        let json = write_json(&inner.registers, About { id: seed, registers, start_s: self.begun_s })?;
        Ok(Dumped { edn: write_edn(&inner.lists), json })
    }

    /// How long the clients of a kind pause between two calls at most, so that so many of them make so many calls in a
    /// run of this length.
    pub(crate) fn pause_max(run: Duration, clients: usize, calls: u32) -> Duration {
        2 * run * u32::try_from(clients).unwrap_or(u32::MAX) / calls.max(1)
    }
}

impl Inner {
    /// Notes what came of a call. Returns whether it committed.
    fn end(&mut self, call: Call, nanos: u64, told: Told) -> Result<bool> {
        let fate = dump::Fate::Unknown;
        let receipt = match (call, told) {
            (Call::Lists(call), Told::Lists { ops, receipt }) => {
                self.lists.end(call, nanos, End::Committed { answered: ops, fate });
                receipt
            }
            (Call::Registers(call), Told::Registers { seen, receipt }) => {
                self.registers.end(call, nanos, End::Committed { answered: seen, fate });
                receipt
            }
            (call, Told::Failed { error, aborted }) => {
                self.errors.extend(error.filter(|_| self.errors.len() < ERRORS_TOLD_MAX));
                match call {
                    Call::Lists(call) => self.lists.end(call, nanos, if aborted { End::Aborted } else { End::Unknown }),
                    Call::Registers(call) => {
                        self.register_calls = self.register_calls.saturating_sub(usize::from(aborted));
                        self.registers.end(call, nanos, if aborted { End::Aborted } else { End::Unknown });
                    }
                }
                return Ok(false);
            }
            (Call::Lists(_), Told::Registers { .. }) | (Call::Registers(_), Told::Lists { .. }) => {
                anyhow::bail!("an answer of another kind than the call")
            }
        };
        self.commits.push(Commit { call, receipt: unpack_receipt(&receipt)?, fate: Fate::Unknown });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pack_receipt;
    use driftmesh_sim::dump::{AppendOp, check_edn};

    fn append(element: u64) -> Vec<AppendOp> {
        vec![AppendOp::Append { key: 1, element }]
    }

    fn committed(element: u64) -> Told {
        let receipt = pack_receipt(&crate::ledger::tests::receipt(1, 1, element)).unwrap();
        Told::Lists { ops: append(element), receipt }
    }

    #[test]
    fn a_call_ends_as_it_was_told_and_as_its_fate_says() {
        let desk = CallDesk::new();
        let begin = |element| desk.begin(u32::try_from(element).unwrap(), 0, &Asked::Lists { ops: append(element) });
        let calls: Vec<_> = (1..=5).map(|element| begin(element).unwrap()).collect();
        desk.take(0, calls[0].0, committed(1)).unwrap();
        desk.take(0, calls[1].0, committed(2)).unwrap();
        desk.take(0, calls[2].0, Told::Failed { error: Some("odd".into()), aborted: true }).unwrap();
        assert!(desk.take(0, calls[2].0, committed(3)).is_err(), "it has ended");
        assert!(desk.take(1, calls[3].0, committed(4)).is_err(), "it is another peer's");
        for (place, receipt) in desk.questions() {
            let lost = receipt.lsn == driftmesh::Lsn::from_u64(2);
            assert!(desk.answer(place, if lost { Fate::Lost } else { Fate::Stable }));
            assert!(!desk.answer(place, Fate::Unknown));
        }
        assert_eq!((desk.questions().len(), desk.errors()), (0, vec!["odd".to_owned()]));
        assert_eq!(desk.counts(), Counts { lists: 1, registers: 0, lost: 1 });
        let summary = check_edn(&desk.write(0, 0).unwrap().edn).unwrap();
        assert_eq!((summary.committed, summary.failed, summary.unknown), (1, 2, 2));
    }

    #[test]
    fn calls_to_a_peer_that_has_gone_are_never_answered() {
        let desk = CallDesk::new();
        let (_, mut waits) = desk.begin(0, 3, &Asked::Lists { ops: append(1) }).unwrap();
        assert!(waits.try_recv().is_err());
        desk.gone(3);
        assert!(matches!(waits.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)));
        assert!(desk.begin(1, 3, &Asked::Lists { ops: append(2) }).is_none());
        assert!(desk.begin(1, 4, &Asked::Lists { ops: append(2) }).is_some());
    }
}
