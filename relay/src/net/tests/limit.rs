//! The limits of the network at n and n + 1: connections, handshakes, outboxes.

use super::*;
use crate::limits;

#[test]
fn connections_are_bounded_in_all_and_per_source() {
    for (connections_max, connections_per_source_max, all) in [(3, 100, true), (100, 3, false)] {
        let server = serve(NetConfiguration {
            connections_max,
            connections_per_source_max,
            ..Default::default()
        });
        let client = server.client();
        let mut kept: Vec<_> = (0..3).map(|_| server.connect(&client)).collect();
        for connection in &mut kept {
            assert_eq!(connection.ask("n"), "n");
        }
        let mut refused = server.connect(&client);
        let goodbye = if all { "421 All" } else { "421 Source" };
        assert_eq!(refused.ask("n + 1"), goodbye);
        let mut rest = Vec::new();
        refused.stream.read_to_end(&mut rest).expect("an orderly end");
        assert!(rest.is_empty());
        drop(refused);
        assert_eq!(kept.pop().unwrap().ask("bye"), "221 bye");
        server.reasons.recv().unwrap();
        // The place is free once the farewell is over.
        let again = loop {
            let mut connection = server.connect(&client);
            match connection.ask("again").as_str() {
                "again" => break connection,
                told => assert_eq!(told, goodbye),
            }
        };
        drop((again, kept));
        let (net, _, (fine, over, refused)) = server.end();
        assert_eq!((fine, over, refused), (5, 0, 0), "who is turned away is not served");
        let counted = if all { net.refused_connections } else { net.refused_source };
        assert_eq!(counted, net.told_away);
        assert!(counted >= 1, "{net:?}");
    }
}

#[test]
fn only_so_many_are_told_that_they_are_turned_away() {
    let server = serve(NetConfiguration {
        connections_max: 1,
        handshake_deadline: Duration::from_secs(3_600),
        ..Default::default()
    });
    let client = server.client();
    let mut inside = server.connect(&client);
    assert_eq!(inside.ask("inside"), "inside");
    // None of them begins its handshake yet.
    let outside: Vec<_> = (0..limits::TURNED_AWAY_MAX).map(|_| server.connect(&client)).collect();
    let mut refused = TcpStream::connect(server.address).unwrap();
    let ended = refused.read_to_end(&mut Vec::new());
    assert!(matches!(ended, Ok(0) | Err(_)), "n + 1 goes without a word: {ended:?}");
    for mut connection in outside {
        assert_eq!(connection.ask("n"), "421 All");
    }
    drop(inside);
    let (net, _, _) = server.end();
    let all = limits::TURNED_AWAY_MAX as u64;
    assert_eq!((net.told_away, net.refused_connections), (all, all + 1));
}

#[test]
fn a_peer_that_reads_no_answers_gets_no_more_of_them() {
    const LINES: usize = 60_000;
    let server = serve(NetConfiguration { outbox_bytes_max: 50_000, ..Default::default() });
    let name = "a.example".try_into().unwrap();
    let mut tls = ClientConnection::new(server.client(), name).unwrap();
    let mut socket = TcpStream::connect(server.address).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let line = [&PIECE[..], b"\r\n"].concat();
    let mut written = 0;
    let mut is_stuck = false;
    // 60 MB fit into no buffers: the server stops reading, and then writing goes on no more.
    while written < LINES && !is_stuck {
        tls.writer().write_all(&line).unwrap();
        written += 1;
        while tls.wants_write() && !is_stuck {
            is_stuck = tls.write_tls(&mut socket).is_err();
        }
    }
    assert!(is_stuck, "everything was taken, although nothing was read");
    let mut octets = 0;
    let mut buffer = [0; 16_384];
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while octets < written * line.len() {
        // Reading makes room; only when there is nothing to read the rest is written.
        match tls.read_tls(&mut socket) {
            Ok(count) => assert!(count > 0, "the server goes on"),
            Err(_) if tls.wants_write() => drop(tls.write_tls(&mut socket)),
            Err(_) => {}
        }
        tls.process_new_packets().unwrap();
        while let Ok(count) = tls.reader().read(&mut buffer) {
            assert!(count > 0);
            octets += count;
        }
    }
    assert_eq!(octets, written * line.len());
    drop((tls, socket));
    let (net, _, (fine, over, refused)) = server.end();
    assert_eq!((fine + over, refused), (written, 0));
    assert!(net.choked > 0, "{net:?}");
}

