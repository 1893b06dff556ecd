//! Text for eyes: what others wrote without controls, and times as people write them.

use std::time::Duration;

/// A text of somebody else's as it may be shown: no control can move the cursor, hide words or
/// turn their direction.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            c if is_hidden(c) => '\u{FFFD}',
            c => c,
        })
        .collect()
}

/// Whether a character is none that can be seen: it would move the cursor, end a line or turn the
/// direction of the text.
pub(crate) fn is_hidden(c: char) -> bool {
    !matches!(c, '\n' | '\t') && (c.is_control() || is_directional(c) || is_separator(c))
}

/// Controls that turn the direction of text (Unicode Bidirectional Algorithm §2).
fn is_directional(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2066}'..='\u{2069}')
}

/// Characters that end a line in some programs and are no control (Unicode, general category Zl
/// and Zp).
fn is_separator(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// The same on one line.
pub(crate) fn one_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

/// A text of somebody else's behind what says whose it is: its further lines are indented, so that
/// none of them passes for a line of its own.
pub(crate) fn indented(text: &str) -> String {
    visible(text).replace('\n', "\n    ")
}

/// A safety number as it is read out: groups of five digits, four groups a line.
pub(crate) fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        match position {
            0 => {}
            position if position.is_multiple_of(GROUP_DIGITS * GROUPS_PER_LINE) => text.push('\n'),
            position if position.is_multiple_of(GROUP_DIGITS) => text.push(' '),
            _ => {}
        }
        text.push(digit);
    }
    text
}

const GROUP_DIGITS: usize = 5;
const GROUPS_PER_LINE: usize = 4;

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
    fn a_line_of_somebody_elses_cannot_pass_for_another() {
        assert_eq!(indented("hi\n-- bob is busy\u{2028}x"), "hi\n    -- bob is busy\u{FFFD}x");
        assert_eq!(one_line("hi\n\t-- bob\u{9b}"), "hi  -- bob\u{FFFD}");
        assert_eq!(indented("hi\r\u{85}"), "hi\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn a_safety_number_has_twelve_groups_on_three_lines() {
        let digits = "099058466129389314159412001028221160862547836691345008780646";
        assert_eq!(
            grouped(digits),
            "09905 84661 29389 31415\n94120 01028 22116 08625\n47836 69134 50087 80646"
        );
        assert_eq!(grouped(""), "");
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
