//! A token's first day: label, SO PIN and user PIN set on a blank slot.
//!
//! Never touches a token that is initialised: `C_InitToken` destroys every key. *Source:* PKCS#11
//! v3.1 §5.5.8.

use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::job::TokenInfo;
use crate::token::code;
use crate::token::module::{Pkcs11, describe};

/// Initialises the first blank token as `label`.
///
/// # Errors
/// [`Error::Forbidden`] if a token with this label exists or none is blank; others as the token
/// says.
pub fn init_token(
    module: &mut Pkcs11,
    label: &str,
    so_pin: &Zeroizing<String>,
    pin: &Zeroizing<String>,
) -> Result<TokenInfo, Error> {
    let forbidden = |what: String| Error::Forbidden { what: what.into() };
    let seen = module.tokens()?;
    if seen.iter().any(|seen| seen.is_initialised && seen.token.label == label) {
        return Err(forbidden(format!(
            "a token labelled {label:?} exists, and initialising it would destroy its keys; \
             choose another label, or erase it with the vendor's tool if that is meant"
        )));
    }
    let blank = seen.iter().find(|seen| !seen.is_initialised).ok_or_else(|| {
        forbidden("no blank token is present; all are initialised and are left alone".to_owned())
    })?;
    let (so_pin, pin) = (AuthPin::from(so_pin.as_str()), AuthPin::from(pin.as_str()));
    let context = module.context()?;
    let slots = context.get_slots_with_token().map_err(|error| code::error(None, error))?;
    let slot = slots
        .into_iter()
        .find(|slot| slot.id() == blank.token.slot)
        .ok_or_else(|| forbidden("the blank token went away".to_owned()))?;
    context
        .init_token(slot, &so_pin, label)
        .map_err(|error| code::error(Some(slot.id()), error))?;
    // SoftHSM gives the token another slot once it is initialised.
    let slots = context.get_slots_with_token().map_err(|error| code::error(None, error))?;
    for slot in slots {
        let of = |error| code::error(Some(slot.id()), error);
        let Ok(info) = context.get_token_info(slot) else {
            continue;
        };
        if !info.token_initialized() || info.label() != label {
            continue;
        }
        let session = context.open_rw_session(slot).map_err(of)?;
        session.login(UserType::So, Some(&so_pin)).map_err(of)?;
        session.init_pin(&pin).map_err(of)?;
        session.logout().map_err(of)?;
        return Ok(describe(slot, &info));
    }
    Err(Error::WrongAnswer { what: "the token cannot be found after initialising it".into() })
}
