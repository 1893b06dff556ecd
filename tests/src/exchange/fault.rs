//! Bad days: changed lines, a relay that dies, a token that is pulled.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{DATA_KEY_AGE, Exchange};
use crate::process::wait_for;

/// Messages in flight while the relay is killed.
const FLOOD: usize = 40;

impl Exchange {
    /// The relay is killed while messages are in flight: each that was answered arrives once.
    pub(super) fn kill_relay(&mut self) -> Result<()> {
        let bob = self.bob.address().to_owned();
        let mut asked = BTreeMap::new();
        for number in 0..FLOOD {
            let text = format!("in the storm, number {number:02}");
            asked.insert(
                self.alice.ask(json!({"do": "send", "to": bob, "text": text}))?,
                text.clone(),
            );
            self.secrets.push(text);
            if number == FLOOD / 2 {
                self.site.kill_relay()?;
                self.narrator.says("relay", "killed with signal 9");
            }
        }
        self.site.start_relay()?;
        self.narrator.says("relay", "started again");
        for id in asked.keys() {
            let result = self.alice.result(*id)?;
            ensure!(result["ok"] == json!(true), "alice was told of a failure: {result}");
        }
        let mut heard = Vec::new();
        while heard.len() < FLOOD {
            let message = self.bob.hear()?;
            heard.push(message["text"].as_str().unwrap_or_default().to_owned());
        }
        self.say(true, "the storm is over")?;
        self.hear(false, "the storm is over")?;
        let expected: Vec<String> = asked.into_values().collect();
        ensure!(heard == expected, "bob saw {heard:?}");
        self.narrator.says("bob", &format!("all {FLOOD} messages, in order, once"));
        Ok(())
    }

    /// Without its token the relay says so; it recovers by itself when the token is back.
    pub(super) fn take_token_away(&mut self) -> Result<()> {
        self.site.unplug_token()?;
        self.narrator.says("token", "unplugged");
        self.say(true, "we still hear each other without the token")?;
        self.hear(false, "we still hear each other without the token")?;
        let (_, health) = wait_for("the relay to notice", Duration::from_secs(30), || {
            let answer = crate::site::http_get(self.site.monitor(), "/ready")?;
            Ok((answer.0 != 200).then_some(answer))
        })?;
        ensure!(health.contains("token"), "/ready does not name the token: {health}");
        self.narrator.says("relay", health.trim());

        // Once the data key in hand is too old, storing says what is wrong instead of pretending.
        std::thread::sleep(DATA_KEY_AGE);
        let id = self.ask_bob("this one waits for the token")?;
        let refused = wait_for("storing to be refused", Duration::from_secs(60), || {
            let waiting = self
                .alice
                .history()
                .iter()
                .any(|event| event["event"] == json!("error") && event["code"] == json!(451));
            Ok(waiting.then_some(()))
        });
        refused?;
        self.narrator.says("alice", "is told 451: try again, the token is away");

        self.site.plug_token()?;
        self.narrator.says("token", "plugged in again");
        let result = self.alice.result(id)?;
        ensure!(result["ok"] == json!(true), "it was not sent after all: {result}");
        self.hear(false, "this one waits for the token")?;
        self.bob.leave()?;
        self.bob.come()?;
        self.narrator.says("bob", "logs in again: the token signs");
        let log = std::fs::read_to_string(self.site.folder().join("relay.log"))?;
        ensure!(
            log.contains("event=\"unhindered\""),
            "the log does not say that the token is back"
        );
        Ok(())
    }

    fn ask_bob(&mut self, text: &str) -> Result<u64> {
        let bob = self.bob.address().to_owned();
        self.secrets.push(text.to_owned());
        self.alice.ask(json!({"do": "send", "to": bob, "text": text}))
    }
}
