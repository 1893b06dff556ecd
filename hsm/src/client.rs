//! The client: jobs from any thread over one connection, with a deadline each.
//!
//! [`Client::call`] blocks, [`Client::submit`] calls back; any number of threads may use both at
//! once. One link thread connects, reads and reconnects with back-off. What a thread sends goes
//! out on the spot when the socket takes it. When the connection breaks, jobs without an answer are
//! sent once more over the next one (all jobs are safe to repeat), as far as their deadlines allow;
//! when the service stays unreachable for longer than [`Settings::patience`], jobs fail at once
//! with [`Error::Disconnected`] until it is back. [`Client::health`] shows both
//! link and token.

mod link;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendFlags, send};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::job::{
    Algorithm, Description, KeyName, PublicKey, Purpose, Request, Response, Secret, State,
};
use crate::{limits, wire};

/// How a client behaves.
#[derive(Clone)]
pub struct Settings {
    /// The service's socket.
    pub path: PathBuf,
    /// How long jobs wait for a connection before they fail with [`Error::Disconnected`].
    pub patience: Duration,
    /// Deadline of the convenience methods ([`Client::sign`] and the like).
    pub deadline: Duration,
    /// Told whenever link or token change; called by the link thread, must not block.
    pub observer: Option<Observer>,
}

/// Told about changes of health.
pub type Observer = Arc<dyn Fn(&Health) + Send + Sync>;

impl Settings {
    /// The defaults: patience 500 ms, deadline 2 s, no observer.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            patience: Duration::from_millis(500),
            deadline: Duration::from_secs(2),
            observer: None,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The connection to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Link {
    /// The first attempt is under way.
    Connecting,
    /// Broken or never made; attempts go on.
    Down {
        /// Plain words.
        reason: String,
    },
    /// Connected.
    Up,
}

/// Link, token and load as last known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The connection.
    pub link: Link,
    /// The pool's state as the service last told; `None` while there is no connection.
    pub token: Option<State>,
    /// Jobs without an answer.
    pub in_flight: usize,
    /// Connections made so far.
    pub connections: u64,
}

impl Health {
    /// True if jobs are being done.
    pub fn is_ready(&self) -> bool {
        self.token.as_ref().is_some_and(|state| state.phase == crate::job::Phase::Ready)
    }
}

/// A handle on the connection; clones share it. The link ends with the last handle.
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("path", &self.path()).finish_non_exhaustive()
    }
}

struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.wake();
    }
}

struct Shared {
    settings: Settings,
    table: Mutex<Table>,
    wake: OwnedFd,
}

/// Everything the callers and the link thread share.
struct Table {
    link: Link,
    token: Option<State>,
    stream: Option<Arc<OwnedFd>>,
    down_since: Option<Instant>,
    connections: u64,
    next_id: u64,
    pending: HashMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
    outbox: Vec<u8>,
    sent: usize,
    is_closing: bool,
}

struct Pending {
    frame: Zeroizing<Vec<u8>>,
    deadline: Instant,
    patience: Duration,
    /// Connections over which it was sent.
    sent: u8,
    done: Completion,
}

/// Takes a result where [`Client::submit`] was used.
type Callback = Box<dyn FnOnce(Result<Response, Error>) + Send>;

enum Completion {
    Callback(Callback),
    Slot(Arc<Slot>),
}

impl Completion {
    fn complete(self, outcome: Result<Response, Error>) {
        match self {
            Self::Callback(callback) => callback(outcome),
            Self::Slot(slot) => {
                *slot.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                slot.filled.notify_one();
            }
        }
    }
}

#[derive(Default)]
struct Slot {
    outcome: Mutex<Option<Result<Response, Error>>>,
    filled: Condvar,
}

/// Offset of the deadline in a request's frame.
const DEADLINE_AT: usize = wire::HEADER_BYTES;

