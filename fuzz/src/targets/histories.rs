//! Files of histories that others have written, or changed: lists in EDN, registers in JSON.

use driftmesh_sim::dump::{check_edn, check_json};

/// Longest text: what looks for cycles takes long over many transactions.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Runs the target.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(TEXT_BYTES_MAX)]);
    if let Err(rejected) = check_edn(&text) {
        assert!(!rejected.to_string().is_empty(), "a reason is given");
    }
    if let Err(rejected) = check_json(&text) {
        assert!(!rejected.to_string().is_empty(), "a reason is given");
    }
}
