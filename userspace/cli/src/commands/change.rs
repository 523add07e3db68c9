//! Changing the topology: the transaction that every changing command makes, and the commands
//! that change one object.

use anyhow::{Result, anyhow, bail};
use owo_colors::AnsiColors;
use serde_json::json;
use weft_api::client::ClientError;
use weft_api::plan::{Plan, Sign, difference};
use weft_vnet::{Binding, Kind, Model, Object, Operation, Port};

use super::objects::find;
use super::{Session, reasons};
use crate::Done;
use crate::args::PortCommand;

/// How often a plan is made again because the topology changed in between.
const REPLANS_MAX: u32 = 3;

/// Plans against the topology as it is and commits that, or plans again if it changed meanwhile.
pub async fn commit(session: &Session, plan: impl Fn(&Model) -> Result<Plan>) -> Result<()> {
    for attempt in 0..=REPLANS_MAX {
        let model = session.model().await?;
        let plan = plan(&model)?;
        if plan.operations.is_empty() {
            return print(session, &plan, Some(model.revision), "no change");
        }
        let operations = plan.operations.clone();
        match session
            .client
            .transact(Some(model.revision), operations)
            .await
        {
            Ok(revision) => {
                let end = format!("applied revision {revision}");
                return print(session, &plan, Some(revision), &end);
            }
            Err(ClientError::Problem(problem))
                if problem.is_revision_conflict() && attempt < REPLANS_MAX => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!(
        "the topology changes too fast: planned {} times, nothing was changed",
        REPLANS_MAX + 1
    )
}

/// Prints a plan, and how it ended.
pub fn print(session: &Session, plan: &Plan, revision: Option<u64>, end: &str) -> Result<()> {
    let changes: Vec<String> = plan.lines.iter().map(ToString::to_string).collect();
    let value = json!({
        "changes": changes, "notes": plan.notes, "revision": revision, "result": end,
    });
    session
        .output
        .show(&value, || lines(session, plan) + end + "\n")
}

/// A plan's lines and notes, in colour on a terminal.
pub fn lines(session: &Session, plan: &Plan) -> String {
    let line = |line: &weft_api::PlanLine| {
        let colour = match line.sign {
            Sign::Add => AnsiColors::Green,
            Sign::Change => AnsiColors::Yellow,
            Sign::Remove => AnsiColors::Red,
        };
        session.output.paint(&line.to_string(), colour) + "\n"
    };
    let word = session.output.paint("note", AnsiColors::Yellow);
    let note = |note: &String| format!("{word}: {note}\n");
    let (lines, notes) = (plan.lines.iter().map(line), plan.notes.iter().map(note));
    lines.chain(notes).collect()
}

/// Deletes an object.
pub async fn delete(session: &Session, kind: Kind, name: &str) -> Result<Done> {
    let plan = |model: &Model| {
        let id = find(session, model, kind, name)?.id();
        step(model, vec![Operation::Delete { kind, id }])
    };
    commit(session, plan).await?;
    Ok(Done::Well)
}

/// Binds or unbinds a port.
pub async fn port(session: &Session, command: &PortCommand) -> Result<Done> {
    let plan = |model: &Model| {
        let port = |path: &str| -> Result<Port> {
            let id = model.find_port(session.tenant.as_deref(), path)?;
            model
                .ports
                .get(&id)
                .map(|port| (**port).clone())
                .ok_or_else(|| anyhow!("no port {path}"))
        };
        let port = match command {
            PortCommand::Bind {
                port: path,
                host,
                interface,
                tunnel_key,
            } => {
                let Object::Host(host) = find(session, model, Kind::Host, host)? else {
                    bail!("there is no host `{host}`");
                };
                let binding = Binding {
                    host: host.id,
                    interface: interface.clone(),
                    tunnel_key: *tunnel_key,
                };
                Port {
                    binding: Some(binding),
                    ..port(path)?
                }
            }
            PortCommand::Unbind { port: path } => Port {
                binding: None,
                ..port(path)?
            },
        };
        step(model, vec![Operation::Put(Object::Port(port))])
    };
    commit(session, plan).await?;
    Ok(Done::Well)
}

/// The plan of operations; nothing where they change nothing.
pub fn step(model: &Model, operations: Vec<Operation>) -> Result<Plan> {
    let after = model
        .apply(&operations)
        .map_err(|invalid| anyhow!(reasons(&invalid)))?;
    let plan = difference(model, &after);
    let operations = if plan.operations.is_empty() {
        Vec::new()
    } else {
        operations
    };
    Ok(Plan { operations, ..plan })
}
