//! Sockets as state machines: what is in flight, what has arrived, when a slot may be freed.
//!
//! Owns the table of sockets, the registered file table's free list and every buffer the kernel
//! reads or writes. Invariant: a slot, its file and its buffers live until the *last* of its
//! operations has had its final completion; a cancel's own completion frees nothing, and an
//! operation that could not be submitted yet counts as in flight.

#![expect(unsafe_code, reason = "hands addresses of owned buffers to the ring")]

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::limits;

use super::buffer::{BufferPool, Received};
use super::error::RingError;
use super::port::{Completion, File, Kind, Operation, Port, Tag};
use super::slab::{Slab, SlotId};
use super::statistic::Statistics;
use super::{PeerAddress, ReceiveError, SendError};

/// One socket and everything in flight on it.
pub(super) struct Socket {
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
struct Receive {
    armed: bool,
    /// A cancel for the armed receive was sent and has not failed.
    cancelled: bool,
    paused: bool,
    /// Waits for buffers (is, or was, in the list of starved sockets).
    starved: bool,
    end: Option<Result<(), i32>>,
    queue: VecDeque<Received>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Send {
    in_flight: bool,
    cancelled: bool,
    /// Whether the sender wants its buffer back.
    returns: bool,
    pieces: u32,
    retries: u8,
    buffer: Vec<u8>,
    offset: usize,
    /// Set when a send that returns its buffer is done.
    done: bool,
    error: Option<i32>,
    waker: Option<Waker>,
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
pub(super) struct ConnectAddress {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) length: libc::socklen_t,
}

/// The sockets of a ring and the port their operations go through.
pub(super) struct Sockets {
    pub(super) port: Box<dyn Port>,
    pub(super) pool: Rc<BufferPool>,
    pub(super) statistics: Statistics,
    /// Operations without their final completion.
    pub(super) in_flight: usize,
    sockets: Slab<Socket>,
    files_free: Vec<u32>,
    starved: VecDeque<SlotId>,
    spare: Vec<Vec<u8>>,
    /// What the read of the wake event writes to.
    wake_count: Box<[u8; 8]>,
}

impl Sockets {
    pub(super) fn new(port: Box<dyn Port>, pool: Rc<BufferPool>, files: u32) -> Sockets {
        Sockets {
            port,
            pool,
            statistics: Statistics::default(),
            in_flight: 0,
            sockets: Slab::new(),
            files_free: (0..files).rev().collect(),
            starved: VecDeque::new(),
            spare: Vec::new(),
            wake_count: Box::new([0; 8]),
        }
    }

    /// Starts (again) to read the event that wakes the loop.
    pub(super) fn start_wake(&mut self, event: RawFd) {
        let operation = Operation::Wake { event, start: self.wake_count.as_mut_ptr() };
        // SAFETY: the box is freed only after the final completion (or leaked, see `drop`), and
        // only one such read is in flight: it is started once, and again by its completion.
        unsafe { self.push(Tag::new(Kind::Wake, 0, 0), operation) };
    }

    /// Cancels an operation that belongs to no socket.
    pub(super) fn cancel(&mut self, target: Tag) {
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(Tag::new(Kind::Cancel, 0, u32::MAX), Operation::Cancel { target }) };
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// As [`Port::push`].
    pub(super) unsafe fn push(&mut self, tag: Tag, operation: Operation) {
        self.in_flight += 1;
        self.statistics.submissions += 1;
        // SAFETY: the caller's promise is the same.
        unsafe { self.port.push(tag, operation) };
    }

    /// Takes a slot of the registered file table.
    pub(super) fn allocate_file(&mut self) -> Option<u32> {
        self.files_free.pop()
    }

    /// Gives a slot of the registered file table back.
    pub(super) fn release_file(&mut self, slot: u32) {
        self.files_free.push(slot);
    }

