//! Prekeys: this device's own, made, published and used up; and others', checked before use.
//!
//! Owns the rows of [`Space::Prekey`] and the counters of SPK and OPK. The invariants: a one-time
//! key opens one offer and is then erased; signed keys rotate weekly, only once the queue is
//! drained, and the last two are kept; a 611 line is written down before it is sent and sent again
//! octet for octet (SPEC.md §6). Limits: [`limits::ONE_TIME_STOCK`], [`limits::SIGNED_KEYS_KEPT`].

use protocol::canonical::sha256;
use protocol::prekey::{
    CurveKey, MlKemKey, OneTimeKeys, P256Point, Prekey, PrekeyKeys, SignedKeys,
};
use protocol::record::Record;
use protocol::signature::{Algorithm, PublicKey};
use protocol::{AddressBuf, Command, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::directory::Contact;
use crate::identity::Identity;
use crate::limits;
use crate::random::NoRandom;
use crate::secret::{Secret, Secret32};
use crate::state::{Space, State, StateError};
use crate::suite::{
    Agreement, Curve, DeviceKeys, KemSecret, KeyHolder, LegacySecret, SoftwareKey, Suite,
    SuiteError, curve,
};

/// Why prekeys cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrekeyError {
    /// Misbehaved: a line of the answer is not this device's, expired, or lower than seen.
    #[error("the prekeys of {0} are not usable: {1}")]
    Bad(String, &'static str),
    /// Misuse: the key was used, or never made here.
    #[error("the prekey is gone")]
    Gone,
    /// Misbehaved: malformed, or a signature fails.
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
    /// Resource: the state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// Resource or misuse: key generation failed.
    #[error(transparent)]
    Suite(#[from] SuiteError),
}

impl From<NoRandom> for PrekeyError {
    fn from(error: NoRandom) -> Self {
        Self::Suite(error.into())
    }
}

/// The key of a curve, where it is kept: in the state file, or by handle elsewhere.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum CurveSecret {
    /// An X25519 scalar.
    X25519(Secret32),
    /// What a [`KeyHolder`] gave out.
    P256(Handle),
}

/// A handle of a [`KeyHolder`]; with a software holder it is the key itself.
#[derive(Clone)]
pub(crate) struct Handle(Zeroizing<Vec<u8>>);

impl Serialize for Handle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(protocol::base64::encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let octets = protocol::base64::decode(&text);
        octets
            .map(|octets| Self(Zeroizing::new(octets)))
            .map_err(|what| serde::de::Error::custom(what.text()))
    }
}

impl CurveSecret {
    /// A new key and its public half.
    pub(crate) fn generate(
        curve: Curve,
        state: &mut State,
        holder: &mut dyn KeyHolder,
    ) -> Result<(Self, CurveKey), PrekeyError> {
        match curve {
            Curve::X25519 => {
                let (key, secret) = SoftwareKey::generate(curve, state.random())?;
                let public = key.public().try_into().map_err(|_| SuiteError::Key)?;
                Ok((Self::X25519(secret), CurveKey::X25519(public)))
            }
            Curve::P256 => {
                let (handle, point) = holder.generate(state.random())?;
                let point = P256Point::parse(&point).map_err(protocol::Error::from)?;
                Ok((Self::P256(Handle(handle)), CurveKey::P256(point)))
            }
        }
    }

    /// The key, ready to agree.
    pub(crate) fn open(&self, holder: &dyn KeyHolder) -> Result<Box<dyn Agreement>, SuiteError> {
        match self {
            Self::X25519(secret) => Ok(Box::new(SoftwareKey::from_secret(Curve::X25519, secret)?)),
            Self::P256(handle) => holder.open(&handle.0),
        }
    }

    /// Destroys the key where it is kept elsewhere; the row goes with its owner.
    pub(crate) fn erase(&self, holder: &mut dyn KeyHolder) {
        if let Self::P256(handle) = self {
            holder.erase(&handle.0);
        }
    }
}

