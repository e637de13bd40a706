//! What fuzz targets reach of this crate beside the transport: the file of an export, and addresses that users write.
//!
//! Only in builds for tests of Driftmesh itself (feature `testing`), and no part of what users may rely on.

use crate::snapshot_file::{Header, ImportError, Reader, Record, Writer};
use crate::{StartError, addresses};
use driftmesh_model::{Epoch, ObjectId, Timestamp, Value};
use driftmesh_object_store::Outcomes;
use libp2p::Multiaddr;
use std::io;

pub use crate::transport::fuzzing::*;

/// All that a file of an export says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportFile {
    /// The name of the mesh.
    pub mesh: String,
    /// The snapshot that it shows.
    pub snapshot: Timestamp,
    /// The objects: id, epoch, value, and what they keep of tasks.
    pub objects: Vec<(ObjectId, Epoch, Value, Option<Box<Outcomes>>)>,
}

impl ExportFile {
    /// Reads a file from its beginning to its end.
    ///
    /// # Errors
    /// When it is not whole, or something else.
    pub fn read(bytes: &[u8]) -> Result<Self, ImportError> {
        let (mut reader, Header { mesh, snapshot }) = Reader::open(bytes, "file")?;
        let mut objects = Vec::new();
        while let Some(Record { object, epoch, value, kept }) = reader.next()? {
            objects.push((object, epoch, value, kept));
        }
        Ok(Self { mesh, snapshot, objects })
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// When something does not encode.
    pub fn write(&self) -> io::Result<Vec<u8>> {
        let header = Header { mesh: self.mesh.clone(), snapshot: self.snapshot };
        let mut writer = Writer::new(Vec::new(), &header)?;
        for (object, epoch, value, kept) in &self.objects {
            let (object, epoch, value, kept) = (*object, *epoch, value.clone(), kept.clone());
            writer.put(&Record { object, epoch, value, kept })?;
        }
        writer.finish()
    }
}

/// Reads an address to listen at.
///
/// # Errors
/// When it cannot be listened at.
pub fn listen_address(text: &str) -> Result<Multiaddr, StartError> {
    addresses::parse_listen(text)
}

/// Whether nobody outside of this machine can use the address.
#[must_use]
pub fn is_loopback(address: &Multiaddr) -> bool {
    addresses::is_loopback(address)
}

/// The address without its `/p2p/` part.
#[must_use]
pub fn place(address: &Multiaddr) -> Multiaddr {
    addresses::place(address)
}
