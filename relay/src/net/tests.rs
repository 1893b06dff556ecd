//! A line echo server over TLS on the ring, spoken to by rustls and OpenSSL over loopback.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::tls::{Configuration, SignError, TlsSigner};
use super::*;
use crate::ring::{self, Ring, RingConfiguration, Statistics};

mod limit;

/// A P-256 key in memory that can be told to fail or to wait.
pub(super) struct Software {
    pub(super) certificate: Vec<u8>,
    signer: Arc<SoftwareSigner>,
}

struct SoftwareSigner {
    key: EcdsaKeyPair,
    signatures: AtomicUsize,
    failure: Mutex<Option<SignError>>,
    gate: (Mutex<bool>, Condvar),
}

impl Software {
    pub(super) fn new() -> Software {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&pair).unwrap().der().to_vec();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der())
            .unwrap();
        let signer = SoftwareSigner {
            key,
            signatures: AtomicUsize::new(0),
            failure: Mutex::new(None),
            gate: (Mutex::new(true), Condvar::new()),
        };
        Software { certificate, signer: Arc::new(signer) }
    }

    pub(super) fn configuration(&self) -> Configuration {
        let signer: Arc<dyn TlsSigner> = Arc::clone(&self.signer) as _;
        Configuration::new(vec![self.certificate.clone()], signer).unwrap()
    }

    pub(super) fn signatures(&self) -> usize {
        self.signer.signatures.load(Ordering::SeqCst)
    }

    pub(super) fn fail(&self, error: Option<SignError>) {
        *self.signer.failure.lock().unwrap() = error;
    }

    fn open(&self, open: bool) {
        *self.signer.gate.0.lock().unwrap() = open;
        self.signer.gate.1.notify_all();
    }
}

impl TlsSigner for SoftwareSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signatures.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(gate, |open| !*open).unwrap());
        if let Some(error) = *self.failure.lock().unwrap() {
            return Err(error);
        }
        let signature = self.key.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| SignError::Refused)?.as_ref().to_vec())
    }
}

pub(super) fn client_configuration(certificate: &[u8], alpn: &[&[u8]]) -> ClientConfig {
    client_with(rustls::crypto::aws_lc_rs::default_provider(), certificate, alpn)
}

pub(super) fn client_with(
    provider: CryptoProvider,
    certificate: &[u8],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.to_vec().into()).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    client
}

/// Answers each line with itself, and a few with something else.
struct Echo {
    outbox: Outbox,
    lines: HashMap<ConnectionId, (Peer, Vec<u8>)>,
    reasons: mpsc::Sender<Reason>,
    pressures: Rc<Cell<(usize, usize, usize)>>,
    /// Connections with more to push when there is room.
    feeding: HashMap<ConnectionId, usize>,
}

const PIECE: [u8; 1_000] = [b'x'; 1_000];

impl Echo {
    fn answer(&mut self, id: ConnectionId, line: &[u8]) {
        let mut words = line.split(|octet| *octet == b' ');
        match words.next().unwrap() {
            b"exporter" => {
                let peer = &self.lines[&id].0;
                let hex: String = peer.exporter.iter().map(|o| format!("{o:02x}")).collect();
                self.push(id, format!("{hex} {}\r\n", peer.resumed).as_bytes());
            }
            b"bye" => {
                self.push(id, b"221 bye\r\n");
                self.outbox.close_after_flush(id);
            }
            b"abort" => self.outbox.abort(id),
            b"feed" => {
                let pieces = std::str::from_utf8(words.next().unwrap()).unwrap();
                self.feeding.insert(id, pieces.parse().unwrap());
                self.feed(id);
            }
            b"flood" => {
                let pieces: usize =
                    std::str::from_utf8(words.next().unwrap()).unwrap().parse().unwrap();
                (0..pieces).for_each(|_| self.push(id, &PIECE));
            }
            _ => self.push(id, &[line, b"\r\n"].concat()),
        }
    }

    fn push(&mut self, id: ConnectionId, octets: &[u8]) {
        let pressure = self.outbox.push(id, octets);
        self.note(pressure);
    }

    fn note(&self, pressure: Pressure) {
        let (fine, over, refused) = self.pressures.get();
        self.pressures.set(match pressure {
            Pressure::Fine => (fine + 1, over, refused),
            Pressure::Over => (fine, over + 1, refused),
            Pressure::Refused => (fine, over, refused + 1),
            Pressure::Gone => (fine, over, refused),
        });
    }

