//! The configuration of `cipherim-hsmd`: TOML, parsed once into validated types.
//!
//! Unknown keys are refused with the nearest known one; times carry units; secrets are paths. The
//! doc comment of each field is its documentation; `hsmd.toml` in this crate shows every option.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::limits;
use crate::pin::PinSource;
use crate::service::pool;
use crate::service::server::Access;
use crate::token;

/// Why a configuration is not accepted, in plain words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// Not TOML, or not these keys.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// Where and what, with a suggestion.
        reason: String,
    },
    /// A value out of range.
    #[error("{path}: {key} {reason}")]
    Value {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
        /// What is wrong and what is right.
        reason: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The vendor's PKCS#11 library.
    pub module: PathBuf,
    /// The domain whose keys are served, as in addresses.
    pub domain: String,
    /// Which token.
    pub token: TokenConfig,
    /// Where the PIN is.
    #[serde(default)]
    pub pin: PinConfig,
    /// Socket, sessions, queue.
    pub service: ServiceConfig,
    /// User, memory.
    #[serde(default)]
    pub process: ProcessConfig,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
}

/// Which token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Label, as `cipherim-hsmd list` shows it.
    pub label: String,
    /// Serial number, needed only if two tokens have the same label.
    pub serial: Option<String>,
    /// Serial numbers of tokens whose keys this one holds copies of: their wrapped keys are opened.
    #[serde(default)]
    pub also_known_as: Vec<String>,
    /// Which answers of the token are checked before they are handed out.
    #[serde(default)]
    pub check_answers: CheckAnswers,
}

/// Which answers of the token are checked: signatures in software, wrapped keys by unwrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckAnswers {
    /// Every one: some 40 µs of processor time for a signature, an unwrapping for a wrapping.
    #[default]
    Always,
    /// One in 64.
    Sample,
    /// None but those of the self-test.
    Never,
}

/// Where the PIN is: a file or a systemd credential.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinConfig {
    /// A file of mode 0400 or 0600, owned by the user who runs the service.
    pub file: Option<PathBuf>,
    /// Name of a systemd credential (`LoadCredentialEncrypted=`); `pin` if there is no file.
    pub credential: Option<String>,
}

/// Socket, sessions, queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// The Unix socket to listen on.
    pub socket: PathBuf,
    /// Mode of the socket, octal.
    #[serde(default = "default_mode")]
    pub socket_mode: String,
    /// Group of the socket.
    pub socket_group: Option<String>,
    /// Users who may connect, besides the service's own and root: names or numbers.
    #[serde(default)]
    pub allow_users: Vec<String>,
    /// Primary groups whose members may connect: names or numbers.
    #[serde(default)]
    pub allow_groups: Vec<String>,
    /// Sessions, one thread each, 1 to 64.
    #[serde(default = "default_sessions")]
    pub sessions: usize,
    /// Jobs that may wait, 1 to 65,536.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// A call of the library that takes longer counts as wedged, 100 ms to 10 min.
    #[serde(default = "default_wedge_after", deserialize_with = "duration")]
    pub wedge_after: Duration,
    /// First pause between two looks for a token that is away, 10 ms to 10 s.
    #[serde(default = "default_poll_min", deserialize_with = "duration")]
    pub poll_min: Duration,
    /// Longest pause between two looks, `poll_min` to 1 min.
    #[serde(default = "default_poll_max", deserialize_with = "duration")]
    pub poll_max: Duration,
    /// How often an idle token is asked whether it is there, 50 ms to 1 min.
    #[serde(default = "default_presence", deserialize_with = "duration")]
    pub presence: Duration,
    /// Whether clients may have keys made; otherwise only `cipherim-hsmd provision` does.
    #[serde(default)]
    pub allow_generate: bool,
    /// Start even if the token is not there, and wait for it.
    #[serde(default)]
    pub start_without_token: bool,
    /// How long jobs under way may take when the service is stopped, up to 1 min.
    #[serde(default = "default_grace", deserialize_with = "duration")]
    pub stop_grace: Duration,
}

/// User, memory.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// Started as root: become this user (name or number).
    pub user: Option<String>,
    /// Started as root: become this group (name or number); default the user's.
    pub group: Option<String>,
    /// Keep all memory out of swap.
    #[serde(default)]
    pub lock_memory: LockMemory,
}

/// Whether memory is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMemory {
    /// No.
    No,
    /// Refuse to start where it is not allowed.
    Require,
    /// Where it is allowed; otherwise say so.
    #[default]
    Try,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// From which level.
    #[serde(default)]
    pub level: Level,
    /// How.
    #[serde(default)]
    pub format: Format,
}

/// Level of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual five words")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "two words that say it")]
pub enum Format {
    Json,
    #[default]
    Text,
}

fn default_mode() -> String {
    "0600".to_owned()
}

fn default_sessions() -> usize {
    4
}

fn default_queue() -> usize {
    4_096
}

