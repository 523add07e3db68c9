//! Policy of a port: its chains, and the connections that they admitted.
//!
//! | hook | who asks | what comes of it |
//! |---|---|---|
//! | ingress | `from_port` | the packet's slot, from its connection or from the flows; a drop; a miss |
//! | egress | `execute::deliver`: local, out of a tunnel, from the agent | the packet passes or is dropped |
//! | egress | `flood`, for each local copy | the same, and no connection is made or changed |
//!
//! Rules of states (DESIGN 5): a connection is established at a hook when that hook's chain, or the opposite one of the
//! port, admitted its first packet under the policy's epoch. With an earlier epoch the first packet is judged again, as
//! new, where it was admitted. A hook that lets established packets pass by what all of them have in common isn't asked
//! again in that epoch.

use crate::connections::{self, Work, cached, count, find, is_expired};
use crate::packet::Packet;
use crate::{SHOT, acl, fragments, lookup, maps, miss};
use weft_common::acl::{ACCEPT, ESTABLISHED_PASSES, NO_RULE, READS_MORE, REJECT, State, UNBOUNDED};
use weft_common::connection::{
    BY_NETWORK, Connection, Entry, KeyTail, Phase, Segment, reopens, step,
};
use weft_common::event::MissReason;
use weft_common::frame::{Frame, IPV6_LEN, protocol};
use weft_common::key::CLASS_FRAGMENT;
use weft_common::policy::{Hook, Policy};
use weft_common::slot::{Slot, SlotRef};
use weft_common::{DropReason, FlowKey, Fragment, Network, PortRecord};

const INGRESS: u32 = Hook::Ingress as u32;
const EGRESS: u32 = Hook::Egress as u32;
/// Bytes of an ICMP error in front of the packet that it is about (RFC 792, RFC 4443).
const ICMP_ERROR_LEN: usize = 8;
/// Bytes of that packet's upper-layer header that are there at least.
const INNER_UPPER_LEN: usize = 8;
/// Where a TCP header has its length and its flags.
const TCP_LENGTH_AND_FLAGS: usize = 12;

/// What a packet of a workload goes to; none for one that ended here. Key, headers and fragment are filled.
#[inline(always)]
pub fn ingress(
    packet: &mut Packet,
    record: &PortRecord,
    policy: u64,
) -> Option<(&'static Slot, SlotRef)> {
    let work = connections::work()?;
    if passes_as_known(packet, work, policy, INGRESS)
        && work.target.slot != 0
        && let Some(slot) = maps::slot(work.target)
    {
        return Some((slot, work.target));
    }
    let slot = judged_slot(packet, record, policy, work)?;
    Some((slot, work.target))
}

/// The slot of a packet for which its connection has none.
#[inline(never)]
fn judged_slot(
    packet: &mut Packet,
    record: &PortRecord,
    policy: u64,
    work: &mut Work,
) -> Option<&'static Slot> {
    if work.is_done == 0 {
        judge(packet, work, policy, INGRESS);
    }
    if work.drop != 0 {
        refuse(packet, work);
        return None;
    }
    let Some(slot) = flow(packet, record, work) else {
        miss::send(packet, record, MissReason::NoFlow);
        return None;
    };
    // Pieces of packets would take the place of whole ones, and the other way round.
    if work.is_known != 0 && packet.key.head.class & CLASS_FRAGMENT == 0 {
        connections::keep(work, packet.key);
    }
    Some(slot)
}

/// The packet's flow; the reference to its slot goes into `work`.
#[inline(never)]
fn flow(packet: &Packet, record: &PortRecord, work: &mut Work) -> Option<&'static Slot> {
    let (slot, target) = lookup::find(packet, record)?;
    work.target = target;
    Some(slot)
}

