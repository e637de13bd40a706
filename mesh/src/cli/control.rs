//! The control socket of a running peer: one JSON object a line in, one out.
//!
//! It refuses lines longer than 4 KiB, more than 16 clients at once, and clients that say nothing for a minute.

use super::exit::{Exit, Failure};
use super::line::{Command, LINE_BYTES_MAX, Line};
use super::socket::{self, BoundSocket};
use driftmesh::Mesh;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Most clients at once.
const CLIENTS_MAX: usize = 16;
/// A client that says nothing for so long is cut off.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A client that does not take its answer for so long is cut off.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// Words of progress that wait to be written.
const PROGRESS_MAX: usize = 4;

/// What the peer is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// Hand everything over, then end.
    Leave,
    /// The same, in so long at most.
    Drain(Duration),
    /// End without handing over.
    Stop,
}

/// A request to end, with the way back.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ask: Ask,
    /// Takes the answer.
    pub(super) answer: oneshot::Sender<Value>,
    /// Resolves when the answer is written, or cannot be.
    pub(super) written: oneshot::Receiver<()>,
}

/// A control socket that is being served; ends when dropped.
#[derive(Debug)]
pub(super) struct Control {
    socket: BoundSocket,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Control {
    /// Binds the socket and serves it in the background. Cancel safe.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub(super) async fn serve(
        path: Option<&Path>,
        mesh: Mesh,
        requests: mpsc::Sender<Request>,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let place = path.map_or_else(|| "in the default place".to_owned(), |path| format!("at {}", path.display()));
            let message = format!("no control socket {place}: {error}; choose another path with --control PATH");
            Failure::new(Exit::Control, message)
        };
        let place = path.map(Path::to_owned);
        // It waits for others that bind in the same directory, and for whoever has the path.
        let bound = tokio::task::spawn_blocking(move || socket::bind(place.as_deref()));
        let bound = bound.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let (listener, socket) = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let server = tokio::spawn(accept(listener, mesh, requests));
        Ok(Self { socket, server })
    }

    /// Where the socket is.
    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }
}

async fn accept(listener: UnixListener, mesh: Mesh, requests: mpsc::Sender<Request>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client of the control socket cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            // It has just been accepted, so its buffer takes this without waiting.
            let busy = json!({ "refused": format!("{CLIENTS_MAX} clients are connected; try again later") });
            let _ = tokio::time::timeout(WRITE_MAX, write_line(&mut stream, &busy)).await;
            continue;
        };
        let (mesh, requests) = (mesh.clone(), requests.clone());
        tokio::spawn(async move {
            serve_client(stream, &mesh, &requests).await;
            drop(place);
        });
    }
}

async fn write_line(stream: &mut (impl AsyncWriteExt + Unpin), value: &Value) -> std::io::Result<()> {
    let mut line = value.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}

/// Reads to the end of a line, without keeping it.
async fn skip_line(reader: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(count);
        if end.is_some() {
            return Ok(());
        }
    }
}

async fn serve_client(stream: UnixStream, mesh: &Mesh, requests: &mpsc::Sender<Request>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        // One byte more than a line and its end: then it is known to be too long.
        let mut limited = (&mut reader).take(LINE_BYTES_MAX as u64 + 2);
        match tokio::time::timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        }
        let is_too_long = line.trim_ascii_end().len() > LINE_BYTES_MAX || line.len() > LINE_BYTES_MAX + 1;
        let mut confirm = None;
        let answer = if is_too_long {
            json!({ "error": format!("a line may have at most {LINE_BYTES_MAX} bytes") })
        } else {
            let (teller, mut told) = mpsc::channel(PROGRESS_MAX);
            let answering = answer_line(&line, mesh, requests, &mut confirm, &teller);
            match with_progress(answering, &mut told, &mut writer).await {
                Some(answer) => answer,
                None => return,
            }
        };
        let written = tokio::time::timeout(WRITE_MAX, write_line(&mut writer, &answer)).await;
        if let Some(confirm) = confirm {
            let _: Result<(), ()> = oneshot::Sender::send(confirm, ());
        }
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        let is_cut = is_too_long && line.last() != Some(&b'\n');
        if is_cut && !matches!(tokio::time::timeout(IDLE_MAX, skip_line(&mut reader)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Waits for an answer, and writes what is told before it. `None` when the client does not take it: what it asked for is
/// given up then.
async fn with_progress(
    answering: impl Future<Output = Value>,
    told: &mut mpsc::Receiver<Value>,
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> Option<Value> {
    let mut answering = std::pin::pin!(answering);
    loop {
        let telling = tokio::select! {
            biased;
            answer = &mut answering => return Some(answer),
            Some(telling) = told.recv() => telling,
        };
        if !matches!(tokio::time::timeout(WRITE_MAX, write_line(writer, &telling)).await, Ok(Ok(()))) {
            return None;
        }
    }
}

async fn answer_line(
    line: &[u8],
    mesh: &Mesh,
    requests: &mpsc::Sender<Request>,
    confirm: &mut Option<oneshot::Sender<()>>,
    told: &mpsc::Sender<Value>,
) -> Value {
    let line = match Line::read(line) {
        Ok(line) => line,
        Err(error) => return json!({ "error": error }),
    };
    let ask = match line.cmd {
        Command::Explain => return super::locate::answer(mesh, line.object.as_deref()).await,
        Command::Status => {
            let status = serde_json::to_value(mesh.status());
            return status.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        }
        Command::Moves => return super::placement::answer_moves(mesh, &line),
        Command::Contention => return super::placement::answer_contention(mesh, &line),
        Command::Promote => return super::operators::answer_promote(mesh, &line).await,
        Command::Forget => return super::operators::answer_forget(mesh, &line).await,
        Command::Export => return super::operators::answer_export(mesh, &line, told).await,
        Command::Leave => Ask::Leave,
        Command::Drain => Ask::Drain(Duration::from_secs(line.limit.unwrap_or(super::operators::DRAIN_SECONDS))),
        Command::Stop => Ask::Stop,
    };
    let (answer, answered) = oneshot::channel();
    let (confirmation, written) = oneshot::channel();
    *confirm = Some(confirmation);
    if requests.try_send(Request { ask, answer, written }).is_err() {
        return json!({ "refused": "the peer is ending already" });
    }
    answered.await.unwrap_or_else(|_| json!({ "error": "the peer has ended without doing so" }))
}
