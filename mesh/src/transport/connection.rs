//! One admitted peer's substream: the task that reads it and hands payloads on, and the task that writes it.
//!
//! Reading calls the handler directly, so a handler that takes long holds up this one peer and nobody else. It
//! refuses frames of the handshake, and whatever else breaks the protocol ends this connection only.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::conduct::Received;
use super::counters::add;
use super::frame::{self, BODY_MAX, FrameBuffer, FrameError, FrameKind, Reassembly};
use super::lanes::Step;
use super::limits::{RECEIVE_BATCH, SILENCE_MAX, WRITE_BYTES_KEPT};
use super::pace::Pace;
use super::ping;
use super::reason::LeaveReason;
use super::registry::{Session, Shared};

/// Ends the session when the task ends, in whatever way: a later admission of the peer waits for it.
pub(super) struct SessionEnd {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Arc<Session>,
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        self.shared.remove(&self.session);
        add(&self.shared.counters.dropped, self.session.lanes.close());
        self.session.ended.set();
    }
}

/// Reads and writes the substream until either side leaves or the connection fails. Not cancel safe.
pub(super) async fn run<S>(shared: &Arc<Shared>, session: &Arc<Session>, stream: S, frames: FrameBuffer) -> LeaveReason
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read_half, write_half) = stream.split();
    let mut writer = tokio::spawn(write(Arc::clone(shared), Arc::clone(session), write_half));
    let pace = Pace::new(Instant::now());
    let mut reader = Reader { shared, session, stream: read_half, frames, reassembly: Reassembly::default(), pace };
    let lost = |error: io::Error| LeaveReason::Lost { error: error.to_string() };
    let reading = async {
        match reader.run().await {
            End::Goodbye => LeaveReason::Goodbye,
            // After our goodbye the end of the stream is the remote's answer to it.
            End::Stream(_) if session.lanes.is_leaving() => LeaveReason::ShutDown,
            End::Stream(error) => lost(error),
            End::Silence => LeaveReason::Silent,
            End::Frame(error) => {
                add(&shared.counters.malformed, 1);
                add(&shared.counters.offenders_dropped, 1);
                // The bytes were sealed by its key, so no fault of the network has changed them.
                shared.conduct().broke_the_protocol(session.peer, Instant::now());
                LeaveReason::Malformed(error)
            }
            End::Offences { offences, refused_for } => {
                add(&shared.counters.offenders_dropped, 1);
                LeaveReason::Dropped { offences, refused_for }
            }
        }
    };
    tokio::pin!(reading);
    let reason = tokio::select! {
        reason = &mut reading => reason,
        () = shared.stop.wait() => LeaveReason::ShutDown,
        () = session.replaced.wait() => LeaveReason::Replaced,
        written = &mut writer => match written {
            // All is sent, the goodbye too; the remote may still have something to say before it answers.
            Ok(Ok(())) => tokio::select! {
                reason = &mut reading => reason,
                () = shared.stop.wait() => LeaveReason::ShutDown,
                () = session.replaced.wait() => LeaveReason::Replaced,
            },
            Ok(Err(error)) => lost(error),
            Err(error) => lost(io::Error::other(error)),
        },
    };
    writer.abort();
    reason
}

/// Why reading ended.
enum End {
    Goodbye,
    Silence,
    Stream(io::Error),
    Frame(FrameError),
    Offences { offences: u32, refused_for: Duration },
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

struct Reader<'a, R> {
    shared: &'a Arc<Shared>,
    session: &'a Arc<Session>,
    stream: R,
    frames: FrameBuffer,
    reassembly: Reassembly,
    pace: Pace,
}

/// What was taken in at once.
#[derive(Default)]
struct Taken {
    frames: u64,
    bytes: u64,
    held: Duration,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    async fn run(&mut self) -> End {
        let mut payloads = Vec::new();
        let mut taken = Taken::default();
        loop {
            let mut took = self.take_frames(&mut payloads, &mut taken);
            let delivered = self.deliver(&mut payloads, &mut taken);
            took = took.and(delivered);
            if let Err(end) = took {
                return end;
            }
            self.keep_pace(std::mem::take(&mut taken)).await;
            // A stream that is always ready would else never let another task of this thread run.
            tokio::task::consume_budget().await;
            match tokio::time::timeout(SILENCE_MAX, self.stream.read(self.frames.space())).await {
                Ok(Ok(0)) => return End::Stream(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(count)) => {
                    add(&self.shared.counters.bytes_received, count as u64);
                    taken.bytes += count as u64;
                    self.frames.filled(count);
                }
                Ok(Err(error)) => return End::Stream(error),
                Err(_) => return End::Silence,
            }
        }
    }

