//! The pool on a fake token: limits, deadlines, and every rung of the ladder.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::error::Class;
use crate::fake::{Fake, FakeModule, start_pool};
use crate::job::{Algorithm, KeyName, Purpose, Secret};

type Answers = Receiver<(u64, Result<Response, Error>)>;

struct Collector(Mutex<Sender<(u64, Result<Response, Error>)>>);

impl Sink for Collector {
    fn answer(&self, id: u64, outcome: Result<Response, Error>) {
        let _ = locked(&self.0).send((id, outcome));
    }
}

struct Bench {
    module: FakeModule,
    pool: Pool,
    sink: Arc<dyn Sink>,
    answers: Answers,
}

fn bench(change: impl FnOnce(&mut Settings)) -> Bench {
    let mut settings = Fake::settings();
    change(&mut settings);
    let module = FakeModule::new();
    let pool = start_pool(&module, settings);
    pool.wait_until_started();
    let (sender, answers) = channel();
    Bench { module, pool, sink: Arc::new(Collector(Mutex::new(sender))), answers }
}

fn sign(text: &[u8]) -> Request {
    let key = Purpose::Domain.into();
    Request::Sign { key, algorithm: Algorithm::P256, message: text.to_vec() }
}

impl Bench {
    fn send(&self, id: u64, deadline_ms: u32, request: Request) {
        let frame = RequestFrame { id, deadline_ms, request };
        self.pool.submit(&self.sink, vec![frame], Instant::now());
    }

    fn answer(&self) -> (u64, Result<Response, Error>) {
        self.answers.recv_timeout(Duration::from_secs(10)).expect("an answer in time")
    }

    fn ask(&self, request: Request) -> Result<Response, Error> {
        self.send(1, 5_000, request);
        self.answer().1
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !is_so(self) {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::yield_now();
        }
    }

    fn until_phase(&self, phase: Phase) {
        self.until(phase.name(), |bench| bench.pool.state().phase == phase);
    }

    fn until_calls(&self, count: u64) {
        self.until("calls", |bench| bench.module.switches.calls() >= count);
    }
}

#[test]
fn every_job_is_done() {
    let bench = bench(|_| {});
    let Ok(Response::Signature(made)) = bench.ask(sign(b"text")) else { panic!("no signature") };
    let name = Request::PublicKey { key: Purpose::Domain.into() };
    let Ok(Response::PublicKey(public)) = bench.ask(name) else { panic!("no key") };
    let verify = Request::Verify {
        algorithm: Algorithm::P256,
        public_key: public.point,
        message: b"text".to_vec(),
        signature: made,
    };
    assert_eq!(bench.ask(verify), Ok(Response::Verified(true)));
    let data_key = Secret::new(vec![9; 32]);
    let wrap = Request::Wrap { kek: Purpose::Spool.into(), data_key: data_key.clone() };
    let Ok(Response::Wrapped(blob)) = bench.ask(wrap) else { panic!("no blob") };
    assert_eq!(bench.ask(Request::Unwrap { blob }), Ok(Response::Unwrapped(data_key)));
    let random = bench.ask(Request::Random { length: 7 });
    assert!(matches!(random, Ok(Response::Random(secret)) if secret.len() == 7));
    let key = KeyName::exact(Purpose::Log, 2);
    let made = bench.ask(Request::Generate { key });
    assert!(matches!(made, Ok(Response::Generated(made)) if made.key == key));
    let newest = bench.ask(Request::PublicKey { key: Purpose::Log.into() });
    assert!(matches!(newest, Ok(Response::PublicKey(newest)) if newest.key == key));
    assert!(matches!(bench.ask(Request::Ping), Ok(Response::State(_))));
    assert!(matches!(bench.ask(Request::Describe), Ok(Response::Described(_))));
}

#[test]
fn the_queue_takes_n_jobs_and_refuses_one_more() {
    let bench = bench(|settings| {
        settings.sessions = 1;
        settings.queue = 4;
        settings.wedge_after = Duration::from_secs(60);
    });
    bench.module.switches.set_hanging(true);
    bench.send(100, 60_000, sign(b"in the token"));
    bench.until_calls(1);
    for id in 0..4 {
        bench.send(id, 60_000, sign(b"waiting"));
    }
    bench.send(4, 60_000, sign(b"too many"));
    let (id, outcome) = bench.answer();
    assert_eq!(id, 4);
    assert!(matches!(outcome, Err(Error::Busy { limit: 4, .. })), "{outcome:?}");
    assert_eq!(outcome.unwrap_err().class(), Class::Retry);
    bench.module.switches.set_hanging(false);
    for _ in 0..5 {
        assert!(bench.answer().1.is_ok());
    }
}

