//! Outboxes: what waits for each peer, put together once per turn of the loop.
//!
//! Owns the table of open connections. Everything pushed for a connection in one turn becomes one
//! batch of TLS records and one send; while a send is in flight the next batch gathers. Limits:
//! above [`NetConfiguration::outbox_bytes_max`] the owner is told to stop; above twice that nothing
//! is received from the peer, so that who reads no answers asks for no more of them; above
//! [`NetConfiguration::outbox_bytes_refused`] nothing is taken any more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::task::Waker;

use crate::ring::slab::{Slab, SlotId};
use crate::ring::{Connection, Handle};

use super::NetConfiguration;
use super::connection::Reason;
use super::server::{Admission, Source};
use super::statistic::NetStatistics;
use super::tls::Session;

/// Names an open connection; never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) SlotId);

impl fmt::Debug for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0.index, self.0.generation)
    }
}

/// What became of pushed octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pressure {
    /// Taken.
    Fine,
    /// The connection is gone or going: not taken.
    Gone,
    /// Taken, but the outbox is over its limit: push nothing more before
    /// [`super::Service::drained`].
    Over,
    /// The outbox holds all that is ever kept for one peer: not taken.
    Refused,
}

/// Pushes octets to connections. Cheap to clone; stays on the loop's thread.
#[derive(Clone)]
pub struct Outbox {
    pub(super) shared: Rc<Shared>,
}

/// What the layer's tasks share.
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) configuration: NetConfiguration,
    pub(super) table: RefCell<Table>,
}

pub(super) struct Table {
    pub(super) entries: Slab<Entry>,
    /// Connections with something to seal, each once.
    dirty: Vec<ConnectionId>,
    flusher: Option<Waker>,
    pub(super) statistics: NetStatistics,
    /// Admitted connections, those in their handshake included.
    pub(super) admitted: usize,
    /// Connections over the limits that are being told so.
    pub(super) turned_away: usize,
    pub(super) sources: HashMap<Source, usize>,
}

/// One open connection.
pub(super) struct Entry {
    pub(super) connection: Rc<Connection>,
    /// Missing while the driver feeds it.
    pub(super) session: Option<Box<Session>>,
    /// Plaintext that waits to be sealed.
    pub(super) pending: Vec<u8>,
    /// Ciphertext that waits to be sent, before what `pending` will become.
    pub(super) sealed: Vec<u8>,
    /// Octets of the send in flight, if one is.
    in_flight: usize,
    dirty: bool,
    /// Whether the driver has to look at the send in flight.
    pub(super) blocked: bool,
    /// Over its limit; the owner waits to be told that it is no more.
    pub(super) over: bool,
    /// The owner waits to be told that everything is sent.
    pub(super) watched: bool,
    /// Whether the owner wants nothing from the peer.
    pub(super) paused: bool,
    /// Whether the peer has to read before anything is received from it.
    pub(super) choked: bool,
    /// The driver has to end the connection.
    pub(super) end: Option<Reason>,
    pub(super) driver: Option<Waker>,
    /// Held, not read: frees its place when the entry is dropped.
    _admission: Admission,
}

impl Entry {
    pub(super) fn new(
        connection: Rc<Connection>,
        session: Box<Session>,
        admission: Admission,
    ) -> Entry {
        Entry {
            connection,
            session: Some(session),
            pending: Vec::new(),
            sealed: Vec::new(),
            in_flight: 0,
            dirty: false,
            blocked: false,
            over: false,
            watched: false,
            paused: false,
            choked: false,
            end: None,
            driver: None,
            _admission: admission,
        }
    }

    /// Octets that the peer has not been given.
    pub(super) fn waiting(&self) -> usize {
        let in_flight = if self.connection.is_sending() { self.in_flight } else { 0 };
        self.pending.len() + self.sealed.len() + in_flight
    }

    /// Whether nothing is to be received now.
    pub(super) const fn is_held(&self) -> bool {
        self.paused || self.choked
    }

    /// Stops or goes on with receiving; `was_held` is what held before the caller's change.
    pub(super) fn follow_hold(&self, was_held: bool) {
        match (was_held, self.is_held()) {
            (false, true) => self.connection.pause(),
            (true, false) => {
                self.connection.resume();
                self.wake_driver();
            }
            (false, false) | (true, true) => {}
        }
    }

    fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }
}

impl Table {
    /// Has the connection flushed at the end of the turn.
    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(id.0) else { return };
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(id);
            if let Some(flusher) = self.flusher.take() {
                flusher.wake();
            }
        }
    }
}

impl Outbox {
    /// An outbox for the connections of one [`super::Server`].
    pub fn new(handle: Handle, configuration: NetConfiguration) -> Outbox {
        let table = RefCell::new(Table {
            entries: Slab::new(),
            dirty: Vec::new(),
            flusher: None,
            statistics: NetStatistics::default(),
            admitted: 0,
            turned_away: 0,
            sources: HashMap::new(),
        });
        Outbox { shared: Rc::new(Shared { handle, configuration, table }) }
    }

