//! The published vectors of the key transport and the message transform, and every change of one
//! character in them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use protocol::Command;
use protocol::base64;
use protocol::signature::{PublicKey, Signer as _, SoftwareSigner};
use serde_json::Value;

use super::*;
use crate::chain::RootKey;
use crate::mime::Entity;
use crate::random::Seeded;
use crate::secret::{Secret, Secret32};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../protocol/tests/vectors/vectors.json")).unwrap()
}

fn text(path: &str) -> String {
    vectors().pointer(path).unwrap().as_str().unwrap().trim_end().to_owned()
}

fn hex(path: &str) -> Vec<u8> {
    let text = text(path);
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn secret<const N: usize>(path: &str) -> Secret<N> {
    Secret::from_slice(&hex(path)).unwrap()
}

fn public(seed: &str) -> PublicKey {
    let seed = hex(&format!("/seeds/{seed}")).try_into().unwrap();
    SoftwareSigner::ed25519(&seed).unwrap().public_key().clone()
}

fn root() -> RootKey {
    RootKey::new(None, &secret("/offer/gs"))
}

/// The message key of alice's third line.
fn message_key() -> MessageKey {
    let mut chain = root().chain("alice@a.example/d1");
    chain.step();
    chain.step();
    chain.step()
}

fn open_offer(command: &Command<'_>) -> Result<Secret32, SuiteError> {
    let curve = Curve::X25519;
    let spk = SoftwareKey::from_secret(curve, &secret("/seeds/spk")).unwrap();
    let opk = SoftwareKey::from_secret(curve, &secret("/seeds/opk")).unwrap();
    let kem = KemSecret::from_seed(&secret("/offer/mlkem_seed"));
    let keys = OfferKeys { signed: &spk, one_time: Some(&opk), kem: &kem };
    unwrap_seed(Suite::M1, &command.aad(), &keys, &command.body())
}

fn open_message(suite: Suite, command: &Command<'_>) -> Result<Entity, SuiteError> {
    let key = message_key();
    let mid = command.parameter("MID").ok_or(SuiteError::Sealed)?;
    if let Some(kc) = command.parameter("KC") {
        let kc = base64::decode(kc).map_err(|_| SuiteError::Sealed)?;
        if !message::is_commitment(&key, mid, &kc) {
            return Err(SuiteError::Sealed);
        }
    }
    let plaintext = open(suite, &key, mid, &command.aad(), &command.body())?;
    Entity::from_plaintext(&plaintext).map_err(|_| SuiteError::Sealed)
}

#[test]
fn the_offer_opens() {
    let line = text("/offer/line");
    let command = Command::parse(line.as_bytes()).unwrap();
    let seed = open_offer(&command).unwrap();
    assert_eq!(seed.expose().as_slice(), hex("/offer/gs"));
    let root = RootKey::new(None, &seed);
    assert_eq!(root.expose().as_slice(), hex("/offer/rk"));
    let generation =
        root.generation(command.parameter("SID").unwrap(), command.parameter("MEM").unwrap());
    assert_eq!(Some(&*generation), command.parameter("GEN"));
}

#[test]
fn the_key_encryption_key() {
    let line = text("/offer/line");
    let command = Command::parse(line.as_bytes()).unwrap();
    let body = command.body();
    let kem = KemSecret::from_seed(&secret("/offer/mlkem_seed"));
    let spk = SoftwareKey::from_secret(Curve::X25519, &secret("/seeds/spk")).unwrap();
    let opk = SoftwareKey::from_secret(Curve::X25519, &secret("/seeds/opk")).unwrap();
    let binding = protocol::canonical::sha256(&[
        &command.aad(),
        &body[..1_120],
        spk.public(),
        opk.public(),
        &kem.public(),
    ]);
    let kek = wrap::kek(
        &kem.decapsulate(&body[32..1_120]).unwrap(),
        &spk.agree(&body[..32]).unwrap(),
        Some(&opk.agree(&body[..32]).unwrap()),
        &binding,
    );
    assert_eq!(kek.unwrap().expose().as_slice(), hex("/offer/kek"));
}

#[test]
fn the_refresh() {
    let parent = root().exporter();
    assert_eq!(parent.expose().as_slice(), hex("/refresh/parent_ex"));
    let root = RootKey::new(Some(&parent), &secret("/refresh/gs"));
    assert_eq!(root.expose().as_slice(), hex("/refresh/rk"));
    let generation = root.generation("MpkgBjAjFA8Mm3Z6jNtfuw", &text("/offer/mem"));
    assert_eq!(generation, text("/refresh/gen"));
}

#[test]
fn the_messages_open() {
    for (name, suite) in [
        ("msg_M1", Suite::M1),
        ("msg_M1u", Suite::M1),
        ("msg_L1", Suite::L1),
        ("msg_L2", Suite::L2),
    ] {
        assert_eq!(message_key().expose().as_slice(), hex(&format!("/{name}/mk")), "{name}");
        let line = text(&format!("/{name}/line"));
        let command = Command::parse(line.as_bytes()).unwrap();
        let entity = open_message(suite, &command).unwrap();
        let mime =
            format!("Content-Type: {}\r\n\r\n{}", entity.content_type, *entity.to_text().unwrap());
        assert_eq!(mime, text(&format!("/{name}/mime")), "{name}");

        let plaintext = entity.to_plaintext().unwrap();
        let mid = command.parameter("MID").unwrap();
        let body = seal(suite, &message_key(), mid, &command.aad(), &plaintext).unwrap();
        assert_eq!(body, command.body(), "{name}: sealing gives the same octets");
        assert_eq!(command.parameter("KC").is_some(), command.signature_text().is_some());
    }
}

#[test]
fn the_legacy_offer_opens() {
    let line = text("/offer_L1/line");
    let command = Command::parse(line.as_bytes()).unwrap();
    let document = base64::decode(&text("/offer_L1/rsa_pkcs8")).unwrap();
    let key = LegacySecret::from_pkcs8(&document).unwrap();
    let seed = unwrap_legacy(&key, &command.body()).unwrap();
    assert_eq!(seed.expose().as_slice(), hex("/offer/gs"));
}

/// Calls `check` with every line that differs from the vector at `path` in one character: each
/// character replaced by its neighbours in the alphabet, by a space and by nothing.
fn each_change(path: &str, check: impl Fn(&[u8]) -> bool) {
    let line = text(path).into_bytes();
    assert!(check(&line), "{path}: the vector itself is good");
    for position in 0..line.len() {
        for replacement in [line[position] ^ 1, line[position].wrapping_add(1), b'A', b'=', b' '] {
            if replacement == line[position] {
                continue;
            }
            let mut changed = line.clone();
            changed[position] = replacement;
            assert!(!check(&changed) || is_hop(&line, &changed), "{path} at {position}");
        }
        let mut shorter = line.clone();
        shorter.remove(position);
        assert!(!check(&shorter) || is_hop(&line, &shorter), "{path} without {position}");
    }
}

/// Whether two lines differ only in a hop parameter, which nobody signs.
fn is_hop(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (Command::parse(one).unwrap(), Command::parse(other).unwrap());
    one.tbs() == other.tbs() && one.signature() == other.signature()
}

fn holds(key: &PublicKey, line: &[u8]) -> bool {
    Command::parse(line)
        .is_ok_and(|command| key.verify(&command.tbs(), &command.signature()).is_ok())
}

#[test]
fn every_change_of_a_signed_line_is_noticed() {
    for (path, signer) in [
        ("/record_alice/line", "ida"),
        ("/record_bob/line", "idb"),
        ("/prekeys/line", "d7"),
        ("/prekeys/one", "d7"),
        ("/offer/line", "d1"),
        ("/offer_L1/line", "d1"),
        ("/msg_M1/line", "d1"),
        ("/msg_L1/line", "d1"),
        ("/msg_L2/line", "d1"),
    ] {
        let key = public(signer);
        each_change(path, |line| holds(&key, line));
    }
}

#[test]
fn every_change_of_a_sealed_line_is_noticed() {
    for (path, suite) in [
        ("/msg_M1u/line", Suite::M1),
        ("/msg_M1/line", Suite::M1),
        ("/msg_L1/line", Suite::L1),
        ("/msg_L2/line", Suite::L2),
    ] {
        // The signature slot is the business of the test above.
        let signature = text(path).split(' ').next_back().unwrap().to_owned();
        each_change(path, |line| {
            let Ok(command) = Command::parse(line) else { return false };
            if command.signature_text() != Some(&signature) && path != "/msg_M1u/line" {
                return false;
            }
            open_message(suite, &command).is_ok()
        });
    }
}

#[test]
fn no_octet_of_a_message_can_be_another() {
    let key = public("d1");
    for path in ["/msg_M1/line", "/msg_M1u/line"] {
        let line = text(path).into_bytes();
        let is_signed = path == "/msg_M1/line";
        let is_taken = |line: &[u8]| {
            Command::parse(line).is_ok_and(|command| {
                open_message(Suite::M1, &command).is_ok()
                    && command.signature_text().is_some() == is_signed
                    && (!is_signed || command.verify(&key).is_ok())
            })
        };
        assert!(is_taken(&line), "{path}: the vector itself is good");
        let mut changed = line.clone();
        for position in 0..line.len() {
            for octet in (0..=u8::MAX).filter(|octet| *octet != line[position]) {
                changed[position] = octet;
                let is_noticed = !is_taken(&changed) || is_hop(&line, &changed);
                assert!(is_noticed, "{path} at {position}: {octet}");
            }
            changed[position] = line[position];
        }
    }
}

#[test]
fn every_change_of_an_offer_is_noticed_by_the_key_wrap_alone() {
    let line = text("/offer/line");
    let signature = line.split(' ').next_back().unwrap();
    let head = line.len() - signature.len();
    for position in (0..head).step_by(7) {
        let mut changed = line.clone().into_bytes();
        changed[position] ^= 1;
        let Ok(command) = Command::parse(&changed) else { continue };
        if is_hop(line.as_bytes(), &changed) {
            continue;
        }
        assert_eq!(open_offer(&command).err(), Some(SuiteError::Sealed), "{position}");
    }
}

#[test]
fn offers_open_for_their_device_alone() {
    let mut random = Seeded::new(1);
    for suite in [Suite::M1, Suite::M2, Suite::M3] {
        let curve = super::curve(suite).unwrap();
        let (spk, _) = SoftwareKey::generate(curve, &mut random).unwrap();
        let (opk, _) = SoftwareKey::generate(curve, &mut random).unwrap();
        let (kem, _) = KemSecret::generate(&mut random).unwrap();
        let seed = crate::random::secret(&mut random).unwrap();
        for one_time in [None, Some(&opk)] {
            let to = DeviceKeys {
                signed: spk.public().to_vec(),
                one_time: one_time.map(|key| key.public().to_vec()),
                kem: kem.public(),
            };
            let body = wrap_seed(suite, b"aad", &to, &seed, &mut random).unwrap();
            let keys = OfferKeys {
                signed: &spk,
                one_time: one_time.map(|key| key as &dyn Agreement),
                kem: &kem,
            };
            assert_eq!(unwrap_seed(suite, b"aad", &keys, &body), Ok(seed.clone()));
            let sealed = Err(SuiteError::Sealed);
            assert_eq!(unwrap_seed(suite, b"AAD", &keys, &body), sealed);
            let without = OfferKeys { one_time: None, ..keys };
            assert_eq!(unwrap_seed(suite, b"aad", &without, &body).is_ok(), one_time.is_none());
            let other = OfferKeys { signed: &opk, one_time: None, kem: &kem };
            assert_eq!(unwrap_seed(suite, b"aad", &other, &body), sealed);
            assert_eq!(unwrap_seed(suite, b"aad", &without, &body[1..]), sealed);
        }
    }
}

#[test]
fn bad_public_keys_are_refused() {
    let mut random = Seeded::new(2);
    let (x25519, _) = SoftwareKey::generate(Curve::X25519, &mut random).unwrap();
    let (p256, _) = SoftwareKey::generate(Curve::P256, &mut random).unwrap();
    let mut one = [0; 32];
    one[0] = 1;
    let mut off_curve = p256.public().to_vec();
    off_curve[64] ^= 1;
    let mut compressed = p256.public()[..33].to_vec();
    compressed[0] = 2;
    for (name, key, point) in [
        ("small order 0", &x25519, vec![0; 32]),
        ("small order 1", &x25519, one.to_vec()),
        ("short", &x25519, vec![9; 31]),
        ("P-256 for X25519", &x25519, p256.public().to_vec()),
        ("off the curve", &p256, off_curve),
        ("compressed", &p256, compressed),
        ("infinity", &p256, vec![0]),
        ("X25519 for P-256", &p256, x25519.public().to_vec()),
    ] {
        assert_eq!(key.agree(&point).err(), Some(SuiteError::Key), "{name}");
    }
    let (kem, _) = KemSecret::generate(&mut random).unwrap();
    let mut public = kem.public();
    assert!(EncapsulationKey::parse(&public).is_ok());
    public[0] = 0xFF;
    public[1] = 0xFF;
    assert_eq!(EncapsulationKey::parse(&public).err(), Some(SuiteError::Key), "modulus check");
    assert_eq!(EncapsulationKey::parse(&public[1..]).err(), Some(SuiteError::Key), "length");
    assert_eq!(kem.decapsulate(&[0; 1_087]).err(), Some(SuiteError::Sealed));
}

#[test]
fn receipts_carry_a_tag_over_nothing() {
    for suite in Suite::ALL {
        let key = message_key();
        let tag = seal_receipt(suite, &key, "mid", b"aad").unwrap();
        assert_eq!(tag.len(), receipt_octets(suite), "{suite}");
        assert_eq!(open_receipt(suite, &key, "mid", b"aad", &tag), Ok(()), "{suite}");
        for (mid, aad) in [("Mid", b"aad"), ("mid", b"aaD")] {
            let refused = open_receipt(suite, &key, mid, aad, &tag);
            assert_eq!(refused, Err(SuiteError::Sealed), "{suite}");
        }
        let text = seal(suite, &key, "mid", b"aad", b"text").unwrap();
        assert_eq!(open_receipt(suite, &key, "mid", b"aad", &text), Err(SuiteError::Sealed));
    }
}

#[test]
fn suites_agree_with_themselves_and_not_with_each_other() {
    let key = message_key();
    for sealed_as in Suite::ALL {
        let body = seal(sealed_as, &key, "mid", b"aad", b"text").unwrap();
        for opened_as in Suite::ALL {
            let is_same = sealed_as == opened_as
                || matches!(
                    (sealed_as, opened_as),
                    (Suite::M1, Suite::M2) | (Suite::M2, Suite::M1)
                );
            let opened = open(opened_as, &key, "mid", b"aad", &body);
            assert_eq!(opened.is_ok(), is_same, "{sealed_as} {opened_as}");
        }
    }
}

#[test]
fn a_token_may_hold_the_p256_keys() {
    let mut random = Seeded::new(3);
    let mut holder = SoftwareHolder;
    let (handle, point) = holder.generate(&mut random).unwrap();
    let key = holder.open(&handle).unwrap();
    assert_eq!((key.public(), key.curve()), (point.as_slice(), Curve::P256));
    assert!(holder.open(&[1; 31]).is_err());
}

#[test]
fn legacy_keys_of_the_right_size() {
    let (document, spki) = LegacySecret::generate().unwrap();
    let secret = LegacySecret::from_pkcs8(&document).unwrap();
    let seed = Secret32::from_slice(&[5; 32]).unwrap();
    let key = LegacyKey::parse(&spki, false).unwrap();
    let body = wrap_legacy(&key, &seed).unwrap();
    assert_eq!(unwrap_legacy(&secret, &body), Ok(seed.clone()));
    let sha1 = wrap_legacy(&LegacyKey::parse(&spki, true).unwrap(), &seed).unwrap();
    assert_eq!(unwrap_legacy(&secret, &sha1), Err(SuiteError::Sealed));
    let small = aws_lc_rs::rsa::PrivateDecryptingKey::generate(aws_lc_rs::rsa::KeySize::Rsa2048);
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    let small: PublicKeyX509Der<'_> = small.unwrap().public_key().as_der().unwrap();
    assert_eq!(LegacyKey::parse(small.as_ref(), false).err(), Some(SuiteError::Key));
}
