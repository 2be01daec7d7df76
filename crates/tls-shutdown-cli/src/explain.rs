//! The sentences of `serve --explain`.

use tls_shutdown::{
    Alert, Ending,
    server::{ConnectionReport, HandshakeFailure, ResponseDelivery, Transport},
};

/// Whether the end of each connection is explained.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Explanations {
    None,
    Each,
}

/// Says in plain words how a connection ended, what that means for its responses, and which page explains an end that is not clean.
pub(crate) fn explain(report: &ConnectionReport) -> String {
    if let Some(failure) = report.handshake_failure() {
        return format!("The TLS handshake failed: {failure}.{}", usual_reason(failure));
    }
    let end = match report.ending() {
        Ending::Truncated if report.transport() != Transport::Tls => {
            "The client ended the connection within a message."
        }
        Ending::Complete if !report.shutdown().sent() => {
            "The client closed the connection in order, and was gone before the server could."
        }
        ending => sentence(ending),
    };
    let delivery = match report.delivery() {
        ResponseDelivery::Delivered => "Every response was sent, and nothing was lost.".to_owned(),
        ResponseDelivery::Sent => {
            "Every response was sent to its end. Whether the client read the last one is not known.".to_owned()
        }
        ResponseDelivery::Cut => format!("Responses that were not sent to their end: {}.", report.responses_cut()),
        _ => "There was no request.".to_owned(),
    };
    let page = match report.ending() {
        ending if ending.is_clean() => String::new(),
        ending => format!(" See {}", ending.page()),
    };
    format!("{end} {delivery}{page}")
}

/// What an ending means without further facts.
fn sentence(ending: Ending) -> &'static str {
    match ending {
        Ending::Complete => "Both sides closed the connection in order.",
        Ending::Sent => "The server closed the connection in order, and the client did not answer.",
        Ending::Quiet => "The server closed the connection without a word, as its policy says.",
        Ending::Truncated => "The client closed TCP without closing TLS, as many programs do.",
        Ending::Reset => "The client reset the connection. Programs that exit with unread data do that, too.",
        Ending::TimedOut => "The client did not read or close in time.",
        Ending::DrainLimit | Ending::PeerData => "The client still sent data while the server was closing.",
        Ending::PeerAlert(_) => "The client ended the connection with an alert, which names its reason.",
        Ending::ProtocolError => "The client broke the TLS protocol.",
        Ending::TlsLimit => "The client sent more than the TLS library accepts.",
        Ending::NotTls => "The client sent something that is not TLS.",
        Ending::Aborted => "The server gave the connection up.",
        _ => "The connection failed.",
    }
}

/// A further sentence about failures that have one usual reason.
fn usual_reason(failure: HandshakeFailure) -> &'static str {
    match failure {
        HandshakeFailure::NothingSent => " Load balancers do that to find out whether the port is open.",
        HandshakeFailure::NotTls => " It may have spoken HTTP without TLS.",
        // bad_certificate to certificate_unknown, and unknown_ca (RFC 9846 section 6.2).
        HandshakeFailure::AlertReceived(Alert(42..=46 | 48)) => " It does not accept the server's certificate.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The others are failures of the transport and of our own side, which the page explains.
    #[test]
    fn what_a_client_does_has_a_sentence() {
        let ends = [
            Ending::Complete,
            Ending::Sent,
            Ending::Truncated,
            Ending::Reset,
            Ending::TimedOut,
            Ending::DrainLimit,
            Ending::PeerData,
            Ending::PeerAlert(Alert(80)),
            Ending::ProtocolError,
            Ending::TlsLimit,
            Ending::NotTls,
        ];
        for end in ends {
            assert_ne!(sentence(end), sentence(Ending::Refused), "{end}");
        }
    }
}
