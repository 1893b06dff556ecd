//! The wire protocol CIM/1: one CRLF line a command, every durable statement a signed line.
//!
//! Pure: bytes in, values out. No sockets, files, clock, threads or logging; the caller brings
//! the time and the octets, so every run can be replayed. The text of the protocol is `SPEC.md`.

pub mod address;
pub mod base64;
pub mod canonical;
pub mod code;
pub mod command;
pub mod error;
pub mod frame;
pub mod limits;
pub mod line;
pub mod parameter;
pub mod reply;
pub mod signature;
pub mod timestamp;

pub use address::{Address, AddressBuf};
pub use code::Code;
pub use command::{Command, CommandBuilder};
pub use error::{Error, Malformed};
pub use frame::LineBuffer;
pub use line::Line;
pub use parameter::{Parameter, Parameters};
pub use reply::{Reply, ReplyBuilder};
