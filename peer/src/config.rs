//! What a peer is told at its start. Everything else it learns.

use crate::routes::ROUTES_MAX;
use driftmesh_model::limits::NAME_BUCKET_ENTRIES_MAX;
use driftmesh_model::{Incarnation, Micros, PeerId};
use driftmesh_object_store::Settings;
use std::num::NonZeroUsize;

/// Followers of a group unless set otherwise.
pub const REPLICAS: usize = 2;
/// Most followers of a group.
pub const REPLICAS_MAX: usize = 6;

/// What the objects that a peer holds may take unless set otherwise, bytes. More than most games ever have, and less than what
/// most servers have: a game that creates objects for ever is told so by a typed error, instead of ended by its kernel.
pub const HELD_BYTES: u64 = 8 << 30;

/// Settings of one incarnation of a peer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this peer is.
    pub peer: PeerId,
    /// This start of it: random.
    pub incarnation: Incarnation,
    /// What object ids and the randomness of tasks are drawn from: 32 bytes nobody else has.
    pub seed: [u8; 32],
    /// Whether it founds the mesh: one peer does, and begins with the directory buckets (R23). A peer that joins and
    /// has met nobody yet declares nothing absent (R4).
    pub founder: bool,
    /// How many followers its group shall have: 0 to 6. Fewer peers, fewer followers.
    pub replicas: usize,
    /// What fails together with this peer: a hash of its zone, or of its machine. Followers are chosen elsewhere first.
    pub domain: u64,
    /// How the members of groups behave in time, and how much of a journal is kept.
    pub journal: Settings,
    /// A follower that is out of reach for so long is replaced, if somebody can take its place.
    pub replace_after: Micros,
    /// How long an entry may be unstable before commits wait (R10).
    pub unstable_max: Micros,
    /// How many bytes of entries may be unstable before commits wait (R10).
    pub unstable_bytes_max: u64,
    /// Most groups that this peer follows (R24).
    pub followed_max: usize,
    /// Most objects in all subscriptions to groups that this peer leads, its own aside (R24).
    pub fed_max: usize,
    /// Time between heartbeats.
    pub heartbeat: Micros,
    /// Most location hints and home records, each.
    pub records_max: NonZeroUsize,
    /// Most kinds and keys of tasks of which is remembered what they touched.
    pub routes_max: NonZeroUsize,
    /// Most forwarding pointers. At the bound objects wait before they leave (R3, R24).
    pub pointers_max: usize,
    /// How long a forwarding pointer stays at least.
    pub pointer_grace: Micros,
    /// Most bytes that the objects take which this peer holds, its own and copies of others' (R24). Peers need not agree on it.
    pub held_bytes_max: u64,
    /// Most bytes of superseded versions in each group that this peer belongs to (R17).
    pub version_bytes_max: usize,
    /// Most names in one directory bucket before it splits, at least 1. Peers need not agree on it.
    pub name_bucket_entries_max: usize,
    /// Whether objects follow what they are used with, and tasks are sent to what is in much use (see `placing`).
    pub placement: bool,
    /// From what it is drawn where a simulated peer takes rare branches. A live peer never takes any.
    pub rare_branches: Option<u64>,
    /// The one rule that is broken on purpose.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<crate::Sabotage>,
}

impl Config {
    /// The defaults for a live peer.
    #[must_use]
    pub fn new(peer: PeerId, incarnation: Incarnation, seed: [u8; 32]) -> Self {
        const RECORDS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 20).expect("not zero");
        Self {
            peer,
            incarnation,
            seed,
            founder: true,
            replicas: REPLICAS,
            domain: 0,
            journal: Settings::default(),
            replace_after: Micros::from_millis(2_000),
            unstable_max: Micros::from_millis(1_000),
            unstable_bytes_max: 16 << 20,
            followed_max: 256,
            fed_max: 16_384,
            heartbeat: Micros::from_millis(100),
            records_max: RECORDS_MAX,
            routes_max: ROUTES_MAX,
            pointers_max: 1 << 18,
            pointer_grace: Micros::from_millis(5_000),
            held_bytes_max: HELD_BYTES,
            version_bytes_max: 64 << 20,
            name_bucket_entries_max: NAME_BUCKET_ENTRIES_MAX,
            placement: true,
            rare_branches: None,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}