/// Whether a packet may go to the workload of a port with this policy. The packet is as it will be delivered; its key
/// is made for that port.
#[inline(never)]
pub fn egress(packet: &mut Packet, port: u32, policy: u64) -> bool {
    let Some(work) = connections::work() else {
        return false;
    };
    let damage = packet.extract(port as u16);
    if damage != 0 {
        crate::count::dropped_number(port, damage);
        return false;
    }
    fragments::track(packet);
    if passes_as_known(packet, work, policy, EGRESS) {
        return true;
    }
    if work.is_done == 0 {
        judge(packet, work, policy, EGRESS);
    }
    if work.drop != 0 {
        refuse(packet, work);
        return false;
    }
    true
}

/// Counts a refused packet, or sends it up for an answer.
#[inline(always)]
fn refuse(packet: &Packet, work: &Work) -> i32 {
    let reason = work.drop as u8;
    if work.is_reject != 0 {
        return if reason == DropReason::PolicyEgress as u8 {
            miss::guard(packet, MissReason::RejectEgress, DropReason::PolicyEgress)
        } else {
            miss::guard(packet, MissReason::Reject, DropReason::PolicyIngress)
        };
    }
    crate::count::dropped_number(u32::from(packet.key.head.port), reason);
    SHOT
}

/// The way of nearly all packets: the connection is known, and nothing is to be asked. False where more is to be done:
/// `work` is filled for it, and `work.is_done` says that it isn't [`judge`].
///
/// Entries don't leave this function: a verifier walks through what follows once for each table that one may be of.
#[inline(never)]
fn passes_as_known(packet: &Packet, work: &mut Work, policy: u64, hook: u32) -> bool {
    work.drop = 0;
    work.is_reject = 0;
    work.is_done = 0;
    work.is_known = 0;
    work.target = SlotRef::default();
    classify(packet, work, hook);
    if work.is_tracked == 0 {
        return false;
    }
    let Some(entry) = find(work) else {
        return false;
    };
    let number = packet.key.head.protocol;
    // SAFETY: a checked pointer into a table.
    let connection = unsafe { &(*entry).connection };
    let is_reply = hook != u32::from(connection.flags & BY_NETWORK);
    let is_over = is_expired(connection, number, work.now)
        || (number == protocol::TCP
            && reopens(connection.phase, connection.flags, is_reply, work.segment));
    if is_over {
        connections::forget(work);
        return false;
    }
    work.is_known = 1;
    work.opened = connection.opened;
    work.opener = u32::from(connection.flags & BY_NETWORK);
    let [ingress, egress] = connection.passed;
    let passed = if hook == INGRESS { ingress } else { egress };
    let epoch = Policy::unpack(policy).epoch;
    if connection.opened != epoch || passed != epoch || epoch == 0 {
        return false;
    }
    go_on(packet, work, entry, hook);
    work.is_done = 1;
    work.drop == 0
}

/// Asks the chains what a known connection doesn't answer. `work.drop` says why the packet is dropped.
///
/// What is known before a lookup is kept in `work`, not in registers: the verifier walks through a lookup once for each
/// state that it can tell from the others.
#[inline(never)]
fn judge(packet: &mut Packet, work: &mut Work, policy: u64, hook: u32) -> u32 {
    let epoch = Policy::unpack(policy).epoch;
    work.acl_flags = 0;
    work.rule = NO_RULE.into();
    if work.is_known != 0 {
        if work.opened != epoch {
            judge_first_again(packet, work, policy, hook);
            if work.drop != 0 {
                return 0;
            }
        }
        work.acl_flags = flags_of(Policy::unpack(policy).acl(hook == EGRESS)).into();
        work.state = State::Established as u32;
    }
    if seen(&work.acl_flags) & u32::from(ESTABLISHED_PASSES) == 0 {
        let rule = ask(packet, work, policy, hook, seen(&work.state));
        if work.drop != 0 {
            return 0;
        }
        if work.is_known == 0 {
            work.rule = rule;
        }
    }
    if work.is_known == 0 {
        if work.is_tracked != 0 && work.state == State::New as u32 {
            open(packet, work, epoch, hook);
        }
        return 0;
    }
    // What isn't the same for all packets of this direction is asked for each.
    let flags = work.acl_flags as u16;
    let is_same_for_all = flags & READS_MORE == 0 || flags & ESTABLISHED_PASSES != 0;
    let passed = if is_same_for_all { epoch } else { 0 };
    stamp(packet, work, hook, Stamp { epoch, passed })
}

