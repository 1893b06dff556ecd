//! One row of a queue: a line as it goes out, with what the spool must know of it.
//!
//! The line is stored with its hop parameters, CRLF included, so that what is sent under a number
//! never changes. Totals let a queue be measured by reading its two ends.

use protocol::timestamp::Timestamp;

/// What a row of a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line kept until its busy recipient is free; has no hop parameters yet.
    Held,
    /// Any other line.
    Line,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Line => 0,
            Self::Held => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Line),
            2 => Some(Self::Held),
            _ => None,
        }
    }
}

/// How much a queue has ever held: this row and everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Octets of the lines.
    pub line_octets: u64,
}

impl Totals {
    /// These totals and one more row.
    #[must_use]
    pub const fn plus(self, octets: u64) -> Self {
        Self { rows: self.rows.wrapping_add(1), line_octets: self.line_octets.wrapping_add(octets) }
    }

    /// What came since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(earlier.rows),
            line_octets: self.line_octets.saturating_sub(earlier.line_octets),
        }
    }
}

/// A row read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// When the relay took it.
    pub received_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// This row and everything before it.
    pub totals: Totals,
    value: Vec<u8>,
}

/// Octets of a row before its line.
pub(super) const HEADER_OCTETS: usize = 34;
const VERSION: u8 = 2;

impl Entry {
    /// Reads the value of a row; `None` if it is not one.
    #[must_use]
    pub fn decode(value: Vec<u8>) -> Option<Self> {
        let (header, _) = value.split_first_chunk::<HEADER_OCTETS>()?;
        let &[version, kind, ref numbers @ ..] = header;
        if version != VERSION {
            return None;
        }
        let mut numbers = numbers.chunks_exact(8).map(|octets| {
            octets.iter().fold(0_u64, |number, &octet| number << 8 | u64::from(octet))
        });
        let mut next = || numbers.next();
        Some(Self {
            kind: Kind::from_number(kind)?,
            received_at: Timestamp(next()?),
            expires_at: Timestamp(next()?),
            totals: Totals { rows: next()?, line_octets: next()? },
            value,
        })
    }

    /// The line, CRLF included.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        self.value.get(HEADER_OCTETS..).unwrap_or_default()
    }

    /// The totals of everything before this row.
    #[must_use]
    pub fn totals_before(&self) -> Totals {
        let own = Totals::default().plus(self.line().len() as u64);
        self.totals.since(own)
    }

    /// The line as an owned buffer.
    #[must_use]
    pub fn into_line(mut self) -> Vec<u8> {
        self.value.drain(..HEADER_OCTETS.min(self.value.len()));
        self.value
    }
}

/// Fills the space left for the header of a value whose line is written already.
pub(super) fn write_header(
    value: &mut [u8],
    kind: Kind,
    received_at: Timestamp,
    expires_at: Timestamp,
    totals: Totals,
) {
    let Some(header) = value.first_chunk_mut::<HEADER_OCTETS>() else { return };
    let [version, kind_octet, numbers @ ..] = header;
    *version = VERSION;
    *kind_octet = kind.number();
    let values = [received_at.0, expires_at.0, totals.rows, totals.line_octets];
    for (place, number) in numbers.chunks_exact_mut(8).zip(values) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn value(line: &[u8]) -> Vec<u8> {
        let mut value = vec![0; HEADER_OCTETS];
        value.extend_from_slice(line);
        let totals = Totals { rows: 7, line_octets: 900 };
        write_header(&mut value, Kind::Line, Timestamp(1), Timestamp(u64::MAX), totals);
        value
    }

    #[test]
    fn round_trip() {
        let entry = Entry::decode(value(b"100 x\r\n")).unwrap();
        assert_eq!(entry.line(), b"100 x\r\n");
        assert_eq!((entry.received_at, entry.expires_at), (Timestamp(1), Timestamp(u64::MAX)));
        assert_eq!(entry.totals.line_octets, 900);
        let before = Totals { rows: 6, line_octets: 893 };
        assert_eq!(entry.totals_before(), before);
        assert_eq!(before.plus(7), entry.totals);
        assert_eq!(entry.into_line(), b"100 x\r\n");
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        let good = value(b"");
        assert!(Entry::decode(good.clone()).is_some());
        assert!(Entry::decode(good[..HEADER_OCTETS - 1].to_vec()).is_none());
        for (place, octet) in [(0, 1), (0, 3), (1, 1), (1, 3)] {
            let mut bad = good.clone();
            bad[place] = octet;
            assert!(Entry::decode(bad).is_none(), "{place} {octet}");
        }
    }
}
