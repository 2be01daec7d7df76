//! Session tickets under given keys.

use std::{net::SocketAddr, sync::Arc};

use proptest::prelude::*;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, crypto::ring::default_provider, server::ProducesTickets};
use tls_shutdown::server::{ConfigHandle, TicketKey, TicketKeys, TlsListener};
use tls_shutdown_tests::{VERSIONS, client_config, server_config, serving::Client};

use crate::listener::serve_and_close;

const OLD: [u8; 32] = [1; 32];

const NEW: [u8; 32] = [2; 32];

const OTHER: [u8; 32] = [3; 32];

fn keys(keys: &[[u8; 32]]) -> TicketKeys {
    TicketKeys::new(keys.iter().copied().map(TicketKey::new), &Arc::new(default_provider())).expect("an AEAD")
}

fn config(version: &'static rustls::SupportedProtocolVersion, with: &[[u8; 32]]) -> ServerConfig {
    let mut config = server_config(version);
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = Arc::new(keys(with));
    config
}

/// Starts a server with these keys. It shuts each connection down.
async fn serve(version: &'static rustls::SupportedProtocolVersion, with: &[[u8; 32]]) -> SocketAddr {
    serve_replaceable(version, with).await.0
}

async fn serve_replaceable(
    version: &'static rustls::SupportedProtocolVersion,
    with: &[[u8; 32]],
) -> (SocketAddr, ConfigHandle) {
    let listener = TlsListener::bind("127.0.0.1:0", config(version, with)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let handle = listener.config_handle();
    serve_and_close(listener);
    (address, handle)
}

#[tokio::test]
async fn keys_are_rotated_while_the_listener_runs() {
    for version in VERSIONS {
        let (address, handle) = serve_replaceable(version, &[OLD]).await;
        let client = client_config(version);
        for (with, expected) in [
            (&[OLD][..], HandshakeKind::Full),
            (&[NEW, OLD], HandshakeKind::Resumed),
            (&[NEW], HandshakeKind::Resumed),
            (&[OTHER], HandshakeKind::Full),
        ] {
            handle.replace(config(version, with));
            // In TLS 1.2 a resumed session keeps its ticket, in TLS 1.3 there is a new one.
            let client = if version.version == ProtocolVersion::TLSv1_2 && with == [NEW] { continue } else { &client };
            let mut connection = Client::connect_with(address, client.clone()).await;
            connection.read_to_end().await;
            assert_eq!(connection.stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn sessions_are_resumed_where_one_of_the_keys_is_known() {
    for version in VERSIONS {
        for (first, second, expected) in [
            (&[OLD][..], &[OLD][..], HandshakeKind::Resumed),
            (&[OLD], &[NEW, OLD], HandshakeKind::Resumed),
            (&[NEW, OLD], &[NEW], HandshakeKind::Resumed),
            (&[OLD], &[NEW], HandshakeKind::Full),
            (&[OLD], &[NEW, OTHER], HandshakeKind::Full),
        ] {
            let client = client_config(version);
            let mut at_first = Client::connect_with(serve(version, first).await, client.clone()).await;
            at_first.read_to_end().await;
            assert_eq!(at_first.stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            let mut at_second = Client::connect_with(serve(version, second).await, client).await;
            at_second.read_to_end().await;
            let kind = at_second.stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{version:?}: {} then {} keys", first.len(), second.len());
        }
    }
}

proptest! {
    #[test]
    fn what_is_no_ticket_opens_nothing(garbage in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        prop_assert_eq!(keys(&[NEW, OLD]).decrypt(&garbage), None);
    }

    #[test]
    fn a_ticket_opens_whole_and_unchanged_alone(
        state in proptest::collection::vec(any::<u8>(), 0..3000), at in any::<proptest::sample::Index>(), bit in 0..8_u8
    ) {
        let keys = keys(&[NEW]);
        let mut ticket = keys.encrypt(&state).expect("sealed");
        prop_assert_ne!(&ticket, &keys.encrypt(&state).expect("sealed"), "each has an IV of its own");
        prop_assert_eq!(keys.decrypt(&ticket), Some(state));
        let at = at.index(ticket.len());
        prop_assert_eq!(keys.decrypt(&ticket[..at]), None);
        ticket[at] ^= 1_u8 << bit;
        prop_assert_eq!(keys.decrypt(&ticket), None);
    }
}

#[test]
fn large_states_are_kept_or_given_up_and_never_panic() {
    for length in [16_000, 16_384, 16_385, 17_000, 65_000, 70_000] {
        let keys = keys(&[NEW]);
        if let Some(ticket) = keys.encrypt(&vec![7; length]) {
            let opened = keys.decrypt(&ticket);
            assert!(opened.is_none_or(|state| state == vec![7; length]), "{length}");
        }
    }
}