    /// Takes a socket in.
    pub(super) fn insert(&mut self, file: File, peer: PeerAddress) -> SlotId {
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
    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn peer(&self, id: SlotId) -> PeerAddress {
        self.sockets.get(id).map_or(PeerAddress::Local, |socket| socket.peer)
    }

    pub(super) fn file(&self, id: SlotId) -> Option<File> {
        self.sockets.get(id).map(|socket| socket.file)
    }

    /// An empty buffer to fill and send.
    pub(super) fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps `buffer` for a later send, if it is worth keeping.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let worth = capacity > 0 && capacity <= limits::SPARE_BUFFER_BYTES_MAX;
        if worth && self.spare.len() < limits::SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    // Receiving.

    /// The next piece, the end, or `Pending` with the waker noted and the receive armed.
    pub(super) fn poll_receive(
        &mut self,
        id: SlotId,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, ReceiveError>> {
        let Some(socket) = self.sockets.get_mut(id) else {
            return Poll::Ready(Err(ReceiveError::Closed));
        };
        let receive = &mut socket.receive;
        if let Some(received) = receive.queue.pop_front() {
            if receive.queue.is_empty() {
                self.arm_if_wanted(id);
            }
            return Poll::Ready(Ok(Some(received)));
        }
        match receive.end {
            Some(Ok(())) => return Poll::Ready(Ok(None)),
            Some(Err(errno)) => return Poll::Ready(Err(ReceiveError::from_errno(errno))),
            None => {}
        }
        note_waker(&mut receive.waker, context);
        self.arm_if_wanted(id);
        Poll::Pending
    }

    /// Stops (or goes on with) reading from the peer. What has arrived stays in the queue.
    pub(super) fn pause(&mut self, id: SlotId, paused: bool) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.receive.paused == paused {
            return;
        }
        socket.receive.paused = paused;
        if paused {
            self.statistics.pauses += 1;
            self.cancel_receive(id);
        } else {
            self.arm_if_wanted(id);
        }
    }

    /// Arms receives that ran out of buffers, as many as there are buffers now.
    pub(super) fn feed_starved(&mut self) {
        let mut turns = usize::from(self.pool.available()).min(self.starved.len());
        while turns > 0 {
            turns -= 1;
            let Some(id) = self.starved.pop_front() else { return };
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.receive.starved = false;
                self.arm_if_wanted(id);
            }
        }
    }

    fn arm_if_wanted(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let receive = &mut socket.receive;
        let wanted = socket.life == Life::Owned
            && !receive.armed
            && !receive.starved
            && !receive.paused
            && receive.end.is_none()
            && receive.queue.is_empty();
        if wanted {
            receive.armed = true;
            receive.cancelled = false;
            let operation = Operation::Receive { file: socket.file };
            // SAFETY: a receive into provided buffers points to no memory of its own; the buffers
            // belong to the pool, which outlives the ring.
            unsafe { self.push(tag(Kind::Receive, id), operation) };
        }
    }

    fn cancel_receive(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.receive.armed && !socket.receive.cancelled {
            socket.receive.cancelled = true;
            self.push_cancel(id, Kind::Receive);
        }
    }

    fn push_cancel(&mut self, id: SlotId, kind: Kind) {
        let operation = Operation::Cancel { target: tag(kind, id) };
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(tag(Kind::Cancel, id), operation) };
    }

    fn received(&mut self, id: SlotId, completion: Completion, wakes: &mut Vec<Waker>) {
        let length = u32::try_from(completion.result).unwrap_or(0);
        let piece = completion.buffer.and_then(|buffer| self.pool.take(buffer, length));
        let scarce =
            self.pool.available() < limits::RECEIVE_BUFFERS_RESERVE.min(self.pool.count() / 2);
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let receive = &mut socket.receive;
        let owned = socket.life == Life::Owned;
        if !completion.more {
            receive.armed = false;
            receive.cancelled = false;
        }
        match (completion.result, piece) {
            (1.., Some(piece)) if owned => {
                let copies = scarce || !receive.queue.is_empty();
                if copies {
                    self.statistics.copied_out += 1;
                }
                receive.queue.push_back(if copies { piece.copied_out() } else { piece });
            }
            (1.., Some(_)) => {}
            (0, _) => receive.end = Some(Ok(())),
            (1.., None) => receive.end = Some(Err(libc::EIO)),
            (error, _) if -error == libc::ENOBUFS => {
                self.statistics.enobufs += 1;
                if owned && !receive.armed && !receive.starved {
                    receive.starved = true;
                    self.starved.push_back(id);
                }
            }
            // A cancel of ours, perhaps one that came late: arm again if still wanted.
            (error, _) if -error == libc::ECANCELED => {}
            (error, _) if -error == libc::EINTR || -error == libc::EAGAIN => {}
            (error, _) => receive.end = Some(Err(-error)),
        }
        let full = receive.queue.len() >= limits::RECEIVE_QUEUE_MAX;
        if !receive.queue.is_empty() || receive.end.is_some() {
            wakes.extend(receive.waker.take());
        }
        if full && completion.more && !receive.cancelled {
            self.statistics.pauses += 1;
            self.cancel_receive(id);
        }
        if !completion.more {
            self.arm_if_wanted(id);
            self.close_if_idle(id);
        }
    }

    // Sending.

    /// Starts sending `buffer`. With `returns` the buffer is handed out by [`Self::poll_sent`],
    /// else it is kept for other sends.
    pub(super) fn start_send(
        &mut self,
        id: SlotId,
        buffer: Vec<u8>,
        returns: bool,
    ) -> Result<(), (SendError, Vec<u8>)> {
        let Some(socket) = self.sockets.get_mut(id) else {
            return Err((SendError::Closed, buffer));
        };
        let send = &mut socket.send;
        if send.in_flight || send.done {
            return Err((SendError::Busy, buffer));
        }
        if let Some(errno) = send.error {
            return Err((SendError::from_errno(errno), buffer));
        }
        *send = Send { returns, buffer, waker: send.waker.take(), ..Send::default() };
        if send.buffer.is_empty() {
            send.done = returns;
            return Ok(());
        }
        send.in_flight = true;
        self.push_send(id);
        Ok(())
    }

