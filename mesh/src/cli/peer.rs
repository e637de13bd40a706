//! `driftmesh peer`: runs one peer until it is told to end.
//!
//! It refuses to wait for anything but what ends it: whatever takes its time goes on beside the signals.

use super::PeerArgs;
use super::control::{Ask, Control, Request};
use super::exit::{Exit, Failure};
use super::full_id;
use super::out::{complain, say};
use driftmesh::transport::RefuseReason;
use driftmesh::{Builder, Left, Mesh, Notice, PeerId, StartError};
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// How long handing over may take.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// How often a peer that waits for a mesh says what it waits for.
const WAITING_INTERVAL: Duration = Duration::from_secs(5);
/// When it says so first, unless it was told where to join: a mesh that is in reach is often found before.
const SOON: Duration = Duration::from_millis(500);
/// How long a peer that was told where to join waits for a mesh, seconds.
const JOIN_SECONDS: u64 = 30;
/// Most peers of which is remembered that the operator was told of them; more are not told of.
const TOLD_MAX: usize = 256;
/// The time between two lines about refused strangers, so that they cannot fill the terminal.
const REFUSED_INTERVAL: Duration = Duration::from_secs(5);
/// Longest secret, bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Most notices that wait to be shown; more are dropped, because the terminal may stand still.
const NOTICES_MAX: usize = 256;
/// Most requests to end that wait.
const REQUESTS_MAX: usize = 4;
/// How long a client may take to read the last answer.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(1);

/// Runs a peer until it has left.
///
/// # Errors
/// When it cannot start or join; the message says what to do.
pub(super) async fn run(args: PeerArgs) -> Result<Exit, Failure> {
    let (notice_sender, notices) = mpsc::channel(NOTICES_MAX);
    let (by_sender, superseded_by) = watch::channel(None);
    let builder = builder(&args)?.observe(move |notice| {
        if let Notice::Superseded { by } = notice {
            // This one must not be missed.
            by_sender.send_replace(Some(by));
        }
        // A full queue means that the terminal stands still; the next notice that fits shows the present state.
        let _ = notice_sender.try_send(notice);
    });
    let mut signals = Signals::new()?;
    let mesh = tokio::select! {
        biased;
        () = signals.next() => {
            // A file that is being imported may be long.
            say("ended before it had started");
            return Ok(Exit::Success);
        }
        launched = builder.launch() => launched?,
    };
    let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
    let control = tokio::select! {
        biased;
        () = signals.next() => {
            // Somebody may keep the directory of the socket locked.
            mesh.shutdown().await;
            say("ended before it had started");
            return Ok(Exit::Success);
        }
        served = Control::serve(args.control.as_deref(), mesh.clone(), request_sender) => served?,
    };
    introduce(&mesh, &args, control.path());
    if let Some(file) = &args.import {
        say(&format!("imported {}: {}", file.display(), counted(mesh.status().owned, "object")));
    }
    let waiting = Waiting::new(&args);
    let mut running = Running {
        mesh,
        name: args.mesh.clone(),
        signals,
        notices,
        requests,
        superseded_by,
        shown: 0,
        refused_at: None,
        told: BTreeSet::new(),
    };
    let end = match running.join(&waiting, limit(&args)).await? {
        Some(end) => end,
        None => running.until_told().await,
    };
    let exit = running.end(end).await;
    drop(control);
    exit
}

