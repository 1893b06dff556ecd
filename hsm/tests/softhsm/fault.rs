//! The token goes away and comes back, the PIN is wrong, the service dies: all is found again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use hsm::{Algorithm, Class, Client, Error, Phase, Purpose};
use rustix::process::Signal;

use crate::rig::{self, Rig, until};

fn phase(client: &Client) -> Option<Phase> {
    client.health().token.map(|state| state.phase)
}

#[test]
#[allow(clippy::too_many_lines)]
fn unplug_and_replug_under_load() {
    // UNPLUG_CYCLES=1000 is the long run.
    let cycles = std::env::var("UNPLUG_CYCLES").ok().and_then(|text| text.parse().ok());
    let cycles: u32 = cycles.unwrap_or(20);
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let service = rig.serve();
    let client = rig.client();
    let public = client.public_key(Purpose::Domain).unwrap();
    let blob = client.wrap(&[3; 32]).unwrap();
    let stop = AtomicBool::new(false);
    let (asked, well, away) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (mut noticed, mut recovered) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (client, public, blob) = (&client, &public, &blob);
            let (stop, asked, well, away) = (&stop, &asked, &well, &away);
            scope.spawn(move || {
                let mut job = thread << 32;
                while !stop.load(SeqCst) {
                    job += 1;
                    asked.fetch_add(1, SeqCst);
                    let outcome = if job % 4 == 0 {
                        client.unwrap(blob).map(|key| assert_eq!(key.expose(), [3; 32]))
                    } else {
                        let message = job.to_be_bytes();
                        client.sign(Purpose::Domain, &message).map(|made| {
                            assert!(holds(&public.point, &message, &made), "a wrong answer");
                        })
                    };
                    match outcome {
                        Ok(()) => well.fetch_add(1, SeqCst),
                        Err(error) => {
                            let class = error.class();
                            assert!(matches!(class, Class::Away | Class::Retry), "{error}");
                            away.fetch_add(1, SeqCst)
                        }
                    };
                }
            });
        }
        let _stop = Stop(&stop);
        for _ in 0..cycles {
            let before = well.load(SeqCst);
            until("work", || well.load(SeqCst) > before + 20);
            let start = Instant::now();
            rig.unplug();
            until("away", || phase(&client) == Some(Phase::Away));
            noticed.push(start.elapsed());
            let before = well.load(SeqCst);
            let start = Instant::now();
            rig.plug();
            until("an operation", || well.load(SeqCst) > before);
            recovered.push(start.elapsed());
        }
    });
    assert_eq!(well.load(SeqCst) + away.load(SeqCst), asked.load(SeqCst), "each has one answer");
    noticed.sort();
    recovered.sort();
    let (middle, last) = (cycles as usize / 2, cycles as usize - 1);
    eprintln!(
        "{cycles} cycles: noticed {:?} median {:?} worst; recovered {:?} median {:?} worst; \
         {} well, {} away",
        noticed[middle],
        noticed[last],
        recovered[middle],
        recovered[last],
        well.load(SeqCst),
        away.load(SeqCst),
    );
    assert!(noticed[middle] < Duration::from_millis(100), "{noticed:?}");
    assert!(recovered[middle] < Duration::from_millis(700), "{recovered:?}");
    let description = client.describe().unwrap();
    assert!(description.pin_attempts <= u64::from(cycles) + 1, "one PIN attempt per cycle");
    drop(service);
}

/// Stops the workers even if the test fails between.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn holds(point: &[u8], message: &[u8], made: &[u8]) -> bool {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, made).is_ok()
}

#[test]
fn an_idle_service_notices_and_says_what_to_do() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module).with_settings("presence = \"50ms\"");
    let _service = rig.serve();
    let client = rig.client();
    client.ping().unwrap();
    rig.unplug();
    until("away", || phase(&client) == Some(Phase::Away));
    let error = client.sign(Purpose::Domain, b"text").unwrap_err();
    assert!(matches!(error, Error::Away { .. }), "{error}");
    assert!(error.retry_after().is_some());
    // Public keys need no token; blobs do.
    client.public_key(Purpose::Tls).unwrap();
    let (code, said) = rig.fail(&["status"]);
    assert_eq!(code, 69, "{said}");
    rig.plug();
    until("ready", || phase(&client) == Some(Phase::Ready));
    client.sign(Purpose::Domain, b"text").unwrap();
}