    /// Queues `plaintext` for a connection. It is sealed and sent at the end of this turn,
    /// together with everything else pushed in it.
    pub fn push(&self, id: ConnectionId, plaintext: &[u8]) -> Pressure {
        let configuration = &self.shared.configuration;
        let limit = configuration.outbox_bytes_max;
        let mut table = self.shared.table.borrow_mut();
        let table = &mut *table;
        let Some(entry) = table.entries.get_mut(id.0) else { return Pressure::Gone };
        if entry.end.is_some() {
            return Pressure::Gone;
        }
        let waiting = entry.waiting() + plaintext.len();
        if waiting > configuration.outbox_bytes_refused {
            table.statistics.outbox_refused += 1;
            return Pressure::Refused;
        }
        if entry.pending.capacity() == 0 {
            entry.pending = self.shared.handle.spare_buffer();
        }
        entry.pending.extend_from_slice(plaintext);
        let over = waiting > limit;
        if over && !entry.over {
            entry.over = true;
            table.statistics.outbox_over += 1;
        }
        if waiting > limit.saturating_mul(2) && !entry.choked {
            let was_held = entry.is_held();
            entry.choked = true;
            entry.follow_hold(was_held);
            table.statistics.choked += 1;
        }
        table.mark_dirty(id);
        if over { Pressure::Over } else { Pressure::Fine }
    }

    /// Octets waiting for the peer of a connection, in flight or not.
    pub fn pending_bytes(&self, id: ConnectionId) -> usize {
        self.shared.table.borrow().entries.get(id.0).map_or(0, Entry::waiting)
    }

    /// Has [`super::Service::drained`] called once everything that was pushed is sent, even if
    /// the outbox was never over its limit.
    pub fn tell_when_drained(&self, id: ConnectionId) {
        let mut table = self.shared.table.borrow_mut();
        if let Some(entry) = table.entries.get_mut(id.0) {
            entry.watched = true;
            entry.blocked = true;
            entry.wake_driver();
        }
    }

    /// Ends a connection after what was pushed has been sent (or its time for that is up). Nothing
    /// is received or pushed any more.
    pub fn close_after_flush(&self, id: ConnectionId) {
        self.end(id, Reason::Closed);
    }

    /// Ends a connection at once.
    pub fn abort(&self, id: ConnectionId) {
        self.end(id, Reason::Aborted);
    }

    fn end(&self, id: ConnectionId, reason: Reason) {
        if let Some(entry) = self.shared.table.borrow_mut().entries.get_mut(id.0) {
            entry.end.get_or_insert(reason);
            entry.wake_driver();
        }
    }

    /// Stops (or goes on with) reading from a connection. What its TLS record at hand still holds
    /// is delivered.
    pub fn pause_receiving(&self, id: ConnectionId, paused: bool) {
        let mut table = self.shared.table.borrow_mut();
        let Some(entry) = table.entries.get_mut(id.0) else { return };
        let was_held = entry.is_held();
        entry.paused = paused;
        entry.follow_hold(was_held);
    }

    /// The open connections.
    pub fn open_connections(&self) -> Vec<ConnectionId> {
        self.shared.table.borrow().entries.occupied().into_iter().map(ConnectionId).collect()
    }

    /// The layer's counters.
    pub fn statistics(&self) -> NetStatistics {
        self.shared.table.borrow().statistics
    }
}

impl Shared {
    /// The task that seals and sends, once per turn.
    pub(super) async fn flush_forever(self: Rc<Shared>) {
        let mut batch = Vec::new();
        loop {
            std::future::poll_fn(|context| {
                let mut table = self.table.borrow_mut();
                if table.dirty.is_empty() {
                    table.flusher = Some(context.waker().clone());
                    return std::task::Poll::Pending;
                }
                std::task::Poll::Ready(())
            })
            .await;
            self.handle.turn_end().await;
            let mut table = self.table.borrow_mut();
            std::mem::swap(&mut batch, &mut table.dirty);
            for id in batch.drain(..) {
                self.flush(&mut table, id);
            }
        }
    }

    fn flush(&self, table: &mut Table, id: ConnectionId) {
        let Some(entry) = table.entries.get_mut(id.0) else { return };
        entry.dirty = false;
        if entry.connection.is_sending() {
            entry.blocked = true;
            entry.wake_driver();
            return;
        }
        let Some(session) = &mut entry.session else { return };
        let mut outgoing = std::mem::take(&mut entry.sealed);
        if outgoing.capacity() == 0 {
            outgoing = self.handle.spare_buffer();
        }
        let pending = std::mem::take(&mut entry.pending);
        if session.seal(&pending, &mut outgoing).is_err() {
            entry.end.get_or_insert(Reason::Tls);
            entry.wake_driver();
            return;
        }
        table.statistics.batches += 1;
        table.statistics.plaintext_sent += pending.len() as u64;
        self.handle.recycle(pending);
        entry.in_flight = outgoing.len();
        if entry.connection.start_send(outgoing).is_err() {
            entry.end.get_or_insert(Reason::Reset);
            entry.wake_driver();
        }
        if entry.over || entry.watched {
            entry.blocked = true;
            entry.wake_driver();
        }
    }
}
