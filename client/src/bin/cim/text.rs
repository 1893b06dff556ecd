//! Text for eyes: what others wrote without controls, and times as people write them.

use std::time::Duration;

/// A text of somebody else's as it may be shown: no control can move the cursor, hide words or
/// turn their direction.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() || is_directional(c) => '\u{FFFD}',
            c => c,
        })
        .collect()
}

/// Controls that turn the direction of text (Unicode Bidirectional Algorithm §2).
fn is_directional(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2066}'..='\u{2069}')
}

/// A length of time such as `90s`, `30min`, `2h`, `1d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("min", 60), ("s", 1), ("h", 3_600), ("d", 86_400)];
    let seconds = units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*factor)
    });
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "write for example 90s, 30min, 2h or 1d".to_owned())
}

/// A number of octets for eyes.
pub(crate) fn size(octets: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    units.iter().find(|(factor, _)| octets >= *factor).map_or_else(
        || format!("{octets} B"),
        |(factor, unit)| {
            let tenths = octets.saturating_mul(10) / factor;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hidden_is_shown() {
        assert_eq!(visible("a\u{1b}[2Jb\u{202E}c\nd"), "a\u{FFFD}[2Jb\u{FFFD}c\nd");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30min"), Ok(Duration::from_secs(1_800)));
        assert_eq!(parse_duration("2 h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "5", "0s", "-1h", "1w", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(64 << 20), "64.0 MiB");
    }
}
