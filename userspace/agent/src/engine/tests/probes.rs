//! Tunnel probes: what goes out each second, and what is said of a host that answers, or doesn't.

use super::*;
use weft_api::{HostInfo, HostState, TraceRequest};
use weft_common::probe::{PROBE_MAGIC, PROBE_REPLY, PROBE_REQUEST, ProbePayload};
use weft_common::slot::Output;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of outer Ethernet, IPv4 and GRE.
const OUTER: usize = 42;

impl Rig {
    /// A second in which the host at the other end answers probes whose outer IP packet has at most `carried` bytes.
    fn second(&mut self, carried: usize) {
        self.injected();
        self.engine.probe_hosts();
        for probe in self.injected() {
            assert_eq!(probe.slot.unwrap().output, Output::Tunnel as u8);
            assert_eq!(probe.slot.unwrap().tunnel_key, u32::from(PROBE_REQUEST));
            if probe.packet.frame.len() + OUTER - 14 <= carried {
                self.arrives(PROBE_REPLY, &probe.packet.frame, 1_500_000);
            }
        }
        self.pass(1);
    }

    /// A probe comes in from `h2`, `delay_ns` after it was sent.
    fn arrives(&mut self, kind: u8, inner: &[u8], delay_ns: u64) {
        let mut frame = vec![0; OUTER];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[26..30].copy_from_slice(&[172, 30, 2, 1]);
        frame.extend_from_slice(inner);
        let (payload, _) = ProbePayload::mut_from_prefix(&mut frame[OUTER + 14..]).unwrap();
        let sent = u64::from_be_bytes(payload.sent_ns);
        payload.received_ns = (sent + delay_ns).to_be_bytes();
        self.engine.handle_misses(vec![Miss {
            port: 0,
            generation: kind,
            reason: MissReason::Probe as u8,
            packet: HeldPacket::made(frame),
        }]);
    }

    fn h2(&self) -> HostInfo {
        let hosts = self.engine.report_hosts();
        assert_eq!(hosts[0].state, HostState::Local);
        hosts[1].clone()
    }

    fn peer_mtu(&mut self) -> u16 {
        let index = self.engine.peers.hosts[&self.host("h2")].index;
        self.datapath().fake.peers[&index].mtu
    }
}

#[test]
fn a_host_that_answers_is_up_with_its_round_trip() {
    let mut rig = Rig::new();
    assert_eq!(rig.h2().state, HostState::Unknown);
    (0..3).for_each(|_| rig.second(1500));
    let h2 = rig.h2();
    assert_eq!((h2.probes, h2.lost, h2.rtt_avg_us), (3, 0, Some(1500)));
    rig.second(1500);
    let h2 = rig.h2();
    assert_eq!(
        (h2.state, h2.mtu, h2.mtu_limit),
        (HostState::Up, Some(1500), None)
    );
    assert_eq!(h2.mtu_carried, Some(1500));
    assert_eq!(h2.problem, None);
}

#[test]
fn a_host_that_does_not_answer_is_down_and_named() {
    let mut rig = Rig::new();
    (0..3).for_each(|_| rig.second(1500));
    (0..6).for_each(|_| rig.second(0));
    let h2 = rig.h2();
    assert_eq!(h2.state, HostState::Down);
    let problem = h2.problem.unwrap();
    assert!(
        problem.starts_with("host h2 (172.30.2.1) is down since "),
        "{problem}"
    );
    let status = rig.engine.report_status();
    assert!(status.problems.contains(&problem), "{:?}", status.problems);
    assert_eq!(status.peers[0].reach, HostState::Down);
    let request = TraceRequest {
        from: "web/near".into(),
        packet: Some("icmp 10.0.1.11 > 10.0.1.12".into()),
        ..TraceRequest::default()
    };
    assert_eq!(rig.engine.trace(&request).unwrap().problems, [problem]);
    // Without a next hop nothing is sent, and it stays down; then it is back.
    rig.network.paths.get_mut(&H2).unwrap().next_hop_mac = None;
    rig.look();
    rig.injected();
    rig.engine.probe_hosts();
    assert_eq!(rig.injected(), []);
    let problem = rig.h2().problem.unwrap();
    assert!(
        problem.ends_with("its next hop doesn't answer"),
        "{problem}"
    );
    rig.network.paths.get_mut(&H2).unwrap().next_hop_mac = Some(GATEWAY);
    rig.look();
    (0..2).for_each(|_| rig.second(1500));
    assert_eq!((rig.h2().state, rig.h2().problem), (HostState::Up, None));
}

