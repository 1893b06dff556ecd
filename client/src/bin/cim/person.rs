//! People as they are typed: `bob@example.org`, or `bob` for somebody of one's own domain.

use protocol::{Address, AddressBuf};

use crate::failure::Failure;

/// The account that was typed, one's own included.
pub(crate) fn account(text: &str, own: Address<'_>) -> Result<AddressBuf, Failure> {
    let trimmed = text.trim().to_lowercase();
    let whole = match trimmed.contains('@') {
        true => trimmed,
        // A device of somebody's behind the name goes behind the domain.
        false => match trimmed.split_once('/') {
            Some((name, device)) => format!("{name}@{}/{device}", own.domain()),
            None => format!("{trimmed}@{}", own.domain()),
        },
    };
    let address = AddressBuf::parse(&whole)
        .map_err(|_| Failure::usage(format!("{text:?} is not an address: write user@domain")))?;
    match address.as_address().is_account() {
        true => Ok(address),
        false => Err(Failure::usage(format!(
            "{address} is one device of a person: write {}",
            address.account()
        ))),
    }
}

/// The account of somebody else that was typed.
pub(crate) fn other(text: &str, own: Address<'_>) -> Result<AddressBuf, Failure> {
    let address = account(text, own)?;
    match address.as_address() == own.account() {
        true => Err(Failure::usage(format!("{address} is yourself: name somebody else"))),
        false => Ok(address),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Result<String, String> {
        let own = Address::parse("alice@demo.local/d1").unwrap();
        other(text, own)
            .map(|address| address.as_str().to_owned())
            .map_err(|failure| failure.text().to_owned())
    }

    #[test]
    fn a_bare_name_is_of_the_own_domain() {
        assert_eq!(typed("bob"), Ok("bob@demo.local".into()));
        assert_eq!(typed(" Bob "), Ok("bob@demo.local".into()));
        assert_eq!(typed("bob@other.example"), Ok("bob@other.example".into()));
    }

    #[test]
    fn what_is_no_address_is_told_with_what_to_write() {
        for text in ["", "@", "bob@", "@demo.local", "bob@demo.local@x", "b ob", "bob\u{1b}[2J"] {
            let told = typed(text).unwrap_err();
            assert_eq!(told, format!("{text:?} is not an address: write user@domain"));
            assert!(!told.contains('\u{1b}'), "{told:?}");
        }
    }

    #[test]
    fn devices_and_oneself_are_told_apart() {
        assert_eq!(
            typed("bob@demo.local/d1").unwrap_err(),
            "bob@demo.local/d1 is one device of a person: write bob@demo.local"
        );
        assert_eq!(
            typed("bob/d1").unwrap_err(),
            "bob@demo.local/d1 is one device of a person: write bob@demo.local"
        );
        assert_eq!(typed("alice").unwrap_err(), "alice@demo.local is yourself: name somebody else");
    }
}
