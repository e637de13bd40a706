//! What peers say to each other. CBOR by field name; no recursive types; every list bounded by the frame limit and
//! the object's size by the codec (R25). It refuses to know who says what when.

mod tasks;

pub use tasks::{TaskAbort, TaskEnd, TaskRequest};

use crate::outbox::RECORDS_MAX;
use crate::steps::Receipt;
use crate::surveying::Standing;
use driftmesh_directory::{Holds, Record};
use driftmesh_model::limits::{TASK_TOLD_MAX, TRANSACTION_OBJECTS_MAX};
use driftmesh_model::{
    Epoch, Generation, GroupId, Hash, Incarnation, Lsn, Micros, ObjectId, PeerId, TaskId, Term, Timestamp,
    TxnTimestamp, Value,
};
use driftmesh_object_store::{Body, GrantLog, GroupMessage, Outcomes, TermTable};
use driftmesh_txn::TaskKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest list in a message that has no bound of its own: twice what one transaction touches (R24).
const LIST_MAX: usize = 2 * TRANSACTION_OBJECTS_MAX;

/// A message and the clock of its sender when it left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's hybrid clock: a receiver's later snapshots are not below it.
    pub clock: Timestamp,
    /// What is said.
    pub message: Message,
}

impl Envelope {
    /// About how many bytes it takes when encoded: only as good as an allocation needs it.
    #[must_use]
    pub fn about_bytes(&self) -> usize {
        self.message.about_bytes()
    }
}

/// How a peer introduces itself when it is admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Introduction {
    /// This start of the peer.
    pub incarnation: Incarnation,
    /// The group it leads.
    pub group: GroupId,
    /// The group's generation.
    pub generation: Generation,
    /// Its leadership period.
    pub term: Term,
    /// What fails together with this peer: a hash of its zone, or of its machine.
    pub domain: u64,
    /// How many heartbeats it has sent: who has heard more of this start meets an old copy of it (R11).
    pub heartbeats: u64,
}

/// What is known of a group: who leads it, or how it ended. A higher (generation, term) replaces a lower one (R2), and an
/// end replaces everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Its leadership period.
    pub term: Term,
    /// Who leads it, if anybody is known to.
    pub leader: Option<PeerId>,
    /// It ended.
    pub ended: Option<Ended>,
}

/// What remains of a group that has ended: enough to say what became of its receipts (R22), and of grants to it (R20).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Where each leader began.
    pub terms: TermTable,
    /// Its last entry.
    pub tail: Lsn,
    /// Which grants it had answered, by their sender.
    pub received: BTreeMap<GroupId, GrantLog>,
    /// The number of its last grant to each group that ever got one.
    pub sent: BTreeMap<GroupId, u64>,
    /// An operator gave it up: what it owned is lost.
    pub lost: bool,
}

impl GroupRecord {
    /// About how many bytes it takes when encoded.
    pub(crate) fn about_bytes(&self) -> usize {
        /// The names of its fields, and what is not in a list.
        const FIXED: usize = 256;
        /// A number of a group; a term and where it began.
        const PAIR: usize = 32;
        let lists = |ended: &Ended| {
            let received: usize = ended.received.values().map(|log| PAIR + log.cost()).sum();
            received + PAIR * (ended.terms.starts().len() + ended.sent.len())
        };
        FIXED + self.ended.as_ref().map_or(0, lists)
    }
}

/// What became of an entry of a journal (R22), as a peer can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FateTold {
    /// It survives every change of leader.
    Stable {
        /// How many members hold it at least.
        copies: u32,
    },
    /// It is not in the group's journal and never will be.
    Lost,
    /// Not decided yet, or not known to this peer.
    Unknown,
}

/// One object to be read: what the asker believes its epoch to be, so that a group it is on its way to lets the
/// request wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadRequest {
    /// The object.
    pub object: ObjectId,
    /// The epoch of the best record the asker has.
    pub epoch: Epoch,
}

