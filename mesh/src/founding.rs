//! The live host of a founding: moves its messages over links between fresh peers, keeps its time, and hands its
//! outcome to the transport and to the core.
//!
//! It decides nothing: who agrees on what is the core's business ([`Founding`]), who may take part the transport's.

use crate::host::{Shared, count_and_should_log};
use crate::notice::{Notice, Observer};
use crate::transport::{FreshEvent, Genesis};
use driftmesh_model::{GenesisId, Micros, Now, PeerId, codec};
use driftmesh_peer::{Founding, FoundingConfig, FoundingMessage, FoundingOutput, Peer, Proposal};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the task sleeps when the founding wants no timer.
const IDLE_SLEEP: Duration = Duration::from_secs(1);

/// The founding that a peer takes part in until it belongs to a mesh.
pub(crate) struct FoundingHost {
    founding: Mutex<Founding>,
    /// What this peer proposes: who belongs to the mesh of its own proposal is the founder.
    own: GenesisId,
    begun: Instant,
    observer: Option<Observer>,
    /// Wakes the task: a timer may be wanted earlier.
    changed: Notify,
}

/// What the transport calls it.
const fn to_genesis(id: GenesisId) -> Genesis {
    Genesis::from_bytes(id.as_u128().to_be_bytes())
}

/// What the core calls it.
const fn from_genesis(genesis: Genesis) -> GenesisId {
    GenesisId::from_u128(u128::from_be_bytes(*genesis.as_bytes()))
}

impl FoundingHost {
    /// A founding that begins now. `seed` is what its delays are drawn from.
    pub(crate) fn new(peer: PeerId, expect: usize, seed: u64, observer: Option<Observer>) -> Self {
        let own = from_genesis(Genesis::random());
        let config = FoundingConfig::new(peer, expect, own, seed);
        Self {
            founding: Mutex::new(Founding::new(Micros(0), config)),
            own,
            begun: Instant::now(),
            observer,
            changed: Notify::new(),
        }
    }

    /// `None` after a panic in the founding: a peer that may have forgotten a promise must not vote any more (R23).
    fn lock(&self) -> Option<MutexGuard<'_, Founding>> {
        self.founding.lock().ok()
    }

    fn now(&self) -> Micros {
        Micros::from_duration(self.begun.elapsed())
    }

    fn input(&self, shared: &Shared, input: impl FnOnce(&mut Founding, Micros)) {
        let Some(mut founding) = self.lock() else { return };
        let malformed = founding.malformed();
        input(&mut founding, self.now());
        let (outputs, found) = (founding.take_outputs(), founding.found());
        let is_malformed = founding.malformed() > malformed;
        // Under the lock, so that the last of two inputs has the last word.
        let is_news = founding.outcome().is_none() && shared.joining.found(found);
        drop(founding);
        if is_malformed && count_and_should_log(&shared.counters.undecodable) {
            tracing::warn!("a message of the founding makes no sense; all peers must run one release");
        }
        if is_news {
            self.tell(Notice::FreshPeers { found });
        }
        for output in outputs {
            match output {
                FoundingOutput::Send { to, message } => send(shared, to, &message),
                FoundingOutput::Founded(proposal) => self.founded(shared, proposal),
            }
        }
        self.changed.notify_one();
    }

    fn tell(&self, notice: Notice) {
        if let Some(observer) = &self.observer {
            observer(notice);
        }
    }

    fn founded(&self, shared: &Shared, proposal: Proposal) {
        let genesis = to_genesis(proposal.genesis);
        let Some(transport) = shared.transport() else { return };
        // In one step of the core: whoever is admitted from now on finds there what a founder begins with (R23).
        let found = shared.step(|peer, now| {
            let found = transport.found(genesis);
            if found.is_ok() {
                self.belongs_to(peer, now, proposal.genesis);
            }
            found
        });
        if let Err(joined) = found {
            // A handshake was faster; its admission follows.
            tracing::info!(%genesis, %joined, "a mesh was joined while another was founded");
            return;
        }
        tracing::info!(%genesis, founder = %proposal.founder, "mesh founded");
        self.tell(Notice::Founded { genesis: genesis.to_string(), founder: proposal.founder });
        shared.joining.founded();
    }

    fn belongs_to(&self, peer: &mut Peer, now: Now, genesis: GenesisId) {
        // Another may have carried this peer's proposal through: one mesh has one founder all the same.
        if genesis == self.own {
            peer.founded(now);
        }
    }

    /// Something happened between this peer and a fresh one.
    pub(crate) fn event(&self, shared: &Shared, peer: PeerId, event: FreshEvent) {
        match event {
            FreshEvent::Met => self.input(shared, |founding, now| founding.met(now, peer)),
            FreshEvent::Lost => self.input(shared, |founding, now| founding.lost(now, peer)),
            FreshEvent::Said(message) => match codec::decode::<FoundingMessage>(&message) {
                Ok(message) => self.input(shared, |founding, now| founding.received(now, peer, message)),
                Err(error) => {
                    if count_and_should_log(&shared.counters.undecodable) {
                        tracing::warn!(%peer, %error, "a message of the founding does not decode");
                    }
                }
            },
        }
    }

    /// This peer was admitted to a mesh.
    pub(crate) fn adopted(&self, shared: &Shared, genesis: Genesis) {
        let genesis = from_genesis(genesis);
        if let Some(mut founding) = self.lock() {
            founding.adopted(genesis);
        }
        shared.step(|peer, now| self.belongs_to(peer, now, genesis));
        self.changed.notify_one();
    }

    /// Fires the timer that is due. Returns how long to sleep, or `None` when the founding has ended.
    fn fire(&self, shared: &Shared) -> Option<Duration> {
        let is_due = self.lock()?.next_timer().is_some_and(|next| next <= self.now());
        if is_due {
            self.input(shared, |founding, now| founding.timer_due(now));
        }
        let founding = self.lock()?;
        if founding.outcome().is_some() {
            return None;
        }
        let next = founding.next_timer();
        Some(next.map_or(IDLE_SLEEP, |next| Duration::from_micros(next.since(self.now()).0).min(IDLE_SLEEP)))
    }
}

fn send(shared: &Shared, to: PeerId, message: &FoundingMessage) {
    let sent =
        codec::encode(message).ok().zip(shared.transport()).map(|(bytes, transport)| transport.send_fresh(to, bytes));
    if sent != Some(true) {
        tracing::debug!(%to, "a message of the founding was not sent; a later ballot makes up for it");
    }
}

/// Keeps the founding's time until it has ended or the peer is gone.
pub(crate) fn spawn(shared: &Arc<Shared>, host: Arc<FoundingHost>) {
    let weak: Weak<Shared> = Arc::downgrade(shared);
    tokio::spawn(async move {
        while let Some(shared) = weak.upgrade() {
            let Some(sleep) = host.fire(&shared) else { return };
            drop(shared);
            // An earlier timer and the end of the time mean the same: look again.
            let _ = tokio::time::timeout(sleep, host.changed.notified()).await;
        }
    });
}
