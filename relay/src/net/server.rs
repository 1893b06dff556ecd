//! The server: accepts, admits, shakes hands, opens.
//!
//! Owns the handshake pool and the accepting tasks. A connection that is one too many (of all, or
//! of its source) is counted and told so after its handshake, by the service's last words; while
//! [`limits::TURNED_AWAY_MAX`] are being told, more are closed without a word. Without a word go
//! also those whose handshake finds no place in the queue, whose first octets are not TLS, or
//! whose handshake takes longer than its deadline. PROTOCOL §1.

use core::net::IpAddr;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::limits;
use crate::ring::{self, Connection, Listener, PeerAddress};

use super::connection::{Driver, Peer, Reason, Service, farewell};
use super::handshake::{HandshakePool, Step};
use super::outbox::{ConnectionId, Entry, Outbox, Shared};
use super::statistic::NetStatistics;
use super::tls::{Configuration, Progress, Session, SignError, TlsError};

/// Where connections are counted together: an IPv4 address, an IPv6 /64, this machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Local,
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    fn of(peer: PeerAddress) -> Source {
        let PeerAddress::Internet(address) = peer else { return Source::Local };
        match address.ip().to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The limit that a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Of all connections.
    All,
    /// Of those from its source.
    Source,
}

/// A place among the connections, or among those that are turned away; dropping it frees it.
pub(super) struct Admission {
    shared: Rc<Shared>,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Inside(Source),
    Outside(Crowd),
}

impl Admission {
    /// A place for a new connection; `None` if it is not even told that there is none.
    fn take(shared: &Rc<Shared>, peer: PeerAddress) -> Option<Admission> {
        let source = Source::of(peer);
        let mut table = shared.table.borrow_mut();
        table.statistics.accepted += 1;
        let of_source = table.sources.get(&source).copied().unwrap_or(0);
        let place = if table.admitted >= shared.configuration.connections_max {
            table.statistics.refused_connections += 1;
            Place::Outside(Crowd::All)
        } else if of_source >= shared.configuration.connections_per_source_max {
            table.statistics.refused_source += 1;
            Place::Outside(Crowd::Source)
        } else {
            Place::Inside(source)
        };
        match place {
            Place::Inside(source) => {
                table.sources.insert(source, of_source + 1);
                table.admitted += 1;
            }
            Place::Outside(_) if table.turned_away >= limits::TURNED_AWAY_MAX => return None,
            Place::Outside(_) => table.turned_away += 1,
        }
        Some(Admission { shared: Rc::clone(shared), place })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut table = self.shared.table.borrow_mut();
        let Place::Inside(source) = self.place else {
            table.turned_away -= 1;
            return;
        };
        table.admitted -= 1;
        if let Some(count) = table.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                table.sources.remove(&source);
            }
        }
    }
}

/// Serves TLS connections on the ring's loop.
pub struct Server {
    common: Rc<Common>,
}

struct Common {
    shared: Rc<Shared>,
    service: Rc<RefCell<dyn Service>>,
    tls: RefCell<Configuration>,
    pool: HandshakePool<u64>,
    /// Finished steps on their way to the handshake that waits for them.
    steps: RefCell<HashMap<u64, Waiting>>,
    next_step: Cell<u64>,
    stopped: Cell<bool>,
    stop_wakers: RefCell<Vec<Waker>>,
}

#[derive(Default)]
struct Waiting {
    step: Option<Step<u64>>,
    waker: Option<Waker>,
}

impl Server {
    /// A server whose connections are in `outbox` and belong to `service`.
    ///
    /// # Errors
    /// The system's, if it gives no threads for the handshake workers.
    pub fn new(
        outbox: &Outbox,
        tls: Configuration,
        service: Rc<RefCell<dyn Service>>,
    ) -> io::Result<Server> {
        let shared = Rc::clone(&outbox.shared);
        let configuration = &shared.configuration;
        let workers = configuration.handshake_workers;
        let (pool, answers) = HandshakePool::start(workers, configuration.handshake_queue_max)?;
        let common = Rc::new(Common {
            shared: Rc::clone(&shared),
            service,
            tls: RefCell::new(tls),
            pool,
            steps: RefCell::new(HashMap::new()),
            next_step: Cell::new(0),
            stopped: Cell::new(false),
            stop_wakers: RefCell::new(Vec::new()),
        });
        shared.handle.spawn(Rc::clone(&shared).flush_forever());
        shared.handle.spawn(distribute(Rc::downgrade(&common), answers));
        Ok(Server { common })
    }

