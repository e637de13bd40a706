//! One message of each kind, with contents that are plausible, wild, of the past, of the future, or far ahead of all
//! epochs.
//!
//! A new kind of message does not compile before it has a sample here. It refuses to lie where a lie is believed by
//! design, and says so at each such place: all members share one secret, and what a trusted member can do is told in
//! docs/operations.md.

use driftmesh::{GroupId, Lsn, Micros, ObjectId, PeerId, TaskId, TaskKey, Term, Timestamp, Value};
use driftmesh_directory::{Holds, Record};
use driftmesh_model::{Epoch, Generation, Incarnation, TxnTimestamp, codec};
use driftmesh_object_store::{Batch, Body, Closed, Entry, GroupMessage, Message as Said};
use driftmesh_peer::wire::{
    FateTold, Grant, GrantAnswer, GrantReply, GrantedValue, GrantedVersion, GroupRecord, Introduction, KeptSeen,
    LocateRequest, Located, Message, News, NewsOf, OwnRequest, Queued, ReadAnswer, ReadRequest, ScanPage, Scanned,
    Seen, TaskEnd, TaskRequest, Wish,
};
use driftmesh_peer::{Envelope, Receipt, Standing, TaskKind};
use fastrand::Rng;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Further from now than any clock may be.
const FAR: Micros = Micros::from_millis(600_000);
/// Further back than any version is kept.
const LONG_AGO: Micros = Micros::from_millis(120_000);
/// Players of the world about which lies are told.
const VICTIMS_MAX: usize = 16;
/// Elements of a list, most.
const LIST_MAX: usize = 8;

/// The kinds of messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Heartbeat,
    Forgotten,
    Introduced,
    Group,
    WantCloses,
    Subscribe,
    Feed,
    NoRoom,
    Groups,
    AskFate,
    Fate,
    AskStanding,
    Standing,
    Read,
    ReadAnswers,
    Own,
    Queued,
    Stays,
    Locate,
    Located,
    Publish,
    Published,
    Learned,
    Grants,
    GrantAnswers,
    Submit,
    TaskEnded,
    TaskProvisional,
    ClockAhead,
    Scan,
    ScanPage,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 31] = [
        Self::Heartbeat,
        Self::Forgotten,
        Self::Introduced,
        Self::Group,
        Self::WantCloses,
        Self::Subscribe,
        Self::Feed,
        Self::NoRoom,
        Self::Groups,
        Self::AskFate,
        Self::Fate,
        Self::AskStanding,
        Self::Standing,
        Self::Read,
        Self::ReadAnswers,
        Self::Own,
        Self::Queued,
        Self::Stays,
        Self::Locate,
        Self::Located,
        Self::Publish,
        Self::Published,
        Self::Learned,
        Self::Grants,
        Self::GrantAnswers,
        Self::Submit,
        Self::TaskEnded,
        Self::TaskProvisional,
        Self::ClockAhead,
        Self::Scan,
        Self::ScanPage,
    ];

    /// As the report calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Forgotten => "forgotten",
            Self::Introduced => "introduced",
            Self::Group => "group",
            Self::WantCloses => "want_closes",
            Self::Subscribe => "subscribe",
            Self::Feed => "feed",
            Self::NoRoom => "no_room",
            Self::Groups => "groups",
            Self::AskFate => "ask_fate",
            Self::Fate => "fate",
            Self::AskStanding => "ask_standing",
            Self::Standing => "standing",
            Self::Read => "read",
            Self::ReadAnswers => "read_answers",
            Self::Own => "own",
            Self::Queued => "queued",
            Self::Stays => "stays",
            Self::Locate => "locate",
            Self::Located => "located",
            Self::Publish => "publish",
            Self::Published => "published",
            Self::Learned => "learned",
            Self::Grants => "grants",
            Self::GrantAnswers => "grant_answers",
            Self::Submit => "submit",
            Self::TaskEnded => "task_ended",
            Self::TaskProvisional => "task_provisional",
            Self::ClockAhead => "clock_ahead",
            Self::Scan => "scan",
            Self::ScanPage => "scan_page",
        }
    }
}

