//! The command line: what can be asked for, and what is refused before anything starts.

use crate::dump_files::DumpFolder;
use crate::faults::Fault;
use crate::workloads::Workload;
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use driftmesh_sim::DUMP_PEERS_MIN;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most peers of a testnet: each is a process with connections to all others.
const PEERS_MAX: u64 = 64;
/// Most simulated peers of one run.
const SCALE_PEERS_MAX: u64 = 1_000;
/// Longest run, seconds.
const SECONDS_MAX: u64 = 86_400;
/// Fewest peers of a run of chaos: with fewer nobody is left on either side of a partition.
const CHAOS_PEERS_MIN: u64 = 3;
/// A peer is killed unless told otherwise where the others can go on without it: in a mesh of so many, with so many
/// followers in each group, and with time to see that they do.
const KILL_PEERS: u64 = 3;
const KILL_REPLICAS: u8 = 2;
const KILL_SECONDS: u64 = 5;
/// Fewest peers of a hostile run: with fewer no group has followers enough; and its shortest time.
const HOSTILE_PEERS_MIN: u64 = 3;
const HOSTILE_SECONDS_MIN: u64 = 6;
/// Most kills, and most pauses.
const FAULTS_MAX: u64 = 1_000;
/// Most trades or acts a second that can be asked for.
const RATE_MAX: u64 = 1_000_000;
/// Most followers of a group.
const REPLICAS_MAX: i64 = 6;
/// Most players; each has items beside.
const PLAYERS_MAX: u64 = 1_000_000;

/// Starts real peer processes on this machine, lets bots trade in one game world, and audits it.
#[derive(Parser, Debug)]
#[command(name = "cargo testnet", args_conflicts_with_subcommands = true, version)]
pub(crate) struct Options {
    /// Something else than the testnet.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The testnet's options.
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// What can be done beside running the testnet.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Runs the testnet in a network of its own, with faults of all kinds; needs root, exit code 77 where it is skipped.
    Chaos(ChaosOptions),
    /// Runs the testnet while hostile members and strangers attack its peers; exit code 1 when a bar is missed.
    Hostile(HostileOptions),
    /// Runs seeds of the deterministic simulator; exit code 1 on a violation.
    Sim(SimOptions),
    /// Runs the testnet for long, with a kill every minute, and looks whether anything grows for ever; exit code 1 if so.
    Soak(SoakOptions),
    /// Asks a mesh for twice what it can carry, for minutes, and then for half of it again; exit code 1 when a bar is missed.
    Overload(OverloadOptions),
    /// Runs many peers in the simulator: a flash join, churn, half of all killed at once; exit code 1 on a violation.
    Scale(ScaleOptions),
    /// Breaks every rule on purpose in the simulator, which must notice; exit code 1 if it misses one. Needs the sources.
    Sabotage(SabotageOptions),
    /// Checks histories that `--dump` wrote; exit code 1 on a violation.
    Check(CheckOptions),
    /// Measures: one thing after the other, each beside what it is compared with.
    Bench(BenchOptions),
    /// One peer of a testnet, started and spoken to by the testnet itself.
    #[command(name = crate::children::PEER_PROCESS, hide = true)]
    PeerProcess,
    /// One zone server of a naive testnet, likewise.
    #[command(name = crate::children::ZONE_SERVER, hide = true)]
    ZoneServer,
}

/// What is checked.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckOptions {
    /// Histories, or folders of them: lists in .edn files, registers in .json files.
    #[arg(required = true, value_name = "DIR|FILE")]
    pub(crate) paths: Vec<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Transfers between accounts inside one peer, beside a plain mutex around a map.
    Local,
    /// How long the objects of a peer are out of reach after it was killed, and after it was frozen.
    Failover,
    /// What followers cost those who commit, how long a commit takes to be stable, and its CPU time.
    Replication,
    /// Reads and ownership of objects elsewhere, in bare round trips of the same connection.
    Remote,
    /// Whether the objects of players who meet come together by themselves, and how soon again when a crowd goes elsewhere.
    Locality,
    /// Tasks of many submitters at many peers on one object, beside as many submitters at its owner.
    Hotspot,
    /// What it costs to move objects, and what that leaves of the throughput.
    Handover,
    /// A task that runs at another peer, in bare round trips of the same connection.
    Tasks,
    /// Trades per second at different localities.
    Trades,
}

/// The options of benchmarks.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchOptions {
    /// What to measure, one after the other.
    #[arg(required = true, value_enum, value_name = "NAME")]
    pub(crate) names: Vec<Bench>,
    /// Also writes the figures to this file, as JSON: one object for each name.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Of `failover`: how many objects the peer owns that fails.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=PLAYERS_MAX))]
    pub(crate) objects: u64,
    /// Those of `locality`.
    #[command(flatten)]
    pub(crate) locality: LocalityOptions,
}

