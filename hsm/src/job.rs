//! The jobs: an owned request in, an owned response out, and the names they use.
//!
//! A key is named by its purpose (`PROTOCOL.md` §13), never by a handle: [`KeyName`] stands for
//! the object labelled `cipherim/<domain>/<purpose>/<version>`, the newest unless a version is
//! given. Lengths are checked by [`Request::check`] before a job leaves the caller and again
//! before it reaches the token. Secrets are wiped when dropped and never printed.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::limits;

/// Octets that are wiped when dropped; `Debug` prints the length only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The octets.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Number of octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no octets.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands the octets over, still wiped when dropped.
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets ..)", self.0.len())
    }
}

/// What a key is for. One key, one use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Purpose {
    /// The domain's identity: signs policies and link proofs. P-256.
    Domain,
    /// Signs the directory log and bounces. P-256.
    Log,
    /// Wraps the data keys of the sealed store. AES-256.
    Spool,
    /// The server's TLS key. P-256.
    Tls,
}

impl Purpose {
    /// All purposes, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Domain, Self::Log, Self::Spool, Self::Tls];

    /// The word in labels and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Log => "log",
            Self::Spool => "spool",
            Self::Tls => "tls",
        }
    }

    /// The purpose with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }

    /// The kind of key this purpose needs.
    pub const fn kind(self) -> KeyKind {
        match self {
            Self::Domain | Self::Log | Self::Tls => KeyKind::P256,
            Self::Spool => KeyKind::Aes256,
        }
    }

    /// The octet on the wire and in blobs.
    pub const fn code(self) -> u8 {
        match self {
            Self::Domain => 1,
            Self::Log => 2,
            Self::Spool => 3,
            Self::Tls => 4,
        }
    }

    /// The purpose with that octet.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.code() == code)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kind of a key in the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KeyKind {
    /// AES with 256 bits, for wrapping.
    Aes256,
    /// ECDSA on P-256.
    P256,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256 => "AES-256",
            Self::P256 => "P-256",
        })
    }
}

/// A key by purpose; `version` `None` means the newest, versions count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyName {
    /// What the key is for.
    pub purpose: Purpose,
    /// Which one, from 1; `None` for the newest.
    pub version: Option<u32>,
}

impl KeyName {
    /// The newest key of that purpose.
    pub const fn newest(purpose: Purpose) -> Self {
        Self { purpose, version: None }
    }

    /// One version of the key of that purpose.
    pub const fn exact(purpose: Purpose, version: u32) -> Self {
        Self { purpose, version: Some(version) }
    }
}

impl From<Purpose> for KeyName {
    fn from(purpose: Purpose) -> Self {
        Self::newest(purpose)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}/{version}", self.purpose),
            None => write!(f, "{}", self.purpose),
        }
    }
}

/// A signature algorithm, with the shapes of keys and signatures of `PROTOCOL.md` §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Algorithm {
    /// RFC 8032: key 32 octets, signature 64.
    Ed25519,
    /// ECDSA with SHA-256: key 65 octets uncompressed, signature `r ‖ s` 64, `s` in the lower half.
    P256,
    /// RSA-PSS with SHA-256, salt 32, 3,072 bits or more: key SubjectPublicKeyInfo.
    Pss,
    /// RSA PKCS#1 v1.5 with SHA-256, 2,048 bits or more, verified only: key SubjectPublicKeyInfo.
    RsaPkcs1,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 4] = [Self::Ed25519, Self::P256, Self::Pss, Self::RsaPkcs1];

    /// The name in descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::Pss => "pss",
            Self::RsaPkcs1 => "rsa-pkcs1",
        }
    }

    /// The octet on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::P256 => 2,
            Self::Pss => 3,
            Self::RsaPkcs1 => 4,
        }
    }

    /// The algorithm with that octet.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.code() == code)
    }
}

/// The operations, for priorities, counters and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// [`Request::Describe`]
    Describe,
    /// [`Request::Generate`]
    Generate,
    /// [`Request::Ping`]
    Ping,
    /// [`Request::PublicKey`]
    PublicKey,
    /// [`Request::Random`]
    Random,
    /// [`Request::Sign`]
    Sign,
    /// [`Request::Unwrap`]
    Unwrap,
    /// [`Request::Verify`]
    Verify,
    /// [`Request::Wrap`]
    Wrap,
}

impl Operation {
    /// All operations; the position is the index of counters.
    pub const ALL: [Self; 9] = [
        Self::Describe,
        Self::Generate,
        Self::Ping,
        Self::PublicKey,
        Self::Random,
        Self::Sign,
        Self::Unwrap,
        Self::Verify,
        Self::Wrap,
    ];

