//! Tunnel probes to each remote host: whether it answers, how fast, and how large packets may be.
//!
//! The other host's kernel answers, so that a host is up while it forwards, with or without its agent. What an
//! agent says of itself comes with the probes that *it* sends.

mod history;
mod mtu;

use super::Engine;
use super::underlay::RemoteHost;
use history::History;
use mtu::MtuSearch;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use weft_api::{AgentHeard, HostInfo, HostState};
use weft_common::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use weft_common::probe::{
    ETHERTYPE_PROBE, PROBE_FORMAT, PROBE_MAGIC, PROBE_REPLY, PROBE_REQUEST, PROBE_SEEN,
    PROBE_VERSION_LEN, PROBE_WATCH, ProbePayload, WatchPayload,
};
use weft_common::slot::Output;
use weft_common::{ABI_VERSION, DropReason, Slot};
use weft_datapath::{Datapath, HeldPacket, Miss, monotonic_ns};
use weft_vnet::{HostId, Tag};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the inner frame of a probe that isn't padded.
const PROBE_FRAME_LEN: usize = ETHERNET_LEN + size_of::<ProbePayload>();
/// Larger probes aren't sent, however much a way carries.
const PROBE_SIZE_MAX: u16 = 10_000;
/// Requests of another host whose clocks are compared: the one that was least delayed counts.
const CLOCKS: usize = 8;

/// What is known of one remote host.
struct Prober {
    address: IpAddr,
    history: History,
    mtu: MtuSearch,
    /// Its limit, as flows know it.
    known_limit: Option<u16>,
    heard: Option<Heard>,
}

/// What another host's agent said of itself.
struct Heard {
    at_ms: u64,
    version: String,
    abi: u32,
    /// Its clock less this host's, in milliseconds.
    offsets_ms: VecDeque<i64>,
}

/// All of them.
#[derive(Default)]
pub struct Probes {
    hosts: BTreeMap<HostId, Prober>,
    /// Of the last request. It starts at the time of day: an answer to an earlier agent is none to this one.
    sequence: u64,
}

impl Probes {
    /// What the way to a host was found to carry, if that is less than routes and interfaces say.
    pub fn mtu_limit(&self, host: HostId) -> Option<u16> {
        self.hosts.get(&host)?.mtu.limit()
    }

    fn next_sequence(&mut self) -> u64 {
        if self.sequence == 0 {
            self.sequence = unix_ms() << 20;
        }
        self.sequence += 1;
        self.sequence
    }
}

impl<D: Datapath> Engine<D> {
    /// Sends the probes that are due, and judges those before. Called about once a second.
    pub fn probe_hosts(&mut self) {
        // Answers would go to the programs of another ABI.
        if !self.is_ready || self.swap.is_beside() {
            return;
        }
        let remotes: Vec<(HostId, RemoteHost)> = self
            .peers
            .hosts
            .iter()
            .filter(|(id, _)| !self.snapshot.is_unmanaged(**id))
            .map(|(id, remote)| (*id, remote.clone()))
            .collect();
        let address = |id: &HostId| remotes.iter().find(|(it, _)| it == id);
        let is_same = |id: &HostId, prober: &mut Prober| {
            address(id).is_some_and(|(_, remote)| remote.address == prober.address)
        };
        self.probes.hosts.retain(is_same);
        for (id, remote) in remotes {
            self.probe_host(id, &remote);
        }
    }

