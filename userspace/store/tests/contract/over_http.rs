//! What a remote store does beyond the contract: it outlives its server's restarts, and doesn't
//! obey a store that went back. And the routes themselves, as any HTTP client sees them.

use std::sync::Arc;
use std::time::Duration;

use crate::stores::{Rig, bridge, host, operations, port, socket, tenant};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use weft_api::client::{Client, ClientError, Endpoint};
use weft_api::types::Event;
use weft_store::{EmbeddedStore, RemoteStore, Seen, Store, StoreError, server};
use weft_vnet::{Kind, Object, Operation};

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("in time")
}

fn client(rig: &Rig) -> Client {
    Client::new(Endpoint::Unix(socket(&rig.folder)), None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_over_a_restart_and_misses_nothing() {
    let mut rig = Rig::remote().await;
    let mut watch = rig.store.watch(0).await.unwrap();
    rig.store.transact(None, operations()).await.unwrap();
    assert_eq!(within(watch.next()).await.unwrap().unwrap().sequence(), 1);
    rig.stop().await;
    // Somebody has to be reading for the break to be seen.
    let reader = tokio::spawn(async move { (watch.next().await, watch) });
    let gone = async {
        while rig.store.status().connected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(gone).await;
    let error = rig
        .store
        .transact(None, vec![Operation::Put(bridge(2))])
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("the socket is left from a weftd"),
        "{error}"
    );
    rig.start().await;
    rig.store
        .transact(None, vec![Operation::Put(bridge(2))])
        .await
        .unwrap();
    let (event, _) = within(reader).await.unwrap();
    let Event::Change(change) = event.unwrap().unwrap() else {
        panic!("a change, no reset")
    };
    assert_eq!(
        (change.sequence, change.operations),
        (2, vec![Operation::Put(bridge(2))])
    );
    assert!(rig.store.status().connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_comes_back_empty_is_refused_by_name() {
    let mut rig = Rig::remote().await;
    rig.store.transact(None, operations()).await.unwrap();
    rig.store.read().await.unwrap();
    let mut watch = rig.store.watch(1).await.unwrap();
    rig.stop().await;
    std::fs::remove_dir_all(rig.folder.path().join("deeper")).unwrap();
    rig.start().await;
    let error = within(watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::WentBack { .. }), "{error:?}");
    let error = rig.store.read().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("is not the one seen before: it is empty and another store"),
        "{text}"
    );
    assert!(!rig.store.status().connected, "{:?}", rig.store.status());
    // Even a host that starts knows, if it kept what it had seen.
    let seen = Seen {
        store: uuid::Uuid::from_u128(7),
        revision: 3,
        sequence: 9,
    };
    let fresh = RemoteStore::new(client(&rig), Some(seen));
    assert!(matches!(
        fresh.read().await,
        Err(StoreError::WentBack { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_store_is_refused_too() {
    let mut rig = Rig::remote().await;
    rig.store.transact(None, operations()).await.unwrap();
    rig.stop().await;
    let file = rig.folder.path().join("deeper/store.redb");
    std::fs::copy(&file, rig.folder.path().join("backup")).unwrap();
    rig.start().await;
    rig.store
        .transact(None, vec![Operation::Put(bridge(2))])
        .await
        .unwrap();
    rig.store.read().await.unwrap();
    let mut watch = rig.store.watch(2).await.unwrap();
    rig.stop().await;
    std::fs::copy(rig.folder.path().join("backup"), &file).unwrap();
    rig.start().await;
    let error = within(watch.next()).await.unwrap().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("it is at revision 1, seen was 2"),
        "{error}"
    );
    let seen = Seen::of(&client(&rig).topology().await.unwrap());
    let url = format!("weftd+unix:{}", socket(&rig.folder).display());
    weft_store::open(&url, None, Some(seen))
        .unwrap()
        .read()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_store_speaks_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&folder.path().join("s")).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        axum::serve(listener, server::routes(Arc::new(store)))
            .await
            .unwrap();
    });
    let url = format!("weftd+http://{address}");
    let remote = weft_store::open(&url, Some("token"), None).unwrap();
    assert_eq!(remote.transact(Some(0), operations()).await.unwrap(), 1);
    assert_eq!(remote.read().await.unwrap().objects.len(), 6);
    assert_eq!(remote.status().url, url);
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_reached_one_by_one() {
    let rig = Rig::remote().await;
    let client = client(&rig);
    client.transact(None, operations()).await.unwrap();
    assert_eq!(client.objects(Kind::Bridge).await.unwrap(), [bridge(1)]);
    assert_eq!(
        client.objects(Kind::Host).await.unwrap(),
        [host(1), host(2)]
    );
    assert_eq!(
        client.object(Kind::Port, port().id()).await.unwrap(),
        port()
    );
    assert_eq!(client.put(Some(1), &bridge(2)).await.unwrap(), 2);
    assert_eq!(
        client
            .delete(Some(2), Kind::Bridge, bridge(2).id())
            .await
            .unwrap(),
        3
    );
    for error in [
        client
            .object(Kind::Bridge, bridge(2).id())
            .await
            .unwrap_err(),
        client
            .delete(None, Kind::Bridge, bridge(2).id())
            .await
            .unwrap_err(),
    ] {
        let problem = error.problem().expect("a problem");
        assert_eq!(
            (problem.status, problem.kind.as_str()),
            (404, "urn:weft:problem:not-found")
        );
        assert!(
            problem.detail.starts_with("there is no bridge with the id"),
            "{problem}"
        );
    }
    let conflict = client.put(Some(1), &bridge(2)).await.unwrap_err();
    let problem = conflict.problem().unwrap();
    assert!(problem.is_revision_conflict());
    assert_eq!((problem.status, problem.revision), (412, Some(3)));
    let Object::Port(mut wrong) = port() else {
        unreachable!()
    };
    wrong.addresses.push("10.0.1.77/24".parse().unwrap());
    let invalid = client.put(None, &Object::Port(wrong)).await.unwrap_err();
    let problem = invalid.problem().unwrap();
    assert_eq!(
        (problem.status, problem.errors[0].pointer.as_str()),
        (422, "/addresses/1")
    );
    let used = client
        .delete(None, Kind::Tenant, tenant().id())
        .await
        .unwrap_err();
    let problem = used.problem().unwrap();
    assert_eq!(
        (problem.status, problem.errors[0].pointer.as_str()),
        (422, "/operations/0/delete")
    );
}

/// Speaks HTTP by hand: what a client of another make may send.
async fn raw(rig: &Rig, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(socket(&rig.folder))
        .await
        .unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// METHOD PATH, then a header, the body (`BRIDGE` in paths is a bridge's), and below them, indented,
/// the status and what the answer contains.
const REQUESTS: &str = r##"
POST /v1/transactions | | {
    400 EOF while parsing
POST /v1/transactions | | {}
    400 missing field `operations`
POST /v1/transactions | | {"operations":[{"put":{"kind":"tenant","id":"TENANT","name":"a"}},{"destroy":1}]}
    400 "pointer":"/operations/1
POST /v1/transactions | If-Match: "x" | {"operations":[]}
    400 expected a revision
POST /v1/transactions | If-Match: "4" | {"operations":[]}
    412 revision-conflict
POST /v1/transactions | If-Match: * | {"operations":[]}
    200 {"revision":0}
GET /v1/bridges/no-uuid | |
    400 urn:weft:problem:malformed
GET /v1/bridges | |
    200 []
PUT /v1/bridges/BRIDGE | | {"kind":"router","tenant":"TENANT","name":"a"}
    400 "pointer":"/kind"
PUT /v1/bridges/BRIDGE | | {"tenant":"TENANT","name":"a"}
    422 "pointer":"/tenant"
GET /v1/watch?from=x | |
    400 urn:weft:problem:malformed
PUT /v1/state/h1 | | {"put":[{"table":"mac"}]}
    400 "pointer":"/put/0
GET /v1/topology | |
    200 etag: "0"
GET /v1/topology?members=x | |
    400 urn:weft:problem:malformed
POST /v1/transactions | | {"operations":[{"members":{"group":"TENANT","add":["10.0.0.0/8"]}}]}
    422 "pointer":"/operations/0/members/group"
"##;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_answered_with_the_place() {
    let rig = Rig::remote().await;
    let (tenant, bridge) = (tenant().id().to_string(), bridge(1).id().to_string());
    let table = REQUESTS
        .replace("TENANT", &tenant)
        .replace("BRIDGE", &bridge);
    let lines: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    for pair in lines.chunks(2) {
        let parts: Vec<&str> = pair[0].splitn(3, '|').map(str::trim).collect();
        let (method, path) = parts[0].split_once(' ').unwrap();
        let header = if parts[1].is_empty() {
            String::new()
        } else {
            format!("{}\r\n", parts[1])
        };
        let (status, expected) = pair[1].trim().split_once(' ').unwrap();
        let (answered, text) = raw(&rig, method, path, &header, parts[2]).await;
        assert_eq!(answered.to_string(), status, "{}: {text}", pair[0]);
        assert!(text.contains(expected), "{}: {text}", pair[0]);
        let problem = text.contains("content-type: application/problem+json");
        assert_eq!(problem, answered >= 400, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_make_is_recognized() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(socket(&folder)).unwrap();
    let server = tokio::spawn(async move {
        let pages = axum::Router::new().fallback(|| async { "<html>hello" });
        axum::serve(listener, pages).await.unwrap();
    });
    let client = Client::new(Endpoint::Unix(socket(&folder)), None);
    let error = client.topology().await.unwrap_err();
    assert!(matches!(error, ClientError::Answer { .. }), "{error:?}");
    assert!(!error.is_temporary());
    server.abort();
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let _listener = tokio::net::UnixListener::bind(socket(&folder)).unwrap();
    let client = Client::new(Endpoint::Unix(socket(&folder)), None)
        .with_timeouts(Duration::from_millis(100), Duration::from_millis(100));
    let error = client.topology().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}
