//! Packets that wait for a next hop's MAC: bounded per next hop and in all, asked for a few times, then dropped.

use super::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use weft_common::DropReason;
use weft_common::limits::{WAITING_MAX, WAITING_PER_NEIGHBOUR_MAX};
use weft_datapath::{Datapath, HeldPacket};
use weft_vnet::{Entry, NoTrace, Packet, PortId, Tag, Verdict, arp_request, simulate};

/// Requests for one next hop, about a second apart, before its packets are dropped.
const REQUESTS_MAX: u32 = 3;

/// Packets of one next hop.
#[derive(Default)]
struct Queue {
    packets: Vec<Held>,
    requests: u32,
}

/// A packet with the place where it entered; the index is 0 for one that the network made.
struct Held {
    entry: Entry,
    index: u16,
    packet: HeldPacket,
}

/// All packets that wait.
#[derive(Default)]
pub struct Waiting {
    queues: BTreeMap<(PortId, Ipv4Addr), Queue>,
    packets: usize,
}

impl Waiting {
    fn take(&mut self, key: &(PortId, Ipv4Addr)) -> Vec<Held> {
        let queue = self.queues.remove(key).unwrap_or_default();
        self.packets -= queue.packets.len();
        queue.packets
    }
}

impl<D: Datapath> Engine<D> {
    /// Keeps a packet until its next hop is known. The first one's simulation asked for it already.
    pub(super) fn wait(
        &mut self,
        router_port: PortId,
        address: Ipv4Addr,
        entry: Entry,
        index: u16,
        packet: HeldPacket,
    ) {
        let is_full = self.waiting.packets >= WAITING_MAX;
        let queue = self
            .waiting
            .queues
            .entry((router_port, address))
            .or_default();
        if is_full || queue.packets.len() >= WAITING_PER_NEIGHBOUR_MAX {
            return self.count_drop(Some(port_of(entry)), DropReason::WaitingFull);
        }
        queue.packets.push(Held {
            entry,
            index,
            packet,
        });
        self.waiting.packets += 1;
    }

    /// Asks again, and gives up what was asked for often enough.
    pub(super) fn retry_waiting(&mut self) {
        let keys: Vec<(PortId, Ipv4Addr)> = self.waiting.queues.keys().copied().collect();
        for key in keys {
            let Some(queue) = self.waiting.queues.get_mut(&key) else {
                continue;
            };
            queue.requests += 1;
            if queue.requests < REQUESTS_MAX {
                let request = arp_request(&self.snapshot, key.0, key.1);
                self.emit_all(request.as_slice(), 0);
                continue;
            }
            for held in self.waiting.take(&key) {
                self.count_drop(Some(port_of(held.entry)), DropReason::NextHopUnresolved);
            }
        }
    }

    /// Decides again on packets whose next hop may be known now.
    pub(super) fn wake_waiting(&mut self, dirty: &BTreeSet<Tag>) {
        let all = dirty
            .iter()
            .any(|tag| !matches!(tag, Tag::Neighbour(..) | Tag::Mac(..)));
        let is_woken = |(port, address): &(PortId, Ipv4Addr)| {
            all || dirty.contains(&Tag::Neighbour(*port, *address))
        };
        let keys: Vec<(PortId, Ipv4Addr)> = self
            .waiting
            .queues
            .keys()
            .filter(|key| is_woken(key))
            .copied()
            .collect();
        for key in keys {
            let requests = self
                .waiting
                .queues
                .get(&key)
                .map_or(0, |queue| queue.requests);
            for held in self.waiting.take(&key) {
                self.send_waiting(held);
            }
            if let Some(queue) = self.waiting.queues.get_mut(&key) {
                queue.requests = requests;
            }
        }
    }

    fn send_waiting(&mut self, held: Held) {
        let Held {
            entry,
            index,
            packet: held,
        } = held;
        let port = Some(port_of(entry));
        let packet = match Packet::parse(entry, index, &held.frame, held.vlan_tci) {
            Ok(packet) => packet,
            Err(reason) => return self.count_drop(port, reason),
        };
        let outcome = simulate(
            &self.snapshot,
            &self.state,
            &packet,
            self.now_ms(),
            &mut NoTrace,
        );
        match outcome.verdict {
            Verdict::Answered => {}
            Verdict::Wait {
                router_port,
                address,
            } => self.wait(router_port, address, entry, index, held),
            // The flow is installed by the next packet, in order behind these.
            _ => self.send_once(&outcome, index, &held, port),
        }
    }
}

/// The port where a packet entered.
fn port_of(entry: Entry) -> PortId {
    match entry {
        Entry::Workload(port) | Entry::Device(port) => port,
    }
}