/// How long to wait for a mesh; only who was told where to join gives up by itself.
fn limit(args: &PeerArgs) -> Option<Duration> {
    let only_joins = args.expect.is_none() && !args.join.is_empty();
    let seconds = args.join_timeout.unwrap_or(if only_joins { JOIN_SECONDS } else { 0 });
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn builder(args: &PeerArgs) -> Result<Builder, Failure> {
    if args.new && (!args.join.is_empty() || args.expect.is_some()) {
        let message = "--new founds a mesh alone, --expect together with others, and --join joins one; leave out --new, \
                       or the others";
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut builder = Mesh::builder().name(&args.mesh).open(args.open).mdns(!args.no_mdns);
    builder = builder.replicas(args.replicas).held_bytes_max(args.held_bytes_max);
    if args.new {
        builder = builder.new_mesh();
    } else if let Some(expect) = args.expect {
        builder = builder.expect(expect.into());
    } else {
        builder = builder.search();
    }
    builder = args.join.iter().fold(builder, |builder, address| builder.join(address));
    builder = args.listen.iter().fold(builder, |builder, address| builder.listen(address));
    builder = args.advertise.iter().fold(builder, |builder, address| builder.advertise(address));
    if let Some(path) = &args.secret {
        builder = builder.secret(read_secret(path)?);
    }
    if let Some(file) = &args.import {
        builder = builder.import(file);
    }
    if let Some(zone) = &args.zone {
        builder = builder.zone(zone);
    }
    Ok(builder)
}

fn read_secret(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |what: String| Failure::new(Exit::Usage, format!("the secret file {}: {what}", path.display()));
    let mut secret = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut secret))
        .map_err(|error| failed(format!("{error}; give a file that this user can read")))?;
    if secret.len() as u64 > SECRET_BYTES_MAX {
        return Err(failed(format!("it has more than {SECRET_BYTES_MAX} bytes; give a shorter one")));
    }
    while let Some(b'\n' | b'\r') = secret.last() {
        secret.pop();
    }
    if secret.is_empty() {
        return Err(failed("it is empty; put at least one byte in it".to_owned()));
    }
    Ok(secret)
}

/// Says who this is, and how to add another.
fn introduce(mesh: &Mesh, args: &PeerArgs, control: &Path) {
    let status = serde_json::to_value(mesh.status()).unwrap_or_default();
    say(&format!("peer {}", status["peer"].as_str().unwrap_or_default()));
    let addresses = mesh.addresses();
    for address in &addresses {
        say(&format!("listening at {address}"));
    }
    say(&format!("control socket {}", control.display()));
    let has_mesh_or_founds = args.new || args.expect.is_some() || !args.join.is_empty();
    if let Some(address) = best_address(&addresses).filter(|_| has_mesh_or_founds) {
        say("to add a peer, run:");
        say(&format!("  {}", join_line(address, args)));
    }
    let stays_here = args.listen.is_empty() && args.advertise.is_empty();
    if stays_here && args.join.iter().any(|address| !is_this_machine(address)) {
        say("note: this peer listens on this machine only, so peers of other machines that it does not dial itself \
             cannot reach it; give --listen /ip4/0.0.0.0/tcp/PORT");
    }
}

fn is_this_machine(address: &str) -> bool {
    ["127.", "localhost:", "[::1]", "/ip4/127.", "/ip6/::1/", "/dns/localhost/"]
        .iter()
        .any(|start| address.trim().starts_with(start))
}

/// The address that most others can use.
fn best_address(addresses: &[String]) -> Option<&String> {
    addresses.iter().find(|address| !is_this_machine(address)).or_else(|| addresses.first())
}

/// The command that adds a peer to the mesh.
fn join_line(address: &str, args: &PeerArgs) -> String {
    format!("driftmesh peer --join {address}{}", common_options(args))
}

/// What every peer of the mesh must be given.
fn common_options(args: &PeerArgs) -> String {
    let mut line = String::new();
    if let Some(expect) = args.expect {
        line.push_str(&format!(" --expect {expect}"));
    }
    if args.mesh != "default" {
        line.push_str(&format!(" --mesh {}", quoted(&args.mesh)));
    }
    if let Some(secret) = &args.secret {
        line.push_str(&format!(" --secret {}", quoted(&secret.to_string_lossy())));
    }
    line
}

/// What a peer that looks for a mesh does not do by itself.
fn how_to_start_one(reach: Reach, args: &PeerArgs) -> Vec<String> {
    let mut options = common_options(args);
    if reach == Reach::Network {
        options.push_str(" --listen 0.0.0.0:0");
        if args.open {
            options.push_str(" --open");
        }
    }
    let how = match reach {
        Reach::Network => {
            "this peer then finds it by mDNS on this network; elsewhere, start this peer again with the \
                           --join line that is printed there"
        }
        Reach::ThisMachine => {
            "then start this peer again with the --join line that is printed there (it listens on \
                               this machine only; to find a mesh by mDNS, give --listen 0.0.0.0:PORT)"
        }
        Reach::NoMdns => {
            "then start this peer again with the --join line that is printed there (--no-mdns keeps it \
                          from finding a mesh of this network)"
        }
    };
    vec![
        "this peer founds none by itself; to start one, run one of these:".to_owned(),
        format!("  driftmesh peer --new{options}"),
        format!("  driftmesh peer --expect N{options}    (at each of N or more peers, N more than half)"),
        how.to_owned(),
    ]
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// How a peer that looks for a mesh without an address can come to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// By mDNS.
    Network,
    /// Its listen addresses are loopback ones, of which mDNS does not tell.
    ThisMachine,
    /// It was told to leave mDNS alone.
    NoMdns,
}

