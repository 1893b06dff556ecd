//! Jobs that wait for a session: two lanes, bounded by count and by octets.
//!
//! Urgent jobs (a login's or handshake's signature, wrapping, unwrapping) go ahead of bulk ones
//! (verification, random); bulk may fill only a share of the queue, and is served after
//! [`limits::URGENT_RUN_MAX`] urgent jobs in a row, so neither lane starves. Full is said at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::job::{Operation, Request, Response};
use crate::limits;

/// Takes answers: a connection, or a test.
pub trait Sink: Send + Sync {
    /// Takes the answer to job `id`, or a notice with id 0.
    fn answer(&self, id: u64, outcome: Result<Response, Error>);
}

/// The right to one answer.
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) operation: Operation,
    pub(super) accepted: Instant,
    pub(super) deadline: Instant,
    sink: Arc<dyn Sink>,
    is_answered: AtomicBool,
}

impl Ticket {
    pub(super) fn new(
        sink: &Arc<dyn Sink>,
        id: u64,
        operation: Operation,
        accepted: Instant,
        patience: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            operation,
            accepted,
            deadline: accepted + patience.min(limits::DEADLINE_MAX),
            sink: Arc::clone(sink),
            is_answered: AtomicBool::new(false),
        })
    }

    pub(super) fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Acquire)
    }

    pub(super) fn overdue(&self) -> Error {
        Error::Deadline { after: self.deadline - self.accepted }
    }

    /// Answers, unless somebody did already; tells whether this was the answer.
    pub(super) fn answer(&self, outcome: Result<Response, Error>) -> bool {
        let is_first = !self.is_answered.swap(true, Ordering::AcqRel);
        if is_first {
            self.sink.answer(self.id, outcome);
        }
        is_first
    }
}

/// A job on its way.
pub(super) struct Job {
    pub(super) ticket: Arc<Ticket>,
    pub(super) request: Request,
    /// Times it entered the token.
    pub(super) attempts: u8,
}

/// The lanes.
pub(super) struct Queue {
    urgent: VecDeque<Job>,
    bulk: VecDeque<Job>,
    octets: usize,
    jobs_max: usize,
    bulk_max: usize,
    urgent_run: u32,
}

impl Queue {
    pub(super) fn new(jobs_max: usize) -> Self {
        let jobs_max = jobs_max.clamp(1, limits::QUEUE_JOBS_MAX);
        let bulk_max = (jobs_max * limits::QUEUE_BULK_PERCENT / 100).max(1);
        Self {
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            octets: 0,
            jobs_max,
            bulk_max,
            urgent_run: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.bulk.len()
    }

    pub(super) fn jobs_max(&self) -> usize {
        self.jobs_max
    }

    /// Takes a job, or drops it and tells the limit it hit; the caller keeps the ticket.
    pub(super) fn push(&mut self, job: Job) -> Result<(), Error> {
        let is_bulk = job.ticket.operation.is_bulk();
        let size = job.request.size();
        let busy = |what: &'static str, limit: usize| Error::Busy {
            what: what.into(),
            limit: limit as u64,
        };
        let full = if self.len() >= self.jobs_max {
            Some(busy("the job queue", self.jobs_max))
        } else if is_bulk && self.bulk.len() >= self.bulk_max {
            Some(busy("the bulk lane of the job queue", self.bulk_max))
        } else if self.octets + size > limits::QUEUE_BYTES_MAX {
            Some(busy("the memory of the job queue", limits::QUEUE_BYTES_MAX))
        } else {
            None
        };
        if let Some(error) = full {
            return Err(error);
        }
        self.octets += size;
        if is_bulk {
            self.bulk.push_back(job)
        } else {
            self.urgent.push_back(job)
        }
        Ok(())
    }

    /// Puts a job back in front: it was admitted before, so no limit is asked.
    pub(super) fn put_back(&mut self, job: Job) {
        self.octets += job.request.size();
        if job.ticket.operation.is_bulk() {
            self.bulk.push_front(job);
        } else {
            self.urgent.push_front(job);
        }
    }

