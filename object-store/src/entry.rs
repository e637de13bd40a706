//! What a journal says: every change of a group's state, whole commits included.

use crate::{LogEntry, Membership, Outcomes, ScheduleChange, TaskOutcome, Version};
use driftmesh_model::limits::{GRANT_WINDOW, WRITE_OVERHEAD_BYTES};
use driftmesh_model::{Epoch, GroupId, ObjectId, Term, Timestamp, Value};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::marker::PhantomData;

/// Most objects that one entry moves (R24): as many grants as can be unsettled at once.
pub const TRANSFERS_MAX: usize = GRANT_WINDOW as usize;

/// One write of a commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// The object written. One that the group does not hold is created by this.
    pub object: ObjectId,
    /// Its new value; `None` deletes it.
    pub value: Option<Value>,
}

/// One object of those that leave by an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Departure {
    /// The object.
    pub object: ObjectId,
    /// The epoch it will have at the destination.
    pub epoch: Epoch,
}

/// One object of those that arrive by an entry, with its whole chain: the group's followers have no cache to look hashes
/// up in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Arrival {
    /// The object.
    pub object: ObjectId,
    /// Its epoch here.
    pub epoch: Epoch,
    /// The grant's number (R20).
    pub number: u64,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
    /// What became of tasks whose anchor it is (R21).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<Box<Outcomes>>,
    /// Snapshots below this cannot be answered (R17).
    pub low_water: Timestamp,
    /// The sender's floor: commits here lie above it (R16).
    pub floor: Timestamp,
}

impl Arrival {
    /// The commit timestamp of its newest version, or zero.
    #[must_use]
    pub fn newest_commit(&self) -> Timestamp {
        self.versions.last().map_or(Timestamp::ZERO, |version| version.commit)
    }

    /// About how much it weighs in an entry, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        const FIXED: usize = 96;
        let outcomes = self.outcomes.as_ref().map_or(0, |outcomes| outcomes.cost());
        FIXED + self.versions.iter().map(Version::cost).sum::<usize>() + outcomes
    }
}

/// What an object of another mesh kept of tasks, for the same object here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Imported {
    /// The object.
    pub object: ObjectId,
    /// What it kept.
    pub outcomes: Box<Outcomes>,
}

impl Imported {
    /// About how much it weighs in an entry, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        const FIXED: usize = 32;
        FIXED + self.outcomes.cost()
    }
}

/// One journal entry. A prefix of a journal is a transaction-consistent state, because a commit is one entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A leader's first entry.
    TermStart {
        /// The leadership period that begins.
        term: Term,
    },
    /// All writes of one transaction.
    Commit {
        /// When they take effect.
        commit: Timestamp,
        /// The writes, each object once.
        writes: Vec<Write>,
        /// If it ended a task: what became of that, for its anchor to keep (R21).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<Box<TaskOutcome>>,
        /// What it changes of schedules, one after the other. Those of an object that it deletes end by that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        schedules: Vec<ScheduleChange>,
    },
    /// Objects leave for one group, as many as one step hands out to it: nobody commits to them until the destination
    /// adopts them (R19).
    TransferOut {
        /// The destination.
        to: GroupId,
        /// The number of the first one's grant towards that group (R20). The others have the numbers that follow.
        first: u64,
        /// The leader's clock at this entry: at or above all that the group ever answered for the objects (R16).
        floor: Timestamp,
        /// The objects, each once.
        #[serde(deserialize_with = "transfers")]
        departures: Vec<Departure>,
    },
    /// Objects arrive from one group, those that one message brings.
    TransferIn {
        /// Where they came from.
        from: GroupId,
        /// The sender has settled all its grants below this number: refusals of them need not be remembered.
        unsettled_from: u64,
        /// The objects, each once, in the order of the grants' numbers.
        #[serde(deserialize_with = "transfers")]
        arrivals: Vec<Arrival>,
    },
    /// The destination has these objects: what was kept of them in transit is dropped.
    Handed {
        /// The destination.
        to: GroupId,
        /// The numbers of the grants, climbing.
        #[serde(deserialize_with = "transfers")]
        numbers: Vec<u64>,
    },
    /// A grant was refused, for ever; its sender takes the object back (R19).
    Refused {
        /// The sender.
        from: GroupId,
        /// The grant's number.
        number: u64,
        /// The sender has settled all its grants below this number: refusals of them need not be remembered.
        unsettled_from: u64,
    },
    /// The destination refused: the object is owned here again, one epoch above the refused one (R19).
    TakenBack {
        /// The destination that refused.
        to: GroupId,
        /// The grant's number.
        number: u64,
    },
    /// What the leader promises outside of the group lies below this (R8).
    Window {
        /// The end of the window.
        until: Timestamp,
    },
    /// Who belongs to the group from here on.
    Members(Membership),
    /// The group has ended: nothing will be committed or adopted any more.
    Retired,
    /// What owned objects, which keep nothing of tasks yet, kept in the mesh that this one continues: its founder's journal
    /// begins with that (R21).
    Imported {
        /// The objects, each once.
        #[serde(deserialize_with = "transfers")]
        kept: Vec<Imported>,
    },
}

