//! A token that is slow, hangs, crashes, lies or answers any code: `proxy.c` before SoftHSM2.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use hsm::{Class, Error, Phase, Purpose, Request};

use crate::rig::{self, Rig, until};

/// A provisioned rig behind the proxy, and its control file.
fn rig(settings: &str) -> Option<Rig> {
    let module = rig::module()?;
    let rig = Rig::new(&module);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/softhsm/proxy.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-ldl", "-lpthread", "-o"])
        .arg(rig.at("proxy.so"))
        .status();
    match built {
        Ok(status) => assert!(status.success(), "proxy.c does not compile"),
        Err(error) => {
            eprintln!("SKIPPED: no C compiler for the proxy module ({error})");
            assert!(std::env::var_os("CI").is_none(), "CI must have a C compiler");
            return None;
        }
    }
    let (control, real) = (rig.at("control"), module.display().to_string());
    let mut rig = rig
        .with_settings(settings)
        .with_environment("FAULT_MODULE", &real)
        .with_environment("FAULT_CONTROL", &control);
    rig.module = rig.at("proxy.so").into();
    rig.write_config();
    Some(rig)
}

fn control(rig: &Rig, text: &str) {
    let new = rig.at("control.new");
    fs::write(&new, text).unwrap();
    fs::rename(new, rig.at("control")).unwrap();
}

fn logins(rig: &Rig) -> usize {
    let log = fs::read_to_string(rig.at("control.log")).unwrap_or_default();
    log.lines().filter(|line| *line == "C_Login").count()
}

fn sign() -> Request {
    let key = Purpose::Domain.into();
    Request::Sign { key, algorithm: hsm::Algorithm::P256, message: b"text".to_vec() }
}

#[test]
fn every_code_is_survived_and_said() {
    let Some(rig) = rig("sessions = 2\npoll_min = \"10ms\"\npoll_max = \"50ms\"") else { return };
    let _service = rig.serve();
    let client = rig.client();
    let blob = client.wrap(&[1; 32]).unwrap();
    for function in ["C_SignInit", "C_Sign", "C_UnwrapKey", "C_GenerateRandom", "C_DestroyObject"] {
        for code in [
            0x02,
            0x03,
            0x05,
            0x06,
            0x07,
            0x30,
            0x31,
            0x32,
            0x50,
            0x54,
            0x60,
            0x70,
            0x82,
            0x90,
            0x91,
            0xB0,
            0xB3,
            0xE0,
            0xE1,
            0x101,
            0x150,
            0x190,
            0x8000_0001_u64,
            0xDEAD,
        ] {
            control(&rig, &format!("{function} fail {code:#x} 1\n"));
            let request = match function {
                "C_SignInit" | "C_Sign" => sign(),
                "C_GenerateRandom" => Request::Random { length: 8 },
                _ => Request::Unwrap { blob: blob.clone() },
            };
            let outcome = client.call(&request, Duration::from_secs(10));
            if let Err(error) = outcome {
                assert_eq!(error.class(), Class::Permanent, "{function} {code:#x}: {error}");
                let text = error.to_string();
                assert!(text.contains(function) && text.contains("slot"), "{text}");
                assert!(text.contains(&format!("{code:#04x}")), "{text}");
            }
            control(&rig, "");
            until("ready again", || client.call(&sign(), Duration::from_secs(1)).is_ok());
        }
    }
}

#[test]
fn a_library_that_hangs_costs_a_restart_and_no_job_waits_beyond_its_deadline() {
    let Some(rig) = rig("sessions = 2\nwedge_after = \"400ms\"") else { return };
    let service = rig.serve();
    let client = rig.client();
    client.call(&sign(), Duration::from_secs(5)).unwrap();
    let pid = service.child.id();
    control(&rig, "C_Sign hang\n");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let started = Instant::now();
                let outcome = client.call(&sign(), Duration::from_millis(150));
                let took = started.elapsed();
                assert!(matches!(outcome, Err(Error::Deadline { .. })), "{outcome:?}");
                assert!(took < Duration::from_millis(400), "{took:?}");
            });
        }
    });
    service.wait_for("restarting the process", 1);
    control(&rig, "");
    until("it works again", || client.call(&sign(), Duration::from_secs(1)).is_ok());
    assert_eq!(service.child.id(), pid, "the same process for its supervisor");
    service.wait_for("listening", 2);
}

