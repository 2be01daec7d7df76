//! Listeners, servers and streams that take part in one drain.

use std::{future::poll_fn, task::Poll, time::Duration};

use tls_shutdown::{
    Ending, Reaper,
    server::{DrainPhase, Server, ServerDrain, TlsAcceptor},
};
use tls_shutdown_tests::{
    End,
    serving::{Client, LONG, listener, offering},
    soon,
    time::turns,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::coop,
};
use tokio_test::assert_pending;

use crate::drain::{SHORT, routes};

#[tokio::test]
async fn a_stream_that_is_held_for_ever_is_left() {
    let grace = Duration::from_millis(500);
    let drain = ServerDrain::on(std::future::ready(())).grace_period(grace);
    let mut listener = listener().await.with_drain(&drain.handle());
    let address = listener.local_addr().expect("an address");
    let client = tokio::spawn(Client::connect(address));
    let held = soon(listener.accept()).await.expect("a connection");
    let (report, _) = soon(drain.run(async move { while listener.accept().await.is_some() {} })).await;
    assert_eq!((report.left(), report.connections()), (1, 0), "{report}");
    assert!(report.elapsed() < grace * 2, "{report}");
    drop((held, client));
}

/// A server that fails is not "drained".
#[tokio::test]
async fn what_the_server_returned_comes_with_the_report() {
    let drain = ServerDrain::on(std::future::pending()).grace_period(LONG);
    let (report, output) = soon(drain.run(async { Err::<(), _>("the port is taken") })).await;
    assert_eq!((report.connections(), output), (0, Some(Err("the port is taken"))));
    let (_, output) =
        soon(ServerDrain::on(std::future::ready(())).grace_period(SHORT).run(std::future::pending::<()>())).await;
    assert_eq!(output, None, "it was dropped at the deadline");
}

/// A server that always has something to do uses up what tokio lets a task do at once.
#[tokio::test]
async fn a_busy_server_postpones_neither_the_deadline_nor_a_forced_end() {
    for (grace, is_forced) in [(SHORT, false), (LONG, true)] {
        let (sender, forced) = oneshot::channel();
        let mut sender = Some(sender);
        if is_forced {
            sender.take().expect("one signal").send(()).expect("a drain");
        }
        let drain = ServerDrain::on(std::future::ready(())).grace_period(grace).ack_timeout(Duration::ZERO);
        let drain = drain.force_on(async move { forced.await.expect("a signal") });
        let busy = poll_fn(|cx| {
            while let Poll::Ready(budget) = coop::poll_proceed(cx) {
                budget.made_progress();
            }
            Poll::<()>::Pending
        });
        let (report, output) = soon(drain.run(busy)).await;
        assert_eq!(output, None, "{report}");
    }
}

/// A job in the background, a server over other sockets: whatever takes part is waited for, up to the deadline.
#[tokio::test]
async fn what_takes_part_is_waited_for() {
    let drain = ServerDrain::on(std::future::ready(())).grace_period(LONG);
    let guard = drain.handle().track();
    let mut draining = tokio_test::task::spawn(drain.run(async {}));
    assert_pending!(draining.poll());
    drop(guard);
    assert!(draining.is_woken());
    let (report, _) = soon(draining).await;
    assert_eq!((report.left(), report.jobs_left()), (0, 0), "{report}");

    let drain = ServerDrain::on(std::future::ready(())).grace_period(SHORT);
    let guard = drain.handle().track();
    let (report, _) = soon(drain.run(async {})).await;
    assert_eq!((report.left(), report.jobs_left()), (0, 1), "{report}");
    drop(guard);
}

/// A job accepts connections, and ends before them.
#[tokio::test]
async fn a_connection_that_a_job_has_accepted_is_waited_for() {
    let drain = ServerDrain::on(std::future::ready(())).grace_period(LONG).ack_timeout(Duration::ZERO);
    let guard = drain.handle().track();
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = tcp.local_addr().expect("an address");
    let acceptor = TlsAcceptor::new(offering(&["http/1.1"])).with_drain(&drain.handle(), address);
    let mut draining = tokio_test::task::spawn(drain.run(async {}));
    assert_pending!(draining.poll(), "the job takes part");
    let client = tokio::spawn(Client::connect(address));
    let (connection, _) = soon(tcp.accept()).await.expect("a connection");
    let stream = soon(acceptor.accept(connection)).await.expect("a handshake");
    drop(guard);
    assert_pending!(draining.poll(), "the connection is open");
    drop(stream);
    let (report, _) = soon(draining).await;
    assert_eq!((report.connections(), report.left()), (1, 0), "{report}");
    drop(client);
}

