//! What a network answers for without looking at anything but the question: the table that the kernel answers by.
//!
//! No state. The agent keeps the kernel's tables in line with it; the bridge answers by the same flood domain, and a test
//! holds each entry against what [`crate::simulate()`] answers.

use crate::device::router::is_router_port;
use crate::id::PortId;
use crate::mac::Mac;
use crate::model::{DeviceId, Port};
use crate::route::Target;
use crate::snapshot::{FloodDomain, Seed, Snapshot};
use std::net::IpAddr;

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its MAC.
    pub mac: Mac,
    /// The port whose it is: questions of its own workload aren't answered.
    pub owner: PortId,
    /// It is a router's.
    pub is_router: bool,
    /// Solicitations that are sent to its MAC reach the router itself, which answers them: those of workloads whose
    /// answers find them ([`answered_under`]), and which it has nothing to learn from.
    pub hears: bool,
}

/// Every address that the bridges of a flood domain answer for.
pub fn neighbours<'a>(
    snapshot: &'a Snapshot,
    domain: &'a FloodDomain,
) -> impl Iterator<Item = (IpAddr, Neighbour)> + 'a {
    let known = domain.addresses.iter();
    // The kernel writes IPv4 addresses like that.
    let is_mapped = |it: &IpAddr| matches!(it, IpAddr::V6(it) if it.to_ipv4_mapped().is_some());
    known
        .filter(move |(address, _)| !is_mapped(address))
        .map(|(address, seed)| {
            let owner = snapshot.port(seed.owner);
            let neighbour = Neighbour {
                mac: seed.mac,
                owner: seed.owner,
                is_router: owner.is_some_and(is_router_port),
                hears: owner.is_some_and(|it| hears(snapshot, domain, it, *address, *seed)),
            };
            (*address, neighbour)
        })
}

/// The flood domain whose addresses the workload of a port may ask for without the agent hearing it: that of a bridge's
/// exterior port on which nothing is learned.
pub fn asks_unheard<'a>(snapshot: &'a Snapshot, port: &Port) -> Option<&'a FloodDomain> {
    match port.device {
        DeviceId::Bridge(bridge) if port.admin_up && !port.is_interior() && !port.learns() => {
            snapshot.flood_domain_of(bridge)
        }
        _ => None,
    }
}

/// The MAC under which what a router of the domain says finds this port; none when it would find another one first.
pub fn answered_under(domain: &FloodDomain, port: &Port) -> Option<Mac> {
    let seed = domain.seeds.get(&port.mac)?;
    (seed.exit == port.id).then_some(port.mac)
}

/// Whether what is sent to this address and this MAC comes to the router whose it is, whoever sends it.
fn hears(
    snapshot: &Snapshot,
    domain: &FloodDomain,
    owner: &Port,
    address: IpAddr,
    seed: Seed,
) -> bool {
    let DeviceId::Router(router) = owner.device else {
        return false;
    };
    let is_there = domain
        .seeds
        .get(&seed.mac)
        .is_some_and(|it| it.owner == seed.owner && it.exit == seed.exit);
    let is_up = owner.admin_up && snapshot.port(seed.exit).is_some_and(|it| it.admin_up);
    // A route for the address alone may say otherwise, for some sources.
    let is_its_own = snapshot.routing_table(router).is_some_and(|table| {
        let lookup = table.lookup(address, address);
        let first = lookup.routes.first();
        lookup.source_bits == 0 && first.is_some_and(|it| matches!(it.target, Target::Local))
    });
    is_there && is_up && is_its_own
}
