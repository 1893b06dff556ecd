//! What sessions keep in memory about lines under way: per domain, and per link.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::AddressBuf;
use protocol::file::Shape;

use super::connection::ConnectionId;
use super::failure::Caller;
use super::limits;
use super::rate::Rate;
use super::settings::Settings;
use super::sweep::Sweep;
use crate::clock::SteadyClock;
use crate::depot::{Depot, Label};
use crate::route::{self, SignedSessions};
use crate::spool::dedupe::Sweeper;
use crate::spool::{self, Appended, Holders, Spool};
use crate::store::{Cursor, Operation, Table};

/// The lines of the domain.
pub(super) struct Post {
    pub(super) spool: Spool,
    pub(super) holders: Holders,
    pub(super) sessions: SignedSessions,
    pub(super) clock: SteadyClock,
    pub(super) sweep: Sweep,
    /// Files that are kept for people who are away.
    pub(super) depot: Depot,
    /// Where the sweep of their cards goes on, and when it last went.
    pub(super) depot_cursor: Option<Cursor>,
    pub(super) depot_swept_at: Duration,
    /// Kept files of which a chunk was found damaged; given up with the next tick.
    pub(super) spoilt: Vec<Label>,
    /// Signed bounces, by the account that gets them.
    pub(super) bounces: Rate<AddressBuf>,
    /// Old epochs of message ids and of signed sessions.
    pub(super) epochs: [Epochs; 2],
    /// Links whose queue could not be read; tried again with the next tick.
    pub(super) stuck: Vec<ConnectionId>,
    /// The held account that the next tick begins behind.
    pub(super) held_after: Option<AddressBuf>,
    /// Whether a commit's outcome is unknown and nothing since has shown that reads are true.
    pub(super) is_doubtful: bool,
    /// Octets of chunks that wait for links.
    pub(super) waiting_octets: usize,
    pub(super) counts: PostCounts,
}

/// The deletion of a table's old epochs.
pub(super) struct Epochs {
    pub(super) sweeper: Sweeper,
    pub(super) is_under_way: bool,
}

impl Post {
    pub(super) fn new(settings: &Settings) -> Self {
        let epochs = |table, epoch_ms| Epochs {
            sweeper: Sweeper::new(table, epoch_ms),
            is_under_way: false,
        };
        Self {
            spool: Spool::new(settings.spool),
            holders: Holders::default(),
            sessions: SignedSessions::default(),
            clock: SteadyClock::default(),
            sweep: Sweep::default(),
            depot: Depot::new(settings.depot),
            depot_cursor: None,
            depot_swept_at: Duration::ZERO,
            spoilt: Vec::new(),
            bounces: Rate::new(
                limits::BOUNCES_PER_MINUTE,
                Duration::from_secs(60),
                limits::BOUNCED_ACCOUNTS_MAX,
            ),
            epochs: [
                epochs(Table::Dedupe, spool::limits::EPOCH_MS),
                epochs(Table::Session, route::EPOCH_MS),
            ],
            stuck: Vec::new(),
            held_after: None,
            is_doubtful: false,
            waiting_octets: 0,
            counts: PostCounts::default(),
        }
    }
}

/// What became of lines since the start. For people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostCounts {
    /// Lines made durable, each once however many devices get it.
    pub taken: u64,
    /// Lines put into queues, one for each device.
    pub queued: u64,
    /// Lines given to a link at once, without reading them back.
    pub passed: u64,
    /// Lines read back from a queue and given to a link.
    pub replayed: u64,
    /// Acknowledgements made durable.
    pub acknowledged: u64,
    /// Repeats of lines taken before.
    pub repeated: u64,
    /// Lines that a blocked or unknown address, or a stranger over the limit, made vanish.
    pub vanished: u64,
    /// Lines refused because a queue was full.
    pub over_quota: u64,
    /// Lines held for busy people.
    pub held: u64,
    /// Held lines moved into queues.
    pub released: u64,
    /// Lines given up because nobody fetched them in time.
    pub expired: u64,
    /// Bounces signed and queued.
    pub bounced: u64,
    /// Bounces not sent because their account had its share of the minute.
    pub bounces_counted: u64,
    /// Chunks passed on without storing them.
    pub chunks_passed: u64,
    /// Files taken to be kept for somebody who is away.
    pub files_kept: u64,
    /// Chunks made durable for kept files.
    pub chunks_kept: u64,
    /// Chunks of kept files given to a link.
    pub chunks_fetched: u64,
    /// Kept files given up by the relay: nobody took them in time, or they were damaged.
    pub files_ended: u64,
    /// Kept files removed, for whatever reason.
    pub files_removed: u64,
    /// Rows of queues and kept files that were found damaged.
    pub damaged: u64,
}

/// What one link has under way.
#[derive(Default)]
pub(super) struct LinkPost {
    /// Where its queue stands, since 013.
    pub(super) feed: Option<Feed>,
    /// Lines that wait for a choice after 350, the oldest first.
    pub(super) choices: VecDeque<Choice>,
    /// Chunks that wait until the one before is out: who sent them, which file, and the line.
    pub(super) chunks: VecDeque<Chunk>,
    /// Kept files that it is being sent, the next in turn first.
    pub(super) fetches: VecDeque<Fetch>,
    /// Whether the last chunk was one of those.
    pub(super) was_kept_turn: bool,
    /// Octets ever given to the outbox.
    pub(super) given_octets: u64,
    /// Where among them the last chunk ends.
    pub(super) chunk_end: u64,
}

/// How far a link has been sent its device's queue.
pub(super) struct Feed {
    /// Every line up to here was sent or is freed, but those in `kept`.
    pub(super) sent_up_to: u64,
    /// Kept lines still to send.
    pub(super) kept: VecDeque<u64>,
    /// Whether durable lines behind `sent_up_to` must be read from the store.
    pub(super) is_behind: bool,
}

/// A line whose sender was asked to choose.
pub(super) struct Choice {
    pub(super) to: AddressBuf,
    pub(super) message_id: Box<str>,
    pub(super) line: Box<str>,
    pub(super) asked_at: Duration,
}

/// A chunk on its way past the store.
pub(super) struct Chunk {
    /// Who is told when it is passed on, if they asked.
    pub(super) caller: Option<Caller>,
    pub(super) from: AddressBuf,
    pub(super) file: Box<str>,
    pub(super) line: Vec<u8>,
}

/// A kept file on its way to a link.
pub(super) struct Fetch {
    pub(super) label: Label,
    /// The chunk that is sent next.
    pub(super) next: u64,
    /// The first chunk that is not kept yet.
    pub(super) kept: u64,
    pub(super) shape: Shape,
    /// The first chunk that the device did not grant.
    pub(super) window_end: u64,
}

impl Fetch {
    /// Whether a chunk may be sent now.
    pub(super) fn has_chunk(&self) -> bool {
        self.next < self.kept.min(self.window_end)
    }
}

/// Lines and operations that are committed as one.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) operations: Vec<Operation>,
    pub(super) lines: Vec<QueuedLine>,
}

/// A line in a batch, for one device.
pub(super) struct QueuedLine {
    pub(super) appended: Appended,
    /// The line as it goes out, if the device was there to take it.
    pub(super) octets: Option<Vec<u8>>,
    /// Whether it shows the sender's other devices what was sent.
    pub(super) is_copy: bool,
}
