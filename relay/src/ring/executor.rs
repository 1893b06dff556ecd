//! The executor: tasks, wakers and the turn of the loop.
//!
//! One turn: poll what is ready, let turn-end work run (so that all sends of a turn go out
//! together), enter the ring once, work on its completions, fire timers. Wakers may be used from
//! any thread; a wake writes an event only if the loop is parked.
//! Limits: [`limits::TASK_POLLS_PER_TURN_MAX`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::limits;

use super::error::RingError;
use super::listener::Listeners;
use super::port::{Completion, Kind, Wait};
use super::slab::{Slab, SlotId};
use super::socket::Sockets;
use super::timer::Timers;

/// What the loop and its handles share.
pub(super) struct Inner {
    pub(super) core: RefCell<Core>,
    pub(super) shared: Arc<Shared>,
    tasks: RefCell<Slab<Task>>,
    turn_end: RefCell<Vec<Waker>>,
    now: Cell<Instant>,
    /// Reused between turns.
    scratch: RefCell<Scratch>,
}

#[derive(Default)]
struct Scratch {
    completions: Vec<Completion>,
    wakes: Vec<Waker>,
}

/// What completions change.
pub(super) struct Core {
    pub(super) sockets: Sockets,
    pub(super) listeners: Listeners,
    pub(super) timers: Timers,
    pub(super) signal_waker: Option<Waker>,
    shared: Arc<Shared>,
}

struct Task {
    /// Missing while it is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

/// What other threads touch.
pub(super) struct Shared {
    ring: u64,
    remote: Mutex<Vec<SlotId>>,
    remote_ready: AtomicBool,
    parked: AtomicBool,
    /// Signals that have arrived, a bit each.
    pub(super) signals: AtomicU64,
    signals_fresh: AtomicBool,
    event: OwnedFd,
    remote_wakes: AtomicU64,
}

thread_local! {
    /// The ring this thread is running.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
    /// Its tasks that are ready.
    static READY: RefCell<VecDeque<SlotId>> = const { RefCell::new(VecDeque::new()) };
}

static RINGS: AtomicU64 = AtomicU64::new(1);

/// The future given to `block_on`.
const MAIN: SlotId = SlotId { index: u32::MAX, generation: 0 };

struct TaskWaker {
    task: SlotId,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl TaskWaker {
    fn new(task: SlotId, shared: &Arc<Shared>) -> Arc<TaskWaker> {
        let queued = AtomicBool::new(false);
        Arc::new(TaskWaker { task, queued, shared: Arc::clone(shared) })
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let local = RUNNING.try_with(Cell::get).unwrap_or(0) == self.shared.ring;
        if !local || READY.try_with(|ready| ready.borrow_mut().push_back(self.task)).is_err() {
            self.shared.push_remote(self.task);
        }
    }
}

impl Shared {
    pub(super) fn new() -> io::Result<Arc<Shared>> {
        Ok(Arc::new(Shared {
            ring: RINGS.fetch_add(1, Ordering::Relaxed),
            remote: Mutex::new(Vec::new()),
            remote_ready: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            signals: AtomicU64::new(0),
            signals_fresh: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC)?,
            remote_wakes: AtomicU64::new(0),
        }))
    }

    fn push_remote(&self, task: SlotId) {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        self.remote_ready.store(true, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            self.remote_wakes.fetch_add(1, Ordering::Relaxed);
            self.ring_bell();
        }
    }

    /// Takes note of signals. Safe to call from a signal handler.
    pub(super) fn note_signal(&self, bit: u64) {
        self.signals.fetch_or(bit, Ordering::SeqCst);
        self.signals_fresh.store(true, Ordering::SeqCst);
        self.ring_bell();
    }

