//! `apply`, `diff` and `export`: the topology as a file.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use weft_api::TopologyFile;
use weft_api::export::{Selection, export as write};
use weft_api::plan::{Plan, plan};
use weft_vnet::Kind;

use super::Session;
use super::change::{commit, lines, print};
use crate::Done;

/// Makes the topology what a file says.
pub async fn apply(session: &Session, path: &Path, prune: bool, dry_run: bool) -> Result<Done> {
    let file = read(path)?;
    if dry_run {
        let plan = plan(&session.model().await?, &file, prune)?;
        let end = if plan.operations.is_empty() {
            "no change"
        } else {
            "dry run, nothing was changed"
        };
        print(session, &plan, None, end)?;
        return Ok(Done::Well);
    }
    commit(session, |model| Ok(plan(model, &file, prune)?)).await?;
    Ok(Done::Well)
}

/// Says what `apply` would change.
pub async fn diff(session: &Session, path: &Path, prune: bool) -> Result<Done> {
    let file = read(path)?;
    let plan: Plan = plan(&session.model().await?, &file, prune)?;
    let value =
        json!({ "changes": plan.lines.iter().map(ToString::to_string).collect::<Vec<_>>() });
    session.output.show(&value, || lines(session, &plan))?;
    Ok(if plan.operations.is_empty() {
        Done::Well
    } else {
        Done::Differs
    })
}

/// Writes the topology as a file.
pub async fn export(session: &Session, kind: Option<Kind>) -> Result<Done> {
    let model = session.model().await?;
    if let Some(tenant) = &session.tenant {
        model.find_tenant(tenant)?;
    }
    let tenant = session.tenant.as_deref();
    session
        .output
        .text(&write(&model, Selection { kind, tenant }))?;
    Ok(Done::Well)
}

fn read(path: &Path) -> Result<TopologyFile> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("reading standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        (name, text)
    };
    Ok(TopologyFile::parse(&name, &text)?)
}
