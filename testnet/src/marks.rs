//! The work of a peer process in `cargo testnet bench failover`: it owns marks, goes on with some of its own at a steady
//! pace, and marks those that another peer owned.
//!
//! Times are taken by whoever gives the orders, but for the gaps of the steady work, which are this process's own. It
//! refuses to give up on a mark for want of time; any other error is told, and ends the work.

use crate::answers::Answers;
use crate::protocol::Answer;
use anyhow::{Context, Result, bail};
use driftmesh::{Error, Mesh, Object, ObjectId, Ref};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Marks in one creating transaction.
const CREATED_AT_ONCE: usize = 500;
/// The pace of the steady work: so that it shows gaps of some milliseconds, and takes little of the machine.
const BEAT: Duration = Duration::from_millis(5);
/// So many of a process's own marks are worked with.
const BEATEN: usize = 1_000;
/// Transactions under way at once that mark what another peer owned.
const AT_ONCE: usize = 4;
/// Marks of one such transaction.
const TOGETHER: usize = 100;

/// An object that is marked once by those who take over, and changed by its owner before.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// How often it was marked by another peer than its first owner.
    pub(crate) marks: u64,
    /// How often its owner worked with it.
    beats: u64,
    /// About the size of a small game object.
    text: String,
}

impl Object for Mark {
    const TYPE_NAME: &'static str = "testnet.mark";
}

/// When steady work was done last, and the longest time in which none was.
#[derive(Debug)]
struct Beats {
    last: Instant,
    longest: Duration,
}

impl Beats {
    /// The longest gap since this was asked last, the one that is going on included.
    fn take(&mut self) -> Duration {
        let now = Instant::now();
        let longest = self.longest.max(now - self.last);
        (self.last, self.longest) = (now, Duration::ZERO);
        longest
    }

    fn beat(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }
}

/// What a process knows of its work.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    own: Vec<Ref<Mark>>,
    others: Arc<[Ref<Mark>]>,
    beats: Option<Arc<Mutex<Beats>>>,
}

impl Marks {
    /// Creates so many marks here.
    pub(crate) async fn create(&mut self, mesh: &Mesh, count: u64) -> Result<Vec<ObjectId>> {
        let count = usize::try_from(count)?;
        while self.own.len() < count {
            let batch = CREATED_AT_ONCE.min(count - self.own.len());
            let created = mesh.transact(|tx| async move {
                let new = |_| tx.create(&Mark { marks: 0, beats: 0, text: "x".repeat(40) });
                (0..batch).map(new).collect::<driftmesh::Result<Vec<_>>>()
            });
            self.own.append(&mut created.await.context("cannot create marks")?);
        }
        Ok(self.own.iter().map(Ref::id).collect())
    }

    /// Begins to work steadily with marks of this process: one commit every [`BEAT`].
    pub(crate) fn begin(&mut self, mesh: &Mesh) -> Result<()> {
        if self.own.is_empty() {
            bail!("there are no marks to work with");
        }
        let beats = Arc::new(Mutex::new(Beats { last: Instant::now(), longest: Duration::ZERO }));
        self.beats = Some(Arc::clone(&beats));
        let own: Vec<Ref<Mark>> = self.own.iter().take(BEATEN).copied().collect();
        tokio::spawn(beat(mesh.clone(), own, beats));
        Ok(())
    }

    /// The longest time without steady work since this was asked last.
    pub(crate) fn longest_gap(&self) -> Result<Duration> {
        let beats = self.beats.as_ref().context("the steady work has not begun")?;
        Ok(beats.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    /// Learns the marks of another peer.
    pub(crate) fn learn(&mut self, objects: Vec<ObjectId>) {
        self.others = objects.into_iter().map(Ref::from_id).collect();
    }

    /// Begins to mark them, each once, and tells of each transaction.
    pub(crate) fn mark(&self, mesh: &Mesh, answers: &Arc<Answers>) {
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..AT_ONCE {
            let (mesh, marks) = (mesh.clone(), Arc::clone(&self.others));
            tokio::spawn(mark_all(mesh, marks, Arc::clone(&next), Arc::clone(answers)));
        }
    }
}

async fn beat(mesh: Mesh, own: Vec<Ref<Mark>>, beats: Arc<Mutex<Beats>>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for mark in own.iter().cycle() {
        ticks.tick().await;
        let done = mesh.transact(|tx| async move {
            tx.get_mut(*mark).await?.beats += 1;
            Ok(())
        });
        // A mark that does not commit is a gap, and shows as one.
        if done.await.is_ok() {
            beats.lock().unwrap_or_else(PoisonError::into_inner).beat();
        }
    }
}

async fn mark_all(mesh: Mesh, marks: Arc<[Ref<Mark>]>, next: Arc<AtomicUsize>, answers: Arc<Answers>) {
    loop {
        let from = next.fetch_add(TOGETHER, Ordering::Relaxed);
        let Some(batch) = marks.get(from..marks.len().min(from.saturating_add(TOGETHER))) else { return };
        if batch.is_empty() {
            return;
        }
        loop {
            let done = mesh.transact(|tx| async move {
                for mut mark in tx.get_mut_many(batch).await? {
                    mark.marks += 1;
                }
                Ok(())
            });
            match done.await {
                Ok(()) => {
                    answers.tell(&Answer::Marked { count: batch.len() as u64 });
                    break;
                }
                // It has had no effect.
                Err(Error::Deadline { .. }) => {}
                Err(error) => {
                    answers.tell(&Answer::Failed { error: format!("cannot mark: {error}") });
                    return;
                }
            }
        }
    }
}
