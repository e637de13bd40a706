//! What the orchestrator and its peer processes say to each other: one JSON object a line.
//!
//! It refuses to carry game objects or audit results: those go through the mesh.

use anyhow::{Context, Result, bail};
use driftmesh::ObjectId;
use serde::{Deserialize, Serialize};

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
        /// Where to join; `None` founds the mesh.
        join: Option<String>,
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
    /// All players of the world.
    World {
        /// The players created at each peer, each list as [`pack`] writes it.
        shares: Vec<String>,
        /// Which of the shares is this peer's.
        own: usize,
    },
    /// Trade.
    Work {
        /// For how long.
        seconds: u64,
        /// The probability that a partner is chosen among the players at this peer.
        locality: f64,
        /// What the bots' choices are drawn from.
        seed: u64,
    },
    /// Wait until nothing moves any more, and tell.
    Settle,
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
    /// One second of work.
    Progress(Progress),
    /// The work is done, no transaction is open.
    Finished(Finished),
    /// Nothing moves at this peer.
    Settled(Settled),
    /// An order failed. The process ends.
    Failed {
        /// Why.
        error: String,
    },
}

/// One second of a peer's work.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Objects owned now.
    pub(crate) owned: u64,
    /// Commits in this second.
    pub(crate) commits: u64,
    /// Those of them that awaited no message.
    pub(crate) local_commits: u64,
    /// Objects that came here in this second.
    pub(crate) arrived: u64,
    /// Latencies of this second.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// How long it was, microseconds.
    pub(crate) elapsed_us: u64,
}

/// All of a peer's work.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// Trades that committed.
    pub(crate) commits: u64,
    /// Those of them that awaited no message.
    pub(crate) local_commits: u64,
    /// Trades given up at their deadline.
    pub(crate) deadlines: u64,
    /// Objects that came here while it worked.
    pub(crate) arrived: u64,
    /// Attempts of transactions that ended without a commit.
    pub(crate) aborts: u64,
    /// Frames sent to other peers while it worked.
    pub(crate) frames_sent: u64,
    /// Their bytes, before encryption.
    pub(crate) bytes_sent: u64,
    /// The longest time that messages or timers held the peer's core, microseconds.
    pub(crate) longest_core_hold_us: u64,
    /// Searches that found their object while it worked.
    pub(crate) found: u64,
    /// Pointers that these followed.
    pub(crate) hops: u64,
    /// Most pointers that one search followed since the start.
    pub(crate) chain_max: u64,
    /// Forwarding pointers kept at the end.
    pub(crate) pointers: u64,
    /// About how much memory pointers, hints and home records take at the end, bytes.
    pub(crate) directory_bytes: u64,
    /// Latencies of all trades that committed.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// From the first trade to the end of the last, microseconds.
    pub(crate) elapsed_us: u64,
    /// The first errors that no trade should meet.
    pub(crate) errors: Vec<String>,
    /// How many there were.
    pub(crate) error_count: u64,
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

/// Digits of a packed id.
const DIGITS: usize = 32;

/// Writes ids as one string of 32 hexadecimal digits each.
pub(crate) fn pack(objects: &[ObjectId]) -> String {
    let mut packed = String::with_capacity(objects.len() * DIGITS);
    for object in objects {
        packed.push_str(&object.to_string());
    }
    packed
}

/// Reads what [`pack`] wrote.
pub(crate) fn unpack(packed: &str) -> Result<Vec<ObjectId>> {
    if !packed.is_ascii() || !packed.len().is_multiple_of(DIGITS) {
        bail!("{} bytes are not a list of object ids", packed.len());
    }
    let id = |at: usize| packed[at..at + DIGITS].parse().context("an object id is not hexadecimal");
    (0..packed.len()).step_by(DIGITS).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_packing() {
        let objects: Vec<ObjectId> = [0, 1, u128::MAX].into_iter().map(ObjectId::from_u128).collect();
        assert_eq!(unpack(&pack(&objects)).unwrap(), objects);
        assert!(unpack("12").is_err());
        assert!(unpack(&"x".repeat(32)).is_err());
    }

    #[test]
    fn orders_and_answers_are_one_line_each() {
        let order = Order::Start { mesh: "a\nb".into(), secret: "s".into(), join: None };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert!(matches!(serde_json::from_str(&line).unwrap(), Order::Start { join: None, .. }));
        let answer = Answer::Finished(Finished { commits: 3, latencies: vec![(1_000, 3)], ..Finished::default() });
        let line = serde_json::to_string(&answer).unwrap();
        let Answer::Finished(finished) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!((finished.commits, finished.latencies), (3, vec![(1_000, 3)]));
    }
}
