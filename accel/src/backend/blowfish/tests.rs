//! The battery of Blowfish: every engine against the software engine and published vectors.

use super::*;
use crate::testing::{Octets, unhex};

#[test]
fn published_vectors_hold() {
    // Eric Young's set, as published with the cipher: key, plaintext, ciphertext.
    let rows = [
        ("0000000000000000", "0000000000000000", "4ef997456198dd78"),
        ("ffffffffffffffff", "ffffffffffffffff", "51866fd5b85ecb8a"),
        ("3000000000000000", "1000000000000001", "7d856f9a613063f2"),
        ("0123456789abcdef", "1111111111111111", "61f9c3802281b096"),
        ("fedcba9876543210", "0123456789abcdef", "0aceab0fc6a0a28d"),
        ("7ca110454a1a6e57", "01a1d6d039776742", "59c68245eb05282b"),
    ];
    for choice in Choice::all(&Mask::default()) {
        for (key, plain, expected) in rows {
            let cipher = Blowfish::new(choice, &unhex(key)).unwrap();
            let mut text = [unhex(plain).try_into().unwrap()];
            cipher.cbc_encrypt(&mut [0; 8], &mut text);
            assert_eq!(text[0].as_slice(), unhex(expected), "{} {key}", choice.backend());
        }
    }
}

#[test]
fn modes_agree_at_every_count_and_key_length() {
    let mut octets = Octets(31);
    for key_len in 4..=56 {
        let (key, iv) = (octets.vec(key_len), octets.array::<8>());
        let soft = Blowfish::new(Choice::Soft, &key).unwrap();
        let hard = Blowfish::new(Choice::Portable, &key).unwrap();
        for count in [0, 1, 2, 5, 6, 7, 11, 12, 13, 17, 18, 40] {
            let plain: Vec<[u8; 8]> = (0..count).map(|_| octets.array()).collect();
            let (mut theirs, mut ours) = (plain.clone(), plain.clone());
            let (mut their_iv, mut our_iv) = (iv, iv);
            soft.cbc_encrypt(&mut their_iv, &mut theirs);
            hard.cbc_encrypt(&mut our_iv, &mut ours);
            assert!((our_iv, &ours) == (their_iv, &theirs), "encrypt {key_len} {count}");
            let (mut their_iv, mut our_iv) = (iv, iv);
            soft.cbc_decrypt(&mut their_iv, &mut theirs);
            hard.cbc_decrypt(&mut our_iv, &mut ours);
            assert!((our_iv, &ours) == (their_iv, &theirs), "decrypt {key_len} {count}");
            let mut ours = octets.vec(count * 8 + key_len % 8 + 1);
            let mut theirs = ours.clone();
            soft.ctr(u64::from_be_bytes(iv) >> 1, &mut theirs[1..]);
            hard.ctr(u64::from_be_bytes(iv) >> 1, &mut ours[1..]);
            assert!(ours == theirs, "ctr {key_len} {count}");
        }
    }
}

#[test]
fn key_lengths_are_checked() {
    for choice in Choice::all(&Mask::default()) {
        for len in [0, 1, 3, 57, 64] {
            assert!(Blowfish::new(choice, &vec![1; len]).is_err(), "{len}");
        }
        assert!(Blowfish::new(choice, &[1; 4]).is_ok());
        assert!(Blowfish::new(choice, &[1; 56]).is_ok());
    }
}
