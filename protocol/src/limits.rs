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

const _: () = assert!(LINE_OCTETS_DEFAULT <= LINE_OCTETS_MAX);
const _: () = assert!(VALUE_OCTETS_MAX < LINE_OCTETS_DEFAULT);
const _: () = assert!(VALUE_OCTETS_HYBSIG_MAX < LINE_OCTETS_HYBSIG_MIN);
const _: () = assert!(LINE_OCTETS_HYBSIG_MIN <= LINE_OCTETS_MAX);
