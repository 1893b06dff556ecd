//! The ring: an executor of our own on io_uring, and the only `unsafe` of the relay.
//!
//! Owns the thread's tasks, timers, sockets and their buffers. One [`Ring`] per thread, entered
//! once per turn; everything a turn sends is submitted together. No raw pointer leaves this
//! module. Invariant: memory handed to the kernel lives until the kernel's final completion.
//! Limits: `RECEIVE_*`, `SUBMISSION_ENTRIES` and `COMPLETION_ENTRIES` in [`crate::limits`].
//! Needs Linux 6.1; where io_uring is refused [`RingError`] says which setting refuses it.

mod buffer;
mod channel;
mod connection;
mod error;
mod executor;
mod kernel;
mod listener;
mod port;
mod signal;
pub(crate) mod slab;
mod socket;
mod statistic;
mod timer;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::limits;

pub use self::buffer::Received;
pub use self::channel::{Receiver, Sender, TrySendError, channel};
pub use self::connection::{Connection, Credentials};
pub use self::error::RingError;
pub use self::listener::Listener;
pub use self::signal::Signals;
pub use self::statistic::Statistics;

use self::executor::{Inner, Shared};
use self::timer::TimerId;

/// Sizes of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfiguration {
    /// Entries of the submission queue.
    pub submission_entries: u32,
    /// Entries of the completion queue, at least twice as many.
    pub completion_entries: u32,
    /// Receive buffers; a power of two.
    pub buffers: u16,
    /// Octets per receive buffer.
    pub buffer_bytes: u32,
    /// TCP connections at a time: slots of the registered file table. The system's limit on open
    /// files is raised as far as it allows, and bounds this number.
    pub files: u32,
}

impl Default for RingConfiguration {
    fn default() -> RingConfiguration {
        RingConfiguration {
            submission_entries: limits::SUBMISSION_ENTRIES,
            completion_entries: limits::COMPLETION_ENTRIES,
            buffers: limits::RECEIVE_BUFFERS,
            buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
            files: limits::FILES_MAX,
        }
    }
}

/// A ring and its executor, for the thread that made it.
pub struct Ring {
    inner: Rc<Inner>,
}

impl Ring {
    /// Sets a ring up.
    ///
    /// # Errors
    /// [`RingError`] says which setting refuses it and what to type.
    pub fn new(configuration: &RingConfiguration) -> Result<Ring, RingError> {
        socket::check_files(configuration.files)?;
        let open_files = raise_open_files();
        let files = configuration.files.min(open_files);
        let configuration = RingConfiguration { files, ..configuration.clone() };
        let pool = buffer::BufferPool::new(configuration.buffers, configuration.buffer_bytes)?;
        let kernel = kernel::Kernel::new(&configuration, &pool)?;
        Ring::from_port(Box::new(kernel), pool, files)
    }

    fn from_port(
        port: Box<dyn port::Port>,
        pool: Rc<buffer::BufferPool>,
        files: u32,
    ) -> Result<Ring, RingError> {
        let shared = Shared::new().map_err(|error| RingError::System { part: "eventfd", error })?;
        let sockets = socket::Sockets::new(port, pool, files);
        Ok(Ring { inner: Rc::new(Inner::new(sockets, shared)) })
    }

    /// A handle for tasks.
    pub fn handle(&self) -> Handle {
        Handle { inner: Rc::clone(&self.inner) }
    }

    /// Runs `future`, and all spawned tasks beside it, until `future` is done.
    ///
    /// # Errors
    /// [`RingError::System`] if the kernel no longer takes submissions.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, RingError> {
        self.inner.block_on(future)
    }
}

impl Drop for Ring {
    /// Drops all tasks, cancels what is in flight and waits for the kernel to let go.
    fn drop(&mut self) {
        self.inner.clear();
    }
}

/// Raises the limit on open files to what is allowed, and tells it.
fn raise_open_files() -> u32 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.map_or(u32::MAX, |files| u32::try_from(files).unwrap_or(u32::MAX))
}

/// What tasks use of a ring. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Handle {
    inner: Rc<Inner>,
}