#[test]
fn flows_keep_to_what_the_way_was_found_to_carry() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    let guard = rig.forward("web/near", &frame).unwrap().mtu;
    (0..100).for_each(|_| rig.second(1400));
    let h2 = rig.h2();
    assert_eq!((h2.state, h2.mtu_limit), (HostState::Degraded, Some(1400)));
    assert_eq!(rig.peer_mtu(), 1400);
    assert_eq!(rig.forward("web/near", &frame).unwrap().mtu, guard - 100);
    (0..20).for_each(|_| rig.second(1500));
    assert_eq!((rig.h2().state, rig.peer_mtu()), (HostState::Up, 1500));
    assert_eq!(rig.forward("web/near", &frame).unwrap().mtu, guard);
}

#[test]
fn answers_that_nobody_asked_for_are_dropped_by_name() {
    let mut rig = Rig::new();
    rig.second(0);
    let payload = ProbePayload {
        magic: PROBE_MAGIC,
        ..ProbePayload::default()
    };
    let frame = [&[0; 14], payload.as_bytes()].concat();
    rig.arrives(PROBE_REPLY, &frame, 0);
    let unasked = (None, DropReason::UnaskedProbe);
    assert_eq!(rig.engine.drops.get(&unasked), Some(&1));
    assert_eq!(rig.h2().probes, 0);
    assert_eq!(rig.engine.misses, 0);
}

#[test]
fn another_agent_is_heard_with_its_version_and_clock() {
    let mut rig = Rig::new();
    rig.injected();
    rig.engine.probe_hosts();
    let probe = rig.injected().remove(0).packet.frame;
    // What this agent sends is what another one would; the other's clock is 90 s ahead.
    let mut ahead = probe.clone();
    let (payload, _) = ProbePayload::mut_from_prefix(&mut ahead[14..]).unwrap();
    let time = u64::from_be_bytes(payload.sent_unix_ms) + 90_000;
    payload.sent_unix_ms = time.to_be_bytes();
    payload.abi = 9;
    rig.arrives(PROBE_REQUEST, &ahead, 0);
    let agent = rig.h2().agent.unwrap();
    assert_eq!(
        (agent.version.as_str(), agent.abi),
        (env!("CARGO_PKG_VERSION"), 9)
    );
    let offset = agent.clock_offset_ms;
    assert!((89_000..=90_010).contains(&offset), "{offset}");
    // One that was less delayed counts.
    rig.arrives(PROBE_REQUEST, &probe, 0);
    assert!(rig.h2().agent.unwrap().clock_offset_ms.abs() < 1000);
}

#[test]
fn a_host_without_weftd_is_not_asked() {
    let mut rig = Rig::new();
    (0..6).for_each(|_| rig.second(0));
    assert_eq!(rig.h2().state, HostState::Down);
    rig.bind("web/far", "h2");
    rig.change("web/far", |port| {
        port.binding.as_mut().unwrap().tunnel_key = Some(4711)
    });
    let h2 = rig.host("h2");
    let published = rig.activity.clone();
    rig.activity.ports.retain(|_, (host, _)| *host != h2);
    rig.activity.floods.retain(|(_, host), _| *host != h2);
    rig.topology();
    rig.injected();
    rig.engine.probe_hosts();
    assert_eq!(rig.injected(), []);
    let (host, status) = (rig.h2(), rig.engine.report_status());
    assert_eq!(
        (host.state, host.problem, host.mtu),
        (HostState::Unmanaged, None, Some(1500))
    );
    assert!(
        !status.problems.iter().any(|it| it.contains("host h2")),
        "{:?}",
        status.problems
    );
    // What is sent to its port goes out under the declared key, floods included.
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    assert_eq!(rig.forward("web/near", &frame).unwrap().tunnel_key, 4711);
    let all = rig.frame("web/near", "arp 10.0.1.11 who-has 10.0.1.99");
    rig.send("web/near", &all);
    let list = rig.forward("web/near", &all).unwrap().flood_list;
    let list = rig.datapath().fake.flood_lists[&list];
    assert_eq!((list.remote_count, list.remotes[0].tunnel_key), (1, 4711));
    // A weftd that speaks there is asked again.
    rig.activity = published;
    rig.topology();
    rig.injected();
    rig.engine.probe_hosts();
    assert_eq!(rig.injected().len(), 1);
    assert_eq!(rig.h2().state, HostState::Unknown);
}
