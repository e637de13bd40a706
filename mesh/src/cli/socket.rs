//! Control sockets in the file system: where they are, and how they come and go.
//!
//! It refuses to let anybody but the owner touch a socket at any moment: it is bound inside a directory that only the
//! owner can enter, and gets its final name when its own mode is right. It never replaces a file it did not find dead, and
//! of several that find one dead only one does at a time.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How the directories of sockets without a path of their own begin.
const DIRECTORY_PREFIX: &str = "driftmesh-";
/// The name of the socket in such a directory.
const SOCKET_NAME: &str = "control.sock";

/// How long somebody else may take to bind a socket in the same directory, and how often that is looked at.
const TURN_MAX: Duration = Duration::from_secs(2);
const TURN_TICK: Duration = Duration::from_millis(5);
/// A process that does not take a connection for so long stands still.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// What nobody listens at for so long after it was bound is left of a process that is gone. Between the two calls that bind
/// and listen it looks the same.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// A bound control socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct BoundSocket {
    path: PathBuf,
    /// Removed too, when the socket has a directory of its own.
    directory: Option<PathBuf>,
    /// Device and inode, so that only the very file is removed.
    identity: (u64, u64),
}

impl BoundSocket {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // What cannot be removed is found dead by the next one who looks: see `running`.
            let _ = fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The directories in which sockets without a path of their own are.
fn bases() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let mut bases: Vec<PathBuf> = runtime.into_iter().collect();
    let temporary = std::env::temp_dir();
    if !bases.contains(&temporary) {
        bases.push(temporary);
    }
    bases
}

/// Makes a new directory that only the owner can enter.
fn private_directory(base: &Path, prefix: &str) -> io::Result<PathBuf> {
    // `mkdir` fails on anything that exists, links included, so a name that somebody guessed does no harm.
    let path =
        base.join(format!("{prefix}{}-{:08x}", std::process::id(), driftmesh::transport::random_incarnation() >> 32));
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// Binds a control socket: at the path, or in a new directory of its own.
///
/// # Errors
/// When the path is in use, or the file system refuses.
pub(super) fn bind(path: Option<&Path>) -> io::Result<(UnixListener, BoundSocket)> {
    match path {
        Some(path) => bind_at(path),
        None => bind_anywhere(),
    }
}

fn bind_anywhere() -> io::Result<(UnixListener, BoundSocket)> {
    let base = bases().swap_remove(0);
    let directory = private_directory(&base, DIRECTORY_PREFIX)?;
    let path = directory.join(SOCKET_NAME);
    let bound = UnixListener::bind(&path).and_then(|listener| {
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok((listener, identity(&fs::symlink_metadata(&path)?)))
    });
    match bound {
        Ok((listener, identity)) => Ok((listener, BoundSocket { path, directory: Some(directory), identity })),
        Err(error) => {
            let _ = fs::remove_dir_all(&directory);
            Err(error)
        }
    }
}

fn bind_at(path: &Path) -> io::Result<(UnixListener, BoundSocket)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Until the new socket has its name: who found the old one dead must not remove a new one.
    let _turn = turn(parent)?;
    remove_if_dead(path)?;
    let directory = private_directory(parent, ".dm")?;
    let inside = directory.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        // Unlike a rename, a link fails when somebody else was faster.
        fs::hard_link(&inside, path)?;
        Ok((listener, identity(&fs::symlink_metadata(path)?)))
    });
    let _ = fs::remove_dir_all(&directory);
    let (listener, identity) = bound?;
    Ok((listener, BoundSocket { path: path.to_owned(), directory: None, identity }))
}

/// Waits until nobody else binds a socket in the directory, for as long as the result is kept; `None` where the file system
/// knows no such locks. The lock is on the directory itself, so that no file is left of it.
fn turn(directory: &Path) -> io::Result<Option<File>> {
    let directory = File::open(directory)?;
    let begun = Instant::now();
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(Some(directory)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < TURN_MAX => std::thread::sleep(TURN_TICK),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another process keeps its directory locked"));
            }
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
}

/// Makes way for a new socket where a process left one behind that nobody listens at.
fn remove_if_dead(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| Err(io::Error::new(ErrorKind::AddrInUse, what.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => in_use("it exists and is no socket"),
        Ok(_) => match connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
            Ok(_) | Err(_) => in_use("another process uses it"),
        },
    }
}

