//! Receiving: when a multishot receive is armed, paused, starved of buffers or ended.
//!
//! Invariant: at most one receive per socket is armed, and it is armed only for an owner that has
//! taken everything before. Limits: [`limits::RECEIVE_QUEUE_MAX`],
//! [`limits::RECEIVE_BUFFERS_RESERVE`].

#![expect(unsafe_code, reason = "starts operations")]

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::limits;

use super::super::ReceiveError;
use super::super::buffer::Received;
use super::super::port::{Completion, Kind, Operation};
use super::super::slab::SlotId;
use super::{Life, Sockets, note_waker, tag};

#[derive(Default)]
pub(super) struct Receive {
    pub(super) armed: bool,
    /// A cancel for the armed receive was sent and has not failed.
    pub(super) cancelled: bool,
    pub(super) paused: bool,
    /// Waits for buffers (is, or was, in the list of starved sockets).
    pub(super) starved: bool,
    pub(super) end: Option<Result<(), i32>>,
    pub(super) queue: Pieces,
    pub(super) waker: Option<Waker>,
}

/// Received pieces in order. Mostly there is one, or none: that needs no memory of its own.
#[derive(Default)]
pub(super) struct Pieces {
    first: Option<Received>,
    /// Empty unless there is a first one.
    rest: VecDeque<Received>,
}

impl Pieces {
    fn push_back(&mut self, piece: Received) {
        match self.first {
            Some(_) => self.rest.push_back(piece),
            None => self.first = Some(piece),
        }
    }

    fn pop_front(&mut self) -> Option<Received> {
        let piece = self.first.take();
        if self.rest.capacity() > 0 {
            self.first = self.rest.pop_front();
            if self.first.is_none() {
                self.rest = VecDeque::new();
            }
        }
        piece
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Pieces::default();
    }
}

impl Sockets {
    /// The next piece, the end, or `Pending` with the waker noted and the receive armed.
    pub(in crate::ring) fn poll_receive(
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
    pub(in crate::ring) fn pause(&mut self, id: SlotId, paused: bool) {
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
    pub(in crate::ring) fn feed_starved(&mut self) {
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

    pub(super) fn arm_if_wanted(&mut self, id: SlotId) {
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

    pub(super) fn cancel_receive(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.receive.armed && !socket.receive.cancelled {
            socket.receive.cancelled = true;
            self.push_cancel(id, Kind::Receive);
        }
    }

    pub(super) fn push_cancel(&mut self, id: SlotId, kind: Kind) {
        let operation = Operation::Cancel { target: tag(kind, id) };
        // SAFETY: a cancel points to no memory.
        unsafe { self.push(tag(Kind::Cancel, id), operation) };
    }

    pub(super) fn received(&mut self, id: SlotId, completion: Completion, wakes: &mut Vec<Waker>) {
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
}
