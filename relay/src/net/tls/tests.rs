//! The session against a rustls client in memory: any chunking, hostile octets, idle memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::sync::Arc;

use aws_lc_rs::aead;
use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection};

use super::*;
use crate::net::tests::{Software, client_configuration};

fn pair() -> (Session, ClientConnection, Arc<ClientConfig>) {
    let software = Software::new();
    let configuration = software.configuration();
    let client = Arc::new(client_configuration(&software.certificate, &[b"cim1"]));
    let name = "a.example".try_into().unwrap();
    let connection = ClientConnection::new(Arc::clone(&client), name).unwrap();
    (Session::new(&configuration).unwrap(), connection, client)
}

fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut octets = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut octets).unwrap();
    }
    octets
}

fn read(client: &mut ClientConnection, mut octets: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    while !octets.is_empty() {
        client.read_tls(&mut octets).unwrap();
        client.process_new_packets().unwrap();
        let mut buffer = [0; 4_096];
        while let Ok(count) = client.reader().read(&mut buffer) {
            if count == 0 {
                break;
            }
            plaintext.extend_from_slice(&buffer[..count]);
        }
    }
    plaintext
}

fn shake(session: &mut Session, client: &mut ClientConnection, chunk: usize) {
    for _ in 0..4 {
        let mut outgoing = Vec::new();
        let mut octets = written(client);
        for piece in octets.chunks_mut(chunk) {
            session.feed(piece, &mut outgoing, |_| panic!("no plaintext yet")).unwrap();
        }
        read(client, &outgoing);
    }
    assert!(!session.is_handshaking());
    assert!(!client.is_handshaking());
}

#[test]
fn both_sides_export_the_same_value_and_prefer_the_hybrid_group() {
    for chunk in [1, 7, 100_000] {
        let (mut session, mut client, _) = pair();
        assert!(session.next_step_is_long());
        shake(&mut session, &mut client, chunk);
        assert!(!session.next_step_is_long());
        let theirs = client.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).unwrap();
        assert_eq!(session.exporter(), Some(theirs));
        assert_eq!(
            client.negotiated_key_exchange_group().unwrap().name(),
            rustls::NamedGroup::X25519MLKEM768
        );
        assert_eq!(session.alpn(), Some(ALPN_CLIENT));
        assert_eq!(session.exporter().map(|value| value.len()), Some(EXPORTER_LENGTH));
    }
}

#[test]
fn the_exporter_of_each_suite_agrees() {
    for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
        if suite.tls13().is_none() {
            continue;
        }
        let software = Software::new();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![*suite];
        let client = crate::net::tests::client_with(provider, &software.certificate, &[b"cim1"]);
        let name = "a.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut session = Session::new(&software.configuration()).unwrap();
        shake(&mut session, &mut client, 1_000);
        let theirs = client.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        assert_eq!(session.exporter(), Some(theirs), "{suite:?}");
    }
}

#[test]
fn sessions_resume_without_the_signer() {
    let software = Software::new();
    let configuration = software.configuration();
    let client = Arc::new(client_configuration(&software.certificate, &[b"cim1"]));
    for resumed in [false, true, true] {
        let mut session = Session::new(&configuration).unwrap();
        let name = "a.example".try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&client), name).unwrap();
        shake(&mut session, &mut connection, 5_000);
        assert_eq!(session.resumed(), resumed);
        let theirs = connection.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        assert_eq!(session.exporter(), Some(theirs));
    }
    assert_eq!(software.signatures(), 1);
}

#[test]
fn key_updates_from_either_side_go_through() {
    let (mut session, mut client, _) = pair();
    shake(&mut session, &mut client, 9_999);
    for round in 0..5_u8 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[round; 300]).unwrap();
        let (mut outgoing, mut plaintext) = (Vec::new(), Vec::new());
        let mut octets = written(&mut client);
        for piece in octets.chunks_mut(33) {
            session.feed(piece, &mut outgoing, |got| plaintext.extend_from_slice(got)).unwrap();
        }
        assert_eq!(plaintext, [round; 300]);
        session.seal(&plaintext, &mut outgoing).unwrap();
        assert_eq!(read(&mut client, &outgoing), [round; 300]);
    }
}