    fn probe_host(&mut self, id: HostId, remote: &RemoteHost) {
        let now = self.now_ms();
        let path = self.network.paths.get(&remote.address);
        let has_way = path.is_some_and(|path| path.next_hop_mac.is_some());
        let goal = path.map_or(0, |path| path.mtu).min(PROBE_SIZE_MAX.into()) as u16;
        let address = remote.address;
        let outer = outer_len(address);
        let prober = self.probes.hosts.entry(id).or_insert_with(|| Prober {
            address,
            history: History::new(now),
            mtu: MtuSearch::new(outer + PROBE_FRAME_LEN as u16),
            known_limit: None,
            heard: None,
        });
        let is_alive = prober.history.is_alive(now);
        let large = prober.mtu.next(now, goal, is_alive && has_way);
        let limit = prober.mtu.limit();
        let is_news = std::mem::replace(&mut prober.known_limit, limit) != limit;
        if let Some(state) = prober.history.judge(now, limit.is_some()) {
            self.log_state(id, address, state);
        }
        if is_news {
            self.take_mtu(id, goal, limit);
        }
        let sequence = self.probes.next_sequence();
        // Without a way the probe is as good as lost. Without a slot nothing can be said.
        if !has_way || self.send_probe(remote.index, sequence, PROBE_FRAME_LEN) {
            self.with_prober(id, |prober| prober.history.sent(sequence, now));
        }
        let Some(size) = large else { return };
        let sequence = self.probes.next_sequence();
        if self.send_probe(remote.index, sequence, usize::from(size - outer)) {
            self.with_prober(id, |prober| prober.mtu.sent(sequence, size, now));
        }
    }

    fn with_prober(&mut self, id: HostId, act: impl FnOnce(&mut Prober)) {
        if let Some(prober) = self.probes.hosts.get_mut(&id) {
            act(prober);
        }
    }

    fn log_state(&self, id: HostId, address: IpAddr, state: HostState) {
        let peer = self.host_name_of(id);
        match state {
            HostState::Down => {
                tracing::warn!(peer, %address, "a host answers no more tunnel probes")
            }
            _ => {
                tracing::info!(peer, %address, state = state.word(), "a host answers tunnel probes")
            }
        }
    }

    /// The way carries less, or more, than it was thought to: its record and its flows follow.
    fn take_mtu(&mut self, id: HostId, goal: u16, limit: Option<u16>) {
        let peer = self.host_name_of(id);
        match limit {
            Some(limit) => tracing::warn!(
                peer,
                mtu = goal,
                carried = limit,
                "large tunnel packets get lost on the way: smaller ones are sent from now on"
            ),
            None => tracing::info!(peer, mtu = goal, "large tunnel packets come through again"),
        }
        let mut dirty: BTreeSet<Tag> = BTreeSet::new();
        self.reconcile_underlay(&mut dirty);
        self.redecide(&dirty);
        self.wake_waiting(&dirty);
    }

    /// Sends a request whose inner frame has `length` bytes; false when it can't be sent.
    fn send_probe(&mut self, peer: u16, sequence: u64, length: usize) -> bool {
        let mut version = [0; PROBE_VERSION_LEN];
        let own = env!("CARGO_PKG_VERSION").bytes();
        version
            .iter_mut()
            .zip(own)
            .for_each(|(to, byte)| *to = byte);
        let payload = ProbePayload {
            magic: PROBE_MAGIC,
            format: PROBE_FORMAT,
            abi: ABI_VERSION as u8,
            spare: [0; 2],
            sequence: sequence.to_be_bytes(),
            sent_ns: monotonic_ns().to_be_bytes(),
            sent_unix_ms: unix_ms().to_be_bytes(),
            received_ns: [0; 8],
            version,
        };
        self.send_control(peer, PROBE_REQUEST, payload.as_bytes(), length)
    }

    /// Sends a packet of some kind to another host's kernel or agent, padded to `length` bytes of inner frame; false
    /// when it can't be sent.
    pub(super) fn send_control(
        &mut self,
        peer: u16,
        kind: u8,
        payload: &[u8],
        length: usize,
    ) -> bool {
        let slot = Slot {
            output: Output::Tunnel as u8,
            peer,
            tunnel_key: u32::from(kind),
            ..Slot::default()
        };
        let Some(target) = self.made_slot(slot, None) else {
            return false;
        };
        // Locally administered addresses that nothing looks at.
        let mut frame = [[2, 0, 0, 0, 0, 0]; 2].concat();
        frame.extend_from_slice(&ETHERTYPE_PROBE.to_be_bytes());
        frame.extend_from_slice(payload);
        frame.resize(length.max(PROBE_FRAME_LEN), 0);
        let sent = self.datapath.inject(target, 0, &HeldPacket::made(frame));
        if let Err(error) = &sent {
            tracing::warn!(%error, "a tunnel probe could not be sent");
        }
        sent.is_ok()
    }

