//! The API: the store's routes as `weft-store` serves them, and what this agent says of itself.
//!
//! On a Unix socket for whoever may open it, and by TCP for those who show the token.

use crate::config::{Api, read_token};
use crate::engine::Engine;
use crate::engine::policy_report::ReportError;
use crate::metrics::{self, Figures};
use crate::packet_thread::PacketThread;
use crate::ping::{self, PingError};
use crate::runs::Runs;
use anyhow::Context;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use weft_api::{
    ConnectionsQuery, FlowsQuery, Health, PingRequest, Problem, ReleaseRequest, Released,
    StateUpdate, TraceRequest,
};
use weft_datapath::Kernel;
use weft_store::Store;

/// This run among the earlier ones; none once it ends.
pub type SharedRuns = Arc<Mutex<Option<Runs>>>;

/// How long the store may take to hear of a release.
const WITHDRAW_MAX: Duration = Duration::from_secs(5);

/// Listens and serves until the agent stops.
///
/// # Errors
/// When a listener can't be opened; the address or path is named.
pub async fn serve(
    config: &Api,
    store: Arc<dyn Store>,
    packets: PacketThread,
    released: Arc<Notify>,
    runs: SharedRuns,
) -> anyhow::Result<()> {
    let routes = agent_routes(packets, store.clone(), released, runs)
        .merge(weft_store::server::routes(store));
    let unix = listen_unix(&config.unix)?;
    tokio::spawn(serve_on_unix(unix, routes.clone()));
    if let Some(address) = config.listen {
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address}"))?;
        let routes = match token {
            Some(token) => routes.layer(middleware::from_fn_with_state(
                Arc::<str>::from(token),
                require_token,
            )),
            None => routes,
        };
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the API by TCP ended");
            }
        });
        tracing::info!(%address, "the API listens by TCP");
    }
    Ok(())
}

/// Serves `/metrics` on an address of its own.
///
/// # Errors
/// When nothing can listen there.
pub async fn serve_metrics(address: SocketAddr, packets: PacketThread) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} for metrics"))?;
    let routes = Router::new()
        .route("/metrics", get(metrics_text))
        .with_state(packets);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "serving metrics ended");
        }
    });
    tracing::info!(%address, "metrics are served");
    Ok(())
}

async fn metrics_text(State(packets): State<PacketThread>) -> Response {
    let figures = packets.ask(|engine| Figures {
        status: engine.report_status(),
        ports: engine.report_ports(),
        drops: engine.report_drops(),
        hosts: engine.report_hosts(),
        masks: engine.report_masks(),
    });
    match figures.await {
        Some(figures) => {
            let kind = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
            (kind, metrics::text(&figures)).into_response()
        }
        None => stopped(),
    }
}

async fn serve_on_unix(listener: UnixListener, routes: Router) {
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the API on the Unix socket ended");
    }
}

fn listen_unix(path: &Path) -> anyhow::Result<UnixListener> {
    let what = || format!("listening on {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(what)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{}: another weftd answers there", what());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).with_context(what)?;
    Ok(listener)
}

/// Lets through what shows the token. Compared in full length: the time says nothing about it.
async fn require_token(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let shown = shown
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let differs = shown
        .bytes()
        .zip(token.bytes())
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    if shown.len() != token.len() || differs != 0 {
        let detail = "this API needs the token of its token_file as `Authorization: Bearer`";
        return response(Problem::unauthorized(detail));
    }
    next.run(request).await
}

fn agent_routes(
    packets: PacketThread,
    store: Arc<dyn Store>,
    released: Arc<Notify>,
    runs: SharedRuns,
) -> Router {
    Router::new()
        .route("/v1/flows", get(flows))
        .route("/v1/ports/activity", get(ports))
        .route("/v1/hosts/activity", get(hosts))
        .route("/v1/drops", get(drops))
        .route("/v1/ports/{id}/rules", get(rules))
        .route("/v1/connections", get(connections).delete(flush))
        .route("/v1/trace", post(trace))
        .route("/v1/ping", post(ping))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(packets.clone())
        .merge(Router::new().route("/v1/status", get(status)).with_state((
            packets.clone(),
            store.clone(),
            runs,
        )))
        .merge(
            Router::new()
                .route("/v1/release", post(release))
                .with_state((packets, store, released)),
        )
}

async fn flows(State(packets): State<PacketThread>, Query(query): Query<FlowsQuery>) -> Response {
    if query.wants_masks() {
        return answer(&packets, Engine::report_masks).await;
    }
    answer(&packets, Engine::report_flows).await
}

async fn ports(State(packets): State<PacketThread>) -> Response {
    answer(&packets, Engine::report_ports).await
}

async fn hosts(State(packets): State<PacketThread>) -> Response {
    answer(&packets, Engine::report_hosts).await
}