/// A signed prekey of this device with its private halves.
#[derive(Serialize, Deserialize)]
pub(crate) struct SignedSecret {
    number: u64,
    made: u64,
    x25519: CurveSecret,
    kem: Secret<64>,
    p256: Option<CurveSecret>,
    /// The PKCS#8 document of an RSA key for the L suites.
    rsa: Option<Handle>,
    line: String,
    is_published: bool,
}

impl SignedSecret {
    /// The private key for suites on `curve`.
    pub(crate) fn curve(&self, curve: Curve) -> Option<&CurveSecret> {
        match curve {
            Curve::X25519 => Some(&self.x25519),
            Curve::P256 => self.p256.as_ref(),
        }
    }

    /// The private ML-KEM key.
    pub(crate) fn kem(&self) -> KemSecret {
        KemSecret::from_seed(&self.kem)
    }

    /// The private RSA key, if there is one.
    pub(crate) fn rsa(&self) -> Result<Option<LegacySecret>, SuiteError> {
        self.rsa.as_ref().map(|document| LegacySecret::from_pkcs8(&document.0)).transpose()
    }
}

/// A one-time prekey of this device with its private halves.
#[derive(Serialize, Deserialize)]
pub(crate) struct OneTimeSecret {
    made: u64,
    curve: CurveSecret,
    kem: Option<Secret<64>>,
    line: String,
    is_published: bool,
}

impl OneTimeSecret {
    pub(crate) const fn curve(&self) -> &CurveSecret {
        &self.curve
    }

    pub(crate) fn kem(&self) -> Option<KemSecret> {
        self.kem.as_ref().map(KemSecret::from_seed)
    }
}

/// The counters; they never go back.
#[derive(Default, Serialize, Deserialize)]
struct Counters {
    signed: u64,
    one_time: u64,
}

const COUNTERS: &str = "prekeys";

/// What the prekeys of this device must serve.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// The suites of the own record, most wanted first.
    pub suites: Vec<Suite>,
    /// Whether one-time keys bring an ML-KEM key of their own (TLV 33), which then protects
    /// against a quantum computer even when the signed key is stolen later.
    pub has_one_time_kem: bool,
}

impl Purpose {
    fn curve(&self) -> Curve {
        self.suites.iter().find_map(|suite| curve(*suite)).unwrap_or(Curve::X25519)
    }
}

/// Makes a new signed prekey if there is none, or the newest is a week old and `is_drained` (all
/// queued lines are acknowledged); erases all but the last two.
///
/// # Errors
/// [`PrekeyError`].
pub fn rotate_signed(
    state: &mut State,
    identity: &Identity,
    holder: &mut dyn KeyHolder,
    purpose: &Purpose,
    is_drained: bool,
    now: Timestamp,
) -> Result<bool, PrekeyError> {
    let mut all = signed_rows(state)?;
    if let Some((_, newest)) = all.last() {
        let is_old = now.ms_since(Timestamp(newest.made)) >= limits::SIGNED_KEY_AGE_MS;
        if !(is_old && is_drained) {
            return Ok(false);
        }
    }
    while all.len() >= limits::SIGNED_KEYS_KEPT {
        let (name, oldest) = all.remove(0);
        if let Some(key) = &oldest.p256 {
            key.erase(holder);
        }
        state.remove(Space::Prekey, &name)?;
    }
    make_signed(state, identity, holder, purpose, now)?;
    Ok(true)
}

fn make_signed(
    state: &mut State,
    identity: &Identity,
    holder: &mut dyn KeyHolder,
    purpose: &Purpose,
    now: Timestamp,
) -> Result<(), PrekeyError> {
    let number = next_number(state, |counters| &mut counters.signed)?;
    let (x25519, x25519_public) = CurveSecret::generate(Curve::X25519, state, holder)?;
    let CurveKey::X25519(x25519_public) = x25519_public else { return Err(PrekeyError::Gone) };
    let (kem, seed) = KemSecret::generate(state.random())?;
    let mut p256 = None;
    let mut point = None;
    if purpose.suites.contains(&Suite::M2) {
        let (secret, public) = CurveSecret::generate(Curve::P256, state, holder)?;
        if let CurveKey::P256(public) = public {
            point = Some(public);
        }
        p256 = Some(secret);
    }
    let mut rsa = None;
    let mut rsa_public = None;
    if purpose.suites.iter().any(|suite| suite.is_legacy()) {
        let (document, spki) = LegacySecret::generate()?;
        rsa_public = Some(PublicKey::parse(Algorithm::Pss, &spki).map_err(protocol::Error::from)?);
        rsa = Some(Handle(document));
    }
    let keys = SignedKeys {
        x25519: x25519_public,
        ml_kem: MlKemKey::parse(&kem.public()).map_err(protocol::Error::from)?,
        p256: point,
        rsa: rsa_public,
    };
    let line = sign(identity, number, PrekeyKeys::Signed(keys), now)?;
    let row = SignedSecret {
        number,
        made: now.0,
        x25519,
        kem: seed,
        p256,
        rsa,
        line,
        is_published: false,
    };
    Ok(state.put(Space::Prekey, &signed_name(number), &row)?)
}

