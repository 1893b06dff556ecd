//! Files (800–806), as typed views of a command, and the octets that seal a chunk
//! (SPEC.md §9).
//!
//! A file of SIZE octets goes in chunks of CHUNK octets, the last of which is shorter; an empty
//! file is one empty chunk. Chunk n is sealed with nonce `u32 0 ‖ u64 n`; ROOT is the RFC 9162
//! tree over the sealed chunks.

use crate::address::Address;
use crate::canonical::push_lp;
use crate::code::Code;
use crate::command::Command;
use crate::error::Error;
use crate::identifier::{FileId, KeyCommitment, MessageId, TreeRoot};
use crate::limits::{CHUNK_OCTETS_MAX, CHUNK_OCTETS_MIN, CHUNK_TAG_OCTETS, CHUNKS_MAX};
use crate::message::{Place, account_and_device, commitment, no_slots};
use crate::offer::reply_code;
use crate::timestamp::Timestamp;

/// How a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    size_octets: u64,
    chunk_octets: u32,
}

impl Shape {
    /// A file of `size_octets` in chunks of `chunk_octets`; `None` outside the limits.
    #[must_use]
    pub const fn new(size_octets: u64, chunk_octets: u32) -> Option<Self> {
        if chunk_octets < CHUNK_OCTETS_MIN || chunk_octets > CHUNK_OCTETS_MAX {
            return None;
        }
        let shape = Self { size_octets, chunk_octets };
        if shape.chunk_count() > CHUNKS_MAX { None } else { Some(shape) }
    }

    /// SIZE.
    #[must_use]
    pub const fn size_octets(self) -> u64 {
        self.size_octets
    }

    /// CHUNK.
    #[must_use]
    pub const fn chunk_octets(self) -> u32 {
        self.chunk_octets
    }

    /// The number of chunks, at least 1.
    #[must_use]
    pub const fn chunk_count(self) -> u64 {
        if self.size_octets == 0 { 1 } else { self.size_octets.div_ceil(self.chunk_octets as u64) }
    }

    /// Whether chunk `number` (from 0) is the last.
    #[must_use]
    pub const fn is_last(self, number: u64) -> bool {
        number == self.chunk_count() - 1
    }

    /// Octets of chunk `number` before sealing; `None` behind the last.
    #[must_use]
    pub const fn octets_of(self, number: u64) -> Option<u32> {
        if number >= self.chunk_count() {
            None
        } else if self.is_last(number) {
            // At most `chunk_octets`.
            Some((self.size_octets - number * self.chunk_octets as u64) as u32)
        } else {
            Some(self.chunk_octets)
        }
    }
}

/// The nonce of chunk `number`: `u32 0 ‖ u64 n`.
#[must_use]
pub fn chunk_nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    if let Some(end) = nonce.last_chunk_mut::<8>() {
        *end = number.to_be_bytes();
    }
    nonce
}

/// What the seal of chunk `number` binds: `lp("CIM1-FILE") lp(FID) u64 n u8 last`.
#[must_use]
pub fn chunk_aad(file: FileId, number: u64, is_last: bool) -> Vec<u8> {
    let mut octets = Vec::with_capacity(48);
    push_lp(&mut octets, b"CIM1-FILE");
    push_lp(&mut octets, file.as_str().as_bytes());
    octets.extend_from_slice(&number.to_be_bytes());
    octets.push(u8::from(is_last));
    octets
}

/// The largest CHUNK that fits a hop of `line_octets_max`: a power of two, at least 4 KiB, or
/// `None` if not even that fits.
#[must_use]
pub fn chunk_octets_for_line(line_octets_max: usize) -> Option<u32> {
    // Code, two addresses, FID, N and hop parameters fit 1,024 octets.
    let body = line_octets_max.checked_sub(1_024)? / 4 * 3;
    let plain = body.checked_sub(CHUNK_TAG_OCTETS)?;
    [32 * 1_024, 16 * 1_024, 8 * 1_024, 4 * 1_024]
        .into_iter()
        .find(|&chunk| chunk <= plain)
        .map(|chunk| chunk as u32)
}

/// 800: a file is offered.
#[derive(Clone, Debug)]
pub struct FileOffer<'a> {
    /// The account it is for.
    pub to: Address<'a>,
    /// The device that offers.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// SIZE and CHUNK.
    pub shape: Shape,
    /// ROOT.
    pub root: TreeRoot,
    /// SID, GEN, SEQ, PREV.
    pub place: Place,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
    /// KC.
    pub commitment: Option<KeyCommitment>,
    /// Name, type and file key, sealed as the text of a message.
    pub body: Vec<u8>,
}