#[test]
fn nothing_is_kept_while_idle() {
    let (mut session, mut client, _) = pair();
    shake(&mut session, &mut client, 100);
    assert_eq!(session.incoming.capacity(), 0);
    client.writer().write_all(&[1; 10_000]).unwrap();
    let mut octets = written(&mut client);
    let mut count = 0;
    for piece in octets.chunks_mut(1_000) {
        session.feed(piece, &mut Vec::new(), |got| count += got.len()).unwrap();
        assert!(session.buffered() <= 10_100);
    }
    assert_eq!(count, 10_000);
    assert_eq!(session.incoming.capacity(), 0);
}

#[test]
fn closing_is_said_and_heard() {
    let (mut session, mut client, _) = pair();
    shake(&mut session, &mut client, 100);
    client.writer().write_all(b"last").unwrap();
    client.send_close_notify();
    let (mut outgoing, mut plaintext) = (Vec::new(), Vec::new());
    let mut octets = written(&mut client);
    let progress =
        session.feed(&mut octets, &mut outgoing, |got| plaintext.extend_from_slice(got)).unwrap();
    assert_eq!((progress, &plaintext[..]), (Progress::PeerClosed, &b"last"[..]));
    session.seal(b"bye", &mut outgoing).unwrap();
    session.close_notify(&mut outgoing).unwrap();
    let mut rest = &outgoing[..];
    client.read_tls(&mut rest).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn other_protocols_versions_and_none_are_refused_with_an_alert() {
    let software = Software::new();
    let tls12 = {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(software.certificate.clone().into()).unwrap();
        let mut client = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"cim1".to_vec()];
        client
    };
    let rows = [
        ("no protocol", client_configuration(&software.certificate, &[])),
        ("other protocol", client_configuration(&software.certificate, &[b"http/1.1"])),
        ("domain lane", client_configuration(&software.certificate, &[b"cim1-d"])),
        ("TLS 1.2", tls12),
    ];
    for (what, client) in rows {
        let name = "a.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut session = Session::new(&software.configuration()).unwrap();
        let mut outgoing = Vec::new();
        let result = session.feed(&mut written(&mut client), &mut outgoing, |_| {});
        assert!(result.is_err(), "{what}");
        client.read_tls(&mut &outgoing[..]).unwrap();
        let told = client.process_new_packets().unwrap_err();
        assert!(matches!(told, rustls::Error::AlertReceived(_)), "{what}: {told}");
        assert!(session.exporter().is_none());
    }
    assert_eq!(software.signatures(), 0);
}

#[test]
fn a_signer_that_is_away_is_not_the_peers_fault() {
    let software = Software::new();
    software.fail(Some(SignError::Unavailable));
    let client = Arc::new(client_configuration(&software.certificate, &[b"cim1"]));
    let name = "a.example".try_into().unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut session = Session::new(&software.configuration()).unwrap();
    let result = session.feed(&mut written(&mut client), &mut Vec::new(), |_| {});
    assert!(matches!(result, Err(TlsError::Sign(SignError::Unavailable))));
}

