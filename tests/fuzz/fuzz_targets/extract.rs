//! `weft_fuzz::extract`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::extract(bytes));
