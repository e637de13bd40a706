//! Runs the clients' futures on one thread, in the order in which they were woken.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that runs in a simulated world.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;
type Ready = Arc<Mutex<VecDeque<usize>>>;

struct JobWaker {
    job: usize,
    ready: Ready,
}

impl Wake for JobWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.job) {
            ready.push_back(self.job);
        }
    }
}

/// The jobs, each at home at one peer, or at none.
#[derive(Default)]
pub(crate) struct Executor {
    jobs: Vec<(Option<usize>, Option<Job>)>,
    unfinished: usize,
    ready: Ready,
}

impl Executor {
    /// Adds a job that belongs to a peer.
    pub(crate) fn spawn(&mut self, peer: usize, job: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(Some(peer), Box::pin(job));
    }

    /// Adds a job that belongs to a peer, or to none.
    pub(crate) fn spawn_boxed(&mut self, peer: Option<usize>, job: Job) {
        self.jobs.push((peer, Some(job)));
        self.unfinished += 1;
        self.make_ready(self.jobs.len() - 1);
    }

    pub(crate) fn make_ready(&self, job: usize) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&job) {
            ready.push_back(job);
        }
    }

    /// Takes the next job that was woken, and the peer it is at, if at any.
    pub(crate) fn next_ready(&self) -> Option<(usize, Option<usize>)> {
        let job = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        Some((job, self.jobs[job].0))
    }

    /// Polls a job.
    pub(crate) fn poll(&mut self, job: usize) {
        let waker = Waker::from(Arc::new(JobWaker { job, ready: Arc::clone(&self.ready) }));
        let slot = &mut self.jobs[job].1;
        if let Some(future) = slot
            && future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(())
        {
            *slot = None;
            self.unfinished -= 1;
        }
    }

    /// A peer is no more: its jobs end where they are.
    pub(crate) fn kill(&mut self, peer: usize) {
        for (at, job) in &mut self.jobs {
            if *at == Some(peer) {
                self.unfinished -= usize::from(job.take().is_some());
            }
        }
    }

    /// How many jobs were added so far.
    pub(crate) const fn begun(&self) -> usize {
        self.jobs.len()
    }

    /// How many of the first so many jobs have not ended.
    pub(crate) fn unfinished_of_first(&self, begun: usize) -> usize {
        self.jobs[..begun].iter().filter(|(_, job)| job.is_some()).count()
    }

    /// How many jobs have not ended.
    pub(crate) const fn unfinished(&self) -> usize {
        self.unfinished
    }
}
