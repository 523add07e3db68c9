//! The binary itself against a server of the API: what it prints, and its exit status.

mod groups;
mod policies;
mod server;

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};

use server::Server;

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/examples/two-hosts.yaml"
);

/// What a run of the binary gave.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

fn weft_at(endpoint: &str, args: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(args)
        .env("WEFT_ENDPOINT", endpoint)
        .env_remove("WEFT_TOKEN_FILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails before it reads has closed its end.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn weft(server: &Server, args: &[&str]) -> Ran {
    weft_at(&server.endpoint, args, "")
}

fn ok(server: &Server, args: &[&str]) -> String {
    let ran = weft(server, args);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{args:?}: {ran:?}");
    ran.out
}

/// A server with the example applied.
fn example() -> Server {
    let server = Server::start();
    ok(&server, &["apply", "-f", EXAMPLE]);
    server
}

#[test]
fn apply_says_what_it_does_and_does_it_once() {
    let server = Server::start();
    let ran = weft(&server, &["diff", "-f", EXAMPLE]);
    assert_eq!(ran.status, 3);
    assert!(ran.out.contains("+ port acme web/web-1\n"), "{}", ran.out);
    let dry = ok(&server, &["apply", "-f", EXAMPLE, "--dry-run"]);
    assert!(dry.ends_with("\ndry run, nothing was changed\n"), "{dry}");
    let out = ok(&server, &["apply", "-f", EXAMPLE]);
    assert_eq!(out.lines().count(), 16, "{out}");
    assert!(out.ends_with("\napplied revision 1\n"), "{out}");
    assert_eq!(
        ok(&server, &["apply", "-f", EXAMPLE, "--prune"]),
        "no change\n"
    );
    assert_eq!(ok(&server, &["diff", "-f", EXAMPLE]), "");
}

#[test]
fn what_export_writes_apply_takes() {
    let server = example();
    let text = ok(&server, &["export"]);
    let ran = weft_at(&server.endpoint, &["apply", "-f", "-", "--prune"], &text);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (0, "no change\n"),
        "{ran:?}"
    );
    let fresh = Server::start();
    let ran = weft_at(&fresh.endpoint, &["apply", "-f", "-"], &text);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(ok(&fresh, &["export"]), text);
    let hosts = ok(&server, &["export", "hosts"]);
    assert_eq!(
        hosts,
        "weft: v1\nhosts:\n  h1: { zones: { default: 172.30.1.1 } }\n  h2: { zones: { default: 172.30.2.1 } }\n"
    );
}

#[test]
fn export_as_json_has_the_same_documents() {
    let server = example();
    let text = ok(&server, &["export", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let port = &json[0]["bridges"]["web"]["ports"]["web-1"];
    assert_eq!(port["addresses"], serde_json::json!(["10.0.1.11"]));
    assert_eq!(json[1]["hosts"]["h1"]["zones"]["default"], "172.30.1.1");
    let ran = weft_at(&server.endpoint, &["apply", "-f", "-", "--prune"], &text);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (0, "no change\n"),
        "{ran:?}"
    );
    let yaml = ok(&server, &["export", "-o", "yaml"]);
    assert_eq!(yaml, ok(&server, &["export"]));
}

#[test]
fn a_file_that_is_no_text_names_the_place() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    std::fs::write(&path, b"weft: v1\n# gr\xfc\xdfe\n").unwrap();
    let path = path.to_str().unwrap();
    let ran = weft(&server, &["apply", "-f", path]);
    let expected = format!(
        "{path}:2:5: found byte 0xfc, expected UTF-8\nerror: 1 mistake, nothing was changed\n"
    );
    assert_eq!((ran.status, ran.err), (1, expected));
}

#[test]
fn routes_that_are_not_used_are_told() {
    let server = example();
    let text = "weft: v1\ntenant: acme\nrouters: { core: { routes: [{ to: 10.8.0.0/16, via: 192.168.77.1 }] } }\n";
    let why = "is inactive: 192.168.77.1 is in no connected subnet\n";
    let ran = weft_at(&server.endpoint, &["diff", "-f", "-"], text);
    let note = format!("note: route 10.8.0.0/16 via 192.168.77.1 of router acme core {why}");
    assert!(ran.out.ends_with(&note), "{ran:?}");
    let ran = weft_at(&server.endpoint, &["apply", "-f", "-"], text);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(
        ran.out.ends_with(&format!("{note}applied revision 2\n")),
        "{ran:?}"
    );
    let shown = ok(&server, &["get", "router", "core"]);
    let note = format!("core: route 10.8.0.0/16 via 192.168.77.1 {why}");
    assert!(shown.ends_with(&note), "{shown}");
}

