//! The library of the relay `cipherim-relay`: its layers, from the ring up to the sessions.
//!
//! Lower layers never import higher ones. ARCHITECTURE.md §2 lists them.

pub mod keys;
pub mod store;