    /// Whether a send is in flight.
    pub(super) fn is_sending(&self, id: SlotId) -> bool {
        self.sockets.get(id).is_some_and(|socket| socket.send.in_flight)
    }

    /// The error of the last send, if it failed.
    pub(super) fn send_error(&self, id: SlotId) -> Option<SendError> {
        match self.sockets.get(id) {
            Some(socket) => socket.send.error.map(SendError::from_errno),
            None => Some(SendError::Closed),
        }
    }

    /// Ready when no send is in flight, with the buffer of one that returns it.
    pub(super) fn poll_sent(
        &mut self,
        id: SlotId,
        context: &mut Context<'_>,
    ) -> Poll<(Result<(), SendError>, Vec<u8>)> {
        let Some(socket) = self.sockets.get_mut(id) else {
            return Poll::Ready((Err(SendError::Closed), Vec::new()));
        };
        let send = &mut socket.send;
        if send.in_flight {
            note_waker(&mut send.waker, context);
            return Poll::Pending;
        }
        send.done = false;
        let result = match send.error {
            Some(errno) => Err(SendError::from_errno(errno)),
            None => Ok(()),
        };
        Poll::Ready((result, std::mem::take(&mut send.buffer)))
    }

    /// The sender no longer waits for its buffer.
    pub(super) fn forget_sender(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.send.returns = false;
        if std::mem::take(&mut socket.send.done) {
            let buffer = std::mem::take(&mut socket.send.buffer);
            self.recycle(buffer);
        }
    }

    fn push_send(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let send = &mut socket.send;
        let rest = send.buffer.get(send.offset..).unwrap_or_default();
        send.pieces += 1;
        let operation = Operation::Send {
            file: socket.file,
            start: rest.as_ptr(),
            length: u32::try_from(rest.len()).unwrap_or(u32::MAX >> 1),
        };
        // SAFETY: the octets belong to `send.buffer`, which is neither changed, moved out nor
        // freed while `send.in_flight` is set; that is cleared by the final completion only.
        unsafe { self.push(tag(Kind::Send, id), operation) };
    }

    fn sent(&mut self, id: SlotId, completion: Completion, wakes: &mut Vec<Waker>) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let ending = socket.life != Life::Owned;
        let send = &mut socket.send;
        let mut again = false;
        match completion.result {
            0 => send.error = Some(libc::EPIPE),
            octets @ 1.. => {
                send.retries = 0;
                send.offset += usize::try_from(octets).unwrap_or(0);
                again = send.offset < send.buffer.len();
                if again && send.pieces == 1 {
                    self.statistics.short_sends += 1;
                }
            }
            error if -error == libc::EAGAIN || -error == libc::EINTR => {
                send.retries += 1;
                again = send.retries <= limits::SEND_RETRIES_MAX;
                if !again {
                    send.error = Some(-error);
                }
            }
            error => send.error = Some(-error),
        }
        if again && !ending {
            self.push_send(id);
            return;
        }
        send.in_flight = false;
        send.cancelled = false;
        if send.error.is_some() {
            // Whoever reads learns that writing has become pointless.
            wakes.extend(socket.receive.waker.take());
        }
        wakes.extend(send.waker.take());
        if send.returns && !ending {
            send.done = true;
        } else {
            let buffer = std::mem::take(&mut send.buffer);
            self.recycle(buffer);
        }
        self.close_if_idle(id);
    }

    // Connecting.

    /// Starts connecting.
    pub(super) fn start_connect(&mut self, id: SlotId, address: ConnectAddress) {
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
    pub(super) fn poll_connect(
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
    pub(super) fn shutdown(&mut self, id: SlotId, how: i32) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.shutdowns += 1;
        let operation = Operation::Shutdown { file: socket.file, how };
        // SAFETY: a shutdown points to no memory.
        unsafe { self.push(tag(Kind::Shutdown, id), operation) };
    }

    /// The owner is gone: cancel what is in flight, close when all of it has ended.
    pub(super) fn end(&mut self, id: SlotId) {
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
    pub(super) fn complete(&mut self, completion: Completion, wakes: &mut Vec<Waker>) {
        let tag = completion.tag;
        let id = SlotId { index: tag.index, generation: tag.generation };
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
    pub(super) fn end_all(&mut self) {
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
pub(super) fn check_files(files: u32) -> Result<(), RingError> {
    if files == 0 || files > limits::FILES_MAX {
        return Err(RingError::Misuse { what: "files: 1 to 65,536" });
    }
    Ok(())
}
