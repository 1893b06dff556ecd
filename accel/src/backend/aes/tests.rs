//! The battery of AES: every engine of this machine against the software engine.

use super::*;
use crate::testing::Octets;

/// Every length up to here: three groups of the widest kernel and all tails.
const LEN_MAX: usize = 3 * 256 + 40;

fn rivals() -> Vec<Choice> {
    let all = Choice::all(&Mask::default());
    all.into_iter().filter(|choice| choice.backend() != Backend::Soft).collect()
}

/// Seals and opens with both key sizes; `offset` makes the buffer unaligned.
fn check_gcm(choice: Choice, octets: &mut Octets, aad_len: usize, len: usize, offset: usize) {
    let (key, nonce) = (octets.array::<32>(), octets.array::<12>());
    let half: [u8; 16] = *key.first_chunk().unwrap();
    let (aad, plain) = (octets.vec(aad_len), octets.vec(offset + len));
    let pairs = [
        (Gcm::new_128(Choice::Soft, &half), Gcm::new_128(choice, &half)),
        (Gcm::new_256(Choice::Soft, &key), Gcm::new_256(choice, &key)),
    ];
    for (soft, hard) in pairs {
        let name = format!("{} aad {aad_len} text {len}+{offset}", choice.backend());
        let (mut theirs, mut ours) = (plain.clone(), plain.clone());
        let expected = soft.seal(&nonce, &aad, &mut theirs[offset..]);
        let tag = hard.seal(&nonce, &aad, &mut ours[offset..]);
        assert!(ours == theirs, "{name}");
        assert_eq!(tag, expected, "{name}");
        assert_eq!(hard.open(&nonce, &aad, &mut ours[offset..], &tag), Ok(()), "{name}");
        assert!(ours == plain, "{name}");
        let mut wrong = tag;
        wrong[len % 16] ^= 1 << (len % 8);
        let opened = hard.open(&nonce, &aad, &mut theirs[offset..], &wrong);
        assert_eq!(opened, Err(Error::Authentication), "{name}");
    }
}

#[test]
fn gcm_agrees_at_every_length() {
    let mut octets = Octets(11);
    for choice in rivals() {
        for len in 0..LEN_MAX {
            check_gcm(choice, &mut octets, len % 23, len, len % 17);
        }
        for aad_len in 0..LEN_MAX {
            check_gcm(choice, &mut octets, aad_len, aad_len % 71, 1);
        }
        for len in [4096, 16_384, 16_385, 65_535, 1 << 20] {
            check_gcm(choice, &mut octets, 13, len, 3);
        }
    }
}

#[test]
fn counter_mode_agrees_at_every_length() {
    let mut octets = Octets(12);
    let edge = u128::from(u64::MAX);
    for choice in rivals() {
        for len in 0..LEN_MAX {
            let key = octets.array::<32>();
            let half: [u8; 16] = *key.first_chunk().unwrap();
            let plain = octets.vec(len + 1);
            let random = u128::from_be_bytes(octets.array());
            for counter in [0, 1, edge - (len as u128) / 32, edge, random >> 1] {
                let pairs = [
                    (Aes::new_128(Choice::Soft, &half), Aes::new_128(choice, &half)),
                    (Aes::new_256(Choice::Soft, &key), Aes::new_256(choice, &key)),
                ];
                for (soft, hard) in pairs {
                    let (mut theirs, mut ours) = (plain.clone(), plain.clone());
                    soft.ctr(counter, &mut theirs[1..]);
                    hard.ctr(counter, &mut ours[1..]);
                    assert!(ours == theirs, "{} {len} {counter:x}", choice.backend());
                }
            }
        }
    }
}

#[test]
fn cbc_agrees_at_every_length() {
    let mut octets = Octets(13);
    for choice in rivals() {
        for count in 0..LEN_MAX / 16 {
            let (key, iv) = (octets.array::<32>(), octets.array::<16>());
            let half: [u8; 16] = *key.first_chunk().unwrap();
            let plain: Vec<[u8; 16]> = (0..count).map(|_| octets.array()).collect();
            let pairs = [
                (Aes::new_128(Choice::Soft, &half), Aes::new_128(choice, &half)),
                (Aes::new_256(Choice::Soft, &key), Aes::new_256(choice, &key)),
            ];
            for (soft, hard) in pairs {
                let (mut theirs, mut ours) = (plain.clone(), plain.clone());
                let (mut their_iv, mut our_iv) = (iv, iv);
                soft.cbc_encrypt(&mut their_iv, &mut theirs);
                hard.cbc_encrypt(&mut our_iv, &mut ours);
                assert_eq!((our_iv, &ours), (their_iv, &theirs), "{} {count}", choice.backend());
                let (mut their_iv, mut our_iv) = (iv, iv);
                soft.cbc_decrypt(&mut their_iv, &mut theirs);
                hard.cbc_decrypt(&mut our_iv, &mut ours);
                assert_eq!((our_iv, &ours), (their_iv, &theirs), "{} {count}", choice.backend());
                assert!(ours == plain);
            }
        }
    }
}