/// Makes `count` one-time prekeys, as far as the stock stays within
/// [`limits::ONE_TIME_STOCK_MAX`], and erases those nobody can use any more.
///
/// # Errors
/// [`PrekeyError`].
pub fn add_one_time(
    state: &mut State,
    identity: &Identity,
    holder: &mut dyn KeyHolder,
    purpose: &Purpose,
    count: usize,
    now: Timestamp,
) -> Result<(), PrekeyError> {
    let mut stock = 0;
    for (name, row) in one_time_rows(state)? {
        if now.ms_since(Timestamp(row.made)) >= limits::ONE_TIME_KEY_AGE_MS_MAX {
            row.curve.erase(holder);
            state.remove(Space::Prekey, &name)?;
        } else {
            stock += 1;
        }
    }
    for _ in 0..count.min(limits::ONE_TIME_STOCK_MAX.saturating_sub(stock)) {
        let number = next_number(state, |counters| &mut counters.one_time)?;
        let (curve, public) = CurveSecret::generate(purpose.curve(), state, holder)?;
        let kem = match purpose.has_one_time_kem {
            true => Some(KemSecret::generate(state.random())?),
            false => None,
        };
        let ml_kem = kem.as_ref().map(|(kem, _)| MlKemKey::parse(&kem.public())).transpose();
        let keys = OneTimeKeys { curve: public, ml_kem: ml_kem.map_err(protocol::Error::from)? };
        let line = sign(identity, number, PrekeyKeys::OneTime(keys), now)?;
        let kem = kem.map(|(_, seed)| seed);
        let row = OneTimeSecret { made: now.0, curve, kem, line, is_published: false };
        state.put(Space::Prekey, &one_time_name(number), &row)?;
    }
    Ok(())
}

/// Whether there is a signed prekey.
///
/// # Errors
/// [`PrekeyError::State`].
pub fn has_signed(state: &State) -> Result<bool, PrekeyError> {
    Ok(!signed_rows(state)?.is_empty())
}

/// The number of one-time prekeys whose private halves are here.
///
/// # Errors
/// [`PrekeyError::State`].
pub fn one_time_count(state: &State) -> Result<usize, PrekeyError> {
    Ok(one_time_rows(state)?.len())
}

/// The lines that the relay has not confirmed yet, each with its name.
///
/// # Errors
/// [`PrekeyError::State`].
pub fn unpublished(state: &State) -> Result<Vec<(String, String)>, PrekeyError> {
    let signed = signed_rows(state)?;
    let one_time = one_time_rows(state)?;
    let signed = signed.into_iter().filter(|(_, row)| !row.is_published);
    let one_time = one_time.into_iter().filter(|(_, row)| !row.is_published);
    Ok(signed
        .map(|(name, row)| (name, row.line))
        .chain(one_time.map(|(name, row)| (name, row.line)))
        .collect())
}

/// Takes note that the relay has the line of this name.
///
/// # Errors
/// [`PrekeyError::State`].
pub fn published(state: &mut State, name: &str) -> Result<(), PrekeyError> {
    if name.starts_with("spk:") {
        if let Some(mut row) = state.get::<SignedSecret>(Space::Prekey, name)? {
            row.is_published = true;
            state.put(Space::Prekey, name, &row)?;
        }
    } else if let Some(mut row) = state.get::<OneTimeSecret>(Space::Prekey, name)? {
        row.is_published = true;
        state.put(Space::Prekey, name, &row)?;
    }
    Ok(())
}

