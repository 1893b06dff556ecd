//! Sockets as state machines: what is in flight, what has arrived, when a slot may be freed.
//!
//! Owns the table of sockets, the registered file table's free list and every buffer the kernel
//! reads or writes. Invariant: a slot, its file and its buffers live until the *last* of its
//! operations has had its final completion; a cancel's own completion frees nothing, and an
//! operation that could not be submitted yet counts as in flight.

#![expect(unsafe_code, reason = "hands addresses of owned buffers to the ring")]

mod receive;
mod send;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::limits;

use super::PeerAddress;
use super::buffer::BufferPool;
use super::error::RingError;
use super::port::{Completion, File, Kind, Operation, Port, Tag};
use super::slab::{Slab, SlotId};
use super::statistic::Statistics;

use self::receive::Receive;
use self::send::Send;

/// One socket and everything in flight on it.
pub(in crate::ring) struct Socket {
    file: File,
    peer: PeerAddress,
    receive: Receive,
    send: Send,
    connect: Connect,
    /// Shutdowns in flight.
    shutdowns: u32,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Somebody owns the socket.
    Owned,
    /// The owner is gone; operations are still in flight.
    Ending,
    /// The close is in flight.
    Closing,
}

#[derive(Default)]
enum Connect {
    #[default]
    None,
    InFlight {
        address: Box<ConnectAddress>,
        waker: Option<Waker>,
    },
    Done(i32),
}

/// The address a connect reads while in flight.
pub(in crate::ring) struct ConnectAddress {
    pub(in crate::ring) storage: libc::sockaddr_storage,
    pub(in crate::ring) length: libc::socklen_t,
}

/// The sockets of a ring and the port their operations go through.
pub(in crate::ring) struct Sockets {
    pub(in crate::ring) port: Box<dyn Port>,
    pub(in crate::ring) pool: Rc<BufferPool>,
    pub(in crate::ring) statistics: Statistics,
    /// Operations without their final completion.
    pub(in crate::ring) in_flight: usize,
    sockets: Slab<Socket>,
    files_free: Vec<u32>,
    starved: VecDeque<SlotId>,
    spare: Vec<Vec<u8>>,
    /// Operations that belong to no socket and have been cancelled, but have not ended.
    cancelling: Vec<(u32, Tag)>,
    next_cancel: u32,
    /// What the read of the wake event writes to.
    wake_count: Box<[u8; 8]>,
}

impl Sockets {
    pub(in crate::ring) fn new(port: Box<dyn Port>, pool: Rc<BufferPool>, files: u32) -> Sockets {
        Sockets {
            port,
            pool,
            statistics: Statistics::default(),
            in_flight: 0,
            sockets: Slab::new(),
            files_free: (0..files).rev().collect(),
            starved: VecDeque::new(),
            spare: Vec::new(),
            cancelling: Vec::new(),
            next_cancel: 0,
            wake_count: Box::new([0; 8]),
        }
    }

    /// Starts (again) to read the event that wakes the loop.
    pub(in crate::ring) fn start_wake(&mut self, event: RawFd) {
        let operation = Operation::Wake { event, start: self.wake_count.as_mut_ptr() };
        // SAFETY: the box is freed only after the final completion (or leaked, see `drop`), and
        // only one such read is in flight: it is started once, and again by its completion.
        unsafe { self.push(Tag::new(Kind::Wake, 0, 0), operation) };
    }

    /// Cancels an operation that belongs to no socket, however often the kernel says that it is
    /// just working on it.
    pub(in crate::ring) fn cancel(&mut self, target: Tag) {
        let number = self.next_cancel;
        self.next_cancel = number.wrapping_add(1);
        self.cancelling.push((number, target));
        self.push_lone_cancel(number, target);
    }

