//! The seal: what the disk holds is noise to whoever has not the token.
//!
//! Owns the index key and the data keys. A row's place on disk is its table, 16 octets of
//! HMAC-SHA-256 over table and owner, and its sort (hidden the same way where
//! [`Table::hides_sort`]); its value is AES-256-GCM under a data key, with the place as associated
//! data, so that a damaged, moved or foreign value does not open. Limits: [`limits`].
//!
//! Nonces: a data key seals only in the process that made it, and counts from zero in memory; a
//! later start opens with it but seals with a key of its own. So no crash, cut or restored backup
//! can bring a counter back. (A copy of the running process's memory could: do not resume
//! snapshots of a running machine.) NIST SP 800-38D §8.2.1; RFC 2104.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use accel::gcm::{Aes256Gcm, NONCE_LEN, TAG_LEN};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{Row, Table, limits};
use crate::keys::{DATA_KEY_LENGTH, KeyError, KeyService, WrappedKey};

/// Octets of a keyed hash in a place.
const HASH_LENGTH: usize = 16;

/// Octets before the sort in a place: table and hash.
pub(super) const PLACE_PREFIX_LENGTH: usize = 1 + HASH_LENGTH;

/// First octet of every sealed value.
const FORMAT: u8 = 1;

/// Octets before the ciphertext: format, data key, counter.
const HEADER_LENGTH: usize = 1 + 4 + 8;

/// Separates the hash of a sort from that of an owner: no table has this number.
const SORT_DOMAIN: u8 = 0xff;

/// A data key's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyId(pub(super) u32);

/// A data key and what is written down about it.
pub(super) struct DataKey {
    pub(super) id: KeyId,
    /// Wall time of its making, milliseconds since 1970.
    pub(super) created_ms: u64,
    pub(super) wrapped: WrappedKey,
    cipher: Aes256Gcm,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DataKey({}, ..)", self.id.0)
    }
}

impl DataKey {
    /// Makes a key and lets the service wrap it.
    pub(super) fn make(
        id: KeyId,
        created_ms: u64,
        service: &dyn KeyService,
    ) -> Result<Self, KeyError> {
        let (key, wrapped) = make_key(service)?;
        Ok(Self { id, created_ms, wrapped, cipher: Aes256Gcm::new(&key) })
    }

    /// Opens a key that was written down.
    pub(super) fn open(
        id: KeyId,
        created_ms: u64,
        wrapped: WrappedKey,
        service: &dyn KeyService,
    ) -> Result<Self, KeyError> {
        let key = service.unwrap(&wrapped)?;
        Ok(Self { id, created_ms, wrapped, cipher: Aes256Gcm::new(&key) })
    }
}

/// Makes a random key and its wrapped form.
pub(super) fn make_key(
    service: &dyn KeyService,
) -> Result<(Zeroizing<[u8; DATA_KEY_LENGTH]>, WrappedKey), KeyError> {
    let mut key = Zeroizing::new([0; DATA_KEY_LENGTH]);
    service.random(key.as_mut());
    let wrapped = service.wrap(&key)?;
    Ok((key, wrapped))
}

/// A data key in use for sealing. Only one thread has it, and only in the process that made it.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) key: Arc<DataKey>,
    pub(super) seals: u64,
    pub(super) octets: u64,
}

impl Sealing {
    /// Starts to seal with a key that was made in this process.
    pub(super) const fn new(key: Arc<DataKey>) -> Self {
        Self { key, seals: 0, octets: 0 }
    }

    /// Whether the key may seal no more, with room for one batch.
    pub(super) const fn spent(&self) -> bool {
        self.seals >= limits::SEALS_PER_KEY_MAX || self.octets >= limits::OCTETS_PER_KEY_MAX
    }

    /// Whether the key will soon be spent.
    pub(super) const fn nearly_spent(&self) -> bool {
        self.seals >= limits::SEALS_PER_KEY_MAX / 8 * 7
            || self.octets >= limits::OCTETS_PER_KEY_MAX / 8 * 7
    }
}

/// A value, opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) owner: Box<[u8]>,
    pub(super) sort: Box<[u8]>,
    pub(super) value: Vec<u8>,
}

/// Why a value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// Its tag is wrong: damaged, moved, or sealed by somebody else.
    #[error("a value does not fit its seal and place")]
    Forged,
    /// It is too short or of an unknown format.
    #[error("a value has not the form of a sealed one")]
    Malformed,
    /// There is no such data key.
    #[error("a value is sealed under data key {0}, which is not there")]
    UnknownKey(u32),
}

/// Places rows, and seals and opens values.
pub(super) struct Seal {
    index: hmac::Key,
    keys: RwLock<BTreeMap<KeyId, Arc<DataKey>>>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seal(..)")
    }
}

impl Seal {
    /// A seal with the index key and no data key yet.
    pub(super) fn new(index: &[u8; DATA_KEY_LENGTH]) -> Self {
        Self { index: hmac::Key::new(hmac::HMAC_SHA256, index), keys: RwLock::default() }
    }