#[test]
fn a_hanging_call_delays_nobody_beyond_the_deadline() {
    let bench = bench(|settings| settings.sessions = 2);
    bench.module.switches.set_hanging(true);
    bench.send(1, 60, sign(b"hangs"));
    bench.until_calls(1);
    let started = Instant::now();
    bench.send(2, 120, sign(b"hangs too"));
    bench.send(3, 90, sign(b"waits"));
    let mut answered = Vec::new();
    for _ in 0..3 {
        let (id, outcome) = bench.answer();
        assert!(matches!(outcome, Err(Error::Deadline { .. })), "{outcome:?}");
        // Milliseconds where the processor is free; tests share it with others.
        let late = started.elapsed().saturating_sub(Duration::from_millis(120));
        assert!(late < Duration::from_secs(1), "{id}: {late:?} late");
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    // Both sessions stay stuck: only a new process helps.
    bench.until("a restart", |bench| bench.module.switches.restarts() == 1);
    bench.module.switches.set_hanging(false);
    bench.until("an answer", |bench| bench.ask(sign(b"again")).is_ok());
}

#[test]
fn one_hanging_session_leaves_the_others_working() {
    let bench = bench(|settings| settings.sessions = 2);
    bench.module.switches.hang_next(1);
    bench.send(1, 20, sign(b"hangs"));
    assert!(matches!(bench.answer(), (1, Err(Error::Deadline { .. }))));
    for id in 2..50 {
        bench.send(id, 5_000, sign(b"works"));
        assert_eq!(bench.answer().1.map(|_| ()), Ok(()));
    }
    bench.until("one wedged", |bench| bench.pool.describe().wedged == 1);
    assert_eq!(bench.module.switches.restarts(), 0);
    bench.module.switches.set_hanging(false);
    bench.until("none wedged", |bench| bench.pool.describe().wedged == 0);
}

#[test]
fn an_absent_token_is_said_at_once_and_found_again() {
    let bench = bench(|_| {});
    let public = bench.pool.view();
    bench.module.switches.set_away(true);
    let started = Instant::now();
    let outcome = bench.ask(sign(b"away"));
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    let error = outcome.unwrap_err();
    assert_eq!(error.class(), Class::Away, "{error}");
    assert!(error.to_string().contains("plug"), "{error}");
    bench.until_phase(Phase::Away);
    // Public keys and state need no token.
    let name = Request::PublicKey { key: Purpose::Tls.into() };
    assert!(bench.ask(name).is_ok());
    assert!(matches!(bench.ask(sign(b"still away")), Err(Error::Away { .. })));
    bench.module.switches.set_away(false);
    let started = Instant::now();
    bench.until_phase(Phase::Ready);
    assert!(started.elapsed() < Duration::from_millis(500));
    assert!(bench.ask(sign(b"back")).is_ok());
    assert_eq!(bench.pool.view().keys, public.keys);
}

#[test]
fn an_idle_pool_notices_that_the_token_is_gone() {
    let bench = bench(|_| {});
    bench.module.switches.set_away(true);
    bench.until_phase(Phase::Away);
    bench.module.switches.set_away(false);
    bench.until_phase(Phase::Ready);
}

#[test]
fn a_lost_session_costs_one_repetition_and_nobody_notices() {
    for code in [0xB3, 0x101, 0x82, 0x30, 0x05, 0x8000_0007] {
        let bench = bench(|_| {});
        bench.module.switches.fail(code, 1);
        assert!(bench.ask(sign(b"text")).is_ok(), "{code:#x}");
        let description = bench.pool.describe();
        assert_eq!(description.state.generation, 2, "{code:#x}");
        let retried: u64 = description.operations.iter().map(|count| count.retried).sum();
        assert_eq!(retried, 1, "{code:#x}");
        assert_eq!(bench.module.switches.finalisations(), 0, "new sessions were enough");
    }
}

#[test]
fn the_last_notice_is_the_state() {
    let bench = bench(|settings| settings.sessions = 4);
    bench.pool.observe(&bench.sink);
    for _ in 0..200 {
        bench.module.switches.fail(0xB3, 1);
        bench.send(1, 5_000, sign(b"text"));
        let mut last = None;
        let mut is_answered = false;
        let end = Instant::now() + Duration::from_secs(10);
        while !is_answered || last != Some(bench.pool.state()) {
            assert!(Instant::now() < end, "told {last:?}, is {:?}", bench.pool.state());
            match bench.answers.recv_timeout(Duration::from_millis(50)) {
                Ok((0, Ok(Response::State(state)))) => last = Some(state),
                Ok((1, outcome)) => is_answered = outcome.is_ok(),
                Ok(other) => panic!("{other:?}"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn a_job_that_always_fails_is_answered_and_harms_no_other() {
    let bench = bench(|settings| settings.sessions = 1);
    bench.module.switches.fail(0x05, 2);
    let error = bench.ask(sign(b"poison")).unwrap_err();
    assert_eq!(error.fault().map(|fault| fault.code), Some(0x05));
    assert!(bench.ask(sign(b"fine")).is_ok());
}

#[test]
fn a_description_fits_its_frame_however_many_keys_there_are() {
    let bench = bench(|_| {});
    let mut core = bench.pool.shared.lock();
    let public = core.view.find(Purpose::Domain.into()).unwrap().clone();
    for purpose in Purpose::ALL {
        for version in 1..=limits::KEY_VERSIONS_MAX {
            let key = KeyName::exact(purpose, version);
            core.view.keys.push(PublicKey { key, ..public.clone() });
        }
    }
    drop(core);
    let description = bench.pool.describe();
    assert_eq!(description.keys.len(), limits::KEYS_DESCRIBED_MAX);
    assert!(description.keys.iter().any(|key| key.key.version == Some(limits::KEY_VERSIONS_MAX)));
    let octets = serde_json::to_vec(&description).unwrap().len();
    assert!(octets < limits::DESCRIPTION_BYTES_MAX / 2, "{octets}");
}

#[test]
fn a_panic_is_contained() {
    let bench = bench(|settings| settings.sessions = 1);
    bench.module.switches.panic_once();
    let error = bench.ask(sign(b"panics")).unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{error}");
    assert!(bench.ask(sign(b"fine")).is_ok());
}

#[test]
fn a_wrong_pin_is_tried_once_until_it_changes() {
    let bench = bench(|_| {});
    bench.module.switches.set_pin_wrong(true);
    bench.module.switches.fail(0x101, 1);
    let error = bench.ask(sign(b"text")).unwrap_err();
    assert!(matches!(error, Error::PinRefused { .. }), "{error}");
    bench.until_phase(Phase::PinRefused);
    for _ in 0..20 {
        assert!(matches!(bench.ask(sign(b"text")), Err(Error::PinRefused { .. })));
    }
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(bench.pool.describe().pin_attempts, 1);
}

#[test]
fn an_exchanged_key_stops_the_service_until_the_former_is_back() {
    let bench = bench(|_| {});
    bench.module.exchange(Purpose::Domain);
    bench.module.switches.fail(0xB3, 1);
    let error = bench.ask(sign(b"text")).unwrap_err();
    assert!(matches!(error, Error::KeyChanged { .. }), "{error}");
    assert_eq!(error.class(), Class::Permanent);
}

#[test]
fn stopping_answers_everybody() {
    let bench = bench(|settings| {
        settings.sessions = 1;
        settings.wedge_after = Duration::from_secs(60);
    });
    bench.module.switches.set_delay(Duration::from_millis(2));
    for id in 1..=20 {
        bench.send(id, 5_000, sign(b"text"));
    }
    bench.pool.stop(Duration::from_secs(5));
    let mut well = 0;
    for _ in 1..=20 {
        well += usize::from(bench.answer().1.is_ok());
    }
    assert_eq!(well, 20, "jobs that were accepted are done within the grace");
    assert_eq!(bench.module.switches.detachments(), 1, "finalised before stop returns");
    assert_eq!(bench.ask(sign(b"late")), Err(Error::Stopping));
}

#[test]
fn a_thousand_unplugs_under_load_lose_and_double_nothing() {
    const CYCLES: u64 = 1_000;
    let bench = bench(|settings| {
        settings.poll_min = Duration::from_micros(200);
        settings.poll_max = Duration::from_micros(500);
        settings.presence = Duration::from_secs(60);
    });
    let name = Request::PublicKey { key: Purpose::Domain.into() };
    let Ok(Response::PublicKey(public)) = bench.ask(name) else { panic!("no key") };
    let mut ledger: HashMap<u64, bool> = HashMap::new();
    let mut next = 10;
    let mut counts = [0_u64; 2];
    let mut take = |ledger: &mut HashMap<u64, bool>, (id, outcome): (u64, _)| {
        let is_open = ledger.insert(id, false).expect("a job that was asked");
        assert!(is_open, "job {id} was answered twice");
        match outcome {
            Ok(Response::Signature(made)) => {
                assert!(crate::signature::holds(&public.point, &id.to_be_bytes(), &made));
                counts[0] += 1;
            }
            Err(error) => {
                let class = Error::class(&error);
                assert!(matches!(class, Class::Away | Class::Retry), "{error}");
                counts[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    };
    for cycle in 0..CYCLES {
        for _ in 0..6 {
            ledger.insert(next, true);
            bench.send(next, 5_000, sign(&next.to_be_bytes()));
            next += 1;
        }
        bench.module.switches.set_away(cycle % 2 == 0);
        while ledger.len() > 64 && ledger.values().filter(|open| **open).count() > 32 {
            let answer = bench.answer();
            take(&mut ledger, answer);
        }
    }
    bench.module.switches.set_away(false);
    while ledger.values().any(|open| *open) {
        let answer = bench.answer();
        take(&mut ledger, answer);
    }
    assert!(bench.answers.try_recv().is_err(), "an answer too many");
    assert_eq!(counts[0] + counts[1], CYCLES * 6);
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}
