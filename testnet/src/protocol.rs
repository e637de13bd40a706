//! What the orchestrator and its peer processes say to each other beside trades: one JSON object a frame.
//!
//! It refuses to carry game objects or audit results: those go through the mesh.

use crate::bench::work::{Work, Worked};
use crate::fates::Fate;
use crate::workloads::parts::{Filled, Part};
use crate::workloads::plan::Plan;
use driftmesh::ObjectId;
use driftmesh_sim::dump::{AppendOp, RegisterOp, SeenVersion};
use serde::{Deserialize, Serialize};

pub(crate) use crate::packed::{pack, pack_receipt, unpack, unpack_receipt};

/// What the orchestrator tells a peer process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Start the peer.
    Start {
        /// The mesh's name.
        mesh: String,
        /// The mesh's secret: nobody else on this machine takes part.
        secret: String,
        /// Where to join; nowhere founds the mesh.
        join: Vec<String>,
        /// Where to listen.
        listen: String,
        /// How many followers its group is to have.
        replicas: usize,
        /// Its number, or that of the killed process whose place it takes.
        place: usize,
        /// What its identity is made of.
        identity: [u8; 32],
    },
    /// Wait until so many others are there.
    WaitForPeers {
        /// How many.
        others: usize,
    },
    /// Create a share of the world.
    Create {
        /// This peer's number.
        number: u64,
        /// How many players.
        players: u64,
    },
    /// All players of the world; trades name them by their places in this list. From here on trades are taken.
    World {
        /// The players created at each peer, each list as [`pack`] writes it.
        shares: Vec<String>,
    },
    /// Tell how the peer stands.
    Status,
    /// Give up a group, as an operator does.
    Forget {
        /// The group.
        group: String,
    },
    /// Send nothing to other peers for so long, while trades go on.
    HoldTraffic {
        /// Milliseconds.
        ms: u64,
    },
    /// Tell what became of these commits.
    Fates {
        /// Their receipts, each as [`pack_receipt`] writes it.
        receipts: Vec<String>,
    },
    /// Wait until nothing moves any more, and tell.
    Settle,
    /// Create lists and registers, of which histories are dumped.
    CreateLists {
        /// How many lists.
        lists: u64,
        /// How many registers.
        registers: u64,
    },
    /// Know all lists and registers; from here on calls are taken.
    LearnLists {
        /// The lists, as [`pack`] writes them.
        lists: String,
        /// The registers.
        registers: String,
    },
    /// Run a transaction on lists or registers, while other orders are taken.
    Call {
        /// Its number.
        id: u64,
        /// What it does.
        asked: Asked,
        /// How long it pauses after each operation, microseconds.
        pause_us: u64,
    },
    /// Search for objects, and tell which are not found.
    Search {
        /// Which, as [`pack`] writes them.
        objects: String,
    },
    /// Create marks, in a benchmark.
    CreateMarks {
        /// How many.
        count: u64,
    },
    /// Begin to work steadily with marks that were created here.
    Beat,
    /// Tell the longest gap in that work since the last such order.
    Gap,
    /// Know the marks of another peer.
    LearnMarks {
        /// Which, as [`pack`] writes them.
        marks: String,
    },
    /// Mark them; each transaction is told.
    Mark,
    /// Make parts of a workload's world.
    CreateParts {
        /// Which.
        parts: Vec<Part>,
    },
    /// Tell places of such a world who is there.
    FillPlaces {
        /// Which, and who.
        places: Vec<Filled>,
    },
    /// Know the whole world of a workload.
    LearnParts {
        /// What it was made of.
        plan: Plan,
        /// The objects; [`crate::workloads::plan::Made::packed`] writes them.
        made: [String; 4],
    },
    /// Look at the whole of it at one snapshot, while other orders are taken.
    Look,
    /// Begin the work of a benchmark, until [`Order::EndWork`].
    BeginWork {
        /// Which.
        work: Work,
    },
    /// Send players elsewhere in that work.
    Travel {
        /// Which players, packed.
        heroes: String,
        /// The place where each goes.
        places: String,
    },
    /// Tell what that work has come to since the last such order.
    WorkDone,
    /// Create a counter, in a benchmark.
    CreateCounter,
    /// Read an object, so that the peer knows where it is.
    Read {
        /// Which.
        #[serde(with = "id_text")]
        object: ObjectId,
    },
    /// End that work, and tell what it came to.
    EndWork,
}

