//! `cipherim-relay check-config`: says whether a configuration can be used.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

use relay::config::{ANNOTATED, Configuration};

/// Reads the file and looks at the paths it names.
pub(super) fn run(path: &Path) -> Result<()> {
    let configuration = Configuration::read(path)?;
    let mut missing = Vec::new();
    for (key, folder) in [
        ("listen.control", configuration.listen.control.parent()),
        ("token.socket", configuration.token.socket.parent()),
        ("tls.certificate", configuration.tls.certificate.parent()),
        ("store.directory", configuration.store.directory.parent()),
    ] {
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            missing.push(format!("{key}: there is no folder {}", folder.display()));
        }
    }
    if !missing.is_empty() {
        bail!("{}: usable, but\n  {}", path.display(), missing.join("\n  "));
    }
    println!("{}: good, for the domain {}", path.display(), configuration.domain);
    Ok(())
}

/// Prints the annotated default file.
pub(super) fn print_default() -> Result<()> {
    Ok(std::io::stdout().write_all(ANNOTATED.as_bytes())?)
}