#[test]
fn handshakes_are_bounded_and_begin_like_tls() {
    let configuration = Software::new().configuration();
    let session = || Session::new(&configuration).unwrap();
    for (what, octets) in [
        ("HTTP", &b"GET / HTTP/1.1\r\n"[..]),
        ("SSH", b"SSH-2.0-OpenSSH\r\n"),
        ("our own lines", b"010 H-ID=1\r\n"),
        ("an alert", &[21, 3, 3, 0, 2, 2, 40]),
        ("too long a record", &[22, 3, 1, 0xFF, 0xFF]),
        ("version 2", &[22, 2, 0]),
        ("zeros", &[0; 64]),
    ] {
        assert!(matches!(session().accumulate(octets), Err(TlsError::NotTls)), "{what}");
    }
    for octets in [&[][..], &[22], &[22, 3], &[22, 3, 1], &[22, 3, 1, 0], &[22, 3, 1, 0, 1]] {
        assert!(!session().accumulate(octets).unwrap(), "{octets:?}");
    }
    assert!(session().accumulate(&[22, 3, 1, 0, 1, 1]).unwrap());
    let mut at_limit = session();
    let mut long = vec![0; limits::HANDSHAKE_BYTES_MAX];
    long[..5].copy_from_slice(&[22, 3, 1, 0x40, 0]);
    assert!(at_limit.accumulate(&long).unwrap(), "n");
    assert!(matches!(at_limit.accumulate(&[0]), Err(TlsError::TooLong)), "n + 1");
}

#[test]
fn every_flipped_octet_of_a_record_is_noticed() {
    const LINE: &[u8] = b"100 TO alice@a.example";
    let length = LINE.len() + RECORD_OVERHEAD;
    for place in 0..length {
        let (mut session, mut client, _) = pair();
        shake(&mut session, &mut client, 4_000);
        client.writer().write_all(LINE).unwrap();
        let mut octets = written(&mut client);
        assert_eq!(octets.len(), length);
        octets[place] ^= 1;
        let (mut outgoing, mut got) = (Vec::new(), Vec::new());
        let result = session.feed(&mut octets, &mut outgoing, |plain| got.extend_from_slice(plain));
        match place {
            // Outer type and version say nothing in TLS 1.3 (RFC 8446 §5.2), the library takes
            // them as what they have to be.
            0..3 => assert!(result.is_err() || got == LINE, "octet {place}"),
            // A longer or shorter record.
            3..5 => assert!(result.is_err() || got.is_empty(), "octet {place}"),
            _ => assert!(result.is_err() && got.is_empty(), "octet {place}"),
        }
        if result.is_err() {
            assert!(session.seal(b"more", &mut outgoing).is_err(), "octet {place}");
        }
    }
}

/// A client whose keys we hold, so that it can say what no library would.
struct Crafter {
    key: aead::LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Crafter {
    fn new(session: &mut Session) -> Crafter {
        let software = Software::new();
        *session = Session::new(&software.configuration()).unwrap();
        let mut trusting = client_configuration(&software.certificate, &[b"cim1"]);
        trusting.enable_secret_extraction = true;
        let name = "a.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(trusting), name).unwrap();
        shake(session, &mut client, 4_000);
        let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        let rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("AES-256-GCM is preferred");
        };
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.as_ref()).unwrap();
        let iv = iv.as_ref().try_into().unwrap();
        Crafter { key: aead::LessSafeKey::new(key), iv, sequence }
    }

    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[kind]].concat();
        let length = (inner.len() + 16) as u16;
        let header = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
        let mut nonce = self.iv;
        for (octet, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *octet ^= sequence;
        }
        self.sequence += 1;
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, aead::Aad::from(&header), &mut inner).unwrap();
        [header, inner].concat()
    }
}

fn crafted() -> (Session, Crafter) {
    let (mut session, _, _) = pair();
    let crafter = Crafter::new(&mut session);
    (session, crafter)
}

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 1];

#[test]
fn a_key_update_cut_into_two_records_harms_nobody() {
    for cut in 1..KEY_UPDATE.len() {
        let (mut session, mut crafter) = crafted();
        let mut outgoing = Vec::new();
        let mut first = crafter.record(22, &KEY_UPDATE[..cut]);
        let fed = session.feed(&mut first, &mut outgoing, |_| panic!("no plaintext"));
        let _ = session.seal(b"in between", &mut outgoing);
        let mut second = crafter.record(22, &KEY_UPDATE[cut..]);
        if fed.is_ok() {
            let _ = session.feed(&mut second, &mut outgoing, |_| panic!("no plaintext"));
        }
        let _ = session.seal(b"after", &mut outgoing);
        let _ = session.close_notify(&mut outgoing);
    }
}

