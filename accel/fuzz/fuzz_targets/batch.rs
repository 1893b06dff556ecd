//! Batches of any shape against the same jobs run one by one: lengths, kinds and directions from
//! the input, so that lanes fill and empty in every way.
#![no_main]

use accel::batch::{AesKey, Direction, Job, KeyIv, run};
use libfuzzer_sys::fuzz_target;

/// Longest text: past the longest group of every kernel.
const TEXT_MAX: usize = 700;

fn job<'a>(kind: u8, key: &'a [u8; 32], iv: &'a [u8; 16], text: &'a mut [u8]) -> Job<'a> {
    let whole = text.len() / 16 * 16;
    let direction = if kind & 8 == 0 { Direction::Seal } else { Direction::Open };
    let (short, nonce) = (key.first_chunk().unwrap(), iv.first_chunk().unwrap());
    let (des, iv_8) = (key.first_chunk().unwrap(), iv.first_chunk().unwrap());
    match kind & 7 {
        0 => Job::gcm_seal(AesKey::Aes256(key), nonce, &key[..usize::from(kind) % 32], text),
        1 => Job::gcm_seal(AesKey::Aes128(short), nonce, &iv[..usize::from(kind) % 16], text),
        2 => Job::gcm_open(AesKey::Aes256(key), nonce, iv, text, iv),
        3 => Job::cbc(direction, KeyIv::Aes(AesKey::Aes256(key), iv), &mut text[..whole]),
        4 => Job::cbc(direction, KeyIv::TripleDes(des, iv_8), &mut text[..whole]),
        5 => Job::ctr(KeyIv::TripleDes(des, iv_8), text),
        6 => Job::cbc(direction, KeyIv::Blowfish(&key[..16], iv_8), &mut text[..whole]),
        _ => Job::ctr(KeyIv::Aes(AesKey::Aes128(short), iv), text),
    }
}

fuzz_target!(|shape: &[u8]| {
    let shapes: Vec<(u8, usize)> = shape
        .chunks_exact(3)
        .take(300)
        .map(|s| (s[0], usize::from(u16::from_be_bytes([s[1], s[2]])) % TEXT_MAX))
        .collect();
    let keys: Vec<[u8; 32]> = (0..shapes.len())
        .map(|i| core::array::from_fn(|j| (i * 37 + j * 11) as u8))
        .collect();
    let iv = |key: &[u8; 32]| core::array::from_fn(|j| key[j] ^ 0x5a);
    let ivs: Vec<[u8; 16]> = keys.iter().map(iv).collect();
    let mut together: Vec<Vec<u8>> = shapes.iter().map(|(kind, len)| vec![*kind; *len]).collect();
    let mut alone = together.clone();
    let mut jobs: Vec<Job<'_>> = together
        .iter_mut()
        .enumerate()
        .map(|(i, text)| job(shapes[i].0, &keys[i], &ivs[i], text))
        .collect();
    run(&mut jobs);
    let results: Vec<_> = jobs.iter().map(|job| (job.result(), job.tag())).collect();
    drop(jobs);
    for (i, text) in alone.iter_mut().enumerate() {
        let mut one = [job(shapes[i].0, &keys[i], &ivs[i], text)];
        run(&mut one);
        assert_eq!((one[0].result(), one[0].tag()), results[i]);
    }
    assert!(alone == together);
});