#[test]
fn an_outbox_at_its_end_takes_no_more() {
    for (pieces, expected) in [(200, (50, 150, 0)), (201, (50, 150, 1))] {
        let server = serve(NetConfiguration {
            outbox_bytes_max: 50_000,
            outbox_bytes_refused: 200_000,
            ..Default::default()
        });
        let mut connection = server.connect(&server.client());
        connection.say(&format!("flood {pieces}"));
        let mut octets = vec![0; 200_000];
        connection.stream.read_exact(&mut octets).unwrap();
        drop(connection);
        let (net, _, pressures) = server.end();
        assert_eq!(pressures, expected);
        assert_eq!(net.outbox_refused, expected.2 as u64);
    }
}

#[test]
fn a_peer_that_reads_late_fills_its_outbox_and_loses_nothing() {
    let server = serve(NetConfiguration { outbox_bytes_max: 50_000, ..Default::default() });
    let mut connection = server.connect(&server.client());
    let mut other = server.connect(&server.client());
    // 20 MB do not fit into socket buffers, whatever their size.
    connection.say("feed 20000");
    for _ in 0..20 {
        assert_eq!(other.ask("free"), "free");
    }
    let mut count = 0;
    let mut buffer = [0; 16_384];
    while count < 20_000 * PIECE.len() {
        let read = connection.stream.read(&mut buffer).unwrap();
        assert!(read > 0 && buffer[..read].iter().all(|octet| *octet == b'x'));
        count += read;
    }
    assert_eq!(connection.ask("after"), "after");
    drop((connection, other));
    let (net, _, (fine, over, refused)) = server.end();
    // The pieces, and 21 answers.
    assert_eq!((fine + over, refused), (20_021, 0));
    assert!(over > 10, "{net:?}");
    assert_eq!(net.outbox_over, over as u64);
}

#[test]
fn a_peer_that_never_reads_is_ended_by_its_owner() {
    let server = serve(NetConfiguration { outbox_bytes_max: 50_000, ..Default::default() });
    let mut connection = server.connect(&server.client());
    connection.say("feed 20000");
    connection.say("abort");
    assert_eq!(server.reasons.recv().unwrap(), Reason::Aborted);
    server.end();
}

#[test]
fn the_handshake_queue_is_bounded() {
    let configuration =
        NetConfiguration { handshake_workers: 1, handshake_queue_max: 2, ..Default::default() };
    let server = serve(configuration);
    server.software.open(false);
    let results: Vec<_> = (0..4)
        .map(|number| {
            // One is with the worker, two wait, the fourth is refused.
            let (address, client) = (server.address, server.client());
            let thread = thread::spawn(move || {
                let name = "a.example".try_into().unwrap();
                let connection = ClientConnection::new(client, name).unwrap();
                let socket = TcpStream::connect(address).unwrap();
                let mut stream = StreamOwned::new(connection, socket);
                stream.write_all(b"in\r\n").is_ok()
            });
            if number == 0 {
                while server.software.signatures() == 0 {
                    thread::yield_now();
                }
            }
            thread
        })
        .collect();
    // The refused one ends while the token still waits.
    while !results.iter().any(thread::JoinHandle::is_finished) {
        thread::yield_now();
    }
    server.software.open(true);
    let through = results.into_iter().map(|thread| thread.join().unwrap());
    assert_eq!(through.filter(|in_time| *in_time).count(), 3);
    let (net, _, _) = server.end();
    assert_eq!((net.opened, net.refused_busy), (3, 1), "{net:?}");
}
