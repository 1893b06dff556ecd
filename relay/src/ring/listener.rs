//! Listening sockets: multishot accept, and what happens when there is no room.
//!
//! Owns the listening descriptors and the queue of accepted connections. TCP connections move into
//! the registered file table; when that or the queue is full they are closed at once and counted,
//! and the listener goes on. Limits: [`limits::ACCEPT_QUEUE_MAX`], [`limits::LISTEN_BACKLOG`].

#![expect(unsafe_code, reason = "starts operations")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::limits;

use super::connection::Connection;
use super::executor::Inner;
use super::port::{Completion, File, Kind, Operation, Tag};
use super::slab::{Slab, SlotId};
use super::socket::Sockets;

/// The listening sockets of a ring.
pub(super) struct Listeners {
    listeners: Slab<Listening>,
}

struct Listening {
    socket: OwnedFd,
    /// Whether accepted connections move into the registered file table.
    direct: bool,
    armed: bool,
    ending: bool,
    queue: VecDeque<SlotId>,
    error: Option<i32>,
    waker: Option<Waker>,
}

impl Listeners {
    pub(super) fn new() -> Listeners {
        Listeners { listeners: Slab::new() }
    }

    fn insert(&mut self, socket: OwnedFd, direct: bool) -> SlotId {
        self.listeners.insert(Listening {
            socket,
            direct,
            armed: false,
            ending: false,
            queue: VecDeque::new(),
            error: None,
            waker: None,
        })
    }

