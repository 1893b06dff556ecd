//! A token in memory with switches for faults, behind the real service: for tests of what uses it.
//!
//! [`Fake::start`] serves the same socket, queues, deadlines and recovery as `cipherim-hsmd`; only
//! the PKCS#11 module is replaced by software keys. [`Switches`] take the token away, make it slow,
//! let calls hang, fail with any return code, panic, refuse the PIN, or give wrong answers.
//! Only with the feature `fake`, which no shipped program enables.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
};

use crate::blob::{self, Blob, Mechanism};
use crate::error::{Error, Fault};
use crate::job::{Algorithm, KeyKind, KeyName, PublicKey, Purpose, Request, Response, Secret};
use crate::service::pool::{Pool, Restart, Settings};
use crate::service::server::{Access, Server};
use crate::signature;
use crate::token::{Attachment, Depth, Module, Session, View};

/// What the fake token does; change it at any time, from any thread.
#[derive(Default)]
pub struct Switches {
    is_away: AtomicBool,
    is_pin_wrong: AtomicBool,
    gives_wrong_signatures: AtomicBool,
    panics: AtomicBool,
    delay_us: AtomicU64,
    /// A return code for the next calls, and for how many.
    failure: Mutex<(u64, u64)>,
    hanging: Mutex<Hanging>,
    released: Condvar,
    calls: AtomicU64,
    attachments: AtomicU64,
    finalisations: AtomicU64,
    restarts: AtomicU64,
    detachments: AtomicU64,
}

#[derive(Default)]
struct Hanging {
    is_every: bool,
    next: u64,
    releases: u64,
}