/// One object whose ownership is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnRequest {
    /// The object.
    pub object: ObjectId,
    /// The epoch of the best record the asker has.
    pub epoch: Epoch,
    /// The age of the oldest transaction that waits for it (R14).
    pub age: TxnTimestamp,
    /// That transaction's kind of task.
    pub kind: TaskKind,
    /// The hash of a value of it that the asker has, so that it need not be sent.
    pub have: Option<Hash>,
    /// Set if all who wait for it can go to it instead: how much else would have to come along, as [`Message::Stays`] weighs
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<u64>,
}

/// One object whose ownership was asked for and has to be waited for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Queued {
    /// The object.
    pub object: ObjectId,
    /// The transaction that has it: its age and kind of task.
    pub behind: Option<(TxnTimestamp, TaskKind)>,
}

/// What a snapshot sees of an object at its owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seen {
    /// This version; a deletion has no value.
    Version {
        /// When it was committed.
        commit: Timestamp,
        /// Its value.
        value: Option<Value>,
    },
    /// It was created after the snapshot.
    NotYetCreated,
    /// The version is gone (R17).
    TooOld,
}

impl Seen {
    /// The length of its value, bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Self::Version { value, .. } => value.as_ref().map_or(0, Value::len),
            Self::NotYetCreated | Self::TooOld => 0,
        }
    }
}

/// One object's part of an answer to a read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadAnswer {
    /// The object.
    pub object: ObjectId,
    /// Its epoch at the owner.
    pub epoch: Epoch,
    /// What the snapshot sees.
    pub seen: Seen,
}

/// What a peer knows of an object that it was asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Located {
    /// The object.
    pub object: ObjectId,
    /// What it says in its own group's name.
    pub holds: Holds,
    /// The best record it has.
    pub record: Option<Record>,
    /// Who leads the group of that record, as far as it knows: for an asker that has not met that peer.
    pub leader: Option<PeerId>,
    /// How many objects that share this one's counter have come to or left the group so far.
    pub moves: u64,
    /// The round of questions it answers; zero when it answers a request for the object itself.
    pub round: u64,
    /// Tells which groups the peer knows.
    pub groups_digest: u64,
}

/// One object to be located.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocateRequest {
    /// The object.
    pub object: ObjectId,
    /// The asker's round of questions; comes back with the answer.
    pub round: u64,
}

/// The value of a version in a grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GrantedValue {
    /// Here it is.
    Whole(Value),
    /// The receiver said that it has the value with this hash.
    Hash(Hash),
    /// The version is a deletion.
    Deleted,
}

/// One version of a granted object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantedVersion {
    /// When it was committed.
    pub commit: Timestamp,
    /// Its value.
    pub value: GrantedValue,
}

/// An object's master on its way to another group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The sending group.
    pub from: GroupId,
    /// The receiving group.
    pub to: GroupId,
    /// The grant's number between the two (R20).
    pub number: u64,
    /// The sender has settled all grants to this group below this number.
    pub unsettled_from: u64,
    /// The object.
    pub object: ObjectId,
    /// Its epoch at the receiver.
    pub epoch: Epoch,
    /// Its versions, oldest first.
    pub versions: Vec<GrantedVersion>,
    /// What became of tasks whose anchor it is (R21).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<Box<Outcomes>>,
    /// Snapshots below this cannot be answered (R17).
    pub low_water: Timestamp,
    /// The sender answered nothing above this (R16).
    pub floor: Timestamp,
}

impl Grant {
    /// About how many bytes it takes when encoded.
    fn about_bytes(&self) -> usize {
        const FIXED: usize = 192;
        let version = |version: &GrantedVersion| match &version.value {
            GrantedValue::Whole(value) => 64 + value.len(),
            GrantedValue::Deleted | GrantedValue::Hash(_) => 96,
        };
        FIXED + self.versions.iter().map(version).sum::<usize>()
    }
}

