//! What became of a ping, from what was seen of it: whether it arrived, and where it first left the way that `trace`
//! says.

use crate::engine::ping::Target;
use crate::engine::watches::Sight;
use weft_api::{PingArrival, PingResponse};
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
