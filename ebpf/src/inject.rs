//! Packets from the agent: each names the slot that is to be executed.

use crate::packet::Packet;
use crate::{count, execute, fragments, maps};
use weft_common::DropReason;
use weft_common::event::{INJECT_MADE, InjectPrefix};
use weft_common::frame::ETHERNET_LEN;
use weft_common::slot::SlotRef;

const PREFIX_LEN: usize = size_of::<InjectPrefix>();

/// Takes off the prefix and executes its slot: no ingress policy, no lookup, never a second miss.
#[inline(always)]
pub fn run(packet: &mut Packet) -> i32 {
    packet.pull_headers((PREFIX_LEN + ETHERNET_LEN) as u32);
    let Some(prefix) = packet.read::<PREFIX_LEN>(0) else {
        return count::dropped(0, DropReason::Truncated);
    };
    let [s0, s1, s2, s3, g0, g1, g2, g3, p0, p1, flags, ..] = prefix;
    let target = SlotRef {
        slot: u32::from_ne_bytes([s0, s1, s2, s3]),
        generation: u32::from_ne_bytes([g0, g1, g2, g3]),
    };
    let port = u16::from_ne_bytes([p0, p1]);
    let Some(slot) = maps::slot(target) else {
        return count::dropped(u32::from(port), DropReason::InjectStale);
    };
    let Some(ethernet) = packet.read::<ETHERNET_LEN>(PREFIX_LEN) else {
        return count::dropped(u32::from(port), DropReason::Truncated);
    };
    if !packet.strip(PREFIX_LEN as u32, ethernet) {
        return count::dropped(u32::from(port), DropReason::DecapFailed);
    }
    let damage = packet.extract(port);
    if damage != 0 {
        return count::dropped_number(u32::from(port), damage);
    }
    fragments::track(packet);
    let origin = if port == 0 || flags & INJECT_MADE != 0 {
        execute::Origin::Network
    } else {
        execute::Origin::Held
    };
    execute::run(packet, slot, target, origin)
}
