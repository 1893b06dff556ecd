//! The ring against the real kernel: sockets on loopback, threads, timers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn small() -> RingConfiguration {
    RingConfiguration { files: 4_096, ..RingConfiguration::default() }
}

/// Echoes until the peer ends.
async fn echo(connection: Connection) {
    while let Ok(Some(received)) = connection.receive().await {
        let octets = received.to_vec();
        drop(received);
        if connection.send_all(octets).await.0.is_err() {
            return;
        }
    }
}

fn serve_echo(handle: &Handle) -> SocketAddr {
    let listener = handle.listen_tcp(any()).unwrap();
    let address = listener.local_address().unwrap();
    let spawner = handle.clone();
    handle.spawn(async move {
        while let Ok(connection) = listener.accept().await {
            spawner.spawn(echo(connection));
        }
    });
    address
}

#[test]
fn a_thousand_connections_echo() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let address = serve_echo(&handle);
    let done = Rc::new(Cell::new(0));
    for number in 0..1_000_u32 {
        let (client, done) = (handle.clone(), Rc::clone(&done));
        handle.spawn(async move {
            let connection = client.connect_tcp(address).await.unwrap();
            for round in 0..3_u32 {
                let line = format!("{number} {round};").repeat(20).into_bytes();
                let (sent, buffer) = connection.send_all(line.clone()).await;
                sent.unwrap();
                assert_eq!(buffer, line);
                let mut back = Vec::new();
                while back.len() < line.len() {
                    back.extend_from_slice(&connection.receive().await.unwrap().unwrap());
                }
                assert_eq!(back, line);
            }
            done.set(done.get() + 1);
        });
    }
    let watcher = handle.clone();
    ring.block_on(async {
        watcher
            .timeout(PATIENCE, async {
                while done.get() < 1_000 || watcher.sockets() > 0 {
                    watcher.turn_end().await;
                }
            })
            .await
            .unwrap();
    })
    .unwrap();
    let statistics = handle.statistics();
    assert_eq!((statistics.accepted, statistics.accept_refused), (1_000, 0));
    assert!(statistics.submissions > 6_000, "{statistics:?}");
}

#[test]
fn a_reader_that_never_reads_blocks_only_its_sender() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let listener = handle.listen_tcp(any()).unwrap();
    let mut stubborn = TcpStream::connect(listener.local_address().unwrap()).unwrap();
    let inner = handle.clone();
    ring.block_on(async {
        let connection = listener.accept().await.unwrap();
        let big = vec![7_u8; 64 << 20];
        let waited = inner.timeout(Duration::from_millis(100), connection.send_all(big)).await;
        assert!(waited.is_err(), "64 MiB cannot fit into the socket's buffers");
        assert!(connection.is_sending());
        let (busy, _) = connection.send_all(vec![1]).await;
        assert_eq!(busy, Err(SendError::Busy));
        drop(connection);
        while inner.sockets() > 0 {
            inner.sleep(Duration::from_millis(1)).await;
        }
    })
    .unwrap();
    let mut rest = Vec::new();
    let _ = stubborn.read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20);
    assert!(rest.iter().all(|octet| *octet == 7), "the buffer was used after it was freed");
}

#[test]
fn a_peer_that_goes_mid_send_is_an_error_not_a_leak() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let listener = handle.listen_tcp(any()).unwrap();
    let address = listener.local_address().unwrap();
    let (gone, go) = mpsc::channel();
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut first = [0; 1_000];
        stream.read_exact(&mut first).unwrap();
        go.recv().unwrap();
    });
    ring.block_on(async {
        let connection = listener.accept().await.unwrap();
        let mut sending = Box::pin(connection.send_all(vec![9; 64 << 20]));
        let early = handle.timeout(Duration::from_millis(50), &mut sending).await;
        assert!(early.is_err());
        gone.send(()).unwrap();
        let (result, buffer) = handle.timeout(PATIENCE, &mut sending).await.unwrap();
        assert_eq!(result, Err(SendError::Reset));
        assert_eq!(buffer.len(), 64 << 20);
        drop(sending);
        assert_eq!(connection.send_all(vec![1]).await.0, Err(SendError::Reset));
        assert!(connection.send_error().is_some());
        drop(connection);
        while handle.sockets() > 0 {
            handle.sleep(Duration::from_millis(1)).await;
        }
    })
    .unwrap();
    peer.join().unwrap();
}

