//! A fake ring with a seed, and what must hold on it whatever it does.
//!
//! Stands in for the kernel behind [`Port`]: it shortens sends, runs out of buffers (also without
//! data), ends multishots, answers in any order, misses cancels or honours them late, and refuses
//! to submit. It watches us too: a file closed while used, a buffer changed while it is sent, or
//! a loop that would sleep for ever is a failure, and the seed is printed first.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![expect(unsafe_code, reason = "plays the kernel")]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::buffer::BufferPool;
use super::port::{Completion, File, Kind, Operation, Port, Tag, Wait};
use super::*;

/// How often, in thousandths, the fake does what a kernel rarely does.
#[derive(Clone, Copy)]
struct Faults {
    short_send: u64,
    spurious_enobufs: u64,
    ended_multishot: u64,
    missed_cancel: u64,
    refused_enter: u64,
    idle_operation: u64,
}

const CALM: Faults = Faults {
    short_send: 0,
    spurious_enobufs: 0,
    ended_multishot: 0,
    missed_cancel: 0,
    refused_enter: 0,
    idle_operation: 0,
};

const WILD: Faults = Faults {
    short_send: 500,
    spurious_enobufs: 100,
    ended_multishot: 100,
    missed_cancel: 300,
    refused_enter: 5,
    idle_operation: 400,
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn happens(&mut self, thousandths: u64) -> bool {
        self.next() % 1_000 < thousandths
    }
}

/// The other end of a connection.
struct Pipe {
    to_us: VecDeque<u8>,
    to_us_ended: bool,
    from_us: Vec<u8>,
    from_us_ended: bool,
    /// Whether the peer reads what we send.
    reads: bool,
    closed: bool,
}

struct InFlight {
    tag: Tag,
    operation: Operation,
    /// What the octets to send were when they were submitted.
    octets: Vec<u8>,
    /// A cancel has been honoured; the answer is on its way.
    cancelled: bool,
}

struct Fake {
    random: Random,
    faults: Faults,
    pool: Rc<BufferPool>,
    head: u16,
    start: Instant,
    elapsed: Duration,
    queued: VecDeque<(Tag, Operation)>,
    in_flight: Vec<InFlight>,
    answers: Vec<Completion>,
    pipes: Vec<Pipe>,
    /// Which pipe a file is.
    files: HashMap<u32, usize>,
    /// Pipes nobody has accepted yet; their descriptors are their numbers.
    backlog: VecDeque<usize>,
    most_taken: usize,
    refusals_left: u64,
}

#[derive(Clone)]
struct FakePort(Rc<RefCell<Fake>>);

const DESCRIPTORS: RawFd = 1_000_000;

impl Fake {
    fn port(seed: u64, faults: Faults, pool: &Rc<BufferPool>) -> FakePort {
        FakePort(Rc::new(RefCell::new(Fake {
            random: Random(seed),
            faults,
            pool: Rc::clone(pool),
            head: 0,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            queued: VecDeque::new(),
            in_flight: Vec::new(),
            answers: Vec::new(),
            pipes: Vec::new(),
            files: HashMap::new(),
            backlog: VecDeque::new(),
            most_taken: 0,
            refusals_left: 0,
        })))
    }

    fn pipe_of(&self, file: File) -> usize {
        match file {
            File::Direct(slot) => *self.files.get(&slot).expect("an operation on a closed file"),
            File::Plain(_) => panic!("no plain files here"),
        }
    }

    fn submit_all(&mut self) {
        while let Some((tag, operation)) = self.queued.pop_front() {
            let octets = match operation {
                Operation::Send { start, length, .. } => {
                    // SAFETY: the pusher promised that the octets are valid until the completion.
                    let octets = unsafe { std::slice::from_raw_parts(start, length as usize) };
                    octets.to_vec()
                }
                _ => Vec::new(),
            };
            self.in_flight.push(InFlight { tag, operation, octets, cancelled: false });
        }
    }

