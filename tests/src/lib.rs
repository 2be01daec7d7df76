//! What the tests share: certificates, a scripted transport with a TLS peer, a forge of odd records, OpenSSL as a peer, and servers with
//! their clients over loopback.

mod configuration;
mod end;
mod forge;
pub mod hostile;
#[cfg(feature = "servers")]
pub mod log;
pub mod one_record;
#[cfg(feature = "servers")]
pub mod openssl_peer;
mod peer;
pub mod scripted;
#[cfg(feature = "servers")]
pub mod serving;
pub mod time;
mod wire;
#[cfg(feature = "servers")]
pub mod witness;

/// The parts of a [`Wire`]'s script.
pub mod wire_script {
    pub use crate::wire::{Buffering, Done, Full, Script, Then};
}

pub use configuration::{VERSIONS, certificate, client_config, mutual_tls, server_config};
pub use end::End;
pub use forge::Forge;
pub use peer::{Peer, Side, connect, connect_over, connect_with};
pub use time::soon;
pub use wire::Wire;

/// The examples of the README. They are tested here, since the package of the library does not contain the file.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
