//! The file of an export: any bytes, and a real file that was damaged. Only what was written whole is read.

use crate::check;
use crate::choices::Choices;
use crate::imagine::Draws;
use driftmesh::fuzzing::ExportFile;
use driftmesh_model::{Epoch, ObjectId, Timestamp, Value};
use driftmesh_object_store::Outcomes;

/// What a file of 44 bytes of objects takes beside its bytes.
const END_BYTES: usize = 4 + 8 + blake3::OUT_LEN;

/// Runs the target.
pub fn run(data: &[u8]) {
    reads(data);
    with_right_hash(data);
    let mut choices = Choices::new(data);
    let damage = choices.some_bytes();
    let file = file(&mut choices);
    let written = file.write().expect("a file is written");
    assert_eq!(ExportFile::read(&written), Ok(file));
    let mut damaged = written.clone();
    Choices::new(damage).damage(&mut damaged);
    if damaged != written {
        assert!(ExportFile::read(&damaged).is_err(), "a damaged file is read");
        with_right_hash(&damaged);
    }
}

/// The largest frame is made room for at once: so much may be claimed by a few bytes.
fn reads(data: &[u8]) -> Option<ExportFile> {
    check::within_memory(data.len(), || ExportFile::read(data)).ok()
}

/// Whoever damages a file on purpose makes the hash fit: then the rest must.
fn with_right_hash(data: &[u8]) {
    let Some(content) = data.len().checked_sub(blake3::OUT_LEN).filter(|_| data.len() >= END_BYTES) else { return };
    let mut forged = data[..content].to_vec();
    forged.extend_from_slice(blake3::hash(&data[..content]).as_bytes());
    let Some(file) = reads(&forged) else { return };
    let again = file.write().expect("what was read is written");
    assert_eq!(ExportFile::read(&again).as_ref(), Ok(&file));
    let longer = [&*forged, &[0]].concat();
    assert!(ExportFile::read(&longer).is_err(), "something follows the end");
    assert!(ExportFile::read(&forged[..forged.len() - 1]).is_err(), "the end is missing");
}

/// What an object keeps of tasks.
fn kept(choices: &mut Choices<'_>) -> Outcomes {
    Draws::new(choices.some_bytes().to_vec()).imagine().unwrap_or_default()
}

/// A file that the choices make.
pub(crate) fn file(choices: &mut Choices<'_>) -> ExportFile {
    let mesh = String::from_utf8_lossy(choices.some_bytes()).into_owned();
    let snapshot = Timestamp::from_u64(choices.number());
    let one = |choices: &mut Choices<'_>| {
        let object = ObjectId::from_u128(u128::from(choices.number()));
        let (epoch, value) = (Epoch::from_u64(choices.number()), Value::from_slice(choices.some_bytes()));
        let kept = choices.is_one_of(2).then(|| kept(choices)).filter(Outcomes::are_sound);
        (object, epoch, value, kept.map(Box::new))
    };
    let objects = (0..choices.below(6)).map(|_| one(choices)).collect();
    ExportFile { mesh, snapshot, objects }
}