impl Reach {
    fn of(args: &PeerArgs) -> Self {
        if args.no_mdns {
            Self::NoMdns
        } else if args.listen.iter().all(|address| is_this_machine(address)) {
            Self::ThisMachine
        } else {
            Self::Network
        }
    }
}

/// What a peer says while it has no mesh.
struct Waiting {
    /// Empty when the progress of the join addresses says it all.
    how_to_start_one: Vec<String>,
    expect: Option<u16>,
    name: String,
}

impl Waiting {
    fn new(args: &PeerArgs) -> Self {
        let (expect, name) = (args.expect, args.mesh.clone());
        let searches = expect.is_none() && args.join.is_empty();
        let lines = if searches { how_to_start_one(Reach::of(args), args) } else { Vec::new() };
        Self { how_to_start_one: lines, expect, name }
    }

    /// Whether the progress of the join addresses tells of it.
    fn tells_of(&self, notice: &Notice) -> bool {
        matches!(notice, Notice::Refused { reason, .. } if self.how_to_start_one.is_empty() && !concerns_peer(reason))
    }

    /// Says what is waited for.
    async fn tell(&self, mesh: &Mesh) {
        let tried = mesh.join_progress().await.join("; ");
        let tried = if tried.is_empty() { tried } else { format!(": {tried}") };
        match self.expect {
            Some(expect) => match mesh.fresh_peers() {
                // It has been admitted meanwhile.
                0 => {}
                found => say(&format!("waiting for a mesh: {found} of {expect} peers found{tried}")),
            },
            None if self.how_to_start_one.is_empty() => {
                say(&format!("waiting for a peer of mesh {}{tried}", self.name))
            }
            None => {
                say(&format!("waiting for a mesh: no peer of mesh {} is in reach", self.name));
                self.how_to_start_one.iter().for_each(|line| say(line));
            }
        }
    }
}

/// The signals that end a peer.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Other, format!("signals cannot be handled: {error}; free resources of this machine"))
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Whether a refusal is a mistake in how a peer was started, which is said once for each peer.
const fn concerns_peer(reason: &RefuseReason) -> bool {
    matches!(reason, RefuseReason::OtherExpect { .. })
}

/// Why a peer ends.
#[derive(Debug)]
enum End {
    /// A signal.
    Signal,
    /// A client of the control socket.
    Asked(Request),
    /// That member says that another process counts as this peer.
    Superseded(PeerId),
}

/// A peer that runs, and what it listens to.
struct Running {
    mesh: Mesh,
    name: String,
    signals: Signals,
    notices: mpsc::Receiver<Notice>,
    requests: mpsc::Receiver<Request>,
    /// Who said that another process counts as this peer now.
    superseded_by: watch::Receiver<Option<PeerId>>,
    /// How many peers were shown last, this one included.
    shown: usize,
    refused_at: Option<Instant>,
    /// Peers of which was said that they expect another number of peers.
    told: BTreeSet<PeerId>,
}

