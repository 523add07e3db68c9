//! The receiving end of a tunnel: recognising GRE with a key (RFC 2784, RFC 2890), and taking it off.

use crate::execute::deliver;
use crate::maps::{self, OWN_ADDRESSES, REMOTE_HOSTS};
use crate::packet::Packet;
use crate::{count, flood, probe};
use weft_common::ecn::{self, ECN_MASK};
use weft_common::frame::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, protocol,
};
use weft_common::port::PortKind;
use weft_common::tunnel::{ENCAP_LEN_V4, ENCAP_LEN_V6, KEY_MAX, Outer, STATE_RECORD, TunnelKey};
use weft_common::{DropReason, Network};

/// Inner bytes that are read to take over congestion marks: Ethernet with a tag, IPv4.
const INNER_HEADERS_LEN: usize = ETHERNET_LEN + 4 + 20;

/// A tunnel packet of ours.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// What it is for.
    pub key: TunnelKey,
    /// Underlay record of the host that sent it.
    pub peer: u32,
    /// TOS or traffic class of the outer header.
    pub tos: u8,
    /// The outer header is IPv6.
    pub is_ipv6: bool,
}

impl Arrival {
    /// Of no packet yet.
    pub const NONE: Arrival = Arrival {
        key: TunnelKey {
            index: 0,
            generation: 0,
        },
        peer: 0,
        tos: 0,
        is_ipv6: false,
    };

    /// Where the inner frame begins.
    #[inline(always)]
    pub fn inner_offset(&self) -> usize {
        if self.is_ipv6 {
            ENCAP_LEN_V6
        } else {
            ENCAP_LEN_V4
        }
    }
}

/// Whether a packet is GRE, or its first headers lie where they can't be read yet. Most of a host's own traffic is told
/// by this: a call of `recognise` would cost it more.
#[inline(always)]
pub fn may_be_ours(packet: &Packet) -> bool {
    let Some(bytes) = packet.read::<24>(0) else {
        return true;
    };
    let [
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        t0,
        t1,
        _,
        _,
        _,
        _,
        _,
        _,
        next,
        _,
        _,
        upper,
    ] = bytes;
    let ethertype = u16::from_be_bytes([t0, t1]);
    let number = if ethertype == ETHERTYPE_IPV4 {
        upper
    } else if ethertype == ETHERTYPE_IPV6 {
        next
    } else {
        return false;
    };
    number == protocol::GRE
}

/// What `recognise` says of a packet that isn't a tunnel packet of ours.
pub const NOT_OURS: u32 = 0;
/// What it says of one of ours. Other answers are the number of the `DropReason` of one that can't be accepted.
pub const OURS: u32 = 0x100;