#[test]
fn a_bad_file_changes_nothing_and_names_the_place() {
    let server = Server::start();
    let text = std::fs::read_to_string(EXAMPLE)
        .unwrap()
        .replace("10.0.2.12", "10.0.2.312");
    let ran = weft_at(&server.endpoint, &["apply", "-f", "-"], &text);
    assert_eq!(ran.status, 1);
    let line = text
        .lines()
        .position(|line| line.contains("10.0.2.312"))
        .unwrap()
        + 1;
    assert_eq!(
        ran.err,
        format!(
            "standard input:{line}:21: found `10.0.2.312`, expected an IPv4 or IPv6 address like \
             10.0.1.11\nerror: 1 mistake, nothing was changed\n"
        )
    );
    assert_eq!(ok(&server, &["get", "tenants"]), "no tenants\n");
    let ran = weft(&server, &["apply", "-f", "/nowhere.yaml"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (
            1,
            "error: reading /nowhere.yaml: No such file or directory (os error 2)\n"
        )
    );
}

#[test]
fn get_shows_objects_as_tables_and_as_the_types_of_the_api() {
    let server = example();
    assert_eq!(
        ok(&server, &["get", "bridges"]),
        "TENANT  NAME  PORTS\nacme    db        3\nacme    web       3\n"
    );
    assert_eq!(
        ok(&server, &["get", "port", "web/web-1"]),
        "TENANT  NAME       MAC                ADDRESSES  BOUND TO  PEER  ADMIN\n\
         acme    web/web-1  02:00:00:00:01:0b  10.0.1.11  h1:web1   -     up\n"
    );
    assert_eq!(
        ok(&server, &["get", "hosts"]),
        "NAME  ZONES               PORTS\nh1    default=172.30.1.1      2\nh2    default=172.30.2.1      2\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ok(&server, &["get", "host", "h1", "-o", "json"])).unwrap();
    assert_eq!(
        (&json["kind"], &json["name"]),
        (&"host".into(), &"h1".into())
    );
    let yaml = ok(&server, &["get", "tunnel-zones", "-o", "yaml"]);
    assert!(yaml.contains("kind: tunnel_zone"), "{yaml}");
    let ran = weft(&server, &["get", "host", "h9"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (1, "error: there is no host `h9`; there is h1, h2\n")
    );
    let ran = weft(&server, &["get", "ports", "--tenant", "nobody"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (1, "error: there is no tenant `nobody`\n")
    );
    assert_eq!(weft(&server, &["get", "mirrors"]).status, 2);
}

#[test]
fn ports_are_bound_and_unbound() {
    let server = example();
    assert_eq!(
        ok(
            &server,
            &[
                "port",
                "bind",
                "web/web-1",
                "--host",
                "h2",
                "--interface",
                "tap7"
            ]
        ),
        "~ port acme web/web-1 bind: h1:web1 -> h2:tap7\napplied revision 2\n"
    );
    assert_eq!(
        ok(
            &server,
            &[
                "port",
                "bind",
                "web/web-1",
                "--host",
                "h2",
                "--interface",
                "tap7"
            ]
        ),
        "no change\n"
    );
    let with_key = |key| {
        let bind = "port bind web/web-1 --host h2 --interface tap7 --tunnel-key";
        weft(&server, &[bind.split(' ').collect(), vec![key]].concat())
    };
    let refused = with_key("8388608");
    assert_eq!(
        refused.err,
        "error: 8388608 can't be a tunnel key: expected 1 to 8388607\n"
    );
    assert_eq!(
        with_key("4711").out,
        "~ port acme web/web-1 bind: h2:tap7 -> h2:tap7 (tunnel key 4711)\napplied revision 3\n"
    );
    assert_eq!(
        ok(&server, &["port", "unbind", "web/web-1"]),
        "~ port acme web/web-1 bind: h2:tap7 (tunnel key 4711) -> none\napplied revision 4\n"
    );
}

#[test]
fn a_port_that_cannot_be_bound_says_why() {
    let server = example();
    for (args, expected) in [
        ("web/web-9 h1 x", "`web` has no port `web-9`"),
        ("web/web-1 h9 x", "there is no host `h9`; there is h1, h2"),
        ("web/web-1 h1 db2", "the interface is taken: db/db-2 has it"),
        (
            "web/core h1 x",
            "a port is bound to an interface or has a peer, not both",
        ),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let [port, host, interface] = args[..] else {
            panic!("three words")
        };
        let ran = weft(
            &server,
            &[
                "port",
                "bind",
                port,
                "--host",
                host,
                "--interface",
                interface,
            ],
        );
        assert_eq!((ran.status, ran.err), (1, format!("error: {expected}\n")));
    }
}

#[test]
fn deleting_a_device_takes_its_ports_along() {
    let server = example();
    let out = ok(&server, &["delete", "router", "core"]);
    assert!(out.contains("- router acme core\n"), "{out}");
    assert!(out.contains("- port acme core/web\n"), "{out}");
    assert!(
        out.contains("~ port acme web/core peer: core/web -> none\n"),
        "{out}"
    );
    assert!(out.ends_with("applied revision 2\n"), "{out}");
    let ran = weft(&server, &["delete", "host", "h1"]);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("can't be deleted"), "{}", ran.err);
}

#[test]
fn names_of_several_tenants_need_the_tenant() {
    let server = example();
    let other = "weft: v1\ntenant: other\nbridges: { web: { ports: { web-1: {} } } }\n";
    assert_eq!(
        weft_at(&server.endpoint, &["apply", "-f", "-"], other).status,
        0
    );
    let ran = weft(&server, &["delete", "bridge", "web"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.err
            .contains("several tenants have a bridge `web`: say --tenant"),
        "{}",
        ran.err
    );
    let ran = weft(&server, &["port", "unbind", "web/web-1"]);
    assert!(ran.err.contains("exists in several tenants"), "{}", ran.err);
    let out = ok(&server, &["delete", "bridge", "web", "--tenant", "other"]);
    assert!(
        out.starts_with("- port other web/web-1\n- bridge other web\n"),
        "{out}"
    );
    assert_eq!(
        ok(&server, &["get", "bridges", "--tenant", "other"]),
        "no bridges\n"
    );
}

#[test]
fn racing_applies_all_succeed() {
    let server = example();
    let runs: Vec<_> = (0..4)
        .map(|number| {
            let endpoint = server.endpoint.clone();
            std::thread::spawn(move || {
                let text = format!("weft: v1\ntenant: acme\nbridges: {{ new-{number}: {{}} }}\n");
                weft_at(&endpoint, &["apply", "-f", "-"], &text)
            })
        })
        .collect();
    for run in runs {
        let ran = run.join().unwrap();
        assert_eq!(ran.status, 0, "{ran:?}");
    }
    assert_eq!(ok(&server, &["get", "bridges"]).lines().count(), 1 + 2 + 4);
}

#[test]
fn a_topology_that_never_rests_is_given_up_on() {
    let server = Server::restless();
    let ran = weft(&server, &["apply", "-f", EXAMPLE]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.err.contains("the topology changed in between"),
        "{}",
        ran.err
    );
    assert_eq!(server.transactions(), 4, "one attempt, and three more");
}

#[test]
fn ports_flows_and_drops_are_tables() {
    let server = example();
    assert_eq!(
        ok(&server, &["ports"]),
        "TENANT  PORT       HOST  INTERFACE  STATE    KEY  GRE KEY   MAC                ADDRESSES  INGRESS  EGRESS  DROPS\n\
         acme    db/db-1    h2    db1        remote   3.1  0x000301  02:00:00:00:02:0b  10.0.2.11        0       0      0\n\
         acme    web/web-1  h1    web1       waiting  -    -         02:00:00:00:01:0b  10.0.1.11        7       5      1\n\
         web/web-1: interface web1 doesn't exist yet\n"
    );
    assert_eq!(
        ok(&server, &["flows"]),
        "ID  MATCH                               ACTIONS     PACKETS  BYTES  IDLE\n\
         f1  in=web/web-1,ip,ip_dst=10.0.2.0/24  dec_ttl(1)        9    882   3 s\n"
    );
    let masks = ok(&server, &["flows", "--masks"]);
    assert_eq!(
        masks,
        "MASK             FLOWS  PACKETS\nin,ip,ip_dst/24      1        9\n"
    );
    let drops = ok(&server, &["drops"]);
    assert_eq!(
        drops,
        "PORT       REASON    PACKETS  MEANING
\
         web/web-1  no_route        4  no route leads to the destination
"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ok(&server, &["flows", "-o", "json"])).unwrap();
    assert_eq!(json[0]["mask_bits"]["ip_dst"], 24);
    assert_eq!(json[0]["match"], "in=web/web-1,ip,ip_dst=10.0.2.0/24");
}

#[test]
fn drops_are_followed() {
    let server = example();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["--endpoint", &server.endpoint, "drops", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), time.ends_with('Z')), (9, true), "{line}");
    assert_eq!(
        rest,
        "web/web-1 +1 rising: no route leads to the destination\n"
    );
}

#[test]
fn a_trace_ends_with_its_verdict() {
    let server = example();
    let out = ok(
        &server,
        &[
            "trace",
            "--from",
            "web/web-1",
            "icmp 10.0.1.11 > 10.0.2.11 echo",
        ],
    );
    assert_eq!(
        out,
        "icmp 10.0.1.11 > 10.0.2.11 echo\n  1. port web/web-1  enters\n  2. router core     routes\n\
         flow (not installed now): in=web/web-1\nactions: dec_ttl(1)\negress: db/db-1 on h2, key 3.1\n\
         note: web1 doesn't exist\ndelivered to db/db-1 on h2\n"
    );
    // One frame of a capture, little-endian, cut off at four bytes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pcap");
    let words: [u32; 10] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1, 0, 0, 4, 60];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend([0xde, 0xad, 0xbe, 0xef]);
    std::fs::write(&path, bytes).unwrap();
    let ran = weft(
        &server,
        &[
            "trace",
            "--from",
            "web/web-1",
            "--pcap",
            path.to_str().unwrap(),
        ],
    );
    assert!(ran.out.starts_with("deadbeef\n"), "{ran:?}");
    assert_eq!(
        ran.err,
        "note: the capture kept 4 of this frame's 60 bytes\n"
    );
    let ran = weft(
        &server,
        &["trace", "--from", "web/web-1", "--hex", "de:ad be ef"],
    );
    assert!(ran.out.starts_with("deadbeef\n"), "{ran:?}");
    let ran = weft(&server, &["trace", "--from", "web/x", "--hex", "de"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (1, "error: not found: `web` has no port `x`\n")
    );
}

#[test]
fn a_degraded_agent_is_exit_status_three() {
    let server = example();
    let ran = weft(&server, &["status"]);
    assert_eq!((ran.status, ran.err.as_str()), (3, ""));
    assert!(ran.out.contains("state     degraded\n"), "{}", ran.out);
    assert!(
        ran.out.contains("problem   the store is away\n"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("h2    172.30.2.1  resolved  eth0"),
        "{}",
        ran.out
    );
}

#[test]
fn an_endpoint_that_is_not_there_is_named_with_what_to_check() {
    let ran = weft_at("unix:/nowhere/weftd.sock", &["status"], "");
    assert_eq!(ran.status, 1);
    assert!(
        ran.err.starts_with(
            "error: cannot reach weftd at unix:/nowhere/weftd.sock: no such file or directory\n  \
             check: is weftd running on this host"
        ),
        "{}",
        ran.err
    );
    let ran = weft_at("http://127.0.0.1:1", &["status"], "");
    assert_eq!(ran.status, 1);
    assert!(
        ran.err.contains("http://127.0.0.1:1: connection refused"),
        "{}",
        ran.err
    );
    assert_eq!(weft_at("ftp://x", &["status"], "").status, 2);
    assert_eq!(weft_at("unix:/x", &["frobnicate"], "").status, 2);
}

#[test]
fn completions_and_the_manual_need_no_weftd() {
    for args in [&["completions", "bash"][..], &["man"]] {
        let ran = weft_at("unix:/nowhere", args, "");
        assert_eq!(
            (ran.status, ran.out.contains("apply")),
            (0, true),
            "{args:?}"
        );
    }
}

#[test]
fn a_token_is_read_from_its_file() {
    let server = Server::with_token("secret");
    let ran = weft(&server, &["get", "tenants"]);
    assert_eq!(
        (ran.status, ran.err.contains("not authorized")),
        (1, true),
        "{ran:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "secret\n").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(
        ok(&server, &["get", "tenants", "--token-file", path]),
        "no tenants\n"
    );
    let ran = weft(&server, &["get", "tenants", "--token-file", "/nowhere"]);
    assert!(
        ran.err.contains("reading the token from /nowhere"),
        "{}",
        ran.err
    );
}

#[test]
fn hosts_are_shown_with_what_probes_say() {
    let server = Server::start();
    let text = ok(&server, &["hosts"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("HOST  ADDRESS"), "{text}");
    let h2: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(
        h2.join(" "),
        "h2 172.30.2.1 degraded 2000-02-29T00:00:00Z 0.098/1.250/20.003 ms 11 % of 60 1400 (not 1600) \
         0.1.0, silent for 1 min 15 s"
    );
    assert_eq!(
        lines[4],
        "host h2: of packets up to 1600 bytes only those up to 1400 come through"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ok(&server, &["hosts", "-o", "json"])).unwrap();
    assert_eq!(json[1]["state"], "degraded");
    assert_eq!(json[1]["rtt_avg_us"], 1250);
    assert_eq!(json[2]["agent"]["heard_secs_ago"], 1);
}

#[test]
fn the_graph_of_the_example_is_drawn_in_every_form() {
    let server = example();
    let loose =
        "{weft: v1, tenant: acme, bridges: {web: {ports: {spare: {mac: '02:00:00:00:01:0d'}}}}}";
    let ran = weft_at(&server.endpoint, &["apply", "-f", "-"], loose);
    assert_eq!(ran.status, 0, "{ran:?}");
    let mermaid = ok(&server, &["graph"]);
    assert_eq!(mermaid, ok(&server, &["graph", "-o", "mermaid"]));
    assert!(mermaid.starts_with("graph LR\n"), "{mermaid}");
    let svg = ok(&server, &["graph", "-o", "svg"]);
    let dot = ok(&server, &["graph", "-o", "dot"]);
    for text in [&mermaid, &svg, &dot] {
        for word in [
            "router core",
            "bridge web",
            "host h2",
            "db-2 (db2)",
            "web 10.0.1.1/24",
            "172.30.2.1",
            "1 unbound",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    assert!(svg.starts_with("<svg "), "{svg}");
    assert!(dot.starts_with("graph weft {"), "{dot}");
    // Of the ports one waits for its interface, one is live on another host; two are unknown to the agent.
    for line in ["-.-|\"web-1 (web1)\"|", "---|\"db-1 (db1)\"|"] {
        assert!(mermaid.contains(line), "{line}: {mermaid}");
    }
    assert_eq!(mermaid.matches("-.-").count(), 3, "{mermaid}");
    let json: serde_json::Value =
        serde_json::from_str(&ok(&server, &["graph", "-o", "json"])).unwrap();
    assert_eq!(json["nodes"].as_array().unwrap().len(), 5);
    assert_eq!(weft(&server, &["ports", "-o", "svg"]).status, 2);
}

#[test]
fn without_a_terminal_top_prints_one_snapshot() {
    let server = Server::start();
    let text = ok(&server, &["top"]);
    for word in ["ports", "flows", "drops", "dec_ttl(1)", "no_route"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&ok(&server, &["top", "-o", "json"])).unwrap();
    // A counter that rises by one with each sample, a second apart.
    let rising = json["drops"][1]["packets_per_sec"].as_f64().unwrap();
    assert!(rising > 0.0 && rising <= 1.0, "{json}");
}

/// As `weft man | head -1` does: who reads stops early.
#[test]
fn a_reader_that_stops_early_is_no_error() {
    for args in [&["completions", "bash"][..], &["man"], &["--help"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(
            (out.status.code(), said.as_str()),
            (Some(0), ""),
            "{args:?}"
        );
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let server = Server::start();
    ok(&server, &["man", "--folder", path]);
    let help = ok(&server, &["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.contains(&"doctor") && names.len() > 15, "{names:?}");
    for name in names {
        let page = std::fs::read_to_string(folder.path().join(format!("weft-{name}.1")));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.contains(".TH") && page.contains(".SH SYNOPSIS"),
            "{name}"
        );
    }
    let completions = ok(&server, &["completions", "bash"]);
    assert!(completions.contains("doctor") && completions.contains("graph"));
}
