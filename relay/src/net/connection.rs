//! The driver of one open connection: received octets to the session, plaintext to the service.
//!
//! One small future per connection, which owns nothing while idle. Invariant: the service hears
//! `opened`, then any number of `received` and `drained`, then `closed` once, and nothing after.
//! Limits: [`limits::PIECES_PER_TURN_MAX`], [`limits::FAREWELL_DEADLINE`].

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::limits;
use crate::ring::{Connection, PeerAddress, Received};

use super::outbox::{ConnectionId, Entry, Shared};
use super::server::Crowd;
use super::tls::{EXPORTER_LENGTH, Progress};

/// What is known of a peer when its connection opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from.
    pub address: PeerAddress,
    /// `TLS-Exporter("EXPORTER-cipherim-identity", "", 32)`.
    pub exporter: [u8; EXPORTER_LENGTH],
    /// Whether it resumed an earlier TLS session.
    pub resumed: bool,
    /// The application protocol it chose.
    pub alpn: Box<[u8]>,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// We ended it at once.
    Aborted,
    /// We ended it.
    Closed,
    /// The peer ended it in order.
    PeerClosed,
    /// The peer or the network broke it.
    Reset,
    /// The peer broke TLS, or a key was used up.
    Tls,
    /// The peer's stream ended without its word that it was complete.
    Truncated,
}

/// Who uses the connections. Called on the loop; must not block.
pub trait Service {
    /// A connection is there, its handshake complete.
    fn opened(&mut self, id: ConnectionId, peer: Peer);
    /// Plaintext from the peer, cut anywhere.
    fn received(&mut self, id: ConnectionId, plaintext: &[u8]);
    /// An outbox that was over its limit has room again.
    fn drained(&mut self, id: ConnectionId) {
        let _ = id;
    }
    /// A connection is over a limit: the last words that it is told. It is not opened.
    fn turned_away(&mut self, crowd: Crowd) -> Vec<u8>;
    /// The connection is gone; its name is not used again.
    fn closed(&mut self, id: ConnectionId, reason: Reason);
}

/// The future that drives an open connection.
pub(super) struct Driver {
    shared: Rc<Shared>,
    service: Rc<RefCell<dyn Service>>,
    connection: Rc<Connection>,
    id: ConnectionId,
}

impl Driver {
    pub(super) fn new(
        shared: Rc<Shared>,
        service: Rc<RefCell<dyn Service>>,
        connection: Rc<Connection>,
        id: ConnectionId,
    ) -> Driver {
        Driver { shared, service, connection, id }
    }

    /// Looks after the send in flight. Whether nothing is to be received now, or why the connection
    /// has to end.
    fn poll_outbound(&self, context: &mut Context<'_>) -> Result<bool, Reason> {
        let mut table = self.shared.table.borrow_mut();
        let entry = table.entries.get_mut(self.id.0).ok_or(Reason::Aborted)?;
        if entry.driver.is_none() {
            entry.driver = Some(context.waker().clone());
        }
        if let Some(reason) = entry.end {
            return Err(reason);
        }
        if !entry.blocked {
            return match self.connection.send_error() {
                Some(_) => Err(Reason::Reset),
                None => Ok(entry.is_held()),
            };
        }
        if let Poll::Ready(result) = self.connection.poll_sent(context) {
            result.map_err(|_| Reason::Reset)?;
            entry.blocked = false;
        }
        let waiting = entry.waiting();
        let has_room = entry.over && waiting <= self.shared.configuration.outbox_bytes_max / 2;
        let is_sent = entry.watched && waiting == 0;
        let drained = !entry.blocked && (has_room || is_sent);
        if drained {
            entry.over = false;
            entry.watched = false;
            let was_held = entry.is_held();
            entry.choked = false;
            entry.follow_hold(was_held);
        }
        let is_held = entry.is_held();
        let gathers = !entry.pending.is_empty() || !entry.sealed.is_empty();
        if gathers && !entry.blocked {
            table.mark_dirty(self.id);
        }
        drop(table);
        if drained {
            self.service.borrow_mut().drained(self.id);
        }
        Ok(is_held)
    }

