//! A PKCS#11 module: loading, initialising, finding the token, logging in, testing it.
//!
//! One [`Pkcs11`] per process, owned by one thread. The token is found by its label (and serial, if
//! configured), never by slot number, which changes on replug. A second token with the same label
//! but another serial than the one first seen is not tried: its PIN attempts are its own. A session
//! that is still logged in is not logged in again, so a lost worker session costs no PIN attempt.
//! *Source:* PKCS#11 v3.1 §5.4 to §5.7.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Context};
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::session::{Session as Pkcs11Session, SessionState, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo as Pkcs11TokenInfo};
use cryptoki::types::AuthPin;

use crate::blob::Mechanism;
use crate::error::{Error, Fault};
use crate::job::{Algorithm, KeyKind, KeyName, PublicKey, TokenInfo};
use crate::pin::PinSource;
use crate::token::key::{self, Found};
use crate::token::public::Cache;
use crate::token::session::TokenSession;
use crate::token::wrap::{self, Wrapper};
use crate::token::{Attachment, Depth, Module, Session, View, code, selftest};

/// Which module, token and keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The vendor's library.
    pub path: PathBuf,
    /// Label of the token.
    pub label: String,
    /// Serial number, where the label is not enough.
    pub serial: Option<String>,
    /// Serials of tokens whose keys this one holds copies of.
    pub also_known_as: Vec<String>,
    /// The domain whose keys are used.
    pub domain: String,
    /// Every how many answers one is checked: 1 all, 0 none.
    pub check_every: u64,
}

/// The module of one process.
pub struct Pkcs11 {
    settings: Settings,
    pin: PinSource,
    context: Option<Context>,
    is_initialised: bool,
    login: Option<Pkcs11Session>,
    slot: Option<Slot>,
    serial_seen: Option<String>,
    known: HashMap<KeyName, Vec<u8>>,
    pin_attempts: u64,
}

/// What one attachment found, shared by its sessions.
pub(super) struct Attached {
    context: Context,
    slot: Slot,
    pub(super) domain: String,
    pub(super) also_known_as: Vec<String>,
    pub(super) check_every: u64,
    pub(super) found: Found,
    pub(super) wrap: Option<Mechanism>,
    pub(super) verifies: Vec<Algorithm>,
    pub(super) view: View,
}

impl Attached {
    pub(super) fn slot(&self) -> u64 {
        self.slot.id()
    }

    pub(super) fn session(self: Arc<Self>) -> Result<TokenSession, Error> {
        let session = self
            .context
            .open_ro_session(self.slot)
            .map_err(|error| code::error(Some(self.slot.id()), error))?;
        Ok(TokenSession { session, attached: self, cache: Cache::default(), answers: 0 })
    }
}

impl Attachment for Attached {
    fn open(self: Arc<Self>) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.session()?))
    }

    fn view(&self) -> &View {
        &self.view
    }
}

/// A token in a slot, for lists.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Seen {
    /// The token.
    #[serde(flatten)]
    pub token: TokenInfo,
    /// False for a token that was never initialised.
    pub is_initialised: bool,
    /// Names of the mechanisms it lists.
    pub mechanisms: Vec<String>,
}

impl Pkcs11 {
    /// A module that is not loaded yet.
    pub fn new(settings: Settings, pin: PinSource) -> Self {
        Self {
            settings,
            pin,
            context: None,
            is_initialised: false,
            login: None,
            slot: None,
            serial_seen: None,
            known: HashMap::new(),
            pin_attempts: 0,
        }
    }

    fn module_error(&self, reason: impl Into<String>) -> Error {
        Error::Module {
            path: self.settings.path.display().to_string().into(),
            reason: reason.into().into(),
        }
    }

    fn load(&mut self) -> Result<Context, Error> {
        if let Some(context) = &self.context {
            return Ok(context.clone());
        }
        if !self.settings.path.is_file() {
            return Err(self.module_error(
                "there is no such file; set `module` to the vendor's PKCS#11 library \
                 (SoftHSM on Debian: /usr/lib/softhsm/libsofthsm2.so, package softhsm2)",
            ));
        }
        let context = Context::new(&self.settings.path).map_err(|error| {
            self.module_error(format!("it cannot be loaded ({error}); is it a PKCS#11 library?"))
        })?;
        self.context = Some(context.clone());
        Ok(context)
    }