    /// The name in descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Generate => "generate",
            Self::Ping => "ping",
            Self::PublicKey => "public-key",
            Self::Random => "random",
            Self::Sign => "sign",
            Self::Unwrap => "unwrap",
            Self::Verify => "verify",
            Self::Wrap => "wrap",
        }
    }

    /// True for work that may wait behind a login or a handshake.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Generate | Self::Random | Self::Verify)
    }

    /// True if doing it twice does no harm: it may be sent again after a lost connection.
    /// Generation names its version and looks for the result first, so it is repeatable too.
    pub const fn is_repeatable(self) -> bool {
        true
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// State, token, keys, mechanisms, counters. Answered without the token.
    Describe,
    /// Makes that version of a key, or finds it: the result is the same twice.
    Generate {
        /// Which key; a version is required, so that a repetition makes no second key.
        key: KeyName,
    },
    /// State only. Answered without the token.
    Ping,
    /// The public part of a key. Answered without the token once it was seen.
    PublicKey {
        /// Which key.
        key: KeyName,
    },
    /// Random octets from the token, mixed with the system's.
    Random {
        /// How many, up to [`limits::RANDOM_BYTES_MAX`].
        length: u32,
    },
    /// A signature by a key of the token.
    Sign {
        /// Which key.
        key: KeyName,
        /// The algorithm; must suit the key.
        algorithm: Algorithm,
        /// The message itself (not its hash), up to [`limits::MESSAGE_BYTES_MAX`].
        message: Vec<u8>,
    },
    /// A data key out of its blob.
    Unwrap {
        /// What [`Request::Wrap`] gave.
        blob: Vec<u8>,
    },
    /// Whether a signature by somebody else's key holds.
    Verify {
        /// Shape of key and signature.
        algorithm: Algorithm,
        /// The public key.
        public_key: Vec<u8>,
        /// The message itself.
        message: Vec<u8>,
        /// The signature.
        signature: Vec<u8>,
    },
    /// A data key into a blob which only this token opens.
    Wrap {
        /// Which key encrypts: [`Purpose::Spool`].
        kek: KeyName,
        /// The data key, 16 to 64 octets, a multiple of 8.
        data_key: Secret,
    },
}

impl Request {
    /// Which operation this is.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Describe => Operation::Describe,
            Self::Generate { .. } => Operation::Generate,
            Self::Ping => Operation::Ping,
            Self::PublicKey { .. } => Operation::PublicKey,
            Self::Random { .. } => Operation::Random,
            Self::Sign { .. } => Operation::Sign,
            Self::Unwrap { .. } => Operation::Unwrap,
            Self::Verify { .. } => Operation::Verify,
            Self::Wrap { .. } => Operation::Wrap,
        }
    }

    /// Octets held by this job, for the queue's limit.
    pub fn size(&self) -> usize {
        match self {
            Self::Describe | Self::Generate { .. } | Self::Ping => 0,
            Self::PublicKey { .. } | Self::Random { .. } => 0,
            Self::Sign { message, .. } => message.len(),
            Self::Unwrap { blob } => blob.len(),
            Self::Verify { public_key, message, signature, .. } => {
                public_key.len() + message.len() + signature.len()
            }
            Self::Wrap { data_key, .. } => data_key.len(),
        }
    }

    /// Refuses what no token should be asked: lengths, kinds that do not fit.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the part.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Describe | Self::Ping | Self::PublicKey { .. } => Ok(()),
            Self::Generate { key } => match key.version {
                Some(version) if (1..=limits::KEY_VERSIONS_MAX).contains(&version) => Ok(()),
                _ => Err(Error::malformed("generate: a version from 1 to 1000 is required")),
            },
            Self::Random { length } if *length as usize > limits::RANDOM_BYTES_MAX => {
                Err(Error::malformed("random: at most 4096 octets at once"))
            }
            Self::Random { .. } => Ok(()),
            Self::Sign { message, .. } => check_message(message),
            Self::Unwrap { blob } if blob.len() > limits::BLOB_BYTES_MAX => {
                Err(Error::malformed("unwrap: a blob has at most 512 octets"))
            }
            Self::Unwrap { .. } => Ok(()),
            Self::Verify { public_key, message, signature, .. } => {
                if public_key.len() > limits::PUBLIC_KEY_BYTES_MAX {
                    return Err(Error::malformed("verify: the public key is too long"));
                }
                if signature.len() > limits::SIGNATURE_BYTES_MAX {
                    return Err(Error::malformed("verify: the signature is too long"));
                }
                check_message(message)
            }
            Self::Wrap { kek, data_key } => {
                if kek.purpose.kind() != KeyKind::Aes256 {
                    return Err(Error::malformed("wrap: the key is not a wrapping key"));
                }
                let length = data_key.len();
                let range = limits::DATA_KEY_BYTES_MIN..=limits::DATA_KEY_BYTES_MAX;
                if range.contains(&length) && length.is_multiple_of(8) {
                    Ok(())
                } else {
                    Err(Error::malformed("wrap: a data key has 16 to 64 octets, a multiple of 8"))
                }
            }
        }
    }
}

