//! A background worker beside an HTTPS server: the drain waits, until its deadline, for all jobs that requests have queued.
//!
//! `cargo run --bin worker 127.0.0.1:8443 cert.pem`

use std::{error::Error, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use tls_shutdown::server::{DrainGuard, Server, ServerDrain, TlsListener};
use tls_shutdown_examples::{Arguments, server_config};
use tokio::{sync::mpsc, time::sleep};

/// Does all jobs until nobody can queue one any more. The drain waits for the guard.
async fn work(mut jobs: mpsc::Receiver<String>, _guard: DrainGuard) {
    while let Some(job) = jobs.recv().await {
        sleep(Duration::from_millis(500)).await; // a mail is sent, a picture is scaled
        println!("done: {job}");
    }
}

/// Answers once the job is in the queue, and 503 if the queue is full.
async fn queue(State(jobs): State<mpsc::Sender<String>>, job: String) -> Result<&'static str, StatusCode> {
    jobs.try_send(job).map(|()| "queued\n").map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { address, cert } = Arguments::parse();
    let drain = ServerDrain::on_terminate_signal()?.last_request(Duration::from_secs(1));
    let listener = TlsListener::bind(address, server_config(cert, &["h2", "http/1.1"])?).await?;
    println!("listening on https://{}", listener.local_addr()?);

    let (sender, jobs) = mpsc::channel(100);
    tokio::spawn(work(jobs, drain.handle().track()));
    // The server drops the last sender with its last connection.
    let app = Router::new().route("/jobs", post(queue)).with_state(sender);
    println!("{}", Server::new(listener).drain(drain).serve(app).await);
    Ok(())
}
