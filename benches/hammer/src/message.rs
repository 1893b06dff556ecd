//! Messages from senders to recipients, closed loop: each sender keeps a window of unanswered ones.
//!
//! The lines are whole and, if asked for, signed; what they carry is noise, which no relay can tell
//! from a sealed text. A recipient acknowledges what it has in one 014 for each batch that it
//! reads. Latencies of a closed loop say how long an answer took under this load, not how long it
//! would take at a given rate.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use client::random::{Random as _, System};
use hdrhistogram::Histogram;
use protocol::AddressBuf;
use system::device::Device;
use system::line::word;
use system::link::{Dialer, Heard, Link};
use system::process::POLL;
use system::site::Site;

use crate::report::Report;
use crate::usage::Usage;

/// Microseconds that a histogram can hold: one minute.
const LATENCY_MAX: u64 = 60_000_000;
/// How long recipients may take for what is still on its way at the end.
const DRAIN: Duration = Duration::from_secs(30);

/// How often a recipient to whom nothing comes looks whether it is over.
const TICK: Duration = Duration::from_millis(100);

/// What to send.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Pairs of a sender and a recipient, each a thread.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pairs: u32,
    /// Messages of one sender that may be unanswered.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    window: u32,
    /// Octets of sealed text in a message.
    #[arg(long, default_value_t = 272, value_parser = clap::value_parser!(u32).range(16..=4_096))]
    octets: u32,
    /// How long to send.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Every message is signed, and the relay verifies it.
    #[arg(long)]
    pub(crate) signed: bool,
    /// Recipients are not connected: every message waits in the spool.
    #[arg(long)]
    absent: bool,
}

/// What one sender found.
struct Sent {
    answered: u64,
    latency: Histogram<u64>,
}

/// What all recipients share.
#[derive(Default)]
struct Received {
    lines: AtomicU64,
    is_over: AtomicBool,
}

/// Enrols the pairs, sends, counts.
pub(crate) fn run(site: &Site, plan: &Plan) -> Result<Report> {
    let pid = site.relay_pid().context("the relay runs")?;
    let dialer = Dialer::new(site)?;
    let (mut senders, mut inboxes) = (Vec::new(), Vec::new());
    for number in 0..plan.pairs {
        let enrol = |name: &str| Device::enrol_here(site, &dialer, &format!("{name}{number}"));
        let (recipient, mut inbox) = enrol("recipient")?;
        let (sender, outbox) = enrol("sender")?;
        recipient.approve(&mut inbox, &sender)?;
        if plan.absent {
            inbox.close()?;
        } else {
            inbox.ask("013 H-Q=0", 250)?;
            inboxes.push(inbox);
        }
        let (to, body) = (recipient.account, noise(plan.octets as usize)?);
        senders.push(Load { sender, to, body, outbox });
    }
    let received = Received::default();
    let before = Usage::of(pid)?;
    let began = Instant::now();
    let until = began + Duration::from_secs(plan.seconds);
    let (sent, took) = scope(|scope| {
        let received = &received;
        let receive = |inbox| scope.spawn(move || receive(inbox, received));
        let receivers: Vec<_> = inboxes.into_iter().map(receive).collect();
        let send = |load: Load| scope.spawn(move || load.send(plan, until));
        let senders: Vec<_> = senders.into_iter().map(send).collect();
        let sent = join(senders);
        let took = began.elapsed();
        let drained = match &sent {
            Ok(sent) if !plan.absent => drain(received, sent.iter().map(|sent| sent.answered)),
            _ => Ok(()),
        };
        received.is_over.store(true, Ordering::Relaxed);
        let sent = sent?;
        join(receivers)?;
        drained.map(|()| (sent, took))
    })?;
    let mut latency = Histogram::new_with_max(LATENCY_MAX, 3)?;
    let mut answered = 0;
    for sent in sent {
        answered += sent.answered;
        latency.add(&sent.latency)?;
    }
    let after = Usage::of(pid)?;
    let mut report = Report::default();
    report.count("messages answered", answered);
    report.count("messages received", received.lines.load(Ordering::Relaxed));
    report.rate("messages", answered, took);
    let processor = after.processor.saturating_sub(before.processor);
    report.cost("relay's processor time per message, µs", processor, answered);
    report.number("relay's processors in use", processor.as_secs_f64() / took.as_secs_f64());
    report.latency("from sending to answer", &latency);
    report.count("relay's memory, KiB", after.resident_kib);
    Ok(report)
}

