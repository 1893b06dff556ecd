//! The key file: everything that makes this device its owner's, sealed under a password.
//!
//! Owns the format: a JSON head that names its parameters, and a body sealed with AES-256-GCM
//! under a key that Argon2id (RFC 9106) makes of the password. The head is the associated data, so
//! weaker parameters cannot be slipped in. The invariant: a key file is never overwritten by
//! [`create`], and [`replace`] leaves either the old or the new file whole. No password reaches
//! any server (SPEC.md §5). Limits: [`Cost::is_acceptable`], [`limits::KEY_FILE_OCTETS_MAX`].

mod signing;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use protocol::AddressBuf;
use protocol::base64;
use protocol::canonical::push_lp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use signing::SigningSecret;

use crate::limits;
use crate::random::{self, NoRandom, Random};
use crate::secret::Secret32;

/// The name of the format and its version.
const FORMAT: &str = "cim-key-1";
/// The name of the key derivation.
const DERIVATION: &str = "argon2id";

/// What the key file guards.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The account.
    #[serde(with = "address")]
    pub account: AddressBuf,
    /// The part of this device's address behind the slash.
    pub device_name: String,
    /// The identity key; only one device of an account holds it.
    pub identity: Option<SigningSecret>,
    /// This device's signature key.
    pub device: SigningSecret,
    /// What the state file is sealed with.
    pub state: Secret32,
    /// Where the domain is and by what it is known.
    pub domain: DomainPin,
}

/// Where the relay of a domain is reached and what it must prove, as an invitation said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainPin {
    /// `host:port`; `None` to ask the DNS.
    pub relay: Option<String>,
    /// SHA-256 of the domain's identity key, in base64.
    pub key: Option<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of the relay's TLS key, in base64.
    pub tls: Option<String>,
}

/// What a guess at the password costs. Stored in the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// The second recommended option of RFC 9106 §4, with twice its memory.
    pub const RECOMMENDED: Self = Self { memory_kib: 128 * 1_024, passes: 3, lanes: 4 };
    /// What a file may ask for at most and must ask for at least: less is no protection, more
    /// would let a planted file exhaust this machine.
    const MEMORY_KIB: core::ops::RangeInclusive<u32> = 8 * 1_024..=2 * 1_024 * 1_024;

    /// Whether a file with this cost is opened at all.
    #[must_use]
    pub fn is_acceptable(self) -> bool {
        Self::MEMORY_KIB.contains(&self.memory_kib)
            && (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
    }
}

/// Why a key file cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyfileError {
    /// Misuse: there is a key file already.
    #[error("a key file is there already; it is not overwritten")]
    Exists,
    /// Malformed: not a key file of this version.
    #[error("this is not a key file that this program knows")]
    Format,
    /// Resource: the file cannot be read or written.
    #[error("the key file cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// Misuse: the password is wrong, or somebody changed the file.
    #[error("the password is wrong, or the key file was changed")]
    Password,
    /// Resource: no random octets, or not enough memory for Argon2id.
    #[error("the key derivation could not run")]
    Resource,
}

impl From<NoRandom> for KeyfileError {
    fn from(_: NoRandom) -> Self {
        Self::Resource
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    account: String,
    derivation: String,
    cost: Cost,
    salt: String,
    nonce: String,
    sealed: String,
}

impl Document {
    /// What the seal binds: every field but the sealed one.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        for field in [&self.format, &self.account, &self.derivation, &self.salt, &self.nonce] {
            push_lp(&mut head, field.as_bytes());
        }
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            head.extend_from_slice(&number.to_be_bytes());
        }
        head
    }
}

/// Writes a new key file, readable by its owner alone, and flushes it to the device.
///
/// # Errors
/// [`KeyfileError::Exists`] if there is a file at `path`; it is untouched.
pub fn create(
    path: &Path,
    secrets: &Secrets,
    password: &str,
    cost: Cost,
    random: &mut dyn Random,
) -> Result<(), KeyfileError> {
    let text = seal(secrets, password, cost, random)?;
    write_new(path, text.as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyfileError::Exists,
        _ => KeyfileError::Io(error),
    })
}

