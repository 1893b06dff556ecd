//! Prekeys (611): keys to which others wrap session keys before ever meeting (SPEC.md §6).
//!
//! Two forms: a signed prekey (`SPK=`, all the keys that an offer needs) and a one-time prekey
//! (`OPK=`, one key). Keys are checked when they are read: ML-KEM moduli by FIPS 203 §7.2,
//! P-256 points on the curve, RSA of at least 3072 bits. An X25519 key may be any 32 octets; the
//! agreement refuses an all-zero result.

use crate::address::AddressBuf;
use crate::code::Code;
use crate::command::Command;
use crate::error::{Error, StatementError};
use crate::limits::PREKEY_LIFE_MS_MAX;
use crate::record::Record;
use crate::signature::{Algorithm, P256_KEY_OCTETS, PublicKey, Signer};
use crate::timestamp::Timestamp;
use crate::tlv::{Reader, Writer, put_once};

/// Octets of an X25519 public key (RFC 7748 §5).
pub const X25519_KEY_OCTETS: usize = 32;
/// Octets of an ML-KEM-768 encapsulation key (FIPS 203 table 3).
pub const ML_KEM_KEY_OCTETS: usize = 1_184;

const TLV_SIGNED_X25519: u8 = 16;
const TLV_SIGNED_ML_KEM: u8 = 17;
const TLV_SIGNED_P256: u8 = 18;
const TLV_SIGNED_RSA: u8 = 19;
const TLV_ONE_X25519: u8 = 32;
const TLV_ONE_ML_KEM: u8 = 33;
const TLV_ONE_P256: u8 = 34;

/// An ML-KEM-768 encapsulation key that passed the modulus check of FIPS 203 §7.2.
#[derive(Clone, PartialEq, Eq)]
pub struct MlKemKey(Box<[u8; ML_KEM_KEY_OCTETS]>);

impl MlKemKey {
    /// Reads a key.
    ///
    /// # Errors
    /// [`StatementError::Key`] for another length or a coefficient not below 3329.
    pub fn parse(octets: &[u8]) -> Result<Self, StatementError> {
        let octets: &[u8; ML_KEM_KEY_OCTETS] =
            octets.try_into().map_err(|_| StatementError::Key)?;
        // 768 coefficients of 12 bits, then 32 octets of seed.
        let (coefficients, _seed) = octets.split_at(ML_KEM_KEY_OCTETS - 32);
        let (triples, _) = coefficients.as_chunks::<3>();
        let are_reduced = triples.iter().all(|&[a, b, c]| {
            let first = u16::from(a) | (u16::from(b & 0x0F) << 8);
            let second = u16::from(b >> 4) | (u16::from(c) << 4);
            first < ML_KEM_MODULUS && second < ML_KEM_MODULUS
        });
        if are_reduced { Ok(Self(Box::new(*octets))) } else { Err(StatementError::Key) }
    }

    /// The octets.
    #[must_use]
    pub const fn as_octets(&self) -> &[u8; ML_KEM_KEY_OCTETS] {
        &self.0
    }
}

impl core::fmt::Debug for MlKemKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&crate::base64::encode(&*self.0))
    }
}

/// q of ML-KEM (FIPS 203 §2.4).
const ML_KEM_MODULUS: u16 = 3_329;

/// A point on P-256, uncompressed, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P256Point([u8; P256_KEY_OCTETS]);

impl P256Point {
    /// Reads a point.
    ///
    /// # Errors
    /// [`StatementError::Key`] for another form, or a point off the curve.
    pub fn parse(octets: &[u8]) -> Result<Self, StatementError> {
        PublicKey::parse(Algorithm::P256, octets)?;
        octets.try_into().map(Self).map_err(|_| StatementError::Key)
    }

    /// The octets.
    #[must_use]
    pub const fn as_octets(&self) -> &[u8; P256_KEY_OCTETS] {
        &self.0
    }
}

/// The content of a 611 line, either form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prekey {
    /// The device it belongs to and that signs it.
    pub device: AddressBuf,
    /// SPK or OPK; rises with each new one.
    pub number: u64,
    /// TS.
    pub made: Timestamp,
    /// NA: not to be used from then on; at most 30 days after TS.
    pub not_after: Timestamp,
    /// The keys.
    pub keys: PrekeyKeys,
}

/// The keys of a 611 line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "short-lived; boxing would hide the shape")]
pub enum PrekeyKeys {
    /// `SPK=`.
    Signed(SignedKeys),
    /// `OPK=`.
    OneTime(OneTimeKeys),
}

