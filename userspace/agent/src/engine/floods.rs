//! Flood lists and flood sets, one of each per flood domain. A list is immutable once published: a changed one
//! takes another place. The set's tunnel key names it to other hosts, which send one copy each.

use super::Engine;
use super::indices::Indices;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use weft_common::TunnelKey;
use weft_common::flood::{FloodList, FloodRemote};
use weft_common::limits::{FLOOD_LISTS_MAX, FLOOD_LOCALS_MAX, FLOOD_REMOTES_MAX, SLOT_GRACE_SECS};
use weft_common::port::{PortKind, PortRecord};
use weft_datapath::Datapath;
use weft_vnet::{BridgeId, FloodDomain, PortId, StateEntry, Tag};

/// A domain's list, and its set while this host has ports in it.
struct Flood {
    list_index: u32,
    list: FloodList,
    key: Option<TunnelKey>,
}

/// All of them.
pub struct Floods {
    domains: BTreeMap<BridgeId, Flood>,
    pub(super) indices: Indices,
    retired: VecDeque<(u64, u32)>,
}

impl Default for Floods {
    fn default() -> Floods {
        Floods {
            domains: BTreeMap::new(),
            indices: Indices::new(FLOOD_LISTS_MAX),
            retired: VecDeque::new(),
        }
    }
}

impl Floods {
    /// Indices of the flood sets' keys.
    pub fn key_indices(&self) -> impl Iterator<Item = u16> {
        self.domains
            .values()
            .filter_map(|flood| flood.key)
            .map(|key| key.index)
    }

    /// A list in words.
    pub fn describe(&self, list_index: u32) -> String {
        let flood = self
            .domains
            .values()
            .find(|flood| flood.list_index == list_index);
        flood.map_or_else(
            || "gone".to_owned(),
            |flood| {
                format!(
                    "{} local ports, {} hosts",
                    flood.list.local_count, flood.list.remote_count
                )
            },
        )
    }

    /// Frees lists that nobody can be reading any more.
    pub fn free_lists(&mut self, now: u64) {
        while let Some((_, index)) = self
            .retired
            .pop_front_if(|(since, _)| now.saturating_sub(*since) >= SLOT_GRACE_SECS)
        {
            self.indices.free(index);
        }
    }
}

impl<D: Datapath> Engine<D> {
    /// Follows ports and hosts that come and go.
    pub(super) fn reconcile_floods(&mut self, dirty: &mut BTreeSet<Tag>) {
        let snapshot = self.snapshot.clone();
        let gone: Vec<BridgeId> = self
            .floods
            .domains
            .keys()
            .filter(|id| !snapshot.flood_domains().any(|domain| domain.id == **id))
            .copied()
            .collect();
        for id in gone {
            self.remove_flood(id, dirty);
        }
        for domain in snapshot.flood_domains() {
            let list = self.list_of(domain);
            self.set_list(domain.id, list, dirty);
            self.set_key(domain.id);
        }
    }

    fn list_of(&self, domain: &FloodDomain) -> FloodList {
        let mut list = FloodList {
            local_count: 0,
            remote_count: 0,
            locals: [0; FLOOD_LOCALS_MAX],
            remotes: [FloodRemote::default(); FLOOD_REMOTES_MAX],
        };
        let locals = domain
            .ports
            .iter()
            .filter_map(|port| self.placement.ports.get(port));
        for (place, index) in list.locals.iter_mut().zip(locals) {
            *place = *index;
            list.local_count += 1;
        }
        let hosts = self
            .snapshot
            .flood_hosts(domain.id)
            .filter(|(host, _)| *host != self.host);
        let remotes = hosts.filter_map(|(host, key)| Some((self.placement.peers.get(&host)?, key)));
        for (place, (peer, tunnel_key)) in list.remotes.iter_mut().zip(remotes) {
            *place = FloodRemote {
                peer: u32::from(peer.index),
                tunnel_key,
            };
            list.remote_count += 1;
        }
        list
    }

    fn set_list(&mut self, id: BridgeId, list: FloodList, dirty: &mut BTreeSet<Tag>) {
        if self
            .floods
            .domains
            .get(&id)
            .is_some_and(|flood| flood.list == list)
        {
            return;
        }
        let earlier = self.earlier_list(&list);
        let Some(index) = earlier.or_else(|| self.floods.indices.allocate()) else {
            tracing::error!(domain = %id, limit = FLOOD_LISTS_MAX, "no flood list left: floods go where they went");
            return;
        };
        if let Err(error) = self.datapath.write_flood_list(index, &list) {
            tracing::error!(%error, domain = %id, "a flood list could not be written");
            return;
        }
        let now = self.now_secs();
        match self.floods.domains.get_mut(&id) {
            Some(flood) => {
                self.floods.retired.push_back((now, flood.list_index));
                flood.list_index = index;
                flood.list = list;
            }
            None => {
                self.floods.domains.insert(
                    id,
                    Flood {
                        list_index: index,
                        list,
                        key: None,
                    },
                );
            }
        }
        self.placement.flood_lists.insert(id, index);
        dirty.insert(Tag::Flood(id));
    }

