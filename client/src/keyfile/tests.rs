//! The key file: what opens it, what does not, and what it never overwrites.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use protocol::signature::Signer as _;

use super::*;
use crate::random::Seeded;

const COST: Cost = Cost { memory_kib: 8 * 1_024, passes: 1, lanes: 1 };

fn secrets(random: &mut Seeded) -> Secrets {
    Secrets {
        account: AddressBuf::parse("alice@a.example").unwrap(),
        device_name: "d1".into(),
        identity: Some(SigningSecret::generate_ed25519(random).unwrap()),
        device: SigningSecret::generate_p256().unwrap(),
        state: random::secret(random).unwrap(),
        domain: DomainPin { relay: Some("127.0.0.1:7700".into()), key: None, tls: None },
    }
}

#[test]
fn opens_with_its_password_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut random = Seeded::new(1);
    let secrets = secrets(&mut random);
    create(&path, &secrets, "correct horse", COST, &mut random).unwrap();
    let opened = open(&path, "correct horse").unwrap();
    assert_eq!(opened.state, secrets.state);
    assert_eq!(opened.domain, secrets.domain);
    let public = |secret: &SigningSecret| secret.to_signer().unwrap().public_key().clone();
    assert_eq!(public(&opened.device), public(&secrets.device));
    assert!(matches!(open(&path, "correct horsf"), Err(KeyfileError::Password)));
    assert_eq!(account(&path).unwrap().as_str(), "alice@a.example");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn is_not_overwritten_but_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut random = Seeded::new(2);
    let first = secrets(&mut random);
    create(&path, &first, "one", COST, &mut random).unwrap();
    let before = fs::read(&path).unwrap();
    let again = create(&path, &first, "two", COST, &mut random);
    assert!(matches!(again, Err(KeyfileError::Exists)));
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::write(folder.path().join("key.new"), "left by a crash").unwrap();
    replace(&path, &first, "two", COST, &mut random).unwrap();
    assert!(open(&path, "two").is_ok());
    assert!(matches!(open(&path, "one"), Err(KeyfileError::Password)));
}

#[test]
fn any_change_of_the_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut random = Seeded::new(3);
    create(&path, &secrets(&mut random), "pw", COST, &mut random).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for (name, from, to) in [
        ("account", "alice@a.example", "alicf@a.example"),
        ("memory", "8192", "8193"),
        ("memory too small", "8192", "4096"),
        ("passes", "\"passes\": 1", "\"passes\": 2"),
        ("format", FORMAT, "cim-key-2"),
        ("derivation", DERIVATION, "argon2i"),
        ("unknown field", "\"format\"", "\"extra\": 1, \"format\""),
    ] {
        assert!(good.contains(from), "{name}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        assert!(open(&path, "pw").is_err(), "{name}");
    }
    let sealed = good.find("\"sealed\": \"").unwrap() + 20;
    let mut changed = good.clone().into_bytes();
    changed[sealed] = if changed[sealed] == b'A' { b'B' } else { b'A' };
    fs::write(&path, changed).unwrap();
    assert!(matches!(open(&path, "pw"), Err(KeyfileError::Password)));
}

#[test]
fn cost_at_n_and_one_more() {
    let good = Cost::RECOMMENDED;
    assert!(good.is_acceptable());
    for (cost, is_good) in [
        (Cost { memory_kib: 8 * 1_024 - 1, ..good }, false),
        (Cost { memory_kib: 2 * 1_024 * 1_024, ..good }, true),
        (Cost { memory_kib: 2 * 1_024 * 1_024 + 1, ..good }, false),
        (Cost { passes: 16, ..good }, true),
        (Cost { passes: 17, ..good }, false),
        (Cost { passes: 0, ..good }, false),
        (Cost { lanes: 17, ..good }, false),
    ] {
        assert_eq!(cost.is_acceptable(), is_good, "{cost:?}");
    }
}

#[test]
fn size_at_n_and_one_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut random = Seeded::new(4);
    create(&path, &secrets(&mut random), "pw", COST, &mut random).unwrap();
    let mut text = fs::read(&path).unwrap();
    text.resize(limits::KEY_FILE_OCTETS_MAX as usize, b' ');
    fs::write(&path, &text).unwrap();
    assert!(open(&path, "pw").is_ok());
    text.push(b' ');
    fs::write(&path, &text).unwrap();
    assert!(matches!(open(&path, "pw"), Err(KeyfileError::Format)));
}

#[test]
fn every_kind_of_signing_key() {
    let mut random = Seeded::new(5);
    for secret in [
        SigningSecret::generate_ed25519(&mut random).unwrap(),
        SigningSecret::generate_p256().unwrap(),
        SigningSecret::generate_hybrid(&mut random).unwrap(),
    ] {
        let signer = secret.to_signer().unwrap();
        let signature = signer.sign(b"text").unwrap();
        assert!(signer.public_key().verify(b"text", &signature).is_ok());
        let text = serde_json::to_string(&secret).unwrap();
        let again: SigningSecret = serde_json::from_str(&text).unwrap();
        assert_eq!(again.to_signer().unwrap().public_key(), signer.public_key());
        assert_eq!(format!("{secret:?}"), "SigningSecret(..)");
    }
}