impl Switches {
    /// Takes the token away or brings it back.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, SeqCst);
    }

    /// Lets the token refuse the PIN.
    pub fn set_pin_wrong(&self, is_wrong: bool) {
        self.is_pin_wrong.store(is_wrong, SeqCst);
    }

    /// Time each call takes.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), SeqCst);
    }

    /// Lets signatures be wrong (another message's), as if nobody checked them.
    pub fn set_wrong_signatures(&self, is_wrong: bool) {
        self.gives_wrong_signatures.store(is_wrong, SeqCst);
    }

    /// Lets the next call panic.
    pub fn panic_once(&self) {
        self.panics.store(true, SeqCst);
    }

    /// Lets the next `count` calls return `code`.
    pub fn fail(&self, code: u64, count: u64) {
        *locked(&self.failure) = (code, count);
    }

    /// Lets every call hang from now on, or none, and releases those that do.
    pub fn set_hanging(&self, is_hanging: bool) {
        let mut hanging = locked(&self.hanging);
        hanging.is_every = is_hanging;
        hanging.next = 0;
        hanging.releases += 1;
        drop(hanging);
        self.released.notify_all();
    }

    /// Lets the next `count` calls hang until [`Switches::set_hanging`].
    pub fn hang_next(&self, count: u64) {
        locked(&self.hanging).next = count;
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// Attachments tried so far.
    pub fn attachments(&self) -> u64 {
        self.attachments.load(SeqCst)
    }

    /// Times the module was finalised and initialised.
    pub fn finalisations(&self) -> u64 {
        self.finalisations.load(SeqCst)
    }

    /// Times the process would have been restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(SeqCst)
    }

    /// Times the module was given up in order.
    pub fn detachments(&self) -> u64 {
        self.detachments.load(SeqCst)
    }

    fn fault(code: u64) -> Error {
        Error::Token { fault: Fault { slot: Some(1), function: "C_Fake".into(), code } }
    }

    /// What happens to a call before it does anything.
    fn call(&self) -> Result<(), Error> {
        self.calls.fetch_add(1, SeqCst);
        let mut hanging = locked(&self.hanging);
        if hanging.is_every || hanging.next > 0 {
            hanging.next = hanging.next.saturating_sub(1);
            let before = hanging.releases;
            while hanging.releases == before {
                hanging = self.released.wait(hanging).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(hanging);
        let delay = self.delay_us.load(SeqCst);
        if delay > 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
        if self.panics.swap(false, SeqCst) {
            // Without the hook: its backtrace takes seconds on a busy machine.
            std::panic::resume_unwind(Box::new("a fake token was told to panic"));
        }
        let mut failure = locked(&self.failure);
        if failure.1 > 0 {
            failure.1 -= 1;
            return Err(Self::fault(failure.0));
        }
        drop(failure);
        match self.is_away.load(SeqCst) {
            true => Err(Self::fault(0x82)),
            false => Ok(()),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Key {
    Kek([u8; 32]),
    Pair(Arc<EcdsaKeyPair>),
}

type Keys = Arc<Mutex<BTreeMap<(Purpose, u32), Key>>>;

/// The token: its keys outlive every attachment. Clones share them.
#[derive(Clone)]
pub struct FakeModule {
    /// The faults.
    pub switches: Arc<Switches>,
    keys: Keys,
    serial: String,
    known: BTreeMap<KeyName, Vec<u8>>,
    pin_attempts: u64,
    is_pin_refused: bool,
}

impl Default for FakeModule {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeModule {
    /// A token with version 1 of every key.
    pub fn new() -> Self {
        let mut serial = [0; 8];
        // Without random there are no keys either.
        let _ = fill(&mut serial);
        let module = Self {
            switches: Arc::new(Switches::default()),
            keys: Keys::default(),
            serial: crate::job::hexadecimal::encode(&serial),
            known: BTreeMap::new(),
            pin_attempts: 0,
            is_pin_refused: false,
        };
        for purpose in Purpose::ALL {
            module.make(purpose, 1);
        }
        module
    }

    /// Exchanges a key behind the service's back.
    pub fn exchange(&self, purpose: Purpose) {
        locked(&self.keys).remove(&(purpose, 1));
        self.make(purpose, 1);
    }

    fn make(&self, purpose: Purpose, version: u32) {
        let key = match purpose.kind() {
            KeyKind::Aes256 => {
                let mut key = [0; 32];
                fill(&mut key).ok().map(|()| Key::Kek(key))
            }
            KeyKind::P256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .ok()
                .map(|pair| Key::Pair(Arc::new(pair))),
        };
        if let Some(key) = key {
            locked(&self.keys).entry((purpose, version)).or_insert(key);
        }
    }

    fn public(&self) -> Vec<PublicKey> {
        let keys = locked(&self.keys);
        keys.iter()
            .map(|((purpose, version), key)| PublicKey {
                key: KeyName::exact(*purpose, *version),
                kind: purpose.kind(),
                point: match key {
                    Key::Kek(_) => Vec::new(),
                    Key::Pair(pair) => pair.public_key().as_ref().to_vec(),
                },
            })
            .collect()
    }
}

impl Module for FakeModule {
    fn attach(&mut self, depth: Depth) -> Result<Arc<dyn Attachment>, Error> {
        self.switches.attachments.fetch_add(1, SeqCst);
        if depth == Depth::Module {
            self.switches.finalisations.fetch_add(1, SeqCst);
        }
        if self.switches.is_away.load(SeqCst) {
            return Err(Switches::fault(0x30));
        }
        if self.is_pin_refused || self.switches.is_pin_wrong.load(SeqCst) {
            self.pin_attempts += u64::from(!self.is_pin_refused);
            self.is_pin_refused = true;
            let fault = Fault { slot: Some(1), function: "C_Login".into(), code: 0xA0 };
            return Err(Error::PinRefused { fault });
        }
        let keys = self.public();
        for key in &keys {
            let known = self.known.entry(key.key).or_insert_with(|| key.point.clone());
            if *known != key.point {
                return Err(Error::KeyChanged { key: key.key.to_string().into() });
            }
        }
        let mut view = View { keys, proven: vec!["fake".to_owned()], ..View::default() };
        view.token.serial = self.serial.clone();
        view.token.label = "fake".to_owned();
        let (switches, keys) = (Arc::clone(&self.switches), Arc::clone(&self.keys));
        Ok(Arc::new(FakeAttachment { view, switches, keys }))
    }

    fn check(&mut self) -> Result<(), Error> {
        match self.switches.is_away.load(SeqCst) {
            true => Err(Switches::fault(0x05)),
            false => Ok(()),
        }
    }

    fn generate(&mut self, name: KeyName) -> Result<PublicKey, Error> {
        self.switches.call()?;
        self.make(name.purpose, name.version.unwrap_or(1));
        let made = self.public().into_iter().find(|key| key.key == name);
        made.ok_or(Error::WrongAnswer { what: "the new key cannot be found".into() })
    }

    fn detach(&mut self) {
        self.switches.detachments.fetch_add(1, SeqCst);
    }

    fn is_pin_changed(&self) -> bool {
        !self.switches.is_pin_wrong.load(SeqCst)
    }

    fn pin_attempts(&self) -> u64 {
        self.pin_attempts
    }
}

struct FakeAttachment {
    view: View,
    switches: Arc<Switches>,
    keys: Keys,
}

impl Attachment for FakeAttachment {
    fn open(self: Arc<Self>) -> Result<Box<dyn Session>, Error> {
        match self.switches.is_away.load(SeqCst) {
            true => Err(Switches::fault(0x03)),
            false => Ok(Box::new(FakeSession { attachment: self })),
        }
    }

    fn view(&self) -> &View {
        &self.view
    }
}

struct FakeSession {
    attachment: Arc<FakeAttachment>,
}

impl FakeSession {
    fn name(&self, name: KeyName) -> Result<(Purpose, u32), Error> {
        let found = self.attachment.view.find(name);
        let missing =
            || Error::KeyMissing { key: name.to_string().into(), domain: "fake.example".into() };
        found.and_then(|key| Some((name.purpose, key.key.version?))).ok_or_else(missing)
    }

    fn sign(&self, name: KeyName, message: &[u8]) -> Result<Response, Error> {
        let at = self.name(name)?;
        let pair = match locked(&self.attachment.keys).get(&at) {
            Some(Key::Pair(pair)) => Arc::clone(pair),
            _ => return Err(Error::malformed("the algorithm does not suit the key: p256 does")),
        };
        let is_wrong = self.attachment.switches.gives_wrong_signatures.load(SeqCst);
        let signed = if is_wrong { b"another message" } else { message };
        let made = pair.sign(&SystemRandom::new(), signed).map_err(|_| Switches::fault(0x06))?;
        signature::normalise(made.as_ref()).map(|made| Response::Signature(made.to_vec()))
    }

    fn kek(&self, at: (Purpose, u32)) -> Result<AesKek, Error> {
        match locked(&self.attachment.keys).get(&at) {
            Some(Key::Kek(key)) => AesKek::new(&AES_256, key).map_err(|_| Switches::fault(0x06)),
            _ => Err(Error::malformed("wrap: the key is not a wrapping key")),
        }
    }

    fn wrap(&self, name: KeyName, data_key: &Secret) -> Result<Response, Error> {
        let at = self.name(name)?;
        let mut room = [0; crate::limits::DATA_KEY_BYTES_MAX + 8];
        let data =
            self.kek(at)?.wrap(data_key.expose(), &mut room).map_err(|_| Switches::fault(0x06))?;
        let blob = Blob {
            mechanism: Mechanism::KeyWrap,
            key: KeyName::exact(at.0, at.1),
            label: "fake".into(),
            serial: self.attachment.view.token.serial.as_str().into(),
            iv: (&[][..]).into(),
            data: (&*data).into(),
        };
        blob.encode(data_key.expose()).map(Response::Wrapped)
    }

    fn unwrap(&self, bytes: &[u8]) -> Result<Response, Error> {
        let blob = Blob::decode(bytes)?;
        let present = &self.attachment.view.token.serial;
        if blob.serial != *present {
            return Err(Error::OtherToken {
                wrapped_by: blob.serial.into_owned().into(),
                present: present.clone().into(),
            });
        }
        let damaged = || Error::Damaged { what: "it does not open".into() };
        let mut room = [0; crate::limits::DATA_KEY_BYTES_MAX];
        let data_key =
            self.kek(self.name(blob.key)?)?.unwrap(&blob.data, &mut room).map_err(|_| damaged())?;
        if !blob::is_bound(bytes, data_key) {
            return Err(damaged());
        }
        Ok(Response::Unwrapped(Secret::from(&*data_key)))
    }
}

impl Session for FakeSession {
    fn execute(&mut self, request: &Request) -> Result<Response, Error> {
        request.check()?;
        self.attachment.switches.call()?;
        match request {
            Request::Random { length } => {
                let mut octets = vec![0; *length as usize];
                fill(&mut octets).map_err(|_| Switches::fault(0x121))?;
                Ok(Response::Random(Secret::new(octets)))
            }
            Request::Sign { key, algorithm: Algorithm::P256, message } => self.sign(*key, message),
            Request::Sign { .. } => {
                Err(Error::malformed("the algorithm does not suit the key: p256 does"))
            }
            Request::Unwrap { blob } => self.unwrap(blob),
            Request::Verify { algorithm, public_key, message, signature } => {
                verify(*algorithm, public_key, message, signature).map(Response::Verified)
            }
            Request::Wrap { kek, data_key } => self.wrap(*kek, data_key),
            _ => Err(Error::malformed("this job is not done by a session")),
        }
    }
}

fn verify(
    algorithm: Algorithm,
    public_key: &[u8],
    message: &[u8],
    made: &[u8],
) -> Result<bool, Error> {
    let holds = match algorithm {
        Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, public_key).verify(message, made),
        Algorithm::P256 => {
            signature::check_point(public_key)?;
            if !signature::is_low(made) {
                return Ok(false);
            }
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key).verify(message, made)
        }
        Algorithm::Pss => {
            UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, public_key).verify(message, made)
        }
        Algorithm::RsaPkcs1 => {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key).verify(message, made)
        }
    };
    Ok(holds.is_ok())
}

/// A running service on a fake token.
pub struct Fake {
    /// The token.
    pub module: FakeModule,
    path: PathBuf,
    settings: Settings,
    running: Option<(Server, Arc<Pool>)>,
}

impl Fake {
    /// Settings with short times, two sessions and a queue of 1,024.
    pub fn settings() -> Settings {
        Settings {
            domain: "fake.example".to_owned(),
            sessions: 2,
            queue: 1_024,
            wedge_after: Duration::from_millis(500),
            poll_min: Duration::from_millis(5),
            poll_max: Duration::from_millis(20),
            presence: Duration::from_millis(50),
            allow_generate: true,
        }
    }

    /// Serves a new token on a socket at `path`.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(path: &Path) -> io::Result<Self> {
        Self::start_with(path, FakeModule::new(), Self::settings())
    }

    /// Serves `module` on a socket at `path`.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start_with(path: &Path, module: FakeModule, settings: Settings) -> io::Result<Self> {
        let mut fake = Self { module, path: path.to_owned(), settings, running: None };
        fake.serve()?;
        Ok(fake)
    }

    /// The faults.
    pub fn switches(&self) -> &Switches {
        &self.module.switches
    }

    /// Starts the service again after [`Fake::stop`]: same socket, same keys.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn serve(&mut self) -> io::Result<()> {
        let pool = Arc::new(start_pool(&self.module, self.settings.clone()));
        pool.wait_until_started();
        let access = Access { mode: 0o600, ..Access::default() };
        let server = Server::start(&self.path, access, Arc::clone(&pool))?;
        self.running = Some((server, pool));
        Ok(())
    }

    /// Stops the service: connections break, the socket goes away.
    pub fn stop(&mut self) {
        if let Some((mut server, pool)) = self.running.take() {
            self.module.switches.set_hanging(false);
            pool.stop(Duration::from_millis(200));
            server.stop();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A pool on a fake token, without a socket.
pub fn start_pool(module: &FakeModule, settings: Settings) -> Pool {
    let switches = Arc::clone(&module.switches);
    let restart: Restart = Box::new(move |_| {
        switches.restarts.fetch_add(1, SeqCst);
    });
    Pool::start(Box::new(module.clone()), settings, restart)
}
