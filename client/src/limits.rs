//! The named limits of the client and the relations between them.
//!
//! Those of the wire are in [`protocol::limits`]. At each limit the doc says what happens.

/// Draws of a P-256 scalar before the generator is taken for broken.
pub const KEY_GENERATION_TRIES_MAX: usize = 4;
/// Bits of the largest RSA modulus that is used; larger ones are refused as a bad key.
pub const RSA_BITS_MAX: usize = 8_192;

/// Message keys of lines not yet seen, per session; beyond it the oldest is erased and its line,
/// should it still come, cannot be opened.
pub const SKIPPED_KEYS_MAX: usize = 1_000;
/// How long a message key of a line not yet seen is kept, in milliseconds.
pub const SKIPPED_KEY_AGE_MS_MAX: u64 = 4 * DAY_MS;
/// How far SEQ may be ahead of the next expected one; beyond it a line is refused unopened.
pub const SEQUENCE_AHEAD_MAX: u64 = 1_000;

/// Lines over which one text may be cut; a longer one is refused before anything is sent.
pub const PARTS_MAX: usize = 64;

/// Octets of a key file; a larger one is refused as no key file.
pub const KEY_FILE_OCTETS_MAX: u64 = 64 * 1_024;
/// Characters of a password that are judged; the rest counts as nothing.
pub const PASSWORD_CHARACTERS_JUDGED: usize = 100;
/// Octets of an invitation link; a longer one is refused.
pub const LINK_OCTETS_MAX: usize = 2_048;

/// Records fetched to close the gap between the one held and the newest; a longer gap is refused.
pub const RECORD_CHAIN_MAX: usize = 64;
/// Replaced records kept of one account; the oldest goes first.
pub const REPLACED_RECORDS_MAX: usize = 8;
/// How long an offer that names a replaced record is still taken, in milliseconds (SPEC.md §7).
pub const REPLACED_RECORD_AGE_MS_MAX: u64 = DAY_MS;
/// Rounds of hashing behind each half of a safety number.
pub const SAFETY_ROUNDS: usize = 5_200;

/// One-time prekeys that are made when the relay's stock runs low.
pub const ONE_TIME_STOCK: usize = 50;
/// One-time prekeys whose private halves are kept; no more are made until some were used or aged.
pub const ONE_TIME_STOCK_MAX: usize = 200;
/// How long the private half of a one-time prekey is kept: NA, then the life of an offer in the
/// spool, in milliseconds.
pub const ONE_TIME_KEY_AGE_MS_MAX: u64 = protocol::limits::PREKEY_LIFE_MS_MAX + 30 * DAY_MS;
/// Age at which the signed prekey is replaced, in milliseconds.
pub const SIGNED_KEY_AGE_MS: u64 = 7 * DAY_MS;
/// Signed prekeys whose private halves are kept.
pub const SIGNED_KEYS_KEPT: usize = 2;
/// By how much a restored device raises SPK and OPK, to stay above what its lost copy made.
pub const RESTORE_NUMBER_JUMP: u64 = 1_000_000;

/// How long the chains of an old generation are kept after the next was opened, in milliseconds.
pub const OLD_GENERATION_AGE_MS_MAX: u64 = 4 * DAY_MS;
/// Use after which a generation is due for refresh, in milliseconds.
pub const REFRESH_AGE_MS: u64 = 15 * MINUTE_MS;
/// Lines after which a generation is due for refresh.
pub const REFRESH_LINES: u32 = 100;
/// Octets after which a generation is due for refresh.
pub const REFRESH_OCTETS: u64 = 32 << 20;
/// Octets at which a legacy generation is due and stops: 2^20 blocks of 64 bits (SPEC.md §7).
pub const LEGACY_OCTETS_MAX: u64 = 8 << 20;
/// How long the offerer keeps GS without a policy that says otherwise, in milliseconds.
pub const REPAIR_AGE_MS: u64 = DAY_MS;
/// How long keys of a 701 are kept by the device that sent it, in milliseconds.
pub const NEXT_KEY_AGE_MS_MAX: u64 = DAY_MS;
/// How long keys of another device's 701 are used: less than it keeps them, so that a 702 under
/// way still finds them.
pub const PEER_KEY_AGE_MS_MAX: u64 = 23 * HOUR_MS;
/// How long ids of offers are remembered: the life of a line in the spool, in milliseconds.
pub const OFFER_MEMORY_MS: u64 = 30 * DAY_MS;
/// By how much a line's TS may be older than this device's clock before it is shown as delayed.
pub const DELAYED_MS: u64 = 5 * MINUTE_MS;

