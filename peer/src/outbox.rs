//! The one way out of a peer: messages wait here until what they depend on is stable (R6).
//!
//! Requests of one step to one peer are gathered into one message, so that n objects cost one round.

use crate::message::{Envelope, LocateRequest, Located, Message, OwnRequest, Queued, ReadAnswer, ReadRequest};
use driftmesh_model::{Lsn, ObjectId, PeerId, Timestamp};
use std::collections::BTreeMap;

/// About how many bytes of values one gathered answer carries before it is sent.
const ANSWER_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Default)]
struct Gathered {
    reads: BTreeMap<Timestamp, Vec<ReadRequest>>,
    answers: BTreeMap<Timestamp, (usize, Vec<ReadAnswer>)>,
    owns: BTreeMap<ObjectId, OwnRequest>,
    queued: Vec<Queued>,
    locates: Vec<LocateRequest>,
    located: Vec<Located>,
}

/// Messages on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    gathered: BTreeMap<PeerId, Gathered>,
    /// Messages that depend on a position that is not stable yet, by that position.
    held: BTreeMap<Lsn, Vec<(PeerId, Message)>>,
    ready: Vec<(PeerId, Message)>,
}

impl Outbox {
    pub(crate) fn read(&mut self, to: PeerId, snapshot: Timestamp, request: ReadRequest) {
        self.gathered.entry(to).or_default().reads.entry(snapshot).or_default().push(request);
    }

    /// Adds an answer; returns a full message to send now, if one is.
    pub(crate) fn answer(
        &mut self,
        to: PeerId,
        snapshot: Timestamp,
        bytes: usize,
        answer: ReadAnswer,
    ) -> Option<Message> {
        let gathered = self.gathered.entry(to).or_default();
        let (size, answers) = gathered.answers.entry(snapshot).or_default();
        *size += bytes;
        answers.push(answer);
        if *size < ANSWER_BYTES_MAX {
            return None;
        }
        let (_, answers) = gathered.answers.remove(&snapshot)?;
        Some(Message::ReadAnswers { snapshot, answers })
    }

    pub(crate) fn own(&mut self, to: PeerId, request: OwnRequest) {
        self.gathered.entry(to).or_default().owns.insert(request.object, request);
    }

    pub(crate) fn queued(&mut self, to: PeerId, queued: Queued) {
        self.gathered.entry(to).or_default().queued.push(queued);
    }

    pub(crate) fn locate(&mut self, to: PeerId, request: LocateRequest) {
        self.gathered.entry(to).or_default().locates.push(request);
    }

    pub(crate) fn located(&mut self, to: PeerId, located: Located) {
        self.gathered.entry(to).or_default().located.push(located);
    }

    /// The one barrier: a message leaves once `lsn` is stable. Returns whether it has to wait.
    pub(crate) fn when_stable(&mut self, lsn: Lsn, watermark: Lsn, to: PeerId, message: Message) -> bool {
        if lsn <= watermark {
            self.ready.push((to, message));
            return false;
        }
        self.held.entry(lsn).or_default().push((to, message));
        true
    }

    /// The watermark moved: what waited for it may leave.
    pub(crate) fn release(&mut self, watermark: Lsn) {
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > watermark {
                return;
            }
            self.ready.append(&mut entry.remove());
        }
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.ready.is_empty()
    }

    /// Turns what was gathered into messages that depend on `lsn`. Returns how many have to wait.
    pub(crate) fn flush(&mut self, lsn: Lsn, watermark: Lsn) -> usize {
        let mut held = 0;
        for (to, gathered) in std::mem::take(&mut self.gathered) {
            let mut messages = Vec::new();
            for (snapshot, objects) in gathered.reads {
                messages.push(Message::Read { snapshot, objects });
            }
            for (snapshot, (_, answers)) in gathered.answers {
                messages.push(Message::ReadAnswers { snapshot, answers });
            }
            if !gathered.owns.is_empty() {
                messages.push(Message::Own { requests: gathered.owns.into_values().collect() });
            }
            if !gathered.queued.is_empty() {
                messages.push(Message::Queued { objects: gathered.queued });
            }
            if !gathered.locates.is_empty() {
                messages.push(Message::Locate { objects: gathered.locates });
            }
            if !gathered.located.is_empty() {
                messages.push(Message::Located { answers: gathered.located });
            }
            for message in messages {
                held += usize::from(self.when_stable(lsn, watermark, to, message));
            }
        }
        held
    }

    /// Takes what may leave, with the clock it leaves at.
    pub(crate) fn take(&mut self, clock: Timestamp) -> Vec<(PeerId, Envelope)> {
        if self.ready.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.ready).into_iter().map(|(to, message)| (to, Envelope { clock, message })).collect()
    }

    /// A peer is gone: nothing is for it any more.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.gathered.remove(&peer);
        self.ready.retain(|(to, _)| *to != peer);
        for messages in self.held.values_mut() {
            messages.retain(|(to, _)| *to != peer);
        }
    }
}