    /// Pushes until told to stop, as a good owner does.
    fn feed(&mut self, id: ConnectionId) {
        let Some(mut left) = self.feeding.remove(&id) else { return };
        while left > 0 {
            left -= 1;
            let pressure = self.outbox.push(id, &PIECE);
            self.note(pressure);
            match pressure {
                Pressure::Over => {
                    self.feeding.insert(id, left);
                    return;
                }
                Pressure::Fine | Pressure::Refused => {}
                Pressure::Gone => return,
            }
        }
    }
}

impl Service for Echo {
    fn opened(&mut self, id: ConnectionId, peer: Peer) {
        assert_eq!(&*peer.alpn, b"cim1");
        self.lines.insert(id, (peer, Vec::new()));
    }

    fn received(&mut self, id: ConnectionId, plaintext: &[u8]) {
        self.lines.get_mut(&id).unwrap().1.extend_from_slice(plaintext);
        loop {
            let buffer = &mut self.lines.get_mut(&id).unwrap().1;
            let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") else { return };
            let line: Vec<u8> = buffer.drain(..end + 2).take(end).collect();
            self.answer(id, &line);
        }
    }

    fn drained(&mut self, id: ConnectionId) {
        self.feed(id);
    }

    fn turned_away(&mut self, crowd: Crowd) -> Vec<u8> {
        format!("421 {crowd:?}\r\n").into_bytes()
    }

    fn closed(&mut self, id: ConnectionId, reason: Reason) {
        assert!(self.lines.remove(&id).is_some(), "closed once");
        self.feeding.remove(&id);
        let _ = self.reasons.send(reason);
    }
}

struct Running {
    software: Software,
    address: SocketAddr,
    reasons: mpsc::Receiver<Reason>,
    stop: ring::Sender<()>,
    thread: thread::JoinHandle<(NetStatistics, Statistics, (usize, usize, usize))>,
}

fn serve(configuration: NetConfiguration) -> Running {
    let software = Software::new();
    let tls = software.configuration();
    let (address, told) = mpsc::channel();
    let (reasons, ends) = mpsc::channel();
    let (stop, mut stopped) = ring::channel(1);
    let thread = thread::spawn(move || {
        let ring = Ring::new(&RingConfiguration { files: 4_096, ..Default::default() }).unwrap();
        let handle = ring.handle();
        let outbox = Outbox::new(handle.clone(), configuration);
        let pressures = Rc::new(Cell::new((0, 0, 0)));
        let service = Rc::new(RefCell::new(Echo {
            outbox: outbox.clone(),
            lines: HashMap::new(),
            reasons,
            pressures: Rc::clone(&pressures),
            feeding: HashMap::new(),
        }));
        let server = Server::new(&outbox, tls, service).unwrap();
        let listener = handle.listen_tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        address.send(listener.local_address().unwrap()).unwrap();
        server.serve(listener);
        ring.block_on(async { stopped.receive().await }).unwrap();
        server.stop_accepting();
        for id in outbox.open_connections() {
            outbox.close_after_flush(id);
        }
        ring.block_on(async {
            while server.connections() > 0 {
                handle.sleep(Duration::from_millis(1)).await;
            }
        })
        .unwrap();
        (server.statistics(), handle.statistics(), pressures.get())
    });
    let address = told.recv().unwrap();
    Running { software, address, reasons: ends, stop, thread }
}

impl Running {
    fn client(&self) -> Arc<ClientConfig> {
        Arc::new(client_configuration(&self.software.certificate, &[b"cim1"]))
    }

    fn connect(&self, client: &Arc<ClientConfig>) -> Client {
        Client::new(self.address, client)
    }

    fn end(self) -> (NetStatistics, Statistics, (usize, usize, usize)) {
        self.stop.try_send(()).unwrap();
        self.thread.join().unwrap()
    }
}

struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    fn new(address: SocketAddr, client: &Arc<ClientConfig>) -> Client {
        let name = "a.example".try_into().unwrap();
        let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client { stream: BufReader::new(StreamOwned::new(connection, socket)) }
    }

    fn say(&mut self, line: &str) {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        stream.flush().unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end_matches("\r\n").to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }
}

