//! What one caller was told that a crash may still undo, and that what it does next waits for (R6).
//!
//! It refuses to let anything begin that may rest on an answer that did not stay, until the caller has heard of that.

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
    pub(crate) fn begin(&self, task: &'static str) -> InDoubt {
        let doubt = Doubt { task, state: Arc::new(watch::Sender::new(State::Open)) };
        self.lock().push(doubt.clone());
        InDoubt { doubts: self.clone(), doubt }
    }

    /// Waits until it is known of all that the caller has been told so far whether it stayed. Cancel safe.
    ///
    /// # Errors
    /// The name of a task whose answer did not: it is told to all who wait, and to the next one if nobody does.
    pub(crate) async fn settled(&self) -> Result<(), &'static str> {
        let told = self.lock().clone();
        let mut otherwise = Ok(());
        for doubt in told {
            let mut state = doubt.state.subscribe();
            // Fails only when there is no sender any more, and here is one.
            let state = state.wait_for(|state| *state != State::Open).await.map_or(State::Otherwise, |state| *state);
            if state == State::Otherwise {
                self.forget(&doubt);
                otherwise = Err(doubt.task);
            }
        }
        otherwise
    }
}

/// One answer of which it is not known whether it stays. Dropped before that is known, it counts as one that did not.
#[derive(Debug)]
pub(crate) struct InDoubt {
    doubts: Doubts,
    doubt: Doubt,
}

impl InDoubt {
    /// Whoever holds this can say that the caller has heard.
    pub(crate) fn hearing(&self) -> Hearing {
        Hearing { doubts: self.doubts.clone(), doubt: self.doubt.clone() }
    }

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

/// Says that a caller has heard how an answer was settled.
#[derive(Debug)]
pub(crate) struct Hearing {
    doubts: Doubts,
    doubt: Doubt,
}

impl Hearing {
    /// It has: what it begins from now on rests on that.
    pub(crate) fn heard(&self) {
        self.doubts.forget(&self.doubt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_comes_next_waits_until_the_answer_has_stayed() {
        let doubts = Doubts::default();
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
        let doubt = doubts.begin("pay");
        let mut waiting = Box::pin(doubts.settled());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        doubt.stayed();
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn all_who_wait_are_told_that_it_did_not_stay_and_later_ones_are_not() {
        let doubts = Doubts::default();
        let doubt = doubts.begin("pay");
        let mut waiting = [Box::pin(doubts.settled()), Box::pin(doubts.settled())];
        for one in &mut waiting {
            assert_eq!(one.as_mut().now_or_never(), None);
        }
        drop(doubt);
        for one in waiting {
            assert_eq!(one.now_or_never(), Some(Err("pay")));
        }
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
    }

    #[test]
    fn the_next_one_is_told_unless_the_caller_has_heard() {
        let doubts = Doubts::default();
        drop(doubts.begin("pay"));
        assert_eq!(doubts.settled().now_or_never(), Some(Err("pay")));
        let doubt = doubts.begin("pay");
        let hearing = doubt.hearing();
        drop(doubt);
        hearing.heard();
        assert_eq!(doubts.settled().now_or_never(), Some(Ok(())));
    }
}
