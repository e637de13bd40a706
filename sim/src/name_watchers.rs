//! Clients that watch the names under a prefix: what they are told must follow from what they were told before, must have
//! happened, and must come to the final state without a gap.
//!
//! They refuse to change names. Their handles stay when they end, and are looked at once more when everything is over.

use crate::client::{Client, World};
use crate::game::Sign;
use crate::host::SimHost;
use crate::name_log::Bindings;
use crate::sessions::Sessions;
use driftmesh_model::{ObjectId, Timestamp};
use driftmesh_peer::session::{NameNews, NameWatch, Watched};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most news of signs that one client notes: each is a part of the history that is searched for cycles.
const SIGNS_SEEN_MAX: usize = 60;
/// How often they are looked at in the end, us.
const LOOK_EVERY_US: u64 = 50_000;
/// Sessions of these watches begin here, one for each time that a name was bound.
const SESSIONS_FROM: u32 = 2_000_000;
/// Prefixes that are watched: all names begin with the second.
const PREFIXES: [&str; 4] = ["", "name ", "name 1", "name 2"];

/// A name as a watch was told of it.
struct Told {
    object: ObjectId,
    session: u32,
    commit: Timestamp,
    /// The token of the sign that was seen last, if one was.
    sign: Option<u64>,
}

/// Where a watch stands in the end.
pub(crate) struct NameStanding {
    /// The peer, and which start of it.
    pub(crate) at: (usize, u64),
    pub(crate) prefix: &'static str,
    /// Each name, what it is bound to, and the token of the sign that was seen there.
    pub(crate) names: BTreeMap<String, (ObjectId, Option<u64>)>,
    /// Whatever it was told to be bound, at any time.
    pub(crate) ever: BTreeSet<(String, ObjectId)>,
    pub(crate) errors: Vec<String>,
}

struct Eye {
    at: (usize, u64),
    prefix: &'static str,
    watch: NameWatch<SimHost, Sign>,
    names: BTreeMap<String, Told>,
    ever: BTreeSet<(String, ObjectId)>,
    /// The newest version that it showed of each object, by whatever name.
    newest: BTreeMap<ObjectId, Timestamp>,
    errors: Vec<String>,
    seen: usize,
}

impl Eye {
    /// Takes in everything that is new.
    fn look(&mut self, world: &World) {
        loop {
            match self.watch.try_next() {
                Ok(Some(news)) => self.take(world, news),
                Ok(None) => break,
                Err(error) => self.errors.push(error.to_string()),
            }
        }
        let known: Bindings = self.names.iter().map(|(name, told)| (name.clone(), told.object)).collect();
        let says: Bindings = self.watch.names().map(|(name, sign)| (name.to_owned(), sign.id())).collect();
        if known != says {
            self.wrong(world, &format!("says {says:?}, and told {known:?}"));
        }
    }

    fn wrong(&self, world: &World, text: &str) {
        world.recorder.violation(format!("a watch of names {:?} at peer {:?} {text}", self.prefix, self.at));
    }

    /// An object does not go back, whatever names it loses and gets meanwhile.
    fn climbs(&mut self, world: &World, name: &str, object: ObjectId, seen: &Watched<Sign>) {
        let commit = match seen {
            Watched::Version { commit, .. } | Watched::Deleted { commit } => *commit,
            Watched::Missing | Watched::Lost { .. } => return,
        };
        let newest = self.newest.entry(object).or_default();
        let former = std::mem::replace(newest, commit.max(*newest));
        if commit < former {
            self.wrong(world, &format!("went back from {former} to {commit} for {name:?}"));
        }
    }

