//! Programs of others as servers of `tls-shutdown send`: how the closing ends, that they get every byte, and that sessions
//! resume.

use tls_shutdown_interop::{
    Background, CERTIFICATE, COMPLETE, End, VERSIONS, directory, end, peer_file, program, send,
};

const BYTES: usize = 3_000_000;
/// The server ends TCP instead of sending close_notify.
const TRUNCATED: End = ("truncated", true, false);

/// Sends zeros over two connections. Returns which of them were resumed.
async fn send_twice(port: u16, more: &[&str], expected: End<'_>) -> [bool; 2] {
    let bytes = BYTES.to_string();
    let arguments = [&["--bytes", &bytes, "--connections", "2"], more].concat();
    let (success, events) = send(port, &arguments, b"").await;
    assert_eq!(events.len(), 2, "{events:?}");
    for event in &events {
        assert_eq!((end(event), &event["bytes"]), (expected, &BYTES.into()), "{event}");
    }
    assert_eq!(success, expected == COMPLETE);
    [0, 1].map(|index| events[index]["resumed"] == true)
}

#[tokio::test]
async fn openssl() {
    for version in VERSIONS {
        let mut server = program("openssl", "openssl");
        server.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "2"]);
        server.args(["-cert", &CERTIFICATE.cert, "-key", &CERTIFICATE.key]);
        server.arg(format!("-tls{}", version.replace('.', "_")));
        let mut server = Background::start(&mut server);
        let port = server.port("ACCEPT").await;
        assert_eq!(send_twice(port, &[], COMPLETE).await, [false, true], "TLS {version}");
        // It prints what it receives.
        let received = server.output().await.into_iter().filter(|byte| *byte == 0).count();
        assert_eq!(received, 2 * BYTES, "TLS {version}");
    }
}

#[tokio::test]
async fn gnutls() {
    for version in VERSIONS {
        let command = |port: u16| {
            // It has no option to listen only on the loopback interface.
            let mut server = program("gnutls-serv", "gnutls-bin");
            server.args(["--echo", "--port", &port.to_string()]);
            server.args(["--x509certfile", &CERTIFICATE.cert, "--x509keyfile", &CERTIFICATE.key]);
            server.arg(format!("--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}"));
            server
        };
        let (_server, port) = Background::start_on_free_port(command, "...done").await;
        assert_eq!(send_twice(port, &[], COMPLETE).await, [false, true], "TLS {version}");
        // It echoes lines, which are discarded.
        let lines = b"0123456789abcde\n".repeat(BYTES / 16);
        let (success, events) = send(port, &["--drain-limit", "3MB"], &lines).await;
        let [event] = &events[..] else { panic!("one connection: {events:?}") };
        assert_eq!((success, end(event)), (true, COMPLETE), "TLS {version}: {event}");
        assert_eq!(event["discarded"], lines.len(), "TLS {version}: {event}");
    }
}

#[tokio::test]
async fn cpython() {
    // How the script closes, how `send` does, and the ending.
    let cases = [
        ("unwrap", "bidirectional", COMPLETE),
        ("reply", "bidirectional", COMPLETE),
        ("first", "receive-first", COMPLETE),
        ("close", "bidirectional", TRUNCATED),
    ];
    for version in VERSIONS {
        for (mode, policy, expected) in cases {
            let mut server = program("python3", "python3");
            server.arg(peer_file("server.py"));
            server.args([&CERTIFICATE.cert, &CERTIFICATE.key, version, mode, "2"]);
            let mut server = Background::start(&mut server);
            let port = server.port("port").await;
            let resumed = send_twice(port, &["--policy", policy], expected).await;
            assert_eq!(resumed, [false, true], "TLS {version}, {mode}");
            let output = server.output().await;
            let output: Vec<_> = std::str::from_utf8(&output).expect("UTF-8").lines().collect();
            assert_eq!(output, [BYTES.to_string().as_str(); 2], "TLS {version}, {mode}");
        }
    }
}

#[tokio::test]
async fn node() {
    for version in VERSIONS {
        let mut server = program("node", "nodejs");
        server.arg(peer_file("server.js")).args([&CERTIFICATE.cert, &CERTIFICATE.key, version]);
        let mut server = Background::start(&mut server);
        let port = server.port("port").await;
        assert_eq!(send_twice(port, &[], COMPLETE).await, [false, true], "TLS {version}");
        for _ in 0..2 {
            assert!(server.line_with(&BYTES.to_string()).await.is_some(), "TLS {version}");
        }
    }
}

#[tokio::test]
async fn nginx() {
    for version in VERSIONS {
        let command = |port: u16| {
            let configuration = format!(
                "daemon off; master_process off; pid nginx.pid; error_log stderr notice; events {{}}
                 http {{
                     client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                     uwsgi_temp_path uwsgi; scgi_temp_path scgi; client_max_body_size 0; proxy_ignore_client_abort on;
                     log_format received '$request_length $status'; access_log /dev/stdout received;
                     server {{
                         listen 127.0.0.1:{port} ssl; ssl_protocols TLSv{version};
                         ssl_certificate {}; ssl_certificate_key {};
                         proxy_ssl_protocols TLSv{version};
                         location / {{ proxy_pass https://127.0.0.1:{port}/received; }}
                         location = /received {{ access_log off; return 200 received; }}
                     }}
                 }}",
                CERTIFICATE.cert, CERTIFICATE.key
            );
            let file = directory().join(format!("nginx-{version}.conf"));
            std::fs::write(&file, configuration).expect("a configuration");
            let mut server = program("nginx", "nginx-light");
            server.arg("-p").arg(directory()).arg("-c").arg(file).args(["-e", "stderr"]);
            server
        };
        let (mut server, port) = Background::start_on_free_port(command, "epoll").await;
        // What the client wants of the connection, how it closes, and the ending.
        let cases = [
            ("close", "bidirectional", COMPLETE),
            ("close", "receive-first", COMPLETE),
            // It does not answer a close_notify.
            ("keep-alive", "bidirectional", TRUNCATED),
        ];
        for (connection, policy, expected) in cases {
            let head =
                format!("POST / HTTP/1.1\r\nHost: l\r\nConnection: {connection}\r\nContent-Length: {BYTES}\r\n\r\n");
            let request = [head.as_bytes(), &[0; BYTES]].concat();
            let (success, events) = send(port, &["--policy", policy], &request).await;
            let [event] = &events[..] else { panic!("one connection: {events:?}") };
            assert_eq!(end(event), expected, "TLS {version}, {connection}, {policy}");
            assert_eq!(success, expected == COMPLETE);
            // It has read the whole request before it answers.
            let received = server.line_with(" 200\n").await.expect("a line of its log");
            assert_eq!(received, format!("{} 200\n", request.len()), "TLS {version}, {connection}, {policy}");
        }
    }
}
