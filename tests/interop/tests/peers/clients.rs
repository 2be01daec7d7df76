//! Programs of others as clients of `tls-shutdown serve`: how each ends its connection, and that it gets every byte.

use std::str::from_utf8;

use tls_shutdown_interop::{
    Build, CERTIFICATE, COMPLETE, End, First, LOOPBACK, REQUESTS, Server, VERSIONS, curl, end, peer_file, program,
    python, run, run_well, talk,
};
use tokio::process::Command;

/// The client leaves without close_notify, before the server has sent its own.
const TRUNCATED: End = ("truncated", false, false);
/// The same, after.
const SENT: End = ("sent", true, false);

/// Runs a script that requests `path`. Returns the length of the body that it got.
async fn script(mut command: Command, server: &Server, path: &str, version: &str, more: &str) -> usize {
    command.args([&server.address.port().to_string(), path, &CERTIFICATE.cert, version, more]);
    let output = run_well(&mut command, b"").await;
    from_utf8(&output).ok().and_then(|length| length.trim().parse().ok()).expect("a length")
}

#[tokio::test]
async fn curl_over_http1() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, path, length) in REQUESTS {
            let body = run_well(curl(version).args(["--http1.1", &server.url(path)]), b"").await;
            assert_eq!(body.len(), length);
            assert_eq!(end(&server.closed().await), COMPLETE, "TLS {version}, {first:?}");
        }
        let url = server.url("/count");
        let upload = run_well(curl(version).args(["--http1.1", "--data-binary", "@-", &url]), &[0; 3_000_000]).await;
        assert_eq!(upload, b"3000000\n");
        assert_eq!(end(&server.closed().await), COMPLETE, "TLS {version}, upload");
    }
}

/// It offers `http/1.0` alone by ALPN.
#[tokio::test]
async fn curl_over_http1_0() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, path, length) in REQUESTS {
            let body = run_well(curl(version).args(["--http1.0", &server.url(path)]), b"").await;
            assert_eq!(body.len(), length);
            assert_eq!(end(&server.closed().await), COMPLETE, "TLS {version}, {first:?}");
        }
    }
    let bare = Server::start(Build::Tests.bare_server(LOOPBACK)).await;
    let refused = run(curl("1.3").args(["--http1.0", &bare.url("/bytes/10")]), b"").await;
    assert!(!refused.status.success(), "{refused:?}");
}

/// curl 7.88 ends HTTP/2 connections without close_notify, and its system resets them if something is unread. Others may
/// close them. The trace of curl shows what it did.
#[tokio::test]
async fn curl_over_http2() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (_, path, length) in REQUESTS {
            let output = run(curl(version).args(["-v", "--http2", &server.url(path)]), b"").await;
            let trace = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && trace.contains("\n< HTTP/2 200"), "{trace}");
            assert_eq!(output.stdout.len(), length);
            let event = server.closed().await;
            match trace.contains("(OUT), TLS alert, close notify") {
                true => assert_eq!(end(&event), COMPLETE, "TLS {version}"),
                false => assert!([TRUNCATED, ("reset", false, false)].contains(&end(&event)), "TLS {version}: {event}"),
            }
        }
    }
}

#[tokio::test]
async fn cpython() {
    // `unwrap` and asyncio send close_notify, and wait for the server's; `close` only ends TCP.
    let cases = [
        (First::Client, "unwrap", COMPLETE),
        (First::Client, "asyncio", COMPLETE),
        (First::Client, "close", TRUNCATED),
        (First::Server, "unwrap", COMPLETE),
        (First::Server, "asyncio", COMPLETE),
        (First::Server, "close", SENT),
    ];
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, mode, expected) in cases {
            let (_, path, length) = REQUESTS[usize::from(first == First::Server)];
            assert_eq!(script(python("client.py"), &server, path, version, mode).await, length);
            assert_eq!(end(&server.closed().await), expected, "TLS {version}, {first:?}, {mode}");
        }
    }
}

#[tokio::test]
async fn openssl() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, path, length) in REQUESTS {
            let mut client = program("openssl", "openssl");
            client.args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error", "-CAfile", &CERTIFICATE.cert]);
            client.args(["-connect", &format!("127.0.0.1:{}", server.address.port())]);
            client.arg(format!("-tls{}", version.replace('.', "_")));
            assert_eq!(talk(&mut client, first, path, length).await, length);
            assert_eq!(end(&server.closed().await), COMPLETE, "TLS {version}, {first:?}");
        }
    }
}

#[tokio::test]
async fn gnutls() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, path, length) in REQUESTS {
            let mut client = program("gnutls-cli", "gnutls-bin");
            client.args(["127.0.0.1", "--port", &server.address.port().to_string(), "--x509cafile", &CERTIFICATE.cert]);
            client.arg(format!("--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}"));
            // Keeps its messages apart from the response.
            client.args(["--logfile", "/dev/null"]);
            assert_eq!(talk(&mut client, first, path, length).await, length);
            // It does not answer a close_notify.
            let expected = if first == First::Client { COMPLETE } else { SENT };
            assert_eq!(end(&server.closed().await), expected, "TLS {version}, {first:?}");
        }
    }
}

#[tokio::test]
async fn node() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, path, length) in REQUESTS {
            let mut client = program("node", "nodejs");
            client.arg(peer_file("client.js"));
            assert_eq!(script(client, &server, path, version, "").await, length);
            assert_eq!(end(&server.closed().await), COMPLETE, "TLS {version}, {first:?}");
        }
    }
}

/// In TLS 1.3, Java sends user_canceled before its close_notify.
#[tokio::test]
async fn java() {
    let mut server = Server::serve(&[]).await;
    for version in VERSIONS {
        for (first, path, length) in REQUESTS {
            // Needs `javac`, which is not in every package of `java`.
            let mut client = program("javac", "default-jdk-headless");
            client = {
                drop(client);
                program("java", "default-jdk-headless")
            };
            client.arg(peer_file("Client.java"));
            let due = if first == First::Client { length } else { 0 };
            assert_eq!(script(client, &server, path, version, &due.to_string()).await, length);
            assert_eq!(end(&server.closed().await), COMPLETE, "TLS {version}, {first:?}");
        }
    }
}
