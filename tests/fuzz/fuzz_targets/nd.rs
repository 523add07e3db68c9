//! `weft_fuzz::nd`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::nd(bytes));
