//! `hosts`: the other hosts as the answering one reaches them.

use anyhow::Result;
use owo_colors::AnsiColors;
use weft_api::agent::{HostInfo, HostState};
use weft_api::time;

use super::Session;
use crate::Done;
use crate::output::or_dash;

/// Shows hosts.
pub async fn hosts(session: &Session) -> Result<Done> {
    let hosts = session.client.host_activity().await?;
    session
        .output
        .show(&hosts, || hosts_table(session, &hosts))?;
    Ok(Done::Well)
}

fn hosts_table(session: &Session, hosts: &[HostInfo]) -> String {
    if hosts.is_empty() {
        return "no hosts\n".into();
    }
    let columns = [
        "HOST",
        "ADDRESS",
        "STATE",
        "SINCE",
        "RTT MIN/AVG/LAST",
        "LOSS",
        "MTU",
        "WEFTD",
    ];
    let mut text = session.output.table(
        &columns,
        &["RTT MIN/AVG/LAST", "LOSS"],
        hosts.iter().map(row).collect(),
    );
    for problem in hosts.iter().filter_map(|host| host.problem.as_ref()) {
        text += &format!("{}\n", session.output.paint(problem, AnsiColors::Yellow));
    }
    text
}

fn row(host: &HostInfo) -> Vec<String> {
    let rtt = match (host.rtt_min_us, host.rtt_avg_us, host.rtt_last_us) {
        (Some(min), Some(avg), Some(last)) => Some(format!(
            "{}/{}/{} ms",
            millis(min),
            millis(avg),
            millis(last)
        )),
        _ => None,
    };
    let loss = (host.probes > 0).then(|| format!("{} % of {}", host.loss_percent, host.probes));
    let mtu = match (host.mtu, host.mtu_limit) {
        (Some(mtu), Some(limit)) => Some(format!("{limit} (not {mtu})")),
        (mtu, _) => mtu.map(|mtu| mtu.to_string()),
    };
    let agent = host.agent.as_ref().map(|agent| match agent.heard_secs_ago {
        0..10 => agent.version.clone(),
        secs => format!(
            "{}, silent for {}",
            agent.version,
            crate::output::duration(secs)
        ),
    });
    vec![
        host.host.clone(),
        or_dash(host.address.clone()),
        host.state.word().to_owned(),
        or_dash(since(host)),
        or_dash(rtt),
        or_dash(loss),
        or_dash(mtu),
        or_dash(agent),
    ]
}

fn since(host: &HostInfo) -> Option<String> {
    let is_told = !matches!(
        host.state,
        HostState::Local | HostState::Unknown | HostState::Unmanaged
    );
    host.since_unix_secs.filter(|_| is_told).map(time::utc)
}

/// Microseconds as milliseconds: "0.123".
fn millis(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}