/// The options of the benchmark of locality.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of locality")]
pub(crate) struct LocalityOptions {
    /// How long it is measured; half-way a crowd goes to another region.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(12..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Regions.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    pub(crate) regions: u64,
    /// Cells of each region.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) cells: u64,
    /// Players.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(200..=100_000))]
    pub(crate) players: u64,
    /// Commands per second of all players together.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    pub(crate) rate: u64,
    /// What places and commands are drawn from; drawn by chance unless given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// What holds the game world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Peers of a mesh.
    #[default]
    Mesh,
    /// Zone servers that save to files and hand players over without a protocol, for contrast: the damage that a kill does
    /// is told, and is no error.
    Naive,
}

/// The testnet's options.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// How many peer processes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=PEERS_MAX))]
    pub(crate) peers: u64,
    /// How long the bots trade.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// What the players do.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Workload::Trade)]
    pub(crate) workload: Workload,
    /// How many players the world has: 10,000 unless given, who have 100 gold and 2 items each at first; of other
    /// workloads than trade 1,000, who have what these need.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=PLAYERS_MAX))]
    pub(crate) players: Option<u64>,
    /// Of trades: the probability that a partner is a neighbour, a player at the same peer.
    #[arg(long, default_value_t = 0.95, value_parser = probability)]
    pub(crate) locality: f64,
    /// What the bots' choices are drawn from; drawn by chance unless given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many trades or acts a second all players together begin at most; as many as are answered unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) rate: Option<u64>,
    /// Also writes the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// How many peers to kill (SIGKILL) while the bots trade; the busiest is the first. 1 unless given, where the others
    /// can go on: with 3 peers, 2 replicas and 5 s at least.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=FAULTS_MAX))]
    pub(crate) kill: Option<u64>,
    /// How many peers to pause for 5 s (SIGSTOP, SIGCONT) while the bots trade.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=FAULTS_MAX))]
    pub(crate) pause: u64,
    /// Starts a new peer process in place of each that was killed.
    #[arg(long)]
    pub(crate) restart: bool,
    /// Lets faults happen while groups are not whole yet after the last one.
    #[arg(long)]
    pub(crate) together: bool,
    /// How many followers each group has.
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=REPLICAS_MAX))]
    pub(crate) replicas: u8,
    /// What holds the game world.
    #[arg(long, value_enum, default_value_t = Mode::Mesh)]
    pub(crate) mode: Mode,
    /// Works on lists and registers too, and writes their histories to this folder, for outside judges.
    #[arg(long, value_name = "DIR")]
    pub(crate) dump: Option<PathBuf>,
    /// Of chaos: the kinds of faults, unless all.
    #[arg(skip)]
    pub(crate) only: Vec<String>,
    /// Whether the first peer is never killed or paused.
    #[arg(skip)]
    pub(crate) spares_first: bool,
}

/// The options of a run of chaos.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChaosOptions {
    /// How many peer processes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(CHAOS_PEERS_MIN..=PEERS_MAX))]
    pub(crate) peers: u64,
    /// How long the bots trade.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// What the players do.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Workload::Trade)]
    pub(crate) workload: Workload,
    /// How many players the world has; each of a world of trades has 100 gold and 2 items at first.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(2..=PLAYERS_MAX))]
    pub(crate) players: u64,
    /// Of trades: the probability that a partner is a neighbour, a player at the same peer.
    #[arg(long, default_value_t = 0.95, value_parser = probability)]
    pub(crate) locality: f64,
    /// What the bots' choices, the faults and the lost packets are drawn from; drawn by chance unless given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Also writes the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Lets faults happen while others are going on and groups are not whole.
    #[arg(long)]
    pub(crate) together: bool,
    /// How many followers each group has.
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=REPLICAS_MAX))]
    pub(crate) replicas: u8,
    /// Writes the histories of lists and registers to this folder, for outside judges.
    #[arg(long, value_name = "DIR")]
    pub(crate) dump: Option<PathBuf>,
    /// Only faults of these kinds; repeatable, or with commas.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = Fault::KINDS)]
    pub(crate) only: Vec<String>,
}

