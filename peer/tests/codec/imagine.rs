//! Values of any type that can be decoded, made of random bytes: a deserializer that answers each question of a type by a
//! draw. What the wire and the journal can say is imagined whole, and so is what will be added to them.
//!
//! It refuses to know any type. What a type wants of a byte string it learns from what the type expects.

use driftmesh_model::{Term, codec};
use driftmesh_object_store::Entry;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Expected, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use std::collections::{BTreeMap, BTreeSet};

/// Most elements of a list; lists within lists have fewer.
const LIST_MAX: usize = 5;
/// Most bytes of a value.
const VALUE_BYTES_MAX: usize = 400;
/// Numbers at which something ends: of the codec's lengths, and of arithmetic.
const ENDS: [u64; 12] = [0, 1, 23, 24, 255, 256, 65_535, 65_536, u32::MAX as u64, 1 << 32, (1 << 63) - 1, u64::MAX];

pub(crate) type Failed = de::value::Error;

/// Draws from random bytes, and then zeros, which are the simplest choice everywhere.
#[derive(Default)]
pub(crate) struct Draws {
    bytes: Vec<u8>,
    at: usize,
    depth: usize,
    /// The enumerations that were met, with all their variants.
    pub(crate) enums: BTreeMap<&'static str, &'static [&'static str]>,
    /// The variants that were chosen.
    pub(crate) chosen: BTreeSet<(&'static str, &'static str)>,
}

impl Draws {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// A value of some type; a failure where the type takes less than it says.
    pub(crate) fn imagine<T: de::DeserializeOwned>(&mut self) -> Result<T, Failed> {
        T::deserialize(self)
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => u64::from(self.byte()),
            1 => ENDS[self.below(ENDS.len())],
            2 => u64::from(u16::from_be_bytes([self.byte(), self.byte()])),
            _ => u64::from_be_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn some_bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn length(&mut self) -> usize {
        let most = LIST_MAX.saturating_sub(self.depth);
        self.below(most + 1)
    }

    /// What a type that wants bytes can use.
    fn bytes_for(&mut self, expected: &dyn Expected) -> Vec<u8> {
        let wish = expected.to_string();
        if wish.contains("encoded entries") {
            let entries: Vec<(Term, Entry)> = self.imagine().unwrap_or_default();
            return codec::encode(&entries).expect("entries encode");
        }
        let is_fixed = wish.contains("exactly") || wish.contains("of length");
        let number = wish.split(|letter: char| !letter.is_ascii_digit()).find(|digits| !digits.is_empty());
        match number.and_then(|number| number.parse().ok()).filter(|_| is_fixed) {
            Some(exactly) => self.some_bytes(exactly),
            None => {
                // Short values lie elsewhere than long ones.
                let length =
                    if self.byte().is_multiple_of(2) { self.below(64) } else { 2 * self.below(VALUE_BYTES_MAX / 2) };
                self.some_bytes(length)
            }
        }
    }

    fn within<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let made = what(self);
        self.depth -= 1;
        made
    }
}

/// Elements of a list or a map, or the fields of a structure: its names, or none.
struct Parts<'a> {
    draws: &'a mut Draws,
    left: usize,
    names: &'static [&'static str],
}

impl<'de> de::SeqAccess<'de> for Parts<'_> {
    type Error = Failed;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failed> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.draws).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_> {
    type Error = Failed;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failed> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        let name = self.names.len().checked_sub(self.left).and_then(|at| self.names.get(at));
        self.left = left;
        match name {
            Some(name) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => seed.deserialize(&mut *self.draws).map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failed> {
        seed.deserialize(&mut *self.draws)
    }
}

impl<'de> de::EnumAccess<'de> for Parts<'_> {
    type Error = Failed;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failed> {
        let variant: StrDeserializer<'_, Failed> = self.names[self.left].into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Parts<'_> {
    type Error = Failed;

    fn unit_variant(self) -> Result<(), Failed> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failed> {
        seed.deserialize(self.draws)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_seq(Parts { draws: self.draws, left: length, names: &[] })
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_map(Parts { draws: self.draws, left: fields.len(), names: fields })
    }
}

impl<'de> de::Deserializer<'de> for &mut Draws {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        Err(de::Error::custom(format_args!("cannot imagine {}", &visitor as &dyn Expected)))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_bool(self.byte() % 2 == 1)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_u8(self.byte())
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_u32(u32::try_from(self.number()).unwrap_or(u32::MAX))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_u64(self.number())
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_i64(self.number().cast_signed())
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let length = self.below(40);
        let text = self.some_bytes(length).into_iter().map(|byte| char::from(byte % 128)).collect::<String>();
        de::Deserializer::deserialize_str(StringDeserializer::new(text), visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let bytes = self.bytes_for(&visitor);
        visitor.visit_bytes(&bytes)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        if self.byte().is_multiple_of(2) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let left = self.length();
        self.within(|draws| visitor.visit_seq(Parts { draws, left, names: &[] }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_seq(Parts { draws: self, left: length, names: &[] })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let left = self.length();
        self.within(|draws| visitor.visit_map(Parts { draws, left, names: &[] }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        visitor.visit_map(Parts { draws: self, left: fields.len(), names: fields })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let chosen = self.below(variants.len());
        self.enums.insert(name, variants);
        self.chosen.insert((name, variants[chosen]));
        visitor.visit_enum(Parts { draws: self, left: chosen, names: variants })
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u16 u128 f32 f64 char unit unit_struct tuple_struct identifier ignored_any
    }
}
