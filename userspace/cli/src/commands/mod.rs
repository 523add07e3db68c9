//! The commands, one file for those of a kind.

pub mod apply;
pub mod change;
pub mod describe;
pub mod doctor;
pub mod graph;
pub mod graph_svg;
pub mod group;
pub mod host;
pub mod hosts;
pub mod objects;
pub mod observe;
pub mod ping;
pub mod policy;
pub mod top;
pub mod trace;

use anyhow::{Result, anyhow};
use weft_api::client::Client;
use weft_vnet::{Invalid, Model};

use crate::output::Output;

/// What every command works with.
pub struct Session {
    /// weftd.
    pub client: Client,
    /// The tenant that was asked for.
    pub tenant: Option<String>,
    /// Where results go.
    pub output: Output,
}

impl Session {
    /// The topology as it is now.
    pub async fn model(&self) -> Result<Model> {
        let contents = self.client.topology().await?;
        contents.model().map_err(|invalid| {
            anyhow!(
                "the topology contradicts itself (is weftd newer than weft?): {}",
                reasons(&invalid)
            )
        })
    }

    /// Whether something of this tenant was asked for.
    pub fn wants(&self, tenant: &str) -> bool {
        self.tenant.as_deref().is_none_or(|wanted| wanted == tenant)
    }
}

/// "1 rule", "2 rules".
pub fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// What the model refuses, in words.
pub fn reasons(invalid: &[Invalid]) -> String {
    let reasons: Vec<&str> = invalid
        .iter()
        .map(|invalid| invalid.message.as_str())
        .collect();
    reasons.join("; ")
}