    /// Works on a piece. Whether nothing more is to be received now, or why the connection has to
    /// end.
    fn feed(&self, mut received: Received) -> Result<bool, Reason> {
        let session = {
            let mut table = self.shared.table.borrow_mut();
            table.entries.get_mut(self.id.0).and_then(|entry| entry.session.take())
        };
        let Some(mut session) = session else { return Err(Reason::Aborted) };
        let mut outgoing = Vec::new();
        let mut octets = 0;
        let result = {
            let mut service = self.service.borrow_mut();
            session.feed(&mut received, &mut outgoing, |plaintext| {
                octets += plaintext.len() as u64;
                service.received(self.id, plaintext);
            })
        };
        let mut table = self.shared.table.borrow_mut();
        table.statistics.plaintext_received += octets;
        let Some(entry) = table.entries.get_mut(self.id.0) else { return Err(Reason::Aborted) };
        entry.session = Some(session);
        let is_held = entry.is_held();
        let end = entry.end;
        if !outgoing.is_empty() {
            entry.sealed.append(&mut outgoing);
            table.mark_dirty(self.id);
        }
        match (result, end) {
            (Err(_), _) => Err(Reason::Tls),
            (Ok(Progress::PeerClosed), _) => Err(Reason::PeerClosed),
            (Ok(Progress::Open), Some(reason)) => Err(reason),
            (Ok(Progress::Open), None) => Ok(is_held),
        }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), Reason> {
        let mut is_held = self.poll_outbound(context)?;
        for _ in 0..limits::PIECES_PER_TURN_MAX {
            if is_held {
                return Ok(());
            }
            match self.connection.poll_receive(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(Reason::Reset),
                Poll::Ready(Ok(None)) => return Err(Reason::Truncated),
                Poll::Ready(Ok(Some(received))) => is_held = self.feed(received)?,
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn finish(&self, reason: Reason) {
        let entry = {
            let mut table = self.shared.table.borrow_mut();
            table.statistics.closed += 1;
            table.entries.remove(self.id.0)
        };
        self.service.borrow_mut().closed(self.id, reason);
        let Some(entry) = entry else { return };
        match reason {
            Reason::Aborted | Reason::Reset => drop(entry),
            Reason::Closed | Reason::PeerClosed | Reason::Tls | Reason::Truncated => {
                let shared = Rc::clone(&self.shared);
                self.shared.handle.spawn(async move {
                    let handle = shared.handle.clone();
                    let farewell = farewell(&shared, entry, reason);
                    let _ = handle.timeout(limits::FAREWELL_DEADLINE, farewell).await;
                });
            }
        }
    }
}

impl Drop for Driver {
    /// Without this, the table and what its entries hold would keep each other alive when the
    /// ring drops its tasks.
    fn drop(&mut self) {
        let entry = self.shared.table.borrow_mut().entries.remove(self.id.0);
        drop(entry);
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.run(context) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                self.finish(reason);
                Poll::Ready(())
            }
        }
    }
}

/// Sends what is left and our last word, then waits for the peer's end, so that the last octets
/// are not lost to a reset.
pub(super) async fn farewell(shared: &Shared, mut entry: Entry, reason: Reason) {
    let connection = Rc::clone(&entry.connection);
    if poll_fn(|context| connection.poll_sent(context)).await.is_err() {
        return;
    }
    let mut last = std::mem::take(&mut entry.sealed);
    if let Some(session) = &mut entry.session
        && reason != Reason::Tls
    {
        let pending = std::mem::take(&mut entry.pending);
        let sealed = session.seal(&pending, &mut last);
        if sealed.is_ok() {
            shared.table.borrow_mut().statistics.plaintext_sent += pending.len() as u64;
            let _ = session.close_notify(&mut last);
        }
    }
    entry.session = None;
    let (sent, _) = connection.send_all(last).await;
    if sent.is_err() {
        return;
    }
    connection.shutdown();
    connection.resume();
    while let Ok(Some(_)) = connection.receive().await {}
    drop(entry);
}
