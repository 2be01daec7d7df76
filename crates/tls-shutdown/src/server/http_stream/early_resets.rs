//! [`EarlyResets`]: HTTP/2 requests that h2 resets before any answer.

/// The requests that h2 has reset before any answer.
///
/// It does not report which of them the service has: h2 refuses some at their head, and the service never receives these. It resets others
/// when their rest is malformed, or when the service returns an error. Those have lost their response. A client that cancels a request that
/// h2 refuses anyway hides one of them.
#[derive(Default)]
pub(super) struct EarlyResets {
    resets: u64,
    /// The requests that the service was not given, or not yet. h2 has refused no more than these.
    not_given: u64,
    /// The resets that are known to have cut a response.
    cut: u64,
}

impl EarlyResets {
    /// The header block of a request is complete.
    pub(super) fn on_head(&mut self) {
        self.not_given += 1;
    }

    /// The service is given a request. h2 may have reset it already.
    pub(super) fn on_request(&mut self) {
        self.not_given = self.not_given.saturating_sub(1);
    }

    /// h2 has reset a request before any answer.
    pub(super) fn on_reset(&mut self) {
        self.resets += 1;
    }

    /// Takes the number of responses of which it has become known that they are cut.
    pub(super) fn take_cut(&mut self) -> u64 {
        let new = self.resets.saturating_sub(self.not_given).saturating_sub(self.cut);
        self.cut += new;
        new
    }
}
