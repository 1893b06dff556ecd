//! Wrapping and unwrapping of data keys with a key of the token, by four mechanisms.
//!
//! `C_WrapKey` takes an object, so a data key known to the host becomes a session object, is
//! wrapped, and is destroyed again; unwrapping likewise. `C_Encrypt` takes octets and needs one
//! call, but a key that may encrypt and decrypt is a weaker key. The order of preference is that of
//! [`Mechanism::ALL`]; [`choose`] takes the first that a token *proves* on a throw-away key: wraps,
//! unwraps to the same, and refuses what was changed where the mechanism promises that.
//! Measured on SoftHSM 2.6.1, one thread: by object 9k/s, GCM 33k/s; one key per spool segment
//! makes either plenty.

use cryptoki::mechanism::Mechanism as Pkcs11Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::blob::Mechanism;
use crate::error::{Class, Error};
use crate::job::Secret;
use crate::token::code;

/// A session with the slot's number for errors.
#[derive(Clone, Copy)]
pub(super) struct Wrapper<'a> {
    pub(super) session: &'a Session,
    pub(super) slot: u64,
}

impl Wrapper<'_> {
    fn error(&self, error: cryptoki::error::Error) -> Error {
        code::error(Some(self.slot), error)
    }

    /// Seals `data_key` with `kek`; gives the initialisation vector and the data.
    pub(super) fn wrap(
        &self,
        mechanism: Mechanism,
        kek: ObjectHandle,
        data_key: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut iv = vec![0; mechanism.iv_bytes()];
        aws_lc_rs::rand::fill(&mut iv).map_err(|_| no_random())?;
        let data = match by_object(mechanism) {
            Some(mechanism) => {
                let template = template(Some(data_key));
                let object = self.session.create_object(&template);
                wipe(template);
                let object = object.map_err(|error| self.error(error))?;
                let wrapped = self.session.wrap_key(&mechanism, kek, object);
                let destroyed = self.session.destroy_object(object);
                let wrapped = wrapped.map_err(|error| self.error(error))?;
                destroyed.map_err(|error| self.error(error))?;
                wrapped
            }
            None => self.crypt(mechanism, &mut iv, |session, pkcs11| {
                session.encrypt(pkcs11, kek, data_key)
            })?,
        };
        Ok((iv, data))
    }

    /// Opens what [`Wrapper::wrap`] sealed.
    pub(super) fn unwrap(
        &self,
        mechanism: Mechanism,
        kek: ObjectHandle,
        iv: &[u8],
        data: &[u8],
    ) -> Result<Secret, Error> {
        if let Some(mechanism) = by_object(mechanism) {
            let object = self
                .session
                .unwrap_key(&mechanism, kek, data, &template(None))
                .map_err(|error| self.error(error))?;
            let value = self.session.get_attributes(object, &[AttributeType::Value]);
            let destroyed = self.session.destroy_object(object);
            let value = value.map_err(|error| self.error(error))?;
            destroyed.map_err(|error| self.error(error))?;
            let value = value.into_iter().find_map(|attribute| match attribute {
                Attribute::Value(value) => Some(Secret::new(value)),
                _ => None,
            });
            value.ok_or(Error::WrongAnswer { what: "an unwrapped key without a value".into() })
        } else {
            let mut iv = iv.to_vec();
            self.crypt(mechanism, &mut iv, |session, pkcs11| session.decrypt(pkcs11, kek, data))
                .map(Secret::new)
        }
    }

    fn crypt(
        &self,
        mechanism: Mechanism,
        iv: &mut [u8],
        call: impl FnOnce(&Session, &Pkcs11Mechanism<'_>) -> cryptoki::error::Result<Vec<u8>>,
    ) -> Result<Vec<u8>, Error> {
        let result = if mechanism == Mechanism::CbcPad {
            let iv = <[u8; 16]>::try_from(&*iv).map_err(|_| Error::Damaged {
                what: "its initialisation vector has a wrong length".into(),
            })?;
            call(self.session, &Pkcs11Mechanism::AesCbcPad(iv))
        } else {
            let params = GcmParams::new(iv, &[], 128.into()).map_err(|error| self.error(error))?;
            call(self.session, &Pkcs11Mechanism::AesGcm(params))
        };
        result.map_err(|error| self.error(error))
    }

    /// Whether `mechanism` works with `kek`: there and back, and a change is refused or leads to
    /// another key (which the blob's binding then notices).
    pub(super) fn prove(&self, mechanism: Mechanism, kek: ObjectHandle) -> Result<(), Error> {
        let mut data_key = zeroize::Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *data_key).map_err(|_| no_random())?;
        let (iv, mut data) = self.wrap(mechanism, kek, &*data_key)?;
        if self.unwrap(mechanism, kek, &iv, &data)?.expose() != *data_key {
            return Err(Error::WrongAnswer { what: "unwrapping gives another key".into() });
        }
        if let Some(octet) = data.first_mut() {
            *octet ^= 1;
        }
        match self.unwrap(mechanism, kek, &iv, &data) {
            Ok(secret) if mechanism != Mechanism::CbcPad || secret.expose() == *data_key => {
                Err(Error::WrongAnswer { what: "a changed wrapped key is accepted".into() })
            }
            _ => Ok(()),
        }
    }
}

/// The first mechanism which the token proves with `kek`.
///
/// Only an error that says the token is gone stops the search: the last one is then returned.
pub(super) fn choose(wrapper: Wrapper<'_>, kek: ObjectHandle) -> Result<Option<Mechanism>, Error> {
    for mechanism in Mechanism::ALL {
        match wrapper.prove(mechanism, kek) {
            Ok(()) => return Ok(Some(mechanism)),
            Err(error) if error.class() == Class::Retry => return Err(error),
            Err(error) => {
                tracing::debug!(mechanism = mechanism.name(), %error, "not proven");
            }
        }
    }
    Ok(None)
}

/// Makes a throw-away key that may do everything, and finds out which mechanism works.
pub(super) fn choose_for_new_key(wrapper: Wrapper<'_>) -> Result<Option<Mechanism>, Error> {
    let template = [
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::ValueLen(32.into()),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ];
    let kek = wrapper
        .session
        .generate_key(&Pkcs11Mechanism::AesKeyGen, &template)
        .map_err(|error| wrapper.error(error))?;
    let chosen = choose(wrapper, kek);
    wrapper.session.destroy_object(kek).map_err(|error| wrapper.error(error))?;
    chosen
}

fn by_object(mechanism: Mechanism) -> Option<Pkcs11Mechanism<'static>> {
    match mechanism {
        Mechanism::KeyWrap => Some(Pkcs11Mechanism::AesKeyWrap),
        Mechanism::KeyWrapPadded => Some(Pkcs11Mechanism::AesKeyWrapPad),
        Mechanism::Gcm | Mechanism::CbcPad => None,
    }
}

/// A session object holding a data key: readable, since the host knows the key anyway.
fn template(value: Option<&[u8]>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ];
    template.extend(value.map(|value| Attribute::Value(value.to_vec())));
    template
}

fn wipe(template: Vec<Attribute>) {
    for attribute in template {
        if let Attribute::Value(value) = attribute {
            drop(Secret::new(value));
        }
    }
}

fn no_random() -> Error {
    Error::Refused {
        fault: crate::error::Fault { slot: None, function: "getrandom".into(), code: 0x121 },
    }
}