    /// A probe of another host came in, or the answer to one of ours.
    pub(super) fn take_probe(&mut self, miss: &Miss) {
        let now = self.now_ms();
        if let PROBE_WATCH | PROBE_SEEN = miss.generation {
            return match parse::<WatchPayload>(&miss.packet.frame) {
                Some((sender, payload)) if miss.generation == PROBE_WATCH => {
                    self.take_question(sender, &payload)
                }
                Some((sender, payload)) => self.take_sight(sender, &payload),
                None => self.count_drop(None, DropReason::BadProbe),
            };
        }
        let Some((sender, payload)) = parse::<ProbePayload>(&miss.packet.frame) else {
            return self.count_drop(None, DropReason::BadProbe);
        };
        let prober = self.probes.hosts.values_mut();
        let prober = prober.into_iter().find(|it| it.address == sender);
        let sequence = u64::from_be_bytes(payload.sequence);
        let received_ns = u64::from_be_bytes(payload.received_ns);
        match (miss.generation, prober) {
            (PROBE_REPLY, Some(prober)) => {
                let rtt_us = received_ns.saturating_sub(u64::from_be_bytes(payload.sent_ns)) / 1000;
                if prober.history.answered(sequence, rtt_us) || prober.mtu.answered(sequence, now) {
                    return;
                }
                self.count_drop(None, DropReason::UnaskedProbe);
            }
            (PROBE_REPLY, None) => self.count_drop(None, DropReason::UnaskedProbe),
            (_, Some(prober)) => prober.hear(now, &payload),
            // Its sender became known to the kernel before the first round of probes.
            (_, None) => {}
        }
    }

    /// What the probes say of a host.
    pub(super) fn host_state(&self, id: HostId) -> HostState {
        match self.probes.hosts.get(&id) {
            _ if self.snapshot.is_unmanaged(id) => HostState::Unmanaged,
            Some(prober) => prober.history.state(),
            None => HostState::Unknown,
        }
    }

    /// Every host of the topology: `GET /v1/hosts/activity`.
    pub fn report_hosts(&self) -> Vec<HostInfo> {
        let model = self.snapshot.model();
        let mut hosts: Vec<HostInfo> = model
            .hosts
            .values()
            .map(|host| {
                let address = host.zones.get(super::underlay::ZONE);
                self.report_host(host.id, address.map(ToString::to_string))
            })
            .collect();
        hosts.sort_by(|a, b| a.host.cmp(&b.host));
        hosts
    }

    fn report_host(&self, id: HostId, address: Option<String>) -> HostInfo {
        let host = self.host_name_of(id);
        if id == self.host {
            return HostInfo {
                host,
                address,
                state: HostState::Local,
                ..HostInfo::default()
            };
        }
        let path = self.peers.hosts.get(&id);
        let path = path.and_then(|remote| self.network.paths.get(&remote.address));
        let prober = self.probes.hosts.get(&id);
        let Some(prober) = prober.filter(|_| !self.snapshot.is_unmanaged(id)) else {
            return HostInfo {
                host,
                address,
                state: self.host_state(id),
                mtu: path.map(|path| path.mtu),
                ..HostInfo::default()
            };
        };
        let now = self.now_ms();
        let summary = prober.history.summary(now);
        let since_unix_secs = unix_of(now, prober.history.since_ms());
        let info = HostInfo {
            host,
            address,
            state: prober.history.state(),
            since_unix_secs: Some(since_unix_secs),
            probes: summary.probes,
            lost: summary.lost,
            loss_percent: summary.loss_percent(),
            rtt_min_us: summary.rtt_min_us,
            rtt_avg_us: summary.rtt_avg_us,
            rtt_last_us: summary.rtt_last_us,
            mtu: path.map(|path| path.mtu),
            mtu_carried: prober.mtu.works().map(u32::from),
            mtu_limit: prober.mtu.limit().map(u32::from),
            agent: prober.heard.as_ref().map(|heard| heard.report(now)),
            problem: None,
        };
        HostInfo {
            problem: self.problem_of(id, &info),
            ..info
        }
    }

