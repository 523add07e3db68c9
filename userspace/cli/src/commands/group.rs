//! `group`: members of groups, any number of them in one transaction. Those of an address group are changed without
//! reading the others, of which there may be very many.

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use weft_api::plan::{Plan, PlanLine, Sign};
use weft_vnet::{Kind, Model, Object, Operation, PortId};

use super::change::{commit, print, step};
use super::objects::{find, tenant_of};
use super::{Session, reasons};
use crate::Done;
use crate::args::{GroupCommand, Members};

/// Changes members.
pub async fn group(session: &Session, command: &GroupCommand) -> Result<Done> {
    let (Members { group, members }, is_added) = match command {
        GroupCommand::Add(members) => (members, true),
        GroupCommand::Remove(members) => (members, false),
    };
    let prefixes: Vec<Option<IpNet>> = members.iter().map(|it| prefix(it)).collect();
    match prefixes.iter().position(Option::is_none) {
        None => {
            let prefixes: Vec<IpNet> = prefixes.into_iter().flatten().collect();
            addresses(session, group, &prefixes, is_added).await?;
        }
        Some(_) if prefixes.iter().all(Option::is_none) => {
            commit(session, |model| {
                ports(session, model, group, members, is_added)
            })
            .await?;
        }
        Some(other) => bail!(
            "`{}` is no address or prefix, others are: a group has addresses or ports",
            members[other]
        ),
    }
    Ok(Done::Well)
}

/// An address stands for the prefix that holds nothing else.
fn prefix(text: &str) -> Option<IpNet> {
    let address = text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    address.or_else(|| text.parse().ok())
}

async fn addresses(
    session: &Session,
    name: &str,
    prefixes: &[IpNet],
    is_added: bool,
) -> Result<()> {
    if let Some(wrong) = prefixes.iter().find(|it| **it != it.trunc()) {
        let expected = wrong.trunc();
        bail!("{wrong} has bits beyond its prefix: expected {expected}");
    }
    let contents = session.client.topology_without_members().await?;
    let model = contents
        .model()
        .map_err(|invalid| anyhow!(reasons(&invalid)))?;
    let group = find(session, &model, Kind::AddressGroup, name)?;
    let (add, remove) = match is_added {
        true => (prefixes.to_vec(), Vec::new()),
        false => (Vec::new(), prefixes.to_vec()),
    };
    let operations = vec![Operation::Members {
        group: group.id().into(),
        add,
        remove,
    }];
    let sign = if is_added { "+" } else { "-" };
    let members: Vec<String> = prefixes.iter().map(|it| format!("{sign}{it}")).collect();
    let text = format!(
        "address group {} {name} members: {}",
        tenant_of(&model, &group),
        members.join(", ")
    );
    // Whatever else has changed meanwhile: it says nothing of what is there.
    let revision = session.client.transact(None, operations.clone()).await?;
    let lines = vec![PlanLine {
        sign: Sign::Change,
        text,
    }];
    let plan = Plan {
        operations,
        lines,
        notes: Vec::new(),
    };
    let end = format!("applied revision {revision}");
    print(session, &plan, Some(revision), &end)
}

fn ports(
    session: &Session,
    model: &Model,
    name: &str,
    members: &[String],
    is_added: bool,
) -> Result<Plan> {
    let Object::PortGroup(mut group) = find(session, model, Kind::PortGroup, name)? else {
        bail!("there is no port group `{name}`");
    };
    let tenant = model.tenant_name(group.tenant);
    let find = |path: &String| model.find_port(Some(&tenant), path);
    let members: Vec<PortId> = members.iter().map(find).collect::<Result<_, _>>()?;
    if is_added {
        for port in members {
            if !group.ports.contains(&port) {
                group.ports.push(port);
            }
        }
    } else {
        group.ports.retain(|it| !members.contains(it));
    }
    step(model, vec![Operation::Put(Object::PortGroup(group))])
}
