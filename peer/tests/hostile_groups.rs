//! R25 for what members of groups say: whatever comes, nothing panics, and the peer that hears it works on.

use crate::harness::wire::{Wire, WireGrant, WireValue, WireVersion};
use crate::harness::{Flight, Mesh, heavy, is_grant_answer, small};
use driftmesh_model::{Generation, GroupId, Incarnation, Lsn, Micros, PeerId, Term, Timestamp, codec};
use driftmesh_object_store::{
    Batch, Body, Closed, Departure, Entry, GroupMessage, MemberId, Membership, OBJECT_OVERHEAD, Write,
};
use driftmesh_peer::{Ended, Envelope, FateTold, GroupRecord, Message, Peer, RareEvent};
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use std::sync::OnceLock;

/// Entries as they lie on the wire: bytes in bytes.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

fn batch(entries: &[(Term, Entry)]) -> Batch<Entry> {
    let inner = codec::encode(&entries).expect("encodes");
    codec::decode(&codec::encode(&Bytes(inner)).expect("encodes")).expect("has the form of a batch")
}

fn said(group: GroupId, term: u64, body: Body<Entry>) -> Message {
    let message = driftmesh_object_store::Message { generation: Generation::ZERO, term: Term::from_u64(term), body };
    Message::Group { group, message: GroupMessage::Consensus(message) }
}

fn append(group: GroupId, term: u64, previous: u64, entries: &[(Term, Entry)], watermark: u64) -> Message {
    let body = Body::Append {
        previous: Lsn::from_u64(previous),
        previous_term: Term::from_u64(term),
        batch: batch(entries),
        watermark: Lsn::from_u64(watermark),
    };
    said(group, term, body)
}

/// The peer works: what it makes is soon stable, and others see it.
fn works_on(mesh: &Mesh, at: usize) {
    mesh.run(3_000);
    let object = mesh.create(at, 1);
    let kept = mesh.put(at, object, 2).receipt;
    mesh.run(500);
    assert!(mesh.is_kept(at, &kept));
    for other in mesh.alive() {
        assert_eq!(mesh.get(other, object), Some(2));
    }
}

#[test]
fn who_does_not_lead_a_group_closes_nothing_for_it() {
    let mesh = Mesh::replicated(4, 2);
    mesh.create_known(0, 5);
    mesh.run(500);
    let group = mesh.group_id(0);
    let [follower, other] = mesh.followers(group)[..] else { panic!("two follow") };
    let closed = || mesh.look_at_group(follower, group, |group| group.closed()).expect("it follows");
    let (before, at) = (closed(), Timestamp::from_wall(mesh.now(0).wall.plus(Micros::from_millis(3_600_000))));
    let (generation, term) = mesh.look(0, |peer| (peer.group().generation(), peer.group().term()));
    let says = Closed { generation, term, watermark: Lsn::ZERO, at, lsn: Lsn::ZERO };
    let stranger = (1..4).find(|peer| ![follower, other].contains(peer)).expect("the fourth");
    // R16: a copy that believed it would answer reads of what is still written.
    for from in [other, stranger] {
        mesh.forge(from, follower, Message::Group { group, message: GroupMessage::Closed(says) });
    }
    assert_eq!(closed(), before);
    mesh.forge(0, follower, Message::Group { group, message: GroupMessage::Closed(says) });
    assert_eq!(closed(), at);
}

