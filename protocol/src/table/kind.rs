//! What the value of a parameter must be, as one closed set.
//!
//! A kind checks and describes a value; typed views read it. Both go through
//! [`WireValue`], so they agree.

use core::fmt;

use crate::address::{AddressBuf, is_device};
use crate::base64;
use crate::code::Code;
use crate::identifier::{MessageId, RecordName};
use crate::limits::{
    CAPABILITIES_MAX, CHUNK_OCTETS_MAX, CHUNK_OCTETS_MIN, CHUNKS_MAX, HOP_ID_OCTETS_MAX, KEEP_MAX,
    RECEIPTS_MAX, TTL_SECONDS_MAX, VALUE_OCTETS_HYBSIG_MAX,
};
use crate::member::Accounts;
use crate::message::Part;
use crate::parameter::{WireValue, list, number, unescape};
use crate::role::Role;
use crate::signature::Algorithm;
use crate::suite::{Suite, Suites};

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An account.
    Account,
    /// Accounts, sorted, each once, with commas.
    Accounts,
    /// A name of an algorithm.
    Algorithm,
    /// Capability words with commas.
    Capabilities,
    /// The name of a device.
    Device,
    /// `0` or `1`.
    Flag,
    /// Unpadded base64 of 16 octets.
    Id,
    /// Unpadded base64 of 32 octets.
    Hash,
    /// 1 to 50 message ids with commas.
    MessageIds,
    /// Rising numbers with commas, at most 64.
    Numbers,
    /// i/n, 1 ≤ i ≤ n, n from 2 to 1,000.
    Part,
    /// `0` or the name of a record.
    Previous,
    /// A number from the first to the second.
    Range(u64, u64),
    /// A code of a reply.
    ReplyCode,
    /// A role of a record.
    Role,
    /// Unpadded base64 of a signature.
    Signature,
    /// A suite.
    Suite,
    /// Suites with commas, the most wanted first.
    Suites,
    /// Text of at least one and at most so many octets, decoded.
    Text(usize),
    /// Milliseconds since 1970 UTC.
    Time,
    /// Unpadded base64 of at least one octet, at most so many characters.
    Base64(usize),
    /// Versions with commas.
    Versions,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words with commas, each once.
    Words(&'static [&'static str]),
}

impl Kind {
    /// Any number.
    pub const NUMBER: Self = Self::Range(0, u64::MAX);
    /// A number from 1.
    pub const POSITIVE: Self = Self::Range(1, u64::MAX);
    /// The number of a chunk.
    pub const CHUNK: Self = Self::Range(0, CHUNKS_MAX);
    /// The size of a chunk.
    pub const CHUNK_SIZE: Self = Self::Range(CHUNK_OCTETS_MIN as u64, CHUNK_OCTETS_MAX as u64);
    /// Seconds to live.
    pub const LIFE: Self = Self::Range(1, TTL_SECONDS_MAX);
    /// H-ID.
    pub const HOP_ID: Self = Self::Text(HOP_ID_OCTETS_MAX);

    /// Whether `value`, as on the wire, is of this kind.
    #[must_use]
    pub fn accepts(self, value: &str) -> bool {
        match self {
            Self::Account => {
                AddressBuf::read(value).is_some_and(|address| address.as_address().is_account())
            }
            Self::Accounts => Accounts::read(value).is_some(),
            Self::Algorithm => Algorithm::read(value).is_some(),
            Self::Base64(max) => value.len() <= max && base64::is_slot(value.as_bytes()),
            Self::Capabilities => is_capabilities(value),
            Self::Device => is_device(value),
            Self::Flag => bool::read(value).is_some(),
            Self::Hash => RecordName::parse(value).is_some(),
            Self::Id => MessageId::parse(value).is_some(),
            Self::MessageIds => list::<MessageId>(value, RECEIPTS_MAX).is_some(),
            Self::Numbers => list::<u64>(value, KEEP_MAX)
                .is_some_and(|numbers| numbers.is_sorted_by(|one, next| one < next)),
            Self::Part => Part::read(value).is_some(),
            Self::Previous => value == "0" || RecordName::parse(value).is_some(),
            Self::Range(first, last) => {
                number(value).is_some_and(|number| (first..=last).contains(&number))
            }
            Self::ReplyCode => Code::parse(value.as_bytes()).is_some_and(Code::is_reply),
            Self::Role => Role::read(value).is_some(),
            Self::Signature => {
                value.len() <= VALUE_OCTETS_HYBSIG_MAX && base64::is_slot(value.as_bytes())
            }
            Self::Suite => Suite::read(value).is_some(),
            Self::Suites => Suites::read(value).is_some(),
            Self::Text(max) => unescape(value).is_ok_and(|text| (1..=max).contains(&text.len())),
            Self::Time => number(value).is_some(),
            Self::Versions => list::<u32>(value, 8).is_some(),
            Self::Word(words) => words.contains(&value),
            Self::Words(words) => is_words(value, words),
        }
    }
}

/// Whether `value` has only words of `words`, each at most once.
fn is_words(value: &str, words: &[&str]) -> bool {
    let mut seen: Vec<&str> = Vec::new();
    value.split(',').all(|word| {
        let is_good = words.contains(&word) && !seen.contains(&word);
        seen.push(word);
        is_good
    })
}

fn is_capabilities(value: &str) -> bool {
    value.split(',').count() <= CAPABILITIES_MAX
        && value.split(',').all(|word| word.starts_with(|first: char| first.is_ascii_uppercase()))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Accounts => "accounts, sorted",
            Self::Algorithm => "algorithm",
            Self::Base64(max) => return write!(f, "base64, up to {max} characters"),
            Self::Capabilities => "capability words",
            Self::Device => "device",
            Self::Flag => "0 or 1",
            Self::Hash => "base64 of 32 octets",
            Self::Id => "base64 of 16 octets",
            Self::MessageIds => "1 to 50 message ids",
            Self::Numbers => "up to 64 numbers, rising",
            Self::Part => "i/n",
            Self::Previous => "0 or base64 of 32 octets",
            Self::Range(first, u64::MAX) => return write!(f, "number from {first}"),
            Self::Range(first, last) => return write!(f, "number from {first} to {last}"),
            Self::ReplyCode => "code of a reply",
            Self::Role => "role",
            Self::Signature => "base64 of a signature",
            Self::Suite => "suite",
            Self::Suites => "suites",
            Self::Text(max) => return write!(f, "text, 1 to {max} octets"),
            Self::Time => "milliseconds since 1970 UTC",
            Self::Versions => "versions",
            Self::Word(words) => return f.write_str(&words.join(", ")),
            Self::Words(words) => return write!(f, "some of {}", words.join(", ")),
        })
    }
}
