//! One consistent snapshot of the whole mesh in a file, while transactions go on; and a peer that is filled from one.
//!
//! A scan meets what each peer owns at the snapshot: the value, and what the object keeps of tasks, both as of the same
//! commits. What moves meanwhile is asked for afterwards: each peer says what has come to it since its first page, again
//! and again until all that was on its way was met. It refuses to write a file that might miss something: then it takes a
//! new snapshot, a few times, and in the end says why. It refuses to share the file that it writes to: two exports to one
//! name never meet before one of them gets it.

use crate::snapshot_file::{Header, ImportError, Reader, Record, Writer};
use crate::{Error, Mesh, Snapshot};
use driftmesh_model::limits::{OBJECT_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_OBJECTS_MAX};
use driftmesh_model::{GroupId, Now, ObjectId, PeerId};
use driftmesh_object_store::{Imported, TRANSFERS_MAX, Write};
use driftmesh_peer::{ARRIVALS_FROM, KeptSeen, Peer, ScanPage, Scanned, Seen};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Snapshots taken before an export gives up, and the pause between them.
const SNAPSHOTS_MAX: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// How long a peer may take for one page.
const PAGE_MAX: Duration = Duration::from_secs(10);
/// How often peers are asked for what has come to them, and the pause between: what is on its way arrives in a few round trips,
/// and what leaves again at once is met elsewhere.
const ROUNDS_MAX: u32 = 100;
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Objects that are waited for at one time: more are on their way at no time, unless a peer tells what is not so.
const MOVING_MAX: usize = 1 << 20;
/// A commit of an import writes no more than this: half of what a transaction may, so that one more object always fits.
const IMPORT_OBJECTS: usize = TRANSACTION_OBJECTS_MAX / 2;
const IMPORT_BYTES: usize = TRANSACTION_BYTES_MAX / 2;

/// What an export has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exported {
    /// Objects, directory buckets included.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
    /// Snapshots that it took: more than one when something kept the first from being whole.
    pub snapshots: u32,
}

/// Why a mesh was not exported. There is no file then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file cannot be written.
    #[error("{} cannot be written: {error}", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the operating system reported.
        error: std::io::Error,
    },
    /// There is something by that name.
    #[error("{} exists already; choose another name, or remove it", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The peer is one of a simulation, which has no files of its own.
    #[error("a simulated peer is not exported; export from a real one")]
    Simulated,
    /// The transaction layer refused.
    #[error(transparent)]
    Mesh(#[from] Error),
    /// No snapshot was whole.
    #[error("after {snapshots} snapshots none was whole: {why}")]
    NotWhole {
        /// How many were taken.
        snapshots: u32,
        /// What kept the last one from being whole.
        why: String,
    },
}

/// One attempt did not meet everything.
enum Trouble {
    Again(String),
    End(ExportError),
}

impl From<ExportError> for Trouble {
    fn from(error: ExportError) -> Self {
        Self::End(error)
    }
}

fn again(why: impl Into<String>) -> Trouble {
    Trouble::Again(why.into())
}

/// A file that is being written, under a name of its own. Whatever becomes of the export, it goes with this.
struct Partial(PathBuf);

