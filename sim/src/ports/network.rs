//! The network as the core sees it: peers are met, say something, and leave.

use std::collections::BTreeMap;

/// What a network promises beyond what the core needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promises {
    /// Small payloads of one peer to another come in the order in which they were sent, and large ones too.
    pub in_order: bool,
    /// Each comes once at most.
    pub once: bool,
}

/// Why a payload was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// Nobody of that number is connected.
    NotConnected,
    /// It is longer than the wire allows.
    TooLong,
    /// Too much waits for the receiver: to be tried again.
    Busy,
}

/// What a peer is told, in order. Peers have numbers, and each start of one has another number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It is connected to this start of a peer.
    Met {
        /// The peer.
        peer: usize,
        /// Its start.
        start: u64,
    },
    /// A payload came.
    Said {
        /// From whom.
        from: usize,
        /// Its number and its length, bytes; `None` if it is not what was sent.
        payload: Option<(u64, usize)>,
    },
    /// A peer is not connected any more.
    Left {
        /// The peer.
        peer: usize,
        /// Whether it said goodbye.
        clean: bool,
    },
}

/// A network with some peers, all of which can reach each other.
pub trait NetworkPort {
    /// What it promises beyond what the core needs.
    fn promises(&self) -> Promises;
    /// How many peers there are. All have met at first.
    fn peers(&self) -> usize;
    /// The longest payload, bytes.
    fn longest(&self) -> usize;
    /// Sends a payload that is made of a number and has about so many bytes.
    ///
    /// # Errors
    /// When it is not sent.
    fn send(&mut self, from: usize, to: usize, number: u64, bytes: usize) -> Result<(), NotSent>;
    /// Stops a peer: with a goodbye, or as if its process had died.
    fn stop(&mut self, peer: usize, clean: bool);
    /// Starts a peer again that was stopped.
    fn start(&mut self, peer: usize);
    /// Lets time pass until something is so, and not for ever. Returns whether it is.
    fn run_until(&mut self, is_so: &mut dyn FnMut(&Self) -> bool) -> bool;
    /// Lets so much time pass that whatever still comes has come.
    fn run_out(&mut self);
    /// What a peer was told so far, over all its starts, and where its present start begins in that.
    fn told(&self, at: usize) -> (Vec<Told>, usize);
}

/// Payloads that are sent between each two peers.
const PAYLOADS: u64 = 60;
/// Lengths of payloads, bytes: tiny ones, some around a chunk of the live network, and large ones.
const LENGTHS: [usize; 8] = [16, 200, 60_000, 65_536, 70_000, 24, 300_000, 40];
/// Above this a payload may be overtaken by shorter ones.
const SMALL_MAX: usize = 64 << 10;

/// Runs the whole suite.
///
/// # Panics
/// When the network does not conform.
pub fn network_conforms<P: NetworkPort>(mut make: impl FnMut() -> P) {
    what_is_sent_arrives_as_it_was(&mut make());
    what_is_too_long_is_refused(&mut make());
    for clean in [true, false] {
        who_stops_is_missed_once_and_says_nothing_more(&mut make(), clean);
        who_starts_again_is_somebody_else(&mut make(), clean);
    }
}

/// Numbers of payloads: who sent it, to whom, and which of them it is.
fn number(from: usize, to: usize, which: u64) -> u64 {
    ((from as u64) << 40) | ((to as u64) << 32) | which
}

fn send_all<P: NetworkPort>(net: &mut P, from: usize, to: usize, first: u64) {
    for which in first..first + PAYLOADS {
        let bytes = LENGTHS[(which % 8) as usize];
        loop {
            match net.send(from, to, number(from, to, which), bytes) {
                Ok(()) => break,
                Err(NotSent::Busy) => net.run_out(),
                Err(why) => panic!("{which} from {from} to {to}: {why:?}"),
            }
        }
    }
}

/// What came from a peer, in order.
fn said(told: &[Told], from: usize) -> Vec<u64> {
    let payload = |told: &Told| match told {
        Told::Said { from: by, payload } if *by == from => {
            Some(payload.expect("what comes is what was sent, bytes and length").0)
        }
        Told::Said { .. } | Told::Met { .. } | Told::Left { .. } => None,
    };
    told.iter().filter_map(payload).collect()
}

/// Between `Met` and `Left` of a peer, and only then, it says something; and it is met and leaves by turns.
fn is_orderly(at: usize, told: &[Told]) {
    let mut present: BTreeMap<usize, u64> = BTreeMap::new();
    for (place, one) in told.iter().enumerate() {
        match *one {
            Told::Met { peer, start } => {
                assert!(peer != at, "a peer meets itself");
                assert_eq!(present.insert(peer, start), None, "at {at}: {peer} was met twice ({place})");
            }
            Told::Said { from, .. } => assert!(present.contains_key(&from), "at {at}: {from} speaks unmet ({place})"),
            Told::Left { peer, .. } => {
                assert!(present.remove(&peer).is_some(), "at {at}: {peer} left twice, or was not there ({place})");
            }
        }
    }
}

fn all_are_orderly<P: NetworkPort>(net: &P) {
    for at in 0..net.peers() {
        let (told, began) = net.told(at);
        is_orderly(at, &told[began..]);
    }
}

fn keeps_its_promises(promises: Promises, came: &[u64]) {
    if promises.once {
        let mut each = came.to_vec();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), came.len(), "a payload came twice");
    }
    if promises.in_order {
        let is_small = |number: &u64| LENGTHS[(number % 8) as usize] <= SMALL_MAX;
        let lanes: (Vec<u64>, Vec<u64>) = came.iter().partition(|number| is_small(number));
        assert!(lanes.0.is_sorted() && lanes.1.is_sorted(), "payloads of one lane came in another order");
    }
}