fn default_wedge_after() -> Duration {
    Duration::from_secs(10)
}

fn default_poll_min() -> Duration {
    Duration::from_millis(50)
}

fn default_poll_max() -> Duration {
    Duration::from_millis(400)
}

fn default_presence() -> Duration {
    Duration::from_secs(1)
}

fn default_grace() -> Duration {
    Duration::from_secs(5)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is not a time with its unit, like \"400ms\""))
    })
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, key and remedy.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let unreadable = |reason: String| ConfigError::Unreadable { path: shown.clone(), reason };
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if metadata.len() > limits::CONFIG_BYTES_MAX as u64 {
            return Err(unreadable("it is too long for a configuration".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&shown, &text)
    }

    /// Reads and checks a text; `path` is for errors.
    ///
    /// # Errors
    /// [`ConfigError`] with file, key and remedy.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: with_suggestion(&error.to_string()),
        })?;
        config.check().map_err(|(key, reason)| ConfigError::Value {
            path: path.to_owned(),
            key,
            reason,
        })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let between = |key, value: Duration, min: Duration, max: Duration| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let shown = humantime::format_duration;
            Err((key, format!("is {}, not {} to {}", shown(value), shown(min), shown(max))))
        };
        let (ms, service) = (Duration::from_millis, &self.service);
        check_domain(&self.domain)?;
        if self.token.label.is_empty() || self.token.label.len() > 32 {
            return Err(("token.label", "has 1 to 32 octets".to_owned()));
        }
        if self.pin.file.is_some() && self.pin.credential.is_some() {
            return Err(("pin", "is a file or a credential, not both".to_owned()));
        }
        if !(1..=limits::SESSIONS_MAX).contains(&service.sessions) {
            return Err(("service.sessions", format!("is 1 to {}", limits::SESSIONS_MAX)));
        }
        if !(1..=limits::QUEUE_JOBS_MAX).contains(&service.queue) {
            return Err(("service.queue", format!("is 1 to {}", limits::QUEUE_JOBS_MAX)));
        }
        between("service.wedge_after", service.wedge_after, ms(100), ms(600_000))?;
        between("service.poll_min", service.poll_min, ms(10), ms(10_000))?;
        between("service.poll_max", service.poll_max, service.poll_min, ms(60_000))?;
        between("service.presence", service.presence, ms(50), ms(60_000))?;
        between("service.stop_grace", service.stop_grace, ms(0), ms(60_000))?;
        self.access()?;
        Ok(())
    }

    /// The PIN's source.
    pub fn pin(&self) -> PinSource {
        let source = match (&self.pin.file, &self.pin.credential) {
            (Some(file), _) => PinSource::file(file),
            (None, name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .map_or_else(|| PathBuf::from("/run/credentials"), PathBuf::from);
                PinSource::credential(directory.join(name.as_deref().unwrap_or("pin")))
            }
        };
        source.with_marker(self.service.socket.with_extension("pin-refused"))
    }

    /// What the token's module needs.
    pub fn module(&self) -> token::Settings {
        token::Settings {
            path: self.module.clone(),
            label: self.token.label.clone(),
            serial: self.token.serial.clone(),
            also_known_as: self.token.also_known_as.clone(),
            domain: self.domain.clone(),
            check_every: match self.token.check_answers {
                CheckAnswers::Always => 1,
                CheckAnswers::Sample => 64,
                CheckAnswers::Never => 0,
            },
        }
    }

    /// What the pool needs.
    pub fn pool(&self) -> pool::Settings {
        pool::Settings {
            domain: self.domain.clone(),
            sessions: self.service.sessions,
            queue: self.service.queue,
            wedge_after: self.service.wedge_after,
            poll_min: self.service.poll_min,
            poll_max: self.service.poll_max,
            presence: self.service.presence,
            allow_generate: self.service.allow_generate,
        }
    }

    /// Who may connect.
    ///
    /// # Errors
    /// The key and what is wrong: a name that is unknown, a mode that is not octal.
    pub fn access(&self) -> Result<Access, (&'static str, String)> {
        let service = &self.service;
        let mode = u32::from_str_radix(&service.socket_mode, 8)
            .ok()
            .filter(|mode| mode & !0o777 == 0 && mode & 0o007 == 0)
            .ok_or_else(|| {
                ("service.socket_mode", "is octal and gives others nothing, like 0660".to_owned())
            })?;
        let numbers = |key, names: &[String], file| {
            names.iter().map(|name| number_of(key, name, file)).collect::<Result<Vec<_>, _>>()
        };
        let group = service
            .socket_group
            .as_ref()
            .map(|name| number_of("service.socket_group", name, GROUPS))
            .transpose()?;
        Ok(Access {
            users: numbers("service.allow_users", &service.allow_users, USERS)?,
            groups: numbers("service.allow_groups", &service.allow_groups, GROUPS)?,
            mode,
            group,
        })
    }
}

