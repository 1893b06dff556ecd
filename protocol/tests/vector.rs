//! The published test vectors of CIM/1: two programs in other languages agree on each value.
//!
//! What needs session keys (KEK, message keys, opening) is tested by the client.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use protocol::identifier::{FileId, MemberHash};
use protocol::member::{Accounts, Members};
use protocol::merkle::{self, Tree};
use protocol::message::Sealed;
use protocol::offer::{Offer, Wrap};
use protocol::prekey::{CurveKey, Prekey, PrekeyKeys};
use protocol::proof::Proof;
use protocol::record::{Record, RecordBuilder};
use protocol::signature::{PublicKey, Signer as _, SoftwareSigner};
use protocol::{Address, Command, Error, StatementError, Suite, Timestamp, base64, file};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/vectors.json")).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The line at `vectors[part][name]`, without CRLF.
fn line(part: &str, name: &str) -> String {
    vectors()[part][name].as_str().unwrap().trim_end().to_owned()
}

fn signer(name: &str) -> SoftwareSigner {
    let seed = unhex(vectors()["seeds"][name].as_str().unwrap());
    SoftwareSigner::ed25519(&seed.try_into().unwrap()).unwrap()
}

fn record(part: &str) -> Record {
    Record::parse(&Command::parse(line(part, "line").as_bytes()).unwrap()).unwrap()
}

#[test]
fn records_have_their_names_and_leaves() {
    let vectors = vectors();
    for part in ["record_alice", "record_bob", "rotation"] {
        assert_eq!(record(part).name().as_str(), vectors[part]["kr"].as_str().unwrap(), "{part}");
    }
    let alice = line("record_alice", "line");
    let leaf = merkle::statement_leaf(&Command::parse(alice.as_bytes()).unwrap());
    assert_eq!(leaf.as_slice(), unhex(vectors["record_alice"]["leaf"].as_str().unwrap()));
}

#[test]
fn the_builder_writes_the_records_octet_for_octet() {
    let suites = [Suite::M1, Suite::M2, Suite::L1, Suite::L2];
    let (from, until) = (Timestamp(1_795_400_000_000), Timestamp(1_826_936_000_000));
    let alice = RecordBuilder::new(Address::parse("alice@a.example").unwrap(), from, until)
        .suites(&suites)
        .device("d1", signer("d1").public_key())
        .device("d2", signer("d2").public_key());
    assert_eq!(alice.sign(&signer("ida")).unwrap(), line("record_alice", "line"));
    let bob = RecordBuilder::new(Address::parse("bob@b.example").unwrap(), from, until)
        .suites(&suites)
        .device("d7", signer("d7").public_key());
    assert_eq!(bob.sign(&signer("idb")).unwrap(), line("record_bob", "line"));
}

#[test]
fn the_rotation_follows_the_first_record() {
    let rotation = line("rotation", "line");
    let rotation = Command::parse(rotation.as_bytes()).unwrap();
    let followed = record("record_alice").follow(&rotation).unwrap();
    assert_eq!(followed.version(), 2);
    assert_ne!(followed.identity(), signer("ida").public_key());
    let refused = record("record_bob").follow(&rotation);
    assert_eq!(refused, Err(Error::Statement(StatementError::Account)));
}

#[test]
fn prekeys_are_bobs() {
    let bob = record("record_bob");
    let (signed, one) = (line("prekeys", "line"), line("prekeys", "one"));
    let signed_command = Command::parse(signed.as_bytes()).unwrap();
    let prekey = Prekey::verify(&signed_command, &bob).unwrap();
    assert_eq!(prekey.number, 3);
    let PrekeyKeys::Signed(keys) = &prekey.keys else { panic!("{prekey:?}") };
    assert!(keys.p256.is_none() && keys.rsa.is_none());
    assert_eq!(prekey.sign(&signer("d7")).unwrap(), signed);

    let one_command = Command::parse(one.as_bytes()).unwrap();
    let prekey = Prekey::verify(&one_command, &bob).unwrap();
    assert_eq!(prekey.number, 117);
    let PrekeyKeys::OneTime(keys) = &prekey.keys else { panic!("{prekey:?}") };
    assert!(matches!(keys.curve, CurveKey::X25519(_)) && keys.ml_kem.is_none());
    assert_eq!(prekey.sign(&signer("d7")).unwrap(), one);

    let refused = Prekey::verify(&one_command, &record("record_alice"));
    assert_eq!(refused, Err(Error::Statement(StatementError::Account)));
}

