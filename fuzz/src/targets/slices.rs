//! Copies of groups: slices of a state with any past, damaged, left out, doubled and in any order.
//!
//! What is taken in is an error or a state that can be used; what was not changed is the state.

use super::life::{self, Life};
use crate::check;
use crate::choices::Choices;
use crate::imagine::Draws;
use driftmesh_model::codec;
use driftmesh_object_store::{Entry, Slice, State};

/// Runs the target.
pub fn run(data: &[u8]) {
    drop(check::decoded::<Slice>(data));
    let mut choices = Choices::new(data);
    let damage = choices.some_bytes();
    let mut life = Life::new();
    life.live(&mut choices);
    let mut choices = Choices::new(damage);
    life.finish_copy();
    life.state.begin_copy();
    let bytes = [1, 300, 5_000, usize::MAX][choices.below(4)];
    let mut encoded = Vec::new();
    while let Some(slice) = life.state.copy_slice(bytes) {
        encoded.push(codec::encode(&slice).expect("a slice encodes"));
    }
    let whole = encoded.clone();
    while !choices.is_over() {
        let which = choices.below(encoded.len());
        match choices.below(8) {
            0 => drop(encoded.remove(which)),
            1 => encoded.insert(which, encoded[which].clone()),
            2 => encoded.swap(0, which),
            3 => encoded.truncate(which + 1),
            4 => {
                if let Ok(slice) = Draws::new(choices.some_bytes().to_vec()).imagine::<Slice>() {
                    encoded[which] = codec::encode(&slice).expect("encodes");
                }
            }
            _ => choices.damage(&mut encoded[which]),
        }
        if encoded.is_empty() {
            return;
        }
    }
    let slices: Vec<Slice> = encoded.iter().filter_map(|slice| check::decoded(slice)).collect();
    let is_whole = encoded == whole;
    match State::from_slices(slices) {
        Ok(copied) => {
            life::is_sound(&copied);
            if is_whole {
                copied.same_content(&life.state).expect("a copy is the state");
            }
            goes_on(copied, &life.journal);
        }
        Err(bad) => assert!(!is_whole, "a whole copy is refused: {bad}"),
    }
}

/// A state that was taken in can be used like any other: whatever passes the check is applied and undone.
fn goes_on(mut state: State, entries: &[Entry]) {
    let before = state.clone();
    let mut applied = Vec::new();
    for entry in entries {
        if state.check(entry).is_ok() {
            let lsn = state.applied().next();
            state.apply(lsn, entry);
            applied.push((lsn, entry));
        }
    }
    life::is_sound(&state);
    for (lsn, entry) in applied.into_iter().rev() {
        state.undo(lsn, entry);
    }
    life::is_sound(&state);
    state.same_content(&before).expect("what was undone was never there");
}