    /// Adds a data key.
    pub(super) fn add(&self, key: Arc<DataKey>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.id, key);
    }

    /// Forgets a data key; its memory is wiped when its last use ends.
    pub(super) fn forget(&self, id: KeyId) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&id);
    }

    /// All data keys, oldest first.
    pub(super) fn keys(&self) -> Vec<Arc<DataKey>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().cloned().collect()
    }

    /// The first octets of the places of all rows of `owner`.
    pub(super) fn prefix(&self, table: Table, owner: &[u8]) -> [u8; PLACE_PREFIX_LENGTH] {
        let mut prefix = [table.number(); PLACE_PREFIX_LENGTH];
        let mut context = hmac::Context::with_key(&self.index);
        context.update(&[table.number()]);
        context.update(owner);
        if let Some((_, hash)) = prefix.split_first_mut() {
            copy_prefix(hash, context.sign().as_ref());
        }
        prefix
    }

    /// The place of a row.
    pub(super) fn place(&self, row: &Row) -> Vec<u8> {
        self.place_in(&self.prefix(row.table, &row.owner), row)
    }

    /// The place of a row whose prefix is known.
    fn place_in(&self, prefix: &[u8; PLACE_PREFIX_LENGTH], row: &Row) -> Vec<u8> {
        let mut place = Vec::with_capacity(prefix.len() + row.sort.len().max(HASH_LENGTH));
        place.extend_from_slice(prefix);
        if row.table.hides_sort() {
            let mut context = hmac::Context::with_key(&self.index);
            context.update(&[SORT_DOMAIN]);
            context.update(prefix);
            context.update(&row.sort);
            place.extend(context.sign().as_ref().iter().take(HASH_LENGTH));
        } else {
            place.extend_from_slice(&row.sort);
        }
        place
    }

    /// Seals `value` for `row`, whose place is `place`.
    ///
    /// # Errors
    /// [`SealError::Malformed`] if something exceeds the limits of the store.
    pub(super) fn seal(
        sealing: &mut Sealing,
        row: &Row,
        place: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let hidden = if row.table.hides_sort() { 2 + row.sort.len() } else { 0 };
        let length = HEADER_LENGTH + 2 + row.owner.len() + hidden + value.len() + TAG_LEN;
        let mut out = Vec::with_capacity(length);
        out.push(FORMAT);
        out.extend_from_slice(&sealing.key.id.0.to_be_bytes());
        out.extend_from_slice(&sealing.seals.to_be_bytes());
        put_text(&mut out, &row.owner)?;
        if row.table.hides_sort() {
            put_text(&mut out, &row.sort)?;
        }
        out.extend_from_slice(value);
        let nonce = nonce(sealing.seals);
        sealing.seals += 1;
        sealing.octets += out.len() as u64;
        let text = out.get_mut(HEADER_LENGTH..).ok_or(SealError::Malformed)?;
        let data = associated(sealing.key.id, place);
        let tag = sealing
            .key
            .cipher
            .seal_in_place(&nonce, &data, text)
            .map_err(|_| SealError::Malformed)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// The data key that `sealed` names, without opening it.
    pub(super) fn key_of(sealed: &[u8]) -> Option<KeyId> {
        let ([FORMAT], rest) = sealed.split_first_chunk::<1>()? else { return None };
        let (id, _) = rest.split_first_chunk::<4>()?;
        Some(KeyId(u32::from_be_bytes(*id)))
    }

    /// Opens what lies at `place` of `table`.
    ///
    /// # Errors
    /// [`SealError`].
    pub(super) fn open(
        &self,
        table: Table,
        place: &[u8],
        sealed: &[u8],
    ) -> Result<Opened, SealError> {
        let id = Self::key_of(sealed).ok_or(SealError::Malformed)?;
        let key = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            keys.get(&id).cloned().ok_or(SealError::UnknownKey(id.0))?
        };
        let (header, rest) = sealed.split_at_checked(HEADER_LENGTH).ok_or(SealError::Malformed)?;
        let counter = header.last_chunk::<8>().ok_or(SealError::Malformed)?;
        let (text, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(SealError::Malformed)?;
        let mut text = text.to_vec();
        let nonce = nonce(u64::from_be_bytes(*counter));
        key.cipher
            .open_in_place(&nonce, &associated(id, place), &mut text, tag)
            .map_err(|_| SealError::Forged)?;
        let mut rest = &text[..];
        let owner = take_text(&mut rest)?.into();
        let sort = if table.hides_sort() {
            take_text(&mut rest)?.into()
        } else {
            place.get(PLACE_PREFIX_LENGTH..).ok_or(SealError::Malformed)?.into()
        };
        let start = text.len() - rest.len();
        text.drain(..start);
        Ok(Opened { owner, sort, value: text })
    }
}

