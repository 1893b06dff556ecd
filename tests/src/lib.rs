//! Whole-system tests: real processes, a real PKCS#11 token, a wire that is captured and cut.
//!
//! [`site::Site`] is one domain on loopback with everything it needs in one folder;
//! [`person::Person`] is one user driving the real `cim`; [`wire::Wire`] is the link between.
//! [`exchange`] is the conversation that `cargo xtask dev` shows and the system test repeats.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what is not in it")]

pub mod exchange;
pub mod person;
pub mod process;
pub mod puppet;
pub mod site;
pub mod terminal;
pub mod wire;
