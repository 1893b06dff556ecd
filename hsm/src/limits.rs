//! Every limit of the offload pool: queues, buffers, frames, retries and times.
//!
//! Each is a maximum that is refused at n + 1; the doc comment says with which error.
//! Relations between limits are assertions below, so that a change which breaks one does not build.

use std::time::Duration;

/// Octets of a message to sign or verify. More is [`crate::Error::Malformed`], before the token.
/// A line of CIM/1 has at most 64 KiB; records and policies stay below that.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Octets of a signature to verify (RSA-8192 has 1,024).
pub const SIGNATURE_BYTES_MAX: usize = 1_024;
/// Octets of a public key to verify with (SubjectPublicKeyInfo of RSA-8192 has 1,062).
pub const PUBLIC_KEY_BYTES_MAX: usize = 1_200;
/// Octets of a data key to wrap, at least. A multiple of 8 (RFC 3394).
pub const DATA_KEY_BYTES_MIN: usize = 16;
/// Octets of a data key to wrap, at most. A multiple of 8.
pub const DATA_KEY_BYTES_MAX: usize = 64;
/// Octets of a wrapped blob with its header.
pub const BLOB_BYTES_MAX: usize = 512;
/// Octets of random in one job.
pub const RANDOM_BYTES_MAX: usize = 4_096;
/// Octets of a description (JSON).
pub const DESCRIPTION_BYTES_MAX: usize = 128 * 1024;
/// Octets of one text in an error on the wire; longer texts are cut.
pub const ERROR_TEXT_BYTES_MAX: usize = 1_024;
/// Octets of one frame after its length field. More closes the connection.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4_096;
/// Octets read from a socket at once.
pub const READ_BYTES: usize = 64 * 1024;

/// Connections to the service at once; the next one is closed with [`crate::Error::Busy`].
pub const CONNECTIONS_MAX: usize = 32;
/// Octets of replies waiting for a reader that does not read; then the connection is closed.
pub const OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Jobs in the queue, whatever the configuration says. At the limit: [`crate::Error::Busy`].
pub const QUEUE_JOBS_MAX: usize = 65_536;
/// Octets of all queued jobs. At the limit: [`crate::Error::Busy`].
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bulk jobs (verify, random, generate) may fill only this share of the queue, in percent, so that
/// a login's signature finds room.
pub const QUEUE_BULK_PERCENT: usize = 80;
/// After this many urgent jobs in a row one bulk job is served, so that bulk never starves.
pub const URGENT_RUN_MAX: u32 = 16;
/// Sessions (worker threads), whatever the configuration says.
pub const SESSIONS_MAX: usize = 64;
/// Times one job enters the token: once, and once more in a new generation.
pub const ATTEMPTS_MAX: u8 = 2;
/// Key generations waiting for the keeper; the next one is [`crate::Error::Busy`].
pub const GENERATE_JOBS_MAX: usize = 8;
/// Versions of one key.
pub const KEY_VERSIONS_MAX: u32 = 1_000;
/// Keys in a description: the newest, as many of each purpose.
pub const KEYS_DESCRIBED_MAX: usize = 128;
/// Objects examined on a token when looking for keys.
pub const OBJECTS_MAX: usize = 10_000;
/// Public keys held as objects in one session; beyond, the least recently used one is destroyed.
pub const PUBLIC_KEYS_CACHED_MAX: usize = 256;
/// Longest deadline of a job; longer ones are cut to this.
pub const DEADLINE_MAX: Duration = Duration::from_secs(120);
/// How often overdue jobs are looked for while there is work.
pub const WATCHDOG_TICK: Duration = Duration::from_millis(5);
/// How long a call of the keeper (initialise, login, find) may take before the process restarts.
pub const KEEPER_CALL_MAX: Duration = Duration::from_secs(60);
/// How long a module may take to finalise when the service stops.
pub const FINALISE_MAX: Duration = Duration::from_secs(2);
/// How often the end of that is looked for.
pub const FINALISE_TICK: Duration = Duration::from_millis(1);
/// Octets of a PIN file.
pub const PIN_BYTES_MAX: usize = 256;
/// Octets of a configuration file.
pub const CONFIG_BYTES_MAX: usize = 256 * 1024;

/// Jobs of one client without an answer. At the limit: [`crate::Error::Busy`].
pub const IN_FLIGHT_MAX: usize = 16_384;
/// Octets of jobs a client holds before the service takes them. Then [`crate::Error::Busy`].
pub const CLIENT_OUTBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// First pause before a client connects again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(10);
/// Longest pause before a client connects again.
pub const RECONNECT_MAX: Duration = Duration::from_millis(100);

const _: () = assert!(DATA_KEY_BYTES_MIN.is_multiple_of(8) && DATA_KEY_BYTES_MAX.is_multiple_of(8));
const _: () = assert!(BLOB_BYTES_MAX + 64 < FRAME_BYTES_MAX);
const _: () = assert!(DESCRIPTION_BYTES_MAX + 64 < FRAME_BYTES_MAX);
const _: () =
    assert!(MESSAGE_BYTES_MAX + SIGNATURE_BYTES_MAX + PUBLIC_KEY_BYTES_MAX + 64 < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX * 2 < OUTBOX_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX * 2 < QUEUE_BYTES_MAX);
