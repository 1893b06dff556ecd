//! Shapes of ECDSA signatures and points: low `s`, DER, uncompressed points.
//!
//! Tokens return `r ‖ s` with any `s`; `PROTOCOL.md` §4 wants `s ≤ n/2`. All values here are
//! public, so nothing needs constant time. *Source:* SEC 1 v2 §2.3, §4.1; RFC 3279 §2.2.3.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};

use crate::error::Error;

/// The order of P-256.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Half the order of P-256, rounded down: the largest low `s`.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// Brings a P-256 signature `r ‖ s` into the form with `s ≤ n/2`.
///
/// # Errors
/// [`Error::WrongAnswer`] if it has not 64 octets, or `r` or `s` is zero or not below the order.
pub fn normalise(signature: &[u8]) -> Result<[u8; 64], Error> {
    let wrong = || Error::WrongAnswer { what: "an ECDSA signature out of range".into() };
    let mut normal = <[u8; 64]>::try_from(signature).map_err(|_| wrong())?;
    let (r, s) = normal.split_at_mut(32);
    let in_range = |x: &[u8]| x.iter().any(|&byte| byte != 0) && *x < ORDER[..];
    if !in_range(r) || !in_range(s) {
        return Err(wrong());
    }
    if *s > HALF_ORDER[..] {
        let mut borrow = 0_u16;
        for (digit, order) in s.iter_mut().rev().zip(ORDER.iter().rev()) {
            let difference = 0x100 + u16::from(*order) - u16::from(*digit) - borrow;
            borrow = 1 - (difference >> 8);
            *digit = (difference & 0xff) as u8;
        }
    }
    Ok(normal)
}

/// True for `r ‖ s` in range with `s ≤ n/2`.
pub fn is_low(signature: &[u8]) -> bool {
    normalise(signature).is_ok_and(|normal| normal == signature)
}

/// Encodes `r ‖ s` (64 octets) as an ASN.1 `ECDSA-Sig-Value`, as TLS and X.509 want it.
pub fn to_der(signature: &[u8; 64]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut body = Vec::with_capacity(70);
    for number in [r, s] {
        let first = number.iter().position(|&byte| byte != 0).unwrap_or(31);
        let digits = number.get(first..).unwrap_or_default();
        let pad = digits.first().is_some_and(|byte| byte & 0x80 != 0);
        // At most 33 octets, so every length fits its one octet.
        body.extend([0x02, (digits.len() + usize::from(pad)) as u8]);
        if pad {
            body.push(0);
        }
        body.extend(digits);
    }
    let mut der = vec![0x30, body.len() as u8];
    der.extend(body);
    der
}

/// Checks that `point` is 65 octets, uncompressed, and on P-256.
///
/// # Errors
/// [`Error::Malformed`] otherwise; no token ever sees such a point.
pub fn check_point(point: &[u8]) -> Result<(), Error> {
    let malformed = Error::malformed("the P-256 key is not an uncompressed point on the curve");
    if point.len() != 65 || point.first() != Some(&4) {
        return Err(malformed);
    }
    match ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point) {
        Ok(_) => Ok(()),
        Err(_) => Err(malformed),
    }
}

/// Whether a P-256 signature holds, in software: checks what the token gave.
pub(crate) fn holds(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .is_ok_and(|key| key.verify_sig(message, signature).is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subtract_from_order(s: &[u8; 32]) -> [u8; 32] {
        let mut signature = [1_u8; 64];
        signature[32..].copy_from_slice(s);
        normalise(&signature).unwrap()[32..].try_into().unwrap()
    }

    #[test]
    fn half_the_order_is_low_and_one_more_is_not() {
        assert_eq!(subtract_from_order(&HALF_ORDER), HALF_ORDER);
        let mut above = HALF_ORDER;
        above[31] += 1;
        assert_eq!(subtract_from_order(&above), HALF_ORDER);
        let mut last = ORDER;
        last[31] -= 1;
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(subtract_from_order(&last), one);
    }

    #[test]
    fn out_of_range_is_a_wrong_answer() {
        let mut with_order = [1_u8; 64];
        with_order[32..].copy_from_slice(&ORDER);
        for bad in [&[0; 64][..], &[1; 63], &[1; 65], &[], &[0xff; 64], &with_order] {
            assert!(matches!(normalise(bad), Err(Error::WrongAnswer { .. })));
            assert!(!is_low(bad));
        }
    }

    #[test]
    fn points_off_the_curve_are_refused() {
        let mut point = [0_u8; 65];
        for form in [0, 2, 3, 4, 5, 6, 7] {
            point[0] = form;
            assert!(check_point(&point).is_err(), "{form}");
        }
        assert!(check_point(&[]).is_err());
        assert!(check_point(&[4; 65]).is_err());
        assert!(check_point(&[2; 33]).is_err());
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent_and_low(bytes in prop::array::uniform32(any::<u8>())) {
            let mut signature = [7_u8; 64];
            signature[32..].copy_from_slice(&bytes);
            if let Ok(normal) = normalise(&signature) {
                prop_assert!(is_low(&normal));
                prop_assert_eq!(normalise(&normal).unwrap(), normal);
            }
        }

        #[test]
        fn der_is_minimal(
            mut bytes in prop::collection::vec(any::<u8>(), 64),
            zeros in 0..32_usize,
        ) {
            bytes[..zeros].fill(0);
            let der = to_der(&bytes.try_into().unwrap());
            prop_assert_eq!(usize::from(der[1]), der.len() - 2);
            let length = usize::from(der[3]);
            prop_assert!(length >= 1 && der[4] & 0x80 == 0);
            prop_assert!(length == 1 || der[4] != 0 || der[5] & 0x80 != 0);
        }
    }
}
