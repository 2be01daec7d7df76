//! What h2 sees, and what is known of its responses, however the bytes are cut.

mod beside_h2;

use std::io::IoSlice;

use hyper::header::CONTENT_LENGTH;

use super::{
    super::early_end::{PROGRESS_TIMEOUT, length_before_reset},
    *,
};
use crate::http::h2_scanner::HEAD_LENGTH;

/// What h2 reads, if the client sends this and `room` bytes at most are read at a time.
fn receive(frames: &mut Http2Frames, mut bytes: &[u8], room: usize) -> Vec<u8> {
    receive_some(frames, &mut bytes, room)
}

/// The same, with what is left if a request has to wait.
fn receive_some(frames: &mut Http2Frames, bytes: &mut &[u8], room: usize) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        frames.early_ends.before_read();
        frames.stage_frame();
        let mut buffer = vec![0; room];
        let mut buffer = ReadBuf::new(&mut buffer);
        let taken = frames.pass(bytes, &mut buffer);
        *bytes = &bytes[taken..];
        read.extend_from_slice(buffer.filled());
        if buffer.filled().is_empty() && taken == 0 {
            return read;
        }
    }
}

pub(in crate::server::http_stream) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of `POST /` with `Content-Length: 20`.
pub(in crate::server::http_stream) fn request_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, b"\x83\x87\x84\x0f\x0d\x0220")
}

/// Both directions of a connection, cut into pieces of `size`.
fn frames(size: usize, received: &[Vec<u8>], sent: &[Vec<u8>]) -> Http2Frames {
    let mut frames = Http2Frames::default();
    let received = [PREFACE.to_vec(), received.concat()].concat();
    let mut read = Vec::new();
    for mut piece in received.chunks(size) {
        read.extend(receive_some(&mut frames, &mut piece, size));
        while frames.holds_request() {
            frames.early_ends.yield_to_service();
            frames.on_request(&request(None));
            read.extend(receive_some(&mut frames, &mut piece, size));
        }
    }
    // h2 gets the beginning of a head with its end.
    assert!(
        received.starts_with(&read) && received.len() - read.len() < HEAD_LENGTH,
        "{} {}",
        received.len(),
        read.len()
    );
    sent.concat().chunks(size).for_each(|piece| _ = frames.on_sent(piece));
    frames
}

#[test]
fn a_response_is_unanswered_until_its_last_byte_is_out() {
    let requests = [
        frame(4, 0, 0, &[]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 30]),
        frame(HEADERS, 0, 3, &[0; 10]),
        frame(CONTINUATION, END_HEADERS, 3, &[0; 500]),
        frame(DATA, END_STREAM, 3, &[0; 3000]),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, &[]),
        frame(HEADERS, END_HEADERS, 7, &[]),
        frame(RST_STREAM, 0, 7, &[0; 4]),
    ];
    let responses = [
        frame(4, 0, 0, &[]),
        frame(HEADERS, END_STREAM, 1, &[0; 10]),
        frame(CONTINUATION, END_HEADERS, 1, &[0; 10]),
        frame(HEADERS, END_HEADERS, 3, &[0; 10]),
        frame(DATA, END_STREAM, 3, &[0; 100]),
    ];
    for size in [1, 2, 3, 7, 24, 100, 100_000] {
        let all = frames(size, &requests, &responses);
        assert!(all.has_preface());
        assert_eq!(all.unanswered().collect::<Vec<_>>(), [5]);
        let mut cut = responses.concat();
        cut.pop();
        let cut = frames(size, &requests, &[cut]);
        assert_eq!(cut.unanswered().collect::<Vec<_>>(), [3, 5]);
        assert!(cut.final_frames().is_empty(), "within a frame");
        let cut = frames(size, &requests, &responses[..2]);
        assert!(cut.final_frames().is_empty(), "within a header block");
    }
}