    /// What is wrong with a host, in a sentence that doesn't change while it stays so.
    fn problem_of(&self, id: HostId, info: &HostInfo) -> Option<String> {
        let remote = self.peers.hosts.get(&id)?;
        let path = self.network.paths.get(&remote.address);
        let since = weft_api::time::utc(info.since_unix_secs?);
        let (host, address) = (&info.host, info.address.as_deref().unwrap_or("-"));
        match info.state {
            HostState::Down => {
                let trouble = self.underlay_trouble().into_iter().next();
                let why = match (path, &trouble) {
                    (Some(path), _) if path.next_hop_mac.is_some() => {
                        "its next hop answers, it does not"
                    }
                    (_, Some(trouble)) => trouble,
                    (None, None) => "there is no route to it",
                    (Some(_), None) => "its next hop doesn't answer",
                };
                Some(format!(
                    "host {host} ({address}) is down since {since}: {why}"
                ))
            }
            HostState::Degraded => match (info.mtu_limit, info.mtu) {
                (Some(limit), Some(mtu)) => Some(format!(
                    "host {host} ({address}): of packets up to {mtu} bytes only those up to {limit} come through"
                )),
                _ => Some(format!(
                    "host {host} ({address}) is degraded since {since}: tunnel probes get lost"
                )),
            },
            HostState::Local | HostState::Unknown | HostState::Unmanaged | HostState::Up => None,
        }
    }
}

impl Prober {
    fn hear(&mut self, now_ms: u64, payload: &ProbePayload) {
        let delay_ns = monotonic_ns().saturating_sub(u64::from_be_bytes(payload.received_ns));
        let received_unix_ms = unix_ms().saturating_sub(delay_ns / 1_000_000);
        let sent_unix_ms = u64::from_be_bytes(payload.sent_unix_ms);
        let offset = sent_unix_ms.wrapping_sub(received_unix_ms) as i64;
        let version: Vec<u8> = payload
            .version
            .into_iter()
            .take_while(|byte| byte.is_ascii_graphic())
            .collect();
        let mut offsets_ms = self
            .heard
            .take()
            .map_or_else(VecDeque::new, |it| it.offsets_ms);
        offsets_ms.truncate(CLOCKS - 1);
        offsets_ms.push_front(offset);
        self.heard = Some(Heard {
            at_ms: now_ms,
            version: String::from_utf8_lossy(&version).into_owned(),
            abi: u32::from(payload.abi),
            offsets_ms,
        });
    }
}

impl Heard {
    fn report(&self, now_ms: u64) -> AgentHeard {
        let offset = self.offsets_ms.iter().min_by_key(|it| it.unsigned_abs());
        AgentHeard {
            version: self.version.clone(),
            abi: self.abi,
            heard_secs_ago: now_ms.saturating_sub(self.at_ms) / 1000,
            clock_offset_ms: offset.copied().unwrap_or_default(),
        }
    }
}

/// Bytes of outer IP and GRE.
fn outer_len(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 20 + 8,
        IpAddr::V6(_) => 40 + 8,
    }
}

/// Outer source and payload of a probe as it came in.
fn parse<T: FromBytes>(frame: &[u8]) -> Option<(IpAddr, T)> {
    let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let sender = match ethertype {
        ETHERTYPE_IPV4 => IpAddr::from(<[u8; 4]>::try_from(frame.get(26..30)?).ok()?),
        ETHERTYPE_IPV6 => IpAddr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?),
        _ => return None,
    };
    let inner = ETHERNET_LEN + usize::from(outer_len(sender));
    let (payload, _) = T::read_from_prefix(frame.get(inner + ETHERNET_LEN..)?).ok()?;
    Some((sender, payload))
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Unix time, in seconds, of a moment of the engine's clock.
fn unix_of(now_ms: u64, at_ms: u64) -> u64 {
    unix_ms().saturating_sub(now_ms.saturating_sub(at_ms)) / 1000
}
