//! Closings over a scripted transport, polled by hand.

use std::task::Poll;

use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tls_shutdown::{AsyncShutdown, Ending, PeerData, ShutdownError, ShutdownPolicy, ShutdownReport, ShutdownStream};
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio_rustls::TlsStream;
use tokio_test::{assert_ready, task};

use crate::{Side, VERSIONS, Wire, client_config, connect_with, server_config};

/// The configurations of a client that can send early data, since it has a ticket, and of its server.
pub fn with_ticket_for_early_data() -> (ClientConfig, ServerConfig) {
    let version = &rustls::version::TLS13;
    let mut client = client_config(version);
    client.enable_early_data = true;
    let mut server = server_config(version);
    server.max_early_data_size = 16_384;
    let (mut first, mut peer) = connect_with(Side::Client, client.clone(), server.clone());
    peer.close_notify();
    shut_down_now(&mut first, BIDIRECTIONAL).expect("a ticket");
    (client, server)
}

/// The stream under test.
pub type Stream = ShutdownStream<TlsStream<Wire>>;
/// What its shutdown returns.
pub type Outcome = Result<ShutdownReport, ShutdownError>;

/// `bidirectional` with its defaults.
pub const BIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::bidirectional();
/// `unidirectional` with its defaults.
pub const UNIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::unidirectional();
/// `receive_first` with its defaults.
pub const RECEIVE_FIRST: ShutdownPolicy = ShutdownPolicy::receive_first();
/// The policy that fails over unread data.
pub const REJECT: ShutdownPolicy = BIDIRECTIONAL.with_peer_data(PeerData::Reject);
/// The policies that send anything.
pub const POLICIES: [ShutdownPolicy; 3] = [UNIDIRECTIONAL, BIDIRECTIONAL, RECEIVE_FIRST];

/// Both sides, in both versions.
pub fn each_kind() -> impl Iterator<Item = (Side, &'static SupportedProtocolVersion)> {
    Side::BOTH.into_iter().flat_map(|side| VERSIONS.map(|version| (side, version)))
}

/// The ending of a shutdown, also of one that failed.
pub fn ending(outcome: Outcome) -> Ending {
    outcome.map_or_else(|error| error.ending(), |report| report.ending())
}

/// Starts a shutdown that is polled by hand. It has no cooperative budget, since nothing renews that of the test.
pub fn shut_down(
    stream: &mut Stream,
    policy: ShutdownPolicy,
) -> task::Spawn<Unconstrained<AsyncShutdown<TlsStream<Wire>, &mut Stream>>> {
    task::spawn(unconstrained(stream.shutdown_with(policy)))
}

/// Polls a shutdown that ends without waiting for anything but a turn or two of the runtime.
pub fn shut_down_now(stream: &mut Stream, policy: ShutdownPolicy) -> Outcome {
    let mut closing = shut_down(stream, policy);
    for _ in 0..3 {
        if let Poll::Ready(outcome) = closing.poll() {
            return outcome;
        }
    }
    assert_ready!(closing.poll())
}