#[test]
fn numbers_at_the_end_of_their_range_stop_no_group() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 5);
    mesh.run(100);
    let group = mesh.group_id(0);
    let follower = mesh.followers(group)[0];
    let most = Lsn::from_u64(u64::MAX);
    for at in [0, follower] {
        for term in [1, u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1, u64::MAX / 2 - 1, 1 << 40] {
            for body in [
                Body::Appended { matched: most },
                Body::Refused { hint: most },
                Body::Vote { last: most, last_term: Term::from_u64(u64::MAX), trial: true },
                Body::Vote { last: most, last_term: Term::from_u64(u64::MAX), trial: false },
                Body::Voted { granted: true, trial: true },
                Body::Voted { granted: true, trial: false },
                Body::Excluded { since: Lsn::ZERO },
                Body::Append {
                    previous: most,
                    previous_term: Term::from_u64(u64::MAX),
                    batch: batch(&[]),
                    watermark: most,
                },
            ] {
                mesh.forge(3, at, said(group, term, body));
                mesh.settle();
            }
            mesh.forge(3, at, append(group, term, u64::MAX - 1, &[(Term::from_u64(1), Entry::Retired)], u64::MAX));
            mesh.settle();
        }
    }
    for at in [0, follower] {
        let term = mesh.look_at_group(at, group, |group| group.term());
        assert!(term.is_none_or(|term| term.as_u64() < 100), "{term:?}");
    }
    mesh.run(2_000);
    assert_eq!(mesh.get(3, object), Some(5));
    mesh.kill(0);
    mesh.run(3_000);
    assert_eq!(mesh.get(3, object), Some(5), "the group can still elect somebody");
    works_on(&mesh, follower);
}

#[test]
fn entries_that_do_not_fit_stop_that_followers_part_and_nothing_else() {
    let mesh = Mesh::replicated(4, 2);
    let forged = GroupId::from_u128(0xbad);
    let me = MemberId { peer: crate::harness::peer_id(0), incarnation: Incarnation::from_u64(1) };
    let forger = MemberId { peer: crate::harness::peer_id(3), incarnation: Incarnation::from_u64(4) };
    let term = Term::from_u64(1);
    let members = Membership { voters: [forger, me].into(), ..Membership::default() };
    let write = |number: u128| Write { object: driftmesh_model::ObjectId::from_u128(number), value: Some(small(1)) };
    let floor = Timestamp::from_u64(5);
    let object = driftmesh_model::ObjectId::from_u128(1);
    let (to, epoch) = (GroupId::from_u128(2), driftmesh_model::Epoch::from_u64(2));
    for bad in [
        Entry::TermStart { term },
        Entry::Commit { commit: Timestamp::MAX, writes: vec![write(1)], outcome: None, schedules: Vec::new() },
        Entry::Commit {
            commit: Timestamp::from_u64(9),
            writes: vec![write(1), write(1)],
            outcome: None,
            schedules: Vec::new(),
        },
        Entry::TransferOut { to, first: 1, floor, departures: vec![Departure { object, epoch }] },
        Entry::TransferOut { to, first: 1, floor, departures: Vec::new() },
        Entry::TransferIn { from: to, unsettled_from: 1, arrivals: Vec::new() },
        Entry::Handed { to, numbers: vec![1] },
        Entry::TakenBack { to, number: u64::MAX },
        Entry::Refused { from: to, number: 0, unsettled_from: 0 },
        Entry::Refused { from: to, number: u64::MAX, unsettled_from: u64::MAX },
        Entry::Window { until: Timestamp::MAX },
        Entry::Members(Membership::default()),
        Entry::Members(Membership { voters: [me].into(), incoming: Some([].into()), ..Membership::default() }),
    ] {
        let entries = [
            (term, Entry::TermStart { term }),
            (term, Entry::Members(members.clone())),
            (term, bad.clone()),
            (term, Entry::Retired),
        ];
        mesh.forge(3, 0, append(forged, 1, 0, &entries, 4));
        mesh.settle();
        mesh.run(1_500);
    }
    works_on(&mesh, 0);
}

