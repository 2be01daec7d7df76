//! [`ListenerInDrain`]: what a drain knows of a listener.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use crate::tls::Reaper;

/// The parts of a listener that the drain waits for and counts.
pub(crate) struct ListenerInDrain {
    pub(crate) delivery: Delivery,
    pub(crate) reaper: Reaper,
    pub(crate) shed: Arc<AtomicU64>,
    pub(crate) user: ListenerUser,
}

/// Who accepts the connections of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListenerUser {
    /// A server that follows the phases of the drain.
    #[default]
    Drained,
    /// A server of another project, which is told when the [window](super::DrainHandle::last_request_over) is over.
    Framework,
}

/// How one learns whether what was sent on a listener's connections has reached the peers' systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The kernel knows what is acknowledged on connections that were accepted at this address.
    Acknowledged(SocketAddr),
    /// What a Unix socket accepts is at the peer.
    AtOnce,
    Unknown,
}
