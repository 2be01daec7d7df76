//! gRPC's health checks (`grpc.health.v1.Health`) of a server that drains, by tonic-health. Feature `tonic-health`.

use std::pin::Pin;

use ::tonic::{Request, Response, Status, async_trait};
use ::tonic_health::pb::health_server::{Health, HealthServer};
use ::tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use ::tonic_health::server::{HealthReporter, HealthService};
use futures_core::Stream;
use futures_util::{StreamExt, stream};

use crate::server::{DrainHandle, DrainPhase};

const NOT_SERVING: HealthCheckResponse = HealthCheckResponse { status: ServingStatus::NotServing as i32 };

/// Returns the health service of a server that drains, for tonic's `add_service`. It answers what the reporter says. From the notice on, it
/// answers that no service is serving, unless the drain is [cancelled](DrainHandle::cancel).
///
/// `Check` counts as a probe: a server that is checked regularly gives a [notice](crate::server::ServerDrain::notice) before it stops.
/// `Watch` reports both changes. It ends when the server stops accepting, because it would hold up the drain.
///
/// ```
/// # use tls_shutdown::{integrations::tonic_health::health_server, server::ServerDrain};
/// use tonic_health::server::HealthReporter;
///
/// # fn example(drain: &ServerDrain) {
/// let reporter = HealthReporter::new();
/// let service = health_server(&reporter, drain.handle());
/// # let _ = service;
/// # }
/// ```
pub fn health_server(reporter: &HealthReporter, drain: DrainHandle) -> HealthServer<DrainHealth> {
    HealthServer::new(DrainHealth { reported: HealthService::from_health_reporter(reporter.clone()), drain })
}

/// The service of [`health_server`].
#[derive(Debug)]
pub struct DrainHealth {
    reported: HealthService,
    drain: DrainHandle,
}

#[async_trait]
impl Health for DrainHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let is_ready = self.drain.answer_probe(request.extensions());
        let response = self.reported.check(request).await?;
        Ok(if is_ready { response } else { response.map(|_| NOT_SERVING) })
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let reported = self.reported.watch(request).await?.into_inner();
        let watch = Watch { reported, last: None, told: None, drain: self.drain.clone() };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

/// A call of `Watch`.
struct Watch<S> {
    reported: S,
    /// What the reporter said last.
    last: Option<HealthCheckResponse>,
    /// What the client was told last.
    told: Option<HealthCheckResponse>,
    drain: DrainHandle,
}

impl<S: Stream<Item = Result<HealthCheckResponse, Status>> + Unpin> Watch<S> {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let is_ready = self.drain.is_ready();
            let now = if is_ready { self.last } else { Some(NOT_SERVING) };
            if self.told != now {
                self.told = now;
                return Some((Ok(now?), self));
            }
            let change = async {
                if is_ready { self.drain.reached(DrainPhase::Notice).await } else { self.drain.ready().await }
            };
            tokio::select! {
                () = change => {}
                () = self.drain.reached(DrainPhase::LastRequest) => return None,
                reported = self.reported.next() => self.last = match reported? {
                    Ok(response) => Some(response),
                    Err(status) => return Some((Err(status), self)),
                },
            }
        }
    }
}