/// What a receiver says to a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GrantReply {
    /// The object is adopted, and the journal entry stable.
    Adopted,
    /// It will never be; the sender takes it back (R19).
    Refused,
    /// A hash names a value that is not here any more: send it whole.
    NeedsValues,
}

/// The answer to one grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantAnswer {
    /// The grant's number.
    pub number: u64,
    /// What became of it.
    pub reply: GrantReply,
}

/// One object met by a scan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scanned {
    /// The object.
    pub object: ObjectId,
    /// Its epoch at the owner.
    pub epoch: Epoch,
    /// What the snapshot sees.
    pub seen: Seen,
    /// What the snapshot sees of what it keeps of tasks.
    #[serde(default, skip_serializing_if = "KeptSeen::is_nothing")]
    pub kept: KeptSeen,
}

impl Scanned {
    /// About how much it weighs in a page, bytes.
    pub(crate) fn about_bytes(&self) -> usize {
        let kept = match &self.kept {
            KeptSeen::Kept(kept) => kept.cost(),
            KeptSeen::Nothing | KeptSeen::TooOld => 0,
        };
        self.seen.value_bytes() + kept
    }
}

/// What a snapshot sees of what an object keeps of tasks: outcomes (R21) and schedules.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum KeptSeen {
    /// It kept nothing.
    #[default]
    Nothing,
    /// This.
    Kept(Box<Outcomes>),
    /// What its schedules were is not known any more (R17).
    TooOld,
}

impl KeptSeen {
    /// Whether it kept nothing.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    pub(crate) fn of(outcomes: Option<&Outcomes>, snapshot: Timestamp) -> Self {
        let Some(outcomes) = outcomes else { return Self::Nothing };
        match outcomes.at(snapshot) {
            None => Self::TooOld,
            Some(then) if then.is_blank() => Self::Nothing,
            Some(then) => Self::Kept(Box::new(then)),
        }
    }
}

/// One page of a scan of what a group owns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScanPage {
    /// The snapshot it was read at.
    pub snapshot: Timestamp,
    /// Where the page began.
    pub cursor: u64,
    /// Where the next one begins; `None` after the last.
    pub next: Option<u64>,
    /// The objects of the page, also those that do not exist at the snapshot, so that they are known to be none.
    pub objects: Vec<Scanned>,
    /// How many objects the group was sending elsewhere at that moment; they are in no page.
    pub in_transit: u64,
    /// The group: another one means that the peer began anew, and the scan must too.
    pub group: GroupId,
    /// Objects that the peer moves in place of others that are gone; they are in no page of anybody.
    pub caretaken: u64,
    /// How many objects have come to the group so far; arrivals from this number on are a scan of their own.
    pub arrivals: u64,
    /// Objects that a scan of the mesh may miss elsewhere: on the last page of a group those that it was sending, on a
    /// page of arrivals those that are gone again.
    pub moving: Vec<ObjectId>,
    /// Whether nothing is left out of the page because too much has moved since the scan began.
    pub whole: bool,
}

/// One object that a peer wants to be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// The object.
    pub object: ObjectId,
    /// Whether it is watched, and not only read often.
    pub is_watched: bool,
}

/// What a subscriber is told of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct News {
    /// The object.
    pub object: ObjectId,
    /// What is new.
    pub of: NewsOf,
}

impl News {
    /// About how many bytes it takes when encoded.
    #[must_use]
    pub fn about_bytes(&self) -> usize {
        const SMALL: usize = 96;
        match &self.of {
            NewsOf::Version { value: Some(value), .. } => SMALL + value.len(),
            NewsOf::Version { value: None, .. } | NewsOf::Moved(_) | NewsOf::Refused => SMALL,
        }
    }
}

