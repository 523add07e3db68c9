//! `weft_fuzz::arp`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weft_fuzz::arp(bytes));