#[test]
fn the_final_frames_reset_what_is_open_and_go_away() {
    let requests = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]), frame(HEADERS, END_HEADERS, 3, &[])];
    let all = frames(5, &requests, &[frame(4, 0, 0, &[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])]);
    let goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(all.final_frames(), [frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]), goaway.clone()].concat());
    let done = frames(5, &requests, &[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
    assert_eq!(done.unanswered().collect::<Vec<_>>(), [1], "3 is refused");
    assert_eq!(done.final_frames(), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    let nothing = frames(5, &[], &[]);
    assert!(nothing.final_frames().is_empty(), "SETTINGS come first");
}

#[test]
fn a_ping_is_answered_once_between_frames_and_only_if_asked() {
    let sent = [frame(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0]), frame(PING, 0, 0, b"12345678")];
    let mut all = frames(9, &[], &sent);
    assert!(receive(&mut all, &[], 100).is_empty(), "not asked for");
    all.answer_ping();
    let data = frame(DATA, 0, 1, &[0; 4]);
    assert_eq!(receive(&mut all, &data[..5], 100), frame(PING, ACK, 0, b"12345678"), "before the frame");
    assert_eq!(receive(&mut all, &data[5..], 5), data);
    assert!(receive(&mut all, &[], 5).is_empty());

    let mut all = frames(9, &[data[..5].to_vec()], &sent);
    all.answer_ping();
    assert!(receive(&mut all, &[], 100).is_empty(), "within a frame");
    assert_eq!(receive(&mut all, &data[5..], 4), [data, frame(PING, ACK, 0, b"12345678")].concat());

    let mut answered = frames(9, &[], &sent);
    let pong = frame(PING, ACK, 0, b"12345678");
    assert_eq!(receive(&mut answered, &pong, 100), pong);
    answered.answer_ping();
    assert!(receive(&mut answered, &[], 100).is_empty(), "the client has answered");

    let mut other = frames(9, &[], &[frame(PING, 0, 0, b"12345678")]);
    other.answer_ping();
    assert!(receive(&mut other, &[], 5).is_empty(), "that was a keep-alive");
}

#[test]
fn streams_that_a_goaway_has_refused_are_not_kept() {
    let mut all = frames(9, &[], &[frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])]);
    for stream in [1, 3, 5] {
        receive(&mut all, &frame(HEADERS, END_HEADERS | END_STREAM, stream, &[]), 9);
    }
    assert_eq!(all.requests.count(), (1, 0));
}

#[test]
fn what_is_no_http2_has_no_preface() {
    for size in [1, 7, 100] {
        let mut frames = Http2Frames::default();
        let rubbish = b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n";
        let read = rubbish.chunks(size).map(|piece| receive(&mut frames, piece, size));
        assert!(read.collect::<Vec<_>>().concat() == rubbish);
        assert!(!frames.has_preface());
    }
}

fn request(length: Option<u64>) -> Request<String> {
    let mut request = Request::new("unread".to_owned());
    if let Some(length) = length {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    request
}

/// The second request with a body is not given before the service has the first, or h2 has refused it.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_request_that_is_cut_short_waits_for_its_response() {
    let opening = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
    let end = |stream| frame(DATA, END_STREAM, stream, &[]);
    let no_end = |stream| frame(DATA, 0, stream, &[]);
    let begun = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
    let mut all = frames(100, &[], &[]);
    let upload = [opening(1), opening(3), opening(5), frame(DATA, 0, 1, &[0; 10])].concat();
    assert_eq!(receive(&mut all, &upload, 100), opening(1));
    let mut rest = &upload[opening(1).len() + HEAD_LENGTH..];
    for length in [Some(20), None] {
        assert!(all.holds_request());
        all.early_ends.yield_to_service();
        all.on_request(&request(length));
        let read = receive(&mut all, rest, 100);
        let next = if length.is_some() { opening(3) } else { [opening(5), rest.to_vec()].concat() };
        assert_eq!(read, next);
        rest = rest.get(HEAD_LENGTH..).unwrap_or_default();
    }
    all.on_request(&request(Some(20)));
    all.on_sent(&[begun(1), begun(3)].concat());
    // 1 has ten bytes of twenty; 3 has no length; 5 has no response.
    assert_eq!(receive(&mut all, &end(1), 100), no_end(1));
    assert_eq!(receive(&mut all, &end(3), 100), end(3));
    assert_eq!(receive(&mut all, &end(5), 100), end(5));
    // It comes when the response has stood still.
    tokio::time::advance(PROGRESS_TIMEOUT / 2).await;
    all.on_sent(&frame(DATA, 0, 1, &[0; 10]));
    tokio::time::advance(PROGRESS_TIMEOUT / 2).await;
    assert!(receive(&mut all, &[], 100).is_empty());
    tokio::time::advance(PROGRESS_TIMEOUT / 2).await;
    assert_eq!(receive(&mut all, &[], 100), end(1));
    assert!(receive(&mut all, &[], 100).is_empty());
}

