//! The battery of 3DES: every engine of this machine against the software engine.

use super::*;
use crate::testing::{Octets, unhex};

fn rivals() -> Vec<Choice> {
    let all = Choice::all(&Mask::default());
    all.into_iter().filter(|choice| choice.backend() != Backend::Soft).collect()
}

#[test]
fn published_vectors_hold() {
    // NIST SP 800-67 rev. 1 appendix B.1: "The qufck brown fox jump" (the document's spelling).
    let key: [u8; 24] =
        unhex("0123456789abcdef23456789abcdef01456789abcdef0123").try_into().unwrap();
    let plain = *b"The qufck brown fox jump";
    let expected = unhex("a826fd8ce53b855fcce21c8112256fe668d5c05dd9b6b900");
    for choice in Choice::all(&Mask::default()) {
        let cipher = TripleDes::new(choice, &key);
        for (block, expected) in plain.as_chunks::<8>().0.iter().zip(expected.chunks(8)) {
            // One block from a zero IV is the block cipher itself.
            let mut text = [*block];
            cipher.cbc_encrypt(&mut [0; 8], &mut text);
            assert_eq!(text[0].as_slice(), expected, "{}", choice.backend());
        }
    }
}

#[test]
fn modes_agree_at_every_count() {
    let mut octets = Octets(21);
    for choice in rivals() {
        for count in (0..70).chain([127, 128, 129, 255, 256, 257, 271, 300, 512, 530]) {
            let (key, iv) = (octets.array::<24>(), octets.array::<8>());
            let plain: Vec<[u8; 8]> = (0..count).map(|_| octets.array()).collect();
            let (soft, hard) = (TripleDes::new(Choice::Soft, &key), TripleDes::new(choice, &key));
            let name = format!("{} {count}", choice.backend());
            let (mut theirs, mut ours) = (plain.clone(), plain.clone());
            let (mut their_iv, mut our_iv) = (iv, iv);
            soft.cbc_encrypt(&mut their_iv, &mut theirs);
            hard.cbc_encrypt(&mut our_iv, &mut ours);
            assert!((our_iv, &ours) == (their_iv, &theirs), "encrypt {name}");
            let (mut their_iv, mut our_iv) = (iv, iv);
            soft.cbc_decrypt(&mut their_iv, &mut theirs);
            hard.cbc_decrypt(&mut our_iv, &mut ours);
            assert!((our_iv, &ours) == (their_iv, &theirs), "decrypt {name}");
            let mut ours = octets.vec(count * 8 + count % 8 + 1);
            let mut theirs = ours.clone();
            soft.ctr(u64::from_be_bytes(iv) >> 1, &mut theirs[1..]);
            hard.ctr(u64::from_be_bytes(iv) >> 1, &mut ours[1..]);
            assert!(ours == theirs, "ctr {name}");
        }
    }
}