    /// Accepts connections from `listener` from now on.
    pub fn serve(&self, listener: Listener) {
        let common = Rc::clone(&self.common);
        self.common.shared.handle.spawn(accept(common, listener));
    }

    /// Accepts no more connections, and closes the listeners. Open connections live on.
    pub fn stop_accepting(&self) {
        self.common.stopped.set(true);
        for waker in self.common.stop_wakers.take() {
            waker.wake();
        }
    }

    /// Uses another certificate for handshakes from now on. Tickets of the old one are void.
    pub fn set_tls(&self, tls: Configuration) {
        *self.common.tls.borrow_mut() = tls;
    }

    /// Connections, those in their handshake or farewell included, those turned away not.
    pub fn connections(&self) -> usize {
        self.common.shared.table.borrow().admitted
    }

    /// Handshakes waiting for a worker.
    pub fn handshakes_waiting(&self) -> usize {
        self.common.pool.waiting()
    }

    /// The layer's counters.
    pub fn statistics(&self) -> NetStatistics {
        self.common.shared.table.borrow().statistics
    }
}

async fn accept(common: Rc<Common>, listener: Listener) {
    let handle = &common.shared.handle;
    loop {
        let accepted = {
            let mut accepting = pin!(listener.accept());
            poll_fn(|context| {
                if common.stopped.get() {
                    return Poll::Ready(None);
                }
                match accepting.as_mut().poll(context) {
                    Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                    Poll::Pending => {
                        let mut wakers = common.stop_wakers.borrow_mut();
                        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                            wakers.push(context.waker().clone());
                        }
                        Poll::Pending
                    }
                }
            })
            .await
        };
        match accepted {
            None => return,
            Some(Err(_)) => handle.sleep(limits::ACCEPT_RETRY).await,
            Some(Ok(connection)) => {
                if let Some(admission) = Admission::take(&common.shared, connection.peer()) {
                    handle.spawn(greet(Rc::clone(&common), connection, admission));
                }
            }
        }
    }
}

