//! One peer process as the exchange knows it: how it is reached, whether it lives, and what came of the trades there.
//!
//! It refuses to decide where bots go.

use crate::frames::{self, Kind};
use crate::latency::Latencies;
use crate::protocol::{Order, PeerStatus};
use crate::records::{Commit, TradeOrder};
use crate::way_in::{WayIn, frame_of};
use crate::workloads::records::{self, ActOrder};
use anyhow::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A frame, and where it is to go.
pub(crate) type Outgoing = (Arc<WayIn>, Vec<u8>);

/// How a peer process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It takes no trades yet.
    Starting,
    /// It takes trades.
    Live,
    /// It is stopped, and will go on.
    Paused,
    /// It was killed.
    Dead,
}

/// What came of the trades at a peer in some time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traded {
    /// Trades that committed.
    pub(crate) commits: u64,
    /// Those of them that awaited no message.
    pub(crate) local_commits: u64,
    /// Those of them that were not stable yet when they were answered.
    pub(crate) unstable_commits: u64,
    /// From the call of each of their transactions to its answer.
    pub(crate) latencies: Latencies,
}

impl Traded {
    fn count(&mut self, commit: &Commit) {
        self.commits += 1;
        self.local_commits += u64::from(!commit.awaited_message);
        self.unstable_commits += u64::from(!commit.stable);
        self.latencies.record(Duration::from_nanos(commit.nanos));
    }

    /// Adds another time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.local_commits += other.local_commits;
        self.unstable_commits += other.unstable_commits;
        self.latencies.merge(&other.latencies);
    }
}

/// What a peer says of its commits in some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// All.
    pub(crate) commits: u64,
    /// Those that awaited no message.
    pub(crate) local: u64,
}

/// What the table shows of a peer for one second.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// How it is.
    pub(crate) life: Life,
    /// Objects owned, as it said last.
    pub(crate) owned: u64,
    /// What came of the trades there.
    pub(crate) traded: Traded,
    /// What the peer says itself of its commits, where only it knows what was local.
    pub(crate) told: Option<Told>,
    /// Objects that came there.
    pub(crate) arrived: u64,
    /// How long the second was.
    pub(crate) elapsed: Duration,
}

/// A peer process.
#[derive(Debug)]
pub(crate) struct Seat {
    way_in: Arc<WayIn>,
    pub(crate) life: Life,
    /// What it said last of itself, and when.
    status: Option<(PeerStatus, Instant)>,
    /// What it said first: the counts from before the bots began.
    first: Option<PeerStatus>,
    /// Records of orders to be sent.
    orders: Vec<u8>,
    /// Acts to be submitted there.
    acts: Vec<ActOrder>,
    /// Whether what was local is what the peer says: of tasks nobody else knows.
    asks_what_is_local: bool,
    commits_before: (u64, u64),
    this_second: Traded,
    /// Of the seconds before.
    before: Traded,
    arrived_before: u64,
}

impl Seat {
    /// A process that is starting, reached by this way.
    pub(crate) fn new(way_in: Arc<WayIn>) -> Self {
        Self {
            way_in,
            life: Life::Starting,
            status: None,
            first: None,
            orders: Vec::new(),
            acts: Vec::new(),
            asks_what_is_local: false,
            commits_before: (0, 0),
            this_second: Traded::default(),
            before: Traded::default(),
            arrived_before: 0,
        }
    }

    /// How it is reached.
    pub(crate) fn way_in(&self) -> Arc<WayIn> {
        Arc::clone(&self.way_in)
    }

    /// Adds an order to those that [`Seat::frame`] takes.
    pub(crate) fn add(&mut self, order: &TradeOrder) {
        order.append(&mut self.orders);
    }

    /// Takes the orders that were added as a frame, and by which way it goes. A process that has gone takes it too: they
    /// stay unanswered.
    pub(crate) fn frame(&mut self) -> Result<Option<Outgoing>> {
        if self.orders.is_empty() {
            return Ok(None);
        }
        let mut frame = Vec::with_capacity(self.orders.len() + 8);
        frames::append(&mut frame, Kind::Trades, &self.orders)?;
        self.orders.clear();
        Ok(Some((Arc::clone(&self.way_in), frame)))
    }

    /// The players of a workload begin there.
    pub(crate) const fn begin_acts(&mut self) {
        self.life = Life::Live;
        self.asks_what_is_local = true;
    }

    /// Adds an act to those that [`Seat::act_frame`] takes.
    pub(crate) fn add_act(&mut self, order: ActOrder) {
        self.acts.push(order);
    }

    /// Takes the acts that were added as a frame, as [`Seat::frame`] does.
    pub(crate) fn act_frame(&mut self) -> Result<Option<Outgoing>> {
        if self.acts.is_empty() {
            return Ok(None);
        }
        let body = records::encode(&std::mem::take(&mut self.acts))?;
        let mut frame = Vec::with_capacity(body.len() + 8);
        frames::append(&mut frame, Kind::Acts, &body)?;
        Ok(Some((Arc::clone(&self.way_in), frame)))
    }

    /// The question for its status.
    pub(crate) fn status_order(&self) -> Result<Outgoing> {
        Ok((Arc::clone(&self.way_in), frame_of(&Order::Status)?))
    }

    /// Takes its status.
    pub(crate) fn take_status(&mut self, status: PeerStatus) {
        self.first.get_or_insert_with(|| status.clone());
        self.status = Some((status, Instant::now()));
    }

    /// Its status, unless that is older.
    pub(crate) fn status_since(&self, since: Instant) -> Option<&PeerStatus> {
        self.status.as_ref().filter(|(_, at)| *at >= since).map(|(status, _)| status)
    }

    /// What it said first and last.
    pub(crate) fn first_and_last(&self) -> (PeerStatus, PeerStatus) {
        let last = self.status.as_ref().map(|(status, _)| status.clone()).unwrap_or_default();
        (self.first.clone().unwrap_or_default(), last)
    }

    /// Counts a commit there.
    pub(crate) fn count(&mut self, commit: &Commit) {
        self.this_second.count(commit);
    }

    /// Commits since the last row.
    pub(crate) const fn commits_this_second(&self) -> u64 {
        self.this_second.commits
    }

    /// All that came of the trades there.
    pub(crate) fn all(&self) -> Traded {
        let mut all = self.before.clone();
        all.add(&self.this_second);
        all
    }

    /// Ends a second that was so long.
    pub(crate) fn row(&mut self, elapsed: Duration) -> Row {
        let traded = std::mem::take(&mut self.this_second);
        self.before.add(&traded);
        let (first, last) = self.first_and_last();
        let before = std::mem::replace(&mut self.arrived_before, last.arrived).max(first.arrived);
        let owned = if self.life == Life::Dead { 0 } else { last.owned };
        let (commits, local) = std::mem::replace(&mut self.commits_before, (last.commits, last.local_commits));
        let told = self.asks_what_is_local.then_some(Told {
            commits: last.commits.saturating_sub(commits.max(first.commits)),
            local: last.local_commits.saturating_sub(local.max(first.local_commits)),
        });
        Row { life: self.life, owned, traded, told, arrived: last.arrived.saturating_sub(before), elapsed }
    }
}
