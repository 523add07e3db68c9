//! Tunnel probes (index 0 of the tunnel key): requests are answered here, whatever state the agent is in; all
//! kinds go up to it. `tunnel` has checked the sender. The answer takes the way that every packet to that host takes.

use crate::encap::{Varying, transmit, write_outer};
use crate::maps::{self, MISSES};
use crate::packet::Packet;
use crate::tunnel::Arrival;
use crate::{SHOT, count};
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_perf_event_output};
use weft_common::DropReason;
use weft_common::event::{MissHeader, MissReason};
use weft_common::frame::ETHERNET_LEN;
use weft_common::peer::PEER_IPV6;
use weft_common::probe::{
    ETHERTYPE_PROBE, PROBE_FORMAT, PROBE_MAGIC, PROBE_RECEIVED_OFFSET, PROBE_REPLY, PROBE_REQUEST,
    PROBE_SEEN, ProbePayload,
};
use weft_common::tunnel::GRE_LEN;

const PAYLOAD_LEN: usize = size_of::<ProbePayload>();

/// Answers a request, hands it up as all other kinds, drops what is none of them.
#[inline(never)]
pub fn receive(packet: &mut Packet, arrival: Arrival) -> i32 {
    let offset = arrival.inner_offset() + ETHERNET_LEN;
    packet.pull_headers((offset + PAYLOAD_LEN) as u32);
    let kind = arrival.key.generation;
    // The kinds are numbered in a row.
    let is_known = (PROBE_REQUEST..=PROBE_SEEN).contains(&kind);
    if !is_known || !is_probe(packet, offset) {
        return count::dropped(0, DropReason::BadProbe);
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let stamped = packet.write(offset + PROBE_RECEIVED_OFFSET, now.to_be_bytes());
    if stamped.is_none() {
        return count::dropped(0, DropReason::BadProbe);
    }
    tell_agent(packet, kind, (offset + PAYLOAD_LEN) as u32);
    if kind != PROBE_REQUEST {
        return SHOT;
    }
    answer(packet, arrival)
}

#[inline(always)]
fn is_probe(packet: &Packet, offset: usize) -> bool {
    let Some([t0, t1, m0, m1, m2, m3, format]) = packet.read::<7>(offset - 2) else {
        return false;
    };
    packet.length() as usize >= offset + PAYLOAD_LEN
        && u16::from_be_bytes([t0, t1]) == ETHERTYPE_PROBE
        && [m0, m1, m2, m3] == PROBE_MAGIC
        && format == PROBE_FORMAT
}

/// An agent that is away misses it: no packet of anybody is lost by that.
#[inline(always)]
fn tell_agent(packet: &Packet, kind: u8, length: u32) {
    let mut header = MissHeader {
        reason: MissReason::Probe as u8,
        generation: kind,
        frame_length: packet.length(),
        captured_length: length,
        ..MissHeader::default()
    };
    // SAFETY: context and map are valid; header is initialised memory of the given size; the packet has at least
    // the bytes that the upper half of the flags asks for.
    unsafe {
        bpf_perf_event_output(
            packet.context(),
            core::ptr::addr_of!(MISSES).cast_mut().cast(),
            u64::from(length) << 32 | BPF_F_CURRENT_CPU,
            core::ptr::from_mut(&mut header).cast(),
            size_of::<MissHeader>() as u64,
        );
    }
}

/// Sends the request back under the reply's key, with an outer header of its own.
#[inline(always)]
fn answer(packet: &Packet, arrival: Arrival) -> i32 {
    let Some(peer) = maps::peer(arrival.peer) else {
        return count::dropped(0, DropReason::PeerUnknown);
    };
    // A record of the other family has no room here: this host's own address has just changed.
    if (peer.flags & PEER_IPV6 != 0) != arrival.is_ipv6 {
        return count::dropped(0, DropReason::PeerUnknown);
    }
    let varying = Varying {
        key: u32::from(PROBE_REPLY),
        length: packet.length() - (arrival.inner_offset() - GRE_LEN) as u32,
        ..Varying::NONE
    };
    if write_outer(packet.skb(), peer, varying).is_none() {
        return count::dropped(0, DropReason::EncapFailed);
    }
    transmit(peer, true, 0)
}
