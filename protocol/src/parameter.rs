//! `NAME=value` words: one spelling each, a name once in a line (SPEC.md §2).

use core::fmt;

use crate::address::AddressBuf;
use crate::error::{Error, Malformed};
use crate::limits::{NAME_OCTETS_MAX, PARAMETERS_MAX, VALUE_OCTETS_HYBSIG_MAX, VALUE_OCTETS_MAX};
use crate::timestamp::Timestamp;

/// One parameter; the value as on the wire, percent encoding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The name.
    pub name: &'a str,
    /// The value as on the wire.
    pub value: &'a str,
}

impl<'a> Parameter<'a> {
    /// Whether the name begins `H-`: valid on one hop, signed by nobody.
    #[must_use]
    pub fn is_hop(self) -> bool {
        self.name.starts_with("H-")
    }

    /// Reads `NAME=value`.
    pub(crate) fn parse(word: &'a str, value_octets_max: usize) -> Result<Self, Error> {
        let (name, value) = word.split_once('=').ok_or(Malformed::Name)?;
        if !is_name(name) {
            return Err(Malformed::Name.into());
        }
        let is_chained_signature = matches!(name, "PSIG" | "RSIG");
        let octets_max =
            if is_chained_signature { VALUE_OCTETS_HYBSIG_MAX } else { value_octets_max };
        if value.len() > octets_max {
            return Err(Malformed::ValueTooLong.into());
        }
        check_value(value)?;
        Ok(Self { name, value })
    }
}

/// The parameters of a line in the order of the wire, at most [`PARAMETERS_MAX`].
#[derive(Clone, Copy)]
pub struct Parameters<'a> {
    items: [Parameter<'a>; PARAMETERS_MAX],
    count: usize,
}

impl<'a> Parameters<'a> {
    /// No parameters.
    pub(crate) const fn new() -> Self {
        Self { items: [Parameter { name: "", value: "" }; PARAMETERS_MAX], count: 0 }
    }

    pub(crate) fn push(&mut self, parameter: Parameter<'a>) -> Result<(), Error> {
        if self.get(parameter.name).is_some() {
            return Err(Malformed::ParameterTwice.into());
        }
        let slot = self.items.get_mut(self.count).ok_or(Malformed::TooManyParameters)?;
        *slot = parameter;
        self.count += 1;
        Ok(())
    }

    /// All parameters in the order of the wire.
    #[must_use]
    pub fn as_slice(&self) -> &[Parameter<'a>] {
        self.items.get(..self.count).unwrap_or(&[])
    }

    /// All parameters in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = Parameter<'a>> + '_ {
        self.as_slice().iter().copied()
    }

    /// The value of `name` as on the wire.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.as_slice().iter().find(|parameter| parameter.name == name).map(|p| p.value)
    }

    /// The value of `name`, which must be present.
    ///
    /// # Errors
    /// [`Error::MissingParameter`].
    pub fn required(&self, name: &'static str) -> Result<&'a str, Error> {
        self.get(name).ok_or(Error::MissingParameter(name))
    }

    /// The value of `name` read as a `T`, if present.
    ///
    /// # Errors
    /// [`Error::BadParameter`].
    pub fn read<T: WireValue<'a>>(&self, name: &'static str) -> Result<Option<T>, Error> {
        self.get(name).map(|value| T::read(value).ok_or(Error::BadParameter(name))).transpose()
    }

    /// The value of `name` read as a `T`, which must be present.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] or [`Error::BadParameter`].
    pub fn need<T: WireValue<'a>>(&self, name: &'static str) -> Result<T, Error> {
        self.read(name)?.ok_or(Error::MissingParameter(name))
    }

    /// The value of `name` as a decimal number without sign or leading zeros, if present.
    ///
    /// # Errors
    /// [`Error::BadParameter`].
    pub fn number(&self, name: &'static str) -> Result<Option<u64>, Error> {
        self.read(name)
    }

    /// The value of `name` as a number, which must be present.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] or [`Error::BadParameter`].
    pub fn required_number(&self, name: &'static str) -> Result<u64, Error> {
        self.need(name)
    }

    /// The value of `name` as `N` octets in base64, which must be present.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] or [`Error::BadParameter`].
    pub fn required_octets<const N: usize>(&self, name: &'static str) -> Result<[u8; N], Error> {
        crate::base64::decode_array(self.required(name)?).map_err(|_| Error::BadParameter(name))
    }
}

impl fmt::Debug for Parameters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// What a value on the wire can be read as; each such value has one spelling.
pub trait WireValue<'a>: Sized {
    /// The value that `value`, as on the wire, spells.
    fn read(value: &'a str) -> Option<Self>;
}

impl WireValue<'_> for u64 {
    fn read(value: &str) -> Option<Self> {
        number(value)
    }
}

impl WireValue<'_> for u32 {
    fn read(value: &str) -> Option<Self> {
        number(value).and_then(|number| number.try_into().ok())
    }
}

/// `0` or `1`.
impl WireValue<'_> for bool {
    fn read(value: &str) -> Option<Self> {
        match value {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }
}

