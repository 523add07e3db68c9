//! `weft_fuzz::undelivered`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::undelivered(bytes));
