//! `weft_fuzz::fragment`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::fragment(bytes));
