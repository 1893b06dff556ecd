//! OpenSSL's command line as a foreign reader of legacy messages: given the session key GS and a
//! line, it derives every key, checks the MAC and decrypts, without a line of our code.
//!
//! This is also SPEC.md §4 and §7 as a walk-through: RK from GS, the sender's chain from RK, the
//! message key from the chain, cipher key, MAC key and IV from the message key. Where CI is set a
//! missing `openssl` (or its legacy provider, for Blowfish) is a failure; elsewhere the test says
//! that it was skipped.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use client::chain::{RootKey, SendingChain};
use client::mime::Entity;
use client::secret::Secret32;
use client::suite::{self, Suite};
use protocol::{Address, Code};

const GS: [u8; 32] = *b"thirty-two octets for a session!";
const ALICE: &str = "alice@a.example/d1";
const MID: &str = "QUJDREVGR0hJSktMTU5PUA";
const TEXT: &str = "Bl\u{f6}wfish and triple DES, once more";

/// Octets of the MAC behind the ciphertext.
const MAC_OCTETS: usize = 32;

/// What a legacy suite is to OpenSSL.
struct Legacy {
    suite: Suite,
    /// The argument of `openssl enc`.
    cipher: &'static str,
    key_octets: usize,
}

const LEGACY: [Legacy; 2] = [
    Legacy { suite: Suite::L1, cipher: "-des-ede3-cbc", key_octets: 24 },
    Legacy { suite: Suite::L2, cipher: "-bf-cbc", key_octets: 16 },
];

/// Runs `openssl`, which reads `input`. `None` if there is none, or it does not know the cipher.
fn openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // A child that refused its arguments has closed the pipe: that is an answer, not a failure.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().ok()?;
    output.status.success().then_some(output.stdout)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn hmac(key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let key = format!("hexkey:{}", hex(key));
    openssl(&["mac", "-digest", "SHA256", "-macopt", &key, "-binary", "HMAC"], text)
}

fn hkdf_expand(key: &[u8], info: &[u8], octets: usize) -> Option<Vec<u8>> {
    let (key, info) = (format!("hexkey:{}", hex(key)), format!("hexinfo:{}", hex(info)));
    let octets = octets.to_string();
    let digest = ["-kdfopt", "digest:SHA2-256", "-kdfopt", "mode:EXPAND_ONLY"];
    let secrets = ["-kdfopt", &key, "-kdfopt", &info, "-binary", "HKDF"];
    openssl(&[&["kdf", "-keylen", &octets], &digest[..], &secrets].concat(), &[])
}

fn cbc(way: &str, cipher: &str, keys: &Keys, text: &[u8]) -> Option<Vec<u8>> {
    let (key, iv) = (hex(&keys.cipher), hex(&keys.iv));
    let providers = ["-provider", "legacy", "-provider", "default"];
    openssl(&[&["enc", way, cipher, "-K", &key, "-iv", &iv], &providers[..]].concat(), text)
}

/// `lp(x)` of SPEC.md §4.
fn lp(octets: &[u8]) -> Vec<u8> {
    let mut prefixed = (octets.len() as u32).to_be_bytes().to_vec();
    prefixed.extend_from_slice(octets);
    prefixed
}

/// The keys of one line.
struct Keys {
    cipher: Vec<u8>,
    mac: Vec<u8>,
    iv: Vec<u8>,
}

/// The keys of alice's line with this SEQ, from GS on (SPEC.md §7, "Message keys").
fn keys(legacy: &Legacy, sequence: u64) -> Option<Keys> {
    let root = hmac(&[0; 32], &GS)?;
    let mut chain = hkdf_expand(&root, &[b"CIM1-CHAIN", &lp(ALICE.as_bytes())[..]].concat(), 32)?;
    for _ in 1..sequence {
        chain = hmac(&chain, &[2])?;
    }
    let message_key = hmac(&chain, &[1])?;
    let info = [b"CIM1-LEG", &lp(MID.as_bytes())[..]].concat();
    let mut cipher = hkdf_expand(&message_key, &info, legacy.key_octets + 32 + 8)?;
    let mut mac = cipher.split_off(legacy.key_octets);
    let iv = mac.split_off(32);
    Some(Keys { cipher, mac, iv })
}

