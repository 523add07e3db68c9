//! Which crate may see which: the arrows of DESIGN 2, read from `cargo metadata`.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::Problem;

/// Each package of the workspace, with those of the workspace that it may depend on.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("weft-common", &[]),
    ("weft-ebpf", &["weft-common"]),
    ("weft-wire", &["weft-common"]),
    ("weft-vnet", &["weft-common", "weft-wire"]),
    ("weft-api", &["weft-common", "weft-wire", "weft-vnet"]),
    (
        "weft-store",
        &["weft-common", "weft-wire", "weft-vnet", "weft-api"],
    ),
    ("weft-datapath", &["weft-common"]),
    (
        "weft-agent",
        &[
            "weft-common",
            "weft-wire",
            "weft-vnet",
            "weft-api",
            "weft-store",
            "weft-datapath",
        ],
    ),
    (
        "weft-cli",
        &["weft-common", "weft-wire", "weft-vnet", "weft-api"],
    ),
    ("weft-scenario-macro", &[]),
    (
        "weft-tests",
        &[
            "weft-common",
            "weft-wire",
            "weft-vnet",
            "weft-api",
            "weft-store",
            "weft-datapath",
            "weft-scenario-macro",
        ],
    ),
    ("xtask", &[]),
];

/// Packages without I/O, clock or runtime: not even by way of others may they see what [`is_io`] names.
const PURE: &[&str] = &["weft-vnet", "weft-wire"];

/// Who may name what reaches into the kernel. The tests load single programs with aya, too.
const AYA_USERS: &[&str] = &["weft-datapath", "weft-tests"];
const NETLINK_USERS: &[&str] = &["weft-datapath"];

/// The resolved dependencies of everything in the workspace.
pub struct Graph {
    packages: BTreeMap<String, Package>,
    members: Vec<String>,
}

struct Package {
    name: String,
    manifest: PathBuf,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    id: String,
    /// Built into the package itself, and not only into its tests or its build script.
    normal: bool,
    /// Built into its tests only.
    dev: bool,
}

impl Graph {
    /// From what `cargo metadata --format-version 1` prints.
    pub fn read(metadata: &Value) -> Result<Self> {
        let mut packages = BTreeMap::new();
        for package in array(metadata, "packages")? {
            packages.insert(
                text(package, "id")?.to_string(),
                Package {
                    name: text(package, "name")?.to_string(),
                    manifest: PathBuf::from(text(package, "manifest_path")?),
                    dependencies: Vec::new(),
                },
            );
        }
        for node in array(&metadata["resolve"], "nodes")? {
            let mut dependencies = Vec::new();
            for dependency in array(node, "deps")? {
                let kinds = array(dependency, "dep_kinds")?;
                dependencies.push(Dependency {
                    id: text(dependency, "pkg")?.to_string(),
                    normal: kinds.iter().any(|it| it["kind"].is_null()),
                    dev: kinds.iter().all(|it| it["kind"] == "dev"),
                });
            }
            let id = text(node, "id")?;
            packages
                .get_mut(id)
                .with_context(|| format!("{id} is no package"))?
                .dependencies = dependencies;
        }
        let members: Vec<String> = array(metadata, "workspace_members")?
            .iter()
            .filter_map(Value::as_str)
            .map(String::from)
            .collect();
        Ok(Self { packages, members })
    }

    /// All rules. Paths in the problems are relative to `root`.
    pub fn check(&self, root: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        for id in &self.members {
            let package = &self.packages[id];
            let wrong = self
                .direction(package)
                .into_iter()
                .chain(self.kernel_access(package))
                .chain(self.purity(id));
            problems.extend(wrong.map(|wrong| wrong.at(package, root)));
        }
        problems
    }

