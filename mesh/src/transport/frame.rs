//! Frames: a header of 4 bytes (kind, 24-bit length) and a body, and the buffer that takes them from a stream.
//!
//! It refuses unknown kinds and bodies above the limit by the header alone, before it makes room for them, and it
//! never gives more memory than bytes that came in. What a body means is not its business.

use serde::{Deserialize, Serialize};

use super::limits::{CHUNK, MAX_PAYLOAD, READ_BYTES_MAX, READ_BYTES_MIN};

/// Length of the header, bytes.
pub(super) const HEADER_BYTES: usize = 4;
/// Longest body of any frame, bytes.
pub(super) const BODY_MAX: usize = CHUNK;

/// What a frame's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameKind {
    /// A whole small payload.
    Payload,
    /// The length of a large payload (4 bytes, big endian) whose chunks follow.
    BulkBegin,
    /// The next piece of the large payload.
    BulkChunk,
    /// How many chunks the receiver took (4 bytes, big endian).
    BulkCredit,
    /// A sign of life, empty.
    Alive,
    /// The sender leaves and sends nothing more.
    Goodbye,
    /// Comes back as `Pong` with the same 8 bytes.
    Ping,
    /// The answer to `Ping`.
    Pong,
    /// What fresh peers say to each other; never between admitted ones.
    Founding,
    /// The first frame of the handshake.
    Hello,
    /// The proof of the mesh secret.
    Proof,
    /// The sender admits the receiver.
    Admit,
    /// The sender refuses the receiver, and why.
    Refuse,
}

impl FrameKind {
    pub(super) const ALL: [Self; 13] = [
        Self::Payload,
        Self::BulkBegin,
        Self::BulkChunk,
        Self::BulkCredit,
        Self::Alive,
        Self::Goodbye,
        Self::Ping,
        Self::Pong,
        Self::Founding,
        Self::Hello,
        Self::Proof,
        Self::Admit,
        Self::Refuse,
    ];

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Payload => 1,
            Self::BulkBegin => 2,
            Self::BulkChunk => 3,
            Self::BulkCredit => 4,
            Self::Alive => 5,
            Self::Goodbye => 6,
            Self::Ping => 7,
            Self::Pong => 8,
            Self::Founding => 0x47,
            // High, so that a frame of the handshake and one of the session differ in more than one bit.
            Self::Hello => 0x81,
            Self::Proof => 0x82,
            Self::Admit => 0x84,
            Self::Refuse => 0x88,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Bytes of a remote that break the protocol. The connection they came on is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum FrameError {
    /// The header names no known kind of frame.
    #[error("a frame has the unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// The header declares a body above the limit.
    #[error("a frame declares {length} bytes, more than the limit of {limit}")]
    TooLong {
        /// The declared length, bytes.
        length: u32,
        /// The limit for this frame, bytes.
        limit: u32,
    },
    /// A known kind of frame at a moment when it is not allowed.
    #[error("a frame of kind {0:#04x} came when it is not allowed")]
    Unexpected(u8),
    /// A body is not of the shape that its kind prescribes, or breaks a limit of its contents.
    #[error("the body of a frame of kind {0:#04x} cannot be decoded, or breaks a limit")]
    Body(u8),
    /// A large payload declares a length of zero or above [`MAX_PAYLOAD`].
    #[error("a large payload declares {0} bytes; allowed are 1 to {MAX_PAYLOAD}")]
    BulkLength(u32),
    /// The chunks of a large payload are empty, or exceed its declared length.
    #[error("a chunk of a large payload is empty, or exceeds the declared length")]
    BulkOverrun,
    /// More credit than chunks under way.
    #[error("the remote acknowledged more chunks than were sent")]
    Credit,
}

impl FrameError {
    /// This kind of frame is not allowed now.
    pub(super) const fn unexpected(kind: FrameKind) -> Self {
        Self::Unexpected(kind.code())
    }

    /// The body of a frame of this kind is wrong.
    pub(super) const fn body(kind: FrameKind) -> Self {
        Self::Body(kind.code())
    }
}

/// Appends a frame. Bodies of our own making are at most [`BODY_MAX`] bytes long; the callers see to it.
pub(super) fn append(buffer: &mut Vec<u8>, kind: FrameKind, body: &[u8]) {
    debug_assert!(body.len() <= BODY_MAX, "callers split at CHUNK");
    let header = (u32::from(kind.code()) << 24) | (u32::try_from(body.len()).unwrap_or(u32::MAX) & 0x00ff_ffff);
    buffer.extend_from_slice(&header.to_be_bytes());
    buffer.extend_from_slice(body);
}

/// The single frame of this kind, as bytes.
pub(super) fn encode(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(HEADER_BYTES + body.len());
    append(&mut buffer, kind, body);
    buffer
}

/// The 4 bytes, big endian, that are the whole body of a frame.
pub(super) fn number(kind: FrameKind, body: &[u8]) -> Result<u32, FrameError> {
    body.try_into().map(u32::from_be_bytes).map_err(|_| FrameError::body(kind))
}

/// Takes bytes from a stream and gives frames.
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    /// An empty buffer.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES_MIN], start: 0, end: 0 }
    }

    /// Where the next bytes of the stream go; never empty after [`FrameBuffer::next`] gave nothing.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // It doubles only when it is full of bytes that really came, so a declared length costs nothing.
        if self.end == self.bytes.len() && self.bytes.len() < READ_BYTES_MAX {
            self.bytes.resize((self.bytes.len() * 2).min(READ_BYTES_MAX), 0);
        }
        &mut self.bytes[self.end..]
    }

    /// The stream wrote this many bytes into [`FrameBuffer::space`].
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the header names no kind, or declares more than `limit` bytes. The stream cannot be read on.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<(FrameKind, &[u8])>, FrameError> {
        let limit = limit.min(BODY_MAX);
        let available = &self.bytes[self.start..self.end];
        let Some(header) = available.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let kind = FrameKind::from_code(header[0]).ok_or(FrameError::UnknownKind(header[0]))?;
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]);
        let body_bytes = length as usize;
        if body_bytes > limit {
            return Err(FrameError::TooLong { length, limit: u32::try_from(limit).unwrap_or(u32::MAX) });
        }
        if available.len() < HEADER_BYTES + body_bytes {
            return Ok(None);
        }
        let body_start = self.start + HEADER_BYTES;
        self.start = body_start + body_bytes;
        Ok(Some((kind, &self.bytes[body_start..self.start])))
    }
}