#[test]
fn another_token_with_the_same_label_gets_no_pin_and_no_jobs() {
    let Some(module) = rig::module() else { return };
    let (rig, other) = (Rig::new(&module), Rig::new(&module));
    let _service = rig.serve();
    let client = rig.client();
    client.ping().unwrap();
    rig.unplug();
    until("away", || client.sign(Purpose::Domain, b"x").is_err());
    std::fs::rename(other.at("tokens"), rig.at("tokens")).unwrap();
    until("it is seen", || {
        phase(&client) == Some(Phase::Away)
            && client.health().token.unwrap().reason.contains("with serial")
    });
    assert_eq!(client.describe().unwrap().pin_attempts, 1);
    std::fs::rename(rig.at("tokens"), other.at("tokens")).unwrap();
    rig.plug();
    until("ready", || phase(&client) == Some(Phase::Ready));
    client.sign(Purpose::Domain, b"x").unwrap();
}

#[test]
fn a_wrong_pin_is_tried_once_even_over_restarts_until_the_file_changes() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let right = std::fs::read_to_string(rig.at("pin")).unwrap();
    rig.write_pin("000000\n");
    let mut service = rig.serve();
    service.wait_for("pin-refused", 1);
    let client = rig.client();
    let error = client.sign(Purpose::Domain, b"text").unwrap_err();
    assert!(matches!(error, Error::PinRefused { .. }), "{error}");
    assert!(error.to_string().contains("CKR_PIN_INCORRECT"), "{error}");
    assert_eq!(client.describe().unwrap().pin_attempts, 1);
    service.kill();
    drop(service);
    // Neither a restart nor another command tries it again.
    let service = rig.serve();
    until("connected", || phase(&client) == Some(Phase::PinRefused));
    assert_eq!(client.describe().unwrap().pin_attempts, 0);
    for command in ["doctor", "list", "provision"] {
        let (_, said) = rig.fail(&[command]);
        assert!(said.contains("refused the PIN"), "{command}: {said}");
    }
    rig.write_pin(&right);
    until("ready", || phase(&client) == Some(Phase::Ready));
    client.sign(Purpose::Domain, b"text").unwrap();
    assert_eq!(client.describe().unwrap().pin_attempts, 1);
    assert!(!service.log().contains(right.trim()), "the PIN is in the log");
}

#[test]
fn a_killed_service_is_found_again_by_its_clients() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let mut service = rig.serve();
    let client = rig.client();
    let public = client.public_key(Purpose::Domain).unwrap();
    for _ in 0..3 {
        service.kill();
        drop(service);
        service = rig.serve();
        until("connected", || client.health().is_ready());
        let made = client.sign(Purpose::Domain, b"after").unwrap();
        assert!(client.verify(Algorithm::P256, &public.point, b"after", &made).unwrap());
    }
}

#[test]
fn sigterm_ends_it_in_order_and_sighup_shows_new_keys() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::blank(&module);
    rig.succeed(&["init-token", "--so-pin-file", &rig.at("so-pin"), "--make-pins"]);
    let mut service = rig.serve();
    service.wait_for("provision --domain a.example", 4);
    let client = rig.client();
    assert!(matches!(client.sign(Purpose::Log, b"x"), Err(Error::KeyMissing { .. })));
    rig.succeed(&["provision"]);
    service.signal(Signal::HUP);
    until("new keys", || client.sign(Purpose::Log, b"x").is_ok());
    service.signal(Signal::TERM);
    let status = service.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(!std::path::Path::new(&rig.at("s")).exists());
    service.wait_for("stopped", 1);
}

#[test]
fn a_second_service_on_the_same_socket_is_refused() {
    let Some(module) = rig::module() else { return };
    let rig = Rig::new(&module);
    let _service = rig.serve();
    let (code, said) = rig.fail(&["serve"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("another cipherim-hsmd"), "{said}");
    rig.client().ping().unwrap();
}
