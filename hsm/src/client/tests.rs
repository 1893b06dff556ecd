//! The client against the real service on a fake token, and against peers that misbehave.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::*;
use crate::error::Class;
use crate::fake::Fake;
use crate::job::Phase;

struct Bench {
    dir: tempfile::TempDir,
    fake: Fake,
    client: Client,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let fake = Fake::start(&path).unwrap();
    Bench { dir, fake, client: Client::connect(path).unwrap() }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn jobs_of_many_threads_come_back_to_whom_they_belong() {
    let bench = bench();
    let public = bench.client.public_key(Purpose::Domain).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16_u32 {
            let (client, public) = (&bench.client, &public);
            scope.spawn(move || {
                for job in 0..50_u32 {
                    let message = (thread << 16 | job).to_be_bytes();
                    let made = client.sign(Purpose::Domain, &message).unwrap();
                    assert!(crate::signature::holds(&public.point, &message, &made));
                }
            });
        }
    });
    assert_eq!(bench.client.health().in_flight, 0);
    assert!(bench.client.health().is_ready());
}

#[test]
fn a_deadline_is_kept_whoever_sleeps() {
    let bench = bench();
    bench.client.ping().unwrap();
    bench.fake.switches().set_hanging(true);
    let request = Request::Random { length: 8 };
    let started = Instant::now();
    let outcome = bench.client.call(&request, Duration::from_millis(80));
    assert!(matches!(outcome, Err(Error::Deadline { .. })), "{outcome:?}");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(75) && took < Duration::from_millis(200), "{took:?}");
    let (sender, answers) = channel();
    let done = move |outcome| sender.send(outcome).unwrap();
    bench.client.submit(&request, Duration::from_millis(50), done).unwrap();
    let outcome = answers.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(matches!(outcome, Err(Error::Deadline { .. })), "{outcome:?}");
    bench.fake.switches().set_hanging(false);
    assert_eq!(bench.client.health().in_flight, 0);
}

#[test]
fn a_restarted_service_is_found_again_and_jobs_are_repeated() {
    let mut bench = bench();
    bench.client.ping().unwrap();
    let client = bench.client.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopping = stop.clone();
    let worker = std::thread::spawn(move || {
        let (mut well, mut ill) = (0_u32, Vec::new());
        while !stopping.load(Ordering::SeqCst) {
            match client.sign(Purpose::Tls, b"under a restart") {
                Ok(_) => well += 1,
                Err(error) => ill.push(error),
            }
        }
        (well, ill)
    });
    for round in 2..6 {
        bench.fake.stop();
        bench.fake.serve().unwrap();
        until("a new connection", || bench.client.health().connections == round);
        until("ready", || bench.client.health().is_ready());
    }
    stop.store(true, Ordering::SeqCst);
    let (well, ill) = worker.join().unwrap();
    assert!(well > 0);
    // Only what the stopping service itself refused may have failed.
    for error in ill {
        assert!(matches!(error, Error::Stopping), "{error}");
    }
}

#[test]
fn an_absent_service_is_said_with_its_path_after_the_patience() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let mut settings = Settings::new(&path);
    settings.patience = Duration::from_millis(50);
    let client = Client::start(settings).unwrap();
    let started = Instant::now();
    let error = client.ping().unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(error.class(), Class::Away);
    let text = error.to_string();
    assert!(text.contains("none") && text.contains("is cipherim-hsmd running?"), "{text}");
    let started = Instant::now();
    assert!(matches!(client.ping(), Err(Error::Disconnected { .. })));
    assert!(started.elapsed() < Duration::from_millis(40), "at once, the second time");
    assert!(matches!(client.health().link, Link::Down { .. }));
    // It comes up later: nobody has to do anything.
    let _fake = Fake::start(&path).unwrap();
    until("up", || client.health().link == Link::Up);
    until("an answer", || client.ping().is_ok());
}

#[test]
fn changes_of_the_token_are_told_without_asking() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let fake = Fake::start(&path).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let mut settings = Settings::new(&path);
    settings.observer = Some(Arc::new(move |health: &Health| {
        kept.lock().unwrap().push(health.token.as_ref().map(|state| state.phase));
    }));
    let client = Client::start(settings).unwrap();
    until("ready", || client.health().is_ready());
    fake.switches().set_away(true);
    let phase = |phase| client.health().token.is_some_and(|state| state.phase == phase);
    until("away", || phase(Phase::Away));
    fake.switches().set_away(false);
    until("ready again", || phase(Phase::Ready));
    let seen = seen.lock().unwrap();
    assert!(seen.contains(&Some(Phase::Away)) && seen.contains(&Some(Phase::Ready)), "{seen:?}");
}