/// R25: a list of what moves that no sound leader would have made is refused while it is read.
fn transfers<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Transfers(PhantomData))
}

struct Transfers<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Transfers<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at most {TRANSFERS_MAX} transfers")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        // What a length claims takes no memory beyond that of a few.
        let mut all = Vec::with_capacity(sequence.size_hint().unwrap_or(0).min(64));
        while let Some(one) = sequence.next_element()? {
            if all.len() == TRANSFERS_MAX {
                return Err(de::Error::custom("too many transfers in one entry"));
            }
            all.push(one);
        }
        Ok(all)
    }
}

impl Entry {
    /// About how much the entry weighs, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        const FIXED: usize = 96;
        const MEMBER: usize = 64;
        const DEPARTURE: usize = 48;
        const NUMBER: usize = 9;
        match self {
            Self::Commit { writes, outcome, schedules, .. } => {
                let written = writes
                    .iter()
                    .map(|write| WRITE_OVERHEAD_BYTES + write.value.as_ref().map_or(0, Value::len))
                    .sum::<usize>();
                let schedules = schedules.iter().map(ScheduleChange::cost).sum::<usize>();
                FIXED + written + outcome.as_ref().map_or(0, |outcome| outcome.cost()) + schedules
            }
            Self::TransferOut { departures, .. } => FIXED + DEPARTURE * departures.len(),
            Self::TransferIn { arrivals, .. } => FIXED + arrivals.iter().map(Arrival::cost).sum::<usize>(),
            Self::Handed { numbers, .. } => FIXED + NUMBER * numbers.len(),
            Self::Members(membership) => {
                let incoming = membership.incoming.as_ref().map_or(0, |incoming| incoming.len());
                FIXED + MEMBER * (membership.voters.len() + incoming + membership.learners.len())
            }
            Self::Imported { kept } => FIXED + kept.iter().map(Imported::cost).sum::<usize>(),
            Self::TermStart { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Window { .. }
            | Self::Retired => FIXED,
        }
    }

