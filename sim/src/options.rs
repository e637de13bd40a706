//! Every choice that is drawn from the seed, printed so that a run can be understood and replayed.
//!
//! It refuses to choose anything while a run goes on, and choices that are not printed.

use crate::workloads::Workloads;
use driftmesh_peer::Sabotage;
use fastrand::Rng;
use std::fmt;

/// What the caller fixes instead of leaving it to the seed.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// How many peers.
    pub peers: Option<usize>,
    /// How many transactions are begun before the faults stop.
    pub steps: Option<u64>,
    /// Whether peers crash.
    pub crashes: Option<bool>,
    /// What most faults wait for.
    pub aim: Option<Aim>,
    /// How many groups a peer follows at most.
    pub followed_max: Option<usize>,
    /// The message with this number is dropped, to show that it matters to the trace.
    pub drop_message: Option<u64>,
    /// The one rule that is broken on purpose; needs the feature `sabotage`.
    pub sabotage: Option<Sabotage>,
    /// Whether lists and registers are worked on too, and dumped for outside judges. Seeds are other runs with it.
    pub dump: bool,
    /// Whether clients do only what they do in most seeds: bank, inventory and names.
    pub usual_workloads: bool,
    /// Whether no hash is made over what happens: many seeds run faster, each of them as it would with one.
    pub untraced: bool,
}

/// A moment that faults wait for: something has begun and is not safe yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// A commit was answered, and its entry has not left.
    Commit,
    /// An object leaves, and that is not stable.
    Out,
    /// An object has arrived, and that is not acknowledged.
    In,
    /// A leader was elected, and its first entry is not stable.
    Election,
    /// A copy of a state is on its way.
    Copy,
    /// The members of a group change in two steps.
    Joint,
    /// A group has ended, and nobody was told.
    Retired,
    /// A leader tells what it closes to somebody who does not belong to its group.
    Close,
    /// A member has dropped the journal of a group, and a former leader still counts on it.
    Dropped,
}

impl Aim {
    /// None as often as some.
    const CHOICES: [Option<Self>; 12] = [
        None,
        None,
        None,
        Some(Self::Commit),
        Some(Self::Out),
        Some(Self::In),
        Some(Self::Election),
        Some(Self::Copy),
        Some(Self::Joint),
        Some(Self::Retired),
        Some(Self::Close),
        Some(Self::Dropped),
    ];
}

/// One run's options. Whole classes of faults are off in many runs: what is always on hides what it causes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed they were drawn from.
    pub seed: u64,
    /// How many peers.
    pub peers: usize,
    /// The last so many of them are not there at first.
    pub late_peers: usize,
    /// How many transactions are begun before the faults stop.
    pub steps: u64,
    /// Clients at each peer.
    pub clients: usize,
    /// Purses in the world; each has gold and items.
    pub purses: usize,
    /// Purses that most transactions choose from.
    pub hot_purses: usize,
    /// How often a transaction pauses between its steps, in percent.
    pub think_percent: u8,
    /// Messages lost, in parts per thousand.
    pub loss_permille: u16,
    /// Messages that come twice, in parts per thousand.
    pub duplicate_permille: u16,
    /// Shortest way of a message, us.
    pub delay_min_us: u64,
    /// Spread of its delay, us: reordering comes from it.
    pub delay_spread_us: u64,
    /// Messages that are very late, in parts per thousand.
    pub tail_permille: u16,
    /// Mean time between faults, us; 0 for none.
    pub fault_every_us: u64,
    /// How far wall clocks differ, us, in both directions.
    pub skew_us: u64,
    /// How much faster or slower than the true time wall clocks run at most, in parts per million.
    pub drift_ppm: u32,
    /// Whether wall clocks are set, forwards or backwards, while their peers run.
    pub clock_jumps: bool,
    /// Whether one peer, which owns nothing at first, has a wall clock that is ten minutes ahead.
    pub mad_clock: bool,
    /// How many followers each group shall have.
    pub replicas: usize,
    /// How long a follower may be out of reach before it is replaced, us.
    pub replace_after_us: u64,
    /// How long followers wait for a leader before they elect another one, us.
    pub election_after_us: u64,
    /// How many bytes of a journal are kept: beyond, members that lag get copies of the state.
    pub lag_bytes: u64,
    /// How long entries wait for others to share their message, us.
    pub batch_every_us: u64,
    /// How long an entry may be unstable before commits wait, us.
    pub unstable_max_us: u64,
    /// How many groups a peer follows at most.
    pub followed_max: usize,
    /// Whether peers crash.
    pub crashes: bool,
    /// What most crashes, pauses and partitions wait for, if anything.
    pub aim: Option<Aim>,
    /// Whether the next crash comes before all groups are whole again.
    pub together: bool,
    /// Whether groups may lose their majority.
    pub lossy: bool,
    /// How long a peer stands still at most, us.
    pub stall_max_us: u64,
    /// How long clients pause between two transactions at most, us: the longer, the more faults meet them.
    pub pace_us: u64,
    /// Budget of superseded versions, bytes.
    pub version_bytes_max: usize,
    /// Bound of hints and home records.
    pub records_max: usize,
    /// Whether peers leave, and go and come back as somebody new.
    pub restarts: bool,
    /// Whether peers stand still for a while.
    pub stalls: bool,
    /// Bound of forwarding pointers.
    pub pointers_max: usize,
    /// How long a forwarding pointer stays at least, us.
    pub pointer_grace_us: u64,
    /// Whether most peers have not met at first, and find each other by the routing.
    pub strangers: bool,
    /// How many names clients use.
    pub names: usize,
    /// Most names in a directory bucket before it splits.
    pub name_bucket_entries_max: usize,
    /// Clients at each peer that only read, at snapshots a little in the past.
    pub readers: usize,
    /// How many objects subscribers are told of by one leader at most.
    pub fed_max: usize,
    /// Clients at each peer that watch a purse.
    pub watchers: usize,
    /// At how many peers a client watches names.
    pub name_watchers: usize,
    /// Whether rubbish arrives beside messages.
    pub rubbish: bool,
    /// Whether the ways to and from a peer take very long for a while.
    pub slow_peers: bool,
    /// Whether links lose most of what they carry, peers only say or only hear, and halves have a bridge.
    pub odd_links: bool,
    /// What its clients do.
    pub workloads: Workloads,
    /// Whether peers take branches that are seldom taken, on purpose.
    pub rare_branches: bool,
    /// Whether old copies of peers' memories come to life.
    pub old_copies: bool,
    /// If there is little room: how much more than the fullest peer holds when the faults begin any peer may hold until they
    /// stop, bytes (R24).
    pub room_bytes: Option<u64>,
    /// What the caller fixed.
    pub drop_message: Option<u64>,
    /// Whether no hash is made over what happens.
    pub untraced: bool,
    /// The rule that is broken.
    pub sabotage: Option<Sabotage>,
    /// Whether lists and registers are dumped for outside judges.
    pub dump: bool,
}

