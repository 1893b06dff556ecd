//! Writing to someone who is busy: the sender is asked, nothing is sent on silently.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Exchange;

impl Exchange {
    /// Bob is busy: one message is held until he is free, one goes through as urgent.
    pub(super) fn disturb(&mut self) -> Result<()> {
        let alice = self.alice.address().to_owned();
        self.bob.act(json!({"do": "urgent", "person": alice, "allow": true}))?;
        self.bob.act(json!({"do": "presence", "state": "busy"}))?;
        self.alice.expect("presence", |event| event["state"] == json!("busy"))?;

        let held = self.ask("this can wait until you are free")?;
        self.choose(&held, "hold")?;
        let urgent = self.ask("the house is on fire, come quickly")?;
        self.choose(&urgent, "urgent")?;
        self.hear(false, "the house is on fire, come quickly")?;
        ensure!(
            !self.bob.heard().iter().any(|text| text.starts_with("this can wait")),
            "the held message came while bob was busy"
        );
        self.bob.act(json!({"do": "presence", "state": "available"}))?;
        self.hear(false, "this can wait until you are free")?;
        Ok(())
    }

    /// Sends to a busy bob; returns the message's id from the question that alice is asked.
    fn ask(&mut self, text: &str) -> Result<Value> {
        let code = self.say(true, text)?;
        ensure!(code == 350, "bob is busy, but the answer was {code}");
        let event = self.alice.expect("busy", |_| true)?;
        ensure!(
            event["choices"] == json!(["hold", "urgent"]),
            "without a gateway only these can be offered: {event}"
        );
        self.narrator.says("alice", "is asked: bob is busy; hold it, or send it as urgent?");
        Ok(event["mid"].clone())
    }

    fn choose(&mut self, mid: &Value, via: &str) -> Result<()> {
        self.alice.act(json!({"do": "choose", "mid": mid, "via": via}))?;
        self.narrator.says("alice", &format!("chooses: {via}"));
        Ok(())
    }
}
