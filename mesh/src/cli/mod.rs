//! The command line: what can be said, and what becomes of it.
//!
//! It refuses to know how anything is done: each command is a call of another file here.

mod client;
mod control;
mod exit;
mod huge_pages;
mod line;
mod locate;
mod operators;
mod out;
mod peer;
mod placement;
mod socket;

use clap::{Args, Parser, Subcommand};
use driftmesh::PeerId;
use driftmesh::transport::to_libp2p;
use exit::{Exit, Failure};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// A peer-to-peer mesh of transactional game objects.
#[derive(Debug, Parser)]
#[command(name = "driftmesh", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a peer until it is told to leave (SIGTERM, Ctrl-C, or `leave` at its control socket).
    Peer(PeerArgs),
    /// Shows a running peer of this machine: its peers, groups, objects and lag.
    Status(StatusArgs),
    /// Lets a running peer hand everything over and end, and says what was moved, left and lost.
    Drain(DrainArgs),
    /// Founds a group anew from what is left of it, when most of its members are gone for good. What they had beyond that
    /// is lost. See `leaderless` in the status. When it fails because a peer did not say in time what it knows, what the
    /// group was may be over already: give the command again.
    Promote(PromoteArgs),
    /// Gives up a group whose members are all gone for good: its objects and receipts are lost.
    Forget(ForgetArgs),
    /// Writes one consistent snapshot of the whole mesh to a file, while it runs. See `peer --new --import`.
    Export(ExportArgs),
    /// Says which peer owns an object now.
    Where(LocateArgs),
    /// Says which peer owns an object now, and how a running peer found it: by which steps, over which peers, at
    /// which epochs.
    Explain(LocateArgs),
    /// Lists the objects that left a running peer last: where each went, how long ago, and why.
    Moves(MostArgs),
    /// Lists the objects that were most in the way of a running peer's transactions in the last seconds, and those that
    /// came to it again and again.
    Contention(MostArgs),
}

