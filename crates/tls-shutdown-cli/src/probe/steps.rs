//! The steps of a probe: each makes one connection or two, and returns what it has seen of the server.

use std::{cell::Cell, future::pending, io, time::Duration};

use tls_shutdown::{Alert, Ending, ShutdownPolicy, ShutdownReport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    time::{Instant, timeout},
};

use super::{
    connection::{Prober, Stream, Unreachable, is_resumed},
    http::{
        AfterResponse, Progress, ReadEnd, TlsFailure, closing_request, keep_alive_request, progress, read_response,
        read_to_end, upload_head,
    },
    timeline::{Sender, What},
    transport::Observed,
};

/// How long a server that speaks first may take, before it is taken for HTTP.
const GREETING_TIMEOUT: Duration = Duration::from_millis(400);
/// How long an HTTP server may take for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the probe waits for close_notify before it sends FIN.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// How long it waits then.
const ANSWER_TO_FIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server may take to end TCP after it has said close_notify.
const TCP_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the probe waits for a reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it watches an idle connection.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// What the probe writes after the server's close_notify.
const LATE_BYTES: usize = 16 * 1024;
/// How much it uploads.
const UPLOAD_BYTES: usize = 1_000_000;
/// The part of the upload that it withholds until the answer comes. A server that answers without it answers early.
const WITHHELD_BYTES: usize = 16 * 1024;

/// What the server speaks over TLS, as far as the probe can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http(AfterResponse),
    Other,
}

/// How TCP was left by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpEnd {
    Fin,
    Reset,
    Open,
}

impl TcpEnd {
    fn of(end: Option<What>) -> Self {
        match end {
            Some(What::Reset) => Self::Reset,
            Some(_) => Self::Fin,
            None => Self::Open,
        }
    }
}

/// What followed our close_notify.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) answer: Answer,
    pub(crate) tcp: TcpEnd,
    /// `None` with TLS 1.2.
    pub(crate) tickets: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    ToCloseNotify(Duration),
    /// Only FIN made the server answer.
    ToFin(Duration),
    Failed(TlsFailure),
    None,
}

/// How the server has ended a connection on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnEnd {
    CloseNotify,
    Fin,
    Reset,
    /// This client has, because TLS has failed.
    Failed(TlsFailure),
    /// It has not.
    None,
}

/// How the server ends a connection after a response.
#[derive(Debug)]
pub(crate) struct ResponseEnd {
    pub(crate) delimiter: Delimiter,
    pub(crate) end: OwnEnd,
    /// `None` if there was no close_notify.
    pub(crate) reads_after: Option<bool>,
}

/// What ends the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    Length,
    Connection,
    /// Nothing: the connection ended before the response was whole.
    Cut,
}

/// What became of an answer that came before the end of the request.
#[derive(Debug)]
pub(crate) enum EarlyAnswer {
    Whole,
    /// It is whole, and so long after it came a reset.
    WholeThenReset(Duration),
    Cut,
    /// The server has read the whole request first.
    NotEarly,
}

/// What the first request has shown.
pub(crate) struct Discovery {
    pub(crate) protocol: Protocol,
    /// Whether the server has ended TCP by FIN in place of a response, and without close_notify.
    pub(crate) ends_unanswered: bool,
}

