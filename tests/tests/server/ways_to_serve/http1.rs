//! HTTP/1. The accept loop is tested too if it can do the same.

use futures_util::FutureExt;
use tls_shutdown::server::DrainPhase;
use tls_shutdown_tests::{
    End,
    serving::{
        Framework, GET,
        Integration::{self, AcceptLoop, PlainServer, UnixServer},
        Site,
    },
    time::{leap, rest},
};

use crate::ways_to_serve::{CONNECTIONS, SHORT, all, each};

#[tokio::test]
async fn an_idle_connection_has_its_window() {
    for integration in Integration::http1().into_iter().filter(|integration| integration.is_layered()) {
        let mut site = Site::start(integration).await;
        let idle = each(async || {
            let mut client = site.connect().await;
            client.is_served().await;
            client
        });
        let idle = idle.await;
        site.drain().await;
        all(idle, async |mut client| client.is_served_last(GET).await).await;
        assert_eq!(site.ends_completely().await.requests(), CONNECTIONS as u64);
    }
}

#[tokio::test]
async fn an_idle_connection_gets_close_notify_at_the_end_of_its_window() {
    for integration in Integration::http1().into_iter().chain([AcceptLoop]) {
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let idle = each(async || {
            let mut client = site.connect().await;
            match integration {
                AcceptLoop => {
                    client.send("hello\n").await;
                    assert_eq!(client.read_until("\n").await, "hello\n");
                }
                _ => client.is_served().await,
            }
            client
        });
        let idle = idle.await;
        site.drain().await;
        all(idle, async |mut client| {
            assert_eq!(client.read_to_end_and_close().await, (String::new(), integration.orderly_end()))
        })
        .await;
        let report = site.ends_completely().await;
        assert!(report.time_in(DrainPhase::LastRequest) >= SHORT, "{integration:?}: {report}");
    }
}

