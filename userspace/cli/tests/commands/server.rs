//! A server of the API for the tests: a real store, and an agent that always answers the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use weft_api::agent::{
    AgentHeard, DropInfo, FlowInfo, FlowsQuery, Health, HostInfo, HostState, MaskInfo, PeerInfo,
    PortInfo, PortState, Status, TraceEgress, TraceRequest, TraceResponse, TraceStep,
};
use weft_api::problem::Problem;
use weft_store::server::{ProblemResponse, routes};
use weft_store::{EmbeddedStore, Store};
use weft_vnet::{Model, Object, Operation};

/// A running server.
pub struct Server {
    /// Where it listens.
    pub endpoint: String,
    transactions: Arc<AtomicU64>,
    store: Arc<dyn Store>,
    runtime: Option<Runtime>,
    _folder: TempDir,
}

#[derive(Clone, Default)]
struct Behaviour {
    token: Option<&'static str>,
    /// Every transaction finds the topology changed.
    restless: bool,
    transactions: Arc<AtomicU64>,
}

impl Server {
    pub fn start() -> Server {
        Server::with(Behaviour::default())
    }

    pub fn with_token(token: &'static str) -> Server {
        Server::with(Behaviour {
            token: Some(token),
            ..Behaviour::default()
        })
    }

    pub fn restless() -> Server {
        Server::with(Behaviour {
            restless: true,
            ..Behaviour::default()
        })
    }

    /// Transactions that were asked for.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    /// What no file says yet.
    pub fn transact(&self, operations: Vec<Operation>) {
        let runtime = self.runtime.as_ref().unwrap();
        runtime
            .block_on(self.store.transact(None, operations))
            .unwrap();
    }

    /// The topology that it holds.
    pub fn model(&self) -> Model {
        let runtime = self.runtime.as_ref().unwrap();
        let contents = runtime.block_on(self.store.read()).unwrap();
        contents.model().unwrap()
    }

