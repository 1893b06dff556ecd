//! The codec: round trips over any chunking, and octets that are no frames.

use proptest::prelude::*;

use super::*;
use crate::job::{Operation, OperationCount, TokenInfo};

fn key() -> impl Strategy<Value = KeyName> {
    (0..Purpose::ALL.len(), proptest::option::of(1..=1_000_u32))
        .prop_map(|(at, version)| KeyName { purpose: Purpose::ALL[at], version })
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    (0..Algorithm::ALL.len()).prop_map(|at| Algorithm::ALL[at])
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=max)
}

fn request() -> impl Strategy<Value = Request> {
    let data_key = (2..=8_usize).prop_map(|words| Secret::new(vec![7; words * 8]));
    prop_oneof![
        Just(Request::Ping),
        Just(Request::Describe),
        (1..=1_000_u32, 0..4_usize).prop_map(|(version, at)| Request::Generate {
            key: KeyName::exact(Purpose::ALL[at], version)
        }),
        key().prop_map(|key| Request::PublicKey { key }),
        (0..=4_096_u32).prop_map(|length| Request::Random { length }),
        (key(), algorithm(), bytes(3_000)).prop_map(|(key, algorithm, message)| Request::Sign {
            key,
            algorithm,
            message
        }),
        bytes(limits::BLOB_BYTES_MAX).prop_map(|blob| Request::Unwrap { blob }),
        (algorithm(), bytes(1_200), bytes(2_000), bytes(1_024)).prop_map(
            |(algorithm, public_key, message, signature)| Request::Verify {
                algorithm,
                public_key,
                message,
                signature
            }
        ),
        data_key.prop_map(|data_key| Request::Wrap { kek: Purpose::Spool.into(), data_key }),
    ]
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    "\\PC{0,60}".prop_map(Cow::Owned)
}

fn fault() -> impl Strategy<Value = Fault> {
    (proptest::option::of(any::<u64>()), text(), any::<u64>())
        .prop_map(|(slot, function, code)| Fault { slot, function, code })
}

fn error() -> impl Strategy<Value = Error> {
    let millis = || any::<u32>().prop_map(|ms| Duration::from_millis(ms.into()));
    prop_oneof![
        (text(), millis()).prop_map(|(reason, retry_after)| Error::Away { reason, retry_after }),
        (text(), any::<u64>()).prop_map(|(what, limit)| Error::Busy { what, limit }),
        text().prop_map(|what| Error::Damaged { what }),
        millis().prop_map(|after| Error::Deadline { after }),
        (text(), text()).prop_map(|(path, reason)| Error::Disconnected { path, reason }),
        text().prop_map(|what| Error::Forbidden { what }),
        text().prop_map(|key| Error::KeyChanged { key }),
        (text(), text()).prop_map(|(key, domain)| Error::KeyMissing { key, domain }),
        text().prop_map(|what| Error::Malformed { what }),
        text().prop_map(|what| Error::MechanismMissing { what }),
        (text(), text()).prop_map(|(path, reason)| Error::Module { path, reason }),
        (text(), text())
            .prop_map(|(wrapped_by, present)| Error::OtherToken { wrapped_by, present }),
        text().prop_map(|reason| Error::Pin { reason }),
        fault().prop_map(|fault| Error::PinRefused { fault }),
        fault().prop_map(|fault| Error::Refused { fault }),
        Just(Error::Stopping),
        fault().prop_map(|fault| Error::Token { fault }),
        text().prop_map(|what| Error::Wire { what }),
        text().prop_map(|what| Error::WrongAnswer { what }),
    ]
}

fn description() -> Description {
    Description {
        version: "0.1.0".into(),
        state: State { phase: Phase::Ready, generation: 3, reason: String::new() },
        domain: "a.example".into(),
        token: TokenInfo { slot: 7, label: "token".into(), ..TokenInfo::default() },
        keys: vec![PublicKey {
            key: KeyName::exact(Purpose::Tls, 1),
            kind: KeyKind::P256,
            point: vec![4; 65],
        }],
        proven: vec!["random".into()],
        sessions: 2,
        wedged: 0,
        queued: 1,
        queue_max: 4,
        uptime_ms: 5,
        pin_attempts: 1,
        operations: vec![OperationCount {
            operation: Operation::Sign,
            succeeded: 1,
            failed: 2,
            busy: 3,
            overdue: 4,
            retried: 5,
            token_micros: vec![0, 1],
            total_micros: vec![1, 0],
        }],
    }
}