#[test]
fn who_cannot_apply_its_journal_leads_nobody() {
    for is_stable in [true, false] {
        let mesh = Mesh::replicated(4, 2);
        mesh.run(500);
        let group = mesh.group_id(0);
        let followers: Vec<usize> = (1..4).filter(|at| mesh.look_at_group(*at, group, |_| ()).is_some()).collect();
        let (term, tail) = mesh.look_at_group(0, group, |group| (group.term(), group.tail())).unwrap();
        let bad = [(term, Entry::TermStart { term })];
        let watermark = tail.as_u64() + u64::from(is_stable);
        for at in &followers {
            mesh.forge(0, *at, append(group, term.as_u64(), tail.as_u64(), &bad, watermark));
        }
        mesh.settle();
        mesh.kill(0);
        mesh.run(5_000);
        for at in &followers {
            assert!(!mesh.leads(*at, group));
        }
        let is_halted = |at: &usize| mesh.look_at_group(*at, group, |group| group.halted().is_some()) == Some(true);
        assert!(followers.iter().any(is_halted));
        works_on(&mesh, followers[0]);
    }
}

#[test]
fn records_of_groups_that_nobody_has_ever_heard_of_are_bounded_and_stop_nobody() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 5);
    let record = |number: u128, ended: bool| GroupRecord {
        group: GroupId::from_u128(number),
        generation: Generation::ZERO,
        term: Term::from_u64(u64::MAX),
        leader: Some(PeerId::from_bytes([9; 32])),
        ended: ended.then(Ended::default),
    };
    for first in 0..300_u128 {
        let records = (first * 256..(first + 1) * 256).map(|number| record(1 + number, true)).collect();
        mesh.forge(1, 0, Message::Groups { records });
    }
    mesh.intercept(|_| true);
    let known = (0..300 * 256_u128)
        .filter(|number| mesh.look(0, |peer| peer.remains_of(GroupId::from_u128(1 + number)).is_some()))
        .count();
    assert!(known <= 1 << 16, "{known} groups are remembered");
    mesh.run(500);
    assert_eq!(mesh.get(1, object), Some(5));
}

#[test]
fn a_grant_whose_answer_could_not_be_journalled_is_dropped() {
    let mesh = Mesh::replicated(4, 2);
    let (from, to) = (mesh.group_id(3), mesh.group_id(0));
    let commit = Timestamp::from_wall(mesh.now(3).wall);
    let grant = |number, unsettled_from| WireGrant {
        from,
        to,
        number,
        unsettled_from,
        object: driftmesh_model::ObjectId::from_u128(0xdead),
        epoch: driftmesh_model::Epoch::from_u64(2),
        versions: vec![WireVersion { commit, value: WireValue::Whole(small(6)) }],
        low_water: Timestamp::ZERO,
        floor: commit,
    };
    let tail = mesh.tail(0);
    for (number, unsettled_from) in [(1, 2), (5, 6), (0, 0), (0, 1), (7, u64::MAX)] {
        mesh.forge(3, 0, Wire::grant(grant(number, unsettled_from)).message());
    }
    // Low-water marks and epochs that followers would not take.
    let absurd = WireGrant { low_water: Timestamp::MAX, ..grant(1, 1) };
    mesh.forge(3, 0, Wire::grant(absurd).message());
    mesh.settle();
    assert!(mesh.tail(0).as_u64() <= tail.as_u64() + 1, "a refusal at most");
    for at in 0..4 {
        assert!(mesh.status(at).groups.iter().all(|group| group.halted.is_none()), "{:?}", mesh.status(at).groups);
    }
    works_on(&mesh, 0);
    for at in 0..4 {
        assert!(mesh.status(at).groups.iter().all(|group| group.halted.is_none()));
    }
    assert!(mesh.sent(is_grant_answer).len() <= 2);
}

#[test]
fn what_is_adopted_at_the_edge_of_a_range_leaves_room_for_what_follows() {
    let absurd_epoch = driftmesh_model::Epoch::from_u64(u64::MAX / 2 - 1);
    for (epoch, late) in [(absurd_epoch, false), (driftmesh_model::Epoch::from_u64(2), true)] {
        let mesh = Mesh::replicated(4, 2);
        let commit = if late {
            Timestamp::from_u64(Timestamp::SOUND_MAX.as_u64() - 1)
        } else {
            Timestamp::from_wall(mesh.now(3).wall)
        };
        let object = driftmesh_model::ObjectId::from_u128(0xdead);
        let grant = WireGrant {
            from: mesh.group_id(3),
            to: mesh.group_id(0),
            number: 1,
            unsettled_from: 1,
            object,
            epoch,
            versions: vec![WireVersion { commit, value: WireValue::Whole(small(6)) }],
            low_water: Timestamp::ZERO,
            floor: commit,
        };
        mesh.forge(3, 0, Wire::grant(grant).message());
        mesh.settle();
        let adopted = mesh.look(0, |peer| peer.group().owned(object).is_some());
        assert!(!adopted, "its next move, or commit, would be at the end of the range");
        works_on(&mesh, 0);
        for at in 0..4 {
            assert!(mesh.status(at).groups.iter().all(|group| group.halted.is_none()), "{:?}", mesh.status(at).groups);
        }
    }
}