/// What a call does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    /// These operations on lists.
    Lists {
        /// Which.
        ops: Vec<AppendOp>,
    },
    /// These operations on registers.
    Registers {
        /// Which.
        ops: Vec<RegisterOp>,
    },
}

/// What came of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// A transaction on lists committed.
    Lists {
        /// Its operations, with what was read.
        ops: Vec<AppendOp>,
        /// Its receipt, as [`pack_receipt`] writes it.
        receipt: String,
    },
    /// A transaction on registers committed.
    Registers {
        /// What each operation found.
        seen: Vec<SeenVersion>,
        /// Its receipt.
        receipt: String,
    },
    /// It did not commit, as far as is known.
    Failed {
        /// The error, unless it is one that must be expected.
        error: Option<String>,
        /// Whether it is certain that nothing of it took effect.
        aborted: bool,
    },
}

/// What a peer process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The peer is started.
    Started {
        /// Who it is, as status and errors name it.
        peer: String,
        /// Where others join.
        address: String,
    },
    /// All the others are there.
    SeesAll,
    /// The share is created.
    Created {
        /// The players, as [`pack`] writes them.
        players: String,
    },
    /// The world is known.
    Ready,
    /// How the peer stands.
    Status(PeerStatus),
    /// Nothing is sent any more.
    Holding,
    /// The fates asked for, in the same order.
    Fates {
        /// One for each receipt.
        fates: Vec<Fate>,
    },
    /// A trade met an error that is no deadline.
    TradeFailed {
        /// The order's number.
        id: u64,
        /// Whose order it was.
        bot: u32,
        /// The error.
        error: String,
        /// Whether it is certain that nothing of it took effect.
        aborted: bool,
    },
    /// Lists and registers are created.
    ListsCreated {
        /// The lists, as [`pack`] writes them.
        lists: String,
        /// The registers.
        registers: String,
    },
    /// The objects were searched for.
    Searched {
        /// Which were not found, and why, for people.
        missed: Vec<String>,
    },
    /// A call has ended.
    Called {
        /// The order's number.
        id: u64,
        /// What came of it.
        told: Told,
    },
    /// Nothing moves at this peer.
    Settled(Settled),
    /// The longest gap in the steady work.
    Gap {
        /// How long, microseconds.
        longest_us: u64,
    },
    /// A transaction has marked some.
    Marked {
        /// How many.
        count: u64,
    },
    /// A look at the whole world has ended.
    Looked {
        /// What was wrong; or why not everything was seen.
        seen: Result<Vec<String>, String>,
    },
    /// What the work of a benchmark came to.
    Worked(Worked),
    /// An order failed. The process ends.
    Failed {
        /// Why.
        error: String,
    },
}

/// How a peer stands. Counts are since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    /// Objects owned now.
    pub(crate) owned: u64,
    /// Other peers that it is connected to.
    pub(crate) connected: u64,
    /// Why not every group that it leads has all its members, and these all of its state, or a group has no leader;
    /// `None` when all is whole.
    pub(crate) not_whole: Option<String>,
    /// Objects that came here.
    pub(crate) arrived: u64,
    /// Transactions that committed.
    pub(crate) commits: u64,
    /// Those of them that awaited no message.
    pub(crate) local_commits: u64,
    /// Attempts of transactions that ended without a commit.
    pub(crate) aborts: u64,
    /// Frames sent to other peers.
    pub(crate) frames_sent: u64,
    /// Their bytes, before encryption.
    pub(crate) bytes_sent: u64,
    /// CPU time that the process has used, microseconds.
    pub(crate) cpu_us: u64,
    /// The longest time that messages or timers held the peer's core, microseconds.
    pub(crate) longest_core_hold_us: u64,
    /// Searches that found their object.
    pub(crate) found: u64,
    /// Pointers that these followed.
    pub(crate) hops: u64,
    /// Most pointers that one search followed.
    pub(crate) chain_max: u64,
    /// Forwarding pointers kept now.
    pub(crate) pointers: u64,
    /// About how much memory pointers, hints and home records take now, bytes.
    pub(crate) directory_bytes: u64,
    /// What superseded versions take, bytes.
    #[serde(default)]
    pub(crate) version_bytes: u64,
    /// Messages that wait until what they depend on is stable.
    #[serde(default)]
    pub(crate) held_messages: u64,
    /// Outcomes of tasks that are kept here; counted now and then.
    #[serde(default)]
    pub(crate) outcomes: u64,
    /// Memory of the process, KiB; 0 where the system does not say.
    #[serde(default)]
    pub(crate) memory_kib: u64,
    /// Messages that did not decode.
    #[serde(default)]
    pub(crate) undecodable: u64,
    /// Messages that no peer says.
    #[serde(default)]
    pub(crate) impossible: u64,
    /// Connections of members that brought no frames.
    #[serde(default)]
    pub(crate) malformed: u64,
    /// How often a member was dropped for what it said.
    #[serde(default)]
    pub(crate) offenders_dropped: u64,
    /// Handshakes refused because the peer had been dropped.
    #[serde(default)]
    pub(crate) offenders_refused: u64,
    /// How often nothing more was taken of a member for a moment.
    #[serde(default)]
    pub(crate) inbound_paused: u64,
    /// Connections that were not taken.
    #[serde(default)]
    pub(crate) connections_turned_away: u64,
    /// Handshakes that were not begun.
    #[serde(default)]
    pub(crate) handshakes_turned_away: u64,
}

