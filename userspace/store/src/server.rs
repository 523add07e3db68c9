//! The store's half of the API: topology, transactions, single objects, state, and the watch.
//! weftd mounts these routes beside its own, behind its own authorization.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::StreamExt;
use futures_util::stream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use weft_api::client::WATCH_KEEP_ALIVE_SECS;
use weft_api::kinds::{KINDS, collection};
use weft_api::problem::{FieldError, PROBLEM_MEDIA_TYPE, Problem};
use weft_api::types::{Committed, Event, StateUpdate, Transaction};
use weft_vnet::{Kind, Object, Operation};

use crate::{Store, StoreError};

/// Largest body that is taken: a transaction of some hundred thousand objects.
const BODY_LENGTH_MAX: usize = 128 << 20;

type Shared = Arc<dyn Store>;

/// The routes of a store.
pub fn routes(store: Arc<dyn Store>) -> Router {
    let mut router = Router::new()
        .route("/v1/topology", get(topology))
        .route("/v1/transactions", post(transact))
        .route("/v1/watch", get(watch))
        .route("/v1/state/{owner}", put(update_state));
    for kind in KINDS {
        let collection = collection(kind);
        let list = get(move |store| objects(store, kind));
        let one = get(move |store, id| object(store, kind, id))
            .put(move |store, id, headers, body| put_object(store, kind, id, headers, body))
            .delete(move |store, id, headers| delete_object(store, kind, id, headers));
        router = router
            .route(&format!("/v1/{collection}"), list)
            .route(&format!("/v1/{collection}/{{id}}"), one);
    }
    router
        .layer(DefaultBodyLimit::max(BODY_LENGTH_MAX))
        .with_state(store)
}

/// A problem as an answer.
#[derive(Debug)]
pub struct ProblemResponse(pub Box<Problem>);

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let media_type = HeaderValue::from_static(PROBLEM_MEDIA_TYPE);
        (status, [(header::CONTENT_TYPE, media_type)], Json(self.0)).into_response()
    }
}

impl From<Problem> for ProblemResponse {
    fn from(problem: Problem) -> Self {
        ProblemResponse(Box::new(problem))
    }
}

impl From<StoreError> for ProblemResponse {
    /// For errors that have no operations to point into.
    fn from(error: StoreError) -> Self {
        problem(&error, &[]).into()
    }
}

type Answer<T> = std::result::Result<T, ProblemResponse>;

/// A store's error as a problem; `operations` are what its pointers point into.
fn problem(error: &StoreError, operations: &[Operation]) -> Problem {
    match error {
        StoreError::Conflict { expected, actual } => Problem::revision_conflict(*expected, *actual),
        StoreError::Invalid(invalid) => Problem::invalid_transaction(operations, invalid),
        StoreError::Refused(reason) => Problem::malformed(reason),
        StoreError::Unavailable(_) | StoreError::WentBack { .. } => {
            Problem::unavailable(error.to_string())
        }
        StoreError::Corrupt { .. } | StoreError::Url { .. } => Problem::internal(error.to_string()),
    }
}

/// Reads a JSON body; an error points at the field.
///
/// # Errors
/// A problem of kind `malformed`.
pub fn body_of<T: DeserializeOwned>(body: &[u8]) -> std::result::Result<T, ProblemResponse> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer: String = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(format!("/{index}")),
                serde_path_to_error::Segment::Map { key } => Some(format!("/{}", escaped(key))),
                serde_path_to_error::Segment::Enum { variant } => Some(format!("/{variant}")),
                serde_path_to_error::Segment::Unknown => None,
            })
            .collect();
        let detail = error.into_inner().to_string();
        let errors = vec![FieldError {
            pointer,
            detail: detail.clone(),
        }];
        ProblemResponse::from(Problem {
            errors,
            ..Problem::malformed(detail)
        })
    })
}

/// RFC 6901, section 3.
fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// The revision of an `If-Match` header: `"7"`; `*` and none mean any.
fn expected_revision(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match quoted.unwrap_or(text).parse() {
        Ok(revision) => Ok(Some(revision)),
        Err(_) => {
            let detail = format!("If-Match: found {value:?}, expected a revision like \"7\"");
            Err(Problem::malformed(detail).into())
        }
    }
}

/// Query of the topology.
#[derive(Deserialize)]
struct TopologyQuery {
    /// Whether with the members of address groups; with them where it isn't said.
    members: Option<bool>,
}

async fn topology(
    State(store): State<Shared>,
    query: std::result::Result<Query<TopologyQuery>, QueryRejection>,
) -> Answer<Response> {
    let Query(query) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let mut contents = store.read().await?;
    if query.members == Some(false) {
        for object in &mut contents.objects {
            if let Object::AddressGroup(group) = object {
                group.prefixes.clear();
            }
        }
    }
    let tag = format!("\"{}\"", contents.revision);
    Ok(([(header::ETAG, tag)], Json(contents)).into_response())
}