/// What all of them found; the first failure if one failed.
pub(crate) fn join<T>(threads: Vec<ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    let join = |thread: ScopedJoinHandle<'_, _>| thread.join();
    let ended: Vec<_> = threads.into_iter().map(join).collect();
    ended.into_iter().map(|ended| ended.map_err(|_| anyhow!("a thread panicked"))?).collect()
}

/// Waits until the recipients have everything that was answered.
fn drain(received: &Received, answered: impl Iterator<Item = u64>) -> Result<()> {
    let answered = answered.sum::<u64>();
    let deadline = Instant::now() + DRAIN;
    while received.lines.load(Ordering::Relaxed) < answered {
        let missing = answered - received.lines.load(Ordering::Relaxed);
        ensure!(Instant::now() < deadline, "{missing} answered messages did not arrive");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Reads and acknowledges until it is over.
fn receive(mut inbox: Link, received: &Received) -> Result<()> {
    while !received.is_over.load(Ordering::Relaxed) {
        let mut next = match inbox.hear_within(TICK)? {
            Heard::Line(line) => Some(line),
            Heard::Nothing => continue,
            Heard::End => return Err(anyhow!("the relay hung up on a recipient")),
        };
        let mut newest = None;
        while let Some(line) = next {
            if line.starts_with("100 ") {
                received.lines.fetch_add(1, Ordering::Relaxed);
            }
            newest = word(&line, "H-Q=").map(str::to_owned).or(newest);
            next = inbox.hear_ready()?;
        }
        if let Some(newest) = newest {
            inbox.say(&format!("014 H-Q={newest}"))?;
        }
    }
    Ok(())
}

/// What one sender does.
struct Load {
    sender: Device,
    to: AddressBuf,
    /// Noise in the place of a sealed text.
    body: Vec<u8>,
    outbox: Link,
}

/// Messages without an answer, by their H-ID.
type Waiting = VecDeque<(String, Instant)>;

impl Load {
    fn send(mut self, plan: &Plan, until: Instant) -> Result<Sent> {
        let mut waiting = Waiting::new();
        let mut sent = Sent { answered: 0, latency: Histogram::new_with_max(LATENCY_MAX, 3)? };
        loop {
            if Instant::now() < until {
                self.fill(plan, &mut waiting)?;
            } else if waiting.is_empty() {
                return Ok(sent);
            }
            let mut next = Some(self.outbox.hear()?.context("the relay hung up on a sender")?);
            while let Some(line) = next {
                count_answer(&line, &mut waiting, &mut sent)?;
                next = self.outbox.hear_ready()?;
            }
        }
    }

    /// Sends until the window is full, in one write.
    fn fill(&mut self, plan: &Plan, waiting: &mut Waiting) -> Result<()> {
        let mut lines = String::new();
        while waiting.len() < plan.window as usize {
            let line = if plan.signed {
                self.sender.signed_message(&self.to, &self.body)?
            } else {
                self.sender.message(&self.to, &self.body)
            };
            let id = word(&line, "H-ID=").context("a message has an H-ID")?;
            waiting.push_back((id.to_owned(), Instant::now()));
            lines.push_str(&line);
            lines.push_str("\r\n");
        }
        if lines.is_empty() { Ok(()) } else { self.outbox.send(lines.as_bytes()) }
    }
}

fn noise(octets: usize) -> Result<Vec<u8>> {
    let mut noise = vec![0; octets];
    System::new().fill(&mut noise).ok().context("the system gives no random octets")?;
    Ok(noise)
}

fn count_answer(line: &str, waiting: &mut Waiting, sent: &mut Sent) -> Result<()> {
    let Some(id) = word(line, "H-ID=") else {
        // A push of the relay's own, such as an approval.
        return Ok(());
    };
    ensure!(line.starts_with("25"), "a message was refused: {line}");
    let at = waiting.iter().position(|(waits, _)| waits == id).context("an answer for nobody")?;
    let (_, began) = waiting.remove(at).context("the message just found")?;
    sent.answered += 1;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(LATENCY_MAX);
    sent.latency.saturating_record(took);
    Ok(())
}
