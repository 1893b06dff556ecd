//! Type, length, value: how keys stand in the bodies of signed lines (SPEC.md §6).
//!
//! Type is one octet, length two, big-endian. Types that nobody here knows are given to the
//! caller like the others; whether to skip them is the caller's choice.

use crate::error::StatementError;
use crate::limits::TLV_MAX;

/// One type with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The type.
    pub kind: u8,
    /// The value.
    pub value: &'a [u8],
}

/// Gives the TLVs of a body one by one; ends after the first error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `body`.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, count: 0 }
    }

    fn step(&mut self) -> Option<Tlv<'a>> {
        self.count += 1;
        if self.count > TLV_MAX {
            return None;
        }
        let (&[kind, high, low], rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        self.rest = rest;
        Some(Tlv { kind, value })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Tlv<'a>, StatementError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let tlv = self.step();
        if tlv.is_none() {
            self.rest = &[];
        }
        Some(tlv.ok_or(StatementError::Body))
    }
}

/// Writes a body.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    octets: Vec<u8>,
}

impl Writer {
    /// An empty body.
    #[must_use]
    pub const fn new() -> Self {
        Self { octets: Vec::new() }
    }

    /// Adds one TLV.
    ///
    /// # Errors
    /// [`StatementError::Body`] if the value is longer than 65,535 octets.
    pub fn push(&mut self, kind: u8, value: &[u8]) -> Result<(), StatementError> {
        let length = u16::try_from(value.len()).map_err(|_| StatementError::Body)?;
        self.octets.push(kind);
        self.octets.extend_from_slice(&length.to_be_bytes());
        self.octets.extend_from_slice(value);
        Ok(())
    }

    /// The body.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.octets
    }
}

/// Keeps `value` in `place`, which must be empty: a type that may occur once.
pub(crate) fn put_once<T>(place: &mut Option<T>, value: T) -> Result<(), StatementError> {
    if place.replace(value).is_some() { Err(StatementError::Body) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut writer = Writer::new();
        writer.push(1, b"one").unwrap();
        writer.push(255, b"").unwrap();
        writer.push(0, &[7; 65_535]).unwrap();
        let body = writer.finish();
        let read: Vec<_> = Reader::new(&body).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|tlv| tlv.kind).collect::<Vec<_>>(), [1, 255, 0]);
        assert_eq!(read.first().unwrap().value, b"one");
        assert_eq!(Writer::new().push(1, &[0; 65_536]), Err(StatementError::Body));
    }

    #[test]
    fn cut_anywhere_is_refused() {
        let mut writer = Writer::new();
        writer.push(1, b"one").unwrap();
        writer.push(2, b"two").unwrap();
        let body = writer.finish();
        for length in 0..body.len() {
            let all: Result<Vec<_>, _> = Reader::new(body.get(..length).unwrap()).collect();
            let is_boundary = length == 0 || length == 6;
            assert_eq!(all.is_ok(), is_boundary, "{length}");
        }
        assert_eq!(Reader::new(&[1, 0]).count(), 1, "ends after the first error");
    }

    #[test]
    fn limit_at_n_and_one_more() {
        let body = |count: usize| [9, 0, 0].repeat(count);
        assert!(Reader::new(&body(TLV_MAX)).all(|tlv| tlv.is_ok()));
        assert!(!Reader::new(&body(TLV_MAX + 1)).all(|tlv| tlv.is_ok()));
    }
}