async fn transact(
    State(store): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Committed>> {
    let expected = expected_revision(&headers)?;
    let Transaction { operations } = body_of(&body)?;
    committed(&store, expected, operations).await
}

async fn committed(
    store: &Shared,
    expected: Option<u64>,
    operations: Vec<Operation>,
) -> Answer<Json<Committed>> {
    match store.transact(expected, operations.clone()).await {
        Ok(revision) => Ok(Json(Committed { revision })),
        Err(error) => Err(problem(&error, &operations).into()),
    }
}

async fn objects(State(store): State<Shared>, kind: Kind) -> Answer<Json<Vec<Object>>> {
    let contents = store.read().await?;
    Ok(Json(
        contents
            .objects
            .into_iter()
            .filter(|object| object.kind() == kind)
            .collect(),
    ))
}

type IdPath = std::result::Result<Path<Uuid>, PathRejection>;

fn id_of(path: IdPath) -> Answer<Uuid> {
    match path {
        Ok(Path(id)) => Ok(id),
        Err(error) => Err(Problem::malformed(error.body_text()).into()),
    }
}

async fn object(State(store): State<Shared>, kind: Kind, id: IdPath) -> Answer<Json<Object>> {
    let id = id_of(id)?;
    let contents = store.read().await?;
    let mut objects = contents.objects.into_iter();
    match objects.find(|object| object.kind() == kind && object.id() == id) {
        Some(object) => Ok(Json(object)),
        None => Err(missing(kind, id)),
    }
}

fn missing(kind: Kind, id: Uuid) -> ProblemResponse {
    Problem::not_found(format!("there is no {kind} with the id {id}")).into()
}

async fn put_object(
    State(store): State<Shared>,
    kind: Kind,
    id: IdPath,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Committed>> {
    let id = id_of(id)?;
    let expected = expected_revision(&headers)?;
    let mut value: serde_json::Value = body_of(&body)?;
    // The path says them already; a body that says something else is refused below.
    if let Some(fields) = value.as_object_mut() {
        fields.entry("kind").or_insert_with(|| kind.name().into());
        fields.entry("id").or_insert_with(|| id.to_string().into());
    }
    let object: Object = body_of(value.to_string().as_bytes())?;
    let wrong = |pointer: &str, detail: String| {
        let errors = vec![FieldError {
            pointer: pointer.into(),
            detail: detail.clone(),
        }];
        ProblemResponse::from(Problem {
            errors,
            ..Problem::malformed(detail)
        })
    };
    if object.kind() != kind {
        return Err(wrong(
            "/kind",
            format!("found {}, expected {kind}", object.kind()),
        ));
    }
    if object.id() != id {
        return Err(wrong(
            "/id",
            format!("found {}, expected {id}", object.id()),
        ));
    }
    match store.transact(expected, vec![Operation::Put(object)]).await {
        Ok(revision) => Ok(Json(Committed { revision })),
        Err(StoreError::Invalid(invalid)) => Err(Problem::invalid_object(&invalid).into()),
        Err(error) => Err(error.into()),
    }
}

async fn delete_object(
    State(store): State<Shared>,
    kind: Kind,
    id: IdPath,
    headers: HeaderMap,
) -> Answer<Json<Committed>> {
    let id = id_of(id)?;
    let expected = expected_revision(&headers)?;
    let contents = store.read().await?;
    if !contents
        .objects
        .iter()
        .any(|object| object.kind() == kind && object.id() == id)
    {
        return Err(missing(kind, id));
    }
    committed(&store, expected, vec![Operation::Delete { kind, id }]).await
}

async fn update_state(
    State(store): State<Shared>,
    Path(owner): Path<String>,
    body: Bytes,
) -> Answer<Json<serde_json::Value>> {
    let update: StateUpdate = body_of(&body)?;
    store.update_state(&owner, update).await?;
    Ok(Json(serde_json::json!({})))
}

/// Query of the watch.
#[derive(Deserialize)]
struct WatchQuery {
    /// The last sequence that is known; without it the watch starts with the whole contents.
    from: Option<u64>,
    /// The store that it is of.
    store: Option<Uuid>,
}

async fn watch(
    State(store): State<Shared>,
    query: std::result::Result<Query<WatchQuery>, QueryRejection>,
) -> Answer<Response> {
    let Query(query) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let contents = store.read().await?;
    let same_store = query.store.is_none_or(|known| known == contents.store);
    let (first, from) = match query.from.filter(|_| same_store) {
        Some(from) => (None, from),
        None => {
            let sequence = contents.sequence;
            (Some(Ok(Event::Reset(Box::new(contents)))), sequence)
        }
    };
    let events = stream::iter(first).chain(store.watch(from).await?);
    // An error ends the watch; whoever watches asks again and hears it as an answer.
    let events = events
        .take_while(|event| std::future::ready(event.is_ok()))
        .filter_map(|event| std::future::ready(event.ok().and_then(|event| encoded(&event))))
        .map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(WATCH_KEEP_ALIVE_SECS));
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

fn encoded(event: &Event) -> Option<sse::Event> {
    let named = sse::Event::default().id(event.sequence().to_string());
    let encoded = match event {
        Event::Change(change) => named.event("change").json_data(change),
        Event::Reset(contents) => named.event("reset").json_data(contents),
    };
    encoded
        .inspect_err(|error| tracing::error!(%error, "a watch event can't be written"))
        .ok()
}
