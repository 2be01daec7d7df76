//! `on_end` is called once, and reports aborts too.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tls_shutdown::{Abort, Alert, Ending, ShutdownReport};
use tls_shutdown_tests::{
    Forge, Side, VERSIONS, connect,
    scripted::{BIDIRECTIONAL, Stream, UNIDIRECTIONAL, each_kind, shut_down, shut_down_now},
    wire_script::Then,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};
use tokio_test::{assert_pending, assert_ready, task};

/// Sets an `on_end` that counts its calls and keeps the last ending.
pub(crate) fn counted(stream: Stream) -> (Stream, impl Fn() -> (usize, Option<Ending>)) {
    let calls = Arc::new(AtomicUsize::new(0));
    let last = Arc::new(std::sync::Mutex::new(None));
    let (calls_made, last_ending) = (calls.clone(), last.clone());
    let stream = stream.on_end(move |report| {
        calls.fetch_add(1, Ordering::Relaxed);
        *last.lock().expect("no panic") = Some(report.ending());
    });
    (stream, move || (calls_made.load(Ordering::Relaxed), *last_ending.lock().expect("no panic")))
}

#[tokio::test(start_paused = true)]
async fn every_observer_of_a_stream_is_called_also_if_one_panics() {
    let (stream, _peer) = connect(Side::Client, VERSIONS[1]);
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let call = |name: &'static str| {
        let calls = calls.clone();
        move |_: &ShutdownReport| calls.lock().expect("no panic").push(name)
    };
    let stream = stream.on_end(call("first")).on_end(|_| panic!("an observer")).on_end(call("last"));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(stream))).expect_err("the panic goes on");
    assert_eq!(panic.downcast_ref(), Some(&"an observer"));
    assert_eq!(*calls.lock().expect("no panic"), ["first", "last"]);
}

/// A second panic out of a destructor would abort the process, and with it all other connections.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_while_its_application_does_ends_no_process() {
    let (stream, _peer) = connect(Side::Server, VERSIONS[1]);
    let (stream, ends) = counted(stream.on_end(|_| panic!("an observer")));
    let application = std::panic::AssertUnwindSafe(move || {
        let _held = stream;
        panic!("an application");
    });
    let panic = std::panic::catch_unwind(application).expect_err("the panic goes on");
    assert_eq!(panic.downcast_ref(), Some(&"an application"));
    assert_eq!(ends(), (1, Some(Ending::Aborted)));
}

#[tokio::test(start_paused = true)]
async fn on_end_is_called_once_whatever_the_path() {
    for (side, version) in each_kind() {
        let once = |ending| (1, Some(ending));

        let (stream, mut peer) = connect(side, version);
        let (stream, ends) = counted(stream);
        drop(stream);
        assert_eq!(ends(), once(Ending::Aborted));
        assert_eq!(peer.receive(), Ok((vec![], false)), "a drop sends nothing");

        for how in [Abort::Fin, Abort::Reset] {
            let (stream, mut peer) = connect(side, version);
            let (stream, ends) = counted(stream);
            stream.abort(how);
            assert_eq!(ends(), once(Ending::Aborted));
            assert_eq!(peer.receive(), Ok((vec![], false)));
        }

        let (stream, mut peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.close_notify();
        shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("complete");
        assert_eq!(ends(), (0, None), "the connection is not over yet");
        drop(stream);
        assert_eq!(ends(), once(Ending::Complete));

        let (stream, _peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        drop(stream);
        assert_eq!(ends(), once(Ending::Sent));

        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.into_forge().alert(Forge::FATAL, 80);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("an alert");
        assert_eq!(shut_down_now(&mut stream, BIDIRECTIONAL).expect_err("refused").ending(), Ending::Refused);
        drop(stream);
        assert_eq!(ends(), once(Ending::PeerAlert(Alert(80))), "what was wrong, not what was refused");

        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
        drop(stream);
        assert_eq!(ends(), once(Ending::Truncated));

        let (stream, _peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        let _session = stream.into_inner();
        assert_eq!(ends(), once(Ending::Sent));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_closing_on_its_way() {
    for (side, version) in each_kind() {
        // An abort before close_notify was sent: it is never sent.
        let (stream, mut peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.wire.script(|script| script.room = 0);
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        stream.abort(Abort::Fin);
        assert_eq!(ends(), (1, Some(Ending::Aborted)));
        assert_eq!(peer.receive(), Ok((vec![], false)));

        // An abort after close_notify was sent, and one after the end.
        let (stream, peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        assert_pending!(shut_down(&mut stream, BIDIRECTIONAL).poll());
        stream.abort(Abort::Fin);
        assert_eq!(ends(), (1, Some(Ending::Aborted)));
        drop(peer);

        let (stream, mut peer) = connect(side, version);
        let (mut stream, ends) = counted(stream);
        peer.close_notify();
        shut_down_now(&mut stream, BIDIRECTIONAL).expect("complete");
        stream.abort(Abort::Reset);
        assert_eq!(ends(), (1, Some(Ending::Complete)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_after_a_unidirectional_close_is_told() {
    for (side, version) in each_kind() {
        let (stream, _peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        shut_down_now(&mut stream, UNIDIRECTIONAL).expect("sent");
        stream.abort(Abort::Reset);
        let report = report.await.expect("once");
        assert_eq!((report.ending(), report.sent()), (Ending::Aborted, true));
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_hides_no_earlier_failure() {
    for (side, version) in each_kind() {
        let (stream, peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        peer.wire.script(|script| script.then = Then::End);
        assert_ready!(task::spawn(stream.read(&mut [0; 9])).poll()).expect_err("cut");
        stream.abort(Abort::Reset);
        assert_eq!(report.await.expect("once").ending(), Ending::Truncated);

        let (stream, peer) = connect(side, version);
        let (told, report) = oneshot::channel();
        let mut stream = stream.on_end(move |report| told.send(*report).expect("awaited"));
        peer.wire.break_writes();
        assert_ready!(task::spawn(stream.write_all(b"lost")).poll()).expect_err("broken");
        stream.abort(Abort::Fin);
        assert_eq!(report.await.expect("once").ending(), Ending::Reset);
    }
}