/// What is new of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NewsOf {
    /// Its newest stable version. Those between this and the last one that was told are left out.
    Version {
        /// The number of the message that asked for the object last. What answers an earlier one may come from before
        /// the object was given up in between.
        wish: u64,
        /// When it was committed.
        commit: Timestamp,
        /// When the version before it was committed; zero if that is not known.
        before: Timestamp,
        /// Its value; a deletion has none.
        value: Option<Value>,
    },
    /// It is not in the group: nothing more is told of it.
    Moved(Option<Record>),
    /// There is no room for it (R24): nothing more is told of it.
    Refused,
}

/// All that a peer says to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Sent regularly.
    Heartbeat {
        /// The sender's wall clock.
        wall: Micros,
        /// Its oldest open snapshot (R17).
        oldest_snapshot: Option<Timestamp>,
        /// How many objects its group owns or is sending.
        owned: u64,
        /// Climbs with each heartbeat: one that comes late says nothing any more.
        sequence: u64,
        /// The number of its present attempt to leave, and then nothing is sent to it any more; zero while it stays.
        draining: u64,
        /// How many grants to the receiver's group it has not settled.
        unsettled: u64,
        /// The receiver's attempt to leave that it knows of; zero if it knows of none.
        heard_draining: u64,
        /// The receiver's wall clock minus the sender's, microseconds, as the receiver's last heartbeat looked.
        your_offset: Option<i64>,
        /// The group that the sender works in.
        group: GroupId,
        /// Tells whether the receiver knows the same of all groups.
        groups_digest: u64,
        /// How many groups of others it follows.
        followed: u64,
        /// How many bytes of objects it has room for (R24).
        room: u64,
        /// How much room the objects of the groups take that it leads, bytes.
        led_bytes: u64,
    },
    /// The receiver is the start of a peer that said more than it knows of: it is an old copy, which may have forgotten
    /// votes and acknowledgements, and nothing that it says counts (R11).
    Forgotten {
        /// That start.
        incarnation: Incarnation,
        /// How many heartbeats of it were heard.
        heartbeats: u64,
    },
    /// The receiver has refused the sender for an old copy, by an introduction that was out of date: here is another one.
    Introduced(Introduction),
    /// What a member of a group says to another one.
    Group {
        /// The group.
        group: GroupId,
        /// What it says.
        message: GroupMessage,
    },
    /// The sender follows a group and is read there: it wants timestamps closed (R16).
    WantCloses {
        /// The group.
        group: GroupId,
    },
    /// The sender wants to be told of objects of a group, and goes on wanting it.
    Subscribe {
        /// The group.
        group: GroupId,
        /// The number of this subscription; a later one has a higher number.
        feed: u64,
        /// Counts the messages of this subscription, from one: a late one undoes nothing that a later one said.
        number: u64,
        /// Whether it wants to know each closed timestamp.
        closed: bool,
        /// Objects that it wants from now on, or still has not been told of.
        wishes: Vec<Wish>,
        /// Objects that it does not want any more.
        ended: Vec<ObjectId>,
    },
    /// What is new in a group, for a subscriber.
    Feed {
        /// The group.
        group: GroupId,
        /// The number of the subscription.
        feed: u64,
        /// Tells the times apart at which the leader began with it: numbers begin anew with each.
        opened: u64,
        /// The number of this message in it, from 0.
        number: u64,
        /// With this message everything is told that was committed at or below this to what the subscription covers.
        closed: Option<Timestamp>,
        /// What is new.
        news: Vec<News>,
    },
    /// The sender follows as many groups as it may already: somebody else should (R24).
    NoRoom {
        /// The group that it does not follow.
        group: GroupId,
    },
    /// What the sender knows of groups.
    Groups {
        /// A record for each.
        records: Vec<GroupRecord>,
    },
    /// Asks what became of an entry of a journal (R22).
    AskFate {
        /// Comes back with the answer.
        ask: u64,
        /// The group.
        group: GroupId,
        /// The leadership period in which the entry was made.
        term: Term,
        /// Its position.
        lsn: Lsn,
    },
    /// Says that.
    Fate {
        /// The question.
        ask: u64,
        /// The answer.
        fate: FateTold,
        /// From where on that leader's entries are lost, if another one followed it for certain.
        lost_from: Option<Lsn>,
    },
    /// Asks what the receiver holds of a group and has from it: an operator wants to do something about it.
    AskStanding {
        /// Comes back with the answer.
        ask: u64,
        /// The group.
        group: GroupId,
        /// Groups whose former generations are over, for the receiver too, before it answers.
        fences: Vec<GroupRecord>,
    },
    /// Says that.
    Standing {
        /// The question.
        ask: u64,
        /// The group.
        group: GroupId,
        /// The answer.
        standing: Box<Standing>,
    },
    /// Reads at one snapshot.
    Read {
        /// The snapshot timestamp.
        snapshot: Timestamp,
        /// The objects.
        objects: Vec<ReadRequest>,
    },
    /// Answers to a read.
    ReadAnswers {
        /// The snapshot timestamp.
        snapshot: Timestamp,
        /// The group that owns the objects, or is sending them.
        group: GroupId,
        /// One for each object.
        answers: Vec<ReadAnswer>,
    },
    /// Asks for ownership.
    Own {
        /// The group that wants it.
        group: GroupId,
        /// The objects.
        requests: Vec<OwnRequest>,
    },
    /// The objects are owned here and the requests for them wait in age order.
    Queued {
        /// The objects.
        objects: Vec<Queued>,
    },
    /// The objects are owned here and in much use, and the requests for them are not queued: the tasks that want them should
    /// come here. Only to requests that name a `pull`.
    Stays {
        /// The objects.
        objects: Vec<ObjectId>,
    },
    /// Asks where objects are.
    Locate {
        /// The objects.
        objects: Vec<LocateRequest>,
    },
    /// Says where objects are: the answer to `Locate`, and to what was asked of a group that has not the object.
    Located {
        /// One for each object.
        answers: Vec<Located>,
    },
    /// Records for a home, until acknowledged.
    Publish {
        /// The batch's number.
        batch: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// A home has a batch.
    Published {
        /// The batch's number.
        batch: u64,
    },
    /// Where a search ended, for those it passed (path compression).
    Learned {
        /// The records.
        records: Vec<Record>,
    },
    /// The masters of objects.
    Grants {
        /// The sending group's generation.
        generation: Generation,
        /// One for each object.
        grants: Vec<Grant>,
    },
    /// The answers to grants.
    GrantAnswers {
        /// The group that sent the grants.
        from: GroupId,
        /// The group that received them.
        to: GroupId,
        /// That group's generation.
        generation: Generation,
        /// One for each.
        answers: Vec<GrantAnswer>,
    },
    /// Asks the receiver to run a task.
    Submit {
        /// Comes back with the answer; the same for each copy of the request that one caller's peer sends.
        ask: u64,
        /// The task.
        request: Box<TaskRequest>,
    },
    /// Says how a task ended.
    TaskEnded {
        /// The question.
        ask: u64,
        /// The task.
        task: TaskId,
        /// How.
        end: Box<TaskEnd>,
    },
    /// Says what a task came to that is not stable yet: a crash may still undo it. How it ended follows.
    TaskProvisional {
        /// The question.
        ask: u64,
        /// The task.
        task: TaskId,
        /// The encoded answer.
        answer: Value,
        /// Where its commit stands.
        receipt: Receipt,
    },
    /// A request named a time too far ahead (R18).
    ClockAhead {
        /// The objects it was about.
        objects: Vec<ObjectId>,
        /// The receiver's wall clock.
        receiver: Micros,
    },
    /// Asks for a page of what a group owns.
    Scan {
        /// The snapshot to read at.
        snapshot: Timestamp,
        /// Where to begin.
        cursor: u64,
    },
    /// A page of what a group owns.
    ScanPage(ScanPage),
}

