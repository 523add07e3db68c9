//! The kernel accepts the programs, and its maps keep what is written.

use weft_datapath::{Datapath, Kernel, KernelConfig};

#[test]
fn the_programs_load() {
    let pin = std::path::PathBuf::from(format!("/sys/fs/bpf/weft/{:04x}-load", std::process::id() & 0xffff));
    let namespace = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let kernel = Kernel::open(&KernelConfig { pin: pin.clone() });
        let result = kernel.map(|mut kernel| {
            kernel.write_port(1, &Default::default()).unwrap();
            kernel.slot_generation()
        });
        Kernel::unpin_all(&pin).unwrap();
        result
    });
    let generation = namespace.join().unwrap();
    assert_eq!(generation.map_err(|error| error.to_string()), Ok(0));
}
