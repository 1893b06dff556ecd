//! `cargo xtask dev`: a relay with a throw-away token on loopback, and two people who talk.

use std::path::PathBuf;

use anyhow::Result;

use crate::package;
use crate::run::{cargo, run as execute};

/// Installs what is missing, builds, and hands over to the exchange of the system tests.
pub(crate) fn run(once: bool, dir: Option<PathBuf>) -> Result<()> {
    package::ensure()?;
    execute(cargo().args(["build", "--workspace", "--bins"]))?;
    let mut exchange = cargo();
    exchange.args(["run", "--quiet", "--package", "cipherim-tests", "--bin", "exchange", "--"]);
    if once {
        exchange.arg("--once");
    }
    if let Some(dir) = dir {
        exchange.arg("--dir").arg(std::path::absolute(dir)?);
    }
    execute(&mut exchange)
}