/// The kind of a message. A kind that is new does not compile here, and then has no place in [`Kind::ALL`].
#[cfg(test)]
const fn kind_of(message: &Message) -> Kind {
    match message {
        Message::Heartbeat { .. } => Kind::Heartbeat,
        Message::Forgotten { .. } => Kind::Forgotten,
        Message::Introduced(_) => Kind::Introduced,
        Message::Group { .. } => Kind::Group,
        Message::WantCloses { .. } => Kind::WantCloses,
        Message::Subscribe { .. } => Kind::Subscribe,
        Message::Feed { .. } => Kind::Feed,
        Message::NoRoom { .. } => Kind::NoRoom,
        Message::Groups { .. } => Kind::Groups,
        Message::AskFate { .. } => Kind::AskFate,
        Message::Fate { .. } => Kind::Fate,
        Message::AskStanding { .. } => Kind::AskStanding,
        Message::Standing { .. } => Kind::Standing,
        Message::Read { .. } => Kind::Read,
        Message::ReadAnswers { .. } => Kind::ReadAnswers,
        Message::Own { .. } => Kind::Own,
        Message::Queued { .. } => Kind::Queued,
        Message::Stays { .. } => Kind::Stays,
        Message::Locate { .. } => Kind::Locate,
        Message::Located { .. } => Kind::Located,
        Message::Publish { .. } => Kind::Publish,
        Message::Published { .. } => Kind::Published,
        Message::Learned { .. } => Kind::Learned,
        Message::Grants { .. } => Kind::Grants,
        Message::GrantAnswers { .. } => Kind::GrantAnswers,
        Message::Submit { .. } => Kind::Submit,
        Message::TaskEnded { .. } => Kind::TaskEnded,
        Message::TaskProvisional { .. } => Kind::TaskProvisional,
        Message::ClockAhead { .. } => Kind::ClockAhead,
        Message::Scan { .. } => Kind::Scan,
        Message::ScanPage(_) => Kind::ScanPage,
    }
}

/// What the contents of a message are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    /// As a peer might say it, of things that are not there.
    Plausible,
    /// Numbers by chance, and those at their ends.
    Wild,
    /// Of long ago.
    Stale,
    /// Of times that no clock has reached.
    Future,
    /// Of epochs, terms and generations far ahead.
    EpochJump,
}

/// Entries as they lie on the wire: bytes in bytes.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// A batch without entries, which only its decoder makes.
fn no_entries() -> Batch<Entry> {
    let none: [(Term, Entry); 0] = [];
    let encoded = codec::encode(&none).and_then(|inner| codec::encode(&Bytes(inner)));
    let decoded = encoded.ok().and_then(|bytes| codec::decode(&bytes).ok());
    decoded.expect("what the codec has written it reads")
}

/// What a hostile member knows.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// Who it is.
    pub(crate) me: PeerId,
    /// The start that it introduced itself with.
    pub(crate) incarnation: Incarnation,
    /// The group that it says it leads.
    pub(crate) group: GroupId,
    /// The groups that honest peers lead.
    pub(crate) groups: Arc<[GroupId]>,
    /// Players of the world.
    pub(crate) world: Arc<[ObjectId]>,
    /// A group of which nobody has ever heard: always the same, because each takes room in a bounded table.
    pub(crate) nobody: GroupId,
    /// Climbs with each message.
    pub(crate) sequence: u64,
}

/// Makes messages of one flavour at one moment.
struct Maker<'a> {
    scene: &'a Scene,
    flavour: Flavour,
    wall: Micros,
    rng: &'a mut Rng,
}

/// A message with its envelope.
pub(crate) fn envelope(kind: Kind, flavour: Flavour, scene: &Scene, wall: Micros, rng: &mut Rng) -> Envelope {
    let mut maker = Maker { scene, flavour, wall, rng };
    let clock = maker.time();
    let message = maker.message(kind);
    Envelope { clock, message }
}

