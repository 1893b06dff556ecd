//! Batches against the same work done one message at a time.

use super::*;
use crate::cbc::{Aes256Cbc, BlowfishCbc, TripleDesCbc};
use crate::ctr::{Aes128Ctr, BlowfishCtr, TripleDesCtr};
use crate::gcm::{Aes128Gcm, Aes256Gcm};
use crate::testing::Octets;

#[test]
fn a_wrong_tag_fails_its_own_job_only() {
    let mut octets = Octets(1);
    let keys: Vec<[u8; 32]> = (0..40).map(|_| octets.array()).collect();
    let nonces: Vec<[u8; 12]> = (0..40).map(|_| octets.array()).collect();
    let plain: Vec<Vec<u8>> = (0..40).map(|i| octets.vec(i * 13)).collect();
    let mut texts = plain.clone();
    let tags: Vec<[u8; 16]> = (0..40)
        .map(|i| Aes256Gcm::new(&keys[i]).seal_in_place(&nonces[i], b"x", &mut texts[i]).unwrap())
        .collect();
    let mut wrong = tags.clone();
    wrong[7][0] ^= 1;
    wrong[0][15] ^= 128;
    let mut jobs: Vec<Job<'_>> = texts
        .iter_mut()
        .enumerate()
        .map(|(i, text)| Job::gcm_open(AesKey::Aes256(&keys[i]), &nonces[i], b"x", text, &wrong[i]))
        .collect();
    assert_eq!(jobs[3].result(), Err(Error::NotRun));
    run(&mut jobs);
    let results: Vec<_> = jobs.iter().map(Job::result).collect();
    drop(jobs);
    for i in 0..40 {
        if i == 7 || i == 0 {
            assert_eq!(results[i], Err(Error::Authentication));
            assert!(texts[i].iter().all(|octet| *octet == 0));
        } else {
            assert_eq!(results[i], Ok(()));
            assert_eq!(texts[i], plain[i]);
        }
    }
}

/// One message of a random kind, done alone; the batch must give the same octets.
struct Case {
    kind: usize,
    key: Vec<u8>,
    iv: [u8; 16],
    aad: Vec<u8>,
    text: Vec<u8>,
    expected: Vec<u8>,
    tag: [u8; 16],
}

impl Case {
    fn new(octets: &mut Octets, kind: usize, len: usize) -> Self {
        let whole = len / 16 * 16;
        let len = if matches!(kind, 3..=6) { whole } else { len };
        let key_len = [16, 32, 16, 32, 24, 24, 4 + len % 53, 24, 4 + len % 53, 64, 56][kind];
        let (key, iv) = (octets.vec(key_len), octets.array::<16>());
        let aad_len = octets.below(40);
        let (aad, text) = (octets.vec(aad_len), octets.vec(len));
        let mut case = Self { kind, key, iv, aad, expected: text.clone(), text, tag: [0; 16] };
        case.alone();
        case
    }

    fn alone(&mut self) {
        let text = &mut self.expected;
        let iv8: &[u8; 8] = self.iv.first_chunk().unwrap();
        let nonce: &[u8; 12] = self.iv.first_chunk().unwrap();
        let key = &self.key[..];
        match self.kind {
            0 => {
                let key = Aes128Gcm::new(key.try_into().unwrap());
                self.tag = key.seal_in_place(nonce, &self.aad, text).unwrap();
            }
            1 => {
                let key = Aes256Gcm::new(key.try_into().unwrap());
                self.tag = key.seal_in_place(nonce, &self.aad, text).unwrap();
            }
            2 => Aes128Ctr::new(key.try_into().unwrap()).apply(&self.iv, text).unwrap(),
            3 => drop(Aes256Cbc::new(key.try_into().unwrap()).encrypt(&self.iv, text).unwrap()),
            4 => drop(TripleDesCbc::new(key.try_into().unwrap()).encrypt(iv8, text).unwrap()),
            5 => drop(TripleDesCbc::new(key.try_into().unwrap()).decrypt(iv8, text).unwrap()),
            6 => drop(BlowfishCbc::new(key).unwrap().decrypt(iv8, text).unwrap()),
            7 => TripleDesCtr::new(key.try_into().unwrap()).apply(iv8, text).unwrap(),
            8 => BlowfishCtr::new(key).unwrap().apply(iv8, text).unwrap(),
            9 => *text = L1::new(key.try_into().unwrap()).seal(&self.aad, text).unwrap(),
            _ => {
                *text = L2::new(key.try_into().unwrap()).unwrap().seal(&self.aad, text).unwrap();
            }
        }
    }

