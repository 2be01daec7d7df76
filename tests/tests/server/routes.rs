//! The service of most tests.

use std::io;

use hyper::{Request, Response, StatusCode, body::Incoming, header::CONTENT_LENGTH};
use tls_shutdown_tests::serving::{
    ScriptedBody,
    Step::{self, Data, Fail, Panic, Stop, Turn},
};

/// What a service returns.
pub(crate) type Answer = Result<Response<ScriptedBody>, io::Error>;

/// Answers by path: bodies, errors and panics.
pub(crate) async fn routes(request: Request<Incoming>) -> Answer {
    let full = || Ok(Response::new(ScriptedBody::full(10)));
    let scripted = |steps: &[Step]| Ok(Response::new(ScriptedBody::new(steps)));
    let sized = |length: &'static str, steps: &[Step]| {
        let mut response = Response::new(ScriptedBody::new(steps));
        response.headers_mut().insert(CONTENT_LENGTH, length.parse().expect("a number"));
        Ok(response)
    };
    match request.uri().path() {
        "/fail" => Err(io::Error::other("no answer")),
        "/panic" => panic!("no answer"),
        "/never" => std::future::pending().await,
        "/stop" => scripted(&[Data(10), Stop]),
        "/body-panic" => scripted(&[Data(10), Turn, Panic]),
        "/body-fail" => scripted(&[Data(10), Turn, Fail]),
        "/chunks" => scripted(&[Data(10), Turn, Data(10)]),
        "/short" => sized("20", &[Data(10)]),
        "/long" => sized("10", &[Data(20)]),
        "/large" => Ok(Response::new(ScriptedBody::full(300_000))),
        "/huge" => Ok(Response::new(ScriptedBody::full(20_000_000))),
        "/many" => scripted(&[Data(15_000), Turn].repeat(20)),
        "/no-content" => {
            let mut response = Response::new(ScriptedBody::new(&[]));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        "/not-modified" => {
            let mut response = Response::new(ScriptedBody::new(&[Data(10), Stop]));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            Ok(response)
        }
        _ => full(),
    }
}
