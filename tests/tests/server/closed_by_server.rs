//! Connections that the server ends after a number of requests, or because a handler wants that.

use hyper::{Request, body::Incoming};
use tls_shutdown::{
    Ending,
    server::{ConnectionInfo, Server},
};
use tls_shutdown_tests::{
    End,
    serving::{
        Client, Running, ScriptedBody, answer,
        http2::{GOAWAY, PING, get, get_path, hello, is_answered, pong},
        listener,
    },
};

use crate::routes::Answer;

async fn routes(request: Request<Incoming>) -> Answer {
    if request.uri().path() == "/close" {
        request.extensions().get::<ConnectionInfo>().expect("known").close();
    }
    Ok(answer(ScriptedBody::full(10)).expect("an answer"))
}

#[tokio::test]
async fn a_handler_ends_its_connection_and_a_number_of_requests_does() {
    let limited = |server: Server| server.max_requests(3);
    let mut running = Running::start_with(listener().await, limited, |drain| drain, routes);
    for paths in [&["/", "/", "/"][..], &["/", "/close"], &["/close"]] {
        let mut client = Client::connect(running.address).await;
        for (number, path) in paths.iter().enumerate() {
            client.ask(path).await;
            let (head, body) = client.read_message().await;
            assert_eq!(head.contains("connection: close"), number + 1 == paths.len(), "{paths:?}: {head}");
            assert_eq!(body.len(), 10);
        }
        assert_eq!(client.read_to_end_and_close().await, (String::new(), End::CloseNotify));
        drop(client);
        let end = running.end().await;
        assert_eq!((end.ending(), end.requests(), end.responses_cut()), (Ending::Complete, paths.len() as u64, 0));
    }
    for requests in [[get(1), get(3), get(5)], [get(1), get_path(3, "/close"), get(5)]] {
        let mut client = Client::connect_http2(running.address).await;
        client.send([hello(), requests.concat()].concat()).await;
        client.frame_of(GOAWAY).await;
        // A request that is on its way when the client hears of it.
        client.send(get(7)).await;
        let ping = client.frame_of(PING).await;
        client.send(pong(&ping)).await;
        let (frames, end) = client.frames_to_end().await;
        assert!(is_answered(&frames, 7), "{frames:?}");
        assert_eq!(end, End::CloseNotify);
        drop(client);
        let end = running.end().await;
        assert_eq!((end.requests(), end.responses_cut()), (4, 0), "{end}");
    }
}
