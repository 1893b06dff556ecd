//! `cargo xtask check`: what tools can check, in the order of how fast they fail.

use anyhow::Result;

use crate::run::{cargo, run as execute, succeeds};
use crate::{layer, package, tidy};

/// The version of cargo-deny that is installed where none is.
const CARGO_DENY_VERSION: &str = "0.20";

/// Formatting, form, layers, lints in each feature set, documentation, licences and sources.
pub(crate) fn run() -> Result<()> {
    package::ensure()?;
    execute(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    layer::run()?;
    for features in [&["--no-default-features"][..], &[], &["--all-features"]] {
        execute(
            cargo()
                .args(["clippy", "--workspace", "--all-targets", "--quiet"])
                .args(features)
                .args(["--", "--deny", "warnings"]),
        )?;
    }
    execute(
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "--deny rustdoc::broken_intra_doc_links"),
    )?;
    deny()
}

/// Licences, bans and sources; advisories where their database can be reached.
fn deny() -> Result<()> {
    if !succeeds(cargo().args(["deny", "--version"])) {
        eprintln!("cargo-deny is not installed; installing it (some minutes, once)");
        execute(
            cargo()
                .args(["install", "--locked", "--quiet", "cargo-deny", "--version"])
                .arg(format!("^{CARGO_DENY_VERSION}")),
        )?;
    }
    execute(cargo().args(["deny", "--all-features", "check", "licenses", "bans", "sources"]))?;
    if execute(cargo().args(["deny", "--all-features", "check", "advisories"])).is_err() {
        eprintln!(
            "SKIPPED advisories: the database was not reachable or lists one; see the lines above"
        );
    }
    Ok(())
}
