//! Mail-like addresses: `user@domain`, `user@domain/device`, or a bare domain (SPEC.md §2).
//!
//! An address has one spelling, so that comparison is by octets: the local part is lower case,
//! percent encoding stands only where it must, and domains are A-labels.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use precis_profiles::UsernameCaseMapped;
use precis_profiles::precis_core::profile::PrecisFastInvocation as _;

use crate::error::{Error, Malformed};
use crate::limits::{
    ADDRESS_OCTETS_MAX, DEVICE_OCTETS_MAX, DOMAIN_OCTETS_MAX, LABEL_OCTETS_MAX, LOCAL_OCTETS_MAX,
};

/// A valid address, borrowed. Copies freely.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    text: &'a str,
    local: Option<&'a str>,
    domain: &'a str,
    device: Option<&'a str>,
}

impl<'a> Address<'a> {
    /// The address that `text` spells.
    ///
    /// # Errors
    /// [`Malformed::Address`], or [`Malformed::Percent`] for a second spelling of an octet.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if text.len() > ADDRESS_OCTETS_MAX {
            return Err(Malformed::Address.into());
        }
        let (account, device) = match text.split_once('/') {
            Some((account, device)) => (account, Some(device)),
            None => (text, None),
        };
        let (local, domain) = match account.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, account),
        };
        if let Some(local) = local {
            check_local(local)?;
        }
        let device_is_good = device.is_none_or(is_device);
        if !is_domain(domain) || !device_is_good {
            return Err(Malformed::Address.into());
        }
        Ok(Self { text, local, domain, device })
    }

    /// The whole address as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.text
    }

    /// The part before `@`; a bare domain has none.
    #[must_use]
    pub const fn local(self) -> Option<&'a str> {
        self.local
    }

    /// The domain.
    #[must_use]
    pub const fn domain(self) -> &'a str {
        self.domain
    }

    /// The device, the part after `/`.
    #[must_use]
    pub const fn device(self) -> Option<&'a str> {
        self.device
    }

    /// The same address without its device.
    #[must_use]
    pub fn account(self) -> Self {
        let length =
            self.device.map_or(self.text.len(), |device| self.text.len() - device.len() - 1);
        // The account is a prefix of the text and ends before the ASCII slash.
        let text = self.text.get(..length).unwrap_or(self.text);
        Self { text, device: None, ..self }
    }

    /// Whether this is `user@domain` without a device.
    #[must_use]
    pub const fn is_account(self) -> bool {
        self.local.is_some() && self.device.is_none()
    }

    /// Whether this is `user@domain/device`.
    #[must_use]
    pub const fn is_device(self) -> bool {
        self.local.is_some() && self.device.is_some()
    }

    /// Whether this is a bare domain.
    #[must_use]
    pub const fn is_domain(self) -> bool {
        self.local.is_none() && self.device.is_none()
    }

    /// An owned copy.
    #[must_use]
    pub fn to_buf(self) -> AddressBuf {
        AddressBuf { text: self.text.into() }
    }
}

impl PartialEq for Address<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Address<'_> {}
impl PartialOrd for Address<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Address<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(other.text)
    }
}
impl Hash for Address<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}
impl fmt::Debug for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// A valid address, owned. Orders, compares and hashes as its text does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressBuf {
    text: Box<str>,
}

impl AddressBuf {
    /// The address that `text` spells, copied.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        Address::parse(text).map(Address::to_buf)
    }

    /// The address `account/device`.
    ///
    /// # Errors
    /// [`Malformed::Address`] if `device` is outside the grammar.
    pub fn with_device(account: Address<'_>, device: &str) -> Result<Self, Error> {
        let mut text = String::from(account.account().as_str());
        text.push('/');
        text.push_str(device);
        Self::parse(&text)
    }

    /// The borrowed form.
    #[must_use]
    pub fn as_address(&self) -> Address<'_> {
        let (account, device) = match self.text.split_once('/') {
            Some((account, device)) => (account, Some(device)),
            None => (&*self.text, None),
        };
        let (local, domain) = match account.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, account),
        };
        Address { text: &self.text, local, domain, device }
    }

    /// The text as on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same address without its device.
    #[must_use]
    pub fn account(&self) -> Self {
        self.as_address().account().to_buf()
    }
}

impl Borrow<str> for AddressBuf {
    fn borrow(&self) -> &str {
        &self.text
    }
}
impl From<Address<'_>> for AddressBuf {
    fn from(address: Address<'_>) -> Self {
        address.to_buf()
    }
}
impl fmt::Display for AddressBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl fmt::Debug for AddressBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(crate) fn is_device(text: &str) -> bool {
    (1..=DEVICE_OCTETS_MAX).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit())
}

