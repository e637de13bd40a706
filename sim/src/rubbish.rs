//! What arrives beside messages: parts of them, more than them, and records that cannot be meant (R25).
//!
//! A member of another release or with a broken memory may send such things. It refuses to forge what could be true: who
//! lies well is out of scope.

use crate::world::{Shipped, Simulation};
use driftmesh_directory::Record;
use driftmesh_model::{Epoch, codec};
use driftmesh_peer::{Envelope, Message};
use std::sync::Arc;

/// One message in so many has something beside it.
const ONE_OF: u8 = 100;
/// Most bytes that follow a message.
const TRAILING_MAX: usize = 16;
/// How far from the end of all numbers a record's are.
const FROM_THE_END: u64 = 1_000;

impl Simulation {
    /// Something that may arrive after a message, to the same peer.
    pub(crate) fn rubbish_after(&mut self, envelope: &Envelope) -> Option<Shipped> {
        if !self.options.rubbish || !self.network.faulty || self.rng.u8(..ONE_OF) > 0 {
            return None;
        }
        let mut bytes = codec::encode(envelope).expect("messages encode");
        match self.rng.u8(..4) {
            0 => bytes.truncate(self.rng.usize(..bytes.len())),
            1 => {
                let more = self.rng.usize(1..=TRAILING_MAX);
                bytes.extend(std::iter::repeat_with(|| self.rng.u8(..)).take(more));
            }
            _ => {
                return self
                    .wild_record()
                    .map(|message| Shipped::Said(Arc::new(Envelope { message, ..envelope.clone() })));
            }
        }
        Some(Shipped::Rubbish(Arc::new(bytes)))
    }

    /// A claim that nothing could ever replace, of some object and some group.
    fn wild_record(&mut self) -> Option<Message> {
        let object = self.rng.choice(self.observer.objects().collect::<Vec<_>>())?;
        let at = self.rng.usize(..self.peers.len());
        let group = self.peers[at].host.look(|peer| peer.group().id());
        let end = u64::MAX - self.rng.u64(..FROM_THE_END);
        let records = vec![Record { object, group, epoch: Epoch::from_u64(end) }];
        let message =
            if self.rng.bool() { Message::Learned { records } } else { Message::Publish { batch: u64::MAX, records } };
        Some(message)
    }
}