    fn poll_accept(
        &mut self,
        sockets: &mut Sockets,
        id: SlotId,
        context: &Context<'_>,
    ) -> Poll<io::Result<SlotId>> {
        let Some(listening) = self.listeners.get_mut(id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(accepted) = listening.queue.pop_front() {
            return Poll::Ready(Ok(accepted));
        }
        if let Some(errno) = listening.error.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        listening.waker = Some(context.waker().clone());
        self.arm(sockets, id);
        Poll::Pending
    }

    fn arm(&mut self, sockets: &mut Sockets, id: SlotId) {
        let Some(listening) = self.listeners.get_mut(id) else { return };
        if listening.armed || listening.ending {
            return;
        }
        listening.armed = true;
        let operation = Operation::Accept { listener: listening.socket.as_raw_fd() };
        // SAFETY: an accept without address points to no memory.
        unsafe { sockets.push(Tag::new(Kind::Accept, id.generation, id.index), operation) };
    }

    /// Works on the completion of an accept.
    pub(super) fn accepted(
        &mut self,
        sockets: &mut Sockets,
        completion: Completion,
        wakes: &mut Vec<Waker>,
    ) {
        let tag = completion.tag;
        let id = SlotId { index: tag.index, generation: tag.generation };
        let Some(listening) = self.listeners.get_mut(id) else {
            if completion.result >= 0 {
                sockets.port.discard(completion.result);
            }
            return;
        };
        if !completion.more {
            listening.armed = false;
        }
        match completion.result {
            accepted @ 0.. => {
                if listening.ending || listening.queue.len() >= limits::ACCEPT_QUEUE_MAX {
                    sockets.port.discard(accepted);
                    sockets.statistics.accept_refused += 1;
                } else if let Some(socket) = adopt(sockets, accepted, listening.direct) {
                    listening.queue.push_back(socket);
                    sockets.statistics.accepted += 1;
                    wakes.extend(listening.waker.take());
                }
            }
            error => match -error {
                // The peer gave up before we came, or a cancel: nothing is lost.
                libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::ECANCELED => {}
                errno => {
                    listening.error = Some(errno);
                    wakes.extend(listening.waker.take());
                }
            },
        }
        if !completion.more {
            if listening.ending {
                self.listeners.remove(id);
            } else if listening.error.is_none() {
                self.arm(sockets, id);
            }
        }
    }

    fn end(&mut self, sockets: &mut Sockets, id: SlotId) {
        let Some(listening) = self.listeners.get_mut(id) else { return };
        listening.ending = true;
        for socket in listening.queue.drain(..) {
            sockets.end(socket);
        }
        if listening.armed {
            sockets.cancel(Tag::new(Kind::Accept, id.generation, id.index));
            // Should the cancel miss an accept that is just being worked on, this ends it.
            let _ = rustix::net::shutdown(&listening.socket, Shutdown::Both);
        } else {
            self.listeners.remove(id);
        }
    }

    /// Ends all listeners.
    pub(super) fn end_all(&mut self, sockets: &mut Sockets) {
        for id in self.listeners.occupied() {
            self.end(sockets, id);
        }
    }
}

/// Makes a socket of an accepted descriptor, or closes and counts it.
fn adopt(sockets: &mut Sockets, accepted: RawFd, direct: bool) -> Option<SlotId> {
    let Ok(peer) = sockets.port.peer(accepted) else {
        sockets.port.discard(accepted);
        return None;
    };
    if !direct {
        return Some(sockets.insert(File::Plain(accepted), peer));
    }
    let Some(slot) = sockets.allocate_file() else {
        sockets.port.discard(accepted);
        sockets.statistics.accept_refused += 1;
        return None;
    };
    match sockets.port.install(accepted, slot) {
        Ok(()) => Some(sockets.insert(File::Direct(slot), peer)),
        Err(_) => {
            sockets.release_file(slot);
            sockets.statistics.accept_refused += 1;
            None
        }
    }
}

/// A listening socket. Dropping it stops listening.
pub struct Listener {
    inner: Rc<Inner>,
    id: SlotId,
    address: Option<SocketAddr>,
    /// The socket file to remove at the end.
    path: Option<PathBuf>,
}

impl Listener {
    /// Listens on a TCP address; an IPv6 wildcard takes IPv4 too. Connections have Nagle's
    /// algorithm off.
    pub(super) fn tcp(inner: Rc<Inner>, address: SocketAddr) -> io::Result<Listener> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let kind = SocketType::STREAM;
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if address.ip() == Ipv6Addr::UNSPECIFIED {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, limits::LISTEN_BACKLOG)?;
        let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?).ok();
        let id = inner.core.borrow_mut().listeners.insert(socket, true);
        Ok(Listener { inner, id, address: bound, path: None })
    }

    /// Listens on a Unix-domain socket file that only its owner may use. A file left behind by a
    /// process that is gone is replaced.
    pub(super) fn unix(inner: Rc<Inner>, path: &Path) -> io::Result<Listener> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        let address = SocketAddrUnix::new(path)?;
        if let Err(error) = rustix::net::bind(&socket, &address) {
            let abandoned = error == rustix::io::Errno::ADDRINUSE
                && std::os::unix::net::UnixStream::connect(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !abandoned {
                return Err(error.into());
            }
            std::fs::remove_file(path)?;
            rustix::net::bind(&socket, &address)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, limits::LISTEN_BACKLOG)?;
        let id = inner.core.borrow_mut().listeners.insert(socket, false);
        Ok(Listener { inner, id, address: None, path: Some(path.to_owned()) })
    }

    /// Listens on a socket that something else (systemd, a test) has bound and set to listen.
    pub(super) fn inherited(inner: Rc<Inner>, socket: OwnedFd) -> Listener {
        let address = rustix::net::getsockname(&socket)
            .ok()
            .and_then(|address| SocketAddr::try_from(address).ok());
        let id = inner.core.borrow_mut().listeners.insert(socket, address.is_some());
        Listener { inner, id, address, path: None }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's, when it ran out of descriptors or memory: wait
    /// [`limits::ACCEPT_RETRY`], then accept again.
    pub async fn accept(&self) -> io::Result<Connection> {
        let id = poll_fn(|context| {
            let mut core = self.inner.core.borrow_mut();
            let super::executor::Core { listeners, sockets, .. } = &mut *core;
            listeners.poll_accept(sockets, self.id, context)
        })
        .await?;
        Ok(Connection::new(Rc::clone(&self.inner), id))
    }

    /// The bound address of a TCP listener, with its real port.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut core = self.inner.core.borrow_mut();
        let super::executor::Core { listeners, sockets, .. } = &mut *core;
        listeners.end(sockets, self.id);
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
