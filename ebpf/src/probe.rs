//! Tunnel probes (index 0 of the tunnel key): requests are answered here, whatever state the agent is in; both
//! kinds go up to it. `tunnel` has checked the sender. The answer takes the way that every packet to that host takes.

use crate::maps::{MISSES, PEERS};
use crate::packet::Packet;
use crate::tunnel::{Arrival, INNER_OFFSET, transmit, write_outer};
use crate::{SHOT, count};
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_perf_event_output};
use weft_common::DropReason;
use weft_common::event::{MissHeader, MissReason};
use weft_common::frame::ETHERNET_LEN;
use weft_common::peer::PEER_VALID;
use weft_common::probe::{
    ETHERTYPE_PROBE, PROBE_FORMAT, PROBE_MAGIC, PROBE_RECEIVED_OFFSET, PROBE_REPLY, PROBE_REQUEST,
    ProbePayload,
};

const PAYLOAD_OFFSET: usize = INNER_OFFSET + ETHERNET_LEN;
const PROBE_LEN: usize = PAYLOAD_OFFSET + size_of::<ProbePayload>();

/// Answers a request, hands up a reply, drops what is neither.
#[inline(always)]
pub fn receive(packet: &mut Packet, arrival: Arrival) -> i32 {
    packet.pull_headers(PROBE_LEN as u32);
    let kind = arrival.key.generation;
    let is_known = kind == PROBE_REQUEST || kind == PROBE_REPLY;
    if !is_known || !is_probe(packet) {
        return count::dropped(0, DropReason::BadProbe);
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let stamped = packet.write(PAYLOAD_OFFSET + PROBE_RECEIVED_OFFSET, now.to_be_bytes());
    if stamped.is_none() {
        return count::dropped(0, DropReason::BadProbe);
    }
    tell_agent(packet, kind);
    if kind == PROBE_REPLY {
        return SHOT;
    }
    answer(packet, arrival.peer)
}

#[inline(always)]
fn is_probe(packet: &Packet) -> bool {
    let Some([t0, t1, m0, m1, m2, m3, format]) = packet.read::<7>(PAYLOAD_OFFSET - 2) else {
        return false;
    };
    packet.length() >= PROBE_LEN as u32
        && u16::from_be_bytes([t0, t1]) == ETHERTYPE_PROBE
        && [m0, m1, m2, m3] == PROBE_MAGIC
        && format == PROBE_FORMAT
}

/// An agent that is away misses it: no packet of anybody is lost by that.
#[inline(always)]
fn tell_agent(packet: &Packet, kind: u8) {
    let mut header = MissHeader {
        reason: MissReason::Probe as u8,
        generation: kind,
        frame_length: packet.length(),
        captured_length: PROBE_LEN as u32,
        ..MissHeader::default()
    };
    // SAFETY: context and map are valid; header is initialised memory of the given size; the packet has at least
    // the bytes that the upper half of the flags asks for.
    unsafe {
        bpf_perf_event_output(
            packet.context(),
            core::ptr::addr_of!(MISSES).cast_mut().cast(),
            (PROBE_LEN as u64) << 32 | BPF_F_CURRENT_CPU,
            core::ptr::from_mut(&mut header).cast(),
            size_of::<MissHeader>() as u64,
        );
    }
}

/// Sends the request back under the reply's key, with an outer header of its own.
#[inline(always)]
fn answer(packet: &Packet, peer: u32) -> i32 {
    // Not `filter`: LLVM makes it an AND on a pointer, which the verifier refuses.
    let Some(peer) = PEERS.get(peer) else {
        return count::dropped(0, DropReason::PeerUnknown);
    };
    if peer.flags & PEER_VALID == 0 {
        return count::dropped(0, DropReason::PeerUnknown);
    }
    let length = (packet.length() - ETHERNET_LEN as u32) as u16;
    if write_outer(packet.skb(), peer, u32::from(PROBE_REPLY), length).is_none() {
        return count::dropped(0, DropReason::EncapFailed);
    }
    transmit(peer, true, 0)
}
