//! `cargo xtask tidy`: the rules of form that no compiler checks (CONTRIBUTING.md).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::root;

/// Folders with Rust of ours.
const SOURCES: &[&str] =
    &["accel", "benches", "client", "fuzz", "hsm", "protocol", "relay", "tests", "xtask"];
/// Columns of a line.
const COLUMNS_MAX: usize = 100;
/// Lines of a file; a table or generated kernel is listed in [`LONG_FILES`].
const LINES_MAX: usize = 700;
/// Files that may be longer: tables and unrolled kernels.
const LONG_FILES: &[&str] = &["accel/src/backend/blowfish/pi.rs"];
/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];
/// Words of unfinished work.
const LEFTOVERS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];
/// Where `unsafe` may be expected.
const UNSAFE_PLACES: &[&str] = &["accel/src/backend/", "relay/src/ring/"];

/// Checks every file and names what is out of form.
pub(crate) fn run() -> Result<()> {
    let mut wrong = Vec::new();
    let mut count = 0;
    for folder in SOURCES {
        let folder = root().join(folder);
        if !folder.exists() {
            continue;
        }
        for path in rust_files(&folder)? {
            count += 1;
            file(&path, &mut wrong)?;
        }
    }
    if wrong.is_empty() {
        eprintln!("tidy: {count} files in form");
        return Ok(());
    }
    bail!("out of form:\n  {}", wrong.join("\n  "));
}

/// All Rust files below `folder`, build output left out.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn file(path: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    let relative = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    let mut say = |line: usize, what: &str| wrong.push(format!("{relative}:{line}: {what}"));

    if !text.starts_with("//! ") {
        say(1, "does not open with `//!` saying what it is for");
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if EMPTY_NAMES.contains(&stem.as_ref()) {
        say(1, "its name says nothing");
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !LONG_FILES.contains(&relative.as_str()) {
        say(lines, "is too long: split it by meaning");
    }
    let is_rule_list = relative == "xtask/src/tidy.rs";
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        // A long string literal has no good place to break.
        let is_literal = line.contains('"') || line.ends_with('\\');
        if line.chars().count() > COLUMNS_MAX && !is_literal {
            say(number, "is wider than 100 columns");
        }
        if line.trim_end() != line {
            say(number, "ends in blanks");
        }
        if !is_rule_list && LEFTOVERS.iter().any(|word| has_word(line, word)) {
            say(number, "has a leftover marker");
        }
        let expects_unsafe = ["expect(unsafe_code", "allow(unsafe_code"]
            .iter()
            .any(|attribute| line.contains(attribute));
        let may = UNSAFE_PLACES.iter().any(|place| relative.starts_with(place));
        if expects_unsafe && !may && !is_rule_list {
            say(number, "expects unsafe outside the places that may hold it");
        }
    }
    Ok(())
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}
