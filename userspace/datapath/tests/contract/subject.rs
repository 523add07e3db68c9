//! The two datapaths under test, and how each shows what it decides.

use aya::{TestRun, TestRunOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use weft_common::port::{PortKind, PortRecord};
use weft_common::{DropReason, FlowKey, extract};
use weft_datapath::{Datapath, Fake, Kernel, KernelConfig};

/// The ingress port.
pub const PORT: u16 = 1;

/// A datapath that can be asked what it does with a packet.
pub trait Subject {
    type Path: Datapath;
    fn datapath(&mut self) -> &mut Self::Path;
    /// What is decided on the packet to 10.0.0.`last`: none for a miss.
    fn decide(&mut self, last: u8) -> Option<DropReason>;
    /// How many injected packets got this decision.
    fn injected(&mut self, reason: DropReason) -> u64;
}

/// A UDP packet to 10.0.0.`last`.
pub fn frame(last: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([
        0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 1, 1, 10, 0, 0, last,
    ]);
    frame.extend([3, 232, 7, 208, 0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

pub fn key(last: u8) -> FlowKey {
    let mut key = FlowKey::default();
    extract(frame(last).as_slice(), PORT, None, &mut key).unwrap();
    key
}

/// Ingress port and `bits` of the destination.
pub fn mask(bits: u32) -> FlowKey {
    let mut mask = FlowKey::default();
    mask.head.port = 0xffff;
    mask.head.class = 0xff;
    mask.set_dst_v4((u32::MAX << (32 - bits)).to_be_bytes());
    mask
}

impl Subject for Fake {
    type Path = Fake;

    fn datapath(&mut self) -> &mut Fake {
        self
    }

    fn decide(&mut self, last: u8) -> Option<DropReason> {
        DropReason::from_number(self.forward(&key(last))?.drop_reason)
    }

    fn injected(&mut self, reason: DropReason) -> u64 {
        let slots = self.injected.iter().filter_map(|injected| injected.slot);
        slots
            .filter(|slot| slot.drop_reason == reason as u8)
            .count() as u64
    }
}

impl Subject for Kernel {
    type Path = Kernel;

    fn datapath(&mut self) -> &mut Kernel {
        self
    }

    fn decide(&mut self, last: u8) -> Option<DropReason> {
        let before = self.drops(PORT).unwrap();
        let frame = frame(last);
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        };
        self.programs()
            .program("from_port")
            .unwrap()
            .test_run(options)
            .unwrap();
        let after = self.drops(PORT).unwrap();
        after
            .into_iter()
            .find(|count| !before.contains(count))
            .map(|(reason, _)| reason)
    }

    fn injected(&mut self, reason: DropReason) -> u64 {
        // The TAP's frames are handled in softirq, at once as a rule.
        let end = Instant::now() + Duration::from_secs(1);
        loop {
            let drops = self.drops(PORT).unwrap();
            let count = drops
                .iter()
                .find(|(found, _)| *found == reason)
                .map_or(0, |(_, count)| *count);
            if count > 0 || Instant::now() > end {
                return count;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A fake with a loopback interface and the ingress port.
pub fn fake() -> Fake {
    let mut fake = Fake::default();
    fake.add_interface("lo", 1);
    bind(&mut fake, 1);
    fake
}

fn bind(datapath: &mut impl Datapath, ifindex: u32) {
    let record = PortRecord {
        kind: PortKind::Port as u8,
        ifindex,
        ..PortRecord::default()
    };
    datapath.write_port(PORT, &record).unwrap();
}

/// A pin folder of this process.
pub fn pin(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!(
        "/sys/fs/bpf/weft/{:04x}-{name}{number}",
        std::process::id() & 0xffff
    ))
}

/// Runs a test in a network namespace of its own and removes its pins, also after a panic.
pub fn in_namespace(pin: PathBuf, test: impl FnOnce(PathBuf) + Send + 'static) {
    struct Pins(PathBuf);
    impl Drop for Pins {
        fn drop(&mut self) {
            let _ = Kernel::release_pins(&self.0);
        }
    }
    let thread = std::thread::spawn(move || {
        let pins = Pins(pin);
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        test(pins.0.clone());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test with a kernel datapath whose ingress port is the loopback interface.
pub fn with_kernel(test: impl FnOnce(&mut Kernel) + Send + 'static) {
    in_namespace(pin("contract"), move |pin| {
        let mut kernel = Kernel::open(&KernelConfig { pin }).unwrap();
        let attachment = kernel.attach_port(PORT, "lo").unwrap();
        bind(&mut kernel, attachment.ifindex);
        test(&mut kernel);
    });
}