/// Within a frame of the client nothing can be given to h2, and a timer that is over would be polled for ever.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_due_waits_for_the_end_of_a_frame() {
    let mut all = frames(100, &[frame(HEADERS, END_HEADERS, 1, &[])], &[]);
    all.on_request(&request(Some(20)));
    all.on_sent(&frame(HEADERS, END_HEADERS, 1, &[]));
    let end = frame(DATA, END_STREAM, 1, &[]);
    assert_eq!(receive(&mut all, &end, 100), frame(DATA, 0, 1, &[]));
    assert!(all.next_early_end().is_some());
    let other = frame(PING, 0, 0, &[0; 8]);
    receive(&mut all, &other[..1], 100);
    tokio::time::advance(PROGRESS_TIMEOUT).await;
    assert_eq!(all.next_early_end(), None);
    assert_eq!(receive(&mut all, &other[1..], 100), [other, end].concat());
}

#[test]
fn half_a_head_is_no_request_yet() {
    let begin = frame(HEADERS, 0, 1, &[0; 10]);
    let mut all = frames(100, &[begin], &[]);
    assert_eq!(all.unanswered().count(), 0);
    receive(&mut all, &frame(CONTINUATION, END_HEADERS, 1, &[0; 10]), 100);
    assert_eq!(all.unanswered().count(), 1);
}

#[test]
fn a_request_that_h2_refuses_is_waited_for_once() {
    let opening = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
    let mut all = frames(100, &[], &[]);
    assert_eq!(receive(&mut all, &[opening(1), opening(3)].concat(), 100), opening(1));
    assert!(all.holds_request());
    all.early_ends.yield_to_service();
    assert_eq!(receive(&mut all, &[], 100), opening(3));
    all.on_request(&request(Some(20)));
    all.early_ends.before_read();
    let lengths = [1, 3].map(|stream| all.requests.get_mut(stream).unwrap().upload.length);
    assert_eq!(lengths, [None, Some(20)]);
}

/// h2 waits for the rest of a frame without limit. A request that waits for the service is no part of a frame.
#[test]
fn a_part_of_a_frame_is_waited_for_only_if_a_request_is_open() {
    let opening = |stream| frame(HEADERS, END_HEADERS, stream, &[]);
    let ping = frame(PING, 0, 0, &[0; 8]);
    for cut in 0..ping.len() {
        let mut all = frames(100, &[], &[]);
        receive(&mut all, &ping[..cut], 100);
        assert_eq!(all.is_stuck_in_frame(), cut > 0);
    }
    let mut all = frames(100, &[], &[]);
    receive(&mut all, &[opening(1), opening(3)].concat(), 100);
    all.on_request(&request(None));
    all.on_sent(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]));
    assert!(all.holds_request() && all.unanswered().next().is_none() && !all.is_stuck_in_frame());
    receive(&mut all, &ping[..1], 100);
    assert!(!all.is_stuck_in_frame(), "3 is unanswered");
    all.on_sent(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &[]));
    assert!(!all.is_stuck_in_frame(), "the service may read the rest of both");
    // h2 resets a request that the service has dropped. The other one comes to its end.
    all.on_sent(&frame(RST_STREAM, 0, 1, &[0; 4]));
    receive(&mut all, &[&ping[1..], &frame(DATA, END_STREAM, 3, &[])].concat(), 100);
    assert_eq!(all.requests.count(), (0, 0));
    receive(&mut all, &ping[..1], 100);
    assert!(all.is_stuck_in_frame());
}