    /// Writes the event.
    fn ring_bell(&self) {
        // A full counter has already been rung.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Announces that the loop will block; false if there is work after all.
    fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        let work =
            self.remote_ready.load(Ordering::SeqCst) || self.signals_fresh.load(Ordering::SeqCst);
        if work {
            self.parked.store(false, Ordering::SeqCst);
        }
        !work
    }
}

/// While it lives this thread runs the ring; what is ready at its end waits for the next time.
struct Running<'a> {
    shared: &'a Shared,
    before: u64,
    ready_before: VecDeque<SlotId>,
}

impl Running<'_> {
    fn enter(shared: &Shared) -> Running<'_> {
        Running { shared, before: RUNNING.replace(shared.ring), ready_before: READY.take() }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        RUNNING.set(self.before);
        let left = READY.replace(std::mem::take(&mut self.ready_before));
        for task in left {
            self.shared.push_remote(task);
        }
    }
}

impl Inner {
    pub(super) fn new(sockets: Sockets, shared: Arc<Shared>) -> Inner {
        let now = sockets.port.now();
        let mut core = Core {
            sockets,
            listeners: Listeners::new(),
            timers: Timers::default(),
            signal_waker: None,
            shared: Arc::clone(&shared),
        };
        core.sockets.start_wake(shared.event.as_raw_fd());
        Inner {
            core: RefCell::new(core),
            shared,
            tasks: RefCell::new(Slab::new()),
            turn_end: RefCell::new(Vec::new()),
            now: Cell::new(now),
            scratch: RefCell::new(Scratch::default()),
        }
    }

    /// The time at which this turn's completions were reaped.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn remote_wakes(&self) -> u64 {
        self.shared.remote_wakes.load(Ordering::Relaxed)
    }

    pub(super) fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let waker = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.insert_with(|task| Task {
                future: Some(future),
                waker: TaskWaker::new(task, &self.shared),
            });
            tasks.get_mut(task).map(|entry| Arc::clone(&entry.waker))
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes `waker` when everything ready in this turn has run, before the ring is entered.
    pub(super) fn at_turn_end(&self, waker: Waker) {
        self.turn_end.borrow_mut().push(waker);
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, RingError> {
        let _running = Running::enter(&self.shared);
        let mut future = pin!(future);
        self.now.set(self.core.borrow().sockets.port.now());
        let main = TaskWaker::new(MAIN, &self.shared);
        let waker = Waker::from(Arc::clone(&main));
        waker.wake_by_ref();
        let mut output = None;
        let mut poll_main = || {
            main.queued.store(false, Ordering::Release);
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => {
                    output = Some(value);
                    true
                }
                Poll::Pending => false,
            }
        };
        let mut refusals = 0;
        loop {
            self.take_remote();
            if self.run_ready(&mut poll_main) {
                break;
            }
            for waker in self.turn_end.take() {
                waker.wake();
            }
            if self.run_ready(&mut poll_main) {
                break;
            }
            self.turn(&mut refusals)?;
        }
        output.ok_or(RingError::Misuse { what: "a finished future without output" })
    }

    /// Moves what other threads made ready to our queue.
    fn take_remote(&self) {
        if self.shared.remote_ready.swap(false, Ordering::SeqCst) {
            let mut remote = self.shared.remote.lock().unwrap_or_else(PoisonError::into_inner);
            READY.with_borrow_mut(|ready| ready.extend(remote.drain(..)));
        }
        if self.shared.signals_fresh.swap(false, Ordering::SeqCst) {
            let waker = self.core.borrow_mut().signal_waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Polls ready tasks, up to the limit. True when the main future is done.
    fn run_ready(&self, poll_main: &mut dyn FnMut() -> bool) -> bool {
        let mut polls = 0;
        while polls < limits::TASK_POLLS_PER_TURN_MAX {
            let Some(task) = READY.with_borrow_mut(VecDeque::pop_front) else { break };
            polls += 1;
            if task == MAIN {
                if poll_main() {
                    return true;
                }
            } else {
                self.poll_task(task);
            }
        }
        if polls > 0 {
            self.core.borrow_mut().sockets.statistics.polls += polls as u64;
        }
        false
    }

    fn poll_task(&self, task: SlotId) {
        let taken = self.tasks.borrow_mut().get_mut(task).and_then(|entry| {
            let future = entry.future.take()?;
            Some((future, Arc::clone(&entry.waker)))
        });
        let Some((mut future, waker)) = taken else { return };
        waker.queued.store(false, Ordering::Release);
        let waker = Waker::from(waker);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => {
                let done = self.tasks.borrow_mut().remove(task);
                drop(done);
            }
            Poll::Pending => {
                if let Some(entry) = self.tasks.borrow_mut().get_mut(task) {
                    entry.future = Some(future);
                }
            }
        }
    }

    /// Enters the ring once and works on what it answers.
    fn turn(&self, refusals: &mut usize) -> Result<(), RingError> {
        let mut scratch = self.scratch.borrow_mut();
        let Scratch { completions, wakes } = &mut *scratch;
        {
            let mut core = self.core.borrow_mut();
            core.sockets.feed_starved();
            let mut wait = self.wait_time(&mut core);
            if wait != Wait::No && !self.shared.park() {
                wait = Wait::No;
            }
            let entered = core.sockets.port.enter(wait);
            self.shared.parked.store(false, Ordering::SeqCst);
            core.sockets.port.reap(completions);
            core.note_enter(entered, completions.is_empty(), refusals)?;
            self.now.set(core.sockets.port.now());
            for completion in completions.drain(..) {
                core.complete(completion, wakes);
            }
            core.timers.fire(self.now.get(), wakes);
        }
        for waker in wakes.drain(..) {
            waker.wake();
        }
        Ok(())
    }

    fn wait_time(&self, core: &mut Core) -> Wait {
        let busy =
            READY.with_borrow(|ready| !ready.is_empty()) || !self.turn_end.borrow().is_empty();
        if busy {
            return Wait::No;
        }
        match core.timers.next_deadline() {
            None => Wait::Forever,
            Some(deadline) => match deadline.saturating_duration_since(core.sockets.port.now()) {
                Duration::ZERO => Wait::No,
                time => Wait::AtMost(time),
            },
        }
    }

    /// Drops all tasks. Their futures may spawn and wake while they are dropped.
    pub(super) fn clear(&self) {
        loop {
            let ids = self.tasks.borrow().occupied();
            if ids.is_empty() {
                return;
            }
            for id in ids {
                let task = self.tasks.borrow_mut().remove(id);
                drop(task);
            }
        }
    }
}