impl Partial {
    /// Beside the file, under a name that nobody else has: somebody who writes to the same file goes on with it when it has
    /// got its final name.
    fn create(file: &Path) -> Result<(Self, File), ExportError> {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".partial-{:016x}", crate::transport::random_incarnation()));
        let name = PathBuf::from(name);
        match File::create_new(&name) {
            Ok(created) => Ok((Self(name), created)),
            Err(error) => Err(ExportError::Unwritable { file: name, error }),
        }
    }

    fn unwritable(&self, error: std::io::Error) -> ExportError {
        ExportError::Unwritable { file: self.0.clone(), error }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be removed has a name that says what it is.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The file while it is written, under another name.
struct Output {
    /// Elsewhere while something is written.
    writer: Option<Writer<BufWriter<File>>>,
    partial: Partial,
    met: BTreeSet<ObjectId>,
    /// On their way when they were told of, and not met yet.
    moving: BTreeSet<ObjectId>,
}

impl Output {
    fn create(file: &Path, header: &Header) -> Result<Self, ExportError> {
        let (partial, created) = Partial::create(file)?;
        let writer = Writer::new(BufWriter::new(created), header).map_err(|error| partial.unwritable(error))?;
        Ok(Self { writer: Some(writer), partial, met: BTreeSet::new(), moving: BTreeSet::new() })
    }

    fn take_writer(&mut self) -> Result<Writer<BufWriter<File>>, ExportError> {
        self.writer.take().ok_or_else(|| self.partial.unwritable(std::io::Error::other("writing to it failed before")))
    }

    /// Writes objects that were not met before, without holding up the runtime, and notes what is on its way.
    async fn put(&mut self, page: ScanPage) -> Result<Exported, Trouble> {
        self.moving.extend(page.moving.into_iter().filter(|object| !self.met.contains(object)));
        if self.moving.len() > MOVING_MAX {
            return Err(again(format!("more than {MOVING_MAX} objects are said to be on their way")));
        }
        let mut new = Vec::with_capacity(page.objects.len());
        for scanned in page.objects {
            self.moving.remove(&scanned.object);
            if self.met.insert(scanned.object) {
                new.extend(record(scanned)?);
            }
        }
        let mut writer = self.take_writer()?;
        let written = tokio::task::spawn_blocking(move || {
            new.iter().try_for_each(|record| writer.put(record))?;
            Ok(writer)
        });
        let written = written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let writer = self.writer.insert(written.map_err(|error| self.partial.unwritable(error))?);
        let (objects, bytes) = writer.written();
        Ok(Exported { objects, bytes, snapshots: 0 })
    }

    /// Ends the file, and gives it its name when it is on the disk.
    async fn finish(mut self, file: &Path) -> Result<Exported, ExportError> {
        let writer = self.take_writer()?;
        let (objects, _) = writer.written();
        let ended = tokio::task::spawn_blocking(move || {
            let written = writer.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            written.sync_all()?;
            Ok(written.metadata()?.len())
        });
        let ended = ended.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let bytes = ended.map_err(|error| self.partial.unwritable(error))?;
        let naming = Naming(Arc::new(Mutex::new(Named::NotYet(file.to_owned()))));
        let (named, partial) = (Arc::clone(&naming.0), self.partial.0.clone());
        let ended = tokio::task::spawn_blocking(move || give_name(&named, &partial));
        match ended.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => {
                naming.keep();
                Ok(Exported { objects, bytes, snapshots: 0 })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(ExportError::Exists { file: file.to_owned() })
            }
            Err(error) => Err(ExportError::Unwritable { file: file.to_owned(), error }),
        }
    }
}

/// How far a file is with its name.
enum Named {
    NotYet(PathBuf),
    Done(PathBuf),
    /// It stays, or is never to get it.
    Over,
}

/// A file that gets its name. Who gives the export up finds no file, whenever that is: it is taken back with this.
struct Naming(Arc<Mutex<Named>>);

