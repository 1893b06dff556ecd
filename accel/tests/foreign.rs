//! OpenSSL's command line as a foreign implementation: what one encrypts, the other gives the same.
//!
//! Without `openssl` in the path, or without its legacy provider for Blowfish, the test says so and
//! skips what is missing.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use accel::cbc::{Aes128Cbc, Aes256Cbc, BlowfishCbc, TripleDesCbc};
use accel::ctr::{Aes128Ctr, Aes256Ctr};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Lengths around blocks, vectors and groups of lanes.
const LENGTHS: [usize; 9] = [0, 1, 15, 16, 17, 200, 255, 2048, 4801];

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The output of `openssl enc`, or nothing if this OpenSSL does not know the cipher.
fn openssl(cipher: &str, key: &[u8], iv: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(["enc", "-e", cipher, "-K", &hex(key), "-iv", &hex(iv)])
        .args(["-provider", "legacy", "-provider", "default"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // A child that refused the cipher has closed the pipe: that is an answer, not a failure.
    let _ = child.stdin.take().unwrap().write_all(text);
    let output = child.wait_with_output().ok()?;
    output.status.success().then_some(output.stdout)
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// Compares with `ours` at every length; says so if there is nothing to compare with.
fn compare(cipher: &str, key: &[u8], iv: &[u8], ours: impl Fn(&mut Vec<u8>)) {
    for len in LENGTHS {
        let Some(theirs) = openssl(cipher, key, iv, &text(len)) else {
            eprintln!("SKIPPED: no openssl with {cipher}");
            return;
        };
        let mut mine = text(len);
        ours(&mut mine);
        assert!(mine == theirs, "{cipher} {len}");
    }
}

#[test]
fn openssl_gives_the_same_octets() {
    let key: [u8; 32] = core::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0xa5);
    let iv: [u8; 16] = core::array::from_fn(|i| i as u8 + 1);
    let (key_16, key_24) = (key.first_chunk().unwrap(), key.first_chunk().unwrap());
    let iv_8: &[u8; 8] = iv.first_chunk().unwrap();
    compare("-aes-128-ctr", key_16, &iv, |text| Aes128Ctr::new(key_16).apply(&iv, text).unwrap());
    compare("-aes-256-ctr", &key, &iv, |text| Aes256Ctr::new(&key).apply(&iv, text).unwrap());
    compare("-aes-128-cbc", key_16, &iv, |text| {
        Aes128Cbc::new(key_16).encrypt_padded(&iv, text).unwrap();
    });
    compare("-aes-256-cbc", &key, &iv, |text| {
        Aes256Cbc::new(&key).encrypt_padded(&iv, text).unwrap();
    });
    compare("-des-ede3-cbc", key_24, iv_8, |text| {
        let cipher = TripleDesCbc::new(key_24);
        cipher.encrypt_padded(iv_8, text).unwrap();
        // The way back runs bitsliced, the way there does not.
        let mut back = text.clone();
        cipher.decrypt_padded(iv_8, &mut back).unwrap();
        let mut again = back;
        cipher.encrypt_padded(iv_8, &mut again).unwrap();
        assert!(again == *text);
    });
    compare("-bf-cbc", key_16, iv_8, |text| {
        BlowfishCbc::new(key_16).unwrap().encrypt_padded(iv_8, text).unwrap();
    });
}
