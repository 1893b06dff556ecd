//! Figures for eyes: moments as UTC dates with how far away they are, sizes with units.

use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds of a day, an hour, a minute and a second.
const UNITS: [(u64, &str); 4] =
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
/// From how many of a unit on that unit is used: `90 s` says more than `1 min`.
const UNIT_COUNT_MIN: u64 = 2;
/// The last moment with a date of four digits (RFC 3339), in milliseconds since 1970.
const LAST_DATE_MS: u64 = 253_402_300_799_000;

/// A moment, in milliseconds since 1970, as of `now`: `2026-11-24T17:31:26Z (3 h ago)`.
pub(super) fn moment(at_ms: u64, now_ms: u64) -> String {
    let distance = span(at_ms.abs_diff(now_ms));
    let distance = match (at_ms <= now_ms, distance) {
        (_, None) => "now".to_owned(),
        (true, Some(distance)) => format!("{distance} ago"),
        (false, Some(distance)) => format!("in {distance}"),
    };
    format!("{} ({distance})", date(at_ms))
}

/// The date alone, to the second.
pub(super) fn date(at_ms: u64) -> String {
    if at_ms > LAST_DATE_MS {
        return "after the year 9999".to_owned();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at_ms)).to_string()
}

/// A length of time in its largest fitting unit, rounded down; `None` below a second.
pub(super) fn span(ms: u64) -> Option<String> {
    let whole = UNITS.iter().find(|(factor, _)| ms / factor >= UNIT_COUNT_MIN);
    let (factor, unit) = whole.or_else(|| UNITS.last().filter(|(factor, _)| ms >= *factor))?;
    Some(format!("{} {unit}", ms / factor))
}

/// A number of octets, to a tenth of its largest fitting unit: `2.0 GiB`.
pub(super) fn size(octets: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(factor, _)| octets >= *factor) {
        None => format!("{octets} B"),
        Some((factor, unit)) => {
            let tenths = u128::from(octets) * 10 / u128::from(*factor);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_date_and_a_distance() {
        let now = 1_795_541_486_327;
        assert_eq!(moment(now, now), "2026-11-24T17:31:26Z (now)");
        assert_eq!(moment(now - 3 * 3_600_000, now), "2026-11-24T14:31:26Z (3 h ago)");
        assert_eq!(moment(now + 86_400_000, now), "2026-11-25T17:31:26Z (in 24 h)");
        assert_eq!(moment(0, now), "1970-01-01T00:00:00Z (20781 d ago)");
        assert_eq!(date(LAST_DATE_MS), "9999-12-31T23:59:59Z");
        assert_eq!(date(LAST_DATE_MS + 1), "after the year 9999");
        assert!(moment(u64::MAX, now).starts_with("after the year 9999 (in "));
    }

    #[test]
    fn spans_use_the_unit_that_says_most() {
        for (ms, wanted) in [
            (0, None),
            (999, None),
            (1_000, Some("1 s")),
            (119_999, Some("119 s")),
            (120_000, Some("2 min")),
            (7_199_999, Some("119 min")),
            (7_200_000, Some("2 h")),
            (172_800_000, Some("2 d")),
        ] {
            assert_eq!(span(ms).as_deref(), wanted, "{ms}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (octets, wanted) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_587, "1.5 KiB"),
            (2 << 30, "2.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(octets), wanted);
        }
    }
}
