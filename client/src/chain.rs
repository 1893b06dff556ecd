//! The message chain: from a generation's seed to one key for each sealed line (SPEC.md §7).
//!
//! Owns the derivations RK → EX, GEN, CK → MK and the receiving side's memory of keys not yet
//! used. The invariant: a chain only moves forward, each message key is handed out once, and what
//! lies behind cannot be computed from what is kept. A chain advances only after a line under it
//! has opened, so forged lines move nothing.

use std::collections::BTreeMap;

use aws_lc_rs::{hkdf, hmac};
use protocol::base64;
use protocol::canonical::push_lp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits;
use crate::secret::Secret32;
use crate::suite::MessageKey;

/// RK: what a generation's seed and its parent's EX make; erased once everything is derived.
pub struct RootKey(Secret32);

impl RootKey {
    /// `HKDF-Extract(salt = EX of the parent generation or zeros, ikm = GS)`.
    #[must_use]
    pub fn new(parent: Option<&Secret32>, seed: &Secret32) -> Self {
        let salt = parent.map_or([0; 32].as_slice(), |parent| parent.expose().as_slice());
        Self(mac(salt, seed.expose()))
    }

    /// EX, which the next generation mixes in.
    #[must_use]
    pub fn exporter(&self) -> Secret32 {
        self.expand(b"CIM1-EX", &[])
    }

    /// GEN as on the wire; commits to the key and to the members.
    #[must_use]
    pub fn generation(&self, sid: &str, mem: &str) -> String {
        let mut info = Vec::with_capacity(96);
        push_lp(&mut info, sid.as_bytes());
        push_lp(&mut info, mem.as_bytes());
        base64::encode(self.expand(b"CIM1-GEN", &info).expose())
    }

    /// CK₀ of the device with this full address.
    #[must_use]
    pub fn chain(&self, device: &str) -> ChainKey {
        let mut info = Vec::with_capacity(64);
        push_lp(&mut info, device.as_bytes());
        ChainKey(self.expand(b"CIM1-CHAIN", &info))
    }

    fn expand(&self, label: &[u8], info: &[u8]) -> Secret32 {
        let expanded = Secret32::filled(|octets| {
            hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, self.0.expose())
                .expand(&[label, info], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(octets))
        });
        #[expect(clippy::expect_used, reason = "HKDF-SHA-256 gives up to 8,160 octets")]
        expanded.expect("32 octets are within what HKDF gives")
    }

    #[cfg(test)]
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// CK: gives the next message key and the next CK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainKey(Secret32);

impl ChainKey {
    /// The message key of the line at which the chain stands; moves the chain on, the old CK is
    /// wiped.
    pub fn step(&mut self) -> MessageKey {
        let key = mac(self.0.expose(), &[1]);
        self.0 = mac(self.0.expose(), &[2]);
        key
    }
}

/// The sending chain of this device in one generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendingChain {
    key: ChainKey,
    /// SEQ of the next line, from 1.
    next: u64,
}

impl SendingChain {
    /// A chain at its beginning.
    #[must_use]
    pub const fn new(key: ChainKey) -> Self {
        Self { key, next: 1 }
    }

    /// SEQ and message key of the next line; the chain moves on.
    pub fn step(&mut self) -> (u64, MessageKey) {
        let sequence = self.next;
        self.next += 1;
        (sequence, self.key.step())
    }

    /// SEQ of the last line sent, 0 if none.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.next - 1
    }
}

/// Why a chain has no key for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Misbehaved: SEQ is too far ahead ([`limits::SEQUENCE_AHEAD_MAX`]).
    #[error("the sequence number is too far ahead")]
    Ahead,
    /// The line was seen before, or its key was erased: limit, age or end of the chain.
    #[error("the line was seen before, or its key was erased")]
    Used,
    /// Malformed: SEQ counts from 1.
    #[error("sequence numbers count from 1")]
    Zero,
}

/// The receiving chain of one device in one generation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceivingChain {
    /// `None` once the chain has ended.
    key: Option<ChainKey>,
    /// SEQ of the next line that was never seen, from 1.
    next: u64,
    /// Keys of lines not yet seen, by SEQ.
    skipped: BTreeMap<u64, SkippedKey>,
}

