//! Real peers on a local network of their own: who is told no address finds the others by mDNS.
//!
//! It runs as root where network namespaces can be made, and says so where it is skipped. No time is asserted.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

mod lan;

use lan::{Lan, until, until_one_mesh};
use std::time::Duration;

/// How many peers one mesh has.
const PEERS: usize = 8;
/// Longer than the longest wait between two dials of an address that nothing is known against.
const QUIET: Duration = Duration::from_secs(6);

#[test]
fn peers_without_any_address_become_one_mesh() {
    let Some(mut lan) = Lan::or_skip("peers_without_any_address_become_one_mesh") else { return };
    let mut peers = vec![lan.start(&["--new"])];
    for _ in 1..PEERS {
        peers.push(lan.start(&["--join-timeout", "0"]));
    }
    let took = until_one_mesh(&peers);
    println!("{PEERS} peers without any address were one mesh {took:?} after the last was started");

    let late = lan.start(&["--join-timeout", "0"]);
    peers.push(late);
    println!("a newcomer was connected to all {PEERS} after {:?}", until_one_mesh(&peers));
}

#[test]
fn peers_that_search_wait_for_the_founder() {
    let Some(mut lan) = Lan::or_skip("peers_that_search_wait_for_the_founder") else { return };
    let mut peers = vec![lan.start(&["--join-timeout", "0"]), lan.start(&["--join-timeout", "0"])];
    until("both listen", &peers, || peers.iter().all(|peer| peer.status().is_some()));
    std::thread::sleep(QUIET);
    assert!(peers.iter().all(|peer| peer.genesis().is_none()));
    peers.push(lan.start(&["--new"]));
    println!("two that waited and a founder were one mesh after {:?}", until_one_mesh(&peers));
}

#[test]
fn meshes_of_different_genesis_never_mix_and_say_so() {
    let Some(mut lan) = Lan::or_skip("meshes_of_different_genesis_never_mix_and_say_so") else { return };
    let seed = |number: usize| format!("{}:4001", Lan::address(number));
    let one = [lan.start(&["--new"]), lan.start(&["--join", &seed(1)])];
    until_one_mesh(&one);
    let other = [lan.start(&["--new"]), lan.start(&["--join", &seed(3)])];
    until_one_mesh(&other);
    assert_ne!(one[0].genesis(), other[0].genesis());
    let named = [lan.start(&["--new", "--mesh", "arena"])];
    let all = || one.iter().chain(&other).chain(&named);
    let foreign = |peer: &lan::LanPeer| peer.lines("another mesh `default` with other genesis (");
    until("each mesh says that another is there", all(), || {
        one.iter().chain(&other).any(|peer| !foreign(peer).is_empty())
            && one.iter().chain(&other).any(|peer| !peer.lines("another mesh `arena`").is_empty())
            && !named[0].lines("another mesh `default`").is_empty()
    });
    std::thread::sleep(QUIET);
    for peer in all() {
        assert!(foreign(peer).len() <= 1 && peer.lines("another mesh `arena`").len() <= 1, "{}", peer.text());
        assert!(peer.lines("refused a peer").is_empty(), "{}", peer.text());
    }
    // Each pair of peers meets once or twice; who dialled again and again would never be quiet for so long.
    let refused = |peer: &lan::LanPeer| peer.status().unwrap()["transport"]["refused"].as_u64().unwrap();
    let mut before: Vec<u64> = Vec::new();
    until("nobody dials the others any more", all(), || {
        std::thread::sleep(QUIET);
        let now: Vec<u64> = all().map(refused).collect();
        let is_quiet = now == before;
        before = now;
        is_quiet
    });
    assert!(all().all(|peer| peer.connected() == usize::from(!peer.lines("joined mesh default: 2 peers").is_empty())));
    assert_eq!((one[1].genesis(), other[1].genesis()), (one[0].genesis(), other[0].genesis()));
}

#[test]
fn a_peer_without_mdns_is_neither_found_nor_finds() {
    let Some(mut lan) = Lan::or_skip("a_peer_without_mdns_is_neither_found_nor_finds") else { return };
    let silent = [lan.start(&["--new", "--no-mdns"])];
    let searching = [lan.start(&["--join-timeout", "0"])];
    until("both listen", silent.iter().chain(&searching), || {
        silent[0].status().is_some() && searching[0].status().is_some()
    });
    std::thread::sleep(QUIET);
    assert_eq!((silent[0].connected(), searching[0].connected()), (0, 0));
    assert!(searching[0].genesis().is_none());
    let joins = [lan.start(&["--join", &format!("{}:4001", Lan::address(1))])];
    // It belongs to the mesh, and mDNS leads the searching one to it; Kademlia leads it on to the silent one.
    until("all are one mesh", silent.iter().chain(&searching).chain(&joins), || {
        silent.iter().chain(&searching).chain(&joins).all(|peer| peer.connected() == 2)
    });
}