    /// Lets the operation at `place` do one step; false if there is nothing it could do.
    fn step(&mut self, place: usize) -> bool {
        let InFlight { tag, operation, cancelled, .. } = self.in_flight[place];
        if cancelled {
            return self.answer(place, -libc::ECANCELED, None, false);
        }
        match operation {
            Operation::Accept { .. } => match self.backlog.pop_front() {
                Some(pipe) => {
                    let more = !self.random.happens(self.faults.ended_multishot);
                    self.answer(place, DESCRIPTORS + pipe as RawFd, None, more)
                }
                None => false,
            },
            Operation::Cancel { target } => self.cancel(place, target),
            Operation::Close { file } => {
                let users = self.in_flight.iter().filter(|other| uses(&other.operation, file));
                assert_eq!(users.count(), 1, "a file was closed while used");
                let pipe = self.pipe_of(file);
                self.pipes[pipe].closed = true;
                if let File::Direct(slot) = file {
                    self.files.remove(&slot);
                }
                self.answer(place, 0, None, false)
            }
            Operation::Connect { .. } | Operation::Wake { .. } => false,
            Operation::Receive { file } => self.receive(place, file),
            Operation::Send { file, start, length } => {
                let pipe = self.pipe_of(file);
                if self.pipes[pipe].from_us_ended {
                    return self.answer(place, -libc::EPIPE, None, false);
                }
                if !self.pipes[pipe].reads {
                    return false;
                }
                // SAFETY: as promised by the pusher.
                let now = unsafe { std::slice::from_raw_parts(start, length as usize) };
                assert_eq!(now, self.in_flight[place].octets, "{tag:?} changed while it was sent");
                let short = self.random.happens(self.faults.short_send);
                let count = if short { 1 + self.random.below(now.len()) } else { now.len() };
                let sent = now[..count].to_vec();
                self.pipes[pipe].from_us.extend_from_slice(&sent);
                self.answer(place, count as i32, None, false)
            }
            Operation::Shutdown { file, .. } => {
                let pipe = self.pipe_of(file);
                self.pipes[pipe].from_us_ended = true;
                self.answer(place, 0, None, false)
            }
        }
    }

    fn receive(&mut self, place: usize, file: File) -> bool {
        let pipe = self.pipe_of(file);
        if self.random.happens(self.faults.spurious_enobufs) {
            return self.answer(place, -libc::ENOBUFS, None, false);
        }
        if self.pipes[pipe].to_us.is_empty() {
            return self.pipes[pipe].to_us_ended && self.answer(place, 0, None, false);
        }
        let piece = 1 + self.random.below(self.pipes[pipe].to_us.len());
        let octets: Vec<u8> = self.pipes[pipe].to_us.iter().copied().take(piece).collect();
        let Some((buffer, fitted)) = self.pool.fill(self.head, &octets) else {
            return self.answer(place, -libc::ENOBUFS, None, false);
        };
        self.head = self.head.wrapping_add(1);
        self.pipes[pipe].to_us.drain(..fitted);
        let more = !self.random.happens(self.faults.ended_multishot);
        self.answer(place, fitted as i32, Some(buffer), more)
    }

    fn cancel(&mut self, place: usize, target: Tag) -> bool {
        let found = self.in_flight.iter().position(|other| other.tag == target);
        let result = match found {
            Some(_) if self.random.happens(self.faults.missed_cancel) => -libc::EALREADY,
            Some(found) => {
                // Its answer comes when it comes, often after the cancel's own.
                self.in_flight[found].cancelled = true;
                0
            }
            None => -libc::ENOENT,
        };
        self.answer(place, result, None, false)
    }

    fn answer(&mut self, place: usize, result: i32, buffer: Option<u16>, more: bool) -> bool {
        let tag = self.in_flight[place].tag;
        self.answers.push(Completion { tag, result, buffer, more });
        if !more {
            self.in_flight.swap_remove(place);
        }
        true
    }

    /// Lets operations do steps in random order. Returns whether anything was answered.
    fn work(&mut self) -> bool {
        let steps = 1 + self.random.below(8);
        for _ in 0..steps {
            if self.in_flight.is_empty() {
                break;
            }
            let place = self.random.below(self.in_flight.len());
            if !self.random.happens(self.faults.idle_operation) {
                self.step(place);
            }
        }
        !self.answers.is_empty()
    }

    /// The last resort of a wait: anything that can go on goes on.
    fn work_on_anything(&mut self) -> bool {
        (0..self.in_flight.len()).any(|place| self.step(place))
    }
}

fn uses(operation: &Operation, wanted: File) -> bool {
    match *operation {
        Operation::Close { file }
        | Operation::Connect { file, .. }
        | Operation::Receive { file }
        | Operation::Send { file, .. }
        | Operation::Shutdown { file, .. } => file == wanted,
        Operation::Accept { .. } | Operation::Cancel { .. } | Operation::Wake { .. } => false,
    }
}

impl Port for FakePort {
    unsafe fn push(&mut self, tag: Tag, operation: Operation) {
        self.0.borrow_mut().queued.push_back((tag, operation));
    }

