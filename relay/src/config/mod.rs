//! The configuration file `relay.toml`: read once, into values that are valid.
//!
//! Unknown keys are refused with the nearest known one; sizes and times carry units; secrets are
//! never values here, only paths. Each option's default, range and reason stand in the annotated
//! file [`ANNOTATED`], which a test keeps equal to the defaults in this module.

mod unit;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use unit::{Size, Span};

/// The annotated default file.
pub const ANNOTATED: &str = include_str!("relay.toml");

/// Octets of the largest file that is read.
pub const FILE_OCTETS_MAX: u64 = 1 << 20;

/// Why a configuration is refused. Shown to a person: says where, what and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key or a value of the wrong kind.
    #[error("{path}: {text}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, excerpt, reason and, for an unknown key, the nearest known one.
        text: String,
    },
    /// A value is out of its range or contradicts another.
    #[error("{path}: {key}: {text}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: &'static str,
        /// What is wrong with it and what to write instead.
        text: String,
    },
}

/// A whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// The domain that this relay serves: the part of its users' addresses after `@`.
    pub domain: String,
    /// Where it listens.
    #[serde(default)]
    pub listen: Listen,
    /// Where it keeps what is durable.
    #[serde(default)]
    pub store: StoreSection,
    /// How it reaches the token.
    #[serde(default)]
    pub token: TokenSection,
    /// Its certificate.
    #[serde(default)]
    pub tls: TlsSection,
    /// What its users may do.
    #[serde(default)]
    pub policy: PolicySection,
    /// How much of everything.
    #[serde(default)]
    pub limits: LimitsSection,
    /// What it writes to its log.
    #[serde(default)]
    pub log: LogSection,
}

/// `[listen]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Clients, TLS.
    pub clients: SocketAddr,
    /// `/metrics`, `/alive`, `/ready`; plain HTTP, loopback only.
    pub monitor: SocketAddr,
    /// The socket of `cipherim-relay ctl`.
    pub control: PathBuf,
    /// Host and port that invitations name; `None` is the domain and the port of `clients`.
    pub announce: Option<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            clients: SocketAddr::from(([0, 0, 0, 0], 7_700)),
            monitor: SocketAddr::from(([127, 0, 0, 1], 7_780)),
            control: "/run/cipherim/control.sock".into(),
            announce: None,
        }
    }
}

/// `[store]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// The folder of the store.
    pub directory: PathBuf,
    /// Disk space that stays free; below it new mail is refused with 452.
    pub reserve: Size,
    /// Age at which a data key is replaced by a new one from the token.
    pub data_key_age: Span,
    /// Open a store that was found damaged, accepting the reported loss.
    pub accept_damage: bool,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            directory: "/var/lib/cipherim/store".into(),
            reserve: Size(256 << 20),
            data_key_age: Span(std::time::Duration::from_secs(24 * 3_600)),
            accept_damage: false,
        }
    }
}

/// `[token]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSection {
    /// The socket of `cipherim-hsmd`.
    pub socket: PathBuf,
    /// How long one operation may take.
    pub deadline: Span,
}

impl Default for TokenSection {
    fn default() -> Self {
        Self {
            socket: "/run/cipherim/hsmd.sock".into(),
            deadline: Span(std::time::Duration::from_secs(5)),
        }
    }
}

/// `[tls]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// The certificate chain in PEM; its key is the token's key `tls`.
    pub certificate: PathBuf,
}

impl Default for TlsSection {
    fn default() -> Self {
        Self { certificate: "/var/lib/cipherim/tls.pem".into() }
    }
}

/// `[policy]`: what the domain's signed policy (920) says. Published by `provision` and
/// `ctl policy publish`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// Suites that the domain's users may use.
    pub suites: Vec<String>,
    /// Whether every session must be signed.
    pub signed: bool,
    /// Whether strangers can tell an account from none.
    pub hide_users: bool,
    /// How long undelivered mail is kept.
    pub retention: Span,
    /// How long an offerer may keep a session's seed for repairs.
    pub repair: Span,
    /// Time of use after which a session key is due for refresh.
    pub refresh: Span,
    /// Messages after which it is due.
    pub refresh_messages: u32,
    /// Octets after which it is due.
    pub refresh_size: Size,
    /// The largest file that may be offered.
    pub file_max: Size,
    /// The lowest zxcvbn score, 0 to 4, of a password that guards a key file.
    pub password_score: u8,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            suites: vec!["M1".into(), "M2".into()],
            signed: false,
            hide_users: true,
            retention: Span(std::time::Duration::from_secs(30 * 86_400)),
            repair: Span(std::time::Duration::from_secs(24 * 3_600)),
            refresh: Span(std::time::Duration::from_secs(15 * 60)),
            refresh_messages: 100,
            refresh_size: Size(32 << 20),
            file_max: Size(2 << 30),
            password_score: 3,
        }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// The longest line, CRLF included.
    pub line: Size,
    /// Connections at once.
    pub connections: u32,
    /// Connections at once from one address.
    pub connections_per_address: u32,
    /// Logins in a minute from one address.
    pub logins_per_minute: u32,
    /// What may wait for one connection before its lines stay in the spool.
    pub outbox: Size,
    /// Lines waiting for one device.
    pub queue_lines: u32,
    /// Octets waiting for one device.
    pub queue_size: Size,
    /// Silence after which a connection is closed.
    pub idle: Span,
    /// How long TLS and login may take.
    pub handshake: Span,
    /// Threads for handshakes and signatures of the token.
    pub handshake_threads: u8,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            line: Size(64 << 10),
            connections: 50_000,
            connections_per_address: 1_000,
            logins_per_minute: 120,
            outbox: Size(256 << 10),
            queue_lines: 10_000,
            queue_size: Size(256 << 20),
            idle: Span(std::time::Duration::from_secs(600)),
            handshake: Span(std::time::Duration::from_secs(10)),
            handshake_threads: 2,
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `error`, `warn`, `info` or `debug`.
    pub level: Level,
    /// `text` or `json`.
    pub format: Format,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Text }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Also what happens in one session; addresses appear.
    Debug,
    /// Only what a person must act on.
    Error,
    /// Also changes of state.
    Info,
    /// Also what a person should look at soon.
    Warn,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For eyes.
    Text,
}

