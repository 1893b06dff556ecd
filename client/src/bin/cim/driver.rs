//! Drives the engine over a real link: dials, sends, receives, lets time pass, comes back.
//!
//! Decides nothing about lines. Reconnects with a pause that doubles from [`PAUSE_MIN`] to
//! [`PAUSE_MAX`], each shortened at random so that many clients do not come at once.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::connection::{Connection, ConnectionError, Dialer, LineReceiver, LineSender};
use client::engine::{Engine, Event, Output};
use client::file::{self, Prepared};
use client::random::{self, System};
use protocol::{AddressBuf, Timestamp};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::failure::Failure;
use crate::home::Home;

/// The first pause before dialling again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the engine is told the time.
const TICK: Duration = Duration::from_millis(500);
/// How long a goodbye may take to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// What happened, for whoever shows it.
pub(crate) enum Happening {
    /// The engine says something.
    Event(Event),
    /// A file was offered, or could not be.
    Offered {
        /// What [`Driver::offer_file`] was given.
        ticket: u64,
        /// The file's id.
        result: Result<String, Failure>,
    },
    /// The link is gone, or was not made; it is tried again after the pause.
    Offline {
        /// Why.
        reason: String,
        /// When it is tried again.
        retry: Duration,
        /// Whether the relay's key is not the pinned one: a person should look.
        is_trust: bool,
    },
}

/// The engine, its link, and the wish to have one.
pub(crate) struct Driver {
    /// The engine; the commands of the user go straight to it.
    pub(crate) engine: Engine,
    /// The device's folder, locked as long as this lives.
    _home: Home,
    dialer: Dialer,
    state: LinkState,
    pause: Duration,
    next_tick: Instant,
    trace: Option<Trace>,
    preparing: JoinSet<Preparation>,
    happenings: Vec<Happening>,
}

enum LinkState {
    Dialling(JoinHandle<Result<Connection, ConnectionError>>),
    Resting(Instant),
    Up(Up),
}

/// A file that was read: the ticket, for whom it is, and what came of it.
type Preparation = (u64, AddressBuf, Result<Prepared, Failure>);

/// What the link does next.
enum Step {
    Dial,
    Dialled(Result<Result<Connection, ConnectionError>, tokio::task::JoinError>),
    Idle,
    Received(std::io::Result<Option<Vec<u8>>>),
}

/// Waits for the link. May be cancelled at any time.
async fn next_step(state: &mut LinkState) -> Step {
    match state {
        LinkState::Resting(until) => {
            sleep_until(*until).await;
            Step::Dial
        }
        LinkState::Dialling(dialling) => Step::Dialled(dialling.await),
        LinkState::Up(up) => tokio::select! {
            received = up.receiver.receive() => Step::Received(received),
            () = up.idle.notified() => Step::Idle,
        },
    }
}

struct Up {
    receiver: LineReceiver,
    lines: mpsc::UnboundedSender<Vec<u8>>,
    /// Octets given to the writer and not yet taken by the system.
    unsent: Arc<AtomicUsize>,
    /// Rung when the writer has nothing left.
    idle: Arc<Notify>,
    writer: JoinHandle<()>,
}

impl Driver {
    /// A driver that dials at its first wait.
    pub(crate) fn new(home: Home, engine: Engine, dialer: Dialer, trace: Option<Trace>) -> Self {
        let now = Instant::now();
        Self {
            engine,
            _home: home,
            dialer,
            state: LinkState::Resting(now),
            pause: PAUSE_MIN,
            next_tick: now,
            trace,
            preparing: JoinSet::new(),
            happenings: Vec::new(),
        }
    }

    /// Does what the engine says and returns what happened for the user.
    pub(crate) fn act(&mut self) -> Result<Vec<Happening>, Failure> {
        for output in self.engine.take_output()? {
            match output {
                Output::Send(line) => self.send(line),
                Output::Event(event) => self.happenings.push(Happening::Event(event)),
                Output::Disconnect(why) => self.hang_up(why.to_owned(), false),
            }
        }
        self.send_chunk()?;
        Ok(std::mem::take(&mut self.happenings))
    }