/// Finds out what the server speaks.
pub(crate) async fn discover(prober: &Prober, mut stream: Stream) -> Result<Discovery, Unreachable> {
    let other = Discovery { protocol: Protocol::Other, ends_unanswered: false };
    if prober.starttls().is_some() {
        leave(prober, stream).await;
        return Ok(other);
    }
    let mut received = Vec::new();
    let is_http = stream.get_ref().get_ref().1.alpn_protocol() == Some(b"http/1.1");
    if !is_http {
        let greeting = timeout(prober.left(GREETING_TIMEOUT), stream.read_buf(&mut received)).await;
        if let Ok(greeting) = greeting {
            if let Err(error) = greeting
                && let Some(refusal) = refusal(&error)
            {
                return Err(refusal);
            }
            leave(prober, stream).await;
            return Ok(other);
        }
    }
    let request = keep_alive_request(&prober.host());
    let exchange = timeout(prober.left(RESPONSE_TIMEOUT), exchange(&mut stream, &request, &mut received));
    let exchanged = exchange.await;
    let ends_unanswered = matches!(exchanged, Ok(Err(ReadEnd::Fin))) && received.is_empty();
    let protocol = match exchanged {
        Ok(Ok(Progress::Whole(after))) => Protocol::Http(after),
        Ok(Err(ReadEnd::Failed(error))) if received.is_empty() => match refusal(&error) {
            Some(refusal) => return Err(refusal),
            None => Protocol::Other,
        },
        // Too long, too slow, or ended by the connection.
        _ => match progress(&received) {
            Progress::NotHttp => Protocol::Other,
            Progress::Incomplete if received.is_empty() => Protocol::Other,
            _ => Protocol::Http(AfterResponse::Close),
        },
    };
    leave(prober, stream).await;
    Ok(Discovery { protocol, ends_unanswered })
}

/// In TLS 1.3, a server checks the client's certificate after the client's handshake has ended.
fn refusal(error: &io::Error) -> Option<Unreachable> {
    match ShutdownReport::of_failed_handshake(error).ending() {
        Ending::PeerAlert(alert) if alert != Alert(0) => Some(Unreachable::by_alert(alert)),
        Ending::NotTls | Ending::TlsLimit | Ending::ProtocolError => Some(Unreachable::by_tls_error(error)),
        _ => None,
    }
}

/// Sends close_notify, and watches what the server does.
pub(crate) async fn close(prober: &mut Prober, protocol: Protocol) -> Option<Closing> {
    // A server may send fewer tickets to a client that has resumed.
    let stream = prober.connect_anew("close_notify by the client").await.ok()?;
    let mut stream = request_once(prober, protocol, stream).await?;
    let timeline = stream.get_ref().get_ref().0.timeline().clone();
    timeout(prober.left(RESPONSE_TIMEOUT), stream.close_notify()).await.ok()?.ok()?;
    timeline.was_close_notify(Sender::Client);
    let sent = Instant::now();

    let mut answer = Answer::None;
    match timeout(prober.left(ANSWER_TIMEOUT), read_to_end(&mut stream)).await {
        Ok(ReadEnd::CloseNotify) => answer = Answer::ToCloseNotify(sent.elapsed()),
        Ok(ReadEnd::Failed(error)) => answer = TlsFailure::of(&error).map_or(Answer::None, Answer::Failed),
        Ok(ReadEnd::Fin | ReadEnd::Reset) => {}
        Err(_) => {
            let policy = waiting_policy(prober);
            let sent = Instant::now();
            if stream.shutdown_with(policy).await.is_ok_and(|report| report.received()) {
                answer = Answer::ToFin(sent.elapsed());
            }
        }
    }
    if matches!(answer, Answer::ToCloseNotify(_) | Answer::ToFin(_)) {
        timeline.was_close_notify(Sender::Server);
    }
    let connection = stream.get_ref().get_ref().1;
    let is_tls13 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let tickets = is_tls13.then(|| connection.tls13_tickets_received());
    let tcp = TcpEnd::of(into_transport(stream).wait_for_end(prober.left(TCP_TIMEOUT)).await);
    Some(Closing { answer, tcp, tickets })
}

/// Requests a response of which the end of the connection may be the end, and writes on after the server's close_notify.
pub(crate) async fn end_of_response(prober: &mut Prober) -> Option<ResponseEnd> {
    let mut stream = prober.connect_again("a response after which the server closes").await.ok()?;
    let mut received = Vec::new();
    let request = closing_request(&prober.host());
    let response = timeout(prober.left(RESPONSE_TIMEOUT), exchange(&mut stream, &request, &mut received)).await.ok()?;
    let end = match response {
        Ok(Progress::Whole(_)) => timeout(prober.left(TCP_TIMEOUT), read_to_end(&mut stream)).await.ok(),
        Ok(_) => return None,
        Err(end) => Some(end),
    };
    let delimiter = match progress(&received) {
        Progress::UntilClose => Delimiter::Connection,
        Progress::Whole(_) => Delimiter::Length,
        Progress::Incomplete | Progress::NotHttp => Delimiter::Cut,
    };
    let (end, reads_after) = own_end(prober, stream, end).await;
    Some(ResponseEnd { delimiter, end, reads_after })
}

