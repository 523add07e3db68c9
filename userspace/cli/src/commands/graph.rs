//! `graph`: the topology with its hosts, as Mermaid, Graphviz' dot, or an SVG drawn here.
//!
//! The picture has three columns: routers, bridges, hosts. Lines between devices are joined interior ports; lines to
//! hosts are bindings, dashed where the port isn't live.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use weft_api::agent::{PortInfo, PortState};
use weft_vnet::{DeviceId, HostId, Model, Port};

use super::Session;
use crate::Done;
use crate::args::Format;

/// A box of the picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Node {
    kind: Kind,
    /// "router core"
    title: String,
    /// Addresses, tenant.
    lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Router,
    Bridge,
    Host,
}

/// A line between two boxes, by their places in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Edge {
    from: usize,
    to: usize,
    label: String,
    is_live: bool,
}

/// Boxes and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

/// Prints the graph.
pub async fn graph(session: &Session) -> Result<Done> {
    let model = session.model().await?;
    if let Some(tenant) = &session.tenant {
        model.find_tenant(tenant)?;
    }
    let ports = session.client.port_activity().await?;
    let graph = Graph::of(&model, &ports, |tenant| session.wants(tenant));
    session
        .output
        .show(&graph, || match session.output.format {
            Format::Dot => graph.dot(),
            Format::Svg => graph.svg(),
            _ => graph.mermaid(),
        })?;
    Ok(Done::Well)
}

impl Graph {
    /// The graph of a topology; `ports` say which are live.
    pub fn of(model: &Model, ports: &[PortInfo], wants: impl Fn(&str) -> bool) -> Graph {
        let mut graph = Graph::default();
        let mut devices: BTreeMap<DeviceId, usize> = BTreeMap::new();
        let mut hosts: BTreeMap<HostId, usize> = BTreeMap::new();
        for router in model.routers.values() {
            let tenant = model.tenant_name(router.tenant);
            if wants(&tenant) {
                let id = DeviceId::Router(router.id);
                devices.insert(
                    id,
                    graph.device(Kind::Router, &router.name, tenant, model, id),
                );
            }
        }
        for bridge in model.bridges.values() {
            let tenant = model.tenant_name(bridge.tenant);
            if wants(&tenant) {
                let id = DeviceId::Bridge(bridge.id);
                devices.insert(
                    id,
                    graph.device(Kind::Bridge, &bridge.name, tenant, model, id),
                );
            }
        }
        for host in model.hosts.values() {
            let lines = host.zones.values().map(ToString::to_string).collect();
            let title = format!("host {}", host.name);
            hosts.insert(host.id, graph.node(Kind::Host, title, lines));
        }
        let is_live = |port: &Port| {
            let id = port.id.to_string();
            let info = ports.iter().find(|info| info.id == id);
            info.is_some_and(|info| info.state == PortState::Active || info.key.is_some())
        };
        for port in model.ports.values() {
            let Some(&from) = devices.get(&port.device) else {
                continue;
            };
            graph.port(model, port, from, &devices, &hosts, is_live(port));
        }
        graph
            .edges
            .sort_by_key(|edge| (edge.from, edge.to, edge.label.clone()));
        graph
    }

    fn port(
        &mut self,
        model: &Model,
        port: &Port,
        from: usize,
        devices: &BTreeMap<DeviceId, usize>,
        hosts: &BTreeMap<HostId, usize>,
        is_live: bool,
    ) {
        // One end of a pair of interior ports draws the line.
        if let Some(peer) = port.peer.and_then(|peer| model.ports.get(&peer))
            && let Some(&to) = devices.get(&peer.device)
            && port.id < peer.id
        {
            let (from, to) = (from.min(to), from.max(to));
            let router = if matches!(port.device, DeviceId::Router(_)) {
                port
            } else {
                peer
            };
            let label = joined(router);
            self.edges.push(Edge {
                from,
                to,
                label,
                is_live: true,
            });
        }
        if let Some(binding) = &port.binding
            && let Some(&to) = hosts.get(&binding.host)
        {
            let label = format!("{} ({})", port.name, binding.interface);
            self.edges.push(Edge {
                from,
                to,
                label,
                is_live,
            });
        }
    }

    fn device(
        &mut self,
        kind: Kind,
        name: &str,
        tenant: String,
        model: &Model,
        id: DeviceId,
    ) -> usize {
        let word = if kind == Kind::Router {
            "router"
        } else {
            "bridge"
        };
        let loose = model.ports.values().filter(|port| port.device == id);
        let loose = loose.filter(|port| port.binding.is_none() && port.peer.is_none());
        let mut lines = vec![format!("tenant {tenant}")];
        match loose.count() {
            0 => {}
            count => lines.push(format!("{count} unbound")),
        }
        self.node(kind, format!("{word} {name}"), lines)
    }

    fn node(&mut self, kind: Kind, title: String, lines: Vec<String>) -> usize {
        self.nodes.push(Node { kind, title, lines });
        self.nodes.len() - 1
    }

