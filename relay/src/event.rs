//! The closed catalogue of what the relay reports: logs and metrics are made from it.
//!
//! Never content, keys or PINs; addresses only at `debug`.

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The wall clock jumped; nothing is given up until it is believed.
    ClockJumped,
    /// Something keeps the relay from doing all it is for: the token is away, the disk is full.
    Hindered,
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
    /// What hindered the relay is over.
    Unhindered,
}

/// How loudly an event is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// One session's affair.
    Debug,
    /// A person must act.
    Error,
    /// A state changed.
    Info,
    /// A person should look soon.
    Warn,
}

impl Event {
    /// The name in logs and in the label of `relay_events_total`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClockJumped => "clock_jumped",
            Self::Hindered => "hindered",
            Self::IdleClosed => "idle_closed",
            Self::InvitationRefused => "invitation_refused",
            Self::KeyRevoked => "key_revoked",
            Self::LineRefused { .. } => "line_refused",
            Self::LoggedIn => "logged_in",
            Self::LoginsLimited => "logins_limited",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::PolicyPublished => "policy_published",
            Self::PrekeysLow => "prekeys_low",
            Self::ProofFailed => "proof_failed",
            Self::OutboxOverflowed => "outbox_overflowed",
            Self::QueueDamaged => "queue_damaged",
            Self::RecordPublished => "record_published",
            Self::Registered => "registered",
            Self::ReplyIgnored => "reply_ignored",
            Self::Stopping => "stopping",
            Self::StoreRefused => "store_refused",
            Self::Unhindered => "unhindered",
        }
    }

    /// How loudly it is logged.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::QueueDamaged => Severity::Error,
            Self::ClockJumped | Self::Hindered | Self::OutcomeUnknown | Self::StoreRefused => {
                Severity::Warn
            }
            Self::KeyRevoked
            | Self::PolicyPublished
            | Self::Registered
            | Self::Stopping
            | Self::Unhindered => Severity::Info,
            _ => Severity::Debug,
        }
    }

    /// A number that belongs to it, such as the code of a reply.
    #[must_use]
    pub const fn detail(&self) -> Option<u16> {
        match self {
            Self::LineRefused { code } => Some(*code),
            _ => None,
        }
    }
}