/// Watches an idle connection. Returns how it has ended, and whether the server reads what follows its close_notify.
pub(crate) async fn idle(prober: &mut Prober, protocol: Protocol) -> Option<(OwnEnd, Option<bool>)> {
    let stream = prober.connect_again("an idle connection").await.ok()?;
    let mut stream = request_once(prober, protocol, stream).await?;
    // The rest of the time is for what follows.
    let limit = prober.left(IDLE_TIMEOUT + RESET_TIMEOUT).saturating_sub(RESET_TIMEOUT);
    let end = timeout(limit, read_to_end(&mut stream)).await.ok();
    Some(own_end(prober, stream, end).await)
}

/// Uploads more than buffers take, and reads the answer at the same time.
pub(crate) async fn early_answer(prober: &mut Prober) -> Option<EarlyAnswer> {
    let stream = prober.connect_again("an upload that the server answers early").await.ok()?;
    let (mut reader, mut writer) = split(stream);
    let head = upload_head(&prober.host(), UPLOAD_BYTES);
    timeout(prober.left(RESPONSE_TIMEOUT), writer.write_all(head.as_bytes())).await.ok()?.ok()?;

    let (sent, mut received) = (Cell::new(0), Vec::new());
    let early = {
        let upload = async {
            // A failed write does not end the wait for the answer.
            let _ = upload(&mut writer, &sent, UPLOAD_BYTES - WITHHELD_BYTES).await;
            pending().await
        };
        let answer = read_response(&mut reader, &mut received);
        let first = async {
            tokio::select! {
                answer = answer => answer,
                never = upload => never,
            }
        };
        timeout(prober.left(RESPONSE_TIMEOUT), first).await
    };
    let answered = Instant::now();
    let rest = timeout(prober.left(RESET_TIMEOUT), upload(&mut writer, &sent, UPLOAD_BYTES));
    // The time line has the reset that ends it.
    let _ = rest.await;
    let answer = match early {
        Ok(answer) => answer,
        Err(_) => {
            let late = timeout(prober.left(RESPONSE_TIMEOUT), read_response(&mut reader, &mut received)).await.ok()?;
            return matches!(late, Ok(Progress::Whole(_))).then_some(EarlyAnswer::NotEarly);
        }
    };
    let is_whole = match answer {
        Ok(Progress::Whole(_)) => true,
        Ok(_) => return None,
        Err(ReadEnd::CloseNotify) => progress(&received) == Progress::UntilClose,
        Err(_) => false,
    };
    let transport = into_transport(reader.unsplit(writer));
    let is_reset = transport.wait_for_reset(prober.left(RESET_TIMEOUT)).await;
    Some(match (is_whole, is_reset) {
        (false, _) => EarlyAnswer::Cut,
        (true, false) => EarlyAnswer::Whole,
        (true, true) => EarlyAnswer::WholeThenReset(answered.elapsed()),
    })
}

/// Writes zeros until `end` bytes of the body are sent.
async fn upload(writer: &mut (impl AsyncWriteExt + Unpin), sent: &Cell<usize>, end: usize) -> io::Result<()> {
    let zeros = [0; WITHHELD_BYTES];
    while sent.get() < end {
        let amount = writer.write(&zeros[..zeros.len().min(end - sent.get())]).await?;
        sent.set(sent.get() + amount);
    }
    writer.flush().await
}

