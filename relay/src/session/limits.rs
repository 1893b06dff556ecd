//! The named limits of sessions: what a connection, an account and a device may use.
//!
//! Each says what happens at the limit.

use std::time::Duration;

use crate::{roster, store};

/// Networks whose logins are counted apart; those beyond share one count.
pub const NETWORKS_COUNTED_MAX: usize = 65_536;

/// Failed proofs and invitations on one link: the last one is answered, then 421 closes the link.
pub const FAILURES_MAX: u8 = 3;

/// Octets in a connection's outbox at which it is closed (421): its client asks for one long answer
/// after the other and reads none. Lines of a queue stop long before, and nothing more is received
/// from a client that reads so little (`net`).
pub const OUTBOX_OCTETS_CLOSE: usize = 8 << 20;

/// Lines that wait on one link for a choice after 350; at more the oldest is forgotten, and its
/// 130 gets 503.
pub const CHOICES_MAX: usize = 16;

/// Octets of those lines; at more the oldest is forgotten.
pub const CHOICE_OCTETS_MAX: usize = 256 * 1_024;

/// How long a line waits for a choice.
pub const CHOICE_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Octets of held lines that one commit moves into queues; the rest follows in the next.
pub const RELEASE_OCTETS_MAX: usize = 48 * 1_024;

/// Operations after which that commit takes no further line.
pub const RELEASE_OPERATIONS_MAX: usize = 2_048;

/// Accounts with held lines that one tick looks at.
pub const HOLDERS_PER_TICK: usize = 64;

/// Chunks that wait in memory for one link; the sender of one more gets 450.
pub const CHUNKS_WAITING_MAX: usize = 16;

/// Octets of chunks that wait in memory for all links; the sender of more gets 450.
pub const CHUNK_OCTETS_WAITING_MAX: usize = 64 << 20;

/// Kept files that one link is sent at a time; 801 for one more gets 450.
pub const FETCHES_MAX: usize = 64;

/// Seconds after which the sender of a chunk may try again whose recipient is away. It need not:
/// the recipient says so by 801 when it is back.
pub const AWAY_RETRY_SECONDS: u64 = 30;

/// Signed bounces in a minute for one account (SPEC.md §8); the rest are counted.
pub const BOUNCES_PER_MINUTE: u32 = 5;

/// Accounts whose bounces are counted apart; those beyond share one count.
pub const BOUNCED_ACCOUNTS_MAX: usize = 4_096;

/// How long a round of the sweep is followed by nothing.
pub const SWEEP_PAUSE: Duration = Duration::from_secs(60);

/// Steps of the sweep in one tick.
pub const SWEEP_STEPS_PER_TICK: usize = 64;

/// Rows that one step of the sweep looks at.
pub const SWEEP_ROWS_PER_STEP: u64 = 64;

/// Times that one command is handled again because another commit came before it: 450.
pub const CONFLICTS_MAX: u8 = 8;

/// One-time prekeys of one account that another account gets in an hour; then it gets none.
pub const PREKEYS_TAKEN_PER_HOUR: u32 = 10;

/// Pairs of accounts whose takes are counted apart; those beyond share one count.
pub const PREKEY_PAIRS_COUNTED_MAX: usize = 65_536;

/// How often rates, spent invitations and version numbers are swept.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Subscription requests (633) of one account in an hour: 453.
pub const REQUESTS_PER_HOUR: u32 = 60;

/// Accounts whose requests are counted apart; those beyond share one count.
pub const REQUESTERS_COUNTED_MAX: usize = 65_536;

/// Lines after which a statement for many devices goes on in another commit.
pub const LINES_TOLD_AT_ONCE: usize = 512;

/// Octets of those lines after which it does.
pub const OCTETS_TOLD_AT_ONCE: usize = 1 << 20;

/// Octets of a roster's entry in an answer, beside its blob: an address and a few words.
const ROSTER_ENTRY_OCTETS_MAX: usize = 512;

/// Accounts in one answer to an operator. Each costs the check of a signature.
pub const USERS_SHOWN_MAX: usize = 200;

const _: () = {
    // What is released at once, with a copy for every device of both sides, fits a commit.
    let devices = 2 * protocol::limits::RECORD_DEVICES_MAX;
    let octets = (RELEASE_OCTETS_MAX + protocol::limits::LINE_OCTETS_MAX) * devices;
    assert!(octets + (512 << 10) < store::limits::COMMIT_OCTETS_MAX);
    // A row and two notes for each device.
    assert!(3 * (LINES_TOLD_AT_ONCE + devices) < store::limits::COMMIT_OPERATIONS_MAX);
    let octets = OCTETS_TOLD_AT_ONCE + protocol::limits::LINE_OCTETS_MAX * devices;
    assert!(octets + (512 << 10) < store::limits::COMMIT_OCTETS_MAX);
    assert!(RELEASE_OPERATIONS_MAX + 3 * devices < store::limits::COMMIT_OPERATIONS_MAX);
    // Behind a full outbox there is room for the longest answer: a roster with every blob full.
    let contacts = roster::limits::CONTACTS_MAX + roster::limits::REQUESTS_MAX;
    let entry = protocol::limits::ROSTER_BLOB_OCTETS_MAX + ROSTER_ENTRY_OCTETS_MAX;
    assert!(crate::limits::OUTBOX_SETTING_MAX + contacts * entry < OUTBOX_OCTETS_CLOSE);
    // The network refuses nothing that a session takes; a sixteenth is more than TLS adds.
    let sealed = OUTBOX_OCTETS_CLOSE + OUTBOX_OCTETS_CLOSE / 16;
    assert!(sealed <= crate::limits::OUTBOX_BYTES_REFUSED);
};