/// The nonce of a counter: 32 zero bits, then the counter.
fn nonce(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    if let Some(end) = nonce.last_chunk_mut::<8>() {
        *end = counter.to_be_bytes();
    }
    nonce
}

/// Format, data key and place: what a value is bound to besides its own octets.
fn associated(id: KeyId, place: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(5 + place.len());
    data.push(FORMAT);
    data.extend_from_slice(&id.0.to_be_bytes());
    data.extend_from_slice(place);
    data
}

fn copy_prefix(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), SealError> {
    let length = u16::try_from(text.len()).map_err(|_| SealError::Malformed)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text);
    Ok(())
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], SealError> {
    let (length, after) = rest.split_first_chunk::<2>().ok_or(SealError::Malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, after) = after.split_at_checked(length).ok_or(SealError::Malformed)?;
    *rest = after;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::keys::software::SoftwareKeys;

    fn parts() -> (Seal, Sealing) {
        let service = SoftwareKeys::generate().unwrap();
        let seal = Seal::new(&[3; 32]);
        let key = Arc::new(DataKey::make(KeyId(7), 0, &service).unwrap());
        seal.add(key.clone());
        (seal, Sealing::new(key))
    }

    fn contains(haystack: &[u8], needle: &[u8]) -> bool {
        haystack.windows(needle.len()).any(|window| window == needle)
    }

    #[test]
    fn a_sealed_value_opens_at_its_place_and_shows_nothing() {
        let (seal, mut sealing) = parts();
        for table in Table::ALL {
            let row = Row::new(table, b"alice@a.example", b"bob@b.example");
            let place = seal.place(&row);
            let sealed = Seal::seal(&mut sealing, &row, &place, b"the value").unwrap();
            assert!(!contains(&place, b"alice") && !contains(&sealed, b"alice"));
            assert!(!contains(&sealed, b"the value"));
            assert_eq!(contains(&place, b"bob"), !table.hides_sort());
            let opened = seal.open(table, &place, &sealed).unwrap();
            assert_eq!((&*opened.owner, &*opened.sort), (&*row.owner, &*row.sort));
            assert_eq!(opened.value, b"the value");
            assert_eq!(Seal::key_of(&sealed), Some(KeyId(7)));
        }
    }

    #[test]
    fn no_damaged_or_moved_value_opens() {
        let (seal, mut sealing) = parts();
        let row = Row::numbered(Table::Queue, b"d", 1);
        let place = seal.place(&row);
        let sealed = Seal::seal(&mut sealing, &row, &place, b"value").unwrap();
        for position in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[position] ^= 1 << bit;
                assert!(seal.open(row.table, &place, &damaged).is_err(), "{position}.{bit}");
            }
            assert!(seal.open(row.table, &place, &sealed[..position]).is_err());
        }
        for moved in [
            Row::numbered(Table::Queue, b"d", 2),
            Row::numbered(Table::Queue, b"e", 1),
            Row::numbered(Table::Outbound, b"d", 1),
        ] {
            let place = seal.place(&moved);
            assert_eq!(seal.open(moved.table, &place, &sealed), Err(SealError::Forged));
        }
        seal.forget(KeyId(7));
        assert_eq!(seal.open(row.table, &place, &sealed), Err(SealError::UnknownKey(7)));
    }

    #[test]
    fn equal_values_differ_on_disk_and_every_nonce_is_new() {
        let (seal, mut sealing) = parts();
        let row = Row::new(Table::Account, b"a", b"");
        let place = seal.place(&row);
        let first = Seal::seal(&mut sealing, &row, &place, b"same").unwrap();
        let second = Seal::seal(&mut sealing, &row, &place, b"same").unwrap();
        assert_ne!(first[HEADER_LENGTH..], second[HEADER_LENGTH..]);
        assert_ne!(first[5..HEADER_LENGTH], second[5..HEADER_LENGTH]);
        assert_eq!(sealing.seals, 2);
    }

    #[test]
    fn a_key_is_spent_at_its_limit() {
        let (_, mut sealing) = parts();
        sealing.seals = limits::SEALS_PER_KEY_MAX - 1;
        assert!(!sealing.spent() && sealing.nearly_spent());
        sealing.seals += 1;
        assert!(sealing.spent());
        sealing.seals = limits::SEALS_PER_KEY_MAX / 8 * 7 - 1;
        assert!(!sealing.nearly_spent());
        sealing.octets = limits::OCTETS_PER_KEY_MAX;
        assert!(sealing.spent());
    }

    #[test]
    fn places_tell_tables_and_owners_apart_only_with_the_index_key() {
        let (seal, _) = parts();
        let other = Seal::new(&[4; 32]);
        let row = Row::numbered(Table::Queue, b"d", 1);
        assert_ne!(seal.place(&row), other.place(&row));
        let session = seal.prefix(Table::Session, b"d");
        assert_ne!(seal.prefix(Table::Queue, b"d")[1..], session[1..]);
    }
}
