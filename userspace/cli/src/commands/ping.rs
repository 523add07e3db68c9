//! `ping`: a real packet beside what `trace` says of it.

use anyhow::{Result, bail};
use owo_colors::AnsiColors;
use weft_api::agent::{PingArrival, PingRefusal, PingRequest, PingResponse};

use super::Session;
use crate::Done;

/// Sends one packet from a port to another.
pub async fn ping(session: &Session, from: &str, to: &str, what: Option<&str>) -> Result<Done> {
    let request = PingRequest {
        tenant: session.tenant.clone(),
        from: from.to_owned(),
        to: to.to_owned(),
        tcp_port: what.map(tcp_port).transpose()?,
    };
    let answer = session.client.ping(&request).await?;
    session.output.show(&answer, || screen(session, &answer))?;
    let is_fine = answer.answer.is_some() && answer.agrees == Some(true);
    Ok(if is_fine { Done::Well } else { Done::Failed })
}

/// The port of "tcp/80"; none for "icmp".
fn tcp_port(what: &str) -> Result<u16> {
    let port = what.strip_prefix("tcp/").and_then(|port| port.parse().ok());
    match port {
        Some(port) if port > 0 => Ok(port),
        _ => bail!("expected tcp/PORT, like tcp/80, found `{what}`"),
    }
}

/// What was sent, what trace says, and what each host saw, in the packet's order.
fn screen(session: &Session, ping: &PingResponse) -> String {
    let mut text = format!("sent      {}, mark {}\n", ping.packet, ping.mark);
    text += &format!("path      {}\n", path(ping));
    text += &format!("trace     {}\n", says(ping));
    text += &format!("{:<9} {}\n", ping.host, left(ping));
    if let Some(arrival) = &ping.arrival {
        text += &format!("{:<9} {}\n", arrival.host, arrived(arrival));
    }
    text += &format!("answer    {}\n", answered(ping));
    if ping.repeated {
        text +=
            "note      this was a second packet, delivered the slow way, where all of it is seen\n";
    }
    for problem in &ping.trace.problems {
        text += &format!("note      {problem}\n");
    }
    let (word, colour) = match (ping.agrees, &ping.differs) {
        (Some(true), _) => (
            "the packet did what trace says".to_owned(),
            AnsiColors::Green,
        ),
        (Some(false), point) => {
            let point = point.as_deref().unwrap_or("-");
            let word = format!("the packet did NOT do what trace says: {point}");
            (word, AnsiColors::Red)
        }
        (None, _) => (
            "whether the packet did what trace says can't be told".to_owned(),
            AnsiColors::Yellow,
        ),
    };
    text + &session.output.paint(&word, colour) + "\n"
}

/// The devices that trace went through, in order.
fn path(ping: &PingResponse) -> String {
    let mut devices: Vec<&str> = ping
        .trace
        .steps
        .iter()
        .map(|it| it.device.as_str())
        .collect();
    devices.dedup();
    devices.join(" > ")
}

fn says(ping: &PingResponse) -> String {
    let trace = &ping.trace;
    let mut says = trace.verdict.clone();
    if let Some(egress) = &trace.egress {
        let host = egress.host.as_deref().unwrap_or("-");
        let key = egress.key.as_deref().unwrap_or("-");
        says += &format!(" on {host}, key {key}");
    }
    says
}

/// What the sender's host did with it.
fn left(ping: &PingResponse) -> String {
    let mut did = Vec::new();
    if let Some(PingRefusal {
        reason,
        cause,
        told,
    }) = &ping.refused
    {
        let cause = cause.as_deref().unwrap_or("-");
        let told = told.as_deref().unwrap_or("nothing");
        return format!("refused it: {cause} ({reason}); told the sender: {told}");
    }
    if let Some(tunnel) = &ping.tunnel {
        let (address, key) = (&tunnel.address, &tunnel.key);
        did.push(format!("sent it to {address} under key {key}"));
    }
    if !ping.dropped.is_empty() {
        did.push(format!(
            "dropped packets meanwhile: {}",
            ping.dropped.join(", ")
        ));
    }
    if did.is_empty() {
        did.push("sent nothing into a tunnel, and dropped nothing".to_owned());
    }
    did.join("; ")
}

/// What the receiver's host saw of it.
fn arrived(arrival: &PingArrival) -> String {
    let port = &arrival.port;
    let why = arrival.why.as_deref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    match arrival.seen {
        Some(true) if arrival.answered => format!("it arrived at {port}, which answered"),
        Some(true) => format!("it arrived at {port}, which didn't answer"),
        Some(false) => format!("it never arrived at {port}{why}"),
        None => format!("whether it arrived at {port} isn't known{why}"),
    }
}

fn answered(ping: &PingResponse) -> String {
    match (&ping.answer, &ping.arrival) {
        (Some(it), _) => format!("{} after {:.3} ms", it.what, it.rtt_us as f64 / 1e3),
        (None, Some(arrival)) if arrival.answered => format!(
            "set out on {}, wasn't seen on {} within 1 s",
            arrival.host, ping.host
        ),
        (None, None) if ping.refused.is_some() => {
            format!("none: {} refused the packet", ping.host)
        }
        _ => "none within 1 s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::tcp_port;

    #[test]
    fn what_is_asked_is_a_tcp_port() {
        assert_eq!(tcp_port("tcp/80").unwrap(), 80);
        for wrong in ["tcp/0", "tcp/", "80", "udp/53", "tcp/70000"] {
            assert!(tcp_port(wrong).is_err(), "{wrong}");
        }
    }
}
