//! Client of weftd's API, over TCP or a unix socket. A call opens a connection of its own: calls
//! are rare (a person's, or a host's to its store) and a broken one then concerns nobody else.

mod endpoint;
mod error;
mod sse;

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use uuid::Uuid;
use weft_vnet::{Kind, Object, Operation};

pub use endpoint::{Endpoint, EndpointError, PORT_DEFAULT};
pub use error::ClientError;

use crate::agent::{
    DropInfo, FlowInfo, HostInfo, MaskInfo, PingRequest, PingResponse, PortInfo, ReleaseRequest,
    Released, Status, TraceRequest, TraceResponse,
};
use crate::kinds::collection;
use crate::port_policy::{Connections, ConnectionsQuery, Flushed, PortRules};
use crate::problem::Problem;
use crate::types::{Committed, Contents, Event, StateUpdate, Transaction};

/// Largest answer that is read.
const ANSWER_LENGTH_MAX: usize = 256 << 20;
/// A watch that hears nothing for so long is dead: the server sends a comment every
/// [`WATCH_KEEP_ALIVE_SECS`].
const WATCH_SILENCE_SECS_MAX: u64 = 20;
/// How often a server shows that a watch is alive.
pub const WATCH_KEEP_ALIVE_SECS: u64 = 5;

const _: () = assert!(WATCH_SILENCE_SECS_MAX > 3 * WATCH_KEEP_ALIVE_SECS);

/// Calls the API of one weftd.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

/// Reads a bearer token from a file: its first line.
///
/// # Errors
/// When the file can't be read or holds no token.
pub fn read_token(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its first line is not a token",
        ));
    }
    Ok(token.to_owned())
}

impl Client {
    /// A client of `endpoint`, with the bearer token that it wants. Connects on each call.
    pub fn new(endpoint: Endpoint, token: Option<&str>) -> Self {
        let authorization = token.and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Client {
            endpoint,
            authorization,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
        }
    }

    /// The same client with other time limits, for connecting and for a whole answer.
    #[must_use]
    pub fn with_timeouts(mut self, connect: Duration, answer: Duration) -> Self {
        self.connect_timeout = connect;
        self.answer_timeout = answer;
        self
    }

    /// Where it calls.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET /v1/topology`.
    pub async fn topology(&self) -> Result<Contents, ClientError> {
        self.get("/v1/topology").await
    }

    /// `GET /v1/topology?members=false`: address groups are there without their members, of which there may be very many.
    pub async fn topology_without_members(&self) -> Result<Contents, ClientError> {
        self.get("/v1/topology?members=false").await
    }

    /// `POST /v1/transactions`; gives the new revision.
    pub async fn transact(
        &self,
        expected_revision: Option<u64>,
        operations: Vec<Operation>,
    ) -> Result<u64, ClientError> {
        let body = Transaction { operations };
        let done: Committed = self
            .send(
                Method::POST,
                "/v1/transactions",
                Some(&body),
                expected_revision,
            )
            .await?;
        Ok(done.revision)
    }

    /// `GET /v1/KIND`: all objects of a kind.
    pub async fn objects(&self, kind: Kind) -> Result<Vec<Object>, ClientError> {
        self.get(&format!("/v1/{}", collection(kind))).await
    }

    /// `GET /v1/KIND/ID`.
    pub async fn object(&self, kind: Kind, id: Uuid) -> Result<Object, ClientError> {
        self.get(&format!("/v1/{}/{id}", collection(kind))).await
    }

    /// `PUT /v1/KIND/ID`; gives the new revision.
    pub async fn put(
        &self,
        expected_revision: Option<u64>,
        object: &Object,
    ) -> Result<u64, ClientError> {
        let path = format!("/v1/{}/{}", collection(object.kind()), object.id());
        let done: Committed = self
            .send(Method::PUT, &path, Some(object), expected_revision)
            .await?;
        Ok(done.revision)
    }

    /// `DELETE /v1/KIND/ID`; gives the new revision.
    pub async fn delete(
        &self,
        expected_revision: Option<u64>,
        kind: Kind,
        id: Uuid,
    ) -> Result<u64, ClientError> {
        let path = format!("/v1/{}/{id}", collection(kind));
        let done: Committed = self
            .send(Method::DELETE, &path, None::<&()>, expected_revision)
            .await?;
        Ok(done.revision)
    }

