//! The boot order and the loop: where the ring, TLS, the store, the token and the domain meet.
//!
//! [`Relay`] is the only one that knows them all. It passes what the network says to the
//! [`Domain`] and does the [`Effect`]s it answers with; nothing here decides anything about a
//! line. Everything of it runs on the loop's thread.

mod certificate;
mod hindrance;
mod operate;
mod report;
mod signer;
mod start;
mod stop;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use crate::clock::Clock;
use crate::net::{self, Crowd, Outbox, Pressure, Reason, Service};
use crate::ring::PeerAddress;
use crate::session::operator::OperatorReply;
use crate::session::{ConnectionId, Domain, Effect, Peer, Ticket, crowded};

pub use certificate::{CertificateError, pin, read_chain, self_signed};
pub use operate::{Announcement, wanted_policy};
pub use start::{StartError, announcement, open_keys, open_store, run, start_log};

use report::Reporter;
use signer::SigningDesk;

/// The domain and everything through which it acts.
pub struct Relay {
    domain: Domain,
    clock: Clock,
    outbox: Outbox,
    desk: SigningDesk,
    reporter: Reporter,
    /// The two names of a connection: the state machine's and the network's.
    links: HashMap<ConnectionId, net::ConnectionId>,
    names: HashMap<net::ConnectionId, ConnectionId>,
    last_name: u64,
    /// The last ticket given to an operator's request.
    last_operator: u64,
    /// Who waits for the answer to an operator's request.
    operators: HashMap<Ticket, Rc<RefCell<Option<OperatorReply>>>>,
    /// Connections that were sent something in this round.
    touched: Vec<ConnectionId>,
}

impl Relay {
    fn new(
        domain: Domain,
        clock: Clock,
        outbox: Outbox,
        desk: SigningDesk,
        reporter: Reporter,
    ) -> Self {
        Self {
            domain,
            clock,
            outbox,
            desk,
            reporter,
            links: HashMap::new(),
            names: HashMap::new(),
            last_name: 0,
            last_operator: 0,
            operators: HashMap::new(),
            touched: Vec::new(),
        }
    }

    /// The store has outcomes ready.
    fn committed(&mut self) {
        self.domain.committed(self.clock.now());
        self.settle();
    }

    /// The token has answered.
    fn signed(&mut self, (ticket, result): signer::Signed) {
        self.domain.signed(ticket, result, self.clock.now());
        self.settle();
    }

    /// Time has passed.
    fn tick(&mut self) {
        self.domain.tick(self.clock.now());
        self.settle();
    }

    /// Does the effects until there are none, and tells the domain how full outboxes are.
    fn settle(&mut self) {
        loop {
            let effects = self.domain.take_effects();
            if effects.is_empty() && self.touched.is_empty() {
                return;
            }
            for effect in effects {
                self.act(effect);
            }
            self.touched.sort_unstable();
            self.touched.dedup();
            let now = self.clock.now();
            for id in std::mem::take(&mut self.touched) {
                let Some(link) = self.links.get(&id) else { continue };
                self.domain.flushed(id, self.outbox.pending_bytes(*link), now);
                if self.domain.awaits_room(id) {
                    self.outbox.tell_when_drained(*link);
                }
            }
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Send(id, octets) => {
                let Some(link) = self.links.get(&id) else { return };
                match self.outbox.push(*link, &octets) {
                    Pressure::Fine | Pressure::Over => self.touched.push(id),
                    // Whoever is gone gets nothing; `closed` follows.
                    Pressure::Gone => {}
                    // The domain closes such a link before it comes to this. Were it not so,
                    // nothing must be lost in the middle: the connection ends, and its lines are
                    // still in the spool.
                    Pressure::Refused => self.outbox.abort(*link),
                }
            }
            Effect::Close(id) => {
                if let Some(link) = self.links.get(&id) {
                    self.outbox.close_after_flush(*link);
                }
            }
            Effect::Event(event) => self.reporter.report(&event),
            Effect::Sign(ticket, key, message) => {
                if let Err((ticket, refusal)) = self.desk.ask(ticket, key, message) {
                    self.domain.signed(ticket, refusal, self.clock.now());
                }
            }
            Effect::Operated(ticket, reply) => {
                if let Some(place) = self.operators.remove(&ticket) {
                    *place.borrow_mut() = Some(reply);
                }
            }
        }
    }
}

impl Service for Relay {
    fn opened(&mut self, link: net::ConnectionId, peer: net::Peer) {
        self.last_name += 1;
        let id = ConnectionId(self.last_name);
        self.links.insert(id, link);
        self.names.insert(link, id);
        let address = match peer.address {
            PeerAddress::Internet(address) => address.ip(),
            PeerAddress::Local => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        self.domain.opened(id, Peer { address, exporter: peer.exporter }, self.clock.now());
        self.settle();
    }

    fn received(&mut self, link: net::ConnectionId, plaintext: &[u8]) {
        let Some(&id) = self.names.get(&link) else { return };
        self.domain.received(id, plaintext, self.clock.now());
        self.settle();
    }

    fn drained(&mut self, link: net::ConnectionId) {
        let Some(&id) = self.names.get(&link) else { return };
        let pending = self.outbox.pending_bytes(link);
        self.domain.flushed(id, pending, self.clock.now());
        self.settle();
    }

    fn turned_away(&mut self, crowd: Crowd) -> Vec<u8> {
        crowded(crowd == Crowd::Source).as_bytes().to_vec()
    }

    fn closed(&mut self, link: net::ConnectionId, reason: Reason) {
        let Some(id) = self.names.remove(&link) else { return };
        self.links.remove(&id);
        self.reporter.closed(reason);
        self.domain.closed(id, self.clock.now());
        self.settle();
    }
}
