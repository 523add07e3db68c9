//! `weftd.toml`: what is in it, what is left out, and what can't be.

use crate::engine::TunnelOptions;
use crate::log::LogFormat;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use weft_datapath::XdpUse;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this host in the topology.
    pub host: String,
    /// The network that carries tunnels.
    pub underlay: Underlay,
    /// Where the topology is.
    #[serde(default)]
    pub store: Store,
    /// Where the API listens.
    #[serde(default)]
    pub api: Api,
    /// Where kernel state is pinned.
    #[serde(default)]
    pub bpf: Bpf,
    /// What weftd remembers of its own.
    #[serde(default)]
    pub state: State,
    /// Where metrics are served.
    #[serde(default)]
    pub metrics: Metrics,
    /// The log.
    #[serde(default)]
    pub log: Log,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address of `/metrics`, which wants no token; nowhere when left out.
    pub listen: Option<SocketAddr>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How its lines look.
    pub format: LogFormat,
}

/// `[underlay]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// Interfaces on which tunnel packets come in.
    pub interfaces: Vec<String>,
    /// Which hook receives them.
    #[serde(default)]
    pub datapath: DatapathChoice,
    /// What becomes of a workload's DSCP in the outer header.
    #[serde(default)]
    pub dscp: Dscp,
    /// Whether the MSS of TCP is lowered to what a tunnel carries.
    #[serde(default)]
    pub mss_clamp: bool,
}

impl Underlay {
    /// What of this concerns each packet.
    pub fn tunnel_options(&self) -> TunnelOptions {
        TunnelOptions {
            copy_dscp: self.dscp == Dscp::Copy,
            clamp_mss: self.mss_clamp,
        }
    }
}

/// DSCP of the outer header (RFC 2983).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dscp {
    /// 0: workloads don't choose how the underlay treats their packets.
    #[default]
    None,
    /// The inner packet's.
    Copy,
}

/// Which hook receives tunnel packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatapathChoice {
    /// Whatever is known to pay.
    #[default]
    Auto,
    /// TC.
    Tc,
    /// Native XDP, and TC for what it leaves.
    Xdp,
}

impl From<DatapathChoice> for XdpUse {
    fn from(choice: DatapathChoice) -> XdpUse {
        match choice {
            DatapathChoice::Auto => XdpUse::WhereItPays,
            DatapathChoice::Tc => XdpUse::Never,
            DatapathChoice::Xdp => XdpUse::Always,
        }
    }
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `embedded:PATH`, `weftd+unix:PATH` or `weftd+http://HOST:PORT`.
    pub url: String,
    /// Token of the other weftd's API.
    pub token_file: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            url: "embedded:/var/lib/weft/store.redb".to_owned(),
            token_file: None,
        }
    }
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Unix socket; whoever may open it may do everything.
    pub unix: PathBuf,
    /// TCP, too.
    pub listen: Option<SocketAddr>,
    /// The bearer token that TCP clients must show; required beyond loopback.
    pub token_file: Option<PathBuf>,
}

impl Default for Api {
    fn default() -> Api {
        Api {
            unix: "/run/weft/weftd.sock".into(),
            listen: None,
            token_file: None,
        }
    }
}

/// `[bpf]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bpf {
    /// Folder in bpffs; `/sys/fs/bpf/weft/HOST` when left out.
    pub pin: Option<PathBuf>,
}

/// `[state]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Folder; that of an embedded store, or `/var/lib/weft`, when left out.
    pub folder: Option<PathBuf>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most flows.
    pub flows: Option<usize>,
    /// Seconds without a packet after which a flow goes.
    pub flow_idle_secs: Option<u64>,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Names the file, and the line where TOML or a field is wrong.
    pub fn read(path: &Path) -> anyhow::Result<Config> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let config: Config =
            toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        config.check().map_err(|error| {
            let place = place_of(&error.to_string(), &text);
            error.context(format!("in {}{place}", path.display()))
        })?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.host.is_empty() {
            bail!("host: expected the name of this host in the topology, found an empty string");
        }
        if self.underlay.interfaces.is_empty() {
            bail!("underlay.interfaces: expected at least one interface, found none");
        }
        if let Some(listen) = self.api.listen
            && !listen.ip().is_loopback()
            && self.api.token_file.is_none()
        {
            bail!(
                "api.listen: {listen} is reachable from beyond this host: it needs api.token_file"
            );
        }
        let pin = self.pin();
        if pin.to_string_lossy().contains('.') {
            bail!(
                "bpf.pin: {} holds a dot, which bpffs refuses in names",
                pin.display()
            );
        }
        if self.limits.flows == Some(0) {
            bail!("limits.flows: expected at least 1, found 0");
        }
        if self.limits.flow_idle_secs == Some(0) {
            bail!("limits.flow_idle_secs: expected at least 1, found 0");
        }
        Ok(())
    }

    /// Folder of what weftd remembers.
    pub fn state_folder(&self) -> PathBuf {
        let store = self.store.url.strip_prefix("embedded:");
        let beside = store.and_then(|path| Some(Path::new(path).parent()?.to_owned()));
        let configured = self.state.folder.clone();
        configured
            .or(beside)
            .unwrap_or_else(|| PathBuf::from("/var/lib/weft"))
    }

    /// Folder of pins.
    pub fn pin(&self) -> PathBuf {
        self.bpf
            .pin
            .clone()
            .unwrap_or_else(|| Path::new("/sys/fs/bpf/weft").join(self.host.replace('.', "_")))
    }
}

/// Where the field is that a message begins with, in words: `api.listen: ...` is about `listen` under `[api]`.
/// Nothing for one that isn't in the text.
fn place_of(message: &str, text: &str) -> String {
    let (field, _) = message.split_once(':').unwrap_or_default();
    let (table, key) = field.split_once('.').unwrap_or(("", field));
    let mut current = "";
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let words = trimmed.split(['=', ']', ' ']).next().unwrap_or_default();
        if let Some(name) = words.strip_prefix('[') {
            current = name;
        } else if current == table && words == key {
            let column = line.len() - trimmed.len() + 1;
            return format!(", line {}, column {column}", number + 1);
        }
    }
    String::new()
}

/// The first line of a token file.
///
/// # Errors
/// When it can't be read, or holds no token.
pub fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the token file {}", path.display()))?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.len() < 16 {
        bail!(
            "{}: expected a token of at least 16 characters on the first line",
            path.display()
        );
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(api: &str) -> anyhow::Result<()> {
        let text = format!("host = \"h1\"\n[underlay]\ninterfaces = [\"eth1\"]\n[api]\n{api}");
        toml::from_str::<Config>(&text)?.check()
    }

    #[test]
    fn beyond_loopback_a_token_is_required() {
        assert!(parse("listen = \"127.0.0.1:7443\"").is_ok());
        let error = parse("listen = \"172.30.1.1:7443\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("token_file"), "{error}");
        assert!(parse("listen = \"172.30.1.1:7443\"\ntoken_file = \"/etc/weft/token\"").is_ok());
    }

    #[test]
    fn a_value_that_cannot_be_is_named_with_its_place() {
        let text = "host = \"h1\"\n[limits]\nflows = 1\n[underlay]\n  interfaces = []\n";
        let place = |message: &str| place_of(message, text);
        assert_eq!(place("underlay.interfaces: expected"), ", line 5, column 3");
        assert_eq!(place("host: expected"), ", line 1, column 1");
        assert_eq!(place("api.listen: it needs"), "");
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let error = parse("listne = \"127.0.0.1:7443\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("listne") && error.contains("line 5"),
            "{error}"
        );
    }
}