/// Whether this is a tunnel packet of ours, from whom and for whom. A function of its own, as all that follows must fit
/// on the stack with what calls it.
#[inline(never)]
pub fn recognise(packet: &Packet, arrival: &mut Arrival) -> u32 {
    match look(packet) {
        Ok(Some(found)) => {
            *arrival = found;
            OURS
        }
        Ok(None) => NOT_OURS,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn look(packet: &Packet) -> Result<Option<Arrival>, DropReason> {
    packet.pull_headers((ENCAP_LEN_V6 + ETHERNET_LEN) as u32);
    let Some(outer) = Outer::parse(&packet.frame()) else {
        return Ok(None);
    };
    // SAFETY: the value isn't read.
    if unsafe { OWN_ADDRESSES.get(&outer.dst) }.is_none() {
        return Ok(None);
    }
    // SAFETY: a value that is replaced while it is read is 4 bytes, read at once.
    let Some(&peer) = (unsafe { REMOTE_HOSTS.get(&outer.src) }) else {
        return Err(DropReason::UnknownHost);
    };
    if outer.key > KEY_MAX {
        return Err(DropReason::WideTunnelKey);
    }
    if outer.key & STATE_RECORD != 0 {
        return Err(DropReason::StateRecord);
    }
    Ok(Some(Arrival {
        key: TunnelKey::from_bits(outer.key),
        peer,
        tos: outer.tos,
        is_ipv6: outer.inner_offset == ENCAP_LEN_V6,
    }))
}

/// Delivers a tunnel packet to what its key names.
#[inline(always)]
pub fn receive(packet: &mut Packet, arrival: Arrival) -> i32 {
    let target = arrival.key;
    if target.index == 0 {
        return probe::receive(packet, arrival);
    }
    let index = u32::from(target.index);
    let Some(record) = maps::port(index) else {
        return count::dropped(0, DropReason::UnknownTunnelKey);
    };
    if record.kind == PortKind::Free as u8 {
        return count::dropped(0, DropReason::UnknownTunnelKey);
    }
    if record.generation != target.generation {
        return count::dropped(index, DropReason::OldGeneration);
    }
    // Only ECT(1) and "congestion experienced", both odd, can change anything inside.
    if arrival.tos & 1 != 0 && !take_over_ecn(packet, arrival) {
        return count::dropped(index, DropReason::EcnNotCapable);
    }
    if !decapsulate(packet, arrival) {
        return count::dropped(index, DropReason::DecapFailed);
    }
    if record.kind == PortKind::FloodSet as u8 {
        return flood::expand(packet, record.flood_list, index);
    }
    deliver(packet, index, true)
}

/// Writes what routers noted in the outer header into the inner one (RFC 6040, 4.2). False for a packet whose
/// sender would not understand. All but IP passes, as there is nothing to write to.
#[inline(never)]
fn take_over_ecn(packet: &Packet, arrival: Arrival) -> bool {
    let inner = arrival.inner_offset();
    packet.pull_headers((inner + INNER_HEADERS_LEN) as u32);
    let Some(mut ethertype) = packet.number(inner + 12) else {
        return true;
    };
    let mut offset = inner + ETHERNET_LEN;
    if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
        let Some(behind) = packet.number(offset + 2) else {
            return true;
        };
        ethertype = behind;
        offset += 4;
    }
    let Some([first, second]) = packet.read::<2>(offset) else {
        return true;
    };
    let old = if ethertype == ETHERTYPE_IPV4 {
        second & ECN_MASK
    } else if ethertype == ETHERTYPE_IPV6 {
        (second >> 4) & ECN_MASK
    } else {
        return true;
    };
    let Some(new) = ecn::decapsulated(old, arrival.tos) else {
        return false;
    };
    if new == old {
        return true;
    }
    if ethertype == ETHERTYPE_IPV6 {
        return packet.store(offset + 1, [second & 0xcf | new << 4]);
    }
    let Some(checksum) = packet.number(offset + 10) else {
        return true;
    };
    // RFC 1624, equation 3, where only the low byte of the word changes.
    let sum = u32::from(!checksum)
        + u32::from(!u16::from_be_bytes([first, second]))
        + u32::from(u16::from_be_bytes([first, second & !ECN_MASK | new]));
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum + (sum >> 16)) as u16);
    packet.store(offset + 10, checksum.to_be_bytes())
        && packet.store(offset + 1, [second & !ECN_MASK | new])
}

/// Takes off the outer headers. Of the inner frame only what delivery asks for is noted: its network, and where
/// that begins.
#[inline(always)]
fn decapsulate(packet: &mut Packet, arrival: Arrival) -> bool {
    let Some(inner) = packet.read::<ETHERNET_LEN>(arrival.inner_offset()) else {
        return false;
    };
    if !packet.strip(arrival.inner_offset() as u32, inner) {
        return false;
    }
    let [.., t0, t1] = inner;
    let ethertype = u16::from_be_bytes([t0, t1]);
    let network = if ethertype == ETHERTYPE_IPV4 {
        Network::Ipv4
    } else if ethertype == ETHERTYPE_IPV6 {
        Network::Ipv6
    } else {
        Network::Other
    };
    packet.key.head.class = (network as u8) << 2;
    packet.headers.l3_offset = ETHERNET_LEN as u16;
    true
}
