//! Delivering what a commit says to the world outside (transactional outbox, Richardson 2018): after that commit is stable,
//! and at least once.
//!
//! A message is a schedule of its object that runs once. Nothing is locked while it is delivered: whoever is outside may
//! take long. Only when that has gone well does a commit end the schedule, so a crash in between delivers it again, as does a
//! move of its object to another peer. It refuses to know what a message is.

use super::handlers::Delivery;
use super::host::Host;
use super::schedule_run::{end_occurrence, fail_occurrence, is_due};
use super::task_run::{cut, panic_text};
use super::transact::Options;
use crate::message::TaskAbort;
use crate::scheduling::{ScheduleEnd, ScheduleRun};
use driftmesh_model::Micros;
use driftmesh_model::limits::{DELIVERY_RETRY_MAX, DELIVERY_RETRY_MIN};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// How a delivery went.
enum Went {
    Well,
    Later(Micros),
    Panicked(String),
}

/// Delivers a message that is due, and says how that ended.
pub(super) async fn deliver<H: Host>(
    host: &H,
    run: &ScheduleRun,
    delivery: Delivery<H>,
    options: Options,
) -> ScheduleEnd {
    let key = run.key;
    // It may have been delivered already, by whoever owned the object before.
    match is_due(host, options.clone(), key).await {
        Ok(true) => {}
        Ok(false) => return ScheduleEnd::Gone,
        Err(_) => return ScheduleEnd::Again,
    }
    match caught(host, delivery, run).await {
        Went::Well => end_occurrence(host, options, key).await,
        Went::Later(after) => ScheduleEnd::Later(after.clamp(DELIVERY_RETRY_MIN, DELIVERY_RETRY_MAX)),
        Went::Panicked(message) => {
            host.step(|peer, now| peer.note_panicked(now, &run.work.name, key.id.object, &message));
            fail_occurrence(host, options, key, TaskAbort::Panicked(message)).await
        }
    }
}

async fn caught<H: Host>(host: &H, delivery: Delivery<H>, run: &ScheduleRun) -> Went {
    let begun = catch_unwind(AssertUnwindSafe(|| delivery(host.clone(), run.key.id)));
    let mut under_way = match begun {
        Ok(under_way) => under_way,
        Err(panic) => return Went::Panicked(cut(panic_text(panic.as_ref()))),
    };
    poll_fn(|context| {
        // The core is not held meanwhile, so a panic leaves nothing half done.
        match catch_unwind(AssertUnwindSafe(|| under_way.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(Went::Well),
            Ok(Poll::Ready(Err(after))) => Poll::Ready(Went::Later(after)),
            Err(panic) => Poll::Ready(Went::Panicked(cut(panic_text(panic.as_ref())))),
        }
    })
    .await
}
