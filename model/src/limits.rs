//! The named bounds of Driftmesh (R24) that more than one part must agree on, each with its reason.

use crate::Micros;

/// Largest encoded object, bytes. It must fit the journal, a grant and a chunked frame without special cases.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Most that one transaction writes, bytes: encoded objects, and [`WRITE_OVERHEAD_BYTES`] for each. It is one entry of a
/// journal, which goes to followers in one message.
pub const TRANSACTION_BYTES_MAX: usize = 16 << 20;
/// What the write of an object weighs beside its value, bytes, in a journal entry and in a message.
pub const WRITE_OVERHEAD_BYTES: usize = 48;
/// Longest message of one peer to another, bytes: a transaction's objects, and room for what wraps them.
pub const MESSAGE_BYTES_MAX: usize = (17 << 20) + (64 << 10);
/// Most objects that one transaction reads or writes.
pub const TRANSACTION_OBJECTS_MAX: usize = 100_000;
/// Longest type name stored with an object, bytes.
pub const TYPE_NAME_BYTES_MAX: usize = 128;
/// Longest label of a kind of task, bytes; it travels with requests so that an abort can name both sides.
pub const TASK_KIND_BYTES_MAX: usize = 64;

/// Longest encoded task, bytes: a request for work, not a way to ship data.
pub const TASK_BYTES_MAX: usize = 64 << 10;
/// Longest encoded answer of a task, or reason why it was rejected, bytes: it is journalled, and kept with its anchor.
pub const TASK_ANSWER_BYTES_MAX: usize = 16 << 10;
/// Most objects that whoever submitted a task is told it has touched: enough to learn from.
pub const TASK_TOLD_MAX: usize = 8;
/// Most objects that a task can say it touches.
pub const TASK_TOUCHES_MAX: usize = 256;
/// Most outcomes of tasks that an object keeps for callers who have been told, and may ask again (R21).
pub const OUTCOMES_MAX: usize = 256;
/// Most bytes of answers that it keeps for them; the newest outcome stays whatever it weighs.
pub const OUTCOMES_BYTES_MAX: usize = 64 << 10;
/// Most outcomes that an object keeps together with those that, as far as it knows, nobody has been told yet.
pub const OUTCOMES_UNTOLD_MAX: usize = 1_024;
/// Most bytes of their answers together.
pub const OUTCOMES_UNTOLD_BYTES_MAX: usize = 256 << 10;
/// Most peers of which an object knows what they have been told.
pub const OUTCOME_MAKERS_MAX: usize = 256;
/// How long they are kept, as long as there is room (R21).
pub const OUTCOME_KEEP: Micros = Micros::from_millis(600_000);

/// Most schedules of one object: they travel with it, and each run journals its own.
pub const SCHEDULES_MAX: usize = 16;
/// Longest encoded task of a schedule, bytes.
pub const SCHEDULE_BYTES_MAX: usize = 4 << 10;
/// Most bytes of tasks in all schedules of one object together.
pub const SCHEDULES_BYTES_MAX: usize = 32 << 10;
/// Shortest period of a schedule: each run is a commit that is copied to the followers.
pub const SCHEDULE_PERIOD_MIN: Micros = Micros::from_millis(10);
/// Longest period or delay of a schedule: ten years.
pub const SCHEDULE_AHEAD_MAX: Micros = Micros::from_millis(10 * 366 * 86_400_000);
/// Most missed occurrences that a schedule makes up for one by one.
pub const SCHEDULE_CATCH_UP_MAX: u32 = 1_000;
/// After which a message to the world outside that could not be delivered is tried again, at least and at most.
pub const DELIVERY_RETRY_MIN: Micros = Micros::from_millis(10);
/// See [`DELIVERY_RETRY_MIN`].
pub const DELIVERY_RETRY_MAX: Micros = Micros::from_millis(60_000);
/// A schedule whose task panicked at so many peers is parked (R26).
pub const SCHEDULE_PANICS_MAX: usize = 2;
/// What leads back to former schedules of an object may weigh so much, bytes.
pub const SCHEDULES_FORMER_BYTES_MAX: usize = 64 << 10;

/// Longest name, bytes of UTF-8 (R23).
pub const NAME_BYTES_MAX: usize = 255;
/// Directory buckets that each mesh begins with; the number is part of where a name is kept (R23).
pub const NAME_BUCKETS: usize = 64;
/// Most names in one directory bucket; one more and it splits. Each `bind` rewrites one bucket.
pub const NAME_BUCKET_ENTRIES_MAX: usize = 128;
/// Most bytes in one directory bucket; beyond, it splits.
pub const NAME_BUCKET_BYTES_MAX: usize = 16 << 10;
/// Most names in one page of a list.
pub const NAMES_PER_PAGE_MAX: usize = 1_000;

/// How far a request's timestamp may lie ahead of the receiver's wall clock (R18).
pub const CLOCK_AHEAD_MAX: Micros = Micros::from_millis(500);
/// How far before its peer's clock a transaction timestamp may lie (R12).
pub const AGE_MAX: Micros = Micros::from_millis(60_000);
/// Longest deadline of a transaction; beyond it its age could fall out of [`AGE_MAX`].
pub const DEADLINE_MAX: Micros = Micros::from_millis(60_000);

/// How long a superseded version is kept at least, within the byte budget (R17).
pub const VERSION_KEEP_MIN: Micros = Micros::from_millis(5_000);
/// How long it is kept at most for a snapshot that is still open (R17).
pub const VERSION_KEEP_MAX: Micros = Micros::from_millis(60_000);
/// Most bytes of superseded versions that travel with one object; older ones are pruned first (R17).
pub const CHAIN_TRANSFER_BYTES_MAX: usize = 1 << 20;

/// How many grants beyond the highest contiguous one a receiver remembers per pair of groups (R20).
pub const GRANT_WINDOW: u64 = 1_024;

const _: () = assert!(OBJECT_BYTES_MAX <= TRANSACTION_BYTES_MAX);
const _: () = assert!(TRANSACTION_BYTES_MAX + TASK_ANSWER_BYTES_MAX + (64 << 10) <= MESSAGE_BYTES_MAX);
const _: () = assert!(TRANSACTION_OBJECTS_MAX * WRITE_OVERHEAD_BYTES < TRANSACTION_BYTES_MAX / 2);
const _: () = assert!(NAME_BUCKET_BYTES_MAX + NAME_BYTES_MAX < OBJECT_BYTES_MAX / 2);
const _: () = assert!(VERSION_KEEP_MIN.0 <= VERSION_KEEP_MAX.0);
const _: () = assert!(DEADLINE_MAX.0 <= AGE_MAX.0);
const _: () = assert!(TASK_ANSWER_BYTES_MAX <= OUTCOMES_BYTES_MAX);
const _: () = assert!(OUTCOMES_MAX <= OUTCOMES_UNTOLD_MAX && OUTCOMES_BYTES_MAX <= OUTCOMES_UNTOLD_BYTES_MAX);
const _: () = assert!(SCHEDULE_BYTES_MAX <= SCHEDULES_BYTES_MAX && SCHEDULE_BYTES_MAX <= TASK_BYTES_MAX);
