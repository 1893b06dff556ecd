//! The link thread: connects, reads answers, keeps deadlines, connects again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};
use zeroize::Zeroize;

use super::{Completion, DEADLINE_AT, Link, Shared, Table};
use crate::error::Error;
use crate::job::{Response, State};
use crate::limits;
use crate::wire::{Decoder, ResponseFrame};

/// What is to be told once the lock is free.
type Told = Vec<(Completion, Result<Response, Error>)>;

/// Runs until the last handle is dropped.
pub(super) fn run(shared: &Shared) {
    let mut pause = limits::RECONNECT_MIN;
    loop {
        match open(shared) {
            Ok(stream) => {
                let began = Instant::now();
                let reason = serve(shared, &Arc::new(stream));
                if began.elapsed() > limits::RECONNECT_MAX {
                    pause = limits::RECONNECT_MIN;
                }
                went_down(shared, &reason);
            }
            Err(error) => went_down(shared, &hint(error)),
        }
        let until = Instant::now() + pause;
        pause = (pause * 2).min(limits::RECONNECT_MAX);
        while Instant::now() < until {
            if shared.lock().is_closing {
                return end(shared);
            }
            wait(shared, None, Some(until));
            expire(shared);
        }
    }
}

fn open(shared: &Shared) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(&shared.settings.path)?)?;
    Ok(socket)
}

fn hint(error: rustix::io::Errno) -> String {
    use rustix::io::Errno;
    match error {
        Errno::NOENT => "there is no such socket; is cipherim-hsmd running?".to_owned(),
        Errno::CONNREFUSED => "nobody listens; is cipherim-hsmd running?".to_owned(),
        Errno::ACCESS => {
            "this user may not connect; see service.socket_mode and service.socket_group".to_owned()
        }
        Errno::NAMETOOLONG => "the path is too long for a socket (107 octets)".to_owned(),
        other => std::io::Error::from(other).to_string(),
    }
}

/// Sleeps until the stream or the wake-up is ready, or the time has come.
fn wait(shared: &Shared, stream: Option<(&OwnedFd, PollFlags)>, until: Option<Instant>) {
    let mut ready = vec![PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN)];
    ready.extend(stream.map(|(stream, interest)| PollFd::new(stream, interest)));
    let left = until.map(|until| {
        // A little later than asked, so that what was waited for has come.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
        Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
    });
    // Interrupted or failed: the caller looks at everything again anyway.
    let _ = poll(&mut ready, left.as_ref());
    let mut count = [0; 8];
    let _ = rustix::io::read(&shared.wake, &mut count);
}

/// Serves one connection until it breaks; why it did.
fn serve(shared: &Shared, stream: &Arc<OwnedFd>) -> String {
    went_up(shared, stream);
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; limits::READ_BYTES];
    loop {
        let mut table = shared.lock();
        if table.is_closing {
            return "closed".to_owned();
        }
        let is_whole = table.flush();
        let until = table.deadlines.first().map(|(until, _)| *until);
        drop(table);
        let out = if is_whole { PollFlags::empty() } else { PollFlags::OUT };
        wait(shared, Some((stream, PollFlags::IN | out)), until);
        match recv(stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return "cipherim-hsmd closed the connection".to_owned(),
            Ok((count, _)) => {
                let received = buffer.get_mut(..count).unwrap_or_default();
                decoder.push(received);
                received.zeroize();
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return hint(error),
        }
        if let Err(error) = take(shared, &mut decoder) {
            return error.to_string();
        }
        expire(shared);
    }
}