/// Forgets a line that the relay refused; its keys are erased.
///
/// # Errors
/// [`PrekeyError::State`].
pub fn refused(
    state: &mut State,
    holder: &mut dyn KeyHolder,
    name: &str,
) -> Result<(), PrekeyError> {
    if let Some(row) = one_time_rows(state)?.into_iter().find(|(found, _)| found == name) {
        row.1.curve.erase(holder);
        state.remove(Space::Prekey, name)?;
    }
    Ok(())
}

/// The signed prekey of this number.
pub(crate) fn signed(state: &State, number: u64) -> Result<SignedSecret, PrekeyError> {
    state.get(Space::Prekey, &signed_name(number))?.ok_or(PrekeyError::Gone)
}

/// The one-time prekey of this number.
pub(crate) fn one_time(state: &State, number: u64) -> Result<OneTimeSecret, PrekeyError> {
    state.get(Space::Prekey, &one_time_name(number))?.ok_or(PrekeyError::Gone)
}

/// Erases the one-time prekey of this number.
pub(crate) fn erase_one_time(
    state: &mut State,
    holder: &mut dyn KeyHolder,
    number: u64,
) -> Result<(), PrekeyError> {
    if let Ok(row) = one_time(state, number) {
        row.curve.erase(holder);
        state.remove(Space::Prekey, &one_time_name(number))?;
    }
    Ok(())
}

/// Erases every one-time prekey and retires the signed ones: what a restored device does, because
/// the copy it came from may have used them (SPEC.md §7).
pub(crate) fn discard(
    state: &mut State,
    identity: &Identity,
    holder: &mut dyn KeyHolder,
    purpose: &Purpose,
    now: Timestamp,
) -> Result<(), PrekeyError> {
    for (name, row) in one_time_rows(state)? {
        row.curve.erase(holder);
        state.remove(Space::Prekey, &name)?;
    }
    for (name, row) in signed_rows(state)? {
        if let Some(key) = &row.p256 {
            key.erase(holder);
        }
        state.remove(Space::Prekey, &name)?;
    }
    // The copy may have made higher numbers since; a jump stays above them.
    let mut counters: Counters = state.get(Space::Meta, COUNTERS)?.unwrap_or_default();
    counters.signed += limits::RESTORE_NUMBER_JUMP;
    counters.one_time += limits::RESTORE_NUMBER_JUMP;
    state.put(Space::Meta, COUNTERS, &counters)?;
    make_signed(state, identity, holder, purpose, now)?;
    add_one_time(state, identity, holder, purpose, limits::ONE_TIME_STOCK, now)
}

fn next_number(
    state: &mut State,
    counter: fn(&mut Counters) -> &mut u64,
) -> Result<u64, PrekeyError> {
    let mut counters: Counters = state.get(Space::Meta, COUNTERS)?.unwrap_or_default();
    let place = counter(&mut counters);
    *place += 1;
    let number = *place;
    state.put(Space::Meta, COUNTERS, &counters)?;
    Ok(number)
}

fn sign(
    identity: &Identity,
    number: u64,
    keys: PrekeyKeys,
    now: Timestamp,
) -> Result<String, PrekeyError> {
    let prekey = Prekey {
        device: identity.device().to_buf(),
        number,
        made: now,
        not_after: now.plus_ms(protocol::limits::PREKEY_LIFE_MS_MAX),
        keys,
    };
    Ok(prekey.sign(identity.signer())?)
}

fn signed_name(number: u64) -> String {
    format!("spk:{number:020}")
}

fn one_time_name(number: u64) -> String {
    format!("opk:{number:020}")
}

/// Signed prekeys in the order of their numbers.
fn signed_rows(state: &State) -> Result<Vec<(String, SignedSecret)>, PrekeyError> {
    rows(state, "spk:")
}

/// One-time prekeys in the order of their numbers.
fn one_time_rows(state: &State) -> Result<Vec<(String, OneTimeSecret)>, PrekeyError> {
    rows(state, "opk:")
}

