//! What the key holds of the upper layer: ports, or ICMP type, code and echo identifier.

use super::{Frame, UPPER_LEN_MAX, protocol};
use crate::drop::DropReason;
use crate::key::{FlowKey, Fragment};

const _: () = assert!(shortest(protocol::TCP) == UPPER_LEN_MAX);

/// Bytes of the shortest header of a protocol whose header is read (TCP: RFC 9293, SCTP: RFC 9260 3.1); 0 for others.
#[inline(always)]
const fn shortest(number: u8) -> usize {
    match number {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        _ => 0,
    }
}

/// Fills `key` from the header at `offset`, behind which the packet has `payload` bytes with it.
/// Protocols without ports leave zeros.
#[inline(always)]
pub fn extract<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    payload: usize,
    key: &mut FlowKey,
) -> Result<(), DropReason> {
    let number = key.head.protocol;
    let shortest = shortest(number);
    if shortest == 0 {
        return Ok(());
    }
    if payload < shortest {
        // Filters elsewhere let the rest pass unseen (RFC 1858, RFC 7112).
        return Err(if key.head.fragment() as u8 == Fragment::First as u8 {
            DropReason::TinyFragment
        } else {
            DropReason::Truncated
        });
    }
    let [a, b, c, d, e, f] = frame.bytes::<6>(offset).ok_or(DropReason::Truncated)?;
    key.head.l4_src = u16::from_be_bytes([a, b]);
    if number == protocol::ICMP || number == protocol::ICMPV6 {
        if is_echo(number, a) {
            key.head.l4_dst = u16::from_be_bytes([e, f]);
        }
    } else {
        key.head.l4_dst = u16::from_be_bytes([c, d]);
    }
    Ok(())
}

#[inline(always)]
fn is_echo(number: u8, icmp_type: u8) -> bool {
    if number == protocol::ICMP {
        icmp_type == 8 || icmp_type == 0
    } else {
        icmp_type == 128 || icmp_type == 129
    }
}
