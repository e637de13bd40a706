//! Streams without a network: two ends between which an input does what it likes, and a stream of given pieces.
//!
//! Nothing waits for real time: when nothing moves any more, the streams end.

use futures::{AsyncRead, AsyncWrite};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::runtime::{Builder, Runtime};

/// What becomes of bytes on their way: from the first end, or from the second one.
pub(crate) type Tamper<'a> = dyn FnMut(bool, Vec<u8>) -> Vec<u8> + 'a;

/// One way of a pipe.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    closed: bool,
}

/// Both ways, and who stands between them.
struct Pipe<'a> {
    /// From the first end to the second, and back.
    ways: [Way; 2],
    tamper: Box<Tamper<'a>>,
    /// Most bytes that are read at once.
    piece: usize,
    /// Counts whatever happens.
    moved: u64,
}

/// One end of a pipe.
pub(crate) struct End<'a> {
    pipe: Rc<RefCell<Pipe<'a>>>,
    is_first: bool,
}

/// Two ends. Each read gives so many bytes at most.
pub(crate) fn pipe<'a>(piece: usize, tamper: Box<Tamper<'a>>) -> (End<'a>, End<'a>) {
    let pipe = Rc::new(RefCell::new(Pipe { ways: Default::default(), tamper, piece: piece.max(1), moved: 0 }));
    (End { pipe: Rc::clone(&pipe), is_first: true }, End { pipe, is_first: false })
}

impl End<'_> {
    const fn out(&self) -> usize {
        if self.is_first { 0 } else { 1 }
    }
}

impl AsyncRead for End<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let (mut pipe, way) = (self.pipe.borrow_mut(), 1 - self.out());
        let count = buffer.len().min(pipe.piece).min(pipe.ways[way].bytes.len());
        if count == 0 {
            return if pipe.ways[way].closed { Poll::Ready(Ok(0)) } else { Poll::Pending };
        }
        for (place, byte) in buffer.iter_mut().zip(pipe.ways[way].bytes.drain(..count)) {
            *place = byte;
        }
        pipe.moved += 1;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (mut pipe, way) = (self.pipe.borrow_mut(), self.out());
        if pipe.ways[way].closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let arrives = (pipe.tamper)(self.is_first, bytes.to_vec());
        pipe.ways[way].bytes.extend(arrives);
        pipe.moved += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut pipe, way) = (self.pipe.borrow_mut(), self.out());
        pipe.ways[way].closed = true;
        pipe.moved += 1;
        Poll::Ready(Ok(()))
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let way = self.out();
        self.pipe.borrow_mut().ways[way].closed = true;
    }
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime can be built");
}

/// Runs both sides of a pipe, each with its end, until they are over or nothing moves any more. `None` is one that never
/// ended.
pub(crate) fn run_both<'a, A, B>(
    ends: (End<'a>, End<'a>),
    first: impl AsyncFnOnce(&mut End<'a>) -> A,
    second: impl AsyncFnOnce(&mut End<'a>) -> B,
) -> (Option<A>, Option<B>) {
    RUNTIME.with(|runtime| {
        let _guard = runtime.enter();
        let pipe = Rc::clone(&ends.0.pipe);
        let (mut one, mut other) = ends;
        // Each end is dropped with its side, as a connection ends with who refused.
        let mut first = pin!(async move { first(&mut one).await });
        let mut second = pin!(async move { second(&mut other).await });
        let (mut a, mut b) = (None, None);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let before = pipe.borrow().moved;
            if a.is_none()
                && let Poll::Ready(result) = first.as_mut().poll(&mut context)
            {
                a = Some(result);
            }
            if b.is_none()
                && let Poll::Ready(result) = second.as_mut().poll(&mut context)
            {
                b = Some(result);
            }
            if a.is_some() && b.is_some() {
                return (a, b);
            }
            let mut pipe = pipe.borrow_mut();
            if pipe.moved == before {
                if pipe.ways.iter().all(|way| way.closed) {
                    return (a, b);
                }
                pipe.ways.iter_mut().for_each(|way| way.closed = true);
            }
        }
    })
}

/// A stream that gives its bytes in pieces, then ends, and takes whatever is written.
pub(crate) struct Pieces {
    pieces: VecDeque<Vec<u8>>,
}

impl Pieces {
    pub(crate) fn new(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect() }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(mut piece) = self.pieces.pop_front() else { return Poll::Ready(Ok(0)) };
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        let rest = piece.split_off(count);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs something that needs a runtime that keeps time.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let with_its_tasks = async {
        let result = future.await;
        // The tasks that it has ended get a turn to go: else they are kept, and a million runs take all memory.
        tokio::task::yield_now().await;
        result
    };
    RUNTIME.with(|runtime| runtime.block_on(with_its_tasks))
}
