//! What waits to be sent to one peer: four lanes with their bounds, and the order in which they are written.
//!
//! Control frames go first, then payloads in haste, then other small ones, then one chunk of a large payload, and so on; so a
//! small payload waits for one chunk at most, and one in haste for no backlog. Order is kept within a lane, not between them.
//! It refuses to block and to grow beyond its bounds, and it knows no stream.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::SendError;
use super::frame::{self, FrameError, FrameKind};
use super::limits::{
    BULK_QUEUE_BYTES, BULK_QUEUE_PAYLOADS, BULK_WINDOW_CHUNKS, CHUNK, CONTROL_QUEUE_FRAMES, MAX_PAYLOAD,
    SMALL_QUEUE_BYTES, SMALL_QUEUE_PAYLOADS, SMALL_SHARE, WRITE_BYTES,
};

/// How far the end of sending has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// What is queued is still sent, then a goodbye.
    Leaving,
    /// Nothing more is sent.
    Closed,
}

/// What the writer is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Write the buffer, which holds this many frames.
    Write(u64),
    /// Wait until something is queued.
    Wait,
    /// Everything is sent, the goodbye too.
    Done,
}

/// Payloads of one lane, in order, within [`SMALL_QUEUE_PAYLOADS`] and [`SMALL_QUEUE_BYTES`].
#[derive(Default)]
struct Small {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Small {
    fn push(&mut self, payload: Vec<u8>) -> Result<(), SendError> {
        let bytes = self.bytes + payload.len();
        if self.queue.len() >= SMALL_QUEUE_PAYLOADS || bytes > SMALL_QUEUE_BYTES {
            return Err(SendError::Busy);
        }
        self.bytes = bytes;
        self.queue.push_back(payload);
        Ok(())
    }

    /// Writes payloads until there are so many bytes more, or so many payloads. Returns how many there were.
    fn append(&mut self, buffer: &mut Vec<u8>, bytes: usize, payloads: usize) -> usize {
        let begin = buffer.len();
        let mut frames = 0;
        while frames < payloads && buffer.len() - begin < bytes {
            let Some(payload) = self.queue.pop_front() else { break };
            self.bytes -= payload.len();
            frame::append(buffer, FrameKind::Payload, &payload);
            frames += 1;
        }
        frames
    }
}

struct State {
    phase: Phase,
    control: VecDeque<Vec<u8>>,
    haste: Small,
    small: Small,
    bulk: VecDeque<Vec<u8>>,
    bulk_bytes: usize,
    /// How much of the first large payload is sent.
    bulk_sent: usize,
    /// Chunks sent that the receiver has not acknowledged.
    bulk_under_way: u32,
    /// Small payloads that still go before the next chunk. A fixed number, else a steady flow of small payloads
    /// would hold up a large one for ever.
    before_chunk: Option<usize>,
    /// Chunks received that are not acknowledged yet.
    credit_owed: u32,
}

/// The lanes to one peer. All methods return at once.
pub(super) struct Lanes {
    state: Mutex<State>,
    wake: Notify,
}

impl Lanes {
    /// Empty lanes.
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                control: VecDeque::new(),
                haste: Small::default(),
                small: Small::default(),
                bulk: VecDeque::new(),
                bulk_bytes: 0,
                bulk_sent: 0,
                bulk_under_way: 0,
                before_chunk: None,
                credit_owed: 0,
            }),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a payload. A small one in haste goes before all others.
    ///
    /// # Errors
    /// When the payload is too long, its lane is full, or the connection ends.
    pub(super) fn push(&self, payload: Vec<u8>, haste: bool) -> Result<(), SendError> {
        let bytes = payload.len();
        if bytes > MAX_PAYLOAD {
            return Err(SendError::TooLong { bytes });
        }
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(SendError::NotConnected);
        }
        if bytes <= CHUNK {
            let lane = if haste { &mut state.haste } else { &mut state.small };
            lane.push(payload)?;
        } else {
            if state.bulk.len() >= BULK_QUEUE_PAYLOADS || state.bulk_bytes + bytes > BULK_QUEUE_BYTES {
                return Err(SendError::Busy);
            }
            state.bulk_bytes += bytes;
            state.bulk.push_back(payload);
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues a frame of control, or drops it when too many wait. Returns whether there was room.
    pub(super) fn push_control(&self, frame: Vec<u8>) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Open || state.control.len() >= CONTROL_QUEUE_FRAMES {
            return false;
        }
        state.control.push_back(frame);
        drop(state);
        self.wake.notify_one();
        true
    }

    /// The reader took a chunk; the sender is to be told.
    pub(super) fn owe_credit(&self) {
        let mut state = self.lock();
        state.credit_owed = state.credit_owed.saturating_add(1);
        drop(state);
        self.wake.notify_one();
    }

    /// The receiver took this many chunks.
    ///
    /// # Errors
    /// When fewer were under way.
    pub(super) fn take_credit(&self, chunks: u32) -> Result<(), FrameError> {
        let mut state = self.lock();
        state.bulk_under_way = state.bulk_under_way.checked_sub(chunks).ok_or(FrameError::Credit)?;
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes nothing more; what is queued is still sent, then a goodbye.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Leaving;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Whether [`Lanes::leave`] was called.
    pub(super) fn is_leaving(&self) -> bool {
        self.lock().phase != Phase::Open
    }

    /// Drops everything and takes nothing more; gives the number of payloads that were not sent.
    pub(super) fn close(&self) -> u64 {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        let dropped = state.haste.queue.len() + state.small.queue.len() + state.bulk.len();
        (state.haste, state.small) = (Small::default(), Small::default());
        state.bulk = VecDeque::new();
        state.control = VecDeque::new();
        state.bulk_bytes = 0;
        drop(state);
        self.wake.notify_one();
        dropped as u64
    }

    /// Waits until something may have been queued. Cancel safe: a wake-up is kept for the next call.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Fills the empty `buffer` with what is to be written next, about [`WRITE_BYTES`] of small payloads at most and one
    /// chunk.
    pub(super) fn next(&self, buffer: &mut Vec<u8>) -> Step {
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return Step::Done;
        }
        let mut frames = 0;
        while let Some(control) = state.control.pop_front() {
            buffer.extend_from_slice(&control);
            frames += 1;
        }
        if state.credit_owed > 0 {
            frame::append(buffer, FrameKind::BulkCredit, &state.credit_owed.to_be_bytes());
            state.credit_owed = 0;
            frames += 1;
        }
        frames += state.append_payloads(buffer);
        if frames > 0 {
            return Step::Write(frames);
        }
        if state.phase == Phase::Leaving && state.bulk.is_empty() {
            state.phase = Phase::Closed;
            frame::append(buffer, FrameKind::Goodbye, &[]);
            return Step::Write(1);
        }
        Step::Wait
    }
}

