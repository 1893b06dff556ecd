//! The named limits of CIM/1 and the relations between them (SPEC.md §2).

/// Octets of a line, CRLF included, unless the server offers more.
pub const LINE_OCTETS_DEFAULT: usize = 8_192;
/// The largest line a server may offer (`CAP=LINE:n`), CRLF included.
pub const LINE_OCTETS_MAX: usize = 65_536;
/// Octets of the shortest line there is: a code and CRLF.
pub const LINE_OCTETS_MIN: usize = 5;
/// The smallest LINE on every hop with which HYBSIG may be used.
pub const LINE_OCTETS_HYBSIG_MIN: usize = 32_768;
/// Parameters in one line.
pub const PARAMETERS_MAX: usize = 40;
/// Octets of a parameter's name.
pub const NAME_OCTETS_MAX: usize = 16;
/// Octets of a parameter's value in a command.
pub const VALUE_OCTETS_MAX: usize = 2_048;
/// Octets of `PSIG=` and `RSIG=` where HYBSIG is in use.
pub const VALUE_OCTETS_HYBSIG_MAX: usize = 4_608;
/// Octets on the wire of an address's local part.
pub const LOCAL_OCTETS_MAX: usize = 64;
/// Octets of a domain.
pub const DOMAIN_OCTETS_MAX: usize = 253;
/// Octets of one label of a domain.
pub const LABEL_OCTETS_MAX: usize = 63;
/// Octets of a device name.
pub const DEVICE_OCTETS_MAX: usize = 16;
/// Octets of the longest address: local, `@`, domain, `/`, device.
pub const ADDRESS_OCTETS_MAX: usize =
    LOCAL_OCTETS_MAX + 1 + DOMAIN_OCTETS_MAX + 1 + DEVICE_OCTETS_MAX;
/// Successive lines over which one reply value may be cut.
pub const REPLY_PIECES_MAX: usize = 16;
/// Numbers in one `KEEP=`.
pub const KEEP_MAX: usize = 64;
/// Message ids in one `RE=` of a receipt.
pub const RECEIPTS_MAX: usize = 50;
/// Relays of one domain that a line may pass (`H-HOP`).
pub const HOPS_MAX: u64 = 10;
/// Milliseconds by which `TS=` may be ahead of the relay's clock.
pub const TIMESTAMP_AHEAD_MS_MAX: u64 = 5 * 60 * 1_000;

/// Devices in one record.
pub const RECORD_DEVICES_MAX: usize = 32;
/// TLVs in one body.
pub const TLV_MAX: usize = 64;
/// Words in one `SUITES=`.
pub const SUITES_MAX: usize = 16;
/// Words in one `CAP=`, all lines of an answer together.
pub const CAPABILITIES_MAX: usize = 64;
/// Accounts in one `WITH=`.
pub const ACCOUNTS_MAX: usize = 64;
/// Devices that one generation covers.
pub const MEMBERS_MAX: usize = 64;
/// `PIN=` values in one policy.
pub const PINS_MAX: usize = 8;
/// Entries of one answer of several lines (devices of 612, contacts of 630).
pub const REPLY_ENTRIES_MAX: usize = 4_096;
/// Octets of all values of one answer of several lines.
pub const REPLY_OCTETS_MAX: usize = 4 * 1024 * 1024;
/// Octets of a reply's text for eyes that a writer plans for.
pub const REPLY_TEXT_OCTETS_MAX: usize = 128;
/// Octets of `H-ID=`.
pub const HOP_ID_OCTETS_MAX: usize = 32;
/// Octets of `INVITE=` and `POW=`.
pub const INVITATION_OCTETS_MAX: usize = 128;
/// Octets of a roster entry's sealed names and notes, in base64.
pub const ROSTER_BLOB_OCTETS_MAX: usize = VALUE_OCTETS_MAX;
/// Parts of one message (`PART=i/n`).
pub const PARTS_MAX: u32 = 1_000;
/// Seconds of the longest `TTL=`: the spool life of 30 days.
pub const TTL_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// Milliseconds from `TS=` of a prekey to its `NA=`.
pub const PREKEY_LIFE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Octets of an RSA SubjectPublicKeyInfo in TLV 19 or as a key of algorithm `pss`.
pub const RSA_KEY_OCTETS_MAX: usize = 1_100;
/// Octets of the smallest and the largest file chunk before sealing.
pub const CHUNK_OCTETS_MIN: u32 = 1_024;
/// See [`CHUNK_OCTETS_MIN`]; 256 KiB is for the bulk lane.
pub const CHUNK_OCTETS_MAX: u32 = 256 * 1_024;
/// Chunks of one file.
pub const CHUNKS_MAX: u64 = 1 << 32;
/// Octets that sealing adds to a chunk.
pub const CHUNK_TAG_OCTETS: usize = 16;

const _: () = assert!(RECORD_DEVICES_MAX <= MEMBERS_MAX && RECORD_DEVICES_MAX < TLV_MAX);
const _: () = assert!(LINE_OCTETS_DEFAULT <= LINE_OCTETS_MAX);
const _: () = assert!(VALUE_OCTETS_MAX < LINE_OCTETS_DEFAULT);
const _: () = assert!(VALUE_OCTETS_HYBSIG_MAX < LINE_OCTETS_HYBSIG_MIN);
const _: () = assert!(LINE_OCTETS_HYBSIG_MIN <= LINE_OCTETS_MAX);
