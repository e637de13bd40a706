//! What must hold at the end of a run, read from the final states of all peers.
//!
//! It refuses to ask the peers: what they hold is read from outside, and compared with what clients were told.

use crate::checker::{self, History, ObjectKey, Outcome, Token};
use crate::client::World;
use crate::dump::{Register, Series};
use crate::game::{GOLD_AT_FIRST, Item, Pouch, Purse, Sign};
use crate::history::key;
use crate::name_audit;
use crate::watchers::{Last, Standing};
use crate::workloads::{self, Chest, End};
use crate::world::Simulation;
use driftmesh_model::{Epoch, GroupId, ObjectId, Ref, ScheduleId, Value, decode_object, stored_header};
use driftmesh_object_store::{Fate, Group, State};
use driftmesh_peer::session::NameBucket;
use std::collections::{BTreeMap, BTreeSet};

/// Most violations of one kind that are reported.
const REPORTED_MAX: usize = 8;

/// Where an object is at the end.
pub(crate) struct Owned {
    group: GroupId,
    epoch: Epoch,
    value: Option<Value>,
}

/// All checks of the end.
pub(crate) fn audit(simulation: &mut Simulation, world: &World) -> Vec<String> {
    simulation.check_bounds();
    let mut wrong = std::mem::take(&mut simulation.observer.violations);
    wrong.append(&mut world.recorder.lock().violations);
    check_fates(simulation, world, &mut wrong);
    let owned = if simulation.lost_groups.is_empty() {
        owned_objects(simulation, &mut wrong)
    } else {
        what_an_operator_finds(simulation, &mut wrong)
    };
    if simulation.lost_groups.is_empty() {
        watches_end_well(simulation, world, &owned, &mut wrong);
    }
    let name_watches = world.name_watches.finish(world, |at| is_that_start(simulation, at));
    // What these watches saw last.
    wrong.append(&mut world.recorder.lock().violations);
    count(&owned, world, &mut wrong);
    let values: BTreeMap<ObjectId, Value> =
        owned.iter().filter_map(|(object, owned)| Some((*object, owned.value.clone()?))).collect();
    let fates = fates(world);
    if simulation.lost_groups.is_empty() {
        let happened = |number: usize| fates[number] == Fate::Stable;
        wrong.extend(name_audit::audit(&values, &world.names.log, happened, &name_watches));
        check_homes(simulation, &owned, &mut wrong);
    }
    let lost = !simulation.lost_groups.is_empty();
    let heard = simulation.requests.outside.heard();
    let panicked = panicked_schedules(simulation);
    let mut end = End { values: &values, fates: &fates, heard: &heard, panicked: &panicked, lost, wrong: Vec::new() };
    world.grounds.judge(&mut end);
    wrong.extend(end.wrong.into_iter().take(REPORTED_MAX));
    replicas_differ(simulation, &mut wrong);
    check_history(&owned, world, &fates, &mut wrong);
    wrong
}

/// The schedules of all owners whose tasks have panicked.
fn panicked_schedules(simulation: &Simulation) -> BTreeSet<ScheduleId> {
    let mut all = BTreeSet::new();
    for peer in simulation.peers.iter().filter(|peer| !peer.gone) {
        peer.host.look(|peer| {
            for group in peer.groups().filter(|group| group.is_leading()) {
                let live = group.due_after(None).map(|(_, object, number)| ScheduleId { object, number });
                let has_panicked = |id: &ScheduleId| {
                    let schedule = group.schedules(id.object).and_then(|all| all.get(id.number));
                    schedule.is_some_and(|schedule| !schedule.progress.panicked_at.is_empty())
                };
                all.extend(live.filter(has_panicked));
                all.extend(group.parked_schedules().map(|(object, number)| ScheduleId { object, number }));
            }
        });
    }
    all
}

/// What became of everything in the ledger.
pub(crate) fn fates(world: &World) -> Vec<Fate> {
    let ledger = &world.recorder.lock().ledger;
    (0..ledger.kept.len()).map(|number| ledger.fate(number)).collect()
}

/// R22: what was told of each receipt is what its group's journal says, and nothing is left unknown.
fn check_fates(simulation: &Simulation, world: &World, wrong: &mut Vec<String>) {
    let mut reported = 0;
    let ledger = &world.recorder.lock().ledger;
    wrong.extend(ledger.all_wrong().into_iter().take(REPORTED_MAX));
    for (number, _, receipt, told) in ledger.receipts() {
        let truth = simulation.observer.fate(&receipt);
        let told = told.unwrap_or(Fate::Unknown);
        let is_out_of_reach = told == Fate::Unknown && simulation.lost_groups.contains(&receipt.group);
        if told != truth && !is_out_of_reach && reported < REPORTED_MAX {
            reported += 1;
            let label = &ledger.kept[number].label;
            wrong.push(format!("R22: `{label}` was told {told:?} in the end, its journal says {truth:?}: {receipt:?}"));
        }
    }
}

