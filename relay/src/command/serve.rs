//! `cipherim-relay serve`: the daemon.

use anyhow::Result;
use relay::config::Configuration;

/// Serves until told to stop.
pub(super) fn run(configuration: &Configuration) -> Result<()> {
    Ok(relay::serve::run(configuration)?)
}
