//! The clients whose histories are dumped: each sends a peer one call after the other.
//!
//! When its peer is killed a client goes on at another one, as somebody else: nobody knows what became of its last call.
//! It refuses to know what the calls mean.

use crate::call_desk::{CallDesk, Kind, Limits};
use crate::exchange::Exchange;
use crate::protocol::Asked;
use anyhow::Result;
use fastrand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// How often a read at the end is tried.
const TRIES: usize = 3;

/// A client.
#[derive(Debug)]
pub(crate) struct Caller {
    exchange: Arc<Exchange>,
    /// At which peer it is.
    peer: usize,
    client: u32,
    rng: Rng,
}

impl Caller {
    /// A client at a peer.
    pub(crate) fn at(exchange: &Arc<Exchange>, peer: usize, rng: Rng) -> Self {
        Self { exchange: Arc::clone(exchange), peer, client: exchange.desk.client(), rng }
    }

    fn desk(&self) -> &CallDesk {
        &self.exchange.desk
    }

    /// Makes one call. `Ok(None)` when the peer has gone.
    async fn call(&mut self, asked: Asked) -> Result<Option<bool>> {
        let way_in = self.exchange.way_in(self.peer);
        self.exchange.desk.call(self.client, (self.peer, &way_in), asked, &mut self.rng).await
    }

    /// Goes to some live peer, as somebody else; `false` where there is none.
    fn go_elsewhere(&mut self) -> bool {
        let Some(peer) = self.rng.choice(self.exchange.live()) else { return false };
        (self.peer, self.client) = (peer, self.desk().client());
        true
    }

    /// Calls until it is over, with pauses so long at most.
    pub(crate) async fn work(mut self, kind: Kind, limits: Limits, pause_max: Duration) -> Result<()> {
        while !self.desk().is_over() {
            let Some(asked) = self.exchange.desk.draw(self.client, kind, limits, &mut self.rng) else { break };
            if self.call(asked).await?.is_none() && !self.go_elsewhere() {
                break;
            }
            tokio::time::sleep(pause_max.mul_f64(self.rng.f64())).await;
        }
        Ok(())
    }

    /// Makes so many calls on lists.
    pub(crate) async fn work_more(mut self, limits: Limits, count: usize) -> Result<()> {
        let limits = Limits { list_calls: usize::MAX, ..limits };
        for _ in 0..count {
            let Some(asked) = self.exchange.desk.draw(self.client, Kind::Lists, limits, &mut self.rng) else { break };
            self.call(asked).await?;
        }
        Ok(())
    }

    /// Makes these calls, each until it commits. Returns those that did not.
    pub(crate) async fn make(mut self, calls: Vec<Asked>) -> Result<Vec<Asked>> {
        let mut failed = Vec::new();
        for asked in calls {
            let mut committed = false;
            for _ in 0..TRIES {
                committed = committed || self.call(asked.clone()).await? == Some(true);
            }
            failed.extend((!committed).then_some(asked));
        }
        Ok(failed)
    }
}
