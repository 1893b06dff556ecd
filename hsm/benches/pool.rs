//! What the pool costs: jobs per second through queue and socket, against a raw loop on the same
//! module with as many threads.
//!
//! `cargo bench -p cipherim-hsm` makes a throw-away SoftHSM2 token, measures, and prints one line
//! per case: the raw loop, the pool without a socket, and a client over the socket, each with and
//! without the check of the token's answers. Beside the rate stands the processor time per job of
//! the whole process (client included), which tells more on a machine shared with others.
//! `HSM_BENCH_DELAY_US=5000` puts a token of that latency in its place (the proxy module of the
//! tests), to see that sessions overlap.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Context};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::UserType;
use hsm::pin::PinSource;
use hsm::service::pool::{Pool, Settings as PoolSettings, Sink};
use hsm::service::server::{Access, Server};
use hsm::token::{Pkcs11, Settings};
use hsm::wire::RequestFrame;
use hsm::{Algorithm, Client, Error, Purpose, Request, Response, Secret};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TIME: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 5;
/// Jobs that a client keeps under way.
const DEPTH: usize = 64;

fn main() {
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    if !Path::new(MODULE).is_file() {
        println!("SKIPPED: SoftHSM2 is not installed");
        return;
    }
    match std::env::var("HSM_BENCH_DIR") {
        Ok(dir) => measure(Path::new(&dir)),
        Err(_) => prepare(),
    }
}

/// SoftHSM2 reads its configuration from the environment, so the measuring is done by a child.
fn prepare() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(at("tokens")).unwrap();
    let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", at("tokens"));
    fs::write(at("softhsm2.conf"), text).unwrap();
    let config = format!(
        "module = {MODULE:?}\ndomain = \"a.example\"\n[token]\nlabel = \"bench\"\n\
         [pin]\nfile = {:?}\n[service]\nsocket = {:?}\n",
        at("pin"),
        at("s")
    );
    fs::write(at("hsmd.toml"), config).unwrap();
    for arguments in [&["init-token", "--make-pins", "--so-pin-file"][..], &["provision"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cipherim-hsmd"));
        command.args(arguments);
        if arguments.len() > 1 {
            command.arg(at("so-pin"));
        }
        command.args(["--config", &at("hsmd.toml")]).env("SOFTHSM2_CONF", at("softhsm2.conf"));
        assert!(command.output().unwrap().status.success());
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env("HSM_BENCH_DIR", dir.path()).env("SOFTHSM2_CONF", at("softhsm2.conf"));
    if let Ok(delay) = std::env::var("HSM_BENCH_DELAY_US") {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/softhsm/proxy.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", source, "-ldl", "-lpthread", "-o", &at("proxy.so")])
            .status();
        assert!(built.unwrap().success());
        // The length is asked first, then the signature: only one of the two calls is slow.
        fs::write(at("control"), format!("C_SignInit delay {delay}\n")).unwrap();
        child.env("FAULT_MODULE", MODULE).env("FAULT_CONTROL", at("control"));
    }
    assert!(child.status().unwrap().success());
}

fn module(dir: &Path) -> PathBuf {
    let proxy = dir.join("proxy.so");
    if proxy.is_file() { proxy } else { MODULE.into() }
}

fn measure(dir: &Path) {
    let is_slow = dir.join("proxy.so").is_file();
    let sessions: &[usize] = if is_slow { &[8] } else { &[1, 2, 4] };
    println!("operation sessions: jobs/s (processor µs per job), ratio of the rates to raw");
    for (name, job) in [("sign-p256", sign as fn() -> Request), ("wrap", wrap)] {
        if is_slow && name == "wrap" {
            continue;
        }
        for &sessions in sessions {
            // Interleaved, so that a noisy neighbour disturbs all alike; medians are reported.
            let mut rounds = [const { Vec::new() }; 4];
            for _ in 0..ROUNDS {
                rounds[0].push(timed(|| raw(dir, name, sessions)));
                rounds[1].push(timed(|| pooled(dir, job, sessions, 0, false)));
                rounds[2].push(timed(|| pooled(dir, job, sessions, 0, true)));
                rounds[3].push(timed(|| pooled(dir, job, sessions, 1, true)));
            }
            let [raw, pool, socket, checked] = rounds.map(|round| {
                let (rates, costs) = round.into_iter().unzip();
                (median(rates), median(costs))
            });
            print!("{name:<9} {sessions}: raw {:6.0} ({:5.1})", raw.0, raw.1);
            for (what, (rate, cost)) in [("pool", pool), ("socket", socket), ("checked", checked)] {
                print!("  {what} {rate:6.0} ({cost:5.1}) {:4.2}", rate / raw.0);
            }
            println!();
        }
    }
}

/// Jobs per second, and processor microseconds per job.
fn timed(run: impl FnOnce() -> (u64, f64)) -> (f64, f64) {
    let before = processor_seconds();
    let (jobs, seconds) = run();
    let used = processor_seconds() - before;
    (jobs as f64 / seconds, used * 1e6 / jobs as f64)
}

fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn sign() -> Request {
    Request::Sign { key: Purpose::Domain.into(), algorithm: Algorithm::P256, message: vec![7; 200] }
}

fn wrap() -> Request {
    Request::Wrap { kek: Purpose::Spool.into(), data_key: Secret::new(vec![7; 32]) }
}

/// Threads that call the module in a loop, one session each.
fn raw(dir: &Path, name: &str, threads: usize) -> (u64, f64) {
    let context = Context::new(module(dir)).unwrap();
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let login = context.open_rw_session(slot).unwrap();
    let pin = fs::read_to_string(dir.join("pin")).unwrap();
    login.login(UserType::User, Some(&pin.trim().to_owned().into())).unwrap();
    let (class, label) = match name {
        "wrap" => (ObjectClass::SECRET_KEY, "cipherim/a.example/spool/1"),
        _ => (ObjectClass::PRIVATE_KEY, "cipherim/a.example/domain/1"),
    };
    let wanted = [Attribute::Class(class), Attribute::Label(label.into())];
    let key = login.find_objects(&wanted).unwrap()[0];
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Value(vec![7; 32]),
    ];
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let session = context.open_ro_session(slot).unwrap();
                while !stop.load(SeqCst) {
                    if name == "wrap" {
                        let object = session.create_object(&template).unwrap();
                        session.wrap_key(&Mechanism::AesKeyWrap, key, object).unwrap();
                        session.destroy_object(object).unwrap();
                    } else {
                        let message =
                            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[7; 200]);
                        session.sign(&Mechanism::Ecdsa, key, message.as_ref()).unwrap();
                    }
                    count.fetch_add(1, SeqCst);
                }
            });
        }
        std::thread::sleep(TIME);
        stop.store(true, SeqCst);
    });
    let result = (count.load(SeqCst), started.elapsed().as_secs_f64());
    drop(login);
    context.finalize().unwrap();
    result
}