#[test]
fn a_handshake_message_without_end_is_bounded() {
    let (mut session, mut crafter) = crafted();
    let mut outgoing = Vec::new();
    // A message that claims 16 MiB, a kilobyte at a time.
    let mut record = crafter.record(22, &[24, 0xFF, 0xFF, 0xFF]);
    for _ in 0..100 {
        if session.feed(&mut record, &mut outgoing, |_| panic!("no plaintext")).is_err() {
            return;
        }
        assert!(session.buffered() <= limits::INCOMING_TLS_BYTES_MAX);
        let _ = session.seal(b"x", &mut outgoing);
        record = crafter.record(22, &[0; 1_000]);
    }
    panic!("a hundred kilobytes were taken");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn sealed_nonsense_never_panics(
        records in proptest::collection::vec(
            (
                prop_oneof![Just(22_u8), Just(22), Just(21), Just(23), Just(20), any::<u8>()],
                prop_oneof![
                    Just(KEY_UPDATE.to_vec()),
                    Just(vec![24, 0, 0, 1, 0]),
                    Just(KEY_UPDATE.repeat(3)),
                    (0_usize..5).prop_map(|cut| KEY_UPDATE[..cut].to_vec()),
                    (0_usize..5).prop_map(|cut| KEY_UPDATE[cut..].to_vec()),
                    Just(vec![1, 0]),
                    Just(vec![2, 40]),
                    Just(Vec::new()),
                    proptest::collection::vec(any::<u8>(), 0..60),
                ],
            ),
            1..12,
        ),
        chunk in 1_usize..200,
        seals in any::<bool>(),
    ) {
        let (mut session, mut crafter) = crafted();
        let mut outgoing = Vec::new();
        'all: for (kind, content) in records {
            let mut record = crafter.record(kind, &content);
            for piece in record.chunks_mut(chunk) {
                if session.feed(piece, &mut outgoing, |_| {}).is_err() {
                    break 'all;
                }
                if seals {
                    let _ = session.seal(b"x", &mut outgoing);
                }
            }
        }
        let _ = session.seal(b"last", &mut outgoing);
        let _ = session.close_notify(&mut outgoing);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunking_carries_any_lines(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20_000), 1..6),
        chunk in 1_usize..6_000,
    ) {
        let (mut session, mut client, _) = pair();
        shake(&mut session, &mut client, chunk);
        for line in lines {
            client.writer().write_all(&line).unwrap();
            let (mut outgoing, mut plaintext) = (Vec::new(), Vec::new());
            let mut octets = written(&mut client);
            for piece in octets.chunks_mut(chunk) {
                session.feed(piece, &mut outgoing, |got| plaintext.extend_from_slice(got)).unwrap();
            }
            prop_assert_eq!(&plaintext, &line);
            session.seal(&plaintext, &mut outgoing).unwrap();
            prop_assert_eq!(&read(&mut client, &outgoing), &line);
        }
    }

    #[test]
    fn noise_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        after in 0_usize..3,
        chunk in 1_usize..64,
    ) {
        let (mut session, mut client, _) = pair();
        if after == 1 {
            session.feed(&mut written(&mut client), &mut Vec::new(), |_| {}).unwrap();
        } else if after == 2 {
            shake(&mut session, &mut client, 1_000);
        }
        let mut noise = noise;
        if noise.len() > 5 {
            // Something that parses as a record, more often than not.
            noise[0] = 20 + noise[0] % 5;
            noise[1..3].copy_from_slice(&[3, 3]);
            noise[3] = 0;
        }
        for piece in noise.chunks_mut(chunk) {
            let mut outgoing = Vec::new();
            if session.feed(piece, &mut outgoing, |_| {}).is_err() {
                break;
            }
            let _ = session.seal(b"x", &mut outgoing);
        }
    }
}
