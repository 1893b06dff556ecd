//! Fuzz target: signed lines: records, prekeys, revocations, policies, registrations.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| body::record(octets));
