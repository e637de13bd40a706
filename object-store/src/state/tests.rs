//! Single steps of a state. What holds for all sequences of entries is in `random`.

mod random;

use super::slice::{CopiedTransit, Head};
use super::*;
use crate::{GrantLog, GrantSeen, NotClimbing, TRANSFERS_MAX};
use driftmesh_model::{Value, codec};

/// A state that stands for a group of one: everything is stable at once.
struct Alone {
    state: State,
}

impl Alone {
    fn new() -> Self {
        let mut alone = Self { state: State::new() };
        alone.append(Entry::TermStart { term: Term::from_u64(1) });
        alone
    }

    fn append(&mut self, entry: Entry) -> Lsn {
        let lsn = self.state.applied().next();
        self.state.check(&entry).unwrap();
        self.state.apply_stable(lsn, &entry);
        lsn
    }

    fn commit(&mut self, time: u64, object: ObjectId) -> Lsn {
        self.append(commit(time, object))
    }

    fn transfer_out(&mut self, object: ObjectId, to: GroupId) -> u64 {
        let number = self.state.next_grant(to).unwrap();
        let epoch = self.state.owned(object).unwrap().epoch.next();
        self.append(out(object, epoch, (to, number), at(100)));
        number
    }
}

/// One object leaves.
fn out(object: ObjectId, epoch: Epoch, (to, first): (GroupId, u64), floor: Timestamp) -> Entry {
    Entry::TransferOut { to, first, floor, departures: vec![Departure { object, epoch }] }
}

fn handed(to: GroupId, number: u64) -> Entry {
    Entry::Handed { to, numbers: vec![number] }
}

fn at(time: u64) -> Timestamp {
    Timestamp::from_u64(time)
}

fn object(id: u128) -> ObjectId {
    ObjectId::from_u128(id)
}

fn group(id: u128) -> GroupId {
    GroupId::from_u128(id)
}

fn commit(time: u64, object: ObjectId) -> Entry {
    let writes = vec![Write { object, value: Some(Value::from_slice(&time.to_be_bytes())) }];
    Entry::Commit { commit: at(time), writes, outcome: None, schedules: Vec::new() }
}

#[test]
fn an_object_in_transit_is_owned_by_nobody_until_it_is_settled() {
    let (mut alone, object, to) = (Alone::new(), object(7), group(2));
    alone.commit(10, object);
    let number = alone.transfer_out(object, to);
    assert!(alone.state.owned(object).is_none());
    assert_eq!(alone.state.in_transit(object).unwrap().0, to);
    alone.append(Entry::TakenBack { to, number });
    assert_eq!(alone.state.owned(object).unwrap().epoch, Epoch::from_u64(3));
    let number = alone.transfer_out(object, to);
    assert_eq!(number, 2);
    alone.append(handed(to, number));
    assert!(alone.state.owned(object).is_none() && alone.state.in_transit(object).is_none());
    assert_eq!(alone.state.unsettled_from(to), 3);
}

#[test]
fn a_late_answer_to_a_former_grant_does_not_hide_the_present_one() {
    let (mut alone, object) = (Alone::new(), object(7));
    let (first, second) = (group(2), group(3));
    alone.commit(10, object);
    let versions: Vec<_> = alone.state.owned(object).unwrap().chain.versions().cloned().collect();
    let number = alone.transfer_out(object, first);
    let (epoch, low_water, floor) = (Epoch::from_u64(3), at(0), at(100));
    let arrivals = vec![Arrival { object, epoch, number: 1, versions, outcomes: None, low_water, floor }];
    alone.append(Entry::TransferIn { from: first, unsettled_from: 1, arrivals });
    alone.transfer_out(object, second);
    alone.append(handed(first, number));
    assert_eq!(alone.state.in_transit(object).unwrap().0, second);
}

#[test]
fn slices_meet_every_owned_object_once_and_count_free_slots() {
    let mut alone = Alone::new();
    for id in 1..=7 {
        alone.commit(10 + u64::try_from(id).unwrap(), object(id));
    }
    alone.transfer_out(object(2), group(2));
    let (mut met, mut cursor, mut slices) = (Vec::new(), Some(0), 0);
    while let Some(from) = cursor {
        let (stored, next) = alone.state.owned_slice(from, 3);
        met.extend(stored.map(|(_, stored)| stored.object.as_u128()));
        (cursor, slices) = (next, slices + 1);
    }
    assert_eq!((met, slices), (vec![1, 3, 4, 5, 6, 7], 3));
    assert!(alone.state.owned_slice(usize::MAX, usize::MAX).1.is_none());
}

