//! A stream connection (TCP or Unix domain) on the ring.
//!
//! Receives by multishot into the buffer ring, with one send in flight. Dropping it cancels what
//! is in flight and closes it; buffers stay with the loop until the kernel has let go of them.

#![expect(unsafe_code, reason = "borrows a descriptor; encodes addresses")]

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::net::addr::SocketAddrArg;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::buffer::Received;
use super::executor::Inner;
use super::port::File;
use super::slab::SlotId;
use super::socket::ConnectAddress;
use super::{PeerAddress, ReceiveError, SendError};

/// A connection. Dropping it closes it, at once and whatever is in flight.
pub struct Connection {
    inner: Rc<Inner>,
    id: SlotId,
}

/// Who is at the other end of a Unix-domain connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process when it connected.
    pub process: u32,
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
}

impl Connection {
    pub(super) fn new(inner: Rc<Inner>, id: SlotId) -> Connection {
        Connection { inner, id }
    }

    pub(super) async fn connect_tcp(inner: Rc<Inner>, to: SocketAddr) -> io::Result<Connection> {
        let family = match to {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let kind = SocketType::STREAM;
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        Connection::connect(inner, socket, PeerAddress::Internet(to), encode(&to)).await
    }

    pub(super) async fn connect_unix(inner: Rc<Inner>, to: &Path) -> io::Result<Connection> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        let address = encode(&SocketAddrUnix::new(to)?);
        Connection::connect(inner, socket, PeerAddress::Local, address).await
    }

    async fn connect(
        inner: Rc<Inner>,
        socket: std::os::fd::OwnedFd,
        peer: PeerAddress,
        address: ConnectAddress,
    ) -> io::Result<Connection> {
        let connection = {
            let mut core = inner.core.borrow_mut();
            let id = core.sockets.insert(File::Plain(socket.into_raw_fd()), peer);
            core.sockets.start_connect(id, address);
            Connection::new(Rc::clone(&inner), id)
        };
        poll_fn(|context| inner.core.borrow_mut().sockets.poll_connect(connection.id, context))
            .await?;
        Ok(connection)
    }

    /// The other end's address.
    pub fn peer(&self) -> PeerAddress {
        self.inner.core.borrow().sockets.peer(self.id)
    }

    /// The process at the other end, for Unix-domain connections.
    ///
    /// # Errors
    /// The system's; `Unsupported` for TCP.
    pub fn credentials(&self) -> io::Result<Credentials> {
        let Some(File::Plain(descriptor)) = self.inner.core.borrow().sockets.file(self.id) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        // SAFETY: the socket owns the descriptor, and closes it only after `self` is dropped.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        debug_assert_eq!(borrowed.as_raw_fd(), descriptor);
        let found = sockopt::socket_peercred(borrowed)?;
        Ok(Credentials {
            process: u32::try_from(found.pid.as_raw_nonzero().get()).unwrap_or(0),
            user: found.uid.as_raw(),
            group: found.gid.as_raw(),
        })
    }

    /// The next octets in the order they arrived; `None` after the peer's orderly end.
    ///
    /// # Errors
    /// [`ReceiveError`]; the connection is of no further use.
    pub async fn receive(&self) -> Result<Option<Received>, ReceiveError> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// As [`Connection::receive`], for hand-written futures.
    pub fn poll_receive(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, ReceiveError>> {
        self.inner.core.borrow_mut().sockets.poll_receive(self.id, context)
    }

    /// Stops reading from the peer, which its TCP window will tell it. What has already arrived
    /// is still received.
    pub fn pause(&self) {
        self.inner.core.borrow_mut().sockets.pause(self.id, true);
    }

    /// Goes on reading.
    pub fn resume(&self) {
        self.inner.core.borrow_mut().sockets.pause(self.id, false);
    }

    /// Sends all of `buffer` and gives it back. One send at a time.
    ///
    /// If the future is dropped the send goes on; the loop keeps the buffer until it is done.
    ///
    /// # Errors
    /// [`SendError`]; the connection is of no further use, except after [`SendError::Busy`].
    pub async fn send_all(&self, buffer: Vec<u8>) -> (Result<(), SendError>, Vec<u8>) {
        /// Tells the loop that nobody waits any more.
        struct Waiting<'a>(&'a Connection);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.inner.core.borrow_mut().sockets.forget_sender(self.0.id);
            }
        }
        let started = self.inner.core.borrow_mut().sockets.start_send(self.id, buffer, true);
        if let Err((error, buffer)) = started {
            return (Err(error), buffer);
        }
        let _waiting = Waiting(self);
        poll_fn(|context| self.inner.core.borrow_mut().sockets.poll_sent(self.id, context)).await
    }

    /// Starts sending all of `buffer`, which the loop keeps for [`super::Handle::spare_buffer`].
    /// A failure wakes whoever receives.
    ///
    /// # Errors
    /// [`SendError`] with the buffer.
    pub fn start_send(&self, buffer: Vec<u8>) -> Result<(), (SendError, Vec<u8>)> {
        self.inner.core.borrow_mut().sockets.start_send(self.id, buffer, false)
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self) -> bool {
        self.inner.core.borrow().sockets.is_sending(self.id)
    }

    /// What went wrong with a send, if something did.
    pub fn send_error(&self) -> Option<SendError> {
        self.inner.core.borrow().sockets.send_error(self.id)
    }

    /// Ready when no send is in flight.
    ///
    /// # Errors
    /// [`SendError`] of the last send.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let mut core = self.inner.core.borrow_mut();
        match core.sockets.poll_sent(self.id, context) {
            Poll::Ready((result, buffer)) => {
                core.sockets.recycle(buffer);
                Poll::Ready(result)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Tells the peer that nothing more will be sent. Call it after the last send is done.
    pub fn shutdown(&self) {
        self.inner.core.borrow_mut().sockets.shutdown(self.id, libc::SHUT_WR);
    }

    /// Closes, as dropping does.
    pub fn close(self) {}
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inner.core.borrow_mut().sockets.end(self.id);
    }
}

fn encode(address: &impl SocketAddrArg) -> ConnectAddress {
    // SAFETY: all octets zero is a valid, unspecified address.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    // SAFETY: the storage is as large as any address and is valid for writing.
    let length = unsafe { address.write_sockaddr((&raw mut storage).cast()) };
    ConnectAddress { storage, length }
}