    /// `PUT /v1/state/OWNER`.
    pub async fn update_state(&self, owner: &str, update: &StateUpdate) -> Result<(), ClientError> {
        let path = format!("/v1/state/{owner}");
        let _: serde::de::IgnoredAny = self.send(Method::PUT, &path, Some(update), None).await?;
        Ok(())
    }

    /// `GET /v1/flows`.
    pub async fn flows(&self) -> Result<Vec<FlowInfo>, ClientError> {
        self.get("/v1/flows").await
    }

    /// `GET /v1/flows?masks`.
    pub async fn masks(&self) -> Result<Vec<MaskInfo>, ClientError> {
        self.get("/v1/flows?masks=true").await
    }

    /// `GET /v1/ports/activity`.
    pub async fn port_activity(&self) -> Result<Vec<PortInfo>, ClientError> {
        self.get("/v1/ports/activity").await
    }

    /// `GET /v1/hosts/activity`.
    pub async fn host_activity(&self) -> Result<Vec<HostInfo>, ClientError> {
        self.get("/v1/hosts/activity").await
    }

    /// `GET /v1/drops`.
    pub async fn drops(&self) -> Result<Vec<DropInfo>, ClientError> {
        self.get("/v1/drops").await
    }

    /// `GET /v1/ports/ID/rules`.
    pub async fn port_rules(&self, id: Uuid) -> Result<PortRules, ClientError> {
        self.get(&format!("/v1/ports/{id}/rules")).await
    }

    /// `GET /v1/connections`.
    pub async fn connections(&self, query: &ConnectionsQuery) -> Result<Connections, ClientError> {
        self.get(&format!("/v1/connections{}", query.url())).await
    }