/// The keys of the `SPK=` form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedKeys {
    /// TLV 16.
    pub x25519: [u8; X25519_KEY_OCTETS],
    /// TLV 17.
    pub ml_kem: MlKemKey,
    /// TLV 18, for suite M2.
    pub p256: Option<P256Point>,
    /// TLV 19, for the L suites: a key of algorithm `pss` read for its SubjectPublicKeyInfo.
    pub rsa: Option<PublicKey>,
}

/// The keys of the `OPK=` form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTimeKeys {
    /// TLV 32 or 34.
    pub curve: CurveKey,
    /// TLV 33, which then takes the place of TLV 17.
    pub ml_kem: Option<MlKemKey>,
}

/// A key for Diffie-Hellman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurveKey {
    /// X25519.
    X25519([u8; X25519_KEY_OCTETS]),
    /// P-256, for suite M2.
    P256(P256Point),
}

impl Prekey {
    /// Reads a 611 line without checking its signature.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::MissingParameter`], [`Error::BadParameter`],
    /// [`Error::UnknownCode`], [`StatementError::Body`], [`StatementError::Key`],
    /// [`StatementError::Validity`] unless TS < NA ≤ TS + 30 days.
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if command.code() != Code::PREKEYS {
            return Err(Error::UnknownCode(command.code()));
        }
        let device = command.from().filter(|from| from.is_device());
        let device = device.filter(|_| command.to().is_none()).ok_or(Error::BadAddress)?;
        let body = command.body();
        let (number, keys) = match (command.read("SPK")?, command.read("OPK")?) {
            (Some(number), None) => (number, PrekeyKeys::Signed(SignedKeys::read(&body)?)),
            (None, Some(number)) => (number, PrekeyKeys::OneTime(OneTimeKeys::read(&body)?)),
            (None, None) => return Err(Error::MissingParameter("SPK")),
            (Some(_), Some(_)) => return Err(Error::BadParameter("OPK")),
        };
        let (made, not_after): (Timestamp, Timestamp) = (command.need("TS")?, command.need("NA")?);
        if not_after <= made || not_after > made.plus_ms(PREKEY_LIFE_MS_MAX) {
            return Err(StatementError::Validity.into());
        }
        Ok(Self { device: device.to_buf(), number, made, not_after, keys })
    }

    /// Reads a 611 line that a device in `record` must have signed.
    ///
    /// # Errors
    /// As [`Prekey::parse`] and [`Record::verify_device_line`].
    pub fn verify(command: &Command<'_>, record: &Record) -> Result<Self, Error> {
        let prekey = Self::parse(command)?;
        record.verify_device_line(command)?;
        Ok(prekey)
    }

    /// Whether it may still be used at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        now < self.not_after
    }

    /// Writes the line, signed by the device.
    ///
    /// # Errors
    /// [`StatementError::Signer`]; as [`Prekey::parse`] for content outside its rules.
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, Error> {
        let (name, body) = match &self.keys {
            PrekeyKeys::Signed(keys) => ("SPK", keys.body()?),
            PrekeyKeys::OneTime(keys) => ("OPK", keys.body()?),
        };
        let line = Command::builder(Code::PREKEYS)
            .from(self.device.as_address())
            .parameter(name, self.number)
            .parameter("TS", self.made)
            .parameter("NA", self.not_after)
            .sign(&body, |tbs| signer.sign(tbs).map_err(Error::from))?;
        Self::parse(&Command::parse(line.as_bytes())?)?;
        Ok(line)
    }
}

impl SignedKeys {
    fn read(body: &[u8]) -> Result<Self, StatementError> {
        let (mut x25519, mut ml_kem, mut p256, mut rsa) = (None, None, None, None);
        for tlv in Reader::new(body) {
            let tlv = tlv?;
            match tlv.kind {
                TLV_SIGNED_X25519 => put_once(&mut x25519, read_x25519(tlv.value)?)?,
                TLV_SIGNED_ML_KEM => put_once(&mut ml_kem, MlKemKey::parse(tlv.value)?)?,
                TLV_SIGNED_P256 => put_once(&mut p256, P256Point::parse(tlv.value)?)?,
                TLV_SIGNED_RSA => {
                    put_once(&mut rsa, PublicKey::parse(Algorithm::Pss, tlv.value)?)?;
                }
                _ => {}
            }
        }
        Ok(Self {
            x25519: x25519.ok_or(StatementError::Body)?,
            ml_kem: ml_kem.ok_or(StatementError::Body)?,
            p256,
            rsa,
        })
    }