/// A number in this CPU's own memory, of which the verifier knows nothing.
#[inline(always)]
fn seen(number: &u32) -> u32 {
    // SAFETY: a reference.
    unsafe { core::ptr::from_ref(number).read_volatile() }
}

/// What the chains said of a known connection.
struct Stamp {
    /// Epoch under which its first packet is admitted.
    epoch: u32,
    /// Epoch under which its further packets pass the hook; 0: they are asked for.
    passed: u32,
}

/// Notes it, and takes the packet into the connection's state. The entry is looked up again: see `passes_as_known`.
#[inline(never)]
fn stamp(packet: &Packet, work: &mut Work, hook: u32, stamp: Stamp) -> u32 {
    let Some(entry) = find(work) else {
        // It went away meanwhile: this packet passes, the next one is judged as any without a connection.
        return 0;
    };
    // SAFETY: a checked pointer into a table.
    let connection = unsafe { &mut (*entry).connection };
    if connection.opened != stamp.epoch {
        connection.opened = stamp.epoch;
        connection.rule = work.rule as u16;
    }
    let [ingress, egress] = &mut connection.passed;
    let passed = if hook == INGRESS { ingress } else { egress };
    *passed = stamp.passed;
    go_on(packet, work, entry, hook);
    0
}

/// Makes the connection of an admitted first packet.
#[inline(always)]
fn open(packet: &Packet, work: &mut Work, epoch: u32, hook: u32) {
    if !connections::open(work, hook, epoch, packet.length()) {
        work.drop = DropReason::ConnectionTableFull as u32;
    }
}

/// Flags of an ACL; where there are no chains, all passes.
#[inline(always)]
fn flags_of(number: u32) -> u16 {
    if number == 0 {
        ESTABLISHED_PASSES
    } else {
        acl::flags(number)
    }
}

/// Takes an admitted packet into its connection's state.
#[inline(always)]
fn go_on(packet: &Packet, work: &mut Work, entry: *mut Entry, hook: u32) {
    // SAFETY: a checked pointer into a table.
    let connection = unsafe { &mut (*entry).connection };
    let (phase, flags) = (connection.phase, connection.flags);
    let number = packet.key.head.protocol;
    let next = step(number, phase, flags, hook as u8, work.segment);
    count(connection, hook, work.now, packet.length());
    if phase < Phase::Established as u8 && next.phase >= Phase::Established as u8 {
        // SAFETY: as above; a copy is taken.
        let entry = unsafe { &*entry };
        work.drop = connections::promote(work, entry, next.phase.into(), next.flags.into());
        return;
    }
    if next.phase != phase || next.flags != flags {
        connection.phase = next.phase;
        connection.flags = next.flags;
    }
    if hook == INGRESS {
        work.target = cached(entry, work, packet.key);
    }
}

/// The policy has changed since the connection's first packet was admitted: that one is judged again, as new, at the
/// hook that it came by. What isn't accepted any more stays known, and each of its packets is judged like this one: were it
/// forgotten, the next packet of the other side could open it from there.
#[inline(always)]
fn judge_first_again(packet: &mut Packet, work: &mut Work, policy: u64, hook: u32) {
    if work.opener != hook {
        mirror(packet.key);
    }
    work.rule = ask(packet, work, policy, seen(&work.opener), State::New as u32);
    if seen(&work.opener) != hook {
        mirror(packet.key);
    }
    if work.drop != 0 {
        // It isn't this packet's sender who would hear of a reject.
        work.is_reject = 0;
        connections::touch(work);
    }
}