    /// Loads and initialises; with [`Depth::Module`] finalises first.
    fn initialise(&mut self, depth: Depth) -> Result<Context, Error> {
        let context = self.load()?;
        if depth == Depth::Module && self.is_initialised {
            self.login = None;
            self.slot = None;
            self.is_initialised = false;
            // A module that lost its state refuses to finalise; initialising will tell.
            if let Err(error) = context.clone().finalize() {
                tracing::debug!(%error, "C_Finalize");
            }
        }
        if !self.is_initialised {
            match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(code::error(None, error)),
            }
            self.is_initialised = true;
        }
        Ok(context)
    }

    /// The library, initialised.
    pub(super) fn context(&mut self) -> Result<Context, Error> {
        self.initialise(Depth::Sessions)
    }

    /// All tokens the module shows.
    ///
    /// # Errors
    /// As the module says.
    pub fn tokens(&mut self) -> Result<Vec<Seen>, Error> {
        let context = self.initialise(Depth::Sessions)?;
        let slots = context.get_slots_with_token().map_err(|error| code::error(None, error))?;
        let mut seen = Vec::new();
        for slot in slots {
            let Ok(info) = context.get_token_info(slot) else {
                continue;
            };
            let mechanisms = context.get_mechanism_list(slot).unwrap_or_default();
            seen.push(Seen {
                token: describe(slot, &info),
                is_initialised: info.token_initialized(),
                mechanisms: mechanisms.iter().map(ToString::to_string).collect(),
            });
        }
        Ok(seen)
    }

    fn find_slot(&self, context: &Context) -> Result<(Slot, Pkcs11TokenInfo), Error> {
        let slots = context.get_slots_with_token().map_err(|error| code::error(None, error))?;
        let mut failure = None;
        let mut present = Vec::new();
        let mut matching = Vec::new();
        for slot in slots {
            match context.get_token_info(slot) {
                Ok(info) if self.is_wanted(&info) => matching.push((slot, info)),
                Ok(info) if info.token_initialized() => present.push(format!("{:?}", info.label())),
                Ok(_) => {}
                Err(error) => failure = Some(code::error(Some(slot.id()), error)),
            }
        }
        if matching.len() > 1 {
            return Err(self.module_error(format!(
                "{} tokens are labelled {:?}; set token.serial to one of their serial numbers",
                matching.len(),
                self.settings.label
            )));
        }
        match (matching.pop(), failure) {
            (Some(found), _) => Ok(found),
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.absent(&present)),
        }
    }

    fn is_wanted(&self, info: &Pkcs11TokenInfo) -> bool {
        let serial = self.serial_seen.as_ref().or(self.settings.serial.as_ref());
        info.token_initialized()
            && info.label() == self.settings.label
            && serial.is_none_or(|serial| info.serial_number() == serial)
    }

    fn absent(&self, present: &[String]) -> Error {
        let label = &self.settings.label;
        let present = match present {
            [] => "no initialised token is present".to_owned(),
            labels => format!("present are {}", labels.join(", ")),
        };
        let serial = match self.serial_seen.as_ref().or(self.settings.serial.as_ref()) {
            Some(serial) => format!(" with serial {serial}"),
            None => String::new(),
        };
        let reason = format!(
            "no token is labelled {label:?}{serial} ({present}); plug it in, correct token.label, \
             or make one with: cipherim-hsmd init-token"
        );
        Error::Away { reason: reason.into(), retry_after: std::time::Duration::from_secs(1) }
    }

    /// Opens the session that keeps the login; logs in only if the token does not hold one.
    fn login(
        &mut self,
        context: &Context,
        slot: Slot,
        info: &Pkcs11TokenInfo,
    ) -> Result<(), Error> {
        let of = |error| code::error(Some(slot.id()), error);
        let session = match context.open_rw_session(slot) {
            Err(Pkcs11Error::Pkcs11(RvError::TokenWriteProtected, _)) => {
                context.open_ro_session(slot).map_err(of)?
            }
            other => other.map_err(of)?,
        };
        let state = session.get_session_info().map_err(of)?.session_state();
        let is_logged_in = matches!(state, SessionState::RoUser | SessionState::RwUser);
        if info.login_required() && !is_logged_in {
            self.try_pin(&session, slot, info)?;
        }
        // The old session goes last, since with the last session a login ends.
        self.login = Some(session);
        self.slot = Some(slot);
        Ok(())
    }

    fn try_pin(
        &mut self,
        session: &Pkcs11Session,
        slot: Slot,
        info: &Pkcs11TokenInfo,
    ) -> Result<(), Error> {
        let (pin, stamp) = self.pin.read()?;
        let fault = |code| Fault { slot: Some(slot.id()), function: "C_Login".into(), code };
        if info.user_pin_locked() {
            return Err(Error::PinRefused { fault: fault(0xA4) });
        }
        if info.user_pin_final_try() {
            let reason = "the token allows one last attempt before it locks; \
                          try the PIN with the vendor's tool first";
            return Err(Error::Pin { reason: reason.into() });
        }
        self.pin_attempts += 1;
        match session.login(UserType::User, Some(&AuthPin::from(pin.as_str()))) {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.pin.accept();
                Ok(())
            }
            Err(error) => Err(match code::error(Some(slot.id()), error) {
                Error::Refused { fault } => {
                    self.pin.refuse(stamp, fault.clone());
                    Error::PinRefused { fault }
                }
                other => other,
            }),
        }
    }

    fn compare(&mut self, found: &Found) -> Result<(), Error> {
        for key in found.keys.values() {
            if let Some(known) = self.known.get(&key.public.key)
                && *known != key.public.point
            {
                return Err(Error::KeyChanged { key: key.label.clone().into() });
            }
        }
        if let Some((missing, _)) = self.known.iter().find(|(name, _)| found.get(**name).is_none())
        {
            let reason = format!("the key {missing} has gone from it: plug the former token in");
            let retry_after = std::time::Duration::from_secs(1);
            return Err(Error::Away { reason: reason.into(), retry_after });
        }
        for key in found.keys.values() {
            self.known.insert(key.public.key, key.public.point.clone());
        }
        Ok(())
    }

    fn find_all(&mut self, depth: Depth) -> Result<(Context, Slot, TokenInfo, Found), Error> {
        let context = self.initialise(depth)?;
        let (slot, info) = self.find_slot(&context)?;
        self.login(&context, slot, &info)?;
        let session = self.login.as_ref().ok_or(Error::malformed("no session"))?;
        let mut found = key::find(session, slot.id(), &self.settings.domain)?;
        self.compare(&found)?;
        if info.user_pin_count_low() {
            found.warnings.push("an attempt with a wrong PIN was made on the token".to_owned());
        }
        Ok((context, slot, describe(slot, &info), found))
    }
}