    /// R24: what this member has said beyond its share is not read yet.
    async fn keep_pace(&mut self, taken: Taken) {
        let pause = self.pace.take(taken.frames, taken.bytes, taken.held, Instant::now());
        let Some(pause) = pause else { return };
        add(&self.shared.counters.inbound_paused, 1);
        tokio::time::sleep(pause).await;
    }

    fn deliver(&self, payloads: &mut Vec<Vec<u8>>, taken: &mut Taken) -> Result<(), End> {
        if payloads.is_empty() {
            return Ok(());
        }
        let peer = self.session.peer;
        let received = self.shared.handler.received(peer, std::mem::take(payloads));
        taken.held += received.held;
        let Received { undecodable, impossible, .. } = received;
        if (undecodable, impossible) == (0, 0) {
            return Ok(());
        }
        add(&self.shared.counters.impossible, u64::from(impossible));
        match self.shared.conduct().offended(peer, received, Instant::now()) {
            Some(refused_for) => Err(End::Offences { offences: undecodable.saturating_add(impossible), refused_for }),
            None => Ok(()),
        }
    }

    /// Takes all whole frames of the buffer. Payloads that came before an error are still delivered.
    fn take_frames(&mut self, payloads: &mut Vec<Vec<u8>>, taken: &mut Taken) -> Result<(), End> {
        while let Some((kind, body)) = self.frames.next(BODY_MAX)? {
            add(&self.shared.counters.frames_received, 1);
            taken.frames += 1;
            match kind {
                FrameKind::Payload => payloads.push(body.to_vec()),
                FrameKind::BulkBegin => self.reassembly.begin(frame::number(kind, body)?)?,
                FrameKind::BulkChunk => {
                    payloads.extend(self.reassembly.chunk(body)?);
                    self.session.lanes.owe_credit();
                }
                FrameKind::BulkCredit => self.session.lanes.take_credit(frame::number(kind, body)?)?,
                FrameKind::Alive if body.is_empty() => {}
                FrameKind::Goodbye if body.is_empty() => return Err(End::Goodbye),
                FrameKind::Alive | FrameKind::Goodbye => return Err(FrameError::body(kind).into()),
                FrameKind::Ping => {
                    let body = ping::body_of(kind, body)?;
                    self.session.lanes.push_control(frame::encode(FrameKind::Pong, &body));
                }
                FrameKind::Pong => self.session.pings.came_back(ping::body_of(kind, body)?),
                FrameKind::Founding | FrameKind::Hello | FrameKind::Proof | FrameKind::Admit | FrameKind::Refuse => {
                    return Err(FrameError::unexpected(kind).into());
                }
            }
            if payloads.len() >= RECEIVE_BATCH {
                self.deliver(payloads, taken)?;
            }
        }
        Ok(())
    }
}

/// Writes what the lanes give, and waits when they give nothing; ends after the goodbye.
async fn write<W: AsyncWrite + Unpin>(shared: Arc<Shared>, session: Arc<Session>, mut stream: W) -> io::Result<()> {
    let mut buffer = Vec::new();
    #[cfg(feature = "testing")]
    let mut line = super::delay::Line::default();
    loop {
        buffer.clear();
        #[cfg(feature = "testing")]
        {
            shared.hold.pass().await;
            while let Some((bytes, frames)) = line.take_due() {
                send(&shared, &mut stream, &bytes, frames).await?;
            }
        }
        match session.lanes.next(&mut buffer) {
            #[cfg(feature = "testing")]
            Step::Write(frames) if line.is_used(shared.delay.get()) => {
                line.push(shared.delay.get(), std::mem::take(&mut buffer), frames);
            }
            Step::Write(frames) => send(&shared, &mut stream, &buffer, frames).await?,
            Step::Wait => {
                buffer.shrink_to(WRITE_BYTES_KEPT);
                #[cfg(feature = "testing")]
                tokio::select! {
                    () = session.lanes.changed() => {}
                    () = line.due() => {}
                }
                #[cfg(not(feature = "testing"))]
                session.lanes.changed().await;
            }
            Step::Done => return stream.close().await,
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(shared: &Shared, stream: &mut W, bytes: &[u8], frames: u64) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    add(&shared.counters.frames_sent, frames);
    add(&shared.counters.bytes_sent, bytes.len() as u64);
    Ok(())
}
