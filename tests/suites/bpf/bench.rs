//! One loaded object in a network namespace of its own, with a port bound to its loopback interface.

use aya::programs::ProgramError;
use aya::{TestRun, TestRunOptions};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use weft_common::ecn::ECN_MASK;
use weft_common::frame::extract;
use weft_common::peer::{PEER_IPV6, PEER_RESOLVED, PEER_VALID, PeerRecord, address_bytes};
use weft_common::port::{Delivery, PortKind, PortRecord};
use weft_common::{DropReason, FlowKey, Slot, SlotRef};
use weft_datapath::{Datapath, FlowId, FlowTable, Kernel, KernelConfig, Miss};

/// `TC_ACT_UNSPEC`
pub const PASS: u32 = u32::MAX;
/// `TC_ACT_SHOT`
pub const SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`
pub const REDIRECT: u32 = 7;
/// The port that test packets come in by.
pub const PORT: u16 = 1;
/// Another port, to which nothing is attached.
pub const OTHER: u16 = 2;
/// Own underlay address.
pub const OWN: [u8; 4] = [172, 30, 1, 1];
/// The remote host's, with underlay record 1.
pub const REMOTE: [u8; 4] = [172, 30, 2, 1];
/// Own underlay address of IPv6.
pub const OWN_V6: [u16; 8] = [0xfd30, 1, 0, 0, 0, 0, 0, 1];
/// The other remote host's, with underlay record 2.
pub const REMOTE_V6: [u16; 8] = [0xfd30, 2, 0, 0, 0, 0, 0, 1];
/// Generation of both ports' keys.
pub const GENERATION: u8 = 3;

/// What a run gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// `TC_ACT_*`
    pub verdict: u32,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}

/// See the module's text.
pub struct Bench {
    pub kernel: Kernel,
    pub table: FlowTable,
    /// Folder of the pins.
    pub pin: PathBuf,
}

/// Runs `test` with a bench of its own.
pub fn with_bench(test: impl FnOnce(&mut Bench) + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let pin = PathBuf::from(format!(
        "/sys/fs/bpf/weft/{:04x}-bpf{number}",
        std::process::id() & 0xffff
    ));
    let thread = std::thread::spawn(move || {
        // Pins go away with this value, also when the test panics.
        let _pins = Pins(pin.clone());
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        test(&mut Bench::new(pin));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = Kernel::release_pins(&self.0);
    }
}

impl Bench {
    fn new(pin: PathBuf) -> Bench {
        let mut kernel = Kernel::open(&KernelConfig { pin: pin.clone() })
            .expect("the kernel takes the programs");
        let attachment = kernel.attach_port(PORT, "lo").expect("attached to lo");
        for (port, ifindex) in [(PORT, attachment.ifindex), (OTHER, 4711)] {
            let record = PortRecord {
                kind: PortKind::Port as u8,
                generation: GENERATION,
                delivery: Delivery::Plain as u8,
                ifindex,
                ..PortRecord::default()
            };
            kernel.write_port(port, &record).expect("a port record");
        }
        for own in [IpAddr::from(OWN), OWN_V6.into()] {
            kernel
                .set_own_address(address_bytes(own), true)
                .expect("own address");
        }
        for (index, remote) in [(1, IpAddr::from(REMOTE)), (2, REMOTE_V6.into())] {
            kernel
                .set_remote_host(address_bytes(remote), Some(index))
                .expect("remote host");
        }
        kernel.write_peer(1, &peer()).expect("underlay record");
        kernel.write_peer(2, &peer_v6()).expect("underlay record");
        let table = FlowTable::new(kernel.slot_generation());
        Bench { kernel, table, pin }
    }

    /// Runs a program once over a frame that came in on the loopback interface.
    pub fn run(&mut self, program: &'static str, frame: &[u8]) -> Run {
        self.run_gso(program, frame, 0)
    }

    /// Like [`Bench::run`]; none for a frame that BPF_PROG_TEST_RUN doesn't take (6.18: less than a whole IP header).
    pub fn try_run(&mut self, program: &'static str, frame: &[u8]) -> Option<Run> {
        self.test_run(program, frame, 0).ok()
    }

    /// Like [`Bench::run`], for a packet that is to be cut into segments of `gso_size` bytes.
    pub fn run_gso(&mut self, program: &'static str, frame: &[u8], gso_size: u32) -> Run {
        let run = self.test_run(program, frame, gso_size);
        run.expect("BPF_PROG_TEST_RUN")
    }

    /// Like [`Bench::run`], for a packet with a mark.
    pub fn run_marked(&mut self, program: &'static str, frame: &[u8], mark: u32) -> Run {
        // struct __sk_buff: mark at 8.
        let mut context = [0; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        let run = self.run_with(program, frame, context);
        run.expect("BPF_PROG_TEST_RUN")
    }

    fn test_run(
        &mut self,
        program: &'static str,
        frame: &[u8],
        gso_size: u32,
    ) -> Result<Run, ProgramError> {
        // struct __sk_buff: gso_segs at 164, gso_size at 176.
        let mut context = [0u8; 192];
        if gso_size > 0 {
            context[164..168].copy_from_slice(&2u32.to_ne_bytes());
            context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        }
        self.run_with(program, frame, context)
    }

    fn run_with(
        &mut self,
        program: &'static str,
        frame: &[u8],
        context: [u8; 192],
    ) -> Result<Run, ProgramError> {
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let program = self
            .kernel
            .programs()
            .program(program)
            .expect("a program of this name");
        let result = program.test_run(options)?;
        let length = result.data_size_out as usize;
        out.truncate(length);
        Ok(Run {
            verdict: result.return_value,
            frame: out,
        })
    }

    /// Runs a program over the same frame again and again, as fast as the kernel can. Returns how long one run took,
    /// on average.
    pub fn run_many(&mut self, program: &'static str, frame: &[u8], times: u32) -> Duration {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: times,
            ..TestRunOptions::new()
        };
        let program = self.kernel.programs().program(program);
        let program = program.expect("a program of this name");
        let result = program.test_run(options).expect("BPF_PROG_TEST_RUN");
        result.duration
    }

    /// Installs a flow for the frame's key under `mask`.
    pub fn install(&mut self, frame: &[u8], mask: &FlowKey, slot: Slot) -> FlowId {
        let key = key_of(frame);
        let target = self.reserve(slot);
        self.table
            .install(&mut self.kernel, &key, mask, target, &slot, 0)
            .expect("a flow")
    }

    /// Writes a slot that no flow refers to.
    pub fn reserve(&mut self, slot: Slot) -> SlotRef {
        self.table.reserve(&mut self.kernel, &slot).expect("a slot")
    }

    /// How often `port` dropped for `reason`.
    pub fn drops(&self, port: u16, reason: DropReason) -> u64 {
        let drops = self.kernel.drops(port).expect("drop counters");
        drops
            .into_iter()
            .find(|(found, _)| *found == reason)
            .map_or(0, |(_, count)| count)
    }

    /// All misses that are waiting.
    pub fn misses(&mut self) -> Vec<Miss> {
        let mut misses = Vec::new();
        // Two looks: the first may find the buffers exchanged.
        for _ in 0..2 {
            self.kernel
                .poll_misses(Duration::from_millis(20), &mut |miss| misses.push(miss))
                .expect("misses");
        }
        misses
    }
}

/// The key that user space extracts from a frame of [`PORT`].
pub fn key_of(frame: &[u8]) -> FlowKey {
    let mut key = FlowKey::default();
    extract(frame, PORT, None, &mut key).expect("a well-formed frame");
    key
}

/// A mask of all bits.
pub fn exact() -> FlowKey {
    let mut mask = FlowKey::default();
    let ones = [0xff; 6];
    mask.head.port = 0xffff;
    mask.head.class = 0xff;
    mask.head.vlan = 0xffff;
    mask.head.protocol = 0xff;
    mask.head.tos = 0xff;
    mask.head.src_mac = ones;
    mask.head.dst_mac = ones;
    mask.head.l4_src = 0xffff;
    mask.head.l4_dst = 0xffff;
    mask.src = [0xff; 16];
    mask.dst = [0xff; 16];
    mask
}

/// The way to the remote host, by the loopback interface.
pub fn peer() -> PeerRecord {
    let words = [0x4500u32, 0x4000, 0x402f, 0xac1e, 0x0101, 0xac1e, 0x0201];
    let sum: u32 = words.iter().sum();
    PeerRecord {
        ifindex: 1,
        mtu: 1500,
        flags: PEER_VALID | PEER_RESOLVED,
        checksum_base: (sum & 0xffff) + (sum >> 16),
        tos_mask: ECN_MASK,
        src: address_bytes(OWN.into()),
        dst: address_bytes(REMOTE.into()),
        dst_mac: [0x0a, 0, 0, 0, 0, 2],
        src_mac: [0x0a, 0, 0, 0, 0, 1],
        ..PeerRecord::default()
    }
}

/// The way to the remote host over IPv6.
pub fn peer_v6() -> PeerRecord {
    PeerRecord {
        flags: PEER_VALID | PEER_RESOLVED | PEER_IPV6,
        checksum_base: 0,
        src: address_bytes(OWN_V6.into()),
        dst: address_bytes(REMOTE_V6.into()),
        ..peer()
    }
}
