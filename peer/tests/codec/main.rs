//! R25: what peers say to each other, and what journals say, comes back from its bytes as it was; and no bytes at all make
//! a decoder panic, or take more memory than a message of that length could need.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

#[path = "../harness/mod.rs"]
mod harness;
mod imagine;

use driftmesh_model::codec;
use driftmesh_object_store::{Entry, Slice};
use driftmesh_peer::{Envelope, Introduction};
use harness::{Mesh, Rule, is_heartbeat};
use imagine::Draws;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// What a decoder may hold beside the value, whatever the bytes claim: a list is given room for 1 MiB at most before its
/// elements are there, and few lists are open at once.
const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// So many bytes of memory one byte of a message may take: the smallest element of a list against its place in memory.
const BYTES_PER_BYTE_MAX: u64 = 256;

/// So many times 20,000 cases may be drawn until each variant was met: one that comes up five times in so many is missed in
/// one round of 150.
const ROUNDS_MAX: usize = 10;

/// Everything that is decoded from elsewhere.
trait Spoken: Serialize + DeserializeOwned + PartialEq + Debug {}
impl<T: Serialize + DeserializeOwned + PartialEq + Debug> Spoken for T {}

/// Imagines a value, sends it through the codec, and notes which variants it was made of. What a type does not take is
/// passed over.
fn comes_back<T: Spoken>(bytes: Vec<u8>, met: &mut Met) -> Result<Option<Vec<u8>>, TestCaseError> {
    let mut draws = Draws::new(bytes);
    let Ok(value) = draws.imagine::<T>() else { return Ok(None) };
    met.values += 1;
    met.enums.append(&mut draws.enums);
    met.chosen.append(&mut draws.chosen);
    let encoded = codec::encode(&value).unwrap();
    let decoded = codec::decode::<T>(&encoded).map_err(|error| TestCaseError::fail(format!("{error}: {value:?}")))?;
    prop_assert_eq!(&decoded, &value);
    // What is decoded and sent on has the same bytes: hashes of them agree.
    prop_assert_eq!(codec::encode(&decoded).unwrap(), &*encoded);
    Ok(Some(encoded))
}

#[derive(Default)]
struct Met {
    draws: usize,
    values: usize,
    enums: BTreeMap<&'static str, &'static [&'static str]>,
    chosen: BTreeSet<(&'static str, &'static str)>,
}

impl Met {
    /// The variants of enumerations that were met, which themselves were not.
    fn never_met(&self) -> Vec<(&'static str, &'static str)> {
        let all = self.enums.iter().flat_map(|(name, variants)| variants.iter().map(move |variant| (*name, *variant)));
        all.filter(|variant| !self.chosen.contains(variant)).collect()
    }
}

fn draws() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..1_200)
}

/// Bytes that decode as something, if the draws are taken.
fn encoded<T: Spoken>(bytes: Vec<u8>) -> Option<Vec<u8>> {
    comes_back::<T>(bytes, &mut Met::default()).ok().flatten()
}

#[test]
fn all_that_can_be_said_comes_back_as_it_was() {
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    let met = std::cell::RefCell::new(Met::default());
    // Nothing is left out: of each enumeration each variant is part of something that came back. A variant deep inside
    // others is drawn a few times in so many cases, so now and then it takes more of them.
    for _ in 0..ROUNDS_MAX {
        TestRunner::new(config.clone())
            .run(&draws(), |bytes| {
                let mut met = met.borrow_mut();
                comes_back::<Envelope>(bytes.clone(), &mut met)?;
                comes_back::<Entry>(bytes.clone(), &mut met)?;
                comes_back::<Introduction>(bytes, &mut met)?;
                met.draws += 3;
                Ok(())
            })
            .unwrap();
        if met.borrow().never_met().is_empty() {
            break;
        }
    }
    let met = met.into_inner();
    assert!(met.values > met.draws / 2, "{} of {} draws were taken", met.values, met.draws);
    assert!(
        ["Message", "Entry", "Body", "GroupMessage"].iter().all(|name| met.enums.contains_key(name)),
        "{:?}",
        met.enums
    );
    assert_eq!(met.never_met(), []);
}

/// What a type leaves out of its bytes is never imagined either: so here is what peers really said.
#[test]
fn all_that_was_said_comes_back_as_it_was() {
    let mesh = Mesh::replicated(4, 2);
    let objects: Vec<_> = (0..30).map(|number| mesh.create(0, number)).collect();
    for (number, object) in objects.iter().enumerate() {
        mesh.put(number % 4, *object, 7);
    }
    mesh.kill(1);
    mesh.run(3_000);
    let mut said = mesh.sent(|_| true);
    // Heartbeats are not kept.
    mesh.rule(Rule::Hold, is_heartbeat);
    mesh.run(1_000);
    said.extend(mesh.take_held());
    assert!(said.len() > 500 && said.iter().any(is_heartbeat), "{}", said.len());
    for flight in said {
        assert_eq!(codec::decode::<Envelope>(&codec::encode(&flight.envelope).unwrap()), Ok(flight.envelope));
    }
}

