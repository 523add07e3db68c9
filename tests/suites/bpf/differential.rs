//! Random packets through the loaded programs, beside what the simulation decides and what the independent model says:
//! verdict, rewritten bytes and drop reason.
//!
//! `WEFT_FUZZ_CASES` and `WEFT_FUZZ_SEED` ask for more, or for another, than what CI runs.

mod generator;
pub mod network;

use crate::bench::{Bench, PORT, REDIRECT, SHOT, with_bench};
use generator::Generator;
use network::Network;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use weft_common::fragment::{FragmentKey, FragmentPorts};
use weft_common::slot::Output;
use weft_common::{DropReason, Fragment, Slot};
use weft_datapath::Datapath;
use weft_tests::model::forwarding::{self, Expected};
use weft_vnet::{Entry, NoTrace, Packet, simulate};

const CASES: u64 = 8_000;
/// Cases after which the misses are read, so that their buffers don't run over.
const BATCH: u64 = 200;
/// Reasons for which a packet that should go up doesn't: the test sends faster than a port may.
const HELD_BACK: [DropReason; 3] = [
    DropReason::MissRate,
    DropReason::MissLost,
    DropReason::MissQueueFull,
];

/// What the kernel did with a packet.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Drop(DropReason),
    /// To the port with this index, or to the remote host under this tunnel key, as these bytes.
    Local(u16, Vec<u8>),
    Tunnel(u32, Vec<u8>),
    /// Copies to local ports; the remote ones are counted at the end.
    Flood(Vec<u16>),
    Up,
}

struct Fuzz<'a> {
    bench: &'a mut Bench,
    network: Network,
    /// The test's own fragment table.
    first: HashMap<[u8; 48], (FragmentPorts, Instant)>,
}

#[test]
fn kernel_simulation_and_model_agree() {
    with_bench(|bench| {
        let seed = number("WEFT_FUZZ_SEED", 1);
        let cases = number("WEFT_FUZZ_CASES", CASES);
        let network = Network::new(bench);
        let mut fuzz = Fuzz {
            bench,
            network,
            first: HashMap::new(),
        };
        let mut generator = Generator::new(seed);
        let mut seen: HashMap<&str, u64> = HashMap::new();
        let mut opinions = 0;
        for case in 0..cases {
            let frame = generator.frame();
            let Some((done, has_opinion)) = fuzz.check(&frame) else {
                continue;
            };
            opinions += u64::from(has_opinion);
            *seen.entry(name(&done)).or_default() += 1;
            if case % BATCH == 0 {
                while !fuzz.bench.misses().is_empty() {}
            }
        }
        println!("seed {seed}: {seen:?}, {opinions} opinions of the model");
        // A test whose packets all end the same way shows nothing.
        for way in ["drop", "local", "tunnel", "flood", "up"] {
            let count = seen.get(way).copied().unwrap_or(0);
            assert!(count > cases / 100, "only {count} of {cases} cases: {way}");
        }
        assert!(opinions > cases / 2, "{opinions} of {cases}");
    });
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn name(done: &Done) -> &'static str {
    match done {
        Done::Drop(_) => "drop",
        Done::Local(..) => "local",
        Done::Tunnel(..) => "tunnel",
        Done::Flood(_) => "flood",
        Done::Up => "up",
    }
}

