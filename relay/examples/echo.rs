//! A TLS line echo server on the ring, and what it costs: CPU per message, memory per idle
//! connection, handshakes per second.
//!
//! `echo serve` serves on a port of its own choice. `echo measure` starts such a server as a
//! process of its own and loads it:
//! `cargo run --release -p cipherim-relay --example echo -- measure`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use relay::net::tls::{Configuration, SignError, TlsSigner};
use relay::net::{ConnectionId, Crowd, NetConfiguration, Outbox, Peer, Reason, Server, Service};
use relay::ring::{Ring, RingConfiguration, channel};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const LINE_OCTETS: usize = 256;

struct Key(EcdsaKeyPair);

impl TlsSigner for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| SignError::Refused)?.as_ref().to_vec())
    }
}

struct Echo(Outbox);

impl Service for Echo {
    fn opened(&mut self, _id: ConnectionId, _peer: Peer) {}
    fn received(&mut self, id: ConnectionId, plaintext: &[u8]) {
        let _ = self.0.push(id, plaintext);
    }
    fn turned_away(&mut self, _crowd: Crowd) -> Vec<u8> {
        Vec::new()
    }
    fn closed(&mut self, _id: ConnectionId, _reason: Reason) {}
}

fn serve() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&pair).unwrap().der().to_vec();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, &pair.serialize_der()).unwrap();
    let tls = Configuration::new(vec![certificate.clone()], Arc::new(Key(key))).unwrap();
    let ring = Ring::new(&RingConfiguration::default()).expect("a ring");
    let handle = ring.handle();
    let configuration = NetConfiguration {
        connections_per_source_max: 50_000,
        handshake_workers: 1,
        ..NetConfiguration::default()
    };
    let outbox = Outbox::new(handle.clone(), configuration);
    let service = Rc::new(RefCell::new(Echo(outbox.clone())));
    let server = Server::new(&outbox, tls, service).unwrap();
    let listener = handle.listen_tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let hex: String = certificate.iter().map(|octet| format!("{octet:02x}")).collect();
    println!("{} {hex}", listener.local_address().unwrap());
    server.serve(listener);
    let (asks, mut asked) = channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = asks.try_send(line);
        }
    });
    ring.block_on(async {
        while asked.receive().await.is_some() {
            let statistics = handle.statistics();
            println!(
                "{} {} {} {} {} {} {}",
                cpu_us(),
                resident_kib(),
                server.connections(),
                statistics.enters,
                statistics.completions,
                statistics.polls,
                outbox.statistics().batches,
            );
        }
    })
    .unwrap();
}

/// Microseconds the calling thread has run, in user and system mode.
fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: u64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1_000
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
    client: Arc<ClientConfig>,
}

impl Process {
    fn start() -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let (address, hex) = line.trim().split_once(' ').unwrap();
        let certificate: Vec<u8> = (0..hex.len() / 2)
            .map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap())
            .collect();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.into()).unwrap();
        let mut client =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"cim1".to_vec()];
        client.resumption = rustls::client::Resumption::disabled();
        let address = address.parse().unwrap();
        Process { child, input, output, address, client: Arc::new(client) }
    }

    fn ask(&mut self) -> Vec<u64> {
        self.input.write_all(b"?\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let name = "a.example".try_into().unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        StreamOwned::new(connection, socket)
    }
}

fn load(clients: usize, window: usize, rounds: usize) {
    let mut process = Process::start();
    let mut streams: Vec<_> = (0..clients).map(|_| process.connect()).collect();
    let line = [b'm'; LINE_OCTETS];
    for stream in &mut streams {
        stream.write_all(&line).unwrap();
        stream.read_exact(&mut [0; LINE_OCTETS]).unwrap();
    }
    let before = process.ask();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for stream in &mut streams {
            scope.spawn(move || {
                let mut buffer = vec![0; LINE_OCTETS * window];
                for _ in 0..rounds {
                    for _ in 0..window {
                        stream.conn.writer().write_all(&line).unwrap();
                    }
                    stream.flush().unwrap();
                    stream.read_exact(&mut buffer).unwrap();
                }
            });
        }
    });
    let time = start.elapsed();
    let after = process.ask();
    let messages = (clients * window * rounds) as f64;
    let per = |field: usize| (after[field] - before[field]) as f64 / messages;
    println!(
        "{clients} clients, {window} outstanding: {:.2} us CPU per message (loop thread), \
         {:.0} messages/s; per message {:.3} enters, {:.3} completions, {:.3} polls, {:.3} batches",
        per(0),
        messages / time.as_secs_f64(),
        per(3),
        per(4),
        per(5),
        per(6),
    );
    process.child.kill().unwrap();
}

fn idle(connections: usize) {
    let mut process = Process::start();
    let warm: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = process.connect();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream.sock
        })
        .collect();
    let before = process.ask();
    let start = Instant::now();
    let kept: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = process.connect();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream.sock
        })
        .collect();
    let time = start.elapsed();
    std::thread::sleep(Duration::from_millis(200));
    let after = process.ask();
    println!(
        "{} idle connections: {:.2} KiB each; one handshake after the other: {:.0}/s",
        after[2],
        (after[1] - before[1]) as f64 / connections as f64,
        connections as f64 / time.as_secs_f64(),
    );
    drop((warm, kept));
    process.child.kill().unwrap();
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        Some("measure") => {
            load(200, 1, 2_000);
            load(200, 16, 300);
            idle(10_000);
        }
        _ => eprintln!("usage: echo serve|measure"),
    }
}