/// Least peers of a dumped history.
pub const DUMP_PEERS_MIN: usize = 3;

/// A bound of forwarding pointers that is often reached.
const POINTERS_FEW: usize = 4;

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

impl Options {
    /// Draws the options of a seed.
    #[must_use]
    pub fn draw(seed: u64, overrides: &Overrides) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x0D21_F7E5);
        let rng = &mut rng;
        let peers = pick(rng, &[2, 3, 3, 3, 4, 4, 5, 5, 6, 7]);
        let purses = rng.usize(4..=16);
        let pointers_max = pick(rng, &[1 << 16, 1 << 16, POINTERS_FEW]);
        let drawn = Self {
            seed,
            peers,
            late_peers: 0,
            steps: 260,
            clients: rng.usize(1..=4),
            purses,
            hot_purses: rng.usize(2..=purses),
            think_percent: pick(rng, &[0, 20, 60]),
            loss_permille: pick(rng, &[0, 0, 5, 50, 150]),
            duplicate_permille: pick(rng, &[0, 10, 100, 300]),
            delay_min_us: pick(rng, &[50, 200, 1_000]),
            delay_spread_us: pick(rng, &[10, 500, 5_000, 20_000]),
            tail_permille: pick(rng, &[0, 5, 50]),
            fault_every_us: pick(rng, &[0, 20_000, 100_000, 400_000]),
            skew_us: pick(rng, &[0, 1_000, 60_000, 120_000]),
            mad_clock: rng.u8(..10) == 0,
            version_bytes_max: pick(rng, &[1 << 20, 1 << 20, 4_000]),
            // Room for many is made at once, for each peer that begins: what no seed fills only takes time.
            records_max: pick(rng, &[1 << 12, 1 << 12, 3]),
            restarts: true,
            stalls: true,
            pointers_max,
            // With few pointers each must go soon, else nothing moves any more.
            pointer_grace_us: if pointers_max == POINTERS_FEW { 20_000 } else { pick(rng, &[0, 50_000, 5_000_000]) },
            strangers: rng.u8(..3) == 0,
            names: rng.usize(3..=24),
            name_bucket_entries_max: pick(rng, &[1, 2, 128]),
            drop_message: overrides.drop_message,
            untraced: overrides.untraced,
            sabotage: overrides.sabotage,
            dump: overrides.dump,
            replicas: pick(rng, &[0, 1, 2, 2, 2, 2, 3, 4]),
            replace_after_us: pick(rng, &[300_000, 600_000, 2_000_000]),
            election_after_us: pick(rng, &[200_000, 400_000, 1_000_000]),
            lag_bytes: pick(rng, &[u64::MAX, u64::MAX, 12_000]),
            batch_every_us: pick(rng, &[0, 1_000, 1_000, 20_000]),
            unstable_max_us: pick(rng, &[1_000_000, 1_000_000, 30_000]),
            followed_max: pick(rng, &[256, 256, 256, 2]),
            crashes: rng.u8(..4) > 0,
            aim: pick(rng, &Aim::CHOICES),
            together: rng.u8(..4) == 0,
            lossy: rng.u8(..16) == 0,
            stall_max_us: pick(rng, &[1_500_000, 4_000_000]),
            pace_us: pick(rng, &[3_000, 3_000, 30_000, 150_000]),
            readers: pick(rng, &[0, 1, 1, 2]),
            watchers: pick(rng, &[0, 1, 1, 2]),
            fed_max: pick(rng, &[1 << 14, 1 << 14, 3]),
            rubbish: rng.u8(..3) == 0,
            name_watchers: pick(rng, &[0, 0, 1, 2]),
            drift_ppm: pick(rng, &[0, 0, 500, 5_000]),
            clock_jumps: rng.bool(),
            slow_peers: rng.u8(..3) == 0,
            odd_links: rng.bool(),
            workloads: if overrides.usual_workloads { Workloads::usual() } else { Workloads::draw(rng) },
            rare_branches: rng.bool(),
            old_copies: rng.u8(..4) == 0,
            room_bytes: pick(rng, &[None, None, None, Some(300), Some(3_000)]),
        };
        let drawn = if overrides.dump { drawn.with_reads_at_the_end() } else { drawn };
        Self {
            // Below that a follower cannot be replaced.
            followed_max: overrides.followed_max.unwrap_or(drawn.followed_max).max(drawn.replicas + 1),
            aim: overrides.aim.or(drawn.aim),
            peers: overrides.peers.unwrap_or(drawn.peers).max(1),
            steps: overrides.steps.unwrap_or(drawn.steps),
            crashes: overrides.crashes.unwrap_or(drawn.crashes),
            mad_clock: drawn.mad_clock && overrides.peers.unwrap_or(drawn.peers) > 2,
            ..drawn
        }
    }

    /// Every peer reads everything in the end: no group may be out of reach for good, and every clock must be right.
    fn with_reads_at_the_end(self) -> Self {
        let peers = self.peers.max(DUMP_PEERS_MIN);
        Self { peers, lossy: false, together: false, mad_clock: false, ..self }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lag_bytes, aim, .. } = self;
        write!(
            formatter,
            "seed {} peers {} steps {} clients {} purses {} hot {} think {}% loss {}/1000 duplicate {}/1000 \
             delay {}+{} us late {}/1000 fault every {} us skew {} us mad clock {} \
             version bytes {} records {} pointers {} grace {} us strangers {} names {} per bucket {}",
            self.seed,
            self.peers,
            self.steps,
            self.clients,
            self.purses,
            self.hot_purses,
            self.think_percent,
            self.loss_permille,
            self.duplicate_permille,
            self.delay_min_us,
            self.delay_spread_us,
            self.tail_permille,
            self.fault_every_us,
            self.skew_us,
            self.mad_clock,
            self.version_bytes_max,
            self.records_max,
            self.pointers_max,
            self.pointer_grace_us,
            self.strangers,
            self.names,
            self.name_bucket_entries_max,
        )?;
        write!(
            formatter,
            " replicas {} replaced after {} us election after {} us journal {lag_bytes} bytes batch {} us unstable {} us \
             followed {} readers {} watchers {} fed {} name watchers {} rubbish {} crashes {} aim {aim:?} together {} lossy {} stall {} us pace {} us drift {} ppm clocks set {} slow {} odd links {} workloads {} rare branches {} old copies {}",
            self.replicas,
            self.replace_after_us,
            self.election_after_us,
            self.batch_every_us,
            self.unstable_max_us,
            self.followed_max,
            self.readers,
            self.watchers,
            self.fed_max,
            self.name_watchers,
            self.rubbish,
            self.crashes,
            self.together,
            self.lossy,
            self.stall_max_us,
            self.pace_us,
            self.drift_ppm,
            self.clock_jumps,
            self.slow_peers,
            self.odd_links,
            self.workloads,
            self.rare_branches,
            self.old_copies,
        )?;
        if let Some(bytes) = self.room_bytes {
            write!(formatter, " room {bytes} bytes")?;
        }
        if self.dump { formatter.write_str(" dump") } else { Ok(()) }
    }
}
