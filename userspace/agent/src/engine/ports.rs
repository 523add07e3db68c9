//! The ports that are bound on this host: each has a tunnel key from the moment it is bound, and is live while
//! its interface exists.

use super::Engine;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use weft_common::limits::PORTS_MAX;
use weft_common::peer::address_bytes;
use weft_common::port::{PORT_XDP, PORT_XDP_FRAGS, PortKind, PortRecord};
use weft_common::{DropReason, TunnelKey};
use weft_datapath::kernel::INJECT_PREFIX;
use weft_datapath::kernel::netdev::{XDP_TAKES, XDP_TAKES_FRAGS};
use weft_datapath::network::HostNetwork;
use weft_datapath::{Attachment, Datapath, Error, PortTable, XdpUse};
use weft_vnet::{Port, PortId, StateEntry, Tag};

/// A port that is bound on this host.
pub struct BoundPort {
    /// Its tunnel key.
    pub key: TunnelKey,
    /// Name of its interface.
    pub interface: String,
    /// Its interface, while that exists and the program is attached.
    pub attachment: Option<Attachment>,
    /// Why it isn't live.
    pub problem: Option<String>,
}

/// All of them, and the keys of ports and flood sets.
pub struct Ports {
    /// By id.
    pub bound: BTreeMap<PortId, BoundPort>,
    by_index: HashMap<u16, PortId>,
    /// Gives out keys.
    pub table: PortTable,
    /// Underlay interfaces, with the index at which each was attached.
    pub underlay: BTreeMap<String, Option<u32>>,
    /// Whether they are to have XDP.
    pub xdp: XdpUse,
    /// Attached underlay interfaces: whether they have XDP, or why not.
    pub underlay_xdp: BTreeMap<String, Result<bool, String>>,
}

impl Ports {
    /// No port yet.
    pub fn new(table: PortTable, underlay_interfaces: Vec<String>, xdp: XdpUse) -> Ports {
        let underlay = underlay_interfaces
            .into_iter()
            .map(|name| (name, None))
            .collect();
        Ports {
            bound: BTreeMap::new(),
            by_index: HashMap::new(),
            table,
            underlay,
            xdp,
            underlay_xdp: BTreeMap::new(),
        }
    }

    /// The port that an index stands for.
    pub fn by_index(&self, index: u16) -> Option<PortId> {
        self.by_index.get(&index).copied()
    }

    /// The port that an index stands for, if it has had that generation all along.
    pub fn by_key(&self, index: u16, generation: u8) -> Option<PortId> {
        let port = self.by_index(index)?;
        (self.bound.get(&port)?.key.generation == generation).then_some(port)
    }
}

