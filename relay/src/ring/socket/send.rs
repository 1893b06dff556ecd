//! Sending: one send in flight per socket, continued until all of its buffer is gone.
//!
//! Invariant: the buffer belongs to the socket from the start of a send to the final completion
//! of its last piece. Limits: [`limits::SEND_RETRIES_MAX`].

#![expect(unsafe_code, reason = "hands addresses of owned buffers to the ring")]

use std::task::{Context, Poll, Waker};

use crate::limits;

use super::super::SendError;
use super::super::port::{Completion, Kind, Operation};
use super::super::slab::SlotId;
use super::{Life, Sockets, note_waker, tag};

#[derive(Default)]
pub(super) struct Send {
    pub(super) in_flight: bool,
    pub(super) cancelled: bool,
    /// Whether the sender wants its buffer back.
    pub(super) returns: bool,
    pub(super) pieces: u32,
    pub(super) retries: u8,
    pub(super) buffer: Vec<u8>,
    pub(super) offset: usize,
    /// Set when a send that returns its buffer is done.
    pub(super) done: bool,
    pub(super) error: Option<i32>,
    pub(super) waker: Option<Waker>,
}

impl Sockets {
    /// Starts sending `buffer`. With `returns` the buffer is handed out by [`Self::poll_sent`],
    /// else it is kept for other sends.
    pub(in crate::ring) fn start_send(
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
    pub(in crate::ring) fn is_sending(&self, id: SlotId) -> bool {
        self.sockets.get(id).is_some_and(|socket| socket.send.in_flight)
    }

    /// The error of the last send, if it failed.
    pub(in crate::ring) fn send_error(&self, id: SlotId) -> Option<SendError> {
        match self.sockets.get(id) {
            Some(socket) => socket.send.error.map(SendError::from_errno),
            None => Some(SendError::Closed),
        }
    }

    /// Ready when no send is in flight, with the buffer of one that returns it.
    pub(in crate::ring) fn poll_sent(
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
    pub(in crate::ring) fn forget_sender(&mut self, id: SlotId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.send.returns = false;
        if std::mem::take(&mut socket.send.done) {
            let buffer = std::mem::take(&mut socket.send.buffer);
            self.recycle(buffer);
        }
    }

    pub(super) fn push_send(&mut self, id: SlotId) {
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

    pub(super) fn sent(&mut self, id: SlotId, completion: Completion, wakes: &mut Vec<Waker>) {
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
}