impl Naming {
    fn take(&self) -> Named {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), Named::Over)
    }

    /// The file stays.
    fn keep(self) {
        self.take();
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        if let Named::Done(file) = self.take() {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Gives a file its name if it is still wanted, and ends when a crash of the machine would leave it that.
fn give_name(named: &Mutex<Named>, partial: &Path) -> std::io::Result<()> {
    let mut state = named.lock().unwrap_or_else(PoisonError::into_inner);
    let Named::NotYet(file) = &*state else { return Err(ErrorKind::Interrupted.into()) };
    let file = file.clone();
    name(partial, &file, |partial, file| std::fs::hard_link(partial, file))?;
    *state = Named::Done(file.clone());
    drop(state);
    let _ = std::fs::remove_file(partial);
    sync_directory(&file)
}

/// Never replaces what somebody else was faster with: a link fails then, unlike a rename.
fn name(partial: &Path, file: &Path, link: impl Fn(&Path, &Path) -> std::io::Result<()>) -> std::io::Result<()> {
    match link(partial, file) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    // Not every file system knows links. An empty file of one's own may be replaced.
    drop(File::create_new(file)?);
    std::fs::rename(partial, file).inspect_err(|_| {
        let _ = std::fs::remove_file(file);
    })
}

/// Until its directory is on the disk, a crash of the machine may leave a file without its name.
fn sync_directory(file: &Path) -> std::io::Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // One that may be written to and not read cannot be synced, and some file systems do not know what that is.
    let Ok(directory) = File::open(parent) else { return Ok(()) };
    match directory.sync_all() {
        Err(error) if [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()) => Ok(()),
        synced => synced,
    }
}

/// What has come to a peer since its first page.
struct Came {
    peer: PeerId,
    group: GroupId,
    /// The cursor of what was not met yet.
    from: u64,
}

impl Came {
    /// Meets what has come since the last time, each object once. What has left again is still moving.
    async fn meet(&mut self, snapshot: &Snapshot, output: &mut Output) -> Result<(), Trouble> {
        loop {
            let page = scan(snapshot, self.peer, self.from).await?;
            if page.group != self.group {
                return Err(again(format!("peer {} began anew with another group", self.peer)));
            }
            let next = page.next;
            self.from = next.unwrap_or_else(|| ARRIVALS_FROM.saturating_add(page.arrivals));
            output.put(page).await?;
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

impl Mesh {
    /// Writes one consistent snapshot of the whole mesh to a file, schedules and outcomes of tasks included, while
    /// everything goes on; see [`Builder::import`](crate::Builder::import). What commits afterwards is not in it, and what was told to other peers
    /// a moment ago may not be, as with every snapshot. `progress` is called with what is written so far, and when another
    /// snapshot is begun.
    ///
    /// The snapshot lives 60 s at most, so that is how long it may take; up to ten are tried. Cancel safe: dropped before it
    /// is ready, nothing is left of the file.
    ///
    /// # Errors
    /// When the file exists or cannot be written, or no snapshot was whole because peers are out of reach, groups are led
    /// by nobody or in place of lost peers, or old versions, or what schedules were, was gone too soon.
    pub async fn export(&self, file: &Path, mut progress: impl FnMut(Exported)) -> Result<Exported, ExportError> {
        if self.host.shared.is_simulated() {
            return Err(ExportError::Simulated);
        }
        if file.exists() {
            return Err(ExportError::Exists { file: file.to_owned() });
        }
        let mut last = String::new();
        for snapshots in 1..=SNAPSHOTS_MAX {
            progress(Exported { snapshots, ..Exported::default() });
            match self.export_once(file, snapshots, &mut progress).await {
                Ok(exported) => return Ok(Exported { snapshots, ..exported }),
                Err(Trouble::End(error)) => return Err(error),
                Err(Trouble::Again(why)) => last = why,
            }
            if snapshots < SNAPSHOTS_MAX {
                tracing::info!(why = last, "the snapshot is not whole; another one is taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(ExportError::NotWhole { snapshots: SNAPSHOTS_MAX, why: last })
    }

    async fn export_once(
        &self,
        file: &Path,
        snapshots: u32,
        progress: &mut impl FnMut(Exported),
    ) -> Result<Exported, Trouble> {
        self.all_led()?;
        let peers = self.everybody();
        let snapshot = self.snapshot().map_err(ExportError::from)?;
        let header = Header { mesh: self.host.shared.identity.mesh.clone(), snapshot: snapshot.timestamp() };
        let mut output = Output::create(file, &header)?;
        let mut begun = Vec::new();
        for peer in &peers {
            let first = scan(&snapshot, *peer, 0).await?;
            begun.push(Came { peer: *peer, group: first.group, from: ARRIVALS_FROM.saturating_add(first.arrivals) });
            let mut next = Some(first);
            while let Some(page) = next.take() {
                let after = page.next;
                progress(Exported { snapshots, ..output.put(page).await? });
                if let Some(cursor) = after {
                    next = Some(scan(&snapshot, *peer, cursor).await?);
                }
            }
        }
        // After all pages: what was being sent when its sender was scanned has arrived since, or is still on its way. What has
        // left again is met where it arrives next.
        for round in 1_u32.. {
            for came in &mut begun {
                came.meet(&snapshot, &mut output).await?;
            }
            let Some(object) = output.moving.first() else { break };
            if round >= ROUNDS_MAX {
                return Err(again(format!("object {object} does not arrive anywhere")));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        self.all_led()?;
        if self.everybody() != peers {
            return Err(again("peers have come or gone meanwhile"));
        }
        Ok(output.finish(file).await?)
    }

    fn everybody(&self) -> BTreeSet<PeerId> {
        self.peers().into_iter().chain([self.peer_id()]).collect()
    }

    fn all_led(&self) -> Result<(), Trouble> {
        let status = self.status();
        match status.leaderless.first() {
            Some(group) => Err(again(format!("nobody in reach leads group {group}"))),
            None if status.genesis.is_none() => Err(again("this peer does not belong to a mesh yet")),
            None => Ok(()),
        }
    }
}

async fn scan(snapshot: &Snapshot, owner: PeerId, cursor: u64) -> Result<ScanPage, Trouble> {
    match tokio::time::timeout(PAGE_MAX, snapshot.scan(owner, cursor)).await {
        Err(_) => Err(again(format!("peer {owner} does not answer"))),
        Ok(Err(error)) => Err(again(error.to_string())),
        Ok(Ok(page)) if page.caretaken > 0 => {
            let count = page.caretaken;
            Err(again(format!("peer {owner} still moves {count} objects of a lost peer")))
        }
        Ok(Ok(page)) if !page.whole => Err(again(format!("too much moves to and from peer {owner}"))),
        Ok(Ok(page)) => Ok(page),
    }
}

/// What the file says of an object; nothing if it did not exist at the snapshot.
fn record(scanned: Scanned) -> Result<Option<Record>, Trouble> {
    let Scanned { object, epoch, seen, kept } = scanned;
    let value = match seen {
        // R25: the import would refuse the file for it.
        Seen::Version { value: Some(value), .. } if value.len() > OBJECT_BYTES_MAX => {
            return Err(again(format!("object {object} is said to have {} bytes", value.len())));
        }
        Seen::Version { value: Some(value), .. } => value,
        Seen::Version { value: None, .. } | Seen::NotYetCreated => return Ok(None),
        Seen::TooOld => return Err(again(format!("the version of object {object} is not kept any more"))),
    };
    let kept = match kept {
        KeptSeen::Nothing => None,
        // R25: the import would refuse the file for it.
        KeptSeen::Kept(kept) if !kept.are_sound() => {
            return Err(again(format!("object {object} keeps of tasks what no object can")));
        }
        KeptSeen::Kept(kept) => Some(kept),
        KeptSeen::TooOld => {
            return Err(again(format!("what the schedules of object {object} were is not kept any more")));
        }
    };
    Ok(Some(Record { object, epoch, value, kept }))
}

/// Fills a peer that has just founded its mesh from a file. An error may come after a part was taken in: the peer must
/// not be used then.
pub(crate) fn import(peer: &mut Peer, file: &Path, now: impl Fn() -> Now) -> Result<u64, ImportError> {
    let name = file.display().to_string();
    let opened = File::open(file);
    let opened = opened.map_err(|error| ImportError::Unreadable { file: name.clone(), error: error.to_string() })?;
    let (mut reader, header) = Reader::open(BufReader::new(opened), &name)?;
    tracing::info!(file = %name, mesh = %header.mesh, "importing");
    let mut known = BTreeSet::new();
    let (mut writes, mut kept, mut bytes, mut count) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(record) = reader.next()? {
        if !known.insert(record.object) {
            return Err(ImportError::Damaged { file: name, what: format!("object {} is in it twice", record.object) });
        }
        count += 1;
        bytes += record.value.len();
        writes.push(Write { object: record.object, value: Some(record.value) });
        if let Some(outcomes) = record.kept {
            kept.push(Imported { object: record.object, outcomes });
            bytes += kept.last().map_or(0, Imported::cost);
        }
        if writes.len() >= IMPORT_OBJECTS || kept.len() >= TRANSFERS_MAX || bytes >= IMPORT_BYTES {
            bytes = 0;
            peer.import(now(), std::mem::take(&mut writes), std::mem::take(&mut kept));
            fits(peer, &name)?;
        }
    }
    if !writes.is_empty() {
        peer.import(now(), writes, kept);
    }
    fits(peer, &name)?;
    Ok(count)
}

/// R24: what is imported must be such as the peer may hold.
fn fits(peer: &Peer, file: &str) -> Result<(), ImportError> {
    let full = peer.beyond_room();
    full.map_or(Ok(()), |full| Err(ImportError::NoRoom { file: file.to_owned(), full }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_name_without_links_too_and_replaces_nothing() {
        let base = std::env::temp_dir().join(format!("dm-name-{:016x}", crate::transport::random_incarnation()));
        std::fs::create_dir(&base).unwrap();
        let (partial, file) = (base.join("partial"), base.join("file"));
        let unlinked = |_: &Path, _: &Path| Err(ErrorKind::PermissionDenied.into());
        std::fs::write(&partial, "new").unwrap();
        std::fs::write(&file, "old").unwrap();
        assert_eq!(name(&partial, &file, unlinked).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        std::fs::remove_file(&file).unwrap();
        name(&partial, &file, unlinked).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert!(name(&partial, &base.join("other"), unlinked).is_err(), "there is nothing to name");
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 1, "no empty file is left");
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_file_that_is_given_up_has_no_name() {
        let base = std::env::temp_dir().join(format!("dm-name-{:016x}", crate::transport::random_incarnation()));
        std::fs::create_dir(&base).unwrap();
        let (partial, file) = (base.join("partial"), base.join("file"));
        for (is_late, is_kept) in [(false, false), (true, false), (true, true)] {
            std::fs::write(&partial, "new").unwrap();
            let naming = Naming(Arc::new(Mutex::new(Named::NotYet(file.clone()))));
            let named = Arc::clone(&naming.0);
            if is_late {
                give_name(&named, &partial).unwrap();
            }
            if is_kept {
                naming.keep()
            } else {
                drop(naming)
            }
            assert_eq!(file.exists(), is_kept);
            if !is_late {
                assert!(give_name(&named, &partial).is_err() && !file.exists());
            }
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