fn rows<T: serde::de::DeserializeOwned>(
    state: &State,
    prefix: &str,
) -> Result<Vec<(String, T)>, PrekeyError> {
    Ok(state.list_prefix(Space::Prekey, prefix)?)
}

/// The prekeys of another device, as the relay gave them and checked.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The device.
    pub device: AddressBuf,
    /// Its newest signed prekey.
    pub signed: Prekey,
    /// A one-time prekey, if the relay had one left.
    pub one_time: Option<Prekey>,
    /// Hash of the one-time line: no line is used for two offers.
    pub one_time_hash: Option<[u8; 32]>,
}

impl Fetched {
    /// Checks one entry of an answer to 612 against the account's record and what was seen before.
    ///
    /// # Errors
    /// [`PrekeyError::Bad`], [`PrekeyError::Protocol`].
    pub fn check(
        contact: &mut Contact,
        record: &Record,
        device: &str,
        signed_line: &str,
        one_time_line: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, PrekeyError> {
        let bad = |what| PrekeyError::Bad(format!("{}/{device}", record.account()), what);
        let address = AddressBuf::with_device(record.account(), device)?;
        if contact.is_revoked(device) {
            return Err(bad("the key of this device was revoked"));
        }
        let read = |line: &str| -> Result<Prekey, PrekeyError> {
            let prekey = Prekey::verify(&Command::parse(line.as_bytes())?, record)?;
            if prekey.device != address {
                return Err(bad("they are another device's"));
            }
            if !prekey.is_valid_at(now) {
                return Err(bad("they have expired"));
            }
            Ok(prekey)
        };
        let signed = read(signed_line)?;
        if !matches!(signed.keys, PrekeyKeys::Signed(_)) {
            return Err(bad("the signed one is missing"));
        }
        let seen = contact.spk_seen.entry(device.into()).or_default();
        if signed.number < *seen {
            return Err(bad("they are older than those seen before"));
        }
        *seen = signed.number;
        let one_time = one_time_line.map(read).transpose()?;
        if one_time.as_ref().is_some_and(|one| !matches!(one.keys, PrekeyKeys::OneTime(_))) {
            return Err(bad("the one-time key has the wrong form"));
        }
        let one_time_hash = one_time_line.map(|line| sha256(&[line.as_bytes()]));
        Ok(Self { device: address, signed, one_time, one_time_hash })
    }

    /// The public keys that an offer of `suite` is wrapped to, and whether the one-time key is
    /// among them; `None` if the device has no key for that suite.
    pub(crate) fn keys_for(&self, suite: Suite) -> Option<(DeviceKeys, bool)> {
        let PrekeyKeys::Signed(signed) = &self.signed.keys else { return None };
        let curve = curve(suite)?;
        let signed_key = match curve {
            Curve::X25519 => signed.x25519.to_vec(),
            Curve::P256 => signed.p256?.as_octets().to_vec(),
        };
        let mut keys = DeviceKeys {
            signed: signed_key,
            one_time: None,
            kem: signed.ml_kem.as_octets().to_vec(),
        };
        if let Some(PrekeyKeys::OneTime(one_time)) = self.one_time.as_ref().map(|one| &one.keys) {
            keys.one_time = match (curve, &one_time.curve) {
                (Curve::X25519, CurveKey::X25519(key)) => Some(key.to_vec()),
                (Curve::P256, CurveKey::P256(point)) => Some(point.as_octets().to_vec()),
                _ => None,
            };
            if let (Some(_), Some(kem)) = (&keys.one_time, &one_time.ml_kem) {
                keys.kem = kem.as_octets().to_vec();
            }
        }
        let has_one_time = keys.one_time.is_some();
        Some((keys, has_one_time))
    }

    /// The SubjectPublicKeyInfo for a legacy offer.
    pub(crate) fn legacy_key(&self) -> Option<&[u8]> {
        match &self.signed.keys {
            PrekeyKeys::Signed(keys) => keys.rsa.as_ref().map(PublicKey::as_octets),
            PrekeyKeys::OneTime(_) => None,
        }
    }
}
