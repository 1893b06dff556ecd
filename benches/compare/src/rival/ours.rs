//! accel itself, on every backend of this machine.

use super::{MESSAGES, Operation, keys};
use crate::measure::{Contender, Work};
use accel::batch::{AesKey, Direction, Job, KeyIv};
use accel::cbc::{Aes256Cbc, BlowfishCbc, TripleDesCbc};
use accel::ctr::{Aes256Ctr, BlowfishCtr, TripleDesCtr};
use accel::gcm::{Aes128Gcm, Aes256Gcm};
use accel::{Backend, Error};
use std::hint::black_box as done;

const BACKENDS: [Backend; 5] =
    [Backend::Vaes256, Backend::AesNi, Backend::Avx2, Backend::Portable, Backend::Soft];

/// One contender per backend; batches have only the chosen one.
pub(crate) fn contenders(operation: Operation, len: usize) -> Vec<Contender> {
    if operation.messages() > 1 {
        return vec![Contender { name: "accel".into(), work: batch(operation, len) }];
    }
    let mut all = Vec::new();
    for backend in BACKENDS {
        if let Ok(work) = single(operation, len, backend) {
            all.push(Contender { name: format!("accel/{backend}"), work });
        }
    }
    all
}

fn single(operation: Operation, len: usize, backend: Backend) -> Result<Work, Error> {
    let mut text = vec![0x5au8; len];
    let budget = u64::MAX;
    Ok(match operation {
        Operation::GcmSeal(16) => {
            let key = Aes128Gcm::with_backend(&[7; 16], backend)?;
            Box::new(move || {
                let _ = done(key.seal_in_place(&[1; 12], b"0123456789abc", &mut text));
            })
        }
        Operation::GcmSeal(_) => {
            let key = Aes256Gcm::with_backend(&[7; 32], backend)?;
            Box::new(move || {
                let _ = done(key.seal_in_place(&[1; 12], b"0123456789abc", &mut text));
            })
        }
        Operation::GcmOpen(16) => {
            let key = Aes128Gcm::with_backend(&[7; 16], backend)?;
            let tag = key.seal_in_place(&[1; 12], b"0123456789abc", &mut text)?;
            let (sealed, mut text) = (text.clone(), text);
            Box::new(move || {
                text.copy_from_slice(&sealed);
                key.open_in_place(&[1; 12], b"0123456789abc", &mut text, &tag).expect("opens");
            })
        }
        Operation::GcmOpen(_) => {
            let key = Aes256Gcm::with_backend(&[7; 32], backend)?;
            let tag = key.seal_in_place(&[1; 12], b"0123456789abc", &mut text)?;
            let (sealed, mut text) = (text.clone(), text);
            Box::new(move || {
                text.copy_from_slice(&sealed);
                key.open_in_place(&[1; 12], b"0123456789abc", &mut text, &tag).expect("opens");
            })
        }
        Operation::AesCtr => {
            let key = Aes256Ctr::with_backend(&[7; 32], backend)?;
            Box::new(move || key.apply(&[1; 16], &mut text).expect("runs"))
        }
        Operation::AesCbcEncrypt => {
            let key = Aes256Cbc::with_backend(&[7; 32], backend)?;
            Box::new(move || {
                let _ = done(key.encrypt(&[1; 16], &mut text));
            })
        }
        Operation::AesCbcDecrypt => {
            let key = Aes256Cbc::with_backend(&[7; 32], backend)?;
            Box::new(move || {
                let _ = done(key.decrypt(&[1; 16], &mut text));
            })
        }
        Operation::DesCtr => {
            let key = TripleDesCtr::with_backend(&DES_KEY, backend)?.with_budget(budget);
            Box::new(move || key.apply(&[1; 8], &mut text).expect("runs"))
        }
        Operation::DesCbcEncrypt => {
            let key = TripleDesCbc::with_backend(&DES_KEY, backend)?.with_budget(budget);
            Box::new(move || {
                let _ = done(key.encrypt(&[1; 8], &mut text));
            })
        }
        Operation::DesCbcDecrypt => {
            let key = TripleDesCbc::with_backend(&DES_KEY, backend)?;
            Box::new(move || {
                let _ = done(key.decrypt(&[1; 8], &mut text));
            })
        }
        Operation::BlowfishCtr => {
            let key = BlowfishCtr::with_backend(&[7; 16], backend)?.with_budget(budget);
            Box::new(move || key.apply(&[1; 8], &mut text).expect("runs"))
        }
        Operation::BlowfishCbcEncrypt => {
            let key = BlowfishCbc::with_backend(&[7; 16], backend)?.with_budget(budget);
            Box::new(move || {
                let _ = done(key.encrypt(&[1; 8], &mut text));
            })
        }
        Operation::BlowfishCbcDecrypt => {
            let key = BlowfishCbc::with_backend(&[7; 16], backend)?;
            Box::new(move || {
                let _ = done(key.decrypt(&[1; 8], &mut text));
            })
        }
        Operation::GcmFresh
        | Operation::AesCbcFresh
        | Operation::DesCbcFresh
        | Operation::BlowfishCbcFresh => return Err(Error::Unavailable),
    })
}

/// The 3DES key of every library.
pub(crate) const DES_KEY: [u8; 24] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10\x11\x22\x33\x44\x55\x66\x77\x88";

fn batch(operation: Operation, len: usize) -> Work {
    let mut texts = vec![vec![0x5au8; len]; MESSAGES];
    let (keys_32, keys_24, keys_16) = (keys::<32>(), keys::<24>(), keys::<16>());
    Box::new(move || {
        let texts = texts.iter_mut().enumerate();
        let mut jobs: Vec<Job<'_>> = match operation {
            Operation::GcmFresh => texts
                .map(|(i, text)| {
                    Job::gcm_seal(AesKey::Aes256(&keys_32[i]), &[1; 12], b"0123456789abc", text)
                })
                .collect(),
            Operation::AesCbcFresh => texts
                .map(|(i, text)| {
                    let key = KeyIv::Aes(AesKey::Aes256(&keys_32[i]), &[1; 16]);
                    Job::cbc(Direction::Seal, key, text)
                })
                .collect(),
            Operation::DesCbcFresh => texts
                .map(|(i, text)| {
                    Job::cbc(Direction::Seal, KeyIv::TripleDes(&keys_24[i], &[1; 8]), text)
                })
                .collect(),
            _ => texts
                .map(|(i, text)| {
                    Job::cbc(Direction::Seal, KeyIv::Blowfish(&keys_16[i], &[1; 8]), text)
                })
                .collect(),
        };
        accel::batch::run(&mut jobs);
    })
}
