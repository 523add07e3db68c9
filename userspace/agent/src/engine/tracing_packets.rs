//! `weft trace`: the decision on a packet that nobody sent, with every step of it, and what stands in the way
//! of a real one.

use super::Engine;
use weft_api::{HostState, TraceEgress, TraceRequest, TraceResponse, TraceStep};
use weft_common::slot::Output;
use weft_common::{DropReason, Slot, TunnelKey};
use weft_datapath::Datapath;
use weft_vnet::{
    Entry, NoTrace, Outcome, Packet, PortId, Step, Verdict, describe_match_on, frame_for,
    simulate_judged,
};

/// Why a trace can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The port can't be found.
    #[error("from: {0}")]
    Port(String),
    /// The packet isn't one.
    #[error("packet: {0}")]
    Packet(String),
    /// Neither form of packet, or both, was given.
    #[error("packet: expected either `packet` or `hex`")]
    Which,
}

impl<D: Datapath> Engine<D> {
    /// Decides the packet without sending or learning anything.
    ///
    /// # Errors
    /// [`TraceError`], naming the field of the request.
    pub fn trace(&self, request: &TraceRequest) -> Result<TraceResponse, TraceError> {
        let port = self.trace_port(request)?;
        let frame = match (&request.packet, &request.hex) {
            (Some(text), None) => frame_for(&self.snapshot, &self.state, port, text)
                .map_err(|error| TraceError::Packet(error.to_string()))?,
            (None, Some(hex)) => parse_hex(hex)?,
            _ => return Err(TraceError::Which),
        };
        let index = self
            .ports
            .bound
            .get(&port)
            .map_or(0, |bound| bound.key.index);
        let packet =
            Packet::parse(Entry::Workload(port), index, &frame, None).map_err(|reason| {
                TraceError::Packet(format!(
                    "{}: {}",
                    reason.name(),
                    reason.explanation().trim()
                ))
            })?;
        let mut steps: Vec<Step> = Vec::new();
        // The flow knows nothing of the ports' chains, which each port's host asks for every packet.
        let flow = self.decide(&packet, &mut NoTrace);
        let state = request.state;
        let outcome = simulate_judged(&self.snapshot, &self.state, &packet, state, &mut steps);
        let mut whole = packet.key;
        whole.head.mask_id = 0;
        let own = outcome.taken(&packet.key);
        let slot = self.slot_for(own);
        let (verdict, reason, cause) = self.verdict_in_words(own, &slot);
        let is_shut_out = matches!(
            outcome.verdict,
            Verdict::Drop { reason, .. } | Verdict::Refuse { reason, .. }
                if reason == DropReason::PolicyIngress
        );
        let has_flow = flow.install && !is_shut_out;
        let flow_slot = self.slot_for(flow.taken(&packet.key));
        let installed = self.slot_if_installed(&flow).filter(|_| has_flow);
        Ok(TraceResponse {
            frame: describe_match_on(&whole, &full_mask(), &self.snapshot, self.host),
            steps: steps
                .into_iter()
                .map(|step| TraceStep {
                    device: step.device,
                    text: step.text,
                })
                .collect(),
            verdict,
            reason,
            cause,
            matches: has_flow
                .then(|| describe_match_on(&packet.key, &flow.mask, &self.snapshot, self.host)),
            actions: has_flow.then(|| self.describe_slot(&flow_slot)),
            egress: self.egress(own),
            installed: self
                .table
                .find(&packet.key)
                .is_some_and(|flow| Some(flow.slot) == installed),
            problems: self.obstacles(port, own),
        })
    }

    /// The port that the packet starts at: one where a workload could be.
    fn trace_port(&self, request: &TraceRequest) -> Result<PortId, TraceError> {
        let model = self.snapshot.model();
        let port = model
            .find_port(request.tenant.as_deref(), &request.from)
            .map_err(|error| TraceError::Port(error.to_string()))?;
        let is_interior = model
            .ports
            .get(&port)
            .is_some_and(|port| port.is_interior());
        if is_interior {
            let text = format!(
                "{} is an interior port: no workload sends there",
                request.from
            );
            return Err(TraceError::Port(text));
        }
        Ok(port)
    }

    /// How it ends: where the decision sends the packet, or why that place can't be reached from here.
    fn verdict_in_words(
        &self,
        outcome: &Outcome,
        slot: &Slot,
    ) -> (String, Option<String>, Option<String>) {
        let is_lost = slot.output == Output::Drop as u8;
        let lost = DropReason::from_number(slot.drop_reason).filter(|_| is_lost);
        match &outcome.verdict {
            Verdict::Deliver(port) if let Some(reason) = lost => {
                let (name, path) = (reason.name(), self.path(*port));
                let text = format!(
                    "dropped on the way to {path}: {} ({name})",
                    reason.explanation().trim()
                );
                (text, Some(name.to_owned()), Some(format!("port {path}")))
            }
            Verdict::Deliver(port) => (format!("delivered to {}", self.path(*port)), None, None),
            Verdict::Flood { domain } => {
                let bridge = self.snapshot.model().bridge_name(*domain);
                (
                    format!("flooded to all ports of bridge {bridge}"),
                    None,
                    None,
                )
            }
            Verdict::Drop { reason, cause } | Verdict::Refuse { reason, cause } => {
                let cause = cause.map(|cause| cause.describe(&self.snapshot));
                let by = cause
                    .as_ref()
                    .map(|cause| format!(" by {cause}"))
                    .unwrap_or_default();
                let is_told = matches!(outcome.verdict, Verdict::Refuse { .. });
                let told = if is_told && !outcome.emit.is_empty() {
                    "; the sender is told"
                } else {
                    ""
                };
                let text = format!(
                    "dropped{by}: {} ({}){told}",
                    reason.explanation().trim(),
                    reason.name()
                );
                (text, Some(reason.name().to_owned()), cause)
            }
            Verdict::Select(_) | Verdict::Answered => {
                ("answered by the network itself".to_owned(), None, None)
            }
            Verdict::Wait {
                router_port,
                address,
            } => {
                let text = format!(
                    "waits at {} until {address} answers ARP",
                    self.path(*router_port)
                );
                (text, None, None)
            }
        }
    }