    fn enter(&mut self, wait: Wait) -> io::Result<bool> {
        let fake = &mut *self.0.borrow_mut();
        if fake.refusals_left > 0 || fake.random.happens(fake.faults.refused_enter) {
            fake.refusals_left = fake.refusals_left.saturating_sub(1);
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        fake.submit_all();
        fake.elapsed += Duration::from_micros(10);
        if fake.work() || wait == Wait::No || fake.work_on_anything() {
            return Ok(true);
        }
        match wait {
            Wait::AtMost(time) => fake.elapsed += time,
            _ => panic!("the loop would sleep for ever"),
        }
        Ok(true)
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        let fake = &mut *self.0.borrow_mut();
        into.append(&mut fake.answers);
        let taken = fake.pool.count() - fake.pool.available();
        fake.most_taken = fake.most_taken.max(usize::from(taken));
    }

    fn overflows(&self) -> u64 {
        0
    }

    fn now(&self) -> Instant {
        let fake = self.0.borrow();
        fake.start + fake.elapsed
    }

    fn peer(&mut self, _accepted: RawFd) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Local)
    }

    fn install(&mut self, accepted: RawFd, slot: u32) -> io::Result<()> {
        let pipe = (accepted - DESCRIPTORS) as usize;
        let before = self.0.borrow_mut().files.insert(slot, pipe);
        assert!(before.is_none(), "a slot of the file table was used twice");
        Ok(())
    }

    fn discard(&mut self, accepted: RawFd) {
        self.0.borrow_mut().pipes[(accepted - DESCRIPTORS) as usize].closed = true;
    }
}

/// A ring on a fake, a listener on it, and its insides.
struct World {
    port: FakePort,
    pool: Rc<BufferPool>,
    ring: Ring,
    listener: Option<Listener>,
}

const FILES: u32 = 16;

impl World {
    fn new(seed: u64, faults: Faults) -> World {
        println!("seed {seed}");
        let pool = BufferPool::new(8, 128).unwrap();
        let port = Fake::port(seed, faults, &pool);
        let ring = Ring::from_port(Box::new(port.clone()), Rc::clone(&pool), FILES).unwrap();
        // SAFETY: a system call without pointers.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        // SAFETY: a fresh descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let listener = ring.handle().listen_inherited(socket);
        World { port, pool, ring, listener: Some(listener) }
    }

    /// A peer that will say `octets` and then end.
    fn peer(&self, octets: &[u8], reads: bool, ends: bool) -> usize {
        let fake = &mut *self.port.0.borrow_mut();
        fake.pipes.push(Pipe {
            to_us: octets.iter().copied().collect(),
            to_us_ended: ends,
            from_us: Vec::new(),
            from_us_ended: false,
            reads,
            closed: false,
        });
        let pipe = fake.pipes.len() - 1;
        fake.backlog.push_back(pipe);
        pipe
    }

    fn random(&self, limit: usize) -> usize {
        self.port.0.borrow_mut().random.below(limit)
    }

    /// When all connections have ended, nothing of theirs is left.
    fn check_nothing_is_left(&self) {
        let handle = self.ring.handle();
        self.ring
            .block_on(handle.timeout(Duration::from_secs(60), async {
                while handle.sockets() > 0 {
                    handle.sleep(Duration::from_micros(50)).await;
                }
            }))
            .unwrap()
            .expect("sockets were left over");
        assert_eq!(self.pool.available(), self.pool.count(), "a buffer was lost");
        let files = self.ring.inner.core.borrow().sockets.files_available();
        assert_eq!(files, FILES as usize, "a slot of the file table was lost");
        let fake = self.port.0.borrow();
        assert!(fake.pipes.iter().all(|pipe| pipe.closed), "a file was left open");
    }
}

/// What an owner may do with its connection.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Echo,
    /// Echo, and pause every now and then.
    Pausing,
    /// Echo, and hold every piece for a while.
    Slow,
    /// Leave in the middle.
    Leaving,
    /// Give up waiting for each send, then wait for it after all.
    Impatient,
}

const MANNERS: [Manner; 5] =
    [Manner::Echo, Manner::Pausing, Manner::Slow, Manner::Leaving, Manner::Impatient];

