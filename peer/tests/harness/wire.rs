//! Messages made from nothing, as a peer of another make would: by their form on the wire.

use driftmesh_model::{
    Epoch, Generation, GroupId, Hash, Lsn, Micros, ObjectId, Term, Timestamp, TxnTimestamp, Value, codec,
};
use driftmesh_peer::{Message, Seen};
use serde::Serialize;

/// The form of all that peers say to each other. Field names are the protocol.
#[derive(Clone, Debug, Serialize)]
pub(crate) enum Wire {
    Heartbeat {
        wall: Micros,
        oldest_snapshot: Option<Timestamp>,
        owned: u64,
        sequence: u64,
        draining: u64,
        unsettled: u64,
        heard_draining: u64,
        your_offset: Option<i64>,
        group: GroupId,
        groups_digest: u64,
        followed: u64,
        room: u64,
        led_bytes: u64,
    },
    Group {
        group: GroupId,
        message: driftmesh_object_store::GroupMessage,
    },
    NoRoom {
        group: GroupId,
    },
    Groups {
        records: Vec<driftmesh_peer::GroupRecord>,
    },
    AskFate {
        ask: u64,
        group: GroupId,
        term: Term,
        lsn: Lsn,
    },
    Fate {
        ask: u64,
        fate: driftmesh_peer::FateTold,
        lost_from: Option<Lsn>,
    },
    AskStanding {
        ask: u64,
        group: GroupId,
        fences: Vec<driftmesh_peer::GroupRecord>,
    },
    Standing {
        ask: u64,
        group: GroupId,
        standing: driftmesh_peer::Standing,
    },
    Read {
        snapshot: Timestamp,
        objects: Vec<WireRead>,
    },
    ReadAnswers {
        snapshot: Timestamp,
        group: GroupId,
        answers: Vec<WireAnswer>,
    },
    Own {
        group: GroupId,
        requests: Vec<WireOwn>,
    },
    Queued {
        objects: Vec<WireQueued>,
    },
    Locate {
        objects: Vec<WireLocate>,
    },
    Located {
        answers: Vec<WireLocated>,
    },
    Publish {
        batch: u64,
        records: Vec<driftmesh_directory::Record>,
    },
    Published {
        batch: u64,
    },
    Learned {
        records: Vec<driftmesh_directory::Record>,
    },
    Grants {
        generation: Generation,
        grants: Vec<WireGrant>,
    },
    GrantAnswers {
        from: GroupId,
        to: GroupId,
        generation: Generation,
        answers: Vec<WireGrantAnswer>,
    },
    ClockAhead {
        objects: Vec<ObjectId>,
        receiver: Micros,
    },
    Scan {
        snapshot: Timestamp,
        cursor: u64,
    },
    ScanPage(WirePage),
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireRead {
    pub(crate) object: ObjectId,
    pub(crate) epoch: Epoch,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireAnswer {
    pub(crate) object: ObjectId,
    pub(crate) epoch: Epoch,
    pub(crate) seen: Seen,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireOwn {
    pub(crate) object: ObjectId,
    pub(crate) epoch: Epoch,
    pub(crate) age: TxnTimestamp,
    pub(crate) kind: String,
    pub(crate) have: Option<Hash>,
    pub(crate) pull: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireQueued {
    pub(crate) object: ObjectId,
    pub(crate) behind: Option<(TxnTimestamp, String)>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireLocate {
    pub(crate) object: ObjectId,
    pub(crate) round: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireLocated {
    pub(crate) object: ObjectId,
    pub(crate) holds: driftmesh_directory::Holds,
    pub(crate) record: Option<driftmesh_directory::Record>,
    pub(crate) leader: Option<driftmesh_model::PeerId>,
    pub(crate) moves: u64,
    pub(crate) round: u64,
    pub(crate) groups_digest: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) enum WireValue {
    Whole(Value),
    Hash(Hash),
    Deleted,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireVersion {
    pub(crate) commit: Timestamp,
    pub(crate) value: WireValue,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireGrant {
    pub(crate) from: GroupId,
    pub(crate) to: GroupId,
    pub(crate) number: u64,
    pub(crate) unsettled_from: u64,
    pub(crate) object: ObjectId,
    pub(crate) epoch: Epoch,
    pub(crate) versions: Vec<WireVersion>,
    pub(crate) low_water: Timestamp,
    pub(crate) floor: Timestamp,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireGrantAnswer {
    number: u64,
    reply: WireReply,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum WireReply {
    Adopted,
    Refused,
    NeedsValues,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WireScanned {
    pub(crate) object: ObjectId,
    pub(crate) epoch: Epoch,
    pub(crate) seen: Seen,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct WirePage {
    pub(crate) snapshot: Timestamp,
    pub(crate) cursor: u64,
    pub(crate) next: Option<u64>,
    pub(crate) objects: Vec<WireScanned>,
    pub(crate) in_transit: u64,
    pub(crate) group: GroupId,
    pub(crate) caretaken: u64,
    pub(crate) arrivals: u64,
    pub(crate) moving: Vec<ObjectId>,
    pub(crate) whole: bool,
}

impl Wire {
    /// One grant.
    pub(crate) fn grant(grant: WireGrant) -> Self {
        Self::Grants { generation: Generation::ZERO, grants: vec![grant] }
    }

    /// The answer to one grant.
    pub(crate) fn grant_answer(from: GroupId, to: GroupId, number: u64, reply: WireReply) -> Self {
        let answers = vec![WireGrantAnswer { number, reply }];
        Self::GrantAnswers { from, to, generation: Generation::ZERO, answers }
    }

    /// The message of this form.
    pub(crate) fn message(&self) -> Message {
        let bytes = codec::encode(self).expect("encodes");
        codec::decode(&bytes).expect("has the form of a message")
    }
}

/// A request to read one object.
pub(crate) fn read(object: ObjectId, snapshot: Timestamp) -> Message {
    Wire::Read { snapshot, objects: vec![WireRead { object, epoch: Epoch::ZERO }] }.message()
}

/// A request for one object, to be sent to a group.
pub(crate) fn own(group: GroupId, object: ObjectId, age: TxnTimestamp) -> Message {
    let request = WireOwn { object, epoch: Epoch::ZERO, age, kind: "forged".to_owned(), have: None, pull: None };
    Wire::Own { group, requests: vec![request] }.message()
}

/// A heartbeat of a peer that stays and works in this group.
pub(crate) fn heartbeat(
    group: GroupId,
    wall: Micros,
    oldest_snapshot: Option<Timestamp>,
    owned: u64,
    sequence: u64,
) -> Wire {
    let (draining, unsettled, heard_draining, your_offset, groups_digest) = (0, 0, 0, None, 0);
    Wire::Heartbeat {
        wall,
        oldest_snapshot,
        owned,
        sequence,
        draining,
        unsettled,
        heard_draining,
        your_offset,
        group,
        groups_digest,
        followed: 0,
        room: u64::MAX,
        led_bytes: 0,
    }
}
