//! Known-answer self-tests: each backend must reproduce these octets before its first use.
//!
//! Owns one function per cipher family. The texts are long enough to reach the bulk kernels: they
//! are compared by a digest-like fold of the whole output, computed once with RustCrypto and
//! checked by the tests of this file. The invariant: a failed self-test makes a backend
//! unavailable, never a panic.

use crate::backend::{aes, blowfish, des};

/// Text of every self-test: the octets 0, 1, 2, ... so that no two blocks are equal.
fn text() -> [u8; TEXT_LEN] {
    let mut text = [0; TEXT_LEN];
    for (i, octet) in (0u32..).zip(text.iter_mut()) {
        *octet = (i ^ (i >> 8)) as u8;
    }
    text
}

/// Octets: a group of the widest kernel (256 lanes of 8 octets) and an odd tail.
const TEXT_LEN: usize = 2093;

/// The FNV-1a hash of `octets`: enough to see a fault, no cryptography.
fn fold(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// AES-GCM with both key sizes, and one of each block mode.
pub(super) fn aes(choice: aes::Choice) -> bool {
    let answers = aes_answers(choice);
    answers == AES
}

fn aes_answers(choice: aes::Choice) -> [u64; 5] {
    let (mut a, mut b, mut c, mut d) = (text(), text(), text(), text());
    let gcm_128 = aes::Gcm::new_128(choice, &[0x5a; 16]);
    let gcm_256 = aes::Gcm::new_256(choice, &[0xa5; 32]);
    let tag_128 = gcm_128.seal(&[1; 12], b"self-test", &mut a);
    let tag_256 = gcm_256.seal(&[2; 12], b"self-test", &mut b);
    let opens = gcm_256.open(&[2; 12], b"self-test", &mut b, &tag_256).is_ok() && b == text();
    let cipher = aes::Aes::new_256(choice, &[0xc3; 32]);
    cipher.ctr(u128::from(u64::MAX), &mut c);
    let (blocks, _) = d.as_chunks_mut();
    cipher.cbc_encrypt(&mut [3; 16], blocks);
    let encrypted = fold(&d);
    let (blocks, _) = d.as_chunks_mut();
    cipher.cbc_decrypt(&mut [3; 16], blocks);
    let returns = opens && d == text();
    [fold(&a) ^ fold(&tag_128), fold(&tag_256), fold(&c), encrypted, u64::from(returns)]
}

/// 3DES in both modes.
pub(super) fn triple_des(choice: des::Choice) -> bool {
    triple_des_answers(choice) == TRIPLE_DES
}

fn triple_des_answers(choice: des::Choice) -> [u64; 3] {
    let key = core::array::from_fn(|i| (i as u8).wrapping_mul(0x3b) ^ 0x5c);
    let cipher = des::TripleDes::new(choice, &key);
    let (mut a, mut b) = (text(), text());
    cipher.ctr(7, &mut a);
    let some = b.get_mut(..256).map(|octets| octets.as_chunks_mut().0).unwrap_or_default();
    cipher.cbc_encrypt(&mut [3; 8], some);
    let encrypted = fold(&b);
    let (blocks, _) = b.as_chunks_mut();
    cipher.cbc_decrypt(&mut [3; 8], blocks);
    [fold(&a), encrypted, fold(&b)]
}

/// Blowfish in both modes.
pub(super) fn blowfish(choice: blowfish::Choice) -> bool {
    blowfish_answers(choice) == BLOWFISH
}

fn blowfish_answers(choice: blowfish::Choice) -> [u64; 3] {
    let Ok(cipher) = blowfish::Blowfish::new(choice, b"sixteen octets..") else { return [0; 3] };
    let (mut a, mut b) = (text(), text());
    cipher.ctr(7, &mut a);
    let some = b.get_mut(..256).map(|octets| octets.as_chunks_mut().0).unwrap_or_default();
    cipher.cbc_encrypt(&mut [3; 8], some);
    let encrypted = fold(&b);
    let (blocks, _) = b.as_chunks_mut();
    cipher.cbc_decrypt(&mut [3; 8], blocks);
    [fold(&a), encrypted, fold(&b)]
}

const AES: [u64; 5] =
    [0x738f_0d6d_99e7_aa9a, 0x2ce2_eb37_8389_813b, 0x01c4_9f1f_7572_15ea, 0x6563_eb83_9721_3b7c, 1];
const TRIPLE_DES: [u64; 3] = [0x1c9a_8b2d_ad9e_f8f5, 0xe2a3_45e3_971b_3ba9, 0xa979_b9c6_3129_f558];
const BLOWFISH: [u64; 3] = [0x04f2_3ad7_f5b4_c514, 0x26b9_0fa6_475e_39f0, 0xd4f5_89ac_2ca2_d5c8];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_those_of_the_reference() {
        let answers = (
            aes_answers(aes::Choice::Soft),
            triple_des_answers(des::Choice::Soft),
            blowfish_answers(blowfish::Choice::Soft),
        );
        assert_eq!(answers, (AES, TRIPLE_DES, BLOWFISH), "{answers:#x?}");
    }
}
