//! Signals as a future: handlers set a bit and wake the loop.
//!
//! The handler touches an atomic and writes an event, nothing else. Works whatever threads exist
//! and whatever they mask. A signal that arrives twice before it is looked at counts once.

#![expect(unsafe_code, reason = "registers signal handlers")]

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use signal_hook::SigId;

use super::executor::Inner;

/// Signals taken by the loop. Dropping it stops taking them (their default action stays off).
pub struct Signals {
    inner: Rc<Inner>,
    handlers: Vec<SigId>,
    wanted: u64,
}

impl Signals {
    /// Takes the signals with these numbers (1 to 31).
    pub(super) fn new(inner: Rc<Inner>, numbers: &[i32]) -> io::Result<Signals> {
        let mut signals = Signals { inner, handlers: Vec::new(), wanted: 0 };
        for &number in numbers {
            if !(1..=31).contains(&number) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let bit = 1_u64 << number;
            let shared = Arc::clone(&signals.inner.shared);
            let handler = move || shared.note_signal(bit);
            // SAFETY: the handler only sets atomics and calls write(2) on an open descriptor;
            // both are allowed in signal handlers.
            let id = unsafe { signal_hook::low_level::register(number, handler) }?;
            signals.handlers.push(id);
            signals.wanted |= bit;
        }
        Ok(signals)
    }

    /// The number of the next signal.
    pub async fn next(&mut self) -> i32 {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<i32> {
        let arrived = self.inner.shared.signals.load(Ordering::SeqCst) & self.wanted;
        if arrived == 0 {
            self.inner.core.borrow_mut().signal_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let number = arrived.trailing_zeros();
        self.inner.shared.signals.fetch_and(!(1_u64 << number), Ordering::SeqCst);
        Poll::Ready(number.cast_signed())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
        self.inner.shared.signals.fetch_and(!self.wanted, Ordering::SeqCst);
    }
}
