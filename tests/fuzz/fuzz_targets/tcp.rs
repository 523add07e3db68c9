//! `weft_fuzz::tcp`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::tcp(bytes));