/// How a peer is run.
#[derive(Debug, Args)]
struct PeerArgs {
    /// Founds a new mesh. Without this, --expect and --join the peer looks for a mesh and never founds one.
    #[arg(long)]
    new: bool,
    /// Begins the new mesh with what `driftmesh export` wrote to FILE.
    #[arg(long, value_name = "FILE", requires = "new")]
    import: Option<PathBuf>,
    /// Joins any mesh within reach, else founds one once N peers have found each other and agreed. The same N at all
    /// peers, more than half of those planned; 1 to 128.
    #[arg(long, value_name = "N")]
    expect: Option<u16>,
    /// Joins the mesh of the peer at ADDRESS: HOST:PORT, or /ip4/HOST/tcp/PORT with or without /p2p/ID. Repeatable,
    /// one that answers is enough.
    #[arg(long, value_name = "ADDRESS")]
    join: Vec<String>,
    /// How long to wait for a mesh, seconds; 0 waits for ever. Default: 30 with --join alone, else for ever.
    #[arg(long, value_name = "SECONDS")]
    join_timeout: Option<u64>,
    /// The name of the mesh, at most 64 bytes. Meshes of different names refuse each other.
    #[arg(long, value_name = "NAME", default_value = "default")]
    mesh: String,
    /// Where to listen: /ip4/ADDRESS/tcp/PORT or ADDRESS:PORT; port 0 takes a free one. Repeatable. Default: a free
    /// port of 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// What to tell others to reach this peer at, instead of where it listens. Repeatable.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Vec<String>,
    /// A file with the mesh's secret. Line ends at its end do not count.
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Lets other machines reach a peer of a mesh without a secret. Anybody who can reach it can take part.
    #[arg(long)]
    open: bool,
    /// Does not look for peers of the same network by mDNS, and is not found by it.
    #[arg(long)]
    no_mdns: bool,
    /// The failure domain of this peer: copies are kept in other ones where there are any. Default: the machine.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// How many other peers hold copies of what this one owns: 0 to 6. Fewer where there are fewer peers.
    #[arg(long, value_name = "K", default_value_t = driftmesh::REPLICAS)]
    replicas: usize,
    /// How many bytes the objects may take that this peer holds, its own and copies of others'. What would add to them is
    /// refused then.
    #[arg(long, value_name = "BYTES", default_value_t = driftmesh::HELD_BYTES)]
    held_bytes_max: u64,
    /// Where to put the control socket. Default: a directory of its own in $XDG_RUNTIME_DIR or the temporary
    /// directory.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// What to log to stderr, for example `info` or `driftmesh=debug`.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Which peer to ask.
#[derive(Debug, Args)]
struct StatusArgs {
    /// The peer's control socket, as it printed it. Not needed when one peer runs on this machine.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Prints one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Which peer to drain, and how long that may take.
#[derive(Debug, Args)]
struct DrainArgs {
    /// How long handing over may take, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = operators::DRAIN_SECONDS)]
    limit: u64,
    #[command(flatten)]
    asked: StatusArgs,
}

/// Which group to found anew.
#[derive(Debug, Args)]
struct PromoteArgs {
    /// The group, as the status names it.
    #[arg(value_name = "GROUP")]
    group: String,
    /// Says that the members that are missing will not come back. Without this nothing happens.
    #[arg(long, required = true)]
    force: bool,
    /// Goes on although others have seen more of the group than is left.
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    asked: StatusArgs,
}

/// Which group to give up.
#[derive(Debug, Args)]
struct ForgetArgs {
    /// The group, as the status names it.
    #[arg(value_name = "GROUP")]
    group: String,
    /// Gives it up although somebody in reach holds a copy, or leads it.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    asked: StatusArgs,
}

/// Where to write a snapshot.
#[derive(Debug, Args)]
struct ExportArgs {
    /// The file, which must not exist. The peer that is asked writes it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    asked: StatusArgs,
}

/// Which object to find, and which peer to ask.
#[derive(Debug, Args)]
struct LocateArgs {
    /// The object's id: 32 hexadecimal digits.
    #[arg(value_name = "ID")]
    object: String,
    #[command(flatten)]
    asked: StatusArgs,
}

impl LocateArgs {
    fn show(&self, steps: bool) -> Result<Exit, Failure> {
        locate::show(self.asked.control.as_deref(), &self.object, steps, self.asked.json).map(|()| Exit::Success)
    }
}

/// How many objects to list, and which peer to ask.
#[derive(Debug, Args)]
struct MostArgs {
    /// How many objects to list at most; 1 to 1024.
    #[arg(long, value_name = "N", default_value_t = placement::MOST,
        value_parser = clap::value_parser!(u64).range(1..=placement::MOST_MAX))]
    most: u64,
    #[command(flatten)]
    asked: StatusArgs,
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    // clap ends the process by itself on a mistake, with the code of `Exit::Usage`.
    let ended = match Cli::parse().command {
        Command::Peer(args) => start_logging(&args.log).and_then(|()| run_peer(args)),
        Command::Status(args) => client::status(args.control.as_deref(), args.json).map(|()| Exit::Success),
        Command::Drain(args) => operators::drain(args.asked.control.as_deref(), args.limit, args.asked.json),
        Command::Promote(args) => operators::promote(&args),
        Command::Forget(args) => operators::forget(&args),
        Command::Export(args) => operators::export(&args),
        Command::Where(args) => args.show(false),
        Command::Explain(args) => args.show(true),
        Command::Moves(args) => placement::moves(&args).map(|()| Exit::Success),
        Command::Contention(args) => placement::contention(&args).map(|()| Exit::Success),
    };
    let exit = ended.unwrap_or_else(|failure| {
        out::complain(&failure.message);
        failure.exit
    });
    out::finish();
    exit.into()
}

/// A peer's id as everything shows it that users see: the one that stands in addresses.
fn full_id(peer: &PeerId) -> String {
    to_libp2p(peer).map_or_else(|| peer.to_string(), |full| full.to_string())
}

fn start_logging(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(Exit::Usage, format!("--log {filter}: {error}; give a level or target=level, for example `info`"))
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

fn run_peer(args: PeerArgs) -> Result<Exit, Failure> {
    huge_pages::refuse();
    out::write_on_a_thread();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Other, format!("the runtime cannot be started: {error}; free resources"))
    })?;
    let ended = runtime.block_on(peer::run(args));
    // A name that is still being resolved, and a file that is still being read, must not hold up the end.
    runtime.shutdown_background();
    ended
}
