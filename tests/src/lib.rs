//! Whole-system tests: real processes, a real PKCS#11 token, a wire that is captured and cut.
//!
//! [`site::Site`] is one domain on loopback with everything it needs in one folder;
//! [`person::Person`] is one user driving the real `cim`; [`wire::Wire`] is the link between.
//! [`exchange`] is the conversation that `cargo xtask dev` shows and the system test repeats.
//! [`stage::Stage`] is what faults are tried on; [`link::Link`] and [`device::Device`] say what no
//! client would.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what is not in it")]

pub mod device;
pub mod disk;
pub mod exchange;
pub mod line;
pub mod link;
pub mod person;
pub mod process;
pub mod puppet;
pub mod site;
pub mod stage;
pub mod terminal;
pub mod wire;

/// The variable with which nothing may be skipped: CI sets it.
const SKIP_NOTHING: &str = "CIPHERIM_SKIP_NOTHING";

/// Says that a part of a test was not tried, and why.
///
/// # Panics
/// Where nothing may be skipped.
#[allow(clippy::panic, reason = "ends a test that must not pass for one that was tried")]
pub fn skip(why: &str) {
    assert!(std::env::var_os(SKIP_NOTHING).is_none(), "{SKIP_NOTHING} is set, but {why}");
    eprintln!("SKIPPED: {why}");
}
