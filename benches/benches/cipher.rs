//! Every cipher path of `accel`, by backend and size, beside ring: `algorithm/backend/size`.
//!
//! `cargo bench -p cipherim-benches --bench cipher`; a word after `--` restricts the run, and
//! `--quick` ends each measurement once it is steady. Other rivals: `benches/compare`.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use accel::Backend;
use accel::batch::{AesKey, Direction, Job, KeyIv, LegacyKey};
use accel::cbc::{Aes256Cbc, BlowfishCbc, TripleDesCbc};
use accel::ctr::{Aes256Ctr, BlowfishCtr, TripleDesCtr};
use accel::gcm::{Aes128Gcm, Aes256Gcm};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;

const SIZES: [usize; 6] = [64, 256, 1024, 4096, 16_384, 1 << 20];
const BACKENDS: [Backend; 5] =
    [Backend::Vaes256, Backend::AesNi, Backend::Avx2, Backend::Portable, Backend::Soft];
const MESSAGES: usize = 256;
const AAD: &[u8] = b"0123456789abc";

/// Measures `work` on a text of every size, once per backend that `make` can build it for.
fn paths<W: FnMut(&mut [u8])>(
    criterion: &mut Criterion,
    algorithm: &str,
    make: impl Fn(Backend) -> Result<W, accel::Error>,
) {
    let mut group = criterion.benchmark_group(algorithm);
    for backend in BACKENDS {
        let Ok(mut work) = make(backend) else { continue };
        for size in SIZES {
            let mut text = vec![0x5a; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(backend.name(), size), |bencher| {
                bencher.iter(|| work(black_box(&mut text)));
            });
        }
    }
    group.finish();
}

fn ring_gcm(criterion: &mut Criterion, name: &str, algorithm: &'static Algorithm) {
    let mut group = criterion.benchmark_group(name);
    let key = UnboundKey::new(algorithm, &vec![7; algorithm.key_len()]).unwrap();
    let key = LessSafeKey::new(key);
    for size in SIZES {
        let mut text = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("ring", size), |bencher| {
            bencher.iter(|| {
                let nonce = Nonce::assume_unique_for_key([1; 12]);
                key.seal_in_place_separate_tag(nonce, Aad::from(AAD), &mut text).unwrap()
            });
        });
    }
    group.finish();
}

fn aes(criterion: &mut Criterion) {
    paths(criterion, "aes-128-gcm", |backend| {
        let key = Aes128Gcm::with_backend(&[7; 16], backend)?;
        Ok(move |text: &mut [u8]| {
            black_box(key.seal_in_place(&[1; 12], AAD, text).unwrap());
        })
    });
    ring_gcm(criterion, "aes-128-gcm", &AES_128_GCM);
    paths(criterion, "aes-256-gcm", |backend| {
        let key = Aes256Gcm::with_backend(&[7; 32], backend)?;
        Ok(move |text: &mut [u8]| {
            black_box(key.seal_in_place(&[1; 12], AAD, text).unwrap());
        })
    });
    ring_gcm(criterion, "aes-256-gcm", &AES_256_GCM);
    paths(criterion, "aes-256-ctr", |backend| {
        let key = Aes256Ctr::with_backend(&[7; 32], backend)?;
        Ok(move |text: &mut [u8]| key.apply(&[1; 16], text).unwrap())
    });
    paths(criterion, "aes-256-cbc-encrypt", |backend| {
        let key = Aes256Cbc::with_backend(&[7; 32], backend)?;
        Ok(move |text: &mut [u8]| {
            black_box(key.encrypt(&[1; 16], text).unwrap());
        })
    });
    paths(criterion, "aes-256-cbc-decrypt", |backend| {
        let key = Aes256Cbc::with_backend(&[7; 32], backend)?;
        Ok(move |text: &mut [u8]| {
            black_box(key.decrypt(&[1; 16], text).unwrap());
        })
    });
}