impl Fuzz<'_> {
    /// Compares the three. None where a fragment's first one may just be timing out.
    fn check(&mut self, frame: &[u8]) -> Option<(Done, bool)> {
        let decided = self.decide(frame)?;
        let done = self.run(frame);
        let context = || format!("{}\nkernel {done:?}\nsimulation {decided:?}", hex_of(frame));
        let same = match (&done, &decided) {
            (Done::Local(port, sent), Done::Local(other, expected)) => {
                port == other && forwarding::is_sent_as(expected, sent, frame)
            }
            (Done::Tunnel(key, sent), Done::Tunnel(other, expected)) => {
                key == other && forwarding::is_sent_as(expected, sent, frame)
            }
            _ => done == decided,
        };
        assert!(same, "kernel and simulation: {}", context());
        let expected = forwarding::judge(frame);
        let same = match (&done, &expected) {
            (_, Expected::Anything) => true,
            // The first of its flow: the agent drops it.
            (Done::Up, _) if forwarding::is_damaged(frame) => true,
            (Done::Drop(reason), Expected::Drop(name)) => reason.name() == *name,
            (Done::Local(..) | Done::Tunnel(..), Expected::To(number, bytes)) => {
                let (place, sent) = match &done {
                    Done::Local(port, sent) => (self.network.local(*port), sent),
                    Done::Tunnel(key, sent) => (self.network.remote(*key), sent),
                    _ => unreachable!("one of the two"),
                };
                place == Some(*number) && forwarding::is_sent_as(bytes, sent, frame)
            }
            (Done::Flood(_), Expected::Flood) | (Done::Up, Expected::Agent) => true,
            _ => false,
        };
        assert!(same, "kernel and model ({expected:?}): {}", context());
        Some((done, expected != Expected::Anything))
    }

    /// What the simulation says, after installing its flow where there is none yet.
    fn decide(&mut self, frame: &[u8]) -> Option<Done> {
        let packet = match Packet::parse(Entry::Workload(self.network.ingress), PORT, frame, None) {
            Ok(packet) => packet,
            Err(reason) => return Some(Done::Drop(reason)),
        };
        let packet = packet.after(&self.first_fragment(&packet)?);
        let Network {
            snapshot, state, ..
        } = &self.network;
        let outcome = simulate(snapshot, state, &packet, 0, &mut NoTrace);
        // What is installed is carried out, whatever the header's checksum is.
        let installed = self.bench.table.find(&packet.key).map(|flow| flow.slot);
        if forwarding::is_damaged(frame)
            && let Some(slot) = installed
        {
            return Some(carried_out(&slot, frame, &packet));
        }
        let slot = self.network.compile(&outcome);
        if outcome.install && self.bench.table.find(&packet.key).is_none() {
            let target = self.bench.reserve(slot);
            let (table, kernel) = (&mut self.bench.table, &mut self.bench.kernel);
            let installed = table.install(kernel, &packet.key, &outcome.mask, target, &slot, 0);
            installed.expect("room for a flow");
        }
        Some(if outcome.install {
            carried_out(&slot, frame, &packet)
        } else {
            Done::Up
        })
    }

    /// What is known of the first fragment, where this is a later one; notes it, where this is the first.
    fn first_fragment(&mut self, packet: &Packet<'_>) -> Option<FragmentPorts> {
        let name = FragmentKey::of(&packet.key, packet.headers.fragment_id);
        let bytes = zerocopy::transmute!(name);
        match packet.key.head.fragment() {
            Fragment::Whole => Some(FragmentPorts::default()),
            Fragment::First => {
                let ports = FragmentPorts::of(&packet.key.head, 0);
                self.first.insert(bytes, (ports, Instant::now()));
                Some(ports)
            }
            Fragment::Later => match self.first.get(&bytes) {
                Some((_, since)) if since.elapsed() > Duration::from_secs(15) => None,
                Some((ports, _)) => Some(*ports),
                None => Some(FragmentPorts::default()),
            },
        }
    }

    /// What the kernel does, by its verdict and counters.
    fn run(&mut self, frame: &[u8]) -> Done {
        let drops = self.drops();
        let copies = self.network.egress(self.bench);
        let run = match self.bench.try_run("from_port", frame) {
            Some(run) => run,
            // Shorter than BPF_PROG_TEST_RUN takes: the generator keeps away from that.
            None => panic!("BPF_PROG_TEST_RUN refuses {}", hex_of(frame)),
        };
        let reasons: Vec<DropReason> = self
            .drops()
            .into_iter()
            .filter(|counted| !drops.contains(counted))
            .map(|(reason, _)| reason)
            .collect();
        let delivered: Vec<u16> = self
            .network
            .egress(self.bench)
            .into_iter()
            .zip(copies)
            .filter(|((_, after), (_, before))| after != before)
            .map(|((port, _), _)| port)
            .collect();
        match (run.verdict, &reasons[..], &delivered[..]) {
            (SHOT, [], []) => Done::Up,
            (SHOT, [reason], []) if HELD_BACK.contains(reason) => Done::Up,
            (SHOT, [reason], []) => Done::Drop(*reason),
            (SHOT, [], _) => Done::Flood(delivered),
            (REDIRECT, [], [port]) => Done::Local(*port, run.frame),
            (REDIRECT, [], []) => {
                // Ethernet, IPv4, GRE; the key is the last of GRE.
                let (outer, inner) = run.frame.split_at(42);
                let key = u32::from_be_bytes(outer[38..].try_into().expect("4 bytes"));
                Done::Tunnel(key, inner.to_vec())
            }
            other => panic!("{other:?} of {}", hex_of(frame)),
        }
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.bench.kernel.drops(PORT).expect("drop counters")
    }
}

/// What a slot says of this packet.
fn carried_out(slot: &Slot, frame: &[u8], packet: &Packet<'_>) -> Done {
    if slot.output == Output::Drop as u8 {
        return Done::Drop(DropReason::from_number(slot.drop_reason).expect("a reason"));
    }
    if slot.ttl_decrement != 0 && packet.headers.ttl <= slot.ttl_decrement {
        return Done::Up;
    }
    let mut sent = frame.to_vec();
    if slot.ttl_decrement != 0 {
        sent[..6].copy_from_slice(&slot.dst_mac);
        sent[6..12].copy_from_slice(&slot.src_mac);
        let is_v6 = packet.key.head.network() == weft_common::Network::Ipv6;
        let at = usize::from(packet.headers.l3_offset) + if is_v6 { 7 } else { 8 };
        sent[at] -= slot.ttl_decrement;
    }
    match Output::from_number(slot.output) {
        Some(Output::Local) => Done::Local(slot.port, sent),
        Some(Output::Tunnel) => Done::Tunnel(slot.tunnel_key, sent),
        Some(Output::Flood) => Done::Flood(network::FLOOD_LOCALS.to_vec()),
        _ => Done::Up,
    }
}

fn hex_of(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