#[test]
fn old_versions_go_by_horizon_and_by_budget() {
    let (mut alone, object) = (Alone::new(), object(7));
    for time in [10, 20, 30, 40] {
        alone.commit(time, object);
    }
    alone.state.set_prune_below(at(20), usize::MAX);
    alone.state.prune(100);
    assert_eq!(alone.state.owned(object).unwrap().chain.low_water(), at(20));
    alone.state.set_prune_below(Timestamp::ZERO, 0);
    alone.state.prune(100);
    assert_eq!(alone.state.owned(object).unwrap().chain.superseded(), 0);
    assert_eq!(alone.state.superseded_cost(), 0);
}

#[test]
fn a_commit_that_is_stable_at_once_keeps_nothing_that_nobody_needs() {
    let (mut alone, object) = (Alone::new(), object(7));
    alone.commit(10, object);
    alone.state.set_prune_below(at(20), usize::MAX);
    alone.commit(20, object);
    assert_eq!(alone.state.owned(object).unwrap().chain.superseded(), 0);
}

#[test]
fn no_way_of_pruning_takes_what_an_undo_needs() {
    let (mut alone, object, to) = (Alone::new(), object(7), group(2));
    let first = alone.commit(10, object);
    let later: Vec<_> = [20, 30, 40].map(|time| commit(time, object)).into();
    alone.state.set_prune_below(Timestamp::MAX, 0);
    for entry in &later {
        alone.state.apply(alone.state.applied().next(), entry);
        alone.state.prune(8);
        alone.state.prune_object(object, Timestamp::MAX, 0);
    }
    let leaving = out(object, Epoch::from_u64(2), (to, 1), at(50));
    alone.state.apply(alone.state.applied().next(), &leaving);
    alone.state.prune_in_transit(to, 1, 0);
    assert_eq!(alone.state.in_transit(object).unwrap().1.chain.superseded(), 3);
    let lsn = alone.state.applied();
    alone.state.undo(lsn, &leaving);
    for (back, entry) in later.iter().rev().enumerate() {
        alone.state.undo(Lsn::from_u64(lsn.as_u64() - 1 - back as u64), entry);
    }
    let stored = alone.state.owned(object).unwrap();
    assert_eq!((stored.chain.newest().commit, stored.changed, alone.state.applied()), (at(10), first, first));
    assert_eq!(alone.state.superseded_cost(), 0);
}

#[test]
fn an_object_remembers_the_entry_that_changed_it_last() {
    let (mut alone, one, other, to) = (Alone::new(), object(1), object(2), group(2));
    let first = alone.commit(10, one);
    alone.commit(20, other);
    assert_eq!(alone.state.owned(one).unwrap().changed, first);
    let number = alone.transfer_out(one, to);
    let left = alone.state.applied();
    assert_eq!(alone.state.in_transit(one).unwrap().1.changed, left);
    let back = alone.append(Entry::TakenBack { to, number });
    assert_eq!(alone.state.owned(one).unwrap().changed, back);
}

#[test]
fn a_group_that_has_ended_takes_nothing_any_more() {
    let mut alone = Alone::new();
    let lsn = alone.state.applied().next();
    alone.state.apply(lsn, &Entry::Retired);
    assert!(alone.state.is_retired());
    assert_eq!(alone.state.check(&commit(10, object(1))), Err(BadEntry::Retired));
    assert_eq!(alone.state.check(&Entry::Retired), Err(BadEntry::Retired));
    assert_eq!(alone.state.check(&Entry::TermStart { term: Term::from_u64(2) }), Ok(()));
    alone.state.undo(lsn, &Entry::Retired);
    assert!(!alone.state.is_retired());
}