#[test]
fn records_of_absurd_terms_do_not_hide_who_leads() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 5);
    let group = mesh.group_id(0);
    let term = Term::from_u64(u64::MAX);
    let record = GroupRecord {
        group,
        generation: Generation::ZERO,
        term,
        leader: Some(crate::harness::peer_id(2)),
        ended: None,
    };
    for at in 0..3 {
        mesh.forge((at + 1) % 3, at, Message::Groups { records: vec![record.clone()] });
    }
    mesh.run(1_000);
    assert_eq!(mesh.put(1, object, 6).receipt.group, mesh.group_id(1));
    works_on(&mesh, 0);
}

/// A group that nobody has ever heard of asks a peer to follow.
fn invited(mesh: &Mesh, by: usize, at: usize, group: GroupId) {
    let term = Term::from_u64(1);
    let member = |at: usize| MemberId {
        peer: crate::harness::peer_id(at),
        incarnation: Incarnation::from_u64(u64::try_from(at).expect("small") + 1),
    };
    let members = Membership { voters: [member(by), member(at)].into(), ..Membership::default() };
    let entries = [(term, Entry::TermStart { term }), (term, Entry::Members(members))];
    mesh.forge(by, at, append(group, 1, 0, &entries, 2));
}

#[test]
fn one_member_does_not_fill_a_peer_with_groups_that_there_are_not() {
    let mesh = Mesh::replicated(4, 2);
    for number in 0..300_u128 {
        invited(&mesh, 3, 0, GroupId::from_u128(0xbad00 + number));
        mesh.settle();
    }
    let followed = mesh.look(0, |peer| peer.groups().count()) - 1;
    assert!(followed <= 64 + 3, "{followed} groups are followed");
    let others = mesh.sent(|flight| flight.from == 0 && matches!(flight.message(), Message::NoRoom { .. }));
    assert!(others.len() >= 300 - 64);
    invited(&mesh, 2, 0, GroupId::from_u128(0x600d));
    mesh.settle();
    let follows = mesh.look(0, |peer| peer.groups().any(|group| group.id() == GroupId::from_u128(0x600d)));
    assert!(follows, "there is room for others");
}

#[test]
fn who_cannot_remember_more_promises_makes_no_more() {
    const REMEMBERED: u128 = 1 << 16;
    let mesh = Mesh::new(2);
    let follows = |group| mesh.look(0, |peer| peer.groups().any(|held| held.id() == group));
    let first = GroupId::from_u128(0xbad0_0000);
    for group in (0..REMEMBERED).map(|number| GroupId::from_u128(first.as_u128() + number)) {
        invited(&mesh, 1, 0, group);
        mesh.forge(1, 0, said(group, 1, Body::Excluded { since: Lsn::from_u64(9) }));
        mesh.intercept(|_| true);
    }
    assert!(!follows(first), "it was let go");
    // R11: what it would promise now would be forgotten when it is let go again.
    let next = GroupId::from_u128(0x600d);
    invited(&mesh, 1, 0, next);
    assert!(!follows(next));
    assert_eq!(
        mesh.in_flight(|flight| matches!(flight.message(), Message::NoRoom { group } if *group == next)).len(),
        1
    );
    // One of which it remembers its promises may have it back.
    invited(&mesh, 1, 0, first);
    assert!(follows(first));
}

