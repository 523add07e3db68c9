//! How much of the verifier's patience the programs take.

use crate::bench::with_bench;

/// Half of what the kernel walks through before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`). Kernels differ by a factor of
/// four: `cargo xtask test kernels` runs this on others, and shows the numbers.
const INSTRUCTIONS_MAX: u32 = 500_000;

#[test]
fn programs_stay_far_from_the_verifiers_limit() {
    with_bench(|bench| {
        for name in ["from_port", "from_underlay", "from_inject"] {
            let program = bench.kernel.programs().program(name).expect("a program");
            let info = program.info().expect("its information");
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
