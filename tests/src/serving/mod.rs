//! Servers over loopback, and clients that report how their connections ended.

mod app;
mod client;
mod driven_body;
#[cfg(feature = "frameworks")]
mod frameworks;
pub mod http2;
mod integration;
mod scripted_body;
mod server;
mod site;

pub use app::LARGE;
pub use client::{AnyStream, Client, ClientStream, body_of, narrow_socket, offer};
pub use driven_body::{BodyDriver, DrivenBody};
pub use integration::{Framework, Integration};
pub use scripted_body::{KnowsItsEnd, ScriptedBody, Step, answer};
pub use server::{LONG, Running, listener, offering};
pub use site::{GET, HttpRequests, Site, SiteAddress, Untouched, hyper_body, hyper_http2, hyper_request, socket_path};