impl State {
    fn append_payloads(&mut self, buffer: &mut Vec<u8>) -> u64 {
        let hasty = self.haste.append(buffer, WRITE_BYTES, usize::MAX) as u64;
        let bulk_ready = !self.bulk.is_empty() && self.bulk_under_way < BULK_WINDOW_CHUNKS;
        let left = if bulk_ready { self.before_chunk.take().unwrap_or(self.small.queue.len()) } else { usize::MAX };
        // What is in haste takes room from the others, but for a share of their own: nothing waits for ever.
        let room = WRITE_BYTES.saturating_sub(buffer.len()).max(SMALL_SHARE);
        let written = self.small.append(buffer, room, left);
        let frames = hasty + written as u64;
        if !bulk_ready {
            return frames;
        }
        if written < left {
            self.before_chunk = Some(left - written);
            return frames;
        }
        frames + self.append_chunk(buffer)
    }

    fn append_chunk(&mut self, buffer: &mut Vec<u8>) -> u64 {
        let Some(payload) = self.bulk.front() else { return 0 };
        let mut frames = 1;
        if self.bulk_sent == 0 {
            let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            frame::append(buffer, FrameKind::BulkBegin, &length.to_be_bytes());
            frames += 1;
        }
        let end = (self.bulk_sent + CHUNK).min(payload.len());
        frame::append(buffer, FrameKind::BulkChunk, &payload[self.bulk_sent..end]);
        self.bulk_sent = end;
        self.bulk_under_way += 1;
        if end == payload.len() {
            self.bulk_bytes -= payload.len();
            self.bulk_sent = 0;
            self.bulk.pop_front();
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::frame::{BODY_MAX, FrameBuffer};

    /// The frames in `bytes`, each with the length of its body.
    fn frames_in(mut bytes: &[u8]) -> Vec<(FrameKind, usize)> {
        let mut frames = FrameBuffer::new();
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let space = frames.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            frames.filled(count);
            bytes = &bytes[count..];
            while let Some((kind, body)) = frames.next(BODY_MAX).unwrap() {
                found.push((kind, body.len()));
            }
        }
        found
    }

    fn written(lanes: &Lanes) -> Vec<FrameKind> {
        let mut buffer = Vec::new();
        let step = lanes.next(&mut buffer);
        let kinds: Vec<FrameKind> = frames_in(&buffer).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(step, if kinds.is_empty() { Step::Wait } else { Step::Write(kinds.len() as u64) });
        kinds
    }

    #[test]
    fn all_small_payloads_go_between_two_chunks() {
        let lanes = Lanes::new();
        lanes.push(vec![1; 3 * CHUNK], false).unwrap();
        assert_eq!(written(&lanes), [FrameKind::BulkBegin, FrameKind::BulkChunk]);
        lanes.push(vec![2; 10], false).unwrap();
        lanes.push(vec![3; 10], false).unwrap();
        assert_eq!(written(&lanes), [FrameKind::Payload, FrameKind::Payload, FrameKind::BulkChunk]);
        lanes.push(vec![4; 10], false).unwrap();
        lanes.push_control(frame::encode(FrameKind::Alive, &[]));
        assert_eq!(written(&lanes), [FrameKind::Alive, FrameKind::Payload, FrameKind::BulkChunk]);
        assert_eq!(written(&lanes), []);
    }

    fn sizes(buffer: &[u8]) -> Vec<usize> {
        frames_in(buffer).into_iter().map(|(_, bytes)| bytes).collect()
    }

    #[test]
    fn what_is_in_haste_waits_behind_nothing_else_and_leaves_the_others_a_share() {
        let lanes = Lanes::new();
        for _ in 0..1_000 {
            lanes.push(vec![0; 1_000], false).unwrap();
        }
        lanes.push(vec![1; 10], true).unwrap();
        lanes.push(vec![1; 11], true).unwrap();
        let mut buffer = Vec::new();
        assert!(matches!(lanes.next(&mut buffer), Step::Write(_)));
        assert_eq!(sizes(&buffer)[..3], [10, 11, 1_000]);
        for _ in 0..1_000 {
            lanes.push(vec![1; 2_000], true).unwrap();
        }
        buffer.clear();
        lanes.next(&mut buffer);
        let (hasty, others): (Vec<usize>, Vec<usize>) = sizes(&buffer).into_iter().partition(|bytes| *bytes == 2_000);
        assert!(hasty.len() * 2_000 >= WRITE_BYTES);
        assert!(others.len() * 1_000 >= SMALL_SHARE && others.len() * 1_000 < 2 * SMALL_SHARE);
        // The lanes do not share their room.
        while lanes.push(vec![0; 1_000], false).is_ok() {}
        assert_eq!(lanes.push(vec![1; 10], true), Ok(()));
    }

    #[test]
    fn a_steady_flow_of_small_payloads_does_not_hold_up_a_large_one() {
        let lanes = Lanes::new();
        lanes.push(vec![1; CHUNK + 1], false).unwrap();
        let mut chunks = 0;
        for _ in 0..20 {
            for _ in 0..3 {
                lanes.push(vec![0; CHUNK], false).unwrap();
            }
            chunks += written(&lanes).iter().filter(|kind| **kind == FrameKind::BulkChunk).count();
        }
        assert_eq!(chunks, 2);
    }

    #[test]
    fn chunks_stop_without_credit_and_small_payloads_do_not() {
        let lanes = Lanes::new();
        lanes.push(vec![1; 10 * CHUNK], false).unwrap();
        for _ in 0..BULK_WINDOW_CHUNKS {
            assert_eq!(written(&lanes).last(), Some(&FrameKind::BulkChunk));
        }
        assert_eq!(written(&lanes), []);
        lanes.push(vec![1; 10], false).unwrap();
        assert_eq!(written(&lanes), [FrameKind::Payload]);
        assert_eq!(lanes.take_credit(1), Ok(()));
        assert_eq!(written(&lanes), [FrameKind::BulkChunk]);
        assert_eq!(lanes.take_credit(BULK_WINDOW_CHUNKS + 1), Err(FrameError::Credit));
    }

    #[test]
    fn each_lane_has_its_bounds() {
        let lanes = Lanes::new();
        assert_eq!(lanes.push(vec![0; MAX_PAYLOAD + 1], false), Err(SendError::TooLong { bytes: MAX_PAYLOAD + 1 }));
        for _ in 0..SMALL_QUEUE_PAYLOADS {
            lanes.push(vec![], false).unwrap();
        }
        assert_eq!(lanes.push(vec![], false), Err(SendError::Busy));
        for _ in 0..BULK_QUEUE_BYTES / (16 << 20) {
            lanes.push(vec![0; 16 << 20], false).unwrap();
        }
        assert_eq!(lanes.push(vec![0; CHUNK + 1], false), Err(SendError::Busy));
        assert_eq!(lanes.close(), (SMALL_QUEUE_PAYLOADS + BULK_QUEUE_BYTES / (16 << 20)) as u64);
        assert_eq!(lanes.push(vec![], false), Err(SendError::NotConnected));
    }

    #[test]
    fn a_goodbye_follows_all_that_was_queued() {
        let lanes = Lanes::new();
        lanes.push(vec![1; CHUNK + 1], false).unwrap();
        lanes.push(vec![1; 10], false).unwrap();
        lanes.leave();
        assert_eq!(lanes.push(vec![], false), Err(SendError::NotConnected));
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.extend(written(&lanes));
            if kinds.last() == Some(&FrameKind::Goodbye) {
                break;
            }
        }
        assert_eq!(
            kinds,
            [FrameKind::Payload, FrameKind::BulkBegin, FrameKind::BulkChunk, FrameKind::BulkChunk, FrameKind::Goodbye]
        );
        assert_eq!(lanes.next(&mut Vec::new()), Step::Done);
    }
}