    fn body(&self) -> Result<Vec<u8>, StatementError> {
        let mut body = Writer::new();
        body.push(TLV_SIGNED_X25519, &self.x25519)?;
        body.push(TLV_SIGNED_ML_KEM, self.ml_kem.as_octets())?;
        if let Some(point) = &self.p256 {
            body.push(TLV_SIGNED_P256, point.as_octets())?;
        }
        if let Some(key) = &self.rsa {
            body.push(TLV_SIGNED_RSA, key.as_octets())?;
        }
        Ok(body.finish())
    }
}

impl OneTimeKeys {
    fn read(body: &[u8]) -> Result<Self, StatementError> {
        let (mut curve, mut ml_kem) = (None, None);
        for tlv in Reader::new(body) {
            let tlv = tlv?;
            match tlv.kind {
                TLV_ONE_X25519 => {
                    put_once(&mut curve, CurveKey::X25519(read_x25519(tlv.value)?))?;
                }
                TLV_ONE_P256 => {
                    put_once(&mut curve, CurveKey::P256(P256Point::parse(tlv.value)?))?;
                }
                TLV_ONE_ML_KEM => put_once(&mut ml_kem, MlKemKey::parse(tlv.value)?)?,
                _ => {}
            }
        }
        Ok(Self { curve: curve.ok_or(StatementError::Body)?, ml_kem })
    }

    fn body(&self) -> Result<Vec<u8>, StatementError> {
        let mut body = Writer::new();
        match &self.curve {
            CurveKey::X25519(key) => body.push(TLV_ONE_X25519, key)?,
            CurveKey::P256(point) => body.push(TLV_ONE_P256, point.as_octets())?,
        }
        if let Some(key) = &self.ml_kem {
            body.push(TLV_ONE_ML_KEM, key.as_octets())?;
        }
        Ok(body.finish())
    }
}

/// The keys that a 701 offers for the next refresh (SPEC.md §7): TLV 16 or 18, and 17.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextKeys {
    /// TLV 16, or 18 for suite M2.
    pub curve: CurveKey,
    /// TLV 17.
    pub ml_kem: MlKemKey,
}

impl NextKeys {
    /// Reads the body of a 701.
    ///
    /// # Errors
    /// [`StatementError::Body`], [`StatementError::Key`].
    pub fn read(body: &[u8]) -> Result<Self, StatementError> {
        let (mut curve, mut ml_kem) = (None, None);
        for tlv in Reader::new(body) {
            let tlv = tlv?;
            match tlv.kind {
                TLV_SIGNED_X25519 => {
                    put_once(&mut curve, CurveKey::X25519(read_x25519(tlv.value)?))?;
                }
                TLV_SIGNED_P256 => {
                    put_once(&mut curve, CurveKey::P256(P256Point::parse(tlv.value)?))?;
                }
                TLV_SIGNED_ML_KEM => put_once(&mut ml_kem, MlKemKey::parse(tlv.value)?)?,
                _ => {}
            }
        }
        Ok(Self {
            curve: curve.ok_or(StatementError::Body)?,
            ml_kem: ml_kem.ok_or(StatementError::Body)?,
        })
    }

    /// Writes the body of a 701.
    ///
    /// # Errors
    /// None in practice: the keys are far shorter than a TLV can be.
    pub fn body(&self) -> Result<Vec<u8>, StatementError> {
        let mut body = Writer::new();
        match &self.curve {
            CurveKey::X25519(key) => body.push(TLV_SIGNED_X25519, key)?,
            CurveKey::P256(point) => body.push(TLV_SIGNED_P256, point.as_octets())?,
        }
        body.push(TLV_SIGNED_ML_KEM, self.ml_kem.as_octets())?;
        Ok(body.finish())
    }
}

