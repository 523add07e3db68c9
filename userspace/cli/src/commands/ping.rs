//! `ping`: a real packet beside what `trace` says of it.

use anyhow::{Result, bail};
use owo_colors::AnsiColors;
use weft_api::agent::{PingRequest, PingResponse};

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

fn screen(session: &Session, answer: &PingResponse) -> String {
    let trace = &answer.trace;
    let egress = trace.egress.as_ref();
    let mut says = trace.verdict.clone();
    if let Some(egress) = egress {
        let host = egress.host.as_deref().unwrap_or("-");
        let key = egress.key.as_deref().unwrap_or("-");
        says += &format!(" on {host}, key {key}");
    }
    let mut did = Vec::new();
    if let Some(tunnel) = &answer.tunnel {
        did.push(format!(
            "left for {} under key {}",
            tunnel.address, tunnel.key
        ));
    }
    if !answer.dropped.is_empty() {
        did.push(format!("was dropped here: {}", answer.dropped.join(", ")));
    }
    if answer.answer.is_some() {
        did.push("reached the workload, which answered".to_owned());
    }
    if did.is_empty() {
        did.push("wasn't seen to leave this host, nor dropped at its port".to_owned());
    }
    let mut text = format!(
        "sent     {}\ntrace    {says}\npacket   {}\n",
        answer.packet,
        did.join("; ")
    );
    text += &match &answer.answer {
        Some(it) => format!(
            "answer   {} after {:.3} ms\n",
            it.what,
            it.rtt_us as f64 / 1e3
        ),
        None => unanswered(answer),
    };
    for problem in &trace.problems {
        text += &format!("note     {problem}\n");
    }
    let (word, colour) = match answer.agrees {
        Some(true) => ("the packet did what trace says", AnsiColors::Green),
        Some(false) => ("the packet did NOT do what trace says", AnsiColors::Red),
        None => (
            "whether the packet did what trace says can't be told",
            AnsiColors::Yellow,
        ),
    };
    text + &session.output.paint(word, colour) + "\n"
}

fn unanswered(answer: &PingResponse) -> String {
    let host = answer
        .trace
        .egress
        .as_ref()
        .and_then(|egress| egress.host.as_deref());
    match (host, &answer.tunnel) {
        (Some(host), Some(_)) => format!(
            "answer   none within 1 s. Whether {host} delivered it isn't known here: ask there (`weft drops`, `weft ports`)\n"
        ),
        _ => "answer   none within 1 s\n".to_owned(),
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