/// Connects to a socket, and waits no longer than two seconds for that: a process that stands still takes no more
/// connections once its queue is full.
///
/// # Errors
/// As connecting has; `TimedOut`.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (teller, told) = mpsc::sync_channel(1);
    let path = path.to_owned();
    // The system has no such call with a limit. The thread ends when the process there takes the connection, or is gone.
    std::thread::Builder::new().spawn(move || {
        let _ = teller.send(UnixStream::connect(path));
    })?;
    told.recv_timeout(CONNECT_MAX).unwrap_or_else(|_| {
        let message = format!("it takes no connection within {} s", CONNECT_MAX.as_secs());
        Err(io::Error::new(ErrorKind::TimedOut, message))
    })
}

/// The control sockets of peers that run on this machine and that this user may ask, sorted. What is left of processes of
/// this user that are gone is removed.
pub(super) fn running() -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    for base in bases() {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            // Only its owner can enter a private directory, so what is in it was put there by this user.
            let is_private = found.is_dir() && found.mode() & 0o077 == 0;
            if !is_private || !entry.file_name().to_string_lossy().starts_with(DIRECTORY_PREFIX) {
                continue;
            }
            let socket = entry.path().join(SOCKET_NAME);
            match connect(&socket) {
                Ok(_) => sockets.push(socket),
                // It runs, though it stands still.
                Err(error) if error.kind() == ErrorKind::TimedOut => sockets.push(socket),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_own(&found) => {
                    remove_if_old(&socket, DEAD_AFTER);
                }
                Err(_) => {}
            }
        }
    }
    sockets.sort();
    sockets
}

/// Whether the user of this process owns it; `root` could enter the directories of others too.
fn is_own(found: &fs::Metadata) -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == found.uid())
}

/// Removes a dead socket with its directory.
fn remove_if_old(socket: &Path, least: Duration) {
    let age = fs::symlink_metadata(socket).and_then(|found| found.modified());
    let is_old = age.is_ok_and(|bound| bound.elapsed().is_ok_and(|age| age >= least));
    if is_old
        && fs::remove_file(socket).is_ok()
        && let Some(directory) = socket.parent()
    {
        let _ = fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_and_goes_with_its_process() {
        let base = private_directory(&std::env::temp_dir(), "dmtest-").unwrap();
        let path = base.join("c.sock");
        let (listener, bound) = bind(Some(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1, "nothing else is left");
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(bind(Some(&path)).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(bound);
        assert!(!path.exists());
        drop(listener);
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_dead_socket_makes_way_and_another_file_does_not() {
        let base = private_directory(&std::env::temp_dir(), "dmtest-").unwrap();
        let path = base.join("c.sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(bind(Some(&path)).unwrap());
        fs::write(&path, "mine").unwrap();
        assert_eq!(bind(Some(&path)).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn of_many_that_find_a_dead_socket_one_is_bound_and_stays() {
        let base = private_directory(&std::env::temp_dir(), "dmtest-").unwrap();
        let path = base.join("c.sock");
        for _ in 0..50 {
            drop(UnixListener::bind(&path).unwrap());
            let together = std::sync::Barrier::new(8);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            together.wait();
                            bind(Some(&path)).ok()
                        })
                    })
                    .collect();
                starts.into_iter().filter_map(|start| start.join().unwrap()).collect()
            });
            assert_eq!(bound.len(), 1);
            assert!(UnixStream::connect(&path).is_ok(), "nobody took it away");
            drop(bound);
            assert!(!path.exists());
        }
        fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn a_socket_without_a_path_is_found() {
        let (_listener, bound) = bind(None).unwrap();
        assert!(running().contains(&bound.path().to_owned()));
        let path = bound.path().to_owned();
        drop(bound);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn what_a_process_left_behind_is_removed_when_it_is_old() {
        let (listener, bound) = bind(None).unwrap();
        let directory = bound.path().parent().unwrap().to_owned();
        let socket = bound.path().to_owned();
        drop(listener);
        // Killed: nothing is tidied up.
        std::mem::forget(bound);
        assert!(!running().contains(&socket));
        assert!(socket.exists(), "it may be about to listen");
        // Its age cannot be set.
        remove_if_old(&socket, Duration::ZERO);
        assert!(!directory.exists());
    }

    #[test]
    fn a_process_that_takes_no_connection_is_not_waited_for() {
        let base = private_directory(&std::env::temp_dir(), "dmtest-").unwrap();
        let path = base.join("c.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let begun = Instant::now();
        let mut queued = Vec::new();
        let error = loop {
            match connect(&path) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 100_000, "its queue has no end");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(60));
        fs::remove_dir_all(&base).unwrap();
    }
}
