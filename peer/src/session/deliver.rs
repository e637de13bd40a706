//! Delivering what a commit says to the world outside (transactional outbox, Richardson 2018): after that commit is stable,
//! and at least once.
//!
//! A message is a schedule of its object that runs once. Nothing is locked while it is delivered: whoever is outside may
//! take long. Only when that has gone well does a commit end the schedule, so a crash in between delivers it again, as does a
//! move of its object to another peer. It refuses to know what a message is.

use super::handlers::Delivery;
use super::host::Host;
use super::schedule_run::{go_on_later, is_due};
use super::task_run::{catching, cut};
use super::transact::Options;
use crate::message::TaskAbort;
use crate::scheduling::{ScheduleEnd, ScheduleRun};
use driftmesh_model::limits::{DELIVERY_RETRY_MAX, DELIVERY_RETRY_MIN};

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
    match catching(|| delivery(host.clone(), key.id)).await {
        Ok(Ok(())) => go_on_later(host, options, key, None).await,
        Ok(Err(after)) => ScheduleEnd::Later(after.clamp(DELIVERY_RETRY_MIN, DELIVERY_RETRY_MAX)),
        Err(message) => {
            let message = cut(message);
            host.step(|peer, now| peer.note_panicked(now, &run.work.name, key.id.object, &message));
            go_on_later(host, options, key, Some(TaskAbort::Panicked(message))).await
        }
    }
}