/// Gives finished steps to the handshakes that wait for them; drops those nobody waits for.
async fn distribute(common: std::rc::Weak<Common>, mut answers: ring::Receiver<Step<u64>>) {
    while let Some(step) = answers.receive().await {
        let Some(common) = common.upgrade() else { return };
        let mut steps = common.steps.borrow_mut();
        if let Some(waiting) = steps.get_mut(&step.key) {
            let waker = waiting.waker.take();
            waiting.step = Some(step);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Why a connection was not opened.
enum Failure {
    Busy,
    Deadline,
    Peer,
    Tls(TlsError),
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Failure {
        Failure::Tls(error)
    }
}

/// Shakes hands with a new connection and opens it.
async fn greet(common: Rc<Common>, connection: Connection, admission: Admission) {
    let shared = &common.shared;
    let deadline = shared.configuration.handshake_deadline;
    let shaking = shake(&common, &connection);
    let shaken = shared.handle.timeout(deadline, shaking).await.unwrap_or(Err(Failure::Deadline));
    let (session, plaintext) = match shaken {
        Ok(done) => done,
        Err(failure) => return count(&mut shared.table.borrow_mut().statistics, &failure),
    };
    let (Some(exporter), Some(alpn)) = (session.exporter(), session.alpn()) else {
        return count(&mut shared.table.borrow_mut().statistics, &Failure::Peer);
    };
    let peer = Peer {
        address: connection.peer(),
        exporter,
        resumed: session.resumed(),
        alpn: alpn.into(),
    };
    let connection = Rc::new(connection);
    if let Place::Outside(crowd) = admission.place {
        return turn_away(&common, Entry::new(connection, session, admission), crowd).await;
    }
    let id = {
        let mut table = shared.table.borrow_mut();
        table.statistics.opened += 1;
        table.statistics.resumed += u64::from(peer.resumed);
        table.statistics.plaintext_received += plaintext.len() as u64;
        let entry = Entry::new(Rc::clone(&connection), session, admission);
        ConnectionId(table.entries.insert(entry))
    };
    {
        let mut service = common.service.borrow_mut();
        service.opened(id, peer);
        if !plaintext.is_empty() {
            service.received(id, &plaintext);
        }
    }
    let service = Rc::clone(&common.service);
    shared.handle.spawn(Driver::new(Rc::clone(shared), service, connection, id));
}

/// Tells a connection which limit it is over, and closes it.
async fn turn_away(common: &Common, mut entry: Entry, crowd: Crowd) {
    let shared = &common.shared;
    shared.table.borrow_mut().statistics.told_away += 1;
    entry.pending = common.service.borrow_mut().turned_away(crowd);
    let farewell = farewell(shared, entry, Reason::Closed);
    let _ = shared.handle.timeout(limits::FAREWELL_DEADLINE, farewell).await;
}

fn count(statistics: &mut NetStatistics, failure: &Failure) {
    let counter = match failure {
        Failure::Busy | Failure::Tls(TlsError::Sign(SignError::Busy)) => {
            &mut statistics.refused_busy
        }
        Failure::Deadline => &mut statistics.failed_deadline,
        Failure::Tls(TlsError::NotTls) => &mut statistics.failed_not_tls,
        Failure::Tls(TlsError::Sign(_)) => &mut statistics.failed_signature,
        Failure::Peer | Failure::Tls(_) => &mut statistics.failed_handshake,
    };
    *counter += 1;
}

/// The handshake: long steps on a worker, the others here. Returns the session and the
/// application data that came with its last step.
async fn shake(
    common: &Common,
    connection: &Connection,
) -> Result<(Box<Session>, Vec<u8>), Failure> {
    let mut session = {
        let tls = common.tls.borrow();
        Box::new(Session::new(&tls)?)
    };
    let mut plaintext = Vec::new();
    loop {
        let received = connection.receive().await;
        let Ok(Some(mut received)) = received else { return Err(Failure::Peer) };
        let (outgoing, result);
        if session.next_step_is_long() {
            let whole = session.accumulate(&received)?;
            drop(received);
            if !whole {
                continue;
            }
            let step = work(common, session).await?;
            session = step.session;
            plaintext.extend_from_slice(&step.plaintext);
            (outgoing, result) = (step.outgoing, step.result);
        } else {
            let mut buffer = Vec::new();
            let fed = session.feed(&mut received, &mut buffer, |octets| {
                plaintext.extend_from_slice(octets);
            });
            drop(received);
            (outgoing, result) = (buffer, fed);
        }
        if !outgoing.is_empty() {
            let (sent, buffer) = connection.send_all(outgoing).await;
            common.shared.handle.recycle(buffer);
            sent.map_err(|_| Failure::Peer)?;
        }
        match result? {
            Progress::PeerClosed => return Err(Failure::Peer),
            Progress::Open if !session.is_handshaking() => return Ok((session, plaintext)),
            Progress::Open => {}
        }
    }
}

/// Has a worker do a step.
async fn work(common: &Common, session: Box<Session>) -> Result<Step<u64>, Failure> {
    /// Takes the place of a step away, whether it came or not.
    struct Place<'a>(&'a Common, u64);
    impl Drop for Place<'_> {
        fn drop(&mut self) {
            self.0.steps.borrow_mut().remove(&self.1);
        }
    }
    let key = common.next_step.get();
    common.next_step.set(key + 1);
    common.steps.borrow_mut().insert(key, Waiting::default());
    let place = Place(common, key);
    common.pool.submit(key, session).map_err(|_| Failure::Busy)?;
    poll_fn(|context| {
        let mut steps = place.0.steps.borrow_mut();
        let Some(waiting) = steps.get_mut(&key) else { return Poll::Ready(Err(Failure::Busy)) };
        match waiting.step.take() {
            Some(step) => Poll::Ready(Ok(step)),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
    .await
}
