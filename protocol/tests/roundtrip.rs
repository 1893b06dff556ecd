//! What is written is what is read back: lines, commands, replies, answers, records, prekeys.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use protocol::identifier::RecordName;
use protocol::limits::LINE_OCTETS_DEFAULT;
use protocol::parameter::{escape, unescape};
use protocol::prekey::{
    CurveKey, MlKemKey, OneTimeKeys, P256Point, Prekey, PrekeyKeys, SignedKeys,
};
use protocol::record::{Record, RecordBuilder};
use protocol::reply::{AnswerWriter, Assembler};
use protocol::signature::{Signer as _, SoftwareSigner};
use protocol::{
    Address, AddressBuf, Code, Command, Error, Line, LineBuffer, Reply, ReplyBuilder, Suite,
    Timestamp,
};

fn address() -> impl Strategy<Value = String> {
    let local = option::of("[a-z0-9._+-]{1,20}");
    (local, "[a-z0-9]{1,10}(\\.[a-z0-9]{1,5}){0,2}", option::of("[a-z0-9]{1,16}")).prop_map(
        |(local, domain, device)| {
            let local = local.map(|local| format!("{local}@")).unwrap_or_default();
            let device = device.map(|device| format!("/{device}")).unwrap_or_default();
            format!("{local}{domain}{device}")
        },
    )
}

fn parameters() -> impl Strategy<Value = Vec<(String, String)>> {
    btree_map("[A-Z][A-Z0-9-]{0,15}", ".{0,40}", 0..10).prop_map(|map| {
        map.into_iter().map(|(name, text)| (name, escape(&text))).collect::<Vec<_>>()
    })
}

/// Code, TO, FROM, parameters, body, signature.
type Parts =
    (u16, Option<String>, Option<String>, Vec<(String, String)>, Option<Vec<u8>>, Option<Vec<u8>>);

fn command() -> impl Strategy<Value = Parts> {
    let code = prop_oneof![0..200u16, 600..1_000u16];
    let slot = || option::of(vec(any::<u8>(), 1..300));
    (code, option::of(address()), option::of(address()), parameters(), slot(), slot()).prop_map(
        |(code, to, from, parameters, body, signature)| {
            let has_from = from.is_some();
            let slot = |slot: Option<Vec<u8>>| slot.filter(|_| has_from);
            (code, to, from.clone(), parameters, slot(body), slot(signature))
        },
    )
}

