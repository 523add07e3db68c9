//! How much of the verifier's patience the programs take.

use crate::bench::with_bench;

/// Half of what the kernel walks through before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`). Kernels differ by a factor of
/// four: `cargo xtask test kernels` runs this on others, and shows the numbers.
const INSTRUCTIONS_MAX: u32 = 500_000;

#[test]
fn programs_stay_far_from_the_verifiers_limit() {
    with_bench(|bench| {
        let programs = bench.kernel.programs();
        let mut infos = vec![("from_underlay_xdp", programs.xdp().expect("it").info())];
        for name in ["from_port", "from_underlay", "from_inject", "judge"] {
            infos.push((name, programs.program(name).expect("a program").info()));
        }
        for (name, info) in infos {
            let info = info.expect("its information");
            let walked = info.verified_instruction_count().expect("a count");
            let size = info.size_translated().unwrap_or(0) / 8;
            println!("{name}: {size} instructions, {walked} walked through");
            assert!(
                walked < INSTRUCTIONS_MAX,
                "{name}: {walked} instructions walked through"
            );
        }
    });
}