/// R7: every member's state is a fold over a prefix of its group's journal.
pub(crate) fn replicas_differ(simulation: &Simulation, wrong: &mut Vec<String>) {
    for (index, peer) in simulation.peers.iter().enumerate().filter(|(_, peer)| !peer.gone) {
        peer.host.look(|peer| {
            let differs = peer.groups().filter_map(|group| simulation.observer.differs(group));
            wrong.extend(differs.map(|text| format!("peer {index}: {text}")));
        });
    }
}

/// What is not at rest, in words.
pub(crate) fn what_is_open(simulation: &Simulation) -> String {
    let mut words = vec![format!("{} jobs", simulation.executor.unfinished())];
    for (index, peer) in simulation.peers.iter().enumerate().filter(|(_, peer)| !peer.gone) {
        let now = peer.wall_clock.now(&simulation.clock);
        peer.host.look(|peer| {
            let status = peer.status(now);
            if peer.is_quiet() && status.may_stop {
                return;
            }
            let led = peer.groups().filter(|group| group.is_leading());
            let of = |group: &Group| {
                group.all_unsettled().map(|(to, number, _)| (group.id(), to, number)).collect::<Vec<_>>()
            };
            let unsettled: Vec<_> = led.flat_map(of).collect();
            words.push(format!(
                "peer {index} ({}): unsettled {unsettled:?} quiet {} fetching {} transactions {} in transit {} leaderless {:?} groups {:?}",
                peer.id(),
                peer.is_quiet(),
                status.fetching,
                status.transactions,
                status.in_transit,
                status.leaderless,
                status.groups
            ));
        });
    }
    words.join("; ")
}

/// What all peers own at the end, and whatever has two owners or is still on its way.
pub(crate) fn owned_objects(simulation: &Simulation, wrong: &mut Vec<String>) -> BTreeMap<ObjectId, Owned> {
    let mut owned: BTreeMap<ObjectId, Owned> = BTreeMap::new();
    let nobody_is_gone = simulation.peers.iter().all(|peer| !peer.gone);
    for (index, id) in simulation.leaders() {
        simulation.peers[index].host.look(|peer| {
            for group in peer.groups().filter(|group| group.id() == id) {
                take_over(id, group, &mut owned, wrong);
                // What was on its way to a peer that has gone cannot arrive.
                if group.in_transit_count() > 0 && nobody_is_gone {
                    wrong.push(format!("group {id} still has objects in transit after the faults stopped"));
                }
            }
        });
    }
    owned
}

/// What all groups hold for stable, those that lost their majority included, and what is on its way between them.
fn what_an_operator_finds(simulation: &Simulation, wrong: &mut Vec<String>) -> BTreeMap<ObjectId, Owned> {
    let (mut owned, mut on_the_way) = (BTreeMap::new(), BTreeMap::<ObjectId, Owned>::new());
    for group in simulation.observer.groups() {
        let state = simulation.observer.state_at(group, simulation.observer.stable_to(group));
        take_over(group, &state, &mut owned, wrong);
        for (_, _, transit) in state.all_unsettled() {
            // A group that has not heard yet that an object arrived still sends it, while it may be on its way further
            // on: the highest epoch is where it is (R2).
            if on_the_way.get(&transit.object).is_none_or(|held| held.epoch < transit.epoch) {
                let value = transit.chain.newest().value.clone();
                on_the_way.insert(transit.object, Owned { group, epoch: transit.epoch, value });
            }
        }
    }
    for (object, transit) in on_the_way {
        match owned.get(&object) {
            Some(here) if here.epoch >= transit.epoch => {}
            Some(here) => wrong.push(format!(
                "object {object} is owned by {} at epoch {}, and {} has sent it on at epoch {}",
                here.group, here.epoch, transit.group, transit.epoch
            )),
            None => {
                owned.insert(object, transit);
            }
        }
    }
    owned
}

fn take_over(group: GroupId, state: &State, owned: &mut BTreeMap<ObjectId, Owned>, wrong: &mut Vec<String>) {
    for (_, stored) in state.owned_from(0) {
        let value = stored.chain.newest().value.clone();
        let here = Owned { group, epoch: stored.epoch, value };
        if let Some(other) = owned.insert(stored.object, here) {
            wrong.push(format!("object {} is owned by {} and by {group}", stored.object, other.group));
        }
    }
}

/// Gold and items, and each item in exactly one purse, or in the chest.
fn count(owned: &BTreeMap<ObjectId, Owned>, world: &World, wrong: &mut Vec<String>) {
    let (mut gold, mut in_purses) = (0_u64, BTreeMap::<ObjectId, ObjectId>::new());
    let mut items = 0;
    let mut twice = Vec::new();
    let mut found_in = |object: ObjectId, items: &[Ref<Item>]| {
        for item in items {
            if let Some(other) = in_purses.insert(item.id(), object) {
                twice.push(format!("item {item} is in {other} and in {object}"));
            }
        }
    };
    for (object, owned) in owned {
        let Some(value) = &owned.value else { continue };
        if let Ok(purse) = decode_object::<Purse>(value) {
            gold += purse.gold;
            found_in(*object, &purse.items);
        } else if let Ok(chest) = decode_object::<Chest>(value) {
            found_in(*object, &chest.items);
        } else if let Ok(pouch) = decode_object::<Pouch>(value) {
            gold += pouch.gold;
        } else if decode_object::<Item>(value).is_ok() {
            items += 1;
        } else if !is_uncounted(value) {
            wrong.push(format!("object {object} holds {:?}", stored_header(value)));
        }
    }
    wrong.append(&mut twice);
    let found = (gold, items, in_purses.len());
    if found != (world.gold, world.items, world.items) {
        wrong.push(format!(
            "{gold} gold of {}, {items} items of {}, {} of them in purses (each began with {GOLD_AT_FIRST} gold)",
            world.gold,
            world.items,
            in_purses.len()
        ));
    }
}

