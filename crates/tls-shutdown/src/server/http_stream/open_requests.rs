//! [`OpenRequests`]: the requests of an HTTP/2 connection that are not complete, or have no complete response, and for what each of them
//! waits.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{early_end::Upload, flow_control::FlowControl};

pub(super) struct OpenRequests {
    /// By their streams, in ascending order, in which they are opened.
    streams: VecDeque<(u32, OpenRequest)>,
    /// When the last of them ended, or when the connection began.
    idle_since: Instant,
    /// When the client was sent the last of what it needs.
    answered: Instant,
    /// How much of [`Bodies`] their receiver lets through.
    flows: [FlowControl; 2],
}

/// The bodies of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    /// Those of responses. The client receives them.
    Responses,
    /// Those of requests. h2 receives them.
    Uploads,
}

pub(super) struct OpenRequest {
    pub(super) upload: Upload,
    /// Whether the head of the response was sent.
    pub(super) is_answered: bool,
    /// Whether all of the response was sent. The rest of the request is still to come, and the service may read it.
    pub(super) has_response: bool,
    /// When the last data of a WebSocket was sent. The end of its stream says nothing that a Close frame has not said. `None` for others.
    pub(super) last_frame: Option<Instant>,
    /// Whether it opens a tunnel or a WebSocket. Its client sends nothing before it is answered (RFC 9113 section 8.5).
    pub(super) is_connect: bool,
    /// How much more of its [`Bodies`] their receiver lets through.
    windows: [i64; 2],
}

impl Default for OpenRequests {
    fn default() -> Self {
        let now = Instant::now();
        Self { streams: VecDeque::new(), idle_since: now, answered: now, flows: Default::default() }
    }
}

impl OpenRequests {
    pub(super) fn insert(&mut self, stream: u32, upload: Upload) {
        let windows = self.flows.each_ref().map(|flow| flow.initial);
        let (is_answered, has_response, is_connect) = (false, false, false);
        let open = OpenRequest { upload, is_answered, has_response, last_frame: None, is_connect, windows };
        self.streams.push_back((stream, open));
    }

    /// All of the response was sent. Returns whether there was a request without one.
    pub(super) fn on_response_end(&mut self, stream: u32) -> bool {
        let Some(index) = self.index(stream) else { return false };
        let open = &mut self.streams[index].1;
        if open.has_response {
            return false;
        }
        open.has_response = true;
        let (last_frame, is_complete) = (open.last_frame, open.upload.has_ended);
        let now = Instant::now();
        self.note_answered(last_frame.unwrap_or(now));
        if is_complete {
            self.remove_at(index, now);
        }
        true
    }

    /// The client has ended the request.
    pub(super) fn on_upload_end(&mut self, stream: u32) {
        let Some(index) = self.index(stream) else { return };
        let open = &mut self.streams[index].1;
        open.upload.has_ended = true;
        if open.has_response {
            self.remove_at(index, Instant::now());
        }
    }

    /// Forgets a request that is reset.
    pub(super) fn remove(&mut self, stream: u32) -> Option<OpenRequest> {
        let now = Instant::now();
        let open = self.remove_at(self.index(stream)?, now)?;
        if !open.has_response {
            self.note_answered(open.last_frame.unwrap_or(now));
        }
        Some(open)
    }

    fn remove_at(&mut self, index: usize, now: Instant) -> Option<OpenRequest> {
        let (_, open) = self.streams.remove(index)?;
        if self.streams.is_empty() {
            self.idle_since = now;
        }
        Some(open)
    }

    /// A response is over, or given up. The client was sent the last of it at `when`.
    fn note_answered(&mut self, when: Instant) {
        self.answered = self.answered.max(when);
    }

    pub(super) fn get_mut(&mut self, stream: u32) -> Option<&mut OpenRequest> {
        let index = self.index(stream)?;
        self.streams.get_mut(index).map(|(_, open)| open)
    }

