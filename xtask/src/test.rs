//! `cargo xtask test`: every test of the workspace, real processes and a real token included.

use anyhow::{Context, Result};

use crate::package;
use crate::run::{cargo, run as execute, succeeds};

/// Installs what is missing, builds the programs, runs everything; nextest where installed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    package::ensure()?;
    // System tests start the programs as a person would; they must exist and be current.
    execute(cargo().args(["build", "--workspace", "--bins"]))
        .context("the programs do not build")?;
    if arguments.is_empty() {
        execute(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    if succeeds(cargo().args(["nextest", "--version"])) {
        execute(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"]).args(arguments))
    } else {
        let kinds = ["--lib", "--bins", "--tests"];
        execute(
            cargo()
                .args(["test", "--workspace", "--no-fail-fast"])
                .args(kinds)
                .arg("--")
                .args(arguments),
        )
    }
}
