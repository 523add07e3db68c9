//! Packets that wait for a next hop's MAC: bounded per next hop and in all, asked for a few times; then their senders
//! are told, and the next hop counts as unreachable for a while. When all have no room, the port that takes most of it
//! gives way: who sends to next hops that nobody has crowds out nobody else.

use super::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weft_common::DropReason;
use weft_common::limits::{WAITING_MAX, WAITING_PER_NEIGHBOUR_MAX};
use weft_datapath::{Datapath, HeldPacket};
use weft_vnet::{Entry, NoTrace, Outcome, Packet, PortId, Tag, Verdict, ask};

/// Requests for one next hop, about a second apart, before it counts as unreachable.
const REQUESTS_MAX: u32 = 3;

/// Seconds for which a next hop that didn't answer isn't asked for again: as long as it was asked for, so that a
/// sender hears of each of its packets within that time. Doubled each time that it doesn't answer again.
const UNREACHABLE_SECS: u64 = 3;
/// The longest such time: who comes up in silence is found that soon.
const UNREACHABLE_SECS_MAX: u64 = 12;

/// Packets of one next hop.
#[derive(Default)]
struct Queue {
    packets: Vec<Held>,
    requests: u32,
}

/// A next hop that didn't answer.
struct Unreachable {
    /// Second from which the next packet asks again.
    until: u64,
    /// For how long it counts as unreachable this time.
    secs: u64,
    /// Whether packets ask for it by now.
    is_over: bool,
}

/// A next hop: the router's port, and the address that is asked for there.
pub(super) type NextHop = (PortId, IpAddr);

/// A packet with the place where it entered; the index is 0 for one that the network made.
pub(super) struct Held {
    pub(super) entry: Entry,
    pub(super) index: u16,
    pub(super) packet: HeldPacket,
}

/// All packets that wait.
#[derive(Default)]
pub struct Waiting {
    queues: BTreeMap<NextHop, Queue>,
    /// In all queues.
    pub(super) packets: usize,
    /// The same by the port that they entered at; none for those of routers. None is 0.
    by_port: BTreeMap<Option<PortId>, usize>,
    /// Next hops that didn't answer, also for a while after they may be asked for again.
    unreachable: BTreeMap<NextHop, Unreachable>,
}

impl Waiting {
    /// Makes room for a packet of `port`. Returns the packet that gives way, or `Err` when that is the new one.
    fn make_room(
        &mut self,
        next_hop: &NextHop,
        port: Option<PortId>,
    ) -> Result<Option<Held>, DropReason> {
        let queued = self.queues.get(next_hop).map_or(0, |it| it.packets.len());
        if queued >= WAITING_PER_NEIGHBOUR_MAX {
            return Err(DropReason::WaitingFull);
        }
        if self.packets < WAITING_MAX {
            return Ok(None);
        }
        let own = self.by_port.get(&port).copied().unwrap_or(0);
        let most = self.by_port.iter().max_by_key(|(_, packets)| **packets);
        let Some(most) = most.filter(|(_, packets)| **packets > own + 1) else {
            return Err(DropReason::WaitingFull);
        };
        let most = *most.0;
        Ok(self.take_one_of(most))
    }

    /// Takes the newest packet of a port out of some queue, and the queue if it was the only one.
    fn take_one_of(&mut self, port: Option<PortId>) -> Option<Held> {
        let is_its = |held: &Held| held.entry.port() == port;
        let found = self.queues.iter().find_map(|(next_hop, queue)| {
            let place = queue.packets.iter().rposition(is_its)?;
            Some((*next_hop, place))
        });
        let (next_hop, place) = found?;
        let queue = self.queues.get_mut(&next_hop)?;
        let held = queue.packets.remove(place);
        if queue.packets.is_empty() {
            self.queues.remove(&next_hop);
        }
        self.forget(port);
        Some(held)
    }

    fn add(&mut self, next_hop: NextHop, held: Held) {
        self.packets += 1;
        *self.by_port.entry(held.entry.port()).or_default() += 1;
        self.queues.entry(next_hop).or_default().packets.push(held);
    }

    /// A packet of this port is out.
    fn forget(&mut self, port: Option<PortId>) {
        self.packets -= 1;
        if let Some(packets) = self.by_port.get_mut(&port) {
            *packets -= 1;
            if *packets == 0 {
                self.by_port.remove(&port);
            }
        }
    }

    /// Whether no next hop is remembered for not answering.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        self.unreachable.is_empty()
    }

    /// Takes the packets out; the queue stays, with the requests that were made.
    fn take(&mut self, next_hop: &NextHop) -> Vec<Held> {
        let queue = self.queues.get_mut(next_hop);
        let packets = queue.map_or_else(Vec::new, |queue| std::mem::take(&mut queue.packets));
        for held in &packets {
            self.forget(held.entry.port());
        }
        packets
    }
}

impl<D: Datapath> Engine<D> {
    /// Keeps a packet until its next hop is known. The first one asks for it, those behind it wait with it: as
    /// many packets as there are, there is one request a second.
    pub(super) fn wait(&mut self, next_hop: NextHop, held: Held) {
        let port = held.entry.port();
        match self.waiting.make_room(&next_hop, port) {
            Ok(None) => {}
            Ok(Some(other)) => self.count_drop(other.entry.port(), DropReason::WaitingFull),
            Err(reason) => return self.count_drop(port, reason),
        }
        let is_first = !self.waiting.queues.contains_key(&next_hop);
        self.waiting.add(next_hop, held);
        if is_first {
            self.ask(next_hop);
        }
    }