    fn index(&self, stream: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&stream, |(stream, _)| *stream).ok()
    }

    /// The streams up to `last` whose response is not complete.
    pub(super) fn unanswered(&self, last: u32) -> impl Iterator<Item = u32> + '_ {
        self.up_to(last).filter(|(_, open)| !open.has_response).map(|(stream, _)| *stream)
    }

    /// Whether there is a request up to `last`.
    pub(super) fn has_any(&self, last: u32) -> bool {
        self.up_to(last).next().is_some()
    }

    fn up_to(&self, last: u32) -> impl Iterator<Item = &(u32, OpenRequest)> {
        self.streams.iter().take_while(move |(stream, _)| *stream <= last)
    }

    /// Since when there is no request. `None` if there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.streams.is_empty().then_some(self.idle_since)
    }

    /// When the client was sent the last of what it needs: the end of a response, or the last frame of a WebSocket.
    pub(super) fn answered(&self) -> Instant {
        self.answered
    }

    /// Whether the client has not sent all of a request.
    pub(super) fn has_upload(&self) -> bool {
        self.streams.iter().any(|(_, open)| !open.upload.has_ended)
    }

    /// Notes DATA.
    pub(super) fn on_data(&mut self, bodies: Bodies, stream: u32, length: u32) {
        self.flows[bodies as usize].on_data(length);
        if let Some(open) = self.get_mut(stream) {
            open.windows[bodies as usize] -= i64::from(length);
            if bodies == Bodies::Responses && length > 0 {
                open.last_frame = open.last_frame.map(|_| Instant::now());
            }
        }
    }

    /// Notes WINDOW_UPDATE of the receiver. Stream 0 is the connection.
    pub(super) fn widen(&mut self, bodies: Bodies, stream: u32, increment: u32) {
        match self.get_mut(stream) {
            Some(open) => open.windows[bodies as usize] += i64::from(increment),
            None if stream == 0 => self.flows[bodies as usize].widen(increment.into()),
            None => {}
        }
    }

    /// Reads a part of the receiver's SETTINGS.
    pub(super) fn read_settings(&mut self, bodies: Bodies, payload: &[u8]) {
        let change = self.flows[bodies as usize].read_settings(payload);
        if change != 0 {
            self.streams.iter_mut().for_each(|(_, open)| open.windows[bodies as usize] += change);
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc8446#section-6.1
    //# This does not have any effect on its read side of the connection.
    /// Whether a client that has closed its half can still be answered: a request up to `last` is whole, and the windows let its response
    /// through. They open no more. h2 takes the end of what it reads for the end of the connection.
    pub(super) fn can_answer(&self, last: u32) -> bool {
        self.up_to(last).any(|(_, open)| open.upload.has_ended && !self.is_blocked(open))
    }

    /// Whether all requests up to `last` wait until the client sends more of them, or lets more of their responses through, and there is one.
    pub(super) fn waits_for_client(&self, last: u32) -> bool {
        let mut there_is_one = false;
        for (_, open) in self.up_to(last) {
            if !self.is_blocked(open) && !self.waits_for_upload(open) {
                return false;
            }
            there_is_one = true;
        }
        there_is_one
    }

    fn is_blocked(&self, open: &OpenRequest) -> bool {
        open.is_answered && !open.has_response && self.is_closed(Bodies::Responses, open)
    }

    /// Whether the client could continue the request, and the response waits for that, or is complete. A response in progress needs no more
    /// of it.
    fn waits_for_upload(&self, open: &OpenRequest) -> bool {
        let waits = !open.upload.has_ended && open.is_answered == open.has_response;
        let may_send = open.is_answered || !open.is_connect;
        waits && may_send && !self.is_closed(Bodies::Uploads, open)
    }

    fn is_closed(&self, bodies: Bodies, open: &OpenRequest) -> bool {
        self.flows[bodies as usize].is_closed() || open.windows[bodies as usize] <= 0
    }

    /// The bytes of both directions' bodies.
    pub(super) fn progress(&self) -> u64 {
        self.flows.iter().map(|flow| flow.data).sum()
    }

    /// How many requests the client has ended, and how many it has not.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        let ended = self.streams.iter().filter(|(_, open)| open.upload.has_ended).count();
        (ended, self.streams.len() - ended)
    }
}