/// One way to damage bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, u8),
    /// The head of a list, a map, bytes or a text that is longer than anything could be.
    Claim(usize, u8, u64),
    /// A part again, somewhere else.
    Repeat(usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<usize>;
    let long = prop_oneof![Just(u64::MAX), Just(1 << 40), Just(u64::from(u32::MAX)), Just(1 << 20)];
    let head = prop_oneof![Just(0x9b_u8), Just(0xbb), Just(0x5b), Just(0x7b)];
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(place, byte)| Damage::Set(place, byte)),
        (place(), 0..8_u8).prop_map(|(place, bit)| Damage::Flip(place, bit)),
        place().prop_map(Damage::Cut),
        (place(), any::<u8>()).prop_map(|(place, byte)| Damage::Insert(place, byte)),
        (place(), head, long).prop_map(|(place, head, length)| Damage::Claim(place, head, length)),
        (place(), place(), 0..40_usize).prop_map(|(from, to, length)| Damage::Repeat(from, to, length)),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for one in all {
        let end = bytes.len().max(1);
        match *one {
            Damage::Set(place, byte) => bytes.iter_mut().skip(place % end).take(1).for_each(|old| *old = byte),
            Damage::Flip(place, bit) => bytes.iter_mut().skip(place % end).take(1).for_each(|old| *old ^= 1 << bit),
            Damage::Cut(place) => bytes.truncate(place % end),
            Damage::Insert(place, byte) => bytes.insert((place % end).min(bytes.len()), byte),
            Damage::Claim(place, head, length) => {
                let place = (place % end).min(bytes.len());
                let claim = std::iter::once(head).chain(length.to_be_bytes());
                drop(bytes.splice(place..(place + 1).min(bytes.len()), claim));
            }
            Damage::Repeat(from, to, length) => {
                let from = (from % end).min(bytes.len());
                let part = bytes[from..(from + length).min(bytes.len())].to_vec();
                let to = (to % end).min(bytes.len());
                drop(bytes.splice(to..to, part));
            }
        }
    }
    bytes
}

/// No panic, no memory that the bytes are not worth; and what decodes all the same is a value like any other. Returns
/// whether it did.
fn is_harmless<T: Spoken>(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let mut decoded = None;
    let used = allocation_counter::measure(|| decoded = codec::decode::<T>(bytes).ok());
    let most = AHEAD_BYTES_MAX + BYTES_PER_BYTE_MAX * bytes.len() as u64;
    prop_assert!(used.bytes_max <= most, "{} bytes of memory for {} bytes", used.bytes_max, bytes.len());
    let Some(value) = decoded else { return Ok(false) };
    let again = codec::decode::<T>(&codec::encode(&value).unwrap());
    prop_assert_eq!(again.as_ref(), Ok(&value));
    Ok(true)
}

#[test]
fn damaged_words_are_refused_or_understood_and_never_cost_much() {
    let config = ProptestConfig { cases: 12_000, failure_persistence: None, ..ProptestConfig::default() };
    let understood = std::cell::Cell::new([0_u32; 2]);
    let strategy = (draws(), prop::collection::vec(damage(), 1..3));
    TestRunner::new(config)
        .run(&strategy, |(bytes, damage)| {
            let count = |decodes: bool| {
                let mut so_far = understood.get();
                so_far[usize::from(decodes)] += 1;
                understood.set(so_far);
            };
            if let Some(message) = encoded::<Envelope>(bytes.clone()) {
                count(is_harmless::<Envelope>(&damaged(message, &damage))?);
            }
            if let Some(entry) = encoded::<Entry>(bytes) {
                count(is_harmless::<Entry>(&damaged(entry, &damage))?);
            }
            Ok(())
        })
        .unwrap();
    let [refused, taken] = understood.get();
    assert!(refused > 5_000 && taken > 1_000, "{refused} refused, {taken} understood");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        is_harmless::<Envelope>(&bytes)?;
        is_harmless::<Entry>(&bytes)?;
        is_harmless::<Introduction>(&bytes)?;
        drop(codec::decode::<Slice>(&bytes));
    }
}

/// A list in a list in a list ..., where a field is that nobody knows, and where a field should be.
#[test]
fn depth_without_end_is_refused() {
    for head in [0x81_u8, 0x9f, 0xa1, 0xbf, 0xc1] {
        let deep = vec![head; 1 << 20];
        let unknown: Vec<u8> = [0xa1, 0x61, b'x'].into_iter().chain(deep.iter().copied()).collect();
        let known: Vec<u8> = [0xa1, 0x65].into_iter().chain(*b"clock").chain(deep.iter().copied()).collect();
        for bytes in [&deep, &unknown, &known] {
            assert!(!is_harmless::<Envelope>(bytes).unwrap());
            assert!(!is_harmless::<Entry>(bytes).unwrap());
        }
    }
}
