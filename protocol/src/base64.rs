//! The alphabet of bodies and signatures: MIME base64 in one run, never padded (SPEC.md §2).
//!
//! Decoding refuses padding and non-zero spare bits, so that octets have one spelling.

use ::base64::Engine as _;
use ::base64::alphabet::STANDARD;
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::error::Malformed;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// The unpadded base64 of `octets`.
#[must_use]
pub fn encode(octets: &[u8]) -> String {
    ENGINE.encode(octets)
}

/// Appends the unpadded base64 of `octets` to `text`.
pub fn encode_into(octets: &[u8], text: &mut String) {
    ENGINE.encode_string(octets, text);
}

/// Writes the unpadded base64 of `octets` to `text`, which has exactly the length it needs.
pub(crate) fn encode_array(octets: &[u8], text: &mut [u8]) {
    // The callers' lengths are constants that fit; see `identifier`.
    let written = ENGINE.encode_slice(octets, text);
    debug_assert!(written.is_ok());
}

/// The octets that `text` stands for.
///
/// # Errors
/// [`Malformed::Slot`] for anything but unpadded base64 with zero spare bits.
pub fn decode(text: &str) -> Result<Vec<u8>, Malformed> {
    ENGINE.decode(text).map_err(|_| Malformed::Slot)
}

/// Decodes a value of exactly `N` octets, such as an identifier or a hash.
///
/// # Errors
/// [`Malformed::Slot`] for anything but `N` octets in unpadded base64.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], Malformed> {
    decode(text)?.try_into().map_err(|_| Malformed::Slot)
}

/// Whether `text` is a slot: one or more characters of the alphabet with zero spare bits.
pub(crate) fn is_slot(text: &[u8]) -> bool {
    let Some(&last) = text.last() else {
        return false;
    };
    let spare_bits = match text.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b11,
        _ => return false,
    };
    has_only_alphabet(text) && sextet(last).is_some_and(|bits| bits & spare_bits == 0)
}

/// Counts strangers in octets instead of stopping at the first: the compiler makes comparisons
/// of 16 octets of this, a third of the instructions, and most slots are good.
fn has_only_alphabet(text: &[u8]) -> bool {
    text.chunks(COUNTED_OCTETS).all(|chunk| {
        chunk
            .iter()
            .fold(0u8, |strangers, &octet| strangers.wrapping_add(u8::from(!is_in_alphabet(octet))))
            == 0
    })
}

/// So few that their count cannot wrap to zero, and a multiple of what is compared at once.
const COUNTED_OCTETS: usize = 192;

const fn is_in_alphabet(octet: u8) -> bool {
    // Without branches, for the same reason.
    (octet.wrapping_sub(b'A') < 26)
        | (octet.wrapping_sub(b'a') < 26)
        | (octet.wrapping_sub(b'0') < 10)
        | (octet == b'+')
        | (octet == b'/')
}

const fn sextet(octet: u8) -> Option<u8> {
    match octet {
        b'A'..=b'Z' => Some(octet - b'A'),
        b'a'..=b'z' => Some(octet - b'a' + 26),
        b'0'..=b'9' => Some(octet - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_slot_agrees_with_decode() {
        for text in ["A", "AA", "AB", "AAA", "AAB", "AAE", "AAAA", "AA==", "A A", "", "+/8", "-_"] {
            let decoded = !text.is_empty() && decode(text).is_ok();
            assert_eq!(is_slot(text.as_bytes()), decoded, "{text:?}");
        }
    }

    #[test]
    fn the_alphabet_is_one() {
        for octet in 0..=255 {
            assert_eq!(is_in_alphabet(octet), sextet(octet).is_some(), "{octet}");
        }
    }

    #[test]
    fn one_spelling_each() {
        for length in 0..=64u8 {
            let octets: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37) ^ 0xA5).collect();
            assert_eq!(decode(&encode(&octets)), Ok(octets));
        }
    }
}