/// Generations kept of one session; the oldest goes first.
pub const GENERATIONS_MAX: usize = 64;
/// Sessions kept with one account; the oldest goes first.
pub const SESSIONS_MAX: usize = 8;
/// Lines waiting to be sent; no further text is taken.
pub const OUTBOX_LINES_MAX: usize = 1_000;
/// Texts waiting to be sealed; no further text is taken.
pub const DRAFTS_MAX: usize = 1_000;
/// Lines under way without an answer; the others wait.
pub const LINES_IN_FLIGHT_MAX: usize = 64;
/// Messages opened and not yet shown; the link is closed until some were.
pub const INBOX_MAX: usize = 10_000;
/// Generations whose offer may still bring their key; lines of a further one are given up.
pub const AWAITED_MAX: usize = 256;
/// How often a generation is offered again to a device whose prekeys were gone (456); then the
/// session ends and its texts go into the next.
pub const OFFERS_AGAIN_MAX: u32 = 3;
/// How long texts wait for the other side to confirm that a session has ended, so that those it
/// never opened come first, in milliseconds.
pub const END_ANSWER_MS_MAX: u64 = MINUTE_MS;
/// Lines that cannot be opened yet; a further one is counted and given up.
pub const PARKED_MAX: usize = 256;
/// How long a line that cannot be opened yet is kept, in milliseconds.
pub const PARKED_AGE_MS_MAX: u64 = DAY_MS;
/// Texts in parts that are not yet whole; the oldest is given up.
pub const PARTIAL_TEXTS_MAX: usize = 64;
/// Messages remembered for receipts, edits and bounces; the oldest go first.
pub const MESSAGES_REMEMBERED_MAX: usize = 10_000;
/// How long a message is remembered, in milliseconds.
pub const MESSAGE_MEMORY_MS: u64 = 30 * DAY_MS;
/// Requests without an answer on one link; the link is then taken for dead.
pub const REQUESTS_MAX: usize = 1_024;
/// How long an answer may take before the link is taken for dead, in milliseconds.
pub const ANSWER_MS_MAX: u64 = MINUTE_MS;
/// Silence after which the link is pinged, in milliseconds.
pub const PING_AFTER_MS: u64 = MINUTE_MS;
/// First pause before a line is sent again after 4xx, in milliseconds; it doubles.
pub const RETRY_MS_MIN: u64 = 2_000;
/// Longest pause before a line is sent again after 4xx, in milliseconds.
pub const RETRY_MS_MAX: u64 = 5 * MINUTE_MS;
/// Pause before something is fetched again that the relay did not give, in milliseconds.
pub const FETCH_RETRY_MS: u64 = MINUTE_MS;
/// How long a fetched record counts as the newest when a session begins, in milliseconds.
pub const RECORD_FRESH_MS: u64 = HOUR_MS;
/// How long fetched prekeys may be used, in milliseconds.
pub const PREKEYS_FRESH_MS: u64 = 10 * MINUTE_MS;
/// New sessions begun in a row after refusals; then the texts are given back as failed.
pub const REFUSALS_MAX: u32 = 3;
/// Seconds for which a notice of typing holds.
pub const TYPING_SECONDS: u64 = 6;
/// Pause between two notices of typing, in milliseconds.
pub const TYPING_PAUSE_MS: u64 = 3_000;

/// Quiet after the replay began that counts as its end, in milliseconds: lines that expired leave
/// gaps, so the highest number may never come.
pub const CATCH_UP_QUIET_MS: u64 = 1_500;
/// The longest time for which somebody else's notice of typing is believed, in seconds.
pub const TYPING_SECONDS_MAX: u64 = 60;
/// Messages whose receipts are still to be sent, per account; the oldest are given up.
pub const RECEIPTS_OWED_MAX: usize = 1_000;

/// Octets of a file's name; a longer one is cut.
pub const FILE_NAME_OCTETS_MAX: usize = 200;
/// Characters of a file's media type; a longer one is cut.
pub const MEDIA_TYPE_CHARACTERS_MAX: usize = 100;
/// Chunks under way without the relay's answer, over all files.
pub const CHUNKS_IN_FLIGHT_MAX: usize = 8;
/// Chunks granted ahead of what has arrived.
pub const FILE_WINDOW_CHUNKS: u64 = 64;
/// Chunks between two notes of how far a file has come, here and for the user.
pub const FILE_PROGRESS_CHUNKS: u64 = 16;
/// Files being sent or received; no further one is offered or accepted.
pub const FILES_MAX: usize = 64;
/// Pause after which a receiver asks again for a chunk that was passed over, in milliseconds.
pub const FILE_GAP_PAUSE_MS: u64 = 1_000;

/// Silence after which a receiver asks again for what is missing, in milliseconds; it doubles.
pub const FILE_STALL_MS: u64 = 20_000;
/// The longest silence after which a receiver asks again, in milliseconds.
pub const FILE_STALL_MS_MAX: u64 = 6 * HOUR_MS;
/// Doublings of [`FILE_STALL_MS`] that lead beyond [`FILE_STALL_MS_MAX`].
pub const FILE_STALL_DOUBLINGS_MAX: u32 = 11;
/// A pause of a file from which on its user is told of it, in milliseconds.
pub const FILE_PAUSE_TOLD_MS: u64 = 10_000;

/// Numbers of the relay's queue that were passed over and are still taken when they come late.
pub const QUEUE_GAPS_MAX: u64 = 1_024;

/// One minute in milliseconds.
pub const MINUTE_MS: u64 = 60 * 1_000;
/// One hour in milliseconds.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// One day in milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

const _: () = assert!(SEQUENCE_AHEAD_MAX as usize <= SKIPPED_KEYS_MAX);
const _: () = assert!(FILE_STALL_MS << FILE_STALL_DOUBLINGS_MAX > FILE_STALL_MS_MAX);
