//! Answers for the API: flows, masks, ports, drops, status. Made on the packet thread, in words where people
//! read them.

use super::Engine;
use super::ports::BoundPort;
use super::underlay::ZONE;
use std::collections::BTreeMap;
use weft_api::{
    DropInfo, FlowInfo, Health, HostState, MaskInfo, PeerInfo, PortInfo, PortState, Status,
    StoreStatus,
};
use weft_common::slot::{Output, SET_MACS};
use weft_common::{ABI_VERSION, DropReason, FlowKey, Slot, TunnelKey};
use weft_datapath::{Datapath, Family, Flow};
use weft_vnet::{Mac, Port, PortId, describe_match_on};

impl<D: Datapath> Engine<D> {
    /// Every flow, those of one port together.
    pub fn report_flows(&self) -> Vec<FlowInfo> {
        let mut flows: Vec<&Flow> = self.table.iter().collect();
        flows.sort_by_key(|flow| (flow.port, flow.id));
        flows
            .into_iter()
            .map(|flow| self.report_flow(flow))
            .collect()
    }

    fn report_flow(&self, flow: &Flow) -> FlowInfo {
        let used = self.table.use_of(&self.datapath, flow);
        let port = self.ports.by_index(flow.port);
        let decision = self.decisions.get(flow.id);
        let mut key = flow.masked;
        key.head.mask_id = 0;
        FlowInfo {
            id: format!("{:x}", flow.id.0),
            port: port.map(|port| self.path(port)).unwrap_or_default(),
            tenant: port.map(|port| self.tenant_of(port)).unwrap_or_default(),
            matches: describe_match_on(&key, &flow.mask, &self.snapshot, self.host),
            mask_bits: mask_bits(flow.family, &flow.mask),
            actions: self.describe_slot(&flow.slot),
            packets: used.packets,
            bytes: used.bytes,
            idle_secs: self.now_secs().saturating_sub(flow.used_at_secs),
            slot: flow.target.slot,
            generation: flow.target.generation,
            tags: decision
                .map(|decision| decision.tags.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
        }
    }

    /// The masks in use, those with most packets first.
    pub fn report_masks(&self) -> Vec<MaskInfo> {
        let mut packets: BTreeMap<(Family, u32), u64> = BTreeMap::new();
        for flow in self.table.iter() {
            let number = u32::from(flow.masked.head.mask_id);
            *packets.entry((flow.family, number)).or_default() +=
                self.table.use_of(&self.datapath, flow).packets;
        }
        let masks = self.table.masks_in_use().into_iter();
        let mut masks: Vec<MaskInfo> = masks
            .map(|(family, number, mask, flows)| {
                let mask_bits = mask_bits(family, &mask);
                let words: Vec<String> = mask_bits
                    .iter()
                    .map(|(field, bits)| format!("{field}/{bits}"))
                    .collect();
                MaskInfo {
                    mask: words.join(","),
                    mask_bits,
                    flows: u64::from(flows),
                    packets: packets.get(&(family, number)).copied().unwrap_or_default(),
                }
            })
            .collect();
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.packets));
        masks
    }

    /// Every port of the topology.
    pub fn report_ports(&self) -> Vec<PortInfo> {
        let mut ports: Vec<PortInfo> = self
            .snapshot
            .model()
            .ports
            .values()
            .map(|port| self.report_port(port))
            .collect();
        ports.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
        ports
    }

    fn report_port(&self, port: &Port) -> PortInfo {
        let bound = self.ports.bound.get(&port.id);
        let live = self.snapshot.activity(port.id);
        let own_key = bound.map(|bound| bound.key);
        let key = own_key.or_else(|| live.map(|(_, bits)| TunnelKey::from_bits(bits)));
        let counters = own_key.map(|key| self.datapath.port_counters(key.index));
        let counters = counters.and_then(Result::ok).unwrap_or_default();
        let state = match (&port.binding, bound) {
            _ if !port.admin_up => PortState::Down,
            (None, _) if port.peer.is_some() => PortState::Interior,
            (None, _) => PortState::Unbound,
            (Some(_), Some(bound)) if self.interface_trouble(bound).is_some() => PortState::Down,
            (Some(_), Some(bound)) if bound.attachment.is_some() => PortState::Active,
            (Some(binding), _) if binding.host == self.host => PortState::Waiting,
            (Some(_), _) => PortState::Remote,
        };
        let problem = bound.filter(|_| port.admin_up).and_then(|bound| {
            bound
                .problem
                .clone()
                .or_else(|| self.interface_trouble(bound))
        });
        let problem = match (problem, state, live) {
            (Some(problem), ..) => Some(problem),
            (None, PortState::Remote, None) => Some("not live on its host".to_owned()),
            _ => None,
        };
        PortInfo {
            id: port.id.to_string(),
            tenant: self.tenant_of(port.id),
            name: self.path(port.id),
            host: port
                .binding
                .as_ref()
                .map(|binding| self.host_name_of(binding.host)),
            interface: port
                .binding
                .as_ref()
                .map(|binding| binding.interface.clone()),
            state,
            key: key.map(|key| key.to_string()),
            tunnel_key: key.map(TunnelKey::bits),
            mac: port.mac.to_string(),
            addresses: port.addresses.iter().map(ToString::to_string).collect(),
            ingress_packets: counters.ingress_packets,
            ingress_bytes: counters.ingress_bytes,
            egress_packets: counters.egress_packets,
            egress_bytes: counters.egress_bytes,
            drops: self.drops_of(port.id).into_values().sum(),
            mtu: self.interface_mtu(port),
            problem,
        }
    }

    /// Why no frame passes the interface of a port that is attached: the kernel knows, and nothing of Weft's is wrong.
    pub(super) fn interface_trouble(&self, bound: &BoundPort) -> Option<String> {
        bound.attachment?;
        let trouble = self.network.links.get(&bound.interface)?.trouble()?;
        Some(format!("its interface {trouble}"))
    }

    /// MTU of a port's interface, if that is on this host.
    fn interface_mtu(&self, port: &Port) -> Option<u32> {
        let binding = port.binding.as_ref();
        let binding = binding.filter(|binding| binding.host == self.host)?;
        let link = self.network.links.get(&binding.interface);
        link.map(|link| link.mtu)
    }

    /// Drops by port and reason, of kernel and agent together.
    pub fn report_drops(&self) -> Vec<DropInfo> {
        let ports = self
            .ports
            .bound
            .keys()
            .map(|port| (Some(*port), self.drops_of(*port)));
        let nowhere = std::iter::once((None, self.drops_without_port()));
        let mut infos = Vec::new();
        for (port, drops) in ports.chain(nowhere) {
            for (reason, packets) in drops {
                infos.push(DropInfo {
                    port: port.map(|port| self.path(port)),
                    tenant: port.map(|port| self.tenant_of(port)),
                    reason: reason.name().to_owned(),
                    explanation: reason.explanation().trim().to_owned(),
                    packets,
                });
            }
        }
        infos
    }

    fn drops_of(&self, port: PortId) -> BTreeMap<DropReason, u64> {
        let kernel = self
            .ports
            .bound
            .get(&port)
            .map(|bound| self.datapath.drops(bound.key.index));
        let mut drops: BTreeMap<DropReason, u64> = kernel
            .and_then(Result::ok)
            .unwrap_or_default()
            .into_iter()
            .collect();
        for ((_, reason), packets) in self.drops.iter().filter(|((at, _), _)| *at == Some(port)) {
            *drops.entry(*reason).or_default() += packets;
        }
        drops
    }

    /// Drops of index 0, of flood sets, and of ports that aren't bound here.
    fn drops_without_port(&self) -> BTreeMap<DropReason, u64> {
        let mut drops: BTreeMap<DropReason, u64> = BTreeMap::new();
        for index in std::iter::once(0).chain(self.floods.key_indices()) {
            for (reason, packets) in self.datapath.drops(index).unwrap_or_default() {
                *drops.entry(reason).or_default() += packets;
            }
        }
        let is_here = |port: &PortId| self.ports.bound.contains_key(port);
        for ((_, reason), packets) in self
            .drops
            .iter()
            .filter(|((at, _), _)| !at.as_ref().is_some_and(is_here))
        {
            *drops.entry(*reason).or_default() += packets;
        }
        drops
    }

    /// Whether this agent is well, and what it sees of the others.
    pub fn report_status(&self) -> Status {
        let active = self
            .ports
            .bound
            .values()
            .filter(|bound| bound.attachment.is_some() && self.interface_trouble(bound).is_none())
            .count() as u64;
        let is_waiting = |port: &PortId, bound: &BoundPort| {
            let is_up = self.snapshot.port(*port).is_some_and(|it| it.admin_up);
            is_up && bound.attachment.is_none()
        };
        let bound = self.ports.bound.iter();
        let waiting = bound.filter(|(id, bound)| is_waiting(id, bound)).count() as u64;
        let peers: Vec<PeerInfo> = self.report_peers();
        let problems = self.problems(&peers);
        Status {
            host: self.host_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            state: if problems.is_empty() {
                Health::Ok
            } else {
                Health::Degraded
            },
            problems,
            revision: self.snapshot.model().revision,
            store: StoreStatus {
                url: self.store.url.clone(),
                connected: self.store.connected,
                problem: self.store.problem.clone(),
            },
            flows: self.table.len() as u64,
            flows_max: self.table.flows_max as u64,
            misses: self.misses,
            redecided: self.redecided,
            evicted: self.evicted,
            audit: self.audit.report(),
            adopted: self.adoption.report(),
            policy: self.report_policy(),
            overlay_mtu: self.snapshot.overlay_mtu(),
            underlay_xdp: self.underlay_xdp(),
            ports_active: active,
            ports_waiting: waiting,
            peers,
            uptime_secs: self.now_secs(),
        }
    }

    /// The other hosts with the ways to them.
    pub fn report_peers(&self) -> Vec<PeerInfo> {
        let of = |(id, remote): (&weft_vnet::HostId, &super::underlay::RemoteHost)| {
            let path = self.network.paths.get(&remote.address);
            let mac = path.and_then(|path| path.next_hop_mac);
            let state = match (path, mac) {
                (None, _) => "unreachable",
                (Some(_), None) => "resolving",
                (Some(_), Some(_)) => "resolved",
            };
            let name = |ifindex| {
                self.network
                    .links
                    .iter()
                    .find(|(_, link)| link.ifindex == ifindex)
                    .map(|(name, _)| name.clone())
            };
            PeerInfo {
                host: self.host_name_of(*id),
                reach: self.host_state(*id),
                address: remote.address.to_string(),
                state: state.to_owned(),
                interface: path.and_then(|path| name(path.ifindex)),
                gateway_mac: mac.map(|mac| Mac(mac).to_string()),
                mtu: path.map(|path| path.mtu),
            }
        };
        self.peers.hosts.iter().map(of).collect()
    }

    /// Underlay interfaces that XDP is attached to.
    fn underlay_xdp(&self) -> Vec<String> {
        let all = self.ports.underlay_xdp.iter();
        all.filter(|(_, attached)| **attached == Ok(true))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn store_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.store.connected {
            let why = self.store.problem.as_deref().unwrap_or("not yet reached");
            problems.push(format!("store {}: {why}", self.store.url));
        }
        if let Some(problem) = &self.store.save_problem {
            problems.push(format!(
                "a restart without the store would find an old topology: {problem}"
            ));
        }
        problems
    }

    fn problems(&self, peers: &[PeerInfo]) -> Vec<String> {
        let mut problems = self.store_problems();
        let own = self.snapshot.model().hosts.get(&self.host);
        if own.is_none() && self.snapshot.model().revision > 0 {
            problems.push(format!(
                "host {} isn't in the topology: nothing can be bound here",
                self.host_name
            ));
        } else if own.is_some_and(|host| !host.zones.contains_key(ZONE)) {
            problems.push(format!(
                "host {} has no address in tunnel zone {ZONE}: no tunnels",
                self.host_name
            ));
        }
        for (name, _) in self
            .ports
            .underlay
            .iter()
            .filter(|(_, attached)| attached.is_none())
        {
            let exists = self.network.links.contains_key(name);
            let why = if exists {
                "the kernel refused, see the log"
            } else {
                "it doesn't exist"
            };
            problems.push(format!("underlay interface {name} isn't attached: {why}"));
        }
        problems.extend(self.underlay_trouble());
        for (name, xdp) in &self.ports.underlay_xdp {
            if let Err(why) = xdp {
                problems.push(format!(
                    "underlay interface {name} has no XDP, all goes by TC: {why}"
                ));
            }
        }
        problems.extend(self.flood_problems());
        problems.extend(self.acls.problems(self.snapshot.model()));
        problems.extend(self.neighbour_problems());
        if let Some(problem) = &self.take_over_problem {
            problems.push(format!(
                "nothing is decided: what an earlier weftd left can't be read: {problem}"
            ));
        }
        problems.extend(self.swap.problem());
        if let Some(problem) = &self.install_problem {
            problems.push(format!(
                "packets go by way of this agent, as no flow can be installed: {problem}"
            ));
        }
        for (id, bound) in self.ports.bound.iter() {
            let trouble = || self.interface_trouble(bound);
            if let Some(problem) = bound.problem.clone().or_else(trouble) {
                problems.push(format!(
                    "port {} (interface {}): {problem}",
                    self.path(*id),
                    bound.interface
                ));
            }
        }
        problems.extend(self.peer_problems(peers));
        problems
    }

    /// Underlay interfaces that no tunnel packet passes.
    pub(super) fn underlay_trouble(&self) -> Vec<String> {
        let links = &self.network.links;
        let troubled = self.ports.underlay.keys().filter_map(|name| {
            let trouble = links.get(name)?.trouble()?;
            Some(format!("underlay interface {name} {trouble}"))
        });
        troubled.collect()
    }

    /// What probes say, and of the hosts of which they say nothing yet, what routes and neighbours do.
    fn peer_problems(&self, peers: &[PeerInfo]) -> Vec<String> {
        let hosts = self.report_hosts().into_iter();
        let mut problems: Vec<String> = hosts.filter_map(|host| host.problem).collect();
        let is_told = |peer: &PeerInfo| peer.reach == HostState::Down || peer.state == "resolved";
        for peer in peers.iter().filter(|peer| !is_told(peer)) {
            problems.push(format!(
                "host {} ({}) is {}",
                peer.host, peer.address, peer.state
            ));
        }
        problems
    }

    /// The actions of a slot in words.
    pub fn describe_slot(&self, slot: &Slot) -> String {
        if let Some(group) = slot.select_group() {
            return self.describe_group(group);
        }
        let mut words = Vec::new();
        if slot.flags & SET_MACS != 0 {
            words.push(format!(
                "set_macs({}->{})",
                Mac(slot.src_mac),
                Mac(slot.dst_mac)
            ));
        }
        if slot.ttl_decrement > 0 {
            words.push(format!("dec_ttl({})", slot.ttl_decrement));
        }
        words.push(match Output::from_number(slot.output) {
            Some(Output::Drop) => {
                format!(
                    "drop({})",
                    DropReason::from_number(slot.drop_reason).map_or("unknown", DropReason::name)
                )
            }
            Some(Output::Local) => {
                let port = self.ports.by_index(slot.port).map(|port| self.path(port));
                format!("output({})", port.unwrap_or_else(|| slot.port.to_string()))
            }
            Some(Output::Tunnel) => {
                let host = self
                    .peers
                    .hosts
                    .iter()
                    .find(|(_, remote)| remote.index == slot.peer);
                let host =
                    host.map_or_else(|| slot.peer.to_string(), |(id, _)| self.host_name_of(*id));
                format!(
                    "tunnel(host={host},key={})",
                    TunnelKey::from_bits(slot.tunnel_key)
                )
            }
            Some(Output::Flood) => format!("flood({})", self.floods.describe(slot.flood_list)),
            Some(Output::Agent) => "agent".to_owned(),
            None => format!("unknown({})", slot.output),
        });
        words.join(",")
    }

    pub(super) fn path(&self, port: PortId) -> String {
        self.snapshot.model().port_path(port)
    }

    pub(super) fn host_name_of(&self, host: weft_vnet::HostId) -> String {
        self.snapshot
            .model()
            .hosts
            .get(&host)
            .map_or_else(|| host.to_string(), |host| host.name.clone())
    }

    pub(super) fn tenant_of(&self, port: PortId) -> String {
        let model = self.snapshot.model();
        let device = model.ports.get(&port).map(|port| port.device);
        device
            .and_then(|device| model.tenant_of(device))
            .map(|tenant| model.tenant_name(tenant))
            .unwrap_or_default()
    }
}

/// How many bits of each field a mask holds; fields without any are left out.
fn mask_bits(family: Family, mask: &FlowKey) -> BTreeMap<String, u32> {
    let weft_common::key::FlowHead {
        port,
        class,
        mask_id: _,
        vlan,
        protocol,
        tos,
        src_mac,
        dst_mac,
        l4_src,
        l4_dst,
    } = mask.head;
    let bits = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let (source, destination) = match family {
        Family::V4 => (bits(&mask.src_v4()), bits(&mask.dst_v4())),
        Family::V6 => (bits(&mask.src), bits(&mask.dst)),
    };
    let fields = [
        ("in_port", port.count_ones()),
        ("class", class.count_ones()),
        ("vlan", vlan.count_ones()),
        ("ip_proto", protocol.count_ones()),
        ("tos", tos.count_ones()),
        ("src_mac", bits(&src_mac)),
        ("dst_mac", bits(&dst_mac)),
        ("l4_src", l4_src.count_ones()),
        ("l4_dst", l4_dst.count_ones()),
        ("ip_src", source),
        ("ip_dst", destination),
    ];
    fields
        .into_iter()
        .filter(|(_, bits)| *bits > 0)
        .map(|(field, bits)| (field.to_owned(), bits))
        .collect()
}
