//! What the host's own network looks like: its interfaces, and the way to each remote host.
//!
//! Level-triggered: each netlink event (a link, a neighbour, a route, an address) leads to one look at
//! everything that matters here, a little later so that a burst costs one look. Runs on the agent's runtime,
//! never on the packet thread.

use crate::Error;
use crate::kernel::netdev::Netdev;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::sync::watch;

/// How long events are collected before a look.
const SETTLE: Duration = Duration::from_millis(10);
/// A look is taken at least this often: an event may have been lost.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub ifindex: u32,
    /// Ethernet address; zeros for what has none.
    pub mac: [u8; 6],
    /// Largest L3 packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub is_up: bool,
    /// Whether somebody is at its other end: a cable, a program at a tap, a veth's peer that is up.
    pub has_carrier: bool,
    /// What it does with XDP, as `kernel::netdev` names it; none where the kernel can't say.
    pub xdp_features: Option<u64>,
}

impl Link {
    /// Why no frame passes, in words that go on after an interface's name; none when frames may.
    pub fn trouble(&self) -> Option<&'static str> {
        match (self.is_up, self.has_carrier) {
            (false, _) => Some("is down"),
            (true, false) => Some("has no carrier: nobody is at its other end"),
            (true, true) => None,
        }
    }
}

/// The way to a remote host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The host's underlay address.
    pub remote: IpAddr,
    /// Interface towards it.
    pub ifindex: u32,
    /// Gateway, or the host itself.
    pub next_hop: IpAddr,
    /// Ethernet address of the next hop while it is known.
    pub next_hop_mac: Option<[u8; 6]>,
    /// Ethernet address of the interface.
    pub source_mac: [u8; 6],
    /// Largest outer IP packet in bytes.
    pub mtu: u32,
}

/// One look at the host's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// Interfaces by name.
    pub links: HashMap<String, Link>,
    /// The hosts that ways were looked for to.
    pub asked: Vec<IpAddr>,
    /// Ways to those of the wanted hosts that have a route.
    pub paths: HashMap<IpAddr, Path>,
}

/// Looks at the network whenever something changed, until `remotes` is closed or `deliver` says stop.
///
/// `remotes` are the underlay addresses of the hosts to reach. `deliver` gets each look that differs from the
/// one before.
///
/// # Errors
/// When netlink can't be opened in the calling runtime's network namespace.
pub async fn watch_network(
    mut remotes: watch::Receiver<Vec<IpAddr>>,
    mut deliver: impl FnMut(HostNetwork) -> bool,
) -> Result<(), Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&groups)
        .map_err(|source| Error::io("opening netlink", source))?;
    let connection = tokio::spawn(connection);
    let netdev = Netdev::open()
        .inspect_err(
            |error| tracing::info!(%error, "the kernel doesn't say who takes XDP's frames"),
        )
        .ok();
    let mut last = None;
    loop {
        let wanted = remotes.borrow_and_update().clone();
        match look(&handle, netdev.as_ref(), &wanted).await {
            Ok(network) if last.as_ref() != Some(&network) => {
                last = Some(network.clone());
                if !deliver(network) {
                    break;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "looking at the host's network failed; trying again")
            }
        }
        tokio::select! {
            event = events.next() => if event.is_none() { break },
            changed = remotes.changed() => if changed.is_err() { break },
            () = xdp_changes(netdev.as_ref()) => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(SETTLE).await;
        while let Ok(event) = events.try_recv() {
            drop(event);
        }
    }
    connection.abort();
    Ok(())
}

/// Ends when an interface does something else with XDP than before.
async fn xdp_changes(netdev: Option<&Netdev>) {
    let changed = match netdev {
        Some(netdev) => netdev.changed().await,
        None => std::future::pending().await,
    };
    if let Err(error) = changed {
        tracing::warn!(%error, "listening to XDP's changes failed; looking now and then");
        std::future::pending().await
    }
}

async fn look(
    handle: &Handle,
    netdev: Option<&Netdev>,
    wanted: &[IpAddr],
) -> Result<HostNetwork, rtnetlink::Error> {
    let mut links = HashMap::new();
    let xdp = netdev.map(Netdev::features).and_then(Result::ok);
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        if let Some((name, mut link)) = link_of(&message) {
            link.xdp_features = xdp.as_ref().and_then(|xdp| xdp.get(&link.ifindex).copied());
            links.insert(name, link);
        }
    }
    let neighbours = neighbours(handle).await?;
    let mut paths = HashMap::new();
    for remote in wanted {
        if let Some(path) = path_to(handle, *remote, &links, &neighbours).await {
            paths.insert(*remote, path);
        }
    }
    Ok(HostNetwork {
        links,
        asked: wanted.to_vec(),
        paths,
    })
}