    fn push_lone_cancel(&mut self, number: u32, target: Tag) {
        let tag = Tag::new(Kind::Cancel, LONE, number);
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(tag, Operation::Cancel { target }) };
    }

    /// An operation that belongs to no socket has had its final completion.
    pub(in crate::ring) fn settled(&mut self, tag: Tag) {
        self.cancelling.retain(|(_, cancelled)| *cancelled != tag);
    }

    fn lone_cancel_ended(&mut self, completion: Completion) {
        let number = completion.tag.index;
        let missed = self.cancelling.iter().find(|(cancel, _)| *cancel == number).copied();
        if let Some((number, target)) = missed
            && completion.result < 0
        {
            self.push_lone_cancel(number, target);
        }
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// As [`Port::push`].
    pub(in crate::ring) unsafe fn push(&mut self, tag: Tag, operation: Operation) {
        self.in_flight += 1;
        self.statistics.submissions += 1;
        // SAFETY: the caller's promise is the same.
        unsafe { self.port.push(tag, operation) };
    }

    /// Takes a slot of the registered file table.
    pub(in crate::ring) fn allocate_file(&mut self) -> Option<u32> {
        self.files_free.pop()
    }

    /// Gives a slot of the registered file table back.
    pub(in crate::ring) fn release_file(&mut self, slot: u32) {
        self.files_free.push(slot);
    }

    /// Free slots of the registered file table.
    #[cfg(test)]
    pub(in crate::ring) fn files_available(&self) -> usize {
        self.files_free.len()
    }

    /// Takes a socket in.
    pub(in crate::ring) fn insert(&mut self, file: File, peer: PeerAddress) -> SlotId {
        self.sockets.insert(Socket {
            file,
            peer,
            receive: Receive::default(),
            send: Send::default(),
            connect: Connect::None,
            shutdowns: 0,
            life: Life::Owned,
        })
    }

    /// Sockets, including those that are on their way out.
    pub(in crate::ring) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(in crate::ring) fn peer(&self, id: SlotId) -> PeerAddress {
        self.sockets.get(id).map_or(PeerAddress::Local, |socket| socket.peer)
    }

    pub(in crate::ring) fn file(&self, id: SlotId) -> Option<File> {
        self.sockets.get(id).map(|socket| socket.file)
    }

    /// An empty buffer to fill and send.
    pub(in crate::ring) fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps `buffer` for a later send, if it is worth keeping.
    pub(in crate::ring) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let worth = capacity > 0 && capacity <= limits::SPARE_BUFFER_BYTES_MAX;
        if worth && self.spare.len() < limits::SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    // Connecting.

    /// Starts connecting.
    pub(in crate::ring) fn start_connect(&mut self, id: SlotId, address: ConnectAddress) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.connect = Connect::InFlight { address: Box::new(address), waker: None };
        let Connect::InFlight { address, .. } = &socket.connect else { return };
        let operation = Operation::Connect {
            file: socket.file,
            address: (&raw const address.storage).cast(),
            length: address.length,
        };
        // SAFETY: the boxed address stays in `socket.connect` until the final completion.
        unsafe { self.push(tag(Kind::Connect, id), operation) };
    }

    /// Ready when the connect is done.
    pub(in crate::ring) fn poll_connect(
        &mut self,
        id: SlotId,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), std::io::Error>> {
        match self.sockets.get_mut(id).map(|socket| &mut socket.connect) {
            Some(Connect::InFlight { waker, .. }) => {
                note_waker(waker, context);
                Poll::Pending
            }
            Some(Connect::Done(result)) if *result < 0 => {
                Poll::Ready(Err(std::io::Error::from_raw_os_error(-*result)))
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    // Ending.

    /// Shuts down one or both directions; the peer learns it when the loop turns.
    pub(in crate::ring) fn shutdown(&mut self, id: SlotId, how: i32) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.shutdowns += 1;
        let operation = Operation::Shutdown { file: socket.file, how };
        // SAFETY: a shutdown points to no memory.
        unsafe { self.push(tag(Kind::Shutdown, id), operation) };
    }

    /// The owner is gone: cancel what is in flight, close when all of it has ended.
    pub(in crate::ring) fn end(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.life != Life::Owned {
            return;
        }
        socket.life = Life::Ending;
        socket.receive.queue.clear();
        socket.receive.waker = None;
        let cancels_send = socket.send.in_flight && !socket.send.cancelled;
        let cancels_connect = matches!(socket.connect, Connect::InFlight { .. });
        self.cancel_receive(id);
        if cancels_send {
            self.cancel_send(id);
        }
        if cancels_connect {
            self.push_cancel(id, Kind::Connect);
        }
        self.close_if_idle(id);
    }

    fn cancel_send(&mut self, id: SlotId) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.send.cancelled = true;
            self.push_cancel(id, Kind::Send);
        }
    }

    fn close_if_idle(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let idle = socket.life == Life::Ending
            && !socket.receive.armed
            && !socket.send.in_flight
            && !matches!(socket.connect, Connect::InFlight { .. })
            && socket.shutdowns == 0;
        if idle {
            socket.life = Life::Closing;
            let operation = Operation::Close { file: socket.file };
            // SAFETY: a close points to no memory.
            unsafe { self.push(tag(Kind::Close, id), operation) };
        }
    }

    /// The cancel itself has ended. That frees nothing; but if it missed an operation that is
    /// still in flight (it was just being worked on), it has to be said again.
    fn cancel_ended(&mut self, id: SlotId, completion: Completion) {
        if completion.result >= 0 {
            return;
        }
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let (receive, send) = (&socket.receive, &socket.send);
        let receives = receive.armed && receive.cancelled;
        let sends = send.in_flight && send.cancelled;
        let connects =
            socket.life == Life::Ending && matches!(socket.connect, Connect::InFlight { .. });
        if receives {
            self.push_cancel(id, Kind::Receive);
        }
        if sends {
            self.push_cancel(id, Kind::Send);
        }
        if connects {
            self.push_cancel(id, Kind::Connect);
        }
    }

    /// Works on a completion of a socket; collects whom to wake.
    pub(in crate::ring) fn complete(&mut self, completion: Completion, wakes: &mut Vec<Waker>) {
        let tag = completion.tag;
        let id = SlotId { index: tag.index, generation: tag.generation };
        if tag.kind == Kind::Cancel && tag.generation == LONE {
            return self.lone_cancel_ended(completion);
        }
        if !self.sockets.contains(id) {
            // A stale answer (of a late cancel, say): only its buffer matters.
            if let Some(buffer) = completion.buffer {
                drop(self.pool.take(buffer, 0));
            }
            return;
        }
        match tag.kind {
            Kind::Receive => self.received(id, completion, wakes),
            Kind::Send => self.sent(id, completion, wakes),
            Kind::Cancel => self.cancel_ended(id, completion),
            Kind::Close => {
                if let Some(File::Direct(slot)) = self.sockets.remove(id).map(|socket| socket.file)
                {
                    self.release_file(slot);
                }
            }
            Kind::Connect => {
                if let Some(socket) = self.sockets.get_mut(id) {
                    let done = Connect::Done(completion.result);
                    if let Connect::InFlight { waker: Some(waker), .. } =
                        std::mem::replace(&mut socket.connect, done)
                    {
                        wakes.push(waker);
                    }
                }
                self.close_if_idle(id);
            }
            Kind::Shutdown => {
                if let Some(socket) = self.sockets.get_mut(id) {
                    socket.shutdowns = socket.shutdowns.saturating_sub(1);
                }
                self.close_if_idle(id);
            }
            Kind::Accept | Kind::Wake => {}
        }
    }

    /// Ends all sockets.
    pub(in crate::ring) fn end_all(&mut self) {
        for id in self.sockets.occupied() {
            self.end(id);
        }
    }
}

