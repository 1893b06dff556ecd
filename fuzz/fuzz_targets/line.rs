//! Fuzz target: one stream of octets, cut into lines and read.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| body::line(octets));