#[test]
fn one_call_that_hangs_leaves_the_other_sessions_working() {
    let Some(rig) = rig("sessions = 3\nwedge_after = \"200ms\"") else { return };
    let _service = rig.serve();
    let client = rig.client();
    client.call(&sign(), Duration::from_secs(5)).unwrap();
    control(&rig, "C_Sign hang 0 1\n");
    let outcome = client.call(&sign(), Duration::from_millis(50));
    assert!(matches!(outcome, Err(Error::Deadline { .. })), "{outcome:?}");
    until("it is known", || client.describe().unwrap().wedged == 1);
    for _ in 0..100 {
        client.call(&sign(), Duration::from_secs(2)).unwrap();
    }
    control(&rig, "");
    until("it came back", || client.describe().unwrap().wedged == 0);
}

#[test]
fn a_crash_loses_no_job_once_the_supervisor_acts() {
    let Some(rig) = rig("sessions = 2") else { return };
    let mut service = rig.serve();
    let client = {
        let mut settings = hsm::client::Settings::new(rig.at("s"));
        settings.patience = Duration::from_secs(20);
        hsm::Client::start(settings).unwrap()
    };
    client.call(&sign(), Duration::from_secs(5)).unwrap();
    control(&rig, "C_Sign crash\n");
    std::thread::scope(|scope| {
        let jobs: Vec<_> =
            (0..8).map(|_| scope.spawn(|| client.call(&sign(), Duration::from_secs(20)))).collect();
        let status = service.child.wait().unwrap();
        assert!(!status.success());
        control(&rig, "");
        drop(std::mem::replace(&mut service, rig.serve()));
        for job in jobs {
            job.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_lying_token_is_caught() {
    let Some(rig) = rig("sessions = 1") else { return };
    let _service = rig.serve();
    let client = rig.client();
    let blob = client.wrap(&[1; 32]).unwrap();
    control(&rig, "C_Sign flip\n");
    for _ in 0..5 {
        let error = client.sign(Purpose::Domain, b"text").unwrap_err();
        assert!(matches!(error, Error::WrongAnswer { .. }), "{error}");
    }
    control(&rig, "C_Sign short\n");
    assert!(client.sign(Purpose::Domain, b"text").is_err());
    control(&rig, "C_GetAttributeValue flip\n");
    let error = client.unwrap(&blob).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    control(&rig, "C_WrapKey flip\n");
    let error = client.wrap(&[2; 32]).unwrap_err();
    assert!(matches!(error, Error::WrongAnswer { .. }), "{error}");
    control(&rig, "");
    assert_eq!(client.unwrap(&blob).unwrap().expose(), [1; 32]);
    client.sign(Purpose::Domain, b"text").unwrap();
}

#[test]
fn a_token_that_lies_from_the_start_is_not_served() {
    let Some(rig) = rig("sessions = 1") else { return };
    control(&rig, "C_Sign flip\n");
    let (_, said) = rig.fail(&["serve"]);
    assert!(said.contains("does not hold"), "{said}");
}

#[test]
fn fewer_sessions_than_configured_are_enough() {
    let Some(rig) = rig("sessions = 4") else { return };
    // The keeper's and the self-test's session, then two workers.
    control(&rig, "C_OpenSession fail 0xB1 2\n");
    let (_, said) = rig.fail(&["serve"]);
    assert!(said.contains("service.sessions"), "{said}");
    control(&rig, "");
    let service = rig.serve();
    let client = rig.client();
    client.sign(Purpose::Domain, b"text").unwrap();
    drop(service);
}

#[test]
fn a_login_is_not_repeated_for_lost_sessions() {
    let Some(rig) = rig("sessions = 4\npoll_min = \"10ms\"\npoll_max = \"20ms\"") else { return };
    let _service = rig.serve();
    let client = rig.client();
    client.sign(Purpose::Domain, b"text").unwrap();
    let before = logins(&rig);
    for _ in 0..10 {
        control(&rig, "C_SignInit fail 0xB3 1\n");
        client.sign(Purpose::Domain, b"text").unwrap();
        control(&rig, "");
        client.sign(Purpose::Domain, b"text").unwrap();
    }
    assert_eq!(logins(&rig), before, "the keeper's session held the login");
    assert_eq!(client.ping().unwrap().phase, Phase::Ready);
}

#[test]
fn a_locked_pin_is_tried_once() {
    let Some(rig) = rig("sessions = 1") else { return };
    control(&rig, "C_Login fail 0xA4\n");
    let service = rig.serve();
    service.wait_for("pin-refused", 1);
    let client = rig.client();
    for _ in 0..20 {
        let error = client.sign(Purpose::Domain, b"text").unwrap_err();
        assert!(error.to_string().contains("CKR_PIN_LOCKED"), "{error}");
    }
    assert_eq!(logins(&rig), 1);
}
