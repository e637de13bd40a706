//! Running a model to its end: every property holds, or a broken rule is noticed.
//!
//! It refuses to be content with few states: a model that got trapped at its beginning would hold as well.

use stateright::{Checker, HasDiscoveries, Model};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

/// As many as the machines that run the tests have cores at least.
const THREADS: usize = 2;

/// Visits all states. Every `always` holds in each of them, every `sometimes` in one, and there are at least so many
/// states.
pub(crate) fn assert_holds<M>(name: &str, model: M, least_states: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    let checker = model.checker().threads(THREADS).spawn_bfs().join();
    let (unique, all) = (checker.unique_state_count(), checker.state_count());
    println!("{name}: {unique} states, {all} steps, depth {}, {:?}", checker.max_depth(), begun.elapsed());
    checker.assert_properties();
    assert!(unique >= least_states, "{name} visited {unique} states only, not {least_states}");
}

/// Finds a path to a state in which this property does not hold, and returns how many steps it takes.
pub(crate) fn assert_broken<M>(name: &str, model: M, property: &'static str) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().threads(THREADS).finish_when(until).spawn_bfs().join();
    let unique = checker.unique_state_count();
    let path = checker.assert_any_discovery(property).into_actions();
    println!("{name}: \"{property}\" fails after {} steps, {unique} states, {:?}", path.len(), begun.elapsed());
    for action in &path {
        println!("  {action:?}");
    }
    path.len()
}

/// From each state that can be reached, one can be reached that is the end: nobody is trapped, not even in a circle.
pub(crate) fn assert_can_end<M>(name: &str, model: &M, is_end: impl Fn(&M::State) -> bool)
where
    M: Model,
    M::State: Clone + Debug + Eq + Hash,
{
    let begun = Instant::now();
    let mut states = model.init_states();
    let mut known: HashMap<M::State, usize> = states.iter().cloned().zip(0..).collect();
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); states.len()];
    let mut at = 0;
    while at < states.len() {
        for next in model.next_states(&states[at]) {
            let number = *known.entry(next).or_insert_with_key(|next| {
                states.push(next.clone());
                before.push(Vec::new());
                states.len() - 1
            });
            before[number].push(at);
        }
        at += 1;
    }
    let mut ends: Vec<usize> = (0..states.len()).filter(|number| is_end(&states[*number])).collect();
    let mut can_end = vec![false; states.len()];
    ends.iter().for_each(|end| can_end[*end] = true);
    while let Some(end) = ends.pop() {
        let new: Vec<usize> = before[end].iter().copied().filter(|number| !can_end[*number]).collect();
        new.iter().for_each(|number| can_end[*number] = true);
        ends.extend(new);
    }
    println!("{name}: all of {} states can come to the end, {:?}", states.len(), begun.elapsed());
    let trapped = can_end.iter().position(|can_end| !can_end);
    assert_eq!(trapped.map(|number| &states[number]), None, "{name}: a state from which there is no way to the end");
}
