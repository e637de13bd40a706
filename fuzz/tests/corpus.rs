//! The committed corpora: every input passes its target, and they hold every kind of message and entry.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh_fuzz::TARGETS;
use driftmesh_model::codec;
use driftmesh_object_store::Entry;
use driftmesh_peer::Envelope;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

/// Most bytes that all corpora have together.
const CORPORA_BYTES_MAX: usize = 1 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn corpus(name: &str) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder().join("corpus").join(name)).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

#[test]
fn every_input_passes_its_target() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let inputs = corpus(target.name);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (file, input) in inputs {
            if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
                failed.push(format!("{}/{file}", target.name));
            }
        }
        (target.run)(&[]);
    }
    assert!(failed.is_empty(), "these do not pass: {failed:?}");
}

#[test]
fn the_corpora_begin_with_what_the_present_code_says() {
    for target in TARGETS {
        let kept: Vec<_> = corpus(target.name)
            .into_iter()
            .filter(|(file, _)| file.starts_with("seed-"))
            .map(|(_, input)| input)
            .collect();
        assert!(
            kept == (target.seeds)(),
            "corpus/{} is not that of the present code: cargo run --package driftmesh-fuzz --example corpus",
            target.name
        );
    }
}

/// The name of a variant.
fn kind(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split(|sign: char| !sign.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Asks a type for its variants.
mod variants {
    use serde::de::{Deserializer, Visitor, value::Error};
    use serde::forward_to_deserialize_any;

    pub(crate) struct Asking<'a>(pub(crate) &'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Asking<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(serde::de::Error::custom("only asked"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Error> {
            *self.0 = variants;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }
}

fn all_kinds<T: serde::de::DeserializeOwned>() -> Vec<&'static str> {
    let mut all: &'static [&'static str] = &[];
    let _ = T::deserialize(variants::Asking(&mut all));
    all.to_vec()
}

#[test]
fn a_message_and_an_entry_of_each_kind_is_in_the_corpus() {
    let messages = all_kinds::<driftmesh_peer::Message>();
    let entries = all_kinds::<Entry>();
    assert!(messages.len() > 20 && entries.len() > 8, "{messages:?}, {entries:?}");
    let said: Vec<String> = corpus("message")
        .values()
        .filter_map(|input| codec::decode::<Envelope>(input).ok())
        .map(|envelope| kind(&envelope.message))
        .collect();
    let journalled: Vec<String> = corpus("entry")
        .values()
        .filter_map(|input| codec::decode(input).ok())
        .map(|entry: Entry| kind(&entry))
        .collect();
    for (kinds, met) in [(messages, said), (entries, journalled)] {
        let never: Vec<_> = kinds.iter().filter(|kind| !met.iter().any(|met| met == *kind)).collect();
        assert!(never.is_empty(), "never {never:?}: cargo run --package driftmesh-fuzz --example corpus");
    }
}

#[test]
fn the_corpora_are_small() {
    let all: usize = TARGETS.iter().flat_map(|target| corpus(target.name)).map(|(_, input)| input.len()).sum();
    assert!(all < CORPORA_BYTES_MAX, "{all} bytes");
}

#[test]
fn each_target_has_a_program_for_libfuzzer() {
    let manifest = fs::read_to_string(folder().join("libfuzzer/Cargo.toml")).unwrap();
    for target in TARGETS {
        let name = target.name;
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in libfuzzer/Cargo.toml");
        let program = fs::read_to_string(folder().join(format!("libfuzzer/fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("targets::{name}::run(data)")), "{name} runs something else");
    }
}
