//! What the probe has seen, and what each observation means for clients.

use serde_json::{Value, json};

use super::steps::{Answer, Closing, Delimiter, EarlyAnswer, IDLE_TIMEOUT, OwnEnd, ResponseEnd, TcpEnd};

/// A server that answers later makes every close noticeable to people.
const PROMPT_ANSWER_MS: f64 = 1_000.0;
/// A reset that comes earlier than this after an answer may overtake it.
const PROMPT_RESET_MS: u128 = 250;

const CLOSE_NOTIFY: &str = "RFC 9846 section 6.1: a side sends close_notify before it closes its write side";
const RESPONSE: &str = "RFC 5246 section 7.2.1: the other side responds with a close_notify";
const HALF_CLOSE: &str = "RFC 9846 section 6.1: closing one side has no effect on the other, an answer is optional";
const STAGED_CLOSE: &str = "RFC 9112 section 9.6: a server closes in stages, so that no reset destroys a response";
const INCOMPLETE_CLOSE: &str =
    "RFC 9112 section 9.8: a response that the connection ends is complete only with close_notify";
const CLOSURE_ALERTS: &str = "RFC 9112 section 9.8: servers must attempt to exchange closure alerts before they close";
const TICKETS: &str = "RFC 9846 section 4.6.1: a server may send tickets at any time after the handshake";
const RESUMPTION: &str = "RFC 9846 section 2.2: a resumed session saves the certificate and its signature";

/// Everything that was seen of a server. `None` is what was not seen.
#[derive(Debug)]
pub(crate) struct Observations {
    pub(crate) version: &'static str,
    pub(crate) alpn: Option<String>,
    /// Whether the server has ended TCP by FIN in place of a response, and without close_notify.
    pub(crate) ends_unanswered: bool,
    pub(crate) closing: Option<Closing>,
    pub(crate) response: Option<ResponseEnd>,
    pub(crate) early_answer: Option<EarlyAnswer>,
    pub(crate) resumes: Option<bool>,
    pub(crate) resumes_after_write_only: Option<bool>,
    pub(crate) idle: Option<(OwnEnd, Option<bool>)>,
}

/// How good something is for clients, from the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Bad,
    Tolerable,
    Good,
    Unknown,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Tolerable => "tolerable",
            Self::Good => "good",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) id: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) value: Value,
    pub(crate) meaning: String,
    pub(crate) rule: &'static str,
}

/// Who is at fault if clients of this server report an unexpected EOF.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at_fault: &'static str,
    pub(crate) meaning: String,
}

impl Observations {
    pub(crate) fn new(version: &'static str, alpn: Option<String>) -> Self {
        Self {
            version,
            alpn,
            ends_unanswered: false,
            closing: None,
            response: None,
            early_answer: None,
            resumes: None,
            resumes_after_write_only: None,
            idle: None,
        }
    }