fn is_domain(text: &str) -> bool {
    text.len() <= DOMAIN_OCTETS_MAX && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    (1..=LABEL_OCTETS_MAX).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || o == b'-')
}

const fn may_stand_in_local(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'+')
}

/// Checks alphabet, length, percent encoding and preparation of a local part.
fn check_local(text: &str) -> Result<(), Error> {
    if !(1..=LOCAL_OCTETS_MAX).contains(&text.len()) {
        return Err(Malformed::Address.into());
    }
    if text.bytes().all(may_stand_in_local) {
        return Ok(());
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            if !may_stand_in_local(octet) {
                return Err(Malformed::Address.into());
            }
            octets.push(octet);
            continue;
        }
        let decoded =
            crate::parameter::percent_octet(rest.next(), rest.next()).ok_or(Malformed::Percent)?;
        let never = matches!(decoded, 0x00..=0x20 | 0x22 | 0x2F | 0x40 | 0x7F);
        if never || may_stand_in_local(decoded) {
            return Err(Malformed::Percent.into());
        }
        octets.push(decoded);
    }
    let local = core::str::from_utf8(&octets).map_err(|_| Malformed::Address)?;
    // A local part that the profile changes is another spelling of one it does not (RFC 8265
    // §3.3): width, case, normalisation, then which characters and directions may stand.
    match UsernameCaseMapped::enforce(local) {
        Ok(enforced) if enforced == local => Ok(()),
        _ => Err(Malformed::Address.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let address = Address::parse("alice@a.example/d1").unwrap();
        assert_eq!(address.local(), Some("alice"));
        assert_eq!(address.domain(), "a.example");
        assert_eq!(address.device(), Some("d1"));
        assert_eq!(address.account().as_str(), "alice@a.example");
        assert_eq!(address.to_buf().as_address().device(), Some("d1"));
        assert!(Address::parse("a.example").unwrap().is_domain());
    }

    #[test]
    fn refused() {
        let long_local = format!("{}@a", "x".repeat(65));
        let long_label = format!("a@{}", "x".repeat(64));
        let long_domain = format!("a@{}", ["x".repeat(63).as_str(); 4].join("."));
        for (text, reply) in [
            ("", 510),
            ("@a", 510),
            ("a@", 510),
            ("a@b@c", 510),
            ("Alice@a", 510),
            ("a@A.example", 510),
            ("a@b..c", 510),
            ("a@-b", 510),
            ("a@b-", 510),
            ("a@b/", 510),
            ("a@b/D1", 510),
            ("a@b/d/e", 510),
            ("a@b/abcdefghijklmnopq", 510),
            ("a%61@b", 501),
            ("a%2f@b", 501),
            ("a%40@b", 501),
            ("a%C3@b", 510),
            ("a%C3%84@b", 510),
            ("a%EF%BC%A1@b", 510),   // FULLWIDTH LATIN CAPITAL LETTER A
            ("%EF%BD%81@b", 510),    // FULLWIDTH LATIN SMALL LETTER A
            ("a%CC%88@b", 510),      // a and COMBINING DIAERESIS, not normalised
            ("%E2%85%A7@b", 510),    // ROMAN NUMERAL EIGHT
            ("%E2%80%AE@b", 510),    // RIGHT-TO-LEFT OVERRIDE
            ("a%E2%80%8B@b", 510),   // ZERO WIDTH SPACE
            ("a%C2%A0@b", 510),      // NO-BREAK SPACE
            ("%F0%9F%98%80@b", 510), // GRINNING FACE
            ("1%D7%90@b", 510),      // a digit before HEBREW LETTER ALEF
            ("%CD%B8@b", 510),       // unassigned
            ("a%4@b", 501),
            ("a%c3%a4@b", 501),
            (&long_local, 510),
            (&long_label, 510),
            (&long_domain, 510),
        ] {
            assert_eq!(Address::parse(text).map_err(Error::reply_code), Err(reply), "{text:?}");
        }
    }

    #[test]
    fn accepted() {
        for text in [
            "%D7%90%D7%91@b", // HEBREW LETTER ALEF, BET
            "%CF%83%CF%82@b", // GREEK SMALL LETTER SIGMA, FINAL SIGMA
            "%E5%B1%B1@b",    // a mountain
            "fu%C3%9Fball@b", // LATIN SMALL LETTER SHARP S
        ] {
            assert!(Address::parse(text).is_ok(), "{text}");
        }
        for text in ["a%C3%A4@b", "a+b_c.d-e@x.y-z", "a%21@b", "a@b/abcdefghijklmnop", "b"] {
            assert!(Address::parse(text).is_ok(), "{text}");
        }
    }
}
