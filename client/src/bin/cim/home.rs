//! The folder of one device: key file, state, and the lock that keeps processes apart.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use client::connection::Dialer;
use client::engine::{Config, Engine};
use client::identity::Identity;
use client::keyfile::{self, Secrets};
use client::random::System;
use client::state::State;
use client::suite::SoftwareHolder;
use protocol::{AddressBuf, base64};
use zeroize::Zeroizing;

use crate::arguments::Global;
use crate::driver::{Driver, Trace};
use crate::failure::Failure;
use crate::{person, terminal};

/// Octets of a password file.
const PASSWORD_OCTETS_MAX: u64 = 4_096;

/// A device's folder, locked by this process.
pub(crate) struct Home {
    folder: PathBuf,
    _lock: File,
}

impl Home {
    /// The folder that the options name, made if `create`, and locked.
    pub(crate) fn open(global: &Global, create: bool) -> Result<Self, Failure> {
        let folder = folder(global)?;
        if create {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(&folder).map_err(|error| {
                Failure::usage(format!("cannot make {}: {error}", folder.display()))
            })?;
        } else if !folder.join(KEY_FILE).is_file() {
            return Err(Failure::usage(format!(
                "there are no keys in {}: enrol with `cim init LINK`, or name another folder with \
                 --home",
                folder.display()
            )));
        }
        let lock = lock(&folder.join("lock"))?;
        Ok(Self { folder, _lock: lock })
    }

    /// The key file.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.join(KEY_FILE)
    }

    /// The state file.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.folder.join("state.db")
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whose device this is, as the key file says without its password.
    pub(crate) fn account(&self) -> Result<AddressBuf, Failure> {
        Ok(keyfile::account(&self.key_file())?)
    }

    /// The account that was typed, with or without a domain; not one's own.
    pub(crate) fn other(&self, person: &str) -> Result<AddressBuf, Failure> {
        person::other(person, self.account()?.as_address())
    }

    /// Opens the key file with the password.
    pub(crate) async fn secrets(&self, global: &Global) -> Result<Secrets, Failure> {
        let account = self.account()?;
        let password = password(global, &format!("Password of {account}: ")).await?;
        Ok(keyfile::open(&self.key_file(), &password)?)
    }

    /// Opens everything: the engine over its state and the way to the relay. For a single
    /// command: what arrives meanwhile is left for whoever shows it.
    pub(crate) async fn driver(self, global: &Global) -> Result<Driver, Failure> {
        let secrets = self.secrets(global).await?;
        self.driver_with(global, &secrets)
    }

    /// The same for whoever shows everything that arrives.
    pub(crate) async fn viewer(self, global: &Global) -> Result<Driver, Failure> {
        let secrets = self.secrets(global).await?;
        self.open_driver(global, &secrets, true)
    }

    /// The same with secrets at hand.
    pub(crate) fn driver_with(self, global: &Global, secrets: &Secrets) -> Result<Driver, Failure> {
        self.open_driver(global, secrets, false)
    }

    fn open_driver(
        self,
        global: &Global,
        secrets: &Secrets,
        shows_notices: bool,
    ) -> Result<Driver, Failure> {
        let engine = self.engine(secrets, Config { shows_notices, ..Config::default() })?;
        let dialer = dialer(secrets, &engine)?;
        let trace = global.trace_lines.as_deref().map(Trace::open).transpose()?;
        Ok(Driver::new(self, engine, dialer, trace))
    }

    fn engine(&self, secrets: &Secrets, config: Config) -> Result<Engine, Failure> {
        let state = State::open(&self.state_file(), &secrets.state, Box::new(System::new()))?;
        let signer = secrets.device.to_signer().map_err(signer_failure)?;
        let owner = match &secrets.identity {
            Some(secret) => Some(Box::new(secret.to_signer().map_err(signer_failure)?) as _),
            None => None,
        };
        let account = secrets.account.as_address();
        let identity = Identity::new(account, &secrets.device_name, Box::new(signer), owner)?;
        let pin = match &secrets.domain.key {
            Some(text) => Some(base64::decode_array(text).map_err(|_| bad_pin())?),
            None => None,
        };
        let holder = Box::new(SoftwareHolder);
        Ok(Engine::open(state, identity, holder, config, pin)?)
    }
}

const KEY_FILE: &str = "key.json";

/// The way to the relay: where the invitation or the domain's name says, with the pinned keys.
pub(crate) fn dialer(secrets: &Secrets, engine: &Engine) -> Result<Dialer, Failure> {
    let domain = secrets.account.as_address().domain().to_owned();
    let relay = secrets.domain.relay.clone().unwrap_or_else(|| format!("{domain}:7700"));
    let mut pins = Vec::new();
    if let Some(text) = &secrets.domain.tls {
        pins.push(base64::decode_array(text).map_err(|_| bad_pin())?);
    }
    pins.extend(engine.tls_pins()?);
    Ok(Dialer::new(&domain, &relay, &pins)?)
}

/// The password: from the file that the options name, else from the terminal.
pub(crate) async fn password(global: &Global, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    match &global.password_file {
        Some(path) => read_password(path),
        None => terminal::ask_secret(prompt).await,
    }
}

fn read_password(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |text: String| Failure::usage(format!("password file {}: {text}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("is not a file".to_owned()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(failed("others may read it; type `chmod 600` on it".to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(PASSWORD_OCTETS_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > PASSWORD_OCTETS_MAX {
        return Err(failed("is too long to be a password".to_owned()));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    if text.is_empty() { Err(failed("is empty".to_owned())) } else { Ok(text) }
}

fn folder(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(folder) = &global.home {
        return Ok(folder.clone());
    }
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
    data.map(|data| data.join("cim"))
        .ok_or_else(|| Failure::usage("neither HOME nor --home says where your keys are"))
}

/// Takes the lock and writes this process's id into it.
fn lock(path: &Path) -> Result<File, Failure> {
    let failed = |error: std::io::Error| {
        Failure::temporary(format!("cannot lock {}: {error}", path.display()))
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // The number is only for the message.
            let _ = file.read_to_string(&mut owner);
            return Err(Failure::temporary(format!(
                "another cim (process {}) uses this device; end it first, or talk through it",
                owner.trim()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

fn bad_pin() -> Failure {
    Failure::usage("the key file has a damaged pin: restore it from a copy")
}

fn signer_failure(error: protocol::signature::SignatureError) -> Failure {
    Failure::usage(format!("the key file: {error}"))
}