    /// Asks for a next hop for which no packet waits yet.
    pub(super) fn expect(&mut self, next_hop: NextHop) {
        let queues = &mut self.waiting.queues;
        if queues.len() < WAITING_MAX && !queues.contains_key(&next_hop) {
            queues.insert(next_hop, Queue::default());
            self.ask(next_hop);
        }
    }

    fn ask(&mut self, (router_port, address): NextHop) {
        let request = ask(&self.snapshot, router_port, address);
        self.emit_all(request.as_slice(), 0);
    }

    /// Asks again, and gives up what was asked for often enough.
    pub(super) fn retry_waiting(&mut self, now: u64) {
        let keys: Vec<NextHop> = self.waiting.queues.keys().copied().collect();
        for key in keys {
            let Some(queue) = self.waiting.queues.get_mut(&key) else {
                continue;
            };
            queue.requests += 1;
            if queue.requests < REQUESTS_MAX {
                self.ask(key);
                continue;
            }
            self.give_up(key, now);
        }
        self.ask_again_for_unreachable(now);
    }

    /// The next hop doesn't answer: the senders of the packets that waited are told, and so are those of the next
    /// ones for a while.
    fn give_up(&mut self, key: NextHop, now: u64) {
        let packets = self.waiting.take(&key);
        self.waiting.queues.remove(&key);
        let Some(tag) = self.state.set_unreachable(key.0, key.1) else {
            for held in packets {
                self.count_drop(held.entry.port(), DropReason::NextHopUnresolved);
            }
            return;
        };
        let earlier = self.waiting.unreachable.get(&key);
        let secs = earlier.map_or(UNREACHABLE_SECS, |it| {
            (2 * it.secs).min(UNREACHABLE_SECS_MAX)
        });
        let unreachable = Unreachable {
            until: now + secs,
            secs,
            is_over: false,
        };
        self.waiting.unreachable.insert(key, unreachable);
        self.redecide(&[tag].into());
        for held in packets {
            self.send_waiting(held);
        }
    }

    /// Where the time is over the next packet asks again. What answered meanwhile, or nobody asked for in as long a
    /// time again, starts anew.
    fn ask_again_for_unreachable(&mut self, now: u64) {
        self.ask_for_spared(now);
        let (state, queues) = (&mut self.state, &self.waiting.queues);
        let mut dirty = BTreeSet::new();
        self.waiting.unreachable.retain(|next_hop, it| {
            let (port, address) = *next_hop;
            if now >= it.until && !it.is_over {
                it.is_over = true;
                dirty.extend(state.ask_again(port, address));
            }
            let is_known = state.neighbour(port, address).is_some();
            let is_forgotten = now >= it.until + it.secs && !queues.contains_key(next_hop);
            !is_known && !is_forgotten
        });
        self.redecide(&dirty);
    }

    /// Next hops in whose stead others forward are asked for without a packet, and get none until they answer.
    fn ask_for_spared(&mut self, now: u64) {
        let all = self.waiting.unreachable.iter();
        let due: Vec<NextHop> = all
            .filter(|(_, it)| now >= it.until && !it.is_over)
            .map(|(next_hop, _)| *next_hop)
            .collect();
        for next_hop in due {
            if !self.others_forward(&Tag::Neighbour(next_hop.0, next_hop.1)) {
                continue;
            }
            if let Some(it) = self.waiting.unreachable.get_mut(&next_hop) {
                it.until = now + it.secs;
            }
            self.ask(next_hop);
        }
    }

    /// Decides again on packets whose next hop may be known now.
    pub(super) fn wake_waiting(&mut self, dirty: &BTreeSet<Tag>) {
        let all = dirty
            .iter()
            .any(|tag| !matches!(tag, Tag::Neighbour(..) | Tag::Mac(..)));
        let is_woken =
            |(port, address): &NextHop| all || dirty.contains(&Tag::Neighbour(*port, *address));
        let keys: Vec<NextHop> = self
            .waiting
            .queues
            .keys()
            .filter(|key| is_woken(key))
            .copied()
            .collect();
        for key in keys {
            for held in self.waiting.take(&key) {
                self.send_waiting(held);
            }
            let queues = &mut self.waiting.queues;
            if queues.get(&key).is_some_and(|it| it.packets.is_empty()) {
                queues.remove(&key);
            }
        }
    }

    fn send_waiting(&mut self, held: Held) {
        let Held {
            entry,
            index,
            packet: held,
        } = held;
        let port = entry.port();
        let packet = match Packet::parse(entry, index, &held.frame, held.vlan_tci) {
            Ok(packet) => packet.after(&held.fragment),
            Err(reason) => return self.count_drop(port, reason),
        };
        let outcome = self.decide(&packet, &mut NoTrace);
        let own = outcome.taken(&packet.key);
        if let Some(next_hop) = awaited(own) {
            return self.wait(
                next_hop,
                Held {
                    entry,
                    index,
                    packet: held,
                },
            );
        }
        if let Verdict::Refuse { reason, .. } = own.verdict {
            return self.refuse(entry, reason, &outcome.emit);
        }
        self.emit_all(&outcome.emit, 0);
        if let Some(mtu) = self.exceeded_mtu(own, &held) {
            return self.send_too_big(entry, own, index, &held, mtu);
        }
        if own.verdict != Verdict::Answered {
            // The flow is installed by the next packet, in order behind these.
            self.send_once(own, index, &held, port);
        }
    }
}

/// The next hop for which a packet has to wait.
pub(super) fn awaited(outcome: &Outcome) -> Option<NextHop> {
    match outcome.verdict {
        Verdict::Wait {
            router_port,
            address,
        } => Some((router_port, address)),
        _ => None,
    }
}
