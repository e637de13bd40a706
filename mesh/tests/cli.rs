//! The program as its users run it: real processes, real signals, real sockets.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

mod common;

use common::{HANGS, Player, bounded};
use driftmesh::limits::NAME_BUCKETS;
use driftmesh::{Mesh, Ref};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_driftmesh");

/// A directory of its own for the sockets and files of one test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dm-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("TMPDIR", &self.0).env_remove("XDG_RUNTIME_DIR").current_dir(&self.0);
        command
    }

    /// Runs the program to its end.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut process = self.start(arguments);
        let code = process.wait().code().unwrap();
        (code, process.text())
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let mut child =
            self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = outputs.map(|output| {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            })
        });
        Process { child, lines, readers: readers.into() }
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running program, killed when the test ends.
struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line that contains the text, and returns it.
    fn line(&self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.lines.lock().unwrap().iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            assert!(begun.elapsed() < HANGS, "never `{part}` in:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(begun.elapsed() < HANGS, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The address at which it listens.
    fn address(&self) -> String {
        self.line("listening at ").replace("listening at ", "")
    }

    fn control(&self) -> PathBuf {
        self.line("control socket ").replace("control socket ", "").into()
    }

    /// The arguments of the line that it prints to add another peer.
    fn join_arguments(&self) -> Vec<String> {
        let line = self.line("driftmesh peer --join");
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Sends a line to a control socket and returns the answer.
fn ask(control: &Path, line: &str) -> Value {
    let mut stream = UnixStream::connect(control).unwrap();
    stream.set_read_timeout(Some(HANGS)).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn two_peers_by_the_printed_line_then_status_then_a_clean_end() {
    let place = Place::new("two");
    let mut founder = place.start(&["peer", "--new", "--zone", "here"]);
    let mut joiner = place.start(&strings(&founder.join_arguments()));
    founder.line("joined mesh default: 2 peers");
    joiner.line("joined mesh default: 2 peers");

    let control = founder.control();
    assert_eq!(std::fs::metadata(&control).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, shown) = place.run(&["status", "--control", control.to_str().unwrap()]);
    assert_eq!(code, 0, "{shown}");
    let id = joiner.line("peer ").replace("peer ", "");
    let tasks = "tasks      0 submitted here";
    for part in ["mesh       default", "64 owned", "lag 0", "zone       here", "connected", "group", &id, tasks] {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    let (_, json) = place.run(&["status", "--json", "--control", control.to_str().unwrap()]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["mesh"].as_str(), json["members"][0]["peer"].as_str()), (Some("default"), Some(id.as_str())));

    let (code, listed) = place.run(&["status"]);
    assert_eq!(code, 2);
    for peer in [&founder, &joiner] {
        assert!(listed.contains(peer.control().to_str().unwrap()), "{listed}");
    }
    joiner.signal("-TERM");
    assert_eq!(joiner.wait().code(), Some(0), "{}", joiner.text());
    founder.line(&format!("peer {id} left: "));
    founder.line("joined mesh default: 1 peer");
    assert_eq!(place.run(&["status"]).0, 0, "one is left, so it is found");
    founder.signal("-INT");
    assert_eq!(founder.wait().code(), Some(0), "{}", founder.text());
    founder.line("this is the last peer");
    assert!(place.is_empty(), "no socket is left");
    assert_eq!(place.run(&["status"]).0, 6);
}

#[test]
fn a_peer_that_stood_still_says_that_others_went_on_with_what_it_owned() {
    let place = Place::new("still");
    let founder = place.start(&["peer", "--new"]);
    let others: Vec<Process> = (0..2).map(|_| place.start(&strings(&founder.join_arguments()))).collect();
    founder.line("joined mesh default: 3 peers");
    // Its group must be whole, or nobody could go on with it.
    let begun = Instant::now();
    let status = |of: &Process| ask(&of.control(), r#"{"cmd":"status"}"#);
    while status(&founder)["may_stop"] != true {
        assert!(begun.elapsed() < HANGS);
        std::thread::sleep(Duration::from_millis(50));
    }
    founder.signal("-STOP");
    let begun = Instant::now();
    while others.iter().all(|other| status(other)["owned"] == 0) {
        assert!(begun.elapsed() < HANGS);
        std::thread::sleep(Duration::from_millis(50));
    }
    founder.signal("-CONT");
    founder.line("the others went on with what this peer owned");
}

/// Decision 0038. A kernel that says nothing of it is taken at its word.
#[cfg(target_os = "linux")]
#[test]
fn a_peer_refuses_huge_pages() {
    let place = Place::new("pages");
    let founder = place.start(&["peer", "--new"]);
    founder.line("joined mesh default: 1 peer");
    let status = std::fs::read_to_string(format!("/proc/{}/status", founder.child.id())).unwrap();
    if let Some(enabled) = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")) {
        assert_eq!(enabled.trim(), "0");
    }
}

#[test]
fn the_printed_line_carries_name_and_secret_and_others_are_refused() {
    let place = Place::new("secret");
    std::fs::write(place.0.join("secret file"), "hush\n").unwrap();
    std::fs::write(place.0.join("other"), "loud").unwrap();
    let founder = place.start(&["peer", "--new", "--mesh", "my arena", "--secret", "secret file"]);
    let line = founder.line("driftmesh peer --join");
    assert!(line.ends_with(" --mesh 'my arena' --secret 'secret file'"), "{line}");
    let address = &founder.address();
    let join = |more: &[&str]| place.run(&[&["peer", "--join", address], more].concat());

    let (code, text) = join(&["--mesh", "my arena", "--secret", "other"]);
    assert!(code == 4 && text.contains("the mesh secrets differ"), "{code}: {text}");
    let (code, text) = join(&["--mesh", "my arena"]);
    assert!(code == 4 && text.contains("the mesh secrets differ"), "{code}: {text}");
    let (code, text) = join(&["--secret", "secret file"]);
    assert!(code == 4 && text.contains("belongs to the mesh \"my arena\""), "{code}: {text}");
    let wrong_peer = address.rsplit_once('/').unwrap().0.to_owned() + "/" + &libp2p::PeerId::random().to_string();
    let (code, text) = place.run(&["peer", "--join", &wrong_peer]);
    assert!(code == 4 && text.contains("correct the /p2p/ part"), "{code}: {text}");

    let joiner = place.start(&["peer", "--join", address, "--mesh", "my arena", "--secret", "secret file"]);
    joiner.line("joined mesh my arena: 2 peers");
}

#[test]
fn mistakes_end_with_their_own_codes_and_say_what_to_do() {
    let place = Place::new("mistakes");
    std::fs::write(place.0.join("empty"), "\n").unwrap();
    let founder = place.start(&["peer", "--new"]);
    let address = founder.address();
    let taken = address.split("/p2p/").next().unwrap();
    for (arguments, expected, part) in [
        (vec!["peer", "--new", "--join", "127.0.0.1:4000"], 2, "leave out --new"),
        (vec!["peer", "--new", "--expect", "3"], 2, "leave out --new"),
        (vec!["peer", "--expect", "0"], 2, "give 1 to 128"),
        (vec!["peer", "--expect", "129"], 2, "give 1 to 128"),
        (vec!["peer", "--expect", "many"], 2, "--expect"),
        (vec!["peer", "--expect", "2", "--join-timeout", "1"], 5, "1 of the expected peers found each other"),
        (vec!["peer", "--join", "127.0.0.1"], 2, "127.0.0.1:4000"),
        (vec!["peer", "--new", "--listen", "nonsense"], 2, "ADDRESS:PORT"),
        (vec!["peer", "--new", "--listen", "0.0.0.0:0"], 2, "--secret FILE, or --open"),
        (vec!["peer", "--new", "--advertise", "192.0.2.7:4000"], 2, "--secret FILE, or --open"),
        (vec!["peer", "--new", "--secret", "empty"], 2, "it is empty"),
        (vec!["peer", "--new", "--secret", "absent"], 2, "a file that this user can read"),
        (vec!["peer", "--new", "--mesh", ""], 2, "mesh name"),
        (vec!["peer", "--new", "--log", "a=b=c"], 2, "--log"),
        (vec!["peer", "--new", "--nonsense"], 2, "--nonsense"),
        (vec!["peer", "--new", "--listen", taken], 3, "is taken by another process"),
        (vec!["peer", "--new", "--listen", "/ip4/192.0.2.7/tcp/4000", "--open"], 3, "no address of this machine"),
        (vec!["peer", "--join", "127.0.0.1:1", "--join-timeout", "1"], 5, "see that one runs at the address"),
        (vec!["peer", "--new", "--control", "/nonexistent/socket"], 6, "--control PATH"),
        (vec!["peer", "--new", "--control", "empty"], 6, "it exists and is no socket"),
        (vec!["peer", "--new", "--replicas", "7"], 2, "give 0 to 6"),
        (vec!["status", "--control", "absent"], 6, "no peer answers at absent"),
        (vec!["promote", "--force", "sword", "--control", "absent"], 2, "sword is no group id"),
        (vec!["forget", "sword", "--control", "absent"], 2, "sword is no group id"),
        (vec!["moves", "--control", "absent"], 6, "no peer answers at absent"),
        (vec!["moves", "--most", "0", "--control", "absent"], 2, "1..=1024"),
        (vec!["contention", "--control", "absent"], 6, "no peer answers at absent"),
        (vec!["contention", "--most", "1025", "--control", "absent"], 2, "1..=1024"),
    ] {
        let (code, text) = place.run(&arguments);
        assert_eq!(code, expected, "{arguments:?}:\n{text}");
        assert!(text.contains(part), "{arguments:?}: `{part}` in:\n{text}");
    }
}

#[test]
fn an_unreachable_seed_is_named_while_it_is_waited_for_and_joined_when_it_comes() {
    let place = Place::new("waiting");
    let address = common::unused_address();
    let joiner = place.start(&["peer", "--join", &address, "--join-timeout", "0"]);
    let line = joiner.line("waiting for a peer of mesh default: ");
    assert!(line.contains("Connection refused"), "{line}");
    let _founder = place.start(&["peer", "--new", "--listen", &address]);
    joiner.line("joined mesh default: 2 peers");

    let mut waiting = place.start(&["peer", "--join", "127.0.0.1:1", "--join-timeout", "0"]);
    waiting.control();
    waiting.signal("-TERM");
    assert_eq!(waiting.wait().code(), Some(0), "{}", waiting.text());
}

#[test]
fn the_control_socket_answers_everything_with_one_line() {
    let place = Place::new("control");
    let path = place.0.join("my.sock");
    let mut peer = place.start(&["peer", "--new", "--control", path.to_str().unwrap()]);
    peer.line("control socket");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&path, r#"{"cmd":"status"}"#)["owned"], NAME_BUCKETS);
    for line in [r#"{"cmd":"dance"}"#, "nonsense", "", "[]", r#"{"cmd":"stop","now":1}"#, &"x".repeat(5_000), "\u{0}"] {
        let answer = ask(&path, line);
        assert!(answer["error"].is_string(), "{line}: {answer}");
    }
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(format!("{}\n{{\"cmd\":\"status\"}}\n", "x".repeat(1 << 20)).as_bytes()).unwrap();
    let answers: Vec<String> = BufReader::new(stream).lines().take(2).map(Result::unwrap).collect();
    assert!(answers[0].contains("at most 4096 bytes") && answers[1].contains("owned"), "{answers:?}");

    let mut idle = Vec::new();
    while idle.len() < 16 {
        // Who is answered has a place; until the former clients are noticed to be gone, not everybody is.
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut answer = String::new();
        let asked = stream.write_all(b"{\"cmd\":\"status\"}\n");
        if asked.is_ok() && BufReader::new(&mut stream).read_line(&mut answer).is_ok() && answer.contains("owned") {
            idle.push(stream);
        }
    }
    let mut refused = String::new();
    BufReader::new(UnixStream::connect(&path).unwrap()).read_line(&mut refused).unwrap();
    assert!(refused.contains("try again later"), "{refused}");
    drop(idle);
    let begun = Instant::now();
    let answer = loop {
        // The places come back when the peer has noticed that the clients are gone.
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut answer = String::new();
        let asked = stream.write_all(b"{\"cmd\":\"stop\"}\n");
        if asked.is_ok() && BufReader::new(stream).read_line(&mut answer).is_ok() && answer.contains("stopped") {
            break serde_json::from_str::<Value>(&answer).unwrap();
        }
        assert!(begun.elapsed() < HANGS, "{answer}");
    };
    assert_eq!(answer["stopped"], true);
    assert_eq!(peer.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_searching_peer_says_how_to_start_a_mesh_founds_none_and_joins_the_one_that_finds_it() {
    let place = Place::new("search");
    let mut searching = place.start(&["peer", "--mesh", "my arena"]);
    searching.line("waiting for a mesh: no peer of mesh my arena is in reach");
    searching.line("  driftmesh peer --new --mesh 'my arena'");
    searching.line("  driftmesh peer --expect N --mesh 'my arena'");
    until_said_again(&searching, "waiting for a mesh: no peer of mesh my arena");
    assert!(ask(&searching.control(), r#"{"cmd":"status"}"#)["genesis"].is_null());

    let address = searching.address();
    let mut founder = place.start(&["peer", "--expect", "1", "--join", &address, "--mesh", "my arena"]);
    founder.line("founded mesh my arena");
    founder.line("joined mesh my arena: 2 peers");
    searching.line("joined mesh my arena: 2 peers");
    for process in [&mut searching, &mut founder] {
        process.signal("-TERM");
        assert_eq!(process.wait().code(), Some(0), "{}", process.text());
    }

    let mut alone = place.start(&["peer"]);
    alone.line("waiting for a mesh: no peer of mesh default is in reach");
    alone.signal("-INT");
    assert_eq!(alone.wait().code(), Some(0), "{}", alone.text());
    alone.line("leaving: there was no mesh");
}

fn until_said_again(process: &Process, part: &str) {
    let begun = Instant::now();
    while process.text().matches(part).count() < 2 {
        assert!(begun.elapsed() < HANGS, "only once `{part}` in:\n{}", process.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn three_expecting_processes_found_one_mesh_by_the_printed_line() {
    let place = Place::new("expect");
    let first = place.start(&["peer", "--expect", "3", "--mesh", "arena"]);
    let line = first.line("driftmesh peer --join");
    assert!(line.ends_with(" --expect 3 --mesh arena"), "{line}");
    first.line("waiting for a mesh: 1 of 3 peers found");
    let others = [(); 2].map(|()| place.start(&strings(&first.join_arguments())));
    let all = [&first, &others[0], &others[1]];
    all.iter().for_each(|process| _ = process.line("joined mesh arena: 3 peers"));
    let texts: String = all.iter().map(|process| process.text()).collect();
    assert!(texts.contains("waiting for a mesh: 3 of 3 peers found"), "{texts}");
    let founded = texts.lines().filter(|line| line.starts_with("founded mesh arena")).collect::<Vec<_>>();
    assert!(founded.len() == 1 && founded[0].ends_with("its founder is this peer"), "{texts}");
}

#[test]
fn a_second_genesis_and_another_number_are_said_once_and_counted() {
    let place = Place::new("genesis");
    let one = place.start(&["peer", "--new"]);
    let genesis = |process: &Process| {
        let begun = Instant::now();
        loop {
            let status = ask(&process.control(), r#"{"cmd":"status"}"#);
            if let Some(genesis) = status["genesis"].as_str() {
                return genesis.to_owned();
            }
            assert!(begun.elapsed() < HANGS, "{}", process.text());
        }
    };
    // It founds a mesh before there is anything at the address that it joins later.
    let address = common::unused_address();
    let other = place.start(&["peer", "--expect", "1", "--join", &address]);
    other.line("founded mesh default");
    let third = place.start(&["peer", "--new", "--listen", &address]);
    let geneses = [genesis(&other), genesis(&third)];
    for (process, [theirs, ours]) in [(&third, &geneses), (&other, &[geneses[1].clone(), geneses[0].clone()])] {
        let line = process.line("belongs to another mesh of the same name");
        assert!(line.contains(&format!("theirs has the genesis {theirs}, ours {ours}")), "{line}");
        assert!(line.contains("start one side anew"), "{line}");
        let begun = Instant::now();
        // It is tried again and refused again, without another word.
        while ask(&process.control(), r#"{"cmd":"status"}"#)["transport"]["other_genesis"].as_u64() < Some(2) {
            assert!(begun.elapsed() < HANGS, "{}", process.text());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(process.text().matches("belongs to another mesh").count(), 1, "{}", process.text());
        let (_, shown) = place.run(&["status", "--control", process.control().to_str().unwrap()]);
        assert!(shown.contains("handshakes with peers of another mesh of this name"), "{shown}");
    }

    let three = place.start(&["peer", "--expect", "3", "--mesh", "other"]);
    let four = place.start(&["peer", "--expect", "4", "--mesh", "other", "--join", &three.address()]);
    for (process, theirs, ours) in [(&three, 4, 3), (&four, 3, 4)] {
        process.line(&format!("that peer expects {theirs} peers to found a mesh, this one {ours}"));
    }
    drop(one);
}

/// Hands objects to the peers of a mesh: by a peer in this process that creates them and leaves.
async fn give(address: &str, count: u64) -> Vec<Ref<Player>> {
    let mesh = bounded(Mesh::builder().join(address).start()).await.unwrap();
    let created = mesh.transact(|tx| async move {
        (0..count).map(|gold| tx.create(&Player::new("Ada", gold))).collect::<driftmesh::Result<Vec<_>>>()
    });
    let players = bounded(created).await.unwrap();
    let left = bounded(mesh.leave(HANGS)).await;
    assert_eq!((left.handed_over as u64, left.stayed), (count, 0));
    players
}

async fn sum(address: &str, players: &[Ref<Player>]) -> u64 {
    let mesh = bounded(Mesh::builder().join(address).start()).await.unwrap();
    let summed = mesh
        .transact(|tx| async move { Ok(tx.get_many(players).await?.iter().map(|player| player.gold).sum::<u64>()) });
    let sum = bounded(summed).await.unwrap();
    bounded(mesh.leave(HANGS)).await;
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_take_over_what_a_leaving_peer_owns() {
    let place = Place::new("leave");
    let mut first = place.start(&["peer", "--new"]);
    let players = give(&first.address(), 200).await;
    assert_eq!(ask(&first.control(), r#"{"cmd":"status"}"#)["owned"], 200 + NAME_BUCKETS);
    let mut second = place.start(&strings(&first.join_arguments()));
    second.line("joined mesh default: 2 peers");

    first.signal("-TERM");
    assert_eq!(first.wait().code(), Some(0));
    first.line("leaving: handing 264 objects over to 1 other peer");
    first.line("left: 264 objects handed over, 0 lost");
    assert_eq!(ask(&second.control(), r#"{"cmd":"status"}"#)["owned"], 200 + NAME_BUCKETS);
    assert_eq!(sum(&second.address(), &players).await, 199 * 200 / 2);

    let third = place.start(&strings(&second.join_arguments()));
    third.line("joined mesh default: 2 peers");
    let answer = ask(&second.control(), r#"{"cmd":"leave"}"#);
    assert_eq!((&answer["left"]["handed_over"], &answer["left"]["stayed"]), (&(200 + NAME_BUCKETS).into(), &0.into()));
    assert_eq!(second.wait().code(), Some(0));
    assert_eq!(sum(&third.address(), &players).await, 199 * 200 / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_peer_says_where_an_object_is_and_how_that_was_found() {
    let place = Place::new("where");
    let socket = place.0.join("peer.sock");
    let socket = socket.to_str().unwrap();
    let process = place.start(&["peer", "--new", "--control", socket]);
    let mesh = bounded(Mesh::builder().join(&process.address()).start()).await.unwrap();
    let player = bounded(mesh.transact(|tx| async move { tx.create(&Player::new("Ada", 3)) })).await.unwrap();
    let id = player.to_string();
    let owner = mesh.addresses()[0].rsplit('/').next().unwrap().to_owned();
    let (code, said) = tokio::task::block_in_place(|| place.run(&["where", &id, "--control", socket]));
    assert!(code == 0 && said.contains(&owner) && said.lines().count() == 1, "{code}: {said}");
    let (code, said) = tokio::task::block_in_place(|| place.run(&["explain", &id, "--json", "--control", socket]));
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &found["place"], &found["peer"]), (0, &Value::from("at"), &Value::from(owner)), "{said}");
    assert!(["hint", "home", "search"].contains(&found["how"].as_str().unwrap()), "{said}");
    assert!(!found["steps"].as_array().unwrap().is_empty(), "{said}");
    let nothing = "0".repeat(31) + "7";
    let (code, said) = tokio::task::block_in_place(|| place.run(&["where", &nothing, "--control", socket]));
    assert!(code == 7 && said.contains("is nowhere"), "{code}: {said}");
    let (code, said) = tokio::task::block_in_place(|| place.run(&["where", "sword", "--control", socket]));
    assert!(code == 2 && said.contains("is no object id"), "{code}: {said}");
}

#[test]
fn a_peer_that_nothing_has_left_says_so() {
    let place = Place::new("stayed");
    let process = place.start(&["peer", "--new"]);
    process.line("joined mesh default: 1 peer");
    assert_eq!(place.run(&["moves"]), (0, "no object has left this peer since it was started".to_owned()));
    assert_eq!(place.run(&["moves", "--json"]), (0, r#"{"moves":[],"remembered":0}"#.to_owned()));
    let (code, said) = place.run(&["contention"]);
    assert!(code == 0 && said.starts_with("no object was contended or bounced"), "{code}: {said}");
    assert_eq!(place.run(&["contention", "--json"]), (0, r#"{"bouncing":[],"contended":[]}"#.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_says_what_left_it_where_to_and_which_transaction_wanted_it() {
    let place = Place::new("moves");
    let process = place.start(&["peer", "--new"]);
    let players = give(&process.address(), 3).await;
    let mesh = bounded(Mesh::builder().join(&process.address()).start()).await.unwrap();
    // The kind of a transaction is what a game calls it, whatever that does to a terminal; and some are called as this is.
    let kinds = ["trade", "drain", "steal\u{1b}[2J"];
    for (player, kind) in players.iter().zip(kinds) {
        let spent = mesh.task(kind).run(|tx| async move {
            tx.get_mut(*player).await?.gold = 0;
            Ok(())
        });
        bounded(spent).await.unwrap();
    }
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| place.run(arguments));
    let (code, said) = run(&["moves"]);
    let lines: Vec<&str> = said.lines().collect();
    let from = process.line("peer ").replace("peer ", "");
    assert_eq!((code, lines[0]), (0, format!("3 of 3 remembered moves from peer {from}, newest first").as_str()));
    let to = mesh.addresses()[0].rsplit('/').next().unwrap().to_owned();
    let shown = ["`steal\\u{1b}[2J`", "`drain`", "`trade`"];
    for ((line, player), kind) in lines[2..].iter().zip(players.iter().rev()).zip(shown) {
        assert!(line.starts_with(&format!("{player}  peer {to}  ")), "{said}");
        assert!(line.ends_with(&format!("  a transaction there wanted it, of kind {kind}")), "{said}");
    }
    assert!(lines.len() == 5 && said.chars().all(|character| character == '\n' || !character.is_control()), "{said}");

    let (code, said) = run(&["moves", "--json", "--most", "2"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, told["moves"].as_array().map(Vec::len), &told["remembered"]), (0, Some(2), &3.into()), "{said}");
    let newest = &told["moves"][0];
    for (key, value) in [
        ("object", players[2].to_string()),
        ("from_peer", from),
        ("to_peer", to),
        ("to_group", mesh.status().group),
        ("reason", "wanted".to_owned()),
        ("kind", kinds[2].to_owned()),
    ] {
        assert_eq!(newest[key], value, "{key}: {said}");
    }
    assert!(newest["used_with"].is_null() && newest["ms_ago"].as_u64() < Some(HANGS.as_secs() * 1_000), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_ends_a_leave_at_once() {
    let place = Place::new("interrupt");
    let mut first = place.start(&["peer", "--new"]);
    give(&first.address(), 10).await;
    let second = place.start(&strings(&first.join_arguments()));
    second.line("joined mesh default: 2 peers");
    let begun = Instant::now();
    while ask(&first.control(), r#"{"cmd":"status"}"#)["members"][0]["heard_ms_ago"].is_null() {
        assert!(begun.elapsed() < HANGS, "{}", first.text());
    }
    // It takes nothing while it stands still, so the leave cannot end.
    second.signal("-STOP");
    first.signal("-INT");
    first.line("leaving: ");
    first.signal("-INT");
    assert_eq!(first.wait().code(), Some(130), "{}", first.text());
    assert!(!first.control().exists());
    second.signal("-CONT");
}

#[test]
fn a_peer_that_was_killed_leaves_a_socket_that_nobody_minds() {
    let place = Place::new("killed");
    let path = place.0.join("my.sock");
    let arguments = ["peer", "--new", "--control", path.to_str().unwrap()];
    let mut killed = place.start(&arguments);
    let mut elsewhere = place.start(&["peer", "--new"]);
    killed.line("control socket");
    elsewhere.line("control socket");
    for process in [&mut killed, &mut elsewhere] {
        process.signal("-KILL");
        process.wait();
    }
    assert!(path.exists());
    assert_eq!(place.run(&["status"]).0, 6, "a dead socket is not listed");
    let again = place.start(&arguments);
    again.line("control socket");
    assert_eq!(ask(&path, r#"{"cmd":"status"}"#)["owned"], NAME_BUCKETS);
    let (code, text) = place.run(&arguments);
    assert!(code == 6 && text.contains("another process uses it"), "{code}: {text}");
}

/// Waits until a peer says so of itself.
fn status_until(process: &Process, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let status = ask(&process.control(), r#"{"cmd":"status"}"#);
        if is_so(&status) {
            return status;
        }
        assert!(begun.elapsed() < HANGS, "{what} is not so: {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A mesh of two, of which the first was killed; the second one, what the first had, and the group that nobody leads.
async fn one_of_two_killed(place: &Place) -> (Process, Vec<Ref<Player>>, String) {
    let mut first = place.start(&["peer", "--new"]);
    let players = give(&first.address(), 200).await;
    let second = place.start(&strings(&first.join_arguments()));
    let two = |status: &Value| status["may_stop"] == true && status["members"].as_array().map(Vec::len) == Some(1);
    status_until(&first, "its groups are whole", two);
    first.signal("-KILL");
    first.wait();
    let status = status_until(&second, "a group is leaderless", |status| {
        status["leaderless"].as_array().is_some_and(|groups| groups.len() == 1)
    });
    assert!(status["may_not_stop_because"].as_str().unwrap().contains("nobody in reach leads group"));
    (second, players, status["leaderless"][0].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_of_two_had_goes_on_with_the_other_when_an_operator_says_so() {
    let place = Place::new("promote");
    let (second, players, group) = one_of_two_killed(&place).await;
    let control = second.control();
    let control = control.to_str().unwrap();
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| place.run(arguments));
    let (code, said) = run(&["status", "--control", control]);
    assert!(code == 0 && said.contains(&format!("leaderless group {group}")), "{said}");
    let (code, said) = run(&["promote", &group, "--control", control]);
    assert!(code == 2 && said.contains("--force"), "{code}: {said}");
    let (code, said) = run(&["promote", "--force", &group, "--control", control]);
    assert!(code == 0 && said.contains("generation 1, with 264 objects"), "{code}: {said}");
    assert_eq!(sum(&second.address(), &players).await, 199 * 200 / 2);
    let (code, said) = run(&["promote", "--force", &"0".repeat(32), "--control", control]);
    assert!(code == 8 && said.contains("no group"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_gone_is_given_up_and_the_peer_drained() {
    let place = Place::new("forget");
    let (second, players, group) = one_of_two_killed(&place).await;
    let control = second.control();
    let control = control.to_str().unwrap();
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| place.run(arguments));
    let (code, said) = run(&["forget", &group, "--control", control]);
    assert!(code == 8 && said.contains("12D3Koo") && said.contains("promote"), "{code}: {said}");
    let (code, said) = run(&["forget", "--force", &group, "--control", control]);
    assert!(code == 0 && said.contains("given up"), "{code}: {said}");
    let mesh = bounded(Mesh::builder().join(&second.address()).start()).await.unwrap();
    let player = players[0];
    let read = bounded(mesh.transact(|tx| async move { Ok(tx.get(player).await?.gold) })).await;
    assert!(matches!(read, Err(driftmesh::Error::ObjectLost { .. })), "{read:?}");
    let (code, said) = run(&["where", &player.to_string(), "--control", control]);
    assert!(code == 7 && said.contains("is lost"), "{code}: {said}");
    let name = bounded(mesh.transact(|tx| async move { tx.lookup::<Player>("ada").await })).await;
    assert!(matches!(name, Err(driftmesh::Error::BucketMissing { .. })), "{name:?}");

    bounded(mesh.transact(|tx| async move { tx.create(&Player::new("Bob", 1)) })).await.unwrap();
    let (code, said) = run(&["drain", "--limit", "20", "--json", "--control", control]);
    assert!(code == 0 && said.contains(r#""left":0,"lost":0,"moved":"#) && said.contains("drained"), "{code}: {said}");
    let mut second = second;
    assert_eq!(second.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_is_exported_and_another_one_begins_with_it() {
    let place = Place::new("export");
    let first = place.start(&["peer", "--new"]);
    let players = give(&first.address(), 200).await;
    let control = first.control();
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| place.run(arguments));
    // The name is that of the caller's directory.
    let (code, said) = run(&["export", "mesh.export", "--control", control.to_str().unwrap()]);
    assert!(code == 0 && said.contains("264 objects") && place.0.join("mesh.export").exists(), "{code}: {said}");
    let (code, said) = run(&["export", "mesh.export", "--control", control.to_str().unwrap()]);
    assert!(code == 8 && said.contains("exists already"), "{code}: {said}");
    let second = place.start(&["peer", "--new", "--import", "mesh.export"]);
    second.line("imported mesh.export: 264 objects");
    assert_eq!(sum(&second.address(), &players).await, 199 * 200 / 2);

    let file = place.0.join("mesh.export");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.pop();
    std::fs::write(&file, bytes).unwrap();
    let (code, said) = run(&["peer", "--new", "--import", "mesh.export"]);
    assert!(code == 2 && said.contains("ends too early"), "{code}: {said}");
    std::fs::remove_file(file).unwrap();
    let (code, said) = run(&["peer", "--import", "mesh.export"]);
    assert!(code == 2 && said.contains("--new"), "{code}: {said}");
}

#[test]
fn what_a_peer_answers_ends_with_another_code_than_no_answer() {
    let place = Place::new("answers");
    let path = place.0.join("fake.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let answers = [
        (r#"{"refused":"it is busy"}"#, 8, "it is busy"),
        (r#"{"error":"it went wrong"}"#, 1, "it went wrong"),
        ("what", 6, "answered no JSON"),
    ];
    for (answer, code, part) in answers {
        let mut process = place.start(&["status", "--control", path.to_str().unwrap()]);
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
        assert_eq!(process.wait().code(), Some(code), "{answer}");
        assert!(process.text().contains(part), "{}", process.text());
    }
}

#[test]
fn an_export_to_a_name_that_cannot_be_told_is_a_mistake_of_who_asks() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new("utf8");
    let mut command = place.command(&["export", "--control", "absent"]);
    let ended = command.arg(std::ffi::OsStr::from_bytes(b"mesh-\xff.export")).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && said.contains("must be UTF-8"), "{said}");
}

#[test]
fn a_peer_whose_terminal_stands_still_hears_its_signals() {
    let place = Place::new("still");
    let path = place.0.join("my.sock");
    let (reader, full) = std::io::pipe().unwrap();
    let mut filler = full.try_clone().unwrap();
    // More than fits, so that it waits in there.
    std::thread::spawn(move || filler.write_all(&[b'x'; 1 << 20]));
    std::thread::sleep(Duration::from_millis(200));
    let mut command = place.command(&["peer", "--new", "--control", path.to_str().unwrap()]);
    let child = command.stdout(full).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    let mut process = Process { child, lines: Arc::default(), readers: Vec::new() };
    let begun = Instant::now();
    while UnixStream::connect(&path).is_err() {
        assert!(begun.elapsed() < HANGS, "it does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(ask(&path, r#"{"cmd":"status"}"#)["owned"], NAME_BUCKETS);
    process.signal("-TERM");
    assert_eq!(process.wait().code(), Some(0));
    assert!(!path.exists());
    drop(reader);
}

#[test]
fn a_signal_ends_a_peer_that_still_reads_the_file_to_import() {
    let place = Place::new("importing");
    let pipe = place.0.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut process = place.start(&["peer", "--new", "--import", "pipe"]);
    let (sender, opened) = std::sync::mpsc::channel();
    // Opened when the peer reads it; then nothing is written.
    std::thread::spawn(move || sender.send(std::fs::File::options().write(true).open(pipe)));
    let written_to = opened.recv_timeout(HANGS).unwrap().unwrap();
    process.signal("-TERM");
    assert_eq!(process.wait().code(), Some(0), "{}", process.text());
    process.line("ended before it had started");
    drop(written_to);
}