/// The options of a hostile run.
#[derive(Args, Clone, Debug)]
pub(crate) struct HostileOptions {
    /// How many honest peer processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(HOSTILE_PEERS_MIN..=PEERS_MAX))]
    pub(crate) peers: u64,
    /// How long the bots trade; they are attacked until 2 s before the end. 300 are enough for 1,000 messages of each kind in
    /// each way.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(HOSTILE_SECONDS_MIN..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// How many players the world has; each has 100 gold and 2 items at first.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(2..=PLAYERS_MAX))]
    pub(crate) players: u64,
    /// What the bots' choices and the attackers' messages are drawn from; drawn by chance unless given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Also writes the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl HostileOptions {
    /// The same as options of a run.
    pub(crate) fn run_options(&self) -> RunOptions {
        RunOptions {
            players: Some(self.players),
            seed: self.seed,
            json: self.json.clone(),
            ..RunOptions::plain(self.peers, self.seconds)
        }
    }
}

impl ChaosOptions {
    /// The same as options of a run.
    pub(crate) fn run_options(&self) -> RunOptions {
        RunOptions {
            workload: self.workload,
            players: Some(self.players),
            locality: self.locality,
            seed: self.seed,
            json: self.json.clone(),
            restart: true,
            together: self.together,
            replicas: self.replicas,
            dump: self.dump.clone(),
            only: self.only.clone(),
            ..RunOptions::plain(self.peers, self.seconds)
        }
    }
}

/// The simulator's options.
#[derive(Args, Clone, Debug)]
pub(crate) struct SimOptions {
    /// Runs one seed.
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Runs many seeds, without TO; 0..200 unless given.
    #[arg(long, value_name = "FROM..TO", value_parser = seed_range)]
    pub(crate) seeds: Option<Range<u64>>,
    /// How many peers each seed has; drawn from the seed unless given.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u64).range(1..=PEERS_MAX))]
    pub(crate) peers: Option<u64>,
    /// How many transactions are begun under faults; 260 unless given.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: Option<u64>,
    /// Works on lists and registers too, and writes their histories to this folder, for outside judges.
    #[arg(long, value_name = "DIR")]
    pub(crate) dump: Option<PathBuf>,
    /// Also writes the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The options of a long run.
#[derive(Args, Clone, Debug)]
pub(crate) struct SoakOptions {
    /// How long, minutes; nothing is judged in less than 10.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    pub(crate) minutes: u64,
    /// How many peer processes; the first is never killed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(KILL_PEERS..=PEERS_MAX))]
    pub(crate) peers: u64,
    /// What the players do.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Workload::Trade)]
    pub(crate) workload: Workload,
    /// What the bots' choices and the faults are drawn from; drawn by chance unless given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many trades or acts a second all players together begin at most; as many as are answered unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) rate: Option<u64>,
    /// Also writes the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl SoakOptions {
    /// The same as options of a run.
    pub(crate) fn run_options(&self) -> RunOptions {
        RunOptions {
            workload: self.workload,
            seed: self.seed,
            rate: self.rate,
            json: self.json.clone(),
            kill: Some(self.minutes),
            restart: true,
            spares_first: true,
            ..RunOptions::plain(self.peers, 60 * self.minutes)
        }
    }
}

/// The options of overload.
#[derive(Args, Clone, Debug)]
pub(crate) struct OverloadOptions {
    /// How long too much is asked for, seconds; memory is not judged in less than 30.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(3..=SECONDS_MAX))]
    pub(crate) seconds: u64,
    /// Also writes the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The options of many peers in the simulator.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleOptions {
    /// How many peers there are, once all have come.
    #[arg(long, value_name = "P", default_value_t = 200, value_parser = clap::value_parser!(u64).range(8..=SCALE_PEERS_MAX))]
    pub(crate) peers: u64,
    /// Runs one seed; 0 unless given.
    #[arg(long, conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Runs many seeds, without TO, one after the other.
    #[arg(long, value_name = "FROM..TO", value_parser = seed_range)]
    pub(crate) seeds: Option<Range<u64>>,
    /// Also writes the reports to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The options of the matrix of sabotages.
#[derive(Args, Clone, Debug)]
pub(crate) struct SabotageOptions {
    /// Within how many seeds each sabotage must be noticed; 5000 unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// Also writes the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl RunOptions {
    /// A run of trades with two followers for each group, in which nothing happens but trades.
    pub(crate) const fn plain(peers: u64, seconds: u64) -> Self {
        Self {
            peers,
            seconds,
            workload: Workload::Trade,
            players: None,
            locality: 0.95,
            seed: None,
            rate: None,
            json: None,
            kill: Some(0),
            pause: 0,
            restart: false,
            together: false,
            replicas: KILL_REPLICAS,
            mode: Mode::Mesh,
            dump: None,
            only: Vec::new(),
            spares_first: false,
        }
    }

