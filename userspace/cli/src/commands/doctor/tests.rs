//! Facts in, findings out: one fact is wrong at a time.

use super::*;

fn healthy() -> Facts {
    let agent = |heard_secs_ago| AgentHeard {
        version: "0.1.0".into(),
        abi: 2,
        heard_secs_ago,
        clock_offset_ms: -20,
    };
    Facts {
        machine: Some(Machine {
            kernel: "6.18.5-amd64".into(),
            is_bpffs_mounted: true,
            jit: Some("1".into()),
        }),
        version: "0.1.0".into(),
        agent: Ok(Agent {
            status: Status {
                host: "h1".into(),
                version: "0.1.0".into(),
                abi: 2,
                store: weft_api::StoreStatus {
                    url: "weftd+http://10.0.0.9:7443".into(),
                    connected: true,
                    problem: None,
                },
                peers: vec![PeerInfo {
                    host: "h2".into(),
                    state: "resolved".into(),
                    interface: Some("eth0".into()),
                    ..PeerInfo::default()
                }],
                ..Status::default()
            },
            hosts: vec![
                HostInfo {
                    host: "h1".into(),
                    state: HostState::Local,
                    ..HostInfo::default()
                },
                HostInfo {
                    host: "h2".into(),
                    address: Some("172.30.2.1".into()),
                    state: HostState::Up,
                    mtu: Some(1500),
                    agent: Some(agent(1)),
                    ..HostInfo::default()
                },
            ],
            ports: vec![PortInfo {
                name: "web/web-1".into(),
                interface: Some("tap0".into()),
                state: PortState::Active,
                mtu: Some(1458),
                ..PortInfo::default()
            }],
        }),
    }
}

/// The one finding after a change, as "check: found; mend".
fn finding(change: impl FnOnce(&mut Machine, &mut Agent)) -> String {
    let mut facts = healthy();
    if let (Some(machine), Ok(agent)) = (&mut facts.machine, &mut facts.agent) {
        change(machine, agent);
    }
    let checks = diagnose(&facts);
    let mut found = checks.iter().filter(|it| it.outcome == Outcome::Problem);
    let first = found.next().expect("a finding");
    assert_eq!(found.next(), None);
    let mend = first.mend.as_deref().expect("a command");
    format!("{}: {}; {mend}", first.check, first.found)
}

fn h2(agent: &mut Agent) -> &mut HostInfo {
    &mut agent.hosts[1]
}

#[test]
fn nothing_is_found_where_all_is_well() {
    let checks = diagnose(&healthy());
    assert!(
        checks.iter().all(|it| it.outcome == Outcome::Ok),
        "{checks:?}"
    );
    assert!(checks.iter().all(|it| it.mend.is_none()));
}

