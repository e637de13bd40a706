//! Real peers on a local network of their own: who is told no address finds the others by mDNS.
//!
//! It runs as root where network namespaces can be made, and says so where it is skipped. No time is asserted.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

mod lan;

use lan::{Lan, on_machine, until, until_one_mesh};
use std::net::UdpSocket;
use std::time::Duration;

/// How many peers one mesh has.
const PEERS: usize = 8;
/// How many peers found a mesh together.
const EXPECTED: usize = 5;
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
fn five_peers_that_expect_each_other_found_one_mesh() {
    let Some(mut lan) = Lan::or_skip("five_peers_that_expect_each_other_found_one_mesh") else { return };
    let peers: Vec<_> = (0..EXPECTED).map(|_| lan.start(&["--expect", &EXPECTED.to_string()])).collect();
    let took = until_one_mesh(&peers);
    println!("{EXPECTED} peers that expect each other were one mesh {took:?} after the last was started");
    let founders = peers.iter().filter(|peer| peer.status().unwrap()["founder"] == true).count();
    assert_eq!(founders, 1, "one mesh has one founder");

    let late = lan.start(&["--expect", &EXPECTED.to_string()]);
    until("a newcomer joins", peers.iter().chain([&late]), || late.connected() == EXPECTED);
    assert_eq!(late.genesis(), peers[0].genesis());
}

#[test]
fn a_peer_that_searches_joins_what_others_found() {
    let Some(mut lan) = Lan::or_skip("a_peer_that_searches_joins_what_others_found") else { return };
    let mut peers = vec![lan.start(&[])];
    until("it says how to start a mesh", &peers, || !peers[0].lines("driftmesh peer --expect N --secret").is_empty());
    peers.extend([lan.start(&["--expect", "2"]), lan.start(&["--expect", "2"])]);
    println!("two that expect each other and one that searched were one mesh after {:?}", until_one_mesh(&peers));
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
    let foreign =
        |peer: &lan::LanPeer| peer.lines("that peer belongs to another mesh of the same name (theirs has the genesis ");
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

/// How many peers the flood invents: more than a peer keeps.
const INVENTED: usize = 6_000;

/// An answer by mDNS that a peer listens there, for as long as can be said.
fn announcement(peer: &str, address: &str) -> Vec<u8> {
    let name = |labels: &str| {
        let labels =
            labels.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
        labels.chain([0]).collect::<Vec<u8>>()
    };
    let record = |name: &[u8], kind: u16, data: &[u8]| {
        let mut record = [name, &kind.to_be_bytes(), &1_u16.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
        record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        record.extend(data);
        record
    };
    let (service, instance) = (name("_p2p._udp.local"), name("invented._p2p._udp.local"));
    let text = format!("dnsaddr={address}/p2p/{peer}");
    let text = [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let header = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    [&header[..], &record(&service, 12, &instance), &record(&instance, 16, &text)].concat()
}

#[test]
fn a_flood_of_announcements_is_bounded_and_nobody_is_kept_from_joining() {
    if let Some(own) = on_machine() {
        let socket = UdpSocket::bind((own.as_str(), 0)).unwrap();
        for number in 0..INVENTED {
            let peer = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
            let packet = announcement(&peer.to_string(), &format!("/ip4/{own}/tcp/{}", number + 1));
            socket.send_to(&packet, ("224.0.0.251", 5353)).unwrap();
            socket.send_to(&packet[..number % packet.len()], ("224.0.0.251", 5353)).unwrap();
            if number % 20 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        return;
    }
    let test = "a_flood_of_announcements_is_bounded_and_nobody_is_kept_from_joining";
    let Some(mut lan) = Lan::or_skip(test) else { return };
    let mut peers = vec![lan.start(&["--new"]), lan.start(&["--join-timeout", "0"])];
    until_one_mesh(&peers);
    lan.run_test(test);
    let dropped = |peer: &lan::LanPeer| peer.status().unwrap()["transport"]["nearby_dropped"].as_u64().unwrap();
    until("the flood is counted", &peers, || peers.iter().all(|peer| dropped(peer) > 0));
    peers.push(lan.start(&["--join", &format!("{}:4001", Lan::address(1))]));
    until_one_mesh(&peers);
    peers.push(lan.start(&["--join-timeout", "0"]));
    until_one_mesh(&peers);
}