#[test]
#[should_panic(expected = "only the last entry is undone")]
fn what_is_stable_is_never_undone() {
    let mut state = State::new();
    let entry = commit(10, object(1));
    state.apply(Lsn::from_u64(1), &entry);
    state.stable(Lsn::from_u64(1));
    state.undo(Lsn::from_u64(1), &entry);
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let (mut alone, one, to) = (Alone::new(), object(1), group(2));
    alone.commit(10, one);
    let write = |object| Write { object, value: None };
    let check = |entry: Entry| alone.state.check(&entry);
    assert_eq!(check(commit(10, one)), Err(BadEntry::CommitNotAbove(at(10))));
    let twice = vec![write(one), write(object(5)), write(one)];
    assert_eq!(
        check(Entry::Commit { commit: at(11), writes: twice, outcome: None, schedules: Vec::new() }),
        Err(BadEntry::WrittenTwice(one))
    );
    assert_eq!(check(commit(u64::MAX, one)), Err(BadEntry::Timestamp(Timestamp::MAX)));
    assert_eq!(check(Entry::TermStart { term: Term::from_u64(1) }), Err(BadEntry::TermNotAbove(Term::from_u64(1))));
    let out = |object, epoch, number, floor| check(out(object, Epoch::from_u64(epoch), (to, number), at(floor)));
    assert_eq!(out(object(9), 2, 1, 50), Err(BadEntry::NotOwned(object(9))));
    assert_eq!(out(one, 1, 1, 50), Err(BadEntry::Epoch { object: one, epoch: Epoch::from_u64(1) }));
    assert_eq!(out(one, 1 << 32, 1, 50), Ok(()), "a new generation leaves epochs out");
    assert_eq!(out(one, 2, 2, 50), Err(BadEntry::GrantNumber(to, 2)));
    assert_eq!(out(one, 2, 1, 9), Err(BadEntry::Floor(one)));
    assert_eq!(check(handed(to, 1)), Err(BadEntry::GrantUnknown(to, 1)));
    assert_eq!(check(Entry::TakenBack { to, number: 1 }), Err(BadEntry::GrantUnknown(to, 1)));
    alone.transfer_out(one, to);
    assert_eq!(alone.state.check(&commit(11, one)), Err(BadEntry::InTransit(one)));
}

#[test]
fn grants_that_make_no_sense_are_refused() {
    let (mut alone, one, from) = (Alone::new(), object(1), group(2));
    alone.commit(10, object(9));
    let version = |time| Version { commit: at(time), value: None };
    let grant = |object, number, versions, unsettled_from| {
        let (epoch, low_water, floor) = (Epoch::from_u64(2), at(2), at(20));
        let arrivals = vec![Arrival { object, epoch, number, versions, outcomes: None, low_water, floor }];
        Entry::TransferIn { from, unsettled_from, arrivals }
    };
    let check = |alone: &Alone, entry| alone.state.check(&entry);
    assert_eq!(check(&alone, grant(object(9), 1, vec![version(5)], 1)), Err(BadEntry::OwnedAlready(object(9))));
    for versions in [vec![], vec![version(5), version(5)], vec![version(1)]] {
        assert_eq!(check(&alone, grant(one, 1, versions, 1)), Err(BadEntry::Versions(one)));
    }
    assert_eq!(check(&alone, grant(one, 1, vec![version(21)], 1)), Err(BadEntry::Floor(one)));
    for (number, unsettled_from) in [(0, 0), (1, 2), (5_000, 1)] {
        let bad = BadEntry::GrantAnswered(from, number);
        assert_eq!(check(&alone, grant(one, number, vec![version(5)], unsettled_from)), Err(bad));
        assert_eq!(check(&alone, Entry::Refused { from, number, unsettled_from }), Err(bad));
    }
    alone.append(grant(one, 1, vec![version(5)], 1));
    assert_eq!(check(&alone, grant(object(3), 1, vec![version(5)], 1)), Err(BadEntry::GrantAnswered(from, 1)));
}

#[test]
fn a_refusal_is_forgotten_when_the_sender_has_settled_it_and_back_when_that_is_undone() {
    let (mut alone, from) = (Alone::new(), group(2));
    alone.append(Entry::Refused { from, number: 1, unsettled_from: 1 });
    let next = Entry::Refused { from, number: 2, unsettled_from: 2 };
    let lsn = alone.state.applied().next();
    alone.state.apply(lsn, &next);
    assert_eq!(alone.state.grant_seen(from, 1), GrantSeen::Adopted);
    alone.state.undo(lsn, &next);
    assert_eq!(alone.state.grant_seen(from, 1), GrantSeen::Refused);
    assert_eq!(alone.state.grant_seen(from, 2), GrantSeen::New);
}

