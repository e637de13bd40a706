//! Stored objects: the bytes of a value as a type of the user, or of the directory of names.

use crate::check;
use crate::choices::Choices;
use crate::imagine::Draws;
use driftmesh_model::{Object, ObjectId, Ref, Value, decode_object, encode_object, is_stored_as, stored_header};
use driftmesh_peer::session::NameBucket;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// A type with a bit of everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) name: String,
    pub(crate) gold: i64,
    pub(crate) owner: Option<Ref<Self>>,
    pub(crate) places: BTreeMap<String, ObjectId>,
    pub(crate) kinds: Vec<Kind>,
    #[serde(default)]
    pub(crate) added_later: bool,
}

/// What a thing may be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    Plain,
    Of(u32),
    With { a: u8, b: Option<String> },
}

impl Object for Thing {
    const TYPE_NAME: &'static str = "thing";
}

/// The same under a name so long, and in a version so late, that neither has the short form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LongNamed(pub(crate) Thing);

impl Object for LongNamed {
    const TYPE_NAME: &'static str = "a.thing.that.has.a.name.of.more.than.twenty-three.bytes";
    const SCHEMA_VERSION: u32 = 70_000;
}

/// Runs the target.
pub fn run(data: &[u8]) {
    let value = Value::from_slice(data);
    assert_eq!(value.bytes(), data);
    let header = stored_header(&value);
    as_type::<Thing>(&value);
    as_type::<LongNamed>(&value);
    as_type::<NameBucket>(&value);
    if let Ok(header) = header {
        let known = [Thing::TYPE_NAME, LongNamed::TYPE_NAME, NameBucket::TYPE_NAME];
        let is_known =
            is_stored_as::<Thing>(&value) || is_stored_as::<LongNamed>(&value) || is_stored_as::<NameBucket>(&value);
        assert_eq!(known.contains(&&*header.type_name), is_known, "{header:?}");
    }
    let mut choices = Choices::new(data);
    let damage = choices.some_bytes();
    if let Ok(thing) = Draws::new(choices.rest().to_vec()).imagine::<Thing>() {
        let value = encode_object(&thing).expect("a thing encodes");
        assert_eq!(decode_object::<Thing>(&value).as_ref(), Ok(&thing));
        let mut bytes = value.bytes().to_vec();
        Choices::new(damage).damage(&mut bytes);
        as_type::<Thing>(&Value::from_slice(&bytes));
    }
}

fn as_type<T: Object + PartialEq + Debug>(value: &Value) {
    let Ok(object) = check::within_memory(value.len(), || decode_object::<T>(value)) else { return };
    assert!(is_stored_as::<T>(value), "what decodes is of its type");
    let again = encode_object(&object).expect("what was decoded encodes");
    assert_eq!(decode_object::<T>(&again).as_ref(), Ok(&object));
    let longer = [value.bytes(), &[0]].concat();
    assert!(decode_object::<T>(&Value::from_slice(&longer)).is_err(), "trailing bytes");
}
