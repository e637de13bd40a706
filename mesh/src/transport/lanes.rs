//! What waits to be sent to one peer: three lanes with their bounds, and the order in which they are written.
//!
//! Control frames go first, then small payloads, then one chunk of a large payload, and so on; so a small payload
//! waits for one chunk at most. Order is kept within the small and within the large payloads, not between them.
//! It refuses to block and to grow beyond its bounds, and it knows no stream.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::SendError;
use super::frame::{self, FrameError, FrameKind};
use super::limits::{
    BULK_QUEUE_BYTES, BULK_QUEUE_PAYLOADS, BULK_WINDOW_CHUNKS, CHUNK, CONTROL_QUEUE_FRAMES, MAX_PAYLOAD,
    SMALL_QUEUE_BYTES, SMALL_QUEUE_PAYLOADS, WRITE_BYTES,
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

struct State {
    phase: Phase,
    control: VecDeque<Vec<u8>>,
    small: VecDeque<Vec<u8>>,
    small_bytes: usize,
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
                small: VecDeque::new(),
                small_bytes: 0,
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

    /// Queues a payload.
    ///
    /// # Errors
    /// When the payload is too long, its lane is full, or the connection ends.
    pub(super) fn push(&self, payload: Vec<u8>) -> Result<(), SendError> {
        let bytes = payload.len();
        if bytes > MAX_PAYLOAD {
            return Err(SendError::TooLong { bytes });
        }
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(SendError::NotConnected);
        }
        if bytes <= CHUNK {
            if state.small.len() >= SMALL_QUEUE_PAYLOADS || state.small_bytes + bytes > SMALL_QUEUE_BYTES {
                return Err(SendError::Busy);
            }
            state.small_bytes += bytes;
            state.small.push_back(payload);
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
        let dropped = state.small.len() + state.bulk.len();
        state.small = VecDeque::new();
        state.bulk = VecDeque::new();
        state.control = VecDeque::new();
        (state.small_bytes, state.bulk_bytes) = (0, 0);
        drop(state);
        self.wake.notify_one();
        dropped as u64
    }

    /// Waits until something may have been queued. Cancel safe: a wake-up is kept for the next call.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Fills the empty `buffer` with what is to be written next, at most [`WRITE_BYTES`] of small payloads and one
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
        let bulk_ready = !self.bulk.is_empty() && self.bulk_under_way < BULK_WINDOW_CHUNKS;
        let mut left = if bulk_ready { self.before_chunk.take().unwrap_or(self.small.len()) } else { usize::MAX };
        let begin = buffer.len();
        let mut frames = 0;
        while left > 0 && buffer.len() - begin < WRITE_BYTES {
            let Some(payload) = self.small.pop_front() else { break };
            self.small_bytes -= payload.len();
            frame::append(buffer, FrameKind::Payload, &payload);
            frames += 1;
            left -= 1;
        }
        if !bulk_ready {
            return frames;
        }
        if left > 0 {
            self.before_chunk = Some(left);
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

    fn written(lanes: &Lanes) -> Vec<FrameKind> {
        let mut buffer = Vec::new();
        let step = lanes.next(&mut buffer);
        let mut frames = FrameBuffer::new();
        let mut kinds = Vec::new();
        let mut bytes = buffer.as_slice();
        while !bytes.is_empty() {
            let space = frames.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            frames.filled(count);
            bytes = &bytes[count..];
            while let Some((kind, _)) = frames.next(BODY_MAX).unwrap() {
                kinds.push(kind);
            }
        }
        assert_eq!(step, if kinds.is_empty() { Step::Wait } else { Step::Write(kinds.len() as u64) });
        kinds
    }

    #[test]
    fn all_small_payloads_go_between_two_chunks() {
        let lanes = Lanes::new();
        lanes.push(vec![1; 3 * CHUNK]).unwrap();
        assert_eq!(written(&lanes), [FrameKind::BulkBegin, FrameKind::BulkChunk]);
        lanes.push(vec![2; 10]).unwrap();
        lanes.push(vec![3; 10]).unwrap();
        assert_eq!(written(&lanes), [FrameKind::Payload, FrameKind::Payload, FrameKind::BulkChunk]);
        lanes.push(vec![4; 10]).unwrap();
        lanes.push_control(frame::encode(FrameKind::Alive, &[]));
        assert_eq!(written(&lanes), [FrameKind::Alive, FrameKind::Payload, FrameKind::BulkChunk]);
        assert_eq!(written(&lanes), []);
    }

    #[test]
    fn a_steady_flow_of_small_payloads_does_not_hold_up_a_large_one() {
        let lanes = Lanes::new();
        lanes.push(vec![1; CHUNK + 1]).unwrap();
        let mut chunks = 0;
        for _ in 0..20 {
            for _ in 0..3 {
                lanes.push(vec![0; CHUNK]).unwrap();
            }
            chunks += written(&lanes).iter().filter(|kind| **kind == FrameKind::BulkChunk).count();
        }
        assert_eq!(chunks, 2);
    }

    #[test]
    fn chunks_stop_without_credit_and_small_payloads_do_not() {
        let lanes = Lanes::new();
        lanes.push(vec![1; 10 * CHUNK]).unwrap();
        for _ in 0..BULK_WINDOW_CHUNKS {
            assert_eq!(written(&lanes).last(), Some(&FrameKind::BulkChunk));
        }
        assert_eq!(written(&lanes), []);
        lanes.push(vec![1; 10]).unwrap();
        assert_eq!(written(&lanes), [FrameKind::Payload]);
        assert_eq!(lanes.take_credit(1), Ok(()));
        assert_eq!(written(&lanes), [FrameKind::BulkChunk]);
        assert_eq!(lanes.take_credit(BULK_WINDOW_CHUNKS + 1), Err(FrameError::Credit));
    }

    #[test]
    fn each_lane_has_its_bounds() {
        let lanes = Lanes::new();
        assert_eq!(lanes.push(vec![0; MAX_PAYLOAD + 1]), Err(SendError::TooLong { bytes: MAX_PAYLOAD + 1 }));
        for _ in 0..SMALL_QUEUE_PAYLOADS {
            lanes.push(vec![]).unwrap();
        }
        assert_eq!(lanes.push(vec![]), Err(SendError::Busy));
        for _ in 0..BULK_QUEUE_BYTES / (16 << 20) {
            lanes.push(vec![0; 16 << 20]).unwrap();
        }
        assert_eq!(lanes.push(vec![0; CHUNK + 1]), Err(SendError::Busy));
        assert_eq!(lanes.close(), (SMALL_QUEUE_PAYLOADS + BULK_QUEUE_BYTES / (16 << 20)) as u64);
        assert_eq!(lanes.push(vec![]), Err(SendError::NotConnected));
    }

    #[test]
    fn a_goodbye_follows_all_that_was_queued() {
        let lanes = Lanes::new();
        lanes.push(vec![1; CHUNK + 1]).unwrap();
        lanes.push(vec![1; 10]).unwrap();
        lanes.leave();
        assert_eq!(lanes.push(vec![]), Err(SendError::NotConnected));
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
