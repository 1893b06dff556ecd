//! `cargo xtask layers`: no layer imports a higher one (ARCHITECTURE.md, "Layers").
//!
//! Between crates the check reads `Cargo.toml`; inside `relay` it reads every `crate::` path.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::root;
use crate::tidy::rust_files;

/// Each crate and which of ours it may depend on outside tests.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("accel", &[]),
    ("hsm", &[]),
    ("client", &["protocol", "accel", "hsm"]),
    ("relay", &["protocol", "accel", "hsm"]),
    ("xtask", &[]),
];

/// The relay's modules from the lowest layer to the highest.
const RELAY_LAYERS: &[&[&str]] = &[
    &["clock", "config", "error", "event", "limits"],
    &["keys", "ring"],
    &["mesh", "net", "store"],
    &["depot", "directory", "presence", "roster", "route", "spool"],
    &["session"],
    &["admin", "command", "sandbox", "serve"],
];

/// Checks both and names every import that goes the wrong way.
pub(crate) fn run() -> Result<()> {
    let mut wrong = Vec::new();
    crates(&mut wrong)?;
    modules(&mut wrong)?;
    if wrong.is_empty() {
        eprintln!("layers: no import goes up");
        return Ok(());
    }
    bail!("imports that go up:\n  {}", wrong.join("\n  "));
}

fn crates(wrong: &mut Vec<String>) -> Result<()> {
    for (name, allowed) in CRATES {
        let path = root().join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut is_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                is_dependencies = line == "[dependencies]";
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let is_ours = CRATES.iter().any(|(ours, _)| *ours == dependency);
            if is_dependencies && is_ours && !allowed.contains(&dependency) {
                wrong.push(format!("{name}/Cargo.toml depends on {dependency}"));
            }
        }
    }
    Ok(())
}

fn modules(wrong: &mut Vec<String>) -> Result<()> {
    let source = root().join("relay/src");
    for path in rust_files(&source)? {
        let Some(module) = module_of(&source, &path) else { continue };
        let Some(own) = layer_of(&module) else {
            wrong.push(format!("{}: module {module} has no layer", path.display()));
            continue;
        };
        let text = std::fs::read_to_string(&path)?;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for rest in code.split("crate::").skip(1) {
                let word: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if layer_of(&word).is_some_and(|layer| layer > own) {
                    wrong.push(format!("{}:{}: {module} uses {word}", path.display(), number + 1));
                }
            }
        }
    }
    Ok(())
}

/// The relay's module that a file belongs to; the crate's own roots belong to none.
fn module_of(source: &Path, path: &Path) -> Option<String> {
    let first = path.strip_prefix(source).ok()?.components().next()?;
    let name = first.as_os_str().to_string_lossy();
    let name = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
    (!matches!(name.as_str(), "lib" | "main" | "bin")).then_some(name)
}

fn layer_of(module: &str) -> Option<usize> {
    RELAY_LAYERS.iter().position(|layer| layer.contains(&module))
}