/// `C("CIM1-AAD")` of SPEC.md §4 for a line `100 TO … FROM … parameters body`.
fn aad(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let [code, "TO", to, "FROM", from, parameters @ .., _body] = &words[..] else {
        panic!("{line}");
    };
    let mut parameters: Vec<(&str, &str)> =
        parameters.iter().map(|word| word.split_once('=').unwrap()).collect();
    parameters.retain(|(name, _)| !name.starts_with("H-"));
    parameters.sort_unstable();
    let mut octets = ["CIM1-AAD", code, to, from].map(|word| lp(word.as_bytes())).concat();
    octets.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
    for (name, value) in parameters {
        octets.extend([lp(name.as_bytes()), lp(value.as_bytes())].concat());
    }
    octets
}

/// Alice's line `sequence` up to its body, and the client's key for it.
fn unsealed(sequence: u64) -> (protocol::command::CommandBuilder, suite::MessageKey) {
    let mut chain =
        SendingChain::new(RootKey::new(None, &Secret32::from_slice(&GS).unwrap()).chain(ALICE));
    let key = (0..sequence).map(|_| chain.step()).last().unwrap();
    assert_eq!(key.0, sequence);
    let line = protocol::Command::builder(Code::MESSAGE)
        .to(Address::parse("bob@a.example").unwrap())
        .from(Address::parse(ALICE).unwrap())
        .parameter("SID", "AAAAAAAAAAAAAAAAAAAAAA")
        .parameter("GEN", "A".repeat(43))
        .parameter("SEQ", sequence)
        .parameter("TS", 1_795_469_246_123_u64)
        .parameter("MID", MID);
    (line, key.1)
}

/// Alice's line `sequence`, sealed by the client.
fn sealed(suite: Suite, sequence: u64) -> String {
    let (line, key) = unsealed(sequence);
    let plaintext = Entity::text(TEXT).to_plaintext().unwrap();
    let body = suite::seal(suite, &key, MID, &line.aad().unwrap(), &plaintext).unwrap();
    line.body(&body)
}

/// The text of a line, as OpenSSL opens it: `None` if the MAC differs.
fn opened(legacy: &Legacy, keys: &Keys, line: &str) -> Option<Vec<u8>> {
    let body = protocol::base64::decode(line.rsplit(' ').next().unwrap()).unwrap();
    let (ciphertext, theirs) = body.split_at(body.len() - MAC_OCTETS);
    let ours = hmac(&keys.mac, &[aad(line), lp(ciphertext)].concat()).unwrap();
    (ours == theirs).then(|| cbc("-d", legacy.cipher, keys, ciphertext).unwrap())
}

/// Whether there is an OpenSSL with this cipher; it must be there where CI is set.
fn is_there(legacy: &Legacy) -> bool {
    let is_there =
        keys(legacy, 1).is_some_and(|keys| cbc("-e", legacy.cipher, &keys, b"text").is_some());
    if !is_there {
        let what = format!("no openssl 3 with {}", legacy.cipher);
        assert!(std::env::var_os("CI").is_none(), "{what}");
        eprintln!("SKIPPED: {what}");
    }
    is_there
}

#[test]
fn openssl_opens_legacy_messages() {
    for legacy in LEGACY.iter().filter(|legacy| is_there(legacy)) {
        for sequence in [1, 3] {
            let line = sealed(legacy.suite, sequence);
            let keys = keys(legacy, sequence).unwrap();
            let plaintext = opened(legacy, &keys, &line).unwrap();
            // Length, MIME entity, zeros up to 256 octets (SPEC.md §8).
            let entity = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{TEXT}");
            let mut expected = lp(entity.as_bytes());
            expected.resize(256, 0);
            assert_eq!(plaintext, expected, "{} SEQ {sequence}", legacy.cipher);

            // Another SEQ in the line is another AAD; under the key of the next line nothing opens.
            let changed = line.replace(&format!("SEQ={sequence}"), "SEQ=2");
            assert_eq!(opened(legacy, &keys, &changed), None);
            let next = self::keys(legacy, sequence + 1).unwrap();
            assert_eq!(opened(legacy, &next, &line), None);
        }
    }
}

#[test]
fn the_client_opens_what_openssl_sealed() {
    for legacy in LEGACY.iter().filter(|legacy| is_there(legacy)) {
        let (line, key) = unsealed(2);
        let keys = keys(legacy, 2).unwrap();
        let plaintext = Entity::text(TEXT).to_plaintext().unwrap();
        let mut body = cbc("-e", legacy.cipher, &keys, &plaintext).unwrap();
        let aad = aad(&line.body(b"-"));
        body.extend(hmac(&keys.mac, &[aad.clone(), lp(&body)].concat()).unwrap());
        let opened = suite::open(legacy.suite, &key, MID, &aad, &body).unwrap();
        assert_eq!(opened.as_slice(), plaintext.as_slice(), "{}", legacy.cipher);
    }
}
