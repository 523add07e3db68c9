//! The demo. `cargo xtask demo` builds what it needs and runs it; see `weft_tests::demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_tests::demo::main()
}