#[test]
fn pause_stops_reading_and_resume_loses_nothing() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let listener = handle.listen_tcp(any()).unwrap();
    let address = listener.local_address().unwrap();
    let total = 32 << 20;
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let octets: Vec<u8> = (0..total).map(|place: usize| (place % 251) as u8).collect();
        stream.write_all(&octets).unwrap();
    });
    ring.block_on(async {
        let connection = listener.accept().await.unwrap();
        let mut place = 0_usize;
        let mut pieces = 0_u64;
        while let Some(received) = connection.receive().await.unwrap() {
            for octet in received.iter() {
                assert_eq!(*octet, (place % 251) as u8);
                place += 1;
            }
            pieces += 1;
            if pieces.is_multiple_of(97) {
                connection.pause();
                handle.sleep(Duration::from_micros(200)).await;
                connection.resume();
            }
        }
        assert_eq!(place, total);
    })
    .unwrap();
    peer.join().unwrap();
    let statistics = handle.statistics();
    assert!(statistics.pauses > 10, "{statistics:?}");
}

#[test]
fn one_hoarder_of_buffers_does_not_starve_the_others() {
    let buffers = RingConfiguration { buffers: 8, buffer_bytes: 512, ..small() };
    let ring = Ring::new(&buffers).unwrap();
    let handle = ring.handle();
    let address = serve_echo(&handle);
    let listener = handle.listen_tcp(any()).unwrap();
    let hoard = listener.local_address().unwrap();
    ring.block_on(async {
        // Twenty connections whose octets nobody takes …
        let mut hoarded = Vec::new();
        for _ in 0..20 {
            let sender = handle.connect_tcp(hoard).await.unwrap();
            let keeper = listener.accept().await.unwrap();
            sender.send_all(vec![1; 100]).await.0.unwrap();
            let piece = keeper.receive().await.unwrap().unwrap();
            sender.send_all(vec![2; 100_000]).await.0.unwrap();
            hoarded.push((sender, keeper, piece));
        }
        // … and one that works.
        let worker = handle.connect_tcp(address).await.unwrap();
        for _ in 0..100 {
            worker.send_all(vec![3; 2_000]).await.0.unwrap();
            let mut back = 0;
            while back < 2_000 {
                let received =
                    handle.timeout(PATIENCE, worker.receive()).await.unwrap().unwrap().unwrap();
                back += received.len();
            }
        }
        for (_, keeper, piece) in hoarded {
            assert!(piece.iter().all(|octet| *octet == 1));
            drop(piece);
            let mut rest = 0;
            while rest < 100_000 {
                rest += keeper.receive().await.unwrap().unwrap().len();
            }
        }
    })
    .unwrap();
}

#[test]
fn a_full_file_table_refuses_politely_and_the_listener_goes_on() {
    let ring = Ring::new(&RingConfiguration { files: 3, ..small() }).unwrap();
    let handle = ring.handle();
    let address = serve_echo(&handle);
    ring.block_on(async {
        let echoes = async |connection: &Connection| {
            connection.send_all(b"x".to_vec()).await.0.is_ok()
                && matches!(connection.receive().await, Ok(Some(_)))
        };
        let mut kept = Vec::new();
        for _ in 0..3 {
            let connection = handle.connect_tcp(address).await.unwrap();
            assert!(echoes(&connection).await);
            kept.push(connection);
        }
        let fourth = handle.connect_tcp(address).await.unwrap();
        assert!(!echoes(&fourth).await, "n + 1 is refused");
        assert_eq!(handle.statistics().accept_refused, 1);
        kept.pop();
        let again = handle
            .timeout(PATIENCE, async {
                loop {
                    let fifth = handle.connect_tcp(address).await.unwrap();
                    if echoes(&fifth).await {
                        return;
                    }
                }
            })
            .await;
        assert!(again.is_ok());
    })
    .unwrap();
}