    /// The next job.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let bulk_is_due = self.urgent_run >= limits::URGENT_RUN_MAX && !self.bulk.is_empty();
        let job = if bulk_is_due { None } else { self.urgent.pop_front() };
        let job = match job {
            Some(job) => {
                self.urgent_run += 1;
                job
            }
            None => {
                self.urgent_run = 0;
                self.bulk.pop_front().or_else(|| self.urgent.pop_front())?
            }
        };
        self.octets -= job.request.size();
        Some(job)
    }

    /// Takes out the jobs whose deadline has passed.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Job> {
        let mut out = Vec::new();
        for lane in [&mut self.urgent, &mut self.bulk] {
            if lane.iter().all(|job| job.ticket.deadline > now) {
                continue;
            }
            let (late, kept): (VecDeque<Job>, VecDeque<Job>) =
                lane.drain(..).partition(|job| job.ticket.deadline <= now);
            *lane = kept;
            out.extend(late);
        }
        self.octets -= out.iter().map(|job| job.request.size()).sum::<usize>();
        out
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<Job> {
        self.octets = 0;
        self.urgent.drain(..).chain(self.bulk.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Algorithm, Purpose};

    struct Nobody;

    impl Sink for Nobody {
        fn answer(&self, _: u64, _: Result<Response, Error>) {}
    }

    fn job(id: u64, request: Request, start: Instant, patience: u64) -> Job {
        let sink: Arc<dyn Sink> = Arc::new(Nobody);
        let patience = Duration::from_millis(patience);
        let ticket = Ticket::new(&sink, id, request.operation(), start, patience);
        Job { ticket, request, attempts: 0 }
    }

    fn sign(octets: usize) -> Request {
        Request::Sign {
            key: Purpose::Domain.into(),
            algorithm: Algorithm::P256,
            message: vec![0; octets],
        }
    }

    fn random() -> Request {
        Request::Random { length: 1 }
    }

    fn push(queue: &mut Queue, id: u64, request: Request) -> bool {
        queue.push(job(id, request, Instant::now(), 1_000)).is_ok()
    }

    #[test]
    fn full_at_the_limit_and_not_before() {
        let mut queue = Queue::new(10);
        for id in 0..8 {
            assert!(push(&mut queue, id, random()));
        }
        assert!(!push(&mut queue, 8, random()), "bulk has 80 percent");
        assert!(push(&mut queue, 9, sign(1)));
        assert!(push(&mut queue, 10, sign(1)));
        assert!(!push(&mut queue, 11, sign(1)));
        queue.pop();
        assert!(push(&mut queue, 12, sign(1)));
    }

    #[test]
    fn octets_are_bounded_and_given_back() {
        let mut queue = Queue::new(limits::QUEUE_JOBS_MAX);
        let fitting = limits::QUEUE_BYTES_MAX / limits::MESSAGE_BYTES_MAX;
        for id in 0..fitting {
            assert!(push(&mut queue, id as u64, sign(limits::MESSAGE_BYTES_MAX)));
        }
        assert!(!push(&mut queue, 0, sign(1)));
        let taken = queue.pop().unwrap();
        assert!(push(&mut queue, 0, sign(1)));
        queue.put_back(taken);
        queue.drain();
        assert_eq!((queue.octets, queue.len()), (0, 0));
    }

    #[test]
    fn urgent_goes_first_and_bulk_does_not_starve() {
        let mut queue = Queue::new(100);
        push(&mut queue, 1_000, random());
        for id in 0..40 {
            push(&mut queue, id, sign(0));
        }
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|job| job.ticket.id).collect();
        let place = order.iter().position(|&id| id == 1_000).unwrap();
        assert_eq!(place, limits::URGENT_RUN_MAX as usize);
        assert_eq!(order.len(), 41);
    }

    #[test]
    fn overdue_jobs_leave() {
        let mut queue = Queue::new(100);
        let now = Instant::now();
        for (id, patience) in [(1, 5), (2, 50), (3, 10)] {
            assert!(queue.push(job(id, sign(3), now, patience)).is_ok());
        }
        assert!(queue.overdue(now).is_empty());
        let late = queue.overdue(now + Duration::from_millis(10));
        assert_eq!(late.iter().map(|job| job.ticket.id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((queue.len(), queue.octets), (1, 3));
    }

    #[test]
    fn a_ticket_is_answered_once() {
        let job = job(1, random(), Instant::now(), 1);
        assert!(job.ticket.answer(Ok(Response::Verified(true))));
        assert!(!job.ticket.answer(Err(Error::Stopping)));
        assert!(job.ticket.is_answered());
    }
}