impl Configuration {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], written for the person who edits the file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_path_buf(), source };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > FILE_OCTETS_MAX {
            return Err(failed(std::io::Error::other("it is too large to be a configuration")));
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(failed)?)
    }

    /// Checks the text of a file; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Configuration::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let configuration: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_path_buf(),
            text: with_suggestion(&error.to_string()),
        })?;
        configuration.check().map_err(|(key, text)| ConfigError::Value {
            path: path.to_path_buf(),
            key,
            text,
        })?;
        Ok(configuration)
    }

    /// Checks what the types alone do not.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let domain = protocol::Address::parse(&self.domain);
        if !domain.is_ok_and(protocol::Address::is_domain) {
            let text = format!("`{}` is not a domain in lower case A-labels", self.domain);
            return Err(("domain", text));
        }
        if !self.listen.monitor.ip().is_loopback() {
            let text = "must be a loopback address: it is plain HTTP without login".to_owned();
            return Err(("listen.monitor", text));
        }
        let line = protocol::limits::LINE_OCTETS_DEFAULT..=protocol::limits::LINE_OCTETS_MAX;
        if !line.contains(&self.limits.line.octets()) {
            return Err(("limits.line", "must be from \"8 KiB\" to \"64 KiB\"".to_owned()));
        }
        if self.limits.outbox.octets() < 2 * self.limits.line.octets() {
            return Err(("limits.outbox", "must hold two lines of `limits.line`".to_owned()));
        }
        let known = ["M1", "M2", "M3", "L1", "L2"];
        if let Some(suite) = self.policy.suites.iter().find(|s| !known.contains(&s.as_str())) {
            let text = format!("`{suite}` is not a suite; known are {}", known.join(", "));
            return Err(("policy.suites", text));
        }
        if self.policy.retention.0 > std::time::Duration::from_secs(30 * 86_400) {
            return Err(("policy.retention", "must be at most \"30d\"".to_owned()));
        }
        if self.policy.refresh.0 > std::time::Duration::from_secs(15 * 60) {
            return Err(("policy.refresh", "must be at most \"15min\"".to_owned()));
        }
        if !(1..=100).contains(&self.policy.refresh_messages) {
            return Err(("policy.refresh_messages", "must be from 1 to 100".to_owned()));
        }
        if self.policy.suites.is_empty() {
            return Err(("policy.suites", "must name at least one suite".to_owned()));
        }
        if self.policy.password_score > 4 {
            return Err(("policy.password_score", "must be from 0 to 4".to_owned()));
        }
        let positive = [
            ("limits.connections", u64::from(self.limits.connections)),
            ("limits.connections_per_address", u64::from(self.limits.connections_per_address)),
            ("limits.logins_per_minute", u64::from(self.limits.logins_per_minute)),
            ("limits.queue_lines", u64::from(self.limits.queue_lines)),
            ("limits.handshake_threads", u64::from(self.limits.handshake_threads)),
            ("limits.idle", self.limits.idle.milliseconds()),
            ("limits.handshake", self.limits.handshake.milliseconds()),
            ("token.deadline", self.token.deadline.milliseconds()),
            ("store.data_key_age", self.store.data_key_age.milliseconds()),
            ("policy.retention", self.policy.retention.milliseconds()),
            ("policy.refresh", self.policy.refresh.milliseconds()),
            ("policy.refresh_size", self.policy.refresh_size.0),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err((key, "must not be 0".to_owned())),
            None => Ok(()),
        }
    }
}

/// Adds "did you mean" to the parser's message about an unknown key.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let is_unknown = message.contains("unknown field") || message.contains("unknown variant");
    let Some(written) = quoted.next().filter(|_| is_unknown) else {
        return message.trim_end().to_owned();
    };
    let nearest = quoted
        .map(|known| (strsim::damerau_levenshtein(written, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(2));
    match nearest {
        Some((_, known)) => format!("{}\ndid you mean `{known}`?", message.trim_end()),
        None => message.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests;
