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
    assert!(printed.contains("no peer is killed: that takes"), "{printed}");
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
        ("restarts", 0),
        ("replicas", 2),
        ("lost", 0),
        ("lost_untold", 0),
        ("lost_but_present", 0),
        ("unknown", 0),
        ("unaccounted", 0),
        ("unanswered", 0),
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
        "acked_before_stable_share",
        "lost_window_ms",
        "stable_p50_ms",
        "stable_p99_ms",
    ];
    for key in numbers {
        assert!(report[key].is_number(), "{key}");
    }
    assert_eq!(report["invalid"], serde_json::json!([]));
}

#[test]
fn each_workload_holds_what_it_promises_while_a_peer_dies() {
    for (name, figure) in
        [("crowd", "walks"), ("crossing", "walks"), ("boss", "lives"), ("market", "sold"), ("world", "")]
    {
        let file = Scratch::new(name);
        let arguments = ["--workload", name, "--peers", "4", "--seconds", "5", "--players", "200", "--kill", "1"];
        let output = run(&[&arguments[..], &["--json", file.path()]].concat());
        let (printed, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{name}: {printed}\n{errors}");
        let report = file.json();
        assert_eq!(report["workload"], name);
        assert_eq!((&report["kills"], &report["looks_faulty"]), (&1.into(), &0.into()), "{name}");
        assert_eq!(report["gold_expected"], report["gold_found"], "{name}");
        assert_eq!(report["items_expected"], report["items_found"], "{name}");
        assert!(figure.is_empty() || report["invariants"][figure].as_u64().unwrap() > 0, "{name}: {printed}");
        assert!(report["looks"].as_u64().unwrap() > 0, "{name}");
    }
}

#[test]
fn benchmarks_of_several_names_go_into_one_report() {
    let file = Scratch::new("benches");
    let output = run(&["bench", "hotspot", "tasks", "--json", file.path()]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let report = file.json();
    assert!(report["hotspot"]["hotspot_ratio"].as_f64().unwrap() > 0.0);
    assert!(report["tasks"]["forwarded_rtts"].as_f64().unwrap() > 0.0);
}

/// A folder that is gone at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("driftmesh-{name}-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn assert_valid(&self, files: &[&str]) {
        let output = run(&["check", self.path()]);
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{printed}\n{}", text(&output.stderr));
        for file in files {
            assert!(printed.contains(&format!("{file}: valid: ")), "{printed}");
        }
        assert!(printed.contains(&format!("{} histories, 0 of them not valid", files.len())), "{printed}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_history_of_a_run_with_a_kill_is_dumped_and_valid() {
    let folder = Folder::new("dump");
    let output = run(&["--peers", "4", "--seconds", "5", "--players", "400", "--seed", "3", "--dump", folder.path()]);
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("dumped real.edn with "), "{printed}");
    folder.assert_valid(&["real.edn", "real.json"]);
    // One element more in the last list that was read, and it is valid no more.
    let file = folder.0.join("real.edn");
    let history = std::fs::read_to_string(&file).unwrap();
    let (before, after) = history.split_at(history.rfind("]]]}").unwrap());
    std::fs::write(&file, format!("{before} 999999{after}")).unwrap();
    let output = run(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("real.edn: VIOLATION: "), "{}", text(&output.stdout));
}

#[test]
fn the_simulator_dumps_two_histories_a_seed() {
    let folder = Folder::new("dumps");
    let output = run(&["sim", "--seeds", "1..3", "--dump", folder.path()]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    folder.assert_valid(&["1.edn", "1.json", "2.edn", "2.json"]);
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
fn a_killed_peer_is_accounted_for() {
    let file = Scratch::new("killed");
    let arguments = ["--peers", "4", "--seconds", "8", "--players", "300", "--seed", "3"];
    let output = run(&[&arguments[..], &["--restart", "--json", file.path()]].concat());
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(printed.contains("half-way the busiest peer is killed"), "{printed}");
    assert!(printed.contains(" is killed") && printed.contains("joined in its place"), "{printed}");
    let report = file.json();
    let exact = [
        ("kills", 1),
        ("restarts", 1),
        ("gold_found", 30_000),
        ("items_found", 600),
        ("duplicates", 0),
        ("lost_untold", 0),
        ("lost_but_present", 0),
        ("unknown", 0),
        ("unaccounted", 0),
    ];
    for (key, value) in exact {
        assert_eq!(report[key], value, "{key}: {printed}\n{errors}");
    }
    assert!(report["commits"].as_u64().unwrap() >= 1_000, "{printed}");
    assert!(report["recovery_first_ms"].is_number(), "{printed}");
    // Only that the machine was too slow for the players to be served again may keep the run from counting.
    let slow = "less than 99 % were served again";
    let reasons = report["invalid"].as_array().unwrap();
    assert!(reasons.iter().all(|reason| reason.as_str().unwrap().contains(slow)), "{printed}\n{errors}");
    assert_eq!(output.status.success(), reasons.is_empty(), "{printed}");
}

#[test]
fn zone_servers_without_a_protocol_are_damaged_by_a_kill_and_that_is_told() {
    let file = Scratch::new("naive");
    let arguments = ["--mode", "naive", "--peers", "3", "--seconds", "6", "--players", "600", "--seed", "3"];
    let output = run(&[&arguments[..], &["--locality", "0.5", "--json", file.path()]].concat());
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}\n{}", text(&output.stderr));
    let report = file.json();
    assert_eq!((&report["mode"], &report["kills"], &report["restarts"]), (&"naive".into(), &1.into(), &1.into()));
    assert!(report["duplicates"].as_u64().unwrap() > 0, "{printed}");
    assert!(report["lost_untold"].as_u64().unwrap() > 0, "{printed}");
    assert!(printed.contains("DAMAGE: "), "{printed}");
}

#[test]
fn a_failover_is_measured_and_every_object_is_changed_once() {
    let file = Scratch::new("failover");
    let output = run(&["bench", "failover", "--objects", "2000", "--json", file.path()]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}\n{}", text(&output.stderr));
    let report = file.json();
    let figures = &report["failover"];
    assert_eq!(figures["invalid"], serde_json::json!([]), "{printed}");
    for key in ["first_ms", "p99_ms", "frozen_first_ms", "frozen_p99_ms", "gap_before_ms", "gap_after_ms"] {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key}: {printed}");
    }
    assert_eq!(figures["objects"], 2_000);
}

#[test]
fn chaos_is_told_and_leaves_nothing_or_says_why_it_is_skipped() {
    let file = Scratch::new("chaos");
    let arguments = ["chaos", "--peers", "3", "--seconds", "6", "--players", "300", "--only", "loss,delay"];
    let output = run(&[&arguments[..], &["--seed", "2", "--json", file.path()]].concat());
    let printed = text(&output.stdout);
    if output.status.code() == Some(77) {
        assert!(printed.contains("skipped: chaos takes root"), "{printed}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{printed}\n{}", text(&output.stderr));
    let report = file.json();
    assert_eq!((&report["mode"], &report["gold_found"]), (&"chaos".into(), &30_000.into()), "{printed}");
    for key in ["duplicates", "lost_untold", "lost_but_present", "unknown", "unaccounted"] {
        assert_eq!(report[key], 0, "{key}: {printed}");
    }
    let done = report["faults_done"].as_object().unwrap();
    assert!(!done.is_empty() && done.keys().all(|kind| ["loss", "delay"].contains(&kind.as_str())), "{printed}");
    let touched = |key: &str| report[key].as_u64().unwrap();
    assert!(touched("packets_dropped") + touched("packets_delayed") > 0 && touched("list_commits") > 300, "{printed}");
}

#[test]
fn bad_options_are_refused_before_anything_starts() {
    assert_refused(&["chaos", "--peers", "2"], "--peers");
    assert_refused(&["chaos", "--only", "earthquake"], "--only");
    assert_refused(&["--peers", "0"], "--peers");
    assert_refused(&["--locality", "2.0"], "from 0 to 1");
    assert_refused(&["--players", "4"], "two players");
    assert_refused(&["--kill", "5"], "one peer must be left");
    assert_refused(&["--mode", "clever"], "--mode");
    assert_refused(&["bench", "failover", "--objects", "1"], "--objects");
    assert_refused(&["bench", "nothing"], "possible values");
    assert_refused(&["--workload", "nothing"], "possible values");
    assert_refused(&["--workload", "crowd", "--mode", "naive"], "zone servers know trades only");
    assert_refused(&["--pause", "1", "--peers", "1"], "nobody would be there");
    assert_refused(&["--replicas", "7"], "--replicas");
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

    /// Starts a long run and waits until it says something.
    fn start(file: &Scratch, options: &[&str], until: &str) -> (Child, Vec<u32>) {
        let arguments = ["--peers", "3", "--seconds", "600", "--players", "60", "--json", file.path()];
        let mut testnet = Command::new(BINARY).args(arguments).args(options).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(testnet.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(until)), "{until:?} was never said");
        let children = children_of(testnet.id());
        assert!(children.len() >= 3);
        // A reader that has gone must not disturb the run.
        drop(lines);
        (testnet, children)
    }

    /// Many faults in a long run: the first comes within a second.
    const PAUSES: [&str; 2] = ["--pause", "1000"];
    const KILLS: [&str; 3] = ["--kill", "1000", "--restart"];

    fn assert_all_end(children: &[u32]) {
        let begun = Instant::now();
        while children.iter().any(|child| runs(*child)) {
            assert!(begun.elapsed() < Duration::from_secs(20), "a peer process is left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn a_signal_ends_everything(name: &str, code: i32, options: &[&str], until: &str) {
        let file = Scratch::new(&format!("{name}-{}", until.replace([' ', '/'], "-")));
        let (mut testnet, children) = start(&file, options, until);
        signal(name, testnet.id());
        assert_eq!(testnet.wait().unwrap().code(), Some(code));
        // It waited for them, so they are gone by now.
        assert!(!children.iter().any(|child| runs(*child)), "a peer process is left");
        assert!(!file.0.exists(), "a file is left");
    }

    #[test]
    fn ctrl_c_leaves_no_process_and_no_file() {
        a_signal_ends_everything("INT", 130, &[], "commits/s");
    }

    #[test]
    fn a_termination_leaves_no_process_and_no_file() {
        a_signal_ends_everything("TERM", 143, &[], "commits/s");
    }

    #[test]
    fn ctrl_c_leaves_no_process_in_the_middle_of_a_pause() {
        a_signal_ends_everything("INT", 130, &PAUSES, "is paused");
    }

    #[test]
    fn ctrl_c_leaves_no_process_in_the_middle_of_a_kill() {
        a_signal_ends_everything("INT", 130, &KILLS, "is killed");
    }

    /// The namespaces that a run of chaos made.
    fn namespaces_of(process: u32) -> usize {
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_str().unwrap().starts_with(&format!("dmchaos{process}m"))).count()
    }

    #[test]
    fn ctrl_c_leaves_nothing_of_chaos() {
        let file = Scratch::new("chaos-ctrl-c");
        let arguments = ["chaos", "--peers", "3", "--seconds", "600", "--players", "60", "--json", file.path()];
        let mut testnet = Command::new(BINARY).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(testnet.stdout.take().unwrap()).lines().map(Result::unwrap);
        if lines.find(|line| line.contains("commits/s") || line.contains("skipped: ")).unwrap().contains("skipped: ") {
            assert_eq!(testnet.wait().unwrap().code(), Some(77));
            return;
        }
        let (process, children) = (testnet.id(), children_of(testnet.id()));
        assert_eq!((children.len(), namespaces_of(process)), (3, 3));
        signal("INT", process);
        drop(lines);
        assert_eq!(testnet.wait().unwrap().code(), Some(130));
        assert!(!children.iter().any(|child| runs(*child)), "a peer process is left");
        assert!(namespaces_of(process) == 0 && !file.0.exists(), "something is left");
    }

    fn a_kill_leaves_no_process(options: &[&str], until: &str) {
        let file = Scratch::new(&format!("kill-{}", until.replace('/', "-")));
        let (mut testnet, children) = start(&file, options, until);
        signal("KILL", testnet.id());
        testnet.wait().unwrap();
        assert_all_end(&children);
        assert!(!file.0.exists(), "a file is left");
    }

    #[test]
    fn even_a_kill_leaves_no_process() {
        a_kill_leaves_no_process(&[], "commits/s");
    }

    #[test]
    fn even_a_kill_in_the_middle_of_a_pause_leaves_no_process() {
        a_kill_leaves_no_process(&PAUSES, "is paused");
    }

    #[test]
    fn a_peer_that_dies_ends_the_run_with_its_reason() {
        let file = Scratch::new("dead-peer");
        let (mut testnet, children) = start(&file, &[], "commits/s");
        signal("KILL", children[1]);
        assert_eq!(testnet.wait().unwrap().code(), Some(1));
        assert!(!children.iter().any(|child| runs(*child)), "a peer process is left");
        assert!(!file.0.exists(), "a report was written");
    }
}
