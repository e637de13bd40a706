//! Runs the bots' trades inside a peer process, and tells each outcome as it happens.
//!
//! The bots and what they know live in the orchestrator; here each has a task that runs one trade at a time. It refuses
//! to keep an answer back while anything waits: receipts must be outside before this process is killed.

use crate::answers::Answers;
use crate::fates;
use crate::protocol::Answer;
use crate::records::{Commit, Said, TradeAnswer, TradeOrder};
use crate::trade::{Trade, Traded};
use crate::world::mark;
use driftmesh::{Done, Error, Mesh, ObjectId, Outcome, Ref, Transactions};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Answers that wait for others, so that many go in one write.
const TOGETHER_MAX: usize = 16;
/// How long a trade takes at a peer that takes no part any more, so that its bots do not try it over and over.
const SUPERSEDED_PAUSE: Duration = Duration::from_millis(200);

/// What all bots' tasks share.
#[derive(Debug)]
struct Shared {
    mesh: Mesh,
    world: Arc<[ObjectId]>,
    answers: Arc<Answers>,
    /// Orders that no task has begun yet.
    waiting: AtomicUsize,
}

/// Runs trades. Dropping it lets those under way end.
#[derive(Debug)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
    runtime: Handle,
    /// The task of each bot that ever sent an order here. A bot has one order under way, so these queues are short.
    bots: BTreeMap<u32, UnboundedSender<TradeOrder>>,
}

impl Executor {
    /// Runs trades among the players of this world, named by their places in it, on the current runtime.
    pub(crate) fn new(mesh: Mesh, world: Arc<[ObjectId]>, answers: Arc<Answers>) -> Self {
        let shared = Shared { mesh, world, answers, waiting: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared), runtime: Handle::current(), bots: BTreeMap::new() }
    }

    /// Begins trades. May be called from any thread.
    pub(crate) fn begin(&mut self, orders: Vec<TradeOrder>) {
        self.shared.waiting.fetch_add(orders.len(), Ordering::Relaxed);
        for order in orders {
            let bot = self.bots.entry(order.bot).or_insert_with(|| {
                let (sender, receiver) = unbounded_channel();
                self.runtime.spawn(run_all(Arc::clone(&self.shared), receiver));
                sender
            });
            // Its task ends only with this sender, or when the runtime shuts down.
            let _ = bot.send(order);
        }
    }
}

async fn run_all(shared: Arc<Shared>, mut orders: UnboundedReceiver<TradeOrder>) {
    let task = shared.mesh.task("trade");
    while let Some(order) = orders.recv().await {
        shared.waiting.fetch_sub(1, Ordering::Relaxed);
        shared.run(&task, order).await;
    }
}

impl Shared {
    async fn run(self: &Arc<Self>, task: &Transactions, order: TradeOrder) {
        let Some(trade) = self.trade(&order) else {
            return self.fail(&order, "the order names a player whom the world does not have".to_owned(), true);
        };
        let begun = Instant::now();
        let done = self.telling_while_it_waits(task.run_with_receipt(|tx| trade.run(tx))).await;
        let nanos = nanos_since(begun);
        let said = match done {
            Ok(done) => committed(&done, nanos),
            Err(Error::Deadline { .. }) => Said::Deadline,
            // A copy of this process has taken its place: nothing took effect, and the bots are about to be sent elsewhere.
            Err(Error::Superseded) => {
                tokio::time::sleep(SUPERSEDED_PAUSE).await;
                Said::Deadline
            }
            Err(error) => {
                return self.fail(&order, error.to_string(), error.outcome() == Outcome::Aborted);
            }
        };
        let pending = self.answers.add(&TradeAnswer { id: order.id, bot: order.bot, said });
        if pending >= TOGETHER_MAX || self.waiting.load(Ordering::Relaxed) == 0 {
            self.answers.flush();
        }
        if let Said::Committed(commit) = said
            && order.watched
        {
            tokio::spawn(watch(Arc::clone(self), order, commit));
        }
    }

    fn trade(&self, order: &TradeOrder) -> Option<Trade> {
        let player = |place: u32| self.world.get(usize::try_from(place).ok()?).copied();
        let (buyer, seller) = (player(order.buyer)?, player(order.seller)?);
        Some(Trade {
            buyer: Ref::from_id(buyer),
            seller: Ref::from_id(seller),
            travels: [!self.mesh.is_owned(buyer), !self.mesh.is_owned(seller)],
            price: order.price.into(),
            choice: order.choice.into(),
            mark: mark(order.id),
        })
    }

    /// Lets a transaction run; when it has to wait, what was answered before goes out first.
    async fn telling_while_it_waits<T>(&self, transaction: impl Future<Output = T>) -> T {
        let mut transaction = pin!(transaction);
        poll_fn(|context| {
            let polled = transaction.as_mut().poll(context);
            if polled.is_pending() {
                self.answers.flush();
            }
            polled
        })
        .await
    }

    fn fail(&self, order: &TradeOrder, error: String, aborted: bool) {
        self.answers.tell(&Answer::TradeFailed { id: order.id, bot: order.bot, error, aborted });
    }
}

fn committed(done: &Done<Traded>, nanos: u64) -> Said {
    let gold = |gold: u64| i16::try_from(gold).unwrap_or(i16::MAX);
    let (gold, sold) = match done.value {
        Traded::Item { paid } => (-gold(paid), true),
        Traded::Gift { gold: given } => (gold(given), false),
        Traded::Nothing => return Said::Nothing,
    };
    let committed = &done.committed;
    Said::Committed(Commit {
        receipt: committed.receipt,
        nanos,
        gold,
        sold,
        awaited_message: committed.awaited_message,
        stable: committed.stable,
    })
}

/// Tells when a commit has become stable.
async fn watch(shared: Arc<Shared>, order: TradeOrder, commit: Commit) {
    let begun = Instant::now();
    if !commit.stable && fates::until_decided(&shared.mesh, &commit.receipt).await != fates::Fate::Stable {
        return;
    }
    let after_nanos = if commit.stable { 0 } else { nanos_since(begun) };
    shared.answers.add(&TradeAnswer { id: order.id, bot: order.bot, said: Said::Stable { after_nanos } });
    shared.answers.flush();
}

fn nanos_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