    /// The highest timestamp that the entry speaks of; a new leader starts above it (R8).
    #[must_use]
    pub fn highest_timestamp(&self) -> Timestamp {
        match self {
            Self::Commit { commit, .. } => *commit,
            Self::TransferOut { floor, .. } => *floor,
            Self::TransferIn { arrivals, .. } => {
                let highest = arrivals.iter().map(|arrival| arrival.newest_commit().max(arrival.floor));
                highest.max().unwrap_or(Timestamp::ZERO)
            }
            Self::Window { until } => *until,
            Self::TermStart { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Members(_)
            | Self::Retired
            | Self::Imported { .. } => Timestamp::ZERO,
        }
    }

    /// The commit timestamp of the newest version that the entry brings, or zero.
    #[must_use]
    pub fn newest_commit(&self) -> Timestamp {
        match self {
            Self::Commit { commit, .. } => *commit,
            Self::TransferIn { arrivals, .. } => {
                arrivals.iter().map(Arrival::newest_commit).max().unwrap_or(Timestamp::ZERO)
            }
            Self::TermStart { .. }
            | Self::TransferOut { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Window { .. }
            | Self::Members(_)
            | Self::Retired
            | Self::Imported { .. } => Timestamp::ZERO,
        }
    }
}

impl LogEntry for Entry {
    fn term_start(term: Term) -> Self {
        Self::TermStart { term }
    }

    fn members(membership: Membership) -> Self {
        Self::Members(membership)
    }

    fn membership(&self) -> Option<&Membership> {
        match self {
            Self::Members(membership) => Some(membership),
            Self::TermStart { .. }
            | Self::Commit { .. }
            | Self::TransferOut { .. }
            | Self::TransferIn { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Window { .. }
            | Self::Retired
            | Self::Imported { .. } => None,
        }
    }

    fn cost(&self) -> usize {
        self.cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CatchUp, Progress, Schedule, ScheduleStep, Work};
    use driftmesh_model::{Micros, PeerId, TaskId, TaskKey, codec, limits};

    fn largest<T>(number: u64, make: impl Fn(u64) -> T) -> Vec<T> {
        (0..number).map(|number| make(u64::MAX - number)).collect()
    }

    fn object(number: u64) -> ObjectId {
        ObjectId::from_u128(u128::MAX - u128::from(number))
    }

    fn commit(writes: Vec<Write>, schedules: Vec<ScheduleChange>) -> Entry {
        let task = TaskId { anchor: object(0), key: TaskKey::of_peer(Micros(u64::MAX / 2), u64::MAX) };
        let answer = Value::from_slice(&[7; limits::TASK_ANSWER_BYTES_MAX]);
        let outcome = Some(Box::new(TaskOutcome { task, answer, oldest: Micros(u64::MAX / 2) }));
        Entry::Commit { commit: Timestamp::SOUND_MAX, writes, outcome, schedules }
    }

    #[test]
    fn what_a_transaction_may_write_fits_a_message_however_many_objects_it_is() {
        for objects in [16, 1_000, 60_000, limits::TRANSACTION_OBJECTS_MAX] {
            let length = (limits::TRANSACTION_BYTES_MAX / objects - WRITE_OVERHEAD_BYTES).min(limits::OBJECT_BYTES_MAX);
            let value = Value::from_slice(&vec![7; length]);
            let writes = largest(objects as u64, |number| Write { object: object(number), value: Some(value.clone()) });
            let entry = commit(writes, Vec::new());
            let bytes = codec::encode(&entry).unwrap().len();
            // The rest is for what wraps an entry.
            assert!(bytes + (32 << 10) <= limits::MESSAGE_BYTES_MAX, "{objects} objects: {bytes} bytes");
            assert!(bytes <= entry.cost() + 1_024, "{objects} objects: {bytes} bytes, {} thought", entry.cost());
        }
    }

    #[test]
    fn no_change_of_a_schedule_weighs_more_than_it_is_thought_to() {
        let progress = || Progress {
            due: Micros(u64::MAX / 2),
            ran: u64::MAX,
            failed: u64::MAX,
            panicked_at: (1..=2).map(|byte| PeerId::from_bytes([byte; 32])).collect(),
        };
        let begin = |number: u64| Schedule {
            number,
            work: Work { name: "n".repeat(64), version: u32::MAX, body: Value::from_slice(&[7; 100]) },
            period: Some(limits::SCHEDULE_AHEAD_MAX),
            catch_up: CatchUp::Each { max: limits::SCHEDULE_CATCH_UP_MAX },
            after_stable: true,
            progress: progress(),
        };
        for step in [
            ScheduleStep::Begin(Box::new(begin(u64::MAX))),
            ScheduleStep::Go { number: u64::MAX, progress: progress() },
            ScheduleStep::End { number: u64::MAX },
        ] {
            let change = ScheduleChange { object: object(0), step };
            let bytes = codec::encode(&change).unwrap().len();
            assert!(bytes <= change.cost(), "{change:?}: {bytes} bytes, {} thought", change.cost());
        }
    }
}