fn what_is_sent_arrives_as_it_was<P: NetworkPort>(net: &mut P) {
    let peers = net.peers();
    assert!(peers >= 3, "with less nobody could hear what is not meant for it");
    let pairs: Vec<(usize, usize)> =
        (0..peers).flat_map(|from| (0..peers).map(move |to| (from, to))).filter(|(from, to)| from != to).collect();
    for (from, to) in &pairs {
        send_all(net, *from, *to, 0);
    }
    let came = |net: &P, from: usize, to: usize| said(&net.told(to).0, from);
    let all_came = net.run_until(&mut |net| {
        pairs.iter().all(|(from, to)| {
            let mut came = came(net, *from, *to);
            came.sort_unstable();
            came.dedup();
            came.len() as u64 == PAYLOADS
        })
    });
    assert!(all_came, "where nothing is in the way everything arrives");
    net.run_out();
    for (from, to) in pairs {
        let came = came(net, from, to);
        assert!(came.iter().all(|payload| payload >> 32 == number(from, to, 0) >> 32), "it was sent to somebody else");
        keeps_its_promises(net.promises(), &came);
    }
    all_are_orderly(net);
}

fn what_is_too_long_is_refused<P: NetworkPort>(net: &mut P) {
    let longest = net.longest();
    assert_eq!(net.send(0, 1, number(0, 1, 0), longest + 1), Err(NotSent::TooLong));
    // And nothing is wrong with the next one.
    send_all(net, 0, 1, 1);
    assert!(net.run_until(&mut |net| said(&net.told(1).0, 0).len() as u64 >= PAYLOADS));
    net.run_out();
    assert!(!said(&net.told(1).0, 0).contains(&number(0, 1, 0)));
    all_are_orderly(net);
}

fn times_left<P: NetworkPort>(net: &P, at: usize, who: usize) -> Vec<bool> {
    let left = |told: &Told| match told {
        Told::Left { peer, clean } if *peer == who => Some(*clean),
        Told::Left { .. } | Told::Met { .. } | Told::Said { .. } => None,
    };
    net.told(at).0.iter().filter_map(left).collect()
}

fn who_stops_is_missed_once_and_says_nothing_more<P: NetworkPort>(net: &mut P, clean: bool) {
    let last = net.peers() - 1;
    for other in 0..last {
        send_all(net, last, other, 0);
        send_all(net, other, last, 0);
    }
    net.stop(last, clean);
    assert!(net.run_until(&mut |net| (0..last).all(|at| !times_left(net, at, last).is_empty())), "nobody is missed");
    // To who is gone nothing can be sent; if anything is taken for it, it goes nowhere.
    if let Err(why) = net.send(0, last, number(0, last, 1_000), 16) {
        assert_eq!(why, NotSent::NotConnected);
    }
    net.run_out();
    for at in 0..last {
        assert_eq!(times_left(net, at, last), [clean], "each misses it once, and knows whether it said goodbye");
        if clean && net.promises().in_order {
            assert_eq!(
                said(&net.told(at).0, last).len() as u64,
                PAYLOADS,
                "a goodbye comes after what was sent before"
            );
        }
    }
    all_are_orderly(net);
}

fn who_starts_again_is_somebody_else<P: NetworkPort>(net: &mut P, clean: bool) {
    let last = net.peers() - 1;
    let former = net.told(0).0.iter().find_map(|told| match told {
        Told::Met { peer, start } if *peer == last => Some(*start),
        Told::Met { .. } | Told::Said { .. } | Told::Left { .. } => None,
    });
    let former = former.expect("all have met");
    for other in 0..last {
        send_all(net, last, other, 0);
    }
    net.stop(last, clean);
    assert!(net.run_until(&mut |net| (0..last).all(|at| !times_left(net, at, last).is_empty())));
    net.start(last);
    let anew = |told: &Told| matches!(told, Told::Met { peer, start } if *peer == last && *start != former);
    assert!(
        net.run_until(&mut |net| (0..last).all(|at| net.told(at).0.iter().any(anew))),
        "it is met as another start"
    );
    let began = net.told(last).1;
    let meets =
        |told: &[Told], other: usize| told.iter().any(|told| matches!(told, Told::Met { peer, .. } if *peer == other));
    assert!(
        net.run_until(&mut |net| (0..last).all(|other| meets(&net.told(last).0[began..], other))),
        "it meets them too"
    );
    for other in 0..last {
        send_all(net, last, other, 100);
        send_all(net, other, last, 100);
    }
    let is_new = |payload: &u64| payload & 0xffff_ffff >= 100;
    let all_new = |net: &P, from: usize, to: usize| {
        let (told, began) = net.told(to);
        said(&told[began..], from).iter().filter(|payload| is_new(payload)).count() as u64 >= PAYLOADS
    };
    assert!(net.run_until(&mut |net| (0..last).all(|at| all_new(net, last, at) && all_new(net, at, last))));
    net.run_out();
    for at in 0..last {
        let told = net.told(at).0;
        let place = told.iter().rposition(anew).expect("it was met");
        // R11: nothing of a former start is taken for a word of the present one.
        assert!(said(&told[place..], last).iter().all(is_new), "a word of a former start came after the next was met");
    }
    all_are_orderly(net);
}
