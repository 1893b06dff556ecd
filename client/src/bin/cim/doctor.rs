//! `cim doctor`: goes the way of every command step by step and says where it ends.

use std::time::Duration;

use crate::arguments::Global;
use crate::contact::online;
use crate::failure::Failure;
use crate::home::Home;
use crate::output;
use crate::text::visible;

/// How long the whole way may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Says what works, and fails with what does not.
pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let good = |text: &str| match global.json {
        true => output::line(serde_json::json!({ "event": "check", "ok": true, "text": text })),
        false => output::line(format_args!("ok  {}", visible(text))),
    };
    let home = Home::open(global, false)?;
    good(&format!("the folder {} is ours alone", home.folder().display()))?;
    let account = home.account()?;
    good(&format!("there is a key file of {account}"))?;
    let secrets = home.secrets(global).await?;
    good("the password opens it")?;
    let relay = secrets.domain.relay.clone().unwrap_or_else(|| "by the domain's name".to_owned());
    let mut driver = home.driver_with(global, &secrets)?;
    good("the state file opens")?;
    tokio::time::timeout(DEADLINE, online(&mut driver))
        .await
        .map_err(|_| Failure::temporary("the relay did not finish the login in time"))??;
    good(&format!("the relay ({relay}) has the pinned key and knows this device"))?;
    if driver.engine.own_record()?.is_some() {
        good("the account's record is the one kept here")?;
    }
    driver.close().await?;
    match global.json {
        true => Ok(()),
        false => output::line("Nothing is wrong."),
    }
}