impl<'a> FileOffer<'a> {
    /// Reads an 800 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_OFFER)?;
        let (to, from) = account_and_device(command)?;
        if command.body_text().is_none() || command.signature_text().is_none() {
            return Err(Error::BadSlot);
        }
        let (size, chunk) = (command.need("SIZE")?, command.need("CHUNK")?);
        Ok(Self {
            to,
            from,
            file: command.need("FID")?,
            shape: Shape::new(size, chunk).ok_or(Error::BadParameter("CHUNK"))?,
            root: command.need("ROOT")?,
            place: Place::read(command)?,
            at: command.need("TS")?,
            id: command.need("MID")?,
            commitment: commitment(command)?,
            body: command.body(),
        })
    }
}

/// 801: send, from this chunk on.
#[derive(Clone, Copy, Debug)]
pub struct FileAccept<'a> {
    /// The device that offered.
    pub to: Address<'a>,
    /// The device that accepts.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// FROM-CHUNK: the first chunk that is wanted.
    pub first_chunk: u64,
    /// TO-CHUNK: the first chunk that may not be sent yet.
    pub window_end: Option<u64>,
}

impl<'a> FileAccept<'a> {
    /// Reads an 801 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_ACCEPT)?;
        let (to, from) = crate::offer::devices(command)?;
        no_slots(command)?;
        Ok(Self {
            to,
            from,
            file: command.need("FID")?,
            first_chunk: chunk(command, "FROM-CHUNK")?.ok_or(MISSING_FROM_CHUNK)?,
            window_end: chunk(command, "TO-CHUNK")?,
        })
    }
}

/// 802: one sealed chunk.
#[derive(Clone, Debug)]
pub struct FileChunk<'a> {
    /// The device that accepted, or the account whose relay keeps the file.
    pub to: Address<'a>,
    /// The device that offered.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// N, from 0.
    pub number: u64,
    /// The sealed chunk.
    pub body: Vec<u8>,
}

impl<'a> FileChunk<'a> {
    /// Reads an 802 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_CHUNK)?;
        let (to, from) = person_and_device(command)?;
        let body = command.body();
        if body.len() < CHUNK_TAG_OCTETS || command.signature_text().is_some() {
            return Err(Error::BadSlot);
        }
        let number = chunk(command, "N")?.ok_or(Error::MissingParameter("N"))?;
        Ok(Self { to, from, file: command.need("FID")?, number, body })
    }
}

/// 803: chunks below TO-CHUNK may be sent.
#[derive(Clone, Copy, Debug)]
pub struct FileWindow<'a> {
    /// The device that offered.
    pub to: Address<'a>,
    /// The device that accepted, or the domain whose relay keeps the file.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// TO-CHUNK.
    pub window_end: u64,
}

impl<'a> FileWindow<'a> {
    /// Reads an 803 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_WINDOW)?;
        let to = command.to().filter(|to| to.is_device()).ok_or(Error::BadAddress)?;
        let from = device_or_domain(command)?;
        no_slots(command)?;
        let window_end = chunk(command, "TO-CHUNK")?;
        let window_end = window_end.ok_or(Error::MissingParameter("TO-CHUNK"))?;
        Ok(Self { to, from, file: command.need("FID")?, window_end })
    }
}

/// 804: all chunks were sent; the signature binds ROOT and SIZE.
#[derive(Clone, Copy, Debug)]
pub struct FileFinish<'a> {
    /// The device that accepted, or the account whose relay keeps the file.
    pub to: Address<'a>,
    /// The device that offered.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// ROOT.
    pub root: TreeRoot,
    /// SIZE.
    pub size_octets: u64,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
}

impl<'a> FileFinish<'a> {
    /// Reads an 804 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_FINISH)?;
        let (to, from) = person_and_device(command)?;
        expect_bare_signature(command)?;
        Ok(Self {
            to,
            from,
            file: command.need("FID")?,
            root: command.need("ROOT")?,
            size_octets: command.need("SIZE")?,
            at: command.need("TS")?,
            id: command.need("MID")?,
        })
    }
}

/// 805: either side gives up.
#[derive(Clone, Copy, Debug)]
pub struct FileCancel<'a> {
    /// The other side.
    pub to: Address<'a>,
    /// The side that gives up, or the domain whose relay kept the file.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// CODE: why.
    pub code: Option<Code>,
}