fn legacy_ciphers(criterion: &mut Criterion) {
    let key: [u8; 24] = core::array::from_fn(|i| i as u8 * 11);
    paths(criterion, "3des-ctr", |backend| {
        let key = TripleDesCtr::with_backend(&key, backend)?.with_budget(u64::MAX);
        Ok(move |text: &mut [u8]| key.apply(&[1; 8], text).unwrap())
    });
    paths(criterion, "3des-cbc-encrypt", |backend| {
        let key = TripleDesCbc::with_backend(&key, backend)?.with_budget(u64::MAX);
        Ok(move |text: &mut [u8]| {
            black_box(key.encrypt(&[1; 8], text).unwrap());
        })
    });
    paths(criterion, "3des-cbc-decrypt", |backend| {
        let key = TripleDesCbc::with_backend(&key, backend)?;
        Ok(move |text: &mut [u8]| {
            black_box(key.decrypt(&[1; 8], text).unwrap());
        })
    });
    paths(criterion, "blowfish-ctr", |backend| {
        let key = BlowfishCtr::with_backend(&[7; 16], backend)?.with_budget(u64::MAX);
        Ok(move |text: &mut [u8]| key.apply(&[1; 8], text).unwrap())
    });
    paths(criterion, "blowfish-cbc-encrypt", |backend| {
        let key = BlowfishCbc::with_backend(&[7; 16], backend)?.with_budget(u64::MAX);
        Ok(move |text: &mut [u8]| {
            black_box(key.encrypt(&[1; 8], text).unwrap());
        })
    });
    paths(criterion, "blowfish-cbc-decrypt", |backend| {
        let key = BlowfishCbc::with_backend(&[7; 16], backend)?;
        Ok(move |text: &mut [u8]| {
            black_box(key.decrypt(&[1; 8], text).unwrap());
        })
    });
}

/// `MESSAGES` messages, each under a key of its own, key set-up included.
fn batches(criterion: &mut Criterion) {
    let keys: Vec<[u8; 64]> =
        (0..MESSAGES).map(|i| core::array::from_fn(|j| (i * 31 + j * 7) as u8)).collect();
    let mut group = criterion.benchmark_group("batch");
    for size in [64, 256, 1024, 4096] {
        let mut texts = vec![vec![0x5a; size]; MESSAGES];
        group.throughput(Throughput::Bytes((size * MESSAGES) as u64));
        for name in ["aes-256-gcm", "aes-256-cbc", "3des-cbc", "blowfish-cbc"] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let pairs = keys.iter().zip(&mut texts);
                    let mut jobs: Vec<Job<'_>> =
                        pairs.map(|(key, text)| job(name, key, text)).collect();
                    accel::batch::run(&mut jobs);
                });
            });
        }
        group.bench_function(BenchmarkId::new("l1", size), |bencher| {
            bencher.iter_batched(
                || texts.clone(),
                |mut bodies| {
                    let mut jobs: Vec<Job<'_>> = keys
                        .iter()
                        .zip(&mut bodies)
                        .map(|(key, body)| Job::legacy_seal(LegacyKey::L1(key), AAD, body))
                        .collect();
                    accel::batch::run(&mut jobs);
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn job<'a>(name: &str, key: &'a [u8; 64], text: &'a mut [u8]) -> Job<'a> {
    let long = AesKey::Aes256(key.first_chunk().unwrap());
    match name {
        "aes-256-gcm" => Job::gcm_seal(long, &[1; 12], AAD, text),
        "aes-256-cbc" => Job::cbc(Direction::Seal, KeyIv::Aes(long, &[1; 16]), text),
        "3des-cbc" => {
            let key = KeyIv::TripleDes(key.first_chunk().unwrap(), &[1; 8]);
            Job::cbc(Direction::Seal, key, text)
        }
        _ => Job::cbc(Direction::Seal, KeyIv::Blowfish(&key[..16], &[1; 8]), text),
    }
}

criterion_group!(cipher, aes, legacy_ciphers, batches);
criterion_main!(cipher);
