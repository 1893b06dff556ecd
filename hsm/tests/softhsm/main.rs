//! The whole offload over a real SoftHSM2 token: the program `cipherim-hsmd`, its socket, a client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod command;
mod fault;
mod job;
mod proxy;
mod rig;