impl<'a> FileCancel<'a> {
    /// Reads an 805 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_CANCEL)?;
        let to = command.to().filter(|to| to.local().is_some()).ok_or(Error::BadAddress)?;
        let from = device_or_domain(command)?;
        no_slots(command)?;
        Ok(Self { to, from, file: command.need("FID")?, code: reply_code(command)? })
    }
}

/// 806: the receiver's verdict, signed.
#[derive(Clone, Copy, Debug)]
pub struct FileVerdict<'a> {
    /// The device that offered.
    pub to: Address<'a>,
    /// The device that received.
    pub from: Address<'a>,
    /// FID.
    pub file: FileId,
    /// CODE: 250 if the file is whole and its signature holds, else why not.
    pub code: Code,
    /// TS.
    pub at: Timestamp,
    /// MID.
    pub id: MessageId,
}

impl<'a> FileVerdict<'a> {
    /// Reads an 806 line.
    ///
    /// # Errors
    /// [`Error::UnknownCode`], [`Error::BadAddress`], [`Error::MissingParameter`],
    /// [`Error::BadParameter`], [`Error::BadSlot`].
    pub fn parse(command: &Command<'a>) -> Result<Self, Error> {
        expect(command, Code::FILE_VERDICT)?;
        let (to, from) = crate::offer::devices(command)?;
        expect_bare_signature(command)?;
        Ok(Self {
            to,
            from,
            file: command.need("FID")?,
            code: reply_code(command)?.ok_or(Error::MissingParameter("CODE"))?,
            at: command.need("TS")?,
            id: command.need("MID")?,
        })
    }
}

fn expect(command: &Command<'_>, code: Code) -> Result<(), Error> {
    if command.code() == code { Ok(()) } else { Err(Error::UnknownCode(command.code())) }
}

const MISSING_FROM_CHUNK: Error = Error::MissingParameter("FROM-CHUNK");

/// The number of a chunk, or of the one behind the last.
fn chunk(command: &Command<'_>, name: &'static str) -> Result<Option<u64>, Error> {
    let number = command.read(name)?;
    if number.is_some_and(|number| number > CHUNKS_MAX) {
        return Err(Error::BadParameter(name));
    }
    Ok(number)
}

/// FROM, a device or a domain.
fn device_or_domain<'a>(command: &Command<'a>) -> Result<Address<'a>, Error> {
    let from = command.from().filter(|from| from.is_device() || from.is_domain());
    from.ok_or(Error::BadAddress)
}

fn expect_bare_signature(command: &Command<'_>) -> Result<(), Error> {
    if command.body_text().is_none() && command.signature_text().is_some() {
        Ok(())
    } else {
        Err(Error::BadSlot)
    }
}

/// TO, an account or a device, and FROM, a device.
fn person_and_device<'a>(command: &Command<'a>) -> Result<(Address<'a>, Address<'a>), Error> {
    let to = command.to().filter(|to| to.local().is_some()).ok_or(Error::BadAddress)?;
    let from = command.from().filter(|from| from.is_device()).ok_or(Error::BadAddress)?;
    Ok((to, from))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        for (size, chunk, lengths) in [
            (0, 4_096, vec![0]),
            (1, 4_096, vec![1]),
            (4_096, 4_096, vec![4_096]),
            (4_097, 4_096, vec![4_096, 1]),
            (8_292, 4_096, vec![4_096, 4_096, 100]),
        ] {
            let shape = Shape::new(size, chunk).unwrap();
            let found: Vec<u32> = (0..).map_while(|n| shape.octets_of(n)).collect();
            assert_eq!(found, lengths, "{size}");
            assert!(shape.is_last(lengths.len() as u64 - 1));
        }
        assert!(Shape::new(1, CHUNK_OCTETS_MIN - 1).is_none());
        assert!(Shape::new(1, CHUNK_OCTETS_MAX + 1).is_none());
        assert!(Shape::new(u64::MAX, CHUNK_OCTETS_MAX).is_none());
        let largest = CHUNKS_MAX * u64::from(CHUNK_OCTETS_MIN);
        assert!(Shape::new(largest, CHUNK_OCTETS_MIN).is_some());
        assert!(Shape::new(largest + 1, CHUNK_OCTETS_MIN).is_none());
    }

    #[test]
    fn chunks_fit_their_lines() {
        assert_eq!(chunk_octets_for_line(8_192), Some(4 * 1_024));
        assert_eq!(chunk_octets_for_line(65_536), Some(32 * 1_024));
        assert_eq!(chunk_octets_for_line(6_000), None);
    }
}
