//! One contact: what the owner allows it, what was asked, and the owner's sealed notes.

use protocol::AddressBuf;
use protocol::timestamp::Timestamp;

const FORMAT: u8 = 1;

/// What an account thinks of another. All false: a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The contact may see presence, fetch records and prekeys, and is told what happens to its
    /// lines.
    pub approves: bool,
    /// The contact asked for that and has no answer.
    pub was_asked: bool,
    /// The owner asked the contact and has no answer.
    pub asks: bool,
    /// The contact has approved the owner.
    pub is_approved: bool,
    /// The contact's lines are dropped; it is told nothing.
    pub blocks: bool,
    /// The contact may send URGENT when the owner is busy.
    pub allows_urgent: bool,
    /// The owner keeps the contact in the list, whatever else there is.
    pub is_listed: bool,
}

impl Relation {
    /// Whether the contact may know that the owner exists, and fetch its record: the owner has
    /// approved it, or has asked it. Blocking does not change that, so that it does not show.
    #[must_use]
    pub const fn is_visible(self) -> bool {
        self.approves || self.asks || self.is_approved
    }

    /// Whether the contact sees the owner's presence.
    #[must_use]
    pub const fn shows_presence(self) -> bool {
        self.approves && !self.blocks
    }

    /// Whether it is there only because the contact asked.
    #[must_use]
    pub fn is_request(self) -> bool {
        self == Self { was_asked: true, ..Self::default() }
    }

    const fn flags(self) -> u8 {
        (self.approves as u8)
            | (self.was_asked as u8) << 1
            | (self.asks as u8) << 2
            | (self.is_approved as u8) << 3
            | (self.blocks as u8) << 4
            | (self.allows_urgent as u8) << 5
            | (self.is_listed as u8) << 6
    }

    const fn from_flags(flags: u8) -> Self {
        Self {
            approves: flags & 1 != 0,
            was_asked: flags & 1 << 1 != 0,
            asks: flags & 1 << 2 != 0,
            is_approved: flags & 1 << 3 != 0,
            blocks: flags & 1 << 4 != 0,
            allows_urgent: flags & 1 << 5 != 0,
            is_listed: flags & 1 << 6 != 0,
        }
    }
}

/// An entry of a roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The account.
    pub address: AddressBuf,
    /// What the owner thinks of it.
    pub relation: Relation,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// Names and notes, sealed by the owner's devices, as base64; empty for none.
    pub blob: String,
}

impl Contact {
    /// A stranger.
    #[must_use]
    pub fn new(address: AddressBuf, now: Timestamp) -> Self {
        Self { address, relation: Relation::default(), changed_at: now, blob: String::new() }
    }

    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.relation == Relation::default() && self.blob.is_empty()
    }

    /// Reads a row that [`Contact::encode`] wrote.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        let (&[FORMAT, flags], rest) = row.split_first_chunk()? else { return None };
        let (changed_at, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (address, blob) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some(Self {
            address: AddressBuf::parse(core::str::from_utf8(address).ok()?).ok()?,
            relation: Relation::from_flags(flags),
            changed_at: Timestamp(u64::from_be_bytes(*changed_at)),
            blob: core::str::from_utf8(blob).ok()?.to_owned(),
        })
    }

    /// The row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut row = vec![FORMAT, self.relation.flags()];
        row.extend_from_slice(&self.changed_at.0.to_be_bytes());
        // An address has at most 335 octets.
        let length = u16::try_from(self.address.as_str().len()).unwrap_or(u16::MAX);
        row.extend_from_slice(&length.to_be_bytes());
        row.extend_from_slice(self.address.as_str().as_bytes());
        row.extend_from_slice(self.blob.as_bytes());
        row
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_cut_ones_are_refused() {
        for flags in 0..128 {
            let relation = Relation::from_flags(flags);
            assert_eq!(relation.flags(), flags);
            let address = AddressBuf::parse("bob@a.example").unwrap();
            let mut contact = Contact::new(address, Timestamp(7));
            contact.relation = relation;
            contact.blob = "AAAA".to_owned();
            let row = contact.encode();
            assert_eq!(Contact::decode(&row).as_ref(), Some(&contact));
            let until_blob = row.len() - contact.blob.len();
            for length in 0..until_blob {
                assert_eq!(Contact::decode(&row[..length]), None);
            }
        }
    }

    #[test]
    fn only_a_bare_request_is_one() {
        let asked = Relation { was_asked: true, ..Relation::default() };
        assert!(asked.is_request() && !asked.is_visible());
        assert!(!Relation { is_listed: true, ..asked }.is_request());
        let asks = Relation { asks: true, ..Relation::default() };
        assert!(asks.is_visible() && Relation { blocks: true, ..asks }.is_visible());
        assert!(!asks.shows_presence());
        let approves = Relation { approves: true, ..Relation::default() };
        assert!(approves.shows_presence());
        assert!(!Relation { blocks: true, ..approves }.shows_presence());
    }
}
