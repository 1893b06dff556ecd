//! A bounded channel into the loop: any thread sends, one future receives.
//!
//! Owns the queue. Invariant: never more than `capacity` items; a sender is told when it is full
//! and decides itself what to do. Receiving costs the sender an event only if the loop is parked.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why an item was not taken; it is given back.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError<T> {
    /// The receiver is gone.
    #[error("the receiver is gone")]
    Closed(T),
    /// There is no room now.
    #[error("the queue is full")]
    Full(T),
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Closed(item) | TrySendError::Full(item) => item,
        }
    }
}

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    waker: Option<Waker>,
    senders: usize,
    closed: bool,
}

/// The sending side; clone it for each thread.
pub struct Sender<T> {
    state: Arc<Mutex<State<T>>>,
}

/// The receiving side.
pub struct Receiver<T> {
    state: Arc<Mutex<State<T>>>,
}

/// Makes a channel of `capacity` items (at least one).
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Mutex::new(State {
        queue: VecDeque::new(),
        capacity: capacity.max(1),
        waker: None,
        senders: 1,
        closed: false,
    }));
    (Sender { state: Arc::clone(&state) }, Receiver { state })
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    // No code of ours can panic while it holds the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Sender<T> {
    /// Puts `item` into the queue.
    ///
    /// # Errors
    /// [`TrySendError`] with the item: no room, or nobody receives.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let waker = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(TrySendError::Closed(item));
            }
            if state.queue.len() >= state.capacity {
                return Err(TrySendError::Full(item));
            }
            state.queue.push_back(item);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        lock(&self.state).queue.len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        lock(&self.state).senders += 1;
        Sender { state: Arc::clone(&self.state) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.state);
            state.senders -= 1;
            if state.senders == 0 { state.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` when the queue is empty and all senders are gone.
    pub async fn receive(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// As [`Receiver::receive`], for hand-written futures.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.state);
        if let Some(item) = state.queue.pop_front() {
            return Poll::Ready(Some(item));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next item if there is one now.
    pub fn try_receive(&mut self) -> Option<T> {
        lock(&self.state).queue.pop_front()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.queue)
        };
        drop(left);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_tells() {
        let (sender, mut receiver) = channel(2);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(receiver.try_receive(), Some(1));
        assert_eq!(sender.clone().try_send(3), Ok(()));
        assert_eq!(sender.len(), 2);
        drop(receiver);
        assert_eq!(sender.try_send(4), Err(TrySendError::Closed(4)));
    }

    #[test]
    fn the_end_comes_after_the_last_item() {
        let (sender, mut receiver) = channel(1);
        sender.try_send(1).unwrap();
        drop(sender);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(receiver.poll_receive(&mut context), Poll::Ready(Some(1)));
        assert_eq!(receiver.poll_receive(&mut context), Poll::Ready(None));
    }
}
