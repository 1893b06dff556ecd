//! Acceptance (701) with keys for the next refresh, and refusal or close (703).
//!
//! Owns the rows of [`Space::NextKey`] (the keys this device gave out) and [`Space::PeerKey`]
//! (those
//! it was given). The invariant: an NK is erased when its 702 has opened, with the next 701 to the
//! same device, or after a day (SPEC.md §7).

use protocol::code::Code;
use protocol::identifier::{NextKeyId, RecordName};
use protocol::offer::Accept;
use protocol::prekey::{CurveKey, MlKemKey, NextKeys};
use protocol::{Address, Command, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Session, SessionError, offer};
use crate::identity::Identity;
use crate::limits;
use crate::prekey::CurveSecret;
use crate::random;
use crate::secret::Secret;
use crate::state::{Space, State, StateError};
use crate::suite::{DeviceKeys, KemSecret, KeyHolder, curve};

/// Keys that this device gave out in a 701, with their private halves.
#[derive(Serialize, Deserialize)]
pub(crate) struct NextKey {
    /// The device they were given to.
    pub(crate) device: String,
    pub(crate) curve: CurveSecret,
    kem: Secret<64>,
    made: u64,
}

impl NextKey {
    pub(crate) fn kem(&self) -> KemSecret {
        KemSecret::from_seed(&self.kem)
    }
}

/// Keys that another device gave in its 701.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerKey {
    /// NK.
    pub(crate) name: String,
    curve: String,
    kem: String,
    received: u64,
}

impl PeerKey {
    pub(crate) fn to_device_keys(&self) -> DeviceKeys {
        let octets = |text: &str| protocol::base64::decode(text).unwrap_or_default();
        DeviceKeys { signed: octets(&self.curve), one_time: None, kem: octets(&self.kem) }
    }
}

/// The row of an NK that this device gave out.
pub(crate) fn next_key(state: &State, name: &str) -> Result<Option<NextKey>, StateError> {
    state.get(Space::NextKey, name)
}

/// Erases an NK that this device gave out.
pub(crate) fn erase_next_key(
    state: &mut State,
    holder: &mut dyn KeyHolder,
    name: &str,
) -> Result<(), StateError> {
    if let Some(row) = next_key(state, name)? {
        row.curve.erase(holder);
        state.remove(Space::NextKey, name)?;
    }
    Ok(())
}

/// Writes a 701 for `generation` to the device that offered it. Keys given to that device before
/// are erased. Returns MID and line.
pub(crate) fn make(
    state: &mut State,
    identity: &Identity,
    holder: &mut dyn KeyHolder,
    session: &Session,
    generation: &str,
    to: Address<'_>,
    now: Timestamp,
) -> Result<(String, String), SessionError> {
    let mid = offer::new_mid(state)?;
    let mut line = Command::builder(Code::ACCEPT)
        .to(to)
        .from(identity.device())
        .parameter("SID", &session.sid)
        .parameter("GEN", generation);
    let mut body = Vec::new();
    if let Some(curve) = curve(session.suite()?) {
        let older: Vec<(String, NextKey)> = state.list(Space::NextKey)?;
        for (name, _) in older.iter().filter(|(_, row)| row.device == to.as_str()) {
            erase_next_key(state, holder, name)?;
        }
        let name = NextKeyId::from_octets(&random::octets(state.random())?);
        let (secret, public) = CurveSecret::generate(curve, state, holder)?;
        let (kem, seed) = KemSecret::generate(state.random())?;
        let keys = NextKeys { curve: public, ml_kem: MlKemKey::parse(&kem.public())? };
        body = keys.body()?;
        let row = NextKey { device: to.as_str().into(), curve: secret, kem: seed, made: now.0 };
        state.put(Space::NextKey, name.as_str(), &row)?;
        line = line.parameter("NK", name);
    }
    let line = line.parameter("TS", now).parameter("MID", &mid);
    Ok((mid, identity.sign(line, &body)?))
}

