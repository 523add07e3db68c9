//! What became of a ping, from what was seen of it: whether it arrived, and where it first left the way that `trace`
//! says.

use super::network;
use crate::engine::ping::{Refusal, Target};
use crate::engine::watches::Sight;
use weft_api::{PingArrival, PingRefusal, PingResponse};
use weft_common::frame::protocol;
use weft_common::probe::{
    SEEN_ANSWERED, SEEN_BUSY, SEEN_DELIVERED, SEEN_DOWN, SEEN_NO_PORT, SEEN_VISIBLY,
};

/// What the receiver's host says; none when it doesn't answer.
pub fn arrival(target: &Target, sight: Option<Sight>) -> PingArrival {
    let host = &target.host_name;
    let has = |flag| sight.is_some_and(|sight| sight.seen & flag != 0);
    let dropped = sight.and_then(|sight| sight.dropped);
    let (seen, why) = if target.is_unmanaged {
        (None, Some(format!("{host} has no weftd")))
    } else if sight.is_none() {
        (None, Some(format!("the weftd of {host} doesn't answer")))
    } else if has(SEEN_NO_PORT) {
        let why = format!("{host} has no live port with key {}", target.key);
        (Some(false), Some(why))
    } else if has(SEEN_ANSWERED) {
        (Some(true), None)
    } else if has(SEEN_BUSY) {
        (None, Some(format!("{host} can't watch for it now")))
    } else if has(SEEN_DOWN) && has(SEEN_VISIBLY | SEEN_DELIVERED) {
        let why = "its interface is down, or nobody is at its other end";
        (Some(false), Some(why.to_owned()))
    } else if has(SEEN_DELIVERED) {
        (Some(true), None)
    } else if has(SEEN_VISIBLY) {
        let why = dropped.map(|reason| format!("packets were dropped there: {}", reason.name()));
        (Some(false), why)
    } else {
        let why = "its delivery goes where it isn't seen".to_owned();
        (None, Some(why))
    };
    PingArrival {
        host: host.clone(),
        port: target.port.clone(),
        seen,
        answered: has(SEEN_ANSWERED),
        why,
    }
}

/// A refusal in words.
pub fn refused(refusal: Refusal) -> PingRefusal {
    PingRefusal {
        reason: refusal.reason.name().to_owned(),
        cause: refusal.cause,
        told: refusal.answer.and_then(|frame| told(&frame)),
    }
}

/// What an ICMP error or a TCP reset tells, and who does.
fn told(frame: &[u8]) -> Option<String> {
    let ((teller, _), number, l4) = network(frame)?;
    let (kind, code) = (*frame.get(l4)?, *frame.get(l4 + 1)?);
    let (name, what) = match number {
        protocol::ICMP => ("ICMP", icmp_word(kind, code)),
        protocol::ICMPV6 => ("ICMPv6", icmpv6_word(kind, code)),
        protocol::TCP => return Some(format!("reset (TCP) by {teller}")),
        _ => return None,
    };
    Some(format!(
        "{what} ({name} type {kind}, code {code}) by {teller}"
    ))
}

/// RFC 792 and RFC 1812, 5.2.7.
fn icmp_word(kind: u8, code: u8) -> &'static str {
    match (kind, code) {
        (3, 0) => "net unreachable",
        (3, 1) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "fragmentation needed",
        (3, 13) => "administratively prohibited",
        (11, _) => "time exceeded",
        _ => "error",
    }
}

/// RFC 4443, 3.
fn icmpv6_word(kind: u8, code: u8) -> &'static str {
    match (kind, code) {
        (1, 0) => "no route",
        (1, 1) => "administratively prohibited",
        (1, 3) => "address unreachable",
        (1, 4) => "port unreachable",
        (2, _) => "packet too big",
        (3, _) => "time exceeded",
        (4, 1) => "next header unknown",
        _ => "error",
    }
}

/// Whether the packet did what the trace says, none when it can't be told; and the first point where it didn't.
pub fn compare(ping: &PingResponse) -> (Option<bool>, Option<String>) {
    let differs = match first_difference(ping) {
        Ok(agrees) => return (agrees, None),
        Err(point) => point,
    };
    (Some(false), Some(differs))
}

/// Whether it is known to have done all that the trace says, or the point where it didn't.
fn first_difference(ping: &PingResponse) -> Result<Option<bool>, String> {
    let own = &ping.host;
    let has_arrived = ping.answer.is_some()
        || (ping.arrival.as_ref()).is_some_and(|arrival| arrival.seen == Some(true));
    let left = ping.tunnel.as_ref();
    let reasons = ping.dropped.join(", ");
    if let Some(reason) = &ping.trace.reason {
        return match left {
            Some(left) => Err(format!(
                "left {own} under key {}, which should have dropped it: {reason}",
                left.key
            )),
            None if has_arrived => Err(format!(
                "arrived, and {own} should have dropped it: {reason}"
            )),
            None if ping.dropped.contains(reason) => Ok(Some(true)),
            None if reasons.is_empty() => Err(format!("{own} counted no drop: {reason}")),
            None => Err(format!("{own} dropped it with another reason: {reasons}")),
        };
    }
    let egress = ping.trace.egress.as_ref();
    let key = egress.and_then(|egress| egress.key.as_ref());
    match left {
        Some(left) if Some(&left.key) != key => {
            let expected = key.map_or("none", String::as_str);
            return Err(format!("left {own} under key {}, not {expected}", left.key));
        }
        None if !has_arrived && !reasons.is_empty() => {
            return Err(format!("dropped on {own}: {reasons}"));
        }
        _ => {}
    }
    if has_arrived {
        return Ok(Some(true));
    }
    match &ping.arrival {
        Some(arrival) if arrival.seen == Some(false) => Err(lost(ping, arrival)),
        _ => Ok(None),
    }
}

/// Where a packet got lost that didn't arrive.
fn lost(ping: &PingResponse, arrival: &weft_api::PingArrival) -> String {
    let own = &ping.host;
    let is_local = arrival.host == *own;
    let before = match &ping.tunnel {
        Some(_) => format!("left {own}, "),
        None if is_local => String::new(),
        None => format!("wasn't seen to leave {own}, "),
    };
    let why = arrival.why.as_ref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!(
        "{before}never arrived at {} on {}{why}",
        arrival.port, arrival.host
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_common::DropReason;

    /// A frame from 10.0.1.1 or fd00::1 with this protocol, and these first bytes behind the IP header.
    fn frame(is_v6: bool, number: u8, l4: [u8; 2]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        let header_len = match is_v6 {
            true => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, number, 64, 0xfd]);
                frame.extend([0; 14]);
                frame.push(1);
                54
            }
            false => {
                frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, number, 0, 0]);
                frame.extend([10, 0, 1, 1]);
                34
            }
        };
        frame.resize(header_len, 0);
        frame.extend(l4);
        frame
    }

    #[test]
    fn a_refusal_says_why_and_what_was_told() {
        for (frame, told) in [
            (
                frame(false, 1, [3, 13]),
                "administratively prohibited (ICMP type 3, code 13) by 10.0.1.1",
            ),
            (
                frame(true, 58, [1, 1]),
                "administratively prohibited (ICMPv6 type 1, code 1) by fd00::1",
            ),
            (frame(false, 6, [0, 80]), "reset (TCP) by 10.0.1.1"),
        ] {
            let refusal = refused(Refusal {
                reason: DropReason::RejectRoute,
                cause: None,
                answer: Some(frame),
            });
            assert_eq!(refusal.reason, "reject_route");
            assert_eq!(refusal.told.as_deref(), Some(told));
        }
    }
}