/// Hands out all answers that are whole.
fn take(shared: &Shared, decoder: &mut Decoder) -> Result<(), Error> {
    let mut told = Told::new();
    let mut news = None;
    let mut end = Ok(());
    let mut table = shared.lock();
    loop {
        match decoder.next_response() {
            Ok(Some(ResponseFrame { id: 0, outcome: Ok(Response::State(state)) })) => {
                table.token = Some(state.clone());
                news = Some(state);
            }
            Ok(Some(ResponseFrame { id: 0, outcome: Err(error) })) => {
                end = Err(error);
                break;
            }
            Ok(Some(ResponseFrame { id, outcome })) => {
                // An answer after its deadline has nobody left to take it.
                if let Some(pending) = table.forget(id) {
                    told.push((pending.done, outcome));
                }
            }
            Ok(None) => break,
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    drop(table);
    tell(told);
    if news.is_some() {
        observe(shared);
    }
    end
}

fn tell(told: Told) {
    for (done, outcome) in told {
        done.complete(outcome);
    }
}

fn observe(shared: &Shared) {
    if let Some(observer) = &shared.settings.observer {
        let health = shared.lock().health();
        observer(&health);
    }
}

/// Fails jobs whose deadline has passed, and, while the service stays away, all of them.
fn expire(shared: &Shared) {
    let now = Instant::now();
    let mut told = Told::new();
    let mut table = shared.lock();
    while let Some((until, id)) = table.deadlines.first().copied() {
        if until > now {
            break;
        }
        match table.forget(id) {
            Some(pending) => {
                let error = Error::Deadline { after: pending.patience };
                told.push((pending.done, Err(error)));
            }
            None => {
                table.deadlines.remove(&(until, id));
            }
        }
    }
    let is_hopeless =
        table.down_since.is_some_and(|since| now.duration_since(since) > shared.settings.patience);
    if is_hopeless && !table.pending.is_empty() {
        let reason = reason(&table);
        fail_all(shared, &mut table, &reason, &mut told);
    }
    drop(table);
    tell(told);
}

fn reason(table: &Table) -> String {
    match &table.link {
        Link::Down { reason } => reason.clone(),
        Link::Connecting | Link::Up => "not connected".to_owned(),
    }
}

fn fail_all(shared: &Shared, table: &mut Table, reason: &str, told: &mut Told) {
    table.deadlines.clear();
    for (_, pending) in table.pending.drain() {
        told.push((pending.done, Err(shared.disconnected(reason))));
    }
}

fn went_up(shared: &Shared, stream: &Arc<OwnedFd>) {
    let now = Instant::now();
    let mut table = shared.lock();
    let table_ref = &mut *table;
    table_ref.link = Link::Up;
    table_ref.down_since = None;
    table_ref.connections += 1;
    table_ref.stream = Some(Arc::clone(stream));
    // What was sent before goes once more, what waited goes now, in the order it came.
    let mut again: Vec<_> = table_ref.pending.iter_mut().collect();
    again.sort_by_key(|(id, _)| **id);
    for (_, pending) in again {
        pending.sent += 1;
        let left = pending.deadline.saturating_duration_since(now).as_millis();
        let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        if let Some(field) = pending.frame.get_mut(DEADLINE_AT..DEADLINE_AT + 4) {
            field.copy_from_slice(&left.to_be_bytes());
        }
        table_ref.outbox.extend_from_slice(&pending.frame);
    }
    drop(table);
    observe(shared);
}

fn went_down(shared: &Shared, reason: &str) {
    /// Once, and once more after a break.
    const SENDS_MAX: u8 = 2;
    let mut told = Told::new();
    let mut table = shared.lock();
    let is_news = table.link != Link::Down { reason: reason.to_owned() };
    table.stream = None;
    table.outbox.zeroize();
    table.sent = 0;
    table.token = None::<State>;
    table.link = Link::Down { reason: reason.to_owned() };
    table.down_since.get_or_insert_with(Instant::now);
    let spent: Vec<u64> = table
        .pending
        .iter()
        .filter(|(_, pending)| pending.sent >= SENDS_MAX)
        .map(|(id, _)| *id)
        .collect();
    for id in spent {
        if let Some(pending) = table.forget(id) {
            told.push((pending.done, Err(shared.disconnected(reason))));
        }
    }
    drop(table);
    tell(told);
    if is_news {
        observe(shared);
    }
}

fn end(shared: &Shared) {
    let mut told = Told::new();
    let mut table = shared.lock();
    fail_all(shared, &mut table, "the client was closed", &mut told);
    drop(table);
    tell(told);
}
