//! The watermark: the number of the last batch known to be durable, kept apart from the database.
//!
//! Owns one small file of two slots, written in turn after every flush and flushed to the device
//! about once a second. A crash of the process therefore leaves the exact number, a loss of power
//! one at most a second old; either way a number above that of the database means that a tail was
//! lost. Invariant: a slot is written only after its batch is durable, so the watermark is never
//! ahead of a healthy database.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

/// Octets of a slot: magic, number, checksum.
const SLOT_LENGTH: usize = 24;

/// Where the slots start: apart by a sector, so that one torn write spares the other.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

const MAGIC: &[u8; 8] = b"CIMWMRK1";

/// What the file said at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Neither slot is whole.
    Damaged,
    /// There is no file.
    Missing,
    /// The higher of the whole slots, and whether one of them is damaged.
    Number(u64, bool),
}

/// The open file.
#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
}

impl Watermark {
    /// Reads the file without changing it.
    pub(super) fn read(path: &Path) -> io::Result<Reading> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Missing),
            Err(error) => return Err(error),
        };
        let slots = SLOT_OFFSETS.map(|offset| read_slot(&file, offset));
        let damaged = slots.contains(&Slot::Damaged);
        let number = slots
            .iter()
            .filter_map(|slot| if let Slot::Number(number) = slot { Some(*number) } else { None })
            .max();
        Ok(match number {
            Some(number) => Reading::Number(number, damaged),
            None => Reading::Damaged,
        })
    }

    /// Opens the file for writing, creating it, and writes `number` to both slots durably.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let watermark = Self { file };
        for offset in SLOT_OFFSETS {
            watermark.file.write_all_at(&slot(number), offset)?;
        }
        watermark.file.sync_all()?;
        Ok(watermark)
    }

    /// Writes `number`, without waiting for the device.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        let [even, odd] = SLOT_OFFSETS;
        let offset = if number.is_multiple_of(2) { even } else { odd };
        self.file.write_all_at(&slot(number), offset)
    }

    /// Waits until what was written is on the device.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Damaged,
    Number(u64),
}

fn slot(number: u64) -> [u8; SLOT_LENGTH] {
    let mut slot = [0; SLOT_LENGTH];
    let (head, sum) = slot.split_at_mut(SLOT_LENGTH - 8);
    let (magic, digits) = head.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    digits.copy_from_slice(&number.to_be_bytes());
    sum.copy_from_slice(&xxh3_64(head).to_be_bytes());
    slot
}

fn read_slot(file: &File, offset: u64) -> Slot {
    let mut octets = [0; SLOT_LENGTH];
    if file.read_exact_at(&mut octets, offset).is_err() {
        return Slot::Damaged;
    }
    let (head, _) = octets.split_at(SLOT_LENGTH - 8);
    let number = head.last_chunk::<8>().map_or(0, |digits| u64::from_be_bytes(*digits));
    if slot(number) == octets { Slot::Number(number) } else { Slot::Damaged }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_whole_slot_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watermark");
        assert_eq!(Watermark::read(&path).unwrap(), Reading::Missing);
        let watermark = Watermark::open(&path, 40).unwrap();
        assert_eq!(Watermark::read(&path).unwrap(), Reading::Number(40, false));
        watermark.write(41).unwrap();
        watermark.write(42).unwrap();
        watermark.flush().unwrap();
        assert_eq!(Watermark::read(&path).unwrap(), Reading::Number(42, false));
        let whole = std::fs::read(&path).unwrap();
        for position in (0..SLOT_LENGTH).chain(4096..4096 + SLOT_LENGTH) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let left = if position < 4096 { 41 } else { 42 };
            assert_eq!(Watermark::read(&path).unwrap(), Reading::Number(left, true));
        }
        let lengths = (0..2 * SLOT_LENGTH).chain(4_090..whole.len());
        for length in lengths {
            std::fs::write(&path, &whole[..length]).unwrap();
            let expected =
                if length < SLOT_LENGTH { Reading::Damaged } else { Reading::Number(42, true) };
            assert_eq!(Watermark::read(&path).unwrap(), expected, "{length}");
        }
        std::fs::write(&path, vec![0; 8192]).unwrap();
        assert_eq!(Watermark::read(&path).unwrap(), Reading::Damaged);
    }
}