#[test]
fn slices_that_do_not_fit_are_refused() {
    let mut alone = Alone::new();
    for id in 1..=9 {
        alone.commit(10 + u64::try_from(id).unwrap(), object(id));
    }
    alone.transfer_out(object(2), group(2));
    assert_eq!(alone.state.begin_copy(), Some(alone.state.applied()));
    let slices: Vec<_> = std::iter::from_fn(|| alone.state.copy_slice(200)).collect();
    assert!(slices.len() > 4 && slices.iter().filter(|slice| slice.is_last()).count() == 1);
    State::from_slices(slices.clone()).unwrap().same_content(&alone.state).unwrap();

    let install = |change: &dyn Fn(&mut Vec<Slice>)| {
        let mut changed = slices.clone();
        change(&mut changed);
        State::from_slices(changed).unwrap_err()
    };
    let last = slices.len() - 1;
    assert_eq!(install(&|slices| drop(slices.pop())), BadSlice::Incomplete);
    assert_eq!(install(&|slices| slices.clear()), BadSlice::Incomplete);
    assert_eq!(install(&|slices| drop(slices.remove(0))), BadSlice::Head(1));
    assert_eq!(install(&|slices| drop(slices.remove(1))), BadSlice::OutOfOrder { expected: 1, found: 2 });
    assert_eq!(install(&|slices| slices.push(slices[last].clone())), BadSlice::NotEmpty);
    assert_eq!(install(&|slices| slices[1].head = slices[0].head), BadSlice::Head(1));
    let double = slices.iter().position(|slice| !slice.objects.is_empty()).unwrap();
    let first = slices[double].objects[0].object;
    let again = slices[double].objects[0].clone();
    assert_eq!(install(&|slices| slices[last].objects.push(again.clone())), BadSlice::Twice(first));
    assert_eq!(install(&|slices| slices[double].objects[0].versions.clear()), BadSlice::Versions(first));
    let newest = alone.state.marks.commit.next();
    assert_eq!(install(&|slices| slices[double].objects[0].versions[0].commit = newest), BadSlice::Versions(first));
    let leaving = slices.iter().position(|slice| !slice.in_transit.is_empty()).unwrap();
    assert_eq!(install(&|slices| slices[leaving].in_transit[0].number = 2), BadSlice::InTransit(group(2), 2));
    // R19: no grant, and no object on its way, may come twice.
    let sent = slices.iter().position(|slice| !slice.sent.is_empty()).unwrap();
    let to = slices[sent].sent[0];
    assert_eq!(install(&|slices| slices[sent].sent.push(to)), BadSlice::Grants(to.0));
    let transit = slices[leaving].in_transit[0].clone();
    assert_eq!(install(&|slices| slices[leaving].in_transit.push(transit.clone())), BadSlice::InTransit(group(2), 1));
    let other = |slices: &mut Vec<Slice>| {
        slices[sent].sent.push((group(3), 1));
        slices[leaving].in_transit.push(CopiedTransit { to: group(3), ..transit.clone() });
    };
    assert_eq!(install(&other), BadSlice::Twice(object(2)));
    let late = alone.state.applied().next();
    assert_eq!(install(&|slices| slices[leaving].in_transit[0].changed = late), BadSlice::Versions(object(2)));
    let mut log = GrantLog::default();
    log.record(1, false);
    let again =
        |slices: &mut Vec<Slice>| slices[sent].received.extend([(group(4), log.clone()), (group(4), log.clone())]);
    assert_eq!(install(&again), BadSlice::Grants(group(4)));
    let far = |slices: &mut Vec<Slice>| slices[0].head.as_mut().unwrap().lsn = Lsn::from_u64(u64::MAX);
    assert_eq!(install(&far), BadSlice::Range(0));
    // R8, R16: a leader begins above the highest timestamp.
    let above = alone.state.highest().next();
    let heads: [fn(&mut Head) -> &mut Timestamp; 2] = [|head| &mut head.window, |head| &mut head.commit];
    for part in heads {
        let high = |slices: &mut Vec<Slice>| *part(slices[0].head.as_mut().unwrap()) = above;
        assert_eq!(install(&high), BadSlice::Highest);
    }
    let high = |slices: &mut Vec<Slice>| slices[leaving].in_transit[0].floor = above;
    assert_eq!(install(&high), BadSlice::Highest);
    let beyond = NotClimbing { term: Term::from_u64(9), start: Lsn::from_u64(99) };
    assert_eq!(install(&|slices| slices[0].terms.push((beyond.term, beyond.start))), BadSlice::Terms(beyond));
}