/// Asks the chains of a hook. `work.drop` is the answer; the rule that decided is returned.
#[inline(always)]
fn ask(packet: &Packet, work: &mut Work, policy: u64, hook: u32, state: u32) -> u32 {
    let acl = Policy::unpack(policy).acl(hook == EGRESS);
    let verdict = acl::judge(packet, acl, state as u8);
    if verdict.decision != ACCEPT {
        work.drop = if verdict.decision == UNBOUNDED {
            DropReason::PolicyUnbounded as u32
        } else if hook == EGRESS {
            DropReason::PolicyEgress as u32
        } else {
            DropReason::PolicyIngress as u32
        };
        work.is_reject = u32::from(verdict.decision == REJECT);
    }
    u32::from(verdict.rule)
}

/// Turns a key into that of a packet the other way. Twice gives the first one.
#[inline(never)]
fn mirror(key: &mut FlowKey) -> u32 {
    core::mem::swap(&mut key.head.src_mac, &mut key.head.dst_mac);
    if key.head.network() as u8 == Network::Ipv6 as u8 {
        core::mem::swap(&mut key.src, &mut key.dst);
    } else {
        let [a, b, c, d, e, f, g, h, ..] = key.src;
        key.set_src_v4([e, f, g, h]);
        key.set_dst_v4([a, b, c, d]);
    }
    let number = key.head.protocol;
    if number == protocol::ICMP {
        // Echo request (8) and reply (0).
        key.head.l4_src ^= 8 << 8;
    } else if number == protocol::ICMPV6 {
        // 128 and 129.
        key.head.l4_src ^= 1 << 8;
    } else {
        core::mem::swap(&mut key.head.l4_src, &mut key.head.l4_dst);
    }
    0
}

/// Fills `work` from the packet: whether its kind is tracked, under which key, and its state where no entry is found.
#[inline(always)]
fn classify(packet: &Packet, work: &mut Work, hook: u32) -> u32 {
    let key = &*packet.key;
    let head = &key.head;
    let network = head.network() as u8;
    let is_v6 = network == Network::Ipv6 as u8;
    work.now = connections::now();
    work.is_tracked = 0;
    work.is_v6 = u32::from(is_v6);
    work.state = State::New as u32;
    work.segment = Segment(0);
    let is_ip = is_v6 || network == Network::Ipv4 as u8;
    if !is_ip || is_for_many(key, is_v6) {
        return 0;
    }
    let is_later = head.class & CLASS_FRAGMENT == Fragment::Later as u8;
    if is_later && packet.fragment.is_known == 0 {
        work.state = State::Invalid as u32;
        return 0;
    }
    let number = head.protocol;
    let mut tail = KeyTail {
        local_l4: 0,
        remote_l4: 0,
        port: head.port,
        protocol: number,
        role: 0,
    };
    if number == protocol::ICMP || number == protocol::ICMPV6 {
        let kind = icmp_kind(number == protocol::ICMPV6, (head.l4_src >> 8) as u8);
        if kind == Icmp::Error as u8 {
            work.state = related(packet, work, hook);
            return 0;
        }
        if kind == Icmp::Other as u8 {
            return 0;
        }
        let is_reply = kind == Icmp::Reply as u8;
        if is_reply {
            work.state = State::Invalid as u32;
        }
        tail.local_l4 = head.l4_dst;
        tail.remote_l4 = head.l4_dst;
        tail.role = u8::from(is_reply == (hook == INGRESS));
    } else if has_ports(number) {
        if number == protocol::UDP && is_dhcp(is_v6, head.l4_dst) {
            return 0;
        }
        if number == protocol::TCP {
            if !is_later {
                work.segment = segment(packet);
            }
            if !work.segment.may_open() {
                work.state = State::Invalid as u32;
            }
        }
        if hook == INGRESS {
            (tail.local_l4, tail.remote_l4) = (head.l4_src, head.l4_dst);
        } else {
            (tail.local_l4, tail.remote_l4) = (head.l4_dst, head.l4_src);
        }
    }
    work.is_tracked = 1;
    work.set_key(address_words(key), hook == INGRESS, tail);
    0
}

