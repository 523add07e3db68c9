//! Remote hosts: an index each, and a record of the way to it, kept from the host's own routes and neighbours.

use super::Engine;
use super::indices::Indices;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use weft_common::ecn::ECN_MASK;
use weft_common::limits::{PEERS_MAX, SLOT_GRACE_SECS};
use weft_common::peer::{
    AddressBytes, PEER_IPV6, PEER_RESOLVED, PEER_VALID, PeerRecord, address_bytes,
};
use weft_common::tunnel::{ENCAP_LEN_V4, ENCAP_LEN_V6};
use weft_datapath::Datapath;
use weft_datapath::network::Path;
use weft_vnet::{HostId, Peer, Tag};

/// The zone whose addresses are used. More than one zone comes later.
pub const ZONE: &str = "default";

/// A remote host.
#[derive(Clone, Debug)]
pub struct RemoteHost {
    /// Index of its underlay record.
    pub index: u16,
    /// Its underlay address.
    pub address: IpAddr,
    /// What the kernel's record holds.
    record: PeerRecord,
}

/// All of them.
pub struct Peers {
    /// By id.
    pub hosts: BTreeMap<HostId, RemoteHost>,
    own_address: Option<IpAddr>,
    /// Own addresses of an earlier agent.
    pub(super) earlier_own: BTreeSet<AddressBytes>,
    pub(super) indices: Indices,
    /// Given up at that second, oldest first: flows of the kernel may still go by them.
    retired: VecDeque<(u64, u16)>,
}

impl Default for Peers {
    fn default() -> Peers {
        Peers {
            hosts: BTreeMap::new(),
            own_address: None,
            earlier_own: BTreeSet::new(),
            indices: Indices::new(PEERS_MAX),
            retired: VecDeque::new(),
        }
    }
}

impl Peers {
    /// Frees indices that nobody can be using any more.
    pub(super) fn free_indices(&mut self, now: u64) {
        while let Some((_, index)) = self
            .retired
            .pop_front_if(|(since, _)| now.saturating_sub(*since) >= SLOT_GRACE_SECS)
        {
            self.indices.free(u32::from(index));
        }
    }
}

