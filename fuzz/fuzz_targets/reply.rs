//! Fuzz target: one reply: parser, text for eyes, assembler, capabilities.
#![no_main]

#[path = "../body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| body::reply(octets));