/// A message key of a line not yet seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SkippedKey {
    key: MessageKey,
    /// When it was derived, in milliseconds since 1970.
    since: u64,
}

/// A key for one line, and how the chain looks once the line has opened.
pub struct Candidate {
    key: MessageKey,
    sequence: u64,
    /// The chain behind this line and the keys passed over; `None` for a skipped key.
    advance: Option<(ChainKey, Vec<(u64, MessageKey)>)>,
}

impl Candidate {
    /// The key.
    #[must_use]
    pub const fn key(&self) -> &MessageKey {
        &self.key
    }
}

impl ReceivingChain {
    /// A chain at its beginning.
    #[must_use]
    pub const fn new(key: ChainKey) -> Self {
        Self { key: Some(key), next: 1, skipped: BTreeMap::new() }
    }

    /// The key for the line with this SEQ; the chain stays as it is until [`Self::accept`].
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn candidate(&self, sequence: u64) -> Result<Candidate, ChainError> {
        if sequence == 0 {
            return Err(ChainError::Zero);
        }
        if sequence < self.next {
            let skipped = self.skipped.get(&sequence).ok_or(ChainError::Used)?;
            return Ok(Candidate { key: skipped.key.clone(), sequence, advance: None });
        }
        if sequence - self.next > limits::SEQUENCE_AHEAD_MAX {
            return Err(ChainError::Ahead);
        }
        let mut chain = self.key.clone().ok_or(ChainError::Used)?;
        let passed = (self.next..sequence).map(|passed| (passed, chain.step())).collect();
        let key = chain.step();
        Ok(Candidate { key, sequence, advance: Some((chain, passed)) })
    }

    /// Takes note that the line of `candidate` has opened: its key is erased, and the keys of the
    /// lines passed over are kept from `now` (milliseconds since 1970) on.
    pub fn accept(&mut self, candidate: Candidate, now: u64) {
        self.skipped.remove(&candidate.sequence);
        if let Some((chain, passed)) = candidate.advance {
            self.keep(passed, now);
            self.key = Some(chain);
            self.next = candidate.sequence + 1;
        }
    }

    /// Ends the chain at `last`, the SEQ of the last line its device sent in this generation: the
    /// keys of lines up to it are kept as skipped ones, and CK is erased.
    pub fn end(&mut self, last: u64, now: u64) {
        let Some(mut chain) = self.key.take() else { return };
        let last = last.min(self.next.saturating_add(limits::SEQUENCE_AHEAD_MAX));
        let passed = (self.next..=last).map(|passed| (passed, chain.step())).collect();
        self.keep(passed, now);
        self.next = self.next.max(last.saturating_add(1));
    }

    /// Erases skipped keys older than [`limits::SKIPPED_KEY_AGE_MS_MAX`]; says whether any was.
    pub fn expire(&mut self, now: u64) -> bool {
        let before = self.skipped.len();
        self.skipped
            .retain(|_, key| now.saturating_sub(key.since) < limits::SKIPPED_KEY_AGE_MS_MAX);
        self.skipped.len() != before
    }

    /// Erases the oldest skipped keys until at most `count` are left; says how many were erased.
    pub fn shrink(&mut self, count: usize) -> usize {
        let surplus = self.skipped.len().saturating_sub(count);
        for _ in 0..surplus {
            self.skipped.pop_first();
        }
        surplus
    }

    /// The number of skipped keys.
    #[must_use]
    pub fn skipped_count(&self) -> usize {
        self.skipped.len()
    }

    /// Whether no line can open any more: the chain has ended and no skipped key is left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.key.is_none() && self.skipped.is_empty()
    }

    /// SEQ of the last line seen, 0 if none.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.next - 1
    }

    fn keep(&mut self, passed: Vec<(u64, MessageKey)>, now: u64) {
        self.skipped
            .extend(passed.into_iter().map(|(seq, key)| (seq, SkippedKey { key, since: now })));
        self.shrink(limits::SKIPPED_KEYS_MAX);
    }
}