impl<D: Datapath> Engine<D> {
    /// Follows the topology's hosts and the host's network.
    pub(super) fn reconcile_underlay(&mut self, dirty: &mut BTreeSet<Tag>) {
        let model = self.snapshot.shared_model().clone();
        let own = model
            .hosts
            .get(&self.host)
            .and_then(|host| host.zones.get(ZONE).copied());
        self.set_own_address(own);
        let wanted = self.remote_addresses();
        let gone: Vec<HostId> = self
            .peers
            .hosts
            .iter()
            .filter(|(id, remote)| wanted.get(id) != Some(&remote.address))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.remove_peer(id, dirty);
        }
        for (id, address) in &wanted {
            self.add_peer(*id, *address);
            self.refresh_peer(*id, own, dirty);
        }
    }

    /// Has the host's network looked at for ways to the topology's hosts. Returns whether the last look was
    /// for all of them.
    pub(super) fn ask_for_paths(&self) -> bool {
        let addresses: Vec<IpAddr> = self.remote_addresses().into_values().collect();
        let asked = &self.network.asked;
        let is_whole = addresses.iter().all(|address| asked.contains(address));
        self.remotes.send_if_modified(|remotes| {
            let is_new = *remotes != addresses;
            *remotes = addresses;
            is_new
        });
        is_whole
    }

    fn remote_addresses(&self) -> BTreeMap<HostId, IpAddr> {
        let hosts = self.snapshot.model().hosts.values();
        hosts
            .filter(|host| host.id != self.host)
            .filter_map(|host| Some((host.id, *host.zones.get(ZONE)?)))
            .collect()
    }

    /// Attaches underlay interfaces that appeared.
    pub(super) fn attach_underlay_interfaces(&mut self) {
        let names: Vec<String> = self.ports.underlay.keys().cloned().collect();
        for name in names {
            let present = self.network.links.get(&name).map(|link| link.ifindex);
            if self.ports.underlay.get(&name).copied().flatten() == present {
                continue;
            }
            let attached = match present {
                None => None,
                Some(ifindex) => match self.datapath.attach_underlay(&name) {
                    Ok(()) => {
                        self.attach_xdp(&name);
                        Some(ifindex)
                    }
                    Err(error) => {
                        tracing::error!(%error, interface = %name, "an underlay interface could not be attached");
                        None
                    }
                },
            };
            self.ports.underlay.insert(name, attached);
        }
    }

    /// XDP beside TC, where it is wanted. Without it everything goes by TC.
    fn attach_xdp(&mut self, name: &str) {
        let attached = self.datapath.attach_xdp(name, self.ports.xdp);
        let attached = attached.map_err(|error| error.to_string());
        let before = self.ports.underlay_xdp.get(name);
        if let Err(error) = &attached
            && before != Some(&attached)
        {
            tracing::error!(error, interface = name, "no XDP, all goes by TC");
        }
        self.ports.underlay_xdp.insert(name.to_owned(), attached);
    }

    /// Tries again where the kernel refused XDP.
    pub(super) fn retry_xdp(&mut self) {
        let refused: Vec<String> = self
            .ports
            .underlay_xdp
            .iter()
            .filter(|(_, attached)| attached.is_err())
            .map(|(name, _)| name.clone())
            .collect();
        for name in refused {
            self.attach_xdp(&name);
        }
    }

    fn set_own_address(&mut self, own: Option<IpAddr>) {
        for address in std::mem::take(&mut self.peers.earlier_own) {
            if Some(address) != own.map(address_bytes)
                && let Err(error) = self.datapath.set_own_address(address, false)
            {
                tracing::error!(%error, "an earlier own address stays");
            }
        }
        let old = self.peers.own_address;
        if old == own {
            return;
        }
        let removed =
            old.map(|address| self.datapath.set_own_address(address_bytes(address), false));
        let added = own.map(|address| self.datapath.set_own_address(address_bytes(address), true));
        for error in [removed, added]
            .into_iter()
            .flatten()
            .filter_map(Result::err)
        {
            tracing::error!(%error, "the own underlay address could not be written");
        }
        self.peers.own_address = own;
    }

    fn add_peer(&mut self, id: HostId, address: IpAddr) {
        if self.peers.hosts.contains_key(&id) {
            return;
        }
        // Flows of an earlier agent go by the number that it gave this host.
        let earlier = self.adoption.remote_hosts.remove(&address_bytes(address));
        let earlier = earlier.filter(|index| self.peers.indices.claim(u32::from(*index)));
        let index = earlier.or_else(|| self.peers.indices.allocate().map(|index| index as u16));
        let Some(index) = index else {
            tracing::error!(host = %id, limit = PEERS_MAX, "too many hosts: this one is not reached");
            return;
        };
        if let Err(error) = self
            .datapath
            .set_remote_host(address_bytes(address), Some(index))
        {
            tracing::error!(%error, host = %id, "a remote host could not be written");
        }
        self.peers.hosts.insert(
            id,
            RemoteHost {
                index,
                address,
                record: PeerRecord::default(),
            },
        );
    }

    fn remove_peer(&mut self, id: HostId, dirty: &mut BTreeSet<Tag>) {
        let Some(remote) = self.peers.hosts.remove(&id) else {
            return;
        };
        let removed = self
            .datapath
            .set_remote_host(address_bytes(remote.address), None);
        let cleared = self
            .datapath
            .write_peer(remote.index, &PeerRecord::default());
        for error in [removed, cleared].into_iter().filter_map(Result::err) {
            tracing::error!(%error, host = %id, "a remote host could not be removed");
        }
        self.placement.peers.remove(&id);
        let now = self.now_secs();
        self.peers.retired.push_back((now, remote.index));
        dirty.insert(Tag::Host(id));
    }

    /// Writes the record when the way to the host changed; flows only notice when it came, went or resized.
    fn refresh_peer(&mut self, id: HostId, own: Option<IpAddr>, dirty: &mut BTreeSet<Tag>) {
        let Some(remote) = self.peers.hosts.get_mut(&id) else {
            return;
        };
        let path = self.network.paths.get(&remote.address);
        let limit = self.probes.mtu_limit(id).unwrap_or(u16::MAX);
        let mut record = match (own, path) {
            (Some(own), Some(path)) => record_of(own, path, self.tunnel_options),
            _ => PeerRecord::default(),
        };
        record.mtu = record.mtu.min(limit);
        if record != remote.record {
            if let Err(error) = self.datapath.write_peer(remote.index, &record) {
                tracing::error!(%error, host = %id, "an underlay record could not be written");
                return;
            }
            remote.record = record;
        }
        let peer = (record.flags & PEER_VALID != 0).then_some(Peer {
            index: remote.index,
            mtu: inner_mtu(record.mtu, remote.address),
        });
        if self.placement.peers.get(&id).copied() != peer {
            match peer {
                Some(peer) => self.placement.peers.insert(id, peer),
                None => self.placement.peers.remove(&id),
            };
            dirty.insert(Tag::Host(id));
        }
    }
}

