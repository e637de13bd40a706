//! Closures on the mesh: a tiny executor that polls what was woken, in the order in which it was.

use super::world::Mesh;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

type Future = Pin<Box<dyn std::future::Future<Output = ()> + Send>>;
type Ready = Arc<Mutex<VecDeque<usize>>>;

#[derive(Default)]
pub(crate) struct Jobs {
    futures: Vec<Option<Future>>,
    ready: Ready,
}

struct JobWaker {
    job: usize,
    ready: Ready,
}

impl Wake for JobWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.job);
    }
}

/// A future that runs whenever the mesh settles, and what came of it.
pub(crate) struct Job<T> {
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Job<T> {
    pub(crate) fn is_done(&self) -> bool {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Mesh {
    /// Starts a future.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl std::future::Future<Output = T> + Send + 'static,
    ) -> Job<T> {
        let result = Arc::new(Mutex::new(None));
        let job = Job { result: Arc::clone(&result) };
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.futures.push(Some(Box::pin(async move {
            let value = future.await;
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        })));
        let number = jobs.futures.len() - 1;
        jobs.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(number);
        job
    }

    /// Runs the mesh until a job is done; fails the test if it is not within so many milliseconds.
    pub(crate) fn finish<T>(&self, job: &Job<T>, millis: u64) -> T {
        self.run_until("the job is done", millis, || job.is_done());
        job.take().expect("it is done")
    }

    /// Polls the next job that was woken. Returns whether there was one.
    pub(super) fn run_jobs(&self) -> bool {
        let (number, future, waker) = {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(number) = jobs.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
                return false;
            };
            let waker = Waker::from(Arc::new(JobWaker { job: number, ready: Arc::clone(&jobs.ready) }));
            (number, jobs.futures[number].take(), waker)
        };
        if let Some(mut future) = future
            && future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending
        {
            self.jobs.lock().unwrap_or_else(PoisonError::into_inner).futures[number] = Some(future);
        }
        true
    }
}