impl Handle {
    /// Starts a task. It is dropped, wherever it is, when the [`Ring`] is dropped.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.inner.spawn(Box::pin(future));
    }

    /// The time of this turn of the loop.
    pub fn now(&self) -> Instant {
        self.inner.now()
    }

    /// Done at `deadline`.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { inner: Rc::clone(&self.inner), deadline, timer: None }
    }

    /// Done after `time`.
    pub fn sleep(&self, time: Duration) -> Sleep {
        self.sleep_until(self.now() + time)
    }

    /// `future`, or [`Elapsed`] if it takes longer than `time`.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn timeout<F: Future>(
        &self,
        time: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut sleep = self.sleep(time);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut sleep).poll(context).map(|()| Err(Elapsed))
        })
        .await
    }

    /// Done when everything ready in this turn has run, before the ring is entered: the place to
    /// put together what the turn has queued.
    pub async fn turn_end(&self) {
        let mut waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.inner.at_turn_end(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Listens on a TCP address (port 0: any). Accepted connections use the registered file table
    /// and have Nagle's algorithm off; an IPv6 wildcard takes IPv4 too.
    ///
    /// # Errors
    /// The system's.
    pub fn listen_tcp(&self, address: SocketAddr) -> io::Result<Listener> {
        Listener::tcp(Rc::clone(&self.inner), address)
    }

    /// Listens on a Unix-domain socket file, mode 0600, removed at the end. A file left behind by
    /// a process that is gone is replaced.
    ///
    /// # Errors
    /// The system's; `AddrInUse` if somebody answers there.
    pub fn listen_unix(&self, path: &Path) -> io::Result<Listener> {
        Listener::unix(Rc::clone(&self.inner), path)
    }

    /// Listens on a socket that was bound and set to listen elsewhere.
    pub fn listen_inherited(&self, socket: OwnedFd) -> Listener {
        Listener::inherited(Rc::clone(&self.inner), socket)
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect_tcp(&self, to: SocketAddr) -> io::Result<Connection> {
        Connection::connect_tcp(Rc::clone(&self.inner), to).await
    }

    /// Connects to a Unix-domain socket.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect_unix(&self, to: &Path) -> io::Result<Connection> {
        Connection::connect_unix(Rc::clone(&self.inner), to).await
    }

    /// Takes signals (`libc::SIGTERM`, …) from now on.
    ///
    /// # Errors
    /// `InvalidInput` for numbers outside 1 to 31, or the system's.
    pub fn signals(&self, numbers: &[i32]) -> io::Result<Signals> {
        Signals::new(Rc::clone(&self.inner), numbers)
    }

    /// An empty buffer for [`Connection::start_send`], perhaps with capacity from an earlier send.
    pub fn spare_buffer(&self) -> Vec<u8> {
        self.inner.core.borrow_mut().sockets.spare_buffer()
    }

    /// Gives a buffer to later users of [`Handle::spare_buffer`].
    pub fn recycle(&self, buffer: Vec<u8>) {
        self.inner.core.borrow_mut().sockets.recycle(buffer);
    }

    /// Sockets of this ring, those that are still closing included.
    pub fn sockets(&self) -> usize {
        self.inner.core.borrow().sockets.len()
    }

    /// The ring's counters.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.inner.core.borrow().sockets.statistics;
        statistics.remote_wakes = self.inner.remote_wakes();
        statistics
    }
}

/// A future that is done at its deadline.
pub struct Sleep {
    inner: Rc<Inner>,
    deadline: Instant,
    timer: Option<TimerId>,
}

impl Sleep {
    /// Moves the deadline.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.remove();
    }

    fn remove(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.inner.core.borrow_mut().timers.remove(timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.inner.now() >= self.deadline {
            self.remove();
            return Poll::Ready(());
        }
        let this = &mut *self;
        let timers = &mut this.inner.core.borrow_mut().timers;
        let known = this.timer.is_some_and(|timer| timers.update(timer, context.waker()));
        if !known {
            if let Some(timer) = this.timer.take() {
                timers.remove(timer);
            }
            this.timer = Some(timers.add(this.deadline, context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time was up")]
pub struct Elapsed;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// TCP.
    Internet(SocketAddr),
    /// A Unix-domain socket.
    Local,
}

/// Receiving came to an end that was not orderly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// We have closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// The peer reset the connection.
    #[error("the peer reset the connection")]
    Reset,
    /// The system's word.
    #[error("receiving failed: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// Error number.
        errno: i32,
    },
}

impl ReceiveError {
    fn from_errno(errno: i32) -> ReceiveError {
        match errno {
            libc::ECONNRESET => ReceiveError::Reset,
            errno => ReceiveError::System { errno },
        }
    }
}

/// Sending failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Another send is in flight.
    #[error("another send is in flight")]
    Busy,
    /// We have closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// The peer reads no more.
    #[error("the peer reads no more")]
    Reset,
    /// The system's word.
    #[error("sending failed: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// Error number.
        errno: i32,
    },
}

impl SendError {
    fn from_errno(errno: i32) -> SendError {
        match errno {
            libc::ECONNRESET | libc::EPIPE => SendError::Reset,
            errno => SendError::System { errno },
        }
    }
}
