//! Reads the database's journals before the database does, because it forgets what it cannot read.
//!
//! fjall stops at the first entry that does not parse, cuts the file there and says nothing: a
//! damaged page in the middle silently takes every later batch with it. This module parses the
//! same files strictly (format of fjall 3.1: start, items, end with XXH3) and looks for whole
//! batches behind a damage. Every batch of ours carries a [`Link`] per keyspace; their numbers
//! must be consecutive and the sequence numbers must rise. Pure: works on octets, changes nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

/// The key of the row that carries a [`Link`]; shorter than any row of ours.
pub(super) const LINK_KEY: &[u8] = b"\0link";

/// How far a batch's sequence number may lie above the expected one: fjall draws numbers for its
/// own bookkeeping in between.
const SEQUENCE_SLACK: u64 = 1 << 10;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TRAILER: &[u8] = b"FJL\x03";

/// What every batch writes into each keyspace it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The batch's number; the next has one more.
    pub(super) number: u64,
    /// Per keyspace of ours, touched or not: the number of the last batch before it; 0 for none.
    pub(super) previous: [u64; 3],
    /// The sequence number that the database was about to give it.
    pub(super) sequence: u64,
}

/// Octets of a link.
const LINK_LENGTH: usize = 40;

impl Link {
    /// Its octets on disk.
    pub(super) fn octets(self) -> [u8; LINK_LENGTH] {
        let mut octets = [0; LINK_LENGTH];
        let [meta, spool, state] = self.previous;
        let fields = [self.number, meta, spool, state, self.sequence];
        for (chunk, field) in octets.chunks_exact_mut(8).zip(fields) {
            chunk.copy_from_slice(&field.to_be_bytes());
        }
        octets
    }

    /// The link in `octets`, if they are one.
    pub(super) fn parse(octets: &[u8]) -> Option<Self> {
        if octets.len() != LINK_LENGTH {
            return None;
        }
        let mut reader = Reader { octets, at: 0 };
        let mut field = || reader.array::<8>().map(u64::from_be_bytes);
        let number = field()?;
        let previous = [field()?, field()?, field()?];
        let sequence = field()?;
        previous.iter().all(|previous| *previous < number).then_some(Self {
            number,
            previous,
            sequence,
        })
    }
}

/// The first link in the journals, by which the tables can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstLink {
    pub(super) link: Link,
    /// The sequence number of its batch.
    pub(super) sequence: u64,
}

/// What is known after the journals read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// The first batch, if there is one.
    pub(super) first: Option<FirstLink>,
    /// Number of the last batch.
    pub(super) last: Option<u64>,
    /// Sequence number of the last batch.
    sequence: u64,
    /// Per keyspace, by the database's number: the number of its last batch.
    pub(super) ends: BTreeMap<u64, u64>,
}

/// A stretch of a journal that is no batch, or batches that are not where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Offsets of the octets that do not parse; empty where batches are merely missing.
    pub(super) octets: Range<u64>,
    /// Numbers of the batches that are missing; empty if none is, or none is known to be.
    pub(super) numbers: Range<u64>,
}

/// What one journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Batches that are whole.
    pub(super) batches: u64,
    /// Offsets of the whole batches, neighbours joined.
    pub(super) whole: Vec<Range<usize>>,
    /// What lies between whole batches and should not.
    pub(super) gaps: Vec<Gap>,
    /// Where the last whole batch begins.
    last_start: usize,
    /// Octets after the last whole batch that are neither a batch nor zeros: torn or damaged.
    pub(super) tail: Range<u64>,
}

/// Reads one journal and goes on with the chain. The numbers in `accepted` may be missing.
pub(super) fn read(octets: &[u8], chain: &mut Chain, accepted: &[Range<u64>]) -> Reading {
    let mut reading = Reading::default();
    let end = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    let mut at = 0;
    while at < end {
        if let Some(batch) = parse(octets, at).filter(|batch| chain.admits(batch)) {
            reading.take(at, &batch, chain, accepted, 0..0);
            at = batch.end;
            continue;
        }
        let Some((found, batch)) = resume(octets, at + 1, end, chain) else {
            reading.tail = at as u64..end as u64;
            return reading;
        };
        reading.take(found, &batch, chain, accepted, at as u64..found as u64);
        at = batch.end;
    }
    reading
}

impl Reading {
    fn take(
        &mut self,
        start: usize,
        batch: &Batch,
        chain: &mut Chain,
        accepted: &[Range<u64>],
        octets: Range<u64>,
    ) {
        let expected = chain.last.map_or(batch.link.number, |last| last + 1);
        let numbers = expected..batch.link.number;
        let known =
            accepted.iter().any(|range| range.start <= expected && range.end >= numbers.end);
        if !octets.is_empty() || (!numbers.is_empty() && !known) {
            self.gaps.push(Gap { octets, numbers });
        }
        if let Some(last) = chain.disorder(batch) {
            let octets = self.drop_last();
            self.gaps.push(Gap { octets, numbers: last..last + 1 });
        }
        self.batches += 1;
        self.last_start = start;
        match self.whole.last_mut() {
            Some(last) if last.end == start => last.end = batch.end,
            _ => self.whole.push(start..batch.end),
        }
        chain.extend(batch);
    }