impl<D: Datapath> Engine<D> {
    /// Binds, unbinds, attaches and detaches until ports are as the topology and the host say.
    pub(super) fn reconcile_ports(&mut self, dirty: &mut BTreeSet<Tag>) {
        let model = self.snapshot.shared_model().clone();
        let wanted: BTreeMap<PortId, &Port> = model
            .ports
            .values()
            .filter(|port| {
                port.binding
                    .as_ref()
                    .is_some_and(|binding| binding.host == self.host)
            })
            .map(|port| (port.id, port.as_ref()))
            .collect();
        let gone: Vec<PortId> = self
            .ports
            .bound
            .iter()
            .filter(|(id, bound)| {
                wanted
                    .get(id)
                    .is_none_or(|port| !is_bound_to(port, &bound.interface))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.unbind(id, dirty);
        }
        for (id, port) in &wanted {
            if !self.ports.bound.contains_key(id) {
                self.bind(port);
            }
        }
        // Before anything is attached: no packet passes a port without its chains, or is answered as its index's last port
        // was.
        self.reconcile_acls();
        self.reconcile_neighbours();
        for port in wanted.into_values() {
            self.follow_interface(port, dirty);
        }
    }

    /// Links and records of an earlier agent go where the topology no longer has their port.
    pub(super) fn forget_earlier_ports(&mut self) {
        let mut keep: BTreeSet<u16> = self
            .ports
            .bound
            .values()
            .map(|bound| bound.key.index)
            .collect();
        self.datapath.detach_other_ports(&keep);
        keep.extend(self.floods.key_indices());
        for index in (1..PORTS_MAX as u16).filter(|index| !keep.contains(index)) {
            let Ok(record) = self.datapath.read_port(index) else {
                continue;
            };
            if record.kind != PortKind::Free as u8 {
                let generation = record.generation;
                self.write_record(
                    index,
                    &PortRecord {
                        generation,
                        ..PortRecord::default()
                    },
                );
            }
        }
        let remotes = self
            .peers
            .hosts
            .values()
            .map(|remote| address_bytes(remote.address))
            .collect();
        if let Err(error) = self.datapath.keep_remote_hosts(&remotes) {
            tracing::error!(%error, "hosts of an earlier topology stay");
        }
    }

    fn bind(&mut self, port: &Port) {
        let Some(binding) = &port.binding else { return };
        let earlier = self
            .snapshot
            .activity(port.id)
            // A declared key says nothing of an earlier agent.
            .filter(|(host, _)| *host == self.host && !self.snapshot.is_unmanaged(*host));
        let earlier = earlier
            .map(|(_, key)| TunnelKey::from_bits(key))
            .filter(|key| !self.is_ready && self.ports.table.adopt(*key));
        let key = match earlier.map_or_else(|| self.ports.table.allocate(self.now_secs()), Ok) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, port = %port.id, "no tunnel key for a port");
                return;
            }
        };
        self.ports.by_index.insert(key.index, port.id);
        let tenant = self.snapshot.model().tenant_of(port.device);
        self.table
            .set_owner(key.index, tenant.map_or(0, |tenant| tenant.0.as_u128()));
        let interface = binding.interface.clone();
        self.ports.bound.insert(
            port.id,
            BoundPort {
                key,
                interface,
                attachment: None,
                problem: None,
            },
        );
    }

    fn unbind(&mut self, id: PortId, dirty: &mut BTreeSet<Tag>) {
        self.go_down(id, None, dirty);
        let Some(bound) = self.ports.bound.remove(&id) else {
            return;
        };
        self.ports.by_index.remove(&bound.key.index);
        self.forget_policy(bound.key.index);
        self.acls.forget(id);
        self.remove_flows_of_port(bound.key.index);
        let record = PortRecord {
            generation: bound.key.generation,
            ..PortRecord::default()
        };
        self.write_record(bound.key.index, &record);
        let now = self.now_secs();
        self.ports.table.release(bound.key, now);
    }

    /// Attaches to an interface that appeared, or was made anew, and lets go of one that went.
    fn follow_interface(&mut self, port: &Port, dirty: &mut BTreeSet<Tag>) {
        let Some(bound) = self.ports.bound.get(&port.id) else {
            return;
        };
        let (interface, key) = (bound.interface.clone(), bound.key);
        let present = self.network.links.get(&interface).map(|link| link.ifindex);
        let attached = bound.attachment.map(|attachment| attachment.ifindex);
        if !port.admin_up {
            return self.go_down(port.id, None, dirty);
        }
        if self.ports.underlay.contains_key(&interface) {
            // The host's own traffic passes there.
            return self.go_down(
                port.id,
                Some("its interface is an underlay interface"),
                dirty,
            );
        }
        if interface == "lo" || interface.starts_with(INJECT_PREFIX) {
            return self.go_down(port.id, Some("its interface is no workload's"), dirty);
        }
        let Some(ifindex) = present else {
            return self.go_down(port.id, Some("its interface doesn't exist"), dirty);
        };
        if attached == Some(ifindex) {
            return self.follow_xdp(key.index, &interface);
        }
        let problem = bound.problem.clone();
        if attached.is_some() {
            self.go_down(port.id, None, dirty);
        }
        match self.datapath.attach_port(key.index, &interface) {
            Ok(attachment) => self.go_live(port.id, attachment, dirty),
            Err(Error::NoInterface(_)) => {
                self.set_problem(port.id, Some("its interface doesn't exist".to_owned()))
            }
            Err(error) => {
                if problem != Some(error.to_string()) {
                    tracing::error!(%error, port = %port.id, %interface, "a port could not be attached");
                }
                self.set_problem(port.id, Some(error.to_string()));
            }
        }
    }

    /// XDP delivers to a port only while its interface takes redirected frames, which changes with the far end.
    fn follow_xdp(&mut self, index: u16, interface: &str) {
        if self.watches.is_visible(index) {
            return;
        }
        let flags = xdp_flags(&self.network, interface);
        match self.datapath.read_port(index) {
            Ok(record) if record.flags != flags => {
                tracing::info!(interface, xdp = flags & PORT_XDP != 0, "delivery by XDP");
                self.write_record(index, &PortRecord { flags, ..record });
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, index, "a port record could not be read"),
        }
    }

    /// Tries again what the kernel refused, if anything: its interface is there, but nothing is attached.
    pub(super) fn retry_attachments(&mut self) {
        let exists = |interface: &str| self.network.links.contains_key(interface);
        let is_up = |id| self.snapshot.port(id).is_some_and(|port| port.admin_up);
        let ports = self.ports.bound.iter().any(|(id, bound)| {
            let interface = &bound.interface;
            bound.attachment.is_none()
                && is_up(*id)
                && exists(interface)
                && !self.ports.underlay.contains_key(interface)
        });
        let underlay = self.ports.underlay.iter();
        let mut underlay = underlay.filter(|(_, attached)| attached.is_none());
        if ports || underlay.any(|(interface, _)| exists(interface)) {
            self.attach_underlay_interfaces();
            let mut dirty = BTreeSet::new();
            self.reconcile(&mut dirty);
            self.redecide(&dirty);
            self.wake_waiting(&dirty);
        }
    }

    pub(super) fn unbind_all(&mut self, dirty: &mut BTreeSet<Tag>) {
        let ids: Vec<PortId> = self.ports.bound.keys().copied().collect();
        for id in ids {
            self.unbind(id, dirty);
        }
    }

    fn go_live(&mut self, id: PortId, attachment: Attachment, dirty: &mut BTreeSet<Tag>) {
        let Some(bound) = self.ports.bound.get_mut(&id) else {
            return;
        };
        bound.attachment = Some(attachment);
        bound.problem = None;
        let key = bound.key;
        let flags = xdp_flags(&self.network, &bound.interface);
        let (masks_v4, masks_v6) = self.table.mask_sets(key.index);
        let record = PortRecord {
            kind: PortKind::Port as u8,
            generation: key.generation,
            delivery: attachment.delivery as u8,
            flags,
            ifindex: attachment.ifindex,
            masks_v4,
            masks_v6,
            epoch: 0,
            flood_list: 0,
        };
        self.write_record(key.index, &record);
        self.placement.ports.insert(id, key.index);
        dirty.insert(Tag::Activity(id));
        self.publish(StateEntry::PortActivity {
            port: id,
            host: self.host,
            tunnel_key: key.bits(),
        });
        tracing::info!(port = %self.snapshot.model().port_path(id), %key, "port is live");
    }

    pub(super) fn go_down(&mut self, id: PortId, problem: Option<&str>, dirty: &mut BTreeSet<Tag>) {
        self.set_problem(id, problem.map(str::to_owned));
        let Some(bound) = self.ports.bound.get_mut(&id) else {
            return;
        };
        let key = bound.key;
        let ifindex = match bound.attachment.take() {
            Some(attachment) => attachment.ifindex,
            None if self.is_ready => return,
            // An earlier agent may have left it live.
            None => match self.datapath.read_port(key.index) {
                Ok(record) if record.ifindex != 0 => record.ifindex,
                _ => return,
            },
        };
        if let Err(error) = self.datapath.detach_port(key.index, ifindex) {
            tracing::warn!(%error, port = %id, "detaching a port");
        }
        // The key stays the port's: what arrives under it meanwhile is dropped by name.
        let (masks_v4, masks_v6) = self.table.mask_sets(key.index);
        let kind = PortKind::Port as u8;
        let record = PortRecord {
            kind,
            generation: key.generation,
            masks_v4,
            masks_v6,
            ..PortRecord::default()
        };
        self.write_record(key.index, &record);
        self.placement.ports.remove(&id);
        dirty.insert(Tag::Activity(id));
        let entry = StateEntry::PortActivity {
            port: id,
            host: self.host,
            tunnel_key: key.bits(),
        };
        self.withdraw(&entry.key());
        tracing::info!(port = %self.snapshot.model().port_path(id), "port is no longer live");
    }

    fn set_problem(&mut self, id: PortId, problem: Option<String>) {
        if let Some(bound) = self.ports.bound.get_mut(&id) {
            bound.problem = problem;
        }
    }

    pub(super) fn write_record(&mut self, index: u16, record: &PortRecord) {
        if let Err(error) = self.datapath.write_port(index, record) {
            tracing::error!(%error, index, "a port record could not be written");
            self.count_drop(self.ports.by_index(index), DropReason::PortDown);
        }
    }
}

/// Flags of a port's record that say what its interface does with XDP; where the kernel can't say, nothing.
pub(super) fn xdp_flags(network: &HostNetwork, interface: &str) -> u8 {
    let link = network.links.get(interface);
    let features = link.and_then(|link| link.xdp_features).unwrap_or(0);
    match (features & XDP_TAKES != 0, features & XDP_TAKES_FRAGS != 0) {
        (false, _) => 0,
        (true, false) => PORT_XDP,
        (true, true) => PORT_XDP | PORT_XDP_FRAGS,
    }
}

fn is_bound_to(port: &Port, interface: &str) -> bool {
    port.binding
        .as_ref()
        .is_some_and(|binding| binding.interface == interface)
}