impl Message {
    /// About how many bytes it takes when encoded.
    pub(crate) fn about_bytes(&self) -> usize {
        const SMALL: usize = 192;
        /// A record, with the names of its fields.
        const RECORD: usize = 80;
        let more = if let Self::Submit { request, .. } = self {
            request.body.len() + 32 * request.touches.len()
        } else if let Self::Feed { news, .. } = self {
            news.iter().map(News::about_bytes).sum::<usize>()
        } else if let Self::Grants { grants, .. } = self {
            grants.iter().map(Grant::about_bytes).sum::<usize>()
        } else if let Self::GrantAnswers { answers, .. } = self {
            RECORD * answers.len()
        } else if let Self::Own { requests, .. } = self {
            2 * RECORD * requests.len()
        } else if let Self::Publish { records, .. } | Self::Learned { records } = self {
            RECORD * records.len()
        } else if let Self::Groups { records } | Self::AskStanding { fences: records, .. } = self {
            records.iter().map(GroupRecord::about_bytes).sum::<usize>()
        } else if let Self::Located { answers } = self {
            3 * RECORD * answers.len()
        } else if let Self::ReadAnswers { answers, .. } = self {
            answers.iter().map(|answer| RECORD + answer.seen.value_bytes()).sum::<usize>()
        } else if let Self::ScanPage(page) = self {
            page.objects.iter().map(|scanned| RECORD + scanned.about_bytes()).sum::<usize>() + 20 * page.moving.len()
        } else if let Self::Group { message: GroupMessage::Consensus(message), .. } = self
            && let Body::Append { batch, .. } = &message.body
        {
            batch.about_bytes()
        } else {
            0
        };
        SMALL + more
    }