/// The words of a flow key from its addresses on.
#[inline(always)]
fn address_words(key: &FlowKey) -> [u64; 4] {
    let words: *const u64 = core::ptr::from_ref(key).cast();
    // SAFETY: a flow key is eight words without padding, the first three of which are its head.
    unsafe { [*words.add(3), *words.add(4), *words.add(5), *words.add(6)] }
}

/// Whether the receiver isn't one host: nobody answers such packets as a connection.
#[inline(always)]
fn is_for_many(key: &FlowKey, is_v6: bool) -> bool {
    let [group, ..] = key.head.dst_mac;
    let [_, _, _, _, first_v4, ..] = key.src;
    let [first_v6, ..] = key.dst;
    group & 1 != 0 || (is_v6 && first_v6 == 0xff) || (!is_v6 && first_v4 >= 224)
}

#[inline(always)]
const fn has_ports(number: u8) -> bool {
    number == protocol::TCP || number == protocol::UDP || number == protocol::SCTP
}

#[inline(always)]
const fn is_dhcp(is_v6: bool, to: u16) -> bool {
    let first = if is_v6 { 546 } else { 67 };
    to == first || to == first + 1
}

/// What an ICMP or ICMPv6 packet is.
#[repr(u8)]
enum Icmp {
    Other = 0,
    Request = 1,
    Reply = 2,
    Error = 3,
}

#[inline(always)]
const fn icmp_kind(is_v6: bool, number: u8) -> u8 {
    if is_v6 {
        match number {
            128 => Icmp::Request as u8,
            129 => Icmp::Reply as u8,
            1..=4 => Icmp::Error as u8,
            _ => Icmp::Other as u8,
        }
    } else {
        match number {
            8 => Icmp::Request as u8,
            0 => Icmp::Reply as u8,
            3 | 4 | 5 | 11 | 12 => Icmp::Error as u8,
            _ => Icmp::Other as u8,
        }
    }
}

/// Flags and payload of a TCP packet.
#[inline(always)]
fn segment(packet: &Packet) -> Segment {
    let at = packet.l4_offset();
    let Some([length, flags]) = packet.read::<2>(at + TCP_LENGTH_AND_FLAGS) else {
        return Segment(0);
    };
    let headers = at.saturating_sub(packet.l3_offset()) + usize::from(length >> 4) * 4;
    let payload = usize::from(packet.headers.l3_length).saturating_sub(headers);
    Segment::new(flags, payload)
}

/// State of an ICMP error: related when the packet that it is about belongs to a connection of this port, and it goes to
/// that packet's sender. Inner packets that are later fragments, or have IPv6 extension headers, are not looked for.
#[inline(never)]
fn related(packet: &Packet, work: &mut Work, hook: u32) -> u32 {
    if packet.headers.l4_offset == 0 {
        return State::Invalid as u32;
    }
    let inner = packet.l4_offset() + ICMP_ERROR_LEN;
    packet.pull_headers((inner + IPV6_LEN + INNER_UPPER_LEN) as u32);
    let about = if work.is_v6 == 0 {
        inner_v4(packet, inner)
    } else {
        inner_v6(packet, inner)
    };
    let Some(about) = about else {
        return State::Invalid as u32;
    };
    let [s0, s1, _, _] = about.addresses;
    let [outer, _, d0, d1] = address_words(packet.key);
    let is_to_sender = if work.is_v6 == 0 {
        (outer >> 32) as u32 == s0 as u32
    } else {
        (d0, d1) == (s0, s1)
    };
    let Some([a, b, c, d, e, f, ..]) = packet.read::<INNER_UPPER_LEN>(about.upper) else {
        return State::Invalid as u32;
    };
    // What the workload is told of, it sent; what it tells of was sent to it.
    let is_from_local = hook == EGRESS;
    let number = about.protocol;
    let mut tail = KeyTail {
        local_l4: 0,
        remote_l4: 0,
        port: packet.key.head.port,
        protocol: number,
        role: 0,
    };
    if number == protocol::ICMP || number == protocol::ICMPV6 {
        let kind = icmp_kind(number == protocol::ICMPV6, a);
        if kind != Icmp::Request as u8 && kind != Icmp::Reply as u8 {
            return State::Invalid as u32;
        }
        tail.local_l4 = u16::from_be_bytes([e, f]);
        tail.remote_l4 = tail.local_l4;
        tail.role = u8::from((kind == Icmp::Reply as u8) == is_from_local);
    } else if has_ports(number) {
        let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (tail.local_l4, tail.remote_l4) = if is_from_local {
            (from, to)
        } else {
            (to, from)
        };
    }
    work.set_key(about.addresses, is_from_local, tail);
    if !is_to_sender {
        return State::Invalid as u32;
    }
    let Some(entry) = find(work) else {
        return State::Invalid as u32;
    };
    // SAFETY: a checked pointer into a table.
    if is_expired(unsafe { &(*entry).connection }, number, work.now) {
        return State::Invalid as u32;
    }
    State::Related as u32
}