#[test]
fn answers_to_questions_that_nobody_asked_answer_nothing() {
    let mesh = Mesh::replicated(3, 2);
    for ask in [0, 1, 1 << 62, u64::MAX] {
        for fate in [FateTold::Lost, FateTold::Unknown, FateTold::Stable { copies: u32::MAX }] {
            mesh.forge(1, 0, Message::Fate { ask, fate, lost_from: Some(Lsn::from_u64(ask)) });
        }
        let (group, term, lsn) = (mesh.group_id(0), Term::from_u64(u64::MAX), Lsn::from_u64(u64::MAX));
        mesh.forge(1, 0, Message::AskFate { ask, group, term, lsn });
        mesh.forge(1, 0, Message::NoRoom { group });
    }
    works_on(&mesh, 0);
}

/// What the members of groups really said to each other, while groups formed, copies were made and a leader died.
fn traffic() -> &'static Vec<Flight> {
    static TRAFFIC: OnceLock<Vec<Flight>> = OnceLock::new();
    TRAFFIC.get_or_init(|| {
        let mesh = Mesh::with(4, |at, setup| {
            setup.config.replicas = 2;
            setup.config.domain = at as u64;
            setup.config.journal.keep_bytes = 1;
            setup.config.journal.lag_bytes = 4_000;
        });
        let objects = mesh.create_values(0, &(0..40).map(small).collect::<Vec<_>>());
        mesh.run(2_000);
        for object in &objects {
            mesh.put(1, *object, 7);
        }
        mesh.run(100);
        mesh.kill(1);
        mesh.run(3_000);
        let of_groups = |flight: &Flight| {
            matches!(flight.message(), Message::Group { .. } | Message::Groups { .. } | Message::AskFate { .. })
        };
        let mut all = mesh.sent(of_groups);
        // The rare ones first, then some of the others.
        let is_append =
            |flight: &Flight| matches!(flight.message(), Message::Group { message: GroupMessage::Consensus(_), .. });
        let (many, mut few): (Vec<_>, Vec<_>) = all.drain(..).partition(is_append);
        few.truncate(150);
        few.extend(many.into_iter().step_by(7).take(150));
        few
    })
}

