//! How the program ends: a code for scripts, and one message for people.
//!
//! It refuses codes that say how something failed where what to do is the same: those differ whose cure does.

use driftmesh::StartError;
use driftmesh::transport;
use std::process::ExitCode;

/// The exit codes, as `--help` shows them. A process that was killed has none of these.
pub(super) const HELP: &str = "\
Exit codes:
  0  ended as asked
  1  failed for another reason, also at the peer that was asked
  2  the command line, the secret file, the file to import or an address is wrong
  3  the port is taken, or cannot be listened at
  4  the mesh refused this peer: name, secret, genesis or protocol version; or another process counts as it
  5  no peer of the mesh could be reached, or no mesh was founded, in time
  6  the control socket cannot be created, or no peer answers there
  7  the object was not found
  8  the peer refuses the command, and nothing has changed (of promote see its help)
  130  ended at once by a second Ctrl-C";

/// Why the program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// Ended as asked.
    Success,
    /// Failed for another reason.
    Other,
    /// The command line, the secret file, the file to import or an address is wrong.
    Usage,
    /// The port is taken, or cannot be listened at.
    Port,
    /// The mesh refused this peer, or another process counts as it now.
    Refused,
    /// No peer of the mesh could be reached, or no mesh was founded, in time.
    Unreachable,
    /// The control socket cannot be created, or no peer answers there.
    Control,
    /// The object was not found.
    NotFound,
    /// The peer refuses the command, and nothing has changed; but see `Mesh::promote`.
    Declined,
    /// Ended at once by a second Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Other => 1,
            Exit::Usage => 2,
            Exit::Port => 3,
            Exit::Refused => 4,
            Exit::Unreachable => 5,
            Exit::Control => 6,
            Exit::NotFound => 7,
            Exit::Declined => 8,
            Exit::Interrupted => 130,
        })
    }
}

/// An end with a message: what happened, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<StartError> for Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow; a new one is no usage error")]
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Transport(
                transport::StartError::PortTaken { .. }
                | transport::StartError::AddressNotLocal { .. }
                | transport::StartError::PortForbidden { .. }
                | transport::StartError::ListenFailed { .. },
            ) => Exit::Port,
            StartError::Transport(
                transport::StartError::UnsupportedAddress { .. }
                | transport::StartError::MeshName { .. }
                | transport::StartError::TooManyAddresses { .. },
            )
            | StartError::Address(_)
            | StartError::ListenAddress { .. }
            | StartError::NotLoopback { .. }
            | StartError::EmptySecret
            | StartError::NewAndJoin
            | StartError::OneWayToFound
            | StartError::Expect { .. }
            | StartError::Replicas { .. }
            | StartError::Import(_)
            | StartError::ImportWithoutNew => Exit::Usage,
            StartError::Refused { .. } => Exit::Refused,
            StartError::Unreachable { .. } | StartError::NotFounded { .. } => Exit::Unreachable,
            _ => Exit::Other,
        };
        let hint = match &error {
            StartError::NotLoopback { .. } => " (--secret FILE, or --open)",
            StartError::Unreachable { .. } | StartError::NotFounded { .. } => " (--join-timeout 0 waits for ever)",
            _ => "",
        };
        Self::new(exit, format!("{error}{hint}"))
    }
}