    /// Name and folder of each package of the workspace, the folder relative to `root`.
    pub fn folders(&self, root: &Path) -> BTreeMap<String, PathBuf> {
        let members = self.members.iter().map(|id| &self.packages[id]);
        members
            .map(|package| {
                let folder = package.manifest.parent().unwrap_or(root);
                (
                    package.name.clone(),
                    folder.strip_prefix(root).unwrap_or(folder).to_path_buf(),
                )
            })
            .collect()
    }

    fn dependencies<'a>(
        &'a self,
        package: &'a Package,
    ) -> impl Iterator<Item = (&'a Package, &'a Dependency)> {
        package
            .dependencies
            .iter()
            .map(|dependency| (&self.packages[&dependency.id], dependency))
    }

    /// Arrows between our own crates. Tests alone may look the other way: dev-dependencies don't ship.
    fn direction(&self, package: &Package) -> Vec<Wrong> {
        let Some((_, may_see)) = MAY_SEE.iter().find(|(name, _)| *name == package.name) else {
            let expected = "a new package needs its place in the table of xtask/src/tidy/crates.rs";
            return vec![Wrong {
                dependency: package.name.clone(),
                expected: expected.into(),
            }];
        };
        self.dependencies(package)
            .filter(|(it, dependency)| {
                !dependency.dev
                    && self.members.contains(&dependency.id)
                    && !may_see.contains(&it.name.as_str())
            })
            .map(|(it, _)| Wrong {
                dependency: it.name.clone(),
                expected: format!(
                    "{} may depend on [{}] and not on {}",
                    package.name,
                    may_see.join(", "),
                    it.name
                ),
            })
            .collect()
    }

    /// aya and netlink have one user.
    fn kernel_access(&self, package: &Package) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for (it, _) in self.dependencies(package) {
            let users = match it.name.as_str() {
                "aya" | "aya-obj" | "aya-log" => AYA_USERS,
                name if is_netlink(name) => NETLINK_USERS,
                _ => continue,
            };
            if !users.contains(&package.name.as_str()) {
                let expected = format!("only {} may use {}", users.join(" and "), it.name);
                wrong.push(Wrong {
                    dependency: it.name.clone(),
                    expected,
                });
            }
        }
        wrong
    }

    /// The pure crates see no I/O, however far away.
    fn purity(&self, id: &str) -> Vec<Wrong> {
        let package = &self.packages[id];
        if !PURE.contains(&package.name.as_str()) {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::from([id]);
        let mut queue = VecDeque::from([(id, vec![package.name.as_str()])]);
        while let Some((id, way)) = queue.pop_front() {
            for (it, dependency) in self.dependencies(&self.packages[id]) {
                if !dependency.normal || !seen.insert(&dependency.id) {
                    continue;
                }
                let mut way = way.clone();
                way.push(&it.name);
                if is_io(&it.name) {
                    let expected = format!(
                        "{} is pure and must not see {}: {}",
                        package.name,
                        it.name,
                        way.join(" -> ")
                    );
                    wrong.push(Wrong {
                        dependency: way[1].to_string(),
                        expected,
                    });
                } else {
                    queue.push_back((&dependency.id, way));
                }
            }
        }
        wrong
    }
}

/// A dependency that should not be, before it has a place.
struct Wrong {
    dependency: String,
    expected: String,
}

impl Wrong {
    /// At the line of the manifest that names the dependency, or at its first.
    fn at(self, package: &Package, root: &Path) -> Problem {
        let manifest = std::fs::read_to_string(&package.manifest).unwrap_or_default();
        let names_it = |line: &str| {
            let key = line.split(['=', '.']).next().unwrap_or_default();
            key.trim().trim_matches('"') == self.dependency
        };
        let line = manifest
            .lines()
            .position(names_it)
            .map_or(1, |index| index + 1);
        let file = package
            .manifest
            .strip_prefix(root)
            .unwrap_or(&package.manifest);
        Problem::new(file, line, self.expected)
    }
}

fn is_io(name: &str) -> bool {
    name == "tokio"
        || name.starts_with("tokio-")
        || name == "aya"
        || name.starts_with("aya-")
        || is_netlink(name)
}