/// Writes and never reads, and closes as this library's clients do. Returns whether the next connection resumes the session.
pub(crate) async fn write_only(prober: &mut Prober, protocol: Protocol) -> Option<bool> {
    let config = prober.without_sessions();
    let mut stream = prober.connect("a client that only writes", config.clone()).await.ok()?;
    if let Protocol::Http(_) = protocol {
        let request = keep_alive_request(&prober.host());
        timeout(prober.left(RESPONSE_TIMEOUT), stream.write_all(request.as_bytes())).await.ok()?.ok()?;
    }
    let policy = waiting_policy(prober);
    note_shutdown(&stream.shutdown_with(policy).await.unwrap_or_else(|error| *error.report()), &stream);
    drop(stream);
    let stream = prober.connect("its next connection", config).await.ok()?;
    let is_resumed = is_resumed(&stream);
    leave(prober, stream).await;
    Some(is_resumed)
}

/// Makes one request if the server then keeps the connection.
async fn request_once(prober: &Prober, protocol: Protocol, mut stream: Stream) -> Option<Stream> {
    if protocol == Protocol::Http(AfterResponse::KeepAlive) {
        let (request, mut received) = (keep_alive_request(&prober.host()), Vec::new());
        let exchange = timeout(prober.left(RESPONSE_TIMEOUT), exchange(&mut stream, &request, &mut received));
        exchange.await.ok()?.ok()?;
    }
    Some(stream)
}

async fn exchange(stream: &mut Stream, request: &str, received: &mut Vec<u8>) -> Result<Progress, ReadEnd> {
    stream.write_all(request.as_bytes()).await.map_err(ReadEnd::of)?;
    stream.flush().await.map_err(ReadEnd::of)?;
    read_response(stream, received).await
}

/// Returns how the server has ended the connection, and whether it reads what follows its close_notify.
async fn own_end(prober: &Prober, mut stream: Stream, end: Option<ReadEnd>) -> (OwnEnd, Option<bool>) {
    let end = match end {
        None => OwnEnd::None,
        Some(ReadEnd::CloseNotify) => OwnEnd::CloseNotify,
        Some(ReadEnd::Fin) => OwnEnd::Fin,
        Some(ReadEnd::Reset) => OwnEnd::Reset,
        Some(ReadEnd::Failed(error)) => TlsFailure::of(&error).map_or(OwnEnd::None, OwnEnd::Failed),
    };
    if end != OwnEnd::CloseNotify {
        return (end, None);
    }
    stream.get_ref().get_ref().0.timeline().was_close_notify(Sender::Server);
    let write = async {
        stream.write_all(&[0; LATE_BYTES]).await?;
        stream.flush().await
    };
    // The time line has the reset that ends it.
    let _ = timeout(prober.left(RESET_TIMEOUT), write).await;
    let is_reset = into_transport(stream).wait_for_reset(prober.left(RESET_TIMEOUT)).await;
    (end, Some(!is_reset))
}

/// Sends FIN, and waits for the server's close_notify.
fn waiting_policy(prober: &Prober) -> ShutdownPolicy {
    let policy = ShutdownPolicy::bidirectional().with_close_timeout(prober.left(ANSWER_TO_FIN_TIMEOUT));
    policy.with_stall_timeout(prober.left(RESET_TIMEOUT))
}

/// Closes without waiting for the server.
async fn leave(prober: &Prober, mut stream: Stream) {
    let policy = ShutdownPolicy::unidirectional().with_stall_timeout(prober.left(RESET_TIMEOUT));
    note_shutdown(&stream.shutdown_with(policy).await.unwrap_or_else(|error| *error.report()), &stream);
}

/// Marks close_notify on the time line.
fn note_shutdown(report: &ShutdownReport, stream: &Stream) {
    let timeline = stream.get_ref().get_ref().0.timeline();
    if report.sent() {
        timeline.was_close_notify(Sender::Client);
    }
    if report.received() {
        timeline.was_close_notify(Sender::Server);
    }
}

fn into_transport(stream: Stream) -> Observed {
    stream.into_inner().into_inner().0
}