    /// A list of an earlier agent with this content. Lists don't change while anything goes by them, so whose it
    /// was is all the same.
    fn earlier_list(&mut self, list: &FloodList) -> Option<u32> {
        let lists = &mut self.adoption.flood_lists;
        let index = *lists.iter().find(|(_, held)| *held == list)?.0;
        lists.remove(&index);
        self.floods.indices.claim(index).then_some(index)
    }

    /// A set exists while there are local ports to expand it to.
    fn set_key(&mut self, id: BridgeId) {
        let Some(flood) = self.floods.domains.get(&id) else {
            return;
        };
        let (list, has_ports, old) = (flood.list_index, flood.list.local_count > 0, flood.key);
        let key = match (has_ports, old) {
            (true, Some(key)) => Some(key),
            (true, None) => self.allocate_flood_key(id),
            (false, Some(key)) => {
                self.release_flood_key(id, key);
                None
            }
            (false, None) => None,
        };
        if let Some(flood) = self.floods.domains.get_mut(&id) {
            flood.key = key;
        }
        if let Some(key) = key {
            let record = PortRecord {
                kind: PortKind::FloodSet as u8,
                generation: key.generation,
                flood_list: list,
                ..PortRecord::default()
            };
            self.write_record(key.index, &record);
            self.publish(StateEntry::FloodActivity {
                bridge: id,
                host: self.host,
                tunnel_key: key.bits(),
            });
        }
    }

    fn allocate_flood_key(&mut self, id: BridgeId) -> Option<TunnelKey> {
        let earlier = self.snapshot.all_activity().floods.get(&(id, self.host));
        let earlier = earlier
            .map(|bits| TunnelKey::from_bits(*bits))
            .filter(|key| !self.is_ready && self.ports.table.adopt(*key));
        match earlier.map_or_else(|| self.ports.table.allocate(self.now_secs()), Ok) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(%error, domain = %id, "no tunnel key for a flood set");
                None
            }
        }
    }

    /// Gives up every set, for a host that is another one from now on.
    pub(super) fn release_flood_sets(&mut self) {
        let domains = self.floods.domains.iter_mut();
        let sets: Vec<(BridgeId, TunnelKey)> = domains
            .filter_map(|(id, flood)| Some((*id, flood.key.take()?)))
            .collect();
        for (id, key) in sets {
            self.release_flood_key(id, key);
        }
    }

    /// Domains that are larger than a list, in words.
    pub(super) fn flood_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for domain in self.snapshot.flood_domains() {
            let is_here = |port: &&PortId| self.placement.ports.contains_key(*port);
            let ports = domain.ports.iter().filter(is_here).count();
            let hosts = self.snapshot.flood_hosts(domain.id);
            let hosts = hosts.filter(|(host, _)| *host != self.host).count();
            let bridge = self.snapshot.model().bridge_name(domain.id);
            for (what, count, limit) in [
                ("ports of this host", ports, FLOOD_LOCALS_MAX),
                ("other hosts", hosts, FLOOD_REMOTES_MAX),
            ] {
                if count > limit {
                    problems.push(format!(
                        "bridge {bridge}: floods reach {limit} of {count} {what}"
                    ));
                }
            }
        }
        problems
    }

    fn release_flood_key(&mut self, id: BridgeId, key: TunnelKey) {
        let record = PortRecord {
            generation: key.generation,
            ..PortRecord::default()
        };
        self.write_record(key.index, &record);
        let entry = StateEntry::FloodActivity {
            bridge: id,
            host: self.host,
            tunnel_key: key.bits(),
        };
        self.withdraw(&entry.key());
        let now = self.now_secs();
        self.ports.table.release(key, now);
    }

    fn remove_flood(&mut self, id: BridgeId, dirty: &mut BTreeSet<Tag>) {
        let Some(flood) = self.floods.domains.remove(&id) else {
            return;
        };
        if let Some(key) = flood.key {
            self.release_flood_key(id, key);
        }
        let now = self.now_secs();
        self.floods.retired.push_back((now, flood.list_index));
        self.placement.flood_lists.remove(&id);
        dirty.insert(Tag::Flood(id));
    }
}
