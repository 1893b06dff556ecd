//! The CIM/1 client: what a person's device knows, and the engine that talks for it.
//!
//! Sans-I/O: lines, time and random octets come in, lines and events go out; sockets and the
//! terminal belong to the program. The protocol's text is `SPEC.md`; section numbers refer to it.

pub mod chain;
pub mod connection;
pub mod directory;
pub mod engine;
pub mod file;
pub mod identity;
pub mod keyfile;
pub mod limits;
pub mod link;
pub mod mime;
mod outbox;
pub mod password;
pub mod phrase;
pub mod prekey;
mod queue;
pub mod random;
pub mod secret;
mod session;
pub mod state;
pub mod suite;
