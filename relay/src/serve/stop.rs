//! The wish to stop, and the future that waits for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A flag that one side raises and another waits for. Stays on the loop's thread.
#[derive(Clone, Default)]
pub(super) struct Stop {
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    is_asked: bool,
    waker: Option<Waker>,
}

impl Stop {
    /// Asks to stop.
    pub(super) fn ask(&self) {
        let mut state = self.state.borrow_mut();
        state.is_asked = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether a stop was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.state.borrow().is_asked
    }

    /// Done once a stop was asked for.
    pub(super) async fn asked(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.is_asked {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