    fn egress(&self, outcome: &Outcome) -> Option<TraceEgress> {
        let Verdict::Deliver(port) = outcome.verdict else {
            return None;
        };
        let live = self.snapshot.activity(port);
        let bound = self
            .snapshot
            .port(port)
            .and_then(|port| port.binding.as_ref())
            .map(|binding| binding.host);
        Some(TraceEgress {
            port: self.path(port),
            host: live
                .map(|(host, _)| host)
                .or(bound)
                .map(|host| self.host_name_of(host)),
            key: live.map(|(_, bits)| TunnelKey::from_bits(bits).to_string()),
        })
    }

    /// What a real packet would meet that the decision doesn't know: ports that aren't live, hosts out of reach.
    fn obstacles(&self, from: PortId, outcome: &Outcome) -> Vec<String> {
        let mut obstacles = Vec::new();
        let from_binding = self
            .snapshot
            .port(from)
            .and_then(|port| port.binding.as_ref());
        match (self.snapshot.activity(from), from_binding) {
            (Some(_), _) => obstacles.extend(self.trouble_at(from)),
            (None, None) => {
                obstacles.push(format!("port {} isn't bound to a host", self.path(from)))
            }
            (None, Some(binding)) => obstacles.push(format!(
                "port {} isn't live: interface {} on host {} doesn't exist, or its weftd is away",
                self.path(from),
                binding.interface,
                self.host_name_of(binding.host)
            )),
        }
        let Verdict::Deliver(to) = outcome.verdict else {
            return obstacles;
        };
        let to_binding = self
            .snapshot
            .port(to)
            .and_then(|port| port.binding.as_ref());
        match (self.snapshot.activity(to), to_binding) {
            (Some((host, _)), _) if host != self.host => {
                let peer = self
                    .report_peers()
                    .into_iter()
                    .find(|peer| peer.host == self.host_name_of(host));
                match peer {
                    Some(peer) if peer.reach == HostState::Down => {
                        let hosts = self.report_hosts().into_iter();
                        obstacles.extend(
                            hosts
                                .filter(|it| it.host == peer.host)
                                .find_map(|it| it.problem),
                        );
                    }
                    Some(peer) if peer.state == "resolved" => {}
                    Some(peer) => obstacles.push(format!(
                        "host {} ({}) is {}",
                        peer.host, peer.address, peer.state
                    )),
                    None => obstacles.push(format!(
                        "host {} has no underlay address",
                        self.host_name_of(host)
                    )),
                }
            }
            (Some(_), _) => obstacles.extend(self.trouble_at(to)),
            (None, None) => obstacles.push(format!("port {} isn't bound to a host", self.path(to))),
            (None, Some(binding)) => obstacles.push(format!(
                "port {} isn't live: interface {} on host {} doesn't exist, or its weftd is away",
                self.path(to),
                binding.interface,
                self.host_name_of(binding.host)
            )),
        }
        obstacles
    }
}

impl<D: Datapath> Engine<D> {
    /// Why no frame passes a port of this host: "web1, the interface of port web/web-1, is down".
    pub(super) fn trouble_at(&self, port: PortId) -> Option<String> {
        let interface = &self.ports.bound.get(&port)?.interface;
        let trouble = self.network.links.get(interface)?.trouble()?;
        Some(format!(
            "{interface}, the interface of port {}, {trouble}",
            self.path(port)
        ))
    }
}

/// Every bit, so that a whole key is described.
fn full_mask() -> weft_common::FlowKey {
    let mut mask = weft_common::FlowKey::default();
    for byte in zerocopy::IntoBytes::as_mut_bytes(&mut mask) {
        *byte = 0xff;
    }
    mask.head.mask_id = 0;
    mask
}

fn parse_hex(text: &str) -> Result<Vec<u8>, TraceError> {
    let digits: Vec<char> = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .collect();
    if !digits.len().is_multiple_of(2) {
        return Err(TraceError::Packet(format!(
            "expected pairs of hex digits, found {} digits",
            digits.len()
        )));
    }
    let pair = |pair: &[char]| -> Result<u8, TraceError> {
        let text: String = pair.iter().collect();
        u8::from_str_radix(&text, 16)
            .map_err(|_| TraceError::Packet(format!("expected hex digits, found {text:?}")))
    };
    digits.chunks(2).map(pair).collect()
}
