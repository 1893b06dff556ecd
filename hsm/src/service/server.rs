//! The socket: who may connect, frames in, answers out.
//!
//! One thread accepts, one per connection reads (up to [`limits::CONNECTIONS_MAX`]). Frames are
//! read in batches and submitted in one go. Whoever has an answer appends it to the connection's
//! outbox and sends what the socket takes; the rest is sent when the socket is ready again. A
//! client that does not read its answers is not read from, and is cut off at
//! [`limits::OUTBOX_BYTES_MAX`]. Only users and groups named in the configuration, the service's
//! own user and root get in (`SO_PEERCRED`). A malformed frame ends the connection with a
//! last word.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{FlockOperation, Gid, flock};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zeroize::Zeroize;

use crate::error::Error;
use crate::job::Response;
use crate::limits;
use crate::service::pool::{Pool, Sink};
use crate::wire::{self, Decoder};

/// Who may connect, besides the service's own user and root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// User numbers.
    pub users: Vec<u32>,
    /// Group numbers (of the peer's primary group).
    pub groups: Vec<u32>,
    /// Mode of the socket.
    pub mode: u32,
    /// Group of the socket.
    pub group: Option<u32>,
}

impl Access {
    fn allows(&self, stream: &UnixStream) -> bool {
        let Ok(peer) = rustix::net::sockopt::socket_peercred(stream) else {
            return false;
        };
        let (user, group) = (peer.uid.as_raw(), peer.gid.as_raw());
        user == 0
            || user == rustix::process::geteuid().as_raw()
            || self.users.contains(&user)
            || self.groups.contains(&group)
    }
}

/// A listening server.
pub struct Server {
    path: PathBuf,
    stop: Arc<OwnedFd>,
    links: Arc<Mutex<Vec<Arc<Link>>>>,
    thread: Option<JoinHandle<()>>,
    _lock: fs::File,
}

impl Server {
    /// Binds `path` and serves `pool` on it.
    ///
    /// # Errors
    /// If the socket cannot be made, or another process serves it.
    pub fn start(path: &Path, access: Access, pool: Arc<Pool>) -> io::Result<Self> {
        let (listener, lock) = bind(path, &access)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let links = Arc::new(Mutex::new(Vec::new()));
        let (stopping, held) = (Arc::clone(&stop), Arc::clone(&links));
        let thread = std::thread::Builder::new()
            .name("hsm-accept".to_owned())
            .spawn(move || accept(&listener, &access, &pool, &stopping, &held))?;
        Ok(Self { path: path.to_owned(), stop, links, thread: Some(thread), _lock: lock })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the socket and, after what is in their outboxes was offered, all connections.
    pub fn stop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            let _ = fs::remove_file(&self.path);
        }
        let links: Vec<_> =
            self.links.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for link in links {
            link.close();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the socket; a stale one is removed, a served one is not.
fn bind(path: &Path, access: &Access) -> io::Result<(UnixListener, fs::File)> {
    let lock_path = path.with_extension("lock");
    let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path)?;
    lock.set_permissions(fs::Permissions::from_mode(0o600))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let text = format!("another cipherim-hsmd serves {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(access.mode))?;
    if let Some(group) = access.group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(group)))?;
    }
    listener.set_nonblocking(true)?;
    Ok((listener, lock))
}

