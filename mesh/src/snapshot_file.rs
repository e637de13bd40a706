//! The file that a mesh is exported to and imported from: a header, one record an object, and a hash of everything.
//!
//! | part | bytes |
//! | --- | --- |
//! | magic | `driftmesh export` |
//! | version | 2, big endian: 2; 1 where no [`Record`] has `kept` |
//! | header | a frame: [`Header`] |
//! | objects | a frame each: [`Record`] |
//! | end | a length of 0; 8, big endian: the number of objects; 32: blake3 of all bytes before these 32 |
//!
//! A frame is its length (4 bytes, big endian) and a CBOR map by field name. It refuses whatever does not fit in full:
//! nothing of a file counts before its last byte was read (R25).

use crate::limits::OBJECT_BYTES_MAX;
use driftmesh_model::{Epoch, ObjectId, Timestamp, Value, codec};
use driftmesh_object_store::Outcomes;
use driftmesh_peer::NoRoom;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};

const MAGIC: &[u8; 16] = b"driftmesh export";
const VERSION: u16 = 2;
/// The first format: objects had nothing but their values. It is read still.
const VERSION_OF_VALUES: u16 = 1;
/// What an object keeps of tasks takes so many bytes at most: its answers and schedules are bounded, and so are their numbers.
const KEPT_BYTES_MAX: usize = 512 << 10;
/// Longest frame, bytes: the largest object with all that it can keep of tasks, its id, epoch and field names.
const FRAME_BYTES_MAX: usize = OBJECT_BYTES_MAX + KEPT_BYTES_MAX + 1_024;

/// What the file is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The name of the mesh.
    pub(crate) mesh: String,
    /// The snapshot that it shows.
    pub(crate) snapshot: Timestamp,
}

/// One object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) object: ObjectId,
    /// How often it had changed its owner, and one; for people who compare files.
    pub(crate) epoch: Epoch,
    /// Its value with the header of its type.
    pub(crate) value: Value,
    /// What it keeps of tasks, if anything: outcomes (R21) and schedules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<Box<Outcomes>>,
}

/// Why a file cannot be imported. Nothing was created.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be read.
    #[error("{file} cannot be read: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system reported.
        error: String,
    },
    /// It is something else.
    #[error("{file} is no export of a mesh; give a file that `driftmesh export` has written")]
    Foreign {
        /// The file.
        file: String,
    },
    /// It was written by a newer program.
    #[error(
        "{file} has format {version}, and this program reads {VERSION}; use the program that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format.
        version: u16,
    },
    /// It ends too early.
    #[error("{file} ends too early, so a part of the mesh is missing; copy it again, or export again")]
    Truncated {
        /// The file.
        file: String,
    },
    /// It has more than the peer may hold.
    #[error("there is no room for all of {file}: {full}")]
    NoRoom {
        /// The file.
        file: String,
        /// What the peer would hold, and may hold.
        full: NoRoom,
    },
    /// It was changed after it was written.
    #[error("{file} is damaged: {what}; copy it again, or export again")]
    Damaged {
        /// The file.
        file: String,
        /// What does not fit.
        what: String,
    },
}

/// Writes everything twice: to the file, and into the hash.
pub(crate) struct Writer<W: Write> {
    to: W,
    hasher: blake3::Hasher,
    objects: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(to: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { to, hasher: blake3::Hasher::new(), objects: 0, bytes: 0 };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_be_bytes())?;
        writer.frame(header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn frame<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let bytes = codec::encode(value).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write(&length.to_be_bytes())?;
        self.write(&bytes)
    }

    pub(crate) fn put(&mut self, record: &Record) -> io::Result<()> {
        self.objects += 1;
        self.frame(record)
    }

    /// So many objects and bytes were written so far.
    pub(crate) const fn written(&self) -> (u64, u64) {
        (self.objects, self.bytes)
    }

    /// Writes the end. Returns what was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.write(&0_u32.to_be_bytes())?;
        self.write(&self.objects.to_be_bytes())?;
        self.to.write_all(self.hasher.finalize().as_bytes())?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Reads a file from its beginning to its end, once.
pub(crate) struct Reader<R: Read> {
    from: R,
    file: String,
    hasher: blake3::Hasher,
    objects: u64,
}

impl<R: Read> Reader<R> {
    /// Begins to read. `file` is what errors call it.
    pub(crate) fn open(from: R, file: &str) -> Result<(Self, Header), ImportError> {
        let mut reader = Self { from, file: file.to_owned(), hasher: blake3::Hasher::new(), objects: 0 };
        let mut magic = [0; MAGIC.len()];
        match reader.read(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) | Err(ImportError::Truncated { .. }) => return Err(ImportError::Foreign { file: reader.file }),
            Err(error) => return Err(error),
        }
        let mut version = [0; 2];
        reader.read(&mut version)?;
        match u16::from_be_bytes(version) {
            VERSION | VERSION_OF_VALUES => {}
            0 => return Err(reader.damaged("there is no format 0")),
            version => return Err(ImportError::Newer { file: reader.file, version }),
        }
        let Some(header) = reader.frame()? else { return Err(reader.damaged("it has no header")) };
        Ok((reader, header))
    }

