//! Every job, and what is wrong with jobs.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use hsm::{Algorithm, Class, Error, KeyName, Phase, Purpose, Request, signature};

use crate::rig::{self, Rig};

#[test]
fn every_job_is_done() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let _service = rig.serve();
    let client = rig.client();

    assert_eq!(client.ping().unwrap().phase, Phase::Ready);
    for purpose in [Purpose::Domain, Purpose::Log, Purpose::Tls] {
        let public = client.public_key(purpose).unwrap();
        assert_eq!(public.key, KeyName::exact(purpose, 1));
        for message in [&b""[..], b"short", &[7; 200_000]] {
            let made = client.sign(purpose, message).unwrap();
            assert!(signature::is_low(&made));
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public.point);
            key.verify(message, &made).unwrap();
            let verify = |message, made| {
                client.verify(Algorithm::P256, &public.point, message, made).unwrap()
            };
            assert!(verify(message, &made));
            assert!(!verify(b"another", &made));
            assert!(!verify(message, &made[..63]));
            assert!(!verify(message, &[0; 64]));
            assert!(!verify(message, &high(&made)), "high s is no signature here");
        }
    }
    for length in [16, 24, 32, 40, 48, 64] {
        let data_key = vec![length as u8; length];
        let blob = client.wrap(&data_key).unwrap();
        assert_eq!(client.unwrap(&blob).unwrap().expose(), data_key);
        assert!(!blob.windows(8).any(|window| window == &data_key[..8]));
    }
    for length in [0, 1, 32, 4_096] {
        assert_eq!(client.random(length).unwrap().len(), length as usize);
    }
    assert_ne!(client.random(32).unwrap(), client.random(32).unwrap());
    let description = client.describe().unwrap();
    assert_eq!(description.domain, rig::DOMAIN);
    assert_eq!(description.keys.len(), 4);
    for proof in ["random", "wrap AES_KEY_WRAP", "verify p256", "verify ed25519", "verify pss"] {
        assert!(description.proven.iter().any(|proven| proven == proof), "{description:?}");
    }
}

/// The other signature over the same message: n − s.
fn high(made: &[u8; 64]) -> [u8; 64] {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut high = *made;
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = 0x100 + u16::from(ORDER[at]) - u16::from(made[32 + at]) - borrow;
        borrow = 1 - (difference >> 8);
        high[32 + at] = (difference & 0xff) as u8;
    }
    high
}

#[test]
fn wrong_jobs_get_clear_errors_and_the_token_stays_well() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let _service = rig.serve();
    let client = rig.client();
    let public = client.public_key(Purpose::Domain).unwrap();
    let blob = client.wrap(&[5; 32]).unwrap();
    let mut off_curve = public.point.clone();
    off_curve[40] ^= 1;

    let sign = |key: KeyName, algorithm| Request::Sign { key, algorithm, message: vec![1] };
    let verify = |algorithm, public_key: &[u8]| Request::Verify {
        algorithm,
        public_key: public_key.to_vec(),
        message: vec![1],
        signature: vec![1; 64],
    };
    let unwrap = |blob: &[u8]| Request::Unwrap { blob: blob.to_vec() };
    for (name, request, class, words) in [
        (
            "no such version",
            sign(KeyName::exact(Purpose::Domain, 9), Algorithm::P256),
            Class::Permanent,
            "no key domain/9",
        ),
        (
            "a wrapping key signs",
            sign(Purpose::Spool.into(), Algorithm::P256),
            Class::Misuse,
            "does not suit",
        ),
        (
            "P-256 key, Ed25519",
            sign(Purpose::Domain.into(), Algorithm::Ed25519),
            Class::Misuse,
            "does not suit",
        ),
        ("off the curve", verify(Algorithm::P256, &off_curve), Class::Misuse, "on the curve"),
        ("no point", verify(Algorithm::P256, &[]), Class::Misuse, "on the curve"),
        ("compressed", verify(Algorithm::P256, &[2; 33]), Class::Misuse, "on the curve"),
        ("short Ed25519", verify(Algorithm::Ed25519, &[1; 31]), Class::Misuse, "32 octets"),
        ("no RSA", verify(Algorithm::Pss, &[0x30, 0x00]), Class::Misuse, "SubjectPublicKeyInfo"),
        ("no blob", unwrap(b""), Class::Permanent, "damaged"),
        ("half a blob", unwrap(&blob[..blob.len() / 2]), Class::Permanent, "damaged"),
        ("noise", unwrap(&[7; 200]), Class::Permanent, "damaged"),
        (
            "generation",
            Request::Generate { key: KeyName::exact(Purpose::Log, 2) },
            Class::Misuse,
            "service.allow_generate",
        ),
    ] {
        let error = client.call(&request, Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.class(), class, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 0x10;
        assert!(matches!(client.unwrap(&changed), Err(Error::Damaged { .. })), "octet {at}");
    }
    assert!(matches!(client.random(4_097), Err(Error::Malformed { .. })));
    let state = client.ping().unwrap();
    assert_eq!((state.phase, state.generation), (Phase::Ready, 1), "no job cost a recovery");
    assert_eq!(client.unwrap(&blob).unwrap().expose(), [5; 32]);
}