/// Whether an object is none of those that are counted, and belongs to the world all the same.
fn is_uncounted(value: &Value) -> bool {
    decode_object::<Sign>(value).is_ok()
        || workloads::token_of(value).is_some()
        || workloads::is_of_tasks(value)
        || workloads::is_tower(value)
        || decode_object::<NameBucket>(value).is_ok()
        || decode_object::<Series>(value).is_ok()
        || decode_object::<Register>(value).is_ok()
}

/// R2, R4: once everything is quiet, every home of an object knows its owner.
fn check_homes(simulation: &Simulation, owned: &BTreeMap<ObjectId, Owned>, wrong: &mut Vec<String>) {
    if simulation.options.records_max < owned.len() {
        return;
    }
    let mut reported = 0;
    for peer in simulation.peers.iter().filter(|peer| !peer.gone) {
        for (object, owned) in owned {
            if !peer.host.look(|peer| peer.is_home(*object)) {
                continue;
            }
            let record = peer.host.look(|peer| peer.kept_record(*object)).map(|record| (record.group, record.epoch));
            if record != Some((owned.group, owned.epoch)) && reported < REPORTED_MAX {
                reported += 1;
                wrong.push(format!(
                    "peer {} is a home of object {object} and says {record:?}; it is at {} at epoch {}",
                    peer.id, owned.group, owned.epoch
                ));
            }
        }
    }
}

/// Whether a peer still lives that was started so often, with a clock that is right.
fn is_that_start(simulation: &Simulation, (index, life): (usize, u64)) -> bool {
    let peer = &simulation.peers[index];
    peer.life == life && !peer.gone && !peer.mad
}

/// Once everything is quiet, each watch was told the final state of its object.
fn watches_end_well(
    simulation: &Simulation,
    world: &World,
    owned: &BTreeMap<ObjectId, Owned>,
    wrong: &mut Vec<String>,
) {
    let peers = &simulation.peers;
    let lives = |at| is_that_start(simulation, at);
    let mut reported = 0;
    for Standing { at, object, last } in world.watches.finish(world, lives) {
        let Some(owned) = owned.get(&object) else { continue };
        let expected = match &owned.value {
            Some(value) => token_of(value).map_or(Last::Absent, |token| Last::Token(token.0)),
            None => Last::Deleted,
        };
        if last != expected && reported < REPORTED_MAX {
            reported += 1;
            let copy = peers[at.0].host.look(|peer| peer.explain_copy(object));
            wrong
                .push(format!("a watch of {object} at peer {at:?} ended with {last:?}, not with {expected:?}: {copy}"));
        }
    }
}

/// Snapshot isolation of everything that any client saw.
fn check_history(owned: &BTreeMap<ObjectId, Owned>, world: &World, fates: &[Fate], wrong: &mut Vec<String>) {
    let inner = world.recorder.lock();
    let mut txns = inner.records.clone();
    let mut deleted: BTreeMap<ObjectId, Token> = BTreeMap::new();
    for (kept, fate) in inner.ledger.kept.iter().zip(fates) {
        let outcome = match fate {
            Fate::Stable => Outcome::Committed,
            // I5: nothing that lives may have read of it.
            Fate::Lost => Outcome::Aborted,
            Fate::Unknown => Outcome::Unknown,
        };
        if let Some(record) = kept.record {
            txns[record].outcome = outcome;
        }
        if *fate != Fate::Lost {
            deleted.extend(kept.deletes.iter().copied());
        }
    }
    let mut final_state: BTreeMap<ObjectKey, Token> = BTreeMap::new();
    for (object, owned) in owned {
        let token = match &owned.value {
            Some(value) => token_of(value),
            None => deleted.get(object).copied(),
        };
        if let Some(token) = token {
            final_state.insert(key(*object), token);
        }
    }
    let history = History { txns, final_state };
    for checked in [checker::check(&history), checker::check_serializable(&history)] {
        if let Err(violations) = checked {
            wrong.extend(violations.iter().take(REPORTED_MAX).map(ToString::to_string));
        }
    }
}

fn token_of(value: &Value) -> Option<Token> {
    let purse = decode_object::<Purse>(value).map(|purse| purse.token);
    let item = decode_object::<Item>(value).map(|item| item.token);
    let pouch = decode_object::<Pouch>(value).map(|pouch| pouch.token);
    let sign = decode_object::<Sign>(value).map(|sign| sign.token);
    purse.or(item).or(pouch).or(sign).ok().or_else(|| workloads::token_of(value)).map(Token)
}
