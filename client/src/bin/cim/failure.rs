//! Why a command failed: for the person in words, for scripts in an exit status.
//!
//! The one place that turns errors of the library into an exit status and a hint.

use std::process::ExitCode;

use client::connection::ConnectionError;
use client::engine::EngineError;
use client::keyfile::KeyfileError;
use client::state::StateError;

use crate::output;

/// A failure with its class.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    class: Class,
    code: Option<u16>,
    text: String,
    /// Whether the person was told already.
    is_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Busy,
    Internal,
    Refused,
    Stopped,
    Temporary,
    Trust,
    Unread,
    Usage,
}

impl Failure {
    fn new(class: Class, code: Option<u16>, text: impl Into<String>) -> Self {
        Self { class, code, text: text.into(), is_told: false }
    }

    /// The person is busy and nobody chose what to do.
    pub(crate) fn busy(text: impl Into<String>) -> Self {
        Self::new(Class::Busy, Some(350), text)
    }

    /// A fault in this program.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(Class::Internal, None, text)
    }

    /// What the relay's reply says.
    pub(crate) fn reply(code: u16, text: impl Into<String>) -> Self {
        let class = match code {
            350 => Class::Busy,
            553 | 555 => Class::Trust,
            400..=499 => Class::Temporary,
            _ => Class::Refused,
        };
        Self::new(class, Some(code), text)
    }

    /// Somebody ended it.
    pub(crate) fn stopped(text: impl Into<String>) -> Self {
        Self::new(Class::Stopped, None, text)
    }

    /// It may work later.
    pub(crate) fn temporary(text: impl Into<String>) -> Self {
        Self::new(Class::Temporary, None, text)
    }

    /// A key or signature does not hold.
    pub(crate) fn trust(text: impl Into<String>) -> Self {
        Self::new(Class::Trust, None, text)
    }

    /// Whoever read the output wants no more: no fault, and nobody to tell.
    pub(crate) fn unread() -> Self {
        Self { is_told: true, ..Self::new(Class::Unread, None, "nobody reads the output") }
    }

    /// What was typed cannot be done.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Class::Usage, None, text)
    }

    /// The code of the relay's reply, if there was one.
    pub(crate) const fn code(&self) -> Option<u16> {
        self.code
    }

    /// The words.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The exit status.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.class {
            Class::Unread => 0,
            Class::Usage => 2,
            Class::Temporary => 4,
            Class::Refused => 5,
            Class::Busy => 6,
            Class::Trust => 7,
            Class::Internal => 70,
            Class::Stopped => 130,
        })
    }

    /// Tells the person, or the script, once.
    pub(crate) fn print(&mut self, is_json: bool) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        if is_json {
            let value = serde_json::json!({
                "event": "error", "code": self.code, "text": self.text,
            });
            // There is no other place to say it.
            let _ = output::line(value);
        } else {
            output::remark(&self.text);
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        let text = error.to_string();
        match error {
            ConnectionError::Pin { .. } => Self::trust(text),
            ConnectionError::NoPin { .. } => Self::usage(text),
            _ => Self::temporary(text),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::Full => Self::temporary(text),
            EngineError::Misuse(_) | EngineError::TooLong | EngineError::Protocol(_) => {
                Self::usage(text)
            }
            EngineError::Directory(_) => Self::trust(text),
            EngineError::State(error) => error.into(),
            _ => Self::internal(text),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::internal(format!("the state file: {error}"))
    }
}

impl From<KeyfileError> for Failure {
    fn from(error: KeyfileError) -> Self {
        let text = error.to_string();
        match error {
            KeyfileError::Resource => Self::temporary(text),
            _ => Self::usage(text),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::temporary(error.to_string())
    }
}

impl From<protocol::Error> for Failure {
    fn from(error: protocol::Error) -> Self {
        Self::usage(error.to_string())
    }
}