impl Drop for Sockets {
    /// Cancels everything and waits for the final completions; what the kernel does not give back
    /// within the limit is leaked, never freed under its hands.
    fn drop(&mut self) {
        self.end_all();
        let mut completions = Vec::new();
        let mut wakes = Vec::new();
        for _ in 0..limits::DRAIN_TURNS_MAX {
            if self.in_flight == 0 {
                return;
            }
            let _ = self.port.enter(super::port::Wait::AtMost(limits::DRAIN_WAIT));
            self.port.reap(&mut completions);
            for completion in completions.drain(..) {
                if !completion.more {
                    self.in_flight = self.in_flight.saturating_sub(1);
                    self.settled(completion.tag);
                }
                if completion.tag.kind == Kind::Accept && completion.result >= 0 {
                    self.port.discard(completion.result);
                }
                self.complete(completion, &mut wakes);
            }
        }
        std::mem::forget(Rc::clone(&self.pool));
        std::mem::forget(std::mem::replace(&mut self.sockets, Slab::new()));
        std::mem::forget(std::mem::take(&mut self.wake_count));
    }
}

/// Generation in the tags of cancels for operations that belong to no socket: no slot has it.
const LONE: u32 = 0;

fn tag(kind: Kind, id: SlotId) -> Tag {
    Tag::new(kind, id.generation, id.index)
}

fn note_waker(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}

/// Checks a configured number of slots.
pub(in crate::ring) fn check_files(files: u32) -> Result<(), RingError> {
    if files == 0 || files > limits::FILES_MAX {
        return Err(RingError::Misuse { what: "files: 1 to 65,536" });
    }
    Ok(())
}