/// Where users are listed.
pub(crate) const USERS: &str = "/etc/passwd";
/// Where groups are listed.
pub(crate) const GROUPS: &str = "/etc/group";

/// The number of a user or group; names are looked up in the local file.
pub(crate) fn number_of(
    key: &'static str,
    name: &str,
    file: &str,
) -> Result<u32, (&'static str, String)> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().map(|line| line.split(':'));
    lines
        .find_map(|mut fields| {
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
        .ok_or_else(|| (key, format!("names {name:?}, which is not in {file}")))
}

fn check_domain(domain: &str) -> Result<(), (&'static str, String)> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    if domain.len() <= 200 && domain.split('.').all(is_label) {
        return Ok(());
    }
    Err(("domain", format!("is a domain name in small letters, not {domain:?}")))
}

/// Adds "did you mean" to what the parser says about an unknown key.
fn with_suggestion(message: &str) -> String {
    let quoted: Vec<&str> = message
        .lines()
        .filter(|line| line.contains("unknown field") || line.contains("unknown variant"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect();
    let Some((unknown, known)) = quoted.split_first() else {
        return message.trim_end().to_owned();
    };
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(left, _), (right, _)| left.total_cmp(right));
    match nearest {
        Some((_, name)) => format!("{}\ndid you mean `{name}`?", message.trim_end()),
        None => message.trim_end().to_owned(),
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        module = "/usr/lib/softhsm/libsofthsm2.so"
        domain = "a.example"
        [token]
        label = "cipherim"
        [pin]
        file = "/etc/cipherim/pin"
        [service]
        socket = "/run/cipherim/hsmd.sock"
    "#;

    #[test]
    fn the_file_shipped_is_valid_and_shows_the_defaults() {
        let shipped = Config::parse("hsmd.toml", include_str!("../../hsmd.toml")).unwrap();
        let least = Config::parse("least", GOOD).unwrap();
        assert_eq!(shipped.service.sessions, least.service.sessions);
        assert_eq!(shipped.service.queue, least.service.queue);
        assert_eq!(shipped.service.wedge_after, least.service.wedge_after);
        assert_eq!(shipped.service.poll_max, least.service.poll_max);
        assert_eq!(shipped.access().unwrap().mode, least.access().unwrap().mode);
        assert_eq!(shipped.module().check_every, least.module().check_every);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (change, to, words) in [
            ("label", "lable", &["unknown field `lable`", "did you mean `label`?"][..]),
            ("[service]", "[servcie]", &["did you mean `service`?"]),
            ("module", "modul", &["did you mean `module`?"]),
            ("a.example", "A.example", &["domain", "small letters"]),
            ("a.example", "a..example", &["domain"]),
            ("a.example", "a/b", &["domain"]),
            ("label = \"cipherim\"", "label = \"\"", &["token.label", "1 to 32"]),
            ("[service]", "[service]\nsessions = 0", &["service.sessions", "1 to 64"]),
            ("[service]", "[service]\nsessions = 65", &["service.sessions", "1 to 64"]),
            ("[service]", "[service]\nqueue = 65537", &["service.queue"]),
            ("[service]", "[service]\nwedge_after = 5", &["string"]),
            ("[service]", "[service]\nwedge_after = \"5\"", &["unit"]),
            ("[service]", "[service]\nwedge_after = \"1ms\"", &["wedge_after", "100ms to 10m"]),
            ("[service]", "[service]\npoll_max = \"20ms\"", &["poll_max", "50ms to 1m"]),
            ("[service]", "[service]\nsocket_mode = \"0666\"", &["socket_mode", "others"]),
            ("[service]", "[service]\nallow_users = [\"no-such\"]", &["no-such", "passwd"]),
            ("[pin]", "[pin]\ncredential = \"pin\"", &["not both"]),
            ("[pin]", "[log]\nlevel = \"infos\"\n[pin]", &["did you mean `info`?"]),
            ("socket =", "socket = 1 #", &["string"]),
        ] {
            let said = Config::parse("x.toml", &GOOD.replacen(change, to, 1)).unwrap_err();
            for word in words {
                assert!(said.to_string().contains(word), "{to:?}: {word:?} not in {said}");
            }
        }
    }

    #[test]
    fn ranges_end_where_they_say() {
        for (setting, good) in [
            ("sessions = 1", true),
            ("sessions = 64", true),
            ("queue = 65536", true),
            ("wedge_after = \"100ms\"", true),
            ("wedge_after = \"99ms\"", false),
            ("wedge_after = \"10m\"", true),
            ("wedge_after = \"601s\"", false),
        ] {
            let text = GOOD.replacen("[service]", &format!("[service]\n{setting}"), 1);
            assert_eq!(Config::parse("x", &text).is_ok(), good, "{setting}");
        }
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(number_of("k", "root", USERS), Ok(0));
        assert_eq!(number_of("k", "4711", USERS), Ok(4711));
        assert!(number_of("k", "no such", USERS).is_err());
    }
}
