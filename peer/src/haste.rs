//! Which messages go before others to the same peer: those by which its receivers tell that somebody lives, and that
//! commits become stable by.
//!
//! Behind the requests of an overload they would come too late, and the group would go on without its leader. It refuses to
//! let anything depend on their order: a network keeps none.

use crate::Message;
use driftmesh_object_store::GroupMessage;

impl Message {
    /// Whether it goes before messages that are not.
    #[must_use]
    pub const fn is_in_haste(&self) -> bool {
        matches!(self, Self::Heartbeat { .. } | Self::Group { message: GroupMessage::Consensus(_), .. })
    }
}
