//! Clients that watch: each event is judged like a read of a session of its own, and in the end each watch must have come
//! to the final state.
//!
//! They end with the other clients; their handles stay, and are looked at once more when everything is over.

use crate::client::{Client, World};
use crate::game::{Marked, Pouch, Purse};
use crate::host::{Clock, SimHost};
use crate::sessions::Sessions;
use driftmesh_model::{ObjectId, Ref, Timestamp};
use driftmesh_peer::session::{Watch, Watched};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// Most events that one client waits for: each is a part of the history that is searched for cycles.
const EVENTS_MAX: usize = 60;
/// Most pouches that one client watches.
const POUCHES_MAX: usize = 3;
/// Sessions of watches begin here.
const SESSIONS_FROM: u32 = 1_000_000;

/// What a watch was told last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    Nothing,
    Token(u64),
    Deleted,
    /// Missing or lost.
    Absent,
}

/// Where a watch stands.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The peer, and which start of it.
    pub(crate) at: (usize, u64),
    pub(crate) object: ObjectId,
    pub(crate) last: Last,
}

struct Eye<T> {
    standing: Standing,
    session: u32,
    commit: Timestamp,
    watch: Watch<SimHost, T>,
}

impl<T: Marked> Eye<T> {
    fn note(&mut self, world: &World, told: Watched<T>) -> Option<Arc<T>> {
        let object = self.standing.object;
        let commit = match &told {
            Watched::Version { commit, .. } | Watched::Deleted { commit } => *commit,
            Watched::Missing | Watched::Lost { .. } => {
                self.standing.last = Last::Absent;
                return None;
            }
        };
        if commit <= self.commit {
            world.recorder.violation(format!("a watch of {object} went back from {} to {commit}", self.commit));
        }
        if self.standing.last == Last::Deleted {
            world.recorder.violation(format!("a watch of {object} saw a version after its deletion"));
        }
        self.commit = commit;
        let Watched::Version { value, .. } = told else {
            self.standing.last = Last::Deleted;
            return None;
        };
        self.standing.last = Last::Token(value.token());
        let log = world.recorder.observation(self.session, "watch");
        log.saw(self.watch.reference(), &*value);
        // Nothing may take it back, so it rests on no receipt.
        log.committed(Vec::new(), true);
        Some(value)
    }

    fn look(&mut self, world: &World) {
        while let Ok(Some(told)) = self.watch.try_next() {
            self.note(world, told);
        }
    }
}

/// All watches of a run, those of peers that are gone included.
#[derive(Clone)]
pub(crate) struct Watches {
    sessions: Sessions,
    all: Arc<Mutex<All>>,
}

impl Default for Watches {
    fn default() -> Self {
        Self { sessions: Sessions::after(SESSIONS_FROM), all: Arc::default() }
    }
}

#[derive(Default)]
struct All {
    purses: Vec<Eye<Purse>>,
    pouches: Vec<Eye<Pouch>>,
}

impl Watches {
    fn lock(&self) -> std::sync::MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open<T: Marked>(&self, host: &SimHost, at: (usize, u64), reference: Ref<T>) -> Option<Eye<T>> {
        let watch = Watch::begin(host.clone(), reference).ok()?;
        let standing = Standing { at, object: reference.id(), last: Last::Nothing };
        Some(Eye { standing, session: self.sessions.next(), commit: Timestamp::ZERO, watch })
    }

    /// Looks once more at all watches of peers that live, and says where they stand.
    pub(crate) fn finish(&self, world: &World, lives: impl Fn((usize, u64)) -> bool) -> Vec<Standing> {
        let mut all = self.lock();
        let All { purses, pouches } = &mut *all;
        purses.retain(|eye| lives(eye.standing.at));
        pouches.retain(|eye| lives(eye.standing.at));
        purses.iter_mut().for_each(|eye| eye.look(world));
        pouches.iter_mut().for_each(|eye| eye.look(world));
        let standings = purses.iter().map(|eye| eye.standing.clone());
        standings.chain(pouches.iter().map(|eye| eye.standing.clone())).collect()
    }
}

/// Waits for what is new, so long at most; dropping the wait loses nothing.
async fn next_within<T: Marked>(clock: &Clock, watch: &mut Watch<SimHost, T>, for_us: u64) -> Option<Watched<T>> {
    let mut next = pin!(watch.next());
    let mut sleep = pin!(clock.sleep(for_us));
    poll_fn(|context| {
        if let Poll::Ready(told) = next.as_mut().poll(context) {
            return Poll::Ready(told.ok());
        }
        sleep.as_mut().poll(context).map(|()| None)
    })
    .await
}

impl Client {
    /// Watches a purse, and some pouches that it sees in there, until so many transactions were begun by the others.
    pub(crate) async fn watch(mut self, at: (usize, u64), until: u64) {
        let purse = self.purse();
        let (world, watches) = (self.world.clone(), self.world.watches.clone());
        let Some(mut eye) = watches.open(&self.host, at, purse) else { return };
        let mut pouches: Vec<Eye<Pouch>> = Vec::new();
        let mut known = BTreeSet::new();
        for _ in 0..EVENTS_MAX {
            if world.recorder.lock().begun >= until {
                break;
            }
            let patience = self.rng.u64(1_000..30_000);
            let told = if self.rng.bool() {
                next_within(&world.clock, &mut eye.watch, patience).await
            } else {
                world.clock.sleep(patience).await;
                eye.watch.try_next().ok().flatten()
            };
            if let Some(value) = told.and_then(|told| eye.note(&world, told)) {
                for pouch in &value.pouches {
                    if pouches.len() < POUCHES_MAX && known.insert(pouch.id()) {
                        pouches.extend(watches.open(&self.host, at, *pouch));
                    }
                }
            }
            pouches.iter_mut().for_each(|eye| eye.look(&world));
        }
        let mut all = watches.lock();
        all.purses.push(eye);
        all.pouches.append(&mut pouches);
    }
}