impl Core {
    fn note_enter(
        &mut self,
        entered: io::Result<bool>,
        idle: bool,
        refusals: &mut usize,
    ) -> Result<(), RingError> {
        let statistics = &mut self.sockets.statistics;
        match entered {
            Ok(entered) => {
                statistics.enters += u64::from(entered);
                *refusals = 0;
            }
            Err(error) => {
                statistics.enter_failures += 1;
                *refusals += 1;
                let passes = matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM | libc::ENOBUFS)
                );
                if !passes || *refusals > limits::ENTER_REFUSALS_MAX {
                    return Err(RingError::System { part: "io_uring_enter", error });
                }
                if idle {
                    std::thread::sleep(limits::ENTER_RETRY);
                }
            }
        }
        statistics.overflows = self.sockets.port.overflows();
        Ok(())
    }

    fn complete(&mut self, completion: Completion, wakes: &mut Vec<Waker>) {
        self.sockets.statistics.completions += 1;
        if !completion.more {
            self.sockets.in_flight = self.sockets.in_flight.saturating_sub(1);
            if completion.tag.kind == Kind::Accept {
                self.sockets.settled(completion.tag);
            }
        }
        match completion.tag.kind {
            Kind::Accept => self.listeners.accepted(&mut self.sockets, completion, wakes),
            Kind::Wake => self.sockets.start_wake(self.shared.event.as_raw_fd()),
            _ => self.sockets.complete(completion, wakes),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.listeners.end_all(&mut self.sockets);
        self.sockets.cancel(super::port::Tag::new(Kind::Wake, 0, 0));
    }
}
