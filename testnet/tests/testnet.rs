//! The built binary from outside: small runs of real processes, refusals, the simulator, and what a signal leaves.
//!
//! It refuses to judge speed; only what must hold on any machine is asserted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_driftmesh-testnet");

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file that is gone at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("driftmesh-{name}-{}.json", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&self.0).unwrap()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn assert_refused(arguments: &[&str], reason: &str) {
    let output = run(arguments);
    let errors = text(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} was accepted");
    assert!(errors.contains(reason), "{arguments:?}: {errors}");
    assert_eq!(text(&output.stdout), "", "{arguments:?} began");
}

#[test]
fn a_small_world_is_traded_in_and_audited() {
    let file = Scratch::new("run");
    let output = run(&["--peers", "3", "--seconds", "3", "--players", "600", "--seed", "7", "--json", file.path()]);
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("gold 60,000 of 60,000, items 1,200 of 1,200, duplicates 0"), "{printed}");
    let report = file.json();
    let exact = [
        ("peers", 3),
        ("seconds", 3),
        ("seed", 7),
        ("gold_expected", 60_000),
        ("gold_found", 60_000),
        ("items_expected", 1_200),
        ("items_found", 1_200),
        ("duplicates", 0),
        ("errors", 0),
        ("kills", 0),
        ("pauses", 0),
    ];
    for (key, value) in exact {
        assert_eq!(report[key], value, "{key}");
    }
    assert!(report["commits"].as_u64().unwrap() >= 1_000);
    assert!(report["transfers"].as_u64().unwrap() >= 100);
    let numbers = [
        "commits_per_s",
        "commit_p50_us",
        "commit_p99_us",
        "commit_p999_us",
        "commit_max_us",
        "local_share",
        "aborts",
        "deadlines",
        "owned_min_share",
        "owned_max_share",
    ];
    for key in numbers {
        assert!(report[key].is_number(), "{key}");
    }
    assert_eq!(report["invalid"], serde_json::json!([]));
}

#[test]
fn a_run_that_proves_too_little_is_invalid() {
    // Without neighbours as partners a single peer has nobody to exchange objects with, and that is fine; two peers
    // whose players never travel are not.
    let file = Scratch::new("invalid");
    let arguments = ["--peers", "2", "--seconds", "1", "--players", "100", "--locality", "1", "--json", file.path()];
    let output = run(&arguments);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}\n{}", text(&output.stderr));
    assert!(printed.contains("INVALID: 0 transfers"), "{printed}");
    assert!(printed.contains("gold 10,000 of 10,000, items 200 of 200, duplicates 0"), "{printed}");
    assert_eq!(file.json()["transfers"], 0);
}

#[test]
fn what_needs_replicas_is_refused_with_its_reason() {
    assert_refused(&["--kill", "1"], "no replicas yet");
    assert_refused(&["--pause", "1"], "no replicas yet");
}

#[test]
fn bad_options_are_refused_before_anything_starts() {
    assert_refused(&["--peers", "0"], "--peers");
    assert_refused(&["--locality", "2.0"], "from 0 to 1");
    assert_refused(&["--players", "4"], "two players");
    assert_refused(&["--json", "/no/such/folder/report.json"], "cannot write there");
    assert_refused(&["sim", "--seeds", "9..3"], "has no seeds");
    assert_refused(&["sim", "--json", "/no/such/folder/report.json"], "cannot write there");
    assert_refused(&["bench", "local", "--json", "/no/such/folder/report.json"], "cannot write there");
}

#[test]
fn the_simulator_reports_what_its_seeds_came_to() {
    let file = Scratch::new("sim");
    let output = run(&["sim", "--seeds", "0..5", "--json", file.path()]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let report = file.json();
    assert_eq!((&report["seeds"], &report["violations"]), (&5.into(), &0.into()));
    assert_eq!(report["failed_seeds"], serde_json::json!([]));
    for key in ["commits", "transfers", "wounds", "aborts", "faults", "sim_seconds", "wall_seconds"] {
        assert!(report[key].is_number(), "{key}");
    }
    assert!(report["events_never_seen"].is_array());
}

#[test]
fn one_seed_is_one_run_and_prints_its_options() {
    let hash = |seed: &str| {
        let file = Scratch::new(&format!("seed-{seed}"));
        let output = run(&["sim", "--seed", seed, "--json", file.path()]);
        assert!(text(&output.stdout).contains(&format!("options: seed {seed} ")), "{}", text(&output.stdout));
        file.json()["trace_hash"].as_str().unwrap().to_owned()
    };
    assert_eq!(hash("3"), hash("3"));
    assert_ne!(hash("3"), hash("4"));
}

/// Processes are looked at through /proc.
#[cfg(target_os = "linux")]
mod processes {
    use super::{BINARY, Scratch};
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// Ids of the processes that have this parent.
    fn children_of(parent: u32) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ids.filter(|id| parent_of(*id) == Some(parent)).collect()
    }

    fn parent_of(process: u32) -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // After the name, which is in parentheses and may hold anything: the state, then the parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    }

    /// Whether it runs. One that has ended and waits for its parent to look does not.
    fn runs(process: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    fn signal(name: &str, process: u32) {
        let status = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Starts a long run and waits until its bots trade.
    fn start(file: &Scratch) -> (Child, Vec<u32>) {
        let arguments = ["--peers", "3", "--seconds", "600", "--players", "60", "--json", file.path()];
        let mut testnet = Command::new(BINARY).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(testnet.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("commits/s")), "the bots never traded");
        let children = children_of(testnet.id());
        assert_eq!(children.len(), 3);
        // A reader that has gone must not disturb the run.
        drop(lines);
        (testnet, children)
    }

    fn assert_all_end(children: &[u32]) {
        let begun = Instant::now();
        while children.iter().any(|child| runs(*child)) {
            assert!(begun.elapsed() < Duration::from_secs(20), "a peer process is left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn a_signal_ends_everything(name: &str, code: i32) {
        let file = Scratch::new(name);
        let (mut testnet, children) = start(&file);
        signal(name, testnet.id());
        assert_eq!(testnet.wait().unwrap().code(), Some(code));
        // It waited for them, so they are gone by now.
        assert!(!children.iter().any(|child| runs(*child)), "a peer process is left");
        assert!(!file.0.exists(), "a file is left");
    }

    #[test]
    fn ctrl_c_leaves_no_process_and_no_file() {
        a_signal_ends_everything("INT", 130);
    }

    #[test]
    fn a_termination_leaves_no_process_and_no_file() {
        a_signal_ends_everything("TERM", 143);
    }

    #[test]
    fn even_a_kill_leaves_no_process() {
        let file = Scratch::new("kill");
        let (mut testnet, children) = start(&file);
        signal("KILL", testnet.id());
        testnet.wait().unwrap();
        assert_all_end(&children);
        assert!(!file.0.exists(), "a file is left");
    }

    #[test]
    fn a_peer_that_dies_ends_the_run_with_its_reason() {
        let file = Scratch::new("dead-peer");
        let (mut testnet, children) = start(&file);
        signal("KILL", children[1]);
        assert_eq!(testnet.wait().unwrap().code(), Some(1));
        assert!(!children.iter().any(|child| runs(*child)), "a peer process is left");
        assert!(!file.0.exists(), "a report was written");
    }
}