    /// How many players there are.
    pub(crate) fn players(&self) -> u64 {
        self.players.unwrap_or_else(|| self.workload.players())
    }

    /// How many peers are killed.
    pub(crate) fn kills(&self) -> u64 {
        let others_go_on = self.peers >= KILL_PEERS && self.replicas >= KILL_REPLICAS && self.seconds >= KILL_SECONDS;
        self.kill.unwrap_or(u64::from(others_go_on))
    }

    /// Whether a new process is started in place of each that was killed: a zone is nowhere else.
    pub(crate) fn restarts(&self) -> bool {
        self.restart || self.mode == Mode::Naive
    }

    /// What is said of the kills before anything happens, for people who did not ask for any.
    pub(crate) fn note_on_kills(&self) -> Option<&'static str> {
        match (self.kill, self.kills()) {
            (Some(_), _) => None,
            (None, 0) => Some("no peer is killed: that takes 3 peers, 2 replicas and 5 s (or --kill N)"),
            (None, _) => Some("half-way the busiest peer is killed (SIGKILL); --kill 0 lets all of them live"),
        }
    }

    /// Checks what no single option can check.
    pub(crate) fn check(&self) -> Result<()> {
        let kills = self.kills();
        if kills >= self.peers && (!self.restarts() || self.peers == 1) {
            bail!(
                "--kill {kills} --peers {}: one peer must be left; give more peers, or --restart with two at least",
                self.peers
            );
        }
        if self.pause > 0 && self.peers == 1 {
            bail!("--pause {} --peers 1: nobody would be there meanwhile", self.pause);
        }
        if self.pause > 0 && cfg!(not(unix)) {
            bail!("--pause {}: this system cannot stop processes", self.pause);
        }
        if self.players() < 2 * self.peers {
            bail!("--players {} --peers {}: each peer needs two players at least", self.players(), self.peers);
        }
        if self.workload != Workload::Trade && self.mode == Mode::Naive {
            bail!("--workload {} --mode naive: zone servers know trades only", self.workload.name());
        }
        if let Some(folder) = &self.dump {
            check_dump_peers(self.peers)?;
            if self.mode == Mode::Naive {
                bail!("--dump --mode naive: zone servers promise nothing that a history could be held against");
            }
            DumpFolder::open(folder)?;
        }
        check_writable(self.json.as_deref())
    }
}

impl SimOptions {
    /// Checks what no single option can check.
    pub(crate) fn check(&self) -> Result<()> {
        match self.peers {
            Some(peers) if self.dump.is_some() => check_dump_peers(peers),
            Some(_) | None => Ok(()),
        }
    }

    /// The seeds to run.
    pub(crate) fn seeds(&self) -> Range<u64> {
        let one = self.seed.map(|seed| seed..seed.saturating_add(1));
        one.or_else(|| self.seeds.clone()).unwrap_or(0..200)
    }
}

/// A history of fewer peers proves too little.
fn check_dump_peers(peers: u64) -> Result<()> {
    if peers < DUMP_PEERS_MIN as u64 {
        bail!("--dump --peers {peers}: a history is of {DUMP_PEERS_MIN} peers at least");
    }
    Ok(())
}

fn probability(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("a probability is from 0 to 1, not {text}")) }
}