impl Module for Pkcs11 {
    fn attach(&mut self, depth: Depth) -> Result<Arc<dyn Attachment>, Error> {
        let (context, slot, token, mut found) = self.find_all(depth)?;
        self.serial_seen = Some(token.serial.clone());
        let keys = found.keys.values().map(|key| key.public.clone()).collect();
        let warnings = std::mem::take(&mut found.warnings);
        let attached = Attached {
            context,
            slot,
            domain: self.settings.domain.clone(),
            also_known_as: self.settings.also_known_as.clone(),
            check_every: self.settings.check_every,
            found,
            wrap: None,
            verifies: Vec::new(),
            view: View { token, keys, proven: Vec::new(), warnings },
        };
        let attached = selftest::run(attached)?;
        // A token that went away during its test proves nothing.
        self.check()?;
        Ok(Arc::new(attached))
    }

    fn check(&mut self) -> Result<(), Error> {
        let (Some(context), Some(slot), Some(session)) = (&self.context, self.slot, &self.login)
        else {
            return Err(self.absent(&[]));
        };
        let of = |error| code::error(Some(slot.id()), error);
        context.get_token_info(slot).map_err(of)?;
        session.get_session_info().map_err(of)?;
        // Asking for a key makes modules look at the token; slot information alone may be old.
        if let Some(name) = self.known.keys().next() {
            let label =
                key::label(&self.settings.domain, name.purpose, name.version.unwrap_or_default());
            let template = [cryptoki::object::Attribute::Label(label.into_bytes())];
            if session.find_objects(&template).map_err(of)?.is_empty() {
                return Err(self.absent(&[]));
            }
        }
        Ok(())
    }

    fn generate(&mut self, name: KeyName) -> Result<PublicKey, Error> {
        let (_, slot, _, found) = self.find_all(Depth::Sessions)?;
        if let Some(key) = found.get(name) {
            return Ok(key.public.clone());
        }
        let domain = self.settings.domain.clone();
        let session = self.login.as_ref().ok_or(Error::malformed("no session"))?;
        let wrap = match name.purpose.kind() {
            KeyKind::Aes256 => wrap::choose_for_new_key(Wrapper { session, slot: slot.id() })?,
            KeyKind::P256 => None,
        };
        key::generate(session, slot.id(), &domain, name, wrap)?;
        let found = key::find(session, slot.id(), &domain)?;
        let made = found.get(name).map(|key| key.public.clone());
        self.compare(&found)?;
        made.ok_or_else(|| Error::WrongAnswer {
            what: format!("the new key {name} cannot be found").into(),
        })
    }

    fn detach(&mut self) {
        self.login = None;
        self.slot = None;
        if let Some(context) = self.context.clone()
            && std::mem::take(&mut self.is_initialised)
            && let Err(error) = context.finalize()
        {
            tracing::debug!(%error, "C_Finalize");
        }
    }

    fn is_pin_changed(&self) -> bool {
        self.pin.is_changed()
    }

    fn pin_attempts(&self) -> u64 {
        self.pin_attempts
    }
}

pub(super) fn describe(slot: Slot, info: &Pkcs11TokenInfo) -> TokenInfo {
    TokenInfo {
        slot: slot.id(),
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        model: info.model().to_owned(),
        manufacturer: info.manufacturer_id().to_owned(),
        sessions_max: match info.max_session_count() {
            Limit::Max(count) => Some(count),
            Limit::Infinite | Limit::Unavailable => None,
        },
    }
}