#[test]
fn wakes_from_other_threads_arrive_and_the_channel_is_bounded() {
    let ring = Ring::new(&small()).unwrap();
    let (sender, mut receiver) = channel(16);
    let full = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (sender, full) = (sender.clone(), Arc::clone(&full));
            thread::spawn(move || {
                for number in 0..10_000_u32 {
                    let mut item = (thread, number);
                    while let Err(error) = sender.try_send(item) {
                        full.fetch_add(1, Ordering::Relaxed);
                        item = error.into_inner();
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let handle = ring.handle();
    let mut next = [0; 4];
    ring.block_on(handle.timeout(PATIENCE, async {
        while let Some((thread, number)) = receiver.receive().await {
            let expected: &mut u32 = &mut next[thread];
            assert_eq!(number, *expected);
            *expected += 1;
        }
    }))
    .unwrap()
    .unwrap();
    assert_eq!(next, [10_000; 4]);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(ring.handle().statistics().remote_wakes > 0);
}

#[test]
fn a_wake_while_the_loop_runs_costs_no_event() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let (sender, mut receiver) = channel(1_000);
    ring.block_on(async {
        for number in 0..1_000 {
            sender.try_send(number).unwrap();
        }
        for number in 0..1_000 {
            assert_eq!(receiver.receive().await, Some(number));
        }
    })
    .unwrap();
    assert_eq!(handle.statistics().remote_wakes, 0);
}

#[test]
fn timers_fire_in_order_ten_thousand_of_them() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let start = handle.now();
    let fired = Rc::new(RefCell::new(Vec::new()));
    for number in 0..10_000_u64 {
        let (sleeper, fired) = (handle.clone(), Rc::clone(&fired));
        let deadline = start + Duration::from_micros(1_000_000 + number * 7_919 % 50_000);
        handle.spawn(async move {
            sleeper.sleep_until(deadline).await;
            assert!(Instant::now() >= deadline);
            fired.borrow_mut().push(deadline);
        });
    }
    ring.block_on(async {
        while fired.borrow().len() < 10_000 {
            handle.sleep(Duration::from_millis(1)).await;
        }
    })
    .unwrap();
    assert!(fired.borrow().is_sorted());
}

#[test]
fn timeouts_and_moved_deadlines() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    ring.block_on(async {
        let never = std::future::pending::<()>();
        assert_eq!(handle.timeout(Duration::from_millis(5), never).await, Err(Elapsed));
        assert_eq!(handle.timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
        let mut sleep = handle.sleep(Duration::from_secs(3_600));
        assert!(handle.timeout(Duration::from_millis(1), &mut sleep).await.is_err());
        sleep.reset(handle.now() + Duration::from_millis(2));
        assert!(handle.timeout(PATIENCE, &mut sleep).await.is_ok());
    })
    .unwrap();
}

#[test]
fn unix_sockets_have_credentials_and_replace_abandoned_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    ring.block_on(async {
        let listener = handle.listen_unix(&path).unwrap();
        assert_eq!(handle.listen_unix(&path).err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
        let probe = listener.accept().await.unwrap();
        assert!(probe.receive().await.unwrap().is_none(), "the attempt to take the name over");
        let client = handle.connect_unix(&path).await.unwrap();
        let server = listener.accept().await.unwrap();
        assert_eq!(server.peer(), PeerAddress::Local);
        assert_eq!(server.credentials().unwrap().process, std::process::id());
        client.send_all(b"status\r\n".to_vec()).await.0.unwrap();
        client.shutdown();
        assert_eq!(&*server.receive().await.unwrap().unwrap(), b"status\r\n");
        assert!(server.receive().await.unwrap().is_none());
        drop(listener);
        assert!(!path.exists());
        assert!(handle.connect_unix(&path).await.is_err());
    })
    .unwrap();
}

#[test]
fn signals_wake_the_loop() {
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    ring.block_on(async {
        let mut signals = handle.signals(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
        assert!(handle.signals(&[32]).is_err());
        for number in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGUSR1] {
            let sender = thread::spawn(move || signal_hook::low_level::raise(number).unwrap());
            assert_eq!(handle.timeout(PATIENCE, signals.next()).await, Ok(number));
            sender.join().unwrap();
        }
    })
    .unwrap();
}

#[test]
fn tasks_survive_between_runs_and_are_dropped_with_the_ring() {
    struct Witness(Rc<Cell<u32>>);
    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let steps = Rc::new(Cell::new(0));
    let ring = Ring::new(&small()).unwrap();
    let handle = ring.handle();
    let (witness, counted) = (Witness(Rc::clone(&dropped)), Rc::clone(&steps));
    let stepper = handle.clone();
    handle.spawn(async move {
        let _witness = witness;
        loop {
            counted.set(counted.get() + 1);
            stepper.turn_end().await;
        }
    });
    for _ in 0..3 {
        let before = steps.get();
        ring.block_on(async {
            for _ in 0..3 {
                handle.turn_end().await;
            }
        })
        .unwrap();
        assert!(steps.get() > before);
    }
    assert_eq!(dropped.get(), 0);
    drop(ring);
    assert_eq!(dropped.get(), 1);
}
