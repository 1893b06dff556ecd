//! Messages from senders to recipients, closed loop: each sender keeps a window of unanswered ones.
//!
//! The lines are whole and, if asked for, signed; what they carry is noise, which no relay can tell
//! from a sealed text. A recipient acknowledges what it has in one 014 for each batch that it
//! reads. Latencies of a closed loop say how long an answer took under this load, not how long it
//! would take at a given rate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::connection::{Connection, LineReceiver, LineSender};
use client::random::{Random as _, System};
use hdrhistogram::Histogram;
use protocol::signature::{Signer as _, SoftwareSigner};
use protocol::{AddressBuf, Code, Command, base64};
use system::site::Site;

use crate::member::{Member, now};
use crate::report::Report;
use crate::usage::Usage;

/// Microseconds that a histogram can hold: one minute.
const LATENCY_MAX: u64 = 60_000_000;
/// How long recipients may take for what is still on its way at the end.
const DRAIN: Duration = Duration::from_secs(30);

/// What to send.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Pairs of a sender and a recipient.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
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

/// Counts of one recipient.
#[derive(Default)]
struct Received {
    lines: AtomicU64,
}

/// Enrols the pairs, sends, counts.
pub(crate) async fn run(site: &Site, plan: &Plan) -> Result<Report> {
    let pid = site.relay_pid().context("the relay runs")?;
    let mut senders = Vec::new();
    let received = Arc::new(Received::default());
    for number in 0..plan.pairs {
        let (recipient, mut inbox) = Member::enrol(site, &format!("recipient{number}")).await?;
        let (sender, outbox) = Member::enrol(site, &format!("sender{number}")).await?;
        approve(&recipient, &mut inbox, &sender).await?;
        if !plan.absent {
            tokio::spawn(receive(inbox, Arc::clone(&received)));
        }
        senders.push((sender, recipient, outbox));
    }
    let before = Usage::of(pid)?;
    let began = Instant::now();
    let until = began + Duration::from_secs(plan.seconds);
    let mut tasks = Vec::new();
    for (sender, recipient, outbox) in senders {
        let load = Load {
            from: sender.device,
            to: recipient.device.as_address().account().to_buf(),
            signer: plan.signed.then_some(sender.signer),
            body: noise(plan.octets as usize)?,
            window: plan.window as usize,
            until,
        };
        tasks.push(tokio::spawn(load.send(outbox)));
    }
    let mut latency = Histogram::new_with_max(LATENCY_MAX, 3)?;
    let mut answered = 0;
    for task in tasks {
        let sent = task.await??;
        answered += sent.answered;
        latency.add(&sent.latency)?;
    }
    let took = began.elapsed();
    if !plan.absent {
        drain(&received, answered).await?;
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

/// The recipient approves the sender, who then is answered truthfully.
async fn approve(recipient: &Member, inbox: &mut Connection, sender: &Member) -> Result<()> {
    let line = Command::builder(Code::APPROVE)
        .to(sender.device.as_address().account())
        .from(recipient.device.as_address())
        .parameter("TS", now())
        .parameter("MID", message_id(0))
        .parameter("H-ID", 100);
    let code = Member::ask(inbox, &line.finish()).await?;
    ensure!(code == 250 || code == 252, "the approval was answered {code}");
    let line = Command::builder(Code::RESUME).parameter("H-Q", 0).parameter("H-ID", 101);
    let code = Member::ask(inbox, &line.finish()).await?;
    ensure!(code == 250, "013 was answered {code}");
    Ok(())
}

/// Waits until the recipients have everything that was answered.
async fn drain(received: &Received, answered: u64) -> Result<()> {
    let deadline = Instant::now() + DRAIN;
    while received.lines.load(Ordering::Relaxed) < answered {
        let missing = answered - received.lines.load(Ordering::Relaxed);
        ensure!(Instant::now() < deadline, "{missing} answered messages did not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Reads and acknowledges until the link ends.
async fn receive(mut inbox: Connection, received: Arc<Received>) -> Result<()> {
    loop {
        let mut newest = None;
        let mut next = inbox.receiver.receive().await?;
        loop {
            let line = next.context("the relay hung up")?;
            let text = std::str::from_utf8(&line)?;
            if text.starts_with("100 ") {
                received.lines.fetch_add(1, Ordering::Relaxed);
            }
            let number = text.split(' ').find_map(|word| word.strip_prefix("H-Q="));
            newest = number.map(str::to_owned).or(newest);
            let Some(line) = try_receive(&mut inbox.receiver).await? else { break };
            next = Some(line);
        }
        if let Some(newest) = newest {
            inbox.sender.send(format!("014 H-Q={newest}\r\n").as_bytes()).await?;
        }
    }
}

/// A line that is there already.
async fn try_receive(receiver: &mut LineReceiver) -> Result<Option<Vec<u8>>> {
    tokio::select! {
        biased;
        line = receiver.receive() => Ok(Some(line?.context("the relay hung up")?)),
        () = std::future::ready(()) => Ok(None),
    }
}

/// What one sender does.
struct Load {
    from: AddressBuf,
    to: AddressBuf,
    signer: Option<Arc<SoftwareSigner>>,
    /// Noise in the place of a sealed text; its first octets are the message's number.
    body: Vec<u8>,
    window: usize,
    until: Instant,
}

impl Load {
    async fn send(mut self, outbox: Connection) -> Result<Sent> {
        let Connection { mut receiver, mut sender, .. } = outbox;
        let mut waiting: VecDeque<(u64, Instant)> = VecDeque::new();
        let mut sent = Sent { answered: 0, latency: Histogram::new_with_max(LATENCY_MAX, 3)? };
        let mut last = 0;
        loop {
            if Instant::now() < self.until {
                last = self.fill(&mut sender, &mut waiting, last).await?;
            } else if waiting.is_empty() {
                return Ok(sent);
            }
            let mut line = receiver.receive().await?.context("the relay hung up")?;
            loop {
                count_answer(&line, &mut waiting, &mut sent)?;
                let Some(next) = try_receive(&mut receiver).await? else { break };
                line = next;
            }
        }
    }

    /// Sends until the window is full, in one write.
    async fn fill(
        &mut self,
        sender: &mut LineSender,
        waiting: &mut VecDeque<(u64, Instant)>,
        mut last: u64,
    ) -> Result<u64> {
        let mut lines = Vec::new();
        while waiting.len() < self.window {
            last += 1;
            lines.extend_from_slice(self.line(last)?.as_bytes());
            lines.extend_from_slice(b"\r\n");
            waiting.push_back((last, Instant::now()));
        }
        if !lines.is_empty() {
            sender.send(&lines).await?;
        }
        Ok(last)
    }

    fn line(&mut self, number: u64) -> Result<String> {
        for (octet, digit) in self.body.iter_mut().zip(number.to_be_bytes()) {
            *octet = digit;
        }
        let line = Command::builder(Code::MESSAGE)
            .to(self.to.as_address())
            .from(self.from.as_address())
            .parameter("SID", base64::encode(&[7; 16]))
            .parameter("GEN", base64::encode(&[8; 32]))
            .parameter("SEQ", number)
            .parameter("TS", now())
            .parameter("MID", message_id(number));
        let line = match &self.signer {
            Some(signer) => {
                let commitment = base64::encode(&[9; 32]);
                line.parameter("KC", commitment)
                    .parameter("H-ID", number)
                    .sign(&self.body, |tbs| signer.sign(tbs).map_err(anyhow::Error::from))?
            }
            None => line.parameter("H-ID", number).body(&self.body),
        };
        Ok(line)
    }
}

fn noise(octets: usize) -> Result<Vec<u8>> {
    let mut noise = vec![0; octets];
    System::new().fill(&mut noise).ok().context("the system gives no random octets")?;
    Ok(noise)
}

/// A message id that is unique for one sender.
fn message_id(number: u64) -> String {
    base64::encode(&u128::from(number).to_be_bytes())
}

fn count_answer(
    line: &[u8],
    waiting: &mut VecDeque<(u64, Instant)>,
    sent: &mut Sent,
) -> Result<()> {
    let text = std::str::from_utf8(line)?;
    let Some(id) = text.split(' ').find_map(|word| word.strip_prefix("H-ID=")) else {
        // A push of the relay's own, such as an approval.
        return Ok(());
    };
    let id: u64 = id.parse()?;
    ensure!(text.starts_with("25"), "a message was refused: {text}");
    let at =
        waiting.iter().position(|(number, _)| *number == id).context("an answer for nobody")?;
    let (_, began) = waiting.remove(at).context("the message just found")?;
    sent.answered += 1;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(LATENCY_MAX);
    sent.latency.saturating_record(took);
    Ok(())
}
