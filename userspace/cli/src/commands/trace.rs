//! `trace`: what would happen to a packet, on one screen.

use anyhow::{Context, Result};
use owo_colors::AnsiColors;
use weft_api::agent::{TraceRequest, TraceResponse};

use super::Session;
use crate::Done;
use crate::args::Trace;
use crate::pcap;

/// Traces a packet.
pub async fn trace(session: &Session, args: &Trace) -> Result<Done> {
    let mut request = TraceRequest {
        tenant: session.tenant.clone(),
        from: args.from.clone(),
        state: args.state,
        ..TraceRequest::default()
    };
    if let Some(hex) = &args.hex {
        request.hex = Some(
            hex.chars()
                .filter(|c| !c.is_whitespace() && *c != ':')
                .collect(),
        );
    } else if let Some(path) = &args.pcap {
        let name = path.display();
        let file = std::fs::read(path).with_context(|| format!("reading {name}"))?;
        let captured = pcap::frame(&file, args.frame).with_context(|| name.to_string())?;
        if captured.frame.len() < captured.length {
            let (kept, length) = (captured.frame.len(), captured.length);
            eprintln!("note: the capture kept {kept} of this frame's {length} bytes");
        }
        request.hex = Some(
            captured
                .frame
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        );
    } else {
        request.packet = Some(args.packet.join(" "));
    }
    let answer = session.client.trace(&request).await?;
    session.output.show(&answer, || screen(session, &answer))?;
    Ok(Done::Well)
}

/// Steps, what the flow would be, and in the last line how it ends.
fn screen(session: &Session, answer: &TraceResponse) -> String {
    let mut text = format!("{}\n", answer.frame);
    let width = answer
        .steps
        .iter()
        .map(|step| step.device.chars().count())
        .max()
        .unwrap_or(0);
    for (index, step) in answer.steps.iter().enumerate() {
        let device = format!("{:width$}", step.device);
        let device = session.output.paint(&device, AnsiColors::Cyan);
        text += &format!("{:>3}. {device}  {}\n", index + 1, step.text);
    }
    if let Some(matches) = &answer.matches {
        let installed = if answer.installed {
            "installed"
        } else {
            "not installed now"
        };
        text += &format!("flow ({installed}): {matches}\n");
    }
    if let Some(actions) = &answer.actions {
        text += &format!("actions: {actions}\n");
    }
    if let Some(egress) = &answer.egress {
        let host = egress
            .host
            .as_ref()
            .map(|host| format!(" on {host}"))
            .unwrap_or_default();
        let key = egress
            .key
            .as_ref()
            .map(|key| format!(", key {key}"))
            .unwrap_or_default();
        text += &format!("egress: {}{host}{key}\n", egress.port);
    }
    for problem in &answer.problems {
        text += &format!(
            "{}: {problem}\n",
            session.output.paint("note", AnsiColors::Yellow)
        );
    }
    let mut verdict = answer.verdict.clone();
    let untold = |word: &&String| !answer.verdict.contains(word.as_str());
    let why: Vec<&str> = [&answer.reason, &answer.cause]
        .into_iter()
        .flatten()
        .filter(untold)
        .map(String::as_str)
        .collect();
    if !why.is_empty() {
        verdict += &format!(" ({})", why.join(", "));
    }
    let colour = if answer.reason.is_some() {
        AnsiColors::Red
    } else {
        AnsiColors::Green
    };
    text + &session.output.paint(&verdict, colour) + "\n"
}