    /// Waits until something was given to the engine. May be cancelled at any time.
    pub(crate) async fn wait(&mut self) -> Result<(), Failure> {
        let step = tokio::select! {
            Some(done) = self.preparing.join_next(), if !self.preparing.is_empty() => {
                return self.prepared(done);
            }
            step = next_step(&mut self.state) => step,
            () = sleep_until(self.next_tick) => return self.tick(),
        };
        match step {
            Step::Dial => {
                let dialer = self.dialer.clone();
                let dialling = tokio::spawn(async move { dialer.dial().await });
                self.state = LinkState::Dialling(dialling);
                Ok(())
            }
            Step::Dialled(dialled) => self.dialled(dialled),
            Step::Received(received) => self.received(received),
            Step::Idle => Ok(()),
        }
    }

    /// Reads and seals a file beside the loop and then offers it; [`Happening::Offered`] with
    /// `ticket` says how that went.
    pub(crate) fn offer_file(&mut self, ticket: u64, to: AddressBuf, path: PathBuf) {
        let chunk_octets = self.engine.chunk_octets();
        self.preparing.spawn_blocking(move || {
            let kind = "application/octet-stream";
            let random = &mut System::new();
            let prepared = file::prepare(&path, chunk_octets, kind, random, |_, _| ());
            let prepared =
                prepared.map_err(|error| Failure::usage(format!("{}: {error}", path.display())));
            (ticket, to, prepared)
        });
    }

    fn prepared(
        &mut self,
        done: Result<Preparation, tokio::task::JoinError>,
    ) -> Result<(), Failure> {
        let (ticket, to, prepared) = done
            .map_err(|error| Failure::internal(format!("reading a file ended badly: {error}")))?;
        let result = prepared.and_then(|prepared| {
            Ok(self.engine.file_offer(to.as_address(), &prepared, Self::now())?)
        });
        self.happenings.push(Happening::Offered { ticket, result });
        Ok(())
    }

    /// Goes on until `goal` gives a value for something that happens. Notices are not confirmed:
    /// they are told again to whoever shows them.
    pub(crate) async fn until<T>(
        &mut self,
        mut goal: impl FnMut(&mut Self, &Happening) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        loop {
            let mut happenings = self.act()?.into_iter();
            while let Some(happening) = happenings.next() {
                let value = goal(self, &happening)?;
                if value.is_some() {
                    // What happened behind it is for whoever looks next.
                    self.happenings.splice(0..0, happenings.by_ref());
                }
                if let Some(value) = value {
                    return Ok(value);
                }
            }
            self.wait().await?;
        }
    }

