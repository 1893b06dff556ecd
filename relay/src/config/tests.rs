//! The configuration as people get it wrong.

use super::*;

fn parse(text: &str) -> Result<Configuration, String> {
    Configuration::parse(Path::new("relay.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_annotated_file_shows_the_defaults() {
    let annotated = parse(ANNOTATED).unwrap();
    let defaults = parse("domain = \"example.org\"").unwrap();
    assert_eq!(format!("{annotated:#?}"), format!("{defaults:#?}"));
}

#[test]
fn the_annotated_file_shows_every_key() {
    let keys = |text: &str| -> usize { text.lines().filter(|l| l.contains(" = ")).count() };
    // `# key = value` shows an option whose default is not to be there.
    let shown = ANNOTATED
        .lines()
        .map(|line| line.strip_prefix("# announce").map_or(line, |_| "announce = "))
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    let source = include_str!("mod.rs");
    let public = source.matches("\n    pub ").count() - source.matches("\n    pub fn ").count();
    let sections = shown.matches("\n[").count();
    assert_eq!(keys(&shown), public - sections);
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (text, nearest) in [
        ("domian = \"a\"", "`domain`"),
        ("domain = \"a\"\n[limits]\nconections = 1", "`connections`"),
        ("domain = \"a\"\n[log]\nlevel = \"inof\"", "`info`"),
    ] {
        let message = parse(text).unwrap_err();
        assert!(message.contains(&format!("did you mean {nearest}")), "{message}");
    }
}

#[test]
fn refused_with_a_remedy() {
    for (text, part) in [
        ("", "missing field `domain`"),
        ("domain = \"Example.org\"", "lower case"),
        ("domain = \"a\"\n[listen]\nmonitor = \"0.0.0.0:1\"", "loopback"),
        ("domain = \"a\"\n[listen]\nclients = \"localhost\"", "socket address"),
        ("domain = \"a\"\n[store]\nreserve = 5", "string"),
        ("domain = \"a\"\n[store]\nreserve = \"5\"", "64 MiB"),
        ("domain = \"a\"\n[limits]\nline = \"8191 B\"", "8 KiB"),
        ("domain = \"a\"\n[limits]\nline = \"65537 B\"", "64 KiB"),
        ("domain = \"a\"\n[policy]\nsuites = [\"M9\"]", "`M9` is not a suite"),
        ("domain = \"a\"\n[policy]\nsuites = []", "at least one"),
        ("domain = \"a\"\n[policy]\npassword_score = 5", "from 0 to 4"),
    ] {
        let message = parse(text).unwrap_err();
        assert!(message.contains(part), "{text:?}: {message}");
    }
}

#[test]
fn limits_at_their_ends_and_beyond() {
    for (key, good, bad, range) in [
        ("connections", ["1", "65472"], ["0", "65473"], "1 to 65472"),
        ("connections_per_address", ["1", "65472"], ["0", "65473"], "1 to 65472"),
        ("handshake", ["\"100ms\"", "\"1min\""], ["\"99ms\"", "\"60001ms\""], "100ms to 1min"),
        ("handshake_threads", ["1", "64"], ["0", "65"], "1 to 64"),
        ("idle", ["\"1s\"", "\"10min\""], ["\"999ms\"", "\"600001ms\""], "1s to 10min"),
        ("line", ["\"8 KiB\"", "\"64 KiB\""], ["\"8191 B\"", "\"65537 B\""], "8 KiB to 64 KiB"),
        ("login", ["\"1s\"", "\"10min\""], ["\"999ms\"", "\"600001ms\""], "1s to 10min"),
        ("logins_per_minute", ["1", "1000000"], ["0", "1000001"], "1 to 1000000"),
        (
            "outbox",
            ["\"128 KiB\"", "\"2 MiB\""],
            ["\"131071 B\"", "\"2097153 B\""],
            "128 KiB to 2 MiB",
        ),
    ] {
        let parse = |value| parse(&format!("domain = \"a\"\n[limits]\n{key} = {value}"));
        for value in good {
            assert!(parse(value).is_ok(), "{key} = {value}");
        }
        for value in bad {
            let message = parse(value).unwrap_err();
            let is_clear = message
                .contains(&format!("limits.{key}: is {}", value.replace('"', "")))
                && message.contains(range);
            assert!(is_clear, "{key} = {value}: {message}");
        }
    }
}

#[test]
fn an_outbox_holds_two_of_the_lines_that_are_taken() {
    let parse = |outbox| {
        parse(&format!("domain = \"a\"\n[limits]\nline = \"8 KiB\"\noutbox = \"{outbox}\""))
    };
    assert!(parse("16 KiB").is_ok());
    assert!(parse("16383 B").unwrap_err().contains("from 16 KiB to 2 MiB"));
}