fn accept(
    listener: &UnixListener,
    access: &Access,
    pool: &Arc<Pool>,
    stop: &OwnedFd,
    links: &Mutex<Vec<Arc<Link>>>,
) {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let mut ready = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        let polled = poll(&mut ready, None);
        if ready.iter().skip(1).any(|stop| !stop.revents().is_empty()) {
            return;
        }
        if polled.is_err() {
            continue;
        }
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        if !access.allows(&stream) {
            tracing::warn!("a connection by a user who is not allowed was closed");
            continue;
        }
        let Ok(link) = Link::new(stream) else {
            continue;
        };
        let link = Arc::new(link);
        if count.fetch_add(1, Ordering::AcqRel) >= limits::CONNECTIONS_MAX {
            count.fetch_sub(1, Ordering::AcqRel);
            let limit = limits::CONNECTIONS_MAX as u64;
            link.answer(0, Err(Error::Busy { what: "the list of connections".into(), limit }));
            continue;
        }
        let mut held = links.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|link| Arc::strong_count(link) > 1);
        held.push(Arc::clone(&link));
        drop(held);
        let (pool, counted) = (Arc::clone(pool), Arc::clone(&count));
        let serve = move || {
            serve(&link, &pool);
            counted.fetch_sub(1, Ordering::AcqRel);
        };
        if std::thread::Builder::new().name("hsm-link".to_owned()).spawn(serve).is_err() {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// One connection.
struct Link {
    stream: UnixStream,
    wake: OwnedFd,
    outbox: Mutex<Outbox>,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends what the socket takes; false if the connection is broken.
    fn flush(&mut self, stream: &UnixStream) -> bool {
        while self.waiting() > 0 {
            let rest = self.bytes.get_mut(self.sent..).unwrap_or_default();
            match send(stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    rest.get_mut(..count).unwrap_or_default().zeroize();
                    self.sent += count;
                }
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        true
    }
}

impl Link {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let outbox = Mutex::new(Outbox::default());
        Ok(Self { stream, wake, outbox, is_closed: AtomicBool::new(false) })
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Sends what waits; octets that still wait.
    fn flush(&self) -> usize {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        if !outbox.flush(&self.stream) {
            self.is_closed.store(true, Ordering::Release);
        }
        outbox.waiting()
    }
}

impl Sink for Link {
    fn answer(&self, id: u64, outcome: Result<Response, Error>) {
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let was_waiting = outbox.waiting() > 0;
        wire::encode_response(&mut outbox.bytes, id, &outcome);
        let is_whole = outbox.flush(&self.stream);
        let waiting = outbox.waiting();
        drop(outbox);
        if !is_whole || waiting > limits::OUTBOX_BYTES_MAX {
            self.close();
        } else if waiting > 0 && !was_waiting {
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Reads jobs until the client goes away or sends what is no job.
fn serve(link: &Arc<Link>, pool: &Arc<Pool>) {
    let sink: Arc<dyn Sink> = Arc::clone(link) as Arc<dyn Sink>;
    pool.observe(&sink);
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; limits::READ_BYTES];
    while !link.is_closed.load(Ordering::Acquire) {
        let waiting = link.flush();
        let mut interest = PollFlags::empty();
        if waiting < limits::OUTBOX_BYTES_MAX / 2 {
            interest |= PollFlags::IN;
        }
        if waiting > 0 {
            interest |= PollFlags::OUT;
        }
        let mut ready = [
            PollFd::new(&link.stream, interest),
            PollFd::from_borrowed_fd(link.wake.as_fd(), PollFlags::IN),
        ];
        if poll(&mut ready, None).is_err() {
            continue;
        }
        let [stream, _] = &ready;
        if stream.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && interest.contains(PollFlags::IN)
            && !read(link, pool, &sink, &mut decoder, &mut buffer)
        {
            break;
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&link.wake, &mut count);
    }
    link.flush();
    link.is_closed.store(true, Ordering::Release);
    let _ = link.stream.shutdown(std::net::Shutdown::Both);
}

/// Reads once and submits all whole frames; false at the end.
fn read(
    link: &Link,
    pool: &Pool,
    sink: &Arc<dyn Sink>,
    decoder: &mut Decoder,
    buffer: &mut [u8],
) -> bool {
    let count = match recv(&link.stream, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => return false,
        Ok((count, _)) => count,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
        Err(_) => return false,
    };
    let received = buffer.get_mut(..count).unwrap_or_default();
    decoder.push(received);
    received.zeroize();
    let mut frames = Vec::new();
    let end = loop {
        match decoder.next_request() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if !frames.is_empty() {
        pool.submit(sink, frames, Instant::now());
    }
    match end {
        Some(error) => {
            tracing::warn!(%error, "a connection is closed");
            link.answer(0, Err(error));
            false
        }
        None => true,
    }
}
