//! Proxies of others in front of a server that answers uploads unread. They reuse its connections for the requests of all their clients.

use std::{collections::BTreeMap, fs, net::TcpStream};

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tls_shutdown_interop::{Background, Build, LOOPBACK, Server, directory, glance, program, python_program, within};
use tokio::{process::Command, task::JoinSet};

const REQUESTS: usize = 3_000;
const CONNECTIONS: usize = 30;
/// One request of so many is large, and the server answers it unread. h2 ends an HTTP/2 connection by GOAWAY if data comes for 1,024 streams
/// that are over (`max_local_error_reset_streams`).
const UNREAD: usize = 4;
const LARGE: usize = 60_000;

/// Makes the command of a proxy from its port and that of the server.
type Proxy = fn(u16, u16) -> Command;

/// A file with a configuration for the proxy at this port. Envoy takes only what has this extension for YAML.
fn configuration(port: u16, text: &str) -> std::path::PathBuf {
    let file = directory().join(format!("proxy-{port}.yaml"));
    fs::write(&file, text).expect("a configuration");
    file
}

fn nginx(port: u16, server: u16) -> Command {
    let text = format!(
        "daemon off; master_process off; pid proxy.pid; error_log stderr notice; events {{}}
         http {{
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi; access_log off;
             upstream back {{ server 127.0.0.1:{server} max_fails=0; keepalive 100; }}
             server {{
                 listen 127.0.0.1:{port}; keepalive_requests 1000000000;
                 location / {{
                     proxy_pass https://back; proxy_http_version 1.1; proxy_set_header Connection '';
                 }}
             }}
         }}"
    );
    let mut command = program("nginx", "nginx-light");
    command.arg("-p").arg(directory()).arg("-c").arg(configuration(port, &text)).args(["-e", "stderr"]);
    command
}

fn haproxy(port: u16, server: u16) -> Command {
    let text = format!(
        "global\n maxconn 2000\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse always\n\
         frontend front\n bind 127.0.0.1:{port}\n default_backend back\n\
         backend back\n server one 127.0.0.1:{server} ssl verify none\n"
    );
    let mut command = program("haproxy", "haproxy");
    command.args(["-V", "-db", "-f"]).arg(configuration(port, &text));
    command
}

/// HTTP/2 to the server. Its health check is the default one, which speaks HTTP/1.1 although the connection has negotiated HTTP/2. Without
/// a healthy server, each request is answered with 503.
fn envoy(port: u16, server: u16) -> Command {
    let kind = |name: &str| format!("\"@type\": type.googleapis.com/envoy.extensions.{name}");
    let text = format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          {manager}
          stat_prefix: front
          route_config:
            virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: back}}}}]}}]
          http_filters:
          - {{name: envoy.filters.http.router, typed_config: {{{router}}}}}
  clusters:
  - name: back
    load_assignment:
      cluster_name: back
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}}}
    health_checks:
    - {{timeout: 5s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {{path: /health}}}}
    common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        {options}
        explicit_http_config: {{http2_protocol_options: {{}}}}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config: {{{tls}}}
",
        manager = kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        router = kind("filters.http.router.v3.Router"),
        options = kind("upstreams.http.v3.HttpProtocolOptions"),
        tls = kind("transport_sockets.tls.v3.UpstreamTlsContext"),
    );
    let mut command = python_program("envoy");
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "--config-path"]).arg(configuration(port, &text));
    command
}

/// Sends requests through a proxy. Counts the answers by status.
async fn statuses(proxy: Proxy, ready: &str, server: &Server) -> BTreeMap<u16, usize> {
    let upstream = server.address.port();
    let (_proxy, port) = Background::start_on_free_port(|port| proxy(port, upstream), ready).await;
    glance(|| TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).is_ok()).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = client.clone();
        tasks.spawn(async move {
            let mut statuses = Vec::new();
            for number in 0..REQUESTS / CONNECTIONS {
                let (path, length) = if number % UNREAD == 0 { ("/unknown", LARGE) } else { ("/count", 10) };
                let request = Request::post(format!("http://127.0.0.1:{port}{path}"));
                let request = request.body(Full::from(vec![b'.'; length])).expect("a request");
                let response = within(client.request(request)).await.expect("an answer of the proxy");
                statuses.push(response.status().as_u16());
                within(response.into_body().collect()).await.expect("a whole answer");
            }
            statuses
        });
    }
    let mut count = BTreeMap::new();
    tasks.join_all().await.into_iter().flatten().for_each(|status| *count.entry(status).or_default() += 1);
    count
}

#[tokio::test]
async fn an_unread_upload_costs_no_client_of_a_proxy_its_request() {
    let server = Server::serve(&[]).await;
    let expected = BTreeMap::from([(200, REQUESTS - REQUESTS / UNREAD), (404, REQUESTS / UNREAD)]);
    for (name, proxy, ready) in
        [("nginx", nginx as Proxy, "epoll"), ("haproxy", haproxy, "epoll"), ("envoy", envoy, "starting workers")]
    {
        let statuses = statuses(proxy, ready, &server).await;
        assert_eq!(statuses, expected, "{name}");
    }
    let bare = Server::start(Build::Tests.bare_server(LOOPBACK)).await;
    let statuses = statuses(nginx, "epoll", &bare).await;
    println!("the bare server: {statuses:?}");
    assert!(statuses.contains_key(&502), "the control proves nothing: {statuses:?}");
}
