//! Metrics of connections and of the drain, for Prometheus. It prints the last values: no scrape follows the exit.
//!
//! `cargo run --bin metrics 127.0.0.1:8443 cert.pem`, then `curl -k https://127.0.0.1:8443/metrics`

use std::{error::Error, sync::Arc};

use axum::{Router, routing::get};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tls_shutdown::server::{HandshakeFailure, Server, ServerDrain, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let mut registry = Registry::with_prefix("tls");
    let (ended, cut) = (Family::<[(&str, &str); 2], Counter>::default(), Counter::<u64>::default());
    let age = Histogram::new(exponential_buckets(0.01, 4.0, 10));
    registry.register("connections_ended", "Connections by ending and by failure of the handshake", ended.clone());
    registry.register("responses_cut", "Responses that were not sent to their end", cut.clone());
    registry.register_with_unit("connection_age", "Time from accept to end", Unit::Seconds, age.clone());
    let (open, in_flight, phase) = (Gauge::<i64>::default(), Gauge::<i64>::default(), Gauge::<i64>::default());
    registry.register("connections_open", "Open connections, including those in their handshake", open.clone());
    registry.register("requests_in_flight", "Requests whose response is not complete", in_flight.clone());
    registry.register("drain_phase", "0 serving, 1 notice, 2 last request, 3 deadline, 4 exit, 5 ended", phase.clone());
    let registry = Arc::new(registry);
    let listener = TlsListener::bind(address, server_config(cert, &["h2", "http/1.1"])?).await?;
    println!("listening on https://{}", listener.local_addr()?);
    let drain = ServerDrain::on_terminate_signal()?;
    let (exported, handle) = (registry.clone(), drain.handle());
    let metrics = get(|| async move {
        open.set(handle.connections() as i64);
        in_flight.set(handle.in_flight() as i64);
        phase.set(handle.phase() as i64);
        let mut text = String::new();
        encode(&mut text, &exported).map(|()| text).map_err(|error| error.to_string())
    });
    let report = Server::new(listener)
        .on_end(move |end| {
            let handshake = end.handshake_failure().map_or("finished", HandshakeFailure::name);
            ended.get_or_create(&[("ending", end.ending().name()), ("handshake", handshake)]).inc();
            cut.inc_by(end.responses_cut());
            age.observe(end.age().as_secs_f64());
        })
        .drain(drain)
        .serve(Router::new().route("/metrics", metrics))
        .await;
    let mut text = String::new();
    encode(&mut text, &registry)?;
    println!("{report}\n{text}");
    Ok(())
}
