//! Keys on a PKCS#11 token: their labels, how they are found and how they are made.
//!
//! A key is `cipherim/<domain>/<purpose>/<version>` in `CKA_LABEL` and `CKA_ID`. Private and secret
//! keys are token objects, private, sensitive, never extractable; a key that is not is used, but
//! [`Found::warnings`] says so. A P-256 key needs its public part, which is checked to lie on the
//! curve. *Source:* PKCS#11 v3.1 §4.

use std::collections::BTreeMap;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::blob;
use crate::error::Error;
use crate::job::{KeyKind, KeyName, PublicKey, Purpose};
use crate::signature;
use crate::{limits, token::code};

/// The object identifier of P-256 in DER, the value of `CKA_EC_PARAMS`.
pub(crate) const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The label of a key.
pub fn label(domain: &str, purpose: Purpose, version: u32) -> String {
    format!("cipherim/{domain}/{purpose}/{version}")
}

/// The key that a label names, if it is one of `domain`'s.
pub fn parse(domain: &str, label: &str) -> Option<(Purpose, u32)> {
    let rest = label.strip_prefix("cipherim/")?.strip_prefix(domain)?.strip_prefix('/')?;
    let (purpose, version) = rest.split_once('/')?;
    let number: u32 = version.parse().ok()?;
    let is_plain = number.to_string() == version;
    let in_range = (1..=limits::KEY_VERSIONS_MAX).contains(&number);
    (is_plain && in_range).then_some((Purpose::from_name(purpose)?, number))
}

/// One key of the token.
#[derive(Debug, Clone)]
pub(crate) struct TokenKey {
    pub(crate) handle: ObjectHandle,
    pub(crate) label: String,
    pub(crate) public: PublicKey,
}

/// The keys of one domain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) keys: BTreeMap<(Purpose, u32), TokenKey>,
    pub(crate) warnings: Vec<String>,
}

impl Found {
    pub(crate) fn get(&self, name: KeyName) -> Option<&TokenKey> {
        match name.version {
            Some(version) => self.keys.get(&(name.purpose, version)),
            None => {
                let newest = (name.purpose, 0)..=(name.purpose, u32::MAX);
                self.keys.range(newest).next_back().map(|(_, key)| key)
            }
        }
    }
}

/// Finds all keys of `domain`.
pub(crate) fn find(session: &Session, slot: u64, domain: &str) -> Result<Found, Error> {
    let mut found = Found::default();
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY] {
        let template = [Attribute::Class(class), Attribute::Token(true)];
        let handles = session
            .iter_objects(&template)
            .and_then(|objects| objects.take(limits::OBJECTS_MAX).collect::<Result<Vec<_>, _>>())
            .map_err(|error| code::error(Some(slot), error))?;
        for handle in handles {
            let Some(label) = read_label(session, slot, handle)? else {
                continue;
            };
            let Some((purpose, version)) = parse(domain, &label) else {
                continue;
            };
            match read_key(session, slot, handle, purpose, version, &label)? {
                Ok(key) => {
                    found.warnings.extend(weaknesses(session, handle, &label));
                    if found.keys.insert((purpose, version), key).is_some() {
                        found.warnings.push(format!("there are two keys {label}; remove one"));
                    }
                }
                Err(warning) => found.warnings.push(format!("{label} is not used: {warning}")),
            }
        }
    }
    Ok(found)
}

fn read_label(session: &Session, slot: u64, handle: ObjectHandle) -> Result<Option<String>, Error> {
    let attributes = session
        .get_attributes(handle, &[AttributeType::Label])
        .map_err(|error| code::error(Some(slot), error))?;
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        Attribute::Label(label) => String::from_utf8(label).ok(),
        _ => None,
    }))
}

/// Reads one key; the inner error says in plain words why it cannot be used.
fn read_key(
    session: &Session,
    slot: u64,
    handle: ObjectHandle,
    purpose: Purpose,
    version: u32,
    label: &str,
) -> Result<Result<TokenKey, &'static str>, Error> {
    let kind = purpose.kind();
    let wanted = match kind {
        KeyKind::Aes256 => KeyType::AES,
        KeyKind::P256 => KeyType::EC,
    };
    let attributes = session
        .get_attributes(handle, &[AttributeType::KeyType])
        .map_err(|error| code::error(Some(slot), error))?;
    if attributes != [Attribute::KeyType(wanted)] {
        return Ok(Err("it is of another kind than its purpose needs"));
    }
    let point = match kind {
        KeyKind::Aes256 => Vec::new(),
        KeyKind::P256 => match read_point(session, slot, label)? {
            Some(point) => point,
            None => return Ok(Err("its public part is missing or not a point of P-256")),
        },
    };
    let key = KeyName::exact(purpose, version);
    let public = PublicKey { key, kind, point };
    Ok(Ok(TokenKey { handle, label: label.to_owned(), public }))
}

