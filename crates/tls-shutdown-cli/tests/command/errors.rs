//! Wrong usage, and errors before the first connection: one clear line, and the right exit code.

use tokio::net::TcpListener;

use crate::process::{CERTIFICATE, Certificate, Serve, run, within};

#[tokio::test]
async fn wrong_usage_is_reported_with_exit_code_2() {
    let cases: [(&[&str], &str); 27] = [
        (&[], "Usage: tls-shutdown"),
        (&["serve", "--policy", "receive-first"], "possible values: quiet, unidirectional, bidirectional"),
        (&["serve", "--alpn", "h3"], "possible values: h2, http/1.1"),
        (&["serve", "--close-timeout", "5"], "time unit needed"),
        (&["serve", "--max-drain-bytes", "much"], "--max-drain-bytes"),
        (&["serve", "--stall-timeout", "1"], "time unit needed"),
        (&["serve", "--stall-timeout", "0s"], "longer than 0"),
        (&["serve", "--cert", "cert.pem"], "--key"),
        (&["serve", "--key", "key.pem"], "--cert"),
        (&["serve", "--listen", "8443"], "expected HOST:PORT"),
        (&["serve", "--listen", "127.0.0.1:84430"], "not a port"),
        (&["serve", "--notice", "20s"], "--grace 25s leaves 19s for it beside --last-request 5s"),
        (&["serve", "--notice", "1s", "--grace", "0s"], "--grace 0s leaves 0s"),
        (&["send"], "<HOST:PORT>"),
        (&["send", "::1:443"], "[::1]:443"),
        (&["send", "[::1]"], "expected HOST:PORT"),
        (&["send", "[::1]443"], "expected HOST:PORT"),
        (&["send", "localhost:"], "'' is not a port number"),
        (&["send", "localhost:+1"], "'+1' is not a port number"),
        (&["send", "localhost:443", "--connections", "2"], "requires --bytes"),
        (&["send", "localhost:443", "--connections", "0"], "--connections"),
        (&["send", "localhost:443", "--ca", "ca.pem", "--insecure"], "cannot be used with"),
        (&["probe"], "<HOST:PORT>"),
        (&["probe", "localhost:443", "--ca", "ca.pem", "--insecure"], "cannot be used with"),
        (&["probe", "localhost:21", "--starttls", "ftp"], "possible values: smtp, imap, postgres"),
        (&["completions"], "<SHELL>"),
        (&["completions", "csh"], "possible values: bash, elvish, fish, powershell, zsh"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments).await;
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn old_names_of_flags_still_work() {
    let names = [
        ("serve", "--deadline", "--close-timeout"),
        ("serve", "--drain-limit", "--max-drain-bytes"),
        ("serve", "--stall-limit", "--stall-timeout"),
        ("send", "--deadline", "--close-timeout"),
        ("send", "--drain-limit", "--max-drain-bytes"),
    ];
    for (command, old, new) in names {
        let output = run(&[command, old, "wrong"]).await;
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(&format!("invalid value 'wrong' for '{new} ")), "{message}");
    }
}

#[tokio::test]
async fn failures_are_one_line_with_exit_code_1() {
    let busy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (cert, key) = (CERTIFICATE.cert(), CERTIFICATE.key());
    let missing = "/nonexistent/file.pem";
    let other_key = other_key();
    let (cut, encrypted) = (Certificate::write("cut"), Certificate::write("encrypted"));
    let pem = std::fs::read_to_string(&cut.cert).expect("a certificate");
    std::fs::write(&cut.cert, &pem[..pem.len() / 2]).expect("a file");
    let pem = std::fs::read_to_string(&encrypted.key).expect("a key");
    std::fs::write(&encrypted.key, pem.replace("PRIVATE", "ENCRYPTED PRIVATE")).expect("a file");
    let marked = Certificate::write("marked");
    let pem = std::fs::read_to_string(&marked.cert).expect("a certificate");
    std::fs::write(&marked.cert, format!("\u{feff}{pem}{pem}")).expect("a file");
    let joined = Certificate::write("joined");
    let pem = std::fs::read_to_string(&joined.cert).expect("a certificate");
    std::fs::write(&joined.cert, format!("{}{pem}", pem.trim_end())).expect("a file");
    let unknown = Certificate::write("unknown");
    std::fs::write(&unknown.key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("a file");
    let unknown = unknown.key();
    let (cut, encrypted, marked, joined) = (cut.cert(), encrypted.key(), marked.cert(), joined.cert());
    let cases: [(&[&str], &str); 20] = [
        (&["serve", "--listen", &busy], "another port with --listen"),
        (&["serve", "--listen", "192.0.2.1:0"], "an address of this machine"),
        (&["serve", "--listen", "host.invalid:0"], "cannot listen on host.invalid:0"),
        (&["serve", "--cert", missing, "--key", key], "cannot read the certificate /nonexistent/file.pem"),
        (&["serve", "--cert", cert, "--key", missing], "cannot read the private key /nonexistent/file.pem"),
        (&["serve", "--cert", key, "--key", key], "contains no certificate in PEM format"),
        (&["serve", "--cert", cert, "--key", cert], "contains no private key in PEM format"),
        (&["serve", "--cert", cut, "--key", key], "an END line is missing"),
        (&["serve", "--cert", cert, "--key", encrypted], "decrypt what is encrypted"),
        (&["serve", "--cert", marked, "--key", key], "only 1 of 2 certificates can be read"),
        (&["serve", "--client-ca", marked], "a byte order mark"),
        (&["serve", "--client-ca", joined], "the END of another"),
        (&["serve", "--cert", cert, "--key", &other_key], "the certificate's own key with --key"),
        // It is not the key of another certificate.
        (&["serve", "--cert", cert, "--key", unknown], "or EdDSA\n"),
        (&["send", &closed, "--insecure", "--bytes", "1"], "is the server running"),
        (&["send", "host.invalid:443", "--insecure", "--bytes", "1"], "cannot find the host host.invalid"),
        (&["send", &closed, "--ca", missing, "--bytes", "1"], "cannot read the certificate"),
        (&["send", "a b:1", "--insecure", "--bytes", "1"], "--server-name"),
        (&["probe", "a b:1", "--insecure"], "--server-name"),
        (&["probe", &closed, "--ca", missing], "cannot read the certificate"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments).await;
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.starts_with("tls-shutdown: ") && message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    }
}

/// rustls accepts handshake messages of 64 KiB, and TLS allows longer ones.
#[tokio::test]
async fn a_server_with_a_long_chain_speaks_tls() {
    let chain = Certificate::write("chain");
    let certificate = std::fs::read_to_string(&chain.cert).unwrap();
    std::fs::write(&chain.cert, certificate.repeat(300)).unwrap();
    let server = Serve::start_with(&chain, &[]).await;
    let output = run(&["send", &server.address.to_string(), "--insecure", "--bytes", "1"]).await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("longer than 64 KiB") && message.lines().count() == 1, "{message}");
}

#[tokio::test]
async fn help_has_examples() {
    for command in ["serve", "send", "probe", "demo", "completions", "man"] {
        let output = run(&[command, "--help"]).await;
        assert!(output.status.success());
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(help.contains("Examples:\n"), "{command}");
        assert!(!help.contains("--deadline") && !help.contains("-limit"), "{command}: an old name of a flag");
    }
}

/// A key that does not belong to the certificate.
fn other_key() -> String {
    let file = CERTIFICATE.key.with_extension("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&file, key.serialize_pem()).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The program and its standard streams take four of the files that this shell allows. A runtime needs some, and its signals some more.
#[tokio::test]
async fn a_command_that_cannot_start_says_which_limits_to_raise() {
    for limit in 4..=12 {
        for arguments in ["demo", "serve --listen 127.0.0.1:0"] {
            let script = format!("ulimit -n {limit}; exec {} {arguments}", env!("CARGO_BIN_EXE_tls-shutdown"));
            let mut shell = tokio::process::Command::new("sh");
            let output = within(shell.args(["-c", &script]).kill_on_drop(true).output()).await.expect("sh runs");
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{limit}: {message}");
            assert!(message.starts_with("tls-shutdown: cannot start: ") && message.contains("ulimit -n"), "{message}");
        }
    }
}