fn seed_range(text: &str) -> Result<Range<u64>, String> {
    let wanted = "give FROM..TO, for example 0..200; TO is excluded";
    let (from, to) = text.split_once("..").ok_or_else(|| wanted.to_owned())?;
    let number = |part: &str| part.parse::<u64>().map_err(|_| format!("`{part}` is no seed; {wanted}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err(format!("{text} has no seeds; {wanted}")) } else { Ok(range) }
}

/// Makes sure that a file can be written later. Leaves nothing behind, and leaves a file that exists as it is.
pub(crate) fn check_writable(file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let why = || format!("--json {}: cannot write there", file.display());
    if file.exists() {
        std::fs::OpenOptions::new().append(true).open(file).with_context(why)?;
    } else {
        std::fs::OpenOptions::new().write(true).create_new(true).open(file).with_context(why)?;
        std::fs::remove_file(file).with_context(why)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("testnet").chain(arguments.iter().copied()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_history_needs_peers_and_a_mesh() {
        let refused = |arguments: &[&str]| parsed(arguments).unwrap().run.check().unwrap_err().to_string();
        assert!(refused(&["--dump", "d", "--peers", "2"]).contains("3 peers at least"));
        assert!(refused(&["--dump", "d", "--mode", "naive"]).contains("zone servers promise nothing"));
        assert!(refused(&["--workload", "crowd", "--mode", "naive"]).contains("zone servers know trades only"));
        let sim = |arguments: &[&str]| match parsed(arguments).unwrap().command {
            Some(Command::Sim(sim)) => sim.check().is_ok(),
            _ => false,
        };
        assert!(!sim(&["sim", "--dump", "d", "--peers", "2"]));
        assert!(
            sim(&["sim", "--dump", "d", "--peers", "3"])
                && sim(&["sim", "--peers", "2"])
                && sim(&["sim", "--dump", "d"])
        );
        assert!(parsed(&["check"]).is_err());
    }

    #[test]
    fn the_defaults_are_those_of_the_main_job() {
        let run = parsed(&[]).unwrap().run;
        assert_eq!((run.peers, run.seconds, run.players(), run.kills(), run.pause), (5, 20, 10_000, 1, 0));
        assert_eq!(run.locality, 0.95);
        assert!(run.check().is_ok());
    }

    #[test]
    fn a_peer_is_killed_where_the_others_can_go_on_and_nothing_else_was_said() {
        let kills = |arguments: &[&str]| {
            let run = parsed(arguments).unwrap().run;
            (run.kills(), run.note_on_kills().is_some_and(|note| note.contains("is killed (SIGKILL)")))
        };
        assert_eq!(kills(&[]), (1, true));
        assert_eq!(kills(&["--peers", "3", "--seconds", "5"]), (1, true));
        let cannot: [&[&str]; 3] = [&["--peers", "2"], &["--replicas", "1"], &["--seconds", "4"]];
        for arguments in cannot {
            assert_eq!(kills(arguments), (0, false), "{arguments:?}");
            assert!(parsed(arguments).unwrap().run.note_on_kills().is_some(), "{arguments:?}");
        }
        // What was asked for is done, wherever it may.
        assert_eq!(kills(&["--kill", "0"]), (0, false));
        assert_eq!(kills(&["--kill", "2", "--replicas", "0", "--seconds", "1"]), (2, false));
        assert!(parsed(&["--kill", "0"]).unwrap().run.note_on_kills().is_none());
        assert!(parsed(&["--peers", "1"]).unwrap().run.check().is_ok());
    }

    #[test]
    fn bad_values_are_refused() {
        let bad: [&[&str]; 14] = [
            &["--replicas", "7"],
            &["--kill", "1001"],
            &["--peers", "0"],
            &["--peers", "65"],
            &["--seconds", "0"],
            &["--players", "1"],
            &["--locality", "2.0"],
            &["--locality", "NaN"],
            &["sim", "--seeds", "5..5"],
            &["sim", "--seeds", "5"],
            &["sim", "--seed", "1", "--seeds", "0..2"],
            &["sabotage", "--seeds", "0"],
            &["sabotage", "--seeds", "0..5"],
            &["sabotage", "--seed", "5"],
        ];
        for arguments in bad {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn faults_that_leave_nobody_are_refused() {
        let check = |arguments: &[&str]| parsed(arguments).unwrap().run.check().map_err(|error| error.to_string());
        for good in [&["--kill", "4"][..], &["--kill", "9", "--restart"], &["--pause", "3"]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        let bad: [&[&str]; 3] =
            [&["--kill", "5"], &["--kill", "1", "--peers", "1", "--restart"], &["--pause", "1", "--peers", "1"]];
        for arguments in bad {
            assert!(check(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn too_few_players_are_refused() {
        assert!(parsed(&["--players", "9"]).unwrap().run.check().is_err());
        assert!(parsed(&["--players", "10"]).unwrap().run.check().is_ok());
    }

    #[test]
    fn an_unwritable_file_is_refused_and_a_writable_one_is_not_left_behind() {
        let folder = std::env::temp_dir().join(format!("driftmesh-options-{}", std::process::id()));
        assert!(check_writable(Some(&folder.join("report.json"))).is_err());
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("report.json");
        assert!(check_writable(Some(&folder)).is_err());
        assert!(check_writable(Some(&file)).is_ok());
        assert!(!file.exists());
        std::fs::write(&file, "before").unwrap();
        assert!(check_writable(Some(&file)).is_ok());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_simulator_runs_the_asked_seeds() {
        let seeds = |arguments: &[&str]| match parsed(arguments).unwrap().command {
            Some(Command::Sim(options)) => options.seeds(),
            other => panic!("{other:?}"),
        };
        assert_eq!(seeds(&["sim"]), 0..200);
        assert_eq!(seeds(&["sim", "--seed", "7"]), 7..8);
        assert_eq!(seeds(&["sim", "--seeds", "3..9"]), 3..9);
    }
}
