//! The configuration file `relay.toml`: read once, into values that are valid.
//!
//! Unknown keys are refused with the nearest known one; sizes and times carry units; secrets are
//! never values here, only paths. Each option's default, range and reason stand in the annotated
//! file [`ANNOTATED`], which a test keeps equal to the defaults in this module.

mod unit;

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::limits::{LINE_OCTETS_DEFAULT, LINE_OCTETS_MAX};
use serde::Deserialize;

pub use unit::{Size, Span};

use crate::limits;

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
            data_key_age: Span(Duration::from_secs(24 * 3_600)),
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
        Self { socket: "/run/cipherim/hsmd.sock".into(), deadline: Span(Duration::from_secs(5)) }
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
            retention: Span(Duration::from_secs(30 * 86_400)),
            repair: Span(Duration::from_secs(24 * 3_600)),
            refresh: Span(Duration::from_secs(15 * 60)),
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
    /// Octets of files kept for one account.
    pub files_size: Size,
    /// Silence after which a connection is closed.
    pub idle: Span,
    /// How long the TLS handshake may take.
    pub handshake: Span,
    /// How long login or registration may take after it.
    pub login: Span,
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
            files_size: Size(256 << 20),
            idle: Span(Duration::from_secs(600)),
            handshake: Span(Duration::from_secs(10)),
            login: Span(Duration::from_secs(30)),
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
    fn check(&self) -> Result<(), Fault> {
        let domain = protocol::Address::parse(&self.domain);
        if !domain.is_ok_and(protocol::Address::is_domain) {
            let text = format!("`{}` is not a domain in lower case A-labels", self.domain);
            return Err(("domain", text));
        }
        if !self.listen.monitor.ip().is_loopback() {
            let text = "must be a loopback address: it is plain HTTP without login".to_owned();
            return Err(("listen.monitor", text));
        }
        self.policy.check()?;
        self.limits.check()?;
        positive("token.deadline", self.token.deadline.milliseconds())?;
        positive("store.data_key_age", self.store.data_key_age.milliseconds())
    }
}

impl PolicySection {
    fn check(&self) -> Result<(), Fault> {
        let known = ["M1", "M2", "M3", "L1", "L2"];
        if let Some(suite) = self.suites.iter().find(|s| !known.contains(&s.as_str())) {
            let text = format!("`{suite}` is not a suite; known are {}", known.join(", "));
            return Err(("policy.suites", text));
        }
        if self.suites.is_empty() {
            return Err(("policy.suites", "must name at least one suite".to_owned()));
        }
        if self.retention.0 > Duration::from_secs(30 * 86_400) {
            return Err(("policy.retention", "must be at most \"30d\"".to_owned()));
        }
        if self.refresh.0 > Duration::from_secs(15 * 60) {
            return Err(("policy.refresh", "must be at most \"15min\"".to_owned()));
        }
        within("policy.refresh_messages", &self.refresh_messages, 1..=100)?;
        if self.password_score > 4 {
            return Err(("policy.password_score", "must be from 0 to 4".to_owned()));
        }
        positive("policy.retention", self.retention.milliseconds())?;
        positive("policy.refresh", self.refresh.milliseconds())?;
        positive("policy.refresh_size", self.refresh_size.0)
    }
}

impl LimitsSection {
    fn check(&self) -> Result<(), Fault> {
        let line = Size::of(LINE_OCTETS_DEFAULT)..=Size::of(LINE_OCTETS_MAX);
        within("limits.line", &self.line, line)?;
        // Two lines of the longest kind, so that one waits while another is on its way.
        let outbox = Size::of(2 * self.line.octets())..=Size::of(limits::OUTBOX_SETTING_MAX);
        within("limits.outbox", &self.outbox, outbox)?;
        let connections = 1..=limits::CONNECTIONS_SETTING_MAX;
        within("limits.connections", &self.connections, connections.clone())?;
        within("limits.connections_per_address", &self.connections_per_address, connections)?;
        let logins = 1..=limits::LOGINS_SETTING_MAX;
        within("limits.logins_per_minute", &self.logins_per_minute, logins)?;
        let silence = Span(limits::SILENCE_SETTING_MIN)..=Span(limits::SILENCE_SETTING_MAX);
        within("limits.login", &self.login, silence.clone())?;
        within("limits.idle", &self.idle, silence)?;
        let handshake = Span(limits::HANDSHAKE_SETTING_MIN)..=Span(limits::HANDSHAKE_SETTING_MAX);
        within("limits.handshake", &self.handshake, handshake)?;
        let threads = 1..=limits::HANDSHAKE_THREADS_SETTING_MAX;
        within("limits.handshake_threads", &self.handshake_threads, threads)?;
        positive("limits.queue_lines", u64::from(self.queue_lines))
    }
}

/// A key with its section, and what is wrong with its value.
type Fault = (&'static str, String);

fn positive(key: &'static str, value: u64) -> Result<(), Fault> {
    if value == 0 {
        return Err((key, "must not be 0".to_owned()));
    }
    Ok(())
}

fn within<T: PartialOrd + Display>(
    key: &'static str,
    value: &T,
    range: RangeInclusive<T>,
) -> Result<(), Fault> {
    if range.contains(value) {
        return Ok(());
    }
    Err((key, format!("is {value}, but must be from {} to {}", range.start(), range.end())))
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