impl Client {
    /// Starts the link thread; does not wait for the connection.
    ///
    /// # Errors
    /// If the system refuses a thread or a descriptor.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let table = Table {
            link: Link::Connecting,
            token: None,
            stream: None,
            down_since: Some(Instant::now()),
            connections: 0,
            next_id: 1,
            pending: HashMap::new(),
            deadlines: BTreeSet::new(),
            outbox: Vec::new(),
            sent: 0,
            is_closing: false,
        };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { settings, table: Mutex::new(table), wake });
        let linked = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("hsm-client".to_owned())
            .spawn(move || link::run(&linked))?;
        Ok(Self { owner: Arc::new(Owner { shared }) })
    }

    /// [`Client::start`] with the default settings.
    ///
    /// # Errors
    /// If the system refuses a thread or a descriptor.
    pub fn connect(path: impl Into<PathBuf>) -> io::Result<Self> {
        Self::start(Settings::new(path))
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }

    /// The service's socket.
    pub fn path(&self) -> &Path {
        &self.shared().settings.path
    }

    /// Link, token and load as last known; never blocks for the service.
    pub fn health(&self) -> Health {
        self.shared().lock().health()
    }

    /// Does a job and waits for its answer, at most until `deadline`.
    ///
    /// # Errors
    /// Whatever went wrong; [`Error::Deadline`] if nothing was heard in time.
    pub fn call(&self, request: &Request, deadline: Duration) -> Result<Response, Error> {
        let slot = Arc::new(Slot::default());
        let (id, until) = self.enqueue(request, deadline, Completion::Slot(Arc::clone(&slot)))?;
        let mut outcome = slot.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = outcome.take() {
                return outcome;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = slot.filled.wait_timeout(outcome, left);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(outcome);
        self.shared().lock().forget(id);
        Err(Error::Deadline { after: deadline })
    }

    /// Starts a job; `done` is called once, by the link thread, at the deadline at the latest. It
    /// must not block.
    ///
    /// # Errors
    /// If the job is refused at once; `done` is then not called.
    pub fn submit(
        &self,
        request: &Request,
        deadline: Duration,
        done: impl FnOnce(Result<Response, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.enqueue(request, deadline, Completion::Callback(Box::new(done)))?;
        Ok(())
    }

    fn enqueue(
        &self,
        request: &Request,
        deadline: Duration,
        done: Completion,
    ) -> Result<(u64, Instant), Error> {
        let shared = self.shared();
        let now = Instant::now();
        let patience = deadline.min(limits::DEADLINE_MAX);
        let mut frame = Zeroizing::new(Vec::new());
        // The id is filled in under the lock.
        wire::encode_request(&mut frame, u64::MAX, patience, request)?;
        let mut table = shared.lock();
        table.check(now, &shared.settings, frame.len())?;
        let id = table.next_id;
        table.next_id += 1;
        if let Some(field) = frame.get_mut(6..DEADLINE_AT) {
            field.copy_from_slice(&id.to_be_bytes());
        }
        let until = now + patience;
        let is_callback = matches!(done, Completion::Callback(_));
        let mut pending = Pending { frame, deadline: until, patience, sent: 0, done };
        let is_whole = if table.stream.is_some() {
            pending.sent = 1;
            table.outbox.extend_from_slice(&pending.frame);
            table.flush()
        } else {
            true
        };
        table.pending.insert(id, pending);
        table.deadlines.insert((until, id));
        // The link thread sleeps until the first deadline it knew; waiting callers have their own.
        let is_first = is_callback && table.deadlines.first() == Some(&(until, id));
        drop(table);
        if !is_whole || is_first {
            shared.wake();
        }
        Ok((id, until))
    }

    fn unexpected<T>(response: &Response) -> Result<T, Error> {
        tracing::debug!(?response, "an answer of another kind");
        Err(Error::wire("an answer is of another kind than its question"))
    }

    /// Signs with a P-256 key of the token: `r ‖ s` with low `s`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn sign(&self, key: impl Into<KeyName>, message: &[u8]) -> Result<[u8; 64], Error> {
        let algorithm = Algorithm::P256;
        let request = Request::Sign { key: key.into(), algorithm, message: message.to_vec() };
        match self.call(&request, self.shared().settings.deadline)? {
            Response::Signature(signature) => signature
                .try_into()
                .map_err(|_| Error::wire("a P-256 signature has another length")),
            other => Self::unexpected(&other),
        }
    }

    /// Verifies a signature in the token.
    ///
    /// # Errors
    /// As [`Client::call`]; a signature that does not hold is `Ok(false)`.
    pub fn verify(
        &self,
        algorithm: Algorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Error> {
        let request = Request::Verify {
            algorithm,
            public_key: public_key.to_vec(),
            message: message.to_vec(),
            signature: signature.to_vec(),
        };
        match self.call(&request, self.shared().settings.deadline)? {
            Response::Verified(holds) => Ok(holds),
            other => Self::unexpected(&other),
        }
    }

    /// Wraps a data key (16 to 64 octets, a multiple of 8) with the newest spool key.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn wrap(&self, data_key: &[u8]) -> Result<Vec<u8>, Error> {
        let kek = Purpose::Spool.into();
        let request = Request::Wrap { kek, data_key: Secret::from(data_key) };
        match self.call(&request, self.shared().settings.deadline)? {
            Response::Wrapped(blob) => Ok(blob),
            other => Self::unexpected(&other),
        }
    }

    /// Opens what [`Client::wrap`] gave.
    ///
    /// # Errors
    /// As [`Client::call`]; [`Error::Damaged`] and [`Error::OtherToken`] for good.
    pub fn unwrap(&self, blob: &[u8]) -> Result<Secret, Error> {
        let request = Request::Unwrap { blob: blob.to_vec() };
        match self.call(&request, self.shared().settings.deadline)? {
            Response::Unwrapped(secret) => Ok(secret),
            other => Self::unexpected(&other),
        }
    }

    /// Random octets of the token mixed with the system's, at most 4,096.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn random(&self, length: u32) -> Result<Secret, Error> {
        match self.call(&Request::Random { length }, self.shared().settings.deadline)? {
            Response::Random(secret) => Ok(secret),
            other => Self::unexpected(&other),
        }
    }

    /// The public part of a key; needs no token once it was seen.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn public_key(&self, key: impl Into<KeyName>) -> Result<PublicKey, Error> {
        let request = Request::PublicKey { key: key.into() };
        match self.call(&request, self.shared().settings.deadline)? {
            Response::PublicKey(key) => Ok(key),
            other => Self::unexpected(&other),
        }
    }

    /// Makes that version of a key, or finds it; the configuration must allow it.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn generate(&self, key: KeyName, deadline: Duration) -> Result<PublicKey, Error> {
        match self.call(&Request::Generate { key }, deadline)? {
            Response::Generated(key) => Ok(key),
            other => Self::unexpected(&other),
        }
    }

    /// Everything the service tells about itself.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn describe(&self) -> Result<Description, Error> {
        match self.call(&Request::Describe, self.shared().settings.deadline)? {
            Response::Described(description) => Ok(*description),
            other => Self::unexpected(&other),
        }
    }

    /// The state of the pool, from the service itself.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn ping(&self) -> Result<State, Error> {
        match self.call(&Request::Ping, self.shared().settings.deadline)? {
            Response::State(state) => Ok(state),
            other => Self::unexpected(&other),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn disconnected(&self, reason: &str) -> Error {
        Error::Disconnected {
            path: self.settings.path.display().to_string().into(),
            reason: reason.to_owned().into(),
        }
    }
}

