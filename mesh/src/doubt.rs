//! What one caller was told that a crash may still undo, and that what it does next waits for (R6).
//!
//! It refuses to let anything begin that may rest on an answer that did not stay, until the caller has heard of that.

use futures::future::{Either, select};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What became of one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Stayed,
    Otherwise,
}

/// One answer that may not stay.
#[derive(Clone, Debug)]
struct Doubt {
    task: &'static str,
    state: Arc<watch::Sender<State>>,
    /// Whether its caller can still ask how it was settled.
    may_hear: Arc<AtomicBool>,
}

impl Doubt {
    fn state(&self) -> State {
        *self.state.borrow()
    }
}

/// All that one caller is in doubt of, and what did not stay and it has not heard of: no more than it may have under way,
/// because each begins with a place of its own when nothing else is in doubt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubts(Arc<Mutex<Vec<Doubt>>>);

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, Vec<Doubt>> {
        // It is only changed as a whole: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, doubt: &Doubt) {
        self.lock().retain(|other| !Arc::ptr_eq(&other.state, &doubt.state));
    }

    /// The caller is about to be told an answer that may not stay.
    pub(crate) fn begin(&self, task: &'static str) -> (InDoubt, Hearing) {
        let state = Arc::new(watch::Sender::new(State::Open));
        let doubt = Doubt { task, state, may_hear: Arc::new(AtomicBool::new(true)) };
        self.lock().push(doubt.clone());
        let hearing = Hearing { doubts: self.clone(), doubt: doubt.clone() };
        (InDoubt { doubts: self.clone(), doubt }, hearing)
    }

    /// Waits until it is known of all that the caller has been told whether it stayed. Cancel safe: only an answer that is
    /// returned counts as told.
    ///
    /// # Errors
    /// The name of a task whose answer did not stay, each time until its caller has heard; once if it cannot hear any more.
    pub(crate) async fn settled(&self) -> Result<(), &'static str> {
        loop {
            // One after the other: more may be told while this waits.
            let open = self.lock().iter().find(|doubt| doubt.state() == State::Open).cloned();
            let Some(open) = open else { break };
            // Fails only when there is no sender any more, and here is one.
            let _ = open.state.subscribe().wait_for(|state| *state != State::Open).await;
        }
        self.told_otherwise().map_or(Ok(()), Err)
    }

    /// As [`Doubts::settled`], until something else ends.
    ///
    /// # Errors
    /// Also the name of a task of which it is not known by then.
    pub(crate) async fn settled_before(&self, end: impl Future<Output = ()>) -> Result<(), &'static str> {
        let end = std::pin::pin!(end);
        match select(std::pin::pin!(self.settled()), end).await {
            Either::Left((settled, _)) => settled,
            Either::Right(_) => {
                let open = self.lock().iter().find(|doubt| doubt.state() == State::Open).map(|doubt| doubt.task);
                open.or_else(|| self.told_otherwise()).map_or(Ok(()), Err)
            }
        }
    }

    fn told_otherwise(&self) -> Option<&'static str> {
        let mut doubts = self.lock();
        let task = doubts.iter().find(|doubt| doubt.state() == State::Otherwise)?.task;
        doubts.retain(|doubt| doubt.state() != State::Otherwise || doubt.may_hear.load(Ordering::Acquire));
        Some(task)
    }
}

/// One answer of which it is not known whether it stays. Dropped before that is known, it counts as one that did not.
#[derive(Debug)]
pub(crate) struct InDoubt {
    doubts: Doubts,
    doubt: Doubt,
}

impl InDoubt {
    /// The answer stayed: nothing waits for it any more.
    pub(crate) fn stayed(self) {
        self.doubts.forget(&self.doubt);
        self.doubt.state.send_replace(State::Stayed);
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        self.doubt.state.send_if_modified(|state| {
            let is_open = *state == State::Open;
            if is_open {
                *state = State::Otherwise;
            }
            is_open
        });
    }
}

/// By this a caller hears how an answer was settled. Dropped before, the caller's next call is told instead.
#[derive(Debug)]
pub(crate) struct Hearing {
    doubts: Doubts,
    doubt: Doubt,
}

impl Hearing {
    /// It has heard: what it begins from now on rests on that.
    pub(crate) fn heard(&self) {
        self.doubts.forget(&self.doubt);
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.doubt.may_hear.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_comes_next_waits_until_all_answers_have_stayed_also_those_that_are_told_meanwhile() {
        let doubts = Doubts::default();
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
        let (first, _hearing) = doubts.begin("pay");
        let mut waiting = Box::pin(doubts.settled());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        let (second, _hearing) = doubts.begin("pay");
        first.stayed();
        assert_eq!(waiting.as_mut().now_or_never(), None);
        second.stayed();
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn every_call_is_told_that_an_answer_did_not_stay_until_the_caller_has_heard() {
        let doubts = Doubts::default();
        let (doubt, hearing) = doubts.begin("pay");
        let mut waiting = Box::pin(doubts.settled());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(doubt);
        assert_eq!(waiting.now_or_never(), Some(Err("pay")));
        assert_eq!(doubts.settled().now_or_never(), Some(Err("pay")));
        hearing.heard();
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn who_cannot_hear_any_more_is_told_once_by_a_call_that_is_not_given_up() {
        let doubts = Doubts::default();
        let ((first, first_hearing), (second, second_hearing)) = (doubts.begin("pay"), doubts.begin("pay"));
        drop((first_hearing, second_hearing, first));
        // It waits for the second, and is given up.
        assert_eq!(doubts.settled().now_or_never(), None);
        second.stayed();
        assert_eq!(doubts.settled().now_or_never(), Some(Err("pay")));
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn who_cannot_wait_any_longer_is_refused() {
        let doubts = Doubts::default();
        let (doubt, _hearing) = doubts.begin("pay");
        assert_eq!(doubts.settled_before(std::future::ready(())).now_or_never(), Some(Err("pay")));
        assert_eq!(doubts.settled_before(std::future::pending()).now_or_never(), None);
        doubt.stayed();
        assert_eq!(doubts.settled_before(std::future::ready(())).now_or_never(), Some(Ok(())));
    }
}