    /// Whether it has a list that is longer than any that a peer makes.
    pub(crate) fn is_too_long(&self) -> bool {
        let (longest, most) = match self {
            // What is said of many objects is cut into messages.
            Self::Read { objects, .. } => (objects.len(), RECORDS_MAX),
            Self::Own { requests, .. } => (requests.len(), RECORDS_MAX),
            Self::Queued { objects } => (objects.len(), RECORDS_MAX),
            Self::Stays { objects } | Self::ClockAhead { objects, .. } => (objects.len(), RECORDS_MAX),
            Self::Locate { objects } => (objects.len(), RECORDS_MAX),
            Self::Located { answers } => (answers.len(), RECORDS_MAX),
            Self::Publish { records, .. } | Self::Learned { records } => (records.len(), RECORDS_MAX),
            Self::TaskEnded { end, .. } => (end.touched().len(), TASK_TOLD_MAX),
            Self::Groups { records } | Self::AskStanding { fences: records, .. } => (records.len(), LIST_MAX),
            Self::Subscribe { wishes, ended, .. } => (wishes.len() + ended.len(), LIST_MAX),
            Self::Feed { news, .. } => (news.len(), LIST_MAX),
            Self::ReadAnswers { answers, .. } => (answers.len(), LIST_MAX),
            Self::Grants { grants, .. } => (grants.len(), LIST_MAX),
            Self::GrantAnswers { answers, .. } => (answers.len(), LIST_MAX),
            Self::ScanPage(page) => (page.objects.len() + page.moving.len(), LIST_MAX),
            Self::Submit { request, .. } => (request.touches.len(), LIST_MAX),
            Self::Heartbeat { .. }
            | Self::Forgotten { .. }
            | Self::Introduced(_)
            | Self::Group { .. }
            | Self::WantCloses { .. }
            | Self::NoRoom { .. }
            | Self::AskFate { .. }
            | Self::Fate { .. }
            | Self::Standing { .. }
            | Self::Published { .. }
            | Self::TaskProvisional { .. }
            | Self::Scan { .. } => (0, 0),
        };
        longest > most
    }
}