    /// `DELETE /v1/connections`: their next packets are judged as if they were new.
    pub async fn flush_connections(
        &self,
        query: &ConnectionsQuery,
    ) -> Result<Flushed, ClientError> {
        let path = format!("/v1/connections{}", query.url());
        self.send(Method::DELETE, &path, None::<&()>, None).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// `POST /v1/ping`.
    pub async fn ping(&self, request: &PingRequest) -> Result<PingResponse, ClientError> {
        self.send(Method::POST, "/v1/ping", Some(request), None)
            .await
    }

    /// `POST /v1/trace`.
    pub async fn trace(&self, request: &TraceRequest) -> Result<TraceResponse, ClientError> {
        self.send(Method::POST, "/v1/trace", Some(request), None)
            .await
    }

    /// `POST /v1/release`.
    pub async fn release(&self, request: &ReleaseRequest) -> Result<Released, ClientError> {
        self.send(Method::POST, "/v1/release", Some(request), None)
            .await
    }

    /// `GET /v1/watch?from=SEQUENCE`: every change after that one. The stream ends with an error
    /// when the connection breaks; whoever reads it connects again from the last sequence. With
    /// `store`, a server that holds another store by now starts with [`Event::Reset`].
    pub async fn watch(
        &self,
        from: u64,
        store: Option<Uuid>,
    ) -> Result<BoxStream<'static, Result<Event, ClientError>>, ClientError> {
        let mut path = format!("/v1/watch?from={from}");
        if let Some(store) = store {
            path.push_str(&format!("&store={store}"));
        }
        let request = self.request(Method::GET, &path, Bytes::new(), None)?;
        let answer = self.within(self.answer_timeout, self.call(request)).await?;
        if !answer.status().is_success() {
            return Err(self.problem(answer).await);
        }
        let watch = Watch {
            endpoint: self.endpoint.clone(),
            body: answer.into_body(),
            decoder: sse::Decoder::default(),
            ended: false,
        };
        Ok(futures_util::stream::unfold(watch, Watch::next).boxed())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>, None).await
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        expected_revision: Option<u64>,
    ) -> Result<T, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body)
                .map_err(|error| ClientError::answer(&self.endpoint, error.to_string()))?,
            None => Vec::new(),
        };
        let request = self.request(method, path, body.into(), expected_revision)?;
        self.within(self.answer_timeout, async {
            let answer = self.call(request).await?;
            if !answer.status().is_success() {
                return Err(self.problem(answer).await);
            }
            let bytes = self.collect(answer).await?;
            serde_json::from_slice(&bytes)
                .map_err(|error| ClientError::answer(&self.endpoint, format!("{path}: {error}")))
        })
        .await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        timeout(limit, work).await.unwrap_or_else(|_| {
            let endpoint = self.endpoint.clone();
            Err(ClientError::Timeout {
                endpoint,
                seconds: limit.as_secs(),
            })
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        expected_revision: Option<u64>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let host = match &self.endpoint {
            Endpoint::Http(authority) => authority.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host);
        request = request.header(ACCEPT, "application/json, text/event-stream");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(revision) = expected_revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request
            .body(Full::new(body))
            .map_err(|error| ClientError::answer(&self.endpoint, error.to_string()))
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        match &self.endpoint {
            Endpoint::Http(authority) => {
                let stream = self.connect(TcpStream::connect(authority)).await?;
                // Small requests and answers: waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                self.exchange(TokioIo::new(stream), request).await
            }
            Endpoint::Unix(path) => {
                let stream = self.connect(UnixStream::connect(path)).await?;
                self.exchange(TokioIo::new(stream), request).await
            }
        }
    }

    async fn connect<S>(
        &self,
        connecting: impl Future<Output = io::Result<S>>,
    ) -> Result<S, ClientError> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer to connecting");
        timeout(self.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(late()))
            .map_err(|error| ClientError::connect(&self.endpoint, &error))
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| {
            if error.is_canceled() || error.is_incomplete_message() {
                return ClientError::broken(&self.endpoint, "closed before an answer came");
            }
            ClientError::broken(&self.endpoint, error)
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(broken)?;
        // Drives the connection until the answer's body is read or dropped; its errors reach
        // whoever reads that body.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(answer.into_body(), ANSWER_LENGTH_MAX);
        let collected = body.collect().await;
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| ClientError::broken(&self.endpoint, error))
    }

    /// What an answer that is no success says.
    async fn problem(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        let bytes = match self.collect(answer).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) if !problem.title.is_empty() => ClientError::Problem(Box::new(problem)),
            _ => self.foreign(status, &bytes),
        }
    }

    fn foreign(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let text = String::from_utf8_lossy(body);
        let first = text.lines().next().unwrap_or_default();
        ClientError::answer(
            &self.endpoint,
            format!("{status} {first}").trim().to_owned(),
        )
    }
}

/// A watch that is being read.
struct Watch {
    endpoint: Endpoint,
    body: Incoming,
    decoder: sse::Decoder,
    ended: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Event, ClientError>, Watch)> {
        if self.ended {
            return None;
        }
        let result = self.event().await;
        self.ended = result.is_err();
        Some((result, self))
    }

    async fn event(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.decoder.next() {
                return self.decode(&event);
            }
            let silence = Duration::from_secs(WATCH_SILENCE_SECS_MAX);
            let frame = timeout(silence, self.body.frame()).await.map_err(|_| {
                ClientError::broken(
                    &self.endpoint,
                    format!("silent for {} s", silence.as_secs()),
                )
            })?;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(ClientError::broken(&self.endpoint, error)),
                None => return Err(ClientError::broken(&self.endpoint, "the watch ended")),
            };
            if let Ok(data) = frame.into_data() {
                self.decoder
                    .feed(&data)
                    .map_err(|_| ClientError::answer(&self.endpoint, "an event without end"))?;
            }
        }
    }

    fn decode(&self, event: &sse::ServerEvent) -> Result<Event, ClientError> {
        let wrong = |error: serde_json::Error| {
            ClientError::answer(&self.endpoint, format!("watch event: {error}"))
        };
        match event.event.as_str() {
            "change" => serde_json::from_str(&event.data)
                .map(Event::Change)
                .map_err(wrong),
            "reset" => {
                let contents = serde_json::from_str(&event.data).map_err(wrong)?;
                Ok(Event::Reset(Box::new(contents)))
            }
            other => Err(ClientError::answer(
                &self.endpoint,
                format!("watch event `{other}`"),
            )),
        }
    }
}
