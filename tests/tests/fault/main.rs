//! Faults on the whole system: real processes over loopback, and after each fault the relay
//! lives, has bounded memory, has lost nothing, and lets two people talk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod cim;
mod clock;
mod crowd;
mod disk;
mod line;
mod reader;
mod stop;
mod transport;