fn check_message(message: &[u8]) -> Result<(), Error> {
    if message.len() > limits::MESSAGE_BYTES_MAX {
        return Err(Error::malformed("the message has more than 256 KiB"));
    }
    Ok(())
}

/// The public part of a key in the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Which key, with its version.
    pub key: KeyName,
    /// Which kind.
    pub kind: KeyKind,
    /// P-256: the uncompressed point, 65 octets. AES: empty.
    #[serde(with = "hexadecimal")]
    pub point: Vec<u8>,
}

impl PublicKey {
    /// SubjectPublicKeyInfo in DER (RFC 5480); `None` for a secret key.
    pub fn spki(&self) -> Option<Vec<u8>> {
        const P256_PREFIX: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        match self.kind {
            KeyKind::P256 => Some([&P256_PREFIX[..], &self.point].concat()),
            KeyKind::Aes256 => None,
        }
    }
}

/// The answer to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Response {
    /// To [`Request::Describe`].
    Described(Box<Description>),
    /// To [`Request::Generate`].
    Generated(PublicKey),
    /// To [`Request::PublicKey`].
    PublicKey(PublicKey),
    /// To [`Request::Random`].
    Random(Secret),
    /// To [`Request::Sign`]: in the shape of the algorithm.
    Signature(Vec<u8>),
    /// To [`Request::Ping`], and unasked (id 0) on connecting and whenever the state changes.
    State(State),
    /// To [`Request::Unwrap`].
    Unwrapped(Secret),
    /// To [`Request::Verify`].
    Verified(bool),
    /// To [`Request::Wrap`].
    Wrapped(Vec<u8>),
}

/// What the pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// No token: jobs are answered [`Error::Away`] at once.
    Away,
    /// The token refused the PIN: no further attempt until the PIN's source changes.
    PinRefused,
    /// Jobs are served.
    Ready,
    /// Something failed; sessions are being opened again. Jobs wait.
    Recovering,
    /// The first attachment is under way. Jobs wait.
    Starting,
    /// The process is ending.
    Stopping,
}

impl Phase {
    /// All phases; the position is the octet on the wire.
    pub const ALL: [Self; 6] = [
        Self::Away,
        Self::PinRefused,
        Self::Ready,
        Self::Recovering,
        Self::Starting,
        Self::Stopping,
    ];

    /// The name in descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::PinRefused => "pin-refused",
            Self::Ready => "ready",
            Self::Recovering => "recovering",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The pool's state, pushed to every client when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What the pool is doing.
    pub phase: Phase,
    /// Counts attachments to the token, from 1; handles and sessions belong to one generation.
    pub generation: u64,
    /// Plain words: what is wrong and what to do; empty when ready.
    pub reason: String,
}

/// The token in use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenInfo {
    /// PKCS#11 slot number.
    pub slot: u64,
    /// Label.
    pub label: String,
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Sessions the token allows; `None` if it does not say or has no limit.
    pub sessions_max: Option<u64>,
}

/// Counters of one operation since start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCount {
    /// Which.
    pub operation: Operation,
    /// Answered well.
    pub succeeded: u64,
    /// Answered with an error other than the two below.
    pub failed: u64,
    /// Refused because the queue was full.
    pub busy: u64,
    /// Ended by their deadline.
    pub overdue: u64,
    /// Entered the token again in a new generation.
    pub retried: u64,
    /// Times in the token; bucket `i` counts those below `2^i` microseconds and not below half.
    pub token_micros: Vec<u64>,
    /// Times from acceptance to answer; buckets likewise.
    pub total_micros: Vec<u64>,
}

/// Everything worth knowing about the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the program.
    pub version: String,
    /// The state.
    pub state: State,
    /// The domain whose keys are served.
    pub domain: String,
    /// The token, as last seen.
    pub token: TokenInfo,
    /// The keys, as last seen.
    pub keys: Vec<PublicKey>,
    /// What the token proved in its self-test, by name ("sign p256", "wrap AES_KEY_WRAP" …).
    pub proven: Vec<String>,
    /// Worker sessions configured.
    pub sessions: u32,
    /// Workers stuck in a call of the vendor's library.
    pub wedged: u32,
    /// Jobs waiting.
    pub queued: u32,
    /// Jobs that may wait.
    pub queue_max: u32,
    /// Milliseconds since the service started.
    pub uptime_ms: u64,
    /// Attempts to log in since the process started.
    pub pin_attempts: u64,
    /// Counters by operation.
    pub operations: Vec<OperationCount>,
}

/// Octets as lower-case hexadecimal in JSON.
pub(crate) mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes two digits per octet.
    pub(crate) fn encode(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads two digits per octet.
    pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
        rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| D::Error::custom("hexadecimal digits expected"))
    }
}