    fn damaged(&self, what: impl Into<String>) -> ImportError {
        ImportError::Damaged { file: self.file.clone(), what: what.into() }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ImportError> {
        if let Err(error) = self.from.read_exact(bytes) {
            let file = self.file.clone();
            return Err(if error.kind() == ErrorKind::UnexpectedEof {
                ImportError::Truncated { file }
            } else {
                ImportError::Unreadable { file, error: error.to_string() }
            });
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// The next frame; `None` at the end.
    fn frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ImportError> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(None);
        }
        if length > FRAME_BYTES_MAX {
            return Err(self.damaged(format!("object {} has {length} bytes", self.objects + 1)));
        }
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        let decoded = codec::decode(&bytes);
        decoded.map(Some).map_err(|error| self.damaged(format!("object {}: {error}", self.objects + 1)))
    }

    /// R25: what no peer could have kept would be refused wherever the object goes.
    fn sound(&self, record: Record) -> Result<Record, ImportError> {
        match &record.kept {
            Some(kept) if !kept.are_sound() => {
                Err(self.damaged(format!("object {} keeps what no object can", record.object)))
            }
            Some(_) | None => Ok(record),
        }
    }

    /// The next object; `None` after the last one, when the whole file has proved to be what was written.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ImportError> {
        if let Some(record) = self.frame()? {
            self.objects += 1;
            return self.sound(record).map(Some);
        }
        let mut objects = [0; 8];
        self.read(&mut objects)?;
        let hash = self.hasher.finalize();
        let mut stored = [0; blake3::OUT_LEN];
        self.read(&mut stored)?;
        if u64::from_be_bytes(objects) != self.objects || hash != blake3::Hash::from(stored) {
            return Err(self.damaged("its content is not what its hash says"));
        }
        match self.from.read(&mut [0]) {
            Ok(0) => Ok(None),
            Ok(_) => Err(self.damaged("something follows its end")),
            Err(error) => Err(ImportError::Unreadable { file: self.file.clone(), error: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use driftmesh_model::{Lsn, Micros, PeerId, TaskId, TaskKey};
    use driftmesh_object_store::{
        CatchUp, Entry, Progress, Schedule, ScheduleChange, ScheduleStep, State, TaskOutcome, Work,
    };

    fn records() -> Vec<Record> {
        let record = |number: u128| Record {
            object: ObjectId::from_u128(number),
            epoch: Epoch::from_u64(3),
            value: Value::from_slice(&[7; 40]),
            kept: None,
        };
        (1..=3).map(record).collect()
    }

    fn written() -> Vec<u8> {
        let header = Header { mesh: "arena".to_owned(), snapshot: Timestamp::ZERO.next() };
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        records().iter().for_each(|record| writer.put(record).unwrap());
        let (objects, bytes) = writer.written();
        let file = writer.finish().unwrap();
        assert_eq!((objects, bytes + 4 + 8 + 32), (3, file.len() as u64));
        file
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, ImportError> {
        let (mut reader, header) = Reader::open(bytes, "file")?;
        assert_eq!(header.mesh, "arena");
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&written()), Ok(records()));
    }

    #[test]
    fn no_byte_can_be_changed_and_none_left_out() {
        let good = written();
        for at in 0..good.len() {
            for bit in [1, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bit;
                let error = std::panic::catch_unwind(|| read(&bad)).unwrap_or_else(|_| {
                    // The header decodes, with another name in it.
                    Err(ImportError::Foreign { file: String::new() })
                });
                assert!(error.is_err(), "byte {at} does not matter");
            }
            let cut = read(&good[..at]).unwrap_err();
            let foreign = at < MAGIC.len();
            assert_eq!(matches!(cut, ImportError::Foreign { .. }), foreign, "{at}: {cut}");
            assert_eq!(matches!(cut, ImportError::Truncated { .. }), !foreign, "{at}: {cut}");
        }
        let mut longer = good;
        longer.push(0);
        assert!(matches!(read(&longer), Err(ImportError::Damaged { .. })));
    }

    #[test]
    fn another_kind_of_file_and_a_newer_format_are_named_so() {
        assert!(matches!(read(b"PK and much more of that"), Err(ImportError::Foreign { .. })));
        assert!(matches!(read(b""), Err(ImportError::Foreign { .. })));
        let mut newer = written();
        newer[MAGIC.len() + 1] = 3;
        assert_eq!(read(&newer), Err(ImportError::Newer { file: "file".to_owned(), version: 3 }));
    }

    /// The hash of a file whose content was changed on purpose.
    fn with_right_hash(mut file: Vec<u8>) -> Vec<u8> {
        file.truncate(file.len() - blake3::OUT_LEN);
        let hash = blake3::hash(&file);
        file.extend_from_slice(hash.as_bytes());
        file
    }

    #[test]
    fn a_file_of_the_first_format_is_read() {
        // It differs by its number: records without `kept` have no byte of it.
        let mut first = written();
        first[MAGIC.len() + 1] = 1;
        assert_eq!(read(&with_right_hash(first)), Ok(records()));
        assert!(!written().windows(4).any(|bytes| bytes == b"kept"));
    }

    /// An object that keeps as much of tasks as it can: outcomes that nobody was told, of many peers, and schedules.
    fn full() -> Box<Outcomes> {
        let object = ObjectId::from_u128(1);
        let at = |time: u64| Timestamp::from_wall(Micros(u64::from(u32::MAX) + time));
        let mut state = State::new();
        let mut entries = Vec::new();
        let writes = vec![driftmesh_object_store::Write { object, value: Some(Value::from_slice(&[1])) }];
        let begin = |number: u64| {
            let name = "n".repeat(limits::TASK_KIND_BYTES_MAX);
            let body = Value::from_slice(&vec![7; limits::SCHEDULES_BYTES_MAX / limits::SCHEDULES_MAX]);
            let progress = Progress {
                due: at(1).wall(),
                ran: u64::MAX,
                failed: u64::MAX,
                panicked_at: (1..=2).map(|byte| PeerId::from_bytes([byte; 32])).collect(),
            };
            let schedule = Schedule {
                number: u64::MAX - number,
                work: Work { name, version: u32::MAX, body },
                period: Some(limits::SCHEDULE_AHEAD_MAX),
                catch_up: CatchUp::Each { max: limits::SCHEDULE_CATCH_UP_MAX },
                after_stable: true,
                progress,
            };
            ScheduleChange { object, step: ScheduleStep::Begin(Box::new(schedule)) }
        };
        let schedules = (0..limits::SCHEDULES_MAX as u64).map(begin).collect();
        entries.push(Entry::Commit { commit: at(1), writes, outcome: None, schedules });
        let bytes = limits::OUTCOMES_UNTOLD_BYTES_MAX / limits::OUTCOMES_UNTOLD_MAX;
        for time in 2..=limits::OUTCOMES_UNTOLD_MAX as u64 + 10 {
            // The peers wait for all of them, so nothing is forgotten for having been told.
            let maker = u64::MAX - time % limits::OUTCOME_MAKERS_MAX as u64;
            let task = TaskId { anchor: object, key: TaskKey::of_peer(at(time).wall(), maker) };
            let answer = Value::from_slice(&vec![7; bytes]);
            let outcome = Some(Box::new(TaskOutcome { task, answer, oldest: at(2).wall() }));
            entries.push(Entry::Commit { commit: at(time), writes: Vec::new(), outcome, schedules: Vec::new() });
        }
        for (number, entry) in entries.iter().enumerate() {
            state.check(entry).unwrap();
            state.apply(Lsn::from_u64(number as u64 + 1), entry);
        }
        let kept = state.owned(object).and_then(|stored| stored.outcomes.as_deref()?.at(at(u64::from(u32::MAX))));
        Box::new(kept.unwrap())
    }

    #[test]
    fn the_largest_object_that_keeps_all_it_can_is_read_and_more_than_it_can_keep_is_not() {
        let kept = full();
        assert_eq!((kept.len(), kept.schedules().len()), (limits::OUTCOMES_UNTOLD_MAX, limits::SCHEDULES_MAX));
        assert!(kept.are_sound());
        let value = Value::from_slice(&vec![7; OBJECT_BYTES_MAX]);
        let record = Record {
            object: ObjectId::from_u128(u128::MAX),
            epoch: Epoch::from_u64(u64::MAX),
            value,
            kept: Some(kept.clone()),
        };
        let file = |record: &Record| {
            let header = Header { mesh: "arena".to_owned(), snapshot: Timestamp::ZERO };
            let mut writer = Writer::new(Vec::new(), &header).unwrap();
            writer.put(record).unwrap();
            writer.finish().unwrap()
        };
        assert_eq!(read(&file(&record)), Ok(vec![record.clone()]));
        // A due time at the end of all times, as nobody but a forger writes it.
        let bytes = codec::encode(&kept).unwrap();
        let mut forged = bytes.clone();
        let due = codec::encode(&kept.schedules().iter().next().unwrap().progress.due).unwrap();
        let place = bytes.windows(due.len()).position(|window| window == due).unwrap();
        forged[place + 1..place + due.len()].fill(0xff);
        let forged: Outcomes = codec::decode(&forged).unwrap();
        let refused = read(&file(&Record { kept: Some(Box::new(forged)), ..record }));
        assert!(matches!(refused, Err(ImportError::Damaged { .. })), "{refused:?}");
    }
}