fn is_netlink(name: &str) -> bool {
    name == "rtnetlink" || name == "neli" || name.starts_with("netlink-")
}

fn array<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name]
        .as_array()
        .with_context(|| format!("cargo metadata has no list {name}"))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name]
        .as_str()
        .with_context(|| format!("cargo metadata has no text {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A workspace of all packages named `weft-*` or xtask, from (package, dependency, kind).
    fn problems(dependencies: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let names: BTreeSet<&str> = dependencies
            .iter()
            .flat_map(|(from, to, _)| [*from, *to])
            .collect();
        let ours = names
            .iter()
            .filter(|name| name.starts_with("weft-") || **name == "xtask");
        let packages: Vec<_> = names
            .iter()
            .map(|name| json!({ "id": name, "name": name, "manifest_path": format!("/w/{name}/Cargo.toml") }))
            .collect();
        let nodes: Vec<_> = names
            .iter()
            .map(|name| {
                let own = dependencies.iter().filter(|(from, _, _)| from == name);
                let deps: Vec<_> = own
                    .map(|(_, to, kind)| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] }))
                    .collect();
                json!({ "id": name, "deps": deps })
            })
            .collect();
        let metadata = json!({
            "packages": packages,
            "workspace_members": ours.collect::<Vec<_>>(),
            "resolve": { "nodes": nodes },
        });
        let graph = Graph::read(&metadata).unwrap();
        graph
            .check(Path::new("/w"))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_arrows_of_the_design_are_fine() {
        let fine = [
            ("weft-wire", "weft-common", None),
            ("weft-vnet", "weft-wire", None),
            ("weft-store", "weft-api", None),
            ("weft-store", "tokio", None),
            ("weft-agent", "weft-datapath", None),
            ("weft-datapath", "aya", None),
            ("weft-datapath", "rtnetlink", None),
            ("weft-tests", "aya", None),
            // What doesn't ship may look further.
            ("weft-vnet", "tokio", Some("dev")),
            ("weft-cli", "weft-store", Some("dev")),
        ];
        assert_eq!(problems(&fine), [""; 0]);
    }

    #[test]
    fn an_arrow_the_other_way_is_found() {
        let found = problems(&[("weft-datapath", "weft-vnet", None)]);
        let expected = "weft-datapath/Cargo.toml:1: weft-datapath may depend on [weft-common] and not on weft-vnet";
        assert_eq!(found, [expected]);
        assert_eq!(
            problems(&[("weft-vnet", "weft-store", Some("build"))]).len(),
            1
        );
        assert_eq!(problems(&[("weft-cli", "weft-store", None)]).len(), 1);
    }

    #[test]
    fn a_package_without_a_place_is_found() {
        let found = problems(&[("weft-new", "serde", None)]);
        assert!(
            found[0].contains("needs its place in the table"),
            "{found:?}"
        );
    }

    #[test]
    fn aya_and_netlink_have_one_user() {
        assert_eq!(
            problems(&[
                ("weft-agent", "aya", None),
                ("weft-store", "netlink-sys", None)
            ]),
            [
                "weft-agent/Cargo.toml:1: only weft-datapath and weft-tests may use aya",
                "weft-store/Cargo.toml:1: only weft-datapath may use netlink-sys",
            ]
        );
    }

    #[test]
    fn a_pure_crate_sees_no_runtime_even_through_others() {
        let found = problems(&[
            ("weft-vnet", "some", None),
            ("some", "other", None),
            ("other", "tokio", None),
        ]);
        let expected = "weft-vnet/Cargo.toml:1: weft-vnet is pure and must not see tokio: \
                        weft-vnet -> some -> other -> tokio";
        assert_eq!(found, [expected]);
        assert_eq!(problems(&[("weft-wire", "aya-obj", None)]).len(), 2);
    }
}