    fn job(&mut self) -> Job<'_> {
        let iv8: &[u8; 8] = self.iv.first_chunk().unwrap();
        let nonce: &[u8; 12] = self.iv.first_chunk().unwrap();
        let key = &self.key[..];
        let text = &mut self.text;
        let seal = Direction::Seal;
        match self.kind {
            0 => Job::gcm_seal(AesKey::Aes128(key.try_into().unwrap()), nonce, &self.aad, text),
            1 => Job::gcm_seal(AesKey::Aes256(key.try_into().unwrap()), nonce, &self.aad, text),
            2 => Job::ctr(KeyIv::Aes(AesKey::Aes128(key.try_into().unwrap()), &self.iv), text),
            3 => {
                let key = AesKey::Aes256(key.try_into().unwrap());
                Job::cbc(seal, KeyIv::Aes(key, &self.iv), text)
            }
            4 => Job::cbc(seal, KeyIv::TripleDes(key.try_into().unwrap(), iv8), text),
            5 => Job::cbc(Direction::Open, KeyIv::TripleDes(key.try_into().unwrap(), iv8), text),
            6 => Job::cbc(Direction::Open, KeyIv::Blowfish(key, iv8), text),
            7 => Job::ctr(KeyIv::TripleDes(key.try_into().unwrap(), iv8), text),
            8 => Job::ctr(KeyIv::Blowfish(key, iv8), text),
            9 => Job::legacy_seal(LegacyKey::L1(key.try_into().unwrap()), &self.aad, text),
            _ => Job::legacy_seal(LegacyKey::L2(key.try_into().unwrap()), &self.aad, text),
        }
    }
}

const KINDS: usize = 11;

#[test]
fn any_mix_gives_what_each_job_gives_alone() {
    let mut octets = Octets(2);
    for count in [0, 1, 2, 3, 7, 8, 9, 63, 65, 300] {
        let mut cases: Vec<Case> = (0..count)
            .map(|_| {
                let (kind, len) = (octets.below(KINDS), octets.below(400));
                Case::new(&mut octets, kind, len)
            })
            .collect();
        compare(&mut cases);
    }
}

#[test]
fn many_jobs_of_one_kind_give_what_each_gives_alone() {
    let mut octets = Octets(3);
    for kind in 0..KINDS {
        for count in [5, 8, 70, 270] {
            let mut cases: Vec<Case> = (0..count)
                .map(|_| {
                    let len = octets.below(120);
                    Case::new(&mut octets, kind, len)
                })
                .collect();
            compare(&mut cases);
        }
    }
}

fn compare(cases: &mut [Case]) {
    let mut jobs: Vec<Job<'_>> = cases.iter_mut().map(Case::job).collect();
    run(&mut jobs);
    let outcome: Vec<_> = jobs.iter().map(|job| (job.result(), job.tag())).collect();
    drop(jobs);
    for (case, (result, tag)) in cases.iter().zip(outcome) {
        assert_eq!(result, Ok(()), "kind {}", case.kind);
        assert_eq!(case.text, case.expected, "kind {}", case.kind);
        assert_eq!(tag, (case.kind < 2).then_some(case.tag), "kind {}", case.kind);
    }
}

#[test]
fn refusals_leave_the_buffer_alone() {
    let mut odd = [3u8; 15];
    let mut wrap = [4u8; 17];
    let mut short = vec![5u8; 39];
    let mut long = vec![6u8; limits::LEGACY_TEXT_MAX + 1];
    let mut text = [7u8; 8];
    let mut jobs = [
        Job::cbc(Direction::Seal, KeyIv::TripleDes(&[1; 24], &[2; 8]), &mut odd),
        Job::ctr(KeyIv::TripleDes(&[1; 24], &[255; 8]), &mut wrap),
        Job::legacy_open(LegacyKey::L1(&[1; 64]), b"", &mut short),
        Job::legacy_seal(LegacyKey::L1(&[1; 64]), b"", &mut long),
        Job::ctr(KeyIv::Blowfish(&[1; 3], &[0; 8]), &mut text),
    ];
    run(&mut jobs);
    assert_eq!(
        jobs.map(|job| job.result()),
        [
            Err(Error::Length),
            Err(Error::CounterExhausted),
            Err(Error::Malformed),
            Err(Error::TooLong),
            Err(Error::KeyLength)
        ]
    );
    assert_eq!((odd, wrap, text), ([3; 15], [4; 17], [7; 8]));
    assert!(long.iter().all(|octet| *octet == 6));
}