fn write((code, to, from, parameters, body, signature): &Parts) -> String {
    let mut line = Command::builder(Code::new(*code).unwrap());
    if let Some(to) = to {
        line = line.to(Address::parse(to).unwrap());
    }
    if let Some(from) = from {
        line = line.from(Address::parse(from).unwrap());
    }
    for (name, value) in parameters {
        line = line.parameter(name, value);
    }
    match (body, signature) {
        (None, None) => line.finish(),
        (Some(body), None) => line.body(body),
        (body, Some(signature)) => line
            .sign::<Error>(body.as_deref().unwrap_or_default(), |_| Ok(signature.clone()))
            .unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn commands(parts in command()) {
        let line = write(&parts);
        let command = Command::parse(line.as_bytes()).unwrap();
        let (code, to, from, parameters, body, signature) = &parts;
        prop_assert_eq!(command.code().number(), *code);
        prop_assert_eq!(command.to().map(|to| to.as_str().to_owned()), to.clone());
        prop_assert_eq!(command.from().map(|from| from.as_str().to_owned()), from.clone());
        let read: Vec<(String, String)> =
            command.parameters().iter().map(|p| (p.name.into(), p.value.into())).collect();
        prop_assert_eq!(&read, parameters);
        prop_assert_eq!(command.body(), body.clone().unwrap_or_default());
        prop_assert_eq!(command.signature(), signature.clone().unwrap_or_default());
        prop_assert!(matches!(Line::parse(line.as_bytes()), Ok(Line::Command(_))));
        // A line that a relay passes on means the same.
        let mut forwarded = Vec::new();
        command.forward(&[], &mut forwarded);
        let forwarded = Command::parse(forwarded.strip_suffix(b"\r\n").unwrap()).unwrap();
        prop_assert_eq!(forwarded.tbs(), command.tbs());
        prop_assert_eq!(forwarded.aad(), command.aad());
    }

    #[test]
    fn canonical_octets_tell_commands_apart(one in command(), other in command()) {
        let signed = |parts: &Parts| {
            let (code, to, from, parameters, body, _) = parts.clone();
            let mut parameters: Vec<_> =
                parameters.into_iter().filter(|(name, _)| !name.starts_with("H-")).collect();
            parameters.sort();
            (code, to, from, parameters, body)
        };
        let tbs = |parts: &Parts| Command::parse(write(parts).as_bytes()).unwrap().tbs();
        prop_assert_eq!(signed(&one) == signed(&other), tbs(&one) == tbs(&other));
    }

    #[test]
    fn replies(
        code in 200..600u16,
        parameters in parameters(),
        text in "\\PC{0,60}",
        is_last in any::<bool>(),
    ) {
        let mut reply = if is_last { ReplyBuilder::last(code) } else { ReplyBuilder::more(code) };
        for (name, value) in &parameters {
            reply = reply.parameter(name, value);
        }
        let line = reply.text(&text);
        let reply = Reply::parse(line.strip_suffix("\r\n").unwrap().as_bytes()).unwrap();
        prop_assert_eq!((reply.code().number(), reply.is_last()), (code, is_last));
        prop_assert_eq!(reply.text(), text);
        let read: Vec<(String, String)> =
            reply.parameters().iter().map(|p| (p.name.into(), p.value.into())).collect();
        prop_assert_eq!(read, parameters);
    }

    #[test]
    fn texts(text in ".{0,80}") {
        prop_assert_eq!(unescape(&escape(&text)), Ok(text));
    }

    #[test]
    fn any_octets_are_refused_or_read_without_harm(octets in vec(any::<u8>(), 0..200)) {
        let _ = Line::parse(&octets);
    }

    #[test]
    fn streams(lines in vec("[ -~]{0,40}", 0..8), cuts in vec(1..60usize, 1..20)) {
        let stream: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut buffer = LineBuffer::new(LINE_OCTETS_DEFAULT);
        let mut found = Vec::new();
        let (mut rest, mut cuts) = (stream.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            buffer.push(chunk);
            rest = behind;
            while let Some(line) = buffer.next_line() {
                found.push(String::from_utf8(line.unwrap().to_vec()).unwrap());
            }
        }
        prop_assert_eq!(found, lines);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn answers(
        entries in vec(("[a-z0-9]{1,16}", 0..30_000usize, option::of(0..20_000usize)), 0..5),
        limit in LINE_OCTETS_DEFAULT..=65_536,
    ) {
        let mut writer = AnswerWriter::new(251, Some("9"), limit);
        let values: Vec<_> = entries
            .iter()
            .map(|(device, first, second)| {
                (device, "x".repeat(*first), second.map(|length| "y".repeat(length)))
            })
            .collect();
        for (device, first, second) in &values {
            let mut parts = vec![("DEV", device.as_str()), ("PRE", first.as_str())];
            parts.extend(second.as_deref().map(|second| ("ONE", second)));
            writer.entry(&parts).unwrap();
        }
        let lines = writer.finish("done");
        let mut assembler = Assembler::new(Some("DEV"));
        let mut answer = None;
        for line in &lines {
            prop_assert!(line.len() <= limit);
            let reply = Reply::parse(line.strip_suffix("\r\n").unwrap().as_bytes()).unwrap();
            answer = assembler.push(&reply).unwrap();
        }
        let answer = answer.unwrap();
        prop_assert_eq!(answer.entries.len(), values.len());
        for (entry, (device, first, second)) in answer.entries.iter().zip(&values) {
            prop_assert_eq!(entry.get("DEV"), Some(device.as_str()));
            prop_assert_eq!(entry.get("PRE"), Some(first.as_str()));
            prop_assert_eq!(entry.get("ONE"), second.as_deref());
        }
    }

    #[test]
    fn records(
        seeds in vec(any::<[u8; 32]>(), 2..6),
        chain in vec((any::<bool>(), any::<bool>()), 0..4),
        signed in any::<bool>(),
    ) {
        let keys: Vec<SoftwareSigner> =
            seeds.iter().map(|seed| SoftwareSigner::ed25519(seed).unwrap()).collect();
        let account = AddressBuf::parse("alice@a.example").unwrap();
        let mut builder = RecordBuilder::new(account.as_address(), Timestamp(5), Timestamp(9))
            .suites(&[Suite::M2, Suite::M1])
            .signed(signed);
        for (position, key) in keys[1..].iter().enumerate() {
            builder = builder.device(&format!("d{position}"), key.public_key());
        }
        let mut holder = 0;
        let line = builder.sign(&keys[holder]).unwrap();
        let mut record = read(&line).unwrap();
        prop_assert_eq!(record.devices().len(), keys.len() - 1);
        prop_assert_eq!(record.is_signed(), signed);
        for (rotates, drops) in chain {
            let old = holder;
            holder = if rotates { (holder + 1) % keys.len() } else { holder };
            let mut next = RecordBuilder::after(&record);
            if drops {
                next = next.without_device("d0");
            }
            let line =
                next.sign_with(&keys[holder], rotates.then_some(&keys[old] as _), None).unwrap();
            let follower = record.follow(&Command::parse(line.as_bytes()).unwrap()).unwrap();
            prop_assert_eq!(follower.previous(), Some(record.name()));
            let is_kept = record.device("d0").is_some() && !drops;
            prop_assert_eq!(follower.device("d0").is_some(), is_kept);
            record = follower;
        }
    }

    #[test]
    fn prekeys(
        number in any::<u64>(),
        made in 0..u64::MAX / 2,
        life in 1..=30 * 24 * 60 * 60 * 1_000u64,
        octets in any::<[u8; 32]>(),
        coefficients in vec(0..3_329u16, 768),
        shape in any::<(bool, bool, bool)>(),
    ) {
        let signer = SoftwareSigner::ed25519(&octets).unwrap();
        let (point, _) = SoftwareSigner::generate_p256().unwrap();
        let point = P256Point::parse(point.public_key().as_octets()).unwrap();
        let ml_kem = ml_kem(&coefficients);
        let (is_signed, with_ml_kem, with_p256) = shape;
        let keys = if is_signed {
            let p256 = with_p256.then_some(point);
            PrekeyKeys::Signed(SignedKeys { x25519: octets, ml_kem, p256, rsa: None })
        } else {
            let curve =
                if with_p256 { CurveKey::P256(point) } else { CurveKey::X25519(octets) };
            PrekeyKeys::OneTime(OneTimeKeys { curve, ml_kem: with_ml_kem.then_some(ml_kem) })
        };
        let prekey = Prekey {
            device: AddressBuf::parse("alice@a.example/d1").unwrap(),
            number,
            made: Timestamp(made),
            not_after: Timestamp(made + life),
            keys,
        };
        let line = prekey.sign(&signer).unwrap();
        let record = RecordBuilder::new(
            Address::parse("alice@a.example").unwrap(), Timestamp(1), Timestamp(2),
        )
        .device("d1", signer.public_key())
        .sign(&signer)
        .unwrap();
        let command = Command::parse(line.as_bytes()).unwrap();
        prop_assert_eq!(Prekey::verify(&command, &read(&record).unwrap()), Ok(prekey));
    }
}

/// The encapsulation key of these coefficients, packed as FIPS 203 §4.2.1 has it.
fn ml_kem(coefficients: &[u16]) -> MlKemKey {
    let mut octets = Vec::new();
    for pair in coefficients.chunks(2) {
        let (first, second) = (pair[0], pair[1]);
        octets.push(first as u8);
        octets.push((first >> 8) as u8 | (second << 4) as u8);
        octets.push((second >> 4) as u8);
    }
    octets.extend_from_slice(&[7; 32]);
    MlKemKey::parse(&octets).unwrap()
}

fn read(line: &str) -> Result<Record, Error> {
    let record = Record::parse(&Command::parse(line.as_bytes())?)?;
    assert_eq!(RecordName::parse(record.name().as_str()), Some(record.name()));
    Ok(record)
}

#[test]
fn a_signature_of_another_key_is_another_record() {
    let account = Address::parse("alice@a.example").unwrap();
    let sign = |seed: u8| {
        let key = SoftwareSigner::ed25519(&[seed; 32]).unwrap();
        read(&RecordBuilder::new(account, Timestamp(1), Timestamp(2)).sign(&key).unwrap())
    };
    assert_ne!(sign(1).unwrap().name(), sign(2).unwrap().name());
}
