//! `POST /v1/ping`: sends the packet, watches this host's wires for it and its answer, and asks the receiver's host.

mod verdict;

use crate::engine::ping::{Mark, PingPlan};
use crate::engine::tracing_packets::TraceError;
use crate::engine::watches::{Question, Sight};
use crate::packet_thread::PacketThread;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use uuid::Uuid;
use verdict::{arrival, compare, refused};
use weft_api::{PingAnswer, PingRequest, PingResponse, PingTunnel};
use weft_common::TunnelKey;
use weft_common::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};
use weft_common::probe::{WATCH_BEGIN, WATCH_END};
use weft_datapath::kernel::{FrameWatch, SeenFrame};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(1);
/// How long another host's answer to a question is waited for.
const ANSWER_WAIT: Duration = Duration::from_millis(300);
/// How often a question is asked until it counts as unanswered.
const QUESTIONS: u8 = 3;
/// Numbers of questions before and after the packet is sent, and of the last one.
const BEFORE: u8 = 0;
const AFTER: u8 = 0x40;
const ENDING: u8 = 0x80;

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

/// Sends one packet and says what became of it. One that is lost, or whose arrival or answer can't be seen where XDP
/// or a veth's far end takes it, is followed by a second one, which is delivered so that it is seen.
///
/// # Errors
/// [`PingError`].
pub async fn ping(packets: &PacketThread, request: PingRequest) -> Result<PingResponse, PingError> {
    let first = ping_once(packets, &request, false).await?;
    let arrived = first.arrival.as_ref().and_then(|arrival| {
        let seen = arrival.seen?;
        Some(seen && arrival.answered)
    });
    let is_dropped_as_said = first.trace.reason.is_some() && first.agrees == Some(true);
    // An answer that was seen to set out has to come back yet.
    if first.answer.is_some() || arrived == Some(false) || is_dropped_as_said {
        return Ok(first);
    }
    let second = ping_once(packets, &request, true).await?;
    Ok(PingResponse {
        repeated: true,
        ..second
    })
}

async fn ping_once(
    packets: &PacketThread,
    request: &PingRequest,
    is_visible: bool,
) -> Result<PingResponse, PingError> {
    let token = Uuid::new_v4().as_u128() as u32;
    let (tenant, from) = (request.tenant.clone(), request.from.clone());
    let asked = request.clone();
    let (plan, before) = packets
        .ask(move |engine| {
            let before = engine.drops_at(asked.tenant.as_deref(), &asked.from);
            (engine.plan_ping(&asked, token), before)
        })
        .await
        .ok_or(PingError::Stopped)?;
    let plan = plan?;
    let (there, here) = plan.questions(is_visible);
    let begun = look(packets, there, WATCH_BEGIN, BEFORE).await;
    look(packets, here, WATCH_BEGIN, BEFORE).await;
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
    let (plan, sent, refusal) = packets
        .ask(move |engine| {
            let sent = Instant::now();
            let refusal = engine.send_ping(&plan);
            (plan, sent, refusal)
        })
        .await
        .ok_or(PingError::Stopped)?;
    let seen = watching.await.map_err(|_| PingError::Stopped)??;
    let refused = refusal.map(refused);
    // Who didn't say that it watches has nothing to tell.
    let sight = match begun {
        Some(_) => look(packets, there, 0, AFTER).await,
        None => None,
    };
    end_watch(packets, there).await;
    end_watch(packets, here).await;
    let after = packets
        .ask(move |engine| engine.drops_at(tenant.as_deref(), &from))
        .await
        .ok_or(PingError::Stopped)?;
    let grew = |(reason, packets): &(String, u64)| {
        let old = before.iter().find(|(it, _)| it == reason);
        *packets > old.map_or(0, |(_, packets)| *packets)
    };
    let dropped = after.into_iter().filter(grew).map(|(reason, _)| reason);
    let response = response(plan, seen, sight, dropped.collect(), sent);
    Ok(judged(PingResponse {
        refused,
        ..response
    }))
}

/// Asks what a port shows of the packet, again if need be; none when nobody answers. `number` differs from those of other
/// looks in more than its lowest bits.
async fn look(
    packets: &PacketThread,
    about: Option<Question>,
    flags: u8,
    number: u8,
) -> Option<Sight> {
    let about = about?;
    for attempt in 0..QUESTIONS {
        let question = Question {
            flags: about.flags | flags,
            number: number | attempt,
            ..about
        };
        let answered = packets
            .ask(move |engine| engine.ask_about(question))
            .await?;
        if let Ok(Ok(sight)) = tokio::time::timeout(ANSWER_WAIT, answered).await {
            return Some(sight);
        }
    }
    None
}

/// Says that nobody asks any more. If that gets lost, watches end by themselves.
async fn end_watch(packets: &PacketThread, about: Option<Question>) {
    let Some(about) = about else { return };
    let question = Question {
        flags: WATCH_END,
        number: ENDING,
        ..about
    };
    packets.ask(move |engine| engine.ask_about(question)).await;
}

fn response(
    plan: PingPlan,
    seen: Seen,
    sight: Option<Sight>,
    dropped: Vec<String>,
    sent: Instant,
) -> PingResponse {
    let tunnel = seen.tunnel.map(|(address, key)| PingTunnel {
        address: address.to_string(),
        key: TunnelKey::from_bits(key).to_string(),
    });
    let answer = seen.answer.map(|(what, at)| PingAnswer {
        what: what.to_owned(),
        rtt_us: at.saturating_duration_since(sent).as_micros() as u64,
    });
    let arrival = plan.target.as_ref().map(|target| arrival(target, sight));
    PingResponse {
        host: plan.host,
        packet: plan.text,
        mark: format!("{:08x}", plan.mark.token),
        trace: plan.trace,
        repeated: false,
        tunnel,
        dropped,
        refused: None,
        arrival,
        answer,
        agrees: None,
        differs: None,
    }
}

/// With what comes of the comparison. Nobody else can have seen a packet that never left.
fn judged(response: PingResponse) -> PingResponse {
    let (agrees, differs) = compare(&response);
    let has_left = response.trace.reason.is_none() || agrees != Some(true);
    PingResponse {
        agrees,
        differs,
        arrival: response.arrival.filter(|_| has_left),
        ..response
    }
}

impl Seen {
    fn take(&mut self, mark: &Mark, frame: &SeenFrame<'_>) {
        let (outer, inner) = unwrap_tunnel(frame.bytes);
        match is_of(mark, inner) {
            Some(None) if frame.is_outgoing => self.tunnel = self.tunnel.or(outer),
            Some(Some(what)) => {
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
    let number_at = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let Some(port) = mark.tcp_port else {
        let is_icmp = number == protocol::ICMP || number == protocol::ICMPV6;
        let is_marked = is_icmp && number_at(l4 + 4)? == mark.token;
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
    let own = mark.source_port();
    if is_there && ports == (own, port) && number_at(l4 + 4)? == mark.token {
        return Some(None);
    }
    let is_acknowledged = number_at(l4 + 8)? == mark.token.wrapping_add(1);
    let is_answer = is_back && ports == (port, own) && is_acknowledged;
    let is_reset = *frame.get(l4 + 13)? & 0x04 != 0;
    is_answer.then_some(Some(if is_reset {
        "reset: the port is closed"
    } else {
        "SYN-ACK: the port is open"
    }))
}
