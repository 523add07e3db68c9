//! `weft_fuzz::icmp`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::icmp(bytes));