async fn own(world: Rc<World>, connection: Connection, manner: Manner) {
    let handle = world.ring.handle();
    let leaves_after = world.random(6);
    let mut pieces = 0;
    while let Ok(Some(received)) = connection.receive().await {
        pieces += 1;
        match manner {
            Manner::Leaving if pieces > leaves_after => {
                // With a send in flight, half of the time.
                let _ = connection.start_send(received.to_vec());
                if pieces % 2 == 0 {
                    handle.turn_end().await;
                }
                return;
            }
            Manner::Pausing if world.random(2) == 0 => {
                connection.pause();
                handle.sleep(Duration::from_micros(world.random(200) as u64)).await;
                connection.resume();
            }
            Manner::Slow => handle.sleep(Duration::from_micros(300)).await,
            _ => {}
        }
        let octets = received.to_vec();
        drop(received);
        if matches!(manner, Manner::Impatient) {
            let sending = connection.send_all(octets);
            if handle.timeout(Duration::from_micros(15), sending).await.is_err() {
                std::future::poll_fn(|context| connection.poll_sent(context)).await.unwrap();
            }
        } else {
            let (sent, back) = connection.send_all(octets.clone()).await;
            sent.unwrap();
            assert_eq!(back, octets, "the buffer comes back as it was");
        }
    }
    connection.shutdown();
}

fn run(seed: u64) {
    let world = World::new(seed, WILD);
    let mut peers = Vec::new();
    for number in 0..12 {
        let length = world.random(3_000);
        let octets: Vec<u8> =
            (0..length).map(|place| (place * 7 + number * 31 + place / 251) as u8).collect();
        let manner = MANNERS[world.random(MANNERS.len())];
        peers.push((world.peer(&octets, true, true), octets, manner));
    }
    let mut world = world;
    let listener = world.listener.take().unwrap();
    let world = Rc::new(world);
    let done = Rc::new(Cell::new(0));
    let handle = world.ring.handle();
    world
        .ring
        .block_on(handle.timeout(Duration::from_secs(60), async {
            for (_, _, manner) in &peers {
                let connection = listener.accept().await.unwrap();
                let (world, done, manner) = (Rc::clone(&world), Rc::clone(&done), *manner);
                handle.spawn(async move {
                    own(world, connection, manner).await;
                    done.set(done.get() + 1);
                });
            }
            while done.get() < peers.len() {
                handle.sleep(Duration::from_micros(100)).await;
            }
        }))
        .unwrap()
        .expect("the exchange ended");
    world.check_nothing_is_left();
    for (pipe, octets, manner) in peers {
        let echoed = world.port.0.borrow().pipes[pipe].from_us.clone();
        match manner {
            Manner::Leaving => assert!(octets.starts_with(&echoed), "{manner:?}"),
            _ => assert!(echoed == octets, "{manner:?}: {} of {}", echoed.len(), octets.len()),
        }
    }
}

#[test]
fn whatever_the_ring_does_every_octet_comes_back_and_nothing_leaks() {
    for seed in 0..300 {
        run(seed);
    }
}

#[test]
fn and_with_a_seed_nobody_chose() {
    use std::hash::{BuildHasher, RandomState};
    run(RandomState::new().hash_one(0));
}

#[test]
fn a_ring_dropped_in_the_middle_waits_for_the_kernel() {
    for seed in 0..100 {
        let mut world = World::new(seed, WILD);
        for _ in 0..5 {
            world.peer(&[9; 1_000], seed % 2 == 0, false);
        }
        let listener = world.listener.take().unwrap();
        let handle = world.ring.handle();
        let spawner = handle.clone();
        handle.spawn(async move {
            while let Ok(connection) = listener.accept().await {
                spawner.spawn(async move {
                    while let Ok(Some(received)) = connection.receive().await {
                        let _ = connection.send_all(received.to_vec()).await;
                    }
                });
            }
        });
        world.ring.block_on(handle.sleep(Duration::from_micros(seed * 10))).unwrap();
        drop(handle);
        drop(world.ring);
        let fake = world.port.0.borrow();
        let left: Vec<_> = fake.in_flight.iter().map(|one| one.tag.kind).collect();
        assert!(left.is_empty(), "still in flight: {left:?}");
        assert_eq!(world.pool.available(), world.pool.count());
        assert!(fake.files.is_empty());
    }
}

#[test]
fn a_send_stuck_behind_a_peer_that_never_reads_is_cancelled_not_freed() {
    for seed in 0..100 {
        let mut world = World::new(seed, WILD);
        world.peer(&[], false, false);
        let listener = world.listener.take().unwrap();
        let handle = world.ring.handle();
        world
            .ring
            .block_on(async {
                let connection = listener.accept().await.unwrap();
                let sending = connection.send_all(vec![5; 10_000]);
                assert!(handle.timeout(Duration::from_millis(1), sending).await.is_err());
                assert!(connection.is_sending(), "the loop keeps the buffer");
            })
            .unwrap();
        world.check_nothing_is_left();
    }
}