#[test]
fn a_client_holds_n_jobs_and_no_more() {
    // A peer that takes everything and answers nothing.
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let client = Client::connect(dir.path().join("s")).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    let answered = Arc::new(AtomicUsize::new(0));
    let submit = || {
        let answered = answered.clone();
        let done = move |_| {
            answered.fetch_add(1, Ordering::SeqCst);
        };
        client.submit(&Request::Random { length: 1 }, Duration::from_secs(100), done)
    };
    for _ in 0..limits::IN_FLIGHT_MAX {
        submit().unwrap();
    }
    let error = submit().unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(client);
    reader.join().unwrap().unwrap();
    until("all answered", || answered.load(Ordering::SeqCst) == limits::IN_FLIGHT_MAX);
}

#[test]
fn a_peer_that_talks_nonsense_is_left_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut settings = Settings::new(&path);
    settings.patience = Duration::from_secs(5);
    let client = Client::start(settings).unwrap();
    for nonsense in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0, 0, 0, 1, 1], &[0xff; 64]] {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(nonsense).unwrap();
        // The client hangs up.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(client.health().connections >= 3);
}

#[test]
fn a_stranger_who_sends_nonsense_gets_a_last_word() {
    let bench = bench();
    let mut stream = std::os::unix::net::UnixStream::connect(bench.dir.path().join("s")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let mut decoder = wire::Decoder::new();
    decoder.push(&said);
    let greeting = decoder.next_response().unwrap().unwrap();
    assert!(matches!(greeting.outcome, Ok(Response::State(_))));
    let last = decoder.next_response().unwrap().unwrap();
    assert!(matches!(last.outcome, Err(Error::Wire { .. })), "{last:?}");
    bench.client.ping().unwrap();
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_harms_nobody() {
    let bench = bench();
    let mut stream = std::os::unix::net::UnixStream::connect(bench.dir.path().join("s")).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut frame = Vec::new();
    let request = Request::Describe;
    wire::encode_request(&mut frame, 7, Duration::from_secs(60), &request).unwrap();
    let mut sent = 0_usize;
    // Blocked, sooner or later: the service holds back what it cannot send.
    while stream.write_all(&frame).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "the service takes everything");
    }
    bench.client.ping().unwrap();
    bench.client.sign(Purpose::Domain, b"others are served").unwrap();
    // Who reads at last gets every answer.
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut decoder = wire::Decoder::new();
    let mut buffer = vec![0; 65_536];
    let mut got = 0;
    while got < sent {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "closed after {got} of {sent}");
        decoder.push(&buffer[..count]);
        while let Some(answer) = decoder.next_response().unwrap() {
            assert!(answer.outcome.is_ok());
            got += usize::from(answer.id == 7);
        }
    }
}

#[test]
fn connections_are_limited() {
    let bench = bench();
    bench.client.ping().unwrap();
    let path = bench.dir.path().join("s");
    let mut held: Vec<_> = (1..limits::CONNECTIONS_MAX)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    for stream in &mut held {
        let mut first = [0; 4];
        stream.read_exact(&mut first).unwrap();
    }
    let mut extra = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut said = Vec::new();
    extra.read_to_end(&mut said).unwrap();
    let mut decoder = wire::Decoder::new();
    decoder.push(&said);
    let last = decoder.next_response().unwrap().unwrap();
    assert!(matches!(last.outcome, Err(Error::Busy { .. })), "{last:?}");
}

#[test]
fn the_last_handle_ends_the_link() {
    let bench = bench();
    bench.client.ping().unwrap();
    bench.fake.switches().set_hanging(true);
    let (sender, answers) = channel();
    let request = Request::Random { length: 1 };
    let done = move |outcome| sender.send(outcome).unwrap();
    bench.client.submit(&request, Duration::from_secs(60), done).unwrap();
    let Bench { fake, client, dir: _dir } = bench;
    drop(client);
    let outcome = answers.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(matches!(outcome, Err(Error::Disconnected { .. })), "{outcome:?}");
    fake.switches().set_hanging(false);
}