/// How packets are put into tunnels, as the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelOptions {
    /// The inner DSCP is copied to the outer header (RFC 2983, the uniform model); else that is 0.
    pub copy_dscp: bool,
    /// The MSS of TCP is lowered to what the tunnel carries.
    pub clamp_mss: bool,
}

/// Bytes of inner IP that fit into `mtu` bytes of outer IP: the inner Ethernet header goes along.
fn inner_mtu(mtu: u16, remote: IpAddr) -> u16 {
    let overhead = match remote {
        IpAddr::V4(_) => ENCAP_LEN_V4,
        IpAddr::V6(_) => ENCAP_LEN_V6,
    };
    mtu.saturating_sub(overhead as u16)
}

/// The outer header for a path; none to a host of the other family.
fn record_of(own: IpAddr, path: &Path, options: TunnelOptions) -> PeerRecord {
    if own.is_ipv6() != path.remote.is_ipv6() {
        return PeerRecord::default();
    }
    let mut flags = PEER_VALID;
    if path.next_hop_mac.is_some() {
        flags |= PEER_RESOLVED;
    }
    let checksum_base = match (own, path.remote) {
        (IpAddr::V4(own), IpAddr::V4(remote)) => checksum_base(own.octets(), remote.octets()),
        _ => {
            flags |= PEER_IPV6;
            0
        }
    };
    let mtu = path.mtu.min(u32::from(u16::MAX)) as u16;
    PeerRecord {
        ifindex: path.ifindex,
        mtu,
        flags,
        checksum_base,
        clamp_mtu: if options.clamp_mss {
            inner_mtu(mtu, path.remote)
        } else {
            0
        },
        tos_mask: if options.copy_dscp { 0xff } else { ECN_MASK },
        spare: 0,
        src: address_bytes(own),
        dst: address_bytes(path.remote),
        dst_mac: path.next_hop_mac.unwrap_or_default(),
        src_mac: path.source_mac,
        spare_end: [0; 4],
    }
}

/// Sum of the words of an outer IPv4 header whose length and checksum are 0 (RFC 1071): version, don't
/// fragment, TTL 64 with GRE, addresses.
fn checksum_base(src: [u8; 4], dst: [u8; 4]) -> u32 {
    let [a, b, c, d] = src;
    let [e, f, g, h] = dst;
    let fixed: u32 = 0x4500 + 0x4000 + 0x402f;
    let words = [[a, b], [c, d], [e, f], [g, h]];
    let sum = fixed
        + words
            .iter()
            .map(|word| u32::from(u16::from_be_bytes(*word)))
            .sum::<u32>();
    (sum & 0xffff) + (sum >> 16)
}
