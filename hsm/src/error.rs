//! What can go wrong, whose fault it is, and what to do about it.
//!
//! [`Error::class`] is the one place that decides about retries. Every error of the token carries a
//! [`Fault`]: slot, function, return code; its text ends with the remedy in plain words. Errors
//! travel over the wire and come out equal.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::token::code;

/// What recovers from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The token, its service or its PIN is not available: try later, relaying goes on.
    Away,
    /// The caller broke a rule: the same job fails again.
    Misuse,
    /// A person must act; the same job fails again until then.
    Permanent,
    /// A session or handle was lost, or the moment was bad: the same job may succeed at once.
    Retry,
}

/// A PKCS#11 function that did not return `CKR_OK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Slot number, where one is known.
    pub slot: Option<u64>,
    /// The function, as in the standard: `C_Sign`.
    pub function: Cow<'static, str>,
    /// The return code.
    pub code: u64,
}

impl Fault {
    /// The return code's name, `CKR_DEVICE_REMOVED`; vendor codes are `CKR_VENDOR_DEFINED`.
    pub fn name(&self) -> &'static str {
        code::name(self.code)
    }

    /// What to do, in plain words.
    pub fn remedy(&self) -> &'static str {
        code::remedy(&self.function, self.code)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(slot) = self.slot {
            write!(f, "slot {slot}: ")?;
        }
        let (function, name, code) = (&self.function, self.name(), self.code);
        write!(f, "{function} answered {name} ({code:#04x}); {}", self.remedy())
    }
}

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The token is not there; the pool looks for it all the time.
    #[error("the token is away: {reason}")]
    Away {
        /// Plain words, with the remedy.
        reason: Cow<'static, str>,
        /// When a new attempt makes sense.
        retry_after: Duration,
    },
    /// A queue was full.
    #[error("busy: {what} is full ({limit})")]
    Busy {
        /// Which queue.
        what: Cow<'static, str>,
        /// Its limit.
        limit: u64,
    },
    /// A blob is damaged: its checksum or its binding to the key does not hold.
    #[error("the wrapped key is damaged: {what}; restore it from a backup")]
    Damaged {
        /// Which part.
        what: Cow<'static, str>,
    },
    /// No answer in time.
    #[error("no answer within {} ms", after.as_millis())]
    Deadline {
        /// The deadline.
        after: Duration,
    },
    /// The service cannot be reached.
    #[error("cipherim-hsmd cannot be reached at {path}: {reason}")]
    Disconnected {
        /// The socket.
        path: Cow<'static, str>,
        /// Plain words.
        reason: Cow<'static, str>,
    },
    /// The configuration does not allow this job.
    #[error("not allowed: {what}")]
    Forbidden {
        /// What, and which setting allows it.
        what: Cow<'static, str>,
    },
    /// After a reconnection a key's public part is another one: somebody exchanged token or key.
    #[error(
        "the key {key} is not the one seen before; put the former token back, or restart \
         cipherim-hsmd if the exchange was intended"
    )]
    KeyChanged {
        /// Which key.
        key: Cow<'static, str>,
    },
    /// The token has no such key.
    #[error("no key {key} in the token; make it with: cipherim-hsmd provision --domain {domain}")]
    KeyMissing {
        /// Which key.
        key: Cow<'static, str>,
        /// Whose.
        domain: Cow<'static, str>,
    },
    /// The job breaks a rule; the token was not asked.
    #[error("malformed job: {what}")]
    Malformed {
        /// Which rule.
        what: Cow<'static, str>,
    },
    /// The token cannot do this, or failed at it in its self-test.
    #[error("the token cannot {what}")]
    MechanismMissing {
        /// What, with the mechanism's name.
        what: Cow<'static, str>,
    },
    /// The vendor's library could not be loaded or does not behave like PKCS#11.
    #[error("PKCS#11 module {path}: {reason}")]
    Module {
        /// The library.
        path: Cow<'static, str>,
        /// Plain words, with the remedy.
        reason: Cow<'static, str>,
    },
    /// The blob was wrapped by another token.
    #[error(
        "this wrapped key belongs to the token with serial {wrapped_by}, but the token present \
         has {present}; plug in the former, or name its serial in token.also_known_as if this one \
         holds a copy of its keys"
    )]
    OtherToken {
        /// Serial in the blob.
        wrapped_by: Cow<'static, str>,
        /// Serial of the token present.
        present: Cow<'static, str>,
    },
    /// The PIN's source cannot be used (missing, readable by others, empty …).
    #[error("PIN: {reason}")]
    Pin {
        /// Plain words, with the remedy.
        reason: Cow<'static, str>,
    },
    /// The token refused the PIN. It is not tried again until its source changes.
    #[error(
        "the token refused the PIN ({fault}); it is not tried again until the PIN file changes"
    )]
    PinRefused {
        /// What the token said.
        fault: Fault,
    },
    /// The token refused the job for good.
    #[error("{fault}")]
    Refused {
        /// What the token said.
        fault: Fault,
    },
    /// The service is stopping.
    #[error("cipherim-hsmd is stopping")]
    Stopping,
    /// A call to the token failed in a way that a new session or a present token may cure.
    #[error("{fault}")]
    Token {
        /// What the token said.
        fault: Fault,
    },
    /// The bytes on the socket are not this protocol; the connection is closed.
    #[error("malformed frame: {what}; the connection is closed")]
    Wire {
        /// Which rule.
        what: Cow<'static, str>,
    },
    /// The token gave an answer which is wrong: a signature that does not hold, another key.
    #[error("the token gave a wrong answer: {what}; take it out of service and have it examined")]
    WrongAnswer {
        /// Which.
        what: Cow<'static, str>,
    },
}