async fn drops(State(packets): State<PacketThread>) -> Response {
    answer(&packets, Engine::report_drops).await
}

async fn rules(State(packets): State<PacketThread>, UrlPath(id): UrlPath<String>) -> Response {
    reported(packets.ask(move |engine| engine.report_rules(&id)).await)
}

async fn connections(
    State(packets): State<PacketThread>,
    Query(query): Query<ConnectionsQuery>,
) -> Response {
    reported(
        packets
            .ask(move |engine| engine.report_connections(&query))
            .await,
    )
}

async fn flush(
    State(packets): State<PacketThread>,
    Query(query): Query<ConnectionsQuery>,
) -> Response {
    reported(
        packets
            .ask(move |engine| engine.flush_connections(&query))
            .await,
    )
}

fn reported<T: serde::Serialize>(answer: Option<Result<T, ReportError>>) -> Response {
    match answer {
        None => stopped(),
        Some(Ok(answer)) => Json(answer).into_response(),
        Some(Err(error @ ReportError::NoPort(_))) => {
            response(Problem::not_found(error.to_string()))
        }
        Some(Err(error @ ReportError::Unreadable(_))) => {
            response(Problem::internal(error.to_string()))
        }
    }
}

/// The packet thread knows whether it could follow the store; the store itself knows whether it can now.
async fn status(
    State((packets, store, runs)): State<(PacketThread, Arc<dyn Store>, SharedRuns)>,
) -> Response {
    let Some(mut status) = packets.ask(|engine| engine.report_status()).await else {
        return stopped();
    };
    let now = store.status();
    if status.store.connected && !now.connected {
        let why = now.problem.as_deref().unwrap_or("not reached");
        status.problems.push(format!("store {}: {why}", now.url));
        status.state = Health::Degraded;
        status.store = now;
    }
    let runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(problem) = runs.as_ref().and_then(Runs::problem) {
        status.problems.push(problem.to_owned());
        status.state = Health::Degraded;
    }
    Json(status).into_response()
}

async fn trace(State(packets): State<PacketThread>, Json(request): Json<TraceRequest>) -> Response {
    match packets.ask(move |engine| engine.trace(&request)).await {
        None => stopped(),
        Some(Ok(traced)) => Json(traced).into_response(),
        Some(Err(error)) => response(Problem::malformed(error.to_string())),
    }
}

async fn ping(State(packets): State<PacketThread>, Json(request): Json<PingRequest>) -> Response {
    match ping::ping(&packets, request).await {
        Ok(pinged) => Json(pinged).into_response(),
        Err(PingError::Stopped) => stopped(),
        Err(error @ PingError::Request(_)) => response(Problem::malformed(error.to_string())),
        Err(error @ PingError::Watch(_)) => response(Problem::unavailable(error.to_string())),
    }
}

/// Takes everything out of the kernel, tells the store, and has weftd end.
async fn release(
    State((packets, store, released)): State<(PacketThread, Arc<dyn Store>, Arc<Notify>)>,
    Json(request): Json<ReleaseRequest>,
) -> Response {
    let done = packets
        .ask(move |engine| {
            let host = engine.host_name().to_owned();
            match request.host {
                Some(other) if other != host => {
                    Err(format!("this is the weftd of host {host}, not of {other}"))
                }
                _ => engine.release().map(|()| host),
            }
        })
        .await;
    match done {
        None => stopped(),
        Some(Err(problem)) => response(Problem::malformed(problem)),
        Some(Ok(host)) => {
            tracing::info!("released: nothing of weftd is left in the kernel");
            let warnings: Vec<String> = withdraw(&*store, &host).await.err().into_iter().collect();
            released.notify_one();
            Json(Released { host, warnings }).into_response()
        }
    }
}

/// Takes back from the store what a host said of its ports, and the addresses that it learned.
///
/// # Errors
/// Why the store doesn't know, in words.
pub async fn withdraw(store: &dyn Store, host: &str) -> Result<(), String> {
    let nothing = StateUpdate {
        replace: true,
        ..StateUpdate::default()
    };
    let told = tokio::time::timeout(WITHDRAW_MAX, store.update_state(host, nothing)).await;
    let why = match told {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", WITHDRAW_MAX.as_secs()),
    };
    Err(format!(
        "the store still says that ports are live on {host}: {why}"
    ))
}

async fn answer<T, Q>(packets: &PacketThread, question: Q) -> Response
where
    T: serde::Serialize + Send + 'static,
    Q: FnOnce(&Engine<Kernel>) -> T + Send + 'static,
{
    match packets.ask(move |engine| question(engine)).await {
        Some(answer) => Json(answer).into_response(),
        None => stopped(),
    }
}

fn stopped() -> Response {
    response(Problem::unavailable("the packet thread has stopped"))
}

fn response(problem: Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        Json(problem),
    )
        .into_response()
}
