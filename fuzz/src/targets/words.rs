//! Small words of peers: introductions, messages of the founding, receipts, hellos, refusals, and what fresh peers tell.

use crate::check;
use crate::choices::Choices;
use driftmesh::fuzzing::{TOLD_ADDRESSES_MAX, founding_body, founding_frame, hello_body, refusal, told_addresses};
use driftmesh::transport::RefuseReason;
use driftmesh::transport::limits::FOUNDING_BYTES_MAX;
use driftmesh_model::codec::{self, DecodeError};
use driftmesh_peer::{FoundingMessage, Introduction, Receipt};

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.below(7) {
        0 => {
            let _ = check::decoded::<Introduction>(choices.rest());
            let _ = check::imagined::<Introduction>(&mut choices);
        }
        1 => {
            let _ = check::decoded::<FoundingMessage>(choices.rest());
            let _ = check::imagined::<FoundingMessage>(&mut choices);
        }
        2 => {
            let _ = check::decoded::<Receipt>(choices.rest());
            let _ = check::imagined::<Receipt>(&mut choices);
        }
        3 => again(choices.rest(), |body| hello_body(body).ok()),
        4 => fresh_words(choices.rest()),
        5 => refusals(&mut choices),
        _ => addresses(&mut choices),
    }
}

/// What a body says, written and read again, says the same; and nothing may follow it.
fn again(body: &[u8], read: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(written) = check::within_memory(body.len(), || read(body)) else { return };
    assert_eq!(read(&written).as_ref(), Some(&written));
    assert_eq!(read(&[body, &[0]].concat()), None, "trailing bytes");
}

fn fresh_words(body: &[u8]) {
    again(body, |body| founding_body(body).ok());
    let said = founding_frame(body.to_vec());
    assert_eq!(said.is_some(), body.len() <= FOUNDING_BYTES_MAX);
    let arrives = said.map(|frame| founding_body(&frame[4..]).expect("what is said is read").len());
    assert!(arrives.is_none_or(|length| length >= body.len()));
}

fn refusals(choices: &mut Choices<'_>) {
    drop(check::decoded::<RefuseReason>(choices.rest()));
    let imagined = check::imagined::<RefuseReason>(choices);
    let encoded = imagined.map(|reason| codec::encode(&reason).expect("encodes"));
    for body in [Some(choices.rest().to_vec()), encoded].into_iter().flatten() {
        let Ok(reason) = refusal(&body) else { continue };
        // Text of a remote never writes to a terminal, and is not without end.
        let text = reason.to_string();
        assert!(!text.chars().any(char::is_control), "{text}");
        assert!(text.len() < 4_000, "{} bytes", text.len());
    }
}

fn addresses(choices: &mut Choices<'_>) {
    drop(codec::decode::<Vec<String>>(choices.rest()));
    let mut told: Vec<Vec<u8>> = Vec::new();
    while !choices.is_over() && told.len() < 40 {
        told.push(choices.some_bytes().to_vec());
    }
    let (addresses, again) = told_addresses(told);
    assert!(addresses.len() <= TOLD_ADDRESSES_MAX);
    // What is believed is told on as it is, and believed by the next one.
    assert_eq!(told_addresses(again), (addresses.clone(), addresses.iter().map(|one| one.to_vec()).collect()));
    assert_eq!(codec::decode::<u8>(&[0, 0]), Err(DecodeError::TrailingBytes(1)));
}
