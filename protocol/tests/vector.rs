//! The published test vectors of CIM/1: two programs in other languages agree on each value.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use protocol::signature::{Algorithm, PublicKey, Signer as _, SoftwareSigner};
use protocol::{Command, base64};

mod data {
    use serde_json::Value;

    pub fn vectors() -> Value {
        serde_json::from_str(include_str!("vectors/vectors.json")).unwrap()
    }

    pub fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }
}
use data::{unhex, vectors};

fn signer(name: &str) -> SoftwareSigner {
    let seed = unhex(vectors()["seeds"][name].as_str().unwrap());
    SoftwareSigner::ed25519(&seed.try_into().unwrap()).unwrap()
}

#[test]
fn records_have_their_names_and_signatures() {
    let vectors = vectors();
    for (name, key) in [("record_alice", "ida"), ("record_bob", "idb"), ("rotation", "")] {
        let line = vectors[name]["line"].as_str().unwrap().trim_end();
        let command = Command::parse(line.as_bytes()).unwrap();
        let kr = base64::encode(&command.statement_hash());
        assert_eq!(kr, vectors[name]["kr"].as_str().unwrap(), "{name}");
        let key = if key.is_empty() {
            PublicKey::parse(Algorithm::Ed25519, &command.body()[3..35]).unwrap()
        } else {
            signer(key).public_key().clone()
        };
        assert_eq!(key.verify(&command.tbs(), &command.signature()), Ok(()), "{name}");
    }
}

#[test]
fn what_the_aead_binds() {
    let vectors = vectors();
    for name in ["offer", "msg_M1", "msg_L1", "msg_L2", "msg_M1u"] {
        let line = vectors[name]["line"].as_str().unwrap().trim_end();
        let command = Command::parse(line.as_bytes()).unwrap();
        assert_eq!(command.aad(), unhex(vectors[name]["aad"].as_str().unwrap()), "{name}");
        if command.signature_text().is_some() {
            let key = signer("d1").public_key().clone();
            assert_eq!(key.verify(&command.tbs(), &command.signature()), Ok(()), "{name}");
        }
    }
}
