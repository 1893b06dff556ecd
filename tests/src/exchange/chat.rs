//! Meeting, talking, waiting: what two people do on a good day.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Exchange;

/// Texts in several scripts and lengths; `{n}` in the loop makes each of them unique.
const SAMPLES: &[&str] = &[
    "good morning, the kettle is on",
    "\u{414}\u{43e}\u{431}\u{440}\u{43e}\u{435} \u{443}\u{442}\u{440}\u{43e}, \u{43a}\u{430}\u{43a} \u{434}\u{435}\u{43b}\u{430}?",
    "\u{304a}\u{306f}\u{3088}\u{3046}\u{3054}\u{3056}\u{3044}\u{307e}\u{3059}",
    "\u{635}\u{628}\u{627}\u{62d} \u{627}\u{644}\u{62e}\u{64a}\u{631} \u{64a}\u{627} \u{628}\u{648}\u{628}",
    "\u{1f9ed} \u{1f1ea}\u{1f1fa} \u{1f469}\u{200d}\u{1f52c} e\u{301}",
];
/// Octets of a text that needs several lines of the protocol.
const LONG_TEXT_OCTETS: usize = 9_000;

impl Exchange {
    /// Both come online, ask and approve each other, and see each other.
    pub(super) fn meet(&mut self) -> Result<()> {
        self.alice.come()?;
        self.bob.come()?;
        let (alice, bob) = (self.alice.address().to_owned(), self.bob.address().to_owned());
        self.alice.act(json!({"do": "add", "person": bob}))?;
        self.bob.expect("subscription", |event| event["person"] == json!(alice))?;
        self.narrator.says("bob", "alice asks to be a contact");
        self.bob.act(json!({"do": "approve", "person": alice}))?;
        self.alice.expect("approved", |event| event["person"] == json!(bob))?;
        self.bob.act(json!({"do": "add", "person": alice}))?;
        self.alice.expect("subscription", |event| event["person"] == json!(bob))?;
        self.alice.act(json!({"do": "approve", "person": bob}))?;
        self.bob.expect("approved", |event| event["person"] == json!(alice))?;
        self.bob.act(json!({"do": "presence", "state": "available"}))?;
        self.alice.expect("presence", |event| {
            event["person"] == json!(bob) && event["state"] == json!("available")
        })?;
        self.narrator.says("alice", "bob is available");
        Ok(())
    }

    /// 20 messages, some long, some in other scripts, and answers.
    pub(super) fn talk(&mut self) -> Result<()> {
        let (alice, bob) = (self.alice.address().to_owned(), self.bob.address().to_owned());
        self.alice.act(json!({"do": "typing", "to": bob, "active": true}))?;
        self.bob.expect("typing", |event| {
            event["person"] == json!(alice) && event["active"] == json!(true)
        })?;
        self.narrator.says("bob", "alice is typing");
        for (number, sample) in SAMPLES.iter().cycle().take(20).enumerate() {
            let mut text = format!("{sample} ({number})");
            if number % 7 == 3 {
                text = text.repeat(LONG_TEXT_OCTETS / text.len() + 1);
            }
            let code = self.say(true, &text)?;
            ensure!(code == 250, "bob is here, but the answer was {code}");
            let message = self.hear(false, &text)?;
            let mid = message["mid"].clone();
            self.alice.expect("delivered", |event| event["mid"] == mid)?;
            if number % 4 == 0 {
                let answer = format!("bob answers number {number}");
                self.say(false, &answer)?;
                self.hear(true, &answer)?;
            }
        }
        Ok(())
    }

    /// Bob leaves; what alice sends meanwhile reaches him in order and once.
    pub(super) fn wait_for_bob(&mut self) -> Result<()> {
        let bob = self.bob.address().to_owned();
        self.bob.act(json!({"do": "presence", "state": "away"}))?;
        self.alice.expect("presence", |event| event["state"] == json!("away"))?;
        self.narrator.says("alice", "bob is away");
        self.bob.leave()?;
        self.alice.expect("presence", |event| {
            event["person"] == json!(bob) && event["state"] == json!("offline")
        })?;
        let before = self.bob.heard().len();
        let texts: Vec<String> =
            (1..=5).map(|number| format!("while you were out, part {number}")).collect();
        for text in &texts {
            let code = self.say(true, text)?;
            ensure!(code == 252, "bob is not here, but the answer was {code}");
        }
        self.bob.come()?;
        for text in &texts {
            self.hear(false, text)?;
        }
        // A round trip behind the last of them shows that nothing comes twice.
        self.say(true, "anything doubled?")?;
        self.hear(false, "anything doubled?")?;
        let heard = self.bob.heard().split_off(before);
        ensure!(heard.len() == texts.len() + 1, "bob saw {heard:?}");
        Ok(())
    }

    /// The policy of this site makes the session key new often enough to see it.
    pub(super) fn count_refreshes(&mut self) -> Result<()> {
        let refreshes = self
            .alice
            .history()
            .iter()
            .filter(|event| event["event"] == json!("session") && event["refresh"] == json!(true))
            .count();
        ensure!(refreshes >= 2, "alice saw only {refreshes} refreshes");
        self.narrator.says("alice", &format!("{refreshes} new session keys"));
        Ok(())
    }
}