    fn with(behaviour: Behaviour) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("weftd.sock");
        let runtime = Runtime::new().unwrap();
        let transactions = Arc::clone(&behaviour.transactions);
        let store = runtime.block_on(async {
            let store = EmbeddedStore::open(&folder.path().join("store.redb"))
                .await
                .unwrap();
            let store: Arc<dyn Store> = Arc::new(store);
            let app = routes(Arc::clone(&store))
                .merge(agent(Arc::clone(&store)))
                .layer(middleware::from_fn_with_state(behaviour, behave));
            let listener = UnixListener::bind(&socket).unwrap();
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            store
        });
        let endpoint = format!("unix:{}", socket.display());
        Server {
            endpoint,
            transactions,
            store,
            runtime: Some(runtime),
            _folder: folder,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn behave(State(behaviour): State<Behaviour>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if behaviour
        .token
        .is_some_and(|token| given != Some(&format!("Bearer {token}")))
    {
        return ProblemResponse::from(Problem::unauthorized("a bearer token is needed"))
            .into_response();
    }
    if request.uri().path() == "/v1/transactions" {
        let count = behaviour.transactions.fetch_add(1, Ordering::Relaxed);
        if behaviour.restless {
            return ProblemResponse::from(Problem::revision_conflict(0, count + 1)).into_response();
        }
    }
    next.run(request).await
}

fn agent(store: Arc<dyn Store>) -> Router {
    let asked = Arc::new(AtomicU64::new(0));
    Router::new()
        .route("/v1/ports/activity", get(move || ports_with_ids(store)))
        .route("/v1/hosts/activity", get(async || Json(hosts())))
        .route("/v1/flows", get(flows))
        .route("/v1/drops", get(move || drops(Arc::clone(&asked))))
        .route("/v1/status", get(async || Json(status())))
        .route("/v1/trace", post(trace))
        .merge(super::policies::routes())
}

/// Ports of the topology with the ids that they have there.
async fn ports_with_ids(store: Arc<dyn Store>) -> Json<Vec<PortInfo>> {
    let objects = store.read().await.unwrap().objects;
    let mut ports = ports();
    for object in objects {
        let Object::Port(port) = object else { continue };
        for info in &mut ports {
            if info.name.ends_with(&format!("/{}", port.name)) {
                info.id = port.id.to_string();
            }
        }
    }
    Json(ports)
}

fn ports() -> Vec<PortInfo> {
    let port = |name: &str, mac: &str, address: &str| PortInfo {
        tenant: "acme".into(),
        name: name.into(),
        mac: mac.into(),
        addresses: vec![address.into()],
        ..PortInfo::default()
    };
    vec![
        PortInfo {
            host: Some("h1".into()),
            interface: Some("web1".into()),
            state: PortState::Waiting,
            ingress_packets: 7,
            egress_packets: 5,
            drops: 1,
            problem: Some("interface web1 doesn't exist yet".into()),
            ..port("web/web-1", "02:00:00:00:01:0b", "10.0.1.11")
        },
        PortInfo {
            host: Some("h2".into()),
            interface: Some("db1".into()),
            state: PortState::Remote,
            key: Some("3.1".into()),
            tunnel_key: Some(0x301),
            ..port("db/db-1", "02:00:00:00:02:0b", "10.0.2.11")
        },
    ]
}

async fn flows(Query(query): Query<FlowsQuery>) -> Response {
    let mask_bits = [("ip_dst".to_owned(), 24)].into();
    if query.wants_masks() {
        let mask = "in,ip,ip_dst/24".into();
        return Json([MaskInfo {
            mask,
            mask_bits,
            flows: 1,
            packets: 9,
        }])
        .into_response();
    }
    let flow = FlowInfo {
        id: "f1".into(),
        port: "web/web-1".into(),
        tenant: "acme".into(),
        matches: "in=web/web-1,ip,ip_dst=10.0.2.0/24".into(),
        mask_bits,
        actions: "dec_ttl(1)".into(),
        packets: 9,
        bytes: 882,
        idle_secs: 3,
        ..FlowInfo::default()
    };
    Json([flow]).into_response()
}

/// Each time that they are asked for, one counter is one higher.
async fn drops(asked: Arc<AtomicU64>) -> Json<Vec<DropInfo>> {
    let drop = |reason: &str, packets| DropInfo {
        port: Some("web/web-1".into()),
        tenant: Some("acme".into()),
        reason: reason.into(),
        explanation: "no route leads to the destination".into(),
        packets,
    };
    let rising = asked.fetch_add(1, Ordering::Relaxed);
    Json(vec![drop("no_route", 4), drop("rising", rising)])
}

fn hosts() -> Vec<HostInfo> {
    let host = |name: &str, state| HostInfo {
        host: name.into(),
        address: Some("172.30.2.1".into()),
        state,
        since_unix_secs: Some(951_782_400),
        ..HostInfo::default()
    };
    let agent = |heard_secs_ago, clock_offset_ms| AgentHeard {
        version: "0.1.0".into(),
        abi: 2,
        heard_secs_ago,
        clock_offset_ms,
    };
    vec![
        host("h1", HostState::Local),
        HostInfo {
            probes: 60,
            lost: 7,
            loss_percent: 11,
            rtt_min_us: Some(98),
            rtt_avg_us: Some(1250),
            rtt_last_us: Some(20_003),
            mtu: Some(1600),
            mtu_carried: Some(1400),
            mtu_limit: Some(1400),
            agent: Some(agent(75, 0)),
            problem: Some(
                "host h2: of packets up to 1600 bytes only those up to 1400 come through".into(),
            ),
            ..host("h2", HostState::Degraded)
        },
        HostInfo {
            mtu: Some(1500),
            agent: Some(agent(1, 0)),
            ..host("h3", HostState::Up)
        },
    ]
}

fn status() -> Status {
    Status {
        host: "h1".into(),
        state: Health::Degraded,
        problems: vec!["the store is away".into()],
        peers: vec![PeerInfo {
            host: "h2".into(),
            address: "172.30.2.1".into(),
            state: "resolved".into(),
            interface: Some("eth0".into()),
            gateway_mac: Some("02:00:00:00:00:01".into()),
            mtu: Some(1500),
            reach: HostState::Up,
        }],
        ..Status::default()
    }
}

async fn trace(Json(request): Json<TraceRequest>) -> Response {
    if request.from != "web/web-1" {
        let (_, port) = request.from.split_once('/').unwrap();
        let problem = Problem::not_found(format!("`web` has no port `{port}`"));
        return ProblemResponse::from(problem).into_response();
    }
    let step = |device: &str, text: &str| TraceStep {
        device: device.into(),
        text: text.into(),
    };
    Json(TraceResponse {
        frame: request.packet.or(request.hex).unwrap(),
        steps: vec![
            step("port web/web-1", "enters"),
            step("router core", "routes"),
        ],
        verdict: "delivered to db/db-1 on h2".into(),
        matches: Some("in=web/web-1".into()),
        actions: Some("dec_ttl(1)".into()),
        egress: Some(TraceEgress {
            port: "db/db-1".into(),
            host: Some("h2".into()),
            key: Some("3.1".into()),
        }),
        problems: vec!["web1 doesn't exist".into()],
        ..TraceResponse::default()
    })
    .into_response()
}