#[test]
fn the_sample_holds_every_kind_of_message() {
    let kinds = |fits: fn(&GroupMessage) -> bool| {
        traffic().iter().any(|flight| matches!(flight.message(), Message::Group { message, .. } if fits(message)))
    };
    assert!(kinds(|message| matches!(message, GroupMessage::Slice(_))));
    assert!(kinds(|message| matches!(message, GroupMessage::SliceTaken { .. })));
    assert!(kinds(|message| matches!(message, GroupMessage::CopyDone(_))));
    assert!(kinds(|message| matches!(message, GroupMessage::Consensus(_))));
    assert!(traffic().iter().any(|flight| matches!(flight.message(), Message::Groups { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutated_word_of_a_member_panics_or_stops_a_peer(
        seed in prop::collection::vec((0..300_usize, 0..4_000_usize, any::<u8>(), 0..5_usize, 1..4_usize), 1..60),
    ) {
        let mesh = Mesh::replicated(4, 2);
        let groups: Vec<GroupId> = (0..4).map(|at| mesh.group_id(at)).collect();
        for (which, place, byte, how, from) in seed {
            let sample = &traffic()[which % traffic().len()];
            let mut message = sample.message().clone();
            if let Message::Group { group, .. } = &mut message {
                // Of a group that lives here, or of one that nobody knows.
                *group = groups.get(usize::from(byte) % 5).copied().unwrap_or(*group);
            }
            let envelope = Envelope { clock: Timestamp::from_wall(mesh.now(from).wall), message };
            let mut bytes = codec::encode(&envelope).unwrap();
            let place = place % bytes.len();
            match how {
                0 => bytes[place] = byte,
                1 => bytes[place] ^= 1 << (byte % 8),
                2 => bytes.truncate(place),
                3 => bytes.insert(place, byte),
                _ => {}
            }
            if let Ok(envelope) = codec::decode::<Envelope>(&bytes) {
                mesh.hand(Flight { from, to: 0, envelope });
            }
            if how == 4 {
                mesh.run(u64::from(byte));
            }
        }
        mesh.run(3_000);
        // The sample comes from a mesh that draws the same ids: its words may speak of this one.
        let mut made = (0..100).map(|_| mesh.create(0, 1));
        let object = made.find(|object| mesh.owners_of(*object) == [0]).unwrap();
        mesh.put(0, object, 2);
        prop_assert_eq!(mesh.newest(object), Some(2));
    }
}

#[test]
fn nobody_begins_to_follow_a_generation_that_is_over() {
    let mesh = Mesh::with(2, |_, setup| setup.config.replicas = 0);
    let group = mesh.group_id(0);
    let of_generation = |generation| {
        let Message::Group { message: GroupMessage::Consensus(mut message), .. } = append(group, 1 << 40, 0, &[], 0)
        else {
            panic!("it is one of consensus");
        };
        message.generation = generation;
        Message::Group { group, message: GroupMessage::Consensus(message) }
    };
    let generation = Generation::from_u64(1);
    let over = GroupRecord { group, generation, term: Term::ZERO, leader: None, ended: None };
    mesh.forge(0, 1, Message::Groups { records: vec![over] });
    let follows = || mesh.look_at_group(1, group, |_| ()).is_some();
    mesh.forge(0, 1, of_generation(Generation::ZERO));
    assert!(!follows(), "it would make stable what an operator has ended");
    mesh.forge(0, 1, of_generation(generation));
    assert!(follows());
}

/// R24: a peer judges whether there is room for a group by what its leader says of all groups that it leads; what is here of
/// them already takes no more room than it does.
#[test]
fn what_is_followed_of_a_leader_already_does_not_count_twice_when_it_leads_another_group() {
    let objects = vec![heavy(1, 1_000); 30];
    let bytes: u64 = objects.iter().map(|value| (OBJECT_OVERHEAD + value.len()) as u64).sum();
    let mesh = Mesh::replicated_with(2, 1, |at, setup| {
        // Room for all of it and a little more.
        setup.config.held_bytes_max = if at == 1 { bytes + 10_000 } else { u64::MAX };
    });
    mesh.create_values(0, &objects);
    mesh.run(1_000);
    let room = mesh.look(1, Peer::room);
    assert!(mesh.all_whole() && room > 0 && room < bytes, "{room} bytes are left");
    let before = mesh.rare(1, RareEvent::BeganToFollow);
    let another = GroupId::from_u128(77);
    mesh.forge(0, 1, append(another, 1, 0, &[(Term::from_u64(1), Entry::TermStart { term: Term::from_u64(1) })], 0));
    assert_eq!(mesh.rare(1, RareEvent::BeganToFollow), before + 1);
    assert!(mesh.look_at_group(1, another, |_| ()).is_some());
}

#[test]
fn what_a_group_says_of_its_own_end_outranks_that_it_was_given_up() {
    let mesh = Mesh::new(2);
    let group = GroupId::from_u128(0xbad);
    let told = |lost: bool| {
        let ended = Some(Ended { lost, ..Ended::default() });
        let record = GroupRecord { group, generation: Generation::ZERO, term: Term::ZERO, leader: None, ended };
        Message::Groups { records: vec![record] }
    };
    let is_lost = |at: usize| mesh.look(at, |peer| peer.remains_of(group).map(|ended| ended.lost));
    for (lost, then) in [(true, true), (false, false), (true, false)] {
        mesh.forge(1, 0, told(lost));
        assert_eq!(is_lost(0), Some(then));
    }
    mesh.forge(0, 1, told(false));
    // Who knows the same has nothing to tell: both count it alike, whatever they heard first.
    mesh.run(3_000);
    mesh.clear_log();
    mesh.run(3_000);
    assert!(mesh.sent(crate::harness::is_groups).is_empty());
}
