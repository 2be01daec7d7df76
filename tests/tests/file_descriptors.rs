//! A process that has no file descriptor left.
//!
//! This test has a process of its own, since the limit is that of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tls_shutdown_tests::{
    client_config,
    log::Log,
    serving::{Client, listener},
    soon,
};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_listener_waits_for_a_file_descriptor_and_goes_on() {
    // The listener warns when it meets the limit.
    let log = Log::of_process("tls_shutdown=warn");
    let mut listener = listener().await;
    let address = listener.local_addr().expect("an address");
    let waiting = TcpStream::connect(address).await.expect("the backlog");
    let used = std::fs::File::open("/dev/null").expect("a file");
    let whole = getrlimit(Resource::Nofile);
    let next = std::os::fd::AsRawFd::as_raw_fd(&used);
    let lowered = Rlimit { current: Some(u64::try_from(next).expect("a descriptor")), ..whole };
    drop(used);
    setrlimit(Resource::Nofile, lowered).expect("lower");
    std::fs::File::open("/dev/null").expect_err("no descriptor");
    let client = tokio::spawn(async move {
        log.until_contains("WARN").await;
        setrlimit(Resource::Nofile, whole).expect("as before");
        Client::over(waiting, client_config(&rustls::version::TLS13)).await
    });
    let _stream = soon(listener.accept()).await.expect("a connection");
    soon(client).await.expect("no panic");
}
