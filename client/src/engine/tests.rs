//! Engines talking to each other over a tiny relay, with virtual time, faults and crashes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod account;
mod crash;
mod depot;
mod ending;
mod exchange;
mod kept;
mod refusal;
mod relay;
mod simulation;
mod suite;
mod transfer;
mod world;
