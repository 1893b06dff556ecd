//! The wire protocol CIM/1: one CRLF line a command, every durable statement a signed line.
//!
//! Pure: bytes in, values out. No sockets, files, clock, threads or logging; the caller brings
//! the time and the octets, so every run can be replayed. The text of the protocol is `SPEC.md`.

pub mod address;
pub mod base64;
pub mod canonical;
pub mod capability;
pub mod code;
pub mod command;
pub mod dialogue;
pub mod error;
pub mod file;
pub mod frame;
pub mod identifier;
pub mod limits;
pub mod line;
pub mod member;
pub mod merkle;
pub mod message;
pub mod offer;
pub mod parameter;
pub mod policy;
pub mod prekey;
pub mod proof;
pub mod record;
pub mod registration;
pub mod reply;
pub mod revocation;
pub mod role;
pub mod signature;
pub mod state;
pub mod suite;
pub mod table;
pub mod timestamp;
pub mod tlv;

pub use address::{Address, AddressBuf};
pub use code::Code;
pub use command::{Command, CommandBuilder};
pub use error::{Error, Malformed, StatementError};
pub use frame::LineBuffer;
pub use line::Line;
pub use parameter::{Parameter, Parameters, WireValue};
pub use reply::{Reply, ReplyBuilder};
pub use suite::{Suite, Suites};
pub use timestamp::Timestamp;