/// Its connections are not known to the drain, so nobody can tell that they need the window no more.
#[tokio::test]
async fn a_server_over_other_sockets_keeps_its_window() {
    let drain = ServerDrain::on(std::future::ready(())).last_request(SHORT).grace_period(LONG);
    let handle = drain.handle();
    let secure = axum::serve(listener().await.with_drain(&handle), axum::Router::new())
        .with_graceful_shutdown(handle.clone().last_request_over());
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = plain.local_addr().expect("an address");
    let router = axum::Router::new().route("/", axum::routing::get("hello"));
    let plain = axum::serve(plain, router).with_graceful_shutdown(handle.clone().last_request_over());
    let mut client = TcpStream::connect(address).await.expect("a server");
    let running = tokio::spawn(drain.run(async move { tokio::try_join!(secure, plain) }));
    soon(handle.reached(DrainPhase::LastRequest)).await;
    turns(50).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut response = String::new();
    soon(client.read_to_string(&mut response)).await.expect("a response");
    assert!(response.ends_with("hello"), "{response}");
    let (report, _) = soon(running).await.expect("no panic");
    assert!(report.time_in(DrainPhase::LastRequest) >= SHORT, "{report}");
}

/// Whoever accepts a stream may observe its end, too.
#[tokio::test]
async fn an_observer_of_the_application_does_not_hide_the_end_from_the_drain() {
    let drain = ServerDrain::on(std::future::ready(())).grace_period(LONG);
    let (sender, mut ends) = mpsc::unbounded_channel();
    let reported = sender.clone();
    let listener = listener().await.on_end(move |report| reported.send(("listener", report.ending())).expect("a test"));
    let mut listener = listener.with_drain(&drain.handle());
    let address = listener.local_addr().expect("an address");
    let client = tokio::spawn(Client::connect(address));
    let (stream, _) = soon(listener.accept()).await.expect("a connection");
    let stream = stream.into_inner().on_end(move |report| sender.send(("stream", report.ending())).expect("a test"));
    let client = soon(client).await.expect("no panic");
    let mut draining = tokio_test::task::spawn(drain.run(async move { while listener.accept().await.is_some() {} }));
    assert_pending!(draining.poll(), "the connection is open");
    drop(stream);
    let (report, _) = soon(draining).await;
    assert_eq!((report.connections(), report.left()), (1, 0), "{report}");
    assert_eq!(
        [ends.recv().await, ends.recv().await].map(Option::unwrap),
        [("listener", Ending::Aborted), ("stream", Ending::Aborted)]
    );
    drop(client);
}

#[tokio::test]
async fn two_servers_share_a_drain() {
    let (signal, signalled) = oneshot::channel::<()>();
    let drain = ServerDrain::on(async move { signalled.await.expect("a signal") }).grace_period(LONG);
    let handle = drain.handle();
    let listeners = [listener().await, listener().await];
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
    let [public, admin] = listeners.map(Server::new);
    let service = || tower::service_fn(routes);
    let task = tokio::spawn(async move {
        let both = async {
            tokio::join!(public.serve_in(&handle, service()), admin.serve_in(&handle, service()));
        };
        drain.run(both).await.0
    });
    let mut clients = Vec::new();
    for address in addresses {
        let mut client = Client::connect(address).await;
        client.ask("/told").await;
        clients.push(client);
    }
    signal.send(()).expect("a server");
    for mut client in clients {
        assert!(client.read_message().await.0.contains("connection: close"));
        assert_eq!(client.read_to_end().await, (vec![], End::CloseNotify));
    }
    let report = soon(task).await.expect("no panic");
    assert_eq!((report.connections(), report.responses_cut(), report.left()), (2, 0, 0), "{report}");
}

#[tokio::test]
async fn two_listeners_share_a_drain_and_a_reaper() {
    let drain = ServerDrain::on(std::future::ready(())).grace_period(LONG);
    let handle = drain.handle();
    let reaper = Reaper::with_limits(tls_shutdown::ReaperLimits::new().with_max_closings(0));
    let mut listeners = [listener().await, listener().await]
        .map(|listener| listener.with_reaper(&reaper).with_drain(&handle).max_handshakes(1));
    let [first, second] = &mut listeners;
    let clients = [first.local_addr(), second.local_addr()]
        .map(|address| tokio::spawn(Client::connect(address.expect("an address"))));
    for listener in [first, second] {
        let (mut stream, _) = soon(listener.accept()).await.expect("a connection");
        stream.shutdown().await.expect("sent");
    }
    assert_eq!(reaper.shed(), 2);
    let [mut first, second] = listeners;
    // The second listener is dropped early.
    drop(second);
    let (report, _) = soon(drain.run(async move { while first.accept().await.is_some() {} })).await;
    assert_eq!((report.shed(), report.left()), (2, 0), "{report}");
    drop(clients);
}