/// The packet that an ICMP error is about.
struct About {
    /// As `Work::set_key` takes them.
    addresses: [u64; 4],
    protocol: u8,
    /// Where its upper-layer header begins.
    upper: usize,
}

#[inline(always)]
fn inner_v4(packet: &Packet, inner: usize) -> Option<About> {
    let [version, _, _, _, _, _, f0, f1, _, protocol, ..] = packet.read::<12>(inner)?;
    let addresses = packet.read::<8>(inner + 12)?;
    let is_later = u16::from_be_bytes([f0, f1]) & 0x1fff != 0;
    if version >> 4 != 4 || is_later {
        return None;
    }
    let length = usize::from(version & 0x0f) * 4;
    Some(About {
        addresses: [u64::from_ne_bytes(addresses), 0, 0, 0],
        protocol,
        upper: packet.frame().blurred(inner + length),
    })
}

#[inline(always)]
fn inner_v6(packet: &Packet, inner: usize) -> Option<About> {
    let [version, _, _, _, _, _, protocol, _] = packet.read::<8>(inner)?;
    if version >> 4 != 6 {
        return None;
    }
    let word = |at: usize| packet.read::<8>(inner + at).map(u64::from_ne_bytes);
    Some(About {
        addresses: [word(8)?, word(16)?, word(24)?, word(32)?],
        protocol,
        upper: packet.frame().blurred(inner + IPV6_LEN),
    })
}

/// A packet is about to be flooded: its key has the MACs that it was given on its way.
#[inline(always)]
pub fn see_macs(packet: &mut Packet) {
    if let Some(macs) = packet.read::<12>(0) {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = macs;
        packet.key.head.dst_mac = [d0, d1, d2, d3, d4, d5];
        packet.key.head.src_mac = [s0, s1, s2, s3, s4, s5];
    }
}

/// Whether a copy of a flooded packet may go to the workload of a port: connections are looked at, none is made.
/// The packet's key is filled. The stack of the caller has no room for a function of its own.
#[inline(always)]
pub fn copy_passes(packet: &mut Packet, port: u32, policy: u64) -> bool {
    let Some(work) = connections::work() else {
        return false;
    };
    let zone = packet.key.head.port;
    packet.key.head.port = port as u16;
    work.drop = 0;
    classify(packet, work, EGRESS);
    let mut state = work.state;
    if work.is_tracked != 0 {
        if let Some(entry) = find(work) {
            // SAFETY: a checked pointer into a table.
            let connection: &Connection = unsafe { &(*entry).connection };
            let is_current = connection.opened == Policy::unpack(policy).epoch;
            if is_current && !is_expired(connection, packet.key.head.protocol, work.now) {
                state = State::Established as u32;
            }
        }
    }
    ask(packet, work, policy, EGRESS, state);
    packet.key.head.port = zone;
    if work.drop != 0 {
        crate::count::dropped_number(port, work.drop as u8);
        return false;
    }
    true
}
