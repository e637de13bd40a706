//! Users' closures on the core: attempts, retries, deadlines, typed objects. Plain std futures, no runtime.
//!
//! Generic over a [`Host`], so the live mesh and the simulator run the same closures, retries and decoding. It
//! refuses to hold the core across an await: every access is one step.

mod adding;
mod deliver;
mod error;
mod explain;
mod fate_stream;
mod fates;
mod handlers;
mod host;
mod mutable;
mod name_bucket;
mod names;
mod operators;
mod ownership;
mod reads;
mod schedule_run;
mod schedules;
mod snapshot;
mod submit;
mod task_error;
mod task_run;
mod transact;
mod tx;
mod watch;
mod watch_names;
mod write_set;

pub use error::{Error, Outcome, Result};
pub use explain::explain;
pub use fate_stream::{FATES_MAX, Fates, FatesFull, Settled};
pub use fates::{Fate, Loss, fate, settled};
pub use handlers::{Delivery, DeliveryFuture, Handlers, TaskAttempts, TaskFuture};
pub use host::{Host, Wakers};
pub use mutable::Mutable;
pub use name_bucket::NameBucket;
pub(crate) use name_bucket::genesis;
pub use names::{NameError, NamePage};
pub use operators::{forget, promote};
pub use ownership::{Owned, Ownership};
pub use reads::Reads;
pub use schedules::{First, Occurrence, Plan, ScheduleRefused, Scheduled};
pub use snapshot::Snapshot;
pub use submit::{Submission, TaskDone, Tell, new_task_id, submit, submit_provisional};
pub use task_error::TaskError;
pub use task_run::{panic_text, run_here};
pub use transact::{Done, Isolation, Options, transact};
pub use tx::Tx;
pub use watch::{Watch, Watched};
pub use watch_names::{NameNews, NameWatch};
