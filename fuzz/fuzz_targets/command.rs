//! Fuzz target: one command: parser, table, typed views, canonical octets.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| body::command(octets));
