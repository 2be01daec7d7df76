//! What is idle and what is not, however the bytes are cut.

use super::{Exchange, OUR_GOAWAY};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What one exchange comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Idle,
    /// Known to be idle at the connection's end only.
    Busy,
}

fn state(exchange: &Exchange) -> Then {
    if exchange.is_idle() { Then::Idle } else { Then::Busy }
}

/// Passes request and response in pieces of `size`. No byte but the last may make the exchange idle.
fn pass(exchange: &mut Exchange, request: &str, response: &str, size: usize) {
    for piece in request.as_bytes().chunks(size) {
        exchange.sent(piece);
        assert!(!exchange.is_idle(), "in {request:?}");
    }
    let pieces = response.as_bytes().chunks(size);
    let last = pieces.len().saturating_sub(1);
    for (number, piece) in pieces.enumerate() {
        exchange.received(piece);
        assert!(number == last || !exchange.is_idle(), "in {response:?}");
    }
}

#[test]
fn an_exchange_is_over_with_the_last_byte_of_its_response() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
    let chunked = "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\n12345\r\n0\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let cases = [
        (GET, ok, Then::Idle),
        (post, ok, Then::Idle),
        (chunked, ok, Then::Idle),
        (GET, "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", Then::Idle),
        (GET, "HTTP/1.0 200\r\nCONTENT-LENGTH:  1 \r\n\r\n\n", Then::Idle),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok", Then::Idle),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", Then::Busy),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\nok", Then::Busy),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", Then::Idle),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Then::Idle),
        (
            GET,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 \r\n\r\n",
            Then::Idle,
        ),
        (
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
            Then::Idle,
        ),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", Then::Busy),
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Then::Idle),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Busy),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Then::Idle),
        (GET, "HTTP/1.1 101 Switching Protocols\r\n\r\n", Then::Busy),
        (GET, "HTTP/1.1 200 OK\r\n\r\nto the end", Then::Busy),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", Then::Busy),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2", Then::Busy),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n", Then::Busy),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n\r\n", Then::Busy),
        ("PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf", ok, Then::Busy),
        ("EHLO a\r\n", "250 b\r\n", Then::Busy),
        ("\r\n", "who is there, as finger tells\r\n", Then::Busy),
        ("", "220 we speak first\r\n\r\n", Then::Busy),
    ];
    for (request, response, then) in cases {
        for size in 1..=request.len().max(response.len()) {
            let mut exchange = Exchange::new(false);
            assert!(exchange.is_idle(), "a fresh connection is");
            pass(&mut exchange, request, response, size);
            assert_eq!(state(&exchange), then, "{request:?}, {response:?}, by {size}");
            if then == Then::Idle {
                pass(&mut exchange, GET, ok, size);
                assert!(exchange.is_idle(), "a second exchange after {response:?}");
            }
        }
    }
    assert!(!Exchange::new(true).is_idle(), "a server's connection has its requests the other way");
}

#[test]
fn what_nobody_has_asked_for_cuts_nothing() {
    for surplus in ["HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 408", "\r\n", "x"] {
        let mut exchange = Exchange::new(false);
        exchange.sent(GET.as_bytes());
        exchange.received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        for byte in surplus.as_bytes() {
            exchange.received(&[*byte]);
            assert!(exchange.is_idle(), "{surplus:?}");
        }
        exchange.sent(b"G");
        assert!(!exchange.is_idle(), "whoever goes on after {surplus:?}");
    }
}

#[test]
fn pipelined_requests_are_all_answered_first() {
    let mut exchange = Exchange::new(false);
    exchange.sent(format!("{GET}HEAD / HTTP/1.1\r\n\r\n{GET}").as_bytes());
    for left in (0..3).rev() {
        let body = if left == 1 { "" } else { "b" };
        exchange.received(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{body}").as_bytes());
        assert_eq!(exchange.is_idle(), left == 0);
    }
}

#[test]
fn a_long_line_is_passed_in_bounded_memory() {
    let mut exchange = Exchange::new(false);
    exchange.sent(GET.as_bytes());
    let long = "x".repeat(100_000);
    exchange.received(format!("HTTP/1.1 200 {long}\r\n{long}: {long}\r\nContent-Length: 1\r\n\r\n").as_bytes());
    assert!(!exchange.is_idle());
    exchange.received(b".");
    assert!(exchange.is_idle());
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";

fn http2() -> Exchange {
    let mut exchange = Exchange::new(false);
    PREFACE.chunks(1).for_each(|piece| exchange.sent(piece));
    assert!(!exchange.is_idle(), "h2 itself knows");
    exchange
}

#[test]
fn goaway_goes_between_two_frames_and_once() {
    for cut in 0..=SETTINGS.len() {
        let mut exchange = http2();
        exchange.received(SETTINGS);
        exchange.received(&SETTINGS[..cut]);
        let is_between = cut % SETTINGS.len() == 0;
        assert_eq!(exchange.goaway(100).is_some(), is_between, "after {cut} bytes of a frame");
        exchange.received(&SETTINGS[cut..]);
        assert_eq!(exchange.goaway(100).is_some(), !is_between);
        assert_eq!(exchange.goaway(100), None);
    }
    for room in 1..=OUR_GOAWAY.len() {
        let mut exchange = http2();
        let mut told = Vec::new();
        while let Some(piece) = exchange.goaway(room) {
            assert!(piece.len() <= room);
            told.extend_from_slice(piece);
        }
        assert_eq!(told, *OUR_GOAWAY);
    }
    assert_eq!(Exchange::new(false).goaway(100), None);
}

#[test]
fn after_the_servers_own_goaway_there_is_none_of_ours() {
    let mut exchange = http2();
    exchange.received(&OUR_GOAWAY);
    assert_eq!(exchange.goaway(100), None);
}

#[test]
fn nothing_goes_into_a_header_block() {
    let mut exchange = http2();
    // HEADERS without END_HEADERS, then CONTINUATION with it.
    exchange.received(b"\0\0\x01\x01\0\0\0\0\x01\x88");
    assert_eq!(exchange.goaway(100), None);
    exchange.received(b"\0\0\0\x09\x04\0\0\0\x01");
    assert!(exchange.goaway(100).is_some());
}
