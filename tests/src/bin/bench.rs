//! The benchmarks. `cargo xtask bench` builds what they need and runs them; see `weft_tests::bench`.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_tests::bench::main()
}