#[test]
fn a_blob_of_another_token_is_refused_by_serial() {
    let Some(module) = rig::module() else { return };
    let (one, two) = (Rig::new(&module), Rig::new(&module));
    let (_first, _second) = (one.serve(), two.serve());
    let blob = one.client().wrap(&[1; 32]).unwrap();
    let error = two.client().unwrap(&blob).unwrap_err();
    assert!(matches!(error, Error::OtherToken { .. }), "{error}");
    assert!(error.to_string().contains("token.also_known_as"));
}

#[test]
fn a_client_makes_a_new_version_if_allowed() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module).with_settings("allow_generate = true");
    let _service = rig.serve();
    let client = rig.client();
    let (old, before) = (client.public_key(Purpose::Log).unwrap(), client.wrap(&[1; 32]).unwrap());
    for key in [KeyName::exact(Purpose::Log, 2), KeyName::exact(Purpose::Spool, 2)] {
        let made = client.generate(key, Duration::from_secs(10)).unwrap();
        let again = client.generate(key, Duration::from_secs(10)).unwrap();
        assert_eq!(made, again, "the same version is the same key");
    }
    let new = client.public_key(Purpose::Log).unwrap();
    assert_eq!(new.key.version, Some(2));
    assert_ne!(new.point, old.point);
    let made = client.sign(Purpose::Log, b"new").unwrap();
    assert!(client.verify(Algorithm::P256, &new.point, b"new", &made).unwrap());
    let made = client.sign(KeyName::exact(Purpose::Log, 1), b"old").unwrap();
    assert!(client.verify(Algorithm::P256, &old.point, b"old", &made).unwrap());
    let after = client.wrap(&[2; 32]).unwrap();
    assert_ne!(before[7..11], after[7..11], "wrapped by the new version");
    assert_eq!(client.unwrap(&before).unwrap().expose(), [1; 32]);
    assert_eq!(client.unwrap(&after).unwrap().expose(), [2; 32]);
}

#[test]
fn a_thousand_jobs_at_once() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let _service = rig.serve();
    let client = rig.client();
    let public = client.public_key(Purpose::Domain).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..50_u32 {
            let (client, public) = (&client, &public);
            scope.spawn(move || {
                for job in 0..20_u32 {
                    let message = (thread * 100 + job).to_be_bytes();
                    match job % 3 {
                        0 => {
                            let made = client.sign(Purpose::Domain, &message).unwrap();
                            let key =
                                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public.point);
                            key.verify(&message, &made).unwrap();
                        }
                        1 => {
                            let data_key = message.repeat(8);
                            let blob = client.wrap(&data_key).unwrap();
                            assert_eq!(client.unwrap(&blob).unwrap().expose(), data_key);
                        }
                        _ => assert_eq!(client.random(job).unwrap().len(), job as usize),
                    }
                }
            });
        }
    });
    let description = client.describe().unwrap();
    let failed: u64 = description.operations.iter().map(|count| count.failed).sum();
    assert_eq!(failed, 0);
}
