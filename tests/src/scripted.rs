//! What the tests over a scripted transport share.

use std::task::Poll;

use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tls_shutdown::{AsyncShutdown, Ending, ShutdownError, ShutdownPolicy, ShutdownReport, ShutdownStream};
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio_rustls::TlsStream;
use tokio_test::{assert_ready, task};

use crate::{Side, VERSIONS, Wire, client_config, connect_with, server_config};

/// A client that has a ticket of the server, and sends early data with it.
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
/// What a shutdown of it gives.
pub type Outcome = Result<ShutdownReport, ShutdownError>;

/// The policy, with its defaults.
pub const BIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::bidirectional();
/// The policy, with its defaults.
pub const UNIDIRECTIONAL: ShutdownPolicy = ShutdownPolicy::unidirectional();
/// The policy, with its defaults.
pub const RECEIVE_FIRST: ShutdownPolicy = ShutdownPolicy::receive_first();
/// The policies that send anything.
pub const POLICIES: [ShutdownPolicy; 3] = [UNIDIRECTIONAL, BIDIRECTIONAL, RECEIVE_FIRST];

/// Both sides, in both versions.
pub fn each_kind() -> impl Iterator<Item = (Side, &'static SupportedProtocolVersion)> {
    Side::BOTH.into_iter().flat_map(|side| VERSIONS.map(|version| (side, version)))
}

/// How a shutdown ended, well or not.
pub fn ending(outcome: Outcome) -> Ending {
    outcome.map_or_else(|error| error.ending(), |report| report.ending())
}

/// A shutdown to be polled by hand, with no budget, since the test's own is never renewed.
pub fn shut_down(
    stream: &mut Stream,
    policy: ShutdownPolicy,
) -> task::Spawn<Unconstrained<AsyncShutdown<&mut Stream>>> {
    task::spawn(unconstrained(stream.shutdown_with(policy)))
}

/// Polls a shutdown that must not need to wait, but for a turn of the runtime or two.
pub fn shut_down_now(stream: &mut Stream, policy: ShutdownPolicy) -> Outcome {
    let mut closing = shut_down(stream, policy);
    for _ in 0..3 {
        if let Poll::Ready(outcome) = closing.poll() {
            return outcome;
        }
    }
    assert_ready!(closing.poll())
}