    /// Takes back the last batch; gives its octets, or nothing if it is in an earlier journal.
    fn drop_last(&mut self) -> Range<u64> {
        let Some(last) = self.whole.last_mut() else { return 0..0 };
        let octets = self.last_start as u64..last.end as u64;
        last.end = self.last_start;
        if last.start == last.end {
            self.whole.pop();
        }
        self.batches -= 1;
        octets
    }
}

impl Chain {
    /// Whether the batch can come after what was read.
    fn admits(&self, batch: &Batch) -> bool {
        let above = batch.sequence.checked_sub(batch.link.sequence);
        self.last.is_none_or(|last| batch.link.number > last)
            && above.is_some_and(|above| above <= SEQUENCE_SLACK)
    }

    /// Whether the batch before has a sequence number that only this one, or a later one, may
    /// have: it is not protected by the checksum and was changed.
    fn disorder(&self, batch: &Batch) -> Option<u64> {
        self.last.filter(|_| batch.sequence <= self.sequence)
    }

    fn extend(&mut self, batch: &Batch) {
        let first = FirstLink { link: batch.link, sequence: batch.sequence };
        self.first.get_or_insert(first);
        self.last = Some(batch.link.number);
        self.sequence = batch.sequence;
        for keyspace in &batch.keyspaces {
            self.ends.insert(*keyspace, batch.link.number);
        }
    }
}

/// A whole batch.
struct Batch {
    link: Link,
    sequence: u64,
    /// The keyspaces that it touches, by the database's numbers.
    keyspaces: Vec<u64>,
    /// Offset after it.
    end: usize,
}

/// Finds the next whole batch from `from` on that can follow the chain.
fn resume(octets: &[u8], from: usize, end: usize, chain: &Chain) -> Option<(usize, Batch)> {
    (from..end).find_map(|at| {
        // A start is followed by an item: two octets that rule out nearly every place.
        let plausible =
            octets.get(at) == Some(&TAG_START) && octets.get(at + 13) == Some(&TAG_ITEM);
        let batch = plausible.then(|| parse(octets, at)).flatten()?;
        chain.admits(&batch).then_some((at, batch))
    })
}

/// Parses the batch at `at`: all of it is there, its checksum fits and its links agree.
fn parse(octets: &[u8], at: usize) -> Option<Batch> {
    let mut reader = Reader { octets, at };
    reader.tag(TAG_START)?;
    let count = u32::from_le_bytes(reader.array()?);
    let sequence = u64::from_le_bytes(reader.array()?);
    let mut sum = Xxh3::new();
    let mut links = Vec::new();
    for _ in 0..count {
        let start = reader.at;
        if let Some(link) = item(&mut reader)? {
            links.push(link);
        }
        sum.update(octets.get(start..reader.at)?);
    }
    reader.tag(TAG_END)?;
    let expected = u64::from_le_bytes(reader.array()?);
    if expected != sum.digest() || reader.slice(TRAILER.len())? != TRAILER {
        return None;
    }
    let (_, link): (u64, Link) = *links.first()?;
    let agree = links.iter().all(|(_, other)| *other == link);
    let keyspaces = links.into_iter().map(|(keyspace, _)| keyspace).collect();
    agree.then_some(Batch { link, sequence, keyspaces, end: reader.at })
}

/// Reads one item; gives the link that it carries, if it does.
#[expect(clippy::option_option, reason = "outer: it parses; inner: it is a link")]
fn item(reader: &mut Reader<'_>) -> Option<Option<(u64, Link)>> {
    reader.tag(TAG_ITEM)?;
    let [_kind, compression] = reader.array()?;
    if compression != 0 {
        return None;
    }
    let keyspace = u64::from_le_bytes(reader.array()?);
    let key_length = usize::from(u16::from_le_bytes(reader.array()?));
    let value_length = u32::from_le_bytes(reader.array()?);
    if value_length != u32::from_le_bytes(reader.array()?) {
        return None;
    }
    let key = reader.slice(key_length)?;
    let value = reader.slice(usize::try_from(value_length).ok()?)?;
    if key != LINK_KEY {
        return Some(None);
    }
    Link::parse(value).map(|link| Some((keyspace, link)))
}

struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let slice = self.octets.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn tag(&mut self, tag: u8) -> Option<()> {
        (self.slice(1)? == [tag]).then_some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    fn batch(number: u64, sequence: u64) -> Vec<u8> {
        let link = Link { number, previous: [0, number - 1, 0], sequence };
        let mut items = Vec::new();
        for (key, value) in [(LINK_KEY, &link.octets()[..]), (b"row", b"value")] {
            items.extend([TAG_ITEM, 0, 0]);
            items.extend(7_u64.to_le_bytes());
            items.extend((key.len() as u16).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend(key);
            items.extend(value);
        }
        let mut out = vec![TAG_START];
        out.extend(2_u32.to_le_bytes());
        out.extend(sequence.to_le_bytes());
        out.extend(&items);
        out.push(TAG_END);
        out.extend(xxhash_rust::xxh3::xxh3_64(&items).to_le_bytes());
        out.extend(TRAILER);
        out
    }

    fn journal(count: u64) -> (Vec<u8>, usize) {
        let octets: Vec<u8> = (1..=count).flat_map(|number| batch(number, number + 9)).collect();
        let length = octets.len() / count as usize;
        ([octets, vec![0; 100]].concat(), length)
    }

    fn read_one(octets: &[u8]) -> (Reading, Chain) {
        let mut chain = Chain::default();
        (read(octets, &mut chain, &[]), chain)
    }

    #[test]
    fn a_healthy_journal_has_neither_gap_nor_tail() {
        let (octets, length) = journal(5);
        let (reading, chain) = read_one(&octets);
        assert_eq!(reading.batches, 5);
        assert_eq!(reading.whole, [0..5 * length]);
        assert_eq!((reading.gaps, reading.tail), (vec![], 0..0));
        assert_eq!((chain.first.unwrap().link.number, chain.last), (1, Some(5)));
        assert_eq!(chain.ends[&7], 5);
        assert_eq!(chain.first.unwrap().sequence, 10);
        assert_eq!(read_one(&[]).0, Reading::default());
        assert_eq!(read_one(&[0; 64]).0, Reading::default());
    }

    #[test]
    fn every_cut_leaves_whole_batches_and_a_tail() {
        let (octets, length) = journal(4);
        for cut in 0..4 * length {
            let (reading, chain) = read_one(&octets[..cut]);
            let whole = cut / length;
            assert_eq!(reading.batches, whole as u64);
            assert_eq!(chain.last, (whole > 0).then_some(whole as u64));
            assert!(reading.gaps.is_empty());
            let end =
                octets[..cut].iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
            if end > whole * length {
                assert_eq!(reading.tail, (whole * length) as u64..end as u64);
            }
        }
    }

    #[test]
    fn every_flip_and_zero_in_the_middle_is_a_gap() {
        let (octets, length) = journal(4);
        for position in length..2 * length {
            for damage in [octets[position] ^ 1, octets[position] ^ 0x80, 0, 0xff] {
                if damage == octets[position] {
                    continue;
                }
                let mut octets = octets.clone();
                octets[position] = damage;
                let (reading, chain) = read_one(&octets);
                let harmless = reading.batches == 4 && chain.last == Some(4);
                if harmless {
                    // The sequence number within the slack: the order is what it was.
                    assert!((length + 5..length + 13).contains(&position), "{position}");
                } else {
                    assert_eq!(reading.gaps.len(), 1, "{position}");
                    assert!(!reading.gaps[0].octets.is_empty());
                    assert_eq!(reading.batches, 3);
                    assert_eq!(chain.last, Some(4));
                }
            }
        }
    }

    #[test]
    fn missing_repeated_and_swapped_batches_are_gaps() {
        let parts: Vec<_> = (1..=5).map(|number| batch(number, number + 9)).collect();
        let length = parts[0].len() as u64;
        let cases = [
            (&[0, 1, 3, 4][..], 4, vec![3..4]),
            (&[0, 1, 1, 2], 3, vec![3..3]),
            (&[0, 2, 1, 3], 3, vec![2..3, 4..4]),
            (&[2, 3, 4], 3, vec![]),
        ];
        for (order, batches, missing) in cases {
            let octets: Vec<u8> = order.iter().flat_map(|index| parts[*index].clone()).collect();
            let (reading, _) = read_one(&octets);
            assert_eq!(reading.batches, batches, "{order:?}");
            let numbers: Vec<_> = reading.gaps.iter().map(|gap| gap.numbers.clone()).collect();
            assert_eq!(numbers, missing, "{order:?}");
        }
        let accepted: Vec<u8> =
            [0, 1, 3, 4].iter().flat_map(|index| parts[*index].clone()).collect();
        let mut chain = Chain::default();
        let reading = read(&accepted, &mut chain, &[3..4]);
        assert_eq!((reading.gaps, reading.whole), (vec![], vec![0..4 * length as usize]));
    }

    #[test]
    fn arbitrary_octets_never_panic() {
        let (octets, _) = journal(3);
        for seed in 0..2_000_usize {
            let mut octets = octets.clone();
            for step in 0..(seed % 9) + 1 {
                let position = (seed * 7_919 + step * 104_729) % octets.len();
                octets[position] = (seed * 31 + step) as u8;
            }
            let (reading, _) = read_one(&octets);
            assert!(reading.batches <= 3);
        }
    }
}