/// Waits until somebody says that another process counts as this peer. Cancel safe.
async fn superseded(by: &mut watch::Receiver<Option<PeerId>>) -> PeerId {
    match by.wait_for(Option::is_some).await.map(|by| *by) {
        Ok(Some(by)) => by,
        // Nobody is left to say so.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

impl Running {
    /// Waits for a mesh, or until told to end.
    async fn join(&mut self, waiting: &Waiting, limit: Option<Duration>) -> Result<Option<End>, StartError> {
        // Who was told where to join says nothing unless it takes long.
        let first =
            if waiting.expect.is_none() && waiting.how_to_start_one.is_empty() { WAITING_INTERVAL } else { SOON };
        let mut ticks = tokio::time::interval_at(Instant::now() + first, WAITING_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut found = 0;
        let mesh = self.mesh.clone();
        // Beside everything else: names are resolved for it.
        let mut telling: Fuse<BoxFuture<'_, ()>> = Fuse::terminated();
        let mut joined = std::pin::pin!(mesh.joined(limit));
        loop {
            tokio::select! {
                // What was told before there was a mesh is shown before it.
                biased;
                () = self.signals.next() => return Ok(Some(End::Signal)),
                Some(request) = self.requests.recv() => return Ok(Some(End::Asked(request))),
                by = superseded(&mut self.superseded_by) => return Ok(Some(End::Superseded(by))),
                () = &mut telling => {}
                Some(notice) = self.notices.recv() => {
                    if let Notice::FreshPeers { found: now } = notice {
                        // Fewer are also found when the others have a mesh already, and this one is about to join.
                        if now > found {
                            telling = waiting.tell(&mesh).boxed().fuse();
                            ticks.reset();
                        }
                        found = now;
                    } else if !waiting.tells_of(&notice) {
                        self.show(notice);
                    }
                }
                ended = &mut joined => {
                    ended?;
                    self.show_members();
                    return Ok(None);
                }
                _ = ticks.tick(), if telling.is_terminated() => telling = waiting.tell(&mesh).boxed().fuse(),
            }
        }
    }

    /// Shows what happens until told to end.
    async fn until_told(&mut self) -> End {
        loop {
            tokio::select! {
                () = self.signals.next() => return End::Signal,
                Some(request) = self.requests.recv() => return End::Asked(request),
                by = superseded(&mut self.superseded_by) => return End::Superseded(by),
                Some(notice) = self.notices.recv() => self.show(notice),
            }
        }
    }

    fn show_members(&mut self) {
        let count = self.mesh.peers().len() + 1;
        if self.shown != count {
            self.shown = count;
            say(&format!("joined mesh {}: {}", self.name, counted(count, "peer")));
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's notices may grow; unknown ones are not shown")]
    fn show(&mut self, notice: Notice) {
        match notice {
            Notice::Joined { .. } => self.show_members(),
            Notice::Left { peer, reason, .. } => {
                say(&format!("peer {} left: {reason}", full_id(&peer)));
                self.show_members();
            }
            Notice::Founded { genesis, founder } => {
                let is_own = founder == self.mesh.peer_id();
                let founder = if is_own { "this peer".to_owned() } else { format!("peer {}", full_id(&founder)) };
                say(&format!("founded mesh {} (genesis {genesis}), its founder is {founder}", self.name));
            }
            Notice::Deposed => complain(
                "the others went on with what this peer owned: they had not heard of it for too long (it stood still, or was cut \
                 off). What it had not copied is lost, and told to whoever holds a receipt; this peer goes on with a new group",
            ),
            Notice::OtherMesh { reason, address } => self.show_other_mesh(&reason, address.as_deref()),
            // Said once for the whole mesh.
            Notice::Refused {
                reason: RefuseReason::WrongMeshName { .. } | RefuseReason::OtherGenesis { .. }, ..
            } => {}
            Notice::Refused { peer, address, reason, .. } => self.show_refused(peer, address.as_deref(), &reason),
            Notice::ListenFailed { addresses, error } => {
                complain(&format!(
                    "nobody can join at {} any more: {error}; start the peer again",
                    addresses.join(", ")
                ));
            }
            _ => {}
        }
    }

    fn show_other_mesh(&self, reason: &RefuseReason, address: Option<&str>) {
        let address = address.unwrap_or("an unknown address");
        let (name, what) = if let RefuseReason::WrongMeshName { theirs, .. } = reason {
            // Meshes of other names have the same right to the network.
            (theirs, "the two never mix".to_owned())
        } else {
            (&self.name, reason.to_string())
        };
        let name = name.escape_debug();
        say(&format!("another mesh `{name}` is on this network: one of its peers is at {address}; {what}"));
    }

    fn show_refused(&mut self, peer: Option<PeerId>, address: Option<&str>, reason: &RefuseReason) {
        let address = address.unwrap_or("an unknown address");
        if let Some(peer) = peer.filter(|_| concerns_peer(reason)) {
            if self.told.len() < TOLD_MAX && self.told.insert(peer) {
                say(&format!("refused peer {} at {address}: {reason}", full_id(&peer)));
            }
        } else if self.refused_at.is_none_or(|at| at.elapsed() >= REFUSED_INTERVAL) {
            self.refused_at = Some(Instant::now());
            say(&format!("refused a peer at {address}: {reason}"));
        }
    }

    /// Ends as asked; at once when interrupted.
    ///
    /// # Errors
    /// When another process counts as this peer: it has nothing to hand over, and nobody to say goodbye to.
    async fn end(mut self, end: End) -> Result<Exit, Failure> {
        let (request, ask) = match end {
            End::Superseded(by) => {
                let message = format!(
                    "peer {} says that another process counts as this peer now, so this one ends: one that was started \
                     later with the same key, or the one of which this is an old copy; start it as a new peer",
                    full_id(&by)
                );
                return Err(Failure::new(Exit::Refused, message));
            }
            End::Signal => (None, Ask::Leave),
            End::Asked(request) => {
                let ask = request.ask;
                (Some(request), ask)
            }
        };
        let mut waiting: Vec<Request> = request.into_iter().collect();
        let Some(ended) = self.end_by(ask, &mut waiting).await else {
            say("ended at once");
            return Ok(Exit::Interrupted);
        };
        // Who asks now is told that the peer is ending.
        self.requests.close();
        waiting.extend(std::iter::from_fn(|| self.requests.try_recv().ok()));
        let tell_one = |request: Request| {
            let answer = ended.answer(request.ask);
            tell(request, answer)
        };
        futures::future::join_all(waiting.into_iter().map(tell_one)).await;
        Ok(Exit::Success)
    }

    /// Leaves or stops. Whoever asks for the same meanwhile waits with the first one; who asks to stop does not wait for
    /// objects to be handed over. `None` when interrupted.
    async fn end_by(&mut self, mut ask: Ask, waiting: &mut Vec<Request>) -> Option<Ended> {
        let mesh = self.mesh.clone();
        loop {
            let mut ending = std::pin::pin!(carry_out(&mesh, ask));
            loop {
                tokio::select! {
                    ended = &mut ending => return Some(ended),
                    _ = self.signals.interrupt.recv() => return None,
                    Some(request) = self.requests.recv() => {
                        let stops = request.ask == Ask::Stop && ask != Ask::Stop;
                        // No more than there are clients: each waits for its answer.
                        waiting.push(request);
                        if stops {
                            break;
                        }
                    }
                }
            }
            ask = Ask::Stop;
        }
    }
}

/// How a peer ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Left(Left),
    Stopped,
}

impl Ended {
    /// What a client is told who asked for this.
    fn answer(self, ask: Ask) -> Value {
        match (ask, self) {
            (Ask::Stop, _) => json!({ "stopped": true }),
            (Ask::Leave, Self::Left(left)) => json!({ "left": what_became(left) }),
            (Ask::Drain(_), Self::Left(left)) => json!({ "drained": what_became(left) }),
            (Ask::Leave | Ask::Drain(_), Self::Stopped) => {
                json!({ "error": "the peer was stopped before it had handed everything over" })
            }
        }
    }
}

/// What became of the objects of a peer that left. What was handed over is in it under the names of both commands.
fn what_became(left: Left) -> Value {
    let Left { handed_over, stayed, lost } = left;
    let copied = stayed.saturating_sub(lost);
    json!({ "moved": handed_over, "left": copied, "lost": lost, "handed_over": handed_over, "stayed": stayed })
}

async fn carry_out(mesh: &Mesh, ask: Ask) -> Ended {
    match ask {
        Ask::Leave => Ended::Left(leave(mesh, LEAVE_MAX).await),
        Ask::Drain(limit) => Ended::Left(leave(mesh, limit).await),
        Ask::Stop => {
            mesh.shutdown().await;
            say("stopped");
            Ended::Stopped
        }
    }
}

async fn tell(request: Request, answer: Value) {
    if request.answer.send(answer).is_ok() {
        // A client that does not read holds up the end for a moment only.
        let _ = tokio::time::timeout(LAST_ANSWER_MAX, request.written).await;
    }
}

async fn leave(mesh: &Mesh, limit: Duration) -> Left {
    let status = mesh.status();
    let others = mesh.peers().len();
    if status.genesis.is_none() {
        say("leaving: there was no mesh");
        mesh.leave(limit).await;
        return Left { handed_over: 0, stayed: 0, lost: 0 };
    }
    let objects = counted(status.owned + status.in_transit, "object");
    if others > 0 {
        say(&format!(
            "leaving: handing {objects} over to {}, {} s at most; Ctrl-C ends at once",
            counted(others, "other peer"),
            limit.as_secs()
        ));
    } else {
        say(&format!("leaving: this is the last peer, so its {objects} end with it"));
    }
    let left = mesh.leave(limit).await;
    let copied = match left.stayed.saturating_sub(left.lost) {
        0 => String::new(),
        copied => format!("{copied} left to those who hold copies, "),
    };
    say(&format!("left: {} handed over, {copied}{} lost", counted(left.handed_over, "object"), left.lost));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_as_which_another_process_counts_ends_and_says_who_told_it() {
        let mesh = Mesh::builder().start().await.unwrap();
        let by = mesh.peer_id();
        let (by_sender, superseded_by) = watch::channel(None);
        let ((_notices, notices), (_requests, requests)) = (mpsc::channel(1), mpsc::channel(1));
        let signals = Signals::new().unwrap();
        let (name, told) = ("arena".to_owned(), BTreeSet::new());
        let mut running =
            Running { mesh, name, signals, notices, requests, superseded_by, shown: 0, refused_at: None, told };
        by_sender.send_replace(Some(by));
        let end = tokio::time::timeout(Duration::from_secs(60), running.until_told()).await.unwrap();
        let failure = running.end(end).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.starts_with(&format!("peer {} says", full_id(&by))), "{}", failure.message);
    }

    async fn running(requests: mpsc::Receiver<Request>) -> Running {
        let mesh = Mesh::builder().start().await.unwrap();
        let (_, notices) = mpsc::channel(1);
        let (_, superseded_by) = watch::channel(None);
        let (name, signals, told) = ("arena".to_owned(), Signals::new().unwrap(), BTreeSet::new());
        Running { mesh, name, signals, notices, requests, superseded_by, shown: 0, refused_at: None, told }
    }

    fn request(ask: Ask) -> (Request, tokio::sync::oneshot::Receiver<Value>) {
        let ((answer, answered), (written, is_written)) =
            (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
        written.send(()).unwrap();
        (Request { ask, answer, written: is_written }, answered)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_who_ask_a_peer_to_leave_hear_what_became_of_it() {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let running = running(requests).await;
        let stayed = driftmesh::limits::NAME_BUCKETS;
        let (first, of_first) = request(Ask::Drain(Duration::from_secs(60)));
        let (second, of_second) = request(Ask::Leave);
        sender.try_send(second).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), running.end(End::Asked(first))).await;
        assert_eq!(ended.unwrap().unwrap(), Exit::Success);
        let became = json!({ "moved": 0, "left": 0, "lost": stayed, "handed_over": 0, "stayed": stayed });
        assert_eq!(of_first.await.unwrap(), json!({ "drained": became }));
        assert_eq!(of_second.await.unwrap(), json!({ "left": became }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_stops_a_peer_that_drains_does_not_wait_for_that() {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let running = running(requests).await;
        let other = Mesh::builder().join(&running.mesh.addresses()[0]).start().await.unwrap();
        running.mesh.wait_for_peers(1).await;
        let held = running.mesh.transact(|tx| async move { tx.create(&Held) }).await.unwrap();
        let mesh = running.mesh.clone();
        let (begun, is_begun) = tokio::sync::oneshot::channel();
        let mut begun = Some(begun);
        // As long as it is locked, it is not handed over.
        let holder = tokio::spawn(mesh.task("holder").deadline(Duration::from_secs(300)).run(move |tx| {
            let begun = begun.take();
            async move {
                let _guard = tx.get_mut(held).await?;
                let _ = begun.map(|begun| begun.send(()));
                std::future::pending::<driftmesh::Result<()>>().await
            }
        }));
        is_begun.await.unwrap();
        let (first, of_first) = request(Ask::Drain(Duration::from_secs(300)));
        let (second, of_second) = request(Ask::Stop);
        sender.try_send(second).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), running.end(End::Asked(first))).await;
        assert_eq!(ended.unwrap().unwrap(), Exit::Success);
        assert!(of_first.await.unwrap()["error"].is_string());
        assert_eq!(of_second.await.unwrap(), json!({ "stopped": true }));
        holder.abort();
        drop(other);
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Held;

    impl driftmesh::Object for Held {
        const TYPE_NAME: &'static str = "held";
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (text, word) in [
            ("arena", "arena"),
            ("/etc/my.secret", "/etc/my.secret"),
            ("my arena", "'my arena'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }

    #[test]
    fn others_are_told_an_address_they_can_use() {
        let addresses = ["/ip4/127.0.0.1/tcp/1".to_owned(), "/ip4/192.0.2.7/tcp/1".to_owned()];
        assert_eq!(best_address(&addresses), Some(&addresses[1]));
        assert_eq!(best_address(&addresses[..1]), Some(&addresses[0]));
    }
}