#[test]
fn lines_come_back_over_the_hybrid_group_bound_to_the_connection() {
    let server = serve(NetConfiguration::default());
    let client = server.client();
    for resumed in [false, true] {
        let mut connection = server.connect(&client);
        assert_eq!(connection.ask("hello"), "hello");
        let theirs = connection.ask("exporter");
        let tls = &mut connection.stream.get_mut().conn;
        let ours = tls.export_keying_material([0; 32], tls::EXPORTER_LABEL, Some(&[])).unwrap();
        let hex: String = ours.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(theirs, format!("{hex} {resumed}"));
        let group = tls.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        assert_eq!(connection.ask("bye"), "221 bye");
        let mut rest = Vec::new();
        connection.stream.read_to_end(&mut rest).expect("an orderly end");
        assert!(rest.is_empty());
        assert_eq!(server.reasons.recv().unwrap(), Reason::Closed);
    }
    assert_eq!(server.software.signatures(), 1);
    let (net, _, _) = server.end();
    assert_eq!((net.accepted, net.opened, net.resumed, net.closed), (2, 2, 1, 2));
}

#[test]
fn two_hundred_clients_in_parallel() {
    let server = serve(NetConfiguration::default());
    let threads: Vec<_> = (0..20)
        .map(|thread| {
            let (address, client) = (server.address, server.client());
            thread::spawn(move || {
                let mut clients: Vec<_> = (0..10).map(|_| Client::new(address, &client)).collect();
                for round in 0..20 {
                    for (number, client) in clients.iter_mut().enumerate() {
                        let long = "y".repeat(round * 300);
                        client.say(&format!("{thread} {number} {round} {long}"));
                        client.say("second");
                    }
                    for (number, client) in clients.iter_mut().enumerate() {
                        let long = "y".repeat(round * 300);
                        assert_eq!(client.hear(), format!("{thread} {number} {round} {long}"));
                        assert_eq!(client.hear(), "second");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let (net, ring, _) = server.end();
    assert_eq!((net.opened, net.closed), (200, 200));
    assert!(net.plaintext_received == net.plaintext_sent, "{net:?}");
    assert!(ring.enters < 3 * ring.completions, "{ring:?}");
}

#[test]
fn what_is_pushed_in_one_turn_goes_out_as_one_batch() {
    let server = serve(NetConfiguration::default());
    let mut connection = server.connect(&server.client());
    assert_eq!(connection.ask("first"), "first");
    connection.say(&"line\r\n".repeat(100));
    for _ in 0..100 {
        assert_eq!(connection.hear(), "line");
    }
    assert_eq!(connection.hear(), "");
    drop(connection);
    let (net, _, _) = server.end();
    assert!(net.batches <= 10, "{net:?}");
}

#[test]
fn strangers_who_do_not_speak_tls_are_counted_and_closed() {
    let deadline = Duration::from_millis(300);
    let server = serve(NetConfiguration { handshake_deadline: deadline, ..Default::default() });
    let gone = |octets: &[u8]| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let _ = stream.write_all(octets);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    };
    assert!(gone(b"GET / HTTP/1.1\r\n\r\n").is_empty(), "told nothing before TLS");
    let start = Instant::now();
    assert!(gone(&[22, 3, 1, 0, 100]).is_empty(), "half a record, then silence");
    assert!(gone(&[]).is_empty(), "nothing at all");
    assert!(start.elapsed() >= 2 * deadline);
    // A peer that sends a whole ClientHello and then nothing.
    let name = "a.example".try_into().unwrap();
    let mut half = ClientConnection::new(server.client(), name).unwrap();
    let mut hello = Vec::new();
    half.write_tls(&mut hello).unwrap();
    assert!(gone(&hello).len() > 500, "our side of the handshake, then the end");
    // A peer that drips octets.
    let mut slow = TcpStream::connect(server.address).unwrap();
    let dripped = hello.iter().take_while(|octet| {
        thread::sleep(Duration::from_millis(2));
        slow.write_all(&[**octet]).is_ok()
    });
    assert!(dripped.count() < hello.len());
    // Peers that leave in the middle.
    for length in [0, 3, 100, hello.len()] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(&hello[..length]).unwrap();
    }
    let mut connection = server.connect(&server.client());
    assert_eq!(connection.ask("still there"), "still there");
    drop(connection);
    assert_eq!(server.reasons.recv().unwrap(), Reason::Truncated);
    let (net, _, _) = server.end();
    assert_eq!((net.accepted, net.opened), (10, 1), "{net:?}");
    assert_eq!((net.failed_not_tls, net.failed_deadline), (1, 4), "{net:?}");
    assert_eq!(net.failed_handshake, 4, "{net:?}");
}

#[test]
fn one_octet_at_a_time_and_key_updates() {
    let server = serve(NetConfiguration::default());
    let name = "a.example".try_into().unwrap();
    let mut tls = ClientConnection::new(server.client(), name).unwrap();
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_nodelay(true).unwrap();
    let drip = |tls: &mut ClientConnection, socket: &mut TcpStream| {
        let mut octets = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut octets).unwrap();
        }
        for octet in octets {
            socket.write_all(&[octet]).unwrap();
        }
    };
    while tls.is_handshaking() {
        drip(&mut tls, &mut socket);
        if tls.wants_read() {
            tls.read_tls(&mut socket).unwrap();
            tls.process_new_packets().unwrap();
        }
    }
    for round in 0..4 {
        let line = format!("round {round}\r\n");
        tls.refresh_traffic_keys().unwrap();
        tls.writer().write_all(line.as_bytes()).unwrap();
        drip(&mut tls, &mut socket);
        let mut back = vec![0; line.len()];
        let mut filled = 0;
        while filled < back.len() {
            match tls.reader().read(&mut back[filled..]) {
                Ok(count) => filled += count,
                Err(_) => {
                    tls.read_tls(&mut socket).unwrap();
                    tls.process_new_packets().unwrap();
                }
            }
        }
        assert_eq!(back, line.as_bytes());
    }
    tls.send_close_notify();
    drip(&mut tls, &mut socket);
    assert_eq!(server.reasons.recv().unwrap(), Reason::PeerClosed);
    drop(socket);
    server.end();
}

#[test]
fn a_waiting_token_blocks_no_open_connection() {
    let server = serve(NetConfiguration { handshake_workers: 1, ..Default::default() });
    let client = server.client();
    let mut open = server.connect(&client);
    assert_eq!(open.ask("before"), "before");
    server.software.open(false);
    let fresh = server.client();
    let address = server.address;
    let waiting = thread::spawn(move || Client::new(address, &fresh).ask("new"));
    while server.software.signatures() < 2 {
        assert_eq!(open.ask("meanwhile"), "meanwhile");
    }
    for _ in 0..100 {
        assert_eq!(open.ask("meanwhile"), "meanwhile");
    }
    server.software.open(true);
    assert_eq!(waiting.join().unwrap(), "new");
    drop(open);
    server.end();
}

#[test]
fn a_token_that_is_away_refuses_handshakes_and_comes_back() {
    let server = serve(NetConfiguration::default());
    let client = server.client();
    let mut open = server.connect(&client);
    assert_eq!(open.ask("before"), "before");
    server.software.fail(Some(SignError::Unavailable));
    let name = "a.example".try_into().unwrap();
    let connection = ClientConnection::new(server.client(), name).unwrap();
    let socket = TcpStream::connect(server.address).unwrap();
    let mut refused = StreamOwned::new(connection, socket);
    assert!(refused.write_all(b"x\r\n").is_err());
    assert_eq!(open.ask("goes on"), "goes on");
    assert_eq!(server.connect(&client).ask("resumed"), "resumed", "tickets spare the token");
    server.software.fail(None);
    assert_eq!(server.connect(&server.client()).ask("back"), "back");
    drop(open);
    let (net, _, _) = server.end();
    assert_eq!((net.failed_signature, net.resumed), (1, 1));
}

#[test]
fn openssl_talks_to_us_and_resumes() {
    let server = serve(NetConfiguration::default());
    let directory = tempfile::tempdir().unwrap();
    let session = directory.path().join("session.pem");
    let run = |store: &str, input: &[u8]| {
        let address = server.address.to_string();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-alpn", "cim1", "-tls1_3"])
            .args(["-servername", "a.example", "-ign_eof", store, session.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let first = run("-sess_out", b"hello openssl\r\nbye\r\n");
    assert!(first.contains("hello openssl\r\n221 bye\r\n"), "{first}");
    assert!(first.contains("New, TLSv1.3"), "{first}");
    assert!(first.contains("ALPN protocol: cim1"), "{first}");
    let second = run("-sess_in", b"hello again\r\nbye\r\n");
    assert!(second.contains("hello again\r\n221 bye\r\n"), "{second}");
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
    let (net, _, _) = server.end();
    assert_eq!((net.opened, net.resumed), (2, 1));
}

#[test]
fn openssl_without_our_protocol_gets_an_alert() {
    let server = serve(NetConfiguration::default());
    for arguments in [&["-tls1_3"][..], &["-tls1_2", "-alpn", "cim1"], &["-alpn", "h2"]] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &server.address.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("alert"), "{arguments:?}: {text}");
    }
    let (net, _, _) = server.end();
    assert_eq!((net.opened, net.failed_handshake), (0, 3));
}