    fn take(&mut self, world: &World, news: NameNews<Sign>) {
        match news {
            NameNews::Bound { name, reference } => {
                let object = reference.id();
                if !name.starts_with(self.prefix) {
                    self.wrong(world, &format!("told of {name:?}"));
                }
                self.ever.insert((name.clone(), object));
                let session = world.name_watches.sessions.next();
                let told = Told { object, session, commit: Timestamp::ZERO, sign: None };
                let former = self.names.insert(name.clone(), told);
                if former.is_some_and(|former| former.object == object) {
                    self.wrong(world, &format!("told twice that {name:?} is bound to {object}"));
                }
            }
            NameNews::Unbound { name, reference } => {
                let former = self.names.remove(&name).map(|former| former.object);
                if former != Some(reference.id()) {
                    self.wrong(world, &format!("told that {name:?} is free of {reference}, and before {former:?}"));
                }
            }
            NameNews::Changed { name, reference, seen } => {
                self.climbs(world, &name, reference.id(), &seen);
                let text = match self.names.get_mut(&name).filter(|told| told.object == reference.id()) {
                    Some(told) => sign_seen(told, &name, seen, &mut self.seen, world),
                    None => Some(format!("told what {name:?} says, which is not bound to {reference}")),
                };
                if let Some(text) = text {
                    self.wrong(world, &text);
                }
            }
        }
    }
}

/// Notes what was seen of the sign that a name is bound to. Returns what is wrong with it.
fn sign_seen(told: &mut Told, name: &str, seen: Watched<Sign>, count: &mut usize, world: &World) -> Option<String> {
    let (value, commit) = match seen {
        Watched::Version { value, commit } => (value, commit),
        // It is deleted by who frees the name, and a watch is told of the two one by one.
        Watched::Deleted { .. } | Watched::Missing | Watched::Lost { .. } => {
            told.sign = None;
            return None;
        }
    };
    told.sign = Some(value.token);
    *count += 1;
    if *count < SIGNS_SEEN_MAX {
        let log = world.recorder.observation(told.session, "watch names");
        log.saw(driftmesh_model::Ref::from_id(told.object), &*value);
        // Nothing may take it back, so it rests on no receipt.
        log.committed(Vec::new(), true);
    }
    let before = std::mem::replace(&mut told.commit, commit);
    (commit <= before).then(|| format!("told of {commit} after {before} for {name:?}"))
}

/// All watches of names of a run, those of peers that are gone included.
#[derive(Clone)]
pub(crate) struct NameWatches {
    sessions: Sessions,
    eyes: Arc<Mutex<Vec<Eye>>>,
}

impl Default for NameWatches {
    fn default() -> Self {
        Self { sessions: Sessions::after(SESSIONS_FROM), eyes: Arc::default() }
    }
}

impl NameWatches {
    fn lock(&self) -> MutexGuard<'_, Vec<Eye>> {
        self.eyes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on looking at all watches for so long: a bucket tells of others, and of signs, only once it was looked at.
    pub(crate) async fn look_on(self, world: World, for_us: u64) {
        let until = world.clock.now_us() + for_us;
        while world.clock.now_us() < until {
            self.lock().iter_mut().for_each(|eye| eye.look(&world));
            world.clock.sleep(LOOK_EVERY_US).await;
        }
    }

    /// Looks once more at all watches of peers that live, and says where they stand.
    pub(crate) fn finish(&self, world: &World, lives: impl Fn((usize, u64)) -> bool) -> Vec<NameStanding> {
        let mut eyes = std::mem::take(&mut *self.lock());
        eyes.retain(|eye| lives(eye.at));
        let standing = |mut eye: Eye| {
            eye.look(world);
            let names = eye.names.into_iter().map(|(name, told)| (name, (told.object, told.sign)));
            NameStanding { at: eye.at, prefix: eye.prefix, names: names.collect(), ever: eye.ever, errors: eye.errors }
        };
        eyes.into_iter().map(standing).collect()
    }
}

impl Client {
    /// Watches the names under a prefix, until so many transactions were begun by the others.
    pub(crate) async fn watch_names(mut self, at: (usize, u64), until: u64) {
        let prefix = PREFIXES[self.rng.usize(..PREFIXES.len())];
        let Ok(watch) = NameWatch::begin(self.host.clone(), prefix) else { return };
        let (names, ever, newest, errors) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new(), Vec::new());
        let mut eye = Eye { at, prefix, watch, names, ever, newest, errors, seen: 0 };
        while self.world.recorder.lock().begun < until {
            eye.look(&self.world);
            let pause = self.rng.u64(1_000..50_000);
            self.world.clock.sleep(pause).await;
        }
        self.world.name_watches.lock().push(eye);
    }
}