/// HMAC-SHA-256 (RFC 2104).
fn mac(key: &[u8], text: &[u8]) -> Secret32 {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, text);
    let mut octets = Zeroizing::new([0; 32]);
    octets.copy_from_slice(tag.as_ref());
    Secret32::take(&mut octets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_469_246_123;

    fn pair() -> (SendingChain, ReceivingChain) {
        let root = RootKey::new(None, &Secret32::from_slice(&[7; 32]).unwrap());
        let chain = root.chain("alice@a.example/d1");
        (SendingChain::new(chain.clone()), ReceivingChain::new(chain))
    }

    fn keys(count: u64) -> (Vec<MessageKey>, ReceivingChain) {
        let (mut sending, receiving) = pair();
        ((0..count).map(|_| sending.step().1).collect(), receiving)
    }

    #[test]
    fn each_line_once_in_any_order() {
        let (keys, mut chain) = keys(6);
        for sequence in [1u64, 4, 3, 6, 2, 5] {
            let candidate = chain.candidate(sequence).unwrap();
            assert_eq!(candidate.key(), &keys[sequence as usize - 1], "{sequence}");
            chain.accept(candidate, NOW);
            assert_eq!(chain.candidate(sequence).err(), Some(ChainError::Used), "{sequence}");
        }
        assert_eq!((chain.last(), chain.skipped_count()), (6, 0));
    }

    #[test]
    fn a_line_that_does_not_open_moves_nothing() {
        let (keys, mut chain) = keys(2);
        drop(chain.candidate(900).unwrap());
        assert_eq!((chain.last(), chain.skipped_count()), (0, 0));
        let candidate = chain.candidate(1).unwrap();
        assert_eq!(candidate.key(), &keys[0]);
        chain.accept(candidate, NOW);
    }

    #[test]
    fn ahead_at_n_and_one_more() {
        let (_, chain) = pair();
        assert!(chain.candidate(1 + limits::SEQUENCE_AHEAD_MAX).is_ok());
        let over = chain.candidate(2 + limits::SEQUENCE_AHEAD_MAX);
        assert_eq!(over.err(), Some(ChainError::Ahead));
        assert_eq!(chain.candidate(0).err(), Some(ChainError::Zero));
        assert_eq!(chain.candidate(u64::MAX).err(), Some(ChainError::Ahead));
    }

    #[test]
    fn skipped_keys_at_n_and_one_more() {
        let (_, mut chain) = pair();
        let first = chain.candidate(1 + limits::SEQUENCE_AHEAD_MAX).unwrap();
        chain.accept(first, NOW);
        assert_eq!(chain.skipped_count(), limits::SKIPPED_KEYS_MAX);
        assert!(chain.candidate(1).is_ok());
        let second = chain.candidate(3 + limits::SEQUENCE_AHEAD_MAX).unwrap();
        chain.accept(second, NOW);
        assert_eq!(chain.skipped_count(), limits::SKIPPED_KEYS_MAX);
        assert_eq!(chain.candidate(1).err(), Some(ChainError::Used), "the oldest went");
        assert!(chain.candidate(2).is_ok());
    }

    #[test]
    fn skipped_keys_age() {
        let (_, mut chain) = pair();
        let candidate = chain.candidate(3).unwrap();
        chain.accept(candidate, NOW);
        assert!(!chain.expire(NOW + limits::SKIPPED_KEY_AGE_MS_MAX - 1));
        assert_eq!(chain.skipped_count(), 2);
        assert!(!chain.expire(NOW - 1), "a clock set back erases nothing");
        assert!(chain.expire(NOW + limits::SKIPPED_KEY_AGE_MS_MAX));
        assert_eq!(chain.skipped_count(), 0);
    }

    #[test]
    fn an_ended_chain_keeps_only_what_was_announced() {
        let (keys, mut chain) = keys(6);
        let candidate = chain.candidate(2).unwrap();
        chain.accept(candidate, NOW);
        chain.end(4, NOW);
        assert!(!chain.is_spent());
        assert_eq!(chain.candidate(5).err(), Some(ChainError::Used));
        for sequence in [4u64, 1, 3] {
            let candidate = chain.candidate(sequence).unwrap();
            assert_eq!(candidate.key(), &keys[sequence as usize - 1]);
            chain.accept(candidate, NOW);
        }
        assert!(chain.is_spent());
    }

    #[test]
    fn an_ending_that_lies_stays_within_the_limit() {
        let (_, mut chain) = pair();
        chain.end(u64::MAX, NOW);
        assert_eq!(chain.skipped_count(), limits::SKIPPED_KEYS_MAX);
    }
}
