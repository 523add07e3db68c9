//! The virtual devices, one file each. They share one skeleton: `receive` takes the walk and the port by which
//! the packet came in, and says where it goes next.
//!
//! No state: what they know is in the snapshot and the flow state. Called by [`crate::simulate()`] only.

pub(crate) mod bridge;
pub(crate) mod chains;
pub(crate) mod port;
pub(crate) mod router;

use crate::id::PortId;
use crate::model::DeviceId;
use crate::trace::TraceSink;
use crate::walk::{Next, Walk};
use weft_common::DropReason;

/// Hands the packet to the device of the port by which it comes in.
pub(crate) fn receive<T: TraceSink>(walk: &mut Walk<'_, T>, ingress: PortId) -> Next {
    match walk.snapshot.port(ingress).map(|port| port.device) {
        Some(DeviceId::Bridge(bridge)) => bridge::receive(walk, bridge, ingress),
        Some(DeviceId::Router(router)) => router::receive(walk, router, ingress),
        None => walk.drop(DropReason::PortDown, None),
    }
}

#[cfg(test)]
mod ipv6_tests;
