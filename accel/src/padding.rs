//! PKCS#7 padding: added before CBC encryption, removed in constant time after decryption.
//!
//! The invariant: [`pad`] always adds 1 to `block` octets, so that [`unpadded_len`] can always take
//! them away. Source: RFC 5652 §6.3.

use crate::Error;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater};

/// Appends 1 to `block` octets, each holding the number added, up to a multiple of `block`.
pub(crate) fn pad(text: &mut Vec<u8>, block: u8) {
    let whole = usize::from(block);
    // The remainder is below `block`, so the count is 1..=block and fits an octet.
    let count = block - u8::try_from(text.len() % whole).unwrap_or(0);
    text.resize(text.len() + usize::from(count), count);
}

/// Length without padding; looks at the whole last block whatever it holds.
///
/// # Errors
/// [`Error::Padding`] if the last octet is not 1..=`block` or the padding octets differ.
pub(crate) fn unpadded_len(text: &[u8], block: u8) -> Result<usize, Error> {
    let Some(&count) = text.last() else {
        return Err(Error::Padding);
    };
    let mut good = !count.ct_eq(&0) & !count.ct_gt(&block);
    for (distance, octet) in (0..block).zip(text.iter().rev()) {
        let inside = count.ct_gt(&distance);
        good &= Choice::conditional_select(&Choice::from(1), &octet.ct_eq(&count), inside);
    }
    if bool::from(good) && text.len() >= usize::from(count) {
        Ok(text.len() - usize::from(count))
    } else {
        Err(Error::Padding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips() {
        for block in [8u8, 16] {
            for len in 0..40 {
                let mut text = vec![7u8; len];
                pad(&mut text, block);
                assert_eq!(text.len() % usize::from(block), 0);
                assert_eq!(unpadded_len(&text, block), Ok(len));
            }
        }
    }

    #[test]
    fn bad_padding_is_refused() {
        let rows: [(&str, &[u8]); 7] = [
            ("empty", &[]),
            ("zero", &[1, 2, 3, 4, 5, 6, 7, 0]),
            ("too large", &[9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
            ("first of two differs", &[1, 2, 3, 4, 5, 6, 3, 2]),
            ("first of eight differs", &[7, 8, 8, 8, 8, 8, 8, 8]),
            ("all ones bits", &[255; 8]),
            ("longer than the text", &[3, 3]),
        ];
        for (name, text) in rows {
            assert_eq!(unpadded_len(text, 8), Err(Error::Padding), "{name}");
        }
    }
}