#[test]
fn the_proof_of_possession() {
    let vectors = vectors();
    let prove = &vectors["prove"];
    let exporter: [u8; 32] = unhex(prove["exporter"].as_str().unwrap()).try_into().unwrap();
    let d1 = signer("d1");
    let proof = Proof {
        exporter: &exporter,
        nonce: prove["nonce"].as_str().unwrap(),
        alpn: "cim1",
        server_domain: "a.example",
        address: Address::parse("alice@a.example/d1").unwrap(),
        key: d1.public_key(),
    };
    assert_eq!(proof.octets(), unhex(prove["bytes"].as_str().unwrap()));
    let signature = d1.sign(&proof.octets()).unwrap();
    assert_eq!(base64::encode(&signature), prove["sig"].as_str().unwrap());
    // Another link, server, lane, address or key is another proof.
    for other in [
        Proof { exporter: &[0; 32], ..proof },
        Proof { nonce: "bCJyZBkS0fZDhQtmADubQXZGA4n3T0uidIoSphXadb9", ..proof },
        Proof { alpn: "cim1-b", ..proof },
        Proof { server_domain: "b.example", ..proof },
        Proof { address: Address::parse("alice@a.example/d2").unwrap(), ..proof },
        Proof { key: signer("d2").public_key(), ..proof },
    ] {
        assert!(d1.public_key().verify(&other.octets(), &signature).is_err());
    }
}

#[test]
fn what_the_aead_binds() {
    let vectors = vectors();
    for part in ["offer", "msg_M1", "msg_L1", "msg_L2", "msg_M1u"] {
        let line = line(part, "line");
        let command = Command::parse(line.as_bytes()).unwrap();
        assert_eq!(command.aad(), unhex(vectors[part]["aad"].as_str().unwrap()), "{part}");
        if command.signature_text().is_some() {
            assert_eq!(command.verify(signer("d1").public_key()), Ok(()), "{part}");
        }
    }
}

#[test]
fn lines_have_the_measured_sizes() {
    for (part, name, octets) in [
        ("record_alice", "line", 353),
        ("rotation", "line", 487),
        ("prekeys", "line", 1_785),
        ("prekeys", "one", 204),
        ("offer", "line", 2_019),
        ("offer_L1", "line", 976),
        ("msg_M1", "line", 676),
        ("msg_M1u", "line", 542),
    ] {
        assert_eq!(line(part, name).len() + 2, octets, "{part}.{name}");
    }
}

#[test]
fn messages_read_as_what_they_are() {
    for (part, is_signed) in
        [("msg_M1", true), ("msg_L1", true), ("msg_L2", true), ("msg_M1u", false)]
    {
        let line = line(part, "line");
        let message = Sealed::parse(&Command::parse(line.as_bytes()).unwrap()).unwrap();
        assert_eq!(message.place.sequence, 3, "{part}");
        assert_eq!(message.commitment.is_some(), is_signed, "{part}");
    }
}

#[test]
fn offers_name_the_members_of_the_records() {
    let (alice, bob) = (record("record_alice"), record("record_bob"));
    let mem = Members::new([&bob, &alice]).unwrap();
    assert_eq!(mem.as_slice().len(), 3);
    assert!(mem.contains(Address::parse("alice@a.example/d2").unwrap()));
    assert!(Members::new([&bob, &bob]).is_err());
    let accounts = Accounts::new(&[bob.account(), alice.account()]).unwrap();
    for (part, suite, one_time) in [("offer", Suite::M1, Some(117)), ("offer_L1", Suite::L1, None)]
    {
        let line = line(part, "line");
        let command = Command::parse(line.as_bytes()).unwrap();
        let offer = Offer::parse(&command).unwrap();
        assert_eq!(offer.members, mem.hash(), "{part}");
        assert_eq!(offer.accounts, accounts, "{part}");
        assert_eq!(offer.recipient_record, bob.name(), "{part}");
        assert_eq!(offer.sender_record, alice.name(), "{part}");
        assert_eq!(offer.wrap, Wrap::Prekeys { signed: 3, one_time }, "{part}");
        assert_eq!((offer.suite, offer.is_signed), (suite, true), "{part}");
        assert_eq!(alice.verify_device_line(&command), Ok(()), "{part}");
    }
    assert_eq!(Some(mem.hash()), MemberHash::parse(vectors()["offer"]["mem"].as_str().unwrap()));
}

