//! A local network of its own for a test: network namespaces of Linux, one per machine, on one bridge.
//!
//! It refuses to touch the network of the machine: the bridge is in a namespace too. All is removed at the end, also
//! after a panic. It needs root; where the system refuses, [`Lan::new`] says why, and the test is skipped.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_driftmesh");
/// Longest wait for anything; only a mesh that hangs takes so long.
pub const HANGS: Duration = Duration::from_secs(60);
/// Numbers the networks of this process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Set to its IP address in a test that runs on a machine of a [`Lan`].
const MACHINE: &str = "DRIFTMESH_TEST_MACHINE";

/// The IP address of the machine that this test runs on by [`Lan::run_test`].
pub fn on_machine() -> Option<String> {
    std::env::var(MACHINE).ok()
}

fn ip(arguments: &str) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = ran.map_err(|error| format!("the program `ip` cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {arguments}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A bridge and the machines on it.
pub struct Lan {
    prefix: String,
    machines: usize,
    folder: PathBuf,
}

impl Lan {
    /// A network without machines, or why this system refuses one.
    pub fn new() -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("dm{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(format!("dm-lan-{prefix}"));
        // Dropped on any error, which removes what was made.
        let lan = Self { prefix, machines: 0, folder };
        std::fs::create_dir_all(&lan.folder).unwrap();
        std::fs::write(lan.folder.join("secret"), "correct horse battery staple").unwrap();
        let switch = lan.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add lan type bridge"))?;
        ip(&format!("-n {switch} link set lan up"))?;
        // What every machine needs; a system without it is told here.
        ip(&format!("-n {switch} link add probe type veth peer name other"))?;
        ip(&format!("-n {switch} link del probe"))?;
        Ok(lan)
    }

    /// As [`Lan::new`]; where the system refuses it, says so on the test's standard error, captured or not.
    pub fn or_skip(test: &str) -> Option<Self> {
        match Self::new() {
            Ok(lan) => Some(lan),
            Err(reason) => {
                let _ = writeln!(std::io::stderr(), "{test}: skipped: it needs root and network namespaces: {reason}");
                None
            }
        }
    }

    fn switch(&self) -> String {
        format!("{}s", self.prefix)
    }

    /// Plugs a new machine in and starts `driftmesh peer` there with the network's secret, listening at port 4001 of
    /// all interfaces; what else is said decides what becomes of it.
    pub fn start(&mut self, arguments: &[&str]) -> LanPeer {
        let machine = self.plug_in();
        let control = self.folder.join(format!("{}.sock", self.machines));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &machine, PROGRAM, "peer", "--listen", "0.0.0.0:4001", "--secret"]);
        command.arg(self.folder.join("secret")).arg("--control").arg(&control).args(arguments);
        LanPeer::start(command, control)
    }

    /// Plugs a new machine in; returns the name of its namespace.
    fn plug_in(&mut self) -> String {
        let (switch, number) = (self.switch(), self.machines + 1);
        let machine = format!("{}m{number}", self.prefix);
        ip(&format!("netns add {machine}")).unwrap();
        self.machines = number;
        ip(&format!("link add p{number} netns {switch} type veth peer name eth0 netns {machine}")).unwrap();
        ip(&format!("-n {switch} link set p{number} master lan")).unwrap();
        ip(&format!("-n {switch} link set p{number} up")).unwrap();
        ip(&format!("-n {machine} address add {}/24 dev eth0", Self::address(number))).unwrap();
        ip(&format!("-n {machine} link set eth0 up")).unwrap();
        ip(&format!("-n {machine} link set lo up")).unwrap();
        machine
    }

    /// Runs the named test of this test binary on a new machine, to its end; [`on_machine`] is true there.
    pub fn run_test(&mut self, test: &str) {
        let machine = self.plug_in();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &machine]).arg(std::env::current_exe().unwrap());
        let ran = command.args([test, "--exact"]).env(MACHINE, Self::address(self.machines)).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    }

    /// The IP address of a machine; the first is 1.
    pub fn address(number: usize) -> String {
        format!("10.77.0.{number}")
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // The peers are gone: they were made later. What was never made cannot be removed.
        for number in 1..=self.machines {
            let _ = ip(&format!("netns del {}m{number}", self.prefix));
        }
        let _ = ip(&format!("netns del {}", self.switch()));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A peer on a machine of its own, killed at the end.
pub struct LanPeer {
    child: Child,
    control: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
}

impl LanPeer {
    fn start(mut command: Command, control: PathBuf) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            });
        }
        Self { child, control, lines }
    }

    /// All that it said until now.
    pub fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The lines with this in them.
    pub fn lines(&self, part: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// What `driftmesh status` says of it; `None` while it does not answer.
    pub fn status(&self) -> Option<Value> {
        let mut command = Command::new(PROGRAM);
        let output = command.args(["status", "--json", "--control"]).arg(&self.control).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// How many other members are connected to it.
    pub fn connected(&self) -> usize {
        let status = self.status().unwrap_or_default();
        status["members"].as_array().into_iter().flatten().filter(|member| member["connected"] == true).count()
    }

    /// What tells its mesh from others.
    pub fn genesis(&self) -> Option<String> {
        Some(self.status()?["genesis"].as_str()?.to_owned())
    }
}

impl Drop for LanPeer {
    fn drop(&mut self) {
        // `ip netns exec` becomes the program, so this is the peer itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it holds, or ends the test with what the peers said.
pub fn until<'a>(what: &str, peers: impl IntoIterator<Item = &'a LanPeer> + Clone, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        let said = || peers.clone().into_iter().map(LanPeer::text).collect::<Vec<_>>().join("\n----\n");
        assert!(begun.elapsed() < HANGS, "waited in vain: {what}\n{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until all peers are members of one mesh, each connected to each; returns how long it took.
pub fn until_one_mesh(peers: &[LanPeer]) -> Duration {
    let begun = Instant::now();
    until("one mesh", peers, || peers.iter().all(|peer| peer.connected() == peers.len() - 1));
    let took = begun.elapsed();
    let genesis = peers[0].genesis();
    assert!(genesis.is_some() && peers.iter().all(|peer| peer.genesis() == genesis));
    took
}
