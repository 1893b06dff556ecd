//! Handshake workers: threads beside the loop for the steps that compute keys or wait for a token.
//!
//! Owns the threads and their bounded queue. The loop hands over a session with the octets of its
//! peer and gets it back through a channel. Invariant: a session is in one place at a time.
//! At the limit (by default [`limits::HANDSHAKE_QUEUE_MAX`]) the session is given back at once;
//! the caller refuses the connection and counts it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::limits;
use crate::ring;

use super::tls::{Progress, Session, TlsError};

/// A step for a worker: the octets are in the session ([`Session::accumulate`]).
struct Job<Key> {
    key: Key,
    session: Box<Session>,
}

/// A finished step.
pub struct Step<Key> {
    /// What the session was handed over with.
    pub key: Key,
    /// The session.
    pub session: Box<Session>,
    /// What to send to the peer, in any case.
    pub outgoing: Vec<u8>,
    /// Application data that came with the step.
    pub plaintext: Vec<u8>,
    /// How it went.
    pub result: Result<Progress, TlsError>,
}

struct Queue<Key> {
    jobs: VecDeque<Job<Key>>,
    ended: bool,
}

struct Shared<Key> {
    queue: Mutex<Queue<Key>>,
    work: Condvar,
}

/// The pool. Dropping it drops waiting jobs and waits for running ones.
pub struct HandshakePool<Key: Send + 'static> {
    shared: Arc<Shared<Key>>,
    queue_max: usize,
    threads: Vec<JoinHandle<()>>,
}

impl<Key: Send + 'static> HandshakePool<Key> {
    /// Starts `workers` threads (1 to [`limits::HANDSHAKE_WORKERS_MAX`]), which answer through
    /// the returned receiver. At most `queue_max` steps wait for them.
    ///
    /// # Errors
    /// The system's, if it gives no threads.
    pub fn start(
        workers: usize,
        queue_max: usize,
    ) -> std::io::Result<(Self, ring::Receiver<Step<Key>>)> {
        let (sender, receiver) = ring::channel(queue_max + limits::HANDSHAKE_WORKERS_MAX);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { jobs: VecDeque::new(), ended: false }),
            work: Condvar::new(),
        });
        let mut pool =
            HandshakePool { shared: Arc::clone(&shared), queue_max, threads: Vec::new() };
        for number in 0..workers.clamp(1, limits::HANDSHAKE_WORKERS_MAX) {
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            let name = format!("handshake-{number}");
            let thread = thread::Builder::new().name(name).spawn(move || work(&shared, &sender))?;
            pool.threads.push(thread);
        }
        Ok((pool, receiver))
    }

    /// Hands a session over.
    ///
    /// # Errors
    /// The session, if the queue is full.
    pub fn submit(&self, key: Key, session: Box<Session>) -> Result<(), Box<Session>> {
        let mut queue = lock(&self.shared);
        if queue.jobs.len() >= self.queue_max {
            return Err(session);
        }
        queue.jobs.push_back(Job { key, session });
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Steps waiting for a worker.
    pub fn waiting(&self) -> usize {
        lock(&self.shared).jobs.len()
    }
}

impl<Key: Send + 'static> Drop for HandshakePool<Key> {
    fn drop(&mut self) {
        let left = {
            let mut queue = lock(&self.shared);
            queue.ended = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(left);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock<Key>(shared: &Shared<Key>) -> MutexGuard<'_, Queue<Key>> {
    // No code of ours can panic while it holds the lock.
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work<Key>(shared: &Shared<Key>, sender: &ring::Sender<Step<Key>>) {
    loop {
        let job = {
            let mut queue = lock(shared);
            loop {
                if queue.ended {
                    return;
                }
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let step = run(job);
        let mut unsent = match sender.try_send(step) {
            Ok(()) => continue,
            Err(ring::TrySendError::Closed(_)) => return,
            Err(ring::TrySendError::Full(step)) => step,
        };
        // The loop is behind by more than a full queue: wait for it.
        loop {
            thread::sleep(limits::HANDSHAKE_ANSWER_RETRY);
            match sender.try_send(unsent) {
                Ok(()) => break,
                Err(ring::TrySendError::Closed(_)) => return,
                Err(ring::TrySendError::Full(step)) => unsent = step,
            }
        }
    }
}

/// One step of a handshake.
fn run<Key>(job: Job<Key>) -> Step<Key> {
    let Job { key, mut session } = job;
    let mut outgoing = Vec::new();
    let mut plaintext = Vec::new();
    let result = session.feed(&mut [], &mut outgoing, |octets| plaintext.extend_from_slice(octets));
    Step { key, session, outgoing, plaintext, result }
}
