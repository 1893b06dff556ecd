//! Pages word by word.

use relay::config::Span;
use serde_json::json;

use super::*;

const NOW: u64 = 1_795_541_486_327;

fn shown_page(question: &Question, answer: &Value) -> String {
    page(question, answer, NOW)
}

#[test]
fn users_are_a_table_with_headers_and_dates() {
    let answer = json!({ "complete": true, "users": [
        { "account": "alice@demo.local", "devices": ["d1 (online)"], "record_version": 1,
          "registered_at": NOW - 7_200_000, "record_ends": NOW + 365 * 86_400_000,
          "suspended": false },
        { "account": "bob@demo.local", "devices": ["d1", "d2 (revoked)"], "record_version": 3,
          "registered_at": NOW, "record_ends": NOW, "suspended": true },
    ]});
    assert_eq!(
        shown_page(&Question::Users, &answer),
        "\
ACCOUNT           DEVICES           STATE     REGISTERED                      RECORD ENDS
alice@demo.local  d1 (online)       record 1  2026-11-24T15:31:26Z (2 h ago)  \
         2027-11-24T17:31:26Z (in 365 d)
bob@demo.local    d1, d2 (revoked)  revoked   2026-11-24T17:31:26Z (now)      \
         2026-11-24T17:31:26Z (now)
"
    );
    let answer = json!({ "complete": false, "users": [{ "account": "a@b" }] });
    assert!(
        shown_page(&Question::Users, &answer).ends_with("These are the first 1; there are more.\n")
    );
    let answer = json!({ "complete": true, "users": [] });
    assert_eq!(
        shown_page(&Question::Users, &answer),
        "Nobody is registered: `ctl invite` lets somebody in.\n"
    );
}

#[test]
fn a_status_says_what_hinders() {
    let answer = json!({
        "domain": "demo.local", "version": "0.1.0", "ready": false,
        "hindrance": "the token is away", "connections": 2, "devices_online": 1,
        "policy_version": 4, "commits_waiting": 1, "signatures_waiting": 0,
        "handshakes_waiting": 0, "token": "connecting",
        "store": { "commits": 197, "refused": 0, "unknown": 0, "queued_commits": 0,
                   "flush_us_max": 12_443, "data_keys": 1, "free_octets": 3_221_225_472_u64 },
        "ciphers": ["aes: vaes-256", "3des: avx2"], "something_new": 7,
    });
    assert_eq!(
        shown_page(&Question::Status, &answer),
        "\
demo.local, relay 0.1.0: NOT READY: the token is away
token           connecting
connections     2, with 1 device
policy          version 4
under way       1 commit, 0 signatures, 0 handshakes
store           197 commits since the start, 0 refused, 0 of unknown outcome, 0 waiting
                longest flush 12.4 ms, 1 data key
                free octets: 3.0 GiB
ciphers         aes: vaes-256
                3des: avx2
something new   7
"
    );
}

#[test]
fn counters_are_in_words_and_none_is_left_out() {
    let answer = json!({ "taken": 95, "over_quota": 2, "of_tomorrow": 9 });
    assert_eq!(
        shown_page(&Question::Spool { action: None }, &answer),
        "\
Since the relay started:
          95  lines taken and made durable
           2  refused because a queue was full
           9  of tomorrow
"
    );
}

#[test]
fn an_invitation_begins_with_its_link() {
    let invite = |account: Option<&str>| Question::Invite {
        account: account.map(str::to_owned),
        ttl: Span(std::time::Duration::from_secs(1)),
    };
    let answer = json!({ "link": "cim:demo.local?invite=x", "expires": NOW + 86_400_000 });
    let page = shown_page(&invite(Some("alice@demo.local")), &answer);
    assert_eq!(page.lines().next(), Some("cim:demo.local?invite=x"));
    assert!(
        page.contains("lets alice@demo.local in, once, until 2026-11-25T17:31:26Z (in 24 h)."),
        "{page}"
    );
    assert!(shown_page(&invite(None), &answer).contains("lets anybody who has it in"));
}

#[test]
fn a_policy_has_dates_and_sizes_and_its_line() {
    let answer = json!({
        "version": 1, "valid_from": NOW, "valid_until": NOW + 2 * 86_400_000,
        "signed_sessions_only": true, "file_octets_max": 2_u64 << 30, "line": "920 FROM …",
    });
    assert_eq!(
        shown_page(&Question::Policy { action: None }, &answer),
        "\
version         1
valid from      2026-11-24T17:31:26Z (now)
valid until     2026-11-26T17:31:26Z (in 2 d)
sessions        signed only
largest file    2.0 GiB

As it is signed and published:
920 FROM …
"
    );
}

#[test]
fn revoking_tells_old_from_new() {
    let question = Question::Revoke { account: "bob@demo.local".into(), device: Some("d1".into()) };
    let page = shown_page(&question, &json!({ "revoked": true, "new": true }));
    assert!(page.starts_with("The device d1 of bob@demo.local is revoked."), "{page}");
    let page = shown_page(&question, &json!({ "revoked": true, "new": false }));
    assert!(page.contains("was revoked before"), "{page}");
}

#[test]
fn controls_from_users_are_not_obeyed() {
    let answer = json!({ "users": [{ "account": "a\u{1b}[2J@b", "devices": ["d\u{9b}1\n"] }] });
    let page = shown_page(&Question::Users, &answer);
    assert!(!page.contains(['\u{1b}', '\u{9b}']), "{page:?}");
    assert_eq!(page.lines().count(), 2, "{page:?}");
}

#[test]
fn fine_spans_have_units() {
    for (us, wanted) in [
        (0, "0 \u{b5}s"),
        (999, "999 \u{b5}s"),
        (1_000, "1.0 ms"),
        (1_999_999, "1999.9 ms"),
        (2_000_000, "2 s"),
    ] {
        assert_eq!(fine_span(us), wanted);
    }
}
