//! The closed catalogue of what the relay reports: logs and metrics are made from it.
//!
//! Never content, keys or PINs; addresses only at `debug`.

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The wall clock jumped; nothing is given up until it is believed.
    ClockJumped,
    /// A link was closed because nothing came, or no login.
    IdleClosed,
    /// A wrong, used or expired invitation was shown.
    InvitationRefused,
    /// A key was revoked.
    KeyRevoked,
    /// A line was refused before it reached its command.
    LineRefused {
        /// The reply code it got.
        code: u16,
    },
    /// A device has proven itself.
    LoggedIn,
    /// A network asked for more logins than it may.
    LoginsLimited,
    /// A commit's outcome is not known; its link was closed.
    OutcomeUnknown,
    /// The policy in force is another one.
    PolicyPublished,
    /// A device has few one-time prekeys left.
    PrekeysLow,
    /// A proof did not hold, or was given for a revoked key.
    ProofFailed,
    /// A client sends commands and reads no answers; its link was closed.
    OutboxOverflowed,
    /// A row of a queue is damaged; the lines behind it are delivered.
    QueueDamaged,
    /// An account has a new record.
    RecordPublished,
    /// An account was registered.
    Registered,
    /// A client sent a reply where only commands are taken.
    ReplyIgnored,
    /// The domain takes no new lines and waits for commits under way.
    Stopping,
    /// The store refused a commit.
    StoreRefused,
}