fn read_x25519(value: &[u8]) -> Result<[u8; X25519_KEY_OCTETS], StatementError> {
    value.try_into().map_err(|_| StatementError::Key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::error::StatementError as Why;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut body = Writer::new();
        body.push(kind, value).unwrap();
        body.finish()
    }

    fn read(parameters: &str, body: &[u8]) -> Result<Prekey, Error> {
        let body = crate::base64::encode(body);
        let line = format!("611 FROM bob@b.example/d7 {parameters} {body} c2ln");
        Prekey::parse(&Command::parse(line.as_bytes()).unwrap())
    }

    /// Any key with all coefficients zero passes the modulus check.
    const ML_KEM: [u8; ML_KEM_KEY_OCTETS] = [0; ML_KEM_KEY_OCTETS];
    const DAY: u64 = 24 * 60 * 60 * 1_000;

    #[test]
    fn the_modulus_check() {
        let with = |position: usize, coefficient: u16| {
            let mut key = ML_KEM;
            let at = position / 2 * 3;
            if position.is_multiple_of(2) {
                key[at] = coefficient as u8;
                key[at + 1] |= (coefficient >> 8) as u8;
            } else {
                key[at + 1] |= (coefficient << 4) as u8;
                key[at + 2] = (coefficient >> 4) as u8;
            }
            MlKemKey::parse(&key)
        };
        for position in [0, 1, 2, 383, 766, 767] {
            assert!(with(position, 3_328).is_ok(), "{position}");
            for coefficient in [3_329, 3_330, 4_095] {
                assert_eq!(with(position, coefficient), Err(Why::Key), "{position}");
            }
        }
        let mut seed = ML_KEM;
        seed[ML_KEM_KEY_OCTETS - 32..].fill(0xFF);
        assert!(MlKemKey::parse(&seed).is_ok(), "the seed is no coefficient");
        assert!(MlKemKey::parse(&ML_KEM[1..]).is_err());
        assert!(MlKemKey::parse(&[0; ML_KEM_KEY_OCTETS + 1]).is_err());
    }

    #[test]
    fn hostile_parameters() {
        let body = [tlv(16, &[9; 32]), tlv(17, &ML_KEM)].concat();
        for (parameters, reply) in [
            ("SPK=1 TS=1 NA=2", None),
            ("TS=1 NA=2", Some(501)),
            ("SPK=1 OPK=1 TS=1 NA=2", Some(501)),
            ("SPK=x TS=1 NA=2", Some(501)),
            ("SPK=1 NA=2", Some(501)),
            ("SPK=1 TS=1", Some(501)),
            ("SPK=1 TS=2 NA=2", Some(501)),
            ("SPK=1 TS=3 NA=2", Some(501)),
        ] {
            let refused = read(parameters, &body).err().map(Error::reply_code);
            assert_eq!(refused, reply, "{parameters}");
        }
        assert!(read(&format!("SPK=1 TS=7 NA={}", 7 + 30 * DAY), &body).is_ok());
        assert!(read(&format!("SPK=1 TS=7 NA={}", 8 + 30 * DAY), &body).is_err());
    }

    #[test]
    fn hostile_keys() {
        let (x, kem) = (tlv(16, &[9; 32]), tlv(17, &ML_KEM));
        let mut off_curve = [7; P256_KEY_OCTETS];
        off_curve[0] = 4;
        for (name, body, why) in [
            ("only X25519", x.clone(), Why::Body),
            ("only ML-KEM", kem.clone(), Why::Body),
            ("twice", [x.clone(), x.clone(), kem.clone()].concat(), Why::Body),
            ("short", [tlv(16, &[9; 31]), kem.clone()].concat(), Why::Key),
            ("modulus", [x.clone(), tlv(17, &[0xFF; ML_KEM_KEY_OCTETS])].concat(), Why::Key),
            ("off curve", [x.clone(), kem.clone(), tlv(18, &off_curve)].concat(), Why::Key),
            ("no RSA key", [x.clone(), kem.clone(), tlv(19, &[0; 400])].concat(), Why::Key),
            ("one-time keys", [tlv(32, &[9; 32]), tlv(33, &ML_KEM)].concat(), Why::Body),
        ] {
            let refused = read("SPK=1 TS=1 NA=2", &body);
            assert_eq!(refused, Err(why.into()), "{name}");
        }
        let one = tlv(32, &[9; 32]);
        assert!(read("OPK=1 TS=1 NA=2", &one).is_ok());
        assert!(read("OPK=1 TS=1 NA=2", &[one.clone(), tlv(200, &[])].concat()).is_ok());
        for (name, body, why) in [
            ("both curves", [one.clone(), tlv(34, &off_curve)].concat(), Why::Key),
            ("twice", [one.clone(), one].concat(), Why::Body),
            ("signed keys", [x, kem].concat(), Why::Body),
        ] {
            let refused = read("OPK=1 TS=1 NA=2", &body);
            assert_eq!(refused, Err(why.into()), "{name}");
        }
    }

    #[test]
    fn the_keys_of_a_701() {
        let curve = CurveKey::X25519([9; 32]);
        let keys = NextKeys { curve, ml_kem: MlKemKey::parse(&ML_KEM).unwrap() };
        assert_eq!(NextKeys::read(&keys.body().unwrap()), Ok(keys));
        assert_eq!(NextKeys::read(&tlv(16, &[9; 32])), Err(Why::Body));
        assert_eq!(NextKeys::read(&tlv(32, &[9; 32])), Err(Why::Body));
    }
}
