//! The handshake: two sides with settings that an input chooses, and somebody between them who does what the input says; or
//! a remote that says nothing but the input.
//!
//! Nobody is admitted without the secret, over another name, version or mesh, or by words that were changed on their way
//! (R26). Sides that fit and are left alone admit each other.

use super::pipe::{self, End, Tamper};
use crate::choices::Choices;
use driftmesh::fuzzing::{Admitted, Side, SideConfig, frame};
use driftmesh::transport::{Genesis, RefuseReason};
use driftmesh_model::PeerId;
use futures::{AsyncReadExt, AsyncWriteExt};
use std::cell::RefCell;

/// The code of a frame that admits the other side.
const ADMIT: u8 = 0x84;

fn side(choices: &mut Choices<'_>, peer: u8) -> SideConfig {
    let bits = choices.byte();
    let mesh_name = match choices.below(16) {
        0 => "other".to_owned(),
        1 => "a".repeat(65),
        _ => "arena".to_owned(),
    };
    let secret = match choices.below(16) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(b"secret ".to_vec()),
        _ => Some(b"secret".to_vec()),
    };
    SideConfig {
        peer: PeerId::from_bytes([peer; 32]),
        later_version: u32::from(bits & 0x0f == 0x0f),
        mesh_name,
        genesis: [None, Some(1), Some(1), Some(2)][choices.below(4)].map(|byte| Genesis::from_bytes([byte; 16])),
        expect: [None, Some(3), Some(3), Some(5)][choices.below(4)],
        secret,
        hello: choices.some_bytes().to_vec(),
        advertise: vec!["/ip4/192.0.2.7/tcp/4000".parse().expect("an address"); usize::from(bits >> 6)],
    }
}

/// Whether the two may belong together.
fn fit(one: &SideConfig, other: &SideConfig) -> bool {
    let no_secret = |side: &SideConfig| side.secret.clone().unwrap_or_default();
    let is_one_mesh = match (one.genesis, other.genesis) {
        (Some(one), Some(other)) => one == other,
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => one.expect.is_some() && one.expect == other.expect,
    };
    let is_short = |side: &SideConfig| side.mesh_name.len() <= 64;
    one.later_version == other.later_version
        && one.mesh_name == other.mesh_name
        && is_short(one)
        && no_secret(one) == no_secret(other)
        && is_one_mesh
}

/// What passed between the sides so far.
#[derive(Default)]
struct Passed {
    /// What each side has said, frame by frame.
    said: [Vec<Vec<u8>>; 2],
    /// What arrived of that at the other one.
    arrived: [Vec<u8>; 2],
}

impl Passed {
    /// Whether what a side said arrived as it was, up to and including its admission of the other, which says nothing else.
    /// (What follows that is no part of the handshake.)
    fn is_true(&self, from: usize) -> bool {
        let admits = frame(ADMIT, &[]).expect("a known kind");
        let [hello, proof, ..] = self.said[from].as_slice() else { return false };
        self.arrived[from].starts_with(&[hello.as_slice(), proof, &admits].concat())
    }

    /// Whether nobody has changed anything.
    fn is_whole(&self) -> bool {
        (0..2).all(|from| self.said[from].concat() == self.arrived[from])
    }
}

/// What somebody in between makes of what one side says.
fn tampered(choices: &mut Choices<'_>, passed: &mut Passed, from: usize, frame: Vec<u8>) -> Vec<u8> {
    passed.said[from].push(frame.clone());
    let mut arrives = frame;
    if choices.is_over() {
        return arrives;
    }
    match choices.below(8) {
        0..3 => {}
        3 | 4 => choices.damage(&mut arrives),
        5 => {
            // What either side has said before, in place of this.
            let said = &passed.said[choices.below(2)];
            arrives = said.get(choices.below(said.len())).cloned().unwrap_or_default();
        }
        6 => arrives.extend_from_slice(choices.some_bytes()),
        _ => arrives.clear(),
    }
    arrives
}

/// Two sides of our own, and somebody in between.
fn two_sides(choices: &mut Choices<'_>) {
    let (low, high) = (side(choices, 1), side(choices, 2));
    let piece = [1, 3, 100, usize::MAX][choices.below(4)];
    let passed = RefCell::new(Passed::default());
    let script = RefCell::new(*choices);
    let tamper: Box<Tamper<'_>> = Box::new(|is_first, frame| {
        let (mut passed, from) = (passed.borrow_mut(), usize::from(!is_first));
        let arrives = tampered(&mut script.borrow_mut(), &mut passed, from, frame);
        passed.arrived[from].extend_from_slice(&arrives);
        arrives
    });
    let (one, other) = (Side::new(low.clone()), Side::new(high.clone()));
    let (first, second) = pipe::run_both(
        pipe::pipe(piece, tamper),
        async |end: &mut End<'_>| one.handshake(high.peer, end).await,
        async |end: &mut End<'_>| other.handshake(low.peer, end).await,
    );
    let passed = passed.borrow();
    for (result, is_true, theirs) in [(&first, passed.is_true(1), &high), (&second, passed.is_true(0), &low)] {
        let Some(Ok(Admitted { hello, addresses, genesis })) = result else { continue };
        assert!(fit(&low, &high), "R26: {low:?} and {high:?} do not fit");
        assert!(is_true, "R26: admitted by something else than what the other side said");
        assert_eq!((hello, addresses.len()), (&theirs.hello, theirs.advertise.len().min(1)));
        assert_eq!(*genesis, low.genesis.or(high.genesis), "both are in one mesh");
    }
    if fit(&low, &high) && passed.is_whole() {
        assert!(matches!(&first, Some(Ok(_))), "{first:?} of {low:?} and {high:?}");
        assert!(matches!(&second, Some(Ok(_))), "{second:?} of {low:?} and {high:?}");
    }
}

/// A remote that says nothing but the input: it cannot have proved anything.
fn stranger(choices: &mut Choices<'_>) {
    let config = side(choices, 2);
    let piece = [1, 7, 1_000][choices.below(3)];
    let bytes = choices.rest();
    let side = Side::new(config);
    let (result, _) = pipe::run_both(
        pipe::pipe(piece, Box::new(|_, frame| frame)),
        async |end: &mut End<'_>| side.handshake(PeerId::from_bytes([1; 32]), end).await,
        async |end: &mut End<'_>| {
            let _ = end.write_all(bytes).await;
            let _ = end.close().await;
            let mut ignored = Vec::new();
            let _ = end.read_to_end(&mut ignored).await;
        },
    );
    let Some(Err(reason)) = result else { panic!("R26: {result:?} of a stranger") };
    // What is shown to a user is one line without signs that a terminal obeys.
    let text = reason.to_string();
    assert!(!text.chars().any(char::is_control) && text.len() < 2_000, "{text}");
    assert!(!matches!(reason, RefuseReason::HandshakeTimeout), "no time has passed");
}

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.below(2) {
        0 => two_sides(&mut choices),
        _ => stranger(&mut choices),
    }
}