impl Error {
    /// Decides about retries: the only place that does.
    pub fn class(&self) -> Class {
        match self {
            Self::Token { fault } => code::class(fault.code),
            Self::Busy { .. } | Self::Deadline { .. } => Class::Retry,
            Self::Away { .. } | Self::Disconnected { .. } => Class::Away,
            Self::Stopping | Self::PinRefused { .. } | Self::Pin { .. } => Class::Away,
            Self::Forbidden { .. } | Self::Malformed { .. } | Self::Wire { .. } => Class::Misuse,
            Self::Damaged { .. } | Self::KeyChanged { .. } | Self::KeyMissing { .. } => {
                Class::Permanent
            }
            Self::MechanismMissing { .. } | Self::Module { .. } | Self::OtherToken { .. } => {
                Class::Permanent
            }
            Self::Refused { .. } | Self::WrongAnswer { .. } => Class::Permanent,
        }
    }

    /// When a new attempt makes sense, for the `RETRY` of a 451; `None` if never by itself.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Away { retry_after, .. } => Some(*retry_after),
            _ => match self.class() {
                Class::Away => Some(Duration::from_secs(5)),
                Class::Retry => Some(Duration::from_secs(1)),
                Class::Misuse | Class::Permanent => None,
            },
        }
    }

    /// The fault of the token, where one caused this.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::PinRefused { fault } | Self::Refused { fault } | Self::Token { fault } => {
                Some(fault)
            }
            _ => None,
        }
    }

    /// A broken rule.
    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::Malformed { what: Cow::Borrowed(what) }
    }

    /// Bytes that are not the protocol.
    pub(crate) const fn wire(what: &'static str) -> Self {
        Self::Wire { what: Cow::Borrowed(what) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_slot_function_code_and_remedy() {
        let fault = Fault { slot: Some(7), function: "C_Sign".into(), code: 0x32 };
        let text = Error::Token { fault }.to_string();
        for part in ["slot 7", "C_Sign", "CKR_DEVICE_REMOVED", "0x32", "plug"] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }

    #[test]
    fn classes_of_return_codes() {
        for (code, class) in [
            (0x30, Class::Away),
            (0x32, Class::Away),
            (0x05, Class::Away),
            (0xE0, Class::Away),
            (0x82, Class::Retry),
            (0xB3, Class::Retry),
            (0x101, Class::Retry),
            (0xA0, Class::Permanent),
            (0x70, Class::Permanent),
            (0x8000_0001, Class::Away),
        ] {
            let fault = Fault { slot: None, function: "C_Sign".into(), code };
            assert_eq!(Error::Token { fault }.class(), class, "{code:#x}");
        }
    }
}
