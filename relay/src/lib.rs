//! The library of the relay `cipherim-relay`: its layers, from the ring up to the sessions.
//!
//! Lower layers never import higher ones. ARCHITECTURE.md §2 lists them.

pub mod admin;
pub mod clock;
pub mod config;
pub mod depot;
pub mod directory;
pub mod event;
pub mod keys;
pub mod limits;
pub mod net;
pub mod presence;
pub mod ring;
pub mod roster;
pub mod route;
pub mod serve;
pub mod session;
pub mod spool;
pub mod store;
