//! Peers that do not speak TLS, or do not finish what they begin.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use system::device::Device;
use system::link::Heard;
use system::person::PATIENCE;
use system::stage::Stage;

/// Times here are short, so that what they end ends soon.
const LIMITS: &str = "[limits]\nhandshake = \"1s\"\nlogin = \"2s\"\nidle = \"3s\"\n";

/// Waits until the relay has ended a connection; what it said until then.
fn until_closed(socket: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    said
}

#[test]
fn what_is_not_tls_is_closed_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), "").unwrap();
    let mut garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: demo.local\r\n\r\n".to_vec(),
        b"010 FROM alice@demo.local/d1 VER=1\r\n".to_vec(),
        vec![0; 4_096],
        vec![0xFF; 40_000],
        // A record of a handshake that claims more octets than a record may have.
        [&[0x16, 3, 1, 0xFF, 0xFF][..], &[0; 70_000]].concat(),
    ];
    // A ClientHello with one octet changed, in each of its first places.
    let hello = stage.dialer.client_hello().unwrap();
    for place in (0..hello.len()).step_by(29) {
        let mut changed = hello.clone();
        changed[place] ^= 0x55;
        garbage.push(changed);
    }
    for octets in &garbage {
        let mut socket = stage.dialer.connect().unwrap();
        // The relay may close before it has read all of it.
        let _ = socket.write_all(octets);
        let _ = socket.shutdown(Shutdown::Write);
        let said = until_closed(&mut socket);
        assert!(!said.windows(3).any(|three| three == b"220"), "greeted without TLS");
    }
    let failed: u64 = ["failed_not_tls", "failed_handshake"]
        .map(|what| stage.figure(&format!("relay_handshakes_total{{outcome=\"{what}\"}}")).unwrap())
        .iter()
        .sum();
    assert_eq!(failed, garbage.len() as u64);
    stage.check().unwrap();
}

#[test]
fn who_does_not_finish_is_closed_by_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), LIMITS).unwrap();
    let hello = stage.dialer.client_hello().unwrap();
    let silent = stage.dialer.connect().unwrap();
    let mut half = stage.dialer.connect().unwrap();
    half.write_all(&hello[..hello.len() / 2]).unwrap();
    let mut whole = stage.dialer.connect().unwrap();
    whole.write_all(&hello).unwrap();
    for (name, mut socket) in [("silent", silent), ("half", half), ("whole", whole)] {
        let began = Instant::now();
        until_closed(&mut socket);
        assert!(began.elapsed() < PATIENCE, "{name}");
    }
    let failed = "relay_handshakes_total{outcome=\"failed_deadline\"}";
    assert_eq!(stage.figure(failed).unwrap(), 3);

    let mut mute = stage.dialer.greeted().unwrap();
    assert_eq!(mute.goodbye().unwrap(), "421 :no login in 2 s");
    let mut pinging = stage.dialer.greeted().unwrap();
    pinging.ask("015", 250).unwrap();
    assert_eq!(pinging.goodbye().unwrap(), "421 :no login in 2 s");
    stage.check().unwrap();
}

#[test]
fn a_line_that_comes_octet_by_octet_without_end_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = Stage::set(folder.path(), LIMITS).unwrap();
    let carol = Device::enrol(&stage.site, &stage.dialer, "carol").unwrap();
    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let began = Instant::now();
    let goodbye = loop {
        assert!(began.elapsed() < PATIENCE, "it goes on for ever");
        if link.send(b"1").is_err() {
            panic!("closed without 421");
        }
        match link.hear_within(Duration::from_millis(100)).unwrap() {
            Heard::Line(line) => break line,
            Heard::Nothing => {}
            Heard::End => panic!("closed without 421"),
        }
    };
    assert_eq!(goodbye, "421 :no line came for 3 s");
    assert!(began.elapsed() >= Duration::from_secs(2), "closed too soon");

    // Whole lines keep a link alive, however slowly their octets come.
    let mut link = carol.resume(&stage.dialer, 0).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        for octet in b"015\r\n" {
            link.send(&[*octet]).unwrap();
        }
        link.expect(250).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    link.quit().unwrap();
    stage.check().unwrap();
}