/// Replaces the key file at `path`, for another password or a rotated key: the new file is
/// written beside it, flushed, and takes its place in one step.
///
/// # Errors
/// [`KeyfileError::Io`]; the old file is then still there.
pub fn replace(
    path: &Path,
    secrets: &Secrets,
    password: &str,
    cost: Cost,
    random: &mut dyn Random,
) -> Result<(), KeyfileError> {
    let text = seal(secrets, password, cost, random)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    write_new(beside, text.as_bytes())?;
    fs::rename(beside, path)?;
    flush_folder(path)?;
    Ok(())
}

/// Opens the key file at `path`.
///
/// # Errors
/// [`KeyfileError::Password`] for a wrong password or a changed file, and the others.
pub fn open(path: &Path, password: &str) -> Result<Secrets, KeyfileError> {
    let document = read(path)?;
    let nonce = base64::decode_array(&document.nonce).map_err(|_| KeyfileError::Format)?;
    let salt = base64::decode(&document.salt).map_err(|_| KeyfileError::Format)?;
    let sealed = base64::decode(&document.sealed).map_err(|_| KeyfileError::Format)?;
    let key = derive(password, &salt, document.cost)?;
    let mut text = Zeroizing::new(sealed);
    let opened = key
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(document.head()),
            text.as_mut_slice(),
        )
        .map_err(|_| KeyfileError::Password)?;
    let secrets: Secrets = serde_json::from_slice(opened).map_err(|_| KeyfileError::Format)?;
    if secrets.account.as_str() != document.account {
        return Err(KeyfileError::Format);
    }
    Ok(secrets)
}

/// The account that the key file at `path` is for; no password is needed, nothing is proven.
///
/// # Errors
/// [`KeyfileError::Io`] or [`KeyfileError::Format`].
pub fn account(path: &Path) -> Result<AddressBuf, KeyfileError> {
    AddressBuf::parse(&read(path)?.account).map_err(|_| KeyfileError::Format)
}

fn read(path: &Path) -> Result<Document, KeyfileError> {
    let mut text = String::new();
    File::open(path)?.take(limits::KEY_FILE_OCTETS_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::KEY_FILE_OCTETS_MAX {
        return Err(KeyfileError::Format);
    }
    let document: Document = serde_json::from_str(&text).map_err(|_| KeyfileError::Format)?;
    let is_known = document.format == FORMAT && document.derivation == DERIVATION;
    if is_known && document.cost.is_acceptable() { Ok(document) } else { Err(KeyfileError::Format) }
}

fn seal(
    secrets: &Secrets,
    password: &str,
    cost: Cost,
    random: &mut dyn Random,
) -> Result<String, KeyfileError> {
    let salt = random::octets::<16>(random)?;
    let nonce = random::octets::<12>(random)?;
    let mut document = Document {
        format: FORMAT.into(),
        account: secrets.account.as_str().into(),
        derivation: DERIVATION.into(),
        cost,
        salt: base64::encode(&salt),
        nonce: base64::encode(&nonce),
        sealed: String::new(),
    };
    let key = derive(password, &salt, cost)?;
    let mut text = crate::state::to_json(secrets).map_err(|_| KeyfileError::Resource)?;
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(document.head()),
        &mut *text,
    )
    .map_err(|_| KeyfileError::Resource)?;
    document.sealed = base64::encode(&text);
    let mut text = serde_json::to_string_pretty(&document).map_err(|_| KeyfileError::Resource)?;
    text.push('\n');
    Ok(text)
}

fn derive(password: &str, salt: &[u8], cost: Cost) -> Result<LessSafeKey, KeyfileError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|_| KeyfileError::Resource)?;
    let key = Secret32::filled(|key| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), salt, key)
            .map_err(|_| KeyfileError::Resource)
    })?;
    let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| KeyfileError::Resource)?;
    Ok(LessSafeKey::new(key))
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    flush_folder(path)
}

/// Makes the entry of a file in its folder survive a loss of power.
fn flush_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Addresses as their text.
pub(crate) mod address {
    use protocol::AddressBuf;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        address: &AddressBuf,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(address.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<AddressBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        AddressBuf::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