/// Puts large payloads together again.
#[derive(Default)]
pub(super) struct Reassembly {
    under_way: Option<(usize, Vec<u8>)>,
}

impl Reassembly {
    /// A large payload of this many bytes begins.
    ///
    /// # Errors
    /// When the length is not allowed, or the payload before is not complete.
    pub(super) fn begin(&mut self, length: u32) -> Result<(), FrameError> {
        if self.under_way.is_some() {
            return Err(FrameError::unexpected(FrameKind::BulkBegin));
        }
        if length == 0 || length as usize > MAX_PAYLOAD {
            return Err(FrameError::BulkLength(length));
        }
        self.under_way = Some((length as usize, Vec::new()));
        Ok(())
    }

    /// The next chunk; gives the payload when it is complete.
    ///
    /// # Errors
    /// When no payload is under way, or the chunk is empty or exceeds it.
    pub(super) fn chunk(&mut self, chunk: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((length, mut payload)) = self.under_way.take() else {
            return Err(FrameError::unexpected(FrameKind::BulkChunk));
        };
        if chunk.is_empty() || chunk.len() > length - payload.len() {
            return Err(FrameError::BulkOverrun);
        }
        payload.extend_from_slice(chunk);
        if payload.len() == length {
            return Ok(Some(payload));
        }
        self.under_way = Some((length, payload));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(buffer: &mut FrameBuffer, mut bytes: &[u8]) -> Result<Vec<(FrameKind, Vec<u8>)>, FrameError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let space = buffer.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            buffer.filled(count);
            bytes = &bytes[count..];
            while let Some((kind, body)) = buffer.next(BODY_MAX)? {
                frames.push((kind, body.to_vec()));
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_of_every_kind_and_length_come_back_however_they_are_cut() {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (index, kind) in FrameKind::ALL.into_iter().enumerate() {
            for length in [0, 1, 3, 4, 5, 4_096, READ_BYTES_MIN, BODY_MAX - 1, BODY_MAX] {
                let body = vec![u8::try_from(index).unwrap(); length];
                append(&mut bytes, kind, &body);
                expected.push((kind, body));
            }
        }
        for cut in [1, 2, 3, 7, 1_000, 65_536, bytes.len()] {
            let mut buffer = FrameBuffer::new();
            let mut frames = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.extend(feed(&mut buffer, piece).unwrap());
            }
            assert!(frames == expected, "cut into pieces of {cut}");
        }
    }

    #[test]
    fn a_declared_length_above_the_limit_is_refused_by_the_header_alone() {
        let mut buffer = FrameBuffer::new();
        let header = [FrameKind::Payload.code(), 0xff, 0xff, 0xff];
        assert_eq!(feed(&mut buffer, &header), Err(FrameError::TooLong { length: 0x00ff_ffff, limit: 65_536 }));
        assert_eq!(buffer.bytes.len(), READ_BYTES_MIN);
    }

    #[test]
    fn a_declared_length_alone_makes_no_room() {
        let mut buffer = FrameBuffer::new();
        assert_eq!(feed(&mut buffer, &[FrameKind::Payload.code(), 1, 0, 0]), Ok(vec![]));
        assert_eq!(buffer.space().len(), READ_BYTES_MIN - HEADER_BYTES);
        let mut reassembly = Reassembly::default();
        reassembly.begin(u32::try_from(MAX_PAYLOAD).unwrap()).unwrap();
        assert_eq!(reassembly.under_way.as_ref().unwrap().1.capacity(), 0);
    }

    #[test]
    fn large_payloads_are_checked_at_every_step() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.chunk(b"x"), Err(FrameError::Unexpected(3)));
        assert_eq!(reassembly.begin(0), Err(FrameError::BulkLength(0)));
        assert_eq!(reassembly.begin(u32::MAX), Err(FrameError::BulkLength(u32::MAX)));
        assert_eq!(reassembly.begin(3), Ok(()));
        assert_eq!(reassembly.begin(3), Err(FrameError::Unexpected(2)));
        assert_eq!(reassembly.chunk(b"ab"), Ok(None));
        assert_eq!(reassembly.chunk(b"c"), Ok(Some(b"abc".to_vec())));
        reassembly.begin(1).unwrap();
        assert_eq!(reassembly.chunk(b"ab"), Err(FrameError::BulkOverrun));
        reassembly.begin(1).unwrap();
        assert_eq!(reassembly.chunk(b""), Err(FrameError::BulkOverrun));
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = blake3::Hasher::new().update(b"frames").finalize_xof();
        for round in 0..20_000_usize {
            let mut bytes = vec![0; round % 300];
            random.fill(&mut bytes);
            // Half of them with a valid kind, else nearly all would end at their first byte.
            if let (true, Some(first)) = (round % 2 == 0, bytes.first_mut()) {
                *first = FrameKind::ALL[round / 2 % FrameKind::ALL.len()].code();
            }
            let _ = feed(&mut FrameBuffer::new(), &bytes);
        }
    }
}
