//! Published vectors: NIST SP 800-38A for the modes, CAVP-style and edge cases for GCM.
//!
//! Every row runs on every backend of the machine.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use accel::cbc::{Aes128Cbc, Aes256Cbc};
use accel::ctr::{Aes128Ctr, Aes256Ctr};
use accel::gcm::{Aes128Gcm, Aes256Gcm};
use accel::{Backend, Error};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

const AES: [Backend; 3] = [Backend::Vaes256, Backend::AesNi, Backend::Soft];

/// The four blocks of SP 800-38A appendix F.
const PLAIN: &str = concat!(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
);
const KEY_128: &str = "2b7e151628aed2a6abf7158809cf4f3c";
const KEY_256: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";

#[test]
fn sp_800_38a_cbc() {
    let iv = array("000102030405060708090a0b0c0d0e0f");
    // F.2.1 and F.2.5.
    let expected_128 = unhex(concat!(
        "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
        "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
    ));
    let expected_256 = unhex(concat!(
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
    ));
    for backend in AES {
        let Ok(key) = Aes128Cbc::with_backend(&array(KEY_128), backend) else { continue };
        let mut text = unhex(PLAIN);
        assert_eq!(key.encrypt(&iv, &mut text).unwrap().as_slice(), &expected_128[48..]);
        assert_eq!(text, expected_128, "{backend}");
        key.decrypt(&iv, &mut text).unwrap();
        assert_eq!(text, unhex(PLAIN), "{backend}");
        let key = Aes256Cbc::with_backend(&array(KEY_256), backend).unwrap();
        key.encrypt(&iv, &mut text).unwrap();
        assert_eq!(text, expected_256, "{backend}");
        key.decrypt(&iv, &mut text).unwrap();
        assert_eq!(text, unhex(PLAIN), "{backend}");
    }
}

#[test]
fn sp_800_38a_ctr() {
    let counter = array("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
    // F.5.1 and F.5.5.
    let expected_128 = unhex(concat!(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    ));
    let expected_256 = unhex(concat!(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5",
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    ));
    for backend in AES {
        let Ok(key) = Aes128Ctr::with_backend(&array(KEY_128), backend) else { continue };
        let mut text = unhex(PLAIN);
        key.apply(&counter, &mut text).unwrap();
        assert_eq!(text, expected_128, "{backend}");
        let mut tail = unhex(PLAIN)[37..].to_vec();
        // Random access: the third block on its own, from its sixth octet.
        let mut padded = [vec![0; 5], tail.split_off(0)].concat();
        key.apply_at(&counter, 2, &mut padded).unwrap();
        assert_eq!(padded[5..], expected_128[37..], "{backend}");
        let key = Aes256Ctr::with_backend(&array(KEY_256), backend).unwrap();
        let mut text = unhex(PLAIN);
        key.apply(&counter, &mut text).unwrap();
        assert_eq!(text, expected_256, "{backend}");
    }
}

/// Key, nonce, associated data, plaintext, ciphertext, tag.
type GcmRow = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

/// McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test cases with
/// 96-bit nonces: 1 to 4 and 13 to 16.
const GCM: [GcmRow; 8] = [
    (
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "58e2fccefa7e3061367f1d57a4e7455a",
    ),
    (
        "00000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "0388dace60b6a392f328c2b971b2fe78",
        "ab6e47d42cec13bdf53a67b21257bddf",
    ),
    (
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "",
        concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
        ),
        concat!(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
            "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985"
        ),
        "4d5c2af327cd64a62cf35abd2ba6fab4",
    ),
    (
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
        concat!(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e",
            "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        ),
        "5bc94fbc3221a5db94fae95ae7121a47",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "",
        concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
        ),
        concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
        ),
        "b094dac5d93471bdec1a502270e3cc6c",
    ),
    (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ),
        concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        ),
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
];

#[test]
fn gcm_of_its_authors() {
    for (key, nonce, aad, plain, cipher, tag) in GCM {
        let (nonce, aad, mut text) = (array(nonce), unhex(aad), unhex(plain));
        for backend in AES {
            let sealed = if key.len() == 32 {
                let Ok(key) = Aes128Gcm::with_backend(&array(key), backend) else { continue };
                let sealed = key.seal_in_place(&nonce, &aad, &mut text).unwrap();
                assert_eq!(text, unhex(cipher), "{backend}");
                key.open_in_place(&nonce, &aad, &mut text, &sealed).unwrap();
                sealed
            } else {
                let Ok(key) = Aes256Gcm::with_backend(&array(key), backend) else { continue };
                let sealed = key.seal_in_place(&nonce, &aad, &mut text).unwrap();
                assert_eq!(text, unhex(cipher), "{backend}");
                key.open_in_place(&nonce, &aad, &mut text, &sealed).unwrap();
                sealed
            };
            assert_eq!(text, unhex(plain), "{backend}");
            assert_eq!(sealed, array::<16>(tag), "{backend}");
        }
    }
}

/// The ways in which Wycheproof alters tags: each must be refused and leave nothing readable.
#[test]
fn altered_tags_are_refused() {
    for backend in AES {
        let Ok(key) = Aes256Gcm::with_backend(&array(KEY_256), backend) else { continue };
        let mut text = unhex(PLAIN);
        let tag = key.seal_in_place(&[7; 12], b"aad", &mut text).unwrap();
        let sealed = text;
        let mut altered: Vec<[u8; 16]> = Vec::new();
        for bit in [0, 1, 7, 8, 31, 32, 33, 63, 64, 71, 77, 80, 96, 97, 103, 120, 121, 126, 127] {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            altered.push(wrong);
        }
        altered.extend([tag.map(|octet| !octet), [0; 16], [255; 16]]);
        altered.extend([tag.map(|octet| octet ^ 0x80), tag.map(|octet| octet ^ 1)]);
        for wrong in altered {
            let mut text = sealed.clone();
            let opened = key.open_in_place(&[7; 12], b"aad", &mut text, &wrong);
            assert_eq!(opened, Err(Error::Authentication), "{backend}");
            assert!(text.iter().all(|octet| *octet == 0), "{backend}");
        }
    }
}
