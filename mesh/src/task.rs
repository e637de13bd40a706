//! A task: a transaction that travels to its data, and takes effect once.
//!
//! It refuses to know where it runs; `submit.rs` asks, and the core sends it.

use crate::host::LiveHost;
use crate::{Result, Tx};
use driftmesh_model::limits::TASK_KIND_BYTES_MAX;
use driftmesh_model::{ObjectId, Value, codec};
use driftmesh_peer::session::{Error, Handlers, TaskAttempts};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Work that any peer can run which has [registered](crate::Builder::register) its type.
///
/// ```
/// use driftmesh::{Mesh, Object, ObjectId, Ref, Result, Task, Tx};
/// use serde::{Deserialize, Serialize};
///
/// # #[derive(Serialize, Deserialize)]
/// # struct Player { gold: u64 }
/// # impl Object for Player {
/// #     const TYPE_NAME: &'static str = "player";
/// # }
/// #[derive(Serialize, Deserialize)]
/// struct Pay { from: Ref<Player>, to: Ref<Player>, gold: u64 }
///
/// impl Task for Pay {
///     type Output = u64;
///     const NAME: &'static str = "pay";
///
///     async fn run(&self, tx: &Tx) -> Result<u64> {
///         let mut from = tx.get_mut(self.from).await?;
///         from.gold = from.gold.checked_sub(self.gold).ok_or_else(|| tx.reject("not enough gold"))?;
///         tx.get_mut(self.to).await?.gold += self.gold;
///         Ok(from.gold)
///     }
///
///     fn touches(&self) -> Vec<ObjectId> {
///         vec![self.from.id(), self.to.id()]
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::builder().register::<Pay>().start().await?;
/// let (from, to) = mesh
///     .transact(|tx| async move { Ok((tx.create(&Player { gold: 10 })?, tx.create(&Player { gold: 0 })?)) })
///     .await?;
/// let left = mesh.submit(Pay { from, to, gold: 3 }).await?;
/// assert_eq!(left, 7);
/// # Ok(())
/// # }
/// ```
pub trait Task: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What its caller gets: at most 16 KiB encoded, because it is kept with the anchor.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Tells it apart from other types: at most 64 bytes, and the same on all peers.
    const NAME: &'static str;

    /// The version of its fields and of its output. Raise it with every change: a peer that knows another version does not
    /// run the task, and says so.
    const VERSION: u32 = 1;

    /// Does the work, as the closure of a transaction does: it may be called several times, so it must not have effects of
    /// its own. `Err(tx.reject(..))` ends the task without effect.
    fn run(&self, tx: &Tx) -> impl Future<Output = Result<Self::Output>> + Send;

    /// What it reads or writes, as far as it knows: it runs where most of that is. At most 256 objects.
    fn touches(&self) -> Vec<ObjectId> {
        Vec::new()
    }

    /// What tasks of this type that touch the same have in common, such as a player's number: Driftmesh learns by it what they
    /// touch and sends the next one there, and what to take for an anchor. Zero, unless given: then all tasks of this type are
    /// learned from alike. Only for tasks that do not say what they touch.
    fn key(&self) -> u64 {
        0
    }

    /// The object that keeps its outcome, for 10 minutes and among the last 256. It need not be changed by the task; it goes
    /// where the task runs. Choose one that the caller uses alone, such as the player, so that it does not become a place
    /// where all tasks wait for each other. Unless given, the first object that the task touches, else what former tasks of its
    /// type and key touched, else one that belongs to the peer that it is submitted at.
    fn anchor(&self) -> Option<ObjectId> {
        self.touches().first().copied()
    }
}

/// Makes attempts of an encoded task of this type.
fn decode<T: Task>(body: &Value) -> std::result::Result<TaskAttempts<LiveHost>, String> {
    let task: Arc<T> = Arc::new(codec::decode(body.bytes()).map_err(|error| error.to_string())?);
    Ok(Box::new(move |tx| {
        let task = Arc::clone(&task);
        Box::pin(async move {
            let output = task.run(&tx).await?;
            let encoded = codec::encode(&output).map_err(Error::rejected)?;
            Ok(Value::from_slice(&encoded))
        })
    }))
}

/// Adds a type to those that a peer can run. Returns whether it could.
pub(crate) fn add<T: Task>(handlers: &mut Handlers<LiveHost>) -> bool {
    T::NAME.len() <= TASK_KIND_BYTES_MAX && handlers.add(T::NAME, T::VERSION, decode::<T>)
}