impl Maker<'_> {
    fn number(&mut self) -> u64 {
        const ENDS: [u64; 6] = [0, 1, u32::MAX as u64, i64::MAX as u64, u64::MAX - 1, u64::MAX];
        if self.flavour == Flavour::Wild && self.rng.bool() {
            ENDS[self.rng.usize(..ENDS.len())]
        } else {
            self.rng.u64(..)
        }
    }

    fn wall_told(&mut self) -> Micros {
        match self.flavour {
            Flavour::Plausible | Flavour::EpochJump => self.wall,
            Flavour::Wild => Micros(self.number()),
            Flavour::Stale => Micros(self.wall.0.saturating_sub(LONG_AGO.0)),
            Flavour::Future => self.wall.plus(FAR),
        }
    }

    fn time(&mut self) -> Timestamp {
        match self.flavour {
            Flavour::Wild => Timestamp::from_u64(self.number()),
            Flavour::Plausible | Flavour::EpochJump | Flavour::Stale | Flavour::Future => {
                Timestamp::from_wall(self.wall_told())
            }
        }
    }

    fn epoch(&mut self) -> Epoch {
        Epoch::from_u64(match self.flavour {
            Flavour::Plausible | Flavour::Future => self.rng.u64(1..10),
            Flavour::Wild => self.number(),
            Flavour::Stale => self.rng.u64(..2),
            Flavour::EpochJump => [1 << 20, 1 << 40, u64::MAX / 2, u64::MAX][self.rng.usize(..4)],
        })
    }

    fn term(&mut self) -> Term {
        Term::from_u64(match self.flavour {
            Flavour::Plausible | Flavour::Future => 1,
            Flavour::Wild => self.number(),
            Flavour::Stale => 0,
            Flavour::EpochJump => self.rng.u64(1 << 20..1 << 40),
        })
    }

    fn generation(&mut self) -> Generation {
        match self.flavour {
            Flavour::Plausible | Flavour::Future | Flavour::Stale => Generation::ZERO,
            Flavour::Wild => Generation::from_u64(self.number()),
            Flavour::EpochJump => Generation::END,
        }
    }

    fn receipt(&mut self) -> Receipt {
        let txn = self.age();
        Receipt { group: self.any_group(), term: self.term(), lsn: self.lsn(), commit: self.time(), txn }
    }

    fn lsn(&mut self) -> Lsn {
        Lsn::from_u64(self.number())
    }

    /// An object: one that nobody has ever heard of, or, where an owner's word ends any lie about it, one of the world.
    fn object(&mut self) -> ObjectId {
        let victims = self.scene.world.len().min(VICTIMS_MAX);
        if victims > 0 && matches!(self.flavour, Flavour::Stale | Flavour::EpochJump) && self.rng.bool() {
            return self.scene.world[self.rng.usize(..victims)];
        }
        self.stranger()
    }

    fn stranger(&mut self) -> ObjectId {
        ObjectId::from_u128(self.rng.u128(..))
    }

    fn objects(&mut self) -> Vec<ObjectId> {
        self.list(Self::object)
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.rng.usize(..=LIST_MAX)).map(|_| one(self)).collect()
    }

    fn honest(&mut self) -> GroupId {
        let groups = &self.scene.groups;
        if groups.is_empty() { self.scene.nobody } else { groups[self.rng.usize(..groups.len())] }
    }

    fn any_group(&mut self) -> GroupId {
        match self.rng.u8(..3) {
            0 => self.scene.group,
            1 => self.scene.nobody,
            _ => self.honest(),
        }
    }

    fn record(&mut self) -> Record {
        let (object, epoch) = (self.object(), self.epoch());
        let group = if self.rng.bool() { self.honest() } else { self.scene.nobody };
        Record { object, group, epoch }
    }

    fn value(&mut self) -> Value {
        let bytes: Vec<u8> = (0..self.rng.usize(..200)).map(|_| self.rng.u8(..)).collect();
        Value::from_slice(&bytes)
    }

    fn seen(&mut self) -> Seen {
        match self.rng.u8(..3) {
            0 => Seen::NotYetCreated,
            1 => Seen::TooOld,
            _ => Seen::Version { commit: self.time(), value: Some(self.value()) },
        }
    }

    fn age(&mut self) -> TxnTimestamp {
        TxnTimestamp { time: self.time(), incarnation: self.rng.u64(..), sequence: self.number() }
    }

    fn message(&mut self, kind: Kind) -> Message {
        match kind {
            Kind::Heartbeat => self.heartbeat(),
            // Of another start than the receiver's: of its own it would be believed, and end the receiver (R11).
            Kind::Forgotten => {
                Message::Forgotten { incarnation: Incarnation::from_u64(self.rng.u64(..)), heartbeats: self.number() }
            }
            Kind::Introduced => Message::Introduced(Introduction {
                incarnation: self.scene.incarnation,
                group: self.scene.group,
                generation: self.generation(),
                term: self.term(),
                domain: self.number(),
                heartbeats: self.number(),
            }),
            Kind::Group => self.group(),
            Kind::WantCloses => Message::WantCloses { group: self.any_group() },
            Kind::Subscribe => Message::Subscribe {
                group: self.any_group(),
                feed: self.number(),
                number: self.number(),
                closed: self.rng.bool(),
                wishes: self.list(|maker| Wish { object: maker.object(), is_watched: maker.rng.bool() }),
                ended: self.objects(),
            },
            Kind::Feed => self.feed(),
            Kind::NoRoom => Message::NoRoom { group: self.any_group() },
            Kind::Groups => Message::Groups { records: self.list(Self::group_record) },
            Kind::AskFate => {
                Message::AskFate { ask: self.number(), group: self.any_group(), term: self.term(), lsn: self.lsn() }
            }
            // Of questions that nobody asked: who is asked is believed (R22).
            Kind::Fate => {
                Message::Fate { ask: self.rng.u64(1 << 40..), fate: FateTold::Lost, lost_from: Some(self.lsn()) }
            }
            // Without fences: who names one is believed to be an operator's peer.
            Kind::AskStanding => {
                Message::AskStanding { ask: self.number(), group: self.any_group(), fences: Vec::new() }
            }
            Kind::Standing => Message::Standing {
                ask: self.number(),
                group: self.any_group(),
                standing: Box::new(Standing::default()),
            },
            Kind::Read | Kind::ReadAnswers | Kind::Own | Kind::Queued | Kind::Stays => self.of_objects(kind),
            Kind::Locate | Kind::Located | Kind::Publish | Kind::Published | Kind::Learned => self.of_places(kind),
            Kind::Grants => self.grants(),
            Kind::GrantAnswers => self.grant_answers(),
            Kind::Submit => Message::Submit { ask: self.number(), request: Box::new(self.task()) },
            Kind::TaskEnded => Message::TaskEnded {
                ask: self.number(),
                task: self.task().id,
                end: Box::new(TaskEnd::Busy { retry_after: Micros(self.number()) }),
            },
            Kind::TaskProvisional => Message::TaskProvisional {
                ask: self.number(),
                task: self.task().id,
                answer: self.value(),
                receipt: self.receipt(),
            },
            Kind::ClockAhead => Message::ClockAhead { objects: self.objects(), receiver: self.wall_told() },
            Kind::Scan => Message::Scan { snapshot: self.time(), cursor: self.number() },
            Kind::ScanPage => self.page(),
        }
    }

    /// Its snapshot is never of long ago: for one, versions are kept for up to a minute (R17).
    fn heartbeat(&mut self) -> Message {
        Message::Heartbeat {
            wall: self.wall_told(),
            oldest_snapshot: None,
            owned: self.number(),
            sequence: if self.flavour == Flavour::Stale { 0 } else { self.scene.sequence },
            draining: 0,
            unsettled: self.number(),
            heard_draining: self.number(),
            your_offset: Some(self.number().cast_signed()),
            group: self.scene.group,
            groups_digest: self.number(),
            // So many that nobody chooses it for another.
            followed: 256,
            room: self.number(),
            led_bytes: self.number(),
        }
    }

    /// Of the group that it leads it says anything; of those that others lead only what is of the past: a higher term is
    /// believed, as consensus must (decision 0016).
    fn group(&mut self) -> Message {
        let (mut group, mut term) = (self.scene.group, self.term());
        if self.rng.bool() {
            (group, term) = (self.honest(), Term::ZERO);
        }
        let generation = Generation::ZERO;
        let body: Body<Entry> = match self.rng.u8(..5) {
            0 => Body::Append {
                previous: self.lsn(),
                previous_term: self.term(),
                batch: no_entries(),
                watermark: self.lsn(),
            },
            1 => Body::Appended { matched: self.lsn() },
            2 => Body::Refused { hint: self.lsn() },
            3 => Body::Vote { last: self.lsn(), last_term: self.term(), trial: self.rng.bool() },
            _ => Body::Voted { granted: true, trial: self.rng.bool() },
        };
        let message = match self.rng.u8(..4) {
            0 => GroupMessage::Closed(Closed {
                generation,
                term,
                watermark: self.lsn(),
                at: self.time(),
                lsn: self.lsn(),
            }),
            1 => GroupMessage::SliceTaken { copy: self.number(), at: self.lsn(), number: self.number() },
            _ => GroupMessage::Consensus(Said { generation, term, body }),
        };
        Message::Group { group, message }
    }

    /// What is known of groups is believed. So: of others what is of the past, or of a generation that cannot be; of its
    /// own anything but an end.
    fn group_record(&mut self) -> GroupRecord {
        let leader = Some(self.scene.me);
        if self.rng.bool() {
            let term = self.term();
            return GroupRecord { group: self.scene.group, generation: Generation::ZERO, term, leader, ended: None };
        }
        let generation = if self.rng.bool() { Generation::ZERO } else { Generation::END };
        GroupRecord { group: self.honest(), generation, term: Term::ZERO, leader, ended: None }
    }

    fn feed(&mut self) -> Message {
        let news = self.list(|maker| News {
            object: maker.object(),
            of: NewsOf::Version {
                wish: maker.number(),
                commit: maker.time(),
                before: maker.time(),
                value: Some(maker.value()),
            },
        });
        Message::Feed {
            group: self.any_group(),
            feed: self.number(),
            opened: self.number(),
            number: self.number(),
            closed: Some(self.time()),
            news,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "it is called for these kinds alone")]
    fn of_objects(&mut self, kind: Kind) -> Message {
        match kind {
            Kind::Read => Message::Read {
                snapshot: self.time(),
                objects: self.list(|maker| ReadRequest { object: maker.object(), epoch: maker.epoch() }),
            },
            Kind::ReadAnswers => Message::ReadAnswers {
                snapshot: self.time(),
                group: self.any_group(),
                answers: self.list(|maker| ReadAnswer {
                    object: maker.object(),
                    epoch: maker.epoch(),
                    seen: maker.seen(),
                }),
            },
            // Of objects that are nowhere: a member that asks for one that is there gets it, and may lose it.
            Kind::Own => Message::Own {
                group: self.any_group(),
                requests: self.list(|maker| OwnRequest {
                    object: maker.stranger(),
                    epoch: maker.epoch(),
                    age: maker.age(),
                    kind: TaskKind::new("hostile"),
                    have: None,
                    pull: maker.rng.bool().then_some(0),
                }),
            },
            Kind::Stays => Message::Stays { objects: self.objects() },
            _ => Message::Queued {
                objects: self.list(|maker| Queued {
                    object: maker.object(),
                    behind: Some((maker.age(), TaskKind::new("hostile"))),
                }),
            },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "it is called for these kinds alone")]
    fn of_places(&mut self, kind: Kind) -> Message {
        match kind {
            Kind::Locate => Message::Locate {
                objects: self.list(|maker| LocateRequest { object: maker.object(), round: maker.number() }),
            },
            Kind::Located => Message::Located {
                answers: self.list(|maker| Located {
                    object: maker.object(),
                    holds: Holds::No,
                    record: Some(maker.record()),
                    leader: Some(maker.scene.me),
                    moves: maker.number(),
                    round: maker.number(),
                    groups_digest: maker.number(),
                }),
            },
            Kind::Publish => Message::Publish { batch: self.number(), records: self.list(Self::record) },
            Kind::Published => Message::Published { batch: self.number() },
            _ => Message::Learned { records: self.list(Self::record) },
        }
    }

    /// Grants that nobody may adopt: without a number, of an epoch at the end, or to a group that is led elsewhere. What a
    /// member gives away that it owns is its own affair.
    fn grants(&mut self) -> Message {
        let grants = self.list(|maker| {
            let (from, commit) = (maker.scene.group, maker.time());
            let variant = if maker.flavour == Flavour::Plausible { 2 } else { maker.rng.u8(..3) };
            let (to, number, epoch) = match variant {
                0 => (maker.honest(), 0, maker.epoch()),
                1 => (maker.honest(), maker.rng.u64(1..100), Epoch::from_u64(u64::MAX)),
                _ => (maker.scene.nobody, maker.rng.u64(1..100), maker.epoch()),
            };
            Grant {
                from,
                to,
                number,
                unsettled_from: 1,
                object: maker.stranger(),
                epoch,
                versions: vec![GrantedVersion { commit, value: GrantedValue::Whole(maker.value()) }],
                outcomes: None,
                low_water: Timestamp::ZERO,
                floor: commit,
            }
        });
        Message::Grants { generation: Generation::ZERO, grants }
    }

    /// Answers in the name of its own group or of none: an answer in that of another would be believed (R19).
    fn grant_answers(&mut self) -> Message {
        let to = if self.rng.bool() { self.scene.group } else { self.scene.nobody };
        Message::GrantAnswers {
            from: self.honest(),
            to,
            generation: self.generation(),
            answers: self.list(|maker| GrantAnswer { number: maker.number(), reply: GrantReply::Refused }),
        }
    }

    fn task(&mut self) -> TaskRequest {
        let anchor = self.stranger();
        let key = TaskKey { issued: self.wall_told(), number: self.number() };
        let deadline = if self.flavour == Flavour::Wild { Micros(self.number()) } else { Micros::from_millis(1_000) };
        let request = TaskRequest::new(TaskId { anchor, key }, "hostile".to_owned(), 1, self.value(), deadline);
        TaskRequest { touches: self.objects(), ..request }
    }

    fn page(&mut self) -> Message {
        let objects = self.list(|maker| Scanned {
            object: maker.object(),
            epoch: maker.epoch(),
            seen: maker.seen(),
            kept: KeptSeen::TooOld,
        });
        Message::ScanPage(ScanPage {
            snapshot: self.time(),
            cursor: self.number(),
            next: Some(self.number()),
            objects,
            in_transit: self.number(),
            group: self.any_group(),
            caretaken: self.number(),
            arrivals: self.number(),
            moving: self.objects(),
            whole: self.rng.bool(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A hostile member among two honest ones.
    pub(crate) fn scene() -> Scene {
        Scene {
            me: PeerId::from_bytes([9; 32]),
            incarnation: Incarnation::from_u64(9),
            group: GroupId::from_u128(9),
            groups: [GroupId::from_u128(1), GroupId::from_u128(2)].into(),
            world: [ObjectId::from_u128(11), ObjectId::from_u128(12)].into(),
            nobody: GroupId::from_u128(77),
            sequence: 1,
        }
    }

    #[test]
    fn each_kind_has_a_sample_of_each_flavour_that_decodes() {
        let (scene, mut rng) = (scene(), Rng::with_seed(1));
        for kind in Kind::ALL {
            for flavour in [Flavour::Plausible, Flavour::Wild, Flavour::Stale, Flavour::Future, Flavour::EpochJump] {
                for _ in 0..50 {
                    let made = envelope(kind, flavour, &scene, Micros(1 << 50), &mut rng);
                    assert_eq!(kind_of(&made.message), kind);
                    let bytes = codec::encode(&made).unwrap();
                    assert_eq!(codec::decode::<Envelope>(&bytes).as_ref(), Ok(&made), "{kind:?} {flavour:?}");
                }
            }
        }
    }

    #[test]
    fn no_kind_is_left_out_or_there_twice() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.into_iter().map(Kind::name).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        // The last kind that `kind_of` knows is the last of all, and each has a place of its own.
        assert!(Kind::ALL.into_iter().enumerate().all(|(place, kind)| place == kind as usize));
        assert_eq!(Kind::ScanPage as usize + 1, Kind::ALL.len());
    }
}