impl<'a> WireValue<'a> for &'a str {
    fn read(value: &'a str) -> Option<Self> {
        Some(value)
    }
}

impl WireValue<'_> for Timestamp {
    fn read(value: &str) -> Option<Self> {
        number(value).map(Self)
    }
}

/// A value is text like any other: the percent sign of a local part is encoded once more.
impl WireValue<'_> for AddressBuf {
    fn read(value: &str) -> Option<Self> {
        if value.contains('%') {
            Self::parse(&unescape(value).ok()?).ok()
        } else {
            Self::parse(value).ok()
        }
    }
}

/// The items of a comma list, at most `max` and none empty; `None` otherwise.
#[must_use]
pub fn list<'a, T: WireValue<'a>>(value: &'a str, max: usize) -> Option<Vec<T>> {
    let mut items = Vec::new();
    for item in value.split(',') {
        if items.len() == max || item.is_empty() {
            return None;
        }
        items.push(T::read(item)?);
    }
    Some(items)
}

/// The number that decimal digits spell; no sign, no leading zero, at most `u64::MAX`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    let has_one_spelling = text == "0" || !text.starts_with('0');
    let is_digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    if has_one_spelling && is_digits { text.parse().ok() } else { None }
}

/// The wire form of `text`: octets that may not stand for themselves percent-encoded.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for octet in text.bytes() {
        if may_stand(octet) {
            value.push(char::from(octet));
        } else {
            push_percent(octet, &mut value);
        }
    }
    value
}

/// The octets that a wire value stands for, if they are UTF-8.
///
/// # Errors
/// [`Malformed::Text`] if they are not; [`Malformed::Percent`] for a broken encoding.
pub fn unescape(value: &str) -> Result<String, Malformed> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            octets.push(percent_octet(rest.next(), rest.next()).ok_or(Malformed::Percent)?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).map_err(|_| Malformed::Text)
}

/// The octet of `%XX` with upper-case digits.
pub(crate) fn percent_octet(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    };
    Some((digit(high?)? << 4) | digit(low?)?)
}

fn push_percent(octet: u8, value: &mut String) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    value.push('%');
    for nibble in [octet >> 4, octet & 15] {
        value.push(DIGITS.get(usize::from(nibble)).copied().unwrap_or('0'));
    }
}

/// Whether `octet` may stand for itself in a value.
const fn may_stand(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(
            octet,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'*'
                | b'('
                | b')'
                | b'+'
                | b','
                | b';'
                | b':'
                | b'@'
                | b'/'
                | b'?'
        )
}

/// [`may_stand`] by octet.
const STANDS: [bool; 256] = {
    let mut stands = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, not at run time")]
        {
            stands[octet] = may_stand(octet as u8);
        }
        octet += 1;
    }
    stands
};

fn is_name(name: &str) -> bool {
    (1..=NAME_OCTETS_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|o| o.is_ascii_uppercase() || o.is_ascii_digit() || o == b'-')
}

fn check_value(value: &str) -> Result<(), Error> {
    // Most values need no percent encoding.
    if value.bytes().all(|octet| STANDS.get(usize::from(octet)) == Some(&true)) {
        return Ok(());
    }
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        if may_stand(octet) {
            continue;
        }
        if octet != b'%' {
            return Err(Malformed::Value.into());
        }
        let decoded = percent_octet(rest.next(), rest.next()).ok_or(Malformed::Percent)?;
        if may_stand(decoded) {
            return Err(Malformed::Percent.into());
        }
    }
    Ok(())
}

/// The longest value that a command may carry.
pub(crate) const COMMAND_VALUE_OCTETS_MAX: usize = VALUE_OCTETS_MAX;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for (word, reply) in [
            ("a=b", 501),
            ("=b", 501),
            ("1A=b", 501),
            ("ABCDEFGHIJKLMNOPQ=b", 501),
            ("A=%41", 501),
            ("A=%2", 501),
            ("A=%zz", 501),
            ("A=%3d", 501),
            ("A=a=b", 501),
            ("A=a\"b", 501),
        ] {
            let parsed = Parameter::parse(word, VALUE_OCTETS_MAX);
            assert_eq!(parsed.map_err(Error::reply_code), Err(reply), "{word}");
        }
        for word in ["A=", "A-1=%3D%25", "ABCDEFGHIJKLMNOP=b/+:@"] {
            assert!(Parameter::parse(word, VALUE_OCTETS_MAX).is_ok(), "{word}");
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "00", "01", "+1", "-1", "1a", "18446744073709551616"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn escape_round_trip() {
        let text = "a b=c%d\u{e4}\u{1F600}\r\n";
        let value = escape(text);
        assert!(check_value(&value).is_ok());
        assert_eq!(unescape(&value).unwrap(), text);
    }

    #[test]
    fn limits_at_n_and_one_more() {
        let fits = format!("A={}", "x".repeat(VALUE_OCTETS_MAX));
        let over = format!("A={}", "x".repeat(VALUE_OCTETS_MAX + 1));
        assert!(Parameter::parse(&fits, VALUE_OCTETS_MAX).is_ok());
        assert!(Parameter::parse(&over, VALUE_OCTETS_MAX).is_err());
    }
}
