//! The follower beside h2's own parser: whoever disagrees about what is open is wrong.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
};

use fastrand::Rng;
use hyper::{
    Request, Response,
    body::Incoming,
    rt::{Executor, Read, ReadBufCursor, Write},
    server::conn::http2,
    service::service_fn,
};

use super::*;
use crate::http::h2_scanner::PADDED;

/// A client that has sent this, and sends nothing more. Keeps what it is sent.
struct Client<'a> {
    sends: &'a [u8],
    /// How many bytes come at once.
    size: usize,
    received: Rc<RefCell<Vec<u8>>>,
}

impl Read for Client<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (piece, rest) = this.sends.split_at(this.sends.len().min(this.size).min(buffer.remaining()));
        this.sends = rest;
        buffer.put_slice(piece);
        if piece.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl Write for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.received.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Keeps the tasks of requests.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<Vec<Task>>>);

type Task = Pin<Box<dyn Future<Output = ()>>>;

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.borrow_mut().push(Box::pin(task));
    }
}

/// How many requests are open.
#[derive(Debug, Default, PartialEq, Eq)]
struct Open {
    ended_by_client: usize,
    others: usize,
}

impl Open {
    fn count(requests: impl Iterator<Item = bool>) -> Self {
        requests.fold(Self::default(), |mut open, has_ended| {
            *if has_ended { &mut open.ended_by_client } else { &mut open.others } += 1;
            open
        })
    }
}

/// A request of a service. It is open until its future is dropped.
struct Served {
    number: u32,
    open: Rc<RefCell<BTreeMap<u32, bool>>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.open.borrow_mut().remove(&self.number);
    }
}

/// What hyper and h2 take for open, and what they send. `None` if the bytes are not HTTP/2 for them.
fn h2_reads(bytes: &[u8], size: usize) -> Option<(Open, Vec<u8>)> {
    // By their order, and whether the client has ended them.
    let open = Rc::new(RefCell::new(BTreeMap::new()));
    let (seen, requests) = (open.clone(), Cell::new(0));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (number, open) = (requests.get(), seen.clone());
        requests.set(number + 1);
        open.borrow_mut().insert(number, request.body().is_end_stream());
        async move {
            let served = Served { number, open };
            while !request.body().is_end_stream() {
                match poll_fn(|cx| Pin::new(request.body_mut()).poll_frame(cx)).await {
                    Some(Ok(_)) => {}
                    None => break,
                    // It was reset.
                    Some(Err(_)) => return Err(io::Error::other("reset")),
                }
            }
            served.open.borrow_mut().insert(number, true);
            // It never answers.
            pending::<Result<Response<String>, io::Error>>().await
        }
    });
    let (tasks, received) = (Tasks::default(), Rc::default());
    let client = Client { sends: bytes, size, received: Rc::clone(&received) };
    let connection = http2::Builder::new(tasks.clone()).serve_connection(client, service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..bytes.len().div_ceil(size) + 20 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            return None;
        }
        let begun = std::mem::take(&mut *tasks.0.borrow_mut());
        let left = begun.into_iter().filter_map(|mut task| task.as_mut().poll(&mut cx).is_pending().then_some(task));
        let left: Vec<_> = left.collect();
        tasks.0.borrow_mut().extend(left);
    }
    let open = Open::count(open.borrow().values().copied());
    Some((open, received.take()))
}

/// What the follower takes for open.
fn follower_reads(bytes: &[u8], size: usize, sent: &[u8]) -> Open {
    let mut frames = Http2Frames::default();
    for mut piece in bytes.chunks(size) {
        receive_some(&mut frames, &mut piece, size);
        while frames.holds_request() {
            frames.early_ends.yield_to_service();
            frames.on_request(&request(None));
            receive_some(&mut frames, &mut piece, size);
        }
    }
    frames.on_sent(sent);
    let (ended_by_client, others) = frames.requests.count();
    Open { ended_by_client, others }
}

/// `:method: POST`, `:scheme: https`, `:path: /`.
const POST: &[u8] = &[0x83, 0x87, 0x84];

/// A header block in HEADERS and CONTINUATION, with padding and a priority or without.
fn headers(random: &mut Rng, stream: u32, block: &[u8], end: u8) -> Vec<u8> {
    const PRIORITY: u8 = 0x20;
    let (first, mut rest) = block.split_at(random.usize(..=block.len()));
    let (mut flags, mut payload) = (end, Vec::new());
    let padding = random.u8(..3);
    if padding > 0 {
        flags |= PADDED;
        payload.push(padding);
    }
    if random.bool() {
        flags |= PRIORITY;
        payload.extend([0, 0, 0, 0, 1]);
    }
    payload.extend_from_slice(first);
    payload.extend(vec![0; usize::from(padding)]);
    let mut frames = Vec::new();
    let mut kind = HEADERS;
    loop {
        let is_last = rest.is_empty();
        frames.extend(frame(kind, flags | if is_last { END_HEADERS } else { 0 }, stream, &payload));
        if is_last {
            return frames;
        }
        let piece = random.usize(1..=rest.len());
        (kind, flags, payload) = (CONTINUATION, 0, rest[..piece].to_vec());
        rest = &rest[piece..];
    }
}

/// Frames of a client, most of them valid.
fn nearly_valid(random: &mut Rng) -> Vec<u8> {
    let mut bytes = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    let mut next = 1;
    for _ in 0..random.usize(1..20) {
        let stream = 1 + 2 * random.u32(..=next / 2);
        let end = if random.u8(..3) == 0 { END_STREAM } else { 0 };
        bytes.extend(match random.u8(..12) {
            0..=3 => {
                next += 2;
                headers(random, next - 2, POST, end)
            }
            4..=6 => {
                let padding = random.u8(..4);
                let data = [&[padding][..], &vec![b'x'; random.usize(..30)], &vec![0; padding.into()]].concat();
                if random.bool() { frame(DATA, PADDED | end, stream, &data) } else { frame(DATA, end, stream, &data) }
            }
            // Trailers: `x: y` as a literal that is not indexed.
            7 => headers(random, stream, &[0, 1, b'x', 1, b'y'], END_STREAM),
            8 => frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
            9 => frame(WINDOW_UPDATE, 0, if random.bool() { 0 } else { stream }, &[0, 0, 0, 9]),
            10 => frame(PING, random.u8(..2), 0, &[7; 8]),
            _ => frame(random.u8(0x10..), random.u8(..), stream, &[1; 12][..random.usize(..12)]),
        });
    }
    if random.u8(..4) == 0 {
        let at = random.usize(PREFACE.len()..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
    }
    bytes
}

#[test]
fn h2_and_the_follower_agree_about_what_is_open() {
    let mut agreed = [0; 2];
    for seed in 0..30_000 {
        let mut random = Rng::with_seed(seed);
        let (bytes, size) = (nearly_valid(&mut random), random.usize(1..200));
        let read = h2_reads(&bytes, size);
        agreed[usize::from(read.is_some())] += 1;
        if let Some((open, sent)) = read {
            assert_eq!(follower_reads(&bytes, size, &sent), open, "seed {seed}, pieces of {size}");
        }
    }
    assert!(agreed.iter().all(|count| *count > 1_000), "both kinds are tried: {agreed:?}");
}