/// The service may read the rest of a request behind its response. Nothing of the response can be cut any more.
#[test]
fn a_request_is_open_until_both_halves_have_ended() {
    let request_and = |sent: &[Vec<u8>]| frames(100, &[frame(HEADERS, END_HEADERS, 1, &[])], sent);
    let response = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]);
    let mut all = request_and(std::slice::from_ref(&response));
    assert_eq!((all.wait(), all.requests.count(), all.unanswered().count()), (ClientWait::None, (0, 1), 0));
    assert!(all.waits_for_client() && !all.can_answer());
    receive(&mut all, &frame(DATA, END_STREAM, 1, &[0; 9]), 100);
    assert!(matches!(all.wait(), ClientWait::Request { .. }));

    let mut all = request_and(std::slice::from_ref(&response));
    let cancel = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    assert_eq!((all.on_sent(&cancel), all.requests.count()), (0, (0, 0)));

    let mut all = request_and(&[response]);
    (0..1000).for_each(|_| drop(receive(&mut all, &cancel, 100)));
    assert!(all.check_resets().is_ok() && all.requests.count() == (0, 0));
}

#[test]
fn a_whole_request_ends_though_its_response_has_begun() {
    for padding in [0, 1, 200] {
        for missing in [0, 1] {
            let mut all = frames(100, &[frame(HEADERS, END_HEADERS, 1, &[])], &[]);
            all.on_request(&request(Some(20 + missing)));
            all.on_sent(&frame(HEADERS, END_HEADERS, 1, &[]));
            let payload = [vec![padding], vec![0; 20 + usize::from(padding)]].concat();
            let data = |flags| frame(DATA, flags | crate::http::h2_scanner::PADDED, 1, &payload);
            let expected = data(if missing == 0 { END_STREAM } else { 0 });
            let bytes = data(END_STREAM);
            let read = bytes.chunks(7).map(|piece| receive(&mut all, piece, 3));
            assert_eq!(read.collect::<Vec<_>>().concat(), expected, "{padding} {missing}");
        }
    }
}

#[test]
fn a_reset_has_a_record_of_its_own() {
    let headers = frame(HEADERS, END_HEADERS, 1, &[0; 20]);
    let data = frame(DATA, END_STREAM, 1, &[0; 10]);
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
    let all = [&headers[..], &data, &reset, &headers].concat();
    let before = headers.len() + data.len();
    for cut in 0..=all.len() {
        let frames = Http2Frames::default();
        let (first, second) = all.split_at(cut);
        assert_eq!(length_before_reset(&frames.outbound, &[first, second].map(IoSlice::new)), before, "cut at {cut}");
        let mut frames = Http2Frames::default();
        frames.on_sent(first);
        let expected = if cut < before { before - cut } else { all.len() - cut };
        assert_eq!(length_before_reset(&frames.outbound, &[IoSlice::new(second)]), expected, "behind {cut}");
    }
}

