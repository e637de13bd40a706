//! What the processes of a testnet say to each other: frames, trades, ids and receipts. (The rest is JSON that serde reads.)
//! What is read, written again, is the same bytes.

use crate::check;
use crate::choices::Choices;

// The program's own files: the program is no library.
#[path = "../../../testnet/src/frames.rs"]
mod frames;
#[path = "../../../testnet/src/packed.rs"]
mod packed;
#[path = "../../../testnet/src/records.rs"]
mod records;

use records::{TradeAnswer, TradeOrder};

/// Longest frame that is looked at here: the bound of the program is for lists of a million players.
const FRAME_MAX: usize = 1 << 20;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.below(4) {
        0 => frames(choices.rest()),
        1 => trades(choices.rest()),
        2 => {
            let text = String::from_utf8_lossy(choices.rest());
            if let Ok(objects) = packed::unpack(&text) {
                assert_eq!(packed::pack(&objects), text.to_ascii_lowercase());
            }
        }
        _ => {
            let text = String::from_utf8_lossy(choices.rest());
            if let Ok(receipt) = packed::unpack_receipt(&text) {
                let again = packed::pack_receipt(&receipt).expect("a receipt is written");
                assert_eq!(packed::unpack_receipt(&again).ok(), Some(receipt));
                assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text:?} is no receipt");
            }
        }
    }
}

fn frames(mut input: &[u8]) {
    let (all, mut again, mut body) = (input, Vec::new(), Vec::new());
    loop {
        if input.first_chunk().is_some_and(|length| u32::from_le_bytes(*length) as usize > FRAME_MAX) {
            return;
        }
        let Ok(Some(kind)) = frames::read(&mut input, &mut body) else { break };
        frames::append(&mut again, kind, &body).expect("what was read is written");
    }
    assert!(all.starts_with(&again));
}

fn trades(bytes: &[u8]) {
    let orders = check::within_memory(bytes.len(), || TradeOrder::read_all(bytes));
    if let Ok(orders) = orders {
        let mut again = Vec::new();
        orders.iter().for_each(|order| order.append(&mut again));
        assert_eq!(again, bytes);
    }
    if let Ok(answers) = TradeAnswer::read_all(bytes) {
        let mut again = Vec::new();
        answers.iter().for_each(|answer| answer.append(&mut again));
        assert_eq!(TradeAnswer::read_all(&again).ok(), Some(answers));
    }
}
