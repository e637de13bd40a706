//! What the clients do: one file for each workload, and the choice among them.

mod bank;
mod hot;
mod inventory;
pub(crate) mod names;

use crate::client::Client;

impl Client {
    /// One transaction or snapshot of a random kind.
    pub(crate) async fn one(&mut self) {
        match self.rng.u8(..24) {
            0..=5 => self.pay().await,
            6 => self.wager().await,
            7..=11 => self.trade().await,
            12 | 13 => self.read_then_pay().await,
            14 => self.gift_to_many().await,
            15 => self.fill_pouch().await,
            16 => self.empty_pouch().await,
            17 => self.leak_reference().await,
            18 | 19 => self.audit().await,
            _ => self.use_names().await,
        };
    }
}
