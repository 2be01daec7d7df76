//! The scanner beside hyper's own parser: whoever disagrees about the end of a message is wrong.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use fastrand::Rng;
use http_body::Body;
use hyper::{
    Request, Response,
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};

use super::*;

/// How far a reader of requests is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    heads: u32,
    messages: u32,
}

/// A client that has sent this, and sends nothing more.
struct Sent<'a> {
    pieces: std::slice::Chunks<'a, u8>,
}

impl Read for Sent<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().pieces.next() {
            Some(piece) => {
                buffer.put_slice(piece);
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }
}

impl Write for Sent<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How far hyper comes. `None` if it takes the bytes for no requests.
fn hyper_reads(bytes: &[u8], size: usize) -> Option<Progress> {
    let progress = Rc::new(Cell::new(Progress::default()));
    let service = service_fn(|mut request: Request<Incoming>| {
        let progress = progress.clone();
        progress.update(|Progress { heads, messages }| Progress { heads: heads + 1, messages });
        async move {
            while let Some(frame) = poll_fn(|cx| Pin::new(request.body_mut()).poll_frame(cx)).await {
                frame?;
            }
            progress.update(|Progress { heads, messages }| Progress { heads, messages: messages + 1 });
            Ok::<_, hyper::Error>(Response::new(String::new()))
        }
    });
    let connection = http1::Builder::new().serve_connection(Sent { pieces: bytes.chunks(size) }, service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    // One poll for each piece is enough, and some more for what hyper puts off.
    for _ in 0..bytes.len().div_ceil(size) + 20 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            return None;
        }
    }
    Some(progress.get())
}

/// How far the scanner comes.
fn scanner_reads(bytes: &[u8], size: usize) -> Progress {
    let (mut scanner, mut heads) = (MessageScanner::default(), 0);
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            match scanner.scan(&mut piece) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    heads += 1;
                    scanner.begin_body(head.body(MessagePart::Head));
                }
                Err(NotHttp) => scanner.begin_body(MessagePart::Rest),
            }
        }
    }
    Progress { heads, messages: heads - u32::from(scanner.part != MessagePart::Head) }
}

const MESSAGES: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "PUT / HTTP/1.1\r\ncontent-length: 7\r\ntransfer-encoding: gzip, chunked\r\n\r\nA;a=\"b\"\r\n0123456789\r\n00\r\nT: x\r\nU: y\r\n\r\n",
    "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTRANSFER-ENCODING:\tCHUNKED \r\nContent-Length: 1\r\n\r\n0  ;a\r\n\r\n",
    "\r\nPOST /long HTTP/1.1\nContent-Length:003\nContent-Length: 3\n\nabc",
    "POST / HTTP/1.1\r\nT: chunked\r\nContent-Lengths: 3\r\nTransfer-Encodin: chunked\r\nC:\r\n\r\n",
    "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n\r\n",
];

/// What an edit inserts.
fn token(random: &mut Rng) -> String {
    let tokens = [
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ";",
        ":",
        ",",
        "0",
        "1",
        "a",
        "F",
        "10",
        "+",
        "-",
        "\0",
        "é",
        "\r\n\r\n",
        " \r\n",
        "chunked",
        "gzip",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length",
        "x",
    ];
    match random.u8(..40) {
        0 => "0".repeat(1100),
        1 => " ".repeat(1030),
        2 => "x".repeat(1050),
        3 => "\t".repeat(20),
        _ => tokens[random.usize(..tokens.len())].to_owned(),
    }
}

/// A few messages with a few edits.
fn nearly_valid(random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..4) {
        bytes.extend_from_slice(MESSAGES[random.usize(..MESSAGES.len())].as_bytes());
    }
    for _ in 0..random.usize(..4) {
        let at = random.usize(..=bytes.len());
        let removed = random.usize(..3).min(bytes.len() - at);
        bytes.splice(at..at + removed, token(random).into_bytes());
    }
    bytes
}

#[test]
fn hyper_and_the_scanner_agree_about_the_end_of_a_message() {
    let mut agreed = [0; 2];
    for seed in 0..20_000 {
        let mut random = Rng::with_seed(seed);
        let (bytes, size) = (nearly_valid(&mut random), random.usize(1..200));
        let read = hyper_reads(&bytes, size);
        agreed[usize::from(read.is_some())] += 1;
        if let Some(read) = read {
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(scanner_reads(&bytes, size), read, "seed {seed}, pieces of {size}: {text:?}");
        }
    }
    assert!(agreed.iter().all(|count| *count > 2_000), "both kinds are tried: {agreed:?}");
}

/// The edits of the test above find these only by chance.
#[test]
fn no_length_of_a_line_hides_what_it_says() {
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (zeros, spaces) = ("0".repeat(1100), " ".repeat(1030));
    let cases = [
        (format!("{chunked}0\r\n \r\n"), Progress { heads: 1, messages: 0 }),
        (format!("{chunked}0\r\n\n\r\n\r\n"), Progress { heads: 1, messages: 1 }),
        (format!("{chunked}{zeros}3\r\nabc\r\n"), Progress { heads: 1, messages: 0 }),
        (format!("{chunked}{zeros}\r\n\r\n"), Progress { heads: 1, messages: 1 }),
        (format!("POST / HTTP/1.1\r\nContent-Length:{spaces}3\r\n\r\nab"), Progress { heads: 1, messages: 0 }),
        (format!("POST / HTTP/1.1\r\nContent-Length: {zeros}3\r\n\r\nabc"), Progress { heads: 1, messages: 1 }),
        (
            format!("POST / HTTP/1.1\r\nTransfer-Encoding:{spaces}gzip,{spaces}chunked{spaces}\r\n\r\n0\r\n"),
            Progress { heads: 1, messages: 0 },
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n0\r\n".to_owned(),
            Progress { heads: 1, messages: 0 },
        ),
    ];
    for (message, progress) in cases {
        for size in [1, 7, message.len()] {
            assert_eq!(scanner_reads(message.as_bytes(), size), progress, "{message:?}");
            assert_eq!(hyper_reads(message.as_bytes(), size), Some(progress), "{message:?}");
        }
    }
}
