//! The closed catalogue of what the relay reports: logs and metrics are made from it.
//!
//! Never content, keys or PINs; addresses only at `debug`.

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line was refused before it reached its command.
    LineRefused {
        /// The reply code it got.
        code: u16,
    },
    /// A client sent a reply where only commands are taken.
    ReplyIgnored,
}
