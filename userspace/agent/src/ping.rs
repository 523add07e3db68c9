//! `POST /v1/ping`: sends the packet and watches this host's wires for it and its answer.

use crate::engine::ping::{Mark, PingPlan};
use crate::engine::tracing_packets::TraceError;
use crate::packet_thread::PacketThread;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use weft_api::{PingAnswer, PingRequest, PingResponse, PingTunnel};
use weft_common::TunnelKey;
use weft_common::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};
use weft_datapath::kernel::{FrameWatch, SeenFrame};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(1);

/// Why a ping can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// What was asked for.
    #[error(transparent)]
    Request(#[from] TraceError),
    /// The packet socket.
    #[error(transparent)]
    Watch(#[from] weft_datapath::Error),
    /// The packet thread is gone.
    #[error("the packet thread has stopped")]
    Stopped,
}

/// What was seen on the wires.
#[derive(Default)]
struct Seen {
    tunnel: Option<(IpAddr, u32)>,
    answer: Option<(&'static str, Instant)>,
}

/// Sends one packet and says what became of it.
///
/// # Errors
/// [`PingError`].
pub async fn ping(packets: &PacketThread, request: PingRequest) -> Result<PingResponse, PingError> {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH);
    let number = 0x8000 | millis.map_or(0, |it| it.as_millis() as u16);
    let (tenant, from) = (request.tenant.clone(), request.from.clone());
    let asked = request.clone();
    let (plan, before) = packets
        .ask(move |engine| {
            let before = engine.drops_at(asked.tenant.as_deref(), &asked.from);
            (engine.plan_ping(&asked, number), before)
        })
        .await
        .ok_or(PingError::Stopped)?;
    let plan = plan?;
    let mark = plan.mark;
    let watch = FrameWatch::open()?;
    let watching = tokio::task::spawn_blocking(move || {
        let mut seen = Seen::default();
        let watched = watch.watch(WAIT, |frame| {
            seen.take(&mark, &frame);
            seen.answer.is_some()
        });
        watched.map(|()| seen)
    });
    let (plan, sent) = packets
        .ask(move |engine| {
            let sent = Instant::now();
            engine.send_ping(&plan);
            (plan, sent)
        })
        .await
        .ok_or(PingError::Stopped)?;
    let seen = watching.await.map_err(|_| PingError::Stopped)??;
    let after = packets
        .ask(move |engine| engine.drops_at(tenant.as_deref(), &from))
        .await
        .ok_or(PingError::Stopped)?;
    let grew = |(reason, packets): &(String, u64)| {
        let old = before.iter().find(|(it, _)| it == reason);
        *packets > old.map_or(0, |(_, packets)| *packets)
    };
    let dropped = after.into_iter().filter(grew).map(|(reason, _)| reason);
    Ok(response(plan, seen, dropped.collect(), sent))
}

fn response(plan: PingPlan, seen: Seen, dropped: Vec<String>, sent: Instant) -> PingResponse {
    let tunnel = seen.tunnel.map(|(address, key)| PingTunnel {
        address: address.to_string(),
        key: TunnelKey::from_bits(key).to_string(),
    });
    let answer = seen.answer.map(|(what, at)| PingAnswer {
        what: what.to_owned(),
        rtt_us: at.saturating_duration_since(sent).as_micros() as u64,
    });
    let agrees = agrees(&plan, tunnel.as_ref(), answer.is_some(), &dropped);
    PingResponse {
        packet: plan.text,
        trace: plan.trace,
        tunnel,
        dropped,
        answer,
        agrees,
    }
}

/// Whether the packet did what the trace says; none when it can't be told.
fn agrees(
    plan: &PingPlan,
    tunnel: Option<&PingTunnel>,
    is_answered: bool,
    dropped: &[String],
) -> Option<bool> {
    let trace = &plan.trace;
    if let Some(reason) = &trace.reason {
        let is_so = dropped.contains(reason) && tunnel.is_none() && !is_answered;
        return Some(is_so);
    }
    let key = trace.egress.as_ref().and_then(|egress| egress.key.as_ref());
    match (tunnel, key) {
        (Some(tunnel), Some(key)) => Some(tunnel.key == *key),
        (Some(_), None) => Some(false),
        // Delivered on this host: only an answer shows it.
        (None, _) if is_answered => Some(true),
        (None, _) if !dropped.is_empty() => Some(false),
        (None, _) => None,
    }
}

impl Seen {
    fn take(&mut self, mark: &Mark, frame: &SeenFrame<'_>) {
        let (outer, inner) = unwrap_tunnel(frame.bytes);
        match is_of(mark, inner) {
            Some(None) if frame.is_outgoing => self.tunnel = self.tunnel.or(outer),
            Some(Some(what)) if !frame.is_outgoing => {
                self.answer = self.answer.or(Some((what, Instant::now())));
            }
            _ => {}
        }
    }
}

/// Outer destination and key of a tunnel packet, and the frame inside; or the frame itself.
fn unwrap_tunnel(frame: &[u8]) -> (Option<(IpAddr, u32)>, &[u8]) {
    let unwrapped = || {
        let (address, number, l4) = network(frame)?;
        let gre = frame.get(l4..l4 + 8)?;
        let is_ours = number == protocol::GRE && gre[..4] == [0x20, 0, 0x65, 0x58];
        let key = u32::from_be_bytes(gre[4..8].try_into().ok()?);
        is_ours.then(|| ((address.1, key), &frame[l4 + 8..]))
    };
    match unwrapped() {
        Some((outer, inner)) => (Some(outer), inner),
        None => (None, frame),
    }
}

/// Addresses, protocol and offset behind the network header of an untagged frame without options.
fn network(frame: &[u8]) -> Option<((IpAddr, IpAddr), u8, usize)> {
    let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let v4 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?,
        ))
    };
    let v6 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?,
        ))
    };
    match ethertype {
        ETHERTYPE_IPV4 if *frame.get(14)? == 0x45 => {
            Some(((v4(26)?, v4(30)?), *frame.get(23)?, 34))
        }
        ETHERTYPE_IPV6 => Some(((v6(22)?, v6(38)?), *frame.get(20)?, 54)),
        _ => None,
    }
}

/// Whether a frame is the ping (`Some(None)`) or its answer, with what that is.
fn is_of(mark: &Mark, frame: &[u8]) -> Option<Option<&'static str>> {
    let ((source, destination), number, l4) = network(frame)?;
    let is_there = (source, destination) == (mark.source, mark.destination);
    let is_back = (destination, source) == (mark.source, mark.destination);
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let Some(port) = mark.tcp_port else {
        let is_icmp = number == protocol::ICMP || number == protocol::ICMPV6;
        let is_marked = is_icmp && word(l4 + 4)? == mark.number;
        return match *frame.get(l4)? {
            8 | 128 if is_there && is_marked => Some(None),
            0 | 129 if is_back && is_marked => Some(Some("echo reply")),
            _ => None,
        };
    };
    let ports = (word(l4)?, word(l4 + 2)?);
    if number != protocol::TCP {
        return None;
    }
    if is_there && ports == (mark.number, port) {
        return Some(None);
    }
    let is_answer = is_back && ports == (port, mark.number);
    let is_reset = *frame.get(l4 + 13)? & 0x04 != 0;
    is_answer.then_some(Some(if is_reset {
        "reset: the port is closed"
    } else {
        "SYN-ACK: the port is open"
    }))
}
