//! Entries of journals: as they come in batches, and what the input imagines, damaged. A state that has seen nothing says
//! whether they fit.

use crate::check;
use crate::choices::Choices;
use driftmesh_model::Lsn;
use driftmesh_object_store::{Entry, State};

/// Runs the target.
pub fn run(data: &[u8]) {
    let raw = check::decoded::<Entry>(data);
    let imagined = check::imagined::<Entry>(&mut Choices::new(data));
    for entry in [raw, imagined].into_iter().flatten() {
        let _ = entry.cost();
        assert!(entry.highest_timestamp() >= entry.newest_commit());
        let (mut state, first) = (State::new(), Lsn::ZERO.next());
        if state.check(&entry).is_ok() {
            state.apply(first, &entry);
            state.undo(first, &entry);
            state.same_content(&State::new()).expect("what was undone was never there");
        }
    }
}