/// Keeps the keys of a 701 that `accept` read from a line whose signature holds.
pub(crate) fn keep_peer_key(
    state: &mut State,
    accept: &Accept<'_>,
    now: Timestamp,
) -> Result<(), StateError> {
    let name = peer_name(accept.session.as_str(), accept.from.as_str());
    let Some((nk, keys)) = &accept.next else { return Ok(()) };
    let curve = match &keys.curve {
        CurveKey::X25519(key) => protocol::base64::encode(key),
        CurveKey::P256(point) => protocol::base64::encode(point.as_octets()),
    };
    let row = PeerKey {
        name: nk.as_str().into(),
        curve,
        kem: protocol::base64::encode(keys.ml_kem.as_octets()),
        received: now.0,
    };
    state.put(Space::PeerKey, &name, &row)
}

/// Takes the keys that `device` gave for the next refresh, if they are still good; they are not
/// used twice.
pub(crate) fn take_peer_key(
    state: &mut State,
    session: &Session,
    device: &str,
    now: Timestamp,
) -> Result<Option<PeerKey>, SessionError> {
    let name = peer_name(&session.sid, device);
    let Some(row) = state.get::<PeerKey>(Space::PeerKey, &name)? else { return Ok(None) };
    state.remove(Space::PeerKey, &name)?;
    let is_fresh = now.ms_since(Timestamp(row.received)) < limits::PEER_KEY_AGE_MS_MAX;
    let octets = curve(session.suite()?).map(|curve| curve.public_octets());
    let fits = octets == Some(row.to_device_keys().signed.len());
    Ok((is_fresh && fits).then_some(row))
}

/// Whether `device` gave keys that a refresh may use.
pub(crate) fn has_peer_key(
    state: &State,
    session: &Session,
    device: &str,
    now: Timestamp,
) -> Result<bool, StateError> {
    let row = state.get::<PeerKey>(Space::PeerKey, &peer_name(&session.sid, device))?;
    Ok(row.is_some_and(|row| now.ms_since(Timestamp(row.received)) < limits::PEER_KEY_AGE_MS_MAX))
}

/// Erases keys for refreshes that have aged.
pub(crate) fn expire(
    state: &mut State,
    holder: &mut dyn KeyHolder,
    now: Timestamp,
) -> Result<(), StateError> {
    for (name, row) in state.list::<NextKey>(Space::NextKey)? {
        if now.ms_since(Timestamp(row.made)) >= limits::NEXT_KEY_AGE_MS_MAX {
            erase_next_key(state, holder, &name)?;
        }
    }
    for (name, row) in state.list::<PeerKey>(Space::PeerKey)? {
        if now.ms_since(Timestamp(row.received)) >= limits::PEER_KEY_AGE_MS_MAX {
            state.remove(Space::PeerKey, &name)?;
        }
    }
    Ok(())
}

/// What a 703 says.
pub(crate) struct Closing<'a> {
    /// SID.
    pub(crate) sid: &'a str,
    /// GEN, for a refusal.
    pub(crate) generation: Option<&'a str>,
    /// CODE; without it the session is closed.
    pub(crate) code: Option<u16>,
    /// KR: the record that would have been right.
    pub(crate) record: Option<RecordName>,
}

/// Writes a 703. Returns MID and line.
pub(crate) fn close(
    state: &mut State,
    identity: &Identity,
    to: Address<'_>,
    closing: &Closing<'_>,
    now: Timestamp,
) -> Result<(String, String), SessionError> {
    let mid = offer::new_mid(state)?;
    let line = Command::builder(Code::CLOSE)
        .to(to)
        .from(identity.device())
        .parameter("SID", closing.sid)
        .parameter_if("GEN", closing.generation)
        .parameter_if("CODE", closing.code)
        .parameter_if("KR", closing.record)
        .parameter("TS", now)
        .parameter("MID", &mid);
    Ok((mid, identity.sign(line, &[])?))
}

fn peer_name(sid: &str, device: &str) -> String {
    format!("{sid} {device}")
}