fn pooled(
    dir: &Path,
    job: fn() -> Request,
    sessions: usize,
    check: u64,
    socket: bool,
) -> (u64, f64) {
    let settings = Settings {
        path: module(dir),
        label: "bench".to_owned(),
        serial: None,
        also_known_as: Vec::new(),
        domain: "a.example".to_owned(),
        check_every: check,
    };
    let pool_settings = PoolSettings {
        domain: "a.example".to_owned(),
        sessions,
        queue: 4_096,
        wedge_after: Duration::from_secs(10),
        poll_min: Duration::from_millis(50),
        poll_max: Duration::from_millis(400),
        presence: Duration::from_secs(1),
        allow_generate: false,
    };
    let module = Pkcs11::new(settings, PinSource::file(dir.join("pin")));
    let pool = Pool::start(Box::new(module), pool_settings, Box::new(|why| panic!("{why}")));
    let pool = Arc::new(pool);
    assert_eq!(pool.wait_until_started().reason, "");
    let rate = match socket {
        true => over_socket(dir, &pool, job),
        false => directly(&pool, job),
    };
    pool.stop(Duration::from_secs(5));
    rate
}

/// Counts answers and lets the sender go on.
#[derive(Default)]
struct Window {
    state: Mutex<(usize, u64)>,
    freed: Condvar,
}

impl Window {
    /// Waits until at most half the depth is under way; how many may start.
    fn room(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        while state.0 > DEPTH / 2 {
            state = self.freed.wait(state).unwrap();
        }
        let room = DEPTH - state.0;
        state.0 = DEPTH;
        room
    }

    fn done(&self, outcome: &Result<Response, Error>) {
        assert!(outcome.is_ok(), "{outcome:?}");
        let mut state = self.state.lock().unwrap();
        state.0 -= 1;
        state.1 += 1;
        if state.0 <= DEPTH / 2 {
            self.freed.notify_one();
        }
    }

    fn wait_for_all(&self) -> u64 {
        loop {
            let state = self.state.lock().unwrap();
            if state.0 == 0 {
                return state.1;
            }
            drop(state);
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Sink for Window {
    fn answer(&self, id: u64, outcome: Result<Response, Error>) {
        if id != 0 {
            self.done(&outcome);
        }
    }
}

fn directly(pool: &Pool, job: fn() -> Request) -> (u64, f64) {
    let window = Arc::new(Window::default());
    let sink: Arc<dyn Sink> = window.clone();
    let started = Instant::now();
    while started.elapsed() < TIME {
        let frames = (0..window.room())
            .map(|_| RequestFrame { id: 1, deadline_ms: 60_000, request: job() })
            .collect();
        pool.submit(&sink, frames, Instant::now());
    }
    (window.wait_for_all(), started.elapsed().as_secs_f64())
}

fn over_socket(dir: &Path, pool: &Arc<Pool>, job: fn() -> Request) -> (u64, f64) {
    let access = Access { mode: 0o600, ..Access::default() };
    let mut server = Server::start(&dir.join("s"), access, Arc::clone(pool)).unwrap();
    let client = Client::connect(dir.join("s")).unwrap();
    client.ping().unwrap();
    let window = Arc::new(Window::default());
    let started = Instant::now();
    while started.elapsed() < TIME {
        for _ in 0..window.room() {
            let window = Arc::clone(&window);
            let done = move |outcome| window.done(&outcome);
            client.submit(&job(), Duration::from_secs(60), done).unwrap();
        }
    }
    let rate = (window.wait_for_all(), started.elapsed().as_secs_f64());
    drop(client);
    server.stop();
    rate
}