    /// Says goodbye and waits until it is out.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        // What the engine still has to say, such as acknowledgements, goes first.
        self.act()?;
        if let LinkState::Up(up) =
            std::mem::replace(&mut self.state, LinkState::Resting(Instant::now()))
        {
            drop(up.lines);
            // A relay that does not read any more is not waited for.
            let _ = tokio::time::timeout(CLOSE_DEADLINE, up.writer).await;
        }
        Ok(())
    }

    /// The wall clock as the protocol has it.
    pub(crate) fn now() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn tick(&mut self) -> Result<(), Failure> {
        self.next_tick = Instant::now() + TICK;
        Ok(self.engine.tick(Self::now())?)
    }

    fn dialled(
        &mut self,
        dialled: Result<Result<Connection, ConnectionError>, tokio::task::JoinError>,
    ) -> Result<(), Failure> {
        match dialled {
            Ok(Ok(connection)) => {
                self.state = LinkState::Up(Up::start(connection.receiver, connection.sender));
                Ok(self.engine.connected(connection.exporter, Self::now())?)
            }
            Ok(Err(error)) => {
                let is_trust = matches!(error, ConnectionError::Pin { .. });
                self.rest(error.to_string(), is_trust);
                Ok(())
            }
            Err(error) => Err(Failure::internal(format!("dialling ended badly: {error}"))),
        }
    }

    fn received(&mut self, received: std::io::Result<Option<Vec<u8>>>) -> Result<(), Failure> {
        match received {
            Ok(Some(line)) => {
                if let Some(trace) = &mut self.trace {
                    trace.write("S: ", &line);
                }
                let result = self.engine.line_received(&line, Self::now());
                if self.engine.is_online() {
                    self.pause = PAUSE_MIN;
                }
                Ok(result?)
            }
            Ok(None) => {
                self.hang_up("the relay closed the link".to_owned(), false);
                Ok(())
            }
            Err(error) => {
                self.hang_up(format!("the link broke: {error}"), false);
                Ok(())
            }
        }
    }

    fn send(&mut self, line: Vec<u8>) {
        if let Some(trace) = &mut self.trace {
            trace.write("C: ", line.trim_ascii_end());
        }
        if let LinkState::Up(up) = &self.state {
            up.unsent.fetch_add(line.len(), Ordering::SeqCst);
            // The writer ends only with the link, whose end comes as a read error.
            let _ = up.lines.send(line);
        }
    }

    /// One chunk of a file, only when nothing else waits to leave.
    fn send_chunk(&mut self) -> Result<(), Failure> {
        let LinkState::Up(up) = &self.state else { return Ok(()) };
        if up.unsent.load(Ordering::SeqCst) > 0 {
            return Ok(());
        }
        if let Some(line) = self.engine.next_chunk(Self::now())? {
            self.send(line);
        }
        Ok(())
    }

    fn hang_up(&mut self, reason: String, is_trust: bool) {
        self.engine.disconnected();
        self.rest(reason, is_trust);
    }

    fn rest(&mut self, reason: String, is_trust: bool) {
        let jitter = random::octets::<2>(&mut System::new()).map_or(0, u16::from_be_bytes);
        let retry = self.pause.mul_f64(0.5 + f64::from(jitter) / f64::from(u16::MAX) / 2.0);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.state = LinkState::Resting(Instant::now() + retry);
        self.happenings.push(Happening::Offline { reason, retry, is_trust });
    }
}

impl Up {
    fn start(receiver: LineReceiver, sender: LineSender) -> Self {
        let (lines, waiting) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        let idle = Arc::new(Notify::new());
        let writer = tokio::spawn(write(sender, waiting, Arc::clone(&unsent), Arc::clone(&idle)));
        Self { receiver, lines, unsent, idle, writer }
    }
}

/// Writes lines until nobody gives more, then closes; everything that waits goes out at once.
async fn write(
    mut sender: LineSender,
    mut waiting: mpsc::UnboundedReceiver<Vec<u8>>,
    unsent: Arc<AtomicUsize>,
    idle: Arc<Notify>,
) {
    while let Some(mut octets) = waiting.recv().await {
        while let Ok(more) = waiting.try_recv() {
            octets.extend_from_slice(&more);
        }
        if sender.send(&octets).await.is_err() {
            return;
        }
        if unsent.fetch_sub(octets.len(), Ordering::SeqCst) == octets.len() {
            idle.notify_one();
        }
    }
    // The relay may be gone already.
    let _ = sender.close().await;
}

/// A file that gets every line of the protocol, for those who want to see it.
pub(crate) struct Trace {
    file: File,
}

impl Trace {
    /// Opens the file to append to it.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::options().create(true).append(true).open(path).map_err(|error| {
            Failure::usage(format!("cannot write the trace {}: {error}", path.display()))
        })?;
        Ok(Self { file })
    }

    fn write(&mut self, direction: &str, line: &[u8]) {
        let mut octets = Vec::with_capacity(direction.len() + line.len() + 1);
        octets.extend_from_slice(direction.as_bytes());
        octets.extend_from_slice(line);
        octets.push(b'\n');
        // A trace is no reason to stop talking.
        let _ = self.file.write_all(&octets);
    }
}