fn read_point(session: &Session, slot: u64, label: &str) -> Result<Option<Vec<u8>>, Error> {
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let handles =
        session.find_objects(&template).map_err(|error| code::error(Some(slot), error))?;
    for handle in handles {
        let attributes = session
            .get_attributes(handle, &[AttributeType::EcParams, AttributeType::EcPoint])
            .map_err(|error| code::error(Some(slot), error))?;
        let is_p256 = attributes
            .iter()
            .any(|attribute| matches!(attribute, Attribute::EcParams(p) if *p == P256_OID));
        let point = attributes.iter().find_map(|attribute| match attribute {
            Attribute::EcPoint(der) => bare_point(der),
            _ => None,
        });
        if let Some(point) = point
            && is_p256
            && signature::check_point(point).is_ok()
        {
            return Ok(Some(point.to_vec()));
        }
    }
    Ok(None)
}

/// The point out of its OCTET STRING; some tokens give it bare.
fn bare_point(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x04, 0x41, point @ ..] if point.len() == 65 => Some(point),
        point if point.len() == 65 => Some(point),
        _ => None,
    }
}

/// A token is not asked twice for what it does not tell: then there is no warning.
fn weaknesses(session: &Session, handle: ObjectHandle, label: &str) -> Option<String> {
    let asked = [
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
        AttributeType::Private,
    ];
    let attributes = session.get_attributes(handle, &asked).ok()?;
    let weak: Vec<&str> = attributes
        .iter()
        .filter_map(|attribute| match attribute {
            Attribute::Sensitive(false) => Some("not sensitive"),
            Attribute::Extractable(true) => Some("extractable"),
            Attribute::NeverExtractable(false) => Some("was extractable before"),
            Attribute::Private(false) => Some("readable without a PIN"),
            _ => None,
        })
        .collect();
    let list = weak.join(", ");
    (!weak.is_empty()).then(|| format!("{label} is {list}: replace it by a new version"))
}

/// Makes a key that does not exist yet.
pub(crate) fn generate(
    session: &Session,
    slot: u64,
    domain: &str,
    name: KeyName,
    wrap: Option<blob::Mechanism>,
) -> Result<(), Error> {
    let version = name.version.unwrap_or(1);
    let label = label(domain, name.purpose, version).into_bytes();
    let made = match name.purpose.kind() {
        KeyKind::P256 => {
            let (public, private) = pair_templates(&label);
            session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).map(|_| ())
        }
        KeyKind::Aes256 => {
            let wrap = wrap.ok_or(Error::MechanismMissing {
                what: "wrap keys: neither AES_KEY_WRAP, AES_GCM nor AES_CBC_PAD passed the test"
                    .into(),
            })?;
            let template = kek_template(&label, wrap);
            session.generate_key(&Mechanism::AesKeyGen, &template).map(|_| ())
        }
    };
    made.map_err(|error| code::error(Some(slot), error))
}

fn pair_templates(label: &[u8]) -> (Vec<Attribute>, Vec<Attribute>) {
    let public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256_OID.to_vec()),
        Attribute::Label(label.to_vec()),
        Attribute::Id(label.to_vec()),
    ];
    let private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label.to_vec()),
        Attribute::Id(label.to_vec()),
    ];
    (public, private)
}

/// Only the uses its mechanism needs: a key that wraps cannot decrypt, so that nobody who gets
/// hold of a session can decrypt what was wrapped.
fn kek_template(label: &[u8], wrap: blob::Mechanism) -> Vec<Attribute> {
    let by_wrapping = matches!(wrap, blob::Mechanism::KeyWrap | blob::Mechanism::KeyWrapPadded);
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::ValueLen(32.into()),
        Attribute::Wrap(by_wrapping),
        Attribute::Unwrap(by_wrapping),
        Attribute::Encrypt(!by_wrapping),
        Attribute::Decrypt(!by_wrapping),
        Attribute::Label(label.to_vec()),
        Attribute::Id(label.to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        assert_eq!(label("a.example", Purpose::Spool, 2), "cipherim/a.example/spool/2");
        for (text, key) in [
            ("cipherim/a.example/spool/2", Some((Purpose::Spool, 2))),
            ("cipherim/a.example/tls/1000", Some((Purpose::Tls, 1000))),
            ("cipherim/a.example/tls/1001", None),
            ("cipherim/a.example/tls/0", None),
            ("cipherim/a.example/tls/01", None),
            ("cipherim/a.example/tls/+1", None),
            ("cipherim/a.example/tls/1/2", None),
            ("cipherim/a.example/tls", None),
            ("cipherim/a.example/other/1", None),
            ("cipherim/a.example.org/tls/1", None),
            ("cipherim/b.example/tls/1", None),
            ("cipherim/", None),
            ("", None),
        ] {
            assert_eq!(parse("a.example", text), key, "{text}");
        }
    }

    #[test]
    fn points_come_bare_or_in_an_octet_string() {
        let point = [&[4][..], &[7; 64]].concat();
        let wrapped = [&[4, 65][..], &point].concat();
        assert_eq!(bare_point(&point), Some(&point[..]));
        assert_eq!(bare_point(&wrapped), Some(&point[..]));
        assert_eq!(bare_point(&[4, 65, 4]), None);
        assert_eq!(bare_point(&[]), None);
    }
}