#[test]
fn an_empty_buffer_ring_is_waited_for_and_counted() {
    let mut world = World::new(1, CALM);
    let listener = world.listener.take().unwrap();
    for _ in 0..10 {
        world.peer(&[3; 128], true, true);
    }
    let handle = world.ring.handle();
    world
        .ring
        .block_on(async {
            // Eight buffers, ten pieces: the owners hold what they get until all have one, which
            // only works because pieces are copied out when buffers become scarce.
            let mut held = Vec::new();
            for _ in 0..10 {
                let connection = listener.accept().await.unwrap();
                let received = connection.receive().await.unwrap().unwrap();
                held.push((connection, received));
            }
            assert!(handle.statistics().copied_out >= 4);
        })
        .unwrap();
    world.check_nothing_is_left();
    // And with a ring that says so although it has buffers.
    let world = {
        let faults = Faults { spurious_enobufs: 500, ..CALM };
        World::new(2, faults)
    };
    world.peer(&[4; 2_000], true, true);
    let count = world
        .ring
        .block_on(async {
            let connection = world.listener.as_ref().unwrap().accept().await.unwrap();
            let mut count = 0;
            while let Some(received) = connection.receive().await.unwrap() {
                count += received.len();
            }
            count
        })
        .unwrap();
    assert_eq!(count, 2_000);
    assert!(world.ring.handle().statistics().enobufs > 0);
}

#[test]
fn an_owner_that_does_not_read_stops_the_peer() {
    let world = World::new(3, CALM);
    let pipe = world.peer(&vec![6; 1 << 20], true, true);
    let handle = world.ring.handle();
    world
        .ring
        .block_on(async {
            let connection = world.listener.as_ref().unwrap().accept().await.unwrap();
            drop(connection.receive().await.unwrap().unwrap());
            for _ in 0..1_000 {
                handle.sleep(Duration::from_micros(100)).await;
            }
            let left = world.port.0.borrow().pipes[pipe].to_us.len();
            let taken = (1 << 20) - left;
            // What arrives between the cancel and its honouring comes on top.
            assert!(taken <= 128 * (crate::limits::RECEIVE_QUEUE_MAX + 64), "{taken}");
            assert!(handle.statistics().pauses > 0);
        })
        .unwrap();
}

#[test]
fn a_full_file_table_is_counted_and_the_next_one_finds_room() {
    let mut world = World::new(4, CALM);
    let listener = world.listener.take().unwrap();
    for _ in 0..FILES + 1 {
        world.peer(&[1], true, true);
    }
    let handle = world.ring.handle();
    world
        .ring
        .block_on(async {
            let mut kept = Vec::new();
            for _ in 0..FILES {
                kept.push(listener.accept().await.unwrap());
            }
            while handle.statistics().accept_refused == 0 {
                handle.sleep(Duration::from_micros(10)).await;
            }
            kept.pop();
            handle.sleep(Duration::from_millis(1)).await;
            world.peer(&[2], true, true);
            kept.push(listener.accept().await.unwrap());
            assert_eq!(handle.statistics().accept_refused, 1);
            drop(kept);
        })
        .unwrap();
    world.check_nothing_is_left();
}

#[test]
fn refused_enters_lose_nothing_and_are_bounded() {
    let world = World::new(5, CALM);
    world.peer(&[8; 500], true, true);
    world.port.0.borrow_mut().refusals_left = 20;
    let handle = world.ring.handle();
    let count = world
        .ring
        .block_on(async {
            let connection = world.listener.as_ref().unwrap().accept().await.unwrap();
            let mut count = 0;
            while let Some(received) = connection.receive().await.unwrap() {
                count += received.len();
                world.port.0.borrow_mut().refusals_left = 3;
                connection.send_all(received.to_vec()).await.0.unwrap();
            }
            count
        })
        .unwrap();
    assert_eq!(count, 500);
    assert!(handle.statistics().enter_failures >= 23);
    let limit = crate::limits::ENTER_REFUSALS_MAX as u64;
    world.port.0.borrow_mut().refusals_left = limit;
    assert!(world.ring.block_on(handle.sleep(Duration::from_micros(1))).is_ok(), "n");
    world.port.0.borrow_mut().refusals_left = limit + 1;
    let refused = world.ring.block_on(handle.sleep(Duration::from_micros(1)));
    assert!(matches!(refused, Err(RingError::System { .. })), "n + 1");
}

#[test]
fn a_wake_tag_is_not_a_socket() {
    // The tag of the wake read names slot 0, which sockets use too.
    assert_ne!(Tag::new(Kind::Wake, 0, 0).to_bits(), Tag::new(Kind::Receive, 1, 0).to_bits());
}
