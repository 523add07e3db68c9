//! `apply`, `diff` and `export`: the topology as a file.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use weft_api::TopologyFile;
use weft_api::export::{Selection, export as write, export_json};
use weft_api::plan::{Plan, plan};
use weft_vnet::Kind;

use super::Session;
use super::change::{commit, lines, print};
use crate::Done;
use crate::args::Format;

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
    let changes: Vec<String> = plan.lines.iter().map(ToString::to_string).collect();
    let value = json!({ "changes": changes, "notes": plan.notes });
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
    let selection = Selection { kind, tenant };
    match session.output.format {
        Format::Json => {
            let documents = export_json(&model, selection)?;
            session.output.show(&documents, String::new)?;
        }
        Format::Table | Format::Yaml | Format::Svg | Format::Dot | Format::Mermaid => {
            session.output.text(&write(&model, selection))?
        }
    }
    Ok(Done::Well)
}

fn read(path: &Path) -> Result<TopologyFile> {
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("reading standard input")?;
        ("standard input".to_owned(), bytes)
    } else {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| format!("reading {name}"))?;
        (name, bytes)
    };
    Ok(TopologyFile::parse_bytes(&name, &bytes)?)
}
