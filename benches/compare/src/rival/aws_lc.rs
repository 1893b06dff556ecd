//! aws-lc through the crate `aws-lc-rs`: AES-GCM only.

use super::{Operation, keys};
use crate::measure::Work;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};

fn key(algorithm: &'static Algorithm, key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("key length"))
}

fn seal(key: &LessSafeKey, text: &mut [u8]) {
    let nonce = Nonce::assume_unique_for_key([1; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(b"0123456789abc"), text);
    let _ = std::hint::black_box(tag.expect("seals"));
}

pub(crate) fn work(operation: Operation, len: usize) -> Option<Work> {
    let mut text = vec![0x5au8; len];
    let algorithm = |octets| if octets == 16 { &AES_128_GCM } else { &AES_256_GCM };
    Some(match operation {
        Operation::GcmSeal(octets) => {
            let key = key(algorithm(octets), &vec![7; octets]);
            Box::new(move || seal(&key, &mut text))
        }
        Operation::GcmOpen(octets) => {
            let key = key(algorithm(octets), &vec![7; octets]);
            let nonce = Nonce::assume_unique_for_key([1; 12]);
            let mut sealed = text;
            let aad = Aad::from(b"0123456789abc");
            key.seal_in_place_append_tag(nonce, aad, &mut sealed).expect("seals");
            let mut text = sealed.clone();
            Box::new(move || {
                text.copy_from_slice(&sealed);
                let nonce = Nonce::assume_unique_for_key([1; 12]);
                key.open_in_place(nonce, Aad::from(b"0123456789abc"), &mut text).expect("opens");
            })
        }
        Operation::GcmFresh => {
            let keys = keys::<32>();
            Box::new(move || {
                for octets in &keys {
                    seal(&key(&AES_256_GCM, octets), &mut text);
                }
            })
        }
        _ => return None,
    })
}