/// How a peer that has settled stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// Objects on their way from here.
    pub(crate) in_transit: u64,
    /// Objects being fetched to here.
    pub(crate) fetching: u64,
    /// Objects that came here since the start.
    pub(crate) arrived: u64,
    /// Objects that left since the start.
    pub(crate) left: u64,
}

/// An object's id in JSON, which has no bytes.
pub(crate) mod id_text {
    use driftmesh::ObjectId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(object: &ObjectId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(object)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The same of an object that need not be given.
pub(crate) mod maybe_id_text {
    use driftmesh::ObjectId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "what serde demands")]
    pub(crate) fn serialize<S: Serializer>(object: &Option<ObjectId>, serializer: S) -> Result<S::Ok, S::Error> {
        object.map(|object| object.to_string()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ObjectId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_survive() {
        let order = Order::Start {
            mesh: "a\nb".into(),
            secret: "s".into(),
            join: Vec::new(),
            listen: "127.0.0.1:0".into(),
            replicas: 2,
            place: 0,
            identity: [7; 32],
        };
        let text = serde_json::to_string(&order).unwrap();
        assert!(matches!(serde_json::from_str(&text).unwrap(), Order::Start { replicas: 2, .. }));
        let answer = Answer::Fates { fates: vec![Fate::Stable, Fate::Lost, Fate::Unknown] };
        let text = serde_json::to_string(&answer).unwrap();
        let Answer::Fates { fates } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(fates, [Fate::Stable, Fate::Lost, Fate::Unknown]);
        let object = ObjectId::from_u128(u128::MAX - 1);
        for place in [None, Some(object)] {
            let parts = vec![Part::Hero { place, gold: 1, goods: 2 }, Part::Cell];
            let text = serde_json::to_string(&Order::CreateParts { parts: parts.clone() }).unwrap();
            let Order::CreateParts { parts: read } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
            assert_eq!(read, parts);
        }
        let text = serde_json::to_string(&Order::Read { object }).unwrap();
        assert!(matches!(serde_json::from_str(&text).unwrap(), Order::Read { object: read } if read == object));
        let order =
            Order::Call { id: 1, asked: Asked::Registers { ops: vec![RegisterOp::Read { variable: 2 }] }, pause_us: 3 };
        let text = serde_json::to_string(&order).unwrap();
        assert!(matches!(
            serde_json::from_str(&text).unwrap(),
            Order::Call { id: 1, asked: Asked::Registers { .. }, .. }
        ));
        let ops = vec![AppendOp::Append { key: 1, element: 2 }, AppendOp::Read { key: 1, elements: Some(vec![2]) }];
        let told = Told::Lists { ops, receipt: "00".into() };
        let text = serde_json::to_string(&Answer::Called { id: 4, told: told.clone() }).unwrap();
        let Answer::Called { id: 4, told: read } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(read, told);
        let text = serde_json::to_string(&Answer::Status(PeerStatus { owned: 3, ..PeerStatus::default() })).unwrap();
        assert!(matches!(serde_json::from_str(&text).unwrap(), Answer::Status(PeerStatus { owned: 3, .. })));
    }
}
