//! A port's own chains, interpreted: what `weft trace` tells, and what the kernel's decision is held against.
//!
//! No state. Called by `port` where a walk judges them; flows are made without, since each port's chains are decided on
//! its own host, packet by packet. They put no bits into masks.

use crate::model::Port;
use crate::policy::{Connection, Decision, Hook, RuleRef, Verdict, View, evaluate};
use crate::simulate::Cause;
use crate::trace::{Step, TraceSink};
use crate::walk::{Next, Walk};
use weft_common::{DropReason, Fragment};

/// Where the packet's way ends by the port's chains; none where they let it pass, or nobody asks.
pub(crate) fn judge<T: TraceSink>(walk: &mut Walk<'_, T>, port: &Port, hook: Hook) -> Option<Next> {
    let connection = walk.judged?;
    let chains = port.chains(hook);
    if chains.is_empty() {
        return None;
    }
    let view = view(walk, connection);
    let snapshot = walk.snapshot;
    let addresses = view
        .addresses()
        .map_or([None; 2], |(a, b)| [Some(a), Some(b)]);
    let sets = snapshot.sets_around(addresses.into_iter().flatten());
    let verdict = evaluate(chains, snapshot.policy(), &view, &sets);
    tell(walk, port, hook, &verdict);
    let reason = match hook {
        Hook::Ingress => DropReason::PolicyIngress,
        Hook::Egress => DropReason::PolicyEgress,
    };
    let cause = verdict.by.map(Cause::Rule);
    match verdict.decision {
        Decision::Accept => None,
        Decision::Drop => Some(walk.drop_once(reason, cause)),
        Decision::Reject => {
            walk.only_this_packet();
            Some(walk.refuse(reason, cause))
        }
    }
}

/// The packet as it is here: a router may have given it other MACs on its way.
fn view<T: TraceSink>(walk: &Walk<'_, T>, connection: Connection) -> View {
    let mut key = walk.packet.key;
    if let Some((source, destination)) = walk.macs() {
        key.head.src_mac = source.0;
        key.head.dst_mac = destination.0;
    }
    // What the network makes counts as a reply.
    let is_reply = !walk.is_from_workload();
    View {
        key,
        // Whoever sends one packet only knows nothing of another one, the first fragment.
        upper_known: key.head.fragment() != Fragment::Later,
        state: if is_reply {
            Connection::Established
        } else {
            connection
        },
    }
}

fn tell<T: TraceSink>(walk: &mut Walk<'_, T>, port: &Port, hook: Hook, verdict: &Verdict) {
    let model = walk.snapshot.model();
    let mut say = |text: &dyn Fn() -> String| {
        walk.step(|| Step {
            device: format!("port {}", model.port_path(port.id)),
            text: format!("{hook}: {}", text()),
        });
    };
    for log in &verdict.logs {
        say(&|| {
            let chain = model.policy.chains.get(&log.chain);
            let rule = chain.and_then(|it| it.rules.get(log.rule as usize));
            let name = rule.and_then(|it| it.log.clone()).unwrap_or_default();
            format!("{} logs as `{name}`", log.describe(&model.policy))
        });
    }
    let decision = match verdict.decision {
        Decision::Accept => "accept",
        Decision::Drop => "drop",
        Decision::Reject => "reject",
    };
    say(&|| match verdict.by {
        Some(rule) => format!("{}: {decision}", rule.describe(&model.policy)),
        None => "no rule decides: accept".to_owned(),
    });
}

impl RuleRef {
    /// `chain to-web, rule 4`: rules are counted from 1, as people do.
    pub fn describe(&self, policy: &crate::policy::Policy) -> String {
        let number = u64::from(self.rule) + 1;
        format!("chain {}, rule {number}", policy.chain_name(self.chain))
    }
}

#[cfg(test)]
mod tests;
