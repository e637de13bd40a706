//! Driftmesh: a peer-to-peer mesh of transactional game objects.
//!
//! Every process runs the same peer. Objects drift to the peer that uses them, so nearly every transaction commits in
//! memory, on one machine, without waiting for the network.
//!
//! ```
//! use driftmesh::{Mesh, Object, Ref};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Player { name: String, gold: u64 }
//! impl Object for Player {
//!     const TYPE_NAME: &'static str = "player";
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::builder().start().await?;
//! let player: Ref<Player> =
//!     mesh.transact(|tx| async move { tx.create(&Player { name: "Ada".into(), gold: 10 }) }).await?;
//! let gold = mesh
//!     .transact(|tx| async move {
//!         let mut player = tx.get_mut(player).await?;
//!         player.gold += 5;
//!         Ok(player.gold)
//!     })
//!     .await?;
//! assert_eq!(gold, 15);
//! # Ok(())
//! # }
//! ```
//!
//! This crate drives the deterministic core in `driftmesh-peer` with tokio and libp2p. It refuses to decide anything
//! that the core decides: it moves bytes, keeps time and runs users' closures.

mod addresses;
mod blocking;
mod bridge;
mod builder;
mod caller;
mod clock;
#[cfg(test)]
mod conformance;
mod doubt;
mod export;
mod founding;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod inbound;
mod joining;
mod mesh;
mod notice;
mod outbox;
mod placement;
mod prefetch;
mod provisional;
mod retry_budget;
mod schedule;
mod snapshot_file;
mod start_error;
mod status;
mod submit;
mod task;
mod task_views;
#[cfg(feature = "test")]
pub mod test;
mod transactions;
pub mod transport;

pub use blocking::BlockingMesh;
pub use bridge::{BRIDGE_IN_FLIGHT, BRIDGE_IN_FLIGHT_MAX, Bridge, BridgeBusy, BridgeEvent, Ticket};
pub use builder::Builder;
pub use caller::Caller;
pub use driftmesh_model::{
    GroupId, Lsn, Micros, Object, ObjectError, ObjectId, ParseIdError, ParseScheduleIdError, ParseTaskIdError, PeerId,
    Ref, ScheduleId, TaskId, TaskKey, Term, Timestamp, Value, decode_object, limits,
};
pub use driftmesh_peer::session::{
    Done, Error, FATES_MAX, Fate, FatesFull, Loss, Mutable, NameBucket, NameError, NameNews, NamePage, Outcome, Result,
    ScheduleRefused, Settled, TaskDone, TaskError, Watched,
};
pub use driftmesh_peer::{
    Arrival, Beyond, CatchUp, Cause, Committed, DELIVERIES_MAX, DELIVERIES_PER_TYPE_MAX, Found, HELD_BYTES, KeptSeen,
    MemberStatus, Metrics, Move, MoveReason, NoRoom, OWNERSHIP_EVENTS_MAX, ObjectUse, OperatorError, Other,
    OwnershipEvent, PANICKED_LISTED_MAX, PINNED_MAX, PINNED_TYPES_MAX, PanickedTask, Place, Promoted, REPLICAS,
    REPLICAS_MAX, RareEvent, Receipt, SCHEDULES_RUNNING_MAX, STALENESS, ScanPage, Scanned, ScheduleCounts,
    ScheduleWaits, Seen, Source, Status, Step, StepError, TASKS_RUNNING_MAX, TASKS_RUNNING_PER_PEER_MAX,
    TASKS_SUBMITTED_MAX, TaskAbort, TaskKind, TaskPlace, TooManyPinned, Trail, WATCHED_MAX, WATCHERS_MAX,
    WaitingSchedule,
};
pub use export::{ExportError, Exported};
#[doc(hidden)]
pub use host::LiveHost;
pub use mesh::{Left, Mesh};
pub use notice::Notice;
pub use outbox::{DeliveryId, Outbox, OutboxMessage, Undelivered};
pub use placement::Contention;
pub use prefetch::{PREFETCH_MAX, PrefetchBusy};
pub use provisional::Provisional;
pub use schedule::{Occurrence, Owner, Schedule, Scheduled, Scheduling};
pub use snapshot_file::ImportError;
pub use start_error::StartError;
pub use status::{GroupView, MemberView, MeshStatus, OffenderView, ReadsView, ReplicationView, TransportView};
pub use submit::Submit;
pub use task::Task;
pub use task_views::{PanickedView, SchedulesView, WaitingView};
pub use transactions::Transactions;

/// One attempt of a transaction: what a closure reads and writes with.
pub type Tx = driftmesh_peer::session::Tx<LiveHost>;
/// A read-only view of the whole mesh at one timestamp, open for 60 s at most.
pub type Snapshot = driftmesh_peer::session::Snapshot<LiveHost>;

/// What becomes of commits that are followed; see [`Mesh::fates`].
pub type Fates<T> = driftmesh_peer::session::Fates<LiveHost, T>;
/// A session of read-only transactions that copies at this peer may answer; see [`Mesh::reads`].
pub type Reads = driftmesh_peer::session::Reads<LiveHost>;
/// Tells the newest stable version of an object; see [`Mesh::watch`].
pub type Watch<T> = driftmesh_peer::session::Watch<LiveHost, T>;
/// Tells what is bound under a prefix, and its newest stable versions; see [`Mesh::watch_names`].
pub type NameWatch<T> = driftmesh_peer::session::NameWatch<LiveHost, T>;

/// The events of what this peer owns; see [`Mesh::ownership`].
pub type Ownership = driftmesh_peer::session::Ownership<LiveHost>;
/// A walk through what this peer owns of one type; see [`Mesh::owned`].
pub type Owned<T> = driftmesh_peer::session::Owned<LiveHost, T>;

/// The examples of the page on names, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/names.md")]
struct NamesExamples;

/// The example of the page on crashes and copies, so that it is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/consistency.md")]
struct ConsistencyExamples;

/// The examples of the page about tasks, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/tasks.md")]
struct TasksExamples;

/// The README's example, so that it is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;

/// The examples of the page about embedding; some of them need simulated peers.
#[cfg(all(doctest, feature = "test"))]
#[doc = include_str!("../../docs/embedding.md")]
struct EmbeddingExamples;