fn response() -> impl Strategy<Value = Response> {
    let public = || {
        (1..=9_u32, bytes(65)).prop_map(|(version, point)| PublicKey {
            key: KeyName::exact(Purpose::Domain, version),
            kind: KeyKind::P256,
            point,
        })
    };
    let state = (0..Phase::ALL.len(), any::<u64>(), "\\PC{0,60}")
        .prop_map(|(at, generation, reason)| State { phase: Phase::ALL[at], generation, reason });
    prop_oneof![
        Just(Response::Described(Box::new(description()))),
        public().prop_map(Response::Generated),
        public().prop_map(Response::PublicKey),
        bytes(4_096).prop_map(|bytes| Response::Random(Secret::new(bytes))),
        bytes(1_024).prop_map(Response::Signature),
        state.prop_map(Response::State),
        bytes(64).prop_map(|bytes| Response::Unwrapped(Secret::new(bytes))),
        any::<bool>().prop_map(Response::Verified),
        bytes(512).prop_map(Response::Wrapped),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip_over_any_chunking(
        requests in prop::collection::vec((1..u64::MAX, 1..u32::MAX, request()), 1..5),
        chunk in 1..5_000_usize,
    ) {
        let mut stream = Vec::new();
        for (id, deadline, request) in &requests {
            let deadline = Duration::from_millis((*deadline).into());
            encode_request(&mut stream, *id, deadline, request).unwrap();
        }
        let mut decoder = Decoder::new();
        let mut got = Vec::new();
        for piece in stream.chunks(chunk) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_request().unwrap() {
                got.push((frame.id, frame.deadline_ms, frame.request));
            }
        }
        prop_assert_eq!(got, requests);
    }

    #[test]
    fn responses_round_trip(
        id in any::<u64>(),
        outcome in prop_oneof![response().prop_map(Ok), error().prop_map(Err)],
    ) {
        let mut stream = Vec::new();
        encode_response(&mut stream, id, &outcome);
        let mut decoder = Decoder::new();
        decoder.push(&stream);
        let frame = decoder.next_response().unwrap().unwrap();
        prop_assert_eq!(frame, ResponseFrame { id, outcome });
        prop_assert_eq!(decoder.next_response().unwrap(), None);
    }

    #[test]
    fn mutated_frames_never_panic(
        request in request(),
        outcome in prop_oneof![response().prop_map(Ok), error().prop_map(Err)],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = Vec::new();
        encode_request(&mut stream, 1, Duration::from_secs(1), &request).unwrap();
        encode_response(&mut stream, 1, &outcome);
        for (at, value) in changes {
            let at = at.index(stream.len());
            stream[at] = value;
        }
        stream.truncate(cut.index(stream.len()) + 1);
        for decode in [
            |decoder: &mut Decoder| decoder.next_request().map(|frame| frame.is_some()),
            |decoder: &mut Decoder| decoder.next_response().map(|frame| frame.is_some()),
        ] {
            let mut decoder = Decoder::new();
            decoder.push(&stream);
            while let Ok(true) = decode(&mut decoder) {}
        }
    }

    #[test]
    fn noise_never_panics(noise in bytes(400)) {
        let mut decoder = Decoder::new();
        decoder.push(&noise);
        while let Ok(Some(_)) = decoder.next_request() {}
        let mut decoder = Decoder::new();
        decoder.push(&noise);
        while let Ok(Some(_)) = decoder.next_response() {}
    }
}

fn refusal(frame: &[u8]) -> String {
    let mut decoder = Decoder::new();
    decoder.push(&u32::try_from(frame.len()).unwrap().to_be_bytes());
    decoder.push(frame);
    decoder.next_request().unwrap_err().to_string()
}

#[test]
fn malformed_frames_are_named() {
    let ping = |version: u8, kind: u8, id: u8, rest: &[u8]| {
        [&[version, kind, 0, 0, 0, 0, 0, 0, 0, id][..], rest].concat()
    };
    for (frame, word) in [
        (vec![], "shorter"),
        (vec![1; 9], "shorter"),
        (ping(2, 1, 1, &[0; 4]), "version"),
        (ping(1, 0, 1, &[0; 4]), "kind"),
        (ping(1, 10, 1, &[0; 4]), "kind"),
        (ping(1, 1, 0, &[0; 4]), "id 0"),
        (ping(1, 1, 1, &[0; 3]), "within a field"),
        (ping(1, 1, 1, &[0; 5]), "behind"),
        (ping(1, 4, 1, &[0, 0, 0, 0, 9, 0, 0, 0, 1]), "purpose"),
        (ping(1, 6, 1, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 9]), "algorithm"),
        (ping(1, 7, 1, &[0, 0, 0, 0, 0, 0, 2, 1]), "longer"),
        (ping(1, 7, 1, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "longer"),
        (ping(1, 7, 1, &[0, 0, 0, 0, 0, 0, 2, 0]), "within a field"),
    ] {
        let said = refusal(&frame);
        assert!(said.contains(word), "{frame:?}: {said}");
    }
}

#[test]
fn a_frame_may_have_the_longest_length_but_not_one_more() {
    for (length, is_waiting) in
        [(limits::FRAME_BYTES_MAX, true), (limits::FRAME_BYTES_MAX + 1, false)]
    {
        let mut decoder = Decoder::new();
        decoder.push(&u32::try_from(length).unwrap().to_be_bytes());
        assert_eq!(decoder.next_request().is_ok(), is_waiting);
    }
}

#[test]
fn oversize_jobs_are_not_encoded() {
    let mut out = b"before".to_vec();
    let message = vec![0; limits::MESSAGE_BYTES_MAX];
    let sign = |message| Request::Sign {
        key: Purpose::Domain.into(),
        algorithm: Algorithm::P256,
        message,
    };
    encode_request(&mut out, 1, Duration::from_secs(1), &sign(message.clone())).unwrap();
    out.truncate(6);
    let over = [message, vec![0]].concat();
    for request in [
        sign(over),
        Request::Random { length: 4_097 },
        Request::Unwrap { blob: vec![0; limits::BLOB_BYTES_MAX + 1] },
        Request::Wrap { kek: Purpose::Spool.into(), data_key: Secret::new(vec![0; 72]) },
        Request::Wrap { kek: Purpose::Spool.into(), data_key: Secret::new(vec![0; 8]) },
        Request::Wrap { kek: Purpose::Spool.into(), data_key: Secret::new(vec![0; 33]) },
        Request::Wrap { kek: Purpose::Tls.into(), data_key: Secret::new(vec![0; 32]) },
        Request::Generate { key: Purpose::Tls.into() },
        Request::Generate { key: KeyName::exact(Purpose::Tls, 1_001) },
    ] {
        assert!(encode_request(&mut out, 1, Duration::from_secs(1), &request).is_err());
        assert_eq!(out, b"before");
    }
}