    /// For Markdown: `graph LR`.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("graph LR\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let label = mermaid_text(&self.caption(node, "<br/>"));
            let (open, close) = match node.kind {
                Kind::Router => ("{{", "}}"),
                Kind::Bridge => ("[", "]"),
                Kind::Host => ("[(", ")]"),
            };
            let _ = writeln!(text, "  n{index}{open}\"{label}\"{close}");
        }
        for edge in &self.edges {
            let line = if edge.is_live { "---" } else { "-.-" };
            let label = mermaid_text(&edge.label);
            let _ = writeln!(text, "  n{} {line}|\"{label}\"| n{}", edge.from, edge.to);
        }
        text
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        let mut text =
            String::from("graph weft {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let shape = match node.kind {
                Kind::Router => "hexagon",
                Kind::Bridge => "box",
                Kind::Host => "box3d",
            };
            let label = dot_text(&self.caption(node, "\n"));
            let _ = writeln!(text, "  n{index} [label=\"{label}\", shape={shape}];");
        }
        for edge in &self.edges {
            let style = if edge.is_live { "solid" } else { "dashed" };
            let _ = writeln!(
                text,
                "  n{} -- n{} [label=\"{}\", style={style}];",
                edge.from,
                edge.to,
                dot_text(&edge.label)
            );
        }
        text + "}\n"
    }

    /// A whole SVG document.
    pub fn svg(&self) -> String {
        super::graph_svg::draw(self)
    }

    fn caption(&self, node: &Node, newline: &str) -> String {
        let mut lines = vec![node.title.as_str()];
        lines.extend(node.lines.iter().map(String::as_str));
        lines.join(newline)
    }

    /// Boxes in columns, for a drawing: kind as the column's number, title, further lines.
    pub fn boxes(&self) -> impl Iterator<Item = (usize, &str, &[String])> {
        self.nodes.iter().map(|node| {
            (
                node.kind as usize,
                node.title.as_str(),
                node.lines.as_slice(),
            )
        })
    }

    /// Lines, for a drawing: from, to, label, whether it is live.
    pub fn lines(&self) -> impl Iterator<Item = (usize, usize, &str, bool)> {
        self.edges
            .iter()
            .map(|edge| (edge.from, edge.to, edge.label.as_str(), edge.is_live))
    }
}

/// A router's end of a joint: "web 10.0.1.1/24".
fn joined(port: &Port) -> String {
    let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
    format!("{} {}", port.name, addresses.join(" "))
        .trim_end()
        .to_owned()
}

fn mermaid_text(text: &str) -> String {
    text.replace('"', "#quot;")
}

fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router between two bridges, one port live on a host, one not.
    fn small() -> Graph {
        let node = |kind, title: &str, lines: &[&str]| Node {
            kind,
            title: title.into(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        let edge = |from, to, label: &str, is_live| Edge {
            from,
            to,
            label: label.into(),
            is_live,
        };
        Graph {
            nodes: vec![
                node(Kind::Router, "router core", &["tenant a<b&\"c\""]),
                node(Kind::Bridge, "bridge web", &["tenant acme"]),
                node(Kind::Bridge, "bridge db", &["tenant acme", "2 unbound"]),
                node(Kind::Host, "host h1", &["172.30.1.1"]),
            ],
            edges: vec![
                edge(0, 1, "web 10.0.1.1/24", true),
                edge(0, 2, "db 10.0.2.1/24", true),
                edge(1, 3, "web-1 (tap0)", true),
                edge(1, 3, "web-2 (tap1)", false),
            ],
        }
    }

    #[test]
    fn mermaid_and_dot_name_every_box_and_line() {
        let mermaid = small().mermaid();
        assert!(mermaid.starts_with("graph LR\n"));
        assert!(
            mermaid.contains("n0{{\"router core<br/>tenant a<b&#quot;c#quot;\"}}"),
            "{mermaid}"
        );
        assert!(mermaid.contains("n1 ---|\"web-1 (tap0)\"| n3"), "{mermaid}");
        assert!(mermaid.contains("n1 -.-|\"web-2 (tap1)\"| n3"), "{mermaid}");
        let dot = small().dot();
        assert!(
            dot.contains("n0 [label=\"router core\\ntenant a<b&\\\"c\\\"\", shape=hexagon];"),
            "{dot}"
        );
        assert!(
            dot.contains("n1 -- n3 [label=\"web-2 (tap1)\", style=dashed];"),
            "{dot}"
        );
    }

    #[test]
    fn the_drawing_is_well_formed_and_holds_every_word() {
        let svg = small().svg();
        for text in [
            "router core",
            "tenant a&lt;b&amp;&quot;c&quot;",
            "web-2 (tap1)",
            "2 unbound",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!(svg.matches("<rect").count(), 4 + 1);
        assert_eq!(svg.matches("<path").count(), 4);
        assert_eq!(svg.matches("stroke-dasharray").count(), 1);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(Graph::default().svg().contains("nothing"));
    }
}
