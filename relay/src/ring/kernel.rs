//! The kernel's io_uring as a [`Port`].
//!
//! Owns the ring, its registered buffers and files. Invariant: an entry that does not fit into the
//! submission queue, or that the kernel did not take, stays queued in order. Needs Linux 6.1.

#![expect(unsafe_code, reason = "io_uring entries and descriptors handed over by the kernel")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Instant;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::buffer::BufferPool;
use super::error::{Machine, RingError};
use super::port::{Completion, File, Operation, Port, Tag, Wait};
use super::{PeerAddress, RingConfiguration};

/// The one buffer group.
const GROUP: u16 = 0;

/// An io_uring with a buffer ring and a registered file table.
pub(super) struct Kernel {
    ring: IoUring,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    /// The kernel writes to it as long as the ring lives.
    _pool: Rc<BufferPool>,
}

impl Kernel {
    /// Sets a ring up.
    ///
    /// # Errors
    /// Which setting refuses it: [`RingError`].
    pub(super) fn new(
        configuration: &RingConfiguration,
        pool: &Rc<BufferPool>,
    ) -> Result<Kernel, RingError> {
        let explain = |part| move |error| Machine::read().explain(part, error);
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(configuration.completion_entries)
            .build(configuration.submission_entries)
            .map_err(explain("io_uring_setup with DEFER_TASKRUN"))?;
        let parameters = ring.params();
        if !parameters.is_feature_nodrop() || !parameters.is_feature_ext_arg() {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(Machine::read().explain("features NODROP and EXT_ARG", error));
        }
        let registered = ring.submitter().register_files_sparse(configuration.files);
        registered.map_err(explain("registered file table"))?;
        // SAFETY: table and buffers live in the pool, which `Kernel` holds until the ring is
        // closed; the pool made `count` entries at this address.
        let registered = unsafe {
            ring.submitter().register_buf_ring_with_flags(
                pool.table_address(),
                pool.count(),
                GROUP,
                0,
            )
        };
        registered.map_err(explain("buffer ring"))?;
        Ok(Kernel { ring, backlog: VecDeque::new(), _pool: Rc::clone(pool) })
    }

    /// Moves as much of the backlog as fits into the submission queue.
    fn refill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: `push`'s caller promised that the operation's memory stays valid.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }
}

fn entry_of(operation: Operation) -> squeue::Entry {
    macro_rules! with_file {
        ($file:expr, $fd:ident => $build:expr) => {
            match $file {
                File::Direct(slot) => {
                    let $fd = Fixed(slot);
                    $build.build()
                }
                File::Plain(descriptor) => {
                    let $fd = Fd(descriptor);
                    $build.build()
                }
            }
        };
    }
    match operation {
        Operation::Accept { listener } => {
            opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC).build()
        }
        Operation::Cancel { target } => {
            opcode::AsyncCancel2::new(CancelBuilder::user_data(target.to_bits())).build()
        }
        Operation::Close { file } => with_file!(file, fd => opcode::Close::new(fd)),
        Operation::Connect { file, address, length } => {
            with_file!(file, fd => opcode::Connect::new(fd, address, length))
        }
        Operation::Receive { file } => with_file!(file, fd => opcode::RecvMulti::new(fd, GROUP)),
        Operation::Send { file, start, length } => with_file!(
            file,
            fd => opcode::Send::new(fd, start, length).flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        ),
        Operation::Shutdown { file, how } => {
            with_file!(file, fd => opcode::Shutdown::new(fd, how))
        }
        Operation::Wake { event, start } => opcode::Read::new(Fd(event), start, 8).build(),
    }
}

impl Port for Kernel {
    unsafe fn push(&mut self, tag: Tag, operation: Operation) {
        let entry = entry_of(operation).user_data(tag.to_bits());
        if self.backlog.is_empty() {
            // SAFETY: the caller promised that the operation's memory stays valid.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: let the kernel take what is there. Should it refuse, the backlog keeps ours.
            let _ = self.ring.submit();
            // SAFETY: as above.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn enter(&mut self, wait: Wait) -> io::Result<bool> {
        self.refill();
        let result = match wait {
            Wait::No => {
                let queue = self.ring.submission();
                if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                    return Ok(false);
                }
                drop(queue);
                self.ring.submit()
            }
            Wait::Forever => self.ring.submit_and_wait(1),
            Wait::AtMost(time) => {
                let time = Timespec::from(time);
                let arguments = SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR) => Ok(true),
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            let Some(tag) = Tag::from_bits(entry.user_data()) else { continue };
            into.push(Completion {
                tag,
                result: entry.result(),
                buffer: cqueue::buffer_select(entry.flags()),
                more: cqueue::more(entry.flags()),
            });
        }
    }

    fn overflows(&self) -> u64 {
        // SAFETY: no other queue view of the ring exists while this one is read.
        let queue = unsafe { self.ring.completion_shared() };
        u64::from(queue.overflow())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn peer(&mut self, accepted: RawFd) -> io::Result<PeerAddress> {
        // SAFETY: the kernel has just given us this descriptor; nobody closes it meanwhile.
        let accepted = unsafe { BorrowedFd::borrow_raw(accepted) };
        let address = rustix::net::getpeername(accepted)?;
        Ok(address
            .and_then(|address| std::net::SocketAddr::try_from(address).ok())
            .map_or(PeerAddress::Local, PeerAddress::Internet))
    }

    fn install(&mut self, accepted: RawFd, slot: u32) -> io::Result<()> {
        let done = self.ring.submitter().register_files_update(slot, &[accepted]);
        self.discard(accepted);
        match done? {
            1 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }

    fn discard(&mut self, accepted: RawFd) {
        // SAFETY: the kernel gave us this descriptor and nothing else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(accepted) });
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
    }
}