    /// The findings, in the order in which they are documented.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        vec![
            self.answers_close_notify(),
            self.answer_time(),
            self.closes_tcp_after_answer(),
            self.idle_close(),
            self.early_answer_survives(),
            self.close_delimited_truthful(),
            self.reads_after_close_notify(),
            self.tickets(),
            self.resumes(),
            self.resumes_after_write_only(),
        ]
    }

    /// An unexpected EOF is FIN without close_notify, and whoever sends that is at fault.
    pub(crate) fn fault(&self) -> Fault {
        let answer = self.closing.as_ref().map(|closing| (closing.answer, closing.tcp));
        let unanswered = self.ends_unanswered.then_some(OwnEnd::Fin);
        let response = self.response.as_ref().map(|response| response.end);
        let after_response = match &self.response {
            Some(response) if response.delimiter == Delimiter::Cut => "in a response, the rest of which is missing",
            _ => "after a response",
        };
        let own = [
            (unanswered, "in place of a response"),
            (response, after_response),
            (self.idle.map(|(end, _)| end), "when the connection is idle"),
        ];
        let mut cases: Vec<_> =
            own.iter().filter(|(end, _)| *end == Some(OwnEnd::Fin)).map(|(_, case)| *case).collect();
        if matches!(answer, Some((Answer::None, TcpEnd::Fin))) {
            cases.insert(0, "in answer to close_notify");
        }
        let is_clean = matches!(answer, Some((Answer::ToCloseNotify(_) | Answer::ToFin(_), _)))
            || own.iter().any(|(end, _)| *end == Some(OwnEnd::CloseNotify));
        let is_reset =
            matches!(answer, Some((_, TcpEnd::Reset))) || own.iter().any(|(end, _)| *end == Some(OwnEnd::Reset));
        let failure = match answer {
            Some((Answer::Failed(failure), _)) => Some(failure),
            _ => own.iter().find_map(|(end, _)| match end {
                Some(OwnEnd::Failed(failure)) => Some(*failure),
                _ => None,
            }),
        };
        if cases.is_empty()
            && let Some(failure) = failure
        {
            let meaning =
                format!("the server sends {failure}, which clients report as that and not as an unexpected EOF");
            return Fault { at_fault: "nobody", meaning };
        }
        let (at_fault, meaning) = match (&cases[..], is_clean, is_reset) {
            ([], _, true) => (
                "nobody",
                "the server ends TCP by a reset, which clients report as a reset and not as an unexpected EOF"
                    .to_owned(),
            ),
            ([], true, false) => (
                "nobody",
                "the server sends close_notify wherever this probe saw it close; if clients report an unexpected EOF, \
                 look for a crash or for a proxy between them and the server"
                    .to_owned(),
            ),
            ([], false, false) => ("unknown", "the server ended no connection while this probe watched".to_owned()),
            (cases, ..) => ("server", format!("it ends TCP without close_notify {}", cases.join(", and "))),
        };
        Fault { at_fault, meaning }
    }

    fn answers_close_notify(&self) -> Finding {
        let (verdict, value, meaning, rule) = match &self.closing {
            None => unknown("The probe could not send close_notify.", CLOSE_NOTIFY),
            Some(Closing { answer: Answer::ToCloseNotify(_), .. }) => {
                found(Verdict::Good, true, "A client that waits for the server's close_notify gets it.", CLOSE_NOTIFY)
            }
            Some(Closing { answer: Answer::ToFin(_), .. }) => {
                let meaning =
                    "The server answers only after FIN. A client that waits before it sends FIN waits in vain.";
                found(Verdict::Tolerable, true, meaning, CLOSE_NOTIFY)
            }
            Some(Closing { answer: Answer::Failed(failure), .. }) => {
                let meaning =
                    format!("The server answers with {failure}. A client that waits for the answer reports an error.");
                found(Verdict::Bad, false, &meaning, CLOSE_NOTIFY)
            }
            Some(Closing { tcp: TcpEnd::Fin, .. }) => {
                let meaning = "The server ends TCP instead of answering. A client that waits for the answer reports an \
                               unexpected EOF, and cannot know whether everything has arrived.";
                found(Verdict::Bad, false, meaning, CLOSE_NOTIFY)
            }
            Some(Closing { tcp: TcpEnd::Reset, .. }) => {
                let meaning = "The server resets the connection instead of answering. The reset may destroy data on its \
                               way to either side.";
                found(Verdict::Bad, false, meaning, CLOSE_NOTIFY)
            }
            Some(Closing { tcp: TcpEnd::Open, .. }) => {
                let meaning = "The server does not answer, and keeps the connection open. A client that waits for the \
                               answer waits until its timeout.";
                match self.version {
                    "1.2" => found(Verdict::Bad, false, meaning, RESPONSE),
                    _ => found(Verdict::Tolerable, false, meaning, HALF_CLOSE),
                }
            }
        };
        Finding { id: "answers_close_notify", verdict, value, meaning, rule }
    }

    fn answer_time(&self) -> Finding {
        let rule = "ShutdownPolicy::CLOSE_TIMEOUT: a client of this library waits 5 s by default";
        let (verdict, value, meaning, rule) = match self.closing.as_ref().map(|closing| closing.answer) {
            Some(Answer::ToCloseNotify(time) | Answer::ToFin(time)) => {
                let time = (time.as_secs_f64() * 10_000.0).round() / 10.0;
                match time <= PROMPT_ANSWER_MS {
                    true => {
                        found(Verdict::Good, time, "The close takes this long, the way there and back included.", rule)
                    }
                    false => {
                        found(Verdict::Tolerable, time, "Each client that waits for the answer waits this long.", rule)
                    }
                }
            }
            _ => unknown("There was no answer.", rule),
        };
        Finding { id: "answer_time_ms", verdict, value, meaning, rule }
    }

    fn closes_tcp_after_answer(&self) -> Finding {
        let (verdict, value, meaning, rule) = match &self.closing {
            None => unknown("The probe could not send close_notify.", CLOSE_NOTIFY),
            Some(Closing { answer: Answer::Failed(_), .. }) => unknown("There was no answer.", CLOSE_NOTIFY),
            Some(Closing { tcp: TcpEnd::Fin, answer: Answer::None, .. }) => {
                found(Verdict::Tolerable, "fin", "The server ends TCP without an answer.", CLOSE_NOTIFY)
            }
            Some(Closing { tcp: TcpEnd::Fin, .. }) => {
                found(Verdict::Good, "fin", "The client may close without a further wait.", CLOSE_NOTIFY)
            }
            Some(Closing { tcp: TcpEnd::Reset, .. }) => {
                let meaning = "The reset may destroy data that the client has not read yet.";
                found(Verdict::Bad, "rst", meaning, STAGED_CLOSE)
            }
            Some(Closing { tcp: TcpEnd::Open, .. }) => {
                let meaning =
                    "The server waits for the client's FIN. A client that waits for the server's FIN waits in vain.";
                found(Verdict::Tolerable, "open", meaning, CLOSE_NOTIFY)
            }
        };
        Finding { id: "closes_tcp_after_answer", verdict, value, meaning, rule }
    }

    fn idle_close(&self) -> Finding {
        let (verdict, value, meaning, rule) = match self.idle.map(|(end, _)| end) {
            None => unknown("The probe could not watch an idle connection.", CLOSE_NOTIFY),
            Some(OwnEnd::CloseNotify) => {
                let meaning = "A client can tell the end of an idle connection from a cut one.";
                found(Verdict::Good, "close_notify", meaning, CLOSE_NOTIFY)
            }
            Some(OwnEnd::Fin) => {
                let meaning = "The server ends idle connections without close_notify. A client that reads then reports an \
                               unexpected EOF.";
                found(Verdict::Bad, "fin", meaning, CLOSE_NOTIFY)
            }
            Some(OwnEnd::Reset) => {
                found(Verdict::Bad, "rst", "The server resets idle connections, as a crash would.", CLOSE_NOTIFY)
            }
            Some(OwnEnd::Failed(failure)) => {
                let meaning = format!(
                    "The server ends idle connections with {failure}. A client that reads then reports an error."
                );
                found(Verdict::Bad, "none", &meaning, CLOSE_NOTIFY)
            }
            Some(OwnEnd::None) => {
                let meaning = format!(
                    "The server kept the idle connection for as long as the probe watched, up to {} s.",
                    IDLE_TIMEOUT.as_secs()
                );
                found(Verdict::Unknown, "none", &meaning, CLOSE_NOTIFY)
            }
        };
        Finding { id: "idle_close", verdict, value, meaning, rule }
    }

    fn early_answer_survives(&self) -> Finding {
        let (verdict, value, meaning, rule) = match &self.early_answer {
            None => unknown("No HTTP/1 server, or no answer to an upload.", STAGED_CLOSE),
            Some(EarlyAnswer::NotEarly) => {
                unknown("The server reads the whole request before it answers. It cut no answer.", STAGED_CLOSE)
            }
            Some(EarlyAnswer::Whole) => {
                let meaning = "The server goes on reading after an early answer, so that no reset overtakes it.";
                found(Verdict::Good, true, meaning, STAGED_CLOSE)
            }
            Some(EarlyAnswer::WholeThenReset(after)) => {
                let after = after.as_millis();
                match after < PROMPT_RESET_MS {
                    true => {
                        let meaning = format!(
                            "A reset came {after} ms after the early answer. A client that has not read the answer by \
                             then loses it."
                        );
                        found(Verdict::Bad, false, &meaning, STAGED_CLOSE)
                    }
                    false => {
                        let meaning = format!(
                            "The early answer arrives, but a reset follows {after} ms later. A client that uploads for \
                             longer before it reads loses the answer."
                        );
                        found(Verdict::Tolerable, true, &meaning, STAGED_CLOSE)
                    }
                }
            }
            Some(EarlyAnswer::Cut) => {
                let meaning =
                    "The connection ended before the early answer was whole. Clients see an error in place of it.";
                found(Verdict::Bad, false, meaning, STAGED_CLOSE)
            }
        };
        Finding { id: "early_answer_survives", verdict, value, meaning, rule }
    }

    fn close_delimited_truthful(&self) -> Finding {
        let response = self.response.as_ref().map(|response| (response.delimiter, response.end));
        let (verdict, value, meaning, rule) = match response {
            None => unknown("No HTTP/1 server, or no response.", INCOMPLETE_CLOSE),
            Some((Delimiter::Connection, OwnEnd::CloseNotify)) => {
                let meaning =
                    "A response without a length ends with close_notify, so that a client can tell it from a cut one.";
                found(Verdict::Good, true, meaning, INCOMPLETE_CLOSE)
            }
            Some((Delimiter::Length, OwnEnd::CloseNotify)) => {
                let meaning = "The response had a length. The server ended the connection behind it with close_notify.";
                found(Verdict::Good, true, meaning, CLOSURE_ALERTS)
            }
            Some((Delimiter::Connection, OwnEnd::Fin | OwnEnd::Reset)) => {
                let meaning =
                    "A response without a length ends without close_notify. A client cannot tell it from a cut one.";
                found(Verdict::Bad, false, meaning, INCOMPLETE_CLOSE)
            }
            Some((Delimiter::Length, OwnEnd::Fin | OwnEnd::Reset)) => {
                let meaning = "The response had a length, so it was whole. The server ended the connection behind it without \
                               close_notify, which would make a response without a length look cut.";
                found(Verdict::Tolerable, false, meaning, CLOSURE_ALERTS)
            }
            Some((Delimiter::Connection, OwnEnd::Failed(failure))) => {
                let meaning =
                    format!("A response without a length ends with {failure}. A client cannot tell it from a cut one.");
                found(Verdict::Bad, false, &meaning, INCOMPLETE_CLOSE)
            }
            Some((Delimiter::Length, OwnEnd::Failed(failure))) => {
                let meaning = format!(
                    "The response had a length, so it was whole. The server ended the connection behind it with {failure}, \
                     which would make a response without a length look cut."
                );
                found(Verdict::Tolerable, false, &meaning, CLOSURE_ALERTS)
            }
            Some((Delimiter::Cut, OwnEnd::Failed(failure))) => {
                found(Verdict::Bad, false, &format!("The response is cut by {failure}."), INCOMPLETE_CLOSE)
            }
            Some((Delimiter::Cut, _)) => {
                let meaning = "The connection ended before the response was whole.";
                found(Verdict::Bad, false, meaning, INCOMPLETE_CLOSE)
            }
            Some((_, OwnEnd::None)) => {
                unknown("The server did not close after a response to \"Connection: close\".", INCOMPLETE_CLOSE)
            }
        };
        Finding { id: "close_delimited_truthful", verdict, value, meaning, rule }
    }

    fn reads_after_close_notify(&self) -> Finding {
        let response = self.response.as_ref().and_then(|response| response.reads_after);
        let (verdict, value, meaning, rule) = match response.or(self.idle.and_then(|(_, reads_after)| reads_after)) {
            None => unknown("The server sent no close_notify of its own accord.", STAGED_CLOSE),
            Some(true) => {
                let meaning = "Data that crosses the server's close_notify causes no reset.";
                found(Verdict::Good, true, meaning, STAGED_CLOSE)
            }
            Some(false) => {
                let meaning = "Data that crosses the server's close_notify causes a reset, which may destroy what the client \
                               has not read yet.";
                found(Verdict::Tolerable, false, meaning, STAGED_CLOSE)
            }
        };
        Finding { id: "reads_after_close_notify", verdict, value, meaning, rule }
    }

    fn tickets(&self) -> Finding {
        let (verdict, value, meaning, rule) = match self.closing.as_ref().map(|closing| closing.tickets) {
            None => unknown("The probe could not close a connection.", TICKETS),
            Some(None) => unknown("TLS 1.2 sends its ticket within the handshake, see resumes.", TICKETS),
            Some(Some(0)) => {
                found(Verdict::Tolerable, 0, "Clients make a full handshake for each connection.", TICKETS)
            }
            Some(Some(count)) => {
                found(Verdict::Good, count, "Clients that read to the end get this many tickets.", TICKETS)
            }
        };
        Finding { id: "tickets", verdict, value, meaning, rule }
    }

    fn resumes(&self) -> Finding {
        let (verdict, value, meaning, rule) = match self.resumes {
            None => unknown("The probe could make no second connection.", RESUMPTION),
            Some(true) => found(Verdict::Good, true, "Later connections of a client resume its session.", RESUMPTION),
            Some(false) => {
                found(Verdict::Tolerable, false, "Clients make a full handshake for each connection.", RESUMPTION)
            }
        };
        Finding { id: "resumes", verdict, value, meaning, rule }
    }

    fn resumes_after_write_only(&self) -> Finding {
        let (verdict, value, meaning, rule) = match self.resumes_after_write_only {
            None => unknown("The probe could not connect twice for it.", RESUMPTION),
            Some(true) => {
                let meaning = "A client that only writes resumes its session if it reads to the end when it closes.";
                found(Verdict::Good, true, meaning, RESUMPTION)
            }
            Some(false) => {
                let meaning = "A client that only writes makes a full handshake for each connection.";
                found(Verdict::Tolerable, false, meaning, RESUMPTION)
            }
        };
        Finding { id: "resumes_after_write_only", verdict, value, meaning, rule }
    }
}

type Judgement = (Verdict, Value, String, &'static str);

fn found(verdict: Verdict, value: impl Into<Value>, meaning: &str, rule: &'static str) -> Judgement {
    (verdict, value.into(), meaning.to_owned(), rule)
}

fn unknown(meaning: &str, rule: &'static str) -> Judgement {
    found(Verdict::Unknown, json!(null), meaning, rule)
}