impl Table {
    fn health(&self) -> Health {
        Health {
            link: self.link.clone(),
            token: self.token.clone(),
            in_flight: self.pending.len(),
            connections: self.connections,
        }
    }

    /// Whether a job of `size` octets can be taken now.
    fn check(&self, now: Instant, settings: &Settings, size: usize) -> Result<(), Error> {
        let busy = |what: &'static str, limit: usize| {
            Err(Error::Busy { what: what.into(), limit: limit as u64 })
        };
        if self.pending.len() >= limits::IN_FLIGHT_MAX {
            return busy("the list of jobs without an answer", limits::IN_FLIGHT_MAX);
        }
        if self.outbox.len() - self.sent + size > limits::CLIENT_OUTBOX_BYTES_MAX {
            return busy("the outbox to cipherim-hsmd", limits::CLIENT_OUTBOX_BYTES_MAX);
        }
        match self.down_since {
            Some(since) if now.duration_since(since) > settings.patience => {
                let reason = match &self.link {
                    Link::Down { reason } => reason.clone(),
                    Link::Connecting | Link::Up => "not connected yet".to_owned(),
                };
                let path = settings.path.display().to_string().into();
                Err(Error::Disconnected { path, reason: reason.into() })
            }
            _ => Ok(()),
        }
    }

    fn forget(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        Some(pending)
    }

    /// Sends what the socket takes; true if nothing is left. A broken socket is noticed by the
    /// link thread, which reads from it.
    fn flush(&mut self) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        while self.sent < self.outbox.len() {
            let rest = self.outbox.get_mut(self.sent..).unwrap_or_default();
            match send(&**stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    rest.get_mut(..count).unwrap_or_default().zeroize();
                    self.sent += count;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.outbox.clear();
        self.sent = 0;
        true
    }
}

#[cfg(test)]
mod tests;