#[test]
fn one_entry_moves_many_objects_each_once_and_no_more_than_grants_can_be_unsettled() {
    let (mut alone, to) = (Alone::new(), group(2));
    for id in 1..=3 {
        alone.commit(10 + u64::try_from(id).unwrap(), object(id));
    }
    let epoch = Epoch::from_u64(2);
    let out = |objects: &[u128]| {
        let departures = objects.iter().map(|id| Departure { object: object(*id), epoch }).collect();
        Entry::TransferOut { to, first: 1, floor: at(50), departures }
    };
    assert_eq!(alone.state.check(&out(&[])), Err(BadEntry::Transfers(0)));
    assert_eq!(alone.state.check(&out(&[3, 1, 3])), Err(BadEntry::MovedTwice(object(3))));
    assert_eq!(alone.state.check(&out(&[3, 9])), Err(BadEntry::NotOwned(object(9))));
    let many: Vec<u128> = (1..=TRANSFERS_MAX as u128 + 1).collect();
    assert_eq!(alone.state.check(&out(&many)), Err(BadEntry::Transfers(TRANSFERS_MAX + 1)));
    alone.append(out(&[3, 1, 2]));
    for (number, id) in [(1, 3), (2, 1), (3, 2)] {
        assert_eq!(alone.state.unsettled(to, number).unwrap().object, object(id));
    }
    let handed = |numbers: &[u64]| Entry::Handed { to, numbers: numbers.to_vec() };
    assert_eq!(alone.state.check(&handed(&[])), Err(BadEntry::Transfers(0)));
    for numbers in [[2, 1], [2, 2]] {
        assert_eq!(alone.state.check(&handed(&numbers)), Err(BadEntry::GrantOrder(to)));
    }
    assert_eq!(alone.state.check(&handed(&[1, 4])), Err(BadEntry::GrantUnknown(to, 4)));
    alone.append(handed(&[1, 3]));
    assert_eq!(alone.state.unsettled_to(to).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_departure_of_more_objects_than_the_grant_window_has_room_for_is_refused() {
    let (mut alone, to) = (Alone::new(), group(2));
    let count = TRANSFERS_MAX as u64;
    for id in 1..=count + 2 {
        alone.commit(10 + id, object(id.into()));
    }
    let out = |first: u64, objects: std::ops::RangeInclusive<u64>| {
        let departures = objects.map(|id| Departure { object: object(id.into()), epoch: Epoch::from_u64(2) }).collect();
        Entry::TransferOut { to, first, floor: at(5_000), departures }
    };
    alone.append(out(1, 1..=count - 1));
    assert_eq!(alone.state.check(&out(count, count..=count + 1)), Err(BadEntry::GrantNumber(to, count + 1)));
    alone.append(out(count, count..=count));
    assert_eq!(alone.state.check(&out(count + 1, count + 1..=count + 1)), Err(BadEntry::GrantNumber(to, count + 1)));
}

#[test]
fn arrivals_of_one_entry_are_in_order_and_each_once() {
    let (mut alone, from) = (Alone::new(), group(2));
    let arrival = |id: u128, number| Arrival {
        object: object(id),
        epoch: Epoch::from_u64(2),
        number,
        versions: vec![Version { commit: at(5), value: None }],
        outcomes: None,
        low_water: at(5),
        floor: at(20),
    };
    let entry = |arrivals| Entry::TransferIn { from, unsettled_from: 1, arrivals };
    let check = |alone: &Alone, arrivals| alone.state.check(&entry(arrivals));
    assert_eq!(check(&alone, vec![]), Err(BadEntry::Transfers(0)));
    assert_eq!(check(&alone, vec![arrival(1, 1), arrival(1, 2)]), Err(BadEntry::MovedTwice(object(1))));
    for numbers in [[2, 1], [2, 2]] {
        let arrivals = vec![arrival(1, numbers[0]), arrival(2, numbers[1])];
        assert_eq!(check(&alone, arrivals), Err(BadEntry::GrantOrder(from)));
    }
    alone.append(entry(vec![arrival(2, 1), arrival(1, 3)]));
    assert_eq!(check(&alone, vec![arrival(4, 2), arrival(5, 3)]), Err(BadEntry::GrantAnswered(from, 3)));
    let seen: Vec<_> = (1..=4).map(|number| alone.state.grant_seen(from, number)).collect();
    assert_eq!(seen, [GrantSeen::Adopted, GrantSeen::New, GrantSeen::Adopted, GrantSeen::New]);
}

#[test]
fn lists_that_are_too_long_are_refused_while_they_are_read() {
    let to = group(2);
    let handed = |count: usize| Entry::Handed { to, numbers: (1..=count as u64).collect() };
    let longest = codec::encode(&handed(TRANSFERS_MAX)).unwrap();
    assert_eq!(codec::decode::<Entry>(&longest), Ok(handed(TRANSFERS_MAX)));
    assert!(codec::decode::<Entry>(&codec::encode(&handed(TRANSFERS_MAX + 1)).unwrap()).is_err());
    let departures =
        |count: u64| (0..count).map(|id| Departure { object: object(id.into()), epoch: Epoch::from_u64(2) });
    let out = |count| Entry::TransferOut { to, first: 1, floor: at(9), departures: departures(count).collect() };
    assert!(codec::decode::<Entry>(&codec::encode(&out(TRANSFERS_MAX as u64)).unwrap()).is_ok());
    assert!(codec::decode::<Entry>(&codec::encode(&out(TRANSFERS_MAX as u64 + 1)).unwrap()).is_err());
}
