//! Stores to test, and objects to put into them.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use uuid::Uuid;
use weft_api::client::{Client, Endpoint};
use weft_store::{EmbeddedStore, RemoteStore, Store, server};
use weft_vnet::policy::{
    Action, AddressGroup, AddressMatch, Chain, Conditions, Group, PortGroup, Rule,
};
use weft_vnet::{
    AddressGroupId, Binding, Bridge, BridgeId, ChainId, DeviceId, Encapsulation, Host, HostId, Mac,
    Object, Operation, Port, PortGroupId, PortId, StateEntry, Tenant, TenantId, TunnelZone, ZoneId,
};

/// Changes that the stores under test keep for watchers.
pub const CHANGES_MAX: usize = 64;

/// A store under test, and what is behind it.
pub struct Rig {
    pub store: Arc<dyn Store>,
    pub folder: TempDir,
    pub server: Option<Runtime>,
}

impl Rig {
    pub async fn embedded() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder).await;
        Rig {
            store: Arc::new(store),
            folder,
            server: None,
        }
    }

    pub async fn remote() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(&folder).await;
        let endpoint = Endpoint::Unix(socket(&folder));
        let store = RemoteStore::new(Client::new(endpoint, None), None);
        // Knows the store from here on, as an agent does.
        store.read().await.unwrap();
        Rig {
            store: Arc::new(store),
            folder,
            server: Some(server),
        }
    }

    /// Restarts whatever holds the file.
    pub async fn restart(&mut self) {
        match &self.server {
            Some(_) => {
                self.stop().await;
                self.start().await;
            }
            None => {
                // The file has one owner at a time; another store holds the place meanwhile.
                let other = self.folder.path().join("other.redb");
                self.store = Arc::new(EmbeddedStore::open(&other).await.unwrap());
                self.store = Arc::new(open(&self.folder).await);
            }
        }
    }

    /// Stops the server of a remote store, connections and all.
    pub async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        let limit = std::time::Duration::from_secs(5);
        tokio::task::spawn_blocking(move || server.shutdown_timeout(limit))
            .await
            .unwrap();
    }

    /// Starts it again, on the same file.
    pub async fn start(&mut self) {
        self.server = Some(serve(&self.folder).await);
    }
}

pub fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("weftd.sock")
}

async fn open(folder: &TempDir) -> EmbeddedStore {
    // The last owner's blocking threads let go of the file a moment after it is dropped.
    let path = folder.path().join("deeper/store.redb");
    for _ in 0..100 {
        match EmbeddedStore::open_with(&path, CHANGES_MAX).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            result => return result.unwrap(),
        }
    }
    panic!("the file stays open");
}

/// Serves the store of a folder on its socket, on a runtime of its own: shutting that down ends
/// connections as the end of a process does.
async fn serve(folder: &TempDir) -> Runtime {
    let _ = std::fs::remove_file(socket(folder));
    let store: Arc<dyn Store> = Arc::new(open(folder).await);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let path = socket(folder);
    let (ready, started) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let listener = UnixListener::bind(path).unwrap();
        let _ = ready.send(());
        axum::serve(listener, server::routes(store)).await.unwrap();
    });
    started.await.unwrap();
    runtime
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

fn id(kind: u128, number: usize) -> Uuid {
    Uuid::from_u128(kind << 64 | number as u128)
}

pub fn tenant() -> Object {
    Object::Tenant(Tenant {
        id: TenantId(id(1, 1)),
        name: "acme".into(),
    })
}

pub fn bridge(number: usize) -> Object {
    let name = format!("bridge-{number}");
    Object::Bridge(Bridge {
        id: BridgeId(id(2, number)),
        tenant: TenantId(id(1, 1)),
        name,
    })
}

pub fn host(number: usize) -> Object {
    let address = [172, 30, number as u8, 1].into();
    let zones = [("default".to_owned(), address)].into();
    Object::Host(Host {
        id: HostId(id(3, number)),
        name: format!("h{number}"),
        zones,
    })
}

pub fn port() -> Object {
    Object::Port(Port {
        id: PortId(id(4, 1)),
        device: DeviceId::Bridge(BridgeId(id(2, 1))),
        name: "p".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        admin_up: true,
        addresses: vec!["10.0.1.11".parse().unwrap()],
        binding: Some(Binding {
            host: HostId(id(3, 1)),
            interface: "web1".into(),
            tunnel_key: None,
        }),
        peer: None,
        ingress: Vec::new(),
        egress: Vec::new(),
    })
}

/// The address group of [`policies`].
pub const GROUP: AddressGroupId = AddressGroupId(Uuid::from_u128(6 << 64 | 1));

/// An address group, a chain that asks for it, a port group, and the port with that chain.
pub fn policies(prefixes: Vec<IpNet>) -> Vec<Object> {
    let tenant = TenantId(id(1, 1));
    let chain = ChainId(id(7, 1));
    let office = AddressMatch::Group(Group::Addresses(GROUP));
    let Object::Port(port) = port() else {
        unreachable!("see above")
    };
    let rule = Rule {
        matches: Conditions {
            src: Some(vec![office]),
            ..Conditions::default()
        },
        action: Action::Accept,
        ..Rule::default()
    };
    vec![
        Object::AddressGroup(AddressGroup {
            id: GROUP,
            tenant,
            name: "office".into(),
            prefixes,
        }),
        Object::Chain(Chain {
            id: chain,
            tenant,
            name: "to-web".into(),
            rules: vec![rule],
        }),
        Object::PortGroup(PortGroup {
            id: PortGroupId(id(8, 1)),
            tenant,
            name: "web".into(),
            ports: vec![port.id],
            stateful: false,
        }),
        Object::Port(Port {
            egress: vec![chain],
            ..port
        }),
    ]
}

/// A small topology, in the order in which stores list it.
pub fn operations() -> Vec<Operation> {
    let zone = TunnelZone {
        id: ZoneId(id(5, 1)),
        name: "default".into(),
        encapsulation: Encapsulation::Gre,
    };
    let objects = [
        tenant(),
        Object::TunnelZone(zone),
        host(1),
        host(2),
        bridge(1),
        port(),
    ];
    objects.into_iter().map(Operation::Put).collect()
}

pub fn mac(number: u8) -> StateEntry {
    let mac = Mac([2, 0, 0, 0, 9, number]);
    StateEntry::Mac {
        bridge: BridgeId(id(2, 1)),
        mac,
        port: PortId(id(4, 1)),
    }
}

pub fn port_live(host: usize, tunnel_key: u32) -> StateEntry {
    StateEntry::PortActivity {
        port: PortId(id(4, 1)),
        host: HostId(id(3, host)),
        tunnel_key,
    }
}
