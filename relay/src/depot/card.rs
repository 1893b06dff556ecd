//! The card of a kept file: whose it is, how it is cut, how much of it is here, until when.
//!
//! Kept in table `File`; its chunks are in table `Chunk` under a name that is a hash, so that
//! nothing on the disk tells who sent what to whom.

use protocol::canonical::{push_lp, sha256};
use protocol::file::Shape;
use protocol::identifier::FileId;
use protocol::limits::CHUNK_TAG_OCTETS;
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf};

use super::limits;
use crate::store::{Row, Table};

/// Which file: for whom, from whom, and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The account that it is for.
    pub account: AddressBuf,
    /// The device that sends it.
    pub sender: AddressBuf,
    /// FID.
    pub file: FileId,
}

impl Label {
    /// The label of a file from `sender` for the account of `recipient`.
    #[must_use]
    pub fn new(recipient: Address<'_>, sender: Address<'_>, file: FileId) -> Self {
        Self { account: recipient.account().to_buf(), sender: sender.to_buf(), file }
    }

    /// The name under which its chunks are kept.
    pub(super) fn name(&self) -> [u8; 32] {
        let mut octets = Vec::with_capacity(256);
        push_lp(&mut octets, self.account.as_str().as_bytes());
        push_lp(&mut octets, self.sender.as_str().as_bytes());
        push_lp(&mut octets, self.file.as_str().as_bytes());
        sha256(&[&octets])
    }

    pub(super) fn card_row(&self) -> Row {
        Row::new(Table::File, self.account.as_str().as_bytes(), &self.name())
    }

    pub(crate) fn chunk_row(&self, number: u64) -> Row {
        Row::numbered(Table::Chunk, &self.name(), number)
    }
}

/// What is known of a kept file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Which file.
    pub label: Label,
    /// SIZE and CHUNK.
    pub shape: Shape,
    /// The first chunk that is not here; all before it are.
    pub next: u64,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// Whether it is being removed.
    pub is_doomed: bool,
}

const VERSION: u8 = 1;

impl Card {
    /// Whether every chunk is here.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.next >= self.shape.chunk_count()
    }

    /// What the whole file counts against its account.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        let each = CHUNK_TAG_OCTETS as u64 + limits::CHUNK_EXTRA_OCTETS;
        let extra = self.shape.chunk_count().saturating_mul(each);
        self.shape.size_octets().saturating_add(extra)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![VERSION, u8::from(self.is_doomed)];
        value.extend_from_slice(&self.shape.size_octets().to_be_bytes());
        value.extend_from_slice(&self.shape.chunk_octets().to_be_bytes());
        value.extend_from_slice(&self.next.to_be_bytes());
        value.extend_from_slice(&self.expires_at.0.to_be_bytes());
        value.extend_from_slice(self.label.file.as_str().as_bytes());
        value.extend_from_slice(self.label.sender.as_str().as_bytes());
        value
    }

    /// Reads the value of a row that belongs to `owner`; `None` if it is not one.
    #[must_use]
    pub fn decode(owner: &[u8], value: &[u8]) -> Option<Self> {
        let (&[VERSION, flag @ (0 | 1)], rest) = value.split_first_chunk::<2>()? else {
            return None;
        };
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (chunk, rest) = rest.split_first_chunk::<4>()?;
        let (next, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (file, sender) = rest.split_first_chunk::<{ FileId::CHARACTERS }>()?;
        let text = |octets| std::str::from_utf8(octets).ok();
        Some(Self {
            label: Label {
                account: AddressBuf::parse(text(owner)?).ok()?,
                sender: AddressBuf::parse(text(sender)?).ok()?,
                file: FileId::parse(text(file)?)?,
            },
            shape: Shape::new(u64::from_be_bytes(*size), u32::from_be_bytes(*chunk))?,
            next: u64::from_be_bytes(*next),
            expires_at: Timestamp(u64::from_be_bytes(*expires)),
            is_doomed: flag == 1,
        })
    }
}

/// Octets of sealed chunk `number`; `None` behind the last.
#[must_use]
pub fn sealed_octets(shape: Shape, number: u64) -> Option<usize> {
    let octets = usize::try_from(shape.octets_of(number)?).ok()?;
    Some(octets + CHUNK_TAG_OCTETS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn card() -> Card {
        let address = |text: &str| AddressBuf::parse(text).unwrap();
        let sender = address("alice@a.example/d1");
        let label = Label {
            account: address("bob@a.example"),
            sender,
            file: FileId::from_octets(&[7; 16]),
        };
        let shape = Shape::new(10_000, 4_096).unwrap();
        Card { label, shape, next: 2, expires_at: Timestamp(9), is_doomed: false }
    }

    #[test]
    fn round_trip() {
        for is_doomed in [false, true] {
            let card = Card { is_doomed, ..card() };
            assert_eq!(Card::decode(b"bob@a.example", &card.encode()), Some(card));
        }
    }

    #[test]
    fn values_that_are_none_are_refused() {
        let good = card().encode();
        for length in 0..good.len() - "alice@a.example/d1".len() + 1 {
            assert_eq!(Card::decode(b"bob@a.example", &good[..length]), None, "{length}");
        }
        for (place, octet) in [(0, 2), (1, 2), (10, 0xFF), (30, b'-')] {
            let mut bad = good.clone();
            bad[place] = octet;
            assert_eq!(Card::decode(b"bob@a.example", &bad), None, "{place}");
        }
        assert_eq!(Card::decode(b"no address", &good), None);
    }

    #[test]
    fn sizes() {
        let card = card();
        assert_eq!(card.octets(), 10_000 + 3 * (16 + limits::CHUNK_EXTRA_OCTETS));
        assert_eq!(sealed_octets(card.shape, 0), Some(4_112));
        assert_eq!(sealed_octets(card.shape, 2), Some(10_000 - 2 * 4_096 + 16));
        assert_eq!(sealed_octets(card.shape, 3), None);
        assert!(!card.is_whole() && Card { next: 3, ..card }.is_whole());
    }

    #[test]
    fn every_part_of_a_label_names_other_rows() {
        let one = card().label;
        let device = AddressBuf::parse("alice@a.example/d2").unwrap();
        let others = [
            Label { account: AddressBuf::parse("carol@a.example").unwrap(), ..one.clone() },
            Label { sender: device, ..one.clone() },
            Label { file: FileId::from_octets(&[8; 16]), ..one.clone() },
        ];
        for other in others {
            assert_ne!(other.card_row(), one.card_row());
            assert_ne!(other.chunk_row(0).owner, one.chunk_row(0).owner);
        }
    }
}