#[test]
fn each_finding_ends_with_the_command_that_mends_it() {
    let found = [
        finding(|machine, _| machine.kernel = "5.15.0-91".into()),
        finding(|machine, _| machine.is_bpffs_mounted = false),
        finding(|machine, _| machine.jit = Some("0".into())),
        finding(|_, agent| agent.ports[0].mtu = Some(1500)),
        finding(|_, agent| h2(agent).agent.as_mut().unwrap().heard_secs_ago = 75),
        finding(|_, agent| h2(agent).agent.as_mut().unwrap().clock_offset_ms = -3_600_000),
        finding(|_, agent| h2(agent).agent.as_mut().unwrap().abi = 1),
        finding(|_, agent| {
            h2(agent).state = HostState::Down;
            h2(agent).problem = Some("host h2 is down".into());
            agent.status.peers[0].state = "unreachable".into();
        }),
        finding(|_, agent| {
            agent.status.store.connected = false;
            agent.status.problems = vec!["store weftd+http://10.0.0.9:7443: no route".into()];
        }),
        finding(|_, agent| {
            agent.status.problems = vec!["port web/web-1 (interface tap0): gone".into()]
        }),
        finding(|_, agent| {
            let problem = "port web/web-1 (interface tap0): its interface is down";
            agent.status.problems = vec![problem.into()]
        }),
        finding(|_, agent| {
            let problem = "port web/web-1 (interface tap0): its interface has no carrier: nobody is at its other end";
            agent.status.problems = vec![problem.into()]
        }),
        finding(|_, agent| agent.status.problems = vec!["underlay interface eth0 is down".into()]),
    ];
    let expected = [
        "kernel: Linux 5.15.0-91 is older than 6.1; apt-get install linux-image-amd64 && reboot",
        "bpffs: nothing is mounted on /sys/fs/bpf: what is pinned is lost with weftd; mount -t bpf bpf /sys/fs/bpf",
        "jit: BPF programs are interpreted: forwarding is several times slower; sysctl -w net.core.bpf_jit_enable=1",
        "mtu: port web/web-1 (tap0) has MTU 1500, of which 1458 fit a tunnel to h2; ip link set dev tap0 mtu 1458, \
         and the same inside the workload",
        "peers: host h2: its kernel answers, its weftd is silent for 75 s; on h2: systemctl restart weftd",
        "clock: the clock of host h2 is 3600.0 s behind this one's; on h2 or here, whichever is wrong: chronyc makestep",
        "versions: host h2 runs weftd 0.1.0 (abi 1), this one 0.1.0 (abi 2); install the same version on both, then: \
         systemctl restart weftd",
        "peers: host h2 is down; ip route add 172.30.2.1 via GATEWAY",
        "store: store weftd+http://10.0.0.9:7443: no route; at 10.0.0.9:7443: systemctl restart weftd",
        "ports: port web/web-1 (interface tap0): gone; weft port unbind web/web-1, or make the interface",
        "ports: port web/web-1 (interface tap0): its interface is down; ip link set dev tap0 up",
        "ports: port web/web-1 (interface tap0): its interface has no carrier: nobody is at its other end; \
         start the workload at tap0; inside it: ip link set dev DEV up",
        "underlay: underlay interface eth0 is down; ip link set dev eth0 up",
    ];
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

#[test]
fn an_ipv6_underlay_takes_more() {
    let found = finding(|_, agent| h2(agent).address = Some("fd30:2::1".into()));
    assert!(found.contains("of which 1438 fit"), "{found}");
}

#[test]
fn without_weftd_the_machine_is_looked_at_and_the_rest_is_unknown() {
    let facts = Facts {
        agent: Err("no such file".into()),
        ..healthy()
    };
    let checks = diagnose(&facts);
    let problems: Vec<&Check> = checks
        .iter()
        .filter(|it| it.outcome == Outcome::Problem)
        .collect();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].found, "it doesn't answer: no such file");
    assert!(
        checks
            .iter()
            .any(|it| it.check == "kernel" && it.outcome == Outcome::Ok)
    );
    assert!(
        checks
            .iter()
            .any(|it| it.check == "peers" && it.outcome == Outcome::Unknown)
    );
}

#[test]
fn another_host_is_asked_about_itself_only_by_its_weftd() {
    let facts = Facts {
        machine: None,
        ..healthy()
    };
    assert!(diagnose(&facts).iter().all(|it| it.check != "kernel"));
}

/// An interface that is down takes its routes along: one command mends both.
#[test]
fn a_host_behind_an_interface_that_is_down_has_the_same_cure() {
    let mut facts = healthy();
    if let Ok(agent) = &mut facts.agent {
        h2(agent).state = HostState::Down;
        h2(agent).problem = Some("host h2 is down".into());
        agent.status.peers[0].state = "unreachable".into();
        agent.status.problems = vec!["underlay interface eth0 is down".into()];
    }
    let checks = diagnose(&facts);
    let mends: Vec<&str> = checks.iter().filter_map(|it| it.mend.as_deref()).collect();
    assert_eq!(mends, ["ip link set dev eth0 up"; 2]);
}
