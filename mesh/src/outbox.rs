//! Messages to the world outside: what a commit says to a web service, a chat or a payment, once that commit is stable.
//!
//! It refuses to promise once: who is outside hears it at least once, and knows repeats by their id.

use crate::host::LiveHost;
use crate::{Owner, Result, Tx};
use driftmesh_model::limits::TASK_KIND_BYTES_MAX;
use driftmesh_model::{Micros, ScheduleId, Value, codec};
use driftmesh_peer::session::{Delivery, Handlers, Plan};
use futures::future::{Either, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long one delivery may take; then it is given up and tried again later.
const DELIVER_WITHIN: Duration = Duration::from_secs(30);
/// When a delivery that took too long is tried again.
const AFTER_LATE: Duration = Duration::from_secs(1);

/// A message to the world outside of the mesh, which any peer can deliver that has [registered](crate::Builder::deliver) its
/// type. A transaction [sends](Outbox::send_outside) it.
///
/// ```no_run
/// use driftmesh::{DeliveryId, Mesh, Outbox as _, OutboxMessage, Undelivered};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
/// # use driftmesh::Object;
/// # #[derive(Serialize, Deserialize)]
/// # struct Player { gold: u64 }
/// # impl Object for Player {
/// #     const TYPE_NAME: &'static str = "player";
/// # }
/// # async fn post(url: &str, key: String, gold: u64) -> std::result::Result<(), ()> { Ok(()) }
///
/// #[derive(Serialize, Deserialize)]
/// struct Paid { player: String, gold: u64 }
///
/// impl OutboxMessage for Paid {
///     const NAME: &'static str = "paid";
///
///     async fn deliver(&self, id: DeliveryId) -> Result<(), Undelivered> {
///         // The other side keeps the key, and does nothing when it comes again.
///         let posted = post("https://shop.example/paid", id.to_string(), self.gold).await;
///         posted.map_err(|()| Undelivered { retry_after: Duration::from_secs(5) })
///     }
/// }
///
/// # async fn example(player: driftmesh::Ref<Player>) -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::builder().deliver::<Paid>().start().await?;
/// mesh.transact(|tx| async move {
///     tx.get_mut(player).await?.gold -= 5;
///     tx.send_outside(player, &Paid { player: "Ann".to_owned(), gold: 5 }).await.map(drop)
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
pub trait OutboxMessage: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Tells it apart from other types, also of tasks: at most 64 bytes, and the same on all peers.
    const NAME: &'static str;

    /// The version of its fields. A peer that knows another version does not deliver it, and says so in its status.
    const VERSION: u32 = 1;

    /// Delivers it. Runs outside of any transaction, and may take 30 s. It is called again, here or at another peer, until it
    /// has said `Ok` and a commit has noted that: so also after it said so, if a crash, a move of its object or the end of its peer
    /// comes between. What panics at two peers is parked and listed,
    /// as a schedule is.
    fn deliver(&self, id: DeliveryId) -> impl Future<Output = std::result::Result<(), Undelivered>> + Send;
}

/// What tells a message apart from all others: the same at each delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId(ScheduleId);

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A message could not be delivered now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not delivered; again in {retry_after:?}")]
pub struct Undelivered {
    /// When to try again: 10 ms at least, and a minute at most.
    pub retry_after: Duration,
}

/// Sends messages outside from a transaction: `use driftmesh::Outbox as _;`.
pub trait Outbox {
    /// Hands over a message with this commit: it is delivered when the commit is stable, at least once, and never if the commit
    /// is not kept. Until then it belongs to an object, as a schedule does: it moves with it, survives crashes as it does, and
    /// ends with it. Messages are in no order. [`Tx::cancel`] with the id takes it back, unless it is
    /// under way already.
    ///
    /// # Errors
    /// `Schedule` if the bounds are not kept: an object has 16 schedules and messages at most, of 4 KiB each. `Dangling` or
    /// `ObjectLost`, or the end of the attempt.
    fn send_outside<M: OutboxMessage>(
        &self,
        owner: impl Owner + Send,
        message: &M,
    ) -> impl Future<Output = Result<ScheduleId>> + Send;
}

impl Outbox for Tx {
    async fn send_outside<M: OutboxMessage>(&self, owner: impl Owner + Send, message: &M) -> Result<ScheduleId> {
        let object = owner.object();
        let work = crate::schedule::encoded(object, M::NAME, M::VERSION, message)?;
        self.schedule_work(object, work, Plan::FOLLOW_UP).await
    }
}

/// Makes the delivery of an encoded message of this type.
fn decode<M: OutboxMessage>(body: &Value) -> std::result::Result<Delivery<LiveHost>, String> {
    let message: Arc<M> = Arc::new(codec::decode(body.bytes()).map_err(|error| error.to_string())?);
    Ok(Box::new(move |host, id| {
        Box::pin(async move {
            let late = host.shared.sleep(DELIVER_WITHIN);
            let ended = match select(pin!(message.deliver(DeliveryId(id))), pin!(late)).await {
                Either::Left((ended, _)) => ended,
                Either::Right(((), _)) => Err(Undelivered { retry_after: AFTER_LATE }),
            };
            ended.map_err(|undelivered| Micros::from_duration(undelivered.retry_after))
        })
    }))
}

/// Adds a type to those that a peer can deliver. Returns whether it could.
pub(crate) fn add<M: OutboxMessage>(handlers: &mut Handlers<LiveHost>) -> bool {
    M::NAME.len() <= TASK_KIND_BYTES_MAX && handlers.add_message(M::NAME, M::VERSION, decode::<M>)
}
