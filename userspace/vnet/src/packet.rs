//! A packet as it enters the virtual network: its frame, its key, and where it came in.
//!
//! No state. Made by the agent (misses, revalidation, packets of the network itself) and by `weft trace`.

use crate::id::{PortId, RouterId};
use weft_common::frame::{Headers, extract};
use weft_common::{DropReason, FlowKey, FragmentPorts};

/// Where a packet enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A workload sends it into this exterior port.
    Workload(PortId),
    /// The network itself sends it out of this port of a device: the port's workload, or its peer's device,
    /// receives it.
    Device(PortId),
    /// A router itself sends it: to be routed, with a TTL that nobody has lessened yet.
    Router(RouterId),
}

impl Entry {
    /// The port where it enters; none for a router's own packet.
    pub fn port(self) -> Option<PortId> {
        match self {
            Entry::Workload(port) | Entry::Device(port) => Some(port),
            Entry::Router(_) => None,
        }
    }
}

/// A packet to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Where it enters.
    pub entry: Entry,
    /// The frame. When a flow is revalidated it may be cut short, or empty: only answers need it.
    pub frame: &'a [u8],
    /// Its headers as far as flows can match them.
    pub key: FlowKey,
    /// Its headers as far as flows can't.
    pub headers: Headers,
}

impl<'a> Packet<'a> {
    /// The packet in a whole frame. `port_index` is the ingress port's on this host, 0 for what the network itself sends;
    /// `vlan_tci` is a tag that the kernel took out of the frame.
    ///
    /// # Errors
    /// As [`extract`].
    pub fn parse(
        entry: Entry,
        port_index: u16,
        frame: &'a [u8],
        vlan_tci: Option<u16>,
    ) -> Result<Packet<'a>, DropReason> {
        let mut key = FlowKey::default();
        let headers = extract(frame, port_index, vlan_tci, &mut key)?;
        Ok(Packet {
            entry,
            frame,
            key,
            headers,
        })
    }

    /// The packet with what is known of the first fragment, where it is a later one (else unchanged): its key is the
    /// kernel's then.
    #[must_use]
    pub fn after(mut self, first: &FragmentPorts) -> Packet<'a> {
        first.complete(&mut self.key.head);
        self
    }

    /// The bytes after the Ethernet header and its tag, as far as they are there.
    pub fn network_bytes(&self) -> &'a [u8] {
        self.frame
            .get(usize::from(self.headers.l3_offset)..)
            .unwrap_or_default()
    }
}