/// The root needs every sealed chunk; the vector gives the key, so the chunks are sealed here.
#[test]
fn the_root_of_a_file() {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    let vectors = vectors();
    let part = &vectors["file"];
    let size = part["size"].as_u64().unwrap();
    let shape = file::Shape::new(size, part["chunk"].as_u64().unwrap() as u32).unwrap();
    let fid = FileId::parse(part["fid"].as_str().unwrap()).unwrap();
    let key = unhex(part["key"].as_str().unwrap());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    assert_eq!(shape.chunk_count(), 3);
    let mut tree = Tree::new();
    for number in 0..shape.chunk_count() {
        let is_last = shape.is_last(number);
        // The vector's file holds the number of its chunk in every octet.
        let mut chunk = vec![number as u8; shape.octets_of(number).unwrap() as usize];
        let nonce = Nonce::assume_unique_for_key(file::chunk_nonce(number));
        let aad = Aad::from(file::chunk_aad(fid, number, is_last));
        key.seal_in_place_append_tag(nonce, aad, &mut chunk).unwrap();
        if is_last {
            assert_eq!(base64::encode(&chunk), part["chunk2"].as_str().unwrap());
        }
        tree.push(merkle::leaf(&chunk));
    }
    assert_eq!(tree.root_name().as_str(), part["root"].as_str().unwrap());
}

/// Every other character at every place is a parse error, or changes what is signed and bound.
#[test]
fn every_changed_character_is_noticed() {
    let key = |name: &str| Some(signer(name).public_key().clone());
    let lines = [
        ("record_alice", "line", key("ida")),
        ("record_bob", "line", key("idb")),
        ("rotation", "line", Some(record("rotation").identity().clone())),
        ("prekeys", "line", key("d7")),
        ("prekeys", "one", key("d7")),
        ("offer", "line", key("d1")),
        ("offer_L1", "line", key("d1")),
        ("msg_M1", "line", key("d1")),
        ("msg_L1", "line", key("d1")),
        ("msg_L2", "line", key("d1")),
        ("msg_M1u", "line", None),
    ];
    for (part, name, key) in lines {
        notice_changes(part, &line(part, name), key.as_ref());
    }
}

fn notice_changes(part: &str, line: &str, key: Option<&PublicKey>) {
    let original = Command::parse(line.as_bytes()).unwrap();
    let hop = line.find(" H-ID=").map(|start| {
        let end = line[start + 1..].find(' ').map_or(line.len(), |length| start + 1 + length);
        // The first character of the name is what makes it a hop parameter.
        start + " H-".len()..end
    });
    for position in 0..line.len() {
        let old = line.as_bytes()[position];
        // Neighbours of the octet, another case, and what separates words.
        for new in [old ^ 1, old ^ 0x20, old.wrapping_add(1), b'A', b'0', b' ', b'=', b'%'] {
            let mut changed = line.as_bytes().to_vec();
            changed[position] = new;
            if new == old || hop.as_ref().is_some_and(|hop| hop.contains(&position)) {
                continue;
            }
            let Ok(command) = Command::parse(&changed) else { continue };
            let is_same = (command.aad(), command.body(), command.signature())
                == (original.aad(), original.body(), original.signature());
            assert!(!is_same, "{part}: octet {position} as {new:?} goes unnoticed");
            if let Some(key) = key {
                assert!(command.verify(key).is_err(), "{part}: octet {position} as {new:?}");
            }
        }
    }
}
