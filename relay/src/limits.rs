//! The relay's named limits: every queue, buffer, loop and retry has its maximum here.
//!
//! Each says what happens at the limit. Relations between limits are `const` assertions below.

use std::time::Duration;

/// Entries of the submission queue; a full queue is submitted at once and refilled.
pub const SUBMISSION_ENTRIES: u32 = 1_024;
/// Entries of the completion queue; what overflows waits in the kernel and is counted.
pub const COMPLETION_ENTRIES: u32 = 16_384;
/// Buffers offered to the kernel for receiving; when none is left receives wait and are counted.
pub const RECEIVE_BUFFERS: u16 = 256;
/// Octets of one receive buffer.
pub const RECEIVE_BUFFER_BYTES: u32 = 4_096;
/// Free receive buffers under which arriving octets are copied out, so that slow readers of many
/// connections cannot keep all buffers to themselves.
pub const RECEIVE_BUFFERS_RESERVE: u16 = RECEIVE_BUFFERS / 2;
/// Received pieces waiting per connection; at the limit the receive is cancelled until read.
pub const RECEIVE_QUEUE_MAX: usize = 8;
/// Slots of the registered file table; more connections are closed at once and counted.
pub const FILES_MAX: u32 = 65_536;
/// Accepted connections waiting for their owner; more are closed at once and counted.
pub const ACCEPT_QUEUE_MAX: usize = 1_024;
/// Connections the kernel may complete for us while the loop is busy.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Pause of a listener after the system ran out of descriptors or memory.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Polls of tasks in one turn of the loop; the rest is polled after the next look at the ring.
pub const TASK_POLLS_PER_TURN_MAX: usize = 4_096;
/// Times a send is repeated after the kernel said "try again" without progress.
pub const SEND_RETRIES_MAX: u8 = 16;
/// Send buffers kept for the next send; more are freed.
pub const SPARE_BUFFERS_MAX: usize = 64;
/// Capacity above which a send buffer is freed instead of kept.
pub const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1_024;
/// Enters the kernel may refuse in a row (no memory) before the loop gives up.
pub const ENTER_REFUSALS_MAX: usize = 1_000;
/// Pause after a refused enter with nothing else to do.
pub const ENTER_RETRY: Duration = Duration::from_millis(1);
/// Turns the loop waits, at the end of its life, for operations it has cancelled.
pub const DRAIN_TURNS_MAX: usize = 1_000;
/// Wait of one such turn.
pub const DRAIN_WAIT: Duration = Duration::from_millis(10);

const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS_RESERVE < RECEIVE_BUFFERS);
const _: () = assert!(COMPLETION_ENTRIES >= 2 * SUBMISSION_ENTRIES);

/// Octets of one incomplete TLS record kept per connection: the longest record and one receive
/// buffer. More is an error of the peer.
pub const INCOMING_TLS_BYTES_MAX: usize = 24 * 1_024;
/// Octets a peer may send before its handshake is complete.
pub const HANDSHAKE_BYTES_MAX: usize = 32 * 1_024;
/// Steps to get an alert out of a failed TLS session.
pub const ALERT_STEPS_MAX: usize = 16;
/// Handshake worker threads.
pub const HANDSHAKE_WORKERS_MAX: usize = 64;
/// Handshake steps waiting for a worker; at the limit the connection is closed and counted.
pub const HANDSHAKE_QUEUE_MAX: usize = 1_024;
/// Pause of a worker whose answers the loop does not take.
pub const HANDSHAKE_ANSWER_RETRY: Duration = Duration::from_millis(1);
/// Time for a whole handshake, from accept; then the connection is closed and counted.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// TLS connections at a time, handshakes included; more are closed at once and counted.
pub const CONNECTIONS_MAX: usize = 50_000;
/// TLS connections at a time from one source (IPv4 address, IPv6 /64); more are closed and counted.
pub const CONNECTIONS_PER_SOURCE_MAX: usize = 256;
/// Connections over the limits that are shaken hands with and told why, at a time; more are closed
/// without a word and counted.
pub const TURNED_AWAY_MAX: usize = 16;
/// Octets waiting for one peer, in plaintext and in flight; above, the owner is told to stop, and
/// at twice as many nothing is received from the peer until half of them are gone.
pub const OUTBOX_BYTES_MAX: usize = 256 * 1_024;
/// Octets waiting for one peer above which nothing more is taken for it.
pub const OUTBOX_BYTES_REFUSED: usize = 9 << 20;
/// Time a peer has to take what is left, our farewell included, when a connection is closed.
pub const FAREWELL_DEADLINE: Duration = Duration::from_secs(5);
/// Received pieces worked on per connection before others get their turn.
pub const PIECES_PER_TURN_MAX: usize = 16;

const _: () = assert!(2 * OUTBOX_SETTING_MAX < OUTBOX_BYTES_REFUSED);
const _: () = assert!(HANDSHAKE_THREADS_SETTING_MAX as usize <= HANDSHAKE_WORKERS_MAX);
const _: () = assert!(TURNED_AWAY_MAX < FILES_BESIDE_CLIENTS as usize / 2);

/// The largest `limits.connections`: a place in the file table is left for each socket of others.
pub const CONNECTIONS_SETTING_MAX: u32 = FILES_MAX - FILES_BESIDE_CLIENTS;
/// Sockets beside clients: listeners, `ctl`, the monitor.
pub const FILES_BESIDE_CLIENTS: u32 = 64;
/// The largest `limits.logins_per_minute`: more than any machine here completes.
pub const LOGINS_SETTING_MAX: u32 = 1_000_000;
/// The largest `limits.outbox`: with the longest answer behind it a session does not overflow.
pub const OUTBOX_SETTING_MAX: usize = 2 << 20;
/// The shortest `limits.idle` and `limits.login`: ticks of the sessions see nothing shorter.
pub const SILENCE_SETTING_MIN: Duration = Duration::from_secs(1);
/// The longest `limits.idle` and `limits.login`: SPEC.md §5 promises a close by then.
pub const SILENCE_SETTING_MAX: Duration = Duration::from_secs(10 * 60);
/// The shortest `limits.handshake`.
pub const HANDSHAKE_SETTING_MIN: Duration = Duration::from_millis(100);
/// The largest `limits.handshake_threads`.
pub const HANDSHAKE_THREADS_SETTING_MAX: u8 = 64;
/// The longest `limits.handshake`.
pub const HANDSHAKE_SETTING_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(INCOMING_TLS_BYTES_MAX > 16_384 + 256 + 5 + RECEIVE_BUFFER_BYTES as usize);
const _: () = assert!(HANDSHAKE_BYTES_MAX > INCOMING_TLS_BYTES_MAX);