#[tokio::test]
async fn half_a_request_is_served_when_the_rest_comes() {
    for integration in Integration::http1() {
        let mut site = Site::start(integration).await;
        let half = each(async || {
            let mut client = site.connect().await;
            client.send(&GET[..20]).await;
            client
        });
        let half = half.await;
        site.drain().await;
        all(half, async |mut client| {
            client.send(&GET[20..]).await;
            site.answers_last(client, "hello").await;
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn a_response_in_progress_is_finished() {
    for integration in Integration::http1() {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.connect().await;
            client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert!(client.head().await.contains("chunked"));
            client
        });
        let begun = begun.await;
        site.drain().await;
        site.release();
        all(begun, async |mut client| {
            // The head was sent before the drain, without `Connection: close`. So the client still has its window.
            let chunks = client.read_until("\r\n0\r\n\r\n").await;
            assert_eq!(chunks, "6\r\nbegun,\r\n8\r\nreleased\r\n0\r\n\r\n");
            site.serves_last(client).await;
        })
        .await;
        site.ends_completely().await;
    }
}

/// Its head was out before the drain, without `Connection: close`.
#[tokio::test]
async fn a_client_that_was_never_told_has_a_window_behind_its_response() {
    // The real clock runs while the clients are served.
    let window = 10 * SHORT;
    for integration in Integration::SERVERS {
        let mut site = Site::start_with(integration, |drain| drain.last_request(window)).await;
        let begun = each(async || {
            let mut client = site.connect().await;
            client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert!(!client.head().await.contains("connection: close"));
            client.read_until("begun,\r\n").await;
            client
        });
        let begun = begun.await;
        site.drain().await;
        rest(2 * window).await;
        site.release();
        all(begun, async |mut client| {
            assert_eq!(client.read_until("\r\n0\r\n\r\n").await, "8\r\nreleased\r\n0\r\n\r\n");
            client.is_served_last(GET).await;
        })
        .await;
        let report = site.ends_completely().await;
        assert!(report.time_in(DrainPhase::LastRequest) >= 2 * window, "{integration:?}: {report}");
        assert_eq!((report.requests(), report.responses_cut()), (CONNECTIONS as u64, 0), "{integration:?}: {report}");
    }
}

#[tokio::test]
async fn an_upload_in_progress_is_finished() {
    for integration in Integration::http1() {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.connect().await;
            client.send("POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf.").await;
            client
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |mut client| {
            client.send("half.").await;
            site.answers_last(client, "10").await;
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn endless_responses_are_told_to_end() {
    for integration in Integration::http1() {
        let mut site = Site::start(integration).await;
        let begun = each(async || {
            let mut client = site.connect().await;
            client.send("GET /endless HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            client.head().await;
            client
        });
        let begun = begun.await;
        site.drain().await;
        all(begun, async |mut client| {
            assert_eq!(
                client.read_to_end_and_close().await,
                (String::from("begun,farewell"), integration.orderly_end())
            );
        })
        .await;
        site.ends_completely().await;
    }
}

#[tokio::test]
async fn upgraded_connections_are_told_to_end_and_waited_for() {
    for integration in Integration::http1() {
        let mut site = Site::start(integration).await;
        let upgraded = each(async || {
            let mut client = site.connect().await;
            client
                .send("GET /upgrade HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: farewells\r\n\r\n")
                .await;
            assert!(client.head().await.starts_with("http/1.1 101"));
            client
        });
        let upgraded = upgraded.await;
        site.drain().await;
        all(upgraded, async |mut client| {
            assert_eq!(client.read_to_end_and_close().await, (String::from("farewell"), integration.orderly_end()));
        })
        .await;
        let report = site.ends_completely().await;
        assert_eq!(report.connections(), CONNECTIONS as u64, "they are waited for: {report}");
        if Integration::SERVERS.contains(&integration) {
            assert_eq!(report.upgraded(), CONNECTIONS as u64, "{report}");
        }
    }
}

/// The window ends in the moment in which the requests are sent, so that the server finds both together.
#[tokio::test]
async fn a_request_in_the_systems_buffer_at_the_end_of_the_window_is_served() {
    for integration in Integration::SERVERS {
        let mut site = Site::start_with(integration, |drain| drain.last_request(SHORT)).await;
        let idle = each(async || {
            let mut client = site.connect().await;
            client.is_served().await;
            client
        });
        let mut idle = idle.await;
        site.drain().await;
        tokio::task::yield_now().await;
        for client in &mut idle {
            client.send(GET).now_or_never().expect("room in the socket's buffer");
        }
        leap(2 * SHORT).await;
        all(idle, async |mut client| client.is_answered_last("hello").await).await;
        assert_eq!(site.ends_completely().await.requests(), CONNECTIONS as u64, "{integration:?}");
    }
}

#[tokio::test]
async fn an_early_answer_arrives() {
    const UPLOAD: usize = 3_000_000;
    for integration in Integration::http1().into_iter().chain([AcceptLoop]) {
        let mut site = Site::start(integration).await;
        let clients = each(|| site.connect()).await;
        all(clients, async |mut client| {
            let (request, answer) = match integration {
                AcceptLoop => ("reject\n".to_owned(), "reject\n"),
                _ => (
                    format!("POST /reject HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD}\r\n\r\n"),
                    "too large",
                ),
            };
            client.send(&request).await;
            client.send(&".".repeat(UPLOAD)).await;
            let (rest, end) = client.read_to_end_and_close().await;
            assert!(rest.ends_with(answer), "{integration:?}: {rest}");
            assert_eq!(end, integration.orderly_end());
        })
        .await;
        site.drain().await;
        site.report().await;
    }
}

#[tokio::test]
async fn a_response_that_ends_with_the_connection_is_never_cut_by_close_notify() {
    for integration in Integration::http1() {
        // A Unix socket has no reset, and poem shuts the stream down after an error.
        if matches!(integration, UnixServer | Integration::Framework(Framework::Poem)) {
            continue;
        }
        let mut site = Site::start_with(integration, |drain| drain.grace_period(SHORT)).await;
        let cut = each(async || {
            let mut client = site.connect().await;
            client.send("GET /cut HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            assert_ne!(client.read_to_end_and_close().await.1, integration.orderly_end(), "{integration:?}");
        });
        cut.await;
        let waiting = each(async || {
            let mut client = site.connect().await;
            client.send("GET /wait HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
            client.head().await;
            client
        });
        let waiting = waiting.await;
        site.drain().await;
        let report = site.report().await;
        match integration {
            Integration::Server | PlainServer => {
                assert_eq!(report.responses_cut(), CONNECTIONS as u64, "{report}");
                all(waiting, async |mut client| assert_eq!(client.read_to_end_and_close().await.1, End::Reset)).await;
            }
            // salvo's tasks end with its server, and their streams are dropped: by FIN or RST, without close_notify.
            Integration::Framework(Framework::Salvo) => {
                let closed = integration.orderly_end();
                all(waiting, async |mut client| assert_ne!(client.read_to_end_and_close().await.1, closed)).await;
            }
            // The tasks belong to the framework. They end with the process.
            _ => assert_eq!(report.left(), CONNECTIONS, "{report}"),
        }
    }
}

#[tokio::test]
async fn a_handler_that_panics_leaves_a_close_notify() {
    for integration in Integration::SERVERS {
        let site = Site::start(integration).await;
        let clients = each(|| site.connect()).await;
        all(clients, async |mut client| {
            client.send("GET /panic HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(client.read_to_end_and_close().await, (String::new(), integration.orderly_end()));
        })
        .await;
    }
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# A sender SHOULD send a Connection header field (Section 7.6.1 of
//# [HTTP]) containing the "close" connection option when it intends to
//# close a connection.
/// Otherwise a pool of connections sends its next request on a connection that is about to close.
#[tokio::test]
async fn a_response_to_an_unread_request_says_whether_the_connection_ends() {
    let half = format!("Content-Length: 60000\r\n\r\n{}", "x".repeat(30_000));
    let requests = [
        ("nothing of the body", "Content-Length: 60000\r\n\r\n"),
        ("a part of the body", &half),
        ("a part of a chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        ("the client waits", "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
    ];
    for integration in Integration::http1().into_iter().filter(|integration| integration.drops_requests_at_once()) {
        let site = Site::start(integration).await;
        for path in ["/reject", "/unknown", "/"] {
            for (sent, rest) in requests {
                let mut client = site.connect().await;
                client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{rest}")).await;
                let head = client.head().await;
                assert!(head.contains("connection: close\r\n"), "{integration:?}, {path}, {sent}: {head}");
                let end = client.read_to_end_and_close().await.1;
                assert_eq!(end, integration.orderly_end(), "{integration:?}, {path}, {sent}");
            }
            let mut client = site.connect().await;
            client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")).await;
            let (head, _) = client.read_message().await;
            assert!(!head.contains("connection: close\r\n"), "{integration:?}, {path}, the whole request: {head}");
            client.is_served().await;
        }
    }
}