fn link_of(message: &LinkMessage) -> Option<(String, Link)> {
    let mut name = None;
    let mut link = Link {
        ifindex: message.header.index,
        mac: [0; 6],
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        has_carrier: message.header.flags.contains(LinkFlags::LowerUp),
        xdp_features: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => link.mtu = *value,
            LinkAttribute::Address(value) => {
                link.mac = value.as_slice().try_into().unwrap_or_default()
            }
            _ => {}
        }
    }
    Some((name?, link))
}

/// State and address of a neighbour, by interface and IP.
type Neighbours = HashMap<(u32, IpAddr), (NeighbourState, Option<[u8; 6]>)>;

async fn neighbours(handle: &Handle) -> Result<Neighbours, rtnetlink::Error> {
    let mut found = Neighbours::new();
    let mut messages = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Unspec)
        .execute();
    while let Some(message) = messages.try_next().await? {
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => {
                    address = Some(IpAddr::V4(*value))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(value)) => {
                    address = Some(IpAddr::V6(*value))
                }
                NeighbourAttribute::LinkLayerAddress(value) => {
                    mac = value.as_slice().try_into().ok()
                }
                _ => {}
            }
        }
        if let Some(address) = address {
            found.insert(
                (message.header.ifindex, address),
                (message.header.state, mac),
            );
        }
    }
    Ok(found)
}

async fn path_to(
    handle: &Handle,
    remote: IpAddr,
    links: &HashMap<String, Link>,
    neighbours: &Neighbours,
) -> Option<Path> {
    let request = match remote {
        IpAddr::V4(remote) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(remote, 32)
            .build(),
        IpAddr::V6(remote) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(remote, 128)
            .build(),
    };
    let mut routes = handle.route().get(request).execute().boxed();
    // No route is an answer, too: the path is missing until one appears.
    let route = routes.try_next().await.ok().flatten()?;
    let (ifindex, next_hop, route_mtu) = next_hop_of(&route, remote)?;
    let link = links.values().find(|link| link.ifindex == ifindex)?;
    let (state, mac) = neighbours
        .get(&(ifindex, next_hop))
        .copied()
        .unwrap_or((NeighbourState::None, None));
    let is_usable = !matches!(
        state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
    );
    if !matches!(
        state,
        NeighbourState::Permanent | NeighbourState::Noarp | NeighbourState::Reachable
    ) {
        keep_resolved(handle, ifindex, next_hop).await;
    }
    Some(Path {
        remote,
        ifindex,
        next_hop,
        next_hop_mac: mac.filter(|_| is_usable),
        source_mac: link.mac,
        mtu: route_mtu.unwrap_or(link.mtu).min(link.mtu),
    })
}

fn next_hop_of(route: &RouteMessage, remote: IpAddr) -> Option<(u32, IpAddr, Option<u32>)> {
    let mut ifindex = None;
    let mut gateway = remote;
    let mut mtu = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(value) => ifindex = Some(*value),
            RouteAttribute::Gateway(RouteAddress::Inet(value)) => gateway = IpAddr::V4(*value),
            RouteAttribute::Gateway(RouteAddress::Inet6(value)) => gateway = IpAddr::V6(*value),
            // IPv4 by an IPv6 gateway (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(value)) => gateway = IpAddr::V6(*value),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    netlink_packet_route::route::RouteMetric::Mtu(value) if *value > 0 => {
                        Some(*value)
                    }
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some((ifindex?, gateway, mtu))
}

/// Asks the kernel to resolve a next hop and, where it can (5.16 and later), to keep it resolved.
async fn keep_resolved(handle: &Handle, ifindex: u32, next_hop: IpAddr) {
    let mut managed = handle
        .neighbours()
        .add(ifindex, next_hop)
        .state(NeighbourState::None)
        .replace();
    managed
        .message_mut()
        .attributes
        .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    if managed.execute().await.is_ok() {
        return;
    }
    let used = handle
        .neighbours()
        .add(ifindex, next_hop)
        .state(NeighbourState::None);
    if let Err(error) = used.flags(NeighbourFlags::Use).replace().execute().await {
        tracing::debug!(%error, %next_hop, "the kernel doesn't resolve the next hop");
    }
}