//= https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2
//# When the value of SETTINGS_INITIAL_WINDOW_SIZE changes, a receiver MUST
//# adjust the size of all stream flow-control windows that it maintains by
//# the difference between the new value and the old value.
#[test]
fn a_response_that_the_client_lets_nothing_more_of_through_is_known() {
    let setting = |id: u8, value: u32| [&[0, id][..], &value.to_be_bytes()].concat();
    let initial = |size| frame(SETTINGS, 0, 0, &[setting(3, 100), setting(4, size), setting(5, 20_000)].concat());
    let open = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let get = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0; 30]);
    let post = |stream| frame(HEADERS, END_HEADERS, stream, &[0; 30]);
    let head = |stream| frame(HEADERS, END_HEADERS, stream, &[0; 10]);
    let upload = |stream, length| frame(DATA, 0, stream, &vec![0; length]);
    let body = |stream, length| frame(DATA, 0, stream, &vec![0; length]);
    let all = || vec![head(1), body(1, 65_535)];
    for (number, (received, sent, waits)) in [
        (vec![get(1)], vec![], false),
        (vec![get(1)], vec![head(1), body(1, 65_534)], false),
        (vec![get(1)], all(), true),
        (vec![get(1)], vec![head(1), body(1, 65_534), frame(DATA, END_STREAM, 1, &[0])], false),
        (vec![get(1), frame(RST_STREAM, 0, 1, &[0; 4])], all(), false),
        // Both windows have to be open.
        (vec![get(1), open(1, 1)], all(), true),
        (vec![get(1), open(0, 1)], all(), true),
        (vec![get(1), open(0, 1), open(1, 1)], all(), false),
        // That of a stream may be larger, smaller, and less than nothing.
        (vec![initial(10), get(1)], vec![head(1), body(1, 10)], true),
        (vec![initial(10), get(1), initial(11)], vec![head(1), body(1, 10)], false),
        (vec![initial(10), get(1), initial(5), open(1, 5)], vec![head(1), body(1, 10)], true),
        (vec![initial(10), get(1), initial(5), open(1, 6)], vec![head(1), body(1, 10)], false),
        // The client has acknowledged what the server has said.
        (vec![get(1), frame(SETTINGS, ACK, 0, &[])], all(), true),
        // Of several responses one may go on, or is still to come.
        (vec![get(1), get(3)], [all(), vec![head(3)]].concat(), true),
        (vec![get(1), get(3), open(0, 1)], [all(), vec![head(3)]].concat(), false),
        (vec![get(1), get(3)], all(), false),
        // An upload has not come to its end, or is answered already.
        (vec![get(1), post(3)], all(), true),
        (vec![post(3)], vec![], true),
        // Of an upload, the server lets nothing more through: of its stream, or of all.
        (vec![post(3), upload(3, 65_535)], vec![], false),
        (vec![post(3), upload(3, 65_535)], vec![open(3, 1), open(0, 1)], true),
        (vec![post(3), upload(3, 65_535)], vec![initial(65_536), open(0, 1)], true),
        (vec![post(3), upload(3, 65_535)], vec![initial(65_536)], false),
        (vec![post(3), upload(3, 10)], vec![initial(10)], false),
        (vec![get(1), post(3)], [all(), vec![head(3)]].concat(), true),
        (vec![get(1), post(3), frame(DATA, END_STREAM, 3, &[0; 9])], all(), false),
    ]
    .into_iter()
    .enumerate()
    {
        for size in [1, 2, 7, 100_000] {
            let frames = frames(size, &received, &sent);
            assert_eq!(frames.waits_for_client(), waits, "{number}");
        }
    }
}

/// A proxy gives up the rest of each upload that was answered early.
#[tokio::test(start_paused = true)]
async fn to_cancel_the_rest_of_a_request_that_is_answered_is_no_abuse() {
    let mut all = frames(100, &[], &[frame(SETTINGS, 0, 0, &[])]);
    for stream in (1..4000).step_by(2) {
        receive(&mut all, &request_head(stream), 100);
        all.on_request(&request(None));
        all.on_sent(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &[]));
        receive(&mut all, &frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()), 100);
    }
    assert!(all.check_resets().is_ok());
}
